//! What PostgreSQL calls when a setting is given a value: the rule is asked, and what is derived from settings goes stale.
//! And how settings of each type are defined with that.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::Ordering;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys::{self, AsPgCStr};
use pgrx::prelude::*;

use super::{DEFINING, EPOCH, Text};

/// A check hook for a text setting: an empty value is no value, any other must pass `$rule`.
macro_rules! check_hook {
    ($name:literal, $rule:path) => {{
        #[pg_guard]
        unsafe extern "C-unwind" fn check(
            value: *mut *mut c_char,
            _extra: *mut *mut c_void,
            _source: pg_sys::GucSource::Type,
        ) -> bool {
            // SAFETY: PostgreSQL passes a pointer to the new value, a C string or null.
            let value = unsafe {
                match *value {
                    value if value.is_null() => return true,
                    value => CStr::from_ptr(value),
                }
            };
            let verdict = match value.to_str() {
                Ok("") => Ok(()),
                Ok(value) => $rule(value),
                Err(_) => Err("it is not UTF-8".to_owned()),
            };
            match verdict {
                Ok(()) => true,
                Err(reason) => refuse($name, &reason),
            }
        }
        Some(check as unsafe extern "C-unwind" fn(_, _, _) -> _)
    }};
}

/// Words for a refused value. They never repeat it: a mistyped line may hold a secret.
pub(super) fn refuse(name: &str, reason: &str) -> bool {
    if DEFINING.load(Ordering::Relaxed) {
        pgrx::warning!("pg_storage.{name} is not valid: {reason}");
        return true;
    }
    // SAFETY: the hook runs on the main thread; PostgreSQL reads these variables right after it, in the same context.
    unsafe {
        pg_sys::GUC_check_errcode(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE as i32);
        pg_sys::GUC_check_errmsg_string =
            format!("invalid value for parameter \"pg_storage.{name}\"").as_pg_cstr();
        pg_sys::GUC_check_errdetail_string = format!("pg_storage.{name}: {reason}.").as_pg_cstr();
    }
    false
}

pub(super) unsafe extern "C-unwind" fn text_assigned(_: *const c_char, _: *mut c_void) {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

pub(super) unsafe extern "C-unwind" fn bool_assigned(_: bool, _: *mut c_void) {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

pub(super) unsafe extern "C-unwind" fn int_assigned(_: i32, _: *mut c_void) {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

pub(super) fn define_text(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static Text,
    context: GucContext,
    flags: GucFlags,
    check: pg_sys::GucStringCheckHook,
) {
    // SAFETY: the hooks are guarded functions that keep to PostgreSQL's contract for them.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            context,
            flags,
            check,
            Some(text_assigned),
            None,
        );
    }
}

pub(super) fn define_bool(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<bool>,
) {
    // SAFETY: as above.
    unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            name,
            short,
            long,
            setting,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(bool_assigned),
            None,
        );
    }
}

pub(super) fn define_int(
    name: &'static CStr,
    short: &'static CStr,
    setting: &'static GucSetting<i32>,
    min: i32,
    max: i32,
    flags: GucFlags,
) {
    // SAFETY: as above.
    unsafe {
        GucRegistry::define_int_guc_with_hooks(
            name,
            short,
            c"",
            setting,
            min,
            max,
            GucContext::Suset,
            flags,
            None,
            Some(int_assigned),
            None,
        );
    }
}

pub(super) use check_hook;
