//! Reading bodies: whole but small, or streamed through SHA-256 in bounded memory.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use pg_storage_core::digest::Hasher;

use super::S3Store;
use super::call::call;
use super::convert::length;
use crate::error::{ErrorKind, StoreError};
use crate::store::{HEAD_BYTES, HashOutcome, ObjectHash};

const OPERATION: &str = "GetObject";

impl S3Store {
    /// The answer to a GET of at most `len` bytes from offset `from`; `None` if the object ends before.
    pub(super) async fn open_range(
        &self,
        bucket: &str,
        key: &str,
        from: u64,
        len: NonZeroU64,
    ) -> Result<Option<GetObjectOutput>, StoreError> {
        let range = format!("bytes={from}-{}", from.saturating_add(len.get() - 1));
        let request = self.client().await?.get_object().bucket(bucket).key(key).range(range);
        match call!("GetObject", request) {
            Ok(output) => Ok(Some(output)),
            Err(error) if error.status == Some(416) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether exactly `body` is stored under `key`. An object that is not there, or whose bytes break off, is not;
    /// a store that cannot answer now says nothing.
    pub(crate) async fn holds(&self, bucket: &str, key: &str, body: &[u8]) -> Result<bool, StoreError> {
        let one_more = NonZeroU64::MIN.saturating_add(body.len() as u64);
        let found = match self.open_range(bucket, key, 0, one_more).await {
            Ok(Some(output)) => collect(output.body, one_more.get(), self.request_timeout).await,
            Ok(None) => return Ok(body.is_empty()),
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match found {
            Ok(found) => Ok(found == body),
            Err(error) if error.kind == ErrorKind::Unavailable => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The rest of a body of which no more than `len` bytes are wanted. The whole of it may take `limit`.
pub(super) async fn collect(body: ByteStream, len: u64, limit: Duration) -> Result<Vec<u8>, StoreError> {
    let wanted = usize::try_from(len).unwrap_or(usize::MAX);
    let read = async {
        let mut body = body;
        let mut bytes = Vec::new();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|_| broken())?;
            let missing = wanted - bytes.len();
            bytes.extend_from_slice(piece.get(..missing).unwrap_or(&piece));
            // A store that ignores the range sends everything; that must not be read to its end.
            if bytes.len() == wanted {
                break;
            }
        }
        Ok(bytes)
    };
    tokio::time::timeout(limit, read).await.unwrap_or_else(|_| Err(stalled()))
}

/// Hashes a body up to `cap` bytes. Each pause between two pieces may take `limit`.
/// What the metadata of an object say of the upload that it came from.
pub(super) fn mark(metadata: Option<HashMap<String, String>>) -> Option<String> {
    metadata?.remove("upload")
}

pub(super) async fn hash(
    mut output: GetObjectOutput,
    cap: u64,
    limit: Duration,
) -> Result<HashOutcome, StoreError> {
    if let Some(size) = length(output.content_length()).filter(|&size| size > cap) {
        return Ok(HashOutcome::OverCap { size });
    }
    let mut hasher = Hasher::new();
    let mut head = Vec::new();
    let mut size: u64 = 0;
    loop {
        let next = tokio::time::timeout(limit, output.body.next()).await.map_err(|_| stalled())?;
        let Some(piece) = next else { break };
        let piece = piece.map_err(|_| broken())?;
        size += piece.len() as u64;
        if size > cap {
            return Ok(HashOutcome::OverCap { size });
        }
        let missing = HEAD_BYTES - head.len();
        head.extend_from_slice(piece.get(..missing).unwrap_or(&piece));
        hasher.update(&piece);
    }
    Ok(HashOutcome::Complete(ObjectHash {
        size,
        sha256: hasher.finish(),
        etag: output.e_tag,
        content_type: output.content_type,
        content_encoding: output.content_encoding,
        cache_control: output.cache_control,
        mark: mark(output.metadata),
        head,
    }))
}

fn broken() -> StoreError {
    StoreError::local(ErrorKind::Unavailable, OPERATION, "the connection broke off inside the object")
}

fn stalled() -> StoreError {
    StoreError::local(ErrorKind::Timeout, OPERATION, "the object stopped arriving")
}
