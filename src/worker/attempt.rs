//! Records attempts to provision apart from the transaction that asks, which may be rolled back: a short-lived background
//! worker does it in a transaction of its own. Where none can be had, the caller's own record is all there is.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::CStr;

use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, DynamicBackgroundWorker,
};
use pgrx::prelude::*;
use pgrx::{JsonB, PgMemoryContexts};
use serde_json::{Value, json};

use super::process;
use crate::catalog;
use crate::error::Result;

thread_local! {
    /// What records this session's last failure. A session has one such process at a time: there are few for all.
    static LAST: RefCell<Option<DynamicBackgroundWorker>> = const { RefCell::new(None) };
}

/// Has a failed attempt, as `storage_private.record_attempt()` takes it, recorded in this database. Only this session's
/// next attempt waits for it.
pub fn record(attempt: &Value) {
    await_last();
    // Not the memory of a transaction that fails: the handle is a few bytes, for as long as the session lasts.
    // SAFETY: this context outlives the closure, which switches to no other for good.
    LAST.set(unsafe { PgMemoryContexts::TopMemoryContext.switch_to(|_| start(attempt)) });
}

fn await_last() {
    if let Some(last) = LAST.take() {
        await_end(last);
    }
}

fn await_end(worker: DynamicBackgroundWorker) {
    // Whether or not it could record: the attempt itself does not depend on that.
    let _ = worker.wait_for_shutdown();
    pgrx::check_for_interrupts!();
}

/// Has an attempt recorded before it is made; whether somebody could be found for that.
pub fn record_first(attempt: &Value) -> bool {
    await_last();
    let Some(worker) = start(attempt) else { return false };
    await_end(worker);
    true
}

/// How long a lock is waited for. Whoever waits for the record may hold that lock, which no deadlock detector sees: after
/// DDL on our tables in the same transaction, say.
const PATIENCE: &CStr = c"1s";

fn start(attempt: &Value) -> Option<DynamicBackgroundWorker> {
    // SAFETY: plain reads of process-local variables on the main thread.
    let (database, this) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
    let message = Message::leave(&json!({ "database": database.to_u32(), "attempt": attempt }))?;
    let started = BackgroundWorkerBuilder::new("pg_storage attempt")
        .set_type("pg_storage attempt")
        .set_library("pg_storage")
        .set_function("pg_storage_attempt_main")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_argument(Some(pg_sys::Datum::from(message.0)))
        .set_notify_pid(this)
        .load_dynamic();
    if started.is_err() {
        message.take();
        pgrx::debug1!("pg_storage: no background worker is free to record an attempt to provision");
    }
    started.ok()
}

/// Main function of the background worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_storage_attempt_main(handle: pg_sys::Datum) {
    let Some(message) = Message(handle.value() as u32).take() else { return };
    let database = message.get("database").and_then(Value::as_u64).and_then(|oid| u32::try_from(oid).ok());
    let (Some(database), Some(attempt)) = (database, message.get("attempt")) else { return };
    // SAFETY: on the main thread of a background worker that has not unblocked signals yet.
    unsafe { pg_sys::BackgroundWorkerUnblockSignals() };
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(database.into()), None);
    process::set(c"lock_timeout", PATIENCE);
    let attempt = attempt.clone();
    let recorded: Result<()> = BackgroundWorker::transaction(move || {
        catalog::run_as_owner("SELECT storage_private.record_attempt($1)", &[JsonB(attempt).into()])
    });
    if let Err(failure) = recorded {
        failure.raise();
    }
}

/// Handle of a pinned segment of shared memory that holds a JSON text after its length.
#[derive(Clone, Copy)]
struct Message(pg_sys::dsm_handle);

/// Bytes before the text.
const LENGTH: usize = size_of::<u64>();

impl Message {
    /// Leaves the message in shared memory; `None`: no segment is free.
    fn leave(message: &Value) -> Option<Self> {
        let text = message.to_string();
        // SAFETY: on the main thread; the segment is as long as what is written to it, and is pinned before this
        // process lets go of it, so that it lasts until it is taken.
        unsafe {
            let flags = pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS as i32;
            let segment = pg_sys::dsm_create(LENGTH + text.len(), flags);
            if segment.is_null() {
                return None;
            }
            let start = pg_sys::dsm_segment_address(segment).cast::<u8>();
            start.cast::<u64>().write_unaligned(text.len() as u64);
            start.add(LENGTH).copy_from_nonoverlapping(text.as_ptr(), text.len());
            pg_sys::dsm_pin_segment(segment);
            let handle = pg_sys::dsm_segment_handle(segment);
            pg_sys::dsm_detach(segment);
            Some(Self(handle))
        }
    }

    /// Takes the message out of shared memory; `None`: it is not there.
    fn take(self) -> Option<Value> {
        // SAFETY: the handle is of a segment that `leave` made: its text is as long as it says. Unpinned once it is
        // mapped here, the segment ends with this mapping.
        unsafe {
            let segment = pg_sys::dsm_attach(self.0);
            if segment.is_null() {
                return None;
            }
            let start = pg_sys::dsm_segment_address(segment).cast::<u8>();
            let length = start.cast::<u64>().read_unaligned() as usize;
            let text = std::slice::from_raw_parts(start.add(LENGTH), length).to_vec();
            pg_sys::dsm_unpin_segment(self.0);
            pg_sys::dsm_detach(segment);
            serde_json::from_slice(&text).ok()
        }
    }
}
