//! What a request is refused for though nothing is wrong with it: a path that is taken, a bucket that is full, a user who
//! asks for too much. What is not limited costs nothing.
//!
//! Kept after the row was inserted: whoever may not insert it is told that, and nothing of what others have.

use std::cell::RefCell;
use std::collections::BTreeMap;

use pg_storage_core::error::Token;
use pgrx::fn_call::{Arg, fn_call};
use pgrx::{PgTrigger, Uuid, pg_sys};

use crate::bucket::Bucket;
use crate::error::{Failure, Result};
use crate::{catalog, guc, identity, rate};

thread_local! {
    static PENDING: RefCell<Pending> = const { RefCell::new(Pending { began: 0, requests: BTreeMap::new() }) };
}

/// Requests that were admitted and not yet inserted. Rows of a restore are not among them: those were limited once.
struct Pending {
    /// When their transaction began. Those of an earlier one that are left over were never inserted.
    began: pg_sys::TimestampTz,
    requests: BTreeMap<uuid::Uuid, Request>,
}

/// An admitted request, as far as limits concern it.
struct Request {
    bucket: Uuid,
    tenant: String,
    size: i64,
    path: Option<String>,
    has_quota: bool,
}

/// Has the limits of a request kept once it is inserted, if there are any.
pub fn keep_later(request: uuid::Uuid, bucket: &Bucket, size: i64, path: Option<&str>) {
    // A transaction with one snapshot may have begun before the bucket had a quota; others already count on it.
    let has_quota = bucket.has_quota || catalog::keeps_one_snapshot();
    let limited = path.is_some() || guc::MAX_PENDING_UPLOADS.get() > 0 || guc::UPLOAD_RATE.get() > 0;
    if !limited && !has_quota {
        return;
    }
    let limits = Request {
        bucket: bucket.id_datum(),
        tenant: bucket.tenant.clone(),
        size,
        path: path.map(str::to_owned),
        has_quota,
    };
    let began = catalog::transaction_began();
    PENDING.with_borrow_mut(|pending| {
        if pending.began != began {
            *pending = Pending { began, requests: BTreeMap::new() };
        }
        pending.requests.insert(request, limits);
    });
}

/// Keeps the limits of the request that was just inserted: `PATH_TAKEN`, `TOO_MANY_PENDING_UPLOADS`, `QUOTA_EXCEEDED`,
/// `RATE_LIMIT`.
pub fn inserted(trigger: &PgTrigger<'_>) -> Result<()> {
    if PENDING.with_borrow(|pending| pending.requests.is_empty()) {
        return Ok(());
    }
    let id = trigger.new().and_then(|row| row.get_by_name::<Uuid>("id").ok().flatten());
    let id = id.ok_or_else(|| Failure::internal("an inserted upload request has no id"))?;
    let id = uuid::Uuid::from_bytes(*id.as_bytes());
    match PENDING.with_borrow_mut(|pending| pending.requests.remove(&id)) {
        Some(request) => keep(&request),
        None => Ok(()),
    }
}

/// Refuses an upload that goes beyond a limit, else reserves its room and spends its turn.
///
/// The rate comes last: whom another limit refuses loses no turn.
fn keep(request: &Request) -> Result<()> {
    if let Some(path) = &request.path {
        catalog::run_as_owner(
            "SELECT storage_private.check_path($1, $2, $3)",
            &[request.bucket.into(), path.as_str().into(), identity::user()?.into()],
        )?;
    }
    if guc::MAX_PENDING_UPLOADS.get() > 0 {
        check_pending(&request.tenant, &identity::user()?, i64::from(guc::MAX_PENDING_UPLOADS.get()))?;
    }
    if request.has_quota && (!catalog::keeps_one_snapshot() || has_quota_now(request.bucket)?) {
        catalog::run_as_owner(
            "SELECT storage_private.check_room($1, $2)",
            &[request.bucket.into(), request.size.into()],
        )?;
    }
    if guc::UPLOAD_RATE.get() > 0 {
        rate::spend(&request.tenant, &identity::user()?)?;
    }
    Ok(())
}

fn has_quota_now(bucket: Uuid) -> Result<bool> {
    now("storage_private.has_quota", || fn_call("storage_private.has_quota", &[&Arg::Value(bucket)]))
}

fn check_pending(tenant: &str, user: &str, limit: i64) -> Result<()> {
    catalog::run_as_owner("SELECT storage_private.lock_pending($1, $2)", &[tenant.into(), user.into()])?;
    let pending: i64 = now("storage_private.pending_uploads", || {
        fn_call("storage_private.pending_uploads", &[&Arg::Value(tenant), &Arg::Value(user)])
    })?;
    // The one that asks is among them.
    if pending <= limit {
        return Ok(());
    }
    Err(Failure::new(Token::TooManyPendingUploads, "too many of your uploads are pending")
        .detail(format!("{} are pending; pg_storage.max_pending_uploads allows {limit}.", pending - 1))
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
