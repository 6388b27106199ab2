//! Locks that no SQL command can take, so that nobody who runs SQL can keep others waiting but by doing what they do.
//!
//! Advisory locks are open to every role. These are of the same kind, and `pg_locks` shows them as such, with an `objsubid`
//! that no function of PostgreSQL gives: 1 is a `bigint`, 2 two `integer`s. Their keys come of a secret: whoever could
//! compute them could choose a path of his own to have the key of somebody else's.

#![allow(unsafe_code)]

use pg_storage_core::digest;
use pgrx::pg_sys;

use crate::error::Result;
use crate::installation;

/// What a lock is on.
#[derive(Clone, Copy)]
pub enum On {
    /// What has this key, in this database; see [`On::named`].
    Key(u64),
    /// Being the worker of a database.
    Worker(pg_sys::Oid),
}

impl On {
    /// The lock of a kind and a name.
    pub fn named(kind: &str, name: &str) -> Result<Self> {
        let mut hasher = digest::Hasher::new();
        for part in [&installation::secret()?, kind.as_bytes(), name.as_bytes()] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finish().as_bytes();
        Ok(Self::Key(u64::from_be_bytes([a, b, c, d, e, f, g, h])))
    }

    fn tag(self) -> pg_sys::LOCKTAG {
        let (database, high, low, class) = match self {
            // SAFETY: a plain read of a process-local variable on the main thread.
            Self::Key(key) => (unsafe { pg_sys::MyDatabaseId }, (key >> 32) as u32, key as u32, 3),
            Self::Worker(database) => (database, 0, 0, 4),
        };
        pg_sys::LOCKTAG {
            locktag_field1: database.to_u32(),
            locktag_field2: high,
            locktag_field3: low,
            locktag_field4: class,
            locktag_type: pg_sys::LockTagType::LOCKTAG_ADVISORY as u8,
            locktag_lockmethodid: pg_sys::USER_LOCKMETHOD as u8,
        }
    }
}

/// How long a lock is held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// The transaction's end.
    Commit,
    /// It is released, or the process ends.
    Released,
}

const EXCLUSIVE: i32 = pg_sys::ExclusiveLock as i32;

/// Takes a lock; `false`: somebody has it, and it was not to be waited for.
fn take(on: On, mode: i32, until: Until, wait: bool) -> bool {
    // SAFETY: the tag outlives the call; a session's lock needs no transaction, and the others are taken in one. A wait
    // ends with an ERROR where PostgreSQL's rules say so.
    let result = unsafe { pg_sys::LockAcquire(&on.tag(), mode, until == Until::Released, !wait) };
    result != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

fn release(on: On, mode: i32) {
    // SAFETY: as above; releasing needs no transaction and is allowed while an ERROR unwinds.
    unsafe { pg_sys::LockRelease(&on.tag(), mode, true) };
}

/// Waits for a lock and holds it until the transaction ends.
pub fn hold(on: On) {
    take(on, EXCLUSIVE, Until::Commit, true);
}

/// Holds a lock until the transaction ends, unless somebody else has it.
pub fn try_hold(on: On) -> bool {
    take(on, EXCLUSIVE, Until::Commit, false)
}

/// Holds a lock until the process ends, unless somebody else has it.
pub fn keep(on: On) -> bool {
    take(on, EXCLUSIVE, Until::Released, false)
}

/// Whether another session has a lock now.
pub fn is_held(on: On) -> bool {
    // Looking is taking it for a moment, in a mode that does not conflict with another look.
    let mode = pg_sys::RowShareLock as i32;
    if !take(on, mode, Until::Released, false) {
        return true;
    }
    release(on, mode);
    false
}

/// A lock that is given back when dropped: at the end of the network call it guards, not at commit.
pub struct SessionLock(On);

impl SessionLock {
    /// Waits for the lock under PostgreSQL's rules.
    pub fn acquire(on: On) -> Self {
        take(on, EXCLUSIVE, Until::Released, true);
        Self(on)
    }

    /// The lock, unless somebody has it.
    pub fn try_acquire(on: On) -> Option<Self> {
        keep(on).then_some(Self(on))
    }
}

impl Drop for SessionLock {
    fn drop(&mut self) {
        release(self.0, EXCLUSIVE);
    }
}
