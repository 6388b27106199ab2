//! Multipart uploads: parts are checked, the whole appears at once, leftovers go.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart,
};
use pg_storage_core::digest::Digest;
use pg_storage_core::presign::{Method, Presign, Timestamp};

use crate::durability::blobs;
use crate::harness::{REGION, Server, now, refusal, sha256};

const MIB: usize = 1024 * 1024;

async fn create(client: &Client) -> String {
    client.create_multipart_upload().bucket("bucket").key("k").send().await.unwrap().upload_id.unwrap()
}

async fn part(client: &Client, id: &str, number: i32, bytes: Vec<u8>) -> CompletedPart {
    let sent =
        client.upload_part().bucket("bucket").key("k").upload_id(id).part_number(number).body(bytes.into());
    CompletedPart::builder().part_number(number).set_e_tag(sent.send().await.unwrap().e_tag).build()
}

fn whole(parts: Vec<CompletedPart>) -> CompletedMultipartUpload {
    CompletedMultipartUpload::builder().set_parts(Some(parts)).build()
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_become_one_object_in_the_order_of_their_numbers() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let start =
        client.create_multipart_upload().bucket("bucket").key("k").content_type("video/x").metadata("a", "b");
    let id = start.send().await.unwrap().upload_id.unwrap();
    let (first, second) = (vec![1u8; 5 * MIB], vec![2u8; 1234]);
    let late = part(&client, &id, 7, second.clone()).await;
    let replaced = part(&client, &id, 2, vec![9u8; 10]).await;
    let early = part(&client, &id, 2, first.clone()).await;
    assert_ne!(replaced.e_tag(), early.e_tag());
    let complete = || client.complete_multipart_upload().bucket("bucket").key("k").upload_id(&id);

    assert_eq!(client.list_objects_v2().bucket("bucket").send().await.unwrap().key_count(), Some(0));
    let listed =
        client.list_parts().bucket("bucket").key("k").upload_id(&id).max_parts(1).send().await.unwrap();
    assert_eq!(listed.parts()[0].part_number(), Some(2));
    assert_eq!(listed.parts()[0].size(), Some(5 * MIB as i64));
    assert_eq!(listed.next_part_number_marker(), Some("2"));
    let parts = vec![early, late];
    let done = complete().multipart_upload(whole(parts.clone())).send().await.unwrap();
    assert!(done.e_tag().unwrap().ends_with("-2\""), "{:?}", done.e_tag());

    let read = client.get_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(read.content_type(), Some("video/x"));
    assert_eq!(read.metadata().unwrap()["a"], "b");
    let mut bytes = first.clone();
    bytes.extend(&second);
    assert!(read.body.collect().await.unwrap().to_vec() == bytes);
    let seam =
        client.get_object().bucket("bucket").key("k").range("bytes=5242879-5242880").send().await.unwrap();
    assert_eq!(seam.body.collect().await.unwrap().to_vec(), [1, 2]);
    let second = client.get_object().bucket("bucket").key("k").part_number(2).send().await.unwrap();
    assert_eq!((second.parts_count(), second.content_length()), (Some(2), Some(1234)));

    let again = complete().multipart_upload(whole(parts)).send().await.unwrap_err();
    assert_eq!(refusal(again), (404, "NoSuchUpload".into()));
    assert_eq!(blobs(&server), 2);
    client.delete_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(blobs(&server), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_list_of_parts_completes_nothing() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let id = create(&client).await;
    let small = part(&client, &id, 1, vec![1; 100]).await;
    let last = part(&client, &id, 2, vec![2; 100]).await;
    let wrong = CompletedPart::builder().part_number(2).e_tag("\"0123\"").build();
    let absent = CompletedPart::builder().part_number(3).set_e_tag(last.e_tag.clone()).build();
    for (parts, code) in [
        (vec![small.clone(), last.clone()], "EntityTooSmall"),
        (vec![last.clone(), small.clone()], "InvalidPartOrder"),
        (vec![small.clone(), small.clone()], "InvalidPartOrder"),
        (vec![small.clone(), wrong], "InvalidPart"),
        (vec![small.clone(), absent], "InvalidPart"),
    ] {
        let complete = client.complete_multipart_upload().bucket("bucket").key("k").upload_id(&id);
        let refused = complete.multipart_upload(whole(parts)).send().await.unwrap_err();
        assert_eq!(refusal(refused), (400, code.into()));
    }
    let complete = || client.complete_multipart_upload().bucket("bucket").key("k").upload_id(&id);
    let sized = complete().mpu_object_size(99).multipart_upload(whole(vec![small.clone()])).send().await;
    assert_eq!(refusal(sized.unwrap_err()), (400, "InvalidRequest".into()));
    let other_key = client.complete_multipart_upload().bucket("bucket").key("other").upload_id(&id);
    let other_key = other_key.multipart_upload(whole(vec![small.clone()])).send().await.unwrap_err();
    assert_eq!(refusal(other_key), (404, "NoSuchUpload".into()));

    client.put_object().bucket("bucket").key("k").body(ByteStream::from_static(b"x")).send().await.unwrap();
    let only_new = complete().if_none_match("*").multipart_upload(whole(vec![small.clone()])).send().await;
    assert_eq!(refusal(only_new.unwrap_err()), (412, "PreconditionFailed".into()));
    // Refusals cost nothing: the upload is still there.
    complete().multipart_upload(whole(vec![small])).send().await.unwrap();
    for number in [0, 10_001] {
        let url = format!("partNumber={number}");
        let upload = client.upload_part().bucket("bucket").key("k").upload_id(&id).part_number(number);
        let refused = upload.body(ByteStream::from_static(b"x")).send().await.unwrap_err();
        assert_eq!(refusal(refused), (400, "InvalidArgument".into()), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_listed_and_abort_frees_their_parts() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let mut ids = Vec::new();
    for key in ["a", "a", "b", "dir/c"] {
        let upload = client.create_multipart_upload().bucket("bucket").key(key).send().await.unwrap();
        ids.push((key, upload.upload_id.unwrap()));
    }
    let upload = client.upload_part().bucket("bucket").key("b").upload_id(&ids[2].1).part_number(1);
    upload.body(ByteStream::from_static(b"x")).send().await.unwrap();
    assert_eq!(blobs(&server), 1);
    let (mut key_marker, mut id_marker) = (None, None);
    let mut seen = Vec::new();
    loop {
        let page = client
            .list_multipart_uploads()
            .bucket("bucket")
            .max_uploads(1)
            .set_key_marker(key_marker)
            .set_upload_id_marker(id_marker)
            .send()
            .await
            .unwrap();
        seen.extend(
            page.uploads()
                .iter()
                .map(|upload| (upload.key.clone().unwrap(), upload.upload_id.clone().unwrap())),
        );
        key_marker = page.next_key_marker;
        id_marker = page.next_upload_id_marker;
        if key_marker.is_none() {
            break;
        }
    }
    let mut all: Vec<(String, String)> =
        ids.iter().map(|(key, id)| ((*key).to_owned(), id.clone())).collect();
    all.sort();
    assert_eq!(seen, all);
    let under = client.list_multipart_uploads().bucket("bucket").prefix("dir/").send().await.unwrap();
    assert_eq!(under.uploads().len(), 1);

    let abort = || client.abort_multipart_upload().bucket("bucket").key("b").upload_id(&ids[2].1);
    abort().send().await.unwrap();
    assert_eq!(refusal(abort().send().await.unwrap_err()), (404, "NoSuchUpload".into()));
    assert_eq!(blobs(&server), 0);
    // What is left goes with the bucket.
    client.delete_bucket().bucket("bucket").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn presigned_parts_are_bound_to_their_bytes() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let start = client.create_multipart_upload().bucket("bucket").key("k");
    let start = start.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
    let id = start.upload_id.unwrap();
    let bodies = [vec![1u8; 5 * MIB], b"tail".to_vec()];
    let mut parts = Vec::new();
    for (number, body) in (1..).zip(&bodies) {
        let (sum, length) = (sha256(body), body.len().to_string());
        let headers = [
            ("content-length", length.as_str()),
            ("x-amz-checksum-sha256", sum.as_str()),
            ("x-amz-sdk-checksum-algorithm", "SHA256"),
        ];
        let number_text = number.to_string();
        let query = [("partNumber", number_text.as_str()), ("uploadId", id.as_str())];
        let request = Presign {
            method: Method::Put,
            bucket: "bucket",
            key: "k",
            expires: 60,
            headers: &headers,
            query: &query,
        };
        let url = server.signer(REGION, None).url(&request, Timestamp::from_unix(now()));
        let wrong = vec![9u8; body.len()];
        assert_eq!(server.send("PUT", &url, &headers, &wrong).verdict(), (400, "BadDigest".into()));
        let sent = server.send("PUT", &url, &headers, body);
        assert_eq!(sent.status, 200, "{:?}", sent.code());
        let tag = sent.header("etag").unwrap().to_owned();
        parts.push(CompletedPart::builder().part_number(number).e_tag(tag).checksum_sha256(sum).build());
    }
    let complete = client.complete_multipart_upload().bucket("bucket").key("k").upload_id(&id);
    let done = complete.multipart_upload(whole(parts)).send().await.unwrap();
    let sums: Vec<u8> = bodies.iter().flat_map(|body| *Digest::of(body).as_bytes()).collect();
    assert_eq!(done.checksum_sha256(), Some(format!("{}-2", sha256(&sums)).as_str()));
    assert_eq!(done.checksum_type(), Some(&ChecksumType::Composite));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crc_of_the_whole_is_joined_from_the_parts() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let bytes: Vec<u8> = (0..5 * MIB + 77).map(|number| (number % 251) as u8).collect();
    client
        .put_object()
        .bucket("bucket")
        .key("single")
        .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
        .body(bytes.clone().into())
        .send()
        .await
        .unwrap();
    let single = client
        .head_object()
        .bucket("bucket")
        .key("single")
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    let start = client.create_multipart_upload().bucket("bucket").key("k");
    let start =
        start.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).checksum_type(ChecksumType::FullObject);
    let id = start.send().await.unwrap().upload_id.unwrap();
    let mut parts = Vec::new();
    for (number, piece) in (1..).zip([&bytes[..5 * MIB], &bytes[5 * MIB..]]) {
        let upload = client.upload_part().bucket("bucket").key("k").upload_id(&id).part_number(number);
        let upload = upload.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme).body(piece.to_vec().into());
        let tag = upload.send().await.unwrap().e_tag;
        parts.push(CompletedPart::builder().part_number(number).set_e_tag(tag).build());
    }
    let complete = || client.complete_multipart_upload().bucket("bucket").key("k").upload_id(&id);
    let lie =
        complete().checksum_crc64_nvme("AAAAAAAAAAA=").multipart_upload(whole(parts.clone())).send().await;
    assert_eq!(refusal(lie.unwrap_err()), (400, "BadDigest".into()));
    let done = complete().multipart_upload(whole(parts)).send().await.unwrap();
    assert!(single.checksum_crc64_nvme().is_some());
    assert_eq!(done.checksum_crc64_nvme(), single.checksum_crc64_nvme());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_can_be_copied_from_an_object() {
    let server = Server::start();
    let client = server.with_bucket().await;
    client
        .put_object()
        .bucket("bucket")
        .key("from")
        .body(ByteStream::from_static(b"0123456789"))
        .send()
        .await
        .unwrap();
    let id = create(&client).await;
    let copy = || {
        let copy = client.upload_part_copy().bucket("bucket").key("k").upload_id(&id).part_number(1);
        copy.copy_source("bucket/from")
    };
    let outside = copy().copy_source_range("bytes=5-10").send().await.unwrap_err();
    assert_eq!(refusal(outside), (400, "InvalidArgument".into()));
    let copied = copy().copy_source_range("bytes=2-5").send().await.unwrap().copy_part_result.unwrap();
    let parts = vec![CompletedPart::builder().part_number(1).set_e_tag(copied.e_tag).build()];
    let complete = client.complete_multipart_upload().bucket("bucket").key("k").upload_id(&id);
    complete.multipart_upload(whole(parts)).send().await.unwrap();
    let read = client.get_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(read.body.collect().await.unwrap().to_vec(), b"2345");
}
