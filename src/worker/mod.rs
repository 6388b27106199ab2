//! Background workers: the launcher, a worker for each database, the local store's, and the one that records attempts.
//!
//! The launcher starts a worker for each database that `pg_storage.databases` names; `storage.start_worker()` starts one
//! without it. Which of several is the worker of a database is decided by [`crate::lock`]; a commit wakes it by [`wake`].

#![allow(unsafe_code)]

pub mod attempt;
mod launcher;
pub mod local_store;
mod maintainer;
mod process;
pub mod wake;

pub use maintainer::start;

use crate::lock::{self, On};

/// Whether a worker runs for the current database.
pub fn runs() -> bool {
    // SAFETY: a plain read of a process-local variable on the main thread.
    lock::is_held(On::Worker(unsafe { pgrx::pg_sys::MyDatabaseId }))
}

/// Asks for shared memory and registers what starts with the server, while preloading.
pub fn install() {
    local_store::install();
    wake::install();
    launcher::install();
}
