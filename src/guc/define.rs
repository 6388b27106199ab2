//! The settings as PostgreSQL is told of them: name, what it is, range, unit, and who may change it.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::Ordering;

use pg_storage_core::lifetime::MAX_SECONDS;
use pg_storage_core::physical::check_bucket_name;
use pgrx::guc::{GucContext, GucFlags, GucRegistry};
use pgrx::pg_sys;

use super::hooks::*;
use super::rules::*;
use super::*;

/// Defines all settings and reserves their prefix. `preloading`: whether start-up settings may be defined.
pub fn all(preloading: bool) {
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
