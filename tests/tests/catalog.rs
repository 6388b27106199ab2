//! What the extension leaves in the catalog: comments, labels, pinned search paths, named types; and that it can be
//! dropped, made again, and lived with.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{Cluster, LocalStore, Options, Scene, eventually, refused, scene};
use postgres::Client;
use std::time::Duration;

/// The single text column of a query's rows; `$schemas` stands for both schemas of ours.
fn listed(query: &str) -> Vec<String> {
    let database = Cluster::shared().database();
    texts(&mut database.superuser(), query)
}

fn texts(session: &mut Client, query: &str) -> Vec<String> {
    let query = query.replace("$schemas", "('storage'::regnamespace, 'storage_private'::regnamespace)");
    session.query(&query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn everything_has_a_comment() {
    let without = "
        SELECT 'schema ' || nspname FROM pg_namespace WHERE oid IN $schemas AND obj_description(oid, 'pg_namespace') IS NULL
        UNION ALL
        SELECT 'function ' || oid::regprocedure FROM pg_proc
        WHERE pronamespace IN $schemas AND obj_description(oid, 'pg_proc') IS NULL
        UNION ALL
        SELECT 'relation ' || oid::regclass FROM pg_class
        WHERE relnamespace IN $schemas AND relkind IN ('r', 'v') AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL
        SELECT 'type ' || t.oid::regtype FROM pg_type t LEFT JOIN pg_class c ON c.oid = typrelid
        WHERE typnamespace IN $schemas AND (typtype = 'e' OR c.relkind = 'c') AND obj_description(t.oid, 'pg_type') IS NULL
        UNION ALL
        SELECT 'column ' || c.oid::regclass || '.' || attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace IN $schemas AND relkind IN ('r', 'v', 'c') AND attnum > 0 AND NOT attisdropped
          AND col_description(c.oid, attnum) IS NULL
        UNION ALL
        SELECT 'sequence ' || oid::regclass FROM pg_class
        WHERE relnamespace IN $schemas AND relkind = 'S' AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL
        SELECT 'trigger ' || tgname || ' on ' || c.oid::regclass FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
        WHERE relnamespace IN $schemas AND NOT tgisinternal AND obj_description(t.oid, 'pg_trigger') IS NULL
        UNION ALL
        SELECT 'policy ' || polname || ' on ' || c.oid::regclass FROM pg_policy p JOIN pg_class c ON c.oid = polrelid
        WHERE relnamespace IN $schemas AND obj_description(p.oid, 'pg_policy') IS NULL
        UNION ALL
        SELECT 'extension' FROM pg_extension WHERE extname = 'pg_storage' AND obj_description(oid, 'pg_extension') IS NULL";
    assert_eq!(listed(without), none());
}

#[test]
fn public_functions_name_their_errors_and_arguments() {
    // Those that can fail in ways of their own say how; what a caller branches on is documentation.
    for function in [
        "request_upload_url",
        "request_upload_urls",
        "request_upload_form",
        "request_multipart_upload",
        "sign_upload_parts",
        "list_upload_parts",
        "confirm_upload",
        "confirm_uploads",
        "abort_upload",
        "download_url",
        "create_bucket",
        "delete_file",
        "delete_bucket",
        "claim_events",
        "list_files",
        "put_file",
        "get_file",
        "copy_file",
        "move_file",
        "set_file_access",
        "restore_version",
        "expire_versions",
        "search_files",
    ] {
        let comment = format!(
            "SELECT obj_description(oid, 'pg_proc') FROM pg_proc WHERE pronamespace = 'storage'::regnamespace AND proname = '{function}'"
        );
        assert!(listed(&comment)[0].contains("Errors: "), "{function}");
    }
    let unnamed = "SELECT oid::regprocedure::text FROM pg_proc
                   WHERE pronamespace IN $schemas AND pronargs > 0 AND (proargnames IS NULL OR '' = ANY (proargnames))";
    assert_eq!(listed(unnamed), none());
}

#[test]
fn public_functions_have_one_signature_and_named_types() {
    let overloaded = "SELECT proname::text FROM pg_proc WHERE pronamespace IN $schemas
                      GROUP BY pronamespace, proname HAVING count(*) > 1";
    assert_eq!(listed(overloaded), none());
    let anonymous = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'storage'::regnamespace
                     AND (prorettype = 'record'::regtype OR proargmodes IS NOT NULL)";
    assert_eq!(listed(anonymous), none());
}

#[test]
fn labels_say_what_functions_do() {
    let stable = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'storage'::regnamespace AND provolatile = 's' ORDER BY 1";
    assert_eq!(
        listed(stable),
        [
            "current_tenant_id",
            "current_user_id",
            "download_url",
            "download_urls",
            "files_download_url",
            "get_file",
            "list_files",
            "operation",
            "public_url",
            "search_files"
        ]
    );
    let immutable = "SELECT oid::regproc::text FROM pg_proc WHERE pronamespace IN $schemas AND provolatile = 'i' ORDER BY 1";
    assert_eq!(listed(immutable), ["storage_private.shares_with"]);
    // A parallel worker has neither the caller's signer nor its connection to the store.
    let parallel = "SELECT oid::regproc::text FROM pg_proc WHERE pronamespace IN $schemas AND proparallel <> 'u' ORDER BY 1";
    assert_eq!(
        listed(parallel),
        [
            "storage.current_tenant_id",
            "storage.current_user_id",
            "storage.operation",
            "storage_private.asked_operation",
            "storage_private.claimed_tenant",
            "storage_private.claimed_user",
            "storage_private.is_manager",
            "storage_private.refuse",
            "storage_private.shares_with",
        ]
    );
}

#[test]
fn every_function_pins_its_search_path_or_has_no_use_for_one() {
    let unpinned = "
        SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = prolang
        WHERE pronamespace IN $schemas AND (prosecdef OR lanname = 'plpgsql' OR (lanname = 'sql' AND prosqlbody IS NULL))
          AND proconfig IS DISTINCT FROM ARRAY['search_path=pg_catalog, pg_temp']";
    assert_eq!(listed(unpinned), none());
    // All of them triggers, which nobody can call.
    let definers =
        "SELECT oid::regproc::text FROM pg_proc WHERE pronamespace IN $schemas AND prosecdef ORDER BY 1";
    assert_eq!(
        listed(definers),
        [
            "storage.seed_user_buckets",
            "storage_private.bring_origins",
            "storage_private.check_file",
            "storage_private.keep_full_bucket",
            "storage_private.queue_deleted_files",
            "storage_private.queue_deleted_requests",
            "storage_private.reapply_origins",
            "storage_private.release_deleted_files",
            "storage_private.release_deleted_requests",
            "storage_private.reset_room",
        ]
    );
    let callable = "SELECT oid::regproc::text FROM pg_proc
                    WHERE pronamespace IN $schemas AND prosecdef AND prorettype <> 'trigger'::regtype";
    assert_eq!(listed(callable), none());
}

#[test]
fn every_table_has_row_level_security_and_every_object_belongs_to_the_extension() {
    let open = "SELECT oid::regclass::text FROM pg_class
                WHERE relnamespace = 'storage'::regnamespace AND relkind = 'r' AND NOT relrowsecurity";
    assert_eq!(listed(open), none());
    let strays = "
        SELECT pg_describe_object(classid, objid, 0) FROM (
            SELECT 'pg_proc'::regclass AS classid, oid AS objid FROM pg_proc WHERE pronamespace IN $schemas
            UNION ALL SELECT 'pg_class'::regclass, oid FROM pg_class
                      WHERE relnamespace IN $schemas AND relkind IN ('r', 'v')
            UNION ALL SELECT 'pg_type'::regclass, oid FROM pg_type WHERE typnamespace IN $schemas AND typtype = 'e'
        ) ours
        WHERE NOT EXISTS (SELECT FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
                          WHERE d.classid = ours.classid AND d.objid = ours.objid AND deptype = 'e' AND extname = 'pg_storage')";
    assert_eq!(listed(strays), none());
}

#[test]
fn truncate_is_refused_to_everybody() {
    let scene = Scene::local();
    Upload::of(b"kept").complete(&mut scene.user("ada"), b"kept");
    let before = scene.rows();
    let mut superuser = scene.superuser();
    for statement in [
        "TRUNCATE storage.files",
        "TRUNCATE storage.objects, storage.files",
        "TRUNCATE storage.upload_requests",
        "TRUNCATE storage.buckets CASCADE",
    ] {
        let refusal = refused(superuser.batch_execute(statement));
        assert_eq!(refusal.code(), ("55000", "BUCKET_NOT_EMPTY"), "{statement}");
    }
    assert_eq!(scene.rows(), before);
}

#[test]
fn the_extension_can_be_dropped_and_made_again() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    Upload::of(b"gone").complete(&mut ada, b"gone");
    let mut superuser = scene.superuser();
    superuser.batch_execute("DROP EXTENSION pg_storage CASCADE").unwrap();
    let left = "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'storage'::regnamespace
                UNION ALL SELECT oid::regproc::text FROM pg_proc WHERE pronamespace = 'storage'::regnamespace
                UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname = 'storage_private'";
    assert_eq!(texts(&mut superuser, left), none());
    // Sessions that had plans of the old one included.
    assert!(ada.query("SELECT storage.current_user_id()", &[]).is_err());

    superuser.batch_execute("CREATE EXTENSION pg_storage").unwrap();
    for level in ["writer", "manager"] {
        let role = format!("{}_{level}", scene.database.name());
        superuser.execute("SELECT storage.grant_access($1, $2)", &[&role, &level]).unwrap();
    }
    let mut again = scene.user("ada");
    for session in [&mut again, &mut ada] {
        let file = Upload::of(b"new").complete(session, b"new").file_id;
        flow::assert_downloads(session, &file, b"new");
    }
}

#[test]
fn only_a_superuser_installs_it_and_only_into_a_schema_of_a_superuser() {
    let database = Cluster::shared().bare_database();
    let role = format!("{}_owner", database.name());
    let mut superuser = database.superuser();
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {role} LOGIN; GRANT CREATE ON DATABASE {} TO {role}",
            database.name()
        ))
        .unwrap();
    let mut session = database.connect_as(&role, &[]);
    assert_eq!(refused(session.batch_execute("CREATE EXTENSION pg_storage")).sqlstate, "42501");

    // A schema planted beforehand: whoever owns it could put functions beside ours.
    session.batch_execute("CREATE SCHEMA storage").unwrap();
    let refusal = refused(superuser.batch_execute("CREATE EXTENSION pg_storage"));
    assert_eq!(refusal.sqlstate, "42501", "{refusal:?}");
    assert!(refusal.message.contains("schema storage"), "{refusal:?}");
    session.batch_execute("DROP SCHEMA storage").unwrap();
    superuser.batch_execute("CREATE EXTENSION pg_storage").unwrap();
    assert_eq!(
        refused(superuser.batch_execute("ALTER EXTENSION pg_storage SET SCHEMA public")).sqlstate,
        "0A000"
    );
}

#[test]
fn a_database_in_another_encoding_than_utf8_is_refused() {
    let cluster = Cluster::start(Options::new().without_preload());
    let mut superuser = cluster.connect("postgres", "postgres");
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let name = format!("in_{}", encoding.to_lowercase());
        let create = format!("CREATE DATABASE {name} ENCODING {encoding} LOCALE 'C' TEMPLATE template0");
        superuser.batch_execute(&create).unwrap();
        let refusal =
            refused(cluster.connect("postgres", &name).batch_execute("CREATE EXTENSION pg_storage"));
        assert_eq!(refusal.sqlstate, "0A000", "{refusal:?}");
        assert!(refusal.detail.is_some_and(|detail| detail.contains(encoding)));
    }
}

#[test]
fn an_object_planted_under_one_of_our_names_stops_the_installation() {
    let database = Cluster::shared().bare_database();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE SCHEMA storage; CREATE TABLE storage.files (id int)").unwrap();
    assert_eq!(refused(superuser.batch_execute("CREATE EXTENSION pg_storage")).sqlstate, "42P07");
    superuser.batch_execute("DROP TABLE storage.files; CREATE FUNCTION storage.current_user_id() RETURNS text LANGUAGE sql AS 'SELECT 1::text'").unwrap();
    assert_eq!(refused(superuser.batch_execute("CREATE EXTENSION pg_storage")).sqlstate, "42723");
}

#[test]
fn without_preload_and_without_a_store_a_call_says_what_is_missing() {
    let cluster = Cluster::start(Options::new().without_preload());
    let database = cluster.database();
    let mut superuser = database.superuser();
    superuser.batch_execute("SELECT storage.create_user_buckets('ada')").unwrap();
    let mut ada = database.connect_as(&database.role("writer"), &[("jwt.claims.user_id", "ada")]);
    let refusal =
        refused(ada.query("SELECT storage.request_upload_url('private', 'a.txt', 'text/plain', 1)", &[]));
    assert_eq!(refusal.sqlstate, "55000", "{refusal:?}");
    assert!(["NOT_CONFIGURED", "NEEDS_PRELOAD"].contains(&refusal.token.as_str()), "{refusal:?}");
    let hint = refusal.hint.unwrap();
    assert!(hint.contains("shared_preload_libraries") && hint.contains("pg_storage.endpoint"), "{hint}");
    let uploads = "SELECT count(*) FROM storage.upload_requests";
    assert_eq!(superuser.query_one(uploads, &[]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn without_preload_everything_works_on_another_store_and_the_cache_says_it_is_not_shared() {
    let store = LocalStore::shared();
    let cluster = Cluster::start(
        scene::remote(store.access()).without_preload().setting("pg_storage.bucket_prefix", "nopre"),
    );
    let database = cluster.database();
    let mut superuser = database.superuser();
    superuser.batch_execute("SELECT storage.create_user_buckets('ada')").unwrap();
    let mut ada = database.connect_as(&database.role("writer"), &[("jwt.claims.user_id", "ada")]);
    let file = Upload::declared(b"hello").complete(&mut ada, b"hello").file_id;
    flow::assert_downloads(&mut ada, &file, b"hello");
    assert!(!superuser.query_one("SELECT shared FROM storage.cache_stats()", &[]).unwrap().get::<_, bool>(0));
    assert!(refused(superuser.batch_execute("SHOW pg_storage.cache_entries")).sqlstate == "42704");
}

#[test]
fn nothing_of_ours_holds_a_database() {
    let cluster = Cluster::start(Options::new());
    for how in
        ["DROP DATABASE {}", "ALTER DATABASE {} RENAME TO renamed", "CREATE DATABASE copied TEMPLATE {}"]
    {
        let database = cluster.database();
        let mut superuser = database.superuser();
        superuser.batch_execute("SELECT storage.create_user_buckets('postgres')").unwrap();
        let file = Upload::of(b"hello").complete(&mut superuser, b"hello").file_id;
        flow::assert_downloads(&mut superuser, &file, b"hello");
        drop(superuser);
        let mut other = cluster.connect("postgres", "postgres");
        let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'", database.name());
        eventually("the end of the test's own session", Duration::from_secs(10), || {
            (other.query_one(&sessions, &[]).unwrap().get::<_, i64>(0) == 0).then_some(())
        });
        other.batch_execute(&how.replace("{}", database.name())).unwrap();
    }
    // A copy of a database is one with the extension in it.
    let mut copied = cluster.connect("postgres", "copied");
    assert_eq!(copied.query("SELECT storage.download_url(id) FROM storage.files", &[]).unwrap().len(), 1);
}
