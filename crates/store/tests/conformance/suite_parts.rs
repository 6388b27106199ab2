//! Uploads in parts: assembled, and copied.

use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_core::parts::{Parts, SMALLEST};
use pg_storage_core::presign::{Method, Presign, Timestamp};
use pg_storage_store::assemble::{arrived, assemble};
use pg_storage_store::copy::{Source, copy_in_parts};
use pg_storage_store::verify::{Expected, Finding};
use pg_storage_store::{Description, ErrorKind, S3Store, Store as _, Unfinished};

use crate::Fixture;
use crate::suite::{BUCKET, PLAIN, with_bucket};

const KEY: &str = "p/a b+c";

fn bytes(seed: u8) -> Vec<u8> {
    let len = 2 * SMALLEST as usize + 1000;
    (0..len).map(|at| (at % 251) as u8 ^ seed).collect()
}

fn parts(body: &[u8]) -> Parts {
    Parts::divide(body.len() as u64, Some(SMALLEST as i64)).unwrap()
}

fn expected(body: &[u8]) -> Expected {
    Expected {
        size: body.len() as u64,
        at_most: false,
        sha256: Some(Digest::of(body)),
        content_type: ContentType::parse("application/x-parts").unwrap(),
        check_bytes: true,
        mark: None,
        cache_control: None,
    }
}

fn slice(body: &[u8], number: i32) -> &[u8] {
    let (start, len) = parts(body).place(number).unwrap();
    &body[start as usize..(start + len) as usize]
}

/// PUTs a part as a client does, with nothing but a signed URL; the status, 0 where the store hung up: one that refuses may
/// do so before it has read everything.
async fn send(fixture: &Fixture, upload: Unfinished<'_>, number: i32, body: &[u8]) -> u16 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (number, length) = (number.to_string(), body.len().to_string());
    let url = fixture.signer().url(
        &Presign {
            method: Method::Put,
            bucket: upload.bucket,
            key: upload.key,
            expires: 300,
            headers: &[("content-length", &length)],
            query: &[("partNumber", &number), ("uploadId", upload.upload_id)],
        },
        Timestamp::from_unix(now as i64),
    );
    let mut request = aws_sdk_s3::config::http::HttpRequest::new(body.to_vec().into());
    request.set_method("PUT").unwrap();
    request.set_uri(url).unwrap();
    request.headers_mut().insert("content-length", length);
    let connector = aws_smithy_http_client::Connector::builder().build_http();
    use aws_smithy_runtime_api::client::http::HttpConnector as _;
    connector.call(request).await.map_or(0, |answer| answer.status().as_u16())
}

async fn begin(store: &S3Store) -> String {
    store
        .create_multipart_upload(BUCKET, KEY, Description::typed("application/x-parts"), false)
        .await
        .unwrap()
}

pub async fn parts_become_one_object(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let body = bytes(1);
    let upload_id = begin(&store).await;
    let upload = Unfinished { bucket: BUCKET, key: KEY, upload_id: &upload_id };
    // In any order, and one of them twice: the last one counts.
    for (number, bytes) in
        [(3, slice(&body, 3)), (2, slice(&bytes(9), 2)), (1, slice(&body, 1)), (2, slice(&body, 2))]
    {
        assert_eq!(send(fixture, upload, number, bytes).await, 200);
    }
    assert!(store.head(BUCKET, KEY).await.unwrap().is_none());
    let finding = assemble(&store, upload, parts(&body), &expected(&body)).await.unwrap();
    let Finding::Verified { size, sha256, content_type, .. } = &finding else { panic!("{finding:?}") };
    assert_eq!((*size, *sha256), (body.len() as u64, Digest::of(&body)));
    assert_eq!(content_type, "application/x-parts");
    // What is there is read again, though the upload is over.
    let again = assemble(&store, upload, parts(&body), &expected(&body)).await.unwrap();
    assert_eq!(again, finding);
    let other = Expected { sha256: Some(Digest::of(b"other")), ..expected(&body) };
    let finding = assemble(&store, upload, parts(&body), &other).await.unwrap();
    assert_eq!(finding, Finding::HashMismatch { declared: Digest::of(b"other"), found: Digest::of(&body) });
    // No URL can change it any more.
    assert_ne!(send(fixture, upload, 1, slice(&bytes(9), 1)).await, 200);
}

pub async fn a_part_that_is_missing_can_still_be_sent(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let body = bytes(2);
    let upload_id = begin(&store).await;
    let upload = Unfinished { bucket: BUCKET, key: KEY, upload_id: &upload_id };
    let outcome = async || assemble(&store, upload, parts(&body), &expected(&body)).await.unwrap();
    assert_eq!(outcome().await, Finding::Absent);
    send(fixture, upload, 1, slice(&body, 1)).await;
    send(fixture, upload, 3, slice(&body, 3)).await;
    assert_eq!(outcome().await, Finding::Absent);
    send(fixture, upload, 2, b"too short").await;
    assert_eq!(outcome().await, Finding::Absent);
    assert!(store.head(BUCKET, KEY).await.unwrap().is_none(), "nothing is completed by halves");
    let listed = arrived(&store, upload).await.unwrap();
    assert_eq!(
        listed.iter().map(|part| (part.number, part.size)).collect::<Vec<_>>(),
        [(1, SMALLEST), (2, 9), (3, 1000)]
    );
    send(fixture, upload, 2, slice(&body, 2)).await;
    // One that belongs to no file is left out.
    send(fixture, upload, 4, b"more").await;
    assert!(matches!(outcome().await, Finding::Verified { .. }));
}

pub async fn an_upload_that_is_over_is_absent(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let body = bytes(3);
    let upload_id = begin(&store).await;
    let upload = Unfinished { bucket: BUCKET, key: KEY, upload_id: &upload_id };
    send(fixture, upload, 1, slice(&body, 1)).await;
    store.abort_multipart_upload(BUCKET, KEY, &upload_id).await.unwrap();
    let finding = assemble(&store, upload, parts(&body), &expected(&body)).await.unwrap();
    assert_eq!(finding, Finding::Absent);
    assert_eq!(arrived(&store, upload).await.unwrap_err().kind, ErrorKind::NotFound);
    let elsewhere = Unfinished { bucket: "no-such-bucket-here", ..upload };
    let error = assemble(&store, elsewhere, parts(&body), &expected(&body)).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSuchBucket);
}

pub async fn a_copy_in_parts_is_whole_and_pinned(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let body = bytes(4);
    let etag = store.put(BUCKET, "source", body.clone(), PLAIN).await.unwrap();
    let source = Source { bucket: BUCKET, key: "source", size: body.len() as u64, etag: etag.as_deref() };
    copy_in_parts(&store, source, BUCKET, KEY, Description::typed("application/x-copied"), parts(&body))
        .await
        .unwrap();
    let head = store.head(BUCKET, KEY).await.unwrap().unwrap();
    assert_eq!((head.size, head.content_type.as_deref()), (body.len() as u64, Some("application/x-copied")));
    assert!(store.holds_all(BUCKET, KEY, &body).await);

    let pinned = Source { etag: Some("\"00000000000000000000000000000000\""), ..source };
    let error = copy_in_parts(&store, pinned, BUCKET, "other", Description::typed("a/b"), parts(&body))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Precondition, "{error}");
    assert!(store.head(BUCKET, "other").await.unwrap().is_none());
    let left = store.list_multipart_uploads(BUCKET, "", None).await.unwrap();
    assert!(left.uploads.is_empty(), "what failed is aborted");
}

/// Whether an object is exactly these bytes.
trait HoldsAll {
    async fn holds_all(&self, bucket: &str, key: &str, body: &[u8]) -> bool;
}

impl HoldsAll for S3Store {
    async fn holds_all(&self, bucket: &str, key: &str, body: &[u8]) -> bool {
        self.get_range(bucket, key, 0, body.len() as u64 + 1).await.unwrap() == body
    }
}
