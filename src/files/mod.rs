//! Files once they are there: found, read, copied, moved; small ones made at once, and others of what is in the store.
//!
//! A file is looked at as its caller and as for a download, since whoever copies bytes can read them. Where they are, the
//! owner says.

pub mod contents;
pub mod found;
pub mod listing;
pub mod places;
pub mod search;

use pg_storage_core::error::Token;
use pg_storage_core::policy::Access;

use crate::catalog;
use crate::error::{Failure, Result, shown_id};
use crate::operation::Operation;

/// A file whose bytes the caller may read.
struct Readable {
    bucket: pgrx::Uuid,
    filename: String,
    path: Option<String>,
    content_type: String,
    size: i64,
    sha256: String,
    /// As PostgreSQL spells it.
    metadata: String,
    /// Whether it is what its path is now.
    is_current: bool,
}

/// Where the bytes of a file are.
struct Kept {
    object: pgrx::Uuid,
    physical_name: String,
    key: String,
    /// Of the bucket the file is in.
    access: Access,
    /// Whether leading bytes were held against the type there.
    checked: bool,
    /// The endpoint of the store that has them, as far as that is on record.
    kept_by: Option<String>,
}

/// A file as the caller sees it.
///
/// # Errors
/// `FILE_NOT_FOUND`, in the same words whether it is absent, hidden or past its time.
fn readable(file: pgrx::Uuid) -> Result<Readable> {
    visible(file)?.ok_or_else(|| not_found(file).hint("storage.files lists those you can see."))
}

fn visible(file: pgrx::Uuid) -> Result<Option<Readable>> {
    Operation::Sign.during(|| {
        catalog::read(
            "SELECT f.bucket_id, f.filename, f.path, f.content_type, f.size, f.sha256, f.metadata::pg_catalog.text, f.is_current
             FROM storage.files f
             WHERE f.id OPERATOR(pg_catalog.=) $1
               AND (f.expires_at IS NULL OR f.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())",
            &[file.into()],
            |rows| {
                let row = rows.first();
                if row.is_empty() {
                    return Ok(None);
                }
                let missing = || Failure::internal("a file lacks a column");
                Ok(Some(Readable {
                    bucket: row.get(1)?.ok_or_else(missing)?,
                    filename: row.get(2)?.ok_or_else(missing)?,
                    path: row.get(3)?,
                    content_type: row.get(4)?.ok_or_else(missing)?,
                    size: row.get(5)?.ok_or_else(missing)?,
                    sha256: row.get(6)?.ok_or_else(missing)?,
                    metadata: row.get(7)?.ok_or_else(missing)?,
                    is_current: row.get(8)?.ok_or_else(missing)?,
                }))
            },
        )
    })
}

fn not_found(file: pgrx::Uuid) -> Failure {
    Failure::new(Token::FileNotFound, "no such file").detail(format!("Asked for {}.", shown_id(file)))
}

/// A question for where the bytes of a file are.
macro_rules! kept {
    ($function:literal) => {
        concat!(
            "SELECT k.object_id, k.physical_name, k.key, k.access::pg_catalog.text, k.verify_content_type, k.endpoint
             FROM storage_private.",
            $function,
            "($1) AS k"
        )
    };
}

/// Where the bytes of a file are.
fn kept(file: pgrx::Uuid) -> Result<Kept> {
    catalog::as_owner(|| catalog::read(kept!("kept_at"), &[file.into()], |rows| one(file, rows)))
}

/// The same, and the file stays until the transaction ends: whoever deletes it waits.
fn held(file: pgrx::Uuid) -> Result<Kept> {
    catalog::as_owner(|| catalog::write(kept!("hold_file"), &[file.into()], |rows| one(file, rows)))
}

fn one(file: pgrx::Uuid, rows: pgrx::spi::SpiTupleTable<'_>) -> Result<Kept> {
    let row = rows.first();
    if row.is_empty() {
        return Err(not_found(file).hint("It was deleted meanwhile."));
    }
    let missing = || Failure::internal(format!("the object of file {file} is missing"));
    Ok(Kept {
        object: row.get(1)?.ok_or_else(missing)?,
        physical_name: row.get(2)?.ok_or_else(missing)?,
        key: row.get(3)?.ok_or_else(missing)?,
        access: row.get::<String>(4)?.as_deref().and_then(Access::parse).ok_or_else(missing)?,
        checked: row.get(5)?.unwrap_or(false),
        kept_by: row.get(6)?,
    })
}
