//! The probe against stores with the vices that real ones have been seen to have.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pg_storage_core::digest::Digest;
use pg_storage_store::probe::{Capabilities, Support, probe};
use pg_storage_store::{ErrorKind, StoreError};

use crate::canned::{After, Reply, Request, Server};
use crate::signature;

/// What a store does wrong. One without any vice still checks no signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vices {
    /// Wrong bodies are stored.
    ignores_sums: bool,
    /// HEAD repeats the declared sum.
    echoes_sums: bool,
    /// A wrong body is refused after it was stored.
    publishes_first: bool,
    /// A refused overwrite loses what was there.
    destroys_on_refusal: bool,
    /// A refused overwrite leaves an object whose bytes break off.
    breaks_on_refusal: bool,
    /// A request with a sum is not understood.
    knows_no_sums: bool,
    /// `If-None-Match` is not looked at.
    ignores_condition: bool,
    /// `If-None-Match` is honoured only when nobody else writes; of many, only these rounds show it.
    is_racy: Option<&'static str>,
    /// Of many writers at once one is stored and all are told so.
    flatters: bool,
    /// A second create-only PUT is refused after it was stored.
    replaces_and_refuses: bool,
    /// A request with `If-None-Match` is not understood.
    knows_no_condition: bool,
    /// All who lose a race are sent away instead of refused.
    sheds: bool,
    /// One who loses a race is sent away instead of refused.
    sheds_once: bool,
    /// Who loses a race is told of a conflict.
    conflicts: bool,
    /// From the given PUT on, nothing works.
    breaks_at: Option<usize>,
    /// A request of this method to a key with this in its name gets this answer.
    answers: Option<(&'static str, &'static str, u16, &'static str)>,
    /// Signatures, expiry and signed headers are checked; that is no vice.
    is_strict: bool,
    /// A header that nobody signed makes of a PUT a copy.
    obeys_the_unsigned: bool,
    /// A strict store does so only if this signed header is there.
    tolerates_without: Option<&'static str>,
}

impl Vices {
    /// Signatures are checked, and nothing is wrong.
    pub(crate) fn none() -> Self {
        Self { is_strict: true, ..Self::default() }
    }
}

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) objects: HashMap<String, (Vec<u8>, Option<String>)>,
    broken: HashSet<String>,
    puts: usize,
    has_shed: bool,
}

impl Fake {
    pub(crate) fn answer(&mut self, vices: Vices, request: &Request) -> Reply {
        if let Some((method, name, status, code)) = vices.answers
            && request.method == method
            && request.path.contains(name)
        {
            return Reply::error(status, code);
        }
        match request.method.as_str() {
            "PUT" => self.put(vices, request),
            // Neither forms nor uploads in parts.
            "POST" if request.query != "delete" && !request.query.starts_with("delete=") => {
                Reply::error(501, "NotImplemented")
            }
            "POST" => {
                self.objects.clear();
                Reply::new(200).body("<DeleteResult/>")
            }
            _ => match self.objects.get(&request.path) {
                None => Reply::error(404, "NoSuchKey"),
                Some((body, _)) if self.broken.contains(&request.path) => {
                    let half = body[..body.len() / 2].to_vec();
                    Reply::new(200).body(half).announce(body.len()).then(After::Close)
                }
                Some((body, sum)) => {
                    let reply = Reply::new(200).header("etag", "\"e\"").body(body.clone());
                    match sum {
                        Some(sum) if vices.echoes_sums => reply.header("x-amz-checksum-sha256", sum),
                        _ => reply,
                    }
                }
            },
        }
    }

    fn put(&mut self, vices: Vices, request: &Request) -> Reply {
        self.puts += 1;
        if vices.breaks_at.is_some_and(|at| self.puts >= at) {
            return Reply::error(503, "SlowDown");
        }
        let path = request.path.clone();
        let ordered = request.header("authorization").is_some() || vices.obeys_the_unsigned;
        if let Some(source) = request.header("x-amz-copy-source").filter(|_| ordered) {
            let copied = self.objects.get(&format!("/{}", source.trim_start_matches('/'))).cloned();
            self.objects.insert(path, copied.unwrap_or_default());
            return Reply::new(200).body("<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>");
        }
        if vices.is_strict && !signature::permits(request, vices.tolerates_without) {
            return Reply::error(403, "SignatureDoesNotMatch");
        }
        let sum = request.header("x-amz-checksum-sha256").map(ToOwned::to_owned);
        let conditional = request.header("if-none-match").is_some();
        if (sum.is_some() && vices.knows_no_sums) || (conditional && vices.knows_no_condition) {
            return Reply::error(501, "NotImplemented");
        }
        let racing = vices.is_racy.is_some_and(|round| path.contains(round));
        if conditional && !vices.ignores_condition && !racing && self.objects.contains_key(&path) {
            let in_race = path.contains("race");
            if vices.flatters && in_race {
                return Reply::new(200);
            }
            if vices.replaces_and_refuses {
                self.objects.insert(path, (request.body.clone(), sum));
            }
            if in_race && (vices.sheds || (vices.sheds_once && !self.has_shed)) {
                self.has_shed = true;
                return Reply::error(503, "SlowDown");
            }
            if in_race && vices.conflicts {
                return Reply::error(409, "ConditionalRequestConflict");
            }
            return Reply::error(412, "PreconditionFailed");
        }
        let right = STANDARD.encode(Digest::of(&request.body).as_bytes());
        if !vices.ignores_sums && sum.as_ref().is_some_and(|sum| *sum != right) {
            if vices.publishes_first {
                self.objects.insert(path, (request.body.clone(), sum));
            } else if vices.destroys_on_refusal {
                self.objects.remove(&path);
            } else if vices.breaks_on_refusal {
                self.broken.insert(path);
            }
            return Reply::error(400, "BadDigest");
        }
        self.objects.insert(path, (request.body.clone(), sum));
        Reply::new(200)
    }
}

async fn try_out(vices: Vices) -> (Server, Arc<Mutex<Fake>>, Result<Capabilities, StoreError>) {
    let fake = Arc::new(Mutex::new(Fake::default()));
    let shared = Arc::clone(&fake);
    let server = Server::start(move |request| shared.lock().unwrap().answer(vices, request)).await;
    let signer = signature::signer(&server.url);
    let outcome = probe(&server.store(), signer, "b", "scratch/").await;
    (server, fake, outcome)
}

#[tokio::test]
async fn only_what_was_refused_without_a_trace_counts() {
    use Support::{Enforced, Ignored, Racy, Refused};
    let none = Vices::default();
    let cases = [
        (none, Enforced, Enforced),
        (Vices { ignores_sums: true, ignores_condition: true, ..none }, Ignored, Ignored),
        // An echo proves nothing.
        (Vices { ignores_sums: true, echoes_sums: true, ignores_condition: true, ..none }, Ignored, Ignored),
        // Neither does a refusal that leaves the bytes, or takes the old ones.
        (Vices { publishes_first: true, ..none }, Ignored, Enforced),
        (Vices { destroys_on_refusal: true, ignores_condition: true, ..none }, Ignored, Ignored),
        (Vices { knows_no_sums: true, ..none }, Refused, Enforced),
        (Vices { breaks_on_refusal: true, ignores_condition: true, ..none }, Ignored, Ignored),
        // Two in a row prove nothing about two at once, and a few rounds little.
        (Vices { is_racy: Some("race"), ..none }, Enforced, Racy),
        (Vices { is_racy: Some("race-7"), ..none }, Enforced, Racy),
        (Vices { flatters: true, ..none }, Enforced, Racy),
        (Vices { replaces_and_refuses: true, ..none }, Ignored, Ignored),
        // A race is lost by refusal, in either form; a round in which somebody was sent away is run again.
        (Vices { conflicts: true, ..none }, Enforced, Enforced),
        (Vices { sheds_once: true, ..none }, Enforced, Enforced),
        // A store without conditional writes may still check sums.
        (Vices { knows_no_condition: true, ..none }, Enforced, Refused),
    ];
    for (vices, checksum, create_only) in cases {
        let (_, fake, outcome) = try_out(vices).await;
        let expected = Capabilities {
            checksum,
            create_only,
            head_checksum: vices.echoes_sums,
            unsigned: Some(Support::Enforced),
            forms: Some(Refused),
            parts: Some(Refused),
            // No signature is checked, and copies are never refused.
            ..Capabilities::default()
        };
        assert_eq!(outcome.unwrap(), expected, "{vices:?}");
        assert!(!expected.direct(), "an unchecked length is enough to rule the direct way out");
        assert!(fake.lock().unwrap().objects.is_empty(), "{vices:?}: something is left behind");
    }
}

#[tokio::test]
async fn a_store_in_trouble_is_not_judged_but_cleaned_up() {
    // One PUT, two that create, ten rounds of sixteen, and what comes after.
    for at in [1, 2, 20, 160, 164, 169] {
        let (server, fake, outcome) = try_out(Vices { breaks_at: Some(at), ..Vices::default() }).await;
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::Unavailable, "broken from PUT {at} on");
        assert!(fake.lock().unwrap().objects.is_empty());
        assert_eq!(server.lines().last().map(String::as_str), Some("POST /b?delete"));
    }
}

#[tokio::test]
async fn an_answer_about_something_else_proves_nothing() {
    use ErrorKind::{Denied, Timeout, Unavailable};
    let cases = [
        // What is refused for now, or for its credentials, is not refused for what it is,
        (("PUT", "sum-wrong", 429, "TooManyRequests"), Unavailable),
        (("PUT", "sum-wrong", 408, "RequestTimeout"), Timeout),
        (("PUT", "sum-wrong", 409, "OperationAborted"), Unavailable),
        (("PUT", "sum-wrong", 403, "AccessDenied"), Denied),
        (("PUT", "longer", 429, "TooManyRequests"), Unavailable),
        (("PUT", "shorter", 403, "ExpiredToken"), Denied),
        (("PUT", "expired", 400, "ExpiredToken"), Denied),
        (("PUT", "forged-key", 503, "SlowDown"), Unavailable),
        // and is not unknown either.
        (("PUT", "create-only", 429, "TooManyRequests"), Unavailable),
        (("PUT", "create-only", 403, "AccessDenied"), Denied),
        (("PUT", "sum-right", 429, "TooManyRequests"), Unavailable),
        // What cannot be read is not lost.
        (("GET", "create-only", 503, "SlowDown"), Unavailable),
        (("GET", "race", 403, "AccessDenied"), Denied),
    ];
    for (answers, kind) in cases {
        let strict = Vices { is_strict: true, answers: Some(answers), ..Vices::default() };
        let (_, _, outcome) = try_out(strict).await;
        assert_eq!(outcome.map_err(|error| error.kind), Err(kind), "{answers:?}");
    }
    // All but the winner are sent away, round after round: nothing is known of the condition.
    let (_, _, outcome) = try_out(Vices { sheds: true, ..Vices::default() }).await;
    assert_eq!(outcome.map_err(|error| error.kind), Err(Unavailable));
}

#[tokio::test]
async fn a_signed_header_that_is_left_out_must_be_missed() {
    let strict = Vices { is_strict: true, echoes_sums: true, ..Vices::default() };
    let (_, _, outcome) = try_out(strict).await;
    let good = Capabilities {
        checksum: Support::Enforced,
        length: Support::Enforced,
        create_only: Support::Enforced,
        head_checksum: true,
        expiry: Support::Enforced,
        tampering: Support::Enforced,
        unsigned: Some(Support::Enforced),
        forms: Some(Support::Refused),
        parts: Some(Support::Refused),
        ..Capabilities::default()
    };
    assert_eq!(outcome.unwrap(), good);
    assert!(good.direct());
    for header in ["content-type", "if-none-match", "x-amz-checksum-sha256", "x-amz-sdk-checksum-algorithm"] {
        let (_, _, outcome) = try_out(Vices { tolerates_without: Some(header), ..strict }).await;
        let found = outcome.unwrap();
        assert_eq!(found, Capabilities { tampering: Support::Ignored, ..good }, "{header}");
        assert!(!found.direct());
    }
}

#[tokio::test]
async fn a_header_that_nobody_signed_must_not_be_obeyed() {
    let strict = Vices { is_strict: true, ..Vices::default() };
    let (_, _, outcome) = try_out(strict).await;
    let found = outcome.unwrap();
    assert_eq!(found.unsigned, Some(Support::Enforced), "to disregard it is enough");
    assert!(!found.marked());
    let (_, _, outcome) = try_out(Vices { obeys_the_unsigned: true, ..strict }).await;
    let found = outcome.unwrap();
    assert_eq!((found.tampering, found.unsigned), (Support::Enforced, Some(Support::Ignored)));
    assert!(found.marked() && !found.direct());
}

#[test]
fn capabilities_are_remembered_as_json() {
    let seen =
        Capabilities { checksum: Support::Enforced, create_only: Support::Racy, ..Capabilities::default() };
    let json = serde_json::to_value(seen).unwrap();
    assert_eq!((&json["checksum"], &json["create_only"]), (&"enforced".into(), &"racy".into()));
    assert_eq!(serde_json::from_value::<Capabilities>(json).unwrap(), seen);
    let nothing: Capabilities = serde_json::from_str("{}").unwrap();
    assert_eq!(nothing, Capabilities::default(), "what is not known is not relied on");
}

#[test]
fn the_direct_way_needs_all_five() {
    let all = Capabilities {
        checksum: Support::Enforced,
        length: Support::Enforced,
        create_only: Support::Enforced,
        tampering: Support::Enforced,
        unsigned: Some(Support::Enforced),
        ..Capabilities::default()
    };
    assert!(all.direct());
    assert!(!Capabilities { unsigned: None, ..all }.direct(), "what was not tried is not relied on");
    for other in [Support::Ignored, Support::Racy, Support::Refused] {
        assert!(!Capabilities { checksum: other, ..all }.direct());
        assert!(!Capabilities { length: other, ..all }.direct());
        assert!(!Capabilities { create_only: other, ..all }.direct());
        assert!(!Capabilities { tampering: other, ..all }.direct());
        assert!(!Capabilities { unsigned: Some(other), ..all }.direct());
    }
}
