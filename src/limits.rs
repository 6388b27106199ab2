//! What a request is refused for though nothing is wrong with it: a path that is taken, a bucket that is full, a user who
//! asks for too much. What is not limited costs nothing.
//!
//! Kept after the row was inserted: whoever may not insert it is told that, and nothing of what others have.

use std::cell::RefCell;
use std::collections::BTreeSet;

use pg_storage_core::error::Token;
use pgrx::fn_call::{Arg, fn_call};
use pgrx::{Uuid, pg_sys};

use crate::error::{Failure, Result};
use crate::{catalog, guc, rate};

thread_local! {
    /// Requests that were admitted and not yet inserted. Rows of a restore are not among them: those were limited once.
    static ADMITTED: RefCell<Admitted> = const { RefCell::new(Admitted { began: 0, requests: BTreeSet::new() }) };
}

struct Admitted {
    /// When their transaction began.
    began: pg_sys::TimestampTz,
    requests: BTreeSet<uuid::Uuid>,
}

/// Has the limits of a request kept once it is inserted.
pub fn note(request: uuid::Uuid) {
    let began = catalog::transaction_began();
    ADMITTED.with_borrow_mut(|admitted| {
        if admitted.began != began {
            *admitted = Admitted { began, requests: BTreeSet::new() };
        }
        admitted.requests.insert(request);
    });
}

/// Whether a request was admitted here and not yet asked about.
fn admitted(request: uuid::Uuid) -> bool {
    ADMITTED.with_borrow_mut(|admitted| admitted.requests.remove(&request))
}

/// An inserted request, as far as limits concern it.
pub struct Request<'a> {
    /// Its identity.
    pub id: uuid::Uuid,
    /// Its bucket.
    pub bucket: Uuid,
    /// The tenant.
    pub tenant: &'a str,
    /// Whose upload it is.
    pub user: &'a str,
    /// Bytes.
    pub size: i64,
    /// Path in the bucket.
    pub path: Option<&'a str>,
}

/// Refuses an upload that goes beyond a limit, else reserves its room and spends its turn.
///
/// The rate comes last: whom another limit refuses loses no turn.
///
/// # Errors
/// `PATH_TAKEN`, `TOO_MANY_PENDING_UPLOADS`, `QUOTA_EXCEEDED`, `RATE_LIMIT`.
pub fn keep(request: &Request<'_>) -> Result<()> {
    if !admitted(request.id) {
        return Ok(());
    }
    if request.path.is_some() {
        catalog::run_as_owner(
            "SELECT storage_private.check_path($1, $2, $3)",
            &[request.bucket.into(), request.path.into(), request.user.into()],
        )?;
    }
    if guc::MAX_PENDING_UPLOADS.get() > 0 {
        check_pending(request.tenant, request.user, i64::from(guc::MAX_PENDING_UPLOADS.get()))?;
    }
    // Asked now: the row holds its bucket by now, so whoever gives it a first quota waits for this transaction or was seen.
    if has_quota_now(request.bucket)? {
        catalog::run_as_owner(
            "SELECT storage_private.check_room($1, $2)",
            &[request.bucket.into(), request.size.into()],
        )?;
    }
    rate::spend(request.tenant, request.user)
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
