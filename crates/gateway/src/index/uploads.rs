//! Multipart uploads and their parts.

use redb::{ReadableTable, WriteTransaction};
use s3s::s3_error;

use super::objects::{self, Condition};
use super::records::{Object, Part, Upload};
use super::{BLOBS, PARTS, Released, Tables, UPLOADS, buckets, decode, encode, hold, release};
use crate::failure::Outcome;

/// An upload's key, id and record, as listings show it.
pub type Entry = (String, String, Upload);

/// Records a new upload.
pub fn create(
    transaction: &WriteTransaction,
    bucket: &str,
    key: &str,
    id: &str,
    upload: &Upload,
) -> Outcome<()> {
    buckets::get(transaction, bucket)?;
    let mut table = transaction.open_table(UPLOADS)?;
    table.insert((bucket, key.as_bytes(), id), encode(upload)?.as_slice())?;
    Ok(())
}

/// The upload, or `NoSuchBucket` or `NoSuchUpload`.
pub fn get(transaction: &impl Tables, bucket: &str, key: &str, id: &str) -> Outcome<Upload> {
    let table = transaction.table(UPLOADS)?;
    match table.get((bucket, key.as_bytes(), id))? {
        Some(record) => decode(record.value()),
        None => {
            buckets::get(transaction, bucket)?;
            Err(s3_error!(
                NoSuchUpload,
                "The specified upload does not exist. The upload ID may be invalid, or the upload may have been \
                 aborted or completed."
            )
            .into())
        }
    }
}

/// Records a part, replacing an earlier one of the same number.
pub fn put_part(
    transaction: &WriteTransaction,
    (bucket, key, id): (&str, &str, &str),
    number: u32,
    part: &Part,
) -> Outcome<Released> {
    get(transaction, bucket, key, id)?;
    let mut released = Released::default();
    let mut blobs = transaction.open_table(BLOBS)?;
    let mut table = transaction.open_table(PARTS)?;
    hold(&mut blobs, &part.segments)?;
    let replaced = table.insert((id, number), encode(part)?.as_slice())?;
    if let Some(replaced) = replaced {
        let replaced: Part = decode(replaced.value())?;
        release(&mut blobs, &replaced.segments, &mut released)?;
    }
    Ok(released)
}

/// The parts of an upload with numbers above `after`, at most `limit`, in order.
pub fn parts(transaction: &impl Tables, id: &str, after: u32, limit: usize) -> Outcome<Vec<(u32, Part)>> {
    let table = transaction.table(PARTS)?;
    let mut parts = Vec::new();
    for entry in table.range((id, after.saturating_add(1))..=(id, u32::MAX))?.take(limit) {
        let (place, record) = entry?;
        parts.push((place.value().1, decode(record.value())?));
    }
    Ok(parts)
}

/// Removes an upload and its parts.
pub fn abort(transaction: &WriteTransaction, bucket: &str, key: &str, id: &str) -> Outcome<Released> {
    get(transaction, bucket, key, id)?;
    let mut released = Released::default();
    let mut blobs = transaction.open_table(BLOBS)?;
    for (_, part) in parts(transaction, id, 0, usize::MAX)? {
        release(&mut blobs, &part.segments, &mut released)?;
    }
    transaction.open_table(PARTS)?.retain_in((id, 0)..=(id, u32::MAX), |_, _| false)?;
    transaction.open_table(UPLOADS)?.remove((bucket, key.as_bytes(), id))?;
    Ok(released)
}

/// Turns an upload into an object: its bytes are the parts' blobs, nothing is copied.
pub fn complete(
    transaction: &WriteTransaction,
    (bucket, key, id): (&str, &str, &str),
    object: &Object,
    condition: &Condition,
) -> Outcome<Released> {
    let mut released = objects::put(transaction, bucket, key, object, condition)?;
    released.0.extend(abort(transaction, bucket, key, id)?.0);
    Ok(released)
}

/// Key and id of every upload in a bucket.
pub fn all_in(transaction: &impl Tables, bucket: &str) -> Outcome<Vec<(String, String)>> {
    let uploads = page(transaction, bucket, "", None, usize::MAX)?;
    Ok(uploads.into_iter().map(|(key, id, _)| (key, id)).collect())
}

/// Uploads under a prefix after the given key and id, at most `limit`, ordered by key and id.
pub fn page(
    transaction: &impl Tables,
    bucket: &str,
    prefix: &str,
    after: Option<(&str, &str)>,
    limit: usize,
) -> Outcome<Vec<Entry>> {
    let table = transaction.table(UPLOADS)?;
    let start = match after {
        Some((key, id)) if key >= prefix => (bucket, key.as_bytes(), id),
        _ => (bucket, prefix.as_bytes(), ""),
    };
    let mut uploads = Vec::new();
    for entry in table.range(start..)? {
        if uploads.len() == limit {
            break;
        }
        let (place, record) = entry?;
        let (owner, key, id) = place.value();
        if owner != bucket || !key.starts_with(prefix.as_bytes()) {
            break;
        }
        if after.is_some_and(|(after_key, after_id)| (key, id) <= (after_key.as_bytes(), after_id)) {
            continue;
        }
        uploads.push((String::from_utf8_lossy(key).into_owned(), id.to_owned(), decode(record.value())?));
    }
    Ok(uploads)
}
