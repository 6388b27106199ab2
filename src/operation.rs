//! Which operation is asking, for policies: what SELECT alone does not tell.
//!
//! A variable of this process and no setting: whoever runs SQL could set that. It holds while a function of ours asks a
//! table as its caller, and statements of the caller's own find it at rest.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::CString;

use pg_storage_core::error::Token;
use pgrx::pg_sys;

use crate::error::{Failure, Result};

/// What a function asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To see a row: every statement of the caller's own.
    Read,
    /// To see a row in a listing.
    List,
    /// To hand out a URL that shows the bytes.
    Sign,
    /// To bring bytes in: to ask for an upload, or to end one.
    Upload,
}

thread_local! {
    static CURRENT: Cell<Operation> = const { Cell::new(Operation::Read) };
}

impl Operation {
    /// Its name in policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Sign => "sign",
            Self::Upload => "upload",
        }
    }

    /// Runs a statement for this operation; the one before is back afterwards, also when an ERROR unwinds.
    pub fn during<T>(self, statement: impl FnOnce() -> T) -> T {
        let _before = Before(CURRENT.replace(self));
        statement()
    }
}

/// The operation that asks right now.
pub fn current() -> Operation {
    CURRENT.get()
}

/// The operation to go back to.
struct Before(Operation);

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// Refuses a text that PostgreSQL would not read as one expression. Nothing in it is looked up or run; what it names is
/// the policy's to find. One that closes a parenthesis which it did not open is none.
pub fn check_expression(text: &str) -> Result<()> {
    let Ok(text) = CString::new(text) else {
        return Err(Failure::new(Token::InvalidPolicy, "an expression contains no NUL"));
    };
    // SAFETY: the grammar reads a C string that outlives the call, or raises an ERROR.
    unsafe { pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_PLPGSQL_EXPR) };
    Ok(())
}
