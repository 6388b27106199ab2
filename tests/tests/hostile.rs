//! What a role can make of the functions it was granted when it calls them directly, with ids of other users, and with
//! its own types, operators, functions and tables in the way.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{Upload, sha256};
use pg_storage_tests::parts::request_parts;
use pg_storage_tests::{Refusal, Scene, refused};
use postgres::{Client, SimpleQueryMessage};

const ABSENT: &str = "00000000-0000-4000-8000-000000000000";

/// Uploads of a session's user: one that became a file, one still waiting, and one in parts.
struct Own {
    bucket: String,
    file: String,
    pending: String,
    parts: String,
}

fn own(session: &mut Client) -> Own {
    let bytes = b"what others must not see";
    let file = Upload::declared(bytes).at("docs/secret.txt").complete(session, bytes).file_id;
    let pending = Upload::of(bytes).request(session).upload_id;
    let parts = request_parts(session, &Upload::of(bytes)).upload_id;
    let bucket =
        "SELECT id::text FROM storage.buckets WHERE key = 'private' AND owner_id = storage.current_user_id()";
    Own { bucket: session.query_one(bucket, &[]).unwrap().get(0), file, pending, parts }
}

/// Every private function that some level is granted, with an id in the place of `{bucket}`, `{file}`, `{upload}` or `{parts}`.
const DIRECT_CALLS: [&str; 28] = [
    "claimed_user()",
    "claimed_tenant()",
    "asked_operation()",
    "is_manager()",
    "require_writable()",
    "validate_bucket('a', NULL, NULL, NULL)",
    "validate_origins(NULL)",
    "find_bucket('{bucket}')",
    "open_upload('{bucket}', 'a.txt', 'text/plain', 5, NULL, NULL, '{}', NULL)",
    "open_form('{bucket}', 'a.txt', 'text/plain', 5, NULL, '{}', NULL)",
    "open_parts('{bucket}', 'a.txt', 'text/plain', 5, NULL, NULL, NULL, '{}', NULL, false)",
    "sign_parts('{parts}', ARRAY[1], NULL)",
    "arrived_parts('{parts}')",
    "open_uploads('{bucket}', ARRAY['a.txt'], ARRAY['text/plain'], ARRAY[5]::pg_catalog.int8[], ARRAY[NULL], ARRAY[NULL], ARRAY[NULL]::pg_catalog.jsonb[])",
    "shareable_objects('{bucket}', '{sha256}', 24)",
    "shares_with(NULL, NULL)",
    "sign_downloads(ARRAY['{file}']::pg_catalog.uuid[], NULL, true, NULL)",
    "unsigned_url('{file}')",
    "list_page('{bucket}', '', NULL, 9, NULL, 'path')",
    "put('{bucket}', 'a.txt', 'a', 'text/plain', NULL, '{}')",
    "search('{bucket}', '{\"a\": 1}', 9, NULL)",
    "get('{file}')",
    "copy('{file}', NULL, NULL, NULL)",
    "relocate('{file}', NULL, 'a', true)",
    "confirm('{upload}')",
    "confirm_all(ARRAY['{upload}']::pg_catalog.uuid[])",
    "abort('{upload}')",
    "provision('{bucket}')",
];

fn filled(call: &str, own: &Own) -> String {
    call.replace("{bucket}", &own.bucket)
        .replace("{file}", &own.file)
        .replace("{upload}", &own.pending)
        .replace("{parts}", &own.parts)
        .replace("{sha256}", &sha256(b"what others must not see"))
}

/// The rows of a call as text, or its refusal with the id taken out, so that absent and hidden can be compared.
fn answer(session: &mut Client, call: &str, own: &Own) -> Result<Vec<Vec<Option<String>>>, Refusal> {
    let query = format!("SELECT * FROM storage_private.{}", filled(call, own));
    match session.simple_query(&query) {
        Ok(messages) => Ok(messages
            .iter()
            .filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect())
                }
                _ => None,
            })
            .collect()),
        Err(error) => {
            let mut refusal = refused(Err::<(), _>(error));
            for id in [&own.bucket, &own.file, &own.pending, &own.parts] {
                refusal.detail = refusal.detail.map(|detail| detail.replace(id.as_str(), "?"));
            }
            Err(refusal)
        }
    }
}

#[test]
fn called_directly_with_the_ids_of_others_a_private_function_knows_nothing() {
    let scene = Scene::with_parts();
    let ada = own(&mut scene.user("ada"));
    let absent = || ABSENT.to_owned();
    let nobody = Own { bucket: absent(), file: absent(), pending: absent(), parts: absent() };
    let before = scene.rows();
    let strangers = [
        ("another user", scene.user("bob")),
        ("another tenant", scene.stranger("ada", "globex")),
        ("no claims", scene.database.connect_as(&format!("{}_writer", scene.database.name()), &[])),
    ];
    let mut named = 0;
    for (who, mut session) in strangers {
        for call in DIRECT_CALLS.iter().filter(|call| call.contains('{')) {
            let hidden = answer(&mut session, call, &ada);
            assert_eq!(hidden, answer(&mut session, call, &nobody), "{who}: {call}");
            match hidden {
                Ok(rows) => assert_eq!(rows, Vec::<Vec<_>>::new(), "{who}: {call}"),
                Err(refusal) => {
                    let expected = if call.starts_with("provision") { "42501" } else { "42704" };
                    assert_eq!(refusal.sqlstate, expected, "{who}: {call}: {refusal:?}");
                    named += 1;
                }
            }
        }
    }
    assert_eq!(named, 3 * (8 + 4 + 4));
    // Three more buckets for bob and the stranger, and no other change.
    let mut after = scene.rows();
    after[4] -= 6;
    assert_eq!(after, before);
}

#[test]
fn refuse_ends_the_statement_and_does_nothing_else() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let before = scene.rows();
    let call = "SELECT storage_private.refuse($1, 'made up', 'a detail', 'a hint')";
    let refusal = refused(ada.execute(call, &[&"FILE_NOT_FOUND"]));
    assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"));
    // A token that is none of ours is a defect and says so; nobody can forge other SQLSTATEs with it.
    for token in ["", "57014", "file_not_found", "FILE_NOT_FOUND: x"] {
        assert_eq!(refused(ada.execute(call, &[&token])).sqlstate, "XX000", "{token}");
    }
    assert_eq!(scene.rows(), before);
}

#[test]
fn every_granted_private_function_is_among_those_tried() {
    let scene = Scene::local();
    let query = "SELECT DISTINCT p.proname::text FROM pg_proc p
                 WHERE pronamespace = 'storage_private'::regnamespace AND has_function_privilege($1, p.oid, 'EXECUTE')
                 ORDER BY 1";
    let manager = format!("{}_manager", scene.database.name());
    let granted: Vec<String> =
        scene.superuser().query(query, &[&manager]).unwrap().iter().map(|row| row.get(0)).collect();
    // Those have tests of their own: below, in seed.rs and in delete_bucket.rs.
    let mut tried: Vec<String> = ["refuse", "seed_buckets", "inspect_bucket", "mark_bucket_deleted"]
        .into_iter()
        .chain(DIRECT_CALLS.iter().map(|call| call.split('(').next().unwrap()))
        .map(str::to_owned)
        .collect();
    tried.sort();
    assert_eq!(granted, tried);
}

#[test]
fn a_manager_stays_in_its_tenant_whatever_it_calls() {
    let scene = Scene::with_parts();
    let ada = own(&mut scene.user("ada"));
    drop(scene.stranger("eve", "globex"));
    let claims = [("jwt.claims.user_id", "eve"), ("jwt.claims.tenant_id", "globex")];
    let mut eve = scene.database.connect_as(&format!("{}_manager", scene.database.name()), &claims);
    let before = scene.rows();
    let id = &ada.bucket;
    for (statement, code) in [
        ("SELECT storage_private.seed_buckets('default', 'mallory')".to_owned(), ("42501", "")),
        ("INSERT INTO storage.buckets (tenant_id, key) VALUES ('default', 'mine')".to_owned(), ("42501", "")),
        ("INSERT INTO storage.tenant_settings VALUES ('default', '{*}')".to_owned(), ("42501", "")),
        (format!("SELECT storage_private.provision('{id}')"), ("42704", "BUCKET_NOT_FOUND")),
        (format!("SELECT storage_private.inspect_bucket('{id}')"), ("42704", "BUCKET_NOT_FOUND")),
        (format!("SELECT storage.provision_bucket('{id}')"), ("42704", "BUCKET_NOT_FOUND")),
        (format!("SELECT storage.inspect_bucket('{id}')"), ("42704", "BUCKET_NOT_FOUND")),
        (format!("SELECT storage.delete_bucket('{id}')"), ("42704", "BUCKET_NOT_FOUND")),
        (format!("SELECT storage.delete_bucket('{id}', force => true)"), ("42704", "BUCKET_NOT_FOUND")),
        (format!("SELECT storage_private.mark_bucket_deleted('{id}')"), ("42704", "BUCKET_NOT_FOUND")),
    ] {
        assert_eq!(refused(eve.batch_execute(&statement)).code(), code, "{statement}");
    }
    for statement in [
        "UPDATE storage.buckets SET is_default = true WHERE tenant_id = 'default'",
        "DELETE FROM storage.files",
    ] {
        assert_eq!(eve.execute(statement, &[]).unwrap(), 0, "{statement}");
    }
    assert_eq!(scene.rows(), before);
}

/// Puts a role's own things in front of everything that our statements could mean. Each trap ends the statement if it
/// runs with rights other than the role's; each also gives a wrong answer where there is one.
fn set_traps(scene: &Scene, role: &str) {
    let sprung =
        "IF current_user <> session_user THEN RAISE EXCEPTION 'a trap ran as %', current_user; END IF;";
    let mut traps = format!(
        "SET SESSION AUTHORIZATION {role};
         CREATE FUNCTION evil.holds(anyelement) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN {sprung} RETURN true; END $$;"
    );
    for domain in ["text", "uuid", "int8", "int4", "bool", "jsonb", "timestamptz", "interval", "bytea"] {
        traps += &format!("CREATE DOMAIN evil.{domain} AS pg_catalog.{domain} CHECK (evil.holds(VALUE));");
    }
    for name in ["bucket_access", "upload_status", "upload_ticket", "upload_requests", "signed_url"] {
        traps += &format!("CREATE TYPE evil.{name} AS (nothing pg_catalog.int4);");
    }
    for (operator, operand) in
        [("=", "uuid"), ("=", "text"), ("=", "bytea"), ("=", "int8"), (">", "timestamptz")]
    {
        let function = format!("evil.{}_{operand}", if operator == "=" { "same" } else { "more" });
        traps += &format!(
            "CREATE FUNCTION {function}(pg_catalog.{operand}, pg_catalog.{operand}) RETURNS pg_catalog.bool LANGUAGE plpgsql AS
             $$ BEGIN {sprung} RETURN true; END $$;
             CREATE OPERATOR evil.{operator} (LEFTARG = pg_catalog.{operand}, RIGHTARG = pg_catalog.{operand}, FUNCTION = {function});"
        );
    }
    for function in [
        "unnest(pg_catalog.uuid[]) RETURNS SETOF pg_catalog.uuid",
        "clock_timestamp() RETURNS pg_catalog.timestamptz",
        "now() RETURNS pg_catalog.timestamptz",
        "hashtextextended(pg_catalog.text, pg_catalog.int8) RETURNS pg_catalog.int8",
        "pg_advisory_xact_lock(pg_catalog.int8) RETURNS void",
        "encode(pg_catalog.bytea, pg_catalog.text) RETURNS pg_catalog.text",
        "to_jsonb(anyelement) RETURNS pg_catalog.jsonb",
        "current_user_id() RETURNS pg_catalog.text",
        "current_tenant_id() RETURNS pg_catalog.text",
        "deletion_delay() RETURNS pg_catalog.interval",
    ] {
        traps += &format!(
            "CREATE FUNCTION evil.{function} LANGUAGE plpgsql AS $$ BEGIN {sprung} RAISE 'a trap was called'; END $$;"
        );
    }
    scene.superuser().batch_execute(&format!("CREATE SCHEMA evil AUTHORIZATION {role}; {traps}")).unwrap();
}

/// Makes the session look where the traps are first, and puts temporary tables and types in the way as well.
fn walk_into_traps(session: &mut Client) {
    session
        .batch_execute(
            "CREATE TEMP TABLE buckets (id int); CREATE TEMP TABLE files (id int); CREATE TEMP TABLE objects (id int);
             CREATE TEMP TABLE upload_requests (id int); CREATE TEMP TABLE object_deletions (id int);
             CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (evil.holds(VALUE));
             CREATE DOMAIN pg_temp.uuid AS pg_catalog.uuid CHECK (evil.holds(VALUE));
             SET search_path = evil, pg_temp, storage, storage_private, pg_catalog",
        )
        .unwrap();
}

#[test]
fn nothing_of_the_callers_runs_with_the_owners_rights() {
    springs_no_trap(&Scene::with_parts());
}

/// Gives everything of the extension to a role that may nothing else.
fn give_to_a_plain_role(scene: &Scene) -> String {
    let owner = format!("{}_owner", scene.database.name());
    let gift = format!(
        "CREATE ROLE {owner};
         DO $do$
         DECLARE
             statement text;
         BEGIN
             FOR statement IN
                 SELECT format('ALTER SCHEMA %s OWNER TO {owner}', oid::regnamespace) FROM pg_namespace
                 WHERE nspname IN ('storage', 'storage_private')
                 UNION ALL
                 SELECT format('ALTER %s %s OWNER TO {owner}', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, oid::regclass)
                 FROM pg_class WHERE relnamespace IN ('storage'::regnamespace, 'storage_private'::regnamespace) AND relkind IN ('r', 'v')
                 UNION ALL
                 SELECT format('ALTER FUNCTION %s OWNER TO {owner}', oid::regprocedure) FROM pg_proc
                 WHERE pronamespace IN ('storage'::regnamespace, 'storage_private'::regnamespace)
                 UNION ALL
                 SELECT format('ALTER TYPE %s OWNER TO {owner}', t.oid::regtype) FROM pg_type t LEFT JOIN pg_class c ON c.oid = typrelid
                 WHERE typnamespace IN ('storage'::regnamespace, 'storage_private'::regnamespace) AND (typtype = 'e' OR c.relkind = 'c')
             LOOP
                 EXECUTE statement;
             END LOOP;
         END $do$"
    );
    scene.superuser().batch_execute(&gift).unwrap();
    owner
}

/// An owner that is no superuser: whatever ran with its rights could do nothing outside of the two schemas.
#[test]
fn an_owner_that_is_no_superuser_is_enough() {
    let scene = Scene::with_parts();
    let owner = give_to_a_plain_role(&scene);
    springs_no_trap(&scene);

    let mut ada = scene.user("ada");
    let own = own(&mut ada);
    let before = scene.rows();
    let mut bob = scene.user("bob");
    for call in DIRECT_CALLS.iter().filter(|call| call.contains('{') && !call.starts_with("provision")) {
        match answer(&mut bob, call, &own) {
            Ok(rows) => assert_eq!(rows, Vec::<Vec<_>>::new(), "{call}"),
            Err(refusal) => assert_eq!(refusal.sqlstate, "42704", "{call}: {refusal:?}"),
        }
    }
    let mut after = scene.rows();
    after[4] = before[4];
    assert_eq!(after, before);
    // Quotas, levels, policies and maintenance are the owner's as well.
    let mut session = scene.superuser();
    session
        .batch_execute(&format!(
            "UPDATE storage.buckets SET max_file_count = 2; CREATE ROLE {owner}_friend; SET ROLE {owner};
             SELECT storage.grant_access('{owner}_friend', 'manager');
             SELECT storage.revoke_access('{owner}_friend');
             SELECT storage.add_policy('own', 'files', 'read', 'false');
             SELECT storage.drop_policy('own');
             SELECT storage.enable_default_policies(false);
             SELECT storage.enable_default_policies(true);
             SELECT storage.run_maintenance();
             SELECT storage.claim_events();
             SELECT storage.check()"
        ))
        .unwrap();
    let refusal = refused(Upload::of(b"third").try_request(&mut ada));
    assert_eq!(refusal.code(), ("53400", "QUOTA_EXCEEDED"), "{refusal:?}");
}

fn springs_no_trap(scene: &Scene) {
    let manager = format!("{}_manager", scene.database.name());
    set_traps(scene, &manager);
    let mut session = scene.manager("ada");
    session.execute("SELECT storage.create_user_buckets('ada')", &[]).unwrap();
    let ada = own(&mut session);
    scene
        .superuser()
        .batch_execute("SELECT storage.reset_cache(); DELETE FROM storage.store_capabilities")
        .unwrap();

    // A session of its own, in which no plan is kept yet, and a cache that knows nothing.
    let mut session = scene.manager("ada");
    walk_into_traps(&mut session);
    let url = format!("sign_downloads(ARRAY['{}']::pg_catalog.uuid[], NULL, true, NULL)", ada.file);
    let signed = answer(&mut session, &url, &ada).unwrap();
    assert_eq!(signed[0][0].as_deref(), Some(ada.file.as_str()));
    assert!(signed[0][1].as_deref().is_some_and(|url| url.contains("X-Amz-Signature")));
    for call in DIRECT_CALLS.iter().chain(&["inspect_bucket('{bucket}')", "provision('{bucket}')"]) {
        let outcome = answer(&mut session, call, &ada);
        if call.starts_with("unsigned_url") {
            assert_eq!(outcome.unwrap_err().code(), ("55000", "NOT_PUBLIC"));
        } else {
            outcome.unwrap_or_else(|refusal| panic!("{call}: {refusal:?}"));
        }
    }

    // What the calls made of it is in the way of what follows.
    let others = format!("DELETE FROM storage.files WHERE id <> '{}'", ada.file);
    scene.superuser().batch_execute(&others).unwrap();

    // The triggers that are definers, and the public face.
    for statement in [
        "UPDATE storage.buckets SET allowed_origins = '{https://a.example}' WHERE key OPERATOR(pg_catalog.=) 'private'".to_owned(),
        "INSERT INTO storage.tenant_settings VALUES ('default', '{https://b.example}')".to_owned(),
        "SELECT storage.request_upload_url('private', 'b.txt', 'text/plain', 5)".to_owned(),
        "SELECT storage.create_bucket('more')".to_owned(),
        "SELECT storage.provision_bucket('more')".to_owned(),
        format!("SELECT storage.download_url('{}')", ada.file),
        "SELECT storage.files_download_url(f) FROM storage.files f".to_owned(),
        format!("UPDATE storage.files SET filename = 'c.txt', path = 'docs/c.txt' WHERE id OPERATOR(pg_catalog.=) '{}'", ada.file),
        format!("SELECT storage.delete_file('{}')", ada.file),
        "SELECT storage.delete_bucket('more')".to_owned(),
        "SELECT storage.delete_bucket('public', force => true)".to_owned(),
    ] {
        if let Err(error) = session.batch_execute(&statement) {
            panic!("{statement}: {:?}", error.as_db_error());
        }
    }
    let left = "SELECT count(*) FROM storage.files WHERE id = $1::text::uuid";
    assert_eq!(scene.superuser().query_one(left, &[&ada.file]).unwrap().get::<_, i64>(0), 0);
}

#[test]
fn operators_of_the_callers_open_no_row_of_others() {
    let scene = Scene::with_parts();
    let ada = own(&mut scene.user("ada"));
    let writer = format!("{}_writer", scene.database.name());
    set_traps(&scene, &writer);
    // For eve every uuid equals every other.
    let mut eve = scene.user("eve");
    walk_into_traps(&mut eve);
    for call in DIRECT_CALLS.iter().filter(|call| call.contains('{') && !call.starts_with("provision")) {
        match answer(&mut eve, call, &ada) {
            Ok(rows) => assert_eq!(rows, Vec::<Vec<_>>::new(), "{call}"),
            Err(refusal) => assert_eq!(refusal.sqlstate, "42704", "{call}: {refusal:?}"),
        }
    }
}

/// The planner calls an operator's estimator, and with it the operator, for what statistics say of a column: also for rows
/// that nobody may see.
#[test]
fn operators_of_the_callers_are_not_tried_on_the_statistics_of_what_is_hidden() {
    let scene = Scene::local();
    let mut manager = scene.manager("ada");
    manager.batch_execute("SELECT storage.create_bucket('b' || n) FROM generate_series(1, 40) n").unwrap();
    let mut eve = scene.stranger("eve", "elsewhere");
    eve.batch_execute(
        "CREATE TABLE pg_temp.seen (what text);
         CREATE FUNCTION pg_temp.seen(pg_catalog.uuid, pg_catalog.uuid) RETURNS pg_catalog.bool LANGUAGE plpgsql COST 0.0000001 AS
         $$ BEGIN INSERT INTO pg_temp.seen VALUES ($1::text); RETURN true; END $$;
         CREATE OPERATOR pg_temp.=== (LEFTARG = pg_catalog.uuid, RIGHTARG = pg_catalog.uuid, FUNCTION = pg_temp.seen,
                                      RESTRICT = matchingsel)",
    )
    .unwrap();
    scene.superuser().batch_execute("ANALYZE storage.buckets; ANALYZE storage.files").unwrap();
    let relations: Vec<(String, String)> = eve
        .query(
            "SELECT c.oid::regclass::text, quote_ident(a.attname) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
             WHERE c.relnamespace IN ('storage'::regnamespace, 'storage_private'::regnamespace) AND c.relkind IN ('r', 'v')
               AND a.attnum > 0 AND a.atttypid = 'uuid'::regtype AND has_column_privilege(c.oid, a.attnum, 'SELECT')",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert!(relations.iter().any(|(name, _)| name == "storage_private.deleted_buckets"), "{relations:?}");
    let own = "SELECT array_agg(id::text) FROM storage.buckets";
    let own: Vec<String> = eve.query_one(own, &[]).unwrap().get(0);
    for (relation, column) in relations {
        eve.batch_execute(&format!(
            "SELECT FROM {relation} WHERE {column} OPERATOR(pg_temp.===) '00000000-0000-0000-0000-000000000000'::uuid"
        ))
        .unwrap();
        let seen: Vec<String> = eve
            .query("DELETE FROM pg_temp.seen RETURNING what", &[])
            .unwrap()
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert!(seen.iter().all(|id| own.contains(id)), "{relation}.{column}: {seen:?}");
    }
}
