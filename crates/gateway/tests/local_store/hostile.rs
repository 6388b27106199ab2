//! Texts of a caller's in what the store answers: a key, a type, an origin, a name to save under stay one value each, in
//! XML documents and in headers.

use aws_sdk_s3::types::{CorsConfiguration, CorsRule, Delete, EncodingType, ObjectIdentifier};
use pg_storage_core::presign::{Method, Presign, Timestamp};

use crate::harness::{REGION, Server, now};

/// What means something to XML, HTTP, JSON or a path.
const SYNTAX: [&str; 24] = [
    "</Key></Contents><Contents><Key>other",
    "<!--",
    "]]>",
    "<![CDATA[x",
    "&amp;",
    "&lol;",
    "&#10;",
    "\"",
    "'",
    "\\",
    "\r\nX-Injected: 1",
    "\n",
    "\t",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{feff}",
    "\u{202e}gpj.exe",
    "../../../etc/passwd",
    "%2e%2e%2f",
    "%0d%0aX-Injected:%201",
    "?delete#x",
    "é 😀",
];

/// Each alone, and beside another one.
fn texts() -> Vec<String> {
    let pairs = SYNTAX.iter().zip(SYNTAX.iter().cycle().skip(5)).map(|(one, two)| format!("k{one}/{two}z"));
    SYNTAX.iter().map(|one| format!("k{one}")).chain(pairs).collect()
}

#[track_caller]
fn assert_nothing_injected(head: &[(String, String)]) {
    assert!(!head.iter().any(|(name, _)| name.starts_with("x-injected")), "{head:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_keys_are_stored_listed_and_deleted_as_they_are() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let (mut stored, mut refused) = (Vec::new(), 0);
    for key in texts() {
        let answer = server.send("PUT", &server.presign(Method::Put, &key, &[]), &[], b"x");
        assert_nothing_injected(&answer.headers);
        match answer.status {
            200 => stored.push(key),
            400 => refused += 1,
            status => panic!("{key:?}: {status}"),
        }
    }
    assert!(stored.len() > 30, "{} stored, {refused} refused", stored.len());
    stored.sort();

    let listed =
        client.list_objects_v2().bucket("bucket").encoding_type(EncodingType::Url).send().await.unwrap();
    let decoded = |key: &str| {
        percent_encoding::percent_decode_str(&key.replace('+', " ")).decode_utf8().unwrap().into_owned()
    };
    let keys: Vec<String> = listed.contents().iter().map(|object| decoded(object.key().unwrap())).collect();
    assert_eq!(keys, stored);
    // The document itself, where the client does not ask for keys in URL encoding.
    let query = [("list-type", "2")];
    let request =
        Presign { method: Method::Get, bucket: "bucket", key: "", expires: 60, headers: &[], query: &query };
    let url = server.signer(REGION, None).url(&request, Timestamp::from_unix(now()));
    let document = String::from_utf8(server.send("GET", &url, &[], b"").body).unwrap();
    assert_eq!(document.matches("<Contents>").count(), stored.len());
    assert_eq!(document.matches("<Key>").count(), stored.len());
    assert!(!document.contains("<!--") && !document.contains("<![CDATA["));

    let (gone, kept) = stored.split_at(stored.len() / 2);
    // A document in XML cannot name the rest; their keys go one by one.
    let gone: Vec<&String> = gone.iter().filter(|key| !key.contains(|c: char| c.is_control())).collect();
    let objects = gone.iter().map(|key| ObjectIdentifier::builder().key(key.as_str()).build().unwrap());
    let batch = Delete::builder().set_objects(Some(objects.collect())).build().unwrap();
    let deleted = client.delete_objects().bucket("bucket").delete(batch).send().await.unwrap();
    assert_eq!((deleted.deleted().len(), deleted.errors().len()), (gone.len(), 0));
    for key in kept {
        let answer = server.send("GET", &server.presign(Method::Get, key, &[]), &[], b"");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"x"[..]), "{key:?}");
    }
    println!("{} hostile keys stored, {refused} refused", stored.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_url_asks_to_be_answered_is_one_header() {
    let server = Server::start();
    server.with_bucket().await;
    assert_eq!(server.send("PUT", &server.presign(Method::Put, "k", &[]), &[], b"x").status, 200);
    let mut answered = 0;
    for text in texts() {
        for name in ["response-content-disposition", "response-content-type", "response-cache-control"] {
            let query = [(name, text.as_str())];
            let request = Presign {
                method: Method::Get,
                bucket: "bucket",
                key: "k",
                expires: 60,
                headers: &[],
                query: &query,
            };
            let url = server.signer(REGION, None).url(&request, Timestamp::from_unix(now()));
            let answer = server.send("GET", &url, &[], b"");
            assert_nothing_injected(&answer.headers);
            assert!(matches!(answer.status, 200 | 400), "{name} {text:?}: {}", answer.status);
            answered += usize::from(answer.status == 200);
        }
        // What is not there, and a key that an error document may repeat.
        let absent =
            server.send("GET", &server.presign(Method::Get, &format!("absent{text}"), &[]), &[], b"");
        assert_nothing_injected(&absent.headers);
        let document = String::from_utf8(absent.body.clone()).unwrap();
        assert_eq!(document.matches("<Code>").count(), 1, "{document}");
        assert!(!document.contains("<Contents>") && !document.contains("<!--"), "{document}");
    }
    assert!(answered > 30, "{answered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_is_one_element_and_one_header() {
    let server = Server::start();
    let client = server.with_bucket().await;
    for text in texts().into_iter().filter(|text| !text.contains(|c: char| c.is_control())) {
        let rule = CorsRule::builder().allowed_origins(&text).allowed_methods("PUT").build().unwrap();
        let configuration = CorsConfiguration::builder().cors_rules(rule).build().unwrap();
        let put = client.put_bucket_cors().bucket("bucket").cors_configuration(configuration).send().await;
        if put.is_ok() {
            let stored = client.get_bucket_cors().bucket("bucket").send().await.unwrap();
            let origins: Vec<&String> =
                stored.cors_rules().iter().flat_map(|rule| rule.allowed_origins()).collect();
            assert_eq!(origins, [&text]);
        }
        let asked = [("Origin", text.as_str()), ("Access-Control-Request-Method", "PUT")];
        let preflight = server.send("OPTIONS", "/bucket/k", &asked, b"");
        assert_nothing_injected(&preflight.headers);
        let allowed: Vec<&str> = preflight
            .headers
            .iter()
            .filter(|(name, _)| name == "access-control-allow-origin")
            .map(|(_, value)| value.as_str())
            .collect();
        assert!(allowed.is_empty() || allowed == [text.as_str()], "{text:?}: {allowed:?}");
    }
}
