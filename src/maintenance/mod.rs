//! Maintenance: what the worker does all the time and `run_maintenance()` once, in the same code.
//!
//! A pass is a list of tasks, and a task is short steps in the database with the store asked between them. Whether a
//! step has a transaction of its own or shares the caller's is the [`Scope`]'s business: a task must be right in both.

mod buckets;
mod deletions;
mod events;
mod expiry;
mod reconcile;
mod room;
mod scope;
mod unconfirmed;

pub use scope::Scope;

use std::time::Duration;

use crate::error::Result;
use crate::{catalog, provision};

/// What one pass did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Pending uploads ended.
    pub uploads_expired: i64,
    /// Pending uploads whose bytes were found to be right, and accepted.
    pub uploads_confirmed: i64,
    /// Files past their time deleted.
    pub files_expired: i64,
    /// Objects removed from the store.
    pub objects_deleted: i64,
    /// Deletions put back for later.
    pub deletions_failed: i64,
    /// Physical buckets brought to their wanted configuration.
    pub buckets_provisioned: i64,
    /// Buckets that were to be deleted with their files, and are gone.
    pub buckets_deleted: i64,
    /// Keys that no row knew, queued for deletion.
    pub orphans_queued: i64,
    /// Multipart uploads that nobody completed, aborted.
    pub multiparts_aborted: i64,
    /// Events whose NOTIFY was sent.
    pub events_announced: i64,
    /// Events past their time removed.
    pub events_removed: i64,
    /// Whether a task ended its turn before its work: the worker goes on with the next pass at once.
    pub unfinished: bool,
}

impl Report {
    /// The numbers in the order of `storage.maintenance_report`.
    pub fn numbers(&self) -> [i64; 11] {
        [
            self.uploads_expired,
            self.uploads_confirmed,
            self.files_expired,
            self.objects_deleted,
            self.deletions_failed,
            self.buckets_provisioned,
            self.buckets_deleted,
            self.orphans_queued,
            self.multiparts_aborted,
            self.events_announced,
            self.events_removed,
        ]
    }
}

/// One kind of work.
pub struct Task {
    /// What the server's log, `pg_stat_activity` and `storage.worker_state` call it.
    pub name: &'static str,
    /// Does what is to be done now.
    pub run: fn(Scope, &mut Report) -> Result<()>,
}

/// A pass, in this order: what expires is queued before the queue is worked off, and what needs no store waits for none.
/// Room comes last: in the caller's transaction it is held to the end, and requests must not wait for the store with it.
pub const TASKS: &[Task] = &[
    Task { name: "expiring uploads", run: expiry::uploads },
    Task { name: "expiring files", run: expiry::files },
    Task { name: "deleting buckets", run: buckets::run },
    Task { name: "announcing events", run: events::announce },
    Task { name: "removing events", run: events::remove },
    Task { name: "deleting objects", run: deletions::run },
    Task { name: "provisioning ahead", run: provision::ahead },
    // What it finds has waited for a day, and a large bucket takes its time.
    Task { name: "comparing the store with the tables", run: reconcile::run },
    Task { name: "compacting room", run: room::compact },
];

/// Rows of one step: few enough that nobody waits long for a row it has locked.
const BATCH: i32 = 1000;

/// Steps of one task in one pass, so that the other tasks have their turn.
const MOST_STEPS: u32 = 100;

/// How long one task talks to the store in one pass of the worker, so that the other tasks have their turn.
const TURN: Duration = Duration::from_secs(30);

/// Runs a statement that takes the size of a batch and tells how many of it it did, until one is not full.
fn in_steps(
    scope: Scope,
    statement: &'static str,
    report: &mut Report,
    total: impl FnOnce(&mut Report) -> &mut i64,
) -> Result<()> {
    let mut sum = 0;
    let mut steps = 0;
    let full = loop {
        let done: i64 = scope.step(|| {
            catalog::as_owner(|| {
                catalog::write(statement, &[BATCH.into()], |rows| Ok(rows.first().get_one()?.unwrap_or(0)))
            })
        })?;
        sum += done;
        steps += 1;
        if done < i64::from(BATCH) || steps == MOST_STEPS {
            break done == i64::from(BATCH);
        }
    };
    report.unfinished |= full;
    *total(report) += sum;
    Ok(())
}

/// Refuses a pass where it would do harm: in a copy of the database, or over an old snapshot.
pub fn begin(scope: Scope) -> Result<()> {
    scope.step(|| catalog::run_as_owner("SELECT storage_private.begin_maintenance()", &[]))
}

/// One pass in the caller's transaction; an error is the caller's.
pub fn run() -> Result<Report> {
    begin(Scope::Callers)?;
    let mut report = Report::default();
    TASKS.iter().try_for_each(|task| (task.run)(Scope::Callers, &mut report))?;
    Ok(report)
}
