//! CORS from the browser's side: preflights and actual requests, admitted and refused.

use aws_sdk_s3::types::{CorsConfiguration, CorsRule};
use pg_storage_core::presign::Method;

use crate::harness::{Reply, Server, refusal};

const APP: &str = "https://app.example.com";

async fn with_rules() -> Server {
    let server = Server::start();
    let client = server.with_bucket().await;
    let none = client.get_bucket_cors().bucket("bucket").send().await.unwrap_err();
    assert_eq!(refusal(none), (404, "NoSuchCORSConfiguration".into()));
    let upload = CorsRule::builder()
        .allowed_origins(APP)
        .allowed_methods("PUT")
        .allowed_methods("HEAD")
        .allowed_headers("content-type")
        .allowed_headers("x-amz-checksum-sha256")
        .allowed_headers("If-None-Match")
        .expose_headers("etag")
        .expose_headers("x-amz-request-id")
        .max_age_seconds(600);
    let read = CorsRule::builder().allowed_origins("http://localhost:*").allowed_methods("GET");
    let configuration =
        CorsConfiguration::builder().cors_rules(upload.build().unwrap()).cors_rules(read.build().unwrap());
    client
        .put_bucket_cors()
        .bucket("bucket")
        .cors_configuration(configuration.build().unwrap())
        .send()
        .await
        .unwrap();
    let stored = client.get_bucket_cors().bucket("bucket").send().await.unwrap();
    assert_eq!(stored.cors_rules()[0].max_age_seconds(), Some(600));
    server
}

fn preflight(server: &Server, origin: &str, method: &str, headers: &str) -> Reply {
    let mut sent = vec![("Origin", origin), ("Access-Control-Request-Method", method)];
    if !headers.is_empty() {
        sent.push(("Access-Control-Request-Headers", headers));
    }
    server.send("OPTIONS", "/bucket/some/key?X-Amz-Signature=x", &sent, b"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_is_answered_by_the_rules() {
    let server = with_rules().await;
    let allowed = preflight(&server, APP, "PUT", "content-type,if-none-match,x-amz-checksum-sha256");
    assert_eq!(allowed.status, 200);
    assert_eq!(allowed.header("access-control-allow-origin"), Some(APP));
    assert_eq!(allowed.header("access-control-allow-methods"), Some("PUT, HEAD"));
    assert_eq!(
        allowed.header("access-control-allow-headers"),
        Some("content-type, if-none-match, x-amz-checksum-sha256")
    );
    assert_eq!(allowed.header("access-control-expose-headers"), Some("etag, x-amz-request-id"));
    assert_eq!(allowed.header("access-control-max-age"), Some("600"));
    assert!(allowed.header("vary").unwrap().contains("Origin"));
    assert_eq!(preflight(&server, "http://localhost:5173", "GET", "").status, 200);
    for (origin, method, headers) in [
        ("https://evil.example.com", "PUT", ""),
        ("http://app.example.com", "PUT", ""),
        ("https://app.example.com:8443", "PUT", ""),
        ("null", "PUT", ""),
        (APP, "DELETE", ""),
        (APP, "GET", ""),
        (APP, "put", ""),
        (APP, "PUT", "content-type,x-amz-meta-colour"),
        ("http://localhost:5173", "GET", "range"),
    ] {
        let refused = preflight(&server, origin, method, headers);
        assert_eq!(refused.verdict(), (403, "AccessForbidden".into()), "{origin} {method} {headers}");
        assert_eq!(refused.header("access-control-allow-origin"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_needs_its_headers_a_bucket_and_rules() {
    let server = with_rules().await;
    assert_eq!(
        server.send("OPTIONS", "/bucket/k", &[("Origin", APP)], b"").verdict(),
        (400, "BadRequest".into())
    );
    server.client().create_bucket().bucket("silent").send().await.unwrap();
    for bucket in ["silent", "nowhere", ""] {
        let headers = [("Origin", APP), ("Access-Control-Request-Method", "PUT")];
        let answer = server.send("OPTIONS", &format!("/{bucket}/k"), &headers, b"");
        assert_eq!(answer.verdict(), (403, "AccessForbidden".into()), "{bucket}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn actual_answers_and_refusals_carry_the_headers() {
    let server = with_rules().await;
    let url = server.presign(Method::Put, "k", &[]);
    let stored = server.send("PUT", &url, &[("Origin", APP)], b"x");
    assert_eq!(stored.status, 200);
    assert_eq!(stored.header("access-control-allow-origin"), Some(APP));
    assert_eq!(stored.header("access-control-expose-headers"), Some("etag, x-amz-request-id"));
    let tampered = server.send("PUT", &url.replace("/k?", "/l?"), &[("Origin", APP)], b"x");
    assert_eq!(tampered.status, 403);
    assert_eq!(tampered.header("access-control-allow-origin"), Some(APP));
    let unlisted = server.send("PUT", &url, &[("Origin", "https://evil.example.com")], b"x");
    assert_eq!(unlisted.header("access-control-allow-origin"), None);
    let plain = server.send("PUT", &url, &[], b"x");
    assert_eq!(plain.header("access-control-allow-origin"), None);

    server.client().delete_bucket_cors().bucket("bucket").send().await.unwrap();
    assert_eq!(preflight(&server, APP, "PUT", "").status, 403);
}
