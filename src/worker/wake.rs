//! Waking the worker of this database at commit. Preloaded only: without shared memory nobody knows where it is.
//!
//! A wake carries no fact, so one too many is harmless: that of a savepoint that was rolled back, say. What a prepared
//! transaction wanted is not known to the session that commits it, so every COMMIT PREPARED wakes.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::{AssertPGRXSharedMemory, pg_shmem_init};

use crate::preload;

/// Workers that can be woken; further ones look by themselves. No server runs that many.
const SLOTS: usize = 128;

/// Where a worker is.
#[derive(Clone, Copy)]
struct Slot {
    /// Its database; 0: free.
    database: u32,
    /// Its place among the server's processes.
    process: usize,
    /// How often it was woken.
    wakes: u64,
}

type Slots = AssertPGRXSharedMemory<[Slot; SLOTS]>;

static WORKERS: PgLwLock<Slots> = unsafe { PgLwLock::new(c"pg_storage workers") };

thread_local! {
    static ARMED: Cell<bool> = const { Cell::new(false) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
    /// The slot of this process.
    static MINE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Asks for shared memory, while preloading.
pub fn install() {
    // SAFETY: numbers without pointers, meaningful in every process.
    pg_shmem_init!(
        WORKERS = unsafe { AssertPGRXSharedMemory::new([Slot { database: 0, process: 0, wakes: 0 }; SLOTS]) }
    );
    hook_utility();
}

/// The hook that was there before ours.
static NEXT_UTILITY: OnceLock<pg_sys::ProcessUtility_hook_type> = OnceLock::new();

/// Has COMMIT PREPARED wake the worker, while preloading.
fn hook_utility() {
    // SAFETY: before the first fork, when nothing else runs.
    unsafe {
        NEXT_UTILITY.get_or_init(|| pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(utility);
    }
}

unsafe extern "C-unwind" {
    // PostgreSQL's own function. Not through pgrx's bindings: their guard would rebuild every error of every utility
    // statement on its way, without its context and position.
    #[link_name = "standard_ProcessUtility"]
    fn postgres_utility(
        statement: *mut pg_sys::PlannedStmt,
        query: *const c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: what PostgreSQL hands over, passed on as it is; a node of this tag is a TransactionStmt. Looked at first:
    // the statement need not outlive its execution. An ERROR jumps over this frame, which owns nothing.
    unsafe {
        let node = (*statement).utilityStmt;
        let commits = (*node).type_ == pg_sys::NodeTag::T_TransactionStmt
            && (*node.cast::<pg_sys::TransactionStmt>()).kind
                == pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT_PREPARED;
        let next = NEXT_UTILITY.get().copied().flatten().unwrap_or(postgres_utility);
        next(statement, query, read_only, context, parameters, environment, destination, completion);
        if commits {
            after_commit_prepared();
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn after_commit_prepared() {
    wake();
}

/// This process is the worker of its database from now on, until it ends.
pub fn enlist() {
    if !preload::preloaded() {
        return;
    }
    let database = database();
    let mut slots = WORKERS.exclusive();
    let Some(free) = slots.iter().position(|slot| slot.database == 0) else { return };
    if let Some(slot) = slots.get_mut(free) {
        // SAFETY: MyProc is an element of the array of all processes.
        let process = unsafe { pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs) } as usize;
        *slot = Slot { database, process, wakes: 0 };
        MINE.set(Some(free));
        // SAFETY: a static callback, which is called while shared memory is still attached.
        unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::from(0)) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, _argument: pg_sys::Datum) {
    if let Some(mine) = MINE.take()
        && let Some(slot) = WORKERS.exclusive().get_mut(mine)
    {
        slot.database = 0;
    }
}

/// How often this worker was woken so far.
pub fn count() -> u64 {
    MINE.get().and_then(|mine| WORKERS.share().get(mine).map(|slot| slot.wakes)).unwrap_or(0)
}

/// Wakes the worker of this database when the transaction commits.
pub fn at_commit() {
    // The worker knows what it does itself.
    if !preload::preloaded() || MINE.get().is_some() {
        return;
    }
    if !REGISTERED.replace(true) {
        // SAFETY: a static callback, registered once for the life of the process, on the main thread.
        unsafe { pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut()) };
    }
    ARMED.set(true);
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _argument: *mut c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    match event {
        XACT_EVENT_COMMIT if ARMED.take() => wake(),
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => ARMED.set(false),
        _ => {}
    }
}

fn wake() {
    let database = database();
    let process = {
        let mut slots = WORKERS.exclusive();
        let Some(slot) = slots.iter_mut().find(|slot| slot.database == database) else { return };
        slot.wakes += 1;
        slot.process
    };
    // SAFETY: the place of a process in an array that lives as long as the server. Should the worker have gone, whoever
    // has its place now wakes up for nothing, as everybody does now and then.
    unsafe { pg_sys::SetLatch(&raw mut (*(*pg_sys::ProcGlobal).allProcs.add(process)).procLatch) };
}

fn database() -> u32 {
    // SAFETY: a plain read of a process-local variable on the main thread.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}
