//! Whatever a store or its network does, a call ends. The bounds are generous: they only tell an end from none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pg_storage_store::{Description, ErrorKind, PutOptions, S3Store, Store as _, StoreConfig, StoreError};
use tokio::net::TcpListener;

use crate::canned::{After, Reply, Server, config};

const END: Duration = Duration::from_secs(15);

/// A listener that accepts and never says a word.
async fn black_hole() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address.to_string()
}

fn impatient(url: &str, connect: u64, request: u64) -> S3Store {
    let mut config = config(url);
    config.connect_timeout = Duration::from_millis(connect);
    config.request_timeout = Duration::from_millis(request);
    S3Store::connect(config).unwrap()
}

async fn timed<T: std::fmt::Debug>(call: impl Future<Output = Result<T, StoreError>>) -> StoreError {
    let start = Instant::now();
    let error = tokio::time::timeout(END, call).await.expect("the call must end by itself").unwrap_err();
    assert!(start.elapsed() < END);
    error
}

#[tokio::test]
async fn a_silent_store_times_out() {
    let store = impatient(&format!("http://{}", black_hole().await), 300, 600);
    let error = timed(store.head("b", "k")).await;
    assert_eq!((error.kind, error.operation), (ErrorKind::Timeout, "HeadObject"), "{error}");
    assert!(error.attempts.is_some_and(|n| n >= 1));
    let plain =
        PutOptions { description: Description::typed("text/plain"), sha256: None, create_only: false };
    for error in [
        timed(store.put("b", "k", b"x".to_vec(), plain)).await,
        timed(store.copy("b", "k", "b", "l", None, Some(Description::typed("text/plain")))).await,
        timed(store.create_bucket("b")).await,
        timed(store.delete_batch("b", &["k".to_owned()])).await,
    ] {
        assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    }
}

#[tokio::test]
async fn all_attempts_and_the_waits_between_them_have_one_deadline() {
    let server = Server::start(|_| Reply::error(503, "SlowDown")).await;
    let mut config = config(&server.url);
    // So many attempts that their waits cannot all fit, and time enough for more than one on a machine that stalls.
    config.request_timeout = Duration::from_secs(5);
    config.max_attempts = 20;
    let error = timed(S3Store::connect(config).unwrap().head_bucket("b")).await;
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
    assert!(server.requests().len() > 1);
}

#[tokio::test]
async fn deletes_one_by_one_have_one_deadline() {
    let server = Server::start(|request| match request.method.as_str() {
        "POST" => Reply::error(501, "NotImplemented"),
        _ if request.path == "/b/k0" => Reply::new(204),
        _ => Reply::new(204).then(After::Mute),
    })
    .await;
    let store = impatient(&server.url, 1_000, 2_000);
    let keys: Vec<String> = (0..1000).map(|n| format!("k{n}")).collect();
    let outcomes =
        tokio::time::timeout(END, store.delete_batch("b", &keys)).await.expect("it must end by itself");
    let kinds: Vec<_> =
        outcomes.unwrap().into_iter().map(|outcome| outcome.map_err(|error| error.kind)).collect();
    assert_eq!(kinds[0], Ok(()));
    assert_eq!(kinds[1..], [Err(ErrorKind::Timeout); 999]);
}

#[tokio::test]
async fn an_attempt_that_hangs_leaves_time_for_another() {
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::new(200).then(After::Mute),
        _ => Reply::new(200).body("bytes"),
    })
    .await;
    let store = impatient(&server.url, 1_000, 6_000);
    assert_eq!(store.get_range("b", "k", 0, 5).await.unwrap(), b"bytes");
}

#[tokio::test]
async fn a_silent_handshake_ends_at_the_connect_timeout() {
    let store = impatient(&format!("https://{}", black_hole().await), 200, 60_000);
    let error = timed(store.head("b", "k")).await;
    assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn a_refused_connection_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = timed(impatient(&url, 5_000, 10_000).head("b", "k")).await;
    assert_eq!((error.kind, error.attempts), (ErrorKind::Unavailable, Some(3)), "{error}");
}

#[tokio::test]
async fn an_object_that_stops_arriving_times_out() {
    let server = Server::start(|_| Reply::new(200).body("half").announce(8).then(After::Hang)).await;
    let store = impatient(&server.url, 300, 600);
    assert_eq!(timed(store.hash_object("b", "k", 100)).await.kind, ErrorKind::Timeout);
    assert_eq!(timed(store.get_range("b", "k", 0, 8)).await.kind, ErrorKind::Timeout);
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    let changes: [fn(&mut StoreConfig); 3] = [
        |c| c.max_attempts = 0,
        |c| c.connect_timeout = Duration::ZERO,
        |c| c.request_timeout = Duration::ZERO,
    ];
    for change in changes {
        let mut config = config("http://127.0.0.1:1");
        change(&mut config);
        assert_eq!(S3Store::connect(config).unwrap_err().kind, ErrorKind::Invalid);
    }
}
