//! A server with every instrument on that PostgreSQL has for watching what it does: none of them shows a secret key, a
//! session token, or the signature of a URL that was given out; nor does the disk.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{Cluster, Fault, FaultyStore, LocalStore, Options, Scene, Stop, eventually, process};
use postgres::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TOKEN: &str = "FwoGZXIvYXdzEJr-session/token+of=these_tests";

/// What nobody may read, as it is and in the ways in which something may write it.
#[derive(Default)]
struct Forbidden(BTreeSet<String>);

impl Forbidden {
    fn add(&mut self, secret: &str) {
        let percent: String = secret
            .bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    char::from(byte).to_string()
                }
                _ => format!("%{byte:02X}"),
            })
            .collect();
        // A constant in a plan, as debug_print_plan writes one.
        let numbers: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
        let hexadecimal: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.0.extend([secret.to_owned(), percent, numbers.join(" "), hexadecimal]);
    }

    /// Takes the signature from a URL that was given out.
    fn add_url(&mut self, url: &str) {
        let (_, signature) = url.split_once("X-Amz-Signature=").expect("a signed URL");
        assert_eq!(signature.len(), 64, "the signature ends the URL");
        self.add(signature);
    }

    #[track_caller]
    fn assert_absent(&self, what: &str, bytes: &[u8]) {
        // Not the text: whoever reads the test's output is nobody either.
        let found: Vec<_> = self.found_in(bytes).map(|text| (&text[..6], text.len())).collect();
        assert!(found.is_empty(), "{what} has a secret: its beginning and length are {found:?}");
    }

    /// All of them in one pass over what may be hundreds of megabytes, not line by line: text may be broken over lines.
    fn found_in<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = &'a String> {
        let mut beginnings: BTreeMap<&[u8], Vec<&String>> = BTreeMap::new();
        let mut first = [false; 256];
        for text in &self.0 {
            beginnings.entry(&text.as_bytes()[..8]).or_default().push(text);
            first[usize::from(text.as_bytes()[0])] = true;
        }
        let candidates =
            bytes.windows(8).enumerate().filter(move |(_, window)| first[usize::from(window[0])]);
        candidates.flat_map(move |(at, window)| {
            let texts = beginnings.get(window).cloned().unwrap_or_default();
            texts.into_iter().filter(move |text| bytes[at..].starts_with(text.as_bytes()))
        })
    }
}

fn server(store: &LocalStore) -> &'static Cluster {
    let access = store.access();
    let options = Options::new()
        .setting("shared_preload_libraries", "pg_storage,auto_explain,pg_stat_statements")
        .setting("pg_storage.endpoint", &access.endpoint)
        .setting("pg_storage.region", &access.region)
        .setting("pg_storage.access_key_id", &access.access_key_id)
        .setting("pg_storage.secret_access_key", &access.secret_access_key)
        .setting("pg_storage.allowed_origins", "https://app.example.com")
        .setting("pg_storage.databases", "test_1")
        .setting("pg_storage.deletion_delay", "0")
        .setting("pg_storage.worker_interval", "1s");
    let instruments = [
        ("log_min_messages", "debug5"),
        ("log_min_error_statement", "debug5"),
        ("log_error_verbosity", "verbose"),
        ("log_statement", "all"),
        ("log_min_duration_statement", "0"),
        ("log_parameter_max_length", "-1"),
        ("log_parameter_max_length_on_error", "-1"),
        ("log_connections", "on"),
        ("log_disconnections", "on"),
        ("log_lock_waits", "on"),
        ("log_replication_commands", "on"),
        ("debug_print_parse", "on"),
        ("debug_print_rewritten", "on"),
        ("debug_print_plan", "on"),
        ("log_executor_stats", "on"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_verbose", "on"),
        ("auto_explain.log_settings", "on"),
        ("auto_explain.log_triggers", "on"),
        ("auto_explain.log_nested_statements", "on"),
        ("pg_stat_statements.track", "all"),
        ("pg_stat_statements.track_utility", "on"),
        ("track_activity_query_size", "65536"),
        ("track_functions", "all"),
    ];
    let options = instruments.iter().fold(options, |options, (name, value)| options.setting(name, value));
    Box::leak(Box::new(Cluster::start(options)))
}

/// Every relation of the system catalogs and their views that this session may read, as text.
fn core_views(session: &mut Client) -> (usize, String) {
    let names = session
        .query(
            "SELECT oid::regclass::text FROM pg_class
             WHERE relkind IN ('r', 'v') AND has_table_privilege(oid, 'SELECT')
               AND (relnamespace::regnamespace::text IN ('pg_catalog', 'information_schema') OR relname LIKE 'pg_stat_statements%')
             ORDER BY 1",
            &[],
        )
        .unwrap();
    let (mut read, mut told) = (0, String::new());
    for name in names.iter().map(|row| row.get::<_, String>(0)) {
        // Superusers may read the configuration file anyway; others have no right to the function of this one.
        match session.query(&format!("SELECT v::text FROM {name} v"), &[]) {
            Ok(rows) => {
                read += 1;
                told.extend(rows.iter().filter_map(|row| row.get::<_, Option<String>>(0)));
            }
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{name}: {error}");
            }
        }
    }
    (read, told)
}

/// What the server would log of a session that only looks.
const QUIET: &str =
    "SET log_min_messages = fatal; SET log_min_error_statement = fatal; SET log_statement = none;
    SET log_min_duration_statement = -1; SET log_executor_stats = off; SET auto_explain.log_min_duration = -1;
    SET debug_print_parse = off; SET debug_print_rewritten = off; SET debug_print_plan = off;
    SET pg_stat_statements.track = none";

/// More than the whole test logs: a server that says everything it knows fills a disk when something polls it.
const MOST_LOGGED: u64 = 1 << 30;

/// Ends the watch also when the work it watches panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Titles of all processes of the server and what its sessions are doing, for as long as `work` takes.
fn watched<T: Send>(cluster: &Cluster, work: impl FnOnce() -> T + Send) -> (T, String) {
    let done = AtomicBool::new(false);
    let log = cluster.data().with_file_name("log");
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            let mut session = cluster.connect("postgres", "postgres");
            session.batch_execute(QUIET).unwrap();
            while !done.load(Ordering::Acquire) {
                if std::fs::metadata(&log).unwrap().len() > MOST_LOGGED {
                    eprintln!("the log has more than {MOST_LOGGED} bytes");
                    std::process::abort();
                }
                let mut pids = process::children_of(cluster.postmaster_pid());
                pids.push(cluster.postmaster_pid());
                seen.extend(pids.into_iter().map(process::title));
                let activity =
                    "SELECT concat_ws(' ', backend_type, application_name, query) FROM pg_stat_activity";
                seen.extend(session.query(activity, &[]).unwrap().iter().map(|row| row.get::<_, String>(0)));
                std::thread::sleep(Duration::from_millis(5));
            }
            seen.into_iter().collect::<Vec<_>>().join("\n")
        });
        let over = Over(&done);
        let result = work();
        drop(over);
        (result, watch.join().unwrap())
    })
}

/// Everything an error says, its CONTEXT included.
fn failed<T: std::fmt::Debug>(result: Result<T, postgres::Error>) -> String {
    format!("{:?}\n", result.unwrap_err().as_db_error().expect("an ERROR of the server"))
}

/// The calls that work, and those that fail on the way to a URL and after it.
fn work(scene: &Scene, forbidden: &mut Forbidden) -> String {
    let mut ada = scene.user("ada");
    let ticket = Upload::declared(b"watched").complete(&mut ada, b"watched");
    forbidden.add_url(ticket.url());
    let plain = Upload::of(b"watched too").complete(&mut ada, b"watched too");
    forbidden.add_url(plain.url());
    forbidden.add_url(Upload::of(b"pending").request(&mut ada).url());
    // Many at once, whose tickets pass through statements of ours.
    let bulk = "SELECT t.upload_id::text, t.url FROM storage.request_upload_urls('temp', ARRAY[
                    ROW('a.txt', 'text/plain', 1, NULL, NULL, '{}'), ROW('b.txt', 'text/plain', 2, NULL, NULL, '{}')
                ]::storage.upload_spec[]) t";
    let tickets = ada.query(bulk, &[]).unwrap();
    let ids: Vec<String> = tickets.iter().map(|row| row.get(0)).collect();
    tickets.iter().for_each(|row| forbidden.add_url(row.get(1)));
    ada.query("SELECT storage.confirm_uploads($1::text[]::uuid[])", &[&ids]).unwrap();
    // The signature of a form is a field.
    let form = "SELECT f.fields ->> 'x-amz-signature', f.fields ->> 'policy'
                FROM storage.request_upload_form('private', 'a.txt', 'text/plain', 9) f";
    let form = ada.query_one(form, &[]).unwrap();
    forbidden.add(form.get(0));
    forbidden.add(form.get(1));
    let parts =
        "SELECT upload_id::text FROM storage.request_multipart_upload('private', 'a.txt', 'text/plain', 9)";
    let upload: String = ada.query_one(parts, &[]).unwrap().get(0);
    let part = "SELECT url FROM storage.sign_upload_parts($1::text::uuid, ARRAY[1])";
    forbidden.add_url(ada.query_one(part, &[&upload]).unwrap().get(0));
    ada.query("SELECT storage.list_upload_parts($1::text::uuid)", &[&upload]).unwrap();
    let urls = "SELECT url FROM storage.download_urls(ARRAY(SELECT id FROM storage.files))
                UNION ALL SELECT storage.files_download_url(f) FROM storage.files f
                UNION ALL SELECT storage.download_url(f.id, '1 hour', false, 'name.txt') FROM storage.files f";
    let urls = ada.query(urls, &[]).unwrap();
    assert_eq!(urls.len(), 6);
    urls.iter().for_each(|row| forbidden.add_url(row.get(0)));
    // A caller's function and a caller's prepared statement, each with its nested plans.
    let mut told = String::new();
    scene
        .superuser()
        .batch_execute(
            "CREATE FUNCTION public.shared_link(file uuid) RETURNS text LANGUAGE plpgsql AS
             $$ DECLARE link text; BEGIN link := storage.download_url(file); RETURN link; END $$",
        )
        .unwrap();
    let link: String =
        ada.query_one("SELECT public.shared_link($1::text::uuid)", &[&ticket.file_id]).unwrap().get(0);
    forbidden.add_url(&link);
    // The statement fails after the URL was made, and while it is being made.
    for statement in [
        "SELECT length(storage.download_url(id)) / 0 FROM storage.files",
        "SELECT storage.download_url(id, '8 days') FROM storage.files",
        "SELECT storage.download_url(gen_random_uuid())",
        "SELECT storage.public_url(id) FROM storage.files",
        "SELECT t.url, 1 / 0 FROM storage.request_upload_url('private', 'a.txt', 'text/plain', 1) t",
        "SELECT storage.request_upload_url('private', 'a/b', 'text/plain', 1)",
        "DO $$ DECLARE t storage.upload_ticket; BEGIN
             t := storage.request_upload_url('private', 'a.txt', 'text/plain', 1); PERFORM 1 / 0; END $$",
    ] {
        told += &failed(ada.batch_execute(statement));
    }
    told += &failed(ada.query(
        "SELECT storage.download_url($1::text::uuid, $2::text::interval)",
        &[&ticket.file_id, &"-1 s"],
    ));
    let file = "DELETE FROM storage.files WHERE id = $1::text::uuid";
    assert_eq!(ada.execute(file, &[&plain.file_id]).unwrap(), 1);
    let mut superuser = scene.superuser();
    let rows = superuser
        .query(
            "SELECT c::text FROM storage.check() c UNION ALL SELECT m::text FROM storage.run_maintenance() m",
            &[],
        )
        .unwrap();
    told.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    let mut manager = scene.manager("ada");
    let row = manager.query_one("SELECT storage.inspect_bucket('private')::text", &[]).unwrap();
    told + row.get::<_, &str>(0)
}

/// The same as the store sees it refused, silent and gone.
fn failures(scene: &Scene, store: &LocalStore) -> String {
    let faulty = FaultyStore::before(&store.access().endpoint);
    let mut told = String::new();
    scene.set("pg_storage.request_timeout", "300ms");
    scene.set("pg_storage.endpoint", &faulty.endpoint());
    for fault in [Fault::Denied, Fault::InternalError, Fault::Silent, Fault::Truncated] {
        faulty.set("", fault);
        let mut ada = scene.user("ada");
        told += &failed(Upload::of(b"x").to("temp").try_request(&mut ada));
        faulty.heal();
    }
    scene.set("pg_storage.endpoint", "http://127.0.0.1:1");
    told += &failed(Upload::of(b"x").to("temp").try_request(&mut scene.user("ada")));
    scene.set("pg_storage.endpoint", &store.access().endpoint);
    told
}

/// With temporary credentials, which the store does not know: URLs are made all the same, and every call is refused.
fn with_token(scene: &Scene, cluster: &Cluster, store: &LocalStore, forbidden: &mut Forbidden) -> String {
    let path = credentials_file(cluster);
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {TOKEN}\n",
        store.access().access_key_id,
        store.access().secret_access_key
    );
    std::fs::write(&path, text).unwrap();
    for setting in ["access_key_id", "secret_access_key"] {
        cluster.unset(&format!("pg_storage.{setting}"));
    }
    cluster.set("pg_storage.credentials_file", &path.display().to_string());
    cluster.reload();
    let mut ada = scene.user("ada");
    let ticket = Upload::declared(b"temporary").request(&mut ada);
    assert!(ticket.url().contains("X-Amz-Security-Token="));
    forbidden.add_url(ticket.url());
    let file: String = ada.query_one("SELECT id::text FROM storage.files LIMIT 1", &[]).unwrap().get(0);
    forbidden.add_url(&flow::download_url(&mut ada, &file));
    let mut told = failed(flow::try_confirm(&mut ada, &ticket.upload_id).map(|_| ()));
    told += &failed(Upload::of(b"x").to("public").try_request(&mut ada));
    let rows = scene.superuser().query("SELECT c::text FROM storage.check() c", &[]).unwrap();
    told.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    told
}

fn credentials_file(cluster: &Cluster) -> PathBuf {
    cluster.data().join("temporary-credentials")
}

/// Every file below, but for those in which an operator or the local store keeps the secrets.
fn each_file(directory: &Path, keepers: &[&str], look: &mut impl FnMut(&Path, Vec<u8>)) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if keepers.contains(&name) {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            each_file(&path, keepers, look);
        } else if path.is_file() {
            look(&path, std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn no_instrument_shows_a_secret_and_the_disk_holds_none() {
    let store = LocalStore::start();
    let cluster = server(&store);
    let scene = Scene::on(cluster, store.access());
    scene.superuser().batch_execute("CREATE EXTENSION pg_stat_statements SCHEMA public").unwrap();
    let mut forbidden = Forbidden::default();
    forbidden.add(&store.access().secret_access_key);
    forbidden.add(TOKEN);
    forbidden.add("X-Amz-Signature");
    forbidden.add("X-Amz-Credential");
    forbidden.add("X-Amz-Security-Token");
    forbidden.add("AWS4-HMAC-SHA256");

    let (told, seen) = watched(cluster, || {
        let mut told = work(&scene, &mut forbidden);
        // Both kinds of background process have rows of their own, and one deletes what the file held.
        let mut quiet = scene.superuser();
        quiet.batch_execute(QUIET).unwrap();
        let mut until = |what: &str, query: &str| {
            eventually(what, Duration::from_secs(60), || {
                quiet.query_one(query, &[]).unwrap().get::<_, bool>(0).then_some(())
            });
        };
        until(
            "the worker",
            "SELECT count(*) > 0 FROM pg_stat_activity
             WHERE backend_type = 'pg_storage worker' AND datname = current_database()",
        );
        until("its deletions", "SELECT count(*) = 0 FROM storage.object_deletions WHERE not_before <= now()");
        told += &failures(&scene, &store);
        told + &with_token(&scene, cluster, &store, &mut forbidden)
    });
    forbidden.assert_absent("an error or a finding", told.as_bytes());
    assert!(told.contains("STORE_DENIED") && told.contains("PL/pgSQL function"), "CONTEXT is among it");
    forbidden.assert_absent("a process title or pg_stat_activity", seen.as_bytes());
    assert!(seen.contains("pg_storage worker") && seen.contains("pg_storage launcher"), "{seen}");

    // What was to be logged is; reading whole catalogs would add gigabytes of plans.
    let log = cluster.log();
    for (setting, value) in
        [("log_min_messages", "warning"), ("log_statement", "none"), ("log_min_duration_statement", "-1")]
    {
        cluster.set(setting, value);
    }
    for setting in [
        "debug_print_parse",
        "debug_print_rewritten",
        "debug_print_plan",
        "log_executor_stats",
        "auto_explain.log_min_duration",
    ] {
        cluster.unset(setting);
    }
    cluster.reload();
    let monitor = format!("{}_monitor", scene.database.name());
    scene
        .superuser()
        .batch_execute(&format!(
            "CREATE ROLE {monitor} LOGIN IN ROLE pg_monitor, pg_read_all_settings, pg_read_all_stats, pg_read_all_data"
        ))
        .unwrap();
    let sessions =
        [("an ordinary role", scene.user("ada")), ("a monitor", scene.database.connect_as(&monitor, &[]))];
    for (who, mut session) in sessions {
        let (read, views) = core_views(&mut session);
        forbidden.assert_absent(&format!("a catalog or core view, to {who},"), views.as_bytes());
        assert!(read > 150, "{read} views");
        let all = session.simple_query("SHOW ALL").unwrap();
        forbidden.assert_absent(&format!("SHOW ALL, to {who},"), format!("{all:?}").as_bytes());
        println!("{who}: {read} catalogs and views");
    }
    let statements = "SELECT string_agg(query, E'\\n') FROM public.pg_stat_statements";
    let statements: String = scene.value(statements);
    // Those of our own functions were tracked.
    assert!(
        statements.contains("storage_private.") && statements.contains("INSERT INTO storage.upload_requests")
    );
    forbidden.assert_absent("pg_stat_statements", statements.as_bytes());
    let settings = "SELECT string_agg(s::text, ' ') FROM pg_settings s";
    forbidden.assert_absent("pg_settings", scene.value::<String>(settings).as_bytes());

    for (program, arguments) in [
        ("pg_dumpall", vec![]),
        ("pg_dump", vec![scene.database.name()]),
        ("pg_dump", vec!["-Ft", scene.database.name()]),
    ] {
        let output = cluster.client_program(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        forbidden.assert_absent(program, &output.stdout);
    }
    for shown in
        ["DEBUG:", "Query Text:", "STATEMENT:", "CONTEXT:", "parameters: $1", ":constvalue", "STORE_DENIED"]
    {
        assert!(log.contains(shown), "the log has no {shown}");
    }
    forbidden.assert_absent("the log", log.as_bytes());
    let mut known = Forbidden::default();
    known.add("storage.request_upload_url");
    assert!(known.found_in(log.as_bytes()).next().is_some(), "the search finds what is there");
    forbidden.assert_absent("the store's own output", store.log().as_bytes());
    forbidden.assert_absent("the store's access log", format!("{:?}", store.requests()).as_bytes());

    // What is left of it on disk: tables, indexes, WAL, statistics.
    cluster.stop(Stop::Fast);
    let mut physical = Forbidden::default();
    physical.add(&format!("{}-default-private", scene.prefix));
    let (mut files, mut bytes, mut reached) = (0, 0, 0);
    let keepers = ["test.conf", "credentials", "temporary-credentials"];
    each_file(cluster.data(), &keepers, &mut |path, content| {
        forbidden.assert_absent(&path.display().to_string(), &content);
        reached += usize::from(physical.found_in(&content).next().is_some());
        (files, bytes) = (files + 1, bytes + content.len());
    });
    assert!(files > 1000 && reached > 1, "{files} files, {reached} with the name of a physical bucket");
    println!(
        "{} texts sought in {} bytes of log and {bytes} bytes of {files} files",
        forbidden.0.len(),
        log.len()
    );
}
