//! What ends by itself: uploads whose URL has ended, and files with a time to live.

use super::{Report, Scope, in_steps, unconfirmed};
use crate::error::Result;
use crate::guc;

/// Ends pending uploads whose time is over, with a file where the setting says so and the bytes are right.
pub fn uploads(scope: Scope, report: &mut Report) -> Result<()> {
    if guc::UNCONFIRMED_UPLOADS.get() == guc::Unconfirmed::Confirm {
        return unconfirmed::run(scope, report);
    }
    let statement = "SELECT storage_private.expire_uploads($1)";
    in_steps(scope, statement, report, |report| &mut report.uploads_expired)
}

/// Deletes files whose time is over.
pub fn files(scope: Scope, report: &mut Report) -> Result<()> {
    in_steps(scope, "SELECT storage_private.expire_files($1)", report, |report| &mut report.files_expired)
}
