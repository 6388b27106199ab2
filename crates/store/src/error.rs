//! What can go wrong between us and a store, by meaning and not by transport.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::{Headers, Response};

/// The longest text taken over from a store or a transport, in characters.
const MAX_MESSAGE: usize = 300;

/// What a failure means to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The object, or the asked-for configuration of a bucket, does not exist.
    NotFound,
    /// The bucket does not exist.
    NoSuchBucket,
    /// The bucket exists already and is ours.
    AlreadyExists,
    /// The bucket's name belongs to somebody else.
    NameTaken,
    /// A condition of the request did not hold (412).
    Precondition,
    /// The store refused the credentials or their rights.
    Denied,
    /// The store could not be reached or says that it cannot serve now; trying again later may help.
    Unavailable,
    /// A deadline passed.
    Timeout,
    /// The request cannot be served as it is.
    Invalid,
    /// The store does not have this function.
    NotImplemented,
    /// An answer that makes no sense.
    Unexpected,
}

/// A failed call to the store.
///
/// It carries what an operator needs to look the call up at the store and never a credential, a header or the
/// query of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// What it means.
    pub kind: ErrorKind,
    /// The S3 operation, for example `HeadObject`.
    pub operation: &'static str,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// The store's error code, for example `AccessDenied`.
    pub code: Option<String>,
    /// The store's id of the request, for its operator.
    pub request_id: Option<String>,
    /// What happened, for humans.
    pub message: String,
    /// How many times the request was sent, if it was sent at all.
    pub attempts: Option<u32>,
}

impl StoreError {
    /// A failure found on our side of the wire.
    pub(crate) fn local(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            operation,
            status: None,
            code: None,
            request_id: None,
            message: message.into(),
            attempts: None,
        }
    }

    /// The meaning of what the SDK returned for `operation` after `attempts` tries.
    pub(crate) fn from_sdk<E>(operation: &'static str, error: &SdkError<E, Response>, attempts: u32) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let attempts = (attempts > 0).then_some(attempts);
        match error {
            SdkError::TimeoutError(_) => Self {
                attempts,
                ..Self::local(ErrorKind::Timeout, operation, "no answer within the request's time limit")
            },
            SdkError::DispatchFailure(failure) => {
                let kind = failure.as_connector_error().map_or(ErrorKind::Unavailable, connector_kind);
                let source = failure.as_connector_error().map_or_else(String::new, |e| chain(e));
                Self { attempts, ..Self::local(kind, operation, clean(&source)) }
            }
            SdkError::ConstructionFailure(_) => {
                Self { attempts, ..Self::local(ErrorKind::Invalid, operation, clean(&chain(error))) }
            }
            SdkError::ServiceError(answer) => {
                let meta = answer.err().meta();
                let mut mapped = Self::from_answer(
                    operation,
                    answer.raw().status().as_u16(),
                    meta.code(),
                    meta.message(),
                    answer.raw().headers(),
                );
                mapped.attempts = attempts;
                mapped.request_id = error.request_id().map(clean);
                mapped
            }
            SdkError::ResponseError(answer) => {
                let status = answer.raw().status().as_u16();
                let kind = match status {
                    200..400 => ErrorKind::Unexpected,
                    _ => meaning(status, None),
                };
                Self {
                    status: Some(status),
                    request_id: error.request_id().map(clean),
                    attempts,
                    ..Self::local(kind, operation, "the answer is not what S3 prescribes")
                }
            }
            _ => Self { attempts, ..Self::local(ErrorKind::Unexpected, operation, "the call failed") },
        }
    }

    /// The meaning of an answer with an error status.
    pub(crate) fn from_answer(
        operation: &'static str,
        status: u16,
        code: Option<&str>,
        message: Option<&str>,
        headers: &Headers,
    ) -> Self {
        let mut text = match message {
            Some(message) if !message.trim().is_empty() => clean(message),
            _ => format!("the store answered {status}"),
        };
        if let Some(region) = headers.get("x-amz-bucket-region")
            && matches!(status, 301 | 307 | 400)
        {
            text.push_str("; the bucket is in region ");
            text.push_str(&clean(region));
        }
        Self {
            kind: meaning(status, code),
            operation,
            status: Some(status),
            code: code.map(clean),
            request_id: headers.get("x-amz-request-id").map(clean),
            message: text,
            attempts: None,
        }
    }

    /// The failure of a connection that carried a request made without the SDK.
    pub(crate) fn from_connector(operation: &'static str, error: &ConnectorError) -> Self {
        Self::local(connector_kind(error), operation, clean(&chain(error)))
    }

    /// Whether the store says that another change to the same bucket is under way (or not yet seen everywhere).
    pub(crate) fn is_conflict(&self) -> bool {
        self.status == Some(409) && self.code.as_deref() != Some("BucketNotEmpty")
    }

    /// `(501 NotImplemented)`: the status and code for a sentence about this failure.
    pub(crate) fn status_and_code(&self) -> String {
        match (self.status, &self.code) {
            (Some(status), Some(code)) => format!("{status} {code}"),
            (Some(status), None) => status.to_string(),
            (None, Some(code)) => code.clone(),
            (None, None) => self.message.clone(),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.message)?;
        let attempts = self.attempts.filter(|&n| n > 1).map(|n| format!("{n} attempts"));
        let details = [
            self.status.map(|status| format!("status {status}")),
            self.code.as_ref().map(|code| format!("code {code}")),
            self.request_id.as_ref().map(|id| format!("request id {id}")),
            attempts,
        ];
        let mut separator = " (";
        for detail in details.iter().flatten() {
            write!(f, "{separator}{detail}")?;
            separator = ", ";
        }
        if separator == ", " { f.write_str(")") } else { Ok(()) }
    }
}

impl Error for StoreError {}

fn connector_kind(error: &ConnectorError) -> ErrorKind {
    if error.is_timeout() {
        ErrorKind::Timeout
    } else if error.is_user() {
        ErrorKind::Invalid
    } else {
        ErrorKind::Unavailable
    }
}

/// The meaning of a status and an S3 error code.
///
/// The code decides where it is known, because stores disagree about statuses: an expired session token is a
/// 400 on AWS, a bucket that exists is a 409 with two codes of opposite meaning.
fn meaning(status: u16, code: Option<&str>) -> ErrorKind {
    match code.unwrap_or_default() {
        "NoSuchBucket" => return ErrorKind::NoSuchBucket,
        "NoSuchKey"
        | "NoSuchUpload"
        | "NoSuchVersion"
        | "NoSuchBucketPolicy"
        | "NoSuchCORSConfiguration"
        | "NoSuchLifecycleConfiguration"
        | "NoSuchPublicAccessBlockConfiguration" => return ErrorKind::NotFound,
        "BucketAlreadyOwnedByYou" => return ErrorKind::AlreadyExists,
        "BucketAlreadyExists" => return ErrorKind::NameTaken,
        "PreconditionFailed" => return ErrorKind::Precondition,
        "AccessDenied"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "RequestTimeTooSkewed"
        | "RequestExpired"
        | "InvalidSecurity"
        | "NotSignedUp"
        | "Forbidden"
        | "Unauthorized" => return ErrorKind::Denied,
        "RequestTimeout" => return ErrorKind::Timeout,
        "OperationAborted"
        | "ConditionalRequestConflict"
        | "SlowDown"
        | "ServiceUnavailable"
        | "InternalError"
        | "ThrottlingException"
        | "Throttling"
        | "TooManyRequests"
        | "BandwidthLimitExceeded" => return ErrorKind::Unavailable,
        "NotImplemented"
        | "Unimplemented"
        | "XNotImplemented"
        | "NotSupported"
        | "UnsupportedOperation"
        | "MethodNotAllowed" => return ErrorKind::NotImplemented,
        _ => {}
    }
    match status {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        405 | 501 => ErrorKind::NotImplemented,
        408 => ErrorKind::Timeout,
        412 => ErrorKind::Precondition,
        429 | 500 | 502..600 => ErrorKind::Unavailable,
        300..500 => ErrorKind::Invalid,
        _ => ErrorKind::Unexpected,
    }
}

/// The innermost reasons of a transport failure, outermost first, each once.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}

/// Foreign text made fit for a one-line message: bounded and without control characters.
pub(crate) fn clean(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect()
}
