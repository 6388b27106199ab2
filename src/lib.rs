//! `pg_storage`: object storage as SQL. The map of the house.
//!
//! SQL is the public face (`sql/`), Rust the private hands:
//!
//! - [`api`]: what SQL calls; thin
//! - [`upload`], [`download`], [`provision`], [`maintenance`], [`orphans`], [`diagnose`]: one room for each thing users do
//! - [`files`]: what becomes of files that are there
//! - [`bucket_deletion`]: who may delete a bucket with everything in it
//! - [`bucket`], [`catalog`], [`identity`], [`clock`]: rows, statements and who runs them, the caller, the time
//! - [`operation`]: what is asked for, as policies are told
//! - [`limits`], [`rate`]: what a request is refused for though nothing is wrong with it
//! - [`installation`]: which database this is
//! - [`lock`]: what sessions line up behind
//! - [`row`], [`json`]: rows and JSON as PostgreSQL has them
//! - [`guc`], [`config`], [`session`]: settings, the same as one valid whole, and the client and signer made from them
//! - [`cache`]: which physical buckets are known to be ready
//! - [`wait`]: the only way to the network
//! - [`worker`]: background workers
//! - [`preload`], [`mod@error`]: how we were loaded, and how failures are told
//!
//! Pure rules live in `pg_storage_core`, talking to stores in `pg_storage_store`, serving S3 in `pg_storage_gateway`.

// The readers of a cdylib's documentation are its developers.
#![allow(rustdoc::private_intra_doc_links)]

use pgrx::prelude::*;

use crate::error::OrRaise;

mod api;
mod bucket;
mod bucket_deletion;
mod cache;
mod catalog;
mod clock;
mod config;
mod diagnose;
mod download;
mod error;
mod files;
mod guc;
mod identity;
mod installation;
mod json;
mod limits;
mod lock;
mod maintenance;
mod operation;
mod orphans;
mod preload;
mod provision;
mod rate;
mod row;
mod session;
mod upload;
mod wait;
mod worker;

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pgrx-tests/mod.rs"]
mod pgrx_tests;

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/00_types.sql", name = "types", bootstrap);
extension_sql_file!("../sql/05_identity.sql", name = "identity", requires = [claimed_user, claimed_tenant]);
extension_sql_file!("../sql/10_tables.sql", name = "tables", requires = ["identity"]);
extension_sql_file!("../sql/15_installation.sql", name = "installation", requires = ["tables"]);
extension_sql_file!("../sql/25_settlement.sql", name = "settlement", requires = ["installation"]);
extension_sql_file!("../sql/26_room.sql", name = "room", requires = ["settlement", hold_lock]);
extension_sql_file!("../sql/27_events.sql", name = "events", requires = ["room"]);
extension_sql_file!("../sql/28_provisioning.sql", name = "provisioning", requires = ["events"]);
extension_sql_file!(
    "../sql/20_rules.sql",
    name = "rules",
    requires = ["provisioning", admit_upload, limit_upload]
);
extension_sql_file!("../sql/30_policies.sql", name = "policies", requires = ["rules"]);
extension_sql_file!(
    "../sql/31_own_policies.sql",
    name = "own_policies",
    requires = ["policies", asked_operation, validate_expression]
);
extension_sql_file!(
    "../sql/40_api.sql",
    name = "public_api",
    requires = ["own_policies", find_bucket, open_upload, open_form, open_parts, sign_downloads]
);
extension_sql_file!("../sql/45_maintenance.sql", name = "maintenance", requires = ["public_api"]);
extension_sql_file!("../sql/46_bucket_deletion.sql", name = "bucket_deletion", requires = ["maintenance"]);
extension_sql_file!("../sql/47_orphans.sql", name = "orphans", requires = ["bucket_deletion"]);
extension_sql_file!(
    "../sql/50_operations.sql",
    name = "operations",
    requires = ["orphans", start_worker, wake_worker, cache_statistics, cache_entries, clear_cache, diagnose]
);
extension_sql_file!("../sql/55_listing.sql", name = "listing", requires = ["operations"]);
extension_sql_file!("../sql/56_files.sql", name = "files", requires = ["listing"]);
extension_sql_file!("../sql/57_versions.sql", name = "versions", requires = ["files"]);
extension_sql_file!("../sql/58_import.sql", name = "import", requires = ["versions"]);
extension_sql_file!(
    "../sql/60_comments.sql",
    name = "comments",
    requires = [
        "import",
        claimed_user,
        claimed_tenant,
        asked_operation,
        validate_expression,
        refuse,
        require_writable,
        deletion_delay,
        event_retention,
        validate_bucket,
        validate_origins,
        validate_file,
        validate_rename,
        find_bucket,
        admit_upload,
        limit_upload,
        hold_lock,
        try_hold_lock,
        is_locked,
        open_upload,
        open_uploads,
        open_form,
        open_parts,
        sign_parts,
        arrived_parts,
        confirm,
        confirm_all,
        abort,
        sign_downloads,
        unsigned_url,
        list_page,
        put,
        get,
        copy,
        relocate,
        search,
        look_at_objects,
        keeper_of,
        provision,
        inspect_bucket,
        mark_bucket_deleted,
        is_being_marked,
        maintain,
        scan,
        diagnose,
        cache_statistics,
        cache_entries,
        clear_cache,
        forget_at_commit,
        start_worker,
        wake_worker
    ]
);
extension_sql_file!("../sql/61_trigger_comments.sql", name = "trigger_comments", requires = ["import"]);
extension_sql_file!("../sql/90_privileges.sql", name = "privileges", finalize);

/// Called by PostgreSQL when the library is loaded. Starts nothing: no thread, runtime or socket may exist before fork.
#[allow(non_snake_case)]
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    let preloading = preload::note();
    if !preloading {
        guc::check_connection().or_raise();
    }
    guc::define(preloading);
    if preloading && !preload::binary_upgrade() {
        cache::install();
        rate::install();
        worker::install();
    }
}

/// What `cargo pgrx test` asks of a crate.
#[cfg(test)]
pub mod pg_test {
    /// Runs once before the tests.
    pub fn setup(_options: Vec<&str>) {}

    /// Settings the test server needs.
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec!["shared_preload_libraries = 'pg_storage'"]
    }
}
