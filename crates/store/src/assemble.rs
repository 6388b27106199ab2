//! From the parts of a multipart upload to one object with the promised bytes.
//!
//! The key of such an upload is in no URL of its own: what a URL permits is a part of this one upload, which ends when it
//! is completed. So the object is where it stays, nobody can write it again, and it is read where it is. A checksum that
//! the store has of it is one of the parts' checksums and not the file's: the file's is found by reading.

use pg_storage_core::parts::Parts;

use crate::error::{ErrorKind, StoreError};
use crate::store::{Part, Store, Unfinished};
use crate::verify::{Expected, Finding, absent, read, wrong_size};

/// How often an upload is completed whose parts are replaced between looking at them and completing it.
const TRIES: usize = 5;

/// Completes an upload whose parts are all there, and reads the object. What was completed before is read alone.
///
/// [`Finding::Absent`] while a part is missing or has another size than agreed: it can still be sent. Memory does not grow
/// with the object.
///
/// # Errors
/// `NoSuchBucket` if the bucket is gone, and whatever the calls fail with.
pub async fn assemble(
    store: &impl Store,
    upload: Unfinished<'_>,
    parts: Parts,
    expected: &Expected,
) -> Result<Finding, StoreError> {
    let (mut over, mut replaced) = (false, None);
    for _ in 0..TRIES {
        if let Some(head) = store.head(upload.bucket, upload.key).await? {
            return match wrong_size(expected, head.size) {
                Some(finding) => Ok(finding),
                None => read(store, upload.bucket, upload.key, expected).await,
            };
        }
        if over {
            return absent(store, upload.bucket).await;
        }
        match complete(store, upload, parts).await {
            Ok(true) => return read(store, upload.bucket, upload.key, expected).await,
            Ok(false) => return Ok(Finding::Absent),
            // It was aborted, or somebody else has just completed it.
            Err(error) if error.kind == ErrorKind::NotFound => over = true,
            Err(error) if error.code.as_deref() == Some("InvalidPart") => replaced = Some(error),
            Err(error) => return Err(error),
        }
    }
    replaced.map_or(Ok(Finding::Absent), Err)
}

/// Completes the upload if all its parts are there.
async fn complete(store: &impl Store, upload: Unfinished<'_>, parts: Parts) -> Result<bool, StoreError> {
    let mut found = arrived(store, upload).await?;
    found.retain(|part| parts.place(part.number).is_ok_and(|(_, size)| size == part.size));
    if Ok(parts.count()) != i32::try_from(found.len()) {
        return Ok(false);
    }
    store.complete_multipart_upload(upload, &found).await.map(|()| true)
}

/// All parts that have arrived.
///
/// # Errors
/// `NotFound` if the upload is over, and whatever the calls fail with.
pub async fn arrived(store: &impl Store, upload: Unfinished<'_>) -> Result<Vec<Part>, StoreError> {
    let (mut parts, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_parts(upload, after).await?;
        parts.extend(page.parts);
        after = page.next;
        if after.is_none() {
            return Ok(parts);
        }
    }
}
