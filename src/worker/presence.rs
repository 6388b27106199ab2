//! One worker per database: whoever holds a lock that no SQL command can take.
//!
//! Advisory locks are open to every role, so anybody could keep the worker out. Locks on objects are taken by commands
//! on those objects. This one is neither: a lock on an object that does not exist, under the lock method of advisory
//! locks, because that method alone keeps a session's locks over a failed transaction. It ends with the process.

#![allow(unsafe_code)]

use pgrx::pg_sys;

/// Stands for the object; any number that is not an extension's would do.
const WORKER: u32 = u32::from_be_bytes(*b"pgst");

const NOT_AVAILABLE: pg_sys::LockAcquireResult::Type = pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL;

fn tag(database: pg_sys::Oid) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: database.to_u32(),
        locktag_field2: pg_sys::ExtensionRelationId.to_u32(),
        locktag_field3: WORKER,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
    }
}

/// Makes this process the worker of a database until it ends; `false`: another one is.
pub fn claim(database: pg_sys::Oid) -> bool {
    // SAFETY: a session's lock needs no transaction; nothing is waited for.
    unsafe { pg_sys::LockAcquire(&tag(database), pg_sys::ExclusiveLock as i32, true, true) != NOT_AVAILABLE }
}

/// Whether a database has a worker now.
pub fn held(database: pg_sys::Oid) -> bool {
    // SAFETY: as above. Looking is taking a lock for a moment that conflicts with the worker's and not with another
    // look, and that a standby grants too.
    unsafe {
        let tag = tag(database);
        if pg_sys::LockAcquire(&tag, pg_sys::RowShareLock as i32, true, true) == NOT_AVAILABLE {
            return true;
        }
        pg_sys::LockRelease(&tag, pg_sys::RowShareLock as i32, true);
        false
    }
}
