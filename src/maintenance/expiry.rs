//! What ends by itself: uploads whose URL has ended, and files with a time to live.

use super::{Report, Scope};
use crate::catalog;
use crate::error::Result;

/// Ends pending uploads whose time is over.
pub fn uploads(scope: Scope, report: &mut Report) -> Result<()> {
    report.uploads_expired += count(scope, "SELECT storage_private.expire_uploads()")?;
    Ok(())
}

/// Deletes files whose time is over.
pub fn files(scope: Scope, report: &mut Report) -> Result<()> {
    report.files_expired += count(scope, "SELECT storage_private.expire_files()")?;
    Ok(())
}

fn count(scope: Scope, statement: &'static str) -> Result<i64> {
    scope.step(|| {
        catalog::as_owner(|| catalog::write(statement, &[], |rows| Ok(rows.first().get_one()?.unwrap_or(0))))
    })
}
