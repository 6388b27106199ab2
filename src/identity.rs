//! Who the caller is: what the claims say, or the role, where whoever runs SQL is not to be believed.
//!
//! The role is the current one, whose rights and policies PostgreSQL goes by as well. SET ROLE changes it, to roles that
//! the caller is a member of and no others; in a SECURITY DEFINER function it is that function's owner.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};

use pg_storage_core::error::Token;
use pgrx::pg_sys;

use crate::error::{Failure, Result};
use crate::guc::{self, IdentitySource};

/// The caller's user id.
pub fn user() -> Result<String> {
    let claimed = match guc::IDENTITY_SOURCE.get() {
        IdentitySource::Claims => claim("user_id_setting", &guc::USER_ID_SETTING, "sub")?,
        IdentitySource::Role => None,
    };
    claimed.map_or_else(role_name, Ok)
}

/// The caller's tenant.
pub fn tenant() -> Result<String> {
    let named = match guc::IDENTITY_SOURCE.get() {
        IdentitySource::Claims => claim("tenant_id_setting", &guc::TENANT_ID_SETTING, "tenant_id")?,
        IdentitySource::Role => guc::text(&guc::TENANT),
    };
    named.or_else(|| guc::text(&guc::DEFAULT_TENANT)).ok_or_else(|| {
        Failure::new(Token::TenantRequired, "the caller has no tenant")
            .detail("Neither the claims nor pg_storage.tenant, whichever counts, nor pg_storage.default_tenant name one.")
            .hint("Set the claim named by pg_storage.tenant_id_setting, or pg_storage.default_tenant; with pg_storage.identity_source = role, pg_storage.tenant.")
    })
}

/// The value of the setting named by `setting`, else `member` of the JSON in request.jwt.claims.
///
/// # Errors
/// `NOT_CONFIGURED` when that is no name, `TENANT_REQUIRED` when the claims are set and cannot be read: everybody behind
/// one role would become one user.
fn claim(
    label: &'static str,
    setting: &'static pgrx::GucSetting<Option<CString>>,
    member: &str,
) -> Result<Option<String>> {
    if let Some(name) = guc::text(setting) {
        guc::setting_name(&name)
            .map_err(|reason| Failure::setting(label, &format!("is not valid: {reason}")))?;
        if let Some(value) = current_setting(&name)? {
            return plain(&name, value).map(Some);
        }
    }
    let Some(claims) = current_setting(CLAIMS)? else { return Ok(None) };
    match serde_json::from_str(&claims) {
        Ok(serde_json::Value::Object(claims)) => claims.get(member).map(text_of).transpose(),
        _ => Err(unreadable(CLAIMS, "It is set, but is no JSON object.")),
    }
}

/// The setting that carries all claims as JSON; PostgREST's.
const CLAIMS: &str = "request.jwt.claims";

/// Claims are never repeated: they are somebody's.
fn unreadable(setting: &str, why: &str) -> Failure {
    Failure::new(Token::TenantRequired, format!("the claims in {setting} cannot be read"))
        .detail(why)
        .hint("Set it to the claims of the caller, or to an empty string where there are none.")
}

/// The text of a claim that is there. Whoever has a claim that says nothing is not taken for somebody without one.
fn text_of(claim: &serde_json::Value) -> Result<String> {
    match claim {
        serde_json::Value::String(text) if !text.is_empty() => plain(CLAIMS, text.clone()),
        // Beyond these, two numbers can be one.
        serde_json::Value::Number(number) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        _ => Err(unreadable(
            CLAIMS,
            "The claim is neither a text that says something nor an integer of 64 bits.",
        )),
    }
}

/// A control character ends a text or hides a part of it somewhere: a NUL does in PostgreSQL.
fn plain(setting: &str, text: String) -> Result<String> {
    if text.chars().any(char::is_control) {
        return Err(unreadable(setting, "A claim has control characters."));
    }
    Ok(text)
}

/// The value of a setting of any name; missing and empty are `None`.
fn current_setting(name: &str) -> Result<Option<String>> {
    let Ok(c_name) = CString::new(name) else { return Ok(None) };
    // SAFETY: a C string in, a C string or null out (missing_ok), copied before anything else runs.
    let value = unsafe {
        let value = pg_sys::GetConfigOptionByName(c_name.as_ptr(), std::ptr::null_mut(), true);
        if value.is_null() {
            return Ok(None);
        }
        CStr::from_ptr(value).to_owned()
    };
    match value.into_string() {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(_) => Err(unreadable(name, "It is set, but is not UTF-8.")),
    }
}

/// # Errors
/// `TENANT_REQUIRED` for a name that was made in another encoding: what could be read of it may be another role's.
fn role_name() -> Result<String> {
    // SAFETY: the current user's id always names a role; with noerr = false the result is never null.
    let name = unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(pg_sys::GetUserId(), false)) };
    name.to_str().map(ToOwned::to_owned).map_err(|_| {
        Failure::new(Token::TenantRequired, "the name of the role is not UTF-8")
            .detail("It was made in a database of another encoding.")
            .hint("Rename the role in a database in UTF8.")
    })
}
