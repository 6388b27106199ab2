//! Copies within a store: in one piece where that is possible, in parts above 5 GiB.

use pg_storage_core::parts::{LARGEST, Parts};

use crate::error::{ErrorKind, StoreError};
use crate::store::{Description, Part, Piece, Store, Unfinished};

/// Bytes of a copied part. The store works for as long as it copies one, within one call's time.
const PART: i64 = 1024 * 1024 * 1024;

/// What is to be copied.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The object.
    pub key: &'a str,
    /// Its length in bytes.
    pub size: u64,
    /// The entity tag that it must have; only for a store that was seen to honour it.
    pub etag: Option<&'a str>,
}

/// Copies an object of any size to `key`, with this description and no other metadata, or with its own where that is `None`.
///
/// # Errors
/// `Precondition` if the source has another entity tag, `NotFound` without source, `Invalid` above 5 GiB with the
/// source's own metadata, which a copy in parts does not have, and whatever the calls fail with.
pub async fn copy(
    store: &impl Store,
    source: Source<'_>,
    bucket: &str,
    key: &str,
    description: Option<Description<'_>>,
) -> Result<(), StoreError> {
    if source.size <= LARGEST {
        let Source { bucket: from, key: from_key, etag, .. } = source;
        return store.copy(from, from_key, bucket, key, etag, description).await.map(drop);
    }
    let invalid = |message: String| StoreError::local(ErrorKind::Invalid, "UploadPartCopy", message);
    let description = description.ok_or_else(|| {
        invalid("an object above 5 GiB cannot be copied together with its metadata".to_owned())
    })?;
    let parts = Parts::divide(source.size, Some(PART)).map_err(|error| invalid(error.to_string()))?;
    copy_in_parts(store, source, bucket, key, description, parts).await
}

/// Copies an object part by part.
///
/// # Errors
/// Those of [`copy`].
pub async fn copy_in_parts(
    store: &impl Store,
    source: Source<'_>,
    bucket: &str,
    key: &str,
    description: Description<'_>,
    parts: Parts,
) -> Result<(), StoreError> {
    let upload_id = store.create_multipart_upload(bucket, key, description, false).await?;
    let upload = Unfinished { bucket, key, upload_id: &upload_id };
    let outcome = copy_all(store, source, upload, parts).await;
    if outcome.is_err() {
        // What stays all the same, the sweep for unfinished uploads finds.
        let _ = store.abort_multipart_upload(bucket, key, &upload_id).await;
    }
    outcome
}

async fn copy_all(
    store: &impl Store,
    source: Source<'_>,
    upload: Unfinished<'_>,
    parts: Parts,
) -> Result<(), StoreError> {
    let mut copied = Vec::new();
    for number in 1..=parts.count() {
        let (from, len) = parts
            .place(number)
            .map_err(|error| StoreError::local(ErrorKind::Invalid, "UploadPartCopy", error.to_string()))?;
        let piece = Piece { bucket: source.bucket, key: source.key, etag: source.etag, from, len };
        let etag = store.copy_part(upload, number, piece).await?;
        copied.push(Part { number, size: len, etag, sha256: None });
    }
    store.complete_multipart_upload(upload, &copied).await
}
