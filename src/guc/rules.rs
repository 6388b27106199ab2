//! What the values of settings must be; the reason where one is not.

use std::ffi::{CStr, CString, c_char};

use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::origin::Origin;
use pg_storage_core::physical::{BucketPrefix, KeyPrefix};
use pgrx::pg_sys;

/// The origins in a comma-separated list.
pub fn parse_origins(list: &str) -> Result<Vec<Origin>, String> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| Origin::parse(item).map_err(|invalid| format!("{} ({item})", invalid.message)))
        .collect()
}

/// The names in a comma-separated list of SQL identifiers, as PostgreSQL reads such lists; `None`: it is none.
pub fn parse_identifiers(list: &str) -> Option<Vec<String>> {
    let raw = CString::new(list).ok()?.into_bytes_with_nul();
    let mut names = std::ptr::null_mut();
    // SAFETY: the function changes the string, which is a copy; the list it makes points into that.
    unsafe {
        let copy = pg_sys::pstrdup(raw.as_ptr().cast());
        if !pg_sys::SplitIdentifierString(copy, b',' as c_char, &mut names) {
            return None;
        }
        let names = pgrx::PgList::<c_char>::from_pg(names);
        names.iter_ptr().map(|name| CStr::from_ptr(name).to_str().ok().map(str::to_owned)).collect()
    }
}

pub(super) fn identifiers(value: &str) -> Result<(), String> {
    parse_identifiers(value).map(drop).ok_or_else(|| "it is a list of names, separated by commas".into())
}

pub(super) fn any(_: &str) -> Result<(), String> {
    Ok(())
}

pub(super) fn endpoint(value: &str) -> Result<(), String> {
    Endpoint::parse(value).map(drop)
}

/// Whether a value can be a region; the reason if not.
pub fn region(value: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if value.len() <= 64 && value.chars().all(legal) {
        Ok(())
    } else {
        Err("a region is up to 64 letters, digits, hyphens and underscores".into())
    }
}

/// Whether a value can be the name of a custom setting; the reason if not.
pub fn setting_name(value: &str) -> Result<(), String> {
    let legal = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if value.contains('.') && value.split('.').all(legal) {
        Ok(())
    } else {
        Err("it is the name of a custom setting, such as jwt.claims.user_id".into())
    }
}

pub(super) fn prefix(value: &str) -> Result<(), String> {
    BucketPrefix::parse(value).map(drop)
}

pub(super) fn key_prefix(value: &str) -> Result<(), String> {
    KeyPrefix::parse(value).map(drop)
}

pub(super) fn origins(value: &str) -> Result<(), String> {
    parse_origins(value).map(drop)
}
