//! Buckets that were deleted with everything in them: removes what is left of them, step by step.

use std::collections::VecDeque;

use super::{BATCH, Report, Scope};
use crate::catalog;
use crate::error::Result;

/// Steps of one pass that remove something. Fewer than of other tasks: each fills the queues that those are to work off.
const MOST_STEPS: u32 = 10;

/// What one step did.
struct Step {
    removed: i64,
    finished: bool,
}

/// Goes on with each bucket in turn: a large one does not keep a small one, nor one whose rows others hold any.
pub fn run(scope: Scope, report: &mut Report) -> Result<()> {
    let mut buckets = scope.step(marked)?;
    let mut steps = 0;
    while steps < MOST_STEPS {
        let Some(bucket) = buckets.pop_front() else { return Ok(()) };
        let step = scope.step(|| go_on(bucket))?;
        steps += u32::from(step.removed > 0);
        if step.finished {
            report.buckets_deleted += 1;
        } else if step.removed > 0 {
            buckets.push_back(bucket);
        }
    }
    report.unfinished |= !buckets.is_empty();
    Ok(())
}

fn marked() -> Result<VecDeque<pgrx::Uuid>> {
    catalog::as_owner(|| {
        catalog::read("SELECT id FROM storage_private.buckets_to_delete() AS b(id)", &[], |rows| {
            rows.map(|row| Ok(row.get(1)?)).filter_map(Result::transpose).collect()
        })
    })
}

fn go_on(bucket: pgrx::Uuid) -> Result<Step> {
    catalog::as_owner(|| {
        catalog::write(
            "SELECT removed, finished FROM storage_private.continue_bucket_deletion($1, $2)",
            &[bucket.into(), BATCH.into()],
            |rows| {
                let row = rows.first();
                Ok(Step { removed: row.get(1)?.unwrap_or(0), finished: row.get(2)?.unwrap_or(false) })
            },
        )
    })
}
