//! The probe against stores that permit more than a form says, or take a copy for a part.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pg_storage_core::digest::Digest;
use pg_storage_core::presign::Timestamp;
use pg_storage_store::ErrorKind;
use pg_storage_store::probe::{Capabilities, Support, probe};
use serde_json::Value;

use crate::canned::{Reply, Request, Server};
use crate::probing::{Fake, Vices};
use crate::signature;

/// How far a store keeps to its forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forms {
    /// All the way.
    Kept,
    Unknown,
    /// They are known, and not for these credentials.
    Forbidden,
    Busy,
    TooLong,
    Late,
    /// The value of this field is not looked at.
    Any(&'static str),
    /// Fields that no condition names are taken.
    More,
    /// What is forbidden is refused, and stored first.
    StoredFirst,
    /// Success is told and nothing stored.
    Flatters,
}

/// What a store makes of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parts {
    Kept,
    Unknown,
    Forbidden,
    Busy,
    /// A header that nobody signed makes of a part a copy.
    Copied,
    /// Only without a body.
    CopiedWithoutBody,
    /// The same, and it is called a timeout.
    CopiedAndTimedOut,
    TooLong,
    /// A part with another sum than its own is taken.
    AnySum,
    /// They become no object.
    NotJoined,
}

/// A store without other vices.
struct Ways {
    plain: Fake,
    forms: Forms,
    parts: Parts,
    /// The parts of its uploads, by their key; the name of each is `u`.
    uploads: BTreeMap<String, BTreeMap<i32, Vec<u8>>>,
}

impl Ways {
    fn answer(&mut self, request: &Request) -> Reply {
        let parameter = |name: &str| {
            request.query.split('&').find_map(|pair| {
                let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
                (found == name).then(|| value.to_owned())
            })
        };
        let is_form =
            request.header("content-type").is_some_and(|value| value.starts_with("multipart/form-data"));
        match (request.method.as_str(), parameter("uploadId")) {
            ("POST", None) if is_form => self.form(request),
            ("POST", None) if parameter("uploads").is_some() => match self.parts {
                Parts::Unknown => Reply::error(501, "NotImplemented"),
                Parts::Forbidden => Reply::error(403, "AccessDenied"),
                Parts::Busy => Reply::error(503, "SlowDown"),
                _ => {
                    self.uploads.insert(request.path.clone(), BTreeMap::new());
                    Reply::new(200).body("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
                }
            },
            (_, None) => self.plain.answer(Vices::none(), request),
            ("PUT", Some(_)) => self.part(request, parameter("partNumber").unwrap().parse().unwrap()),
            ("DELETE", Some(_)) => {
                self.uploads.remove(&request.path);
                Reply::new(204)
            }
            ("POST", Some(_)) => {
                let parts = self.uploads.remove(&request.path).unwrap_or_default();
                if self.parts != Parts::NotJoined {
                    let whole = parts.into_values().collect::<Vec<_>>().concat();
                    self.plain.objects.insert(request.path.clone(), (whole, None));
                }
                Reply::new(200)
                    .body("<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>")
            }
            (_, Some(_)) => {
                let Some(parts) = self.uploads.get(&request.path) else {
                    return Reply::error(404, "NoSuchUpload");
                };
                let listed = parts.iter().map(|(number, bytes)| {
                    let size = bytes.len();
                    format!(
                        "<Part><PartNumber>{number}</PartNumber><Size>{size}</Size><ETag>\"e\"</ETag></Part>"
                    )
                });
                Reply::new(200)
                    .body(format!("<ListPartsResult>{}</ListPartsResult>", listed.collect::<String>()))
            }
        }
    }

    fn part(&mut self, request: &Request, number: i32) -> Reply {
        let obeys = match self.parts {
            Parts::Copied => true,
            Parts::CopiedWithoutBody | Parts::CopiedAndTimedOut => request.body.is_empty(),
            _ => false,
        };
        let source = request.header("x-amz-copy-source").filter(|_| obeys);
        let Some(parts) = self.uploads.get_mut(&request.path) else {
            return Reply::error(404, "NoSuchUpload");
        };
        if let Some(source) = source {
            let copied = self.plain.objects.get(source).expect("it is there").0.clone();
            parts.insert(number, copied);
            return match self.parts {
                Parts::CopiedAndTimedOut => Reply::error(400, "RequestTimeout"),
                _ => Reply::new(200),
            };
        }
        if request.header("x-amz-copy-source").is_some()
            || self.parts != Parts::TooLong && !signature::permits(request, None)
        {
            return Reply::error(403, "SignatureDoesNotMatch");
        }
        let sum = STANDARD.encode(Digest::of(&request.body).as_bytes());
        let wrong = request.header("x-amz-checksum-sha256").is_some_and(|signed| signed != sum);
        if wrong && self.parts != Parts::AnySum {
            return Reply::error(400, "BadDigest");
        }
        parts.insert(number, request.body.clone());
        Reply::new(200).header("etag", "\"e\"")
    }

    fn form(&mut self, request: &Request) -> Reply {
        match self.forms {
            Forms::Unknown => return Reply::error(405, "MethodNotAllowed"),
            Forms::Forbidden => return Reply::error(403, "AccessDenied"),
            Forms::Busy => return Reply::error(503, "SlowDown"),
            _ => {}
        }
        let (fields, file) = fields(request);
        let permitted = self.permits(&fields, file.len());
        if (permitted && self.forms != Forms::Flatters) || self.forms == Forms::StoredFirst {
            self.plain
                .objects
                .insert(format!("{}/{}", request.path.trim_end_matches('/'), fields["key"]), (file, None));
        }
        if permitted { Reply::new(204) } else { Reply::error(403, "AccessDenied") }
    }

    /// Whether the policy, which the trials do not alter, permits the fields and the file.
    fn permits(&self, fields: &BTreeMap<String, String>, size: usize) -> bool {
        let policy: Value = serde_json::from_slice(&STANDARD.decode(&fields["policy"]).unwrap()).unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let over = Timestamp::from_unix(now as i64 - 300);
        let late = fields["x-amz-date"].as_str() < over.amz_date();
        let conditions = policy["conditions"].as_array().unwrap();
        let of = |name: &str| {
            conditions
                .iter()
                .find(|condition| condition[1].as_str() == Some(&format!("${name}")))
                .map(|found| &found[2])
        };
        let most =
            conditions.iter().find(|found| found[0] == "content-length-range").unwrap()[2].as_u64().unwrap();
        let held = fields
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "policy" | "x-amz-signature"))
            .all(|(name, value)| match of(name) {
                Some(wanted) => wanted == value.as_str() || self.forms == Forms::Any(name_of(name)),
                None => self.forms == Forms::More,
            });
        held && (!late || self.forms == Forms::Late) && (size as u64 <= most || self.forms == Forms::TooLong)
    }
}

/// The fields that the trials give another value.
fn name_of(name: &str) -> &'static str {
    match name {
        "key" => "key",
        "Content-Type" => "Content-Type",
        _ => "",
    }
}

/// The fields of a form, and its file.
fn fields(request: &Request) -> (BTreeMap<String, String>, Vec<u8>) {
    let boundary = request.header("content-type").unwrap().split("boundary=").nth(1).unwrap();
    let text = String::from_utf8(request.body.clone()).unwrap();
    let mut fields: BTreeMap<String, String> = text
        .split(&format!("--{boundary}"))
        .filter_map(|part| {
            let name = part.split("name=\"").nth(1)?.split('"').next()?;
            let value = part.split_once("\r\n\r\n")?.1;
            Some((name.to_owned(), value.strip_suffix("\r\n").unwrap_or(value).to_owned()))
        })
        .collect();
    let file = fields.remove("file").unwrap_or_default();
    (fields, file.into_bytes())
}

async fn try_out(forms: Forms, parts: Parts) -> Result<Capabilities, ErrorKind> {
    let store = Ways { plain: Fake::default(), forms, parts, uploads: BTreeMap::new() };
    let store = Arc::new(Mutex::new(store));
    let shared = Arc::clone(&store);
    let server = Server::start(move |request| shared.lock().unwrap().answer(request)).await;
    let signer = signature::signer(&server.url);
    let outcome = probe(&server.store(), signer, "b", "scratch/").await;
    let store = store.lock().unwrap();
    assert!(
        store.plain.objects.is_empty() && store.uploads.is_empty(),
        "{forms:?} {parts:?}: something is left behind"
    );
    outcome.map_err(|error| error.kind)
}

#[tokio::test]
async fn a_form_must_permit_what_it_says_and_nothing_else() {
    use Support::{Enforced, Ignored, Refused};
    let cases = [
        (Forms::Kept, Enforced),
        (Forms::Unknown, Refused),
        (Forms::Forbidden, Refused),
        (Forms::TooLong, Ignored),
        (Forms::Late, Ignored),
        (Forms::Any("key"), Ignored),
        (Forms::Any("Content-Type"), Ignored),
        (Forms::More, Ignored),
        (Forms::StoredFirst, Ignored),
        (Forms::Flatters, Refused),
    ];
    for (forms, expected) in cases {
        let found = try_out(forms, Parts::Unknown).await.unwrap();
        assert_eq!((found.forms, found.parts), (Some(expected), Some(Refused)), "{forms:?}");
        assert_eq!(found.has_forms(), expected == Enforced, "{forms:?}");
    }
    assert_eq!(try_out(Forms::Busy, Parts::Unknown).await, Err(ErrorKind::Unavailable));
}

#[tokio::test]
async fn a_part_must_be_what_was_sent() {
    use Support::{Enforced, Ignored, Refused};
    let cases = [
        (Parts::Kept, Enforced),
        (Parts::Unknown, Refused),
        (Parts::Forbidden, Refused),
        (Parts::Copied, Ignored),
        (Parts::CopiedWithoutBody, Ignored),
        (Parts::CopiedAndTimedOut, Ignored),
        (Parts::TooLong, Ignored),
        (Parts::AnySum, Enforced),
        (Parts::NotJoined, Refused),
    ];
    for (parts, expected) in cases {
        let found = try_out(Forms::Unknown, parts).await.unwrap();
        assert_eq!((found.forms, found.parts), (Some(Refused), Some(expected)), "{parts:?}");
        assert_eq!(found.has_parts(), expected == Enforced, "{parts:?}");
        assert_eq!(found.part_checksum == Enforced, parts == Parts::Kept, "{parts:?}");
    }
    assert_eq!(try_out(Forms::Unknown, Parts::Busy).await, Err(ErrorKind::Unavailable));
}
