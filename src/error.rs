//! Failures as PostgreSQL reports them: token and SQLSTATE, DETAIL, HINT. One place maps meaning to SQLSTATE.

use pg_storage_core::error::{Invalid, Token};
use pg_storage_store::{ErrorKind, StoreError};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;

/// Why a call fails, in the words the caller will read.
#[derive(Debug)]
pub struct Failure {
    /// `None` is a defect of ours: XX000, no token.
    token: Option<Token>,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

/// What fallible code below the SQL functions returns.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with a token; add [`detail`](Self::detail) and [`hint`](Self::hint).
    pub fn new(token: Token, message: impl Into<String>) -> Self {
        Self { token: Some(token), message: message.into(), detail: None, hint: None }
    }

    /// Something that cannot happen, did.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { token: None, message: message.into(), detail: None, hint: None }
    }

    /// An ERROR or a panic that was caught, for places that go on without the statement.
    pub fn caught(error: &CaughtError) -> Self {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = error;
        Self {
            token: None,
            message: report.message().to_owned(),
            detail: report.detail().map(str::to_owned),
            hint: report.hint().map(str::to_owned),
        }
    }

    /// `pg_storage.{setting}` is missing or wrong.
    pub fn setting(setting: &str, reason: &str) -> Self {
        Self::new(Token::NotConfigured, format!("pg_storage.{setting} {reason}"))
            .detail(format!("Setting pg_storage.{setting}."))
            .hint(format!("Set pg_storage.{setting} and reload; storage.check() examines all settings."))
    }

    /// The values that led here.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Which of many it is about, told before the values.
    pub fn about(mut self, which: String) -> Self {
        self.detail = Some(match self.detail {
            Some(detail) => format!("{which}: {detail}"),
            None => format!("{which}."),
        });
        self
    }

    /// The way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The token's words and the message, for places that report a failure as a value.
    pub fn summary(&self) -> String {
        match self.token {
            Some(token) => format!("{token}: {}", self.message),
            None => self.message.clone(),
        }
    }

    /// The values that led here, for places that report a failure as a value.
    pub fn details(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The way out, for places that report a failure as a value.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Ends the statement with this failure.
    pub fn raise(self) -> ! {
        let code = self.token.map_or(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, sqlstate);
        let mut report = pg_sys::panic::ErrorReport::new(code, self.summary(), "pg_storage");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        report.report(PgLogLevel::ERROR);
        unreachable!("an ERROR report does not return")
    }
}

/// Ends the statement where there is no value to go on with.
pub trait OrRaise<T> {
    /// The value, or the end of the statement.
    fn or_raise(self) -> T;
}

impl<T, E: Into<Failure>> OrRaise<T> for std::result::Result<T, E> {
    fn or_raise(self) -> T {
        self.unwrap_or_else(|error| error.into().raise())
    }
}

/// An id as an error's detail gives it. NULL is the id of nothing, and the nil UUID stands for it.
pub fn shown_id(id: pgrx::Uuid) -> String {
    if id.as_bytes() == &[0; 16] { "NULL".to_owned() } else { format!("'{id}'") }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self {
            token: Some(invalid.token),
            message: invalid.message,
            detail: invalid.detail,
            hint: invalid.hint,
        }
    }
}

impl From<pgrx::spi::Error> for Failure {
    fn from(error: pgrx::spi::Error) -> Self {
        Self::internal(format!("unexpected answer from the catalog: {error}"))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (token, hint) = match error.kind {
            ErrorKind::Timeout => (
                Token::StoreTimeout,
                "Try again; pg_storage.connect_timeout and pg_storage.request_timeout set how long a call may take.",
            ),
            ErrorKind::Unavailable => (
                Token::StoreUnavailable,
                "Try again; storage.check() tells whether the store can be reached.",
            ),
            ErrorKind::Denied => (
                Token::StoreDenied,
                "The credentials lack the right, or are wrong; storage.check() examines them.",
            ),
            ErrorKind::NameTaken => (
                Token::BucketNameTaken,
                "Another account owns this bucket. Choose another pg_storage.bucket_prefix, or preset buckets.physical_name.",
            ),
            ErrorKind::NoSuchBucket => (
                Token::StoreError,
                "The bucket is gone from the store; storage.provision_bucket() makes it again.",
            ),
            // Garage lists the part that arrived, and does not join it once another of its number was begun.
            _ if error.code.as_deref() == Some("InvalidPart") => (
                Token::StoreError,
                "A part was begun a second time and that broke off: send those parts again that were sent twice, or all, with URLs of storage.sign_upload_parts(), and confirm again.",
            ),
            _ => (Token::StoreError, "The request id in DETAIL finds the call in the store's log."),
        };
        Self::new(token, format!("{} failed: {}", error.operation, error.message))
            .detail(store_detail(&error))
            .hint(hint)
    }
}

/// Status, code, request id and attempts of a failed call, those that are known.
pub fn store_detail(error: &StoreError) -> String {
    let mut parts = vec![format!("Operation {}", error.operation)];
    if let Some(status) = error.status {
        parts.push(format!("status {status}"));
    }
    if let Some(code) = &error.code {
        parts.push(format!("code {code}"));
    }
    if let Some(id) = &error.request_id {
        parts.push(format!("request id {id}"));
    }
    if let Some(attempts) = error.attempts {
        parts.push(format!("{attempts} attempt(s)"));
    }
    format!("{}.", parts.join(", "))
}

/// The SQLSTATE that groups a token (DESIGN section 4).
fn sqlstate(token: Token) -> PgSqlErrorCode {
    match token {
        Token::InvalidBucketKey
        | Token::InvalidContentHash
        | Token::InvalidContentType
        | Token::InvalidFileSize
        | Token::InvalidFilename
        | Token::InvalidPath
        | Token::InvalidExpiry
        | Token::InvalidOrigin
        | Token::InvalidMetadata
        | Token::InvalidPageToken
        | Token::InvalidDelimiter
        | Token::InvalidPart
        | Token::InvalidLimit
        | Token::InvalidPolicy
        | Token::ContentTypeNotAllowed
        | Token::UploadTypeMismatch => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        Token::BucketNotFound | Token::UploadNotFound | Token::FileNotFound | Token::PolicyNotFound => {
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT
        }
        Token::BucketExists | Token::PathTaken | Token::PolicyExists => {
            PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT
        }
        Token::RbacForbidden | Token::TenantRequired => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Token::FileTooLarge
        | Token::BulkUploadFilesExceeded
        | Token::BulkUploadSizeExceeded
        | Token::QuotaExceeded
        | Token::TooManyPendingUploads
        | Token::RateLimit
        | Token::NoWorkerSlot => PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        Token::NotConfigured
        | Token::DefaultBucketMissing
        | Token::DefaultBucketAmbiguous
        | Token::BucketNotEmpty
        | Token::UploadNotPending
        | Token::NotPublic
        | Token::NeedsPreload
        | Token::NotOwnerOfObjects
        | Token::WorkerRunning => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        Token::StoreUnavailable
        | Token::StoreTimeout
        | Token::StoreDenied
        | Token::StoreError
        | Token::BucketNameTaken => PgSqlErrorCode::ERRCODE_IO_ERROR,
        Token::ReadOnly => PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
    }
}
