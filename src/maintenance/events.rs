//! Events: announced after they were committed, and removed when their time is over.

use super::{Report, Scope};
use crate::catalog;
use crate::error::Result;

/// Events of one step. Short, because those who notify commit one after the other.
const BATCH: i32 = 1000;
/// Steps of one task in one pass; what is left waits for the next.
const MOST_STEPS: u32 = 100;

/// Sends NOTIFY for events that had none.
pub fn announce(scope: Scope, report: &mut Report) -> Result<()> {
    report.events_announced += in_steps(scope, "SELECT storage_private.announce_events($1)")?;
    Ok(())
}

/// Removes events that are past `pg_storage.event_retention`.
pub fn remove(scope: Scope, report: &mut Report) -> Result<()> {
    report.events_removed += in_steps(scope, "SELECT storage_private.remove_events($1)")?;
    Ok(())
}

/// Runs a statement that tells how many of a batch it did, until one is not full.
fn in_steps(scope: Scope, statement: &'static str) -> Result<i64> {
    let mut total = 0;
    for _ in 0..MOST_STEPS {
        let done: i64 = scope.step(|| {
            catalog::as_owner(|| {
                catalog::write(statement, &[BATCH.into()], |rows| Ok(rows.first().get_one()?.unwrap_or(0)))
            })
        })?;
        total += done;
        if done < BATCH.into() {
            break;
        }
    }
    Ok(total)
}
