//! Copies: conditions on the source and on the target, headers kept or replaced, bytes shared safely.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, MetadataDirective};

use crate::durability::blobs;
use crate::harness::{Server, refusal, sha256};

async fn read(client: &aws_sdk_s3::Client, key: &str) -> Vec<u8> {
    let answer = client.get_object().bucket("bucket").key(key).send().await.unwrap();
    answer.body.collect().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_pinned_to_the_source_it_names() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let put = client.put_object().bucket("bucket").key("from").body(ByteStream::from_static(b"one"));
    let tag = put.send().await.unwrap().e_tag.unwrap();
    let copy = || client.copy_object().bucket("bucket").copy_source("bucket/from");
    copy().key("to").copy_source_if_match(&tag).send().await.unwrap();
    copy().key("to").copy_source_if_none_match("\"other\"").send().await.unwrap();
    client
        .put_object()
        .bucket("bucket")
        .key("from")
        .body(ByteStream::from_static(b"two"))
        .send()
        .await
        .unwrap();
    for refused in [
        copy().key("no").copy_source_if_match(&tag).send().await,
        copy().key("no").copy_source_if_none_match("*").send().await,
    ] {
        assert_eq!(refusal(refused.unwrap_err()), (412, "PreconditionFailed".into()));
    }
    assert_eq!(read(&client, "to").await, b"one");
    assert_eq!(refusal(client.get_object().bucket("bucket").key("no").send().await.unwrap_err()).0, 404);
    let absent = client.copy_object().bucket("bucket").key("no").copy_source("bucket/absent").send().await;
    assert_eq!(refusal(absent.unwrap_err()), (404, "NoSuchKey".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_may_be_create_only() {
    let server = Server::start();
    let client = server.with_bucket().await;
    client
        .put_object()
        .bucket("bucket")
        .key("from")
        .body(ByteStream::from_static(b"x"))
        .send()
        .await
        .unwrap();
    let copy = || {
        let copy = client.copy_object().bucket("bucket").key("to").copy_source("bucket/from");
        copy.customize().mutate_request(|request| {
            request.headers_mut().insert("if-none-match", "*");
        })
    };
    copy().send().await.unwrap();
    assert_eq!(refusal(copy().send().await.unwrap_err()), (412, "PreconditionFailed".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_outlives_its_source_and_both_go_clean() {
    let server = Server::start();
    let client = server.with_bucket().await;
    client.create_bucket().bucket("second").send().await.unwrap();
    let key = "odd %2f+ \u{2603}/key";
    let put = client.put_object().bucket("bucket").key(key).content_type("text/x-one").metadata("a", "1");
    put.body(ByteStream::from_static(b"shared")).send().await.unwrap();
    let source = format!("bucket/{}", pg_storage_core::presign::encode_key(key));
    client.copy_object().bucket("second").key("kept").copy_source(&source).send().await.unwrap();
    let replaced = client.copy_object().bucket("bucket").key("replaced").copy_source(&source);
    let replaced = replaced.metadata_directive(MetadataDirective::Replace).content_type("text/x-two");
    replaced.send().await.unwrap();
    assert_eq!(blobs(&server), 1);

    client.delete_object().bucket("bucket").key(key).send().await.unwrap();
    let kept = client.get_object().bucket("second").key("kept").send().await.unwrap();
    assert_eq!(kept.content_type(), Some("text/x-one"));
    assert_eq!(kept.metadata().unwrap()["a"], "1");
    assert_eq!(kept.body.collect().await.unwrap().to_vec(), b"shared");
    let replaced = client.head_object().bucket("bucket").key("replaced").send().await.unwrap();
    assert_eq!(replaced.content_type(), Some("text/x-two"));
    assert!(replaced.metadata().is_none_or(|metadata| metadata.is_empty()));

    client.delete_object().bucket("second").key("kept").send().await.unwrap();
    assert_eq!(blobs(&server), 1);
    client.delete_object().bucket("bucket").key("replaced").send().await.unwrap();
    assert_eq!(blobs(&server), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_onto_itself_changes_headers_and_keeps_the_bytes() {
    let server = Server::start();
    let client = server.with_bucket().await;
    client
        .put_object()
        .bucket("bucket")
        .key("k")
        .body(ByteStream::from_static(b"same"))
        .send()
        .await
        .unwrap();
    let copy = || client.copy_object().bucket("bucket").key("k").copy_source("bucket/k");
    assert_eq!(refusal(copy().send().await.unwrap_err()), (400, "InvalidRequest".into()));
    copy().metadata_directive(MetadataDirective::Replace).content_type("text/new").send().await.unwrap();
    assert_eq!(read(&client, "k").await, b"same");
    assert_eq!(blobs(&server), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_computes_the_checksum_it_is_asked_for() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let bytes = vec![3u8; 700_000];
    client.put_object().bucket("bucket").key("from").body(bytes.clone().into()).send().await.unwrap();
    let copy = client.copy_object().bucket("bucket").key("to").copy_source("bucket/from");
    let copy = copy.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
    assert_eq!(copy.copy_object_result().unwrap().checksum_sha256(), Some(sha256(&bytes).as_str()));
    let head =
        client.head_object().bucket("bucket").key("to").checksum_mode(ChecksumMode::Enabled).send().await;
    assert_eq!(head.unwrap().checksum_sha256(), Some(sha256(&bytes).as_str()));
}
