//! The adapter over the AWS SDK: one client with our HTTP, deadlines and retries, and [`Store`] on top of it.
//!
//! [`Store`]: crate::Store

mod call;
mod convert;
mod delete;
mod list;
mod multipart;
mod read;
mod store;

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Builder, Config, IdentityCache, Region, RequestChecksumCalculation,
    ResponseChecksumValidation, SharedCredentialsProvider, StalledStreamProtectionConfig,
};
use pg_storage_core::presign::Credentials;

use crate::config::StoreConfig;
use crate::credentials::{Identity, to_core};
use crate::error::{ErrorKind, StoreError};
use crate::http::{plain_client, tls_client};

/// The first wait before a retry, randomised and doubled each time. The SDK's own second would eat a small
/// deadline, and most of what a retry cures here is a connection that had just been closed.
const FIRST_RETRY_AFTER: Duration = Duration::from_millis(100);

/// A connection to one S3-compatible store. Clones share the connections and the credentials.
#[derive(Clone)]
pub struct S3Store {
    client: Client,
    identity: Identity,
    region: String,
    endpoint: String,
    connect_timeout: Duration,
    request_timeout: Duration,
}

impl S3Store {
    /// Prepares a client; nothing is sent and no credential is looked up before the first call. The calls must be
    /// made inside a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// `Invalid` if a time limit is zero or no attempt is allowed.
    pub fn connect(config: StoreConfig) -> Result<Self, StoreError> {
        let refuse = |what| Err(StoreError::local(ErrorKind::Invalid, "connect", what));
        if config.request_timeout.is_zero() || config.connect_timeout.is_zero() {
            return refuse("time limits must be above zero");
        }
        if config.max_attempts == 0 {
            return refuse("at least one attempt must be allowed");
        }
        let identity = Identity::new(config.credentials, config.region.clone(), config.request_timeout);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(config.connect_timeout)
            .operation_timeout(config.request_timeout)
            .operation_attempt_timeout(config.request_timeout / config.max_attempts)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(config.max_attempts)
            .with_initial_backoff(FIRST_RETRY_AFTER);
        let sdk = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(config.endpoint.to_string())
            .region(Region::new(config.region.clone()))
            .force_path_style(config.path_style)
            .http_client(if config.endpoint.is_plain_http() { plain_client() } else { tls_client() })
            .credentials_provider(SharedCredentialsProvider::new(identity.clone()))
            // The identity keeps them itself, for the signer of URLs as well.
            .identity_cache(IdentityCache::no_cache())
            .timeout_config(timeouts)
            .retry_config(retries)
            // The SDK would share one budget of retries among all stores of a region, however many are down, and among
            // calls that are made together, so that some would be given up early. Each has its limits.
            .retry_partition(
                RetryPartition::custom("pg_storage").token_bucket(TokenBucket::unlimited()).build(),
            )
            // Pauses in a stream are timed where it is read; the SDK's own watch has limits of its own.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Checksums that nobody asked for are refused by stores older than they are.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .build();
        Ok(Self {
            client: Client::from_conf(sdk),
            identity,
            region: config.region,
            endpoint: config.endpoint.to_string(),
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
        })
    }

    /// The credentials that calls are signed with now, for a signer of URLs, and when they expire. Temporary ones
    /// are replaced well before that, so a signer should ask again rather than keep them.
    ///
    /// # Errors
    /// `Denied` if none are found, `Timeout` if finding them takes too long.
    pub async fn credentials(&self) -> Result<(Credentials, Option<SystemTime>), StoreError> {
        let found = self.identity.current().await?;
        Ok((to_core(&found), found.expiry()))
    }

    /// Where the store is.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The longest a connection may take.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// The longest an operation may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// The client, once there are credentials: their absence then has one explanation instead of one per call.
    async fn client(&self) -> Result<&Client, StoreError> {
        self.identity.current().await?;
        Ok(&self.client)
    }

    /// For calls whose one attempt may use all the time there is, because the store works for it or the body is
    /// large: repeating such a call after a fraction of the time would only do the work again.
    fn unhurried(&self) -> Builder {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.connect_timeout)
            .operation_timeout(self.request_timeout)
            .operation_attempt_timeout(self.request_timeout)
            .build();
        Config::builder().timeout_config(timeouts)
    }

    /// For calls that must not be repeated behind the caller's back.
    fn once(&self) -> Builder {
        self.unhurried().retry_config(RetryConfig::disabled())
    }
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store")
            .field("identity", &self.identity)
            .field("region", &self.region)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .finish_non_exhaustive()
    }
}
