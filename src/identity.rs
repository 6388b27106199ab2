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
    Ok(claimed.unwrap_or_else(role_name))
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
            return Ok(Some(value));
        }
    }
    let Some(claims) = current_setting(CLAIMS)? else { return Ok(None) };
    match serde_json::from_str(&claims) {
        Ok(serde_json::Value::Object(claims)) => Ok(claims.get(member).and_then(text_of)),
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

fn text_of(claim: &serde_json::Value) -> Option<String> {
    match claim {
        serde_json::Value::String(text) if !text.is_empty() => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
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

fn role_name() -> String {
    // SAFETY: the current user's id always names a role; with noerr = false the result is never null.
    unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(pg_sys::GetUserId(), false)) }
        .to_string_lossy()
        .into_owned()
}
