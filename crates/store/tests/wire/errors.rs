//! Answers and broken connections become errors by meaning, with what an operator needs and no secret.

use std::sync::atomic::{AtomicUsize, Ordering};

use pg_storage_store::{CredentialSource, ErrorKind, HashOutcome, S3Store, Store as _};

use crate::canned::{ACCESS_KEY, After, Reply, SECRET_KEY, SESSION_TOKEN, Server, config};

#[tokio::test]
async fn status_and_code_become_a_meaning() {
    let cases = [
        (404, "NoSuchKey", ErrorKind::NotFound),
        (404, "NoSuchBucket", ErrorKind::NoSuchBucket),
        (404, "Whatever", ErrorKind::NotFound),
        (409, "BucketAlreadyOwnedByYou", ErrorKind::AlreadyExists),
        (409, "BucketAlreadyExists", ErrorKind::NameTaken),
        (409, "BucketNotEmpty", ErrorKind::Invalid),
        (412, "PreconditionFailed", ErrorKind::Precondition),
        (403, "AccessDenied", ErrorKind::Denied),
        (403, "SignatureDoesNotMatch", ErrorKind::Denied),
        (400, "ExpiredToken", ErrorKind::Denied),
        (401, "Whatever", ErrorKind::Denied),
        (501, "NotImplemented", ErrorKind::NotImplemented),
        (405, "MethodNotAllowed", ErrorKind::NotImplemented),
        (400, "EntityTooLarge", ErrorKind::Invalid),
        (503, "SlowDown", ErrorKind::Unavailable),
        (500, "InternalError", ErrorKind::Unavailable),
        (400, "RequestTimeout", ErrorKind::Timeout),
    ];
    for (status, code, kind) in cases {
        let server = Server::start(move |_| Reply::error(status, code)).await;
        let mut once = config(&server.url);
        once.max_attempts = 1;
        let error = S3Store::connect(once).unwrap().get_range("b", "k", 0, 10).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status} {code}");
        assert_eq!((error.status, error.code.as_deref()), (Some(status), Some(code)));
        assert_eq!(error.request_id.as_deref(), Some("REQ-42"));
        assert_eq!(error.message, format!("about {code}"));
    }
}

#[tokio::test]
async fn an_error_reads_well_and_keeps_secrets() {
    let server = Server::start(|_| Reply::error(503, "SlowDown")).await;
    let error = server.store().list_page("bucket", "some/prefix", None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "ListObjectsV2: about SlowDown (status 503, code SlowDown, request id REQ-42, 3 attempts)"
    );
    let shown = format!("{error:?} {error} {:?} {:?}", server.store(), config(&server.url));
    for secret in [SECRET_KEY, SESSION_TOKEN, "list-type", "Signature"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let chain = CredentialSource::DefaultChain { profile: Some("p".to_owned()), credentials_file: None };
    assert!(format!("{chain:?}").contains("\"p\""));
    assert!(server.requests()[0].header("authorization").unwrap().contains(ACCESS_KEY));
}

#[tokio::test]
async fn foreign_text_is_bounded_and_printable() {
    let long = format!("first\r\nsecond\u{1b}[31m{}", "x".repeat(5000));
    let server = Server::start(move |_| {
        let document =
            format!("<Error><Code>Odd</Code><Message>{}</Message></Error>", long.replace('\u{1b}', "?"));
        Reply::new(400).body(document)
    })
    .await;
    let error = server.store().get_range("b", "k", 0, 1).await.unwrap_err();
    assert!(error.message.chars().count() <= 300);
    assert!(!error.message.chars().any(char::is_control), "{:?}", error.message);
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_a_refusal_is_not() {
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::error(503, "SlowDown"),
        1 => Reply::new(200).then(After::Close).announce(5),
        _ => Reply::new(200).body("bytes"),
    })
    .await;
    let store = server.store();
    // The second answer breaks off inside the body, which is not a thing to repeat behind the caller's back.
    let error = store.get_range("b", "k", 0, 5).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(store.get_range("b", "k", 0, 5).await.unwrap(), b"bytes");
    assert_eq!(server.requests().len(), 3);

    let server = Server::start(|_| Reply::error(403, "AccessDenied")).await;
    assert_eq!(server.store().head_bucket("b").await.unwrap_err().kind, ErrorKind::Denied);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_seen() {
    let server = Server::start(|_| Reply::new(200).body("bytes").then(After::Close)).await;
    let mut once = config(&server.url);
    once.max_attempts = 1;
    let store = S3Store::connect(once).unwrap();
    for _ in 0..50 {
        assert_eq!(store.get_range("b", "k", 0, 5).await.unwrap(), b"bytes");
        // The connection's task must run to notice the end of the stream, as it does on an I/O thread.
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_redirect_is_reported_and_not_followed() {
    let elsewhere = Server::start(|_| Reply::new(200)).await;
    for status in [301, 302, 307, 308] {
        let location = format!("{}/stolen", elsewhere.url);
        let server = Server::start(move |_| {
            Reply::error(status, "PermanentRedirect")
                .header("location", &location)
                .header("x-amz-bucket-region", "eu-central-1")
        })
        .await;
        let error = server.store().list_page("b", "", None).await.unwrap_err();
        assert_eq!((error.kind, error.status), (ErrorKind::Invalid, Some(status)));
        if matches!(status, 301 | 307) {
            assert!(error.message.ends_with("the bucket is in region eu-central-1"), "{}", error.message);
        }
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn nonsense_is_called_so() {
    let server = Server::start(|_| Reply::new(200).body("<not xml")).await;
    assert_eq!(server.store().list_page("b", "", None).await.unwrap_err().kind, ErrorKind::Unexpected);
}

#[tokio::test]
async fn a_server_without_tls_is_not_talked_to_in_the_clear() {
    let server = Server::start(|_| Reply::new(200)).await;
    let mut tls = config(&server.url.replace("http:", "https:"));
    tls.connect_timeout = std::time::Duration::from_millis(300);
    let error = S3Store::connect(tls).unwrap().head_bucket("b").await.unwrap_err();
    // The scripted server waits for a request that the handshake is not.
    assert_eq!((error.kind, error.status), (ErrorKind::Timeout, None), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn an_object_that_breaks_off_is_not_hashed() {
    let server = Server::start(|_| Reply::new(200).body("half").announce(8).then(After::Close)).await;
    let error = server.store().hash_object("b", "k", 100).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn an_announced_length_over_the_cap_is_not_read_at_all() {
    let server = Server::start(|_| Reply::new(200).body("tiny").announce(1 << 40).then(After::Hang)).await;
    let outcome = server.store().hash_object("b", "k", 100).await.unwrap();
    assert_eq!(outcome, HashOutcome::OverCap { size: 1 << 40 });
}

#[tokio::test]
async fn a_copy_that_fails_after_its_200_is_a_failure() {
    let server = Server::start(|_| {
        Reply::new(200).body("<Error><Code>InternalError</Code><Message>sorry</Message></Error>")
    })
    .await;
    let error = server
        .store()
        .copy("b", "from", "b", "to", None, Some(pg_storage_store::Description::typed("text/plain")))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
}
