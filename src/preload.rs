//! How this library came to be loaded. One place decides what shared memory and workers may be used.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys;

/// Set once in the postmaster and inherited through fork.
static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Whether `_PG_init` is running for `shared_preload_libraries`. Remembers it.
pub fn note() -> bool {
    // SAFETY: plain reads of process-local variables on the main thread.
    let preloading = unsafe { pg_sys::process_shared_preload_libraries_in_progress };
    PRELOADED.store(preloading, Ordering::Relaxed);
    preloading
}

/// Whether shared memory and background workers exist.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// Whether the server runs for `pg_upgrade`, when nothing but the catalog may be touched.
pub fn binary_upgrade() -> bool {
    // SAFETY: a plain read of a process-local variable on the main thread.
    unsafe { pg_sys::IsBinaryUpgrade }
}

/// Whether this session cannot write: a standby, or a read-only transaction.
pub fn read_only() -> bool {
    // SAFETY: RecoveryInProgress only reads shared state; XactReadOnly is a process-local variable.
    unsafe { pg_sys::RecoveryInProgress() || pg_sys::XactReadOnly }
}
