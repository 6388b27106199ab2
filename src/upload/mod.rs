//! Uploads: admitted, opened, confirmed, aborted. The rows are SQL's; deciding, signing and asking the store are here.
//!
//! - [`admission`]: what is declared, held against the rules; what only the server chooses
//! - [`request`], [`bulk`]: tickets, for one file and for many
//! - [`own`]: bytes that the server brings itself
//! - [`form`], [`parts`]: uploads by form and in parts
//! - [`pending`]: requests as they stand
//! - [`mod@examine`]: what the store is asked
//! - [`mod@confirm`]: what becomes of it

use pg_storage_core::agreement;
use pg_storage_core::content_type::ContentType;
use pg_storage_core::name::Filename;
use pg_storage_core::path::FilePath;

use crate::error::{OrRaise, Result};

mod admission;
mod bulk;
mod confirm;
mod examine;
mod form;
mod own;
mod parts;
mod pending;
mod request;

pub use admission::{Declared, admit};
pub use bulk::{check_count, open_many};
pub use confirm::{Judgement, Verified, abort, confirm, confirm_many, judge};
pub use examine::{Examined, examine, note_missing, recorded_capabilities};
pub use form::open_form;
pub use own::{Own, open_own};
pub use parts::{PartsWanted, arrived_parts, open_parts, sign_parts};
pub use pending::{Pending, close, lock_one};
pub use request::{Ticket, Wanted, destination, open};

/// Refuses a name or path that breaks the rules.
pub fn check_names(filename: &str, path: Option<&str>) {
    Filename::parse(filename).or_raise();
    path.map(FilePath::parse).transpose().or_raise();
}

/// Refuses a new name for a file whose extension contradicts its type: an upload of that would be refused, and so a copy.
pub fn check_rename(filename: &str, content_type: &str) -> Result<()> {
    let content_type = ContentType::parse(content_type)?;
    agreement::declared_with_extension(filename, &content_type).map_err(|refusal| {
        refusal.with_hint(format!(
            "A file of type {} keeps it: choose a name that ends as such files do, or one without an extension.",
            content_type.as_str()
        ))
    })?;
    Ok(())
}
