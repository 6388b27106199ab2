//! Every setting: its name, unit, default and the reason for it, and who may change it.
//!
//! A value that breaks its rule is refused where it is set. The one exception is the server's start: PostgreSQL would
//! replace a bad value of `postgresql.conf` by the default and go on, and no endpoint means the local store. So the bad
//! value stays, with a warning, and the first use refuses it by name.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pgrx::guc::GucSetting;
use pgrx::pg_sys;
use pgrx::prelude::*;

mod connection;
mod define;
mod hooks;
mod rules;
mod secret;

pub use connection::check as check_connection;
pub use define::all as define;
pub use rules::{parse_identifiers, parse_origins, region, setting_name};
pub use secret::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

/// How physical buckets are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum BucketLayout {
    /// One for each tenant and access: tenants are apart, and their number is the only cost.
    #[name = c"tenant"]
    Tenant,
    /// One for each logical bucket: for few buckets that are to be handed over or billed apart.
    #[name = c"bucket"]
    Bucket,
    /// One for each access, for all tenants: for stores that limit how many buckets an account may have.
    #[name = c"access"]
    Access,
}

impl BucketLayout {
    /// As the setting spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Bucket => "bucket",
            Self::Access => "access",
        }
    }
}

/// What becomes of uploads whose time is over and that nobody confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum Unconfirmed {
    /// They expire, and their bytes go: what nobody confirmed, nobody misses.
    #[name = c"expire"]
    Expire,
    /// They are confirmed if their bytes are right: for clients that cannot be trusted to come back.
    #[name = c"confirm"]
    Confirm,
}

/// What says who the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum IdentitySource {
    /// Settings that whoever runs SQL can set: for APIs that set them and let nobody else run SQL.
    #[name = c"claims"]
    Claims,
    /// The current role: for callers who run SQL of their own.
    #[name = c"role"]
    Role,
}

type Text = GucSetting<Option<CString>>;

/// S3 endpoint that the server calls. Default empty: `S3_ENDPOINT`, else the local store.
pub static ENDPOINT: Text = GucSetting::<Option<CString>>::new(None);
/// Endpoint that presigned URLs name, where clients reach the store by another address. Default: the endpoint.
pub static PUBLIC_ENDPOINT: Text = GucSetting::<Option<CString>>::new(None);
/// Base of unsigned URLs of public files, a CDN's. Default: the public endpoint.
pub static PUBLIC_URL_BASE: Text = GucSetting::<Option<CString>>::new(None);
/// Region requests are signed for. Default empty: `S3_REGION`. No guess: a wrong region fails every signature.
pub static REGION: Text = GucSetting::<Option<CString>>::new(None);
/// Bucket in the path rather than in the host. Default on: it works everywhere, also without wildcard DNS.
pub static FORCE_PATH_STYLE: GucSetting<bool> = GucSetting::<bool>::new(true);
/// Allows an http endpoint beyond loopback. Default off: over http, URLs and files are readable on the way.
pub static ALLOW_INSECURE: GucSetting<bool> = GucSetting::<bool>::new(false);
/// Profile of the AWS configuration and credentials files. Default empty: the default chain decides.
pub static PROFILE: Text = GucSetting::<Option<CString>>::new(None);
/// AWS credentials file. Default empty: the default chain decides.
pub static CREDENTIALS_FILE: Text = GucSetting::<Option<CString>>::new(None);
/// What says who the caller is. The default suits an API in front of the database, which is how most are reached.
pub static IDENTITY_SOURCE: GucSetting<IdentitySource> =
    GucSetting::<IdentitySource>::new(IdentitySource::Claims);
/// Tenant where the role says who the caller is; for ALTER ROLE. Default empty: `default_tenant`.
pub static TENANT: Text = GucSetting::<Option<CString>>::new(None);
/// Name of the setting that carries the user's id. The default is PostGraphile's.
pub static USER_ID_SETTING: Text = GucSetting::<Option<CString>>::new(Some(c"jwt.claims.user_id"));
/// Name of the setting that carries the tenant. The default is PostGraphile's.
pub static TENANT_ID_SETTING: Text = GucSetting::<Option<CString>>::new(Some(c"jwt.claims.tenant_id"));
/// Tenant of callers whose claims name none. Empty refuses them; the default suits a database with one tenant.
pub static DEFAULT_TENANT: Text = GucSetting::<Option<CString>>::new(Some(c"default"));
/// First part of minted bucket names. Required on a real store: names there are global, and two servers must not meet.
pub static BUCKET_PREFIX: Text = GucSetting::<Option<CString>>::new(None);
/// How physical buckets are shared.
pub static BUCKET_LAYOUT: GucSetting<BucketLayout> = GucSetting::<BucketLayout>::new(BucketLayout::Tenant);
/// One existing bucket for everything; nothing is created or configured there. Default empty: `bucket_layout` decides.
pub static FIXED_BUCKET: Text = GucSetting::<Option<CString>>::new(None);
/// First part of every key in the fixed bucket. Default empty.
pub static KEY_PREFIX: Text = GucSetting::<Option<CString>>::new(None);
/// CORS origins, separated by commas, where neither bucket nor tenant names any. Default empty: refused, never `*`.
pub static ALLOWED_ORIGINS: Text = GucSetting::<Option<CString>>::new(None);
/// Largest file in bytes. The default stops a mistake from filling a store; raise it knowingly, up to 5 TiB.
pub static MAX_FILE_SIZE: GucSetting<f64> = GucSetting::<f64>::new(200.0 * 1024.0 * 1024.0);
/// Files that one call may ask for or confirm. Each holds locks until the end of its transaction, of which the server has
/// `max_locks_per_transaction` for each connection.
pub static MAX_BULK_FILES: GucSetting<i32> = GucSetting::<i32>::new(100);
/// Bytes that the files of one call may have together. The default is one call's worth of uploads and not a store's.
pub static MAX_BULK_SIZE: GucSetting<f64> = GucSetting::<f64>::new(1024.0 * 1024.0 * 1024.0);
/// Largest file in bytes that a statement gives or takes. It is in the backend's memory several times over.
pub static MAX_INLINE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024 * 1024);
/// Lifetime of upload URLs in seconds. The default lets a slow client start, not a stolen URL linger.
pub static UPLOAD_URL_TTL: GucSetting<i32> = GucSetting::<i32>::new(900);
/// Lifetime of download URLs in seconds.
pub static DOWNLOAD_URL_TTL: GucSetting<i32> = GucSetting::<i32>::new(3600);
/// Seconds within which a file has the same download URL, so that a cache finds it again. Default 0, none: each URL then
/// lives exactly as long as was asked for.
pub static DOWNLOAD_URL_PERIOD: GucSetting<i32> = GucSetting::<i32>::new(0);
/// Seconds between the last file's end and the object's. The default leaves a day to restore a backup of the database.
pub static DELETION_DELAY: GucSetting<i32> = GucSetting::<i32>::new(86_400);
/// Seconds that events are kept, acknowledged or not. The default lets a consumer be down for a week; 0 records none.
pub static EVENT_RETENTION: GucSetting<i32> = GucSetting::<i32>::new(604_800);
/// Uploads that a user may have pending. Default 0, no limit: what a request holds is a row, and it expires by itself.
pub static MAX_PENDING_UPLOADS: GucSetting<i32> = GucSetting::<i32>::new(0);
/// Uploads that a user may ask for in a minute, all at once or spread out. Default 0, no limit: an application that asks
/// on behalf of users knows better who may ask how often.
pub static UPLOAD_RATE: GucSetting<i32> = GucSetting::<i32>::new(0);
/// Seconds between two comparisons of a physical bucket with the tables. The default finds within a day what a ROLLBACK
/// left in the store; 0: never.
pub static RECONCILE_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(86_400);
/// Seconds that bytes without a row are left alone. The default leaves a day to notice that rows were lost, and is far
/// beyond what clocks differ by.
pub static ORPHAN_MIN_AGE: GucSetting<i32> = GucSetting::<i32>::new(86_400);
/// Milliseconds a connection may take, TLS included.
pub static CONNECT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(3_000);
/// Milliseconds a call may take, all attempts included; for a stream, the longest silence.
pub static REQUEST_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(30_000);
/// How often a call is sent at most.
pub static MAX_ATTEMPTS: GucSetting<i32> = GucSetting::<i32>::new(3);
/// What becomes of uploads whose time is over and that nobody confirmed.
pub static UNCONFIRMED_UPLOADS: GucSetting<Unconfirmed> = GucSetting::<Unconfirmed>::new(Unconfirmed::Expire);
/// Databases that the launcher keeps a worker in, separated by commas, quoted as SQL does. Default empty: none.
pub static DATABASES: Text = GucSetting::<Option<CString>>::new(None);
/// Seconds between two passes of the worker at most. A commit and the time of the next job wake it before: the default is
/// for what nobody tells it of, such as a prepared transaction that was committed.
pub static WORKER_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(60);
/// Physical buckets the shared cache holds. Start-up only; an entry takes about 300 bytes.
pub static CACHE_ENTRIES: GucSetting<i32> = GucSetting::<i32>::new(1024);
/// Directory of the local store. Default empty: `pg_storage` in the data directory.
pub static LOCAL_STORE_DIRECTORY: Text = GucSetting::<Option<CString>>::new(None);
/// Port of the local store on loopback. Default 0: a free one, kept from then on, because URLs name it.
pub static LOCAL_STORE_PORT: GucSetting<i32> = GucSetting::<i32>::new(0);

/// True while `_PG_init` defines settings and PostgreSQL replays the values it has for them.
static DEFINING: AtomicBool = AtomicBool::new(false);

/// Counts assignments, so that what is derived from settings knows when it is stale.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Changes whenever a setting is assigned.
pub fn epoch() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}

/// When this process last read the configuration file. A reload may change what no setting of ours tells: files and
/// profiles of the AWS default chain.
pub fn reloaded_at() -> pg_sys::TimestampTz {
    // SAFETY: a plain read of a process-local variable on the main thread.
    unsafe { pg_sys::PgReloadTime }
}

/// The value of a text setting; empty is `None`.
pub fn text(setting: &Text) -> Option<String> {
    setting.get().and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
}
