//! Verification in place, against stores that say little and objects that come and go.

use pg_storage_core::digest::Digest;
use pg_storage_store::ErrorKind;
use pg_storage_store::probe::Capabilities;
use pg_storage_store::verify::{Expected, Finding, direct};

use crate::canned::{Reply, Server};
use crate::uploads::{PNG, assert_harmless, expected, object, other_png, undeclared, verified, wrong_type};

const SUM: &str = "x-amz-checksum-sha256";

/// A store whose HEAD gives sums.
fn sums() -> Capabilities {
    Capabilities { head_checksum: true, ..Capabilities::default() }
}

async fn check(
    server: &Server,
    expected: &Expected,
    capabilities: &Capabilities,
) -> Result<Finding, ErrorKind> {
    let outcome = direct(&server.store(), "b", "k", expected, capabilities).await;
    assert_harmless(server);
    outcome.map_err(|error| error.kind)
}

#[tokio::test]
async fn the_first_thing_wrong_is_found() {
    let bad_sum = Digest::of(b"other").to_base64();
    let good_sum = Digest::of(PNG).to_base64();
    let cases: Vec<(Reply, Finding)> = vec![
        (Reply::new(404), Finding::Absent),
        (object(b"", "image/png"), Finding::Empty),
        (
            object(b"other", "text/plain").header(SUM, &bad_sum),
            Finding::SizeMismatch { declared: PNG.len() as u64, found: 5 },
        ),
        (
            object(PNG, "text/plain").header(SUM, &bad_sum),
            Finding::HashMismatch { declared: Digest::of(PNG), found: Digest::of(b"other") },
        ),
        (object(PNG, "text/plain").header(SUM, &good_sum), wrong_type("image/png", "text/plain")),
        (
            object(PNG, "image/png").header(SUM, &good_sum).header("content-encoding", "gzip"),
            wrong_type("image/png", "image/png, encoded as gzip"),
        ),
        (
            object(PNG, "image/png").header(SUM, &good_sum).header("cache-control", "public, max-age=60"),
            wrong_type("image/png", "image/png, to be cached as public, max-age=60"),
        ),
        (
            object(PNG, "image/png").header(SUM, &good_sum).header("cache-control", "max-age=0, no-cache"),
            verified(PNG),
        ),
        (object(PNG, "image/png").header(SUM, &good_sum), verified(PNG)),
    ];
    for (reply, finding) in cases {
        for capabilities in [Capabilities::default(), sums()] {
            let reply = reply.clone();
            let server = Server::start(move |request| match request.path.as_str() {
                "/b" => Reply::new(200),
                _ => reply.clone(),
            })
            .await;
            assert_eq!(check(&server, &expected(PNG, "image/png"), &capabilities).await.unwrap(), finding);
        }
    }
}

#[tokio::test]
async fn leading_bytes_are_looked_at_only_when_asked_and_only_those() {
    let body = [PNG, &[7; 9000]].concat();
    let mut promised = expected(&body, "image/jpeg");
    promised.check_bytes = false;
    let served = body.clone();
    let server = Server::start(move |_| object(&served, "image/jpeg")).await;
    let finding = check(&server, &promised, &Capabilities::default()).await.unwrap();
    assert!(matches!(finding, Finding::Verified { .. }), "{finding:?}");
    assert_eq!(server.lines(), ["HEAD /b/k"], "a store without sums costs one HEAD");
    promised.check_bytes = true;
    assert_eq!(
        check(&server, &promised, &Capabilities::default()).await,
        Ok(wrong_type("image/jpeg", "image/png"))
    );
    let get = server.requests().into_iter().find(|request| request.method == "GET").unwrap();
    assert_eq!(get.header("range"), Some("bytes=0-4095"));
}

#[tokio::test]
async fn an_object_with_the_right_sum_is_not_read() {
    let promised = Expected { check_bytes: false, ..expected(PNG, "image/png") };
    let sum = Digest::of(PNG).to_base64();
    let server = Server::start(move |_| object(PNG, "image/png").header(SUM, &sum)).await;
    assert!(matches!(check(&server, &promised, &sums()).await, Ok(Finding::Verified { .. })));
    assert_eq!(server.lines(), ["HEAD /b/k"]);
}

#[tokio::test]
async fn an_object_without_a_sum_is_read_where_the_others_have_one() {
    // The sum of sums of a multipart upload says nothing about the whole either.
    for sum in [None, Some("Zm9yIHRocmVlIHBhcnRz-3")] {
        let start = |body: Vec<u8>| {
            Server::start(move |_| match sum {
                Some(sum) => object(&body, "image/png").header(SUM, sum),
                None => object(&body, "image/png"),
            })
        };
        let promised = Expected { check_bytes: false, ..expected(PNG, "image/png") };
        let server = start(other_png()).await;
        assert_eq!(
            check(&server, &promised, &sums()).await,
            Ok(Finding::HashMismatch { declared: Digest::of(PNG), found: Digest::of(&other_png()) })
        );
        assert_eq!(server.lines(), ["HEAD /b/k", "GET /b/k"]);
        assert_eq!(server.requests()[1].header("range"), None, "all of it");

        let server = start(PNG.to_vec()).await;
        assert_eq!(check(&server, &expected(PNG, "image/png"), &sums()).await, Ok(verified(PNG)));
        let server = start(PNG.to_vec()).await;
        let jpeg = Expected { content_type: expected(PNG, "image/jpeg").content_type, ..promised };
        assert_eq!(check(&server, &jpeg, &sums()).await, Ok(wrong_type("image/jpeg", "image/png")));
    }
}

#[tokio::test]
async fn an_object_that_comes_or_goes_between_two_requests_is_absent() {
    let leading = expected(PNG, "image/png");
    let whole = Expected { check_bytes: false, ..leading.clone() };
    for (promised, capabilities) in [(&leading, Capabilities::default()), (&whole, sums())] {
        for (code, outcome) in
            [("NoSuchKey", Ok(Finding::Absent)), ("NoSuchBucket", Err(ErrorKind::NoSuchBucket))]
        {
            let server = Server::start(move |request| match request.path.as_str() {
                "/b" if code == "NoSuchKey" => Reply::new(200),
                _ if request.method == "GET" => Reply::error(404, code),
                _ => object(PNG, "image/png"),
            })
            .await;
            assert_eq!(check(&server, promised, &capabilities).await, outcome);
        }
    }
}

#[tokio::test]
async fn a_failure_is_no_finding() {
    for method in ["HEAD", "GET"] {
        let server = Server::start(move |request| match request.method == method {
            true => Reply::error(403, "AccessDenied"),
            false => object(PNG, "image/png"),
        })
        .await;
        let outcome = check(&server, &expected(PNG, "image/png"), &Capabilities::default()).await;
        assert_eq!(outcome, Err(ErrorKind::Denied), "{method}");
    }
}

#[tokio::test]
async fn a_missing_bucket_is_not_a_missing_upload() {
    let promised = expected(PNG, "image/png");
    let server = Server::start(|_| Reply::error(404, "NoSuchBucket")).await;
    assert_eq!(check(&server, &promised, &Capabilities::default()).await, Err(ErrorKind::NoSuchBucket));

    // Whoever may not ask about the bucket is told about the object all the same.
    let server = Server::start(|request| match request.path.as_str() {
        "/b" => Reply::error(403, "AccessDenied"),
        _ => Reply::error(404, "NoSuchKey"),
    })
    .await;
    assert_eq!(check(&server, &promised, &Capabilities::default()).await, Ok(Finding::Absent));
}

#[tokio::test]
async fn a_declared_hash_is_needed() {
    let server = Server::start(|_| object(PNG, "image/png")).await;
    let outcome = check(&server, &undeclared(PNG, "image/png"), &sums()).await;
    assert_eq!(outcome, Err(ErrorKind::Invalid));
    assert!(server.requests().is_empty());
}
