//! Verification against stores that change, lie and forget.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use md5::{Digest as _, Md5};
use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_store::ErrorKind;
use pg_storage_store::probe::{Capabilities, Support};
use pg_storage_store::verify::{Expected, Finding, direct, staged};

use crate::canned::{After, Reply, Request, Server};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

fn expected(body: &[u8], content_type: &str) -> Expected {
    Expected {
        size: body.len() as u64,
        sha256: Some(Digest::of(body)),
        content_type: ContentType::parse(content_type).unwrap(),
        check_bytes: true,
    }
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A GET or HEAD of `body`.
fn object(body: &[u8], content_type: &str) -> Reply {
    Reply::new(200).header("content-type", content_type).header("etag", &etag(body)).body(body)
}

#[tokio::test]
async fn direct_finds_the_first_thing_wrong() {
    let promised = expected(PNG, "image/png");
    let sum = |body: &[u8]| base64::engine::general_purpose::STANDARD.encode(Digest::of(body).as_bytes());
    let bad_sum = sum(b"other");
    let cases: Vec<(Reply, Finding)> = vec![
        (Reply::new(404), Finding::Absent),
        (object(b"", "image/png"), Finding::Empty),
        (
            object(b"other", "text/plain").header("x-amz-checksum-sha256", &bad_sum),
            Finding::SizeMismatch { declared: PNG.len() as u64, found: 5 },
        ),
        (
            object(PNG, "text/plain").header("x-amz-checksum-sha256", &bad_sum),
            Finding::HashMismatch { declared: Digest::of(PNG), found: Digest::of(b"other") },
        ),
        (
            object(PNG, "text/plain"),
            Finding::ContentTypeMismatch { declared: "image/png".to_owned(), found: "text/plain".to_owned() },
        ),
        (
            object(PNG, "image/png").header("x-amz-checksum-sha256", &sum(PNG)),
            Finding::Verified {
                size: PNG.len() as u64,
                sha256: Digest::of(PNG),
                etag: Some(etag(PNG)),
                content_type: "image/png".to_owned(),
                detected: Some("image/png"),
            },
        ),
    ];
    for (reply, finding) in cases {
        let server = Server::start(move |request| match request.path.as_str() {
            "/b" => Reply::new(200),
            _ => reply.clone(),
        })
        .await;
        assert_eq!(direct(&server.store(), "b", "k", &promised).await.unwrap(), finding);
    }
}

#[tokio::test]
async fn direct_looks_at_leading_bytes_only_when_asked_and_only_at_those() {
    let body = [PNG, &[7; 9000]].concat();
    let mut promised = expected(&body, "image/jpeg");
    promised.check_bytes = false;
    let served = body.clone();
    let server = Server::start(move |_| object(&served, "image/jpeg")).await;
    let store = server.store();
    assert!(matches!(direct(&store, "b", "k", &promised).await.unwrap(), Finding::Verified { .. }));
    assert_eq!(server.lines(), ["HEAD /b/k"]);
    promised.check_bytes = true;
    assert_eq!(
        direct(&store, "b", "k", &promised).await.unwrap(),
        Finding::ContentTypeMismatch { declared: "image/jpeg".to_owned(), found: "image/png".to_owned() }
    );
    let get = server.requests().into_iter().find(|request| request.method == "GET").unwrap();
    assert_eq!(get.header("range"), Some("bytes=0-4095"));
}

#[tokio::test]
async fn a_missing_bucket_is_not_a_missing_upload() {
    let server = Server::start(|_| Reply::error(404, "NoSuchBucket")).await;
    let store = server.store();
    let promised = expected(PNG, "image/png");
    let error = direct(&store, "b", "k", &promised).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSuchBucket);
    let capabilities = Capabilities::default();
    let error =
        staged(&store, "b", "s", |_| "f".to_owned(), &promised, 100, &capabilities).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSuchBucket);

    let server = Server::start(|request| match request.path.as_str() {
        "/b" => Reply::error(403, "AccessDenied"),
        _ => Reply::error(404, "NoSuchKey"),
    })
    .await;
    assert_eq!(direct(&server.store(), "b", "k", &promised).await.unwrap(), Finding::Absent);
}

#[tokio::test]
async fn direct_needs_a_declared_hash() {
    let server = Server::start(|_| object(PNG, "image/png")).await;
    let undeclared = Expected { sha256: None, ..expected(PNG, "image/png") };
    let error = direct(&server.store(), "b", "k", &undeclared).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
}

/// A store with one staged object that is replaced while it is verified, and the copies made of it.
struct Shifting {
    /// What the staging key holds at its first reading, its second …; the last one stays.
    contents: Vec<Vec<u8>>,
    /// How many readings have been.
    reads: AtomicUsize,
    copy: Mutex<Option<Vec<u8>>>,
    /// Whether copying honours the entity tag it is given.
    pins: bool,
    /// What entity tags are: of the content, or meaningless.
    tag: fn(&[u8]) -> String,
    /// The sum that HEAD gives of the copy, if any.
    sum: Option<Digest>,
    /// What the first copies get to see, before the contents are put back.
    glimpses: Mutex<Vec<Vec<u8>>>,
}

impl Shifting {
    fn new(contents: &[&[u8]]) -> Self {
        Self {
            contents: contents.iter().map(|body| body.to_vec()).collect(),
            reads: AtomicUsize::new(0),
            copy: Mutex::new(None),
            pins: false,
            tag: etag,
            sum: None,
            glimpses: Mutex::new(Vec::new()),
        }
    }

    /// What the staging key holds now: it is replaced right after each reading.
    fn now(&self) -> &[u8] {
        let reads = self.reads.load(Ordering::Relaxed);
        self.contents.get(reads).unwrap_or_else(|| self.contents.last().unwrap())
    }

    fn reply(&self, body: &[u8]) -> Reply {
        Reply::new(200).header("content-type", "image/png").header("etag", &(self.tag)(body)).body(body)
    }

    fn answer(&self, request: &Request) -> Reply {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/b/s") => {
                let reply = self.reply(self.now());
                self.reads.fetch_add(1, Ordering::Relaxed);
                reply
            }
            ("HEAD", "/b/s") => self.reply(self.now()),
            ("PUT", _) => {
                let pin = request.header("x-amz-copy-source-if-match");
                if self.pins && pin.is_some_and(|pin| pin != (self.tag)(self.now())) {
                    return Reply::error(412, "PreconditionFailed");
                }
                let seen = self.glimpses.lock().unwrap().pop().unwrap_or_else(|| self.now().to_vec());
                *self.copy.lock().unwrap() = Some(seen);
                Reply::new(200).body("<CopyObjectResult><ETag>\"x\"</ETag></CopyObjectResult>")
            }
            ("HEAD" | "GET", _) => match &*self.copy.lock().unwrap() {
                Some(body) => match &self.sum {
                    Some(sum) => self.reply(body).header("x-amz-checksum-sha256", &sum.to_base64()),
                    None => self.reply(body),
                },
                None => Reply::new(404),
            },
            ("POST", _) => {
                *self.copy.lock().unwrap() = None;
                Reply::new(200).body("<DeleteResult><Deleted><Key>f</Key></Deleted></DeleteResult>")
            }
            _ => Reply::new(500),
        }
    }
}

async fn verify(shifting: Shifting, capabilities: &Capabilities) -> (Server, Result<Finding, ErrorKind>) {
    let server = Server::start(move |request| shifting.answer(request)).await;
    let undeclared = Expected { sha256: None, ..expected(PNG, "image/png") };
    let outcome =
        staged(&server.store(), "b", "s", |_| "f".to_owned(), &undeclared, 1 << 20, capabilities).await;
    let outcome = outcome.map_err(|error| error.kind).map(|staged| {
        let verified = matches!(staged.finding, Finding::Verified { .. });
        assert_eq!(staged.final_key.is_some(), verified);
        staged.finding
    });
    (server, outcome)
}

fn verified_hash(outcome: Result<Finding, ErrorKind>) -> Option<Digest> {
    match outcome {
        Ok(Finding::Verified { sha256, .. }) => Some(sha256),
        _ => None,
    }
}

/// As long as the PNG and also one, but other bytes.
fn other_png() -> Vec<u8> {
    let mut other = PNG.to_vec();
    other[15] ^= 1;
    other
}

#[tokio::test]
async fn a_quiet_object_is_read_once_and_copied() {
    let (server, outcome) = verify(Shifting::new(&[PNG]), &Capabilities::default()).await;
    assert_eq!(verified_hash(outcome), Some(Digest::of(PNG)));
    assert_eq!(server.lines(), ["GET /b/s", "PUT /b/f", "HEAD /b/f", "HEAD /b/s"]);
}

#[tokio::test]
async fn bytes_swapped_between_hash_and_copy_are_noticed() {
    let pinning = Capabilities { copy_source_if_match: Support::Enforced, ..Capabilities::default() };
    for capabilities in [Capabilities::default(), pinning] {
        let other = other_png();
        let mut shifting = Shifting::new(&[PNG, &other]);
        shifting.pins = true;
        let (server, outcome) = verify(shifting, &capabilities).await;
        assert_eq!(verified_hash(outcome), Some(Digest::of(&other)), "the second reading counts");
        assert_eq!(server.lines().iter().filter(|line| *line == "GET /b/s").count(), 2);
    }
}

#[tokio::test]
async fn bytes_swapped_only_for_the_moment_of_the_copy_are_noticed() {
    for computed in [None, Some(Digest::of(&other_png()))] {
        let checksum = if computed.is_some() { Support::Enforced } else { Support::Ignored };
        let mut shifting = Shifting::new(&[PNG]);
        shifting.sum = computed;
        shifting.glimpses = Mutex::new(vec![other_png(); 3]);
        let (_, outcome) = verify(shifting, &Capabilities { checksum, ..Capabilities::default() }).await;
        assert_eq!(outcome, Err(ErrorKind::Precondition));
    }
    let shifting = Shifting::new(&[PNG]);
    shifting.glimpses.lock().unwrap().push(other_png());
    let (server, outcome) = verify(shifting, &Capabilities::default()).await;
    assert_eq!(verified_hash(outcome), Some(Digest::of(PNG)));
    assert_eq!(server.lines().iter().filter(|line| *line == "PUT /b/f").count(), 2);
}

#[tokio::test]
async fn an_object_that_never_rests_is_given_up_and_no_copy_stays() {
    let mut bodies = vec![PNG.to_vec()];
    for n in 0..9 {
        let mut body = other_png();
        body[14] = n;
        bodies.push(body);
    }
    let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
    let (server, outcome) = verify(Shifting::new(&bodies), &Capabilities::default()).await;
    assert_eq!(outcome, Err(ErrorKind::Precondition));
    let lines = server.lines();
    assert_eq!(lines.last().map(String::as_str), Some("POST /b?delete"), "{lines:?}");
}

#[tokio::test]
async fn tags_that_say_nothing_make_the_copy_be_read() {
    let mut shifting = Shifting::new(&[PNG]);
    shifting.tag = |_| "\"abc-3\"".to_owned();
    let (server, outcome) = verify(shifting, &Capabilities::default()).await;
    assert_eq!(verified_hash(outcome), Some(Digest::of(PNG)));
    assert_eq!(server.lines().last().map(String::as_str), Some("GET /b/f"));

    let other = other_png();
    let mut shifting = Shifting::new(&[PNG, &other, &other]);
    shifting.tag = |_| "\"abc-3\"".to_owned();
    let (_, outcome) = verify(shifting, &Capabilities::default()).await;
    assert_eq!(verified_hash(outcome), Some(Digest::of(&other)), "one tag for all contents fools nobody");
}

#[tokio::test]
async fn only_a_store_that_refuses_wrong_sums_is_believed_about_sums() {
    let enforcing = Capabilities { checksum: Support::Enforced, ..Capabilities::default() };
    let mut honest = Shifting::new(&[PNG]);
    honest.sum = Some(Digest::of(PNG));
    let (server, outcome) = verify(honest, &enforcing).await;
    assert_eq!(verified_hash(outcome), Some(Digest::of(PNG)));
    assert_eq!(server.lines(), ["GET /b/s", "PUT /b/f", "HEAD /b/f"]);

    // An echo of what was declared, over bytes that were swapped.
    let other = other_png();
    let mut echoing = Shifting::new(&[PNG, &other, &other]);
    echoing.sum = Some(Digest::of(PNG));
    let (_, outcome) = verify(echoing, &Capabilities::default()).await;
    assert_eq!(verified_hash(outcome), None);
}

#[tokio::test]
async fn staged_finds_the_first_thing_wrong() {
    let store = |body: &'static [u8], content_type: &'static str| {
        Server::start(move |request| match request.path.as_str() {
            "/b" => Reply::new(200),
            _ => object(body, content_type),
        })
    };
    let cases: [(&[u8], &str, Finding); 5] = [
        (b"", "image/png", Finding::Empty),
        (b"other", "text/plain", Finding::SizeMismatch { declared: PNG.len() as u64, found: 5 }),
        (
            &[0; 16],
            "text/plain",
            Finding::HashMismatch { declared: Digest::of(PNG), found: Digest::of(&[0; 16]) },
        ),
        (
            PNG,
            "text/plain",
            Finding::ContentTypeMismatch { declared: "image/png".to_owned(), found: "text/plain".to_owned() },
        ),
        (&[1; 17], "image/png", Finding::SizeMismatch { declared: PNG.len() as u64, found: 17 }),
    ];
    for (body, content_type, finding) in cases {
        let server = store(body, content_type).await;
        let promised = expected(PNG, "image/png");
        let capabilities = Capabilities::default();
        let outcome =
            staged(&server.store(), "b", "s", |_| "f".to_owned(), &promised, 1 << 20, &capabilities).await;
        let outcome = outcome.unwrap();
        assert_eq!((outcome.finding, outcome.final_key), (finding, None));
        assert!(!server.lines().iter().any(|line| line.starts_with("PUT")), "nothing wrong is copied");
    }
}

#[tokio::test]
async fn a_stream_beyond_the_limit_is_cut_off() {
    let piece = vec![0_u8; 1 << 16];
    let server = Server::start(move |_| {
        Reply::new(200).header("content-type", "image/png").body(piece.clone()).then(After::Flood)
    })
    .await;
    let store = server.store();
    let capabilities = Capabilities::default();
    let promised = Expected { size: 1 << 17, sha256: None, ..expected(PNG, "image/png") };
    let outcome = staged(&store, "b", "s", |_| "f".to_owned(), &promised, 1 << 20, &capabilities).await;
    let Finding::SizeMismatch { declared, found } = outcome.unwrap().finding else { panic!("not cut off") };
    assert!(declared == 1 << 17 && found > declared && found < 1 << 20, "{found}");

    // A limit that was lowered after the promise is not the uploader's mistake.
    let outcome = staged(&store, "b", "s", |_| "f".to_owned(), &promised, 1 << 12, &capabilities).await;
    assert_eq!(outcome.unwrap_err().kind, ErrorKind::Invalid);
    assert!(server.flooded() < 64 << 20, "what was sent is bounded by what sockets hold");
}

#[tokio::test]
async fn what_cannot_be_copied_in_one_piece_is_said_clearly() {
    let huge = Expected { size: 6 << 30, sha256: None, ..expected(PNG, "image/png") };
    let server = Server::start(|_| object(PNG, "image/png")).await;
    let capabilities = Capabilities::default();
    let outcome = staged(&server.store(), "b", "s", |_| "f".to_owned(), &huge, u64::MAX, &capabilities).await;
    let error = outcome.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.contains("5 GiB"), "{error}");
    assert!(server.requests().is_empty(), "not read before it is refused");
}
