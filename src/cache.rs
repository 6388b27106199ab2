//! Which physical buckets are known to be ready: facts about the store only, and only positive ones.
//!
//! Preloaded, the table lives in shared memory behind one lightweight lock; otherwise each backend has its own. It never
//! answers who may see what, and losing it costs a look-up. The table itself is `pg_storage_core::cache`.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::sync::atomic::{AtomicPtr, Ordering};

pub use pg_storage_core::cache::{Counters, Ready};
use pg_storage_core::cache::{EMPTY, EVERYTHING, Entry, FORGETTINGS, Forgettings, Key, Table, WAYS};
use pgrx::prelude::*;

use crate::{catalog, guc, preload};

/// Entries of a backend that has its table to itself.
const PRIVATE_ENTRIES: usize = 64;

fn database() -> u32 {
    // SAFETY: a plain read of a process-local variable on the main thread.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// The entry of a physical bucket of this database, counted as a hit or a miss.
pub fn get(endpoint: &str, name: &str) -> Option<Ready> {
    with_table(Mode::Write, |table| table.get(&Key::new(database(), endpoint, name)))
}

/// Whether uploads to a physical bucket of this database carry a mark, if that is known here; not counted.
pub fn marked(endpoint: &str, name: &str) -> Option<bool> {
    with_table(Mode::Write, |table| table.find(&Key::new(database(), endpoint, name)))
        .map(|ready| ready.marked)
}

/// How often something was forgotten so far: to be asked before looking a physical bucket up, for [`put`].
pub fn forgettings(name: &str) -> u64 {
    let database = database();
    with_table(Mode::Read, |table| table.forgotten(database, name))
}

/// Stores what was looked up of a physical bucket, unless something was forgotten since `seen`: that may have been it.
///
/// A transaction with one snapshot for all its statements may have looked at what is no longer true, and keeps it to itself.
pub fn put(endpoint: &str, name: &str, ready: Ready, seen: u64) {
    if catalog::keeps_one_snapshot() {
        return;
    }
    let database = database();
    with_table(Mode::Write, |table| {
        if table.forgotten(database, name) == seen {
            table.put(&Key::new(database, endpoint, name), ready);
        }
    });
}

/// Counts one provisioning.
pub fn count_provisioning() {
    with_table(Mode::Write, |table| table.counters.provisionings += 1);
}

/// Forgets a physical bucket of this database at every endpoint.
pub fn evict(name: &str) {
    let database = database();
    with_table(Mode::Write, |table| {
        table.count_forgetting(database, name);
        table.remove(|entry| entry.of(database).is_some() && entry.name_text() == name);
    });
}

/// Forgets everything of this database, and again at commit what other sessions put there until then.
pub fn clear() {
    evict_all();
    doom(None, At::Commit);
}

fn evict_all() {
    let database = database();
    with_table(Mode::Write, |table| {
        table.count_forgetting(database, EVERYTHING);
        table.remove(|entry| entry.of(database).is_some());
    });
}

/// Whether the table is shared, its capacity, the entries of this database, and the counters.
pub fn statistics() -> (bool, usize, usize, Counters) {
    let database = database();
    with_table(Mode::Read, |table| {
        let entries = table.entries.iter().filter(|entry| entry.of(database).is_some()).count();
        (preload::preloaded(), table.entries.len(), entries, *table.counters)
    })
}

/// Name, endpoint and knowledge of each entry of this database.
pub fn entries() -> Vec<(String, String, Ready)> {
    let database = database();
    with_table(Mode::Read, |table| {
        table
            .entries
            .iter()
            .filter_map(|entry| {
                let ready = entry.of(database)?;
                Some((entry.name_text().to_owned(), entry.endpoint_text().to_owned(), ready))
            })
            .collect()
    })
}

enum Mode {
    Read,
    Write,
}

/// Start of the shared table; entries follow it.
#[repr(C)]
struct Shared {
    lock: *mut pg_sys::LWLock,
    counters: Counters,
    clock: u64,
    forgettings: Forgettings,
    capacity: usize,
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    static PRIVATE: RefCell<(Counters, u64, Forgettings, Vec<Entry>)> = const { RefCell::new((
        Counters { hits: 0, misses: 0, provisionings: 0, evictions: 0 }, 0, [0; FORGETTINGS], Vec::new(),
    )) };
}

/// Runs `f` on the table under its lock. `f` must not call PostgreSQL: an ERROR would leave the lock held.
fn with_table<R>(mode: Mode, f: impl FnOnce(&mut Table<'_>) -> R) -> R {
    let shared = SHARED.load(Ordering::Relaxed);
    if shared.is_null() {
        return PRIVATE.with_borrow_mut(|(counters, clock, forgettings, entries)| {
            entries.resize(PRIVATE_ENTRIES, EMPTY);
            f(&mut Table { counters, clock, forgettings, entries })
        });
    }
    let mode = match mode {
        Mode::Read => pg_sys::LWLockMode::LW_SHARED,
        Mode::Write => pg_sys::LWLockMode::LW_EXCLUSIVE,
    };
    // SAFETY: SHARED points to a table that `startup` initialised and that lives as long as the server. The lock is held
    // while the references exist; readers take it shared and, by the functions above, only read.
    unsafe {
        pg_sys::LWLockAcquire((*shared).lock, mode);
        let entries = std::slice::from_raw_parts_mut(shared.add(1).cast::<Entry>(), (*shared).capacity);
        let result = f(&mut Table {
            counters: &mut (*shared).counters,
            clock: &mut (*shared).clock,
            forgettings: &mut (*shared).forgettings,
            entries,
        });
        pg_sys::LWLockRelease((*shared).lock);
        result
    }
}

const TRANCHE: &std::ffi::CStr = c"pg_storage cache";

fn shared_bytes() -> usize {
    std::mem::size_of::<Shared>() + capacity() * std::mem::size_of::<Entry>()
}

fn capacity() -> usize {
    (guc::CACHE_ENTRIES.get().max(0) as usize).next_multiple_of(WAYS)
}

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Asks for shared memory while preloading.
pub fn install() {
    // SAFETY: runs once, in the postmaster, before any other process exists.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: PostgreSQL calls this hook in the postmaster, when requests are allowed.
    unsafe {
        if let Some(previous) = PREVIOUS_REQUEST {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous());
        }
        pg_sys::RequestAddinShmemSpace(shared_bytes());
        pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), 1);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: PostgreSQL calls this hook when shared memory exists, under the rules of ShmemInitStruct; the memory is
    // aligned and as large as asked for, and nobody else sees it before this function returns.
    unsafe {
        if let Some(previous) = PREVIOUS_STARTUP {
            pg_sys::ffi::pg_guard_ffi_boundary(|| previous());
        }
        let mut found = false;
        let shared = pg_sys::ShmemInitStruct(TRANCHE.as_ptr(), shared_bytes(), &mut found).cast::<Shared>();
        if !found {
            let capacity = capacity();
            shared.write(Shared {
                lock: &raw mut (*pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr())).lock,
                counters: Counters::default(),
                clock: 0,
                forgettings: [0; FORGETTINGS],
                capacity,
            });
            let entries = shared.add(1).cast::<Entry>();
            for at in 0..capacity {
                entries.add(at).write(EMPTY);
            }
        }
        SHARED.store(shared, Ordering::Relaxed);
    }
}

/// When a physical bucket is to be forgotten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// When the transaction commits, because only then others see what it changed.
    Commit,
    /// When what it recorded is rolled back, because then nothing is on record.
    Abort,
    /// In any case, because more is wanted than what it recorded.
    End,
}

#[derive(Clone)]
struct Doomed {
    /// `None`: everything of this database.
    name: Option<String>,
    at: At,
    /// The innermost savepoint at that time; they count up within a transaction.
    savepoint: pg_sys::SubTransactionId,
}

impl Doomed {
    fn evict(&self) {
        match &self.name {
            Some(name) => evict(name),
            None => evict_all(),
        }
    }
}

thread_local! {
    static DOOMED: RefCell<Vec<Doomed>> = const { RefCell::new(Vec::new()) };
    static REGISTERED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Forgets a physical bucket when the transaction ends that way.
pub fn evict_at(at: At, name: &str) {
    doom(Some(name.to_owned()), at);
}

fn doom(name: Option<String>, at: At) {
    // SAFETY: static callbacks, registered once for the life of the process, on the main thread; the savepoint's number is
    // a plain read of process-local state.
    let savepoint = unsafe {
        if !REGISTERED.replace(true) {
            pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
            pg_sys::RegisterSubXactCallback(Some(at_savepoint_end), std::ptr::null_mut());
        }
        pg_sys::GetCurrentSubTransactionId()
    };
    DOOMED.with_borrow_mut(|doomed| doomed.push(Doomed { name, at, savepoint }));
}

fn evict_except(kept: At) {
    DOOMED.take().iter().filter(|doomed| doomed.at != kept).for_each(Doomed::evict);
}

#[pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    use pg_sys::XactEvent::{XACT_EVENT_ABORT, XACT_EVENT_COMMIT, XACT_EVENT_PREPARE};
    match event {
        XACT_EVENT_COMMIT => evict_except(At::Abort),
        XACT_EVENT_ABORT => evict_except(At::Commit),
        // A prepared transaction ends in another session. Forgetting early is harmless, forgetting never is not.
        XACT_EVENT_PREPARE => DOOMED.take().iter().for_each(Doomed::evict),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn at_savepoint_end(
    event: pg_sys::SubXactEvent::Type,
    id: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut std::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        // Those with a higher number began within it, and are undone with it.
        let undone: Vec<Doomed> = DOOMED.with_borrow_mut(|doomed| {
            let (undone, kept) = doomed.drain(..).partition(|doomed| doomed.savepoint >= id);
            *doomed = kept;
            undone
        });
        undone.iter().filter(|doomed| doomed.at != At::Commit).for_each(Doomed::evict);
    }
}
