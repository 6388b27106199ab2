//! Privileges: PUBLIC has none, each level has what it needs, and trusted columns stay the server's.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{Cluster, Database, Scene, refused};
use postgres::Client;
use std::process::Stdio;

/// Everything that a grantee was given in either schema, one line each: object, columns if only some, privileges.
/// `$1` is the role's name; 'public' for PUBLIC.
const GRANTED: &str = "
    WITH schemas AS (
        SELECT n.* FROM pg_namespace n WHERE nspname IN ('storage', 'storage_private')
    ), acls AS (
        SELECT nspname AS object, NULL AS column_name, coalesce(nspacl, acldefault('n', nspowner)) AS acl FROM schemas
        UNION ALL
        SELECT p.oid::regproc::text, NULL, coalesce(proacl, acldefault('f', proowner))
        FROM pg_proc p JOIN schemas n ON n.oid = pronamespace
        UNION ALL
        SELECT c.oid::regclass::text, NULL,
               coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", relowner))
        FROM pg_class c JOIN schemas n ON n.oid = relnamespace WHERE relkind <> 'c' AND relkind <> 'i'
        UNION ALL
        SELECT c.oid::regclass::text, attname, attacl
        FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid JOIN schemas n ON n.oid = relnamespace
        UNION ALL
        SELECT 'type ' || t.oid::regtype::text, NULL, coalesce(typacl, acldefault('T', typowner))
        FROM pg_type t JOIN schemas n ON n.oid = typnamespace LEFT JOIN pg_class c ON c.oid = typrelid
        WHERE typtype = 'e' OR c.relkind = 'c'
    ), entries AS (
        SELECT object, column_name, e.privilege_type, e.is_grantable
        FROM acls, aclexplode(acl) e
        WHERE e.grantee = CASE $1 WHEN 'public' THEN 0 ELSE (SELECT r.oid FROM pg_roles r WHERE rolname = $1) END
    )
    SELECT object || ' ' || privilege_type || CASE WHEN bool_or(is_grantable) THEN ' grantable' ELSE '' END
           || coalesce(' (' || string_agg(column_name, ' ' ORDER BY column_name) || ')', '')
    FROM entries GROUP BY object, privilege_type, column_name IS NULL";

fn granted(database: &Database<'_>, role: &str) -> Vec<String> {
    let rows = database.superuser().query(GRANTED, &[&role]).unwrap();
    let mut lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    lines.sort();
    lines
}

const READER: &str = "
    storage USAGE
    storage.buckets SELECT
    storage.current_tenant_id EXECUTE
    storage.current_user_id EXECUTE
    storage.download_url EXECUTE
    storage.download_urls EXECUTE
    storage.files SELECT
    storage.files_download_url EXECUTE
    storage.get_file EXECUTE
    storage.search_files EXECUTE
    storage_private.search EXECUTE
    storage_private.get EXECUTE
    storage.list_files EXECUTE
    storage.operation EXECUTE
    storage.public_url EXECUTE
    storage_private USAGE
    storage_private.deleted_buckets SELECT
    storage_private.claimed_tenant EXECUTE
    storage_private.claimed_user EXECUTE
    storage_private.asked_operation EXECUTE
    storage_private.find_bucket EXECUTE
    storage_private.list_page EXECUTE
    storage_private.is_manager EXECUTE
    storage_private.refuse EXECUTE
    storage_private.sign_downloads EXECUTE
    storage_private.unsigned_url EXECUTE
    type storage.bucket_access USAGE
    type storage.dedup_scope USAGE
    type storage.list_entry USAGE
    type storage.list_order USAGE
    type storage.signed_url USAGE
    type storage.multipart_ticket USAGE
    type storage.signed_part USAGE
    type storage.upload_form USAGE
    type storage.upload_part USAGE
    type storage.upload_spec USAGE
    type storage.upload_status USAGE
    type storage.upload_ticket USAGE";

const WRITER: &str = "
    storage.abort_upload EXECUTE
    storage.confirm_upload EXECUTE
    storage.confirm_uploads EXECUTE
    storage.delete_file EXECUTE
    storage.copy_file EXECUTE
    storage.restore_version EXECUTE
    storage.expire_versions EXECUTE
    storage.move_file EXECUTE
    storage.put_file EXECUTE
    storage.set_file_access EXECUTE
    storage_private.copy EXECUTE
    storage_private.put EXECUTE
    storage_private.relocate EXECUTE
    storage.files DELETE
    storage.files UPDATE (filename metadata path)
    storage.request_upload_url EXECUTE
    storage.list_upload_parts EXECUTE
    storage.request_multipart_upload EXECUTE
    storage.request_upload_form EXECUTE
    storage.request_upload_urls EXECUTE
    storage.sign_upload_parts EXECUTE
    storage.upload_requests INSERT (bucket_id content_type expires_in filename metadata path sha256 size)
    storage.upload_requests SELECT
    storage_private.abort EXECUTE
    storage_private.confirm EXECUTE
    storage_private.confirm_all EXECUTE
    storage_private.open_upload EXECUTE
    storage_private.arrived_parts EXECUTE
    storage_private.open_form EXECUTE
    storage_private.open_parts EXECUTE
    storage_private.open_uploads EXECUTE
    storage_private.sign_parts EXECUTE
    storage_private.require_writable EXECUTE
    storage_private.shareable_objects EXECUTE
    storage_private.shares_with EXECUTE";

const MANAGER: &str = "
    storage.buckets DELETE
    storage.buckets INSERT (access allowed_mime_types allowed_origins dedup download_url_ttl file_ttl is_default key max_file_count max_file_size max_total_size metadata owner_id tenant_id upload_url_ttl verify_content_type)
    storage.buckets UPDATE (allowed_mime_types allowed_origins dedup download_url_ttl file_ttl is_default key max_file_count max_file_size max_total_size metadata upload_url_ttl verify_content_type)
    storage.create_bucket EXECUTE
    storage.create_user_buckets EXECUTE
    storage.delete_bucket EXECUTE
    storage.inspect_bucket EXECUTE
    storage.physical_buckets SELECT
    storage.provision_bucket EXECUTE
    storage.tenant_settings DELETE
    storage.tenant_settings INSERT
    storage.tenant_settings SELECT
    storage.tenant_settings UPDATE
    storage_private.inspect_bucket EXECUTE
    storage_private.mark_bucket_deleted EXECUTE
    storage_private.provision EXECUTE
    storage_private.seed_buckets EXECUTE
    storage_private.validate_bucket EXECUTE
    storage_private.validate_origins EXECUTE";

/// The lines of several levels, sorted.
fn expected(levels: &[&str]) -> Vec<String> {
    let mut lines: Vec<String> = levels
        .iter()
        .flat_map(|level| level.lines())
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    lines.sort();
    lines
}

#[test]
fn public_has_nothing() {
    let database = Cluster::shared().database();
    assert_eq!(granted(&database, "public"), Vec::<String>::new());
}

#[test]
fn each_level_has_what_it_needs_and_no_more() {
    let database = Cluster::shared().database();
    for (level, lines) in [
        ("reader", expected(&[READER])),
        ("writer", expected(&[READER, WRITER])),
        ("manager", expected(&[READER, WRITER, MANAGER])),
    ] {
        let role = database.role(level);
        assert_eq!(granted(&database, &role), lines, "{level}");
        // Granting again changes nothing.
        database.superuser().execute("SELECT storage.grant_access($1, $2)", &[&role, &level]).unwrap();
        assert_eq!(granted(&database, &role), lines, "{level} granted twice");
    }
}

#[test]
fn revoking_takes_every_level_from_that_role_alone() {
    let database = Cluster::shared().database();
    let [reader, writer, manager] = ["reader", "writer", "manager"].map(|level| database.role(level));
    let kept = granted(&database, &reader);
    for role in [&writer, &manager] {
        database.superuser().execute("SELECT storage.revoke_access($1)", &[role]).unwrap();
        assert_eq!(granted(&database, role), Vec::<String>::new());
        let mut session = database.connect_as(role, &[]);
        assert_eq!(refused(session.query("SELECT FROM storage.files", &[])).sqlstate, "42501");
        assert_eq!(refused(session.query("SELECT storage_private.find_bucket('x')", &[])).sqlstate, "42501");
    }
    assert_eq!(granted(&database, &reader), kept);
}

#[test]
fn an_unknown_level_or_role_grants_nothing() {
    let database = Cluster::shared().database();
    let role = database.role("reader");
    let before = granted(&database, &role);
    let mut session = database.superuser();
    for level in [Some("admin"), Some(""), Some("Writer"), Some("writer, manager"), None] {
        let refusal = refused(session.execute("SELECT storage.grant_access($1, $2)", &[&role, &level]));
        assert_eq!(refusal.code(), ("42501", "RBAC_FORBIDDEN"), "{level:?}");
        assert!(refusal.hint.is_some_and(|hint| hint.contains("reader, writer and manager")));
    }
    for call in ["storage.grant_access('no_such_role', 'reader')", "storage.revoke_access('no_such_role')"] {
        assert_eq!(refused(session.query(&format!("SELECT {call}"), &[])).sqlstate, "42704", "{call}");
    }
    assert_eq!(granted(&database, &role), before);
}

#[test]
fn a_role_name_is_never_read_as_sql() {
    let database = Cluster::shared().database();
    let role = format!("{} ; \"DROP\" -- é", database.name());
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    let mut session = database.superuser();
    session.batch_execute(&format!("CREATE ROLE {quoted}")).unwrap();
    session.execute("SELECT storage.grant_access($1, 'manager')", &[&role]).unwrap();
    assert_eq!(granted(&database, &role), expected(&[READER, WRITER, MANAGER]));
    session.execute("SELECT storage.revoke_access($1)", &[&role]).unwrap();
    assert_eq!(granted(&database, &role), Vec::<String>::new());
}

#[test]
fn no_level_hands_out_levels_or_runs_the_house() {
    let database = Cluster::shared().database();
    let manager = database.role("manager");
    let mut session = database.connect_as(&manager, &[]);
    for call in [
        "storage.grant_access(current_user, 'manager')",
        "storage.revoke_access(current_user)",
        "storage.enable_default_policies(false)",
        "storage.add_policy('all', 'files', 'read', 'true')",
        "storage.drop_policy('all')",
        "storage.run_maintenance()",
        "storage.start_worker()",
        "storage.scan_orphans('any')",
        "storage.adopt_installation()",
        "storage.adopt_bucket('any')",
        "storage.import_objects('any', '{}')",
        "storage.claim_events()",
        "storage.acknowledge_events('{1}')",
        "storage.replay_events(now())",
        "storage.check()",
        "storage.cache_stats()",
        "storage.provisioned_buckets()",
        "storage.reset_cache()",
        "storage_private.level_privileges('reader')",
    ] {
        assert_eq!(refused(session.query(&format!("SELECT {call}"), &[])).sqlstate, "42501", "{call}");
    }
    for relation in [
        "objects",
        "object_deletions",
        "events",
        "store_capabilities",
        "upload_state",
        "bucket_usage",
        "bucket_deletions",
        "deletion_queue",
        "provisioning_state",
        "worker_state",
    ] {
        assert_eq!(
            refused(session.query(&format!("SELECT FROM storage.{relation}"), &[])).sqlstate,
            "42501",
            "{relation}"
        );
    }
    for table in [
        "policy_switch",
        "policies",
        "installation",
        "former_installations",
        "reconciliations",
        "worker_passes",
        "room",
        "released_room",
        "secrets",
    ] {
        let query = format!("SELECT FROM storage_private.{table}");
        assert_eq!(refused(session.query(&query, &[])).sqlstate, "42501");
    }
    for table in ["buckets", "files", "upload_requests", "objects", "tenant_settings"] {
        for statement in
            ["TRUNCATE storage.", "LOCK TABLE storage.", "DROP TABLE storage.", "ALTER TABLE storage."]
        {
            let end = if statement.starts_with("ALTER") { " DISABLE ROW LEVEL SECURITY" } else { "" };
            let statement = format!("{statement}{table}{end}");
            // A role may lock what it may change.
            let Err(error) = session.batch_execute(&statement) else { panic!("{statement} succeeded") };
            assert!(["42501", "25P01"].contains(&error.code().unwrap().code()), "{statement}: {error}");
        }
    }
}

/// Code that runs with whoever writes a row, and so with the owner where the library writes it: no level may leave any.
#[test]
fn no_level_leaves_code_on_the_tables() {
    let scene = pg_storage_tests::Scene::local();
    let mut session = scene.manager("ada");
    session
        .batch_execute(
            "CREATE FUNCTION pg_temp.fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE FUNCTION pg_temp.indexed(uuid) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'x' $$",
        )
        .unwrap();
    let names = "SELECT format('%s.%I', relnamespace::regnamespace, relname) FROM pg_class
                 WHERE relnamespace IN ('storage'::regnamespace, 'storage_private'::regnamespace) AND relkind = 'r'";
    let tables: Vec<String> =
        scene.superuser().query(names, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(tables.len() > 10, "{tables:?}");
    for table in tables {
        let column: String = scene.value(&format!(
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum = 1"
        ));
        for statement in [
            format!(
                "CREATE TRIGGER t BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION pg_temp.fired()"
            ),
            format!("CREATE RULE r AS ON INSERT TO {table} DO ALSO NOTHING"),
            format!("CREATE INDEX ON {table} ((pg_temp.indexed(NULL::uuid)))"),
            format!("CREATE POLICY p ON {table} USING (true)"),
            format!("CREATE STATISTICS pg_temp.s ON (lower('x')), {column} FROM {table}"),
            format!("ALTER TABLE {table} ALTER {column} SET DEFAULT NULL"),
            format!("ALTER TABLE {table} ADD CHECK (pg_temp.indexed(NULL::uuid) = 'x')"),
            format!("CREATE TEMP TABLE child () INHERITS ({table})"),
        ] {
            let refusal = refused(session.batch_execute(&statement));
            assert_eq!(refusal.sqlstate, "42501", "{statement}: {refusal:?}");
        }
    }
}

/// Tables with their columns.
fn columns(session: &mut Client) -> Vec<(String, String)> {
    let query = "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
                 WHERE relnamespace = 'storage'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped";
    session.query(query, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The columns of a table that [`WRITER`] and [`MANAGER`] may insert or update.
fn writable(lines: &[String], table: &str, privilege: &str, column: &str) -> bool {
    let whole = format!("storage.{table} {privilege}");
    lines.iter().any(|line| {
        *line == whole
            || line
                .strip_prefix(&format!("{whole} ("))
                .is_some_and(|list| list.trim_end_matches(')').split(' ').any(|name| name == column))
    })
}

#[test]
fn trusted_columns_cannot_be_written_in_any_way() {
    let database = Cluster::shared().database();
    let columns = columns(&mut database.superuser());
    assert!(columns.len() > 70, "{columns:?}");
    for (level, lines) in [
        ("reader", expected(&[READER])),
        ("writer", expected(&[READER, WRITER])),
        ("manager", expected(&[READER, WRITER, MANAGER])),
    ] {
        let role = database.role(level);
        let mut session = database.connect_as(&role, &[("jwt.claims.user_id", "ada")]);
        let mut copies = Vec::new();
        for (table, column) in &columns {
            let mut statements = Vec::new();
            if !writable(&lines, table, "INSERT", column) {
                statements.push(format!("INSERT INTO storage.{table} ({column}) VALUES (DEFAULT)"));
                statements.push(format!(
                    "INSERT INTO storage.{table} ({column}) VALUES (DEFAULT) ON CONFLICT DO NOTHING"
                ));
                copies.push(format!("COPY storage.{table} ({column}) FROM STDIN"));
                statements.push(format!(
                    "MERGE INTO storage.{table} t USING (SELECT 1) s ON false
                     WHEN NOT MATCHED THEN INSERT ({column}) VALUES (DEFAULT)"
                ));
            }
            if !writable(&lines, table, "UPDATE", column) {
                statements.push(format!("UPDATE storage.{table} SET {column} = DEFAULT"));
                statements.push(format!(
                    "MERGE INTO storage.{table} t USING (SELECT 1) s ON true
                     WHEN MATCHED THEN UPDATE SET {column} = DEFAULT"
                ));
                let free = ["bucket_id", "key", "tenant_id"]
                    .iter()
                    .find(|free| writable(&lines, table, "INSERT", free));
                // A view or rule of the role's own has its owner's rights, and no others.
                let aside = format!("by_{table}_{column}");
                session
                    .batch_execute(&format!(
                        "CREATE TEMP TABLE {aside} (x int);
                         CREATE RULE through AS ON INSERT TO {aside} DO INSTEAD UPDATE storage.{table} SET {column} = DEFAULT"
                    ))
                    .unwrap();
                // Whom a table's types are kept from makes no view of it at all.
                let view = format!("CREATE TEMP VIEW seen_{aside} AS SELECT * FROM storage.{table}");
                match session.batch_execute(&view) {
                    Ok(()) => statements.push(format!("UPDATE seen_{aside} SET {column} = DEFAULT")),
                    Err(error) => assert_eq!(refused(Err::<(), _>(error)).sqlstate, "42501", "{view}"),
                }
                statements.push(format!("INSERT INTO {aside} VALUES (1)"));
                if let Some(free) = free {
                    statements.push(format!(
                        "INSERT INTO storage.{table} ({free}) VALUES (DEFAULT) ON CONFLICT ({}) DO UPDATE SET {column} = DEFAULT",
                        if table == "tenant_settings" { "tenant_id" } else { "id" }
                    ));
                }
            }
            for statement in statements {
                let refusal = refused(session.execute(&statement, &[]));
                // Through a view nobody writes an identity column, whoever he is.
                if refusal.sqlstate == "428C9" && statement.starts_with("UPDATE seen_") {
                    continue;
                }
                assert_eq!(refusal.sqlstate, "42501", "{level}: {statement}: {refusal:?}");
                assert!(
                    refusal.message.starts_with("permission denied"),
                    "{level}: {statement}: {refusal:?}"
                );
            }
        }
        assert_eq!(psql(&database, &role, &copies), vec!["ERROR:  42501"; copies.len()], "{level}");
        // Where a role may write all columns named, row-level security refuses COPY altogether.
        let copy =
            "COPY storage.upload_requests (bucket_id, filename, content_type, size) FROM STDIN".to_owned();
        let code = if level == "reader" { "ERROR:  42501" } else { "ERROR:  0A000" };
        assert_eq!(psql(&database, &role, &[copy]), [code], "{level}");
    }
}

/// What psql says of statements, one after the other, with nothing on its standard input. The client library of the
/// other tests cannot tell a refused COPY.
fn psql(database: &Database<'_>, role: &str, statements: &[String]) -> Vec<String> {
    let mut command = database.cluster().client_program("psql");
    command.args(["-X", "-v", "VERBOSITY=sqlstate", "-U", role, "-d", database.name()]).stdin(Stdio::null());
    for statement in statements {
        command.args(["-c", statement]);
    }
    let output = command.output().unwrap();
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_row_inserted_directly_gets_the_servers_trusted_columns() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let first = Upload::of(b"first").request(&mut ada);
    let bucket: String =
        ada.query_one("SELECT id::text FROM storage.buckets WHERE key = 'private'", &[]).unwrap().get(0);
    let insert = format!(
        "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size) VALUES ('{bucket}', 'a.txt', 'text/plain', 5)"
    );
    let merge = format!(
        "MERGE INTO storage.upload_requests u USING (SELECT 1) s ON false WHEN NOT MATCHED THEN
         INSERT (bucket_id, filename, content_type, size) VALUES ('{bucket}', 'a.txt', 'text/plain', 5)"
    );
    for statement in [&insert, &merge] {
        assert_eq!(ada.execute(statement, &[]).unwrap(), 1);
    }
    let rows = ada
        .query(
            "SELECT tenant_id, owner_id, status::text, object_key = 'staging/default/' || id, direct, method,
                    physical_name, finished_at IS NULL AND reason IS NULL AND details IS NULL,
                    expires_at - created_at = '900 s', file_id <> id
             FROM storage.upload_requests WHERE id::text <> $1",
            &[&first.upload_id],
        )
        .unwrap();
    assert_eq!(rows.len(), 2);
    for row in &rows {
        let texts = [0, 1, 2, 5].map(|column| row.get::<_, String>(column));
        assert_eq!(texts, ["default", "ada", "requested", "PUT"]);
        for column in [3, 7, 8, 9] {
            assert!(row.get::<_, bool>(column), "column {column}: {row:?}");
        }
        assert!(!row.get::<_, bool>(4), "an undeclared digest is never direct");
        assert!(row.get::<_, String>(6).contains("default-private"));
    }

    // The same rules as through the function, and the same refusals.
    let before = scene.rows();
    for (statement, code) in [
        (insert.replace(", 5)", ", 0)"), ("22023", "INVALID_FILE_SIZE")),
        (insert.replace("'a.txt'", "'a/b'"), ("22023", "INVALID_FILENAME")),
        (insert.replace(&bucket, "00000000-0000-0000-0000-000000000000"), ("42704", "BUCKET_NOT_FOUND")),
        (merge.replace("text/plain", "text"), ("22023", "INVALID_CONTENT_TYPE")),
    ] {
        assert_eq!(refused(ada.execute(&statement, &[])).code(), code, "{statement}");
    }
    let nowhere = refused(ada.execute(&insert.replace(&format!("'{bucket}'"), "NULL"), &[]));
    assert_eq!(
        (nowhere.token.as_str(), nowhere.detail.as_deref()),
        ("BUCKET_NOT_FOUND", Some("Asked for NULL."))
    );
    assert_eq!(scene.rows(), before);
}

#[test]
fn a_user_can_rename_a_file_and_nothing_else_about_it() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let file = Upload::of(b"hello").complete(&mut ada, b"hello").file_id;
    let updated = ada
        .execute(
            "UPDATE storage.files SET filename = 'b.txt', path = 'x/b.txt', metadata = '{\"a\": 1}'",
            &[],
        )
        .unwrap();
    assert_eq!(updated, 1);
    for (assignment, code) in [
        ("filename = 'a/b'", ("22023", "INVALID_FILENAME")),
        ("filename = NULL", ("22023", "INVALID_FILENAME")),
        ("path = '../x'", ("22023", "INVALID_PATH")),
        ("metadata = '[]'", ("23514", "")),
    ] {
        let refusal = refused(ada.execute(&format!("UPDATE storage.files SET {assignment}"), &[]));
        assert_eq!(refusal.code(), code, "{assignment}");
    }
    flow::assert_downloads(&mut ada, &file, b"hello");
}
