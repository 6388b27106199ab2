//! The requests as they leave: what stores insist on, and what older ones would stumble over.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};
use pg_storage_core::digest::Digest;
use pg_storage_core::origin::Origin;
use pg_storage_core::policy::{self, Access};
use pg_storage_store::{Description, ErrorKind, PublicAccessBlock, PutOptions, S3Store, Store as _};
use serde_json::json;

use crate::canned::{Reply, Request, Server, config};

#[tokio::test]
async fn calls_that_delete_or_configure_carry_the_digest_that_stores_demand() {
    let server = Server::start(|request| match request.query.as_str() {
        "delete=" | "delete" | "delete&x-id=DeleteObjects" => {
            Reply::new(200).body("<DeleteResult><Deleted><Key>k</Key></Deleted></DeleteResult>")
        }
        _ => Reply::new(200),
    })
    .await;
    let store = server.store();
    let origins = [Origin::parse("https://app.example.com").unwrap()];
    store.put_public_access_block("b", PublicAccessBlock::ALL).await.unwrap();
    store.put_policy("b", &json!({})).await.unwrap();
    store.put_cors("b", &policy::cors(Access::Private, &origins)).await.unwrap();
    store.enable_versioning("b").await.unwrap();
    store.put_lifecycle("b", "", &policy::lifecycle(Access::Temp)).await.unwrap();
    store.delete_batch("b", &["k".to_owned()]).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 6);
    for request in requests {
        let expected = STANDARD.encode(Md5::digest(&request.body));
        assert_eq!(request.header("content-md5"), Some(expected.as_str()), "{}", request.line());
        let signed = request.header("authorization").unwrap();
        assert!(signed.contains("content-md5"), "the digest is signed: {signed}");
    }
}

#[tokio::test]
async fn a_put_carries_no_checksum_but_the_one_asked_for() {
    let server = Server::start(|_| Reply::new(200).header("etag", "\"e\"")).await;
    let store = server.store();
    let plain =
        PutOptions { description: Description::typed("text/plain"), sha256: None, create_only: false };
    assert_eq!(store.put("b", "k", b"x".to_vec(), plain).await.unwrap().as_deref(), Some("\"e\""));
    let sum = Digest::of(b"x");
    let bound =
        PutOptions { description: Description::typed("text/plain"), sha256: Some(&sum), create_only: true };
    store.put("b", "k", b"x".to_vec(), bound).await.unwrap();

    let [plain, bound]: [Request; 2] = server.requests().try_into().unwrap();
    assert!(!plain.headers.keys().any(|name| name.contains("checksum") || name == "x-amz-trailer"));
    assert_eq!((plain.body.as_slice(), plain.header("content-length")), (&b"x"[..], Some("1")));
    assert_eq!(plain.header("if-none-match"), None);
    assert_eq!(bound.header("x-amz-checksum-sha256"), Some(sum.to_base64().as_str()));
    assert_eq!(bound.header("x-amz-sdk-checksum-algorithm"), Some("SHA256"));
    assert_eq!(bound.header("if-none-match"), Some("*"));
    assert_eq!(bound.body, b"x");
}

#[tokio::test]
async fn a_copy_names_its_source_segment_by_segment() {
    let body = "<CopyObjectResult><ETag>\"e\"</ETag></CopyObjectResult>";
    let server = Server::start(move |_| Reply::new(200).body(body)).await;
    let key = "a folder/ünï+cödé/100%.txt";
    let etag = server
        .store()
        .copy("src", key, "dst", "to", Some("\"old\""), Some(Description::typed("text/plain")))
        .await
        .unwrap();
    assert_eq!(etag.as_deref(), Some("\"e\""));
    let request = &server.requests()[0];
    assert_eq!(
        request.header("x-amz-copy-source"),
        Some("src/a%20folder/%C3%BCn%C3%AF%2Bc%C3%B6d%C3%A9/100%25.txt")
    );
    assert_eq!(request.header("x-amz-copy-source-if-match"), Some("\"old\""));
    assert_eq!(request.header("x-amz-metadata-directive"), Some("REPLACE"));
    assert_eq!(request.header("content-type"), Some("text/plain"));
}

#[tokio::test]
async fn head_asks_for_the_checksum_and_believes_only_whole_ones() {
    let sum = Digest::of(b"x").to_base64();
    for (sent, understood) in [(sum.clone(), Some(Digest::of(b"x"))), (format!("{sum}-3"), None)] {
        let server =
            Server::start(move |_| Reply::new(200).announce(7).header("x-amz-checksum-sha256", &sent)).await;
        let head = server.store().head("b", "k").await.unwrap().unwrap();
        assert_eq!((head.size, head.sha256), (7, understood));
        assert_eq!(server.requests()[0].header("x-amz-checksum-mode"), Some("ENABLED"));
    }
}

#[tokio::test]
async fn a_range_the_store_ignores_is_cut_off() {
    let server = Server::start(|_| Reply::new(200).body("0123456789")).await;
    assert_eq!(server.store().get_range("b", "k", 0, 4).await.unwrap(), b"0123");
    assert_eq!(server.requests()[0].header("range"), Some("bytes=0-3"));
    assert!(server.store().get_range("b", "k", 0, 0).await.unwrap().is_empty());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn no_key_counts_as_deleted_unless_the_store_says_so() {
    let server = Server::start(|_| {
        Reply::new(200).body(
            "<DeleteResult><Deleted><Key>done</Key></Deleted>\
             <Error><Key>gone</Key><Code>NoSuchKey</Code></Error>\
             <Error><Key>kept</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>",
        )
    })
    .await;
    let keys = ["kept", "done", "forgotten", "gone"].map(ToOwned::to_owned);
    let outcomes = server.store().delete_batch("b", &keys).await.unwrap();
    let kinds: Vec<_> = outcomes.iter().map(|o| o.as_ref().map_err(|e| e.kind).copied()).collect();
    assert_eq!(kinds, [Err(ErrorKind::Denied), Ok(()), Err(ErrorKind::Unexpected), Ok(())]);
    assert_eq!(outcomes[0].as_ref().unwrap_err().status, None);
}

#[tokio::test]
async fn without_a_batch_call_keys_are_deleted_one_by_one() {
    let server = Server::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("POST", _) => Reply::error(501, "NotImplemented"),
        ("DELETE", "/b/k7") => Reply::error(403, "AccessDenied"),
        ("DELETE", "/b/k9") => Reply::error(404, "NoSuchKey"),
        ("DELETE", _) => Reply::new(204),
        _ => Reply::new(500),
    })
    .await;
    let keys: Vec<String> = (0..40).map(|n| format!("k{n}")).collect();
    let outcomes = server.store().delete_batch("b", &keys).await.unwrap();
    assert_eq!(outcomes.len(), 40);
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), n == 7, "{n}: {outcome:?}");
    }

    let server = Server::start(|request| match request.method.as_str() {
        "POST" => Reply::error(501, "NotImplemented"),
        _ => Reply::error(404, "NoSuchBucket"),
    })
    .await;
    let error = server.store().delete_batch("b", &keys).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSuchBucket);
}

#[tokio::test]
async fn a_batch_has_limits() {
    let server = Server::start(|_| Reply::new(500)).await;
    assert!(server.store().delete_batch("b", &[]).await.unwrap().is_empty());
    let keys = vec!["k".to_owned(); 1001];
    assert_eq!(server.store().delete_batch("b", &keys).await.unwrap_err().kind, ErrorKind::Invalid);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn listed_keys_are_decoded_if_the_store_encoded_them() {
    for (marker, expected) in [("<EncodingType>url</EncodingType>", "a b+c%\u{1}"), ("", "a+b%2Bc%25%01")] {
        let server = Server::start(move |_| {
            Reply::new(200).body(format!(
                "<ListBucketResult><IsTruncated>true</IsTruncated>{marker}\
                 <NextContinuationToken>more</NextContinuationToken>\
                 <Contents><Key>a+b%2Bc%25%01</Key><Size>3</Size></Contents></ListBucketResult>"
            ))
        })
        .await;
        let page = server.store().list_page("b", "a", Some("a +")).await.unwrap();
        assert_eq!((page.objects[0].key.as_str(), page.objects[0].size), (expected, 3));
        assert_eq!(
            page.next.as_deref(),
            Some(expected),
            "a key goes on, not a token that may have ended by then"
        );
        let query = &server.requests()[0].query;
        assert!(query.contains("start-after=a%20%2B") && query.contains("encoding-type=url"), "{query}");
    }
}

#[tokio::test]
async fn a_bucket_is_asked_for_where_we_sign_and_else_anywhere() {
    let calls = Arc::new(AtomicUsize::new(0));
    let server = Server::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::error(400, "InvalidLocationConstraint"),
        _ => Reply::new(200),
    })
    .await;
    let mut elsewhere = config(&server.url);
    elsewhere.region = "nbg1".to_owned();
    S3Store::connect(elsewhere).unwrap().create_bucket("b").await.unwrap();
    server.store().create_bucket("b").await.unwrap();
    let bodies: Vec<String> =
        server.requests().iter().map(|r| String::from_utf8(r.body.clone()).unwrap()).collect();
    assert!(bodies[0].contains("<LocationConstraint>nbg1</LocationConstraint>"), "{}", bodies[0]);
    assert!(!bodies[1].contains("LocationConstraint"), "{}", bodies[1]);
    // us-east-1 must not be named.
    assert!(!bodies[2].contains("LocationConstraint"), "{}", bodies[2]);
}

#[tokio::test]
async fn what_the_second_try_without_a_location_says_is_what_counts() {
    for (status, code, kind) in [
        (409, "BucketAlreadyOwnedByYou", ErrorKind::AlreadyExists),
        (409, "BucketAlreadyExists", ErrorKind::NameTaken),
        (403, "AccessDenied", ErrorKind::Denied),
        // Both are about the location: the first answer names the one that was asked for.
        (400, "IllegalLocationConstraintException", ErrorKind::Invalid),
    ] {
        let calls = AtomicUsize::new(0);
        let server = Server::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::error(400, "InvalidLocationConstraint"),
            _ => Reply::error(status, code),
        })
        .await;
        let mut elsewhere = config(&server.url);
        elsewhere.region = "nbg1".to_owned();
        let error = S3Store::connect(elsewhere).unwrap().create_bucket("b").await.unwrap_err();
        let expected = if kind == ErrorKind::Invalid { "InvalidLocationConstraint" } else { code };
        assert_eq!((error.kind, error.code.as_deref()), (kind, Some(expected)));
    }
}

#[tokio::test]
async fn a_listing_cut_off_without_a_way_on_is_not_the_last_page() {
    for token in ["", "<NextContinuationToken/>", "<NextContinuationToken></NextContinuationToken>"] {
        let server = Server::start(move |_| {
            Reply::new(200)
                .body(format!("<ListBucketResult><IsTruncated>true</IsTruncated>{token}</ListBucketResult>"))
        })
        .await;
        let error = server.store().list_page("b", "", None).await.unwrap_err();
        assert_eq!((error.kind, error.operation), (ErrorKind::Unexpected, "ListObjectsV2"), "{token}");
    }
}

#[tokio::test]
async fn an_empty_page_that_is_cut_off_is_skipped() {
    let server = Server::start(|request| {
        Reply::new(200).body(if request.query.contains("continuation-token=more") {
            "<ListBucketResult><Contents><Key>k</Key><Size>3</Size></Contents></ListBucketResult>"
        } else {
            "<ListBucketResult><IsTruncated>true</IsTruncated>\
             <NextContinuationToken>more</NextContinuationToken></ListBucketResult>"
        })
    })
    .await;
    let page = server.store().list_page("b", "", None).await.unwrap();
    assert_eq!((page.objects.len(), page.next), (1, None));
}

#[tokio::test]
async fn a_listing_out_of_order_is_none() {
    // The second is what a store says that does not know where to start.
    for (after, keys) in [(None, ["b", "a"]), (Some("b"), ["a", "c"]), (Some("a"), ["a", "b"])] {
        let [first, second] = keys;
        let server = Server::start(move |_| {
            Reply::new(200).body(format!(
                "<ListBucketResult><Contents><Key>{first}</Key><Size>3</Size></Contents>\
                 <Contents><Key>{second}</Key><Size>3</Size></Contents></ListBucketResult>"
            ))
        })
        .await;
        let error = server.store().list_page("b", "", after).await.unwrap_err();
        assert_eq!((error.kind, error.operation), (ErrorKind::Unexpected, "ListObjectsV2"), "{keys:?}");
    }
}

#[tokio::test]
async fn a_listing_of_uploads_goes_on_or_says_that_it_cannot() {
    let marks = "<NextKeyMarker>a%2Bb</NextKeyMarker><NextUploadIdMarker>u</NextUploadIdMarker>";
    for (marks, after, expected) in [
        (marks, None, Some(("a+b", "u"))),
        // The same page again and again.
        (marks, Some(("a+b", "u")), None),
        ("<NextKeyMarker>a%2Bb</NextKeyMarker>", None, None),
    ] {
        let server = Server::start(move |_| {
            Reply::new(200).body(format!(
                "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>{marks}\
                 <Upload><Key>a%2Bb</Key><UploadId>u</UploadId></Upload></ListMultipartUploadsResult>"
            ))
        })
        .await;
        let page = server.store().list_multipart_uploads("b", "a", after).await;
        let kind = page.as_ref().err().map(|error| error.kind);
        assert_eq!(kind, expected.is_none().then_some(ErrorKind::Unexpected));
        let next = page.ok().and_then(|page| page.next);
        assert_eq!(next.as_ref().map(|(key, id)| (key.as_str(), id.as_str())), expected);
        let query = &server.requests()[0].query;
        assert_eq!(
            query.contains("key-marker=a%2Bb&") && query.contains("upload-id-marker=u"),
            after.is_some()
        );
    }
}

#[tokio::test]
async fn what_must_not_happen_twice_is_sent_once() {
    let server = Server::start(|_| Reply::error(503, "SlowDown")).await;
    let store = server.store();
    let plain =
        PutOptions { description: Description::typed("text/plain"), sha256: None, create_only: false };
    let attempts = [
        store.put("b", "k", vec![1], PutOptions { create_only: true, ..plain }).await.unwrap_err().attempts,
        store
            .copy("b", "from", "b", "to", None, Some(Description::typed("text/plain")))
            .await
            .unwrap_err()
            .attempts,
        // Of this one it does not matter how often it is stored.
        store.put("b", "k", vec![1], plain).await.unwrap_err().attempts,
    ];
    assert_eq!(attempts, [Some(1), Some(1), Some(3)]);
}

#[tokio::test]
async fn lifecycle_rules_say_one_thing_each_and_abort_is_not_expiry() {
    let server = Server::start(|_| Reply::new(200)).await;
    server.store().put_lifecycle("b", "p/", &policy::lifecycle(Access::Private)).await.unwrap();
    server.store().put_lifecycle("b", "p/", &policy::lifecycle(Access::Temp)).await.unwrap();
    let bodies: Vec<String> =
        server.requests().iter().map(|r| String::from_utf8(r.body.clone()).unwrap()).collect();
    let abort = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>8</DaysAfterInitiation>";
    assert!(bodies[0].contains(abort) && !bodies[0].contains("<Expiration>"), "{}", bodies[0]);
    assert!(bodies[0].contains("<Prefix>p/</Prefix>"), "{}", bodies[0]);
    assert!(bodies[1].contains(abort) && bodies[1].contains("<Expiration><Days>1</Days></Expiration>"));
    assert_eq!(bodies[1].matches("<Rule>").count(), 2);
}
