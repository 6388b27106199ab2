//! The probe against stores with the vices that real ones have been seen to have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pg_storage_core::digest::Digest;
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{Credentials, Secret, Signer, Target};
use pg_storage_store::probe::{Capabilities, Support, probe};
use pg_storage_store::{ErrorKind, StoreError};

use crate::canned::{ACCESS_KEY, Reply, Request, SECRET_KEY, Server};

/// What a PUT does wrong. A store without any vice still checks no signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Vices {
    /// Wrong bodies are stored.
    ignores_sums: bool,
    /// HEAD repeats the declared sum.
    echoes_sums: bool,
    /// A wrong body is refused after it was stored.
    publishes_first: bool,
    /// A refused overwrite loses what was there.
    destroys_on_refusal: bool,
    /// A request with a sum is not understood.
    knows_no_sums: bool,
    /// `If-None-Match` is not looked at.
    ignores_condition: bool,
    /// `If-None-Match` is honoured only when nobody else writes.
    is_racy: bool,
    /// Of many writers at once one is stored and all are told so.
    flatters: bool,
    /// A second create-only PUT is refused after it was stored.
    replaces_and_refuses: bool,
    /// A request with `If-None-Match` is not understood.
    knows_no_condition: bool,
    /// From the given PUT on, nothing works.
    breaks_at: Option<usize>,
}

#[derive(Default)]
struct Fake {
    objects: HashMap<String, (Vec<u8>, Option<String>)>,
    puts: usize,
}

impl Fake {
    fn answer(&mut self, vices: Vices, request: &Request) -> Reply {
        match request.method.as_str() {
            "PUT" => self.put(vices, request),
            "POST" => {
                self.objects.clear();
                Reply::new(200).body("<DeleteResult/>")
            }
            _ => match self.objects.get(&request.path) {
                None => Reply::error(404, "NoSuchKey"),
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
        if request.header("x-amz-copy-source").is_some() {
            self.objects.insert(path, (Vec::new(), None));
            return Reply::new(200).body("<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>");
        }
        let sum = request.header("x-amz-checksum-sha256").map(ToOwned::to_owned);
        let conditional = request.header("if-none-match").is_some();
        if (sum.is_some() && vices.knows_no_sums) || (conditional && vices.knows_no_condition) {
            return Reply::error(501, "NotImplemented");
        }
        let racing = vices.is_racy && path.contains("race");
        if conditional && !vices.ignores_condition && !racing && self.objects.contains_key(&path) {
            if vices.flatters && path.contains("race") {
                return Reply::new(200);
            }
            if vices.replaces_and_refuses {
                self.objects.insert(path, (request.body.clone(), sum));
            }
            return Reply::error(412, "PreconditionFailed");
        }
        let right = STANDARD.encode(Digest::of(&request.body).as_bytes());
        if !vices.ignores_sums && sum.as_ref().is_some_and(|sum| *sum != right) {
            if vices.publishes_first {
                self.objects.insert(path, (request.body.clone(), sum));
            } else if vices.destroys_on_refusal {
                self.objects.remove(&path);
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
    let credentials = Credentials {
        access_key_id: ACCESS_KEY.to_owned(),
        secret_access_key: Secret::new(SECRET_KEY),
        session_token: None,
    };
    let target = Target::new(&Endpoint::parse(&server.url).unwrap(), "us-east-1", true);
    let outcome = probe(&server.store(), Signer::new(target, credentials), "b", "scratch/").await;
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
        // Two in a row prove nothing about two at once.
        (Vices { is_racy: true, ..none }, Enforced, Racy),
        (Vices { flatters: true, ..none }, Enforced, Racy),
        (Vices { replaces_and_refuses: true, ..none }, Ignored, Ignored),
        // A store without conditional writes may still check sums.
        (Vices { knows_no_condition: true, ..none }, Enforced, Refused),
    ];
    for (vices, checksum, create_only) in cases {
        let (_, fake, outcome) = try_out(vices).await;
        let expected = Capabilities {
            checksum,
            create_only,
            head_checksum: vices.echoes_sums,
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
    for at in [1, 2, 20, 52, 57] {
        let (server, fake, outcome) = try_out(Vices { breaks_at: Some(at), ..Vices::default() }).await;
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::Unavailable, "broken from PUT {at} on");
        assert!(fake.lock().unwrap().objects.is_empty());
        assert_eq!(server.lines().last().map(String::as_str), Some("POST /b?delete"));
    }
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
fn the_direct_way_needs_all_three() {
    let all = Capabilities {
        checksum: Support::Enforced,
        length: Support::Enforced,
        create_only: Support::Enforced,
        ..Capabilities::default()
    };
    assert!(all.direct());
    for other in [Support::Ignored, Support::Racy, Support::Refused] {
        assert!(!Capabilities { checksum: other, ..all }.direct());
        assert!(!Capabilities { length: other, ..all }.direct());
        assert!(!Capabilities { create_only: other, ..all }.direct());
    }
}
