//! Verification by copying and reading the copy, against stores whose objects change, go and never end.

use std::sync::Mutex;

use pg_storage_core::digest::Digest;
use pg_storage_store::ErrorKind;
use pg_storage_store::probe::{Capabilities, Support};
use pg_storage_store::verify::{Expected, Finding, staged};

use crate::canned::{After, Reply, Request, Server};
use crate::uploads::{
    PNG, assert_harmless, etag, expected, object, other_png, undeclared, verified, wrong_type,
};

const MIB: usize = 1 << 20;

/// A store with one staged object that is replaced right after it was asked about.
struct Swap {
    /// What HEAD tells of the staging object.
    told: Vec<u8>,
    /// The type it tells.
    content_type: &'static str,
    /// What the staging key holds when it is copied; `None`: nothing.
    copied: Option<Vec<u8>>,
    /// Whether copying honours the entity tag it is given.
    pins: bool,
    copy: Mutex<Option<(Vec<u8>, String)>>,
}

impl Swap {
    fn new(told: &[u8], copied: Option<&[u8]>) -> Self {
        Self {
            told: told.to_vec(),
            content_type: "image/png",
            copied: copied.map(<[u8]>::to_vec),
            pins: true,
            copy: Mutex::new(None),
        }
    }

    fn quiet(body: &[u8], content_type: &'static str) -> Self {
        Self { content_type, ..Self::new(body, Some(body)) }
    }

    fn answer(&self, request: &Request) -> Reply {
        match (request.method.as_str(), request.path.as_str()) {
            ("HEAD", "/b") => Reply::new(200),
            ("HEAD", "/b/s") => object(&self.told, self.content_type),
            ("PUT", "/b/f") => {
                let Some(body) = &self.copied else { return Reply::error(404, "NoSuchKey") };
                let pin = request.header("x-amz-copy-source-if-match");
                if self.pins && pin.is_some_and(|pin| pin != etag(body)) {
                    return Reply::error(412, "PreconditionFailed");
                }
                let content_type = request.header("content-type").unwrap().to_owned();
                *self.copy.lock().unwrap() = Some((body.clone(), content_type));
                Reply::new(200).body("<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>")
            }
            ("GET", "/b/f") => match &*self.copy.lock().unwrap() {
                Some((body, content_type)) => object(body, content_type),
                None => Reply::error(404, "NoSuchKey"),
            },
            _ => Reply::error(400, "InvalidRequest"),
        }
    }

    async fn start(self) -> Server {
        Server::start(move |request| self.answer(request)).await
    }
}

fn pinning(copy_source_if_match: Support) -> Capabilities {
    Capabilities { copy_source_if_match, ..Capabilities::default() }
}

async fn check(
    server: &Server,
    expected: &Expected,
    capabilities: &Capabilities,
) -> Result<Finding, ErrorKind> {
    let outcome = staged(&server.store(), "b", "s", "f", expected, capabilities).await;
    assert_harmless(server);
    outcome.map_err(|error| error.kind)
}

#[tokio::test]
async fn the_copy_is_what_is_read() {
    for promised in [undeclared(PNG, "image/png"), expected(PNG, "image/png")] {
        let server = Swap::quiet(PNG, "image/png").start().await;
        assert_eq!(check(&server, &promised, &Capabilities::default()).await, Ok(verified(PNG)));
        assert_eq!(server.lines(), ["HEAD /b/s", "PUT /b/f", "GET /b/f"]);
        let copy = &server.requests()[1];
        assert_eq!(copy.header("x-amz-copy-source"), Some("b/s"));
        assert_eq!(copy.header("content-type"), Some("image/png"));
    }
}

#[tokio::test]
async fn the_copy_is_pinned_where_that_is_honoured() {
    for support in [Support::Enforced, Support::Ignored, Support::Racy, Support::Refused] {
        let server = Swap::quiet(PNG, "image/png").start().await;
        assert_eq!(check(&server, &undeclared(PNG, "image/png"), &pinning(support)).await, Ok(verified(PNG)));
        let tag = etag(PNG);
        let pin = (support == Support::Enforced).then_some(tag.as_str());
        assert_eq!(server.requests()[1].header("x-amz-copy-source-if-match"), pin, "{support:?}");
    }
}

/// A store whose staging object and its copy have metadata of their own.
async fn marked_store(
    staged: Option<&'static str>,
    kept: Option<&'static str>,
    encoding: &'static str,
) -> Server {
    let with = |reply: Reply, mark: Option<&str>| match mark {
        Some(mark) => reply.header("x-amz-meta-upload", mark),
        None => reply,
    };
    Server::start(move |request| match (request.method.as_str(), request.path.as_str()) {
        ("HEAD", "/b/s") => with(object(PNG, "image/png"), staged),
        ("PUT", "/b/f") => Reply::new(200).body("<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>"),
        ("GET", "/b/f") => with(object(PNG, "image/png").header("content-encoding", encoding), kept),
        _ => Reply::error(400, "InvalidRequest"),
    })
    .await
}

fn marked() -> Expected {
    Expected { mark: Some("mine".to_owned()), ..undeclared(PNG, "image/png") }
}

/// Where an upload can become a copy of another object, only what carries its mark is it, and it is the copy that counts.
#[tokio::test]
async fn what_does_not_carry_the_mark_is_no_upload_and_nothing_is_told_of_it() {
    let foreign = Ok(wrong_type("image/png", "a copy of another object"));
    let nothing = Capabilities::default();
    let server = marked_store(Some("mine"), Some("mine"), "").await;
    assert_eq!(check(&server, &marked(), &nothing).await, Ok(verified(PNG)));
    let copy = &server.requests()[1];
    assert_eq!(copy.header("x-amz-metadata-directive"), Some("COPY"), "the copy keeps the mark");

    for other in [None, Some("another")] {
        let server = marked_store(other, Some("mine"), "").await;
        // Not even its size, which this one has not.
        let promised = Expected { size: 1, ..marked() };
        assert_eq!(check(&server, &promised, &nothing).await, foreign);
        assert_eq!(server.lines(), ["HEAD /b/s"]);
        // Replaced after the HEAD.
        let server = marked_store(Some("mine"), other, "").await;
        let promised = Expected { sha256: Some(Digest::of(b"other bytes")), ..marked() };
        assert_eq!(check(&server, &promised, &nothing).await, foreign);
    }
    // A copy that keeps the mark keeps an encoding as well.
    let server = marked_store(Some("mine"), Some("mine"), "gzip").await;
    let encoded = wrong_type("image/png", "image/png, encoded as gzip");
    assert_eq!(check(&server, &marked(), &nothing).await, Ok(encoded));
}

/// A store that has marks may lose what a form says to caches.
#[tokio::test]
async fn a_copy_that_kept_its_mark_is_told_what_it_has_to_say_to_caches() {
    const FOR_GOOD: &str = "public, max-age=31536000, immutable";
    let nothing = Capabilities::default();
    let public = Expected { cache_control: Some(FOR_GOOD), ..marked() };
    let server = marked_store(Some("mine"), Some("mine"), "").await;
    let Ok(Finding::Verified { etag, sha256, .. }) = check(&server, &public, &nothing).await else {
        panic!()
    };
    assert_eq!((etag.as_deref(), sha256), (Some("\"x\""), Digest::of(PNG)));
    assert_eq!(server.lines(), ["HEAD /b/s", "PUT /b/f", "GET /b/f", "PUT /b/f"]);
    let again = &server.requests()[3];
    assert_eq!(again.header("x-amz-copy-source"), Some("b/f"));
    assert_eq!(again.header("x-amz-metadata-directive"), Some("REPLACE"));
    assert_eq!(again.header("content-type"), Some("image/png"));
    assert_eq!(again.header("cache-control"), Some(FOR_GOOD));

    // Not what is wrong, and not what is private.
    let server = marked_store(Some("mine"), Some("another"), "").await;
    let foreign = wrong_type("image/png", "a copy of another object");
    assert_eq!(check(&server, &public, &nothing).await, Ok(foreign));
    assert_eq!(server.lines().len(), 3);
    let server = marked_store(Some("mine"), Some("mine"), "").await;
    assert_eq!(check(&server, &marked(), &nothing).await, Ok(verified(PNG)));
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn what_head_shows_to_be_wrong_is_not_copied() {
    let declared = PNG.len() as u64;
    let cases: [(&[u8], &'static str, Finding); 4] = [
        (b"", "image/png", Finding::Empty),
        (b"other", "text/plain", Finding::SizeMismatch { declared, found: 5 }),
        (&[1; 17], "image/png", Finding::SizeMismatch { declared, found: 17 }),
        (&[0; 16], "text/plain", wrong_type("image/png", "text/plain")),
    ];
    for (body, content_type, finding) in cases {
        let server = Swap::quiet(body, content_type).start().await;
        let outcome = check(&server, &expected(PNG, "image/png"), &Capabilities::default()).await;
        assert_eq!(outcome, Ok(finding));
        assert_eq!(server.lines(), ["HEAD /b/s"]);
    }
}

#[tokio::test]
async fn what_only_the_bytes_show_is_found_in_the_copy() {
    let found = Digest::of(&other_png());
    let hash_mismatch = Finding::HashMismatch { declared: Digest::of(PNG), found };
    let cases = [
        (other_png(), expected(PNG, "image/png"), hash_mismatch.clone()),
        (PNG.to_vec(), undeclared(PNG, "image/jpeg"), wrong_type("image/jpeg", "image/png")),
        // The hash before the leading bytes.
        (
            other_png(),
            Expected { sha256: Some(Digest::of(PNG)), ..undeclared(PNG, "image/jpeg") },
            hash_mismatch,
        ),
    ];
    for (body, promised, finding) in cases {
        let content_type =
            if promised.content_type.as_str() == "image/png" { "image/png" } else { "image/jpeg" };
        let server = Swap::quiet(&body, content_type).start().await;
        assert_eq!(check(&server, &promised, &Capabilities::default()).await, Ok(finding));
        assert_eq!(server.lines(), ["HEAD /b/s", "PUT /b/f", "GET /b/f"]);
    }

    let unasked = Expected { check_bytes: false, ..undeclared(PNG, "image/jpeg") };
    let server = Swap::quiet(PNG, "image/jpeg").start().await;
    let finding = check(&server, &unasked, &Capabilities::default()).await.unwrap();
    assert!(matches!(finding, Finding::Verified { .. }), "{finding:?}");
}

#[tokio::test]
async fn a_swap_between_head_and_copy_is_refused_where_the_copy_is_pinned() {
    for promised in [undeclared(PNG, "image/png"), expected(PNG, "image/png")] {
        let server = Swap::new(PNG, Some(&other_png())).start().await;
        let outcome = check(&server, &promised, &pinning(Support::Enforced)).await;
        assert_eq!(outcome, Err(ErrorKind::Precondition));
        assert_eq!(server.lines(), ["HEAD /b/s", "PUT /b/f"]);
    }
}

#[tokio::test]
async fn a_swap_that_the_store_lets_through_is_judged_by_what_was_copied() {
    let other = other_png();
    let declared = PNG.len() as u64;
    let longer = [PNG, b"!"].concat();
    let cases: [(&[u8], Expected, Finding); 6] = [
        (
            &other,
            expected(PNG, "image/png"),
            Finding::HashMismatch { declared: Digest::of(PNG), found: Digest::of(&other) },
        ),
        // Nobody promised a hash: the file is what was copied, and its hash is of that.
        (&other, undeclared(PNG, "image/png"), verified(&other)),
        (b"", undeclared(PNG, "image/png"), Finding::Empty),
        (&PNG[..9], undeclared(PNG, "image/png"), Finding::SizeMismatch { declared, found: 9 }),
        (&longer, undeclared(PNG, "image/png"), Finding::SizeMismatch { declared, found: declared + 1 }),
        (b"%PDF-1.7 for now", undeclared(PNG, "image/png"), wrong_type("image/png", "application/pdf")),
    ];
    for (copied, promised, finding) in cases {
        // Unpinned, and pinned at a store that was honest only while it was probed.
        for (pins, support) in [(true, Support::Ignored), (false, Support::Enforced)] {
            let swap = Swap { pins, ..Swap::new(PNG, Some(copied)) };
            let server = swap.start().await;
            assert_eq!(check(&server, &promised, &pinning(support)).await.as_ref(), Ok(&finding));
        }
    }
}

#[tokio::test]
async fn a_copy_with_another_type_is_not_verified() {
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => object(PNG, "image/png"),
        "PUT" => Reply::new(200).body("<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>"),
        _ => object(PNG, "text/html"),
    })
    .await;
    let outcome = check(&server, &undeclared(PNG, "image/png"), &Capabilities::default()).await;
    assert_eq!(outcome, Ok(wrong_type("image/png", "text/html")));
}

#[tokio::test]
async fn nothing_there_is_absent_also_if_it_went_after_the_head() {
    let promised = undeclared(PNG, "image/png");
    let server = Server::start(|request| match request.path.as_str() {
        "/b" => Reply::new(200),
        _ => Reply::new(404),
    })
    .await;
    assert_eq!(check(&server, &promised, &Capabilities::default()).await, Ok(Finding::Absent));
    assert_eq!(server.lines(), ["HEAD /b/s", "HEAD /b"]);

    for support in [Support::Enforced, Support::Ignored] {
        let server = Swap::new(PNG, None).start().await;
        assert_eq!(check(&server, &promised, &pinning(support)).await, Ok(Finding::Absent));
        assert_eq!(server.lines(), ["HEAD /b/s", "PUT /b/f", "HEAD /b"]);
    }
}

#[tokio::test]
async fn a_missing_bucket_is_not_a_missing_upload() {
    let promised = undeclared(PNG, "image/png");
    let server = Server::start(|_| Reply::error(404, "NoSuchBucket")).await;
    let outcome = check(&server, &promised, &Capabilities::default()).await;
    assert_eq!(outcome, Err(ErrorKind::NoSuchBucket));

    // It went after the HEAD; stores say that in either way.
    for code in ["NoSuchBucket", "NoSuchKey"] {
        let server = Server::start(move |request| match request.path.as_str() {
            "/b/s" => object(PNG, "image/png"),
            _ => Reply::error(404, code),
        })
        .await;
        let outcome = check(&server, &promised, &Capabilities::default()).await;
        assert_eq!(outcome, Err(ErrorKind::NoSuchBucket), "{code}");
    }
}

#[tokio::test]
async fn a_failure_is_no_finding() {
    let promised = undeclared(PNG, "image/png");
    for failing in ["HEAD /b/s", "PUT /b/f", "GET /b/f"] {
        let swap = Swap::quiet(PNG, "image/png");
        let server = Server::start(move |request| match request.line() == failing {
            true => Reply::error(403, "AccessDenied"),
            false => swap.answer(request),
        })
        .await;
        let outcome = check(&server, &promised, &Capabilities::default()).await;
        assert_eq!(outcome, Err(ErrorKind::Denied), "{failing}");
    }

    // A copy that is reported and not there: the upload is neither verified nor absent.
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => object(PNG, "image/png"),
        "PUT" => Reply::new(200).body("<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>"),
        _ => Reply::error(404, "NoSuchKey"),
    })
    .await;
    let outcome = check(&server, &promised, &Capabilities::default()).await;
    assert_eq!(outcome, Err(ErrorKind::NotFound));

    // A copy that fails after its 200 was sent.
    let swap = Swap::quiet(PNG, "image/png");
    let server = Server::start(move |request| match request.method.as_str() {
        "PUT" => Reply::new(200).body("<Error><Code>AccessDenied</Code><Message>no</Message></Error>"),
        _ => swap.answer(request),
    })
    .await;
    let outcome = check(&server, &promised, &Capabilities::default()).await;
    assert_eq!(outcome, Err(ErrorKind::Denied));
}

/// A copy that never ends shows three things: reading stops beyond the promise, all of the promise was read, and it
/// was not kept.
#[tokio::test]
async fn a_copy_is_read_in_bounded_memory_and_no_further_than_promised() {
    const PROMISED: usize = 256 * MIB;
    let piece = vec![0_u8; MIB / 16];
    let server = Server::start(move |request| match request.method.as_str() {
        "HEAD" => Reply::new(200).header("content-type", "image/png").announce(PROMISED),
        "PUT" => Reply::new(200).body("<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>"),
        _ => Reply::new(200).header("content-type", "image/png").body(piece.clone()).then(After::Flood),
    })
    .await;
    let promised = Expected { size: PROMISED as u64, ..undeclared(PNG, "image/png") };
    let before = memory("VmRSS:");
    let outcome = check(&server, &promised, &Capabilities::default()).await;
    let grown = memory("VmHWM:").saturating_sub(before);
    let Ok(Finding::SizeMismatch { declared, found }) = outcome else { panic!("{outcome:?}") };
    assert!(declared == promised.size && found > declared, "{found}");
    assert!(found < declared + 16 * MIB as u64, "{found}");
    assert!(server.flooded() < PROMISED + 64 * MIB, "what was sent is bounded by what sockets hold");
    assert!(grown < PROMISED / 2, "{grown} bytes of memory");
}

/// This process's memory in bytes: `VmRSS:` now, `VmHWM:` at its peak.
fn memory(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
