//! Upload requests as they stand: seen as the caller, held as the owner, ended.

use std::collections::HashMap;

use pg_storage_core::error::Token;
use pg_storage_core::parts::Parts;
use pg_storage_core::policy::Access;
use pg_storage_core::upload::{Reason, Status};

use super::admission::Placed;
use crate::catalog;
use crate::clock::Moment;
use crate::error::{Failure, Result, shown_id};
use crate::operation::Operation;

/// An upload request as it is now.
pub struct Pending {
    pub(super) id: pgrx::Uuid,
    pub(super) content_type: String,
    pub(super) size: i64,
    pub(super) sha256: Option<String>,
    pub(super) place: Option<Placed>,
    pub(super) status: Status,
    pub(super) expires_at: Moment,
    pub(super) check_bytes: bool,
    pub(super) access: Access,
    /// The endpoint of the store that has the bucket, as far as that is on record.
    pub(super) kept_by: Option<String>,
    /// Whether the size is the most there may be.
    pub(super) at_most: bool,
    /// What the store calls the upload, and its parts, if it comes in parts.
    pub(super) parts: Option<(String, Parts)>,
}

/// The status of each of these uploads, all of which the caller can see and end.
///
/// # Errors
/// `UPLOAD_NOT_FOUND`, in the same words whether one is absent or hidden.
pub fn statuses(uploads: &[pgrx::Uuid]) -> Result<HashMap<[u8; 16], Status>> {
    let found: HashMap<[u8; 16], Status> = Operation::Upload.during(|| catalog::read(
        "SELECT u.id, u.status::pg_catalog.text FROM storage.upload_requests u WHERE u.id OPERATOR(pg_catalog.=) ANY ($1)",
        &[uploads.to_vec().into()],
        |rows| {
            rows.map(|row| {
                let missing = || Failure::internal("an upload request has no status");
                let id: pgrx::Uuid = row.get(1)?.ok_or_else(missing)?;
                Ok((*id.as_bytes(), parse_status(&row.get::<String>(2)?.ok_or_else(missing)?)?))
            })
            .collect()
        },
    ))?;
    let mut missing: Vec<String> = Vec::new();
    for upload in uploads.iter().filter(|upload| !found.contains_key(upload.as_bytes())) {
        let named = shown_id(*upload);
        if !missing.contains(&named) {
            missing.push(named);
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    Err(Failure::new(Token::UploadNotFound, "no such upload")
        .detail(format!("Asked for {}.", missing.join(", ")))
        .hint("storage.upload_requests lists your uploads."))
}

fn parse_status(status: &str) -> Result<Status> {
    Status::parse(status).ok_or_else(|| Failure::internal(format!("unknown upload status {status}")))
}

/// Upload requests as they are now, each once, held against every other transition until the transaction ends. They are
/// held and given in the order of their ids: whoever holds many never waits for one that waits for him.
pub fn lock(uploads: &[pgrx::Uuid]) -> Result<Vec<Pending>> {
    let mut ordered: Vec<[u8; 16]> = uploads.iter().map(|upload| *upload.as_bytes()).collect();
    ordered.sort_unstable();
    ordered.dedup();
    let ordered: Vec<pgrx::Uuid> = ordered.into_iter().map(pgrx::Uuid::from_bytes).collect();
    catalog::as_owner(|| {
        catalog::write(
            "SELECT l.content_type, l.size, l.sha256, l.physical_name, l.object_key, l.final_key, l.direct, l.create_only,
                    l.status::pg_catalog.text, l.expires_at, l.verify_content_type, asked.id, p.endpoint,
                    u.method, u.whole OPERATOR(pg_catalog.->>) 'multipart_id',
                    (u.whole OPERATOR(pg_catalog.->>) 'part_size')::pg_catalog.int8, u.access
             FROM pg_catalog.unnest($1) AS asked(id), LATERAL storage_private.lock_upload(asked.id) AS l,
                  LATERAL storage_private.provisioning_of(l.physical_name, '') AS p,
                  -- The columns of parts are not there before ALTER EXTENSION UPDATE.
                  LATERAL (SELECT r.method, pg_catalog.to_jsonb(r) AS whole, b.access::pg_catalog.text
                           FROM storage.upload_requests r JOIN storage.buckets b ON b.id OPERATOR(pg_catalog.=) r.bucket_id
                           WHERE r.id OPERATOR(pg_catalog.=) asked.id) AS u",
            &[ordered.into()],
            |rows| {
                rows.map(|row| {
                    let missing = || Failure::internal("a locked upload request has no columns");
                    let size: i64 = row.get(2)?.ok_or_else(missing)?;
                    let parts = match row.get::<String>(15)? {
                        Some(name) => Some((name, Parts::divide(size.unsigned_abs(), row.get(16)?)?)),
                        None => None,
                    };
                    Ok(Pending {
                        at_most: row.get::<String>(14)?.as_deref() == Some("POST"),
                        parts,
                        id: row.get(12)?.ok_or_else(missing)?,
                        content_type: row.get(1)?.ok_or_else(missing)?,
                        size,
                        sha256: row.get(3)?,
                        place: match (row.get(4)?, row.get(5)?, row.get(6)?) {
                            (Some(physical_name), Some(object_key), Some(final_key)) => Some(Placed {
                                physical_name,
                                object_key,
                                final_key,
                                direct: row.get(7)?.unwrap_or(false),
                                create_only: row.get(8)?.unwrap_or(false),
                            }),
                            _ => None,
                        },
                        status: parse_status(&row.get::<String>(9)?.ok_or_else(missing)?)?,
                        expires_at: Moment::of(row.get(10)?.ok_or_else(missing)?),
                        check_bytes: row.get(11)?.unwrap_or(true),
                        access: row.get::<String>(17)?.as_deref().and_then(Access::parse).ok_or_else(missing)?,
                        kept_by: row.get(13)?,
                    })
                })
                .collect()
            },
        )
    })
}

/// One upload request as it is now, held as [`lock`] holds them.
pub fn lock_one(upload: pgrx::Uuid) -> Result<Pending> {
    lock(&[upload])?.pop().ok_or_else(|| Failure::internal(format!("upload {upload} has vanished")))
}

/// Ends an upload without a file; `copy` is what this confirmation may have copied.
pub fn close(upload: pgrx::Uuid, reason: Reason, details: Option<String>, copy: Option<&str>) -> Result<()> {
    catalog::run_as_owner(
        "SELECT storage_private.close_upload($1, $2::storage.upload_status, $3, $4, $5)",
        &[
            upload.into(),
            reason.status().as_str().into(),
            reason.as_str().into(),
            details.into(),
            copy.into(),
        ],
    )
}
