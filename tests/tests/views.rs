//! A database with a million files, objects and uploads: neither what a DBA asks of the views nor what the library asks of
//! the tables reads any of them from end to end.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload, some_bytes};
use pg_storage_tests::{Cluster, Options, Scene, scene};
use postgres::{Client, SimpleQueryMessage};

/// The tables that grow with use.
const LARGE: &str =
    "'{buckets,files,objects,upload_requests,object_deletions,events,physical_buckets}'::text[]";

/// Thirty thousand users in a hundred tenants with three buckets each, and what they uploaded lies in the first of those.
/// Written without triggers and foreign keys, with ids in order, and the indexes made afterwards: it is the reading that
/// counts, and the writing that takes the time.
const FILL: &str = "
    SET session_replication_role = replica;
    SET maintenance_work_mem = '256MB';
    CREATE FUNCTION pg_temp.id(n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE RETURN lpad(to_hex(n), 32, '0')::uuid;
    CREATE TEMP TABLE made_later AS
        SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid
        WHERE c.relnamespace = 'storage'::regnamespace AND k.oid IS NULL;
    DO $$ DECLARE name text; BEGIN FOR name IN SELECT m.name FROM made_later m LOOP EXECUTE 'DROP INDEX ' || name; END LOOP; END $$;

    INSERT INTO storage.buckets (id, tenant_id, owner_id, key, access, physical_name)
    SELECT pg_temp.id(n), 'tenant ' || n / 900, 'user ' || n / 3, (ARRAY['private', 'public', 'temp'])[n % 3 + 1],
           (ARRAY['private', 'public', 'temp'])[n % 3 + 1]::storage.bucket_access, 'physical-' || n
    FROM generate_series(0, 89999) n;
    INSERT INTO storage.physical_buckets (name, tenant_id, access, endpoint, state, applied_generation, provisioned_at, steps)
    SELECT 'physical-' || n, 'tenant ' || n / 900, 'private', 'http://127.0.0.1:1',
           CASE WHEN n % 10000 = 7 THEN 'failed' ELSE 'ready' END::storage.provision_state, 1, now(),
           '[{\"step\": \"create\", \"outcome\": \"applied\"}]'
    FROM generate_series(0, 89999) n;
    INSERT INTO storage.objects (id, physical_name, key, bucket_id, sha256, size, content_type)
    SELECT pg_temp.id(n), 'physical-' || n / 34 * 3, 'key ' || n, pg_temp.id(n / 34 * 3), sha256(n::text::bytea), 1 + n % 5000,
           'text/plain'
    FROM generate_series(0, 999999) n;
    INSERT INTO storage.files (id, tenant_id, bucket_id, object_id, owner_id, filename, path, content_type, size, sha256, expires_at)
    SELECT o.id, 'tenant ' || n / 10200, o.bucket_id, o.id, 'user ' || n / 34, 'a.txt', 'docs/' || n, o.content_type, o.size,
           encode(o.sha256, 'hex'), CASE WHEN n % 4 = 0 THEN now() + interval '1 day' END
    FROM (SELECT row_number() OVER () - 1 AS n, o.* FROM storage.objects o) o;
    INSERT INTO storage.upload_requests (id, tenant_id, bucket_id, file_id, owner_id, filename, content_type, size, physical_name,
        object_key, final_key, direct, create_only, status, expires_at)
    SELECT o.id, 'tenant ' || n / 10200, o.bucket_id, o.id, 'user ' || n / 34, 'a.txt', o.content_type, o.size, o.physical_name,
           o.key, o.key, true, true, CASE WHEN n % 500 = 0 THEN 'requested' ELSE 'uploaded' END::storage.upload_status,
           now() + CASE WHEN n % 500 = 0 THEN interval '1 hour' ELSE interval '-1 day' END
    FROM (SELECT row_number() OVER () - 1 AS n, o.* FROM storage.objects o) o;
    INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
    SELECT 'physical-' || n / 34 * 3, 'gone ' || n, 'file deleted', now() + interval '1 hour' + interval '1 minute' * (n % 1440)
    FROM generate_series(0, 299999) n;
    INSERT INTO storage.events (kind, file_id, bucket_id, object_id, tenant_id, owner_id, filename, content_type, size, announced,
        acknowledged_at)
    SELECT 'created', pg_temp.id(n), pg_temp.id(n / 34 * 3), pg_temp.id(n), 'tenant ' || n / 10200, 'user ' || n / 34, 'a.txt',
           'text/plain', 1, true, CASE WHEN n < 299000 THEN now() END
    FROM generate_series(0, 299999) n;

    DO $$ DECLARE definition text; BEGIN FOR definition IN SELECT m.definition FROM made_later m LOOP EXECUTE definition; END LOOP; END $$;
    RESET session_replication_role;
    ANALYZE";

/// The same id as in [`FILL`].
fn id(n: u32) -> String {
    format!("'{n:032x}'::uuid")
}

/// Tables that the plan of a query reads from end to end.
fn scanned_by_plan(session: &mut Client, asking: &mut Client, query: &str) -> Vec<String> {
    let plan = session
        .simple_query(&format!("EXPLAIN (FORMAT JSON) {query}"))
        .unwrap_or_else(|error| panic!("{query}: {:?}", error.as_db_error()));
    let plan: String = plan
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        })
        .collect();
    let scans = format!(
        "SELECT DISTINCT name FROM jsonb_path_query($1::text::jsonb, '$.** ? (@.\"Node Type\" == \"Seq Scan\").\"Relation Name\"') s(j),
                LATERAL (SELECT j #>> '{{}}') n(name) WHERE name = ANY ({LARGE})"
    );
    asking.query(&scans, &[&plan]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// Runs something in a transaction of the session, and gives the tables that it read from end to end, in whatever
/// function and under whatever policy; along an index counts as well.
fn scanned_by(session: &mut Client, what: impl Fn(&mut Client)) -> Vec<String> {
    session.batch_execute("BEGIN").unwrap();
    // Often enough for the plans that functions keep.
    (0..8).for_each(|_| what(session));
    let scans = format!(
        "SELECT relname::text FROM pg_stat_xact_all_tables
         WHERE schemaname IN ('storage', 'storage_private') AND (seq_scan > 0 OR idx_tup_fetch > 200000) AND relname = ANY ({LARGE})"
    );
    let names = session.query(&scans, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    session.batch_execute("ROLLBACK").unwrap();
    names
}

fn query(session: &mut Client, query: &str) {
    if let Err(error) = session.batch_execute(query) {
        panic!("{query}: {:?}", error.as_db_error());
    }
}

#[test]
fn at_a_million_rows_nothing_reads_a_table_from_end_to_end() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(
        Options::new()
            .setting("autovacuum", "off")
            .setting("max_wal_size", "8GB")
            .setting("shared_buffers", "256MB"),
    )));
    let scene = Scene::on(cluster, &scene::local_access(cluster));
    let mut ada = scene.user("ada");
    let bytes = some_bytes("one of many", 100);
    let kept = Upload::declared(&bytes).at("docs/kept.txt").complete(&mut ada, &bytes);
    let mut superuser = scene.superuser();
    superuser.batch_execute("SELECT storage.adopt_installation()").unwrap();
    superuser.batch_execute(FILL).unwrap();
    let (bucket, tenant) = (id(3000), "'tenant 3'");

    let huge: String = superuser
        .query_one("SELECT id::text FROM storage.buckets WHERE owner_id = 'ada' AND key = 'private'", &[])
        .unwrap()
        .get(0);
    superuser.batch_execute(&format!(
        "SET session_replication_role = replica;
         INSERT INTO storage.files (tenant_id, bucket_id, object_id, owner_id, filename, path, content_type, size, sha256, created_at, metadata)
         SELECT 'default', '{huge}', pg_temp.id(n), CASE WHEN n % 10 = 9 THEN 'bob' ELSE 'ada' END, 'a.txt',
                'huge/' || n % 1000 || '/' || n, 'text/plain', n % 777, repeat('0', 64), now() + interval '1 second' * (n % 5000),
                jsonb_build_object('number', n, 'kind', 'many')
         FROM generate_series(0, 99999) n;
         RESET session_replication_role;
         ANALYZE storage.files"
    )).unwrap();

    // What a DBA asks.
    let mut asking = scene.superuser();
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for query in [
        format!("SELECT * FROM storage.bucket_usage WHERE bucket_id = {bucket}"),
        format!("SELECT * FROM storage.bucket_usage WHERE tenant_id = {tenant} AND owner_id = 'user 1000'"),
        format!("SELECT * FROM storage.upload_state WHERE bucket_id = {bucket}"),
        format!("SELECT * FROM storage.upload_state WHERE tenant_id = {tenant}"),
        format!("SELECT * FROM storage.upload_state WHERE bucket_id = {bucket} AND status = 'requested'"),
        "SELECT * FROM storage.upload_state WHERE status = 'requested'".to_owned(),
        format!(
            "SELECT * FROM storage.upload_requests WHERE tenant_id = {tenant} AND owner_id = 'user 1000'"
        ),
        "SELECT * FROM storage.deletion_queue WHERE due".to_owned(),
        "SELECT count(*) FROM storage.deletion_queue WHERE due".to_owned(),
        "SELECT * FROM storage.deletion_queue WHERE physical_name = 'physical-3000'".to_owned(),
        "SELECT * FROM storage.deletion_queue ORDER BY id LIMIT 100".to_owned(),
        "SELECT * FROM storage.provisioning_state WHERE state = 'failed'".to_owned(),
        "SELECT * FROM storage.provisioning_state WHERE state <> 'ready' OR stale".to_owned(),
        "SELECT * FROM storage.provisioning_state WHERE name = 'physical-3000'".to_owned(),
        "SELECT * FROM storage.bucket_deletions".to_owned(),
        "SELECT * FROM storage.events WHERE acknowledged_at IS NULL ORDER BY id LIMIT 100".to_owned(),
        format!(
            "SELECT * FROM storage.files WHERE bucket_id = {bucket} AND is_current AND path > 'docs/5' ORDER BY path LIMIT 100"
        ),
    ] {
        found.push((query.clone(), scanned_by_plan(&mut superuser, &mut asking, &query)));
    }

    // What users ask, under the policies.
    for query in [
        format!("SELECT * FROM storage.files WHERE id = {}", id(1)),
        format!(
            "SELECT * FROM storage.files WHERE bucket_id = {bucket} AND is_current AND path > 'docs/5' ORDER BY path LIMIT 100"
        ),
        "SELECT * FROM storage.files WHERE owner_id = 'ada'".to_owned(),
        "SELECT * FROM storage.upload_requests".to_owned(),
        "SELECT * FROM storage.upload_requests WHERE status = 'requested'".to_owned(),
        "SELECT * FROM storage.buckets WHERE owner_id = 'ada'".to_owned(),
    ] {
        found.push((query.clone(), scanned_by_plan(&mut ada, &mut asking, &query)));
    }

    // What the library asks, while it does the whole job.
    for dedup in ["bucket", "owner"] {
        superuser
            .batch_execute(&format!("UPDATE storage.buckets SET dedup = '{dedup}' WHERE owner_id = 'ada'"))
            .unwrap();
        let requesting = scanned_by(&mut ada, |ada| {
            assert!(Upload::declared(&bytes).request(ada).deduplicated);
            Upload::declared(b"new").at("docs/new.txt").request(ada);
        });
        found.push((format!("request, {dedup}"), requesting));
        let confirming = scanned_by(&mut ada, |ada| {
            for upload in [Upload::of(b"new"), Upload::declared(b"new").at("docs/new.txt")] {
                let ticket = upload.request(ada);
                if !ticket.deduplicated {
                    assert!(ticket.put(b"new").is_success());
                    assert_eq!(flow::confirm(ada, &ticket.upload_id).outcome(), ("uploaded", None));
                }
            }
        });
        found.push((format!("confirm, {dedup}"), confirming));
    }
    let downloading = scanned_by(&mut ada, |ada| {
        flow::download_url(ada, &kept.file_id);
        query(
            ada,
            "SELECT * FROM storage.download_urls(ARRAY(SELECT lpad(to_hex(n), 32, '0')::uuid FROM generate_series(1, 100) n))",
        );
    });
    found.push(("download".to_owned(), downloading));
    // In a bucket much larger than most, as a plan for any bucket must bear.
    let mut listing_session = scene.user("ada");
    for (arguments, expected) in [
        ("page_size => 1000", 1000),
        ("'huge/', page_size => 1000", 1000),
        ("delimiter => '/'", 2),
        ("'huge/', '/', 100", 100),
        ("'huge/7', '/', 1000", 100),
        ("'huge/500/', '/', 100", 100),
        ("order_by => 'newest'", 100),
        ("order_by => 'largest'", 100),
        ("'huge/500/', order_by => 'newest'", 100),
        ("'huge/500/', order_by => 'largest'", 100),
        ("'no', '/'", 0),
    ] {
        let arguments = if arguments.starts_with('\'') {
            format!("'private', {arguments}")
        } else {
            format!("'private', prefix => '', {arguments}")
        };
        let listing = scanned_by(&mut listing_session, |ada| {
            let list = format!("SELECT count(*) FROM storage.list_files({arguments})");
            assert_eq!(ada.query_one(&list, &[]).unwrap().get::<_, i64>(0), expected, "{arguments}");
        });
        found.push((format!("list_files {arguments}"), listing));
    }
    let searching = scanned_by(&mut listing_session, |ada| {
        let search = "SELECT count(*) FROM storage.search_files('private', '{\"number\": 4711}')";
        assert_eq!(ada.query_one(search, &[]).unwrap().get::<_, i64>(0), 1);
    });
    found.push(("search_files".to_owned(), searching));
    let deleting = scanned_by(&mut ada, |ada| {
        let file = Upload::declared(&bytes).request(ada).file_id;
        query(ada, &format!("SELECT storage.delete_file('{file}')"));
    });
    found.push(("delete".to_owned(), deleting));
    let consuming = scanned_by(&mut superuser, |session| {
        query(session, "SELECT storage.acknowledge_events(ARRAY(SELECT id FROM storage.claim_events(10)))");
    });
    found.push(("events".to_owned(), consuming));

    // A pass with some of everything to do.
    superuser
        .batch_execute(
            "UPDATE storage.upload_requests SET expires_at = now() WHERE id IN (SELECT pg_temp.id(n * 500) FROM generate_series(1, 5) n);
             UPDATE storage.files SET expires_at = now() WHERE id IN (SELECT pg_temp.id(n) FROM generate_series(1, 5) n);
             UPDATE storage.events SET created_at = now() - interval '8 days', announced = false WHERE id <= 5",
        )
        .unwrap();
    force_deletion(&scene);
    let mut maintaining =
        scanned_by(&mut superuser, |session| query(session, "SELECT storage.run_maintenance()"));
    // Each has its turn in being compared with the store, so the list of them is read; of what is in them, nothing is.
    maintaining.retain(|table| table != "physical_buckets");
    found.push(("maintenance".to_owned(), maintaining));
    let emptying = scanned_by(&mut superuser, |session| {
        query(session, &format!("SAVEPOINT s; SELECT storage.delete_bucket({}::text); ROLLBACK TO s", id(1)));
    });
    found.push(("delete_bucket".to_owned(), emptying));
    found.retain(|(_, scanned)| !scanned.is_empty());
    assert!(found.is_empty(), "{found:#?}");
}

/// Marks one of the many buckets, which holds some thirty files.
fn force_deletion(scene: &Scene) {
    let mark = format!("SELECT storage.delete_bucket({}::text, force => true)", id(6000));
    scene.superuser().execute(&mark, &[]).unwrap();
}
