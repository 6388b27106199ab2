//! In-server tests: one transaction each, rolled back. They reach what no client can: single rooms of the house.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cache;
mod catalog;
mod error;
mod guc;
mod identity;
mod rate;
mod wait;

use pgrx::prelude::*;

/// An error as plpgsql sees it, which is how a client would: SQLSTATE, message, DETAIL, HINT.
#[derive(Debug, PartialEq, Eq)]
struct Raised {
    sqlstate: String,
    message: String,
    detail: String,
    hint: String,
}

/// Runs a statement in a subtransaction and gives its error; fails the test when there is none.
fn raised(statement: &str) -> Raised {
    let defined = text("SELECT to_regproc('pg_temp.raised')::text").is_some();
    // A test may have become a role that does not own the function.
    let define = if defined {
        "SELECT 1"
    } else {
        "CREATE FUNCTION pg_temp.raised(statement text) RETURNS text[] LANGUAGE plpgsql AS $$
         DECLARE m text; d text; h text;
         BEGIN
             EXECUTE statement;
             RETURN NULL;
         EXCEPTION WHEN OTHERS OR query_canceled THEN
             GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
             RETURN ARRAY[SQLSTATE, m, d, h];
         END $$"
    };
    Spi::run(define).unwrap();
    let parts = Spi::get_one_with_args::<Vec<String>>("SELECT pg_temp.raised($1)", &[statement.into()])
        .unwrap()
        .unwrap_or_else(|| panic!("{statement} raised nothing"));
    let [sqlstate, message, detail, hint] = parts.try_into().unwrap();
    Raised { sqlstate, message, detail, hint }
}

/// One text value.
fn text(query: &str) -> Option<String> {
    Spi::get_one::<String>(query).unwrap()
}
