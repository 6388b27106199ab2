//! What ends by itself: uploads whose URL has ended, and files with a time to live.

use super::{Report, Scope, in_steps};
use crate::error::Result;

/// Ends pending uploads whose time is over.
pub fn uploads(scope: Scope, report: &mut Report) -> Result<()> {
    let statement = "SELECT storage_private.expire_uploads($1)";
    in_steps(scope, statement, report, |report| &mut report.uploads_expired)
}

/// Deletes files whose time is over.
pub fn files(scope: Scope, report: &mut Report) -> Result<()> {
    in_steps(scope, "SELECT storage_private.expire_files($1)", report, |report| &mut report.files_expired)
}
