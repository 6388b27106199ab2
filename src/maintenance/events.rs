//! Events: announced after they were committed, and removed when their time is over.

use super::{Report, Scope, in_steps};
use crate::error::Result;

/// Sends NOTIFY for events that had none. In short steps, because those who notify commit one after the other.
pub fn announce(scope: Scope, report: &mut Report) -> Result<()> {
    in_steps(scope, "SELECT storage_private.announce_events($1)", report, |report| {
        &mut report.events_announced
    })
}

/// Removes events that are past `pg_storage.event_retention`.
pub fn remove(scope: Scope, report: &mut Report) -> Result<()> {
    in_steps(scope, "SELECT storage_private.remove_events($1)", report, |report| &mut report.events_removed)
}
