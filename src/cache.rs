//! Which physical buckets are known to be ready: facts about the store only, and only positive ones.
//!
//! Preloaded, the table lives in shared memory behind one lightweight lock; otherwise each backend has its own. It never
//! answers who may see what, and losing it costs a look-up. Fixed size, eight ways: a full set evicts its oldest entry.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicPtr, Ordering};

use pg_storage_core::policy::Access;
use pgrx::prelude::*;

use crate::{catalog, guc, preload};

/// Entries that share a hash; a look-up reads all of them.
const WAYS: usize = 8;
/// Entries of a backend that has its table to itself.
const PRIVATE_ENTRIES: usize = 64;
/// Counters of forgetting, each for the names that hash to it: enough that strangers rarely share one.
const FORGETTINGS: usize = 4096;
/// Longest endpoint that is kept for display; the key is its hash.
const ENDPOINT_BYTES: usize = 128;
/// S3 bucket names have at most 63 characters.
const NAME_BYTES: usize = 63;

/// What is known of a physical bucket that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Generation of the configuration that the store was seen to have.
    pub generation: i64,
    /// The one access it serves; `None`: all.
    pub access: Option<Access>,
    /// Whether it is an operator's bucket, which is never created or configured.
    pub fixed: bool,
    /// Whether this is on record; otherwise another session's open transaction was left to record it.
    pub recorded: bool,
    /// Hash of the settings it was made ready under.
    pub settings: u64,
    /// Hash of all web origins that were applied.
    pub origins: u64,
    /// Whether the server's own web origins were among them.
    pub server_origins: bool,
    /// Whether declared digests and create-only are enforced, so that uploads go to their final key.
    pub direct: bool,
    /// Whether the store accepts If-None-Match at all.
    pub create_only: bool,
    /// Whether uploads carry a mark.
    pub marked: bool,
}

/// Counters since the table was made.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Counters {
    /// Look-ups that found an entry.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Provisionings whose outcome was stored.
    pub provisionings: u64,
    /// Entries removed: no room, changed, gone from the store, or reset.
    pub evictions: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    used: bool,
    name_length: u8,
    endpoint_length: u8,
    database: u32,
    endpoint_hash: u64,
    stored_at: u64,
    ready: Ready,
    name: [u8; NAME_BYTES],
    endpoint: [u8; ENDPOINT_BYTES],
}

const EMPTY: Entry = Entry {
    used: false,
    name_length: 0,
    endpoint_length: 0,
    database: 0,
    endpoint_hash: 0,
    stored_at: 0,
    ready: Ready {
        generation: 0,
        access: None,
        fixed: false,
        recorded: false,
        settings: 0,
        origins: 0,
        server_origins: false,
        direct: false,
        create_only: false,
        marked: false,
    },
    name: [0; NAME_BYTES],
    endpoint: [0; ENDPOINT_BYTES],
};

/// Counts and entries, wherever they live.
struct Table<'a> {
    counters: &'a mut Counters,
    clock: &'a mut u64,
    forgettings: &'a mut Forgettings,
    entries: &'a mut [Entry],
}

/// Counts the calls that forget something, whether or not it was there, apart for most buckets: what happens to others
/// must not keep a bucket out of the cache.
type Forgettings = [u64; FORGETTINGS];

/// Stands for every name of a database; no bucket is called so.
const EVERYTHING: &str = "";

fn slot(database: u32, name: &str) -> usize {
    (hash((database, name)) % FORGETTINGS as u64) as usize
}

/// What a bucket is found by.
struct Key<'a> {
    database: u32,
    endpoint: &'a str,
    endpoint_hash: u64,
    name: &'a str,
}

impl<'a> Key<'a> {
    fn new(endpoint: &'a str, name: &'a str) -> Self {
        Self { database: database(), endpoint, endpoint_hash: hash(endpoint), name }
    }

    fn matches(&self, entry: &Entry) -> bool {
        entry.used
            && entry.database == self.database
            && entry.endpoint_hash == self.endpoint_hash
            && entry.name_text() == self.name
    }
}

impl Entry {
    fn name_text(&self) -> &str {
        self.name
            .get(..usize::from(self.name_length))
            .and_then(|b| std::str::from_utf8(b).ok())
            .unwrap_or_default()
    }

    fn endpoint_text(&self) -> &str {
        self.endpoint
            .get(..usize::from(self.endpoint_length))
            .and_then(|b| std::str::from_utf8(b).ok())
            .unwrap_or_default()
    }
}

impl Table<'_> {
    fn set(&mut self, key: &Key<'_>) -> &mut [Entry] {
        let sets = (self.entries.len() / WAYS).max(1);
        let at = (hash((key.database, key.endpoint_hash, key.name)) % sets as u64) as usize * WAYS;
        let end = (at + WAYS).min(self.entries.len());
        self.entries.get_mut(at..end).unwrap_or_default()
    }

    fn find(&mut self, key: &Key<'_>) -> Option<Ready> {
        self.set(key).iter().find(|entry| key.matches(entry)).map(|entry| entry.ready)
    }

    fn get(&mut self, key: &Key<'_>) -> Option<Ready> {
        let found = self.find(key);
        match found {
            Some(_) => self.counters.hits += 1,
            None => self.counters.misses += 1,
        }
        found
    }

    fn put(&mut self, key: &Key<'_>, ready: Ready) {
        let (Some(name), endpoint) =
            (fit::<NAME_BYTES>(key.name), fit_prefix::<ENDPOINT_BYTES>(key.endpoint))
        else {
            return;
        };
        *self.clock += 1;
        let stored_at = *self.clock;
        let set = self.set(key);
        let same = set.iter().position(|entry| key.matches(entry));
        let free = set.iter().position(|entry| !entry.used);
        let oldest = set.iter().enumerate().min_by_key(|(_, entry)| entry.stored_at).map(|(at, _)| at);
        let evicts = same.is_none() && free.is_none();
        let Some(slot) = same.or(free).or(oldest).and_then(|at| set.get_mut(at)) else { return };
        *slot = Entry {
            used: true,
            name_length: key.name.len() as u8,
            endpoint_length: endpoint.1 as u8,
            database: key.database,
            endpoint_hash: key.endpoint_hash,
            stored_at,
            ready,
            name,
            endpoint: endpoint.0,
        };
        self.counters.evictions += u64::from(evicts);
    }

    /// Both counters only grow, so their sum stays the same only where neither has.
    fn forgotten(&self, database: u32, name: &str) -> u64 {
        let count = |name| self.forgettings.get(slot(database, name)).copied().unwrap_or_default();
        count(name) + count(EVERYTHING)
    }

    fn count_forgetting(&mut self, database: u32, name: &str) {
        self.forgettings.iter_mut().skip(slot(database, name)).take(1).for_each(|count| *count += 1);
    }

    fn remove(&mut self, doomed: impl Fn(&Entry) -> bool) {
        let mut removed = 0;
        for entry in self.entries.iter_mut().filter(|entry| entry.used && doomed(entry)) {
            *entry = EMPTY;
            removed += 1;
        }
        self.counters.evictions += removed;
    }
}

fn fit<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(bytes)
}

fn fit_prefix<const N: usize>(text: &str) -> ([u8; N], usize) {
    let mut end = text.len().min(N);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let kept = text.get(..end).unwrap_or_default();
    (fit(kept).unwrap_or([0; N]), kept.len())
}

fn hash(value: impl Hash) -> u64 {
    // Keyed with constants: every backend must find what another one stored.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn database() -> u32 {
    // SAFETY: a plain read of a process-local variable on the main thread.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// The entry of a physical bucket of this database, counted as a hit or a miss.
pub fn get(endpoint: &str, name: &str) -> Option<Ready> {
    with_table(Mode::Write, |table| table.get(&Key::new(endpoint, name)))
}

/// Whether uploads to a physical bucket of this database carry a mark, if that is known here; not counted.
pub fn marked(endpoint: &str, name: &str) -> Option<bool> {
    with_table(Mode::Write, |table| table.find(&Key::new(endpoint, name))).map(|ready| ready.marked)
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
            table.put(&Key::new(endpoint, name), ready);
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
        table.remove(|entry| entry.database == database && entry.name_text() == name);
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
        table.remove(|entry| entry.database == database);
    });
}

/// Whether the table is shared, its capacity, the entries of this database, and the counters.
pub fn statistics() -> (bool, usize, usize, Counters) {
    let database = database();
    with_table(Mode::Read, |table| {
        let entries = table.entries.iter().filter(|entry| entry.used && entry.database == database).count();
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
            .filter(|entry| entry.used && entry.database == database)
            .map(|entry| (entry.name_text().to_owned(), entry.endpoint_text().to_owned(), entry.ready))
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
