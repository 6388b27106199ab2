//! Where the steps of a pass run: in the caller's one transaction, or each in its own.

#![allow(unsafe_code)]

use pgrx::pg_sys;

use crate::error::Result;

/// Where a pass runs. Steps are short and talk to the database only; the store is talked to between steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the caller's one transaction: `run_maintenance()`.
    Callers,
    /// Each step in a transaction of its own: the worker.
    Own,
}

impl Scope {
    /// Runs one step. In a scope of its own it is committed when this returns, or undone when it fails.
    ///
    /// An ERROR unwinds through here to the worker, which aborts the transaction: tasks catch none themselves.
    pub fn step<T>(self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        match self {
            Self::Callers => work(),
            Self::Own => in_own_transaction(work),
        }
    }
}

fn in_own_transaction<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the sequence of PostgreSQL's own workers, on the main thread, outside any transaction. What `work` gives
    // is owned by Rust; the memory context of before outlives the transaction.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let outcome = work();
        if outcome.is_ok() {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        } else {
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::CurrentMemoryContext = context;
        outcome
    }
}
