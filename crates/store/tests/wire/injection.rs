//! Whatever text reaches a call, it stays one value: no header, no element of a document, no parameter and no second
//! request comes of it. Seen on the bytes that arrive, for texts that the parsers in core would never let through as well.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use percent_encoding::percent_decode_str;
use pg_storage_core::policy::{self, Access};
use pg_storage_store::{Description, PutOptions, Store as _};
use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use crate::canned::{Reply, Request, Server};

/// What means something to one of the languages that a text passes through.
const SYNTAX: [&str; 34] = [
    "\r\nX-Injected: 1",
    "\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n",
    "\n",
    "\r",
    "\0",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "\u{202e}",
    "\u{fffe}",
    "</Key></Object><Object><Key>other",
    "</AllowedOrigin><AllowedOrigin>*",
    "</Prefix><Prefix>",
    "<!--",
    "]]>",
    "<![CDATA[",
    "&amp;",
    "&#10;",
    "&lol;",
    "\"",
    "'",
    "\\",
    "\",\"Effect\":\"Allow\",\"x\":\"",
    "?delete",
    "&x-id=Other",
    "#fragment",
    "%0d%0aX-Injected:%201",
    "%2e%2e%2f",
    "../",
    "/./",
    "//",
    " ",
];

fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        2 => proptest::sample::select(&SYNTAX[..]).prop_map(str::to_owned),
        2 => any::<char>().prop_map(String::from),
        1 => "[a-z0-9/._-]{1,8}",
    ];
    proptest::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat())
}

/// Everything a request of ours may have in its head.
const HEADERS: [&str; 25] = [
    "accept",
    "accept-encoding",
    "amz-sdk-invocation-id",
    "amz-sdk-request",
    "authorization",
    "content-length",
    "content-md5",
    "content-type",
    "host",
    "if-none-match",
    "range",
    "user-agent",
    "x-amz-checksum-algorithm",
    "x-amz-checksum-crc32",
    "x-amz-checksum-mode",
    "x-amz-checksum-sha256",
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-copy-source-if-match",
    "x-amz-date",
    "x-amz-metadata-directive",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-security-token",
    "x-amz-tagging-directive",
    "x-amz-user-agent",
];

/// The runtime and the server, shared by all cases.
fn server() -> (&'static Runtime, &'static Server) {
    static SHARED: OnceLock<(Runtime, Server)> = OnceLock::new();
    let (runtime, server) = SHARED.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(Server::start(|_| Reply::error(400, "InvalidRequest")));
        (runtime, server)
    });
    (runtime, server)
}

/// Makes one call and gives what arrived for it: one request, or none where the client would not send such a text.
fn sent<T>(call: impl AsyncFnOnce(pg_storage_store::S3Store) -> T) -> Option<Request> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (runtime, server) = server();
    server.forget();
    runtime.block_on(async { call(server.store()).await });
    let mut requests = server.requests();
    assert!(requests.len() <= 1, "{} requests: {:?}", requests.len(), server.lines());
    requests.pop()
}

/// Whether the head is that of one request with headers of ours, each once.
fn assert_sound(request: &Request) {
    let head = request.head.strip_suffix("\r\n\r\n").unwrap();
    assert!(!head.contains("\r\n\r\n"));
    let mut lines = head.split("\r\n");
    let start: Vec<&str> = lines.next().unwrap().split(' ').collect();
    assert_eq!((start.len(), start[2]), (3, "HTTP/1.1"), "{start:?}");
    assert!(start[1].bytes().all(|byte| (b'!'..=b'~').contains(&byte) && byte != b'#'), "{}", start[1]);
    let mut seen = BTreeSet::new();
    for line in lines {
        assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
        let (name, _) = line.split_once(':').unwrap();
        assert!(HEADERS.contains(&name.to_ascii_lowercase().as_str()), "{name:?} in {head:?}");
        assert!(seen.insert(name.to_ascii_lowercase()), "{name} twice in {head:?}");
    }
}

/// The path as it was sent.
fn path(request: &Request) -> String {
    let target = request.head.split(' ').nth(1).unwrap();
    let path = target.split('?').next().unwrap();
    percent_decode_str(path).decode_utf8().unwrap().into_owned()
}

/// Names and values of the query, decoded.
fn parameters(request: &Request) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pairs = request.query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<_> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decoded(k), decoded(v)))
        .collect();
    pairs.retain(|(name, _)| name != "x-id");
    pairs.sort();
    pairs
}

fn value<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The names of all elements of a document, in order, and the texts of those named `wanted`. Every `<` that is text was
/// escaped, so the document can be cut at each.
fn elements(body: &[u8], wanted: &str) -> (Vec<String>, Vec<String>) {
    let body = std::str::from_utf8(body).unwrap();
    let (mut names, mut texts) = (Vec::new(), Vec::new());
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap();
        if tag.starts_with(['/', '?']) {
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap();
        names.push(name.to_owned());
        if name == wanted {
            texts.push(unescaped(text));
        }
    }
    (names, texts)
}

fn unescaped(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        let (entity, after) = after.split_once(';').expect("a lone & is escaped");
        plain.push_str(before);
        plain.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let digits = number.strip_prefix("#x").expect("a numeric entity");
                char::from_u32(u32::from_str_radix(digits, 16).unwrap()).unwrap()
            }
        });
        rest = after;
    }
    plain + rest
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_key_is_one_path(key in text()) {
        let calls = [
            sent(async |store| store.head("b", &key).await.map(|_| ())),
            sent(async |store| store.get_range("b", &key, 0, 4).await.map(|_| ())),
            sent(async |store| store.abort_multipart_upload("b", &key, "u").await),
            sent(async |store| {
                let options = PutOptions { description: Description::typed("text/plain"), sha256: None, create_only: true };
                store.put("b", &key, b"x".to_vec(), options).await.map(|_| ())
            }),
        ];
        for request in calls.into_iter().flatten() {
            assert_sound(&request);
            prop_assert_eq!(path(&request), format!("/b/{key}"));
            let names: Vec<String> = parameters(&request).into_iter().map(|(name, _)| name).collect();
            prop_assert!(names.is_empty() || names == ["uploadId"], "{:?}", names);
        }
    }

    #[test]
    fn a_content_type_and_an_etag_are_one_header_each(content_type in text(), etag in text(), key in text()) {
        let put = sent(async |store| {
            let options = PutOptions { description: Description::typed(&content_type), sha256: None, create_only: false };
            store.put("b", "k", b"x".to_vec(), options).await.map(|_| ())
        });
        let copy = sent(async |store| {
            store.copy("b", &key, "b", "to", Some(&etag), Some(Description::typed(&content_type))).await.map(|_| ())
        });
        for request in put.iter().chain(&copy) {
            assert_sound(request);
            prop_assert_eq!(request.header("content-type"), Some(content_type.trim()));
            // What is not text of a header is not sent at all.
            prop_assert!(!content_type.contains(['\r', '\n', '\0']));
        }
        if let Some(request) = &copy {
            let source = request.header("x-amz-copy-source").unwrap();
            prop_assert!(source.bytes().all(|byte| (b'!'..=b'~').contains(&byte)));
            prop_assert_eq!(percent_decode_str(source).decode_utf8().unwrap(), format!("b/{key}"));
            prop_assert_eq!(request.header("x-amz-copy-source-if-match"), Some(etag.trim()));
        }
    }

    #[test]
    fn prefixes_and_markers_are_parameters(prefix in text(), after in text(), id in text()) {
        let list = sent(async |store| store.list_page("b", &prefix, Some(&after)).await.map(|_| ()));
        let uploads = sent(async |store| {
            store.list_multipart_uploads("b", &prefix, Some((&after, &id))).await.map(|_| ())
        });
        let abort = sent(async |store| store.abort_multipart_upload("b", "k", &id).await);
        for (request, own) in [(&list, "start-after"), (&uploads, "key-marker")] {
            let request = request.as_ref().unwrap();
            assert_sound(request);
            let path = path(request);
            prop_assert_eq!(path.trim_end_matches('/'), "/b");
            let found = parameters(request);
            prop_assert_eq!(value(&found, "prefix"), Some(prefix.as_str()));
            prop_assert_eq!(value(&found, own), Some(after.as_str()));
            let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            let expected = match own {
                "start-after" => vec!["encoding-type", "list-type", "prefix", "start-after"],
                _ => vec!["encoding-type", "key-marker", "prefix", "upload-id-marker", "uploads"],
            };
            prop_assert_eq!(names, expected);
        }
        let found = parameters(abort.as_ref().unwrap());
        prop_assert_eq!(found, [("uploadId".to_owned(), id)]);
    }

    #[test]
    fn keys_to_delete_are_one_element_each(keys in proptest::collection::vec(text(), 1..5)) {
        let request = sent(async |store| store.delete_batch("b", &keys).await.map(|_| ())).unwrap();
        assert_sound(&request);
        let (names, found) = elements(&request.body, "Key");
        let each = ["Object", "Key"].map(str::to_owned);
        let mut expected = vec!["Delete".to_owned()];
        expected.extend(keys.iter().flat_map(|_| each.clone()));
        let names: Vec<String> = names.into_iter().filter(|name| name != "Quiet").collect();
        prop_assert_eq!(names, expected);
        prop_assert_eq!(found, keys);
    }

    #[test]
    fn origins_are_one_element_each(origins in proptest::collection::vec(text(), 1..5)) {
        let mut rule = policy::cors(Access::Private, &[]);
        rule.allowed_origins.clone_from(&origins);
        let request = sent(async |store| store.put_cors("b", &rule).await).unwrap();
        assert_sound(&request);
        let (names, found) = elements(&request.body, "AllowedOrigin");
        prop_assert_eq!(&found, &origins);
        prop_assert_eq!(names.iter().filter(|name| *name == "CORSRule").count(), 1);
        let lists = rule.allowed_methods.len() + rule.allowed_headers.len() + rule.expose_headers.len();
        // And the configuration, the rule and its age.
        prop_assert_eq!(names.len(), origins.len() + lists + 3);
    }

    #[test]
    fn a_prefix_is_the_filter_of_each_rule_and_no_more(prefix in text()) {
        let lifecycle = policy::lifecycle(Access::Temp);
        let request = sent(async |store| store.put_lifecycle("b", &prefix, &lifecycle).await).unwrap();
        assert_sound(&request);
        let (names, found) = elements(&request.body, "Prefix");
        prop_assert_eq!(&found, &[prefix.clone(), prefix]);
        prop_assert_eq!(names.iter().filter(|name| *name == "Rule").count(), 2);
        prop_assert!(!names.iter().any(|name| name == "Transition"));
    }

    #[test]
    fn a_policy_is_the_value_that_was_given(bucket in text(), prefix in text()) {
        let given = policy::public_read(&bucket, &prefix);
        let request = sent(async |store| store.put_policy("b", &given).await).unwrap();
        assert_sound(&request);
        let arrived: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        prop_assert_eq!(&arrived, &given);
        prop_assert_eq!(arrived["Statement"].as_array().unwrap().len(), 1);
        prop_assert_eq!(&arrived["Statement"][0]["Action"], &serde_json::json!(["s3:GetObject"]));
    }
}
