//! A database with everything in use, what is in it, and the way through a dump into another one.

use crate::flow::{self, Upload};
use crate::{Cluster, Database};
use postgres::Client;
use std::io::Write;
use std::process::{Output, Stdio};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";

/// A database with everything in it that can be in one.
pub fn furnished(cluster: &Cluster) -> Database<'_> {
    let database = cluster.database();
    furnish(&database);
    database
}

/// Puts rows in every state into a database that has the extension.
pub fn furnish(database: &Database<'_>) {
    let [writer, manager] = ["writer", "manager"].map(|level| database.role(level));
    let mut superuser = database.superuser();
    superuser
        .batch_execute(
            "CREATE TABLE public.users (id text PRIMARY KEY, org text);
             CREATE TRIGGER seed AFTER INSERT ON public.users
             FOR EACH ROW EXECUTE FUNCTION storage.seed_user_buckets('id', 'org');
             INSERT INTO public.users VALUES ('ada', 'acme'), ('o''hara', 'globex');
             CREATE TABLE public.avatars (file storage.files, access storage.bucket_access DEFAULT 'public')",
        )
        .unwrap();
    let claims = [("jwt.claims.user_id", "ada"), ("jwt.claims.tenant_id", "acme")];
    database
        .connect_as(&manager, &claims)
        .batch_execute(
            "SELECT storage.create_bucket('limits', allowed_mime_types => '{text/*,image/png}', max_file_size => 1000,
                                          allowed_origins => '{https://one.example}');
             UPDATE storage.buckets SET metadata = '{\"é\": [1, null]}', file_ttl = '30 days', dedup = 'owner',
                                        max_total_size = 100000, max_file_count = 10 WHERE key = 'limits';
             SELECT storage.create_bucket('twice'); SELECT storage.delete_bucket('twice', force => true);
             SELECT storage.create_bucket('twice');
             INSERT INTO storage.tenant_settings VALUES ('acme', '{https://two.example,http://localhost:*}')",
        )
        .unwrap();

    let mut ada = database.connect_as(&writer, &claims);
    for (bucket, path) in [
        ("private", None),
        ("private", Some("a/b.txt")),
        ("private", Some("a/b.txt")),
        ("public", None),
        ("limits", None),
    ] {
        let upload = Upload { path: path.map(str::to_owned), ..Upload::declared(b"same bytes").to(bucket) };
        let ticket = upload.request(&mut ada);
        if !ticket.deduplicated {
            assert!(ticket.put(b"same bytes").is_success());
            flow::confirm(&mut ada, &ticket.upload_id);
        }
    }
    let waiting = Upload::of(b"never sent").request(&mut ada);
    assert_eq!(flow::confirm(&mut ada, &waiting.upload_id).outcome(), ("requested", Some("NOT_UPLOADED")));
    let aborted = Upload::of(b"aborted").request(&mut ada);
    flow::abort(&mut ada, &aborted.upload_id).unwrap();
    let rejected = Upload::of(PNG).request(&mut ada);
    assert!(rejected.put(PNG).is_success());
    assert_eq!(
        flow::confirm(&mut ada, &rejected.upload_id).outcome(),
        ("rejected", Some("CONTENT_TYPE_MISMATCH"))
    );
    let expired = Upload::of(b"late").request(&mut ada);
    let expire =
        "UPDATE storage.upload_requests SET expires_at = clock_timestamp() WHERE id = $1::text::uuid";
    superuser.execute(expire, &[&expired.upload_id]).unwrap();
    assert_eq!(flow::confirm(&mut ada, &expired.upload_id).outcome(), ("expired", Some("EXPIRED")));
    let deleted = Upload::of(b"deleted").complete(&mut ada, b"deleted").file_id;
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&deleted]).unwrap();
    superuser
        .batch_execute("UPDATE storage.object_deletions SET attempts = 2, last_error = 'no' WHERE id = 1")
        .unwrap();

    // Inserted directly, before the first use of its bucket: without a place in the store.
    ada.execute(
        "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size)
         SELECT b.id, 'a.txt', 'text/plain', 1 FROM storage.buckets b WHERE b.key = 'temp'",
        &[],
    )
    .unwrap();

    let statuses = "SELECT count(DISTINCT status) FROM storage.upload_requests";
    assert_eq!(superuser.query_one(statuses, &[]).unwrap().get::<_, i64>(0), 5);
}

/// Every row of ours, table by table.
pub fn rows(session: &mut Client) -> Vec<(String, Vec<String>)> {
    [
        "buckets",
        "tenant_settings",
        "physical_buckets",
        "objects",
        "files",
        "upload_requests",
        "object_deletions",
        "events",
    ]
    .map(|table| {
        // Restored settings of a tenant make its buckets due for configuration, as new ones do. The first upload
        // configures them in any case, because what the store enforces is not dumped.
        // A column that a later version adds is NULL in the rows that were there.
        let query = format!(
            "SELECT (jsonb_strip_nulls(to_jsonb(t)) - 'desired_generation')::text FROM storage.{table} t ORDER BY 1"
        );
        let rows: Vec<String> = session.query(&query, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        assert!(!rows.is_empty(), "{table} is empty: nothing would be proved");
        (table.to_owned(), rows)
    })
    .into()
}

/// What surrounds the rows: privileges, policies, the triggers of users, the place of the sequence.
pub fn surroundings(session: &mut Client) -> Vec<String> {
    let query = "
        WITH schemas AS (SELECT oid FROM pg_namespace WHERE nspname IN ('storage', 'storage_private'))
        SELECT format('%s %s', nspname, e) FROM pg_namespace, unnest(nspacl) e WHERE oid IN (SELECT oid FROM schemas)
        UNION ALL SELECT format('%s %s', oid::regclass, e) FROM pg_class, unnest(relacl) e
                  WHERE relnamespace IN (SELECT oid FROM schemas)
                    -- Written or not, the owner has all of them, and versions of PostgreSQL differ in what all is.
                    AND NOT starts_with(e::text, relowner::regrole || '=')
        UNION ALL SELECT format('%s.%s %s', attrelid::regclass, attname, e) FROM pg_attribute a, unnest(attacl) e
                  WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM schemas))
        UNION ALL SELECT format('%s %s', oid::regprocedure, e) FROM pg_proc, unnest(proacl) e
                  WHERE pronamespace IN (SELECT oid FROM schemas)
        UNION ALL SELECT format('%s %s', oid::regtype, e) FROM pg_type, unnest(typacl) e
                  WHERE typnamespace IN (SELECT oid FROM schemas)
        UNION ALL SELECT format('%s %s %s %s', tablename, policyname, qual, with_check) FROM pg_policies
        UNION ALL SELECT format('%s %s', tgrelid::regclass, pg_get_triggerdef(oid)) FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT 'deletions ' || last_value FROM storage.object_deletions_id_seq
        UNION ALL SELECT 'events ' || last_value FROM storage.events_id_seq
        ORDER BY 1";
    session.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Nothing failed and nothing was said.
pub fn quiet(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{what}: {}: {said}", output.status);
}

/// Dumps a database and restores it into a new one of `target`; neither may say a word.
pub fn restored<'target>(
    source: &Database<'_>,
    target: &'target Cluster,
    format: &str,
    options: &[&str],
) -> Database<'target> {
    let dump = dumped(source, format, options);
    let copy = target.bare_database();
    let output = match format {
        "p" => {
            let arguments = ["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-1", "-d", copy.name()];
            fed(target, "psql", &arguments, &dump)
        }
        _ => fed(target, "pg_restore", &["--exit-on-error", "-d", copy.name()], &dump),
    };
    quiet(&output, "restoring");
    copy
}

/// What pg_dump writes about a database; it may not say a word.
pub fn dumped(source: &Database<'_>, format: &str, options: &[&str]) -> Vec<u8> {
    let mut command = source.cluster().client_program("pg_dump");
    let dump = command.args(["-F", format, source.name()]).args(options).output().unwrap();
    quiet(&dump, "pg_dump");
    dump.stdout
}

/// Runs a client program on a dump.
pub fn fed(target: &Cluster, program: &str, arguments: &[&str], dump: &[u8]) -> Output {
    let mut restore = target
        .client_program(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that gave up says why; that it read no more is no news.
    let _ = restore.stdin.take().unwrap().write_all(dump);
    restore.wait_with_output().unwrap()
}
