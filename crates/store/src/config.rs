//! Where the store is, who we are to it and how long we wait for it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::Credentials;

/// How to reach one store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The S3 endpoint that the server itself calls.
    pub endpoint: Endpoint,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the bucket is the first segment of the path (`true`) or the first label of the host.
    pub path_style: bool,
    /// Who we are.
    pub credentials: CredentialSource,
    /// The longest a connection may take, TLS handshake included.
    pub connect_timeout: Duration,
    /// The longest a whole operation may take, all attempts and the waits between them included. For an object
    /// that is streamed it bounds the time to the first byte and then each pause between two pieces, so that
    /// size alone never fails a transfer.
    pub request_timeout: Duration,
    /// How many times a request is sent at most; at least 1.
    pub max_attempts: u32,
}

/// Where credentials come from.
#[derive(Clone)]
pub enum CredentialSource {
    /// Given.
    Static(Credentials),
    /// Found the way AWS tools find them, when they are first needed and again before they expire.
    ///
    /// With neither field set this is the AWS default chain: environment, profile, web identity, container,
    /// instance. With either set only that profile of the credentials and configuration files is used (it may
    /// assume a role or name another source), so that a mistyped name never falls through to other rights.
    DefaultChain {
        /// The profile; default `AWS_PROFILE`, then `default`.
        profile: Option<String>,
        /// The credentials file; default `AWS_SHARED_CREDENTIALS_FILE`, then `~/.aws/credentials`.
        credentials_file: Option<PathBuf>,
    },
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(_) => f.write_str("Static(..)"),
            Self::DefaultChain { profile, credentials_file } => f
                .debug_struct("DefaultChain")
                .field("profile", profile)
                .field("credentials_file", credentials_file)
                .finish(),
        }
    }
}
