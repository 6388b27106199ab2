//! Objects: bytes and headers come back as they were sent, whatever the key.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use pg_storage_core::presign::Method;

use crate::harness::{Server, refusal};

/// Keys that trip stores which map keys to paths, or decode them twice.
pub const ODD_KEYS: [&str; 22] = [
    "a",
    "a/b",
    "a/b/",
    "a//b",
    "/leading",
    "../../etc/passwd",
    "..",
    ".",
    "./x",
    "x/../../y",
    "100%",
    "%2e%2e%2f",
    "a+b c",
    "q?x=1&y=2#z",
    "snow\u{2603}man/\u{1f600}",
    "quote'\"<&>",
    "semi;colon:at@",
    "back\\slash",
    "tilde~(paren)*!",
    "CON",
    "index.redb",
    "staging/0",
];

async fn read(client: &aws_sdk_s3::Client, key: &str) -> Vec<u8> {
    let answer = client.get_object().bucket("bucket").key(key).send().await.unwrap();
    answer.body.collect().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_metadata_come_back_as_they_were_sent() {
    let server = Server::start();
    let client = server.with_bucket().await;
    client
        .put_object()
        .bucket("bucket")
        .key("k")
        .content_type("Text/HTML; charset=\"utf-8\"")
        .cache_control("no-store")
        .content_disposition("attachment; filename=\"a.html\"")
        .content_encoding("gzip")
        .content_language("de")
        .metadata("colour", "blue")
        .body(ByteStream::from_static(b"hello"))
        .send()
        .await
        .unwrap();
    let head = client.head_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(head.content_type(), Some("Text/HTML; charset=\"utf-8\""));
    assert_eq!(head.cache_control(), Some("no-store"));
    assert_eq!(head.content_disposition(), Some("attachment; filename=\"a.html\""));
    assert_eq!(head.content_encoding(), Some("gzip"));
    assert_eq!(head.content_language(), Some("de"));
    assert_eq!(head.metadata().unwrap().get("colour").map(String::as_str), Some("blue"));
    assert_eq!(head.content_length(), Some(5));
    // MD5 of "hello".
    assert_eq!(head.e_tag(), Some("\"5d41402abc4b2a76b9719d911017c592\""));
    assert_eq!(read(&client, "k").await, b"hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_names_its_own_object_and_nothing_outside_the_root() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let long = "l".repeat(1024);
    let keys: Vec<&str> = ODD_KEYS.into_iter().chain([long.as_str()]).collect();
    for key in &keys {
        let url = server.presign(Method::Put, key, &[]);
        let put = server.send("PUT", &url, &[], key.as_bytes());
        assert_eq!(put.status, 200, "{key}: {:?}", put.code());
    }
    for key in &keys {
        assert_eq!(read(&client, key).await, key.as_bytes(), "{key}");
    }
    let mut sorted = keys.clone();
    sorted.sort_unstable();
    let listed = client.list_objects_v2().bucket("bucket").send().await.unwrap();
    let listed: Vec<&str> = listed.contents().iter().filter_map(|object| object.key()).collect();
    assert_eq!(listed, sorted);
    let mut beside: Vec<String> = std::fs::read_dir(server.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    beside.sort();
    assert_eq!(beside, ["access.log", "credentials", "store"]);

    let too_long = server.presign(Method::Put, &"l".repeat(1025), &[]);
    assert_eq!(server.send("PUT", &too_long, &[], b"x").verdict(), (400, "KeyTooLongError".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_exactly_that_range() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let bytes: Vec<u8> =
        (0..1_000_000u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
    client.put_object().bucket("bucket").key("k").body(bytes.clone().into()).send().await.unwrap();
    for (range, expected, shown) in [
        ("bytes=0-0", &bytes[..1], "bytes 0-0/1000000"),
        ("bytes=999999-", &bytes[999_999..], "bytes 999999-999999/1000000"),
        ("bytes=-10", &bytes[999_990..], "bytes 999990-999999/1000000"),
        ("bytes=262143-524289", &bytes[262_143..524_290], "bytes 262143-524289/1000000"),
        ("bytes=10-99999999", &bytes[10..], "bytes 10-999999/1000000"),
    ] {
        let answer = client.get_object().bucket("bucket").key("k").range(range).send().await.unwrap();
        assert_eq!(answer.content_range(), Some(shown));
        assert_eq!(answer.body.collect().await.unwrap().to_vec(), expected, "{range}");
    }
    let outside = client.get_object().bucket("bucket").key("k").range("bytes=1000000-").send().await;
    assert_eq!(refusal(outside.unwrap_err()), (416, "InvalidRange".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditional_reads_follow_the_entity_tag() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let put = client.put_object().bucket("bucket").key("k").body(ByteStream::from_static(b"x")).send().await;
    let tag = put.unwrap().e_tag.unwrap();
    let get = || client.get_object().bucket("bucket").key("k");
    get().if_match(&tag).send().await.unwrap();
    assert_eq!(refusal(get().if_match("\"other\"").send().await.unwrap_err()).0, 412);
    assert_eq!(refusal(get().if_none_match(&tag).send().await.unwrap_err()).0, 304);
    get().if_none_match("\"other\"").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_overwrite_and_a_delete_take_effect_and_leave_no_bytes() {
    let server = Server::start();
    let client = server.with_bucket().await;
    for body in ["one", "two", ""] {
        let body = body.to_owned();
        client
            .put_object()
            .bucket("bucket")
            .key("k")
            .body(body.clone().into_bytes().into())
            .send()
            .await
            .unwrap();
        assert_eq!(read(&client, "k").await, body.as_bytes());
    }
    client.put_object().bucket("bucket").key("l").body(ByteStream::from_static(b"x")).send().await.unwrap();
    assert_eq!(crate::durability::blobs(&server), 1);
    client.delete_object().bucket("bucket").key("k").send().await.unwrap();
    client.delete_object().bucket("bucket").key("l").send().await.unwrap();
    client.delete_object().bucket("bucket").key("l").send().await.unwrap();
    assert_eq!(crate::durability::blobs(&server), 0);
    let gone = client.get_object().bucket("bucket").key("k").send().await.unwrap_err();
    assert_eq!(refusal(gone), (404, "NoSuchKey".into()));
    let nowhere = client.get_object().bucket("nowhere").key("k").send().await.unwrap_err();
    assert_eq!(refusal(nowhere), (404, "NoSuchBucket".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_keys_go_in_one_request_and_each_is_answered_for() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let keys: Vec<String> = (0..1000).map(|number| format!("dir/{number:04} +%")).collect();
    for key in keys.iter().step_by(2) {
        client
            .put_object()
            .bucket("bucket")
            .key(key)
            .body(ByteStream::from_static(b"x"))
            .send()
            .await
            .unwrap();
    }
    let delete = |keys: &[String]| {
        let objects = keys.iter().map(|key| ObjectIdentifier::builder().key(key).build().unwrap());
        Delete::builder().set_objects(Some(objects.collect())).build().unwrap()
    };
    let answer = client.delete_objects().bucket("bucket").delete(delete(&keys)).send().await.unwrap();
    let deleted: Vec<&str> = answer.deleted().iter().filter_map(|object| object.key()).collect();
    assert_eq!(deleted, keys);
    assert!(answer.errors().is_empty());
    let left = client.list_objects_v2().bucket("bucket").send().await.unwrap();
    assert_eq!(left.key_count(), Some(0));

    let too_many: Vec<String> = (0..1001).map(|number| number.to_string()).collect();
    let refused = client.delete_objects().bucket("bucket").delete(delete(&too_many)).send().await;
    assert_eq!(refusal(refused.unwrap_err()), (400, "MalformedXML".into()));

    let versioned = ObjectIdentifier::builder().key("v").version_id("abc").build().unwrap();
    let mixed =
        Delete::builder().objects(versioned).objects(ObjectIdentifier::builder().key("w").build().unwrap());
    let answer =
        client.delete_objects().bucket("bucket").delete(mixed.build().unwrap()).send().await.unwrap();
    assert_eq!(answer.errors()[0].code(), Some("NoSuchVersion"));
    assert_eq!(answer.deleted()[0].key(), Some("w"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_cannot_do_is_refused_and_not_forgotten() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let put = || client.put_object().bucket("bucket").key("k").body(ByteStream::from_static(b"x"));
    let encrypted =
        put().server_side_encryption(aws_sdk_s3::types::ServerSideEncryption::Aes256).send().await;
    assert_eq!(refusal(encrypted.unwrap_err()), (501, "NotImplemented".into()));
    let tagged = put().tagging("a=b").send().await;
    assert_eq!(refusal(tagged.unwrap_err()), (501, "NotImplemented".into()));
    let public = put().acl(aws_sdk_s3::types::ObjectCannedAcl::PublicRead).send().await;
    assert_eq!(refusal(public.unwrap_err()), (400, "AccessControlListNotSupported".into()));
    put().acl(aws_sdk_s3::types::ObjectCannedAcl::Private).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_counts_requests_and_holds_no_query() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let url = server.presign(Method::Put, "a b", &[]);
    server.send("PUT", &url, &[], b"x");
    client.head_object().bucket("bucket").key("a b").send().await.unwrap();
    server.send("GET", "/bucket/a%20b?secret=1", &[], b"");
    let log = server.log();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(
        lines,
        [
            "PUT /bucket/ 200 CreateBucket",
            "PUT /bucket/a%20b 200 PutObject",
            "HEAD /bucket/a%20b 200 HeadObject",
            "GET /bucket/a%20b 403 GetObject",
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_disk_is_an_internal_error_that_tells_nothing() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let (staging, away) = (server.root().join("staging"), server.root().join("away"));
    std::fs::rename(&staging, &away).unwrap();
    let answer = server.send("PUT", &server.presign(Method::Put, "k", &[]), &[], b"x");
    assert_eq!(answer.verdict(), (500, "InternalError".into()));
    assert!(!String::from_utf8_lossy(&answer.body).contains("store"), "a path leaked");
    std::fs::rename(&away, &staging).unwrap();
    client.put_object().bucket("bucket").key("k").body(ByteStream::from_static(b"x")).send().await.unwrap();
    assert_eq!(read(&client, "k").await, b"x");
}
