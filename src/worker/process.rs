//! What the launcher and the workers of databases have in common: registration, signals, sleeping, errors.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrx::PgTryBuilder;
use pgrx::prelude::*;

use crate::error::{Failure, Result};

// The same function: C sources know it by its old name in every version.
#[cfg(not(feature = "pg18"))]
use pgrx::pg_sys::pqsignal as on_signal;
#[cfg(feature = "pg18")]
use pgrx::pg_sys::pqsignal_be as on_signal;

/// Set by SIGTERM.
static TERMINATED: AtomicBool = AtomicBool::new(false);

/// Exit code after SIGTERM. PostgreSQL forgets a background worker that ends with 0, and starts it again after 1.
static FAREWELL: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

/// What becomes of a worker that was told to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Farewell {
    /// It stays away.
    ForGood,
    /// PostgreSQL starts it again after a while.
    Return,
}

/// A background worker with a connection, to be registered.
pub fn describe(
    kind: &CStr,
    function: &CStr,
    restart: Option<Duration>,
    database: pg_sys::Oid,
) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as c_int,
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: restart.map_or(pg_sys::BGW_NEVER_RESTART, |pause| pause.as_secs() as c_int),
        bgw_main_arg: database.into(),
        ..Default::default()
    };
    copy(&mut worker.bgw_name, kind);
    copy(&mut worker.bgw_type, kind);
    copy(&mut worker.bgw_library_name, c"pg_storage");
    copy(&mut worker.bgw_function_name, function);
    worker
}

/// Copies what fits; the last byte stays zero.
fn copy(field: &mut [c_char], text: &CStr) {
    let room = field.len().saturating_sub(1);
    field.iter_mut().zip(text.to_bytes()).take(room).for_each(|(to, from)| *to = *from as c_char);
}

unsafe extern "C-unwind" {
    // PostgreSQL's own handlers. Not through pgrx's bindings, whose guards are not made for signal handlers.
    #[link_name = "die"]
    fn postgres_die(signal: c_int);
    #[link_name = "SignalHandlerForConfigReload"]
    fn postgres_reload(signal: c_int);
}

unsafe extern "C-unwind" fn terminate(signal: c_int) {
    TERMINATED.store(true, Ordering::Relaxed);
    // SAFETY: a signal handler that another signal handler calls.
    unsafe { postgres_die(signal) };
}

#[pg_guard]
unsafe extern "C-unwind" fn say_farewell(code: c_int, _argument: pg_sys::Datum) {
    let farewell = FAREWELL.load(Ordering::Relaxed);
    if code == 1 && TERMINATED.load(Ordering::Relaxed) && farewell == 0 {
        // SAFETY: an exit callback may exit: what is left of the exit goes on from there.
        unsafe { pg_sys::proc_exit(farewell) };
    }
}

/// To be called first: the signals as PostgreSQL's own processes take them. SIGTERM ends any wait at once, SIGINT the
/// step that is running, SIGHUP makes [`sleep`] read the configuration again.
pub fn begin(farewell: Farewell) {
    FAREWELL.store(i32::from(farewell == Farewell::Return), Ordering::Relaxed);
    // SAFETY: at the start of a background worker, on its main thread, as PostgreSQL's own workers do; the callback is
    // the first to be registered and so the last to be called.
    unsafe {
        pg_sys::on_proc_exit(Some(say_farewell), pg_sys::Datum::from(0));
        on_signal(libc::SIGHUP, Some(postgres_reload));
        on_signal(libc::SIGTERM, Some(terminate));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Sets one of PostgreSQL's own settings for this process, whatever the server, the database or the role say.
pub fn set(name: &CStr, value: &CStr) {
    // SAFETY: settings of PostgreSQL with values that are valid; outside a transaction.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Sleeps until the latch is set or the time is over; ends the process when it was told to, and reads the configuration
/// again when it was told to. Whether it did the latter.
pub fn sleep(time: Duration) -> bool {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = i64::try_from(time.as_millis()).unwrap_or(i64::MAX).clamp(1, 3_600_000);
    // SAFETY: the process's own latch on its main thread, outside any transaction; the flags are plain variables that
    // signal handlers set.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as c_int, milliseconds, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
        if TERMINATED.load(Ordering::Relaxed) {
            pg_sys::proc_exit(FAREWELL.load(Ordering::Relaxed));
        }
        // A cancel is for a step; none is running.
        pg_sys::QueryCancelPending = 0;
        pgrx::check_for_interrupts!();
        // What others changed in the catalog meanwhile: they wait for those who are slow to read it.
        pg_sys::ProcessCatchupInterrupt();
        let reload = pg_sys::ConfigReloadPending != 0;
        if reload {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        reload
    }
}

/// Runs `work` and goes on whatever happens in it: an ERROR or a panic undoes the open transaction and is the result.
pub fn surviving<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: a plain read of a process-local variable.
    let context = unsafe { pg_sys::CurrentMemoryContext };
    let outcome = PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_others(|error| Err(Failure::caught(&error)))
        .catch_rust_panic(|error| Err(Failure::caught(&error)))
        .execute();
    if outcome.is_err() {
        // SAFETY: what PostgreSQL's own workers do after an error; without an open transaction the first does nothing.
        unsafe {
            pg_sys::AbortOutOfAnyTransaction();
            pg_sys::LWLockReleaseAll();
            pg_sys::pgstat_report_wait_end();
            pg_sys::CurrentMemoryContext = context;
        }
    }
    outcome
}

/// Shows in `pg_stat_activity` what is being done; `None`: nothing.
pub fn report(activity: Option<&CStr>) {
    let (state, text) = match activity {
        Some(text) => (pg_sys::BackendState::STATE_RUNNING, text.as_ptr()),
        None => (pg_sys::BackendState::STATE_IDLE, std::ptr::null()),
    };
    // SAFETY: writes to this process's own entry; the text is copied.
    unsafe { pg_sys::pgstat_report_activity(state, text) };
}
