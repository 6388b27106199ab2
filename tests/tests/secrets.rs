//! No secret and no signature in anything that somebody else may read.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::scene::{local_access, remote};
use pg_storage_tests::{
    Cluster, Fault, FaultyStore, Garage, LocalStore, Options, Scene, StoreAccess, process, refused,
};
use std::os::unix::fs::PermissionsExt;

/// A cluster of the test's own. It ends with the process: a scene lives as long as its cluster.
fn own(options: Options) -> &'static Cluster {
    Box::leak(Box::new(Cluster::start(options)))
}

/// Credentials in the configuration file, and the server telling everything it knows.
fn talkative(access: &StoreAccess) -> Options {
    Options::new()
        .setting("pg_storage.endpoint", &access.endpoint)
        .setting("pg_storage.region", &access.region)
        .setting("pg_storage.access_key_id", &access.access_key_id)
        .setting("pg_storage.secret_access_key", &access.secret_access_key)
        .setting("pg_storage.allowed_origins", "https://app.example.com")
        .setting("log_statement", "all")
        .setting("log_min_messages", "debug5")
        .setting("log_min_error_statement", "debug5")
        .setting("log_error_verbosity", "verbose")
        .setting("log_min_duration_statement", "0")
        .setting("log_parameter_max_length_on_error", "-1")
        .setting("log_connections", "on")
        .setting("log_disconnections", "on")
        .setting("debug_print_plan", "on")
}

#[track_caller]
fn assert_tells_nothing(what: &str, text: &str, access: &StoreAccess) {
    for secret in [&access.secret_access_key, "X-Amz-Signature", "X-Amz-Credential"] {
        let at = text.find(secret);
        let around = at.map(|at| text[..at].lines().last().unwrap_or_default().to_owned());
        assert_eq!(around, None, "{what} tells a secret");
    }
}

#[test]
fn no_role_reads_a_secret_through_the_settings() {
    let access = StoreAccess::chosen();
    let scene = Scene::on(own(talkative(access)), access);
    Upload::of(b"x").complete(&mut scene.user("ada"), b"x");
    let monitor = format!("{}_monitor", scene.database.name());
    scene
        .superuser()
        .batch_execute(&format!("CREATE ROLE {monitor} LOGIN IN ROLE pg_monitor, pg_read_all_settings"))
        .unwrap();
    for who in ["ordinary", "monitor", "superuser"] {
        let mut session = match who {
            "ordinary" => scene.user("ada"),
            "monitor" => scene.database.connect_as(&monitor, &[]),
            _ => scene.superuser(),
        };
        for (setting, value) in
            [("access_key_id", &access.access_key_id), ("secret_access_key", &access.secret_access_key)]
        {
            for query in [
                format!("SHOW pg_storage.{setting}"),
                format!("SELECT current_setting('pg_storage.{setting}')"),
                format!("SELECT current_setting('pg_storage.{setting}', true)"),
            ] {
                match session.query_one(&query, &[]) {
                    Ok(row) => {
                        assert_ne!(who, "ordinary", "{query}");
                        assert_eq!(row.get::<_, Option<&str>>(0), Some("********"), "{who}: {query}");
                    }
                    Err(_) => assert_eq!(refused(session.query_one(&query, &[])).sqlstate, "42501", "{who}"),
                }
            }
            for query in [
                "SELECT s::text FROM pg_settings s",
                "SELECT s::text FROM pg_show_all_settings() s",
                "SELECT a.query FROM pg_stat_activity a",
            ] {
                let rows = session.query(query, &[]).unwrap();
                assert!(!rows.is_empty());
                let told = rows
                    .iter()
                    .any(|row| row.get::<_, Option<&str>>(0).unwrap_or_default().contains(value.as_str()));
                assert!(!told, "{who}: {query} tells {setting}");
            }
            let all = session.simple_query("SHOW ALL").unwrap();
            assert!(!format!("{all:?}").contains(value.as_str()), "{who}: SHOW ALL");
        }
        // The configuration file itself: superusers may read it anyway, nobody else.
        if who == "ordinary" {
            assert_eq!(refused(session.query("SELECT * FROM pg_file_settings", &[])).sqlstate, "42501");
        }
    }
}

#[test]
fn neither_log_nor_error_nor_process_title_tells_a_secret_or_a_signature() {
    let store = LocalStore::start();
    let access = store.access();
    let cluster = own(talkative(access));
    let scene = Scene::on(cluster, access);
    let faulty = FaultyStore::before(&access.endpoint);
    let mut told = String::new();
    let mut ada = scene.user("ada");
    let pid: i32 = ada.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);

    // Everything that works.
    let ticket = Upload::declared(b"works").complete(&mut ada, b"works");
    Upload::of(b"works too").complete(&mut ada, b"works too");
    flow::assert_downloads(&mut ada, &ticket.file_id, b"works");
    ada.batch_execute("SELECT * FROM storage.download_urls(ARRAY(SELECT id FROM storage.files))").unwrap();
    ada.batch_execute("SELECT storage.files_download_url(f) FROM storage.files f").unwrap();
    scene.superuser().batch_execute("SELECT storage.check(); SELECT storage.run_maintenance()").unwrap();
    scene
        .manager("ada")
        .batch_execute("SELECT storage.provision_bucket('public'); SELECT storage.inspect_bucket('public')")
        .unwrap();
    for pid in process::children_of(cluster.postmaster_pid()) {
        told += &process::title(pid);
    }

    // Everything that fails: refused arguments, refused by the store, silent, cancelled, gone, wrong keys.
    let mut keep = |what: &str, result: Result<flow::Ticket, postgres::Error>| {
        told += &format!("{what}: {:?}\n", refused(result));
    };
    keep("argument", Upload::of(b"x").named("a/b", "text/plain").try_request(&mut ada));
    keep("type", Upload::of(b"x").named("a.pdf", "image/png").try_request(&mut ada));
    scene.set("pg_storage.endpoint", &faulty.endpoint());
    scene.set("pg_storage.request_timeout", "300ms");
    faulty.set("", Fault::Denied);
    keep("denied", Upload::of(b"x").to("temp").try_request(&mut scene.user("ada")));
    faulty.heal();
    faulty.set("", Fault::Silent);
    keep("silent", Upload::of(b"x").to("temp").try_request(&mut scene.user("ada")));
    let mut cancelled = scene.user("ada");
    cancelled.batch_execute("SET statement_timeout = 100").unwrap();
    keep("cancelled", Upload::of(b"x").to("temp").try_request(&mut cancelled));
    scene.set("pg_storage.endpoint", "http://127.0.0.1:1");
    keep("gone", Upload::of(b"x").to("temp").try_request(&mut scene.user("ada")));
    scene.set("pg_storage.endpoint", &access.endpoint);
    cluster.set("pg_storage.access_key_id", "SOMEBODYELSE");
    cluster.reload();
    keep("wrong keys", Upload::of(b"x").to("temp").try_request(&mut scene.user("ada")));
    cluster.set("pg_storage.access_key_id", &format!("not valid\n{}", "x"));
    cluster.unset("pg_storage.access_key_id");
    cluster.reload();
    keep("half a pair", Upload::of(b"x").to("temp").try_request(&mut scene.user("ada")));
    let rows = scene.superuser().query("SELECT c::text FROM storage.check() c", &[]).unwrap();
    told += &rows.iter().map(|row| row.get::<_, String>(0)).collect::<String>();

    assert_tells_nothing("an error", &told, access);
    let log = cluster.log();
    assert!(log.contains("DEBUG:") && log.contains("STORE_DENIED") && log.contains(&format!("[{pid}]")));
    assert_tells_nothing("the log", &log, access);
    assert_tells_nothing("the store's access log", &format!("{:?}", store.requests()), access);
    assert_tells_nothing("the store's own output", &store.log(), access);
}

#[test]
fn neither_a_dump_nor_any_row_holds_a_secret_or_a_signature() {
    let access = StoreAccess::chosen();
    let cluster = own(talkative(access));
    let scene = Scene::on(cluster, access);
    let mut ada = scene.user("ada");
    let ticket = Upload::declared(b"dumped").complete(&mut ada, b"dumped");
    Upload::of(b"pending").request(&mut ada);
    flow::download_url(&mut ada, &ticket.file_id);
    scene.superuser().batch_execute("SELECT storage.check()").unwrap();
    let dump = |program: &str, arguments: &[&str]| {
        let output = cluster.client_program(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let database = dump("pg_dump", &[scene.database.name()]);
    assert!(database.contains(&ticket.upload_id) && database.contains(&ticket.file_id));
    for (what, text) in [("pg_dump", database), ("pg_dumpall", dump("pg_dumpall", &[]))] {
        assert_tells_nothing(what, &text, access);
        assert!(!text.contains(&access.access_key_id), "{what} tells the access key id");
    }
    let tables = scene
        .superuser()
        .query("SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace::regnamespace::text LIKE 'storage%' AND relkind = 'r'", &[])
        .unwrap();
    assert!(tables.len() >= 8);
    for table in tables {
        let table: String = table.get(0);
        let rows = scene.superuser().query(&format!("SELECT t::text FROM {table} t"), &[]).unwrap();
        let text: String = rows.iter().map(|row| row.get::<_, String>(0)).collect();
        assert_tells_nothing(&table, &text, access);
    }
}

#[test]
fn the_local_stores_credentials_are_its_owners_alone() {
    let cluster = own(Options::new().embedded("it looks into its directory"));
    let scene = Scene::on(cluster, &local_access(cluster));
    Upload::of(b"x").complete(&mut scene.user("ada"), b"x");
    let directory = cluster.data().join("pg_storage");
    let file = directory.join("credentials");
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&directory)), (0o600, 0o700));
    assert_tells_nothing("the log", &cluster.log(), &local_access(cluster));

    // A file that others can read is not used.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let refusal = refused(Upload::of(b"x").try_request(&mut scene.user("ada")));
    assert_eq!(refusal.code(), ("58030", "STORE_UNAVAILABLE"), "{refusal:?}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    Upload::of(b"x").request(&mut scene.user("ada"));
}

/// Without preloading PostgreSQL shows everybody what it has not yet been told to hide, and logs its changes.
#[test]
fn credentials_in_the_file_are_refused_without_preload() {
    let access = StoreAccess::chosen();
    let half = |setting: &str| match setting {
        "access_key_id" => vec![("access_key_id", &access.access_key_id)],
        "secret_access_key" => vec![("secret_access_key", &access.secret_access_key)],
        _ => vec![("access_key_id", &access.access_key_id), ("secret_access_key", &access.secret_access_key)],
    };
    for given in ["both", "access_key_id", "secret_access_key"] {
        // The environment has credentials that work: they are no reason to overlook those in the file.
        let mut options = remote(access).without_preload().setting("pg_storage.bucket_prefix", "nopre");
        for (setting, value) in half(given) {
            options = options.setting(&format!("pg_storage.{setting}"), value);
        }
        let cluster = own(options);
        let scene = Scene::on(cluster, access);
        let mut ada = scene.user("ada");
        let before = scene.rows();
        let refusal = refused(Upload::of(b"x").try_request(&mut ada));
        assert_eq!(refusal.code(), ("55000", "NEEDS_PRELOAD"), "{given}: {refusal:?}");
        let hint = refusal.hint.clone().unwrap();
        for way_out in ["pg_storage.credentials_file", "environment", "shared_preload_libraries"] {
            assert!(hint.contains(way_out), "{hint}");
        }
        assert_tells_nothing("the refusal", &format!("{refusal:?}"), access);
        assert_eq!(scene.rows(), before);
        let found = scene
            .superuser()
            .query_one("SELECT detail, hint FROM storage.check() WHERE status = 'fail'", &[])
            .unwrap();
        let (detail, hint): (String, String) = (found.get(0), found.get(1));
        assert!(detail.contains("NEEDS_PRELOAD") && hint.contains("shared_preload_libraries"), "{found:?}");
        for (setting, _) in half(given) {
            cluster.unset(&format!("pg_storage.{setting}"));
        }
        cluster.reload();
        Upload::of(b"x").complete(&mut scene.user("ada"), b"x");
    }
}

#[test]
fn a_reload_that_rotates_credentials_logs_neither_the_old_nor_the_new() {
    let first = Garage::shared().access();
    let second = Garage::shared().another_key("rotated for the log");
    let cluster = own(talkative(first).setting("log_min_messages", "debug2"));
    let scene = Scene::on(cluster, first);
    let mut open = scene.user("ada");
    Upload::declared(b"before").complete(&mut open, b"before");
    let give = |access: &StoreAccess| {
        cluster.set("pg_storage.access_key_id", &access.access_key_id);
        cluster.set("pg_storage.secret_access_key", &access.secret_access_key);
        cluster.reload();
    };
    let signs_as = |session: &mut postgres::Client, access: &StoreAccess| {
        let url = Upload::declared(b"rotated").request(session).url().to_owned();
        assert!(url.contains(&format!("X-Amz-Credential={}%2F", access.access_key_id)), "{url}");
    };
    // Sessions that are open, that come later, and that find the values unset, set and changed.
    give(&second);
    signs_as(&mut open, &second);
    signs_as(&mut scene.user("ada"), &second);
    for setting in ["access_key_id", "secret_access_key"] {
        cluster.unset(&format!("pg_storage.{setting}"));
    }
    cluster.reload();
    give(first);
    for session in [&mut open, &mut scene.user("ada")] {
        Upload::of(b"after").complete(session, b"after");
    }
    let log = cluster.log();
    assert!(log.contains("received SIGHUP") && log.contains("DEBUG:"));
    for access in [first, &second] {
        assert_tells_nothing("the log", &log, access);
        assert!(!log.contains(&access.access_key_id), "the log tells an access key id");
    }
}

#[test]
fn no_backend_makes_credentials_that_the_local_store_does_not_know() {
    let cluster = own(Options::new().embedded("it looks into its directory"));
    let scene = Scene::on(cluster, &local_access(cluster));
    Upload::of(b"x").complete(&mut scene.user("ada"), b"x");
    let file = cluster.data().join("pg_storage").join("credentials");
    let aside = file.with_extension("aside");
    std::fs::rename(&file, &aside).unwrap();
    let refusal = refused(Upload::of(b"x").try_request(&mut scene.user("ada")));
    assert_eq!(refusal.code(), ("58030", "STORE_UNAVAILABLE"), "{refusal:?}");
    assert!(refusal.detail.unwrap().contains("credentials"));
    assert!(!file.exists());
    std::fs::rename(&aside, &file).unwrap();
    Upload::of(b"y").complete(&mut scene.user("ada"), b"y");
}

#[test]
fn secrets_of_the_environment_stay_there() {
    let access = StoreAccess::chosen();
    let cluster = own(remote(access).setting("log_min_messages", "debug5").setting("log_statement", "all"));
    let scene = Scene::on(cluster, access);
    Upload::of(b"x").complete(&mut scene.user("ada"), b"x");
    scene.superuser().batch_execute("SELECT storage.check()").unwrap();
    // From debug3 on, PostgreSQL itself writes the environment it was started with into its log, once, at the start.
    // Whoever debugs a server that way keeps the credentials in a file instead.
    let log = cluster.log();
    let environment: Vec<&str> = log.lines().filter(|line| line.contains("postmaster DEBUG:  \t")).collect();
    assert!(environment.iter().any(|line| line.contains("S3_SECRET_ACCESS_KEY=")));
    let ours: Vec<&str> = log.lines().filter(|line| !environment.contains(line)).collect();
    assert_tells_nothing("the log", &ours.join("\n"), access);
    for pid in process::children_of(cluster.postmaster_pid()) {
        assert_tells_nothing("a process title", &process::title(pid), access);
    }
    // Only the server's own user, and root, can look into it.
    let environ = format!("/proc/{}/environ", cluster.postmaster_pid());
    assert_eq!(std::fs::metadata(environ).unwrap().permissions().mode() & 0o077, 0);
}
