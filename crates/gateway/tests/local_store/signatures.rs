//! Signatures: what was signed is what is done, when and where it was signed for, or nothing is.

use pg_storage_core::presign::{Method, Presign, Timestamp};

use crate::harness::{REGION, Server, now, refusal};

/// A request that succeeds, to be spoilt in one place at a time.
struct Upload {
    server: Server,
    url: String,
    headers: Vec<(&'static str, &'static str)>,
}

impl Upload {
    async fn new() -> Self {
        let server = Server::start();
        server.with_bucket().await;
        let headers =
            vec![("content-type", "text/plain"), ("content-length", "5"), ("x-amz-meta-colour", "blue")];
        let url = server.presign(Method::Put, "dir/key", &headers);
        assert_eq!(server.send("PUT", &url, &headers, b"hello").status, 200);
        Self { server, url, headers }
    }

    fn status(&self, method: &str, url: &str, headers: &[(&str, &str)]) -> u16 {
        self.server.send(method, url, headers, b"hello").status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_of_a_url_is_bound() {
    let upload = Upload::new().await;
    let (path, query) = upload.url.split_once('?').unwrap();
    let pairs: Vec<&str> = query.split('&').collect();
    for (index, pair) in pairs.iter().enumerate() {
        let (name, value) = pair.split_once('=').unwrap();
        let last = value.chars().last().unwrap();
        let other = if last == '1' { '2' } else { '1' };
        let changed = format!("{name}={}{other}", &value[..value.len() - last.len_utf8()]);
        for spoilt in [Some(changed), Some(format!("{name}=")), Some(format!("{pair}&{pair}")), None] {
            let mut spoilt_pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
            match &spoilt {
                Some(text) => spoilt_pairs[index] = text.clone(),
                None => drop(spoilt_pairs.remove(index)),
            }
            let url = format!("{path}?{}", spoilt_pairs.join("&"));
            let status = upload.status("PUT", &url, &upload.headers);
            assert!(matches!(status, 400 | 403), "{name} as {spoilt:?}: {status}");
        }
    }
    assert_eq!(upload.status("PUT", &format!("{}&extra=1", upload.url), &upload.headers), 403);
    assert_eq!(upload.status("PUT", &upload.url.replace("dir/key", "dir/kez"), &upload.headers), 403);
    assert_eq!(upload.status("PUT", &upload.url.replace("/bucket/", "/bucker/"), &upload.headers), 403);
    for method in ["GET", "DELETE", "HEAD", "POST"] {
        assert_eq!(upload.status(method, &upload.url, &upload.headers), 403, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signed_header_is_bound_and_every_amz_header_must_be_signed() {
    let upload = Upload::new().await;
    for index in 0..upload.headers.len() {
        let (name, _) = upload.headers[index];
        let mut absent = upload.headers.clone();
        absent.remove(index);
        if name != "content-length" {
            assert_eq!(upload.status("PUT", &upload.url, &absent), 403, "without {name}");
        }
        let mut changed = upload.headers.clone();
        changed[index].1 = if name == "content-length" { "4" } else { "other" };
        assert_eq!(upload.status("PUT", &upload.url, &changed), 403, "other {name}");
        if name != "content-length" {
            let mut twice = upload.headers.clone();
            twice.push((name, "other"));
            assert_eq!(upload.status("PUT", &upload.url, &twice), 403, "second {name}");
        }
    }
    for extra in [
        ("x-amz-meta-size", "large"),
        ("x-amz-acl", "private"),
        ("X-Amz-Storage-Class", "STANDARD"),
        ("x-amz-copy-source", "/bucket/dir/key"),
    ] {
        let mut headers = upload.headers.clone();
        headers.push(extra);
        let answer = upload.server.send("PUT", &upload.url, &headers, b"hello");
        assert_eq!(answer.verdict(), (403, "AccessDenied".into()), "{extra:?}");
    }
    // What a browser adds on its own is not ours to refuse.
    let mut browser = upload.headers.clone();
    browser.extend([("Accept", "*/*"), ("User-Agent", "x"), ("Referer", "https://app.example.com/")]);
    assert_eq!(upload.status("PUT", &upload.url, &browser), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_lives_from_its_date_to_its_expiry_and_never_longer_than_a_week() {
    let server = Server::start();
    server.with_bucket().await;
    let put = |expires, at| {
        let url = server.presign_at(Method::Put, "k", &[], expires, at);
        server.send("PUT", &url, &[], b"x").verdict()
    };
    let ok = (200, String::new());
    assert_eq!(put(60, now()), ok);
    assert_eq!(put(60, now() - 61), (403, "AccessDenied".into()));
    assert_eq!(put(604_800, now() - 604_700), ok);
    assert_eq!(put(604_800, now() - 604_801), (403, "AccessDenied".into()));
    assert_eq!(put(604_801, now()), (400, "AuthorizationQueryParametersError".into()));
    assert_eq!(put(0, now()), (400, "AuthorizationQueryParametersError".into()));
    assert_eq!(put(60, now() + 3600), (403, "RequestTimeTooSkewed".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn region_secret_and_key_must_be_the_stores() {
    let server = Server::start();
    server.with_bucket().await;
    let url = |region: &str, secret: Option<&str>| {
        let request = Presign {
            method: Method::Put,
            bucket: "bucket",
            key: "k",
            expires: 60,
            headers: &[],
            query: &[],
        };
        server.signer(region, secret).url(&request, Timestamp::from_unix(now()))
    };
    let put = |url: &str| server.send("PUT", url, &[], b"x").verdict();
    assert_eq!(put(&url(REGION, None)).0, 200);
    assert_eq!(put(&url("us-east-1", None)), (400, "AuthorizationQueryParametersError".into()));
    assert_eq!(put(&url(REGION, Some("wrong"))), (403, "SignatureDoesNotMatch".into()));
    let stranger = url(REGION, None).replace("LOCAL", "OTHER");
    assert_eq!(put(&stranger).0, 403);
    let service = url(REGION, None).replace("%2Fs3%2F", "%2Fsts%2F");
    assert_eq!(put(&service), (400, "AuthorizationQueryParametersError".into()));
    let token = format!("{}&X-Amz-Security-Token=t", url(REGION, None));
    assert_eq!(put(&token), (400, "InvalidToken".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_mechanism_at_a_time_and_only_version_four() {
    let server = Server::start();
    server.with_bucket().await;
    let url = server.presign(Method::Get, "k", &[]);
    let both = server.send("GET", &url, &[("Authorization", "AWS4-HMAC-SHA256 Credential=x")], b"");
    assert_eq!(both.verdict(), (400, "InvalidArgument".into()));
    for (path, header) in [
        ("/bucket/k", Some("AWS AKID:signature")),
        ("/bucket/k", Some("Basic dXNlcjpwYXNz")),
        ("/bucket/k", Some("Bearer token")),
        ("/bucket/k?AWSAccessKeyId=x&Signature=y&Expires=9999999999", None),
    ] {
        let headers: Vec<(&str, &str)> = header.map(|value| ("Authorization", value)).into_iter().collect();
        let answer = server.send("GET", path, &headers, b"");
        assert_eq!(answer.verdict(), (400, "InvalidRequest".into()), "{path} {header:?}");
    }
    for header in [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=a/20260101/local/s3/aws4_request",
        "AWS4-HMAC-SHA256 Credential=a/20260101/other/s3/aws4_request, SignedHeaders=host, Signature=0",
    ] {
        let answer = server.send("GET", "/bucket/k", &[("Authorization", header)], b"");
        assert_eq!(answer.verdict(), (400, "AuthorizationHeaderMalformed".into()), "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_parameters_that_stand_for_headers_count_like_headers() {
    let server = Server::start();
    server.with_bucket().await;
    let checksum = crate::harness::sha256(b"hello");
    let query = [("x-amz-checksum-sha256", checksum.as_str())];
    let request =
        Presign { method: Method::Put, bucket: "bucket", key: "k", expires: 60, headers: &[], query: &query };
    let url = server.signer(REGION, None).url(&request, Timestamp::from_unix(now()));
    assert_eq!(server.send("PUT", &url, &[], b"jello").verdict(), (400, "BadDigest".into()));
    assert_eq!(server.send("PUT", &url, &[], b"hello").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_url_sets_the_headers_it_was_signed_with() {
    let upload = Upload::new().await;
    let disposition = "attachment; filename=\"a b.txt\"";
    let query = [("response-content-disposition", disposition), ("response-content-type", "text/csv")];
    let request = Presign {
        method: Method::Get,
        bucket: "bucket",
        key: "dir/key",
        expires: 60,
        headers: &[],
        query: &query,
    };
    let url = upload.server.signer(REGION, None).url(&request, Timestamp::from_unix(now()));
    let answer = upload.server.send("GET", &url, &[], b"");
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()));
    assert_eq!(answer.header("content-disposition"), Some(disposition));
    assert_eq!(answer.header("content-type"), Some("text/csv"));
    assert_eq!(answer.header("x-amz-meta-colour"), Some("blue"));
}

/// The sender of a large body must hear the refusal, not find its connection reset.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_sender_of_a_large_body() {
    let server = Server::start();
    server.with_bucket().await;
    let url = server.presign(Method::Put, "k", &[]).replace("/k?", "/l?");
    let body = vec![b'x'; 8 << 20];
    for _ in 0..20 {
        assert_eq!(server.send("PUT", &url, &[], &body).verdict(), (403, "SignatureDoesNotMatch".into()));
        let nowhere =
            server.client().put_object().bucket("nowhere").key("k").body(body.clone().into()).send().await;
        assert_eq!(refusal(nowhere.unwrap_err()), (404, "NoSuchBucket".into()));
    }
}
