//! Room that was given back is folded into one row for each bucket.

use super::{Report, Scope};
use crate::catalog;
use crate::error::Result;

/// Folds what was released. Requests to the buckets concerned wait until the step's transaction ends.
pub fn compact(scope: Scope, _report: &mut Report) -> Result<()> {
    scope.step(|| catalog::run_as_owner("SELECT storage_private.compact_room()", &[]))
}
