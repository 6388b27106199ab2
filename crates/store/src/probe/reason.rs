//! Which answers refuse a request for the reason that a trial is about. Any other proves nothing.

use crate::error::{ErrorKind, StoreError};

/// Codes by which a store turns down the credentials, whatever the request.
const ABOUT_CREDENTIALS: [&str; 7] = [
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "AllAccessDisabled",
    "AccountProblem",
    "NotSignedUp",
];

/// Why a request should be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// There is none.
    None,
    /// The store takes exception to a header that it does not know.
    Header,
    /// The body does not have the declared sum.
    Sum,
    /// The key exists.
    Condition,
    /// The body does not have the declared sum, and the key exists.
    SumOrCondition,
    /// It is not what was signed, or no longer valid.
    Signature,
    /// The same, or the store does not even say that there is something.
    Absence,
}

impl Reason {
    /// Whether `error` refuses for this reason. Stores agree about a condition, hardly about the rest: a wrong sum
    /// is 400 or 422 under several codes, an expired URL 403 or, in Garage, 400.
    pub(super) fn explains(self, error: &StoreError) -> bool {
        match self {
            Self::None => false,
            Self::Header => is_bad_request(error) || error.kind == ErrorKind::Precondition,
            Self::Sum => is_bad_request(error),
            Self::Condition => is_condition(error),
            Self::SumOrCondition => is_bad_request(error) || is_condition(error),
            Self::Signature => is_bad_request(error) || is_forbidden(error),
            Self::Absence => {
                is_bad_request(error)
                    || is_forbidden(error)
                    || matches!(error.kind, ErrorKind::NotFound | ErrorKind::NoSuchBucket)
            }
        }
    }
}

/// A refusal for what the request is. A conflict is not: it depends on what others do.
fn is_bad_request(error: &StoreError) -> bool {
    error.kind == ErrorKind::Invalid
        && error.status.is_some_and(|status| matches!(status, 400..=499 if status != 409))
}

/// On AWS, who comes while another's create-only PUT is under way may get a conflict instead of a 412.
fn is_condition(error: &StoreError) -> bool {
    error.kind == ErrorKind::Precondition
        || (error.status == Some(409) && error.code.as_deref() == Some("ConditionalRequestConflict"))
}

fn is_forbidden(error: &StoreError) -> bool {
    let code = error.code.as_deref().unwrap_or_default();
    error.kind == ErrorKind::Denied && !ABOUT_CREDENTIALS.contains(&code)
}
