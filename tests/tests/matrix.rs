//! Who may do what: every function and every table, by role and kind of bucket, with a cold cache and one that an
//! administrator warmed. A function or table without a line here fails.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::Upload;
use pg_storage_tests::scene::takes_parts;
use pg_storage_tests::{Refusal, Scene, say};
use postgres::{Client, SimpleQueryMessage};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Who asks, in the order of the columns below: role, user and tenant of the claims.
const WHO: [(&str, &str, &str, &str); 8] = [
    ("owner", "writer", "ada", "acme"),
    // The owner, given less.
    ("reader", "reader", "ada", "acme"),
    ("other user", "writer", "bob", "acme"),
    // The same user id in another tenant is another user.
    ("other tenant", "writer", "ada", "globex"),
    ("no claims", "writer", "", ""),
    // A role that was granted nothing, with the owner's claims.
    ("anonymous", "anonymous", "ada", "acme"),
    ("manager", "manager", "max", "acme"),
    ("superuser", "superuser", "max", "acme"),
];

/// Whose file, bucket or upload a statement is about, in the order of the letters in a cell: ada's private, public and
/// temp bucket, and one of the tenant's. In each she has a file and a pending upload.
const BUCKETS: [&str; 4] = ["private", "public", "temp", "shared"];

/// `+` done. `-` there is no such row for the caller, or none that he may change (42704, or no row). `x` forbidden (42501).
/// `s` allowed, and not in this state (55000). `!` allowed, and refused by a rule of the table. One letter where the bucket
/// makes no difference.
#[rustfmt::skip]
const MATRIX: &[(&str, &str)] = &[
    // owner
    //      reader
    //           other user
    //                other tenant
    //                     no claims
    //                          anonymous
    //                               manager
    //                                    superuser
    ("+    +    +    +    +    x    +    +   ", "SELECT storage.current_user_id()"),
    ("+    +    +    +    +    x    +    +   ", "SELECT storage.current_tenant_id()"),
    ("+    +    +    +    +    x    +    +   ", "SELECT storage.operation()"),
    ("++++ ++++ -+-+ ---- ---- xxxx -+-+ ++++", "SELECT storage.download_url('{file}')"),
    ("++++ ++++ -+-+ ---- ---- xxxx -+-+ ++++", "SELECT storage.download_urls(ARRAY['{file}']::uuid[])"),
    ("++++ ++++ -+-+ ---- ---- xxxx -+-+ ++++", "SELECT storage.files_download_url(f) FROM storage.files f WHERE id = '{file}'"),
    ("s+ss s+ss -+-s ---- ---- xxxx -+-s s+ss", "SELECT storage.public_url('{file}')"),
    ("++++ ++++ -+-+ ---- ---- xxxx -+-+ ++++", "SELECT storage.get_file('{file}')"),
    ("++++ xxxx -x-+ ---- ---- xxxx xxx+ ++++", "SELECT storage.put_file('{bucket}', 'a.txt', 'a', 'text/plain')"),
    ("++++ xxxx -x-+ ---- ---- xxxx -x-+ ++++", "SELECT storage.copy_file('{file}')"),
    ("++++ xxxx ---- ---- ---- xxxx ---- ++++", "SELECT storage.move_file('{file}', path => 'moved')"),
    ("++++ xxxx ---- ---- ---- xxxx ---- ----", "SELECT storage.move_file('{file}', 'temp', 'moved')"),
    ("+++s xxxx ---- ---- ---- xxxx ---- +++s", "SELECT storage.set_file_access('{file}', 'temp')"),
    ("++++ xxxx -+-+ ---- ---- xxxx -+-+ ++++", "SELECT storage.restore_version('{file}')"),
    ("++++ xxxx -+-+ ---- ---- xxxx ++++ ++++", "SELECT storage.expire_versions('{bucket}', keep => 0)"),
    ("++++ ++++ -+-+ ---- ---- xxxx ++++ ++++", "SELECT count(*) FROM storage.search_files('{bucket}', '{\"a\": 1}')"),
    ("++++ ++++ -+-+ ---- ---- xxxx ++++ ++++", "SELECT count(*) FROM storage.list_files('{bucket}')"),
    ("++++ xxxx -x-+ ---- ---- xxxx xxx+ ++++", "SELECT storage.request_upload_url('{bucket}', 'a.txt', 'text/plain', 1)"),
    ("++++ xxxx -x-+ ---- ---- xxxx xxx+ ++++", "SELECT storage.request_upload_urls('{bucket}', '{\"(a.txt,text/plain,1,,,)\",\"(b.txt,text/plain,1,,,)\"}')"),
    ("++++ xxxx -x-+ ---- ---- xxxx xxx+ ++++", "SELECT storage.request_upload_form('{bucket}', 'a.txt', 'text/plain', 1)"),
    ("++++ xxxx -x-+ ---- ---- xxxx xxx+ ++++", "SELECT storage.request_multipart_upload('{bucket}', 'a.txt', 'text/plain', 1)"),
    // The uploads are by PUT. Not even the superuser sends parts in another's name.
    ("ssss xxxx ---- ---- ---- xxxx ---- ssss", "SELECT storage.sign_upload_parts('{upload}', '{1}')"),
    ("ssss xxxx ---- ---- ---- xxxx ---- ssss", "SELECT storage.list_upload_parts('{upload}')"),
    ("++++ xxxx ---- ---- ---- xxxx ---- ++++", "SELECT storage.confirm_upload('{upload}')"),
    ("++++ xxxx ---- ---- ---- xxxx ---- ++++", "SELECT storage.confirm_uploads(ARRAY['{upload}']::uuid[])"),
    ("++++ xxxx ---- ---- ---- xxxx ---- ++++", "SELECT storage.abort_upload('{upload}')"),
    ("++++ xxxx ---- ---- ---- xxxx ---- ++++", "SELECT storage.delete_file('{file}')"),
    ("x    x    x    x    x    x    +    +   ", "SELECT storage.create_bucket('new')"),
    ("x    x    x    x    x    x    +    +   ", "SELECT storage.create_bucket('new', owner_id => NULL)"),
    ("x    x    x    x    x    x    +    +   ", "SELECT storage.create_user_buckets('eve')"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx ++++ ++++", "SELECT storage.provision_bucket('{bucket}')"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx ++++ ++++", "SELECT storage.inspect_bucket('{bucket}')"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx ssss ssss", "SELECT storage.delete_bucket('{bucket}')"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx ++++ ++++", "SELECT storage.delete_bucket('{bucket}', force => true)"),
    ("x    x    x    x    x    x    x    +   ", "CREATE TEMP TABLE users (id text); CREATE TRIGGER t AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION storage.seed_user_buckets(); INSERT INTO users VALUES ('eve')"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.grant_access('pg_monitor', 'manager')"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.revoke_access('pg_monitor')"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.add_policy('all', 'files', 'read', 'true')"),
    ("x    x    x    x    x    x    x    -   ", "SELECT storage.drop_policy('none')"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.enable_default_policies(false)"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.claim_events()"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.acknowledge_events('{}')"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.replay_events(now())"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.check()"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.cache_stats()"),
    ("x    x    x    x    x    x    x    -   ", "SELECT storage.provisioned_buckets()"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.reset_cache()"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.run_maintenance()"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx ----", "SELECT storage.scan_orphans((SELECT physical_name FROM storage.buckets WHERE id = '{bucket}'), '1 day', true)"),
    ("x    x    x    x    x    x    x    -   ", "SELECT storage.adopt_bucket('nobodys-bucket')"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx ++++", "SELECT storage.import_objects('{bucket}', '{\"(nothing,,,,,,,,,,)\"}')"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.adopt_installation()"),
    ("x    x    x    x    x    x    x    +   ", "SELECT storage.start_worker()"),
    ("++++ ++++ -+-+ ---- ---- xxxx ++++ ++++", "SELECT FROM storage.buckets WHERE id = '{bucket}'"),
    ("x    x    x    x    x    x    +    +   ", "INSERT INTO storage.buckets (tenant_id, key) VALUES ('acme', 'new')"),
    ("x    x    x    x    x    x    x    +   ", "INSERT INTO storage.buckets (key, physical_name) VALUES ('new', 'named')"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx ++++ ++++", "UPDATE storage.buckets SET max_file_size = 9 WHERE id = '{bucket}'"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx ++++", "UPDATE storage.buckets SET owner_id = 'max' WHERE id = '{bucket}'"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx ssss ssss", "DELETE FROM storage.buckets WHERE id = '{bucket}'"),
    ("x    x    x    x    x    x    x    !   ", "TRUNCATE storage.buckets"),
    ("++++ ++++ -+-+ ---- ---- xxxx -+-+ ++++", "SELECT FROM storage.files WHERE id = '{file}'"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx !!!!", "INSERT INTO storage.files SELECT * FROM storage.files WHERE id = '{file}'"),
    ("++++ xxxx ---- ---- ---- xxxx ---- ++++", "UPDATE storage.files SET filename = 'b.txt', path = 'b' WHERE id = '{file}'"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx ++++", "UPDATE storage.files SET owner_id = 'max' WHERE id = '{file}'"),
    ("++++ xxxx ---- ---- ---- xxxx ---- ++++", "DELETE FROM storage.files WHERE id = '{file}'"),
    ("x    x    x    x    x    x    x    s   ", "TRUNCATE storage.files"),
    ("++++ xxxx ---- ---- ---- xxxx ---- ++++", "SELECT FROM storage.upload_requests WHERE id = '{upload}'"),
    ("++++ xxxx -x-+ ---- ---- xxxx xxx+ ++++", "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size) VALUES ('{bucket}', 'a.txt', 'text/plain', 1)"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx ++++", "UPDATE storage.upload_requests SET status = 'uploaded' WHERE id = '{upload}'"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx ++++", "DELETE FROM storage.upload_requests WHERE id = '{upload}'"),
    ("x    x    x    x    x    x    x    s   ", "TRUNCATE storage.upload_requests"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx ++++", "SELECT FROM storage.objects WHERE id = '{object}'"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx !!!!", "INSERT INTO storage.objects SELECT * FROM storage.objects WHERE id = '{object}'"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx ++++", "UPDATE storage.objects SET key = 'x' WHERE id = '{object}'"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx xxxx !!!!", "DELETE FROM storage.objects WHERE id = '{object}'"),
    ("x    x    x    x    x    x    x    !   ", "TRUNCATE storage.objects"),
    ("x    x    x    x    x    x    +    +   ", "SELECT FROM storage.tenant_settings WHERE tenant_id = 'acme'"),
    ("x    x    x    x    x    x    x    +   ", "INSERT INTO storage.tenant_settings VALUES ('globex', NULL)"),
    ("x    x    x    x    x    x    +    +   ", "UPDATE storage.tenant_settings SET allowed_origins = NULL WHERE tenant_id = 'acme'"),
    ("x    x    x    x    x    x    +    +   ", "DELETE FROM storage.tenant_settings WHERE tenant_id = 'acme'"),
    ("x    x    x    x    x    x    x    +   ", "TRUNCATE storage.tenant_settings"),
    ("xxxx xxxx xxxx xxxx xxxx xxxx ++++ ++++", "SELECT FROM storage.physical_buckets WHERE name IN (SELECT b.physical_name FROM storage.buckets b WHERE id = '{bucket}')"),
    ("x    x    x    x    x    x    x    !   ", "INSERT INTO storage.physical_buckets SELECT * FROM storage.physical_buckets"),
    ("x    x    x    x    x    x    x    +   ", "UPDATE storage.physical_buckets SET state = 'pending'"),
    ("x    x    x    x    x    x    x    +   ", "DELETE FROM storage.physical_buckets"),
    ("x    x    x    x    x    x    x    +   ", "TRUNCATE storage.physical_buckets"),
    ("x    x    x    x    x    x    x    +   ", "SELECT FROM storage.store_capabilities"),
    ("x    x    x    x    x    x    x    !   ", "INSERT INTO storage.store_capabilities SELECT * FROM storage.store_capabilities"),
    ("x    x    x    x    x    x    x    +   ", "UPDATE storage.store_capabilities SET endpoint = 'x'"),
    ("x    x    x    x    x    x    x    +   ", "DELETE FROM storage.store_capabilities"),
    ("x    x    x    x    x    x    x    +   ", "TRUNCATE storage.store_capabilities"),
    ("x    x    x    x    x    x    x    +   ", "SELECT FROM storage.object_deletions"),
    ("x    x    x    x    x    x    x    +   ", "INSERT INTO storage.object_deletions (physical_name, key, reason, not_before) VALUES ('a', 'b', 'c', now())"),
    ("x    x    x    x    x    x    x    +   ", "UPDATE storage.object_deletions SET not_before = now()"),
    ("x    x    x    x    x    x    x    +   ", "DELETE FROM storage.object_deletions"),
    ("x    x    x    x    x    x    x    +   ", "TRUNCATE storage.object_deletions"),
    ("x    x    x    x    x    x    x    +   ", "SELECT FROM storage.events"),
    ("x    x    x    x    x    x    x    !   ", "INSERT INTO storage.events (kind, file_id) VALUES ('created', gen_random_uuid())"),
    ("x    x    x    x    x    x    x    +   ", "UPDATE storage.events SET acknowledged_at = now()"),
    ("x    x    x    x    x    x    x    +   ", "DELETE FROM storage.events"),
    ("x    x    x    x    x    x    x    +   ", "TRUNCATE storage.events"),
    ("x    x    x    x    x    x    x    +   ", "SELECT FROM storage.upload_state"),
    ("s    s    s    s    s    x    s    s   ", "DELETE FROM storage.upload_state"),
    ("x    x    x    x    x    x    x    +   ", "SELECT FROM storage.bucket_usage"),
    ("s    s    s    s    s    x    s    s   ", "DELETE FROM storage.bucket_usage"),
    ("x    x    x    x    x    x    x    -   ", "SELECT FROM storage.bucket_deletions"),
    ("x    x    x    x    x    x    x    -   ", "DELETE FROM storage.bucket_deletions"),
    ("x    x    x    x    x    x    x    +   ", "SELECT FROM storage.deletion_queue"),
    ("x    x    x    x    x    x    x    +   ", "DELETE FROM storage.deletion_queue"),
    ("x    x    x    x    x    x    x    +   ", "SELECT FROM storage.provisioning_state"),
    ("s    s    s    s    s    x    s    s   ", "DELETE FROM storage.provisioning_state"),
    ("x    x    x    x    x    x    x    +   ", "SELECT FROM storage.worker_state"),
    ("s    s    s    s    s    x    s    s   ", "DELETE FROM storage.worker_state"),
];

struct Acme {
    scene: Scene,
    rows: Vec<[String; 4]>,
}

impl Acme {
    fn new() -> Self {
        let scene = Scene::local();
        scene.database.role("reader");
        let name = scene.database.name().to_owned();
        let mut acme = Self { rows: Vec::new(), scene };
        acme.scene.superuser().batch_execute(&format!("CREATE ROLE {name}_anonymous LOGIN")).unwrap();
        acme.session(WHO[6])
            .batch_execute(
                "SELECT storage.create_user_buckets('ada'); SELECT storage.create_user_buckets('bob');
                 SELECT storage.create_bucket('shared', owner_id => NULL);
                 INSERT INTO storage.tenant_settings VALUES ('acme', '{https://acme.example}')",
            )
            .unwrap();
        let mut ada = acme.session(WHO[0]);
        for bucket in BUCKETS {
            let bytes = format!("ada's in {bucket}");
            let file = Upload::of(bytes.as_bytes()).to(bucket).complete(&mut ada, bytes.as_bytes()).file_id;
            let upload = Upload::of(bytes.as_bytes()).to(bucket).request(&mut ada).upload_id;
            let query =
                "SELECT bucket_id::text, object_id::text FROM storage.files WHERE id = $1::text::uuid";
            let row = acme.scene.superuser().query_one(query, &[&file]).unwrap();
            acme.rows.push([row.get(0), file, upload, row.get(1)]);
        }
        acme
    }

    fn session(&self, (_, role, user, tenant): (&str, &str, &str, &str)) -> Client {
        let database = &self.scene.database;
        let role = match role {
            "superuser" => "postgres".to_owned(),
            role => format!("{}_{role}", database.name()),
        };
        database.connect_as(&role, &[("jwt.claims.user_id", user), ("jwt.claims.tenant_id", tenant)])
    }

    /// The statement about one of the buckets.
    fn about(&self, statement: &str, bucket: usize) -> String {
        ["{bucket}", "{file}", "{upload}", "{object}"]
            .iter()
            .zip(&self.rows[bucket])
            .fold(statement.to_owned(), |statement, (name, id)| statement.replace(name, id))
    }
}

/// The letter of a statement that is tried and rolled back.
fn outcome(session: &mut Client, statement: &str) -> char {
    session.batch_execute("BEGIN").unwrap();
    let answer = session.simple_query(statement);
    session.batch_execute("ROLLBACK").unwrap();
    match answer {
        Ok(messages) => {
            let rows = messages.iter().rev().find_map(|message| match message {
                SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
                _ => None,
            });
            if rows == Some(0) && !statement.starts_with("TRUNCATE") { '-' } else { '+' }
        }
        Err(error) => {
            let refusal = Refusal::of(&error).unwrap_or_else(|| panic!("{statement}: {error}"));
            match (refusal.sqlstate.as_str(), refusal.token.as_str()) {
                // Started by the case before.
                (_, "WORKER_RUNNING") => '+',
                ("42501", _) => 'x',
                ("42704", _) => '-',
                ("55000", _) => 's',
                ("23502" | "23503" | "23505" | "23514" | "0A000" | "428C9", _) => '!',
                _ => panic!("{statement}: {refusal:?}"),
            }
        }
    }
}

/// What the cache of provisioned buckets knows when somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    /// Nothing, in every case.
    Cold,
    /// All that an administrator has just used.
    Warm,
}

fn warm_up(acme: &Acme, admin: &mut Client) {
    for [bucket, file, ..] in &acme.rows {
        for statement in [
            format!("SELECT storage.provision_bucket('{bucket}')"),
            format!("SELECT storage.download_url('{file}')"),
            format!(
                "BEGIN; SELECT storage.request_upload_url('{bucket}', 'a.txt', 'text/plain', 1); ROLLBACK"
            ),
        ] {
            admin.batch_execute(&statement).unwrap();
        }
    }
    let warm = "SELECT count(*) FROM storage.provisioned_buckets()";
    assert_eq!(admin.query_one(warm, &[]).unwrap().get::<_, i64>(0), 3, "one for each access");
}

/// What a statement says, with the ids and keys in it taken out.
fn words(session: &mut Client, statement: &str, names: &[&str]) -> Result<u64, Refusal> {
    session.batch_execute("BEGIN").unwrap();
    let answer = session.execute(statement, &[]);
    session.batch_execute("ROLLBACK").unwrap();
    answer.map_err(|error| {
        let mut refusal = Refusal::of(&error).unwrap_or_else(|| panic!("{statement}: {error}"));
        for name in names {
            refusal.message = refusal.message.replace(name, "?");
            refusal.detail = refusal.detail.map(|detail| detail.replace(name, "?"));
            refusal.hint = refusal.hint.map(|hint| hint.replace(name, "?"));
        }
        refusal
    })
}

/// Every line of the table that names a row, wherever that row is not the caller's: hidden and absent are one answer, to
/// the letter. Time is not asserted: both end at one look-up by primary key, and what a policy costs is less than noise.
#[test]
fn what_is_hidden_is_answered_as_what_is_absent() {
    const ABSENT: &str = "00000000-0000-4000-8000-000000000000";
    let acme = Acme::new();
    let mut compared = 0;
    let elsewhere = ("manager of another tenant", "manager", "ada", "globex");
    for who in WHO.into_iter().filter(|who| who.1 != "superuser").chain([elsewhere]) {
        let mut session = acme.session(who);
        let mut same = |hidden: &str, absent: &str, names: &[&str]| {
            let (hidden_words, absent_words) =
                (words(&mut session, hidden, names), words(&mut session, absent, names));
            assert_eq!(hidden_words, absent_words, "{}: {hidden}", who.0);
            compared += 1;
        };
        for (letters, statement) in MATRIX {
            let Some(place) = WHO.iter().position(|other| *other == who) else {
                // Nothing there is this manager's.
                for bucket in 0..BUCKETS.len() {
                    let about = acme.about(statement, bucket);
                    if about != **statement {
                        let names: Vec<&str> =
                            acme.rows[bucket].iter().map(String::as_str).chain([ABSENT]).collect();
                        let absent =
                            names.iter().fold(about.clone(), |text, name| text.replace(name, ABSENT));
                        same(&about, &absent, &names);
                    }
                }
                continue;
            };
            let cell = letters.split_whitespace().nth(place).unwrap();
            for (bucket, letter) in cell.chars().enumerate() {
                let about = acme.about(statement, bucket);
                if letter == '-' && about != **statement {
                    let names: Vec<&str> =
                        acme.rows[bucket].iter().map(String::as_str).chain([ABSENT]).collect();
                    let absent = names.iter().fold(about.clone(), |text, name| text.replace(name, ABSENT));
                    same(&about, &absent, &names);
                }
            }
        }
        // By key: no caller finds a bucket of another owner by it, seen or not.
        for (_, statement) in MATRIX.iter().filter(|(_, statement)| {
            statement.starts_with("SELECT storage.") && statement.contains("'{bucket}'")
        }) {
            if statement.contains("scan_orphans") || ["owner", "reader", "other user"].contains(&who.0) {
                continue;
            }
            for key in if who.3 == "acme" { &BUCKETS[..3] } else { &BUCKETS[..] } {
                same(
                    &statement.replace("{bucket}", key),
                    &statement.replace("{bucket}", "nobodys"),
                    &[key, "nobodys"],
                );
            }
        }
    }
    say(&format!("{compared} pairs of hidden and absent rows"));
    assert!(compared > 300, "{compared}");
}

/// The letters of each statement, and how many cases that were.
fn run(acme: &Acme, cache: Cache) -> (Vec<String>, usize) {
    let mut admin = acme.scene.superuser();
    let mut cells = vec![Vec::new(); MATRIX.len()];
    let mut cases = 0;
    for who in WHO {
        let mut session = acme.session(who);
        if cache == Cache::Warm {
            warm_up(acme, &mut admin);
        }
        for ((_, statement), cells) in MATRIX.iter().zip(&mut cells) {
            let about_one =
                ["{bucket}", "{file}", "{upload}", "{object}"].iter().any(|name| statement.contains(name));
            let mut letters = String::new();
            for bucket in 0..if about_one { BUCKETS.len() } else { 1 } {
                if cache == Cache::Cold {
                    admin.batch_execute("SELECT storage.reset_cache()").unwrap();
                }
                letters.push(outcome(&mut session, &acme.about(statement, bucket)));
                cases += 1;
            }
            cells.push(letters);
        }
    }
    (cells.iter().map(|cells| cells.join(" ")).collect(), cases)
}

#[test]
fn everybody_may_do_what_the_table_says_with_a_cold_cache_and_a_warm_one() {
    let acme = Acme::new();
    let rows = acme.scene.rows();
    let mut told = String::new();
    let mut total = 0;
    for cache in [Cache::Cold, Cache::Warm] {
        let (found, cases) = run(&acme, cache);
        total += cases;
        for ((expected, statement), found) in MATRIX.iter().zip(found) {
            let mut expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
            // Whoever may ask for it is told that the store takes none.
            if statement.contains("request_multipart_upload") && !takes_parts() {
                expected = expected.replace('+', "s");
            }
            if expected != found {
                writeln!(told, "    ({found:?}, {statement:?}), // {cache:?}, not {expected}").unwrap();
            }
        }
    }
    say(&format!(
        "{total} cases: {} statements, {} roles, {} kinds of buckets, a cold cache and a warm one",
        MATRIX.len(),
        WHO.len(),
        BUCKETS.len()
    ));
    assert!(told.is_empty(), "\n{told}");
    let mut after = acme.scene.rows();
    // The worker that was started works off the queue.
    after[3] = rows[3];
    assert_eq!(after, rows, "everything was rolled back");
}

#[test]
fn every_function_and_every_table_has_its_line() {
    let scene = Scene::local();
    let names = |query: &str| -> BTreeSet<String> {
        scene.superuser().query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    let lines: Vec<&str> = MATRIX.iter().map(|(_, statement)| *statement).collect();
    for function in names("SELECT proname::text FROM pg_proc WHERE pronamespace = 'storage'::regnamespace") {
        let call = format!("storage.{function}(");
        assert!(lines.iter().any(|line| line.contains(&call)), "{function} has no line in the matrix");
    }
    // What takes an id or a bucket's key is tried with those of others.
    let by_id = names(
        "SELECT proname::text FROM pg_proc WHERE pronamespace = 'storage'::regnamespace
         AND (proargtypes::oid[] && '{uuid,uuid[]}'::regtype[]::oid[] OR 'bucket' = ANY (proargnames))",
    );
    assert!(by_id.len() > 8, "{by_id:?}");
    for function in by_id {
        let call = format!("storage.{function}(");
        assert!(
            lines.iter().any(|line| line.contains(&call) && line.contains('{')),
            "{function} is tried without an id"
        );
    }
    let relations = |kind: &str| {
        names(&format!(
            "SELECT relname::text FROM pg_class WHERE relnamespace = 'storage'::regnamespace AND relkind = '{kind}'"
        ))
    };
    for (relations, commands) in [
        (relations("r"), &["SELECT FROM", "INSERT INTO", "UPDATE", "DELETE FROM", "TRUNCATE"][..]),
        (relations("v"), &["SELECT FROM", "DELETE FROM"]),
    ] {
        assert!(relations.len() > 4, "{relations:?}");
        for relation in &relations {
            for command in commands {
                let start = format!("{command} storage.{relation}");
                let named = |line: &&str| {
                    line.strip_prefix(&start)
                        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
                };
                assert!(lines.iter().any(named), "{start} has no line in the matrix");
            }
        }
    }
}
