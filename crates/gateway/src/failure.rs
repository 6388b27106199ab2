//! What can go wrong inside the store, and what the client is told: S3's own codes, nothing about the disk.

use http::StatusCode;
use s3s::{S3Error, S3ErrorCode};

/// An operation's failure: an answer S3 defines, or trouble with the disk or the index.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The request is refused with this S3 error.
    #[error("{0}")]
    Refused(S3Error),
    /// A file could not be read or written.
    #[error("disk: {0}")]
    Disk(#[from] std::io::Error),
    /// The index could not be read or written.
    #[error("index: {0}")]
    Index(#[from] redb::Error),
    /// A record of the index does not decode, or a document in one.
    #[error("record: {0}")]
    Record(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The blocking task died.
    #[error("task: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Result of an operation inside the store.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// Whether the index must be reopened before it works again: after an I/O error redb refuses everything.
    pub fn breaks_index(&self) -> bool {
        matches!(
            self,
            Self::Index(redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::DatabaseClosed)
        )
    }
}

impl From<S3Error> for Failure {
    fn from(error: S3Error) -> Self {
        Self::Refused(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Record(Box::new(error))
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Index(error.into())
            }
        }
    )*};
}
from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError
);

impl From<Failure> for S3Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error,
            Failure::Disk(error) if is_full(&error) => full(),
            Failure::Index(redb::Error::Io(error)) if is_full(&error) => full(),
            other => {
                let mut error = S3Error::with_message(
                    S3ErrorCode::InternalError,
                    "We encountered an internal error. Please try again.",
                );
                error.set_source(Box::new(other));
                error
            }
        }
    }
}

/// An S3 error with a code that s3s does not know.
pub fn custom(code: &'static str, status: StatusCode, message: &'static str) -> S3Error {
    let mut error = S3Error::with_message(S3ErrorCode::Custom(code.into()), message);
    error.set_status_code(status);
    error
}

/// 507 and not 503: clients repeat a 503, and a full disk does not empty itself.
fn full() -> S3Error {
    custom(
        "InsufficientStorage",
        StatusCode::INSUFFICIENT_STORAGE,
        "There is no space left for this object; nothing of it was kept.",
    )
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
