//! The table behind the cache of physical buckets that are ready: what it knows, finds, forgets and counts.
//!
//! Fixed size, eight ways: a full set evicts its oldest entry. Where the table lives, who else uses it and which lock keeps
//! them apart, is its user's business.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::policy::Access;

/// Entries that share a hash; a look-up reads all of them.
pub const WAYS: usize = 8;
/// Counters of forgetting, each for the names that hash to it: enough that strangers rarely share one.
pub const FORGETTINGS: usize = 4096;
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

/// What is kept of a physical bucket.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Entry {
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

/// Room for an entry.
pub const EMPTY: Entry = Entry {
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
pub struct Table<'a> {
    /// What happened to it.
    pub counters: &'a mut Counters,
    /// Counts what is stored, so that the oldest is known.
    pub clock: &'a mut u64,
    /// How often something was forgotten.
    pub forgettings: &'a mut Forgettings,
    /// A multiple of [`WAYS`].
    pub entries: &'a mut [Entry],
}

/// Counts the calls that forget something, whether or not it was there, apart for most buckets: what happens to others
/// must not keep a bucket out of the cache.
pub type Forgettings = [u64; FORGETTINGS];

/// Stands for every name of a database; no bucket is called so.
pub const EVERYTHING: &str = "";

fn slot(database: u32, name: &str) -> usize {
    (hash((database, name)) % FORGETTINGS as u64) as usize
}

/// What a bucket is found by.
pub struct Key<'a> {
    database: u32,
    endpoint: &'a str,
    endpoint_hash: u64,
    name: &'a str,
}

impl<'a> Key<'a> {
    /// A bucket of a database at an endpoint.
    pub fn new(database: u32, endpoint: &'a str, name: &'a str) -> Self {
        Self { database, endpoint, endpoint_hash: hash(endpoint), name }
    }

    fn matches(&self, entry: &Entry) -> bool {
        entry.used
            && entry.database == self.database
            && entry.endpoint_hash == self.endpoint_hash
            && entry.name_text() == self.name
    }
}

impl Entry {
    /// What it knows, if it is an entry of this database.
    pub fn of(&self, database: u32) -> Option<Ready> {
        (self.used && self.database == database).then_some(self.ready)
    }

    /// Its name.
    pub fn name_text(&self) -> &str {
        self.name
            .get(..usize::from(self.name_length))
            .and_then(|b| std::str::from_utf8(b).ok())
            .unwrap_or_default()
    }

    /// Its endpoint, as far as that is kept.
    pub fn endpoint_text(&self) -> &str {
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

    /// What is known of a bucket; not counted.
    pub fn find(&mut self, key: &Key<'_>) -> Option<Ready> {
        self.set(key).iter().find(|entry| key.matches(entry)).map(|entry| entry.ready)
    }

    /// What is known of a bucket, counted as a hit or a miss.
    pub fn get(&mut self, key: &Key<'_>) -> Option<Ready> {
        let found = self.find(key);
        match found {
            Some(_) => self.counters.hits += 1,
            None => self.counters.misses += 1,
        }
        found
    }

    /// Keeps what is known of a bucket, in place of the oldest of its set where there is no room.
    pub fn put(&mut self, key: &Key<'_>, ready: Ready) {
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

    /// How often this name, or everything, was forgotten.
    ///
    /// Both counters only grow, so their sum stays the same only where neither has.
    pub fn forgotten(&self, database: u32, name: &str) -> u64 {
        let count = |name| self.forgettings.get(slot(database, name)).copied().unwrap_or_default();
        count(name) + count(EVERYTHING)
    }

    /// Counts one more.
    pub fn count_forgetting(&mut self, database: u32, name: &str) {
        self.forgettings.iter_mut().skip(slot(database, name)).take(1).for_each(|count| *count += 1);
    }

    /// Forgets some entries.
    pub fn remove(&mut self, doomed: impl Fn(&Entry) -> bool) {
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
