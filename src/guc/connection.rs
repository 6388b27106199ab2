//! Settings that come with a connection to a server that did not preload the library.
//!
//! Before the library is loaded PostgreSQL does not know who may set them. It takes the value of the connection
//! (`PGOPTIONS`) in the place of what the configuration file, the database and the role say, and drops it for the built-in
//! default when it learns that the caller may not: to believe claims, and to limit nothing. Where the library is preloaded
//! PostgreSQL refuses such a connection; here the library refuses to be loaded into it.

use std::ffi::CStr;

use pg_storage_core::error::Token;
use pgrx::pg_sys;

use crate::error::{Failure, Result};

/// Refuses a session that brought settings of ours which it may not set. Before they are defined.
///
/// # Errors
/// `RBAC_FORBIDDEN`.
pub fn check() -> Result<()> {
    for setting in settings() {
        // SAFETY: PostgreSQL's array holds valid settings; a name is a C string that lives as long as its setting.
        let (source, name) = unsafe { ((*setting).reset_source, CStr::from_ptr((*setting).name)) };
        let label = name.to_string_lossy().to_lowercase();
        if source != pg_sys::GucSource::PGC_S_CLIENT || !label.starts_with("pg_storage.") {
            continue;
        }
        // SAFETY: only sessions have values of a connection, and they load libraries in a transaction.
        let may = unsafe {
            let role = pg_sys::GetSessionUserId();
            pg_sys::pg_parameter_aclcheck(name.as_ptr(), role, pg_sys::ACL_SET as pg_sys::AclMode)
                == pg_sys::AclResult::ACLCHECK_OK
        };
        if !may {
            return Err(Failure::new(Token::RbacForbidden, "the connection sets what its role may not set")
                .detail(format!("It came with a value for {label}, which hides the one of the server."))
                .hint("Connect without it (PGOPTIONS, or options in the connection string)."));
        }
    }
    Ok(())
}

/// Every setting that PostgreSQL knows by now.
fn settings() -> Vec<*mut pg_sys::config_generic> {
    // SAFETY: on the main thread; the array has as many elements as PostgreSQL says, and is copied before anything that
    // could change it.
    unsafe {
        #[cfg(feature = "pg15")]
        let (first, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(feature = "pg15"))]
        let (first, count) = {
            let mut count = 0;
            (pg_sys::get_guc_variables(&raw mut count), count)
        };
        std::slice::from_raw_parts(first, usize::try_from(count).unwrap_or_default()).to_vec()
    }
}
