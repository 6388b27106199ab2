//! Buckets as rows: made by the trigger, by create_user_buckets and by create_bucket, and found again by name.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::{Cluster, Database, refused};
use postgres::Client;

/// Tenant, owner, key, access and default of every bucket.
fn buckets(database: &Database<'_>) -> Vec<(String, Option<String>, String, String, bool)> {
    let query = "SELECT tenant_id, owner_id, key, access::text, is_default FROM storage.buckets
                 ORDER BY tenant_id, owner_id, access::text DESC, key";
    let rows = database.superuser().query(query, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect()
}

/// What seeding makes for one user.
fn three(tenant: &str, owner: &str) -> Vec<(String, Option<String>, String, String, bool)> {
    ["temp", "public", "private"]
        .map(|name| {
            (tenant.to_owned(), Some(owner.to_owned()), name.to_owned(), name.to_owned(), name == "private")
        })
        .into()
}

/// A users table with the trigger, and a role that may do nothing but add users.
fn users<'a>(columns: &str, arguments: &str) -> (Database<'a>, Client) {
    let database = Cluster::shared().database();
    let role = format!("{}_hr", database.name());
    database
        .superuser()
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN;
             CREATE TABLE public.users ({columns});
             GRANT INSERT, UPDATE ON public.users TO {role};
             CREATE TRIGGER seed AFTER INSERT ON public.users
             FOR EACH ROW EXECUTE FUNCTION storage.seed_user_buckets({arguments})"
        ))
        .unwrap();
    let session = database.connect_as(&role, &[]);
    (database, session)
}

#[test]
fn adding_a_user_makes_three_buckets_without_any_privilege_on_storage() {
    let (database, mut session) = users("id uuid PRIMARY KEY", "");
    let id = "11111111-2222-3333-4444-555555555555";
    session.batch_execute(&format!("INSERT INTO users VALUES ('{id}')")).unwrap();
    assert_eq!(buckets(&database), three("default", id));
    assert_eq!(refused(session.query("SELECT FROM storage.buckets", &[])).sqlstate, "42501");
    // Nothing touches the store before the first upload.
    let touched =
        "SELECT count(physical_name) + (SELECT count(*) FROM storage.physical_buckets) FROM storage.buckets";
    assert_eq!(database.superuser().query_one(touched, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn each_row_of_a_statement_is_seeded_in_the_callers_tenant() {
    let (database, mut session) = users("id int PRIMARY KEY", "");
    session
        .batch_execute("SET jwt.claims.tenant_id = 'acme'; INSERT INTO users VALUES (1), (2), (30)")
        .unwrap();
    assert_eq!(buckets(&database), [three("acme", "1"), three("acme", "2"), three("acme", "30")].concat());
}

#[test]
fn columns_of_other_names_hold_user_and_tenant() {
    let (database, mut session) = users("\"User Name\" text, org text, id int", "'User Name', 'org'");
    session
        .batch_execute("INSERT INTO users VALUES ('ada', 'acme', NULL), ('o''hara', 'globex', 7)")
        .unwrap();
    assert_eq!(buckets(&database), [three("acme", "ada"), three("globex", "o'hara")].concat());
}

#[test]
fn a_user_without_id_or_tenant_is_refused_and_not_added() {
    for (columns, arguments, row, code) in [
        ("id int", "", "(NULL)", ("22023", "INVALID_BUCKET_KEY")),
        ("id text", "", "('')", ("22023", "INVALID_BUCKET_KEY")),
        ("uid int", "", "(1)", ("22023", "INVALID_BUCKET_KEY")),
        ("id int, org text", "'id', 'org'", "(1, NULL)", ("42501", "TENANT_REQUIRED")),
        ("id int", "'id', 'org'", "(1)", ("42501", "TENANT_REQUIRED")),
    ] {
        let (database, mut session) = users(columns, arguments);
        let refusal = refused(session.batch_execute(&format!("INSERT INTO users VALUES {row}")));
        assert_eq!(refusal.code(), code, "{columns}: {refusal:?}");
        assert!(refusal.detail.is_some_and(|detail| detail.contains("public.users")), "{columns}");
        assert_eq!(buckets(&database), []);
        let added = database.superuser().query("SELECT FROM public.users", &[]).unwrap().len();
        assert_eq!(added, 0);
    }
}

#[test]
fn seeding_again_changes_nothing() {
    let (database, mut session) = users("id int", "");
    session.batch_execute("INSERT INTO users VALUES (1)").unwrap();
    database.superuser().batch_execute("UPDATE storage.buckets SET max_file_size = 5").unwrap();
    session.batch_execute("INSERT INTO users VALUES (1), (1)").unwrap();
    assert_eq!(buckets(&database), three("default", "1"));
    let kept = "SELECT count(*) FROM storage.buckets WHERE max_file_size = 5";
    assert_eq!(database.superuser().query_one(kept, &[]).unwrap().get::<_, i64>(0), 3);
}

#[test]
fn rolling_the_user_back_takes_the_buckets_along() {
    let (database, mut session) = users("id int", "");
    session.batch_execute("BEGIN; INSERT INTO users VALUES (1); ROLLBACK").unwrap();
    assert_eq!(buckets(&database), []);
}

#[test]
fn attaching_the_trigger_takes_execute_on_it() {
    let database = Cluster::shared().database();
    let manager = database.role("manager");
    database.superuser().batch_execute(&format!("CREATE SCHEMA mine AUTHORIZATION {manager}")).unwrap();
    let mut session = database.connect_as(&manager, &[]);
    session.batch_execute("CREATE TABLE mine.users (id int)").unwrap();
    let attach = "CREATE TRIGGER seed AFTER INSERT ON mine.users FOR EACH ROW EXECUTE FUNCTION storage.seed_user_buckets()";
    assert_eq!(refused(session.batch_execute(attach)).sqlstate, "42501");

    database
        .superuser()
        .batch_execute(&format!("GRANT EXECUTE ON FUNCTION storage.seed_user_buckets() TO {manager}"))
        .unwrap();
    session.batch_execute(attach).unwrap();
    session.batch_execute("INSERT INTO mine.users VALUES (1)").unwrap();
    assert_eq!(buckets(&database), three("default", "1"));
}

/// The trigger runs as the extension's owner over a table that belongs to somebody else.
#[test]
fn the_owner_of_the_users_table_gains_nothing_from_the_trigger() {
    let (database, mut session) = users("id int", "");
    let owner = format!("{}_hr", database.name());
    database
        .superuser()
        .batch_execute(&format!(
            "ALTER TABLE public.users OWNER TO {owner}; CREATE SCHEMA evil AUTHORIZATION {owner};
             CREATE TABLE evil.ran (who text); ALTER TABLE evil.ran OWNER TO {owner}; GRANT INSERT ON evil.ran TO PUBLIC;
             GRANT USAGE ON SCHEMA evil TO PUBLIC"
        ))
        .unwrap();
    let traps: String = [("json", "'1'::json"), ("jsonb", "'1'::jsonb"), ("text", "'1'::text")]
        .iter()
        .map(|(target, value)| {
            format!(
                "CREATE FUNCTION evil.as_{target}(evil.mood) RETURNS {target} LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO evil.ran VALUES (current_user); RETURN {value}; END $$;
                 CREATE CAST (evil.mood AS {target}) WITH FUNCTION evil.as_{target}(evil.mood) AS IMPLICIT;"
            )
        })
        .collect();
    session
        .batch_execute(&format!(
            "CREATE TYPE evil.mood AS ENUM ('fine', '7');
             {traps}
             ALTER TABLE public.users ADD mood evil.mood, DROP id, ADD id evil.mood;
             SET search_path = evil, public;
             INSERT INTO users (mood, id) VALUES ('fine', '7')"
        ))
        .unwrap();
    assert_eq!(buckets(&database), three("default", "7"));
    let ran = database.superuser().query("SELECT who FROM evil.ran", &[]).unwrap();
    let ran: Vec<String> = ran.iter().map(|row| row.get(0)).collect();
    assert_eq!(ran, Vec::<String>::new(), "code of the table's owner ran");
}

#[test]
fn create_user_buckets_gives_public_private_temp_and_repeats_itself() {
    let database = Cluster::shared().database();
    let mut session = database.connect_as(&database.role("manager"), &[("jwt.claims.tenant_id", "acme")]);
    let mut make = || -> Vec<(String, String, bool)> {
        let rows = session
            .query("SELECT id::text, key, is_default FROM storage.create_user_buckets('ada')", &[])
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    };
    let first = make();
    let shape: Vec<_> = first.iter().map(|(_, key, default)| (key.as_str(), *default)).collect();
    assert_eq!(shape, [("public", false), ("private", true), ("temp", false)]);
    assert_eq!(make(), first);
    assert_eq!(buckets(&database), three("acme", "ada"));
    // One that went missing comes back; the others stay what they are.
    database.superuser().batch_execute("DELETE FROM storage.buckets WHERE key = 'temp'").unwrap();
    let again = make();
    assert_eq!(again[..2], first[..2]);
    assert_eq!((again.len(), again[2].1.as_str()), (3, "temp"));
    for nobody in [None, Some("")] {
        let refusal = refused(session.query("SELECT storage.create_user_buckets($1)", &[&nobody]));
        assert_eq!(refusal.code(), ("22023", "INVALID_BUCKET_KEY"));
    }
}

#[test]
fn bucket_keys_follow_their_rule() {
    let database = Cluster::shared().database();
    let mut session = database.connect_as(&database.role("manager"), &[("jwt.claims.user_id", "ada")]);
    let long = "a".repeat(64);
    for bad in [
        "",
        "A",
        "Docs",
        "do cs",
        "d/ocs",
        ".docs",
        "-docs",
        "_docs",
        "döcs",
        "docs\n",
        &long,
        "11111111-2222-3333-4444-555555555555",
        "11111111222233334444555555555555",
        "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        "1111-1111222233334444555555555555",
    ] {
        let refusal = refused(session.execute("SELECT storage.create_bucket($1)", &[&bad]));
        assert_eq!(refusal.code(), ("22023", "INVALID_BUCKET_KEY"), "{bad}");
        let refusal = refused(session.execute("INSERT INTO storage.buckets (key) VALUES ($1)", &[&bad]));
        assert_eq!(refusal.code(), ("22023", "INVALID_BUCKET_KEY"), "{bad}");
    }
    assert_eq!(
        refused(session.execute("SELECT storage.create_bucket(NULL)", &[])).code(),
        ("22023", "INVALID_BUCKET_KEY")
    );
    assert_eq!(buckets(&database), []);
    for good in ["a", "0", "docs.v1_x-y", &long[..63]] {
        session.execute("SELECT storage.create_bucket($1)", &[&good]).unwrap();
    }
    let refusal = refused(session.execute("UPDATE storage.buckets SET key = 'Docs' WHERE key = 'a'", &[]));
    assert_eq!(refusal.code(), ("22023", "INVALID_BUCKET_KEY"));
}

#[test]
fn create_bucket_says_what_is_wrong() {
    let database = Cluster::shared().database();
    let mut session = database.connect_as(&database.role("manager"), &[("jwt.claims.user_id", "ada")]);
    session.execute("SELECT storage.create_bucket('docs')", &[]).unwrap();
    for (call, code) in [
        ("storage.create_bucket('docs')", ("42710", "BUCKET_EXISTS")),
        ("storage.create_bucket('d', allowed_mime_types => '{text}')", ("22023", "INVALID_CONTENT_TYPE")),
        ("storage.create_bucket('d', allowed_mime_types => ARRAY[NULL])", ("22023", "INVALID_CONTENT_TYPE")),
        ("storage.create_bucket('d', allowed_origins => '{ftp://x}')", ("22023", "INVALID_ORIGIN")),
        (
            "storage.create_bucket('d', allowed_origins => ARRAY(SELECT format('https://a%s.example', n) FROM generate_series(1, 101) n))",
            ("22023", "INVALID_ORIGIN"),
        ),
        ("storage.create_bucket('d', max_file_size => 0)", ("22023", "INVALID_FILE_SIZE")),
        ("storage.create_bucket('d', max_file_size => -1)", ("22023", "INVALID_FILE_SIZE")),
    ] {
        let refusal = refused(session.query(&format!("SELECT {call}"), &[]));
        assert_eq!(refusal.code(), code, "{call}: {refusal:?}");
        assert!(refusal.hint.is_some(), "{call} shows no way out");
    }
    assert_eq!(buckets(&database).len(), 1);
    // The same key is free for other owners and for the tenant, whose NULL owner counts as one.
    session.execute("SELECT storage.create_bucket('docs', owner_id => 'bob')", &[]).unwrap();
    session.execute("SELECT storage.create_bucket('docs', owner_id => NULL)", &[]).unwrap();
    let refusal = refused(session.execute("SELECT storage.create_bucket('docs', owner_id => NULL)", &[]));
    assert_eq!(refusal.code(), ("42710", "BUCKET_EXISTS"));
}

#[test]
fn a_key_means_ones_own_bucket_first_and_the_tenants_next() {
    let database = Cluster::shared().database();
    let manager = database.role("manager");
    let claims = |user, tenant| [("jwt.claims.user_id", user), ("jwt.claims.tenant_id", tenant)];
    let mut ada = database.connect_as(&manager, &claims("ada", "acme"));
    let mut bob = database.connect_as(&manager, &claims("bob", "acme"));
    let mut eve = database.connect_as(&manager, &claims("eve", "globex"));
    let make = |session: &mut Client, arguments: &str| -> String {
        let query = format!("SELECT (storage.create_bucket({arguments})).id::text");
        session.query_one(&query, &[]).unwrap().get(0)
    };
    let find = |session: &mut Client, bucket: Option<&str>| {
        session
            .query_one("SELECT storage_private.find_bucket($1)::text", &[&bucket])
            .map(|row| row.get::<_, String>(0))
    };

    let tenants = make(&mut ada, "'docs', owner_id => NULL");
    assert_eq!(find(&mut ada, Some("docs")).unwrap(), tenants);
    let adas = make(&mut ada, "'docs'");
    assert_eq!(find(&mut ada, Some("docs")).unwrap(), adas);
    assert_eq!(find(&mut bob, Some("docs")).unwrap(), tenants);
    assert_eq!(find(&mut ada, Some(&tenants)).unwrap(), tenants);
    // Every spelling of an id that PostgreSQL reads.
    for spelling in [adas.to_uppercase(), format!("{{{adas}}}"), adas.replace('-', "")] {
        assert_eq!(find(&mut ada, Some(&spelling)).unwrap(), adas, "{spelling}");
    }
    for (session, bucket) in [(&mut eve, "docs"), (&mut bob, "nothing")] {
        assert_eq!(refused(find(session, Some(bucket))).code(), ("42704", "BUCKET_NOT_FOUND"));
    }
    assert_eq!(refused(find(&mut eve, Some(&adas))).code(), ("42704", "BUCKET_NOT_FOUND"));

    assert_eq!(refused(find(&mut bob, None)).code(), ("55000", "DEFAULT_BUCKET_MISSING"));
    let default = make(&mut bob, "'first', is_default => true");
    assert_eq!(find(&mut bob, None).unwrap(), default);
    // A tenant's default is nobody's own.
    make(&mut ada, "'shared', owner_id => NULL, is_default => true");
    assert_eq!(refused(find(&mut ada, None)).code(), ("55000", "DEFAULT_BUCKET_MISSING"));
    let second = make(&mut bob, "'second', is_default => true");
    let refusal = refused(find(&mut bob, None));
    assert_eq!(refusal.code(), ("55000", "DEFAULT_BUCKET_AMBIGUOUS"));
    let detail = refusal.detail.unwrap();
    assert!(detail.contains(&default) && detail.contains(&second), "{detail}");
}

#[test]
fn a_bucket_row_that_breaks_a_rule_is_refused_by_name_whoever_writes_it() {
    let scene = pg_storage_tests::Scene::local();
    scene.user("ada");
    let mut superuser = scene.superuser();
    let cases = [
        ("owner_id = ''", "22023", "INVALID_BUCKET_KEY"),
        ("max_file_size = 0", "22023", "INVALID_FILE_SIZE"),
        ("max_total_size = -1", "22023", "INVALID_FILE_SIZE"),
        ("max_file_count = 0", "22023", "INVALID_FILE_SIZE"),
        ("upload_url_ttl = '0'", "22023", "INVALID_EXPIRY"),
        ("download_url_ttl = '8 days'", "22023", "INVALID_EXPIRY"),
        ("file_ttl = '-1 day'", "22023", "INVALID_EXPIRY"),
        ("metadata = '[]'", "22023", "INVALID_METADATA"),
        ("allowed_origins = '{example.com}'", "22023", "INVALID_ORIGIN"),
        ("allowed_mime_types = '{png}'", "22023", "INVALID_CONTENT_TYPE"),
    ];
    for (change, sqlstate, token) in cases {
        let update = format!("UPDATE storage.buckets SET {change} WHERE key = 'private'");
        let refusal = pg_storage_tests::refused(superuser.batch_execute(&update));
        assert_eq!(refusal.code(), (sqlstate, token), "{change}");
        assert!(refusal.detail.is_some() && refusal.hint.is_some(), "{change}");
    }
    superuser.batch_execute("SELECT storage.create_bucket('defaults', NULL, is_default => NULL)").unwrap();
}

#[test]
fn a_bucket_with_files_is_not_deleted() {
    use pg_storage_tests::flow::{Upload, some_bytes};
    let scene = pg_storage_tests::Scene::local();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("kept", 10);
    let file = Upload::of(&bytes).complete(&mut ada, &bytes);
    let mut superuser = scene.superuser();
    let delete = "DELETE FROM storage.buckets WHERE key = 'private'";
    assert_eq!(
        pg_storage_tests::refused(superuser.batch_execute(delete)).code(),
        ("55000", "BUCKET_NOT_EMPTY")
    );
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&file.file_id]).unwrap();
    superuser.batch_execute(delete).unwrap();
}
