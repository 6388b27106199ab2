//! Strangers: nothing unless a policy opens it, and nothing but reading even then.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::PublicAccessBlockConfiguration;

use crate::harness::{Server, refusal};

const PUBLIC: &str = r#"{"Version":"2012-10-17","Statement":[{"Sid":"r","Effect":"Allow","Principal":"*",
    "Action":["s3:GetObject"],"Resource":["arn:aws:s3:::bucket/pub/*"]}]}"#;

async fn with_objects() -> (Server, Client) {
    let server = Server::start();
    let client = server.with_bucket().await;
    for key in ["pub/a", "private/a"] {
        client
            .put_object()
            .bucket("bucket")
            .key(key)
            .body(ByteStream::from_static(b"bytes"))
            .send()
            .await
            .unwrap();
    }
    (server, client)
}

async fn block(client: &Client, policy: bool, restrict: bool) {
    let configuration = PublicAccessBlockConfiguration::builder()
        .block_public_policy(policy)
        .restrict_public_buckets(restrict);
    let put = client.put_public_access_block().bucket("bucket");
    put.public_access_block_configuration(configuration.build()).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_opens_reading_of_its_prefix_and_nothing_else() {
    let (server, client) = with_objects().await;
    let get = |path: &str| server.send("GET", path, &[], b"").verdict().0;
    assert_eq!(get("/bucket/pub/a"), 403);

    client.put_bucket_policy().bucket("bucket").policy(PUBLIC).send().await.unwrap();
    let open = server.send("GET", "/bucket/pub/a", &[], b"");
    assert_eq!((open.status, open.body.as_slice()), (200, b"bytes".as_slice()));
    assert_eq!(server.send("HEAD", "/bucket/pub/a", &[], b"").status, 200);
    for (method, path) in [
        ("GET", "/bucket/private/a"),
        // Absent and forbidden look the same to whoever may not list.
        ("GET", "/bucket/pub/absent"),
        ("HEAD", "/bucket/pub/absent"),
        ("GET", "/nowhere/pub/a"),
        ("GET", "/bucket/pub/../private/a"),
        ("GET", "/bucket/pub%2f..%2fprivate/a"),
        ("GET", "/bucket"),
        ("GET", "/bucket?list-type=2"),
        ("GET", "/bucket?policy"),
        ("GET", "/bucket?cors"),
        ("GET", "/"),
        ("GET", "/bucket/pub/a?acl"),
        ("GET", "/bucket/pub/a?tagging"),
        ("PUT", "/bucket/pub/a"),
        ("PUT", "/bucket/pub/new"),
        ("DELETE", "/bucket/pub/a"),
        ("POST", "/bucket/pub/a?uploads"),
        ("POST", "/bucket?delete"),
        ("PUT", "/bucket?policy"),
        ("DELETE", "/bucket"),
        ("PUT", "/another"),
    ] {
        let answer = server.send(method, path, &[], b"");
        assert_eq!(answer.status, 403, "{method} {path}: {}", answer.code());
    }
    let overridden = server.send("GET", "/bucket/pub/a?response-content-type=text/html", &[], b"");
    assert_eq!(overridden.verdict(), (400, "InvalidRequest".into()));

    client.delete_bucket_policy().bucket("bucket").send().await.unwrap();
    assert_eq!(get("/bucket/pub/a"), 403);
    let gone = client.get_bucket_policy().bucket("bucket").send().await.unwrap_err();
    assert_eq!(refusal(gone), (404, "NoSuchBucketPolicy".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_post_a_form() {
    let (server, client) = with_objects().await;
    client.put_bucket_policy().bucket("bucket").policy(PUBLIC).send().await.unwrap();
    let body = "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\npub/x\r\n--b\r\nContent-Disposition: \
                form-data; name=\"file\"; filename=\"f\"\r\n\r\nbytes\r\n--b--\r\n";
    let headers = [("Content-Type", "multipart/form-data; boundary=b")];
    assert_eq!(server.send("POST", "/bucket", &headers, body.as_bytes()).status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_access_block_wins_over_a_policy() {
    let (server, client) = with_objects().await;
    let none = client.get_public_access_block().bucket("bucket").send().await.unwrap_err();
    assert_eq!(refusal(none), (404, "NoSuchPublicAccessBlockConfiguration".into()));

    block(&client, true, false).await;
    let refused = client.put_bucket_policy().bucket("bucket").policy(PUBLIC).send().await.unwrap_err();
    assert_eq!(refusal(refused), (403, "AccessDenied".into()));
    assert_eq!(server.send("GET", "/bucket/pub/a", &[], b"").status, 403);

    client.delete_public_access_block().bucket("bucket").send().await.unwrap();
    client.put_bucket_policy().bucket("bucket").policy(PUBLIC).send().await.unwrap();
    assert_eq!(server.send("GET", "/bucket/pub/a", &[], b"").status, 200);
    let stored = client.get_bucket_policy().bucket("bucket").send().await.unwrap();
    assert_eq!(stored.policy(), Some(PUBLIC));

    block(&client, true, true).await;
    assert_eq!(server.send("GET", "/bucket/pub/a", &[], b"").status, 403);
    let stored = client.get_public_access_block().bucket("bucket").send().await.unwrap();
    assert_eq!(stored.public_access_block_configuration().unwrap().restrict_public_buckets(), Some(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_this_store_cannot_judge_are_refused() {
    let (_server, client) = with_objects().await;
    let put = |policy: String| client.put_bucket_policy().bucket("bucket").policy(policy).send();
    let deny = put(PUBLIC.replace("Allow", "Deny")).await.unwrap_err();
    assert_eq!(refusal(deny), (501, "NotImplemented".into()));
    let foreign = put(PUBLIC.replace(":::bucket/", ":::other/")).await.unwrap_err();
    assert_eq!(refusal(foreign), (400, "MalformedPolicy".into()));
    let broken = put("{".to_owned()).await.unwrap_err();
    assert_eq!(refusal(broken), (400, "MalformedPolicy".into()));
}
