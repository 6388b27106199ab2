//! Listings: byte order, pages, prefixes, delimiters, odd keys.

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::EncodingType;
use pg_storage_core::presign::encode_key;

use crate::harness::{Server, refusal};

async fn put(client: &Client, keys: &[String]) {
    // Few at a time: this is about the listing.
    for batch in keys.chunks(32) {
        let puts = batch.iter().map(|key| {
            let put =
                client.put_object().bucket("bucket").key(key).body(ByteStream::from_static(b"x")).send();
            tokio::spawn(async move { put.await.map(drop).unwrap() })
        });
        for task in puts.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }
}

#[derive(Default)]
struct Listed {
    keys: Vec<String>,
    prefixes: Vec<String>,
    pages: usize,
}

async fn list(client: &Client, prefix: &str, delimiter: Option<&str>, page_size: i32) -> Listed {
    let mut listed = Listed::default();
    let mut token = None;
    loop {
        let page = client
            .list_objects_v2()
            .bucket("bucket")
            .prefix(prefix)
            .set_delimiter(delimiter.map(str::to_owned))
            .max_keys(page_size)
            .set_continuation_token(token)
            .send()
            .await
            .unwrap();
        let entries = page.contents().len() + page.common_prefixes().len();
        assert!(entries <= usize::try_from(page_size).unwrap());
        assert_eq!(page.key_count().map(|count| usize::try_from(count).unwrap()), Some(entries));
        listed.keys.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
        listed
            .prefixes
            .extend(page.common_prefixes().iter().map(|common| common.prefix().unwrap().to_owned()));
        listed.pages += 1;
        token = page.next_continuation_token;
        assert_eq!(page.is_truncated, Some(token.is_some()));
        if token.is_none() {
            return listed;
        }
    }
}

fn expected(keys: &[String], prefix: &str, delimiter: Option<&str>) -> (Vec<String>, Vec<String>) {
    let (mut whole, mut common) = (Vec::new(), Vec::new());
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        match delimiter
            .and_then(|delimiter| key[prefix.len()..].find(delimiter).map(|at| at + delimiter.len()))
        {
            Some(end) => common.push(key[..prefix.len() + end].to_owned()),
            None => whole.push(key.clone()),
        }
    }
    common.dedup();
    (whole, common)
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_five_hundred_odd_keys_list_in_byte_order_on_any_page_size() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let alphabet = ["a", "b/", "%", "+", " ", "\u{e9}", "\u{1f600}", "/", "~", "&<>"];
    let mut keys: Vec<String> = (0..2500u32)
        .map(|number| {
            let pick = |by: u32| alphabet[(number / by % 10) as usize];
            format!("{}{}{}{}{number}", pick(1000), pick(100), pick(10), pick(1))
        })
        .chain(["a".to_owned(), "a/b".to_owned(), "a/".to_owned()])
        .collect();
    put(&client, &keys).await;
    keys.sort_unstable();
    keys.dedup();
    for page_size in [1000, 333] {
        let listed = list(&client, "", None, page_size).await;
        assert_eq!(listed.keys, keys);
        assert_eq!(listed.pages, keys.len().div_ceil(usize::try_from(page_size).unwrap()));
    }
    for (prefix, delimiter) in [
        ("", Some("/")),
        ("a", None),
        ("a/", Some("/")),
        ("b/", Some("/")),
        ("%", Some("+")),
        ("", Some("b/")),
    ] {
        for page_size in [7, 1000] {
            let listed = list(&client, prefix, delimiter, page_size).await;
            let (whole, common) = expected(&keys, prefix, delimiter);
            assert_eq!(listed.keys, whole, "{prefix:?} {delimiter:?} {page_size}");
            assert_eq!(listed.prefixes, common, "{prefix:?} {delimiter:?} {page_size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn start_after_encoding_and_limits_are_as_documented() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let keys = ["a b", "a%2f", "a+c", "d\u{1}e", "z"].map(str::to_owned);
    put(&client, &keys).await;
    let list = || client.list_objects_v2().bucket("bucket");
    let names = |page: &aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output| {
        page.contents().iter().map(|object| object.key().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let encoded = list().encoding_type(EncodingType::Url).send().await.unwrap();
    assert_eq!(names(&encoded), keys.each_ref().map(|key| encode_key(key)));
    let after = list().start_after("a+c").encoding_type(EncodingType::Url).send().await.unwrap();
    assert_eq!(names(&after), ["d%01e", "z"]);
    let none = list().max_keys(0).send().await.unwrap();
    assert_eq!((none.key_count(), none.is_truncated()), (Some(0), Some(false)));
    let bad = list().continuation_token("garbage").send().await.unwrap_err();
    assert_eq!(refusal(bad), (400, "InvalidArgument".into()));
    let negative = list().max_keys(-1).send().await.unwrap_err();
    assert_eq!(refusal(negative), (400, "InvalidArgument".into()));
    let nowhere = client.list_objects_v2().bucket("nowhere").send().await.unwrap_err();
    assert_eq!(refusal(nowhere), (404, "NoSuchBucket".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_version_of_the_listing_works_too() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let keys = ["a/1", "a/2", "b", "c/1", "d"].map(str::to_owned);
    put(&client, &keys).await;
    let mut marker = None;
    let mut seen = Vec::new();
    loop {
        let page =
            client.list_objects().bucket("bucket").delimiter("/").max_keys(1).set_marker(marker).send().await;
        let page = page.unwrap();
        seen.extend(page.common_prefixes().iter().map(|common| common.prefix().unwrap().to_owned()));
        seen.extend(page.contents().iter().map(|object| object.key().unwrap().to_owned()));
        marker = page.next_marker;
        if marker.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["a/", "b", "c/", "d"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_ends_at_the_bucket() {
    let server = Server::start();
    let client = server.with_bucket().await;
    for (bucket, key) in [("bucket-2", "x"), ("aaa", "y")] {
        client.create_bucket().bucket(bucket).send().await.unwrap();
        client.put_object().bucket(bucket).key(key).body(ByteStream::from_static(b"x")).send().await.unwrap();
    }
    put(&client, &["only".to_owned()]).await;
    assert_eq!(list(&client, "", None, 1000).await.keys, ["only"]);
    assert_eq!(list(&client, "", Some("n"), 1).await.prefixes, ["on"]);
}
