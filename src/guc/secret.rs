//! Settings that hold a secret. PostgreSQL keeps, shows, compares and logs a constant in place of their values.
//!
//! At a reload PostgreSQL logs each value that changed, and what it changed to. So the check hook moves the value aside,
//! into the `extra` that PostgreSQL carries along with it, and leaves the constant; the assign hook finds it there. The
//! old value and the new one are then equal, whatever they are.

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use pgrx::prelude::*;

use super::EPOCH;
use super::hooks::refuse;

/// What stands for every value, and for none. As a value it means none: PostgreSQL hands it to parallel workers, which
/// never sign.
const MASK: &CStr = c"********";

/// Access key. Configuration file only, never shown.
pub static ACCESS_KEY_ID: Secret = Secret::new();
/// Secret key. Configuration file only, never shown.
pub static SECRET_ACCESS_KEY: Secret = Secret::new();

/// A setting whose value only this library sees.
pub struct Secret {
    shown: GucSetting<Option<CString>>,
    /// The `extra` of the value in force, PostgreSQL's to free; null: none.
    value: AtomicPtr<c_char>,
}

impl Secret {
    const fn new() -> Self {
        Self { shown: GucSetting::<Option<CString>>::new(Some(MASK)), value: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The value; `None` when there is none.
    pub fn get(&self) -> Option<String> {
        let value = self.value.load(Ordering::Relaxed);
        // SAFETY: null, or a C string that PostgreSQL frees only after the assign hook has put another one here.
        (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
    }
}

/// Defines the two, each with hooks of its own.
pub fn define() {
    macro_rules! define {
        ($name:literal, $full_name:literal, $short:literal, $setting:ident) => {{
            #[pg_guard]
            unsafe extern "C-unwind" fn check(
                value: *mut *mut c_char,
                extra: *mut *mut c_void,
                _source: pg_sys::GucSource::Type,
            ) -> bool {
                // SAFETY: PostgreSQL passes the value it has allocated, and a place for the extra.
                unsafe { conceal($name, value, extra) }
            }
            unsafe extern "C-unwind" fn assign(_: *const c_char, extra: *mut c_void) {
                $setting.value.store(extra.cast(), Ordering::Relaxed);
                EPOCH.fetch_add(1, Ordering::Relaxed);
            }
            // SAFETY: the check hook is guarded, the assign hook cannot fail; both keep to PostgreSQL's contract.
            unsafe {
                GucRegistry::define_string_guc_with_hooks(
                    $full_name,
                    $short,
                    c"Set it in the configuration file of a server that preloads the library; it is never shown.",
                    &$setting.shown,
                    GucContext::Sighup,
                    GucFlags::SUPERUSER_ONLY | GucFlags::NO_SHOW_ALL | GucFlags::DISALLOW_IN_AUTO_FILE,
                    Some(check as unsafe extern "C-unwind" fn(_, _, _) -> _),
                    Some(assign),
                    None,
                );
            }
        }};
    }
    define!("access_key_id", c"pg_storage.access_key_id", c"Access key of the store.", ACCESS_KEY_ID);
    define!(
        "secret_access_key",
        c"pg_storage.secret_access_key",
        c"Secret key of the store.",
        SECRET_ACCESS_KEY
    );
}

/// Moves a value into the extra and puts the mask in its place.
///
/// # Safety
/// As for a string's check hook: `value` points to null or to a C string made by PostgreSQL's allocator for settings,
/// `extra` to a place for another.
unsafe fn conceal(name: &str, value: *mut *mut c_char, extra: *mut *mut c_void) -> bool {
    // SAFETY: by the caller's promise; what is given away or taken over comes from the allocator of settings.
    unsafe {
        let given = *value;
        if !given.is_null() && CStr::from_ptr(given) == MASK {
            return true;
        }
        if !given.is_null() && CStr::from_ptr(given).to_str().is_err() && !refuse(name, "it is not UTF-8") {
            return false;
        }
        let mask = duplicate(MASK);
        if mask.is_null() {
            return refuse(name, "there is no memory for it");
        }
        *value = mask;
        if given.is_null() || CStr::from_ptr(given).is_empty() {
            release(given);
        } else {
            *extra = given.cast();
        }
        true
    }
}

/// A copy by the allocator of settings; null when there is no memory.
fn duplicate(text: &CStr) -> *mut c_char {
    #[cfg(feature = "pg15")]
    // SAFETY: strdup copies a C string.
    unsafe {
        libc::strdup(text.as_ptr())
    }
    #[cfg(not(feature = "pg15"))]
    // SAFETY: as above; below ERROR it returns null where there is no memory.
    unsafe {
        pg_sys::guc_strdup(pg_sys::LOG as i32, text.as_ptr())
    }
}

/// # Safety
/// `text` is null or comes from the allocator of settings, and is used by nobody any more.
unsafe fn release(text: *mut c_char) {
    #[cfg(feature = "pg15")]
    // SAFETY: by the caller's promise.
    unsafe {
        libc::free(text.cast());
    }
    #[cfg(not(feature = "pg15"))]
    // SAFETY: by the caller's promise; null is allowed.
    unsafe {
        if !text.is_null() {
            pg_sys::guc_free(text.cast());
        }
    }
}
