//! Files found by their metadata.

use pg_storage_core::error::Token;

use crate::catalog;
use crate::error::{Failure, Result};
use crate::operation::Operation;

/// The most files of a page.
const MAX_PAGE: i32 = 1000;

/// The ids of the files of a bucket that are described so and that the caller may list, in order, after one.
///
/// Candidates are the owner's to find, by the index; which of them there are for the caller, policies say.
///
/// # Errors
/// `INVALID_METADATA`, `INVALID_LIMIT`.
pub fn described(
    bucket: pgrx::Uuid,
    description: &str,
    page_size: i32,
    after: pgrx::Uuid,
) -> Result<Vec<pgrx::Uuid>> {
    if !(1..=MAX_PAGE).contains(&page_size) {
        return Err(Failure::new(Token::InvalidLimit, format!("a page has 1 to {MAX_PAGE} files"))
            .detail(format!("Asked for {page_size}."))
            .hint("Ask for more with after, the id of the last file."));
    }
    if !description.starts_with('{') || description == "{}" {
        return Err(Failure::new(Token::InvalidMetadata, "files are searched by a JSON object")
            .detail(format!("It is {description}."))
            .hint("Such as {\"project\": \"x\"}; storage.list_files() gives all files."));
    }
    // In a small bucket its files are looked through, in a large one the index of all metadata is asked.
    let candidates: Vec<pgrx::Uuid> = catalog::planned_for_its_values(|| {
        catalog::as_owner(|| {
            catalog::read(
                "SELECT storage_private.described_files($1, $2::pg_catalog.jsonb, $3)",
                &[bucket.into(), description.into(), after.into()],
                |rows| Ok(rows.first().get_one()?.unwrap_or_default()),
            )
        })
    })?;
    Operation::List.during(|| {
        catalog::read(
            "SELECT f.id FROM storage.files f
             WHERE f.id OPERATOR(pg_catalog.=) ANY ($1) AND f.bucket_id OPERATOR(pg_catalog.=) $2 AND f.is_current
               AND (f.expires_at IS NULL OR f.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())
             ORDER BY f.id LIMIT $3",
            &[candidates.into(), bucket.into(), i64::from(page_size).into()],
            |rows| rows.map(|row| Ok(row.get::<pgrx::Uuid>(1)?)).filter_map(Result::transpose).collect(),
        )
    })
}
