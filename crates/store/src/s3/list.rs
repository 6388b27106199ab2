//! Listing objects and unfinished multipart uploads, page by page in the order of the keys' bytes.

use aws_sdk_s3::types::{EncodingType, MultipartUpload, Object};
use percent_encoding::percent_decode_str;

use super::S3Store;
use super::call::call;
use super::convert::{length, time};
use crate::error::{ErrorKind, StoreError};
use crate::store::{Listed, ListedUpload, Page, UploadPage};

const OBJECTS: &str = "ListObjectsV2";
const UPLOADS: &str = "ListMultipartUploads";

impl S3Store {
    pub(super) async fn list_objects(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Page, StoreError> {
        let client = self.client().await?;
        let mut token = None;
        loop {
            let request = client
                .list_objects_v2()
                .bucket(bucket)
                .prefix(prefix)
                .set_start_after(after.map(ToOwned::to_owned))
                .set_continuation_token(token)
                // Keys may hold characters that XML cannot.
                .encoding_type(EncodingType::Url);
            let output = call!("ListObjectsV2", request)?;
            let encoded = output.encoding_type() == Some(&EncodingType::Url);
            let objects = output.contents().iter().map(|object| listed(object, encoded));
            let objects = objects.collect::<Result<Vec<_>, _>>()?;
            in_order(after, objects.iter().map(|object| object.key.as_str()))?;
            if output.is_truncated != Some(true) {
                return Ok(Page { objects, next: None });
            }
            if let Some(last) = objects.last() {
                let next = Some(last.key.clone());
                return Ok(Page { objects, next });
            }
            // An empty page may be cut off all the same: a store that skips what was deleted goes on by its own token.
            token = output.next_continuation_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Err(unexpected(OBJECTS, "the listing is cut off and does not say how to go on"));
            }
        }
    }

    pub(super) async fn list_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(&str, &str)>,
    ) -> Result<UploadPage, StoreError> {
        let request = self
            .client()
            .await?
            .list_multipart_uploads()
            .bucket(bucket)
            .prefix(prefix)
            .set_key_marker(after.map(|(key, _)| key.to_owned()))
            .set_upload_id_marker(after.map(|(_, id)| id.to_owned()))
            .encoding_type(EncodingType::Url);
        let output = call!("ListMultipartUploads", request)?;
        let encoded = output.encoding_type() == Some(&EncodingType::Url);
        let uploads = output.uploads().iter().map(|upload| unfinished(upload, encoded));
        let uploads = uploads.collect::<Result<Vec<_>, _>>()?;
        if output.is_truncated != Some(true) {
            return Ok(UploadPage { uploads, next: None });
        }
        // The store's own marks: not every store has uploads in the order of their keys.
        let key = output.next_key_marker().map(|key| decoded(key, encoded, UPLOADS)).transpose()?;
        let next = key.zip(output.next_upload_id_marker);
        match &next {
            Some((key, id)) if after != Some((key, id)) => Ok(UploadPage { uploads, next }),
            _ => Err(unexpected(UPLOADS, "the listing is cut off and does not say how to go on")),
        }
    }
}

fn unexpected(operation: &'static str, what: &str) -> StoreError {
    StoreError::local(ErrorKind::Unexpected, operation, what)
}

/// Whoever compares a listing with something else must be able to rely on its order; and a store that does not know
/// `start-after` would give the first page for ever.
fn in_order<'keys>(
    after: Option<&'keys str>,
    keys: impl Iterator<Item = &'keys str>,
) -> Result<(), StoreError> {
    let mut before = after;
    for key in keys {
        if before.is_some_and(|before| key <= before) {
            return Err(unexpected(OBJECTS, "the listing is not in the order of the keys' bytes"));
        }
        before = Some(key);
    }
    Ok(())
}

fn listed(object: &Object, encoded: bool) -> Result<Listed, StoreError> {
    let key = object.key().ok_or_else(|| unexpected(OBJECTS, "an object without a key"))?;
    Ok(Listed {
        key: decoded(key, encoded, OBJECTS)?,
        size: length(object.size()).ok_or_else(|| unexpected(OBJECTS, "an object without a size"))?,
        etag: object.e_tag().map(ToOwned::to_owned),
        last_modified: time(object.last_modified()),
    })
}

fn unfinished(upload: &MultipartUpload, encoded: bool) -> Result<ListedUpload, StoreError> {
    let key = upload.key().ok_or_else(|| unexpected(UPLOADS, "an upload without a key"))?;
    let id = upload.upload_id().ok_or_else(|| unexpected(UPLOADS, "an upload without an id"))?;
    Ok(ListedUpload {
        key: decoded(key, encoded, UPLOADS)?,
        upload_id: id.to_owned(),
        initiated: time(upload.initiated()),
    })
}

fn decoded(key: &str, encoded: bool, operation: &'static str) -> Result<String, StoreError> {
    if !encoded {
        return Ok(key.to_owned());
    }
    // Some stores write a space as "+", as in forms; a plus sign is always "%2B".
    let spaced = key.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    Ok(decoded.map_err(|_| unexpected(operation, "a key that is not UTF-8"))?.into_owned())
}
