//! Who we are: given credentials, or those that the AWS tools would find, kept until shortly before they expire.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use tokio::time::{Instant, timeout_at};

use crate::config::CredentialSource;
use crate::error::{ErrorKind, StoreError, chain, clean};
use crate::http::tls_client;

const OPERATION: &str = "credentials";

/// Temporary credentials are replaced this long before they expire, so that a URL signed with them still has
/// some life.
const REFRESH_BEFORE: Duration = Duration::from_secs(300);

/// Credentials without an expiry are looked up again after this long, so that an edited file is noticed.
const LOOK_AGAIN: Duration = Duration::from_secs(900);

/// A failure stands for this long, so that many calls at once learn of it together instead of each waiting for their own.
const FAILURE_STANDS: Duration = Duration::from_secs(3);

/// The current credentials; clones share them.
#[derive(Clone)]
pub(crate) struct Identity(Arc<Inner>);

struct Inner {
    source: CredentialSource,
    region: String,
    limit: Duration,
    known: Mutex<Known>,
    /// Held by whoever looks up.
    turn: tokio::sync::Mutex<()>,
}

/// What the last look-ups gave.
#[derive(Default)]
struct Known {
    found: Option<(Found, SystemTime)>,
    failure: Option<(StoreError, Instant)>,
}

impl Known {
    /// What to answer without looking up: what is fresh, or what a failure a moment ago has left.
    fn answer(&self) -> Option<Result<Found, StoreError>> {
        let now = SystemTime::now();
        match (&self.found, &self.failure) {
            (Some((found, at)), _) if is_fresh(found, *at, now) => Some(Ok(found.clone())),
            (_, Some((error, at))) if at.elapsed() < FAILURE_STANDS => Some(self.after(error.clone())),
            _ => None,
        }
    }

    /// The answer after a failed look-up: temporary credentials serve until they expire.
    fn after(&self, error: StoreError) -> Result<Found, StoreError> {
        match &self.found {
            Some((old, _)) if old.expiry().is_some_and(|end| end > SystemTime::now()) => Ok(old.clone()),
            _ => Err(error),
        }
    }
}

impl Identity {
    /// Nothing is looked up before it is asked for. Signing for assumed roles uses `region`; asking may take
    /// `limit`, waiting for another's look-up included.
    pub(crate) fn new(source: CredentialSource, region: String, limit: Duration) -> Self {
        Self(Arc::new(Inner {
            source,
            region,
            limit,
            known: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// The credentials to use now. Callers that arrive during a look-up wait for it instead of starting their own.
    pub(crate) async fn current(&self) -> Result<Found, StoreError> {
        let (profile, file) = match &self.0.source {
            CredentialSource::Static(given) => return Ok(from_core(given)),
            CredentialSource::DefaultChain { profile, credentials_file } => {
                (profile.as_deref(), credentials_file.as_deref())
            }
        };
        self.renewed(|| look_up(profile, file, self.0.region.clone())).await
    }

    async fn renewed<F>(&self, look_up: impl FnOnce() -> F) -> Result<Found, StoreError>
    where
        F: Future<Output = Result<Found, CredentialsError>>,
    {
        if let Some(answer) = self.known().answer() {
            return answer;
        }
        let deadline = Instant::now() + self.0.limit;
        let Ok(_turn) = timeout_at(deadline, self.0.turn.lock()).await else {
            return self.known().after(too_slow());
        };
        if let Some(answer) = self.known().answer() {
            return answer;
        }
        // Boxed: it is large, rare, and part of every call's future.
        let outcome = match timeout_at(deadline, Box::pin(look_up())).await {
            Ok(outcome) => outcome.map_err(|error| explain(&error)),
            Err(_) => Err(too_slow()),
        };
        let mut known = self.known();
        match outcome {
            Ok(found) => {
                *known = Known { found: Some((found.clone(), SystemTime::now())), failure: None };
                Ok(found)
            }
            Err(error) => {
                known.failure = Some((error.clone(), Instant::now()));
                known.after(error)
            }
        }
    }

    /// Every change to it is a single assignment, so that a panic elsewhere leaves it whole.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_slow() -> StoreError {
    let what = "looking up the AWS credentials took longer than the request's time limit";
    StoreError::local(ErrorKind::Timeout, OPERATION, what)
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
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicU32, Ordering};

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
        identity.known().found = Some((dying, now));
        // Looked up in vain, and then not again at once.
        assert!(identity.current().await.is_ok());
        assert!(identity.known().failure.is_some());
        assert!(identity.current().await.is_ok());
        identity.known().found = Some((found(Some(now - SECOND)), now));
        assert!(identity.current().await.is_err());
    }

    fn identity(limit: Duration) -> Identity {
        let source = CredentialSource::DefaultChain { profile: None, credentials_file: None };
        Identity::new(source, "us-east-1".to_owned(), limit)
    }

    #[tokio::test]
    async fn all_who_wait_for_a_silent_look_up_wait_for_its_time_limit_once() {
        let limit = Duration::from_secs(1);
        let identity = identity(limit);
        let silent = || identity.renewed(std::future::pending);
        let start = Instant::now();
        let (a, b, c, d, e, f) = tokio::join!(silent(), silent(), silent(), silent(), silent(), silent());
        assert!(start.elapsed() < 3 * limit, "{:?}", start.elapsed());
        for outcome in [a, b, c, d, e, f] {
            assert_eq!(outcome.unwrap_err().kind, ErrorKind::Timeout);
        }
    }

    #[tokio::test]
    async fn a_failed_look_up_is_not_repeated_at_once() {
        let identity = identity(Duration::from_secs(20));
        let calls = AtomicU32::new(0);
        let failing = || {
            identity.renewed(|| async {
                calls.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Err(CredentialsError::not_loaded("nothing there"))
            })
        };
        let (a, b) = tokio::join!(failing(), failing());
        let c = failing().await;
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        for outcome in [a, b, c] {
            assert_eq!(outcome.unwrap_err().kind, ErrorKind::Denied);
        }
    }
}
