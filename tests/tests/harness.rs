//! The harness does what the other tests take for granted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::http::{self, Headers};
use pg_storage_tests::{BlackHole, Cluster, Garage, LocalStore, Options, Stop, refused};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// A cluster without the library: these tests are about the harness, not about the extension.
fn plain() -> Options {
    Options::new().without_preload()
}

#[test]
fn cluster_answers_and_survives_stop_restart_and_kill() {
    let cluster = Cluster::start(plain());
    let database = cluster.bare_database();
    database.superuser().batch_execute("CREATE TABLE kept AS SELECT 42 AS answer; CHECKPOINT").unwrap();
    let answer = || database.superuser().query_one("SELECT answer FROM kept", &[]).unwrap().get::<_, i32>(0);

    cluster.restart(Stop::Fast);
    assert_eq!(answer(), 42);
    cluster.restart(Stop::Immediate);
    assert_eq!(answer(), 42);
    cluster.kill();
    assert!(cluster.try_connect("postgres", "postgres").is_err());
    cluster.start_again();
    assert_eq!(answer(), 42);
    assert!(cluster.log().contains("database system was not properly shut down"), "{}", cluster.log());
}

#[test]
fn cluster_takes_settings_and_environment_and_nothing_else() {
    let cluster = Cluster::start(
        plain().setting("work_mem", "5MB").environment([("S3_REGION".to_owned(), "somewhere".to_owned())]),
    );
    let mut session = cluster.connect("postgres", "postgres");
    let show =
        |session: &mut postgres::Client| session.query_one("SHOW work_mem", &[]).unwrap().get::<_, String>(0);
    assert_eq!(show(&mut session), "5MB");
    cluster.set("work_mem", "6MB");
    cluster.reload();
    assert_eq!(show(&mut session), "6MB");
    cluster.unset("work_mem");
    cluster.reload();
    assert_eq!(show(&mut session), "4MB");

    session.batch_execute("CREATE TABLE environment (line text)").unwrap();
    session.batch_execute("COPY environment FROM PROGRAM 'env'").unwrap();
    let names: Vec<String> = session
        .query("SELECT split_part(line, '=', 1) FROM environment", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(names.contains(&"S3_REGION".to_owned()), "{names:?}");
    let strangers: Vec<_> =
        names.iter().filter(|name| name.starts_with("RUST") || name.starts_with("CARGO")).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn databases_and_roles_are_separate() {
    let cluster = Cluster::start(plain());
    let (one, two) = (cluster.bare_database(), cluster.bare_database());
    assert_ne!(one.name(), two.name());
    one.superuser().batch_execute("CREATE ROLE visitor LOGIN; CREATE TABLE secret ()").unwrap();
    let mut visitor = one.connect_as("visitor", &[("jwt.claims.user_id", "ada")]);
    let row =
        visitor.query_one("SELECT session_user::text, current_setting('jwt.claims.user_id')", &[]).unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("visitor", "ada"));

    let refusal = refused(visitor.query("SELECT * FROM secret", &[]));
    assert_eq!(refusal.code(), ("42501", ""));
    let raised = refused(visitor.batch_execute(
        "DO $$ BEGIN RAISE 'FILE_NOT_FOUND: no such file' USING ERRCODE = '42704', HINT = 'look elsewhere'; END $$",
    ));
    assert_eq!(raised.code(), ("42704", "FILE_NOT_FOUND"));
    assert_eq!(raised.hint.as_deref(), Some("look elsewhere"));
}

#[test]
fn witness_notices_a_crashed_backend() {
    let cluster = Cluster::start(plain());
    let calm = cluster.witness();
    calm.assert_no_restart();

    let witness = cluster.witness();
    let mut session = cluster.connect("postgres", "postgres");
    // A backend that dies of SIGKILL makes the postmaster reset the whole cluster.
    session
        .batch_execute("COPY (SELECT pg_backend_pid()) TO PROGRAM 'read -r id; kill -KILL $id'")
        .unwrap_err();
    let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| witness.assert_no_restart()));
    assert!(noticed.is_err(), "the witness should have lost its session");
}

#[test]
fn garage_stores_and_refuses_strangers() {
    let garage = Garage::shared();
    assert!(garage.cli(&["status"]).contains("HEALTHY"), "{}", garage.log());
    // No signature: the S3 side answers, and refuses.
    assert_eq!(http::get(&format!("{}/bucket/key", garage.access().endpoint)).status, 403);
}

#[test]
fn local_store_refuses_strangers_logs_them_and_comes_back() {
    let mut store = LocalStore::start();
    let url = format!("{}/bucket/key", store.access().endpoint);
    for signal in ["TERM", "KILL"] {
        assert_eq!(http::get(&url).status, 403, "{}", store.log());
        store.restart(signal);
    }
    assert_eq!(http::get(&url).status, 403, "{}", store.log());
    let requests = store.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    assert!(
        requests.iter().all(|request| request.path == "/bucket/key" && request.status == 403),
        "{requests:?}"
    );
    assert_eq!(store.succeeded("GetObject", "/bucket"), 0);
}

#[test]
fn black_hole_accepts_and_never_answers() {
    let hole = BlackHole::open();
    let address = hole.endpoint();
    let mut caller = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    caller.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    hole.wait_for_caller(0);
    caller.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let silence = caller.read(&mut [0; 1]).unwrap_err();
    assert!(matches!(silence.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence}");
    drop(hole);
    assert_eq!(caller.read(&mut [0; 1]).unwrap_or(0), 0, "closing ends the connection");
}

/// Answers one request with 200 and returns what was sent, head and body.
fn capture(send: impl FnOnce(&str)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/bucket/key?X-Amz-Signature=0", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut request = Vec::new();
        let _ended_by_silence = stream.read_to_end(&mut request);
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap();
        String::from_utf8(request).unwrap()
    });
    send(&url);
    server.join().unwrap()
}

#[test]
fn http_sends_exactly_the_given_headers() {
    let headers: Headers = [("content-type", "text/plain"), ("content-length", "5"), ("if-none-match", "*")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let sent = capture(|url| assert_eq!(http::put(url, &headers, b"hello").status, 200)).to_lowercase();
    assert!(sent.starts_with("put /bucket/key?x-amz-signature=0 http/1.1\r\n"), "{sent}");
    for line in ["\r\ncontent-type: text/plain\r\n", "\r\nif-none-match: *\r\n"] {
        assert!(sent.contains(line), "{sent}");
    }
    assert_eq!(sent.matches("content-length: 5\r\n").count(), 1, "{sent}");
    assert!(sent.ends_with("\r\n\r\nhello"), "{sent}");

    let mut fewer = headers.clone();
    fewer.remove("content-type");
    fewer.remove("content-length");
    let sent = capture(|url| assert!(http::put(url, &fewer, b"hello!").is_success())).to_lowercase();
    assert!(!sent.contains("content-type"), "{sent}");
    assert!(sent.contains("content-length: 6\r\n"), "{sent}");

    let sent = capture(|url| assert!(http::put_chunked(url, &fewer, b"hello").is_success())).to_lowercase();
    assert!(sent.contains("transfer-encoding: chunked\r\n") && !sent.contains("content-length"), "{sent}");
}
