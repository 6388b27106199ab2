//! Who we are: given credentials, or those that the AWS tools would find, kept until shortly before they expire.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials as Found;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::config::Region;
use pg_storage_core::presign::{Credentials, Secret};
use tokio::sync::Mutex;

use crate::config::CredentialSource;
use crate::error::{ErrorKind, StoreError, chain, clean};
use crate::http::tls_client;

const OPERATION: &str = "credentials";

/// Temporary credentials are replaced this long before they expire, so that a URL signed with them still has
/// some life.
const REFRESH_BEFORE: Duration = Duration::from_secs(300);

/// Credentials without an expiry are looked up again after this long, so that an edited file is noticed.
const LOOK_AGAIN: Duration = Duration::from_secs(900);

/// The current credentials; clones share them.
#[derive(Clone)]
pub(crate) struct Identity(Arc<Inner>);

struct Inner {
    source: CredentialSource,
    region: String,
    limit: Duration,
    found: Mutex<Option<(Found, SystemTime)>>,
}

impl Identity {
    /// Nothing is looked up before it is asked for. Signing for assumed roles uses `region`; one look-up may take
    /// `limit`.
    pub(crate) fn new(source: CredentialSource, region: String, limit: Duration) -> Self {
        Self(Arc::new(Inner { source, region, limit, found: Mutex::new(None) }))
    }

    /// The credentials to use now. Callers that arrive during a look-up wait for it instead of starting their own.
    pub(crate) async fn current(&self) -> Result<Found, StoreError> {
        let (profile, file) = match &self.0.source {
            CredentialSource::Static(given) => return Ok(from_core(given)),
            CredentialSource::DefaultChain { profile, credentials_file } => {
                (profile.as_deref(), credentials_file.as_deref())
            }
        };
        let mut found = self.0.found.lock().await;
        let now = SystemTime::now();
        if let Some((credentials, looked_up)) = &*found
            && is_fresh(credentials, *looked_up, now)
        {
            return Ok(credentials.clone());
        }
        // Boxed: it is large, rare, and part of every call's future.
        let look_up = Box::pin(look_up(profile, file, self.0.region.clone()));
        let outcome = match tokio::time::timeout(self.0.limit, look_up).await {
            Ok(outcome) => outcome.map_err(|error| explain(&error)),
            Err(_) => Err(StoreError::local(
                ErrorKind::Timeout,
                OPERATION,
                "looking up the AWS credentials took longer than the request's time limit",
            )),
        };
        match (outcome, &*found) {
            (Ok(credentials), _) => {
                *found = Some((credentials.clone(), now));
                Ok(credentials)
            }
            (Err(_), Some((old, _))) if old.expiry().is_some_and(|end| end > now) => Ok(old.clone()),
            (Err(error), _) => Err(error),
        }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.0.source).finish()
    }
}

impl ProvideCredentials for Identity {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(async {
            self.current().await.map_err(CredentialsError::provider_error)
        })
    }
}

fn is_fresh(credentials: &Found, looked_up: SystemTime, now: SystemTime) -> bool {
    match credentials.expiry() {
        Some(end) => end > now + REFRESH_BEFORE,
        None => now.duration_since(looked_up).is_ok_and(|age| age < LOOK_AGAIN),
    }
}

/// A new provider for each look-up: the AWS providers keep the files they have read for ever.
async fn look_up(
    profile: Option<&str>,
    file: Option<&Path>,
    region: String,
) -> Result<Found, CredentialsError> {
    let config = ProviderConfig::without_region()
        .with_region(Some(Region::new(region.clone())))
        .with_behavior_version(Some(BehaviorVersion::latest()))
        .with_http_client(tls_client());
    if profile.is_none() && file.is_none() {
        let chain = DefaultCredentialsChain::builder().region(Region::new(region)).configure(config);
        return chain.build().await.provide_credentials().await;
    }
    let mut files = EnvConfigFiles::builder().include_default_config_file(true);
    files = match file {
        Some(path) => files.with_file(EnvConfigFileKind::Credentials, path),
        None => files.include_default_credentials_file(true),
    };
    let mut provider =
        ProfileFileCredentialsProvider::builder().configure(&config).profile_files(files.build());
    if let Some(name) = profile {
        provider = provider.profile_name(name);
    }
    provider.build().provide_credentials().await
}

/// What the operator needs to hear. The AWS errors name files, profiles and addresses, never keys.
fn explain(error: &CredentialsError) -> StoreError {
    let kind = match error {
        CredentialsError::ProviderTimedOut(_) => ErrorKind::Timeout,
        _ => ErrorKind::Denied,
    };
    StoreError::local(kind, OPERATION, clean(&format!("no usable AWS credentials: {}", chain(error))))
}

fn from_core(given: &Credentials) -> Found {
    Found::new(
        given.access_key_id.clone(),
        given.secret_access_key.expose(),
        given.session_token.as_ref().map(|token| token.expose().to_owned()),
        None,
        "pg_storage",
    )
}

/// The same credentials in the signer's type.
pub(crate) fn to_core(found: &Found) -> Credentials {
    Credentials {
        access_key_id: found.access_key_id().to_owned(),
        secret_access_key: Secret::new(found.secret_access_key()),
        session_token: found.session_token().map(Secret::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn found(expiry: Option<SystemTime>) -> Found {
        Found::new("id", "secret", None, expiry, "test")
    }

    #[test]
    fn temporary_credentials_are_replaced_while_they_still_live() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let long_ago = now - LOOK_AGAIN * 10;
        assert!(is_fresh(&found(Some(now + REFRESH_BEFORE + SECOND)), long_ago, now));
        assert!(!is_fresh(&found(Some(now + REFRESH_BEFORE)), now, now));
        assert!(!is_fresh(&found(Some(now - SECOND)), now, now));
    }

    #[test]
    fn lasting_credentials_are_looked_up_again_now_and_then() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!(is_fresh(&found(None), now - LOOK_AGAIN + SECOND, now));
        assert!(!is_fresh(&found(None), now - LOOK_AGAIN, now));
        // After the clock was set back nobody knows how old they are.
        assert!(!is_fresh(&found(None), now + SECOND, now));
    }

    #[tokio::test]
    async fn a_failing_look_up_does_not_end_credentials_that_still_live() {
        let missing = CredentialSource::DefaultChain {
            profile: Some("nobody".to_owned()),
            credentials_file: Some("/nonexistent/credentials".into()),
        };
        let identity = Identity::new(missing, "us-east-1".to_owned(), Duration::from_secs(10));
        let now = SystemTime::now();
        let dying = found(Some(now + Duration::from_secs(60)));
        *identity.0.found.lock().await = Some((dying, now));
        assert!(identity.current().await.is_ok());
        *identity.0.found.lock().await = Some((found(Some(now - SECOND)), now));
        assert!(identity.current().await.is_err());
    }
}
