//! What else a store is tried for, against stores that each do one thing wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pg_storage_core::digest::Digest;
use pg_storage_core::policy::Access;
use pg_storage_store::probe::{Service, Support, preflight, reads_publicly, serve};

use crate::canned::{Reply, Request, Server};
use crate::signature::{self, decoded};

const ORIGIN: &str = "https://app.example.com";

/// What a store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vice {
    None,
    /// Unsigned requests of this method to an object are carried out.
    Open(&'static str),
    /// Anybody may list the bucket.
    ShowsAll,
    /// Download URLs are not checked.
    ChecksNoDownload,
    /// What a download URL asks for is given without its being signed.
    AddsWishes,
    /// Download URLs are refused.
    KnowsNoDownload,
    IgnoresWishes,
    IgnoresRanges,
    KeepsDescriptions,
    CopiesNothing,
    LosesCopies,
    ListsNeighbours,
    ListsBackwards,
    BeginsAnew,
    DeletesNeighbours,
    MissesTheMissing,
    DeletesOne,
    /// A body with another sum is stored when others write.
    RacesSums,
    AnyOrigin,
    NoOrigin,
    /// A header of ours does not pass.
    FewHeaders,
}

#[derive(Clone, Default)]
struct Object {
    body: Vec<u8>,
    content_type: String,
    cache_control: Option<String>,
}

#[derive(Default)]
struct Fake {
    objects: BTreeMap<String, Object>,
}

impl Fake {
    fn answer(&mut self, vice: Vice, request: &Request) -> Reply {
        if request.method == "OPTIONS" {
            return options(vice, request);
        }
        let ordered = request.header("authorization").is_some();
        let key = decoded(request.path.strip_prefix("/b/").unwrap_or_default());
        let is_signed = request.query.contains("X-Amz-Signature=");
        let permitted = ordered
            || vice == Vice::Open("GET") && !is_signed && request.method == "GET" && !key.is_empty()
            || vice == Vice::Open("PUT") && !is_signed && request.method == "PUT"
            || vice == Vice::Open("DELETE") && request.method == "DELETE"
            || vice == Vice::ShowsAll && key.is_empty()
            || is_signed && self.signed(vice, request);
        if !permitted {
            return Reply::error(403, "AccessDenied");
        }
        match (request.method.as_str(), key.as_str()) {
            ("GET", "") => self.list(vice, &request.query),
            ("POST", _) => self.delete_many(vice, &String::from_utf8_lossy(&request.body)),
            ("PUT", _) => self.put(vice, key, request),
            ("DELETE", _) => {
                self.objects.remove(&key);
                Reply::new(204)
            }
            _ => self.get(vice, &key, request),
        }
    }

    fn signed(&self, vice: Vice, request: &Request) -> bool {
        if request.method != "GET" {
            return signature::permits(request, None);
        }
        let mut honest = request.clone();
        if vice == Vice::AddsWishes {
            let pairs = request.query.split('&').filter(|pair| !pair.starts_with("response-content-type="));
            honest.query = pairs.collect::<Vec<_>>().join("&");
        }
        vice != Vice::KnowsNoDownload && (vice == Vice::ChecksNoDownload || signature::permits(&honest, None))
    }

    fn put(&mut self, vice: Vice, key: String, request: &Request) -> Reply {
        let header = |name: &str| request.header(name).map(str::to_owned);
        let described = Object {
            body: request.body.clone(),
            content_type: header("content-type").unwrap_or_default(),
            cache_control: header("cache-control"),
        };
        if let Some(source) = header("x-amz-copy-source") {
            let found = self.objects.get(source.trim_start_matches('/').trim_start_matches("b/")).cloned();
            let Some(found) = found.or((vice == Vice::CopiesNothing).then(Object::default)) else {
                return Reply::error(404, "NoSuchKey");
            };
            let body = if vice == Vice::LosesCopies { Vec::new() } else { found.body.clone() };
            let copy = if vice == Vice::KeepsDescriptions { found } else { Object { body, ..described } };
            self.objects.insert(key, copy);
            return Reply::new(200).body("<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>");
        }
        let right = STANDARD.encode(Digest::of(&request.body).as_bytes());
        let wrong = header("x-amz-checksum-sha256").is_some_and(|sum| sum != right);
        if wrong && !(vice == Vice::RacesSums && self.objects.contains_key(&key)) {
            return Reply::error(400, "BadDigest");
        }
        self.objects.insert(key, described);
        Reply::new(200).header("etag", "\"e\"")
    }

    fn get(&self, vice: Vice, key: &str, request: &Request) -> Reply {
        let Some(object) = self.objects.get(key) else { return Reply::error(404, "NoSuchKey") };
        let wish = |name: &str| {
            let found = request.query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            found.filter(|_| vice != Vice::IgnoresWishes).map(decoded)
        };
        let mut body = object.body.clone();
        if let Some(range) = request.header("range").filter(|_| vice != Vice::IgnoresRanges) {
            let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap();
            let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
            if from >= body.len() {
                return Reply::error(416, "InvalidRange");
            }
            body = body[from..body.len().min(to + 1)].to_vec();
        }
        let mut reply = Reply::new(200).header("etag", "\"e\"").header("content-type", &object.content_type);
        if let Some(disposition) = wish("response-content-disposition") {
            reply = reply.header("content-disposition", &disposition);
        }
        match wish("response-cache-control").or_else(|| object.cache_control.clone()) {
            Some(kept) => reply.header("cache-control", &kept).body(body),
            None => reply.body(body),
        }
    }

    fn list(&self, vice: Vice, query: &str) -> Reply {
        let given = |name: &str| {
            let found = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            decoded(found.unwrap_or_default())
        };
        let (mut prefix, after) = (given("prefix"), given("start-after"));
        if vice == Vice::ListsNeighbours {
            prefix = prefix.trim_end_matches('/').to_owned();
        }
        let mut keys: Vec<&String> = self
            .objects
            .keys()
            .filter(|key| key.starts_with(&prefix) && (**key > after || vice == Vice::BeginsAnew))
            .collect();
        if vice == Vice::ListsBackwards {
            keys.reverse();
        }
        let listed: String = keys
            .iter()
            .map(|key| {
                format!("<Contents><Key>{key}</Key><Size>{}</Size></Contents>", self.objects[*key].body.len())
            })
            .collect();
        Reply::new(200)
            .body(format!("<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>"))
    }

    fn delete_many(&mut self, vice: Vice, document: &str) -> Reply {
        let keys: Vec<&str> =
            document.split("<Key>").skip(1).map(|rest| rest.split("</Key>").next().unwrap()).collect();
        let mut outcomes = String::new();
        for (at, key) in keys.iter().enumerate() {
            if vice == Vice::DeletesOne && at > 0 && key.contains("deleted") {
                outcomes += &format!("<Deleted><Key>{key}</Key></Deleted>");
                continue;
            }
            outcomes += &if self.objects.remove(*key).is_none() && vice == Vice::MissesTheMissing {
                format!("<Error><Key>{key}</Key><Code>InvalidArgument</Code></Error>")
            } else {
                format!("<Deleted><Key>{key}</Key></Deleted>")
            };
        }
        if vice == Vice::DeletesNeighbours {
            self.objects.retain(|key, _| !key.contains("deleted"));
        }
        Reply::new(200).body(format!("<DeleteResult>{outcomes}</DeleteResult>"))
    }
}

fn options(vice: Vice, request: &Request) -> Reply {
    let origin = request.header("origin").unwrap_or_default();
    match (vice, origin) {
        (Vice::NoOrigin, _) => Reply::error(403, "AccessForbidden"),
        (Vice::AnyOrigin, _) | (_, ORIGIN) => {
            let asked = request.header("access-control-request-headers").unwrap_or_default();
            let allowed = if vice == Vice::FewHeaders { "content-type" } else { asked };
            Reply::new(200)
                .header("access-control-allow-origin", origin)
                .header("access-control-allow-headers", allowed)
        }
        _ => Reply::error(403, "AccessForbidden"),
    }
}

async fn start(vice: Vice) -> (Server, Arc<Mutex<Fake>>) {
    let fake = Arc::new(Mutex::new(Fake::default()));
    let shared = Arc::clone(&fake);
    (Server::start(move |request| shared.lock().unwrap().answer(vice, request)).await, fake)
}

async fn tried(vice: Vice, access: Access) -> Service {
    let (server, fake) = start(vice).await;
    let signer = signature::signer(&server.url);
    let service = serve(&server.store(), signer, "b", "scratch/", access, true).await.unwrap();
    // A store that does not delete keeps what it was given.
    if !matches!(vice, Vice::DeletesOne) {
        let left: Vec<String> = fake.lock().unwrap().objects.keys().cloned().collect();
        assert!(left.is_empty(), "{vice:?}: {left:?}");
    }
    service
}

#[tokio::test]
async fn each_promise_is_missed_where_it_is_broken_and_nowhere_else() {
    let good = Service {
        download: Support::Enforced,
        response_headers: true,
        anonymous: Support::Enforced,
        concurrent_checksum: Some(Support::Enforced),
        range: true,
        copy: true,
        listing: true,
        deletion: true,
    };
    let ignored = Support::Ignored;
    let cases = [
        (Vice::None, good),
        (Vice::Open("GET"), Service { anonymous: ignored, ..good }),
        (Vice::Open("PUT"), Service { anonymous: ignored, ..good }),
        (Vice::Open("DELETE"), Service { anonymous: ignored, ..good }),
        (Vice::ShowsAll, Service { anonymous: ignored, ..good }),
        (Vice::ChecksNoDownload, Service { download: ignored, ..good }),
        (Vice::AddsWishes, Service { download: ignored, ..good }),
        (Vice::KnowsNoDownload, Service { download: Support::Refused, response_headers: false, ..good }),
        (Vice::IgnoresWishes, Service { response_headers: false, ..good }),
        (Vice::IgnoresRanges, Service { range: false, ..good }),
        (Vice::KeepsDescriptions, Service { copy: false, ..good }),
        (Vice::CopiesNothing, Service { copy: false, ..good }),
        (Vice::LosesCopies, Service { copy: false, ..good }),
        (Vice::ListsNeighbours, Service { listing: false, ..good }),
        (Vice::ListsBackwards, Service { listing: false, ..good }),
        (Vice::BeginsAnew, Service { listing: false, ..good }),
        (Vice::DeletesNeighbours, Service { deletion: false, ..good }),
        (Vice::MissesTheMissing, Service { deletion: false, ..good }),
        (Vice::DeletesOne, Service { deletion: false, ..good }),
        (Vice::RacesSums, Service { concurrent_checksum: Some(Support::Racy), ..good }),
    ];
    for (vice, service) in cases {
        assert_eq!(tried(vice, Access::Private).await, service, "{vice:?}");
    }
    // Reading is what a public bucket is for, and nothing else.
    assert_eq!(tried(Vice::Open("GET"), Access::Public).await, good);
    assert_eq!(tried(Vice::ShowsAll, Access::Public).await, Service { anonymous: ignored, ..good });
}

#[tokio::test]
async fn public_reading_is_seen_only_where_the_bytes_come() {
    for (vice, reads) in [(Vice::None, false), (Vice::Open("GET"), true), (Vice::ShowsAll, false)] {
        let (server, fake) = start(vice).await;
        let signer = signature::signer(&server.url);
        assert_eq!(
            reads_publicly(&server.store(), signer, "b", "scratch/").await.unwrap(),
            reads,
            "{vice:?}"
        );
        assert_eq!(fake.lock().unwrap().objects.len(), 0);
    }
}

#[tokio::test]
async fn a_page_may_upload_with_all_headers_and_pages_from_elsewhere_may_not() {
    for (vice, found) in [
        (Vice::None, Support::Enforced),
        (Vice::AnyOrigin, Support::Ignored),
        (Vice::NoOrigin, Support::Refused),
        (Vice::FewHeaders, Support::Refused),
    ] {
        let (server, _) = start(vice).await;
        let signer = signature::signer(&server.url);
        let headers = ["cache-control", "content-type", "x-amz-checksum-sha256"];
        let outcome = preflight(&server.store(), signer, "b", "scratch/", ORIGIN, &headers).await;
        assert_eq!(outcome.unwrap(), found, "{vice:?}");
    }
}
