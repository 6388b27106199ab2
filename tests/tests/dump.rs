//! Dump and restore: every row, every grant and the state of the policies come back, in the same cluster and in another,
//! and what was uploaded before can be downloaded after.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::backup::{dumped, fed, furnished, quiet, restored, rows, surroundings};
use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{Cluster, Database, StoreAccess, refused, scene};
use std::sync::OnceLock;

/// Two clusters on one store, as a server and the one its backup is restored on.
fn clusters() -> (&'static Cluster, &'static Cluster) {
    static CLUSTERS: OnceLock<[Cluster; 2]> = OnceLock::new();
    let [first, second] = CLUSTERS.get_or_init(|| {
        let start = || {
            let options = scene::remote(StoreAccess::chosen());
            Cluster::start(options.setting("pg_storage.bucket_prefix", "dumped"))
        };
        [start(), start()]
    });
    (first, second)
}

fn assert_same(source: &Database<'_>, copy: &Database<'_>) {
    let (mut before, mut after) = (source.superuser(), copy.superuser());
    assert_eq!(rows(&mut after), rows(&mut before));
    assert_eq!(surroundings(&mut after), surroundings(&mut before));
}

/// The copy does what the original did: files download, users are seeded and, once it is the owner, new files arrive.
fn assert_alive(copy: &Database<'_>) {
    let mut session = copy.superuser();
    session
        .batch_execute("SET jwt.claims.user_id = 'ada'; SET jwt.claims.tenant_id = 'acme'; INSERT INTO public.users VALUES ('eve', 'acme')")
        .unwrap();
    let files = session.query("SELECT id::text FROM storage.files", &[]).unwrap();
    assert_eq!(files.len(), 5);
    for row in files {
        flow::assert_downloads(&mut session, row.get(0), b"same bytes");
    }
    let refusal = refused(Upload::declared(b"after").try_request(&mut session));
    assert_eq!(refusal.code(), ("55000", "NOT_OWNER_OF_OBJECTS"), "the original would take it for an orphan");
    session.batch_execute("SELECT storage.adopt_installation()").unwrap();
    let file = Upload::declared(b"after").complete(&mut session, b"after").file_id;
    flow::assert_downloads(&mut session, &file, b"after");
    let seeded = "SELECT count(*) FROM storage.buckets WHERE owner_id = 'eve'";
    assert_eq!(session.query_one(seeded, &[]).unwrap().get::<_, i64>(0), 3);
}

#[test]
fn a_dump_restores_into_the_same_cluster() {
    let (cluster, _) = clusters();
    let source = furnished(cluster);
    for format in ["p", "c"] {
        let copy = restored(&source, cluster, format, &[]);
        assert_same(&source, &copy);
        assert_alive(&copy);
    }
}

#[test]
fn a_dump_restores_into_another_cluster_with_the_policies_off() {
    let (cluster, other) = clusters();
    let source = furnished(cluster);
    source.superuser().batch_execute("SELECT storage.enable_default_policies(false)").unwrap();
    let [writer, manager] = ["writer", "manager"].map(|level| format!("{}_{level}", source.name()));
    other
        .connect("postgres", "postgres")
        .batch_execute(&format!("CREATE ROLE {writer}; CREATE ROLE {manager}"))
        .unwrap();

    let copy = restored(&source, other, "c", &[]);
    assert_same(&source, &copy);
    let policies = "SELECT count(*) FROM pg_policies WHERE permissive = 'PERMISSIVE'";
    assert_eq!(copy.superuser().query_one(policies, &[]).unwrap().get::<_, i64>(0), 0);
    assert_alive(&copy);
    // The switch still works, and what it makes is what ships.
    copy.superuser().batch_execute("SELECT storage.enable_default_policies()").unwrap();
    source.superuser().batch_execute("SELECT storage.enable_default_policies()").unwrap();
    assert_eq!(surroundings(&mut copy.superuser()).len(), surroundings(&mut source.superuser()).len());
    let again = restored(&source, other, "c", &[]);
    assert_eq!(surroundings(&mut again.superuser()), surroundings(&mut source.superuser()));
}

#[test]
fn a_dump_holds_no_secret_and_nothing_found_out_about_a_store() {
    let (cluster, _) = clusters();
    let source = furnished(cluster);
    let output = cluster.client_program("pg_dump").arg(source.name()).output().unwrap();
    quiet(&output, "pg_dump");
    let dump = String::from_utf8(output.stdout).unwrap();
    let access = StoreAccess::chosen();
    for word in
        [&access.secret_access_key, &access.access_key_id, "X-Amz-", "COPY storage.store_capabilities"]
    {
        assert!(!dump.contains(word), "{word}");
    }
}

#[test]
fn a_dump_of_single_inserts_restores_a_chain_of_versions() {
    let (cluster, _) = clusters();
    let source = furnished(cluster);
    let mut superuser = source.superuser();
    // An update moves the older version behind the newer one, which names it.
    superuser.batch_execute("UPDATE storage.files SET metadata = '{\"a\": 1}' WHERE NOT is_current").unwrap();
    let copy = restored(&source, cluster, "p", &["--inserts"]);
    assert_same(&source, &copy);
    let chain = "SELECT count(*) FROM storage.files f JOIN storage.files p ON f.previous_version_id = p.id";
    assert_eq!(copy.superuser().query_one(chain, &[]).unwrap().get::<_, i64>(0), 1);
}

#[test]
fn a_restored_dump_deletes_nothing_of_the_original_until_it_is_declared_the_owner() {
    let (cluster, other) = clusters();
    let source = furnished(cluster);
    // Restored the second time: a dump of what was never adopted still names the first owner.
    let same = restored(&source, cluster, "c", &[]);
    let elsewhere = restored(&same, other, "p", &["--no-privileges"]);
    let owner = |database: &Database<'_>| -> String {
        let query = "SELECT string_agg(i::text, ' ') FROM storage_private.installation i";
        database.superuser().query_one(query, &[]).unwrap().get(0)
    };
    for copy in [&same, &elsewhere] {
        assert_eq!(owner(copy), owner(&source));
        let mut session = copy.superuser();
        session
            .batch_execute(
                "UPDATE storage.files SET expires_at = now(); UPDATE storage.object_deletions SET not_before = now()",
            )
            .unwrap();
        let refusal = refused(session.query("SELECT storage.run_maintenance()", &[]));
        assert_eq!(refusal.code(), ("55000", "NOT_OWNER_OF_OBJECTS"), "{refusal:?}");
    }
    let mut original = source.superuser();
    original.batch_execute("SET jwt.claims.user_id = 'ada'; SET jwt.claims.tenant_id = 'acme'").unwrap();
    for row in original.query("SELECT id::text FROM storage.files", &[]).unwrap() {
        flow::assert_downloads(&mut original, row.get(0), b"same bytes");
    }
    let mut adopting = elsewhere.superuser();
    adopting.batch_execute("SELECT storage.adopt_installation(); SELECT storage.run_maintenance()").unwrap();
    assert_ne!(owner(&elsewhere), owner(&source));
    assert!(!refused(same.superuser().query("SELECT storage.run_maintenance()", &[])).message.is_empty());
}

/// What each of two users sees of files and uploads, one's own policies included.
fn seen(database: &Database<'_>, roles: &[String]) -> Vec<i64> {
    let mut counts = Vec::new();
    for role in roles {
        for (user, tenant) in [("ada", "acme"), ("o'hara", "globex")] {
            let claims = [("jwt.claims.user_id", user), ("jwt.claims.tenant_id", tenant)];
            let mut session = database.connect_as(role, &claims);
            for query in [
                "SELECT count(*) FROM storage.files",
                "SELECT count(storage.files_download_url(f)) FROM storage.files f",
            ] {
                counts.push(session.query_one(query, &[]).unwrap().get(0));
            }
        }
    }
    counts
}

#[test]
fn policies_of_ones_own_come_back_and_nobody_sees_more_or_less() {
    let (cluster, other) = clusters();
    let source = furnished(cluster);
    let [renamed, auditor] = ["renamed", "auditor"].map(|role| format!("{}_{role}", source.name()));
    let mut superuser = source.superuser();
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {renamed}_before LOGIN; SELECT storage.grant_access('{renamed}_before', 'reader');
             CREATE ROLE {auditor} LOGIN; SELECT storage.grant_access('{auditor}', 'reader');
             CREATE ROLE {auditor}_gone;
             CREATE TABLE public.auditors (name text); INSERT INTO public.auditors VALUES ('{auditor}');
             GRANT SELECT ON public.auditors TO PUBLIC;
             CREATE FUNCTION public.audits() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
                 $$ SELECT EXISTS (SELECT FROM public.auditors WHERE name = current_user) $$;
             CREATE FUNCTION public.fickle() RETURNS boolean LANGUAGE sql AS 'SELECT true';
             SELECT storage.add_policy('audit', 'files', 'read', 'public.audits()');
             SELECT storage.add_policy('\"quoted\" it''s', 'files', 'sign', $$filename = 'note.txt' -- \"x\"$$, roles => '{{{renamed}_before}}');
             SELECT storage.add_policy('renaming', 'files', 'move', 'true', $$path <> 'it''s'$$, '{{{renamed}_before,{auditor}}}');
             SELECT storage.add_policy('dropped', 'files', 'delete', 'true');
             SELECT storage.drop_policy('dropped');
             SELECT storage.add_policy('went with its function', 'files', 'read', 'public.fickle()');
             DROP FUNCTION public.fickle() CASCADE;
             SELECT storage.add_policy('went with its role', 'files', 'read', 'true', roles => '{{{auditor}_gone}}');
             DROP OWNED BY {auditor}_gone; DROP ROLE {auditor}_gone;
             -- Whoever gets the name of a role gets nothing that was the role's.
             ALTER ROLE {renamed}_before RENAME TO {renamed}; CREATE ROLE {renamed}_before LOGIN"
        ))
        .unwrap();
    let told = "SELECT detail FROM storage.check() WHERE name = 'policies'";
    let told: Vec<String> = superuser.query(told, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(
        told,
        ["function", "role"].map(|what| format!("Policy went with its {what} is recorded and not in force."))
    );
    let writer = format!("{}_writer", source.name());
    let roles = [renamed.clone(), auditor.clone(), writer];
    let before = seen(&source, &roles);
    assert!(before.iter().any(|count| *count > 0), "{before:?}");

    let same = restored(&source, cluster, "c", &[]);
    assert_eq!(seen(&same, &roles), before);
    assert_eq!(surroundings(&mut same.superuser()), surroundings(&mut source.superuser()));
    let again = restored(&same, cluster, "p", &[]);
    assert_eq!(seen(&again, &roles), before);

    // Where a role is missing the restore says so, and nobody gets what was for that role.
    let dump = dumped(&source, "p", &["--no-privileges"]);
    let copy = other.bare_database();
    let said = fed(other, "psql", &["-X", "-q", "-o", "/dev/null", "-d", copy.name()], &dump).stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("ERROR:  role \"") && said.contains("COPY policies"), "{said}");
    let own = "SELECT count(*) FROM storage_private.policies";
    assert_eq!(copy.superuser().query_one(own, &[]).unwrap().get::<_, i64>(0), 0);
    assert_eq!(rows(&mut copy.superuser()), rows(&mut superuser));
    // The roles made, the rows alone are restored.
    copy.superuser().batch_execute(&format!("CREATE ROLE {renamed}; CREATE ROLE {auditor}")).unwrap();
    let rows = dumped(&source, "p", &["--data-only", "--table=storage_private.policies"]);
    let arguments = ["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-d", copy.name()];
    quiet(&fed(other, "psql", &arguments, &rows), "psql");
    let policies = "SELECT array_agg(format('%s %s %s %s %s', tablename, policyname, ARRAY(SELECT unnest(roles) ORDER BY 1), qual, with_check) ORDER BY tablename, policyname)
                    FROM pg_policies";
    let policies = |database: &Database<'_>| -> Vec<String> {
        database.superuser().query_one(policies, &[]).unwrap().get(0)
    };
    assert_eq!(policies(&copy), policies(&source));
}
