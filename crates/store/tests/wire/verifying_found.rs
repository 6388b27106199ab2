//! Verification of what was in a store before anybody asked us: whose word is taken for its hash.

use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_store::ErrorKind;
use pg_storage_store::probe::{Capabilities, Support};
use pg_storage_store::verify::{Claim, Finding, found};

use crate::canned::{Reply, Server};
use crate::uploads::{PNG, assert_harmless, object, other_png, verified, wrong_type};

const SUM: &str = "x-amz-checksum-sha256";

/// A store that was seen to refuse other bytes than those of a declared hash.
fn enforcing() -> Capabilities {
    Capabilities { checksum: Support::Enforced, head_checksum: true, ..Capabilities::default() }
}

async fn check(server: &Server, claim: &Claim, capabilities: &Capabilities) -> Result<Finding, ErrorKind> {
    let outcome = found(&server.store(), "b", "k", claim, capabilities).await;
    assert_harmless(server);
    outcome.map_err(|error| error.kind)
}

/// Nothing is said, and the type is looked for in the bytes.
fn looked_into() -> Claim {
    Claim { check_bytes: true, ..Claim::default() }
}

/// A store with one object, whose HEAD and GET are these.
async fn store(head: Reply, get: Reply) -> Server {
    Server::start(move |request| match (request.method.as_str(), request.path.as_str()) {
        (_, "/b") => Reply::new(200),
        ("HEAD", _) => head.clone(),
        _ => get.clone(),
    })
    .await
}

/// As stores answer that keep the sum they enforced.
fn summed(body: &[u8]) -> Reply {
    object(body, "image/png").header(SUM, &Digest::of(body).to_base64())
}

#[tokio::test]
async fn only_a_store_that_refuses_wrong_bytes_is_believed() {
    // Its HEAD claims the hash of other bytes than it has.
    let lying = Digest::of(&other_png()).to_base64();
    let head = object(PNG, "image/png").header(SUM, &lying);
    let server = store(head, object(PNG, "image/png")).await;
    assert_eq!(check(&server, &looked_into(), &Capabilities::default()).await, Ok(verified(PNG)));
    assert!(server.lines().contains(&"GET /b/k".to_owned()), "it was read");

    let server = store(summed(PNG), Reply::new(500)).await;
    assert_eq!(
        check(&server, &Claim::default(), &enforcing()).await.map(|finding| match finding {
            Finding::Verified { sha256, .. } => sha256,
            other => panic!("{other:?}"),
        }),
        Ok(Digest::of(PNG))
    );
    assert!(!server.lines().contains(&"GET /b/k".to_owned()), "it was not read");
}

#[tokio::test]
async fn a_sum_of_parts_is_not_taken_for_one_of_the_whole() {
    let parts = Reply::new(200)
        .header("content-type", "image/png")
        .header("etag", "\"0123456789abcdef0123456789abcdef-2\"")
        .header(SUM, &Digest::of(b"the sums of two parts").to_base64())
        .body(PNG);
    let server = store(parts, object(PNG, "image/png")).await;
    assert_eq!(check(&server, &looked_into(), &enforcing()).await, Ok(verified(PNG)));
    assert!(server.lines().contains(&"GET /b/k".to_owned()));
}

#[tokio::test]
async fn what_is_said_is_held_against_what_is_there() {
    let png = ContentType::parse("image/png").unwrap();
    let other = Digest::of(b"other");
    let cases = [
        (Claim::default(), verified(PNG)),
        (Claim { content_type: Some(png.clone()), ..Claim::default() }, verified(PNG)),
        (Claim { size: Some(15), ..Claim::default() }, Finding::SizeMismatch { declared: 15, found: 16 }),
        (
            Claim { sha256: Some(other), ..Claim::default() },
            Finding::HashMismatch { declared: other, found: Digest::of(PNG) },
        ),
        (
            Claim { content_type: Some(ContentType::parse("text/plain").unwrap()), ..Claim::default() },
            wrong_type("text/plain", "image/png"),
        ),
    ];
    for (claim, finding) in cases {
        let claim = Claim { check_bytes: true, ..claim };
        for (capabilities, head) in
            [(Capabilities::default(), object(PNG, "image/png")), (enforcing(), summed(PNG))]
        {
            let server = store(head.clone(), head).await;
            assert_eq!(check(&server, &claim, &capabilities).await, Ok(finding.clone()), "{claim:?}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_or_goes_meanwhile_is_absent() {
    let server = store(Reply::new(404), Reply::new(500)).await;
    assert_eq!(check(&server, &Claim::default(), &enforcing()).await, Ok(Finding::Absent));
    let server = store(object(PNG, "image/png"), Reply::error(404, "NoSuchKey")).await;
    assert_eq!(check(&server, &Claim::default(), &Capabilities::default()).await, Ok(Finding::Absent));
    let server = store(object(b"", "image/png"), Reply::new(500)).await;
    assert_eq!(check(&server, &Claim::default(), &enforcing()).await, Ok(Finding::Empty));
    let gone = Server::start(|_| Reply::new(404)).await;
    assert_eq!(check(&gone, &Claim::default(), &enforcing()).await, Err(ErrorKind::NoSuchBucket));
}
