//! Tests of the signer: AWS's published vectors, and an independent signer as the oracle for everything else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::endpoint::Endpoint;
use crate::presign::{Secret, encode_key, plain_url};
use proptest::prelude::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// 2013-05-24 00:00 UTC, the day of AWS's S3 examples.
const DAY: i64 = 1_369_353_600;

fn signer(endpoint: &str, region: &str, path_style: bool, token: Option<&str>) -> Signer {
    let target = Target::new(&Endpoint::parse(endpoint).unwrap(), region, path_style);
    let credentials = Credentials {
        access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
        secret_access_key: Secret::new(SECRET),
        session_token: token.map(Secret::new),
    };
    Signer::new(target, credentials)
}

fn get<'a>(bucket: &'a str, key: &'a str) -> Presign<'a> {
    Presign { method: Method::Get, bucket, key, expires: 86_400, headers: &[], query: &[] }
}

#[test]
fn aws_example_of_a_presigned_get() {
    // AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
    let url = signer("https://s3.amazonaws.com", "us-east-1", false, None)
        .url(&get("examplebucket", "test.txt"), Timestamp::from_unix(DAY));
    assert_eq!(
        url,
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
}

#[test]
fn aws_examples_of_derived_keys() {
    // AWS General Reference, "Deriving a signing key" and the complete SigV4 examples.
    let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    for (day, expected) in [
        ("20120215", "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d"),
        ("20150830", "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9"),
    ] {
        let mut buffer = [0; 64];
        assert_eq!(hex(&signing_key(secret, day, "us-east-1", "iam"), &mut buffer), expected);
    }
}

/// SigV4 as its documentation tells it, step by step, on a URL that is taken apart again; nothing shared with the signer
/// but the hash functions. Returns the signature.
fn oracle(method: &str, url: &str, headers: &[(&str, &str)], secret: &str) -> String {
    let (_, rest) = url.split_once("://").unwrap();
    let (host, rest) = rest.split_at(rest.find('/').unwrap());
    let (path, query) = rest.split_once('?').unwrap();
    let mut parameters: Vec<(&str, &str)> =
        query.split('&').map(|pair| pair.split_once('=').unwrap()).collect();
    parameters.retain(|(name, _)| *name != "X-Amz-Signature");
    parameters.sort();
    let value = |wanted| parameters.iter().find(|(name, _)| *name == wanted).unwrap().1;
    let query: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut headers: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| (name.to_lowercase(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect();
    headers.push(("host".to_owned(), host.to_owned()));
    headers.sort();
    let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    assert_eq!(value("X-Amz-SignedHeaders"), names.replace(';', "%3B"));
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!("{method}\n{path}\n{}\n{lines}\n{names}\nUNSIGNED-PAYLOAD", query.join("&"));

    let digest = base16ct::lower::encode_string(&Sha256::digest(canonical));
    let scope: Vec<&str> = value("X-Amz-Credential").split("%2F").skip(1).collect();
    let date = value("X-Amz-Date");
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{}\n{digest}", scope.join("/"));
    let mac = |key: &[u8], text: &str| {
        let mut mac = HmacSha256::new_from_slice(key).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    };
    let key = scope.iter().fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part));
    base16ct::lower::encode_string(&mac(&key, &text))
}

fn signature(url: &str) -> &str {
    url.rsplit_once("&X-Amz-Signature=").unwrap_or_else(|| panic!("signature last: {url}")).1
}

#[test]
fn the_oracle_agrees_with_aws() {
    let url = signer("https://s3.amazonaws.com", "us-east-1", false, None)
        .url(&get("examplebucket", "test.txt"), Timestamp::from_unix(DAY));
    assert_eq!(
        oracle("GET", &url, &[], SECRET),
        "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    );
}

#[test]
fn header_values_are_trimmed_and_collapsed() {
    let at = Timestamp::from_unix(DAY);
    let mut signer = signer("https://h", "r", true, None);
    let mut sign = |value| {
        let headers = [("content-type", value)];
        signer.url(&Presign { headers: &headers, ..get("b-1", "k") }, at)
    };
    let plain = sign("text/plain; charset=utf-8");
    assert_eq!(sign("  text/plain;   charset=utf-8 "), plain);
    assert_eq!(sign("text/plain; charset=utf-8 "), plain);
    assert_eq!(sign(" text/plain; charset=utf-8"), plain);
    assert_eq!(sign("text/plain;\t\tcharset=utf-8\r\n"), plain);
    assert_ne!(sign("text/plain;charset=utf-8"), plain);
}

#[test]
fn a_header_value_cannot_pass_for_two_headers() {
    let at = Timestamp::from_unix(DAY);
    let mut signer = signer("https://h", "r", true, None);
    let one = [("a", "1\nb:2")];
    let two = [("a", "1"), ("b", "2")];
    let injected = signer.url(&Presign { headers: &one, ..get("b-1", "k") }, at);
    let honest = signer.url(&Presign { headers: &two, ..get("b-1", "k") }, at);
    assert_ne!(signature(&injected), signature(&honest));
    assert!(injected.contains("X-Amz-SignedHeaders=a%3Bhost&"));
}

#[test]
fn the_order_of_headers_and_parameters_does_not_matter() {
    let at = Timestamp::from_unix(DAY);
    let mut signer = signer("https://h", "r", true, None);
    let sorted = signer.url(
        &Presign {
            headers: &[("content-type", "a/b"), ("if-none-match", "*"), ("x-amz-meta-a", "1")],
            query: &[("A", "0"), ("a", "1"), ("a", "2"), ("a-b", "3"), ("b", "")],
            ..get("b-1", "k")
        },
        at,
    );
    let shuffled = signer.url(
        &Presign {
            headers: &[("X-Amz-Meta-A", "1"), ("If-None-Match", "*"), ("Content-Type", "a/b")],
            query: &[("b", ""), ("a-b", "3"), ("a", "2"), ("A", "0"), ("a", "1")],
            ..get("b-1", "k")
        },
        at,
    );
    assert_eq!(sorted, shuffled);
    assert!(sorted.contains("?A=0&X-Amz-Algorithm="));
    assert!(sorted.contains("X-Amz-SignedHeaders=content-type%3Bhost%3Bif-none-match%3Bx-amz-meta-a&a=1&a=2&a-b=3&b=&X-Amz-Signature="));
}

#[test]
fn session_tokens_are_encoded_and_signed() {
    let at = Timestamp::from_unix(DAY);
    let url = signer("https://h", "r", true, Some("to/ken+=")).url(&get("b-1", "k"), at);
    assert!(
        url.contains("&X-Amz-Expires=86400&X-Amz-Security-Token=to%2Fken%2B%3D&X-Amz-SignedHeaders=host&"),
        "{url}"
    );
    assert_eq!(signature(&url), oracle("GET", &url, &[], SECRET));
}

#[test]
fn the_key_follows_the_day() {
    let mut kept = signer("https://h", "r", true, None);
    for seconds in [DAY - 1, DAY, DAY + 86_399, DAY + 86_400, DAY - 1, DAY] {
        let at = Timestamp::from_unix(seconds);
        let fresh = signer("https://h", "r", true, None).url(&get("b-1", "k"), at);
        assert_eq!(kept.url(&get("b-1", "k"), at), fresh);
    }
}

#[test]
fn every_part_of_a_request_is_signed() {
    let at = Timestamp::from_unix(DAY);
    let base = get("b-1", "k");
    let mut signatures = vec![
        signer("https://h", "r", true, None).url(&base, at),
        signer("http://h:1", "r", true, None).url(&base, at),
        signer("https://h", "r2", true, None).url(&base, at),
        signer("https://h", "r", false, None).url(&base, at),
        signer("https://h", "r", true, Some("t")).url(&base, at),
    ];
    let mut signer = signer("https://h", "r", true, None);
    for changed in [
        Presign { method: Method::Put, ..base },
        Presign { method: Method::Head, ..base },
        Presign { method: Method::Delete, ..base },
        Presign { method: Method::Post, ..base },
        Presign { bucket: "b-2", ..base },
        Presign { key: "K", ..base },
        Presign { expires: 60, ..base },
        Presign { headers: &[("content-length", "1")], ..base },
        Presign { headers: &[("content-length", "2")], ..base },
        Presign { query: &[("versionId", "1")], ..base },
    ] {
        signatures.push(signer.url(&changed, at));
    }
    signatures.push(signer.url(&base, Timestamp::from_unix(DAY + 1)));
    let count = signatures.len();
    let mut signatures: Vec<&str> = signatures.iter().map(|url| signature(url)).collect();
    signatures.sort_unstable();
    signatures.dedup();
    assert_eq!(signatures.len(), count);
}

#[test]
fn debug_output_shows_no_secret() {
    let mut signer = signer("https://h", "r", true, Some("hush"));
    signer.url(&get("b-1", "k"), Timestamp::from_unix(DAY));
    let shown = format!("{signer:?}");
    assert!(!shown.contains(SECRET) && !shown.contains("hush") && shown.contains("AKIA"), "{shown}");
}

fn endpoints() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "https://s3.eu-central-1.amazonaws.com",
        "http://127.0.0.1:9000",
        "https://[::1]:9443/base",
        "http://minio:9000/a/b",
        "https://h:443",
    ])
}

fn names() -> impl Strategy<Value = String> {
    // Parameters beginning with X-Amz- belong to the signature.
    "[a-zA-Z0-9._~ é/=&-]{1,8}".prop_filter("reserved", |name| !name.starts_with("X-Amz-"))
}

proptest! {
    #[test]
    fn the_oracle_agrees_on_everything(
        endpoint in endpoints(),
        path_style: bool,
        token in prop::option::of("[ -~]{1,20}"),
        bucket in "[a-z0-9][a-z0-9.-]{1,10}[a-z0-9]",
        key: String,
        expires in 1..=604_800_u32,
        headers in prop::collection::btree_map("[a-z][a-z0-9-]{0,10}", "[ -~é]{0,20}", 0..4),
        query in prop::collection::vec((names(), any::<String>()), 0..4),
        seconds in 0..253_402_300_799_i64,
    ) {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(|(name, _)| *name != "host").collect();
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut signer = signer(endpoint, "eu-central-1", path_style, token.as_deref());
        let request = Presign { method: Method::Put, bucket: &bucket, key: &key, expires, headers: &headers, query: &query };
        let url = signer.url(&request, Timestamp::from_unix(seconds));
        prop_assert!(url.bytes().all(|byte| byte.is_ascii_graphic()));
        prop_assert_eq!(signature(&url), oracle("PUT", &url, &headers, SECRET));
        let plain = plain_url(signer.target(), &bucket, &key);
        prop_assert!(plain.ends_with(&encode_key(&key)));
        prop_assert_eq!(url.split_once('?').unwrap().0, plain);
        for (name, value) in query {
            let pair = format!("{}={}", component(name), component(value));
            prop_assert!(url.split(['?', '&']).any(|found| found == pair));
        }
    }
}
