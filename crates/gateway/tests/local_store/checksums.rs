//! Nothing is published that is not what it was declared to be, and a refused write leaves the old object alone.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode};
use pg_storage_core::presign::Method;

use crate::durability::blobs;
use crate::harness::{Server, sha256};

const GOOD: &[u8] = b"the declared bytes";
const EVIL: &[u8] = b"some other bytes!!";

/// The headers of a content-bound upload, as `pg_storage` signs them.
fn bound(checksum: &str) -> Vec<(&'static str, String)> {
    vec![
        ("content-length", GOOD.len().to_string()),
        ("content-type", "text/plain".into()),
        ("if-none-match", "*".into()),
        ("x-amz-checksum-sha256", checksum.into()),
        ("x-amz-sdk-checksum-algorithm", "SHA256".into()),
    ]
}

fn borrowed<'a>(headers: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_upload_takes_exactly_the_declared_bytes() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let headers = bound(&sha256(GOOD));
    let headers = borrowed(&headers);
    let url = server.presign(Method::Put, "k", &headers);

    assert_eq!(server.send("PUT", &url, &headers, EVIL).verdict(), (400, "BadDigest".into()));
    assert_eq!(client.list_objects_v2().bucket("bucket").send().await.unwrap().key_count(), Some(0));
    assert_eq!(blobs(&server), 0);

    assert_eq!(server.send("PUT", &url, &headers, GOOD).status, 200);
    let head = client
        .head_object()
        .bucket("bucket")
        .key("k")
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(head.checksum_sha256(), Some(sha256(GOOD).as_str()));
    assert_eq!(head.content_type(), Some("text/plain"));

    // The URL is a bearer secret; create-only keeps its second use from doing anything.
    assert_eq!(server.send("PUT", &url, &headers, GOOD).verdict(), (412, "PreconditionFailed".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_overwrite_leaves_the_old_object_whole() {
    let server = Server::start();
    let client = server.with_bucket().await;
    client.put_object().bucket("bucket").key("k").body(ByteStream::from_static(b"old")).send().await.unwrap();
    let declared = sha256(GOOD);
    let length = GOOD.len().to_string();
    let md5 = "XUFAKrxLKna5cZ2REBfFkg==";
    for headers in [
        vec![("content-length", length.as_str()), ("x-amz-checksum-sha256", declared.as_str())],
        vec![("content-md5", md5)],
        vec![("x-amz-checksum-crc32", "AAAAAA==")],
        vec![("x-amz-checksum-crc32c", "AAAAAA==")],
        vec![("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")],
        vec![("x-amz-checksum-sha1", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")],
    ] {
        let url = server.presign(Method::Put, "k", &headers);
        let answer = server.send("PUT", &url, &headers, EVIL);
        assert_eq!(answer.verdict(), (400, "BadDigest".into()), "{headers:?}");
    }
    for headers in [
        vec![("x-amz-checksum-sha256", "AAAA")],
        vec![("x-amz-checksum-sha256", "not base64")],
        vec![("x-amz-checksum-sha256", declared.as_str()), ("x-amz-checksum-crc32", "AAAAAA==")],
        vec![("x-amz-checksum-sha256", declared.as_str()), ("x-amz-sdk-checksum-algorithm", "CRC32")],
        vec![("x-amz-sdk-checksum-algorithm", "SHA512")],
    ] {
        let url = server.presign(Method::Put, "k", &headers);
        let answer = server.send("PUT", &url, &headers, GOOD);
        assert_eq!(answer.verdict(), (400, "InvalidRequest".into()), "{headers:?}");
    }
    let url = server.presign(Method::Put, "k", &[("content-md5", "AAAA")]);
    let answer = server.send("PUT", &url, &[("content-md5", "AAAA")], GOOD);
    assert_eq!(answer.verdict(), (400, "InvalidDigest".into()));

    let old = client.get_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(old.body.collect().await.unwrap().to_vec(), b"old");
    assert_eq!(blobs(&server), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_of_the_sdk_is_verified_and_given_back() {
    let server = Server::start();
    let client = server.with_bucket().await;
    for algorithm in [
        ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32C,
        ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256,
    ] {
        // A stream of unknown content makes the SDK send the sum as a trailer of an aws-chunked body.
        let file = server.directory.path().join("body");
        std::fs::write(&file, vec![7u8; 300_000]).unwrap();
        let body = ByteStream::from_path(&file).await.unwrap();
        client
            .put_object()
            .bucket("bucket")
            .key("k")
            .checksum_algorithm(algorithm.clone())
            .body(body)
            .send()
            .await
            .unwrap();
        std::fs::remove_file(&file).unwrap();
        let head = client.head_object().bucket("bucket").key("k").checksum_mode(ChecksumMode::Enabled);
        let head = head.send().await.unwrap();
        assert_eq!(head.content_length(), Some(300_000));
        assert_eq!(head.content_encoding(), None);
        let present = [
            head.checksum_crc32().is_some(),
            head.checksum_crc32_c().is_some(),
            head.checksum_crc64_nvme().is_some(),
            head.checksum_sha1().is_some(),
            head.checksum_sha256().is_some(),
        ];
        assert_eq!(present.iter().filter(|present| **present).count(), 1, "{algorithm:?}");
        if algorithm == ChecksumAlgorithm::Sha256 {
            assert_eq!(head.checksum_sha256(), Some(sha256(&vec![7u8; 300_000]).as_str()));
        }
        // The SDK checks the sum of what it reads.
        let read = client.get_object().bucket("bucket").key("k").checksum_mode(ChecksumMode::Enabled);
        let read = read.send().await.unwrap().body.collect().await.unwrap();
        assert_eq!(read.to_vec().len(), 300_000);
    }
}

/// The SDK signs every chunk and the trailer when it speaks plain HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_chunk_or_trailer_cannot_be_changed_on_the_way() {
    let server = Server::start();
    server.with_bucket().await;
    let file = server.directory.path().join("body");
    std::fs::write(&file, b"hello").unwrap();
    let body = ByteStream::from_path(&file).await.unwrap();
    let sent = server
        .record(async |client| {
            // The recorder's empty answer is none of S3's.
            drop(client.put_object().bucket("bucket").key("k").body(body).send().await);
        })
        .await;
    let text = String::from_utf8(sent).unwrap();
    assert!(text.contains("x-amz-trailer: x-amz-checksum-") && text.contains("chunk-signature="), "{text}");
    let replay = |text: &str| server.send_bytes(text.as_bytes()).verdict();
    assert_eq!(replay(&text), (200, String::new()));
    let (head, trailer) = text.split_at(text.rfind("\r\nx-amz-checksum-").unwrap());
    for spoilt in [
        text.replace("\r\nhello\r\n", "\r\njello\r\n"),
        format!("{head}{}", trailer.replacen("==", "A=", 1)),
        format!("{head}{}", trailer.replacen("checksum", "checksun", 1)),
    ] {
        assert_ne!(spoilt, text);
        assert_eq!(replay(&spoilt), (403, "SignatureDoesNotMatch".into()), "{spoilt}");
    }
    let kept = server.client().get_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(kept.body.collect().await.unwrap().to_vec(), b"hello");
}

/// Unsigned chunks with an unsigned trailer, as SDKs send them over TLS: the checksum is the only guard.
#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_trailer_is_verified() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let put = |body: &str, trailer: &str| {
        let chunks = format!("{:x}\r\n{body}\r\n0\r\n{trailer}\r\n\r\n", body.len());
        let length = body.len().to_string();
        let headers = [
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("x-amz-decoded-content-length", length.as_str()),
            ("x-amz-trailer", "x-amz-checksum-crc32"),
        ];
        server.send_signed("PUT", "/bucket/k", &headers, chunks.as_bytes()).verdict()
    };
    // CRC-32 of "hello".
    assert_eq!(put("hello", "x-amz-checksum-crc32:NhCmhg=="), (200, String::new()));
    assert_eq!(put("jello", "x-amz-checksum-crc32:NhCmhg=="), (400, "BadDigest".into()));
    assert_eq!(put("hello", "x-amz-checksum-crc32:nonsense"), (400, "InvalidRequest".into()));
    assert_eq!(put("hello", "x-amz-checksum-sha1:NhCmhg=="), (400, "MalformedTrailerError".into()));
    let head =
        client.head_object().bucket("bucket").key("k").checksum_mode(ChecksumMode::Enabled).send().await;
    assert_eq!(head.unwrap().checksum_crc32(), Some("NhCmhg=="));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_length_must_be_the_declared_one() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let length = GOOD.len().to_string();
    let signed = [("content-length", length.as_str())];
    let url = server.presign(Method::Put, "k", &signed);
    let shorter = server.send("PUT", &url, &[("content-length", "3")], b"abc");
    assert_eq!(shorter.verdict(), (403, "SignatureDoesNotMatch".into()));
    let longer = server.send("PUT", &url, &[("content-length", "20")], b"abcdefghijabcdefghij");
    assert_eq!(longer.verdict(), (403, "SignatureDoesNotMatch".into()));

    // A body that breaks off: no answer is owed, no object may appear.
    let free = server.presign(Method::Put, "k", &[]);
    let target = &free[free[7..].find('/').unwrap() + 7..];
    let head = format!(
        "PUT {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: 100\r\n\r\nonly this",
        server.address()
    );
    let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let _ = std::io::copy(&mut stream, &mut std::io::sink());

    // Without a length nothing is taken.
    let chunked = format!(
        "PUT {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        server.address()
    );
    assert_eq!(server.send_bytes(chunked.as_bytes()).verdict(), (411, "MissingContentLength".into()));
    assert_eq!(client.list_objects_v2().bucket("bucket").send().await.unwrap().key_count(), Some(0));
    assert_eq!(blobs(&server), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_payload_hash_is_verified() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let put = client
        .put_object()
        .bucket("bucket")
        .key("k")
        .body(ByteStream::from_static(b"hello"))
        .customize()
        .disable_payload_signing()
        .send()
        .await;
    put.unwrap();
    let hash = pg_storage_core::digest::Digest::of(b"hello").to_hex();
    let headers = [("x-amz-content-sha256", hash.as_str())];
    let url = server.presign(Method::Put, "k", &headers);
    assert_eq!(server.send("PUT", &url, &headers, b"jello").status, 400);
    let kept = client.get_object().bucket("bucket").key("k").send().await.unwrap();
    assert_eq!(kept.body.collect().await.unwrap().to_vec(), b"hello");
}
