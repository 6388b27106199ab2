//! From the version before: ALTER EXTENSION UPDATE gives what a fresh install gives, rows are untouched, and the library
//! of this version serves a database that was not updated yet.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod comparison;

use comparison::Facts;
use pg_storage_tests::backup::{furnish, restored, rows, surroundings};
use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{Cluster, Database, Scene, StoreAccess, environment, refused, scene};
use postgres::Client;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The install script of the version before, as released.
const FROZEN: &str = "pg_storage--0.1.0.sql";

/// A cluster whose server can install the version before.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let pg_config =
            Command::new(environment::postgres_program("pg_config")).arg("--sharedir").output().unwrap();
        let scripts = PathBuf::from(String::from_utf8(pg_config.stdout).unwrap().trim()).join("extension");
        let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("upgrade").join(FROZEN);
        // Into place at once: another binary's cluster may be reading it.
        let partial = scripts.join(format!("{FROZEN}.{}", std::process::id()));
        fs::copy(&frozen, &partial).unwrap();
        fs::rename(&partial, scripts.join(FROZEN)).unwrap();
        let options = scene::remote(StoreAccess::chosen());
        Cluster::start(options.setting("pg_storage.bucket_prefix", "updated"))
    })
}

fn before() -> Database<'static> {
    let database = cluster().bare_database();
    database.superuser().batch_execute("CREATE EXTENSION pg_storage VERSION '0.1.0'").unwrap();
    database
}

fn update(database: &Database<'_>) {
    database.superuser().batch_execute("ALTER EXTENSION pg_storage UPDATE").unwrap();
}

fn version(session: &mut Client) -> String {
    let query = "SELECT extversion FROM pg_extension WHERE extname = 'pg_storage'";
    session.query_one(query, &[]).unwrap().get(0)
}

#[test]
fn an_updated_database_is_what_a_fresh_one_is() {
    let (updated, fresh) = (before(), cluster().database());
    update(&updated);
    let wanted = Facts::of(&mut fresh.superuser());
    assert!(wanted.len() > 1000, "{} facts: the extension was overlooked", wanted.len());
    let differences = Facts::of(&mut updated.superuser()).differences(&wanted);
    assert!(
        differences.is_empty(),
        "{} facts differ; the upgrade script has to bring what is marked + and remove what is marked -:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn the_script_of_the_version_before_is_as_released() {
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("upgrade").join(FROZEN);
    assert_eq!(
        flow::sha256(&fs::read(frozen).unwrap()),
        "0fe111c0f0872937a055f369f8f91dd4f26699ee8f54e40f573d4c8cbbe4d93b"
    );
}

#[test]
fn the_version_is_that_of_the_library() {
    let updated = before();
    assert_eq!(version(&mut updated.superuser()), "0.1.0");
    update(&updated);
    assert_eq!(version(&mut updated.superuser()), env!("CARGO_PKG_VERSION"));
    assert_eq!(version(&mut cluster().database().superuser()), env!("CARGO_PKG_VERSION"));
}

/// What the comparison would say if the upgrade script had forgotten this.
#[track_caller]
fn assert_noticed(change: &str, object: &str) {
    let (changed, fresh) = (cluster().database(), cluster().database());
    changed.superuser().batch_execute(change).unwrap();
    let differences = Facts::of(&mut changed.superuser()).differences(&Facts::of(&mut fresh.superuser()));
    assert!(differences.iter().any(|line| line.contains(object)), "{change}: {differences:#?}");
}

#[test]
fn the_comparison_names_whatever_differs() {
    for (change, object) in [
        ("COMMENT ON COLUMN storage.files.size IS 'x'", "table column storage.files.size: comment x"),
        ("COMMENT ON FUNCTION storage.check() IS NULL", "function storage.\"check\"(): comment"),
        ("GRANT SELECT (size) ON storage.files TO PUBLIC", "storage.files.size: ACL =r/postgres"),
        ("GRANT USAGE ON SCHEMA storage_private TO PUBLIC", "schema storage_private: ACL"),
        ("GRANT USAGE ON SEQUENCE storage.events_id_seq TO PUBLIC", "storage.events_id_seq: ACL"),
        ("ALTER FUNCTION storage.current_user_id() VOLATILE", "function storage.current_user_id()"),
        ("ALTER FUNCTION storage.current_user_id() COST 7", "COST 7"),
        (
            "ALTER FUNCTION storage.enable_default_policies(boolean) RESET search_path",
            "enable_default_policies",
        ),
        ("ALTER EXTENSION pg_storage DROP FUNCTION storage.current_user_id()", "belongs to the extension"),
        ("CREATE TABLE storage.left_behind ()", "relation storage.left_behind"),
        ("ALTER TABLE storage.files ADD COLUMN more int", "column storage.files.more"),
        ("ALTER TABLE storage.files ALTER COLUMN size SET DEFAULT 1", "column storage.files.size"),
        ("ALTER TABLE storage.files ALTER COLUMN metadata DROP NOT NULL", "column storage.files.metadata"),
        ("ALTER TABLE storage.files DISABLE ROW LEVEL SECURITY", "relation storage.files"),
        ("ALTER TABLE storage.files DISABLE TRIGGER USER", "enabled D"),
        ("ALTER TABLE storage.files SET (fillfactor = 70)", "relation storage.files"),
        (
            "ALTER TABLE storage.files ADD CONSTRAINT more CHECK (size <> 7) NOT VALID",
            "constraint more on storage.files",
        ),
        ("CREATE INDEX more ON storage.files (size)", "index storage.more"),
        (
            "ALTER POLICY default_select ON storage.files USING (true)",
            "policy default_select on storage.files",
        ),
        ("ALTER TYPE storage.bucket_access ADD VALUE 'more' BEFORE 'private'", "type storage.bucket_access"),
        ("ALTER SEQUENCE storage.events_id_seq CACHE 5", "sequence storage.events_id_seq"),
        ("SELECT storage.enable_default_policies(false)", "storage_private.policy_switch: holds"),
        (
            "UPDATE pg_extension SET extcondition[1] = 'WHERE false' WHERE extname = 'pg_storage'",
            "dumped where [WHERE false]",
        ),
        (
            "CREATE RULE more AS ON DELETE TO storage.worker_state DO INSTEAD NOTHING",
            "rule more on storage.worker_state",
        ),
        ("ALTER DEFAULT PRIVILEGES IN SCHEMA storage GRANT SELECT ON TABLES TO PUBLIC", "default privileges"),
    ] {
        assert_noticed(change, object);
    }
}

#[test]
fn an_update_leaves_every_row_and_every_grant_and_the_database_works() {
    let database = before();
    furnish(&database);
    let writer = format!("{}_writer", database.name());
    let claims = [("jwt.claims.user_id", "ada"), ("jwt.claims.tenant_id", "acme")];
    // Not updated yet, the database works with the library of this version: the whole of furnish() ran on it.
    let rows_before = rows(&mut database.superuser());
    update(&database);
    assert_eq!(rows(&mut database.superuser()), rows_before);
    let mut ada = database.connect_as(&writer, &claims);
    let files = ada.query("SELECT id::text FROM storage.files", &[]).unwrap();
    assert_eq!(files.len(), 5);
    for row in files {
        flow::assert_downloads(&mut ada, row.get(0), b"same bytes");
    }
    let file = Upload::declared(b"after").complete(&mut ada, b"after").file_id;
    flow::assert_downloads(&mut ada, &file, b"after");
    database.superuser().batch_execute("SELECT storage.run_maintenance()").unwrap();

    // A careless REVOKE in the upgrade script would take the grants of roles for the extension's own.
    let copy = restored(&database, cluster(), "c", &[]);
    assert_eq!(surroundings(&mut copy.superuser()), surroundings(&mut database.superuser()));
}

#[test]
fn a_role_that_is_granted_its_level_again_has_what_this_version_gives() {
    let (updated, fresh) = (before(), cluster().database());
    for level in ["reader", "writer", "manager"] {
        let role = updated.role(level);
        update(&updated);
        let grant = format!("SELECT storage.grant_access('{role}', '{level}')");
        updated.superuser().batch_execute(&grant).unwrap();
        fresh.superuser().batch_execute(&grant).unwrap();
        let differences = Facts::of(&mut updated.superuser()).differences(&Facts::of(&mut fresh.superuser()));
        assert_eq!(differences, Vec::<String>::new(), "{level}");
    }
}

#[test]
fn a_dump_of_the_version_before_restores_as_this_version() {
    let database = before();
    furnish(&database);
    let copy = restored(&database, cluster(), "c", &[]);
    assert_eq!(version(&mut copy.superuser()), env!("CARGO_PKG_VERSION"));
    assert_eq!(rows(&mut copy.superuser()), rows(&mut database.superuser()));
}

#[test]
fn an_update_does_not_turn_policies_on_that_were_turned_off() {
    let database = before();
    database.superuser().batch_execute("SELECT storage.enable_default_policies(false)").unwrap();
    update(&database);
    let policies = "SELECT count(*) FROM pg_policies WHERE permissive = 'PERMISSIVE'";
    assert_eq!(database.superuser().query_one(policies, &[]).unwrap().get::<_, i64>(0), 0);
    let fresh = cluster().database();
    database.superuser().batch_execute("SELECT storage.enable_default_policies()").unwrap();
    let differences = Facts::of(&mut database.superuser()).differences(&Facts::of(&mut fresh.superuser()));
    assert!(
        differences.is_empty(),
        "turned on again they are not those of this version:\n{}",
        differences.join("\n")
    );
}

#[test]
fn an_update_needs_the_owner_of_the_extension_and_is_all_or_nothing() {
    let database = before();
    let manager = database.role("manager");
    let refusal =
        refused(database.connect_as(&manager, &[]).batch_execute("ALTER EXTENSION pg_storage UPDATE"));
    assert_eq!(refusal.sqlstate, "42501");
    let mut superuser = database.superuser();
    let untouched = Facts::of(&mut superuser);
    superuser.batch_execute("BEGIN; ALTER EXTENSION pg_storage UPDATE; ROLLBACK").unwrap();
    assert_eq!(Facts::of(&mut superuser).differences(&untouched), Vec::<String>::new());
}

#[test]
fn tickets_are_given_after_an_update_has_taken_a_column_from_them() {
    let scene = Scene::local();
    let statement = "ALTER TYPE storage.upload_ticket ADD ATTRIBUTE gone text;
                     ALTER TYPE storage.upload_ticket DROP ATTRIBUTE gone";
    scene.superuser().batch_execute(statement).unwrap();
    let bytes = b"a column less";
    Upload::declared(bytes).complete(&mut scene.user("ada"), bytes);
}
