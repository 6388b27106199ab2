//! How many uploads a user may ask for in a minute: token buckets in shared memory, so that all sessions of a user draw
//! from one. Without preload each session has buckets of its own, and `storage.check()` says so.
//!
//! A token that was taken is gone, also when the transaction rolls back: what is limited is asking. After a crash of the
//! server all buckets are full.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use pg_storage_core::error::Token;
use pg_storage_core::rate::{Set, take};
use pgrx::prelude::*;
use pgrx::{PGRXSharedMemory, PgLwLock, pg_shmem_init};

use crate::error::{Failure, Result};
use crate::{guc, preload};

/// Sets of the shared table, eight buckets each: 16 384 users that were active within a minute, in 272 KiB.
const SHARED_SETS: usize = 2048;
/// Sets of a session that has its table to itself, which serves few users.
const PRIVATE_SETS: usize = 64;

#[derive(Clone, Copy)]
struct Table([Set; SHARED_SETS]);

// SAFETY: numbers only.
unsafe impl PGRXSharedMemory for Table {}

static SHARED: PgLwLock<Table> = unsafe { PgLwLock::new(c"pg_storage upload rates") };

/// Whose tokens are where. Random, so that nobody can find a user who shares a place with another; chosen before fork, so
/// that all sessions look in the same place.
static PLACES: OnceLock<RandomState> = OnceLock::new();

thread_local! {
    static PRIVATE: RefCell<Vec<Set>> = const { RefCell::new(Vec::new()) };
}

/// Asks for shared memory while preloading.
pub fn install() {
    PLACES.get_or_init(RandomState::new);
    pg_shmem_init!(SHARED = Table([Set::EMPTY; SHARED_SETS]));
}

thread_local! {
    /// While many are admitted together: whose uploads are to be spent at the end.
    static OWED: RefCell<Option<Vec<Owner>>> = const { RefCell::new(None) };
}

/// Whose uploads: tenant and user.
type Owner = (String, String);

/// Runs `admit`, which spends many times; what it spends is taken at its end, all or nothing.
///
/// # Errors
/// `RATE_LIMIT`; nothing was taken then, nor is it when `admit` fails.
pub fn spending_at_once<T>(admit: impl FnOnce() -> Result<T>) -> Result<T> {
    let owed = Owed::begin();
    let value = admit()?;
    owed.pay()?;
    Ok(value)
}

/// Forgets what is owed when dropped, also when an ERROR unwinds.
struct Owed(Option<Vec<Owner>>);

impl Owed {
    fn begin() -> Self {
        Self(OWED.replace(Some(Vec::new())))
    }

    fn pay(self) -> Result<()> {
        let mut owners = OWED.take().unwrap_or_default();
        owners.sort_unstable();
        for owners in owners.chunk_by(PartialEq::eq) {
            if let Some((tenant, user)) = owners.first() {
                take_from(tenant, user, owners.len())?;
            }
        }
        Ok(())
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        OWED.set(self.0.take());
    }
}

thread_local! {
    /// While uploads count as one: whether that one was taken. `None`: each counts.
    static ONE_TAKEN: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Runs `admit`, which may spend many times for what its caller asked for once: only the first is taken.
pub fn spending_once<T>(admit: impl FnOnce() -> T) -> T {
    struct Back(Option<bool>);
    impl Drop for Back {
        fn drop(&mut self) {
            ONE_TAKEN.set(self.0);
        }
    }
    let _back = Back(ONE_TAKEN.replace(Some(false)));
    admit()
}

/// Takes one upload from what the user has left, where `pg_storage.upload_rate` limits that.
///
/// # Errors
/// `RATE_LIMIT`; nothing was taken then.
pub fn spend(tenant: &str, user: &str) -> Result<()> {
    match ONE_TAKEN.get() {
        Some(true) => return Ok(()),
        Some(false) => ONE_TAKEN.set(Some(true)),
        None => {}
    }
    let owed = OWED.with_borrow_mut(|owed| match owed {
        Some(owed) => {
            owed.push((tenant.to_owned(), user.to_owned()));
            true
        }
        None => false,
    });
    if owed { Ok(()) } else { take_from(tenant, user, 1) }
}

fn take_from(tenant: &str, user: &str, uploads: usize) -> Result<()> {
    let rate = guc::UPLOAD_RATE.get().unsigned_abs();
    if rate == 0 {
        return Ok(());
    }
    let uploads = u32::try_from(uploads).unwrap_or(u32::MAX);
    // SAFETY: a plain read of a process-local variable on the main thread.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let owner = PLACES.get_or_init(RandomState::new).hash_one((database, tenant, user));
    let now = monotonic();
    let taken = if preload::preloaded() {
        // Held for one look at a set; nothing in between calls PostgreSQL.
        take(&mut SHARED.exclusive().0, owner, now, rate, uploads)
    } else {
        PRIVATE.with_borrow_mut(|table| {
            table.resize(PRIVATE_SETS, Set::EMPTY);
            take(table, owner, now, rate, uploads)
        })
    };
    taken.map_err(|wait| {
        let failure = Failure::new(Token::RateLimit, "too many uploads were asked for");
        let when = wait.as_secs() + 1;
        if uploads == 1 {
            failure
                .detail(format!(
                    "pg_storage.upload_rate allows {rate} a minute; the next is possible in {when} seconds."
                ))
                .hint("Ask again later.")
        } else if uploads > rate {
            failure
                .detail(format!("{uploads} were asked for at once; pg_storage.upload_rate allows {rate} a minute."))
                .hint("Ask for fewer at once.")
        } else {
            failure
                .detail(format!(
                    "pg_storage.upload_rate allows {rate} a minute; {uploads} at once are possible in {when} seconds."
                ))
                .hint("Ask again later, or for fewer at once.")
        }
    })
}

/// Nanoseconds of a clock that all processes share and that nobody sets.
fn monotonic() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the structure; CLOCK_MONOTONIC exists wherever PostgreSQL runs, and the call has no other way to fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
