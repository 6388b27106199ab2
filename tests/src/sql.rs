//! Refusals as the client sees them: SQLSTATE, token, DETAIL and HINT.

use std::fmt::Debug;

/// An ERROR that the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// What stands before the first colon of the message: `BUCKET_NOT_FOUND`. Empty when there is no such token.
    pub token: String,
    /// The whole message.
    pub message: String,
    /// DETAIL, if sent.
    pub detail: Option<String>,
    /// HINT, if sent.
    pub hint: Option<String>,
}

impl Refusal {
    /// What the server sent; `None` when the connection broke instead.
    pub fn of(error: &postgres::Error) -> Option<Self> {
        let error = error.as_db_error()?;
        let is_token = |text: &&str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        };
        Some(Self {
            sqlstate: error.code().code().to_owned(),
            token: error.message().split(':').next().filter(is_token).unwrap_or_default().to_owned(),
            message: error.message().to_owned(),
            detail: error.detail().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
        })
    }

    /// SQLSTATE and token together, for one assertion about both.
    pub fn code(&self) -> (&str, &str) {
        (&self.sqlstate, &self.token)
    }
}

/// The server's ERROR; fails the test when the statement succeeded or the connection broke instead.
#[track_caller]
pub fn refused<T: Debug>(result: Result<T, postgres::Error>) -> Refusal {
    let error = result.expect_err("the statement should have been refused");
    Refusal::of(&error).unwrap_or_else(|| panic!("not an ERROR of the server: {error}"))
}
