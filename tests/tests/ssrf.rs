//! Where the server connects to is a superuser's choice: no role names an endpoint or a file of credentials by any way a
//! setting can be given, and no store sends the server elsewhere.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{Cluster, LocalStore, Scene, refused, scene};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// What decides where a connection goes, with which credentials, and whether it may be read on the way.
const SETTINGS: [(&str, &str); 8] = [
    ("endpoint", "http://127.0.0.1:1"),
    ("public_endpoint", "http://127.0.0.1:1"),
    ("public_url_base", "http://127.0.0.1:1"),
    ("region", "elsewhere"),
    ("profile", "other"),
    ("credentials_file", "/etc/hostname"),
    ("force_path_style", "off"),
    ("allow_insecure", "on"),
];

/// Every way in which a role can give a value to a setting; `{role}` and `{database}` are its own.
const WAYS: [&str; 12] = [
    "SET {setting} = '{value}'",
    "SET SESSION {setting} TO '{value}'",
    "BEGIN; SET LOCAL {setting} = '{value}'; COMMIT",
    "SELECT set_config('{setting}', '{value}', false)",
    "SELECT set_config('{setting}', '{value}', true)",
    "UPDATE pg_settings SET setting = '{value}' WHERE name = '{setting}'",
    "ALTER ROLE {role} SET {setting} = '{value}'",
    "ALTER ROLE {role} IN DATABASE {database} SET {setting} = '{value}'",
    "ALTER DATABASE {database} SET {setting} = '{value}'",
    "ALTER SYSTEM SET {setting} = '{value}'",
    "CREATE FUNCTION own.f() RETURNS void LANGUAGE sql SET {setting} = '{value}' AS ''; SELECT own.f()",
    "DO $$ BEGIN PERFORM set_config('{setting}', '{value}', false); END $$",
];

/// A writer that owns the database, may make roles, and has a schema of its own.
fn powerful(scene: &Scene) -> String {
    let (role, database) = (format!("{}_powerful", scene.database.name()), scene.database.name());
    scene
        .superuser()
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN CREATEROLE CREATEDB BYPASSRLS; ALTER DATABASE {database} OWNER TO {role};
             CREATE SCHEMA own AUTHORIZATION {role}; SELECT storage.grant_access('{role}', 'manager')"
        ))
        .unwrap();
    role
}

fn statement(way: &str, role: &str, database: &str, setting: &str, value: &str) -> String {
    way.replace("{setting}", &format!("pg_storage.{setting}"))
        .replace("{value}", value)
        .replace("{role}", role)
        .replace("{database}", database)
}

#[test]
fn no_role_names_an_endpoint_in_any_way() {
    let scene = Scene::local();
    let (powerful, database) = (powerful(&scene), scene.database.name().to_owned());
    let roles = ["reader", "writer", "manager"].map(|level| match level {
        // The scene has those two already.
        "reader" => scene.database.role(level),
        level => format!("{database}_{level}"),
    });
    let mut tried = 0;
    for role in roles.iter().chain([&powerful]) {
        for (setting, value) in SETTINGS {
            for way in WAYS {
                let mut session = scene.database.connect_as(role, &[("jwt.claims.user_id", "ada")]);
                // Loads the library where it is not preloaded.
                session.batch_execute("SELECT storage.current_user_id()").unwrap();
                let statement = statement(way, role, &database, setting, value);
                let refusal = refused(session.batch_execute(&statement));
                assert_eq!(refusal.sqlstate, "42501", "{role}: {statement}: {refusal:?}");
                tried += 1;
            }
            // With the connection, as PGOPTIONS does: refused, or the value is not taken.
            let options = format!("options='-c pg_storage.{setting}={value}'");
            let socket = scene.database.cluster().data().display();
            let text = format!("host={socket} port=5432 user={role} dbname={database} {options}");
            match postgres::Client::connect(&text, postgres::NoTls) {
                Err(error) => assert_eq!(refused(Err::<(), _>(error)).sqlstate, "42501", "{text}"),
                Ok(mut session) => {
                    let shown = format!("SELECT current_setting('pg_storage.{setting}')");
                    let shown: String = session.query_one(&shown, &[]).unwrap().get(0);
                    assert_ne!(shown, value, "{text}");
                }
            }
            tried += 1;
        }
    }
    println!("{tried} attempts of {} roles at {} settings", roles.len() + 1, SETTINGS.len());
    // Roles and databases have nothing of it for later sessions.
    let kept =
        "SELECT count(*) FROM pg_db_role_setting, unnest(setconfig) c WHERE c LIKE 'pg_storage.endpoint=%'";
    assert_eq!(scene.value::<i64>(kept), 0);
    Upload::of(b"x").complete(&mut scene.user("ada"), b"x");
}

/// Before the library is loaded its settings are unknown, and anybody may set what is unknown for a session.
#[test]
fn what_was_set_before_the_library_was_loaded_is_not_taken() {
    let store = LocalStore::shared();
    let options =
        scene::remote(store.access()).without_preload().setting("pg_storage.bucket_prefix", "early");
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(options)));
    let scene = Scene::on(cluster, store.access());
    Upload::of(b"x").complete(&mut scene.user("ada"), b"x");
    let (powerful, database) = (powerful(&scene), scene.database.name().to_owned());
    let elsewhere = Elsewhere::open(None);
    let mut taken = 0;
    for way in WAYS {
        for (setting, value) in
            [("endpoint", elsewhere.endpoint()), ("public_endpoint", elsewhere.endpoint())]
        {
            let mut session = scene.database.connect_as(&powerful, &[("jwt.claims.user_id", "ada")]);
            let statement = statement(way, &powerful, &database, setting, &value);
            taken += usize::from(session.batch_execute(&statement).is_ok());
            // This one, and the sessions after it.
            for session in
                [&mut session, &mut scene.database.connect_as(&powerful, &[("jwt.claims.user_id", "ada")])]
            {
                // A statement that failed in a transaction leaves it open.
                session.batch_execute("ROLLBACK").unwrap();
                let ticket = Upload::of(b"y").request(session);
                assert!(ticket.url().starts_with(&store.access().endpoint), "{statement}: {}", ticket.url());
                flow::confirm(session, &ticket.upload_id);
            }
        }
    }
    assert!(taken > 0, "PostgreSQL lets nobody set a setting that it does not know: the test has no point");
    assert_eq!(elsewhere.asked(), 0);
}

/// A server that answers every request the same way, and counts connections.
struct Elsewhere {
    address: std::net::SocketAddr,
    asked: Arc<AtomicUsize>,
    _serving: JoinHandle<()>,
}

impl Elsewhere {
    /// `redirect`: the status line and the location of every answer. Lives as long as the test process.
    fn open(redirect: Option<(&str, &str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let answer = match redirect {
            Some((status, location)) => {
                format!(
                    "HTTP/1.1 {status}\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
            }
            None => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        };
        let serving = std::thread::spawn({
            let asked = Arc::clone(&asked);
            move || {
                for mut stream in listener.incoming().flatten() {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let mut head = [0; 64 * 1024];
                    // What it is asked does not matter; a caller that is gone does not either.
                    let _ = stream.read(&mut head);
                    let _ = stream.write_all(answer.as_bytes());
                    let _ = stream.shutdown(Shutdown::Write);
                    let _ = std::io::copy(&mut stream, &mut std::io::sink());
                }
            }
        });
        Self { address, asked, _serving: serving }
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[test]
fn a_store_that_sends_the_server_elsewhere_is_refused_in_every_call() {
    let (scene, store) = Scene::counting();
    let mut ada = scene.user("ada");
    let ticket = Upload::declared(b"kept").complete(&mut ada, b"kept");
    let pending = Upload::of(b"waits").request(&mut ada);
    assert!(pending.put(b"waits").is_success());
    ada.execute("DELETE FROM storage.files WHERE id = $1::text::uuid", &[&ticket.file_id]).unwrap();
    let elsewhere = Elsewhere::open(None);
    // As if a proxy in front of the store did it; it is the store's address that is trusted, not where it points.
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let redirecting = Elsewhere::open(Some((status, &format!("{}/stolen", elsewhere.endpoint()))));
        scene.set("pg_storage.endpoint", &redirecting.endpoint());
        // A deletion is due there: the collector asks nobody but the store that keeps the bucket.
        let due = format!(
            "UPDATE storage.object_deletions SET not_before = now(), claimed_until = NULL;
             UPDATE storage.physical_buckets SET endpoint = '{}'",
            redirecting.endpoint()
        );
        scene.superuser().batch_execute(&due).unwrap();
        let mut asked = redirecting.asked();
        for (who, call) in [
            ("writer", "SELECT storage.request_upload_url('temp', 'a.txt', 'text/plain', 1)".to_owned()),
            ("writer", format!("SELECT storage.confirm_upload('{}')", pending.upload_id)),
            ("manager", "SELECT storage.provision_bucket('private')".to_owned()),
            ("manager", "SELECT storage.inspect_bucket('private')".to_owned()),
            ("superuser", "SELECT storage.check()".to_owned()),
            ("superuser", "SELECT storage.run_maintenance()".to_owned()),
            (
                "superuser",
                "SELECT storage.scan_orphans(name) FROM storage.physical_buckets WHERE state = 'ready'"
                    .to_owned(),
            ),
        ] {
            let mut session = match who {
                "writer" => scene.user("ada"),
                "manager" => scene.manager("ada"),
                _ => scene.superuser(),
            };
            // Some report it as a finding; none goes there.
            if let Err(error) = session.query(&call, &[]) {
                let refusal = refused(Err::<(), _>(error));
                assert_eq!(refusal.sqlstate, "58030", "{status}: {call}: {refusal:?}");
            }
            assert!(redirecting.asked() > asked, "{status}: {call} asked nobody");
            asked = redirecting.asked();
        }
    }
    assert_eq!(elsewhere.asked(), 0, "a redirect was followed");
    // Nothing was believed: the upload still waits, and its bytes are there.
    scene.set("pg_storage.endpoint", &store.access().endpoint);
    let kept = format!("UPDATE storage.physical_buckets SET endpoint = '{}'", store.access().endpoint);
    scene.superuser().batch_execute(&kept).unwrap();
    let verdict = flow::confirm(&mut scene.user("ada"), &pending.upload_id);
    assert_eq!(verdict.outcome(), ("uploaded", None));
}
