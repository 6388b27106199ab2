//! Which database this is: the one mark by which keys in a shared physical bucket are told apart.

#![allow(unsafe_code)]

use pg_storage_core::key::Maker;
use pgrx::pg_sys;

/// This database as a maker of keys. A standby and a promoted one are the same; a copy is not.
pub fn maker() -> Maker {
    // SAFETY: reads what start-up put into shared memory, and a process-local variable.
    unsafe { Maker::new(pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId.to_u32()) }
}
