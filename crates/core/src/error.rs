//! Why something was refused: a stable token, and words for the person who reads it.

use std::fmt;

macro_rules! tokens {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The stable first word of every error message. Clients branch on it; its text never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Token {
            $($(#[$doc])* $variant,)*
        }

        impl Token {
            /// Every token, in the order of the documentation.
            pub const ALL: &[Token] = &[$(Token::$variant,)*];

            /// The token as it appears in messages, such as `INVALID_BUCKET_KEY`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Token::$variant => $text,)*
                }
            }
        }
    };
}

tokens! {
    /// A bucket's key is not made of the allowed characters, or looks like an id.
    InvalidBucketKey = "INVALID_BUCKET_KEY",
    /// A content hash is not 64 lower-case hexadecimal digits.
    InvalidContentHash = "INVALID_CONTENT_HASH",
    /// A content type does not follow the grammar of RFC 9110 and RFC 6838.
    InvalidContentType = "INVALID_CONTENT_TYPE",
    /// A size is zero, negative or above what the server allows at all.
    InvalidFileSize = "INVALID_FILE_SIZE",
    /// A file name is empty, too long or contains what no file name may.
    InvalidFilename = "INVALID_FILENAME",
    /// A path is absolute, traverses upwards or contains what no path may.
    InvalidPath = "INVALID_PATH",
    /// A lifetime is not between one second and seven days.
    InvalidExpiry = "INVALID_EXPIRY",
    /// An origin is not something a browser sends, or one of the supported wildcards.
    InvalidOrigin = "INVALID_ORIGIN",
    /// Metadata is not a JSON object.
    InvalidMetadata = "INVALID_METADATA",
    /// A page token was not made by the listing it is given to.
    InvalidPageToken = "INVALID_PAGE_TOKEN",
    /// A delimiter was given where there are no folders.
    InvalidDelimiter = "INVALID_DELIMITER",
    /// A size of parts is outside of what stores take, or a part has a number that the upload does not have.
    InvalidPart = "INVALID_PART",
    /// A number of rows asked for is outside of what one call gives.
    InvalidLimit = "INVALID_LIMIT",
    /// A policy has no name, no table, no expression or no role that it could have.
    InvalidPolicy = "INVALID_POLICY",
    /// The bucket's list of allowed types does not contain the declared one.
    ContentTypeNotAllowed = "CONTENT_TYPE_NOT_ALLOWED",
    /// The file name's extension contradicts the declared content type.
    UploadTypeMismatch = "UPLOAD_TYPE_MISMATCH",
    /// No such bucket, or row-level security hides it.
    BucketNotFound = "BUCKET_NOT_FOUND",
    /// No such upload, or row-level security hides it.
    UploadNotFound = "UPLOAD_NOT_FOUND",
    /// No such file, or row-level security hides it.
    FileNotFound = "FILE_NOT_FOUND",
    /// No policy of this name was made by `storage.add_policy()`.
    PolicyNotFound = "POLICY_NOT_FOUND",
    /// The owner already has a bucket of this key.
    BucketExists = "BUCKET_EXISTS",
    /// Another current file has this path.
    PathTaken = "PATH_TAKEN",
    /// The table has a policy of this name.
    PolicyExists = "POLICY_EXISTS",
    /// The caller's role lacks the privilege.
    RbacForbidden = "RBAC_FORBIDDEN",
    /// The caller has no tenant and there is no default one.
    TenantRequired = "TENANT_REQUIRED",
    /// The file exceeds the bucket's own limit.
    FileTooLarge = "FILE_TOO_LARGE",
    /// Too many files in one call.
    BulkUploadFilesExceeded = "BULK_UPLOAD_FILES_EXCEEDED",
    /// Too many bytes in one call.
    BulkUploadSizeExceeded = "BULK_UPLOAD_SIZE_EXCEEDED",
    /// The bucket's quota would be exceeded.
    QuotaExceeded = "QUOTA_EXCEEDED",
    /// The caller has too many uploads that were requested and never finished.
    TooManyPendingUploads = "TOO_MANY_PENDING_UPLOADS",
    /// The caller asks too often.
    RateLimit = "RATE_LIMIT",
    /// A setting without which the call cannot work is missing.
    NotConfigured = "NOT_CONFIGURED",
    /// No bucket was named and the caller has no default one.
    DefaultBucketMissing = "DEFAULT_BUCKET_MISSING",
    /// No bucket was named and the caller has several default ones.
    DefaultBucketAmbiguous = "DEFAULT_BUCKET_AMBIGUOUS",
    /// The bucket still holds files.
    BucketNotEmpty = "BUCKET_NOT_EMPTY",
    /// The upload has already ended.
    UploadNotPending = "UPLOAD_NOT_PENDING",
    /// The file is not in a public bucket.
    NotPublic = "NOT_PUBLIC",
    /// The feature needs the extension in `shared_preload_libraries`.
    NeedsPreload = "NEEDS_PRELOAD",
    /// The objects belong to the installation this database was copied from.
    NotOwnerOfObjects = "NOT_OWNER_OF_OBJECTS",
    /// A worker runs in this database already.
    WorkerRunning = "WORKER_RUNNING",
    /// The server has no room for another background worker.
    NoWorkerSlot = "NO_WORKER_SLOT",
    /// The store cannot be reached or says it is overloaded.
    StoreUnavailable = "STORE_UNAVAILABLE",
    /// The store did not answer within the deadline.
    StoreTimeout = "STORE_TIMEOUT",
    /// The store refuses the server's credentials.
    StoreDenied = "STORE_DENIED",
    /// The store answered with any other failure.
    StoreError = "STORE_ERROR",
    /// The physical bucket's name belongs to another account.
    BucketNameTaken = "BUCKET_NAME_TAKEN",
    /// The server is read-only and the call would write.
    ReadOnly = "READ_ONLY",
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an input was refused.
///
/// [`Display`](fmt::Display) gives `TOKEN: message`, which is the whole of a PostgreSQL error's primary message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{token}: {message}")]
pub struct Invalid {
    /// What kind of refusal this is.
    pub token: Token,
    /// What is wrong, without the token and without the offending value.
    pub message: String,
    /// The values that were compared or refused.
    pub detail: Option<String>,
    /// The way out.
    pub hint: Option<String>,
}

impl Invalid {
    /// A refusal with neither detail nor hint.
    pub fn new(token: Token, message: impl Into<String>) -> Self {
        Self { token, message: message.into(), detail: None, hint: None }
    }

    /// The same refusal with the values it is about.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same refusal with the way out.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The refused value as it may appear in an error's detail: escaped, so that it can neither break a log line nor reorder
/// what a terminal shows, and cut, so that a megabyte of input does not become a megabyte of log.
pub(crate) fn shown(value: &str) -> String {
    const MOST: usize = 80;
    let escaped: String = value.chars().take(MOST).flat_map(char::escape_debug).collect();
    if value.chars().nth(MOST).is_some() { format!("\"{escaped}…\"") } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn tokens_are_distinct_screaming_snake_case() {
        let texts: HashSet<_> = Token::ALL.iter().map(|token| token.as_str()).collect();
        assert_eq!(texts.len(), Token::ALL.len());
        for text in texts {
            assert!(text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{text}");
        }
    }

    #[test]
    fn display_is_token_and_message() {
        let invalid = Invalid::new(Token::InvalidPath, "a path is relative").with_hint("drop the slash");
        assert_eq!(invalid.to_string(), "INVALID_PATH: a path is relative");
    }

    #[test]
    fn shown_values_are_one_line_and_short() {
        assert_eq!(shown("a\r\nb\u{202e}"), r#""a\r\nb\u{202e}""#);
        assert_eq!(shown(&"x".repeat(80)).chars().count(), 82);
        assert_eq!(shown(&"x".repeat(81)).chars().count(), 83);
    }
}
