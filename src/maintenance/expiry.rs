//! What ends by itself: uploads whose URL has ended, and files with a time to live.

use super::{Report, Scope};
use crate::catalog;
use crate::error::Result;

/// Rows that one step ends: few enough that nobody waits long for a row it has locked.
const BATCH: i32 = 1000;

/// Ends pending uploads whose time is over.
pub fn uploads(scope: Scope, report: &mut Report) -> Result<()> {
    in_batches(scope, "SELECT storage_private.expire_uploads($1)", &mut report.uploads_expired)
}

/// Deletes files whose time is over.
pub fn files(scope: Scope, report: &mut Report) -> Result<()> {
    in_batches(scope, "SELECT storage_private.expire_files($1)", &mut report.files_expired)
}

fn in_batches(scope: Scope, statement: &'static str, total: &mut i64) -> Result<()> {
    loop {
        let ended: i64 = scope.step(|| {
            catalog::as_owner(|| {
                catalog::write(statement, &[BATCH.into()], |rows| Ok(rows.first().get_one()?.unwrap_or(0)))
            })
        })?;
        *total += ended;
        if ended < i64::from(BATCH) {
            return Ok(());
        }
    }
}
