//! Statements over our tables: as the caller, under the caller's policies, or as the owner, for one statement.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CStr;
use std::rc::Rc;

use pg_storage_core::error::Token;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, PreparedStatement, SpiTupleTable};

use crate::error::{Failure, Result};
use crate::preload;

thread_local! {
    /// Plans are kept for the session; PostgreSQL plans again when a table, a policy or the role changes.
    static PLANS: RefCell<HashMap<&'static str, Rc<OwnedPreparedStatement>>> = RefCell::new(HashMap::new());
}

/// Runs a query that changes nothing, as the caller, and reads its rows. Assigns no transaction id, so it works on a standby.
pub fn read<T>(
    query: &'static str,
    arguments: &[DatumWithOid<'_>],
    rows: impl FnOnce(SpiTupleTable<'_>) -> Result<T>,
) -> Result<T> {
    Spi::connect(|client| {
        let plan = kept(query, || client.prepare(query, &types(arguments)))?;
        rows(client.select(&*plan, None, arguments)?)
    })
}

/// Runs a statement that may write, as the caller, and reads its rows.
pub fn write<T>(
    query: &'static str,
    arguments: &[DatumWithOid<'_>],
    rows: impl FnOnce(SpiTupleTable<'_>) -> Result<T>,
) -> Result<T> {
    Spi::connect_mut(|client| {
        let plan = kept(query, || client.prepare_mut(query, &types(arguments)))?;
        rows(client.update(&*plan, None, arguments)?)
    })
}

/// Calls a function of `storage_private` as the owner and ignores what it returns.
pub fn run_as_owner(query: &'static str, arguments: &[DatumWithOid<'_>]) -> Result<()> {
    as_owner(|| write(query, arguments, |_| Ok(())))
}

fn types(arguments: &[DatumWithOid<'_>]) -> Vec<PgOid> {
    arguments.iter().map(|argument| PgOid::from(argument.oid())).collect()
}

/// The plan of a query, made on its first use. Held by count: a statement's trigger may run further statements.
fn kept<'conn>(
    query: &'static str,
    prepare: impl FnOnce() -> pgrx::spi::Result<PreparedStatement<'conn>>,
) -> Result<Rc<OwnedPreparedStatement>> {
    if let Some(plan) = PLANS.with_borrow(|plans| plans.get(query).cloned()) {
        return Ok(plan);
    }
    let plan = Rc::new(prepare()?.keep());
    PLANS.with_borrow_mut(|plans| plans.insert(query, plan.clone()));
    Ok(plan)
}

/// Runs `statement` with the rights of the owner of our tables, the way PostgreSQL's referential triggers do.
///
/// What runs inside is a call of a function of `storage_private` and nothing that a caller may have supplied. The
/// search_path is pinned for the statement around that call too: a type that the caller made under a built-in name, and
/// with it the function of a domain's CHECK, would else be found first and run as the owner.
///
/// Nothing of it is compiled: the planner takes calls of functions for dear, and what it gains in a few thousand of them
/// is less than what compiling takes.
pub fn as_owner<T>(statement: impl FnOnce() -> Result<T>) -> Result<T> {
    let owner = owner()?;
    let _restored = Identity::assume(owner);
    let _unpinned = Pinned::to(&[(c"search_path", c"pg_catalog, pg_temp"), UNCOMPILED]);
    statement()
}

/// Runs a query that is to read a few rows along the one index that has them in the order asked for.
///
/// The planner cannot know how few rows policies hide: it expects them to hide most, and to sort what is left of a whole
/// bucket then costs it less than the index. Nor does it know that so short a query is not worth compiling.
pub fn in_index_order<T>(query: impl FnOnce() -> T) -> T {
    let _unpinned = Pinned::to(&[(c"enable_sort", c"off"), UNCOMPILED]);
    query()
}

/// Runs a query that takes policies for dear, each of its rows being held against them, and is over before it would have
/// been compiled.
pub fn uncompiled<T>(query: impl FnOnce() -> T) -> T {
    let _unpinned = Pinned::to(&[UNCOMPILED]);
    query()
}

/// Runs a query that is planned for its very values, each time: for one whose best plan depends on how much there is.
pub fn planned_for_its_values<T>(query: impl FnOnce() -> T) -> T {
    let _unpinned = Pinned::to(&[(c"plan_cache_mode", c"force_custom_plan"), UNCOMPILED]);
    query()
}

const UNCOMPILED: (&CStr, &CStr) = (c"jit", c"off");

/// Settings to go back to; an ERROR leaves that to the end of the transaction, as it does for functions with SET.
struct Pinned {
    level: i32,
}

impl Pinned {
    fn to(settings: &[(&CStr, &CStr)]) -> Self {
        // SAFETY: what PostgreSQL does for a function with SET clauses: a new nest level, and values saved in it.
        unsafe {
            let level = pg_sys::NewGUCNestLevel();
            for (name, value) in settings {
                pg_sys::set_config_option(
                    name.as_ptr(),
                    value.as_ptr(),
                    pg_sys::GucContext::PGC_USERSET,
                    pg_sys::GucSource::PGC_S_SESSION,
                    pg_sys::GucAction::GUC_ACTION_SAVE,
                    true,
                    0,
                    false,
                );
            }
            Self { level }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ends the nest level that `to` began; those begun later have ended before.
            unsafe { pg_sys::AtEOXact_GUC(true, self.level) };
        }
    }
}

/// The identity to go back to; restored also when an ERROR unwinds.
struct Identity {
    user: pg_sys::Oid,
    context: i32,
}

impl Identity {
    fn assume(owner: pg_sys::Oid) -> Self {
        let mut before = Self { user: pg_sys::InvalidOid, context: 0 };
        // SAFETY: both calls only touch process-local variables; LOCAL_USERID_CHANGE forbids SET ROLE meanwhile, and
        // NOFORCE_RLS lets the owner past policies that are forced on its own tables.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&raw mut before.user, &raw mut before.context);
            let context =
                before.context | (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS) as i32;
            pg_sys::SetUserIdAndSecContext(owner, context);
        }
        before
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        // SAFETY: restores what GetUserIdAndSecContext gave.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}

/// A table of `storage`, by its name; none where it is missing.
fn table(name: &CStr) -> pg_sys::Oid {
    // SAFETY: catalog look-ups by name, with missing_ok.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"storage".as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    }
}

/// Refuses to go on where nothing can be written.
///
/// # Errors
/// `READ_ONLY`.
pub fn require_writable() -> Result<()> {
    if preload::read_only() {
        return Err(Failure::new(Token::ReadOnly, "the server or the transaction is read-only")
            .hint("A standby signs downloads and nothing else; ask the primary."));
    }
    Ok(())
}

/// Has this transaction hold the lock on `storage.upload_requests` that an INSERT takes, until it ends: it counts among
/// those that may bring uploads before it looks at a bucket, and whoever gives that bucket its first quota knows of it.
///
/// It gets an id too: without one, [`read`] would look with the snapshot of the caller's statement, which may have begun
/// long before the lock was there.
pub fn lock_upload_requests() {
    // SAFETY: waits for the lock like any statement does, and ends with an ERROR if it is told to, or if there are no ids.
    unsafe {
        pg_sys::LockRelationOid(table(c"upload_requests"), pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        pg_sys::GetCurrentTransactionId();
    };
}

/// The owner of `storage.objects`, who is the extension's.
fn owner() -> Result<pg_sys::Oid> {
    // SAFETY: a catalog look-up; the tuple is read while it is held and then released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(
            pg_sys::SysCacheIdentifier::RELOID as i32,
            pg_sys::Datum::from(table(c"objects")),
        );
        if tuple.is_null() {
            return Err(Failure::internal("the table storage.objects is missing"));
        }
        let class = pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(tuple);
        let owner = (*class).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Ok(owner)
    }
}

/// When this transaction began; several that one message brings may have the same time.
pub fn transaction_began() -> pg_sys::TimestampTz {
    // SAFETY: a plain read of a process-local variable on the main thread.
    unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }
}

/// Whether all statements of this transaction see what its first one saw: REPEATABLE READ and SERIALIZABLE.
pub fn keeps_one_snapshot() -> bool {
    // SAFETY: a plain read of a process-local variable on the main thread.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Runs `call` with a snapshot of now, also in a transaction that keeps an older one. It reaches functions that take the
/// snapshot in force, which those labelled STABLE do, and only when called directly: SPI takes the transaction's.
pub fn as_of_now<T>(call: impl FnOnce() -> T) -> T {
    let _popped = Latest::push();
    call()
}

/// The snapshot in force until dropped; an ERROR leaves that to the end of the (sub)transaction.
struct Latest;

impl Latest {
    fn push() -> Self {
        // SAFETY: what PostgreSQL's referential triggers look with; PushActiveSnapshot makes a copy of its own.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
        Self
    }
}

impl Drop for Latest {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ends what `push` began; whatever was pushed later has been popped.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}
