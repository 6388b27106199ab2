//! Confirming: what arrived is asked of the store and settled. One upload is a list of one.

use pg_storage_core::digest::Digest;
use pg_storage_core::error::Token;
use pg_storage_core::upload::{Reason, Status};
use pg_storage_store::verify::Finding;

use super::bulk::check_count;
use super::examine::{Examined, Seen, examine, note_missing, recorded_capabilities};
use super::pending::{close, lock, lock_one, statuses};
use crate::clock::Moment;
use crate::error::{Failure, Result};
use crate::{catalog, guc};

/// Asks the store what arrived and settles the uploads. The verdicts are in their rows.
///
/// A store that cannot be asked about one of them fails the call, and nothing is settled: no verdict would be true.
pub fn confirm(uploads: &[pgrx::Uuid]) -> Result<()> {
    let statuses = statuses(uploads)?;
    let open = |upload: &pgrx::Uuid| !statuses.get(upload.as_bytes()).is_some_and(|status| status.is_final());
    let open: Vec<pgrx::Uuid> = uploads.iter().copied().filter(open).collect();
    if open.is_empty() {
        return Ok(());
    }
    let mut pending = lock(&open)?;
    pending.retain(|pending| !pending.status.is_final());
    let now = Moment::now();
    if guc::UNCONFIRMED_UPLOADS.get() == guc::Unconfirmed::Expire {
        let (over, in_time) = pending.into_iter().partition(|pending| now >= pending.expires_at);
        pending = in_time;
        let over: Vec<_> = over;
        for pending in over {
            close(pending.id, Reason::Expired, None, None)?;
        }
    }
    if pending.is_empty() {
        return Ok(());
    }
    // The original may confirm them as well.
    catalog::run_as_owner("SELECT storage_private.require_ownership()", &[])?;
    let examined = examine(&pending, recorded_capabilities()?)?;
    note_missing(&examined)?;
    let (mut waiting, mut right) = (Vec::new(), Vec::new());
    for (pending, examined) in pending.iter().zip(examined) {
        match judge(examined)? {
            Judgement::Absent if now >= pending.expires_at => close(pending.id, Reason::Expired, None, None)?,
            Judgement::Absent => waiting.push(pending.id),
            Judgement::Refused => {}
            Judgement::Right(bytes) => right.push(bytes),
        }
    }
    if !waiting.is_empty() {
        catalog::run_as_owner(
            "SELECT storage_private.note_waiting(w.id) FROM pg_catalog.unnest($1) AS w(id)",
            &[waiting.into()],
        )?;
    }
    accept(&right)
}

/// The same for a list that a caller brings.
///
/// # Errors
/// `BULK_UPLOAD_FILES_EXCEEDED`: each upload takes locks until the end of the transaction, and the server has so many.
pub fn confirm_many(uploads: &[pgrx::Uuid]) -> Result<()> {
    check_count(uploads.len())?;
    confirm(uploads)
}

/// Verified bytes of an upload.
pub struct Verified {
    /// The upload.
    pub upload: pgrx::Uuid,
    /// Where they are.
    pub key: Option<String>,
    /// Their number.
    pub size: i64,
    /// Their SHA-256.
    pub sha256: Digest,
    /// The store's entity tag.
    pub etag: Option<String>,
}

/// What becomes of an upload.
pub enum Judgement {
    /// Nothing arrived; the upload is as it was.
    Absent,
    /// What arrived is not what was promised; the upload has been ended.
    Refused,
    /// What arrived is right; the upload is to be accepted.
    Right(Verified),
}

/// Draws the conclusions from what was seen, short of accepting. Talks to the database only.
pub fn judge(examined: Examined) -> Result<Judgement> {
    let Examined { upload, seen, copy, object_key } = examined;
    let (reason, details) = match seen {
        Seen::BucketGone(_) | Seen::Found(Finding::Absent) => return Ok(Judgement::Absent),
        Seen::Found(Finding::Verified { size, sha256, etag, .. }) => {
            let size = i64::try_from(size).map_err(|_| Failure::internal("an object is larger than any"))?;
            return Ok(Judgement::Right(Verified { upload, key: copy.or(object_key), size, sha256, etag }));
        }
        Seen::Found(Finding::Empty) => (Reason::EmptyFile, None),
        Seen::Found(Finding::SizeMismatch { declared, found }) => {
            (Reason::SizeMismatch, Some(format!("declared {declared} bytes, found {found}")))
        }
        Seen::Found(Finding::HashMismatch { declared, found }) => {
            (Reason::HashMismatch, Some(format!("declared {}, found {}", declared.to_hex(), found.to_hex())))
        }
        Seen::Found(Finding::ContentTypeMismatch { declared, found }) => {
            (Reason::ContentTypeMismatch, Some(format!("declared {declared}, found {found}")))
        }
    };
    close(upload, reason, details, copy.as_deref())?;
    Ok(Judgement::Refused)
}

/// Makes the files, in one statement.
pub(super) fn accept(right: &[Verified]) -> Result<()> {
    if right.is_empty() {
        return Ok(());
    }
    let ids: Vec<pgrx::Uuid> = right.iter().map(|bytes| bytes.upload).collect();
    let hashes: Vec<Vec<u8>> = right.iter().map(|bytes| bytes.sha256.as_bytes().to_vec()).collect();
    // One upload's locks are taken in their order anyway.
    if right.len() > 1 {
        catalog::run_as_owner(
            "SELECT storage_private.lock_settlement($1, $2)",
            &[ids.clone().into(), hashes.clone().into()],
        )?;
    }
    let keys: Vec<Option<String>> = right.iter().map(|bytes| bytes.key.clone()).collect();
    let sizes: Vec<i64> = right.iter().map(|bytes| bytes.size).collect();
    let etags: Vec<Option<String>> = right.iter().map(|bytes| bytes.etag.clone()).collect();
    catalog::run_as_owner(
        "SELECT storage_private.accept_upload(r.id, r.key, r.sha256, r.size, r.etag)
         FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
                         pg_catalog.unnest($5)) AS r(id, key, sha256, size, etag)",
        &[ids.into(), keys.into(), hashes.into(), sizes.into(), etags.into()],
    )
}

/// Ends a pending upload. Aborting twice is no error.
pub fn abort(upload: pgrx::Uuid) -> Result<()> {
    statuses(&[upload])?;
    match lock_one(upload)?.status {
        pending if pending.can_move(Status::Aborted) => close(upload, Reason::Aborted, None, None),
        Status::Aborted => Ok(()),
        ended => Err(Failure::new(Token::UploadNotPending, "the upload has already ended")
            .detail(format!("Upload {upload} is {}.", ended.as_str()))
            .hint("Only a requested upload can be aborted; delete the file of an uploaded one.")),
    }
}
