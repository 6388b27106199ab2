//! URLs that carry their own permission: AWS Signature Version 4 in the query string, computed locally.
//!
//! The rules are those of AWS's "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)". S3 differs
//! from other services in two points that are followed here: a path is percent-encoded once and never normalised.

mod encode;
mod form;
mod signer;
mod target;
mod timestamp;

use std::fmt;

pub use encode::encode_key;
pub use form::{Form, SignedForm};
pub use signer::{Presign, Signer};
pub use target::{Target, plain_url};
pub use timestamp::Timestamp;

/// A text that no error, log or debug output shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself. Its uses can be found by this name.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What signs requests: a key pair, and a session token where the pair is temporary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The public half; it appears in every URL.
    pub access_key_id: String,
    /// The secret half; only keys derived from it are used.
    pub secret_access_key: Secret,
    /// The token of temporary credentials; it appears in every URL.
    pub session_token: Option<Secret>,
}

/// What a URL permits to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Download.
    Get,
    /// Upload.
    Put,
    /// Look at size, type and checksum.
    Head,
    /// Delete.
    Delete,
    /// Begin or complete a multipart upload.
    Post,
}

impl Method {
    /// The method as HTTP spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Head => "HEAD",
            Self::Delete => "DELETE",
            Self::Post => "POST",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        let credentials = Credentials {
            access_key_id: "AKID".to_owned(),
            secret_access_key: Secret::new("hush-1"),
            session_token: Some(Secret::new("hush-2")),
        };
        let shown = format!("{credentials:?} {credentials:#?}");
        assert!(shown.contains("AKID") && !shown.contains("hush"), "{shown}");
        assert_eq!(credentials.secret_access_key.expose(), "hush-1");
    }
}
