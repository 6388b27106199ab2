//! Restoring under other circumstances: as another role, over what is there, a part of the database; and nobody sees more
//! or less than before.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::backup::{dumped, fed, furnished, quiet, restored, rows};
use pg_storage_tests::{Cluster, Database, StoreAccess, scene};
use std::sync::OnceLock;

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let options = scene::remote(StoreAccess::chosen());
        Cluster::start(options.setting("pg_storage.bucket_prefix", "restored"))
    })
}

/// Roles of every kind, whatever the database they are asked in.
fn roles(source: &Database<'_>) -> Vec<String> {
    let consumer = format!("{}_consumer", source.name());
    let stranger = format!("{}_stranger", source.name());
    source
        .superuser()
        .batch_execute(&format!(
            "CREATE ROLE {consumer} LOGIN; SELECT storage.grant_access('{consumer}', 'reader');
             GRANT SELECT, UPDATE ON storage.events TO {consumer};
             CREATE ROLE {stranger} LOGIN"
        ))
        .unwrap();
    let [writer, manager] = ["writer", "manager"].map(|level| format!("{}_{level}", source.name()));
    let roles = vec!["postgres".to_owned(), writer, manager, source.role("reader"), consumer, stranger];
    let mut superuser = source.superuser();
    superuser
        .batch_execute(&format!(
            "SELECT storage.add_policy('audit', 'files', 'read', $$tenant_id = 'acme'$$, roles => '{{{}}}');
             SELECT storage.add_policy('hide', 'files', 'sign', $$filename = 'none'$$)",
            roles[4]
        ))
        .unwrap();
    roles
}

/// Everything that each role sees under each claim, or how it is refused.
fn seen(database: &Database<'_>, roles: &[String]) -> Vec<String> {
    let mut superuser = database.superuser();
    let relations = "SELECT c.oid::regclass::text FROM pg_class c
                     WHERE c.relnamespace IN ('storage'::regnamespace, 'storage_private'::regnamespace) AND c.relkind IN ('r', 'v')
                       -- What a restored server finds out for itself.
                       AND c.relname NOT IN ('store_capabilities', 'worker_passes', 'worker_state', 'room', 'secrets')
                     ORDER BY 1";
    let relations: Vec<String> =
        superuser.query(relations, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(relations.len() > 12, "{relations:?}");
    let mut seen = Vec::new();
    for role in roles {
        for (user, tenant) in [("ada", "acme"), ("bob", "acme"), ("o'hara", "globex"), ("", "")] {
            let claims = [("jwt.claims.user_id", user), ("jwt.claims.tenant_id", tenant)];
            let mut session = database.connect_as(role, &claims);
            for relation in &relations {
                // Restored buckets are due for configuration, as in `backup::rows()`.
                let query = format!(
                    "SELECT (to_jsonb(t) - 'desired_generation' - 'stale')::text FROM {relation} t ORDER BY 1"
                );
                let sees = match session.query(&query, &[]) {
                    Ok(rows) => rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n"),
                    Err(error) => error.as_db_error().unwrap().code().code().to_owned(),
                };
                seen.push(format!("{role} as {user} in {relation}: {sees}"));
            }
        }
    }
    seen
}

#[track_caller]
fn assert_alike(found: &[String], wanted: &[String]) {
    for (found, wanted) in found.iter().zip(wanted) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.len(), wanted.len());
}

#[test]
fn nobody_sees_more_or_less_after_a_restore() {
    let source = furnished(cluster());
    let roles = roles(&source);
    let before = seen(&source, &roles);
    assert!(
        before.iter().any(|line| line.ends_with("42501"))
            && before.iter().any(|line| line.contains("note.txt"))
    );
    for format in ["c", "p"] {
        assert_alike(&seen(&restored(&source, cluster(), format, &[]), &roles), &before);
    }
}

#[test]
fn a_dump_restores_under_another_superuser() {
    let source = furnished(cluster());
    let roles = roles(&source);
    let before = seen(&source, &roles);
    let other = format!("{}_dba", source.name());
    source.superuser().batch_execute(&format!("CREATE ROLE {other} SUPERUSER LOGIN")).unwrap();
    let copy = cluster().bare_database();
    let arguments = ["--exit-on-error", "--no-owner", &format!("--role={other}"), "-d", copy.name()];
    quiet(&fed(cluster(), "pg_restore", &arguments, &dumped(&source, "c", &[])), "pg_restore");
    let owners = "SELECT DISTINCT pg_get_userbyid(c.relowner)::text FROM pg_class c
                  WHERE c.relnamespace IN ('storage'::regnamespace, 'storage_private'::regnamespace)";
    assert_eq!(copy.superuser().query_one(owners, &[]).unwrap().get::<_, String>(0), other);
    assert_alike(&seen(&copy, &roles), &before);
}

#[test]
fn a_dump_replaces_what_is_there() {
    let source = furnished(cluster());
    let roles = roles(&source);
    let before = seen(&source, &roles);
    let dump = dumped(&source, "c", &[]);
    let copy = restored(&source, cluster(), "c", &[]);
    copy.superuser()
        .batch_execute(
            "SELECT storage.drop_policy('audit'); SELECT storage.enable_default_policies(false);
             INSERT INTO public.users VALUES ('eve', 'acme'); DELETE FROM storage.files WHERE is_current",
        )
        .unwrap();
    for _ in 0..2 {
        let arguments = ["--exit-on-error", "--clean", "--if-exists", "-d", copy.name()];
        quiet(&fed(cluster(), "pg_restore", &arguments, &dump), "pg_restore");
        assert_alike(&seen(&copy, &roles), &before);
        assert_eq!(rows(&mut copy.superuser()), rows(&mut source.superuser()));
    }
}

/// A database such as a dump that names the schema public is restored into.
fn without_public() -> Database<'static> {
    let database = cluster().bare_database();
    database.superuser().batch_execute("DROP SCHEMA public").unwrap();
    database
}

#[test]
fn a_dump_of_some_schemas_needs_the_extension_named_and_says_so() {
    let source = furnished(cluster());
    let arguments = |copy: &Database<'_>| {
        ["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-1", "-d", copy.name()].map(str::to_owned)
    };
    for schemas in [&["--schema=public"][..], &["--schema=public", "--schema=storage"]] {
        let without = without_public();
        let arguments = arguments(&without);
        let said =
            fed(cluster(), "psql", &arguments.each_ref().map(String::as_str), &dumped(&source, "p", schemas));
        let text = String::from_utf8(said.stderr).unwrap();
        assert!(!said.status.success() && text.contains("\"storage"), "{schemas:?}: {text}");
    }
    let with = without_public();
    let arguments = arguments(&with);
    let dump = dumped(&source, "p", &["--schema=public", "--schema=storage", "--extension=pg_storage"]);
    quiet(&fed(cluster(), "psql", &arguments.each_ref().map(String::as_str), &dump), "psql");
    assert_eq!(rows(&mut with.superuser()), rows(&mut source.superuser()));
}
