//! Every setting: its name, unit, default and the reason for it, and who may change it.
//!
//! A value that breaks its rule is refused where it is set. The one exception is the server's start: PostgreSQL would
//! replace a bad value of `postgresql.conf` by the default and go on, and no endpoint means the local store. So the bad
//! value stays, with a warning, and the first use refuses it by name.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::lifetime::MAX_SECONDS;
use pg_storage_core::origin::Origin;
use pg_storage_core::physical::{BucketPrefix, KeyPrefix, check_bucket_name};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys::{self, AsPgCStr};
use pgrx::prelude::*;

mod connection;
mod secret;

pub use connection::check as check_connection;
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

/// The origins in a comma-separated list.
pub fn parse_origins(list: &str) -> Result<Vec<Origin>, String> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(|item| Origin::parse(item).map_err(|invalid| format!("{} ({item})", invalid.message)))
        .collect()
}

/// The names in a comma-separated list of SQL identifiers, as PostgreSQL reads such lists; `None`: it is none.
pub fn parse_identifiers(list: &str) -> Option<Vec<String>> {
    let raw = CString::new(list).ok()?.into_bytes_with_nul();
    let mut names = std::ptr::null_mut();
    // SAFETY: the function changes the string, which is a copy; the list it makes points into that.
    unsafe {
        let copy = pg_sys::pstrdup(raw.as_ptr().cast());
        if !pg_sys::SplitIdentifierString(copy, b',' as c_char, &mut names) {
            return None;
        }
        let names = pgrx::PgList::<c_char>::from_pg(names);
        names.iter_ptr().map(|name| CStr::from_ptr(name).to_str().ok().map(str::to_owned)).collect()
    }
}

fn identifiers(value: &str) -> Result<(), String> {
    parse_identifiers(value).map(drop).ok_or_else(|| "it is a list of names, separated by commas".into())
}

fn any(_: &str) -> Result<(), String> {
    Ok(())
}

fn endpoint(value: &str) -> Result<(), String> {
    Endpoint::parse(value).map(drop)
}

/// Whether a value can be a region; the reason if not.
pub fn region(value: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if value.len() <= 64 && value.chars().all(legal) {
        Ok(())
    } else {
        Err("a region is up to 64 letters, digits, hyphens and underscores".into())
    }
}

/// Whether a value can be the name of a custom setting; the reason if not.
pub fn setting_name(value: &str) -> Result<(), String> {
    let legal = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if value.contains('.') && value.split('.').all(legal) {
        Ok(())
    } else {
        Err("it is the name of a custom setting, such as jwt.claims.user_id".into())
    }
}

fn prefix(value: &str) -> Result<(), String> {
    BucketPrefix::parse(value).map(drop)
}

fn key_prefix(value: &str) -> Result<(), String> {
    KeyPrefix::parse(value).map(drop)
}

fn origins(value: &str) -> Result<(), String> {
    parse_origins(value).map(drop)
}

/// A check hook for a text setting: an empty value is no value, any other must pass `$rule`.
macro_rules! check_hook {
    ($name:literal, $rule:path) => {{
        #[pg_guard]
        unsafe extern "C-unwind" fn check(
            value: *mut *mut c_char,
            _extra: *mut *mut c_void,
            _source: pg_sys::GucSource::Type,
        ) -> bool {
            // SAFETY: PostgreSQL passes a pointer to the new value, a C string or null.
            let value = unsafe {
                match *value {
                    value if value.is_null() => return true,
                    value => CStr::from_ptr(value),
                }
            };
            let verdict = match value.to_str() {
                Ok("") => Ok(()),
                Ok(value) => $rule(value),
                Err(_) => Err("it is not UTF-8".to_owned()),
            };
            match verdict {
                Ok(()) => true,
                Err(reason) => refuse($name, &reason),
            }
        }
        Some(check as unsafe extern "C-unwind" fn(_, _, _) -> _)
    }};
}

/// Words for a refused value. They never repeat it: a mistyped line may hold a secret.
fn refuse(name: &str, reason: &str) -> bool {
    if DEFINING.load(Ordering::Relaxed) {
        pgrx::warning!("pg_storage.{name} is not valid: {reason}");
        return true;
    }
    // SAFETY: the hook runs on the main thread; PostgreSQL reads these variables right after it, in the same context.
    unsafe {
        pg_sys::GUC_check_errcode(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE as i32);
        pg_sys::GUC_check_errmsg_string =
            format!("invalid value for parameter \"pg_storage.{name}\"").as_pg_cstr();
        pg_sys::GUC_check_errdetail_string = format!("pg_storage.{name}: {reason}.").as_pg_cstr();
    }
    false
}

unsafe extern "C-unwind" fn text_assigned(_: *const c_char, _: *mut c_void) {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C-unwind" fn bool_assigned(_: bool, _: *mut c_void) {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C-unwind" fn int_assigned(_: i32, _: *mut c_void) {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

/// Defines all settings and reserves their prefix. `preloading`: whether start-up settings may be defined.
pub fn define(preloading: bool) {
    DEFINING.store(true, Ordering::Relaxed);
    define_store();
    secret::define();
    define_identity();
    define_buckets();
    define_limits();
    define_worker();
    if preloading {
        GucRegistry::define_int_guc(
            c"pg_storage.cache_entries",
            c"Physical buckets the shared cache holds.",
            c"An entry takes about 300 bytes of shared memory.",
            &CACHE_ENTRIES,
            64,
            1 << 20,
            GucContext::Postmaster,
            GucFlags::default(),
        );
        GucRegistry::define_int_guc(
            c"pg_storage.local_store_port",
            c"Port of the local store on loopback.",
            c"0 takes a free one and keeps it, because URLs name it.",
            &LOCAL_STORE_PORT,
            0,
            65_535,
            GucContext::Postmaster,
            GucFlags::default(),
        );
        define_text(
            c"pg_storage.local_store_directory",
            c"Directory of the local store.",
            c"Empty: pg_storage in the data directory.",
            &LOCAL_STORE_DIRECTORY,
            GucContext::Postmaster,
            GucFlags::SUPERUSER_ONLY,
            check_hook!("local_store_directory", any),
        );
    }
    DEFINING.store(false, Ordering::Relaxed);
    // SAFETY: a static string, on the main thread, during _PG_init.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_storage".as_ptr()) };
}

fn define_store() {
    let store = |name, short, long, setting, check| {
        define_text(name, short, long, setting, GucContext::Suset, GucFlags::default(), check);
    };
    store(
        c"pg_storage.endpoint",
        c"S3 endpoint that the server calls.",
        c"http[s]://host[:port][/base]. Empty: the environment's S3_ENDPOINT, else the local store.",
        &ENDPOINT,
        check_hook!("endpoint", endpoint),
    );
    store(
        c"pg_storage.public_endpoint",
        c"S3 endpoint that presigned URLs name.",
        c"Where clients reach the store by another address than the server. Empty: pg_storage.endpoint.",
        &PUBLIC_ENDPOINT,
        check_hook!("public_endpoint", endpoint),
    );
    store(
        c"pg_storage.public_url_base",
        c"Base of the unsigned URLs of public files.",
        c"A CDN in front of the store: {base}/{bucket}/{key}. Empty: the public endpoint.",
        &PUBLIC_URL_BASE,
        check_hook!("public_url_base", endpoint),
    );
    store(
        c"pg_storage.region",
        c"Region that requests are signed for.",
        c"Empty: the environment's S3_REGION. Required, except by the local store.",
        &REGION,
        check_hook!("region", region),
    );
    store(
        c"pg_storage.profile",
        c"Profile of the AWS configuration and credentials files.",
        c"Empty: the AWS default chain decides.",
        &PROFILE,
        check_hook!("profile", any),
    );
    store(
        c"pg_storage.credentials_file",
        c"AWS credentials file.",
        c"Empty: the AWS default chain decides.",
        &CREDENTIALS_FILE,
        check_hook!("credentials_file", any),
    );
    define_bool(
        c"pg_storage.force_path_style",
        c"Bucket in the path of URLs rather than in the host.",
        c"Works everywhere; off needs wildcard DNS, as AWS has.",
        &FORCE_PATH_STYLE,
    );
    define_bool(
        c"pg_storage.allow_insecure",
        c"Allows an http endpoint beyond loopback.",
        c"Over http, presigned URLs and files are readable on the way.",
        &ALLOW_INSECURE,
    );
    define_int(
        c"pg_storage.connect_timeout",
        c"Longest time to connect to the store, TLS included.",
        &CONNECT_TIMEOUT,
        1,
        600_000,
        GucFlags::UNIT_MS,
    );
    define_int(
        c"pg_storage.request_timeout",
        c"Longest time of a call to the store, all attempts included.",
        &REQUEST_TIMEOUT,
        1,
        3_600_000,
        GucFlags::UNIT_MS,
    );
    define_int(
        c"pg_storage.max_attempts",
        c"How often a call to the store is sent at most.",
        &MAX_ATTEMPTS,
        1,
        20,
        GucFlags::default(),
    );
}

fn define_identity() {
    let identity = |name, short, long, setting, check| {
        define_text(name, short, long, setting, GucContext::Suset, GucFlags::default(), check);
    };
    identity(
        c"pg_storage.user_id_setting",
        c"Name of the setting that carries the user's id.",
        c"Empty there: sub of the JSON in request.jwt.claims; absent there too: the role's name.",
        &USER_ID_SETTING,
        check_hook!("user_id_setting", setting_name),
    );
    identity(c"pg_storage.tenant_id_setting", c"Name of the setting that carries the tenant.",
        c"Empty there: tenant_id of the JSON in request.jwt.claims; absent there too: pg_storage.default_tenant.",
        &TENANT_ID_SETTING, check_hook!("tenant_id_setting", setting_name));
    identity(
        c"pg_storage.tenant",
        c"Tenant of the role that logs in, where pg_storage.identity_source is role.",
        c"For ALTER ROLE and ALTER DATABASE. Empty: pg_storage.default_tenant.",
        &TENANT,
        check_hook!("tenant", any),
    );
    // SAFETY: the hook only counts.
    unsafe {
        GucRegistry::define_enum_guc_with_hooks(
            c"pg_storage.identity_source",
            c"What says who the caller is.",
            c"claims: settings, which whoever runs SQL can set; role: the current role, and pg_storage.tenant.",
            &IDENTITY_SOURCE,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(int_assigned),
            None,
        );
    }
    identity(
        c"pg_storage.default_tenant",
        c"Tenant of callers whose claims name none.",
        c"Empty refuses them with TENANT_REQUIRED.",
        &DEFAULT_TENANT,
        check_hook!("default_tenant", any),
    );
}

fn define_buckets() {
    let bucket = |name, short, long, setting, check| {
        define_text(name, short, long, setting, GucContext::Suset, GucFlags::default(), check);
    };
    bucket(
        c"pg_storage.bucket_prefix",
        c"First part of minted bucket names.",
        c"1 to 20 of a-z, 0-9 and hyphen. Required to provision on a real store.",
        &BUCKET_PREFIX,
        check_hook!("bucket_prefix", prefix),
    );
    bucket(
        c"pg_storage.fixed_bucket",
        c"One existing bucket for everything.",
        c"Nothing is created or configured there. Empty: pg_storage.bucket_layout decides.",
        &FIXED_BUCKET,
        check_hook!("fixed_bucket", check_bucket_name),
    );
    bucket(
        c"pg_storage.key_prefix",
        c"First part of every key in the fixed bucket.",
        c"",
        &KEY_PREFIX,
        check_hook!("key_prefix", key_prefix),
    );
    bucket(
        c"pg_storage.allowed_origins",
        c"CORS origins where neither bucket nor tenant names any.",
        c"Separated by commas. Empty: provisioning is refused, never open to all.",
        &ALLOWED_ORIGINS,
        check_hook!("allowed_origins", origins),
    );
    // SAFETY: the hook only counts.
    unsafe {
        GucRegistry::define_enum_guc_with_hooks(
            c"pg_storage.bucket_layout",
            c"How physical buckets are shared.",
            c"tenant: one for each tenant and access; bucket: one for each bucket; access: one for each access.",
            &BUCKET_LAYOUT,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(int_assigned),
            None,
        );
    }
}

fn define_limits() {
    GucRegistry::define_float_guc(
        c"pg_storage.max_file_size",
        c"Largest file.",
        c"Up to 5 TiB.",
        &MAX_FILE_SIZE,
        1.0,
        5.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_float_guc(
        c"pg_storage.max_bulk_size",
        c"Largest sum of the files in one call.",
        c"Up to 1 PiB.",
        &MAX_BULK_SIZE,
        1.0,
        1024.0 * 1024.0 * 1024.0 * 1024.0 * 1024.0,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    define_int(
        c"pg_storage.max_bulk_files",
        c"Files that one call may ask for or confirm.",
        &MAX_BULK_FILES,
        1,
        10_000,
        GucFlags::default(),
    );
    let week = MAX_SECONDS as i32;
    define_int(
        c"pg_storage.upload_url_ttl",
        c"Lifetime of upload URLs.",
        &UPLOAD_URL_TTL,
        1,
        week,
        GucFlags::UNIT_S,
    );
    define_int(
        c"pg_storage.download_url_ttl",
        c"Lifetime of download URLs.",
        &DOWNLOAD_URL_TTL,
        1,
        week,
        GucFlags::UNIT_S,
    );
    define_int(
        c"pg_storage.download_url_period",
        c"Time within which a file has the same download URL; 0: none.",
        &DOWNLOAD_URL_PERIOD,
        0,
        week,
        GucFlags::UNIT_S,
    );
    define_int(
        c"pg_storage.deletion_delay",
        c"Time between the end of an object's last file and its own.",
        &DELETION_DELAY,
        0,
        i32::MAX,
        GucFlags::UNIT_S,
    );
    define_int(
        c"pg_storage.event_retention",
        c"Time that events are kept, acknowledged or not; 0 records none.",
        &EVENT_RETENTION,
        0,
        i32::MAX,
        GucFlags::UNIT_S,
    );
    define_int(
        c"pg_storage.max_inline_size",
        c"Largest file that a statement gives to put_file() or takes from get_file().",
        &MAX_INLINE_SIZE,
        1,
        256 * 1024 * 1024,
        GucFlags::UNIT_BYTE,
    );
    define_int(
        c"pg_storage.max_pending_uploads",
        c"Uploads that a user may have pending; 0: no limit.",
        &MAX_PENDING_UPLOADS,
        0,
        i32::MAX,
        GucFlags::default(),
    );
    define_int(
        c"pg_storage.upload_rate",
        c"Uploads that a user may ask for in a minute; 0: no limit.",
        &UPLOAD_RATE,
        0,
        1_000_000,
        GucFlags::default(),
    );
    define_int(
        c"pg_storage.reconcile_interval",
        c"Time between two comparisons of a physical bucket with the tables; 0: never.",
        &RECONCILE_INTERVAL,
        0,
        i32::MAX,
        GucFlags::UNIT_S,
    );
    define_int(
        c"pg_storage.orphan_min_age",
        c"Time that bytes without a row are left alone.",
        &ORPHAN_MIN_AGE,
        0,
        i32::MAX,
        GucFlags::UNIT_S,
    );
}

fn define_worker() {
    // SAFETY: the hook only counts.
    unsafe {
        GucRegistry::define_enum_guc_with_hooks(
            c"pg_storage.unconfirmed_uploads",
            c"What becomes of uploads whose time is over and that nobody confirmed.",
            c"expire: they expire, and their bytes go; confirm: they are confirmed if their bytes are right.",
            &UNCONFIRMED_UPLOADS,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(int_assigned),
            None,
        );
    }
    define_text(
        c"pg_storage.databases",
        c"Databases that a worker runs in.",
        c"Names separated by commas, quoted as SQL does. Needs the library in shared_preload_libraries.",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
        check_hook!("databases", identifiers),
    );
    GucRegistry::define_int_guc(
        c"pg_storage.worker_interval",
        c"Longest time between two passes of the worker.",
        c"",
        &WORKER_INTERVAL,
        1,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
}

fn define_text(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static Text,
    context: GucContext,
    flags: GucFlags,
    check: pg_sys::GucStringCheckHook,
) {
    // SAFETY: the hooks are guarded functions that keep to PostgreSQL's contract for them.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            name,
            short,
            long,
            setting,
            context,
            flags,
            check,
            Some(text_assigned),
            None,
        );
    }
}

fn define_bool(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<bool>,
) {
    // SAFETY: as above.
    unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            name,
            short,
            long,
            setting,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(bool_assigned),
            None,
        );
    }
}

fn define_int(
    name: &'static CStr,
    short: &'static CStr,
    setting: &'static GucSetting<i32>,
    min: i32,
    max: i32,
    flags: GucFlags,
) {
    // SAFETY: as above.
    unsafe {
        GucRegistry::define_int_guc_with_hooks(
            name,
            short,
            c"",
            setting,
            min,
            max,
            GucContext::Suset,
            flags,
            None,
            Some(int_assigned),
            None,
        );
    }
}
