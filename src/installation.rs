//! Which database this is: the one mark by which keys in a shared physical bucket are told apart.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::CStr;

use pg_storage_core::key::Maker;
use pgrx::prelude::*;

use crate::catalog;
use crate::error::{Failure, Result};

/// This database as a maker of keys. A standby and a promoted one are the same; a copy is not.
pub fn maker() -> Maker {
    // SAFETY: reads what start-up put into shared memory, and a process-local variable.
    unsafe { Maker::new(pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId.to_u32()) }
}

thread_local! {
    /// The table in which the secret was seen, and the secret.
    static SECRET: Cell<Option<(pg_sys::Oid, [u8; 32])>> = const { Cell::new(None) };
    /// The table in which an owner was seen.
    static OWNED: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// A table of `storage_private`, by its name; another one after the extension was made anew.
fn table(name: &CStr) -> pg_sys::Oid {
    // SAFETY: catalog look-ups by name, with missing_ok.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"storage_private".as_ptr(), true);
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    }
}

/// What this database knows and no caller does.
pub fn secret() -> Result<[u8; 32]> {
    let table = table(c"secrets");
    if let Some((seen, secret)) = SECRET.get()
        && seen == table
    {
        return Ok(secret);
    }
    let secret: Option<Vec<u8>> = catalog::as_owner(|| {
        catalog::read("SELECT storage_private.secret()", &[], |rows| Ok(rows.first().get_one()?))
    })?;
    let secret = secret.and_then(|secret| <[u8; 32]>::try_from(secret).ok());
    let secret = secret.ok_or_else(|| Failure::internal("storage_private.secrets has no row"))?;
    SECRET.set(Some((table, secret)));
    Ok(secret)
}

/// Records that this database owns the objects to come. Asked of the table once for a session: an owner stays, except one
/// that was recorded in what is rolled back.
pub fn record() -> Result<()> {
    let table = table(c"installation");
    if OWNED.get() == Some(table) {
        return Ok(());
    }
    catalog::run_as_owner("SELECT storage_private.record_installation()", &[])?;
    if !REGISTERED.replace(true) {
        // SAFETY: static callbacks, registered once for the life of the process, on the main thread.
        unsafe {
            pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(at_savepoint_end), std::ptr::null_mut());
        }
    }
    OWNED.set(Some(table));
    Ok(())
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_PREPARE};
    // How a prepared transaction ends, another session decides.
    if matches!(event, XACT_EVENT_ABORT | XACT_EVENT_PREPARE) {
        OWNED.set(None);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_savepoint_end(
    event: pg_sys::SubXactEvent::Type,
    _id: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        OWNED.set(None);
    }
}
