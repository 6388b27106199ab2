//! What a backend keeps between calls to the store: the client and the signer, as long as the settings stay and until
//! the next reload: keys are rotated in files that are no settings.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use pg_storage_core::presign::{Credentials, Signer};
use pg_storage_store::{CredentialSource, S3Store, StoreError, each};

use crate::config::{self, Config, Stamp};
use crate::error::Result;
use crate::wait;

/// Temporary credentials are fetched again this long before they end.
const REFRESH: Duration = Duration::from_secs(300);

struct Kept<T> {
    stamp: Stamp,
    ends: Option<SystemTime>,
    value: T,
}

impl<T> Kept<T> {
    fn fresh(&self) -> bool {
        self.stamp == config::stamp() && self.ends.is_none_or(|ends| SystemTime::now() + REFRESH < ends)
    }
}

thread_local! {
    static CLIENT: RefCell<Option<Kept<S3Store>>> = const { RefCell::new(None) };
    static SIGNER: RefCell<Option<Kept<Signer>>> = const { RefCell::new(None) };
}

/// The client for the store of `config`.
pub fn store(config: &Config) -> Result<S3Store> {
    if let Some(store) =
        CLIENT.with_borrow(|kept| kept.as_ref().filter(|kept| kept.fresh()).map(|kept| kept.value.clone()))
    {
        return Ok(store);
    }
    let store = wait::in_runtime(|| S3Store::connect(config.store.clone()))??;
    CLIENT.set(Some(Kept { stamp: config::stamp(), ends: None, value: store.clone() }));
    Ok(store)
}

/// The credentials of now and their end. Given ones need no client and no thread.
pub fn credentials(config: &Config) -> Result<(Credentials, Option<SystemTime>)> {
    if let CredentialSource::Static(credentials) = &config.store.credentials {
        return Ok((credentials.clone(), None));
    }
    let store = store(config)?;
    Ok(wait::until(async move { store.credentials().await })??)
}

/// Runs `use_signer` with the signer for the public endpoint.
pub fn with_signer<T>(config: &Config, use_signer: impl FnOnce(&mut Signer) -> T) -> Result<T> {
    if !SIGNER.with_borrow(|kept| kept.as_ref().is_some_and(Kept::fresh)) {
        let (credentials, ends) = credentials(config)?;
        let value = Signer::new(config.public.clone(), credentials);
        SIGNER.set(Some(Kept { stamp: config::stamp(), ends, value }));
    }
    SIGNER.with_borrow_mut(|kept| match kept {
        Some(kept) => Ok(use_signer(&mut kept.value)),
        None => Err(crate::error::Failure::internal("the signer is missing")),
    })
}

/// Runs a call to the store and waits for it.
pub fn call<T, F>(config: &Config, operation: impl FnOnce(S3Store) -> F) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = std::result::Result<T, StoreError>> + Send + 'static,
{
    let store = store(config)?;
    Ok(wait::until(operation(store))??)
}

/// Questions that are asked at the same time: enough to hide the way to a store far away, few enough for a store and a
/// backend that have others to serve.
const AT_ONCE: usize = 32;

/// Connections that asking one of them may take.
const CONNECTIONS: usize = 2;

/// Runs a call to the store for each question and waits for all; the answers are in the order of the questions. The first
/// failure ends the others.
pub fn call_each<Q, T, E, F>(
    config: &Config,
    questions: Vec<Q>,
    ask: impl Fn(S3Store, Q) -> F + Send + 'static,
) -> Result<std::result::Result<Vec<T>, E>>
where
    Q: Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
    F: Future<Output = std::result::Result<T, E>> + Send + 'static,
{
    let store = store(config)?;
    let connections = wait::Connections::reserve(questions.len().min(AT_ONCE) * CONNECTIONS);
    let at_once = connections.count() / CONNECTIONS;
    wait::until(each(questions, at_once, move |question| ask(store.clone(), question)))
}
