//! The settings as one valid whole, made again when any of them changes and at every reload.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::error::Token;
use pg_storage_core::origin::Origin;
use pg_storage_core::physical::{BucketPrefix, KeyPrefix, check_bucket_name};
use pg_storage_core::presign::{Credentials, Secret, Target};
use pg_storage_store::{CredentialSource, StoreConfig};

use crate::error::{Failure, Result};
use crate::guc::{self, BucketLayout};
use crate::preload;
use crate::worker::local_store;

/// Which physical bucket a logical one uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Minted by the server.
    Minted(BucketLayout),
    /// One that exists, given by name; nothing is created or configured there.
    Fixed(String),
}

/// The settings, validated together.
#[derive(Debug)]
pub struct Config {
    /// How the server reaches the store.
    pub store: StoreConfig,
    /// The store as text: the key under which facts about it are kept. The local store's port may change; it stays the
    /// same store.
    pub endpoint: String,
    /// Where presigned URLs point.
    pub public: Target,
    /// Base of unsigned URLs, when it is not the public endpoint.
    pub public_url_base: Option<Endpoint>,
    /// First part of minted names; `None` when it is missing, which only provisioning minds.
    pub prefix: Option<BucketPrefix>,
    /// Which physical bucket a logical one uses.
    pub layout: Layout,
    /// First part of every key in the fixed bucket.
    pub key_prefix: KeyPrefix,
    /// CORS origins of buckets that name none.
    pub origins: Vec<Origin>,
    /// Tells these origins from others, in every backend alike.
    pub origins_hash: u64,
    /// Whether this is the local store.
    pub local: bool,
}

/// What a configuration was made from; a difference makes it stale.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    epoch: u64,
    reloaded_at: i64,
    local_port: u16,
}

impl Config {
    /// Refuses to ask a store that knows nothing of what is in a bucket, and would say that nothing is there.
    ///
    /// # Errors
    /// `NOT_CONFIGURED` where the bucket is on record and another store keeps it.
    pub fn check_keeper(&self, physical: &str, kept_by: Option<&str>) -> Result<()> {
        let Some(kept_by) = kept_by.filter(|kept_by| *kept_by != self.endpoint) else { return Ok(()) };
        Err(Failure::new(Token::NotConfigured, "another store has the bucket")
            .detail(format!("{physical} is kept by {kept_by}; pg_storage.endpoint is {}.", self.endpoint))
            .hint("Set pg_storage.endpoint back; or, where the store has moved with its objects, storage.provision_bucket() records that."))
    }
}

/// The stamp of now.
pub fn stamp() -> Stamp {
    Stamp { epoch: guc::epoch(), reloaded_at: guc::reloaded_at(), local_port: local_store::port() }
}

thread_local! {
    static CURRENT: RefCell<Option<(Stamp, Rc<Config>)>> = const { RefCell::new(None) };
}

/// The configuration of now.
///
/// # Errors
/// `NOT_CONFIGURED` naming the setting that is missing or wrong; `NEEDS_PRELOAD` for credentials in the configuration
/// file of a server that does not preload; `STORE_UNAVAILABLE` while the local store starts.
pub fn current() -> Result<Rc<Config>> {
    let now = stamp();
    if let Some(config) =
        CURRENT.with_borrow(|kept| kept.as_ref().filter(|(at, _)| *at == now).map(|(_, c)| c.clone()))
    {
        return Ok(config);
    }
    let config = Rc::new(build()?);
    // Waiting for the local store may have moved the stamp.
    CURRENT.set(Some((stamp(), config.clone())));
    Ok(config)
}

fn build() -> Result<Config> {
    refuse_readable_credentials()?;
    let from_environment = guc::text(&guc::ENDPOINT).is_none();
    match guc::text(&guc::ENDPOINT).or_else(|| environment("S3_ENDPOINT")) {
        Some(endpoint) => remote(&endpoint, from_environment),
        None => local(),
    }
}

fn remote(endpoint: &str, from_environment: bool) -> Result<Config> {
    let endpoint = Endpoint::parse(endpoint)
        .map_err(|reason| Failure::setting("endpoint", &format!("is not valid: {reason}")))?;
    let flag = |setting: bool, variable: &str| match environment(variable).filter(|_| from_environment) {
        Some(value) => matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes"),
        None => setting,
    };
    let insecure = flag(guc::ALLOW_INSECURE.get(), "S3_INSECURE");
    let path_style = flag(guc::FORCE_PATH_STYLE.get(), "S3_FORCE_PATH_STYLE");
    refuse_plain_http("endpoint", &endpoint, insecure)?;
    let region = guc::text(&guc::REGION)
        .or_else(|| environment("S3_REGION"))
        .ok_or_else(|| Failure::setting("region", "is not set"))?;
    guc::region(&region).map_err(|reason| Failure::setting("region", &format!("is not valid: {reason}")))?;
    assemble(endpoint, region, path_style, credentials()?, insecure, false)
}

fn local() -> Result<Config> {
    let access = local_store::access()?;
    let endpoint =
        Endpoint::parse(&format!("http://127.0.0.1:{}", access.port)).map_err(Failure::internal)?;
    assemble(
        endpoint,
        local_store::REGION.to_owned(),
        true,
        CredentialSource::Static(access.credentials),
        false,
        true,
    )
}

fn assemble(
    endpoint: Endpoint,
    region: String,
    path_style: bool,
    credentials: CredentialSource,
    insecure: bool,
    local: bool,
) -> Result<Config> {
    let public = match guc::text(&guc::PUBLIC_ENDPOINT) {
        None => endpoint.clone(),
        Some(text) => {
            let public = Endpoint::parse(&text)
                .map_err(|reason| Failure::setting("public_endpoint", &format!("is not valid: {reason}")))?;
            refuse_plain_http("public_endpoint", &public, insecure)?;
            public
        }
    };
    let wrong = |setting: &'static str| {
        move |reason: String| Failure::setting(setting, &format!("is not valid: {reason}"))
    };
    let public_url_base = guc::text(&guc::PUBLIC_URL_BASE)
        .map(|text| Endpoint::parse(&text))
        .transpose()
        .map_err(wrong("public_url_base"))?;
    let prefix = guc::text(&guc::BUCKET_PREFIX)
        .or_else(|| local.then(|| "local".to_owned()))
        .map(|text| BucketPrefix::parse(&text))
        .transpose()
        .map_err(wrong("bucket_prefix"))?;
    let key_prefix =
        KeyPrefix::parse(&guc::text(&guc::KEY_PREFIX).unwrap_or_default()).map_err(wrong("key_prefix"))?;
    // Pages under development come from localhost; a real store has no such guess.
    let list = guc::text(&guc::ALLOWED_ORIGINS).unwrap_or_else(|| {
        if local { "http://localhost:*,http://127.0.0.1:*".to_owned() } else { String::new() }
    });
    let origins = guc::parse_origins(&list).map_err(wrong("allowed_origins"))?;
    let layout = match guc::text(&guc::FIXED_BUCKET) {
        None => Layout::Minted(guc::BUCKET_LAYOUT.get()),
        Some(name) => {
            check_bucket_name(&name).map_err(wrong("fixed_bucket"))?;
            Layout::Fixed(name)
        }
    };
    Ok(Config {
        endpoint: if local { "local store".to_owned() } else { endpoint.to_string() },
        public: Target::new(&public, &region, path_style),
        public_url_base,
        prefix,
        layout,
        key_prefix,
        origins_hash: hash(&origins),
        origins,
        local,
        store: StoreConfig {
            endpoint,
            region,
            path_style,
            credentials,
            connect_timeout: milliseconds(guc::CONNECT_TIMEOUT.get()),
            request_timeout: milliseconds(guc::REQUEST_TIMEOUT.get()),
            max_attempts: guc::MAX_ATTEMPTS.get().unsigned_abs(),
        },
    })
}

fn hash(origins: &[Origin]) -> u64 {
    // Keyed with constants: what one backend stored, another one compares.
    let mut hasher = DefaultHasher::new();
    origins.iter().for_each(|origin| origin.to_string().hash(&mut hasher));
    hasher.finish()
}

fn refuse_plain_http(setting: &str, endpoint: &Endpoint, insecure: bool) -> Result<()> {
    if endpoint.is_plain_http() && !endpoint.is_loopback() && !insecure {
        return Err(Failure::new(
            Token::NotConfigured,
            format!("pg_storage.{setting} is http beyond loopback"),
        )
        .detail(format!("{setting} is {endpoint}."))
        .hint("Use https. pg_storage.allow_insecure permits http in a network where nobody listens."));
    }
    Ok(())
}

/// A session that has not loaded the library knows nothing of our settings: PostgreSQL then keeps what the file says as
/// a placeholder, which it shows to everybody and whose changes it logs. So a key there is refused, not used.
fn refuse_readable_credentials() -> Result<()> {
    let given = guc::ACCESS_KEY_ID.get().is_some() || guc::SECRET_ACCESS_KEY.get().is_some();
    if !given || preload::preloaded() {
        return Ok(());
    }
    Err(Failure::new(
        Token::NeedsPreload,
        "credentials in the configuration file need the library preloaded",
    )
    .detail(
        "Without that PostgreSQL shows pg_storage.access_key_id and pg_storage.secret_access_key to every role, and logs their changes.",
    )
    .hint(
        "Take them out of the file and replace the key: who could connect could read it. Then use pg_storage.credentials_file or the server's environment, or add pg_storage to shared_preload_libraries and restart.",
    ))
}

/// Settings first, then the environment of the server process, then the AWS default chain.
fn credentials() -> Result<CredentialSource> {
    let id = guc::ACCESS_KEY_ID.get();
    let secret = guc::SECRET_ACCESS_KEY.get();
    let profile = guc::text(&guc::PROFILE);
    let credentials_file = guc::text(&guc::CREDENTIALS_FILE).map(PathBuf::from);
    match (id, secret) {
        (Some(id), Some(secret)) => return Ok(fixed(id, secret)),
        (Some(_), None) => {
            return Err(Failure::setting("secret_access_key", "is not set, but access_key_id is"));
        }
        (None, Some(_)) => {
            return Err(Failure::setting("access_key_id", "is not set, but secret_access_key is"));
        }
        (None, None) => {}
    }
    if profile.is_none()
        && credentials_file.is_none()
        && let (Some(id), Some(secret)) =
            (environment("S3_ACCESS_KEY_ID"), environment("S3_SECRET_ACCESS_KEY"))
    {
        return Ok(fixed(id, secret));
    }
    Ok(CredentialSource::DefaultChain { profile, credentials_file })
}

fn fixed(access_key_id: String, secret: String) -> CredentialSource {
    CredentialSource::Static(Credentials {
        access_key_id,
        secret_access_key: Secret::new(secret),
        session_token: None,
    })
}

fn environment(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|value| !value.is_empty())
}

fn milliseconds(setting: i32) -> Duration {
    Duration::from_millis(setting.unsigned_abs().into())
}
