//! Small files through SQL: their bytes are a value of the statement, and in memory on the way.

use pg_storage_core::digest::Digest;
use pg_storage_core::error::Token;
use pg_storage_store::{ErrorKind, Source, Store};
use pgrx::datum::Interval;

use super::{kept, readable};
use crate::error::{Failure, Result};
use crate::json::Jsonb;
use crate::upload::{self, Declared, Wanted};
use crate::{config, guc, session};

/// A file to be made.
pub struct New<'a> {
    /// Name of the file.
    pub filename: &'a str,
    /// MIME type.
    pub content_type: &'a str,
    /// Its bytes.
    pub content: &'a [u8],
    /// Path in the bucket.
    pub path: Option<&'a str>,
    /// A JSON object to be kept with it.
    pub metadata: Jsonb,
}

/// Makes a file of these bytes; its id.
///
/// # Errors
/// Those of a request for an upload; `FILE_TOO_LARGE`, `UPLOAD_TYPE_MISMATCH`, and those of the store.
pub fn put(bucket: pgrx::Uuid, new: New<'_>) -> Result<pgrx::Uuid> {
    let size =
        i64::try_from(new.content.len()).map_err(|_| Failure::internal("a value is larger than any"))?;
    check_size(size, "storage.request_upload_url() takes files of any size.")?;
    let digest = Digest::of(new.content);
    let sha256 = digest.to_hex();
    let declared = Declared {
        filename: new.filename,
        content_type: new.content_type,
        size,
        sha256: Some(&sha256),
        path: new.path,
        expires_in: Some(own_time()),
    };
    let own = upload::open_own(bucket, Wanted { declared, metadata: new.metadata })?;
    if !own.share_alike()? {
        let verified = own.bring(Source::Value(new.content.to_vec()))?;
        own.accept(verified)?;
    }
    Ok(own.file)
}

/// How long a request of the server's own is good for: it ends with its statement.
pub(super) fn own_time() -> Interval {
    Interval::from_seconds(3600.0)
}

/// The bytes of a file.
///
/// # Errors
/// `FILE_NOT_FOUND`, `FILE_TOO_LARGE`, `NOT_CONFIGURED`, and those of the store.
pub fn get(file: pgrx::Uuid) -> Result<Vec<u8>> {
    let readable = readable(file)?;
    check_size(readable.size, "storage.download_url() gives a URL for files of any size.")?;
    let kept = kept(file)?;
    let config = config::current()?;
    config.check_keeper(&kept.physical_name, kept.kept_by.as_deref())?;
    let size = readable.size.unsigned_abs();
    let bytes = session::call(&config, |store| async move {
        store.get_range(&kept.physical_name, &kept.key, 0, size).await.map_err(|mut error| {
            // The row says it is there.
            if error.kind == ErrorKind::NotFound {
                error.kind = ErrorKind::Unexpected;
            }
            error
        })
    })?;
    if Digest::of(&bytes).to_hex() != readable.sha256 {
        return Err(Failure::new(Token::StoreError, "the store has other bytes than it was seen to have")
            .detail(format!("File {file}: {} bytes of {}, or others.", bytes.len(), readable.size))
            .hint("storage.scan_orphans() compares a physical bucket with the tables."));
    }
    Ok(bytes)
}

fn check_size(size: i64, hint: &str) -> Result<()> {
    let limit = i64::from(guc::MAX_INLINE_SIZE.get());
    if size <= limit {
        return Ok(());
    }
    Err(Failure::new(Token::FileTooLarge, format!("SQL takes and gives at most {limit} bytes at once"))
        .detail(format!("The file has {size}; pg_storage.max_inline_size is the limit."))
        .hint(hint))
}
