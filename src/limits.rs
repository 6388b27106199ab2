//! What a request is refused for though nothing is wrong with it: a path that is taken, a bucket that is full, a user who
//! asks for too much. What is not limited costs nothing.

use pg_storage_core::error::Token;
use pgrx::fn_call::{Arg, fn_call};

use crate::bucket::Bucket;
use crate::error::{Failure, Result};
use crate::{catalog, guc, identity, rate};

/// Refuses an upload that goes beyond a limit, else reserves its room and spends its turn.
///
/// The rate comes last: whom another limit refuses loses no turn.
///
/// # Errors
/// `PATH_TAKEN`, `TOO_MANY_PENDING_UPLOADS`, `QUOTA_EXCEEDED`, `RATE_LIMIT`.
pub fn admit(bucket: &Bucket, size: i64, path: Option<&str>) -> Result<()> {
    if path.is_some() {
        catalog::run_as_owner(
            "SELECT storage_private.check_path($1, $2, $3)",
            &[bucket.id_datum().into(), path.into(), identity::user()?.into()],
        )?;
    }
    if guc::MAX_PENDING_UPLOADS.get() > 0 {
        check_pending(&bucket.tenant, &identity::user()?, i64::from(guc::MAX_PENDING_UPLOADS.get()))?;
    }
    // A transaction with one snapshot may have begun before the bucket had a quota; others already count on it.
    if bucket.has_quota || catalog::keeps_one_snapshot() && has_quota_now(bucket)? {
        catalog::run_as_owner(
            "SELECT storage_private.check_room($1, $2)",
            &[bucket.id_datum().into(), size.into()],
        )?;
    }
    if guc::UPLOAD_RATE.get() > 0 {
        rate::spend(&bucket.tenant, &identity::user()?)?;
    }
    Ok(())
}

fn has_quota_now(bucket: &Bucket) -> Result<bool> {
    now("storage_private.has_quota", || {
        fn_call("storage_private.has_quota", &[&Arg::Value(bucket.id_datum())])
    })
}

fn check_pending(tenant: &str, user: &str, limit: i64) -> Result<()> {
    catalog::run_as_owner("SELECT storage_private.lock_pending($1, $2)", &[tenant.into(), user.into()])?;
    let pending: i64 = now("storage_private.pending_uploads", || {
        fn_call("storage_private.pending_uploads", &[&Arg::Value(tenant), &Arg::Value(user)])
    })?;
    if pending < limit {
        return Ok(());
    }
    Err(Failure::new(Token::TooManyPendingUploads, "too many of your uploads are pending")
        .detail(format!("{pending} are pending; pg_storage.max_pending_uploads allows {limit}."))
        .hint("Confirm or abort them, or wait until they expire."))
}

/// What a STABLE function of the owner's finds when it sees all that is committed.
fn now<T>(
    function: &'static str,
    call: impl FnOnce() -> std::result::Result<Option<T>, pgrx::fn_call::FnCallError>,
) -> Result<T> {
    catalog::as_owner(|| {
        catalog::as_of_now(call)
            .map_err(|error| Failure::internal(format!("{function} cannot be called: {error}")))?
            .ok_or_else(|| Failure::internal(format!("{function} gave nothing")))
    })
}
