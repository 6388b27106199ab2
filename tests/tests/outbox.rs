//! The outbox: claims with leases against links, other collectors and rollbacks; at any length.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{Upload, assert_downloads, confirm, some_bytes};
use pg_storage_tests::worker::{
    LIMIT, at_work, await_empty_queue, await_idle, behind_proxy, delete, keep_worker, nudge,
};
use pg_storage_tests::{Fault, Scene, eventually};
use std::time::Duration;

#[test]
fn identical_bytes_that_come_after_the_claim_become_an_object_of_their_own() {
    let (scene, proxy, _store) = behind_proxy();
    let pid = keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("claimed first", 60);
    let upload = Upload::declared(&bytes);
    let first = upload.complete(&mut ada, &bytes);
    let place = scene.place_of_file(&first.file_id);
    // One more is requested while the first can still be shared, and confirmed when it cannot.
    let undeclared = Upload::of(&bytes).request(&mut ada);
    assert!(undeclared.put(&bytes).is_success());
    proxy.set("POST /", Fault::Silent);
    delete(&mut ada, &first);
    proxy.wait_for_caller();
    let second = upload.request(&mut ada);
    assert!(!second.deduplicated);
    assert!(second.put(&bytes).is_success());
    assert_eq!(confirm(&mut ada, &second.upload_id).outcome(), ("uploaded", None));
    assert_eq!(confirm(&mut ada, &undeclared.upload_id).outcome(), ("uploaded", None));
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 2);

    proxy.heal();
    scene.superuser().execute("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
    await_idle(&scene);
    scene.superuser().batch_execute("UPDATE storage.object_deletions SET claimed_until = NULL").unwrap();
    nudge(&scene);
    eventually("the deletion", LIMIT, || (!scene.exists(&place)).then_some(()));
    assert_downloads(&mut ada, &second.file_id, &bytes);
    assert_downloads(&mut ada, &undeclared.file_id, &bytes);
}

#[test]
fn a_link_that_is_not_committed_yet_keeps_the_bytes() {
    let scene = at_work();
    keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("linked first", 60);
    let upload = Upload::declared(&bytes);
    let first = upload.complete(&mut ada, &bytes);
    let mut linking = scene.user("ada");
    for end in ["COMMIT", "PREPARE TRANSACTION 'link'"] {
        linking.batch_execute("BEGIN").unwrap();
        let second = upload.request(&mut linking);
        assert!(second.deduplicated);
        if end == "COMMIT" {
            delete(&mut ada, &first);
        } else {
            let others = "DELETE FROM storage.files WHERE id <> $1::text::uuid";
            scene.superuser().execute(others, &[&second.file_id]).unwrap();
            linking.batch_execute(end).unwrap();
        }
        nudge(&scene);
        await_idle(&scene);
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects WHERE NOT deleting"), 1);
        if end == "COMMIT" {
            linking.batch_execute(end).unwrap();
        } else {
            scene.superuser().batch_execute("COMMIT PREPARED 'link'").unwrap();
        }
        nudge(&scene);
        await_empty_queue(&scene);
        assert_downloads(&mut ada, &second.file_id, &bytes);
    }
}

/// Claims everything that is due, as a collector does.
const CLAIM: &str = "SELECT count(*) FROM storage_private.due_buckets(now()) b,
                     storage_private.claim_deletions(b.physical_name, 1000, now(), NULL, NULL, '1 min') c WHERE c.unused";

#[test]
fn a_link_waits_for_a_claim_that_is_not_committed_yet() {
    let scene = Scene::local();
    scene.set("pg_storage.deletion_delay", "0");
    let mut ada = scene.user("ada");
    let ticket = Upload::declared(b"contended").complete(&mut ada, b"contended");
    let object: String = scene.value("SELECT id::text FROM storage.objects");
    delete(&mut ada, &ticket);
    let mut collector = scene.superuser();
    collector.batch_execute("BEGIN").unwrap();
    assert_eq!(collector.query_one(CLAIM, &[]).unwrap().get::<_, i64>(0), 1 + scene.staged(1));
    let mut linking = scene.superuser();
    let pid: i32 = linking.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let alive = std::thread::spawn(move || {
        let ask = "SELECT storage_private.live_object($1::text::uuid)";
        linking.query_one(ask, &[&object]).unwrap().get::<_, bool>(0)
    });
    eventually("the link to wait", LIMIT, || {
        scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
    });
    collector.batch_execute("COMMIT").unwrap();
    assert!(!alive.join().unwrap());
    // The lease holds against every other collector, and its end gives the job to the next.
    assert_eq!(scene.maintain(), [0, 0, 0, 0]);
    scene.superuser().batch_execute("UPDATE storage.object_deletions SET claimed_until = now()").unwrap();
    assert_eq!(scene.maintain(), [0, 0, 1 + scene.staged(1), 0]);
}

#[test]
fn many_collectors_at_once_claim_each_job_once_and_leave_none() {
    let scene = at_work();
    let mut ada = scene.user("ada");
    let kept = Upload::declared(b"kept").complete(&mut ada, b"kept");
    let gone = Upload::declared(b"gone").complete(&mut ada, b"gone");
    let place = scene.place_of_file(&gone.file_id);
    scene
        .superuser()
        .batch_execute(
            "CREATE TABLE public.claims (job bigint);
             CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO public.claims VALUES (NEW.id); RETURN NULL; END';
             CREATE TRIGGER note AFTER UPDATE OF claimed_until ON storage.object_deletions
             FOR EACH ROW WHEN (NEW.claimed_until IS NOT NULL) EXECUTE FUNCTION public.note()",
        )
        .unwrap();
    keep_worker(&scene);
    delete(&mut ada, &gone);
    scene
        .superuser()
        .batch_execute(
            "INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
             SELECT name, 'nothing/' || n, 'test', now() FROM storage.physical_buckets, generate_series(1, 6000) n;
             INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
             SELECT physical_name, key, 'a mistake', now() FROM storage.objects",
        )
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..3 {
                    scene.maintain();
                }
            });
        }
    });
    nudge(&scene);
    await_empty_queue(&scene);
    let claims =
        scene.superuser().query_one("SELECT count(*), count(DISTINCT job) FROM public.claims", &[]).unwrap();
    let (claims, jobs): (i64, i64) = (claims.get(0), claims.get(1));
    assert_eq!(claims, jobs, "a job was claimed twice");
    let staged = scene.staged(2);
    assert!((6001 + staged..=6002 + staged).contains(&jobs), "{jobs}");
    assert!(!scene.exists(&place));
    assert_downloads(&mut ada, &kept.file_id, b"kept");
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 1);
}

#[test]
fn one_that_fails_again_and_again_is_shown_as_dead_and_still_repeated() {
    let (scene, proxy, _store) = behind_proxy();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("dead", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    delete(&mut ada, &ticket);
    proxy.set("POST /", Fault::Denied);
    let due = "UPDATE storage.object_deletions SET not_before = now()";
    for attempt in 1..=11 {
        assert_eq!(scene.maintain(), [0, 0, 0, 1]);
        let row = scene
            .superuser()
            .query_one(
                "SELECT attempts, dead, extract(epoch FROM not_before - now())::float8, last_error FROM storage.deletion_queue",
                &[],
            )
            .unwrap();
        assert_eq!((row.get::<_, i32>(0), row.get::<_, bool>(1)), (attempt, attempt > 10));
        let wait: f64 = row.get(2);
        let longest = (10 << (attempt - 1).min(9)).min(3600) + 10;
        assert!(wait > 9.0 && wait <= f64::from(longest), "{attempt}: {wait}");
        assert!(attempt <= 10 || wait > 3590.0, "{wait}");
        assert!(row.get::<_, &str>(3).contains("AccessDenied"), "{}", row.get::<_, &str>(3));
        scene.superuser().batch_execute(due).unwrap();
    }
    proxy.heal();
    assert_eq!(scene.maintain(), [0, 0, 1, 0]);
    assert!(!scene.exists(&place));
}

#[test]
fn a_long_queue_is_read_by_its_indexes() {
    let scene = at_work();
    let mut session = scene.superuser();
    session
        .batch_execute(
            "INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
             SELECT 'bucket-' || n % 3, 'key/' || n, 'test',
                    now() + CASE WHEN n % 40 = 0 THEN interval '-1 s' ELSE n * interval '1 s' END
             FROM generate_series(1, 300000) n;
             INSERT INTO storage.buckets (tenant_id, owner_id, key) VALUES ('default', 'ada', 'b');
             INSERT INTO storage.upload_requests (tenant_id, bucket_id, owner_id, filename, content_type, size, physical_name,
                                                  object_key, final_key, direct, create_only, expires_at, status)
             SELECT 'default', b.id, 'ada', 'f', 'text/plain', 1, 'bucket-0', 'key/' || n, 'key/' || n, true, true,
                    now() + n * interval '1 s', 'requested'
             FROM storage.buckets b, generate_series(1, 50000) n;
             INSERT INTO storage.objects (physical_name, key, size, content_type)
             SELECT 'bucket-' || n % 3, 'key/' || n, 1, 'text/plain' FROM generate_series(1, 50000) n;
             INSERT INTO storage.files (tenant_id, bucket_id, object_id, owner_id, filename, content_type, size, sha256, expires_at)
             SELECT 'default', b.id, o.id, 'ada', 'f', 'text/plain', 1, repeat('a', 64), now() + interval '1 day'
             FROM storage.objects o, storage.buckets b WHERE o.key LIKE '%1';
             ANALYZE storage.object_deletions, storage.upload_requests, storage.objects, storage.files;
             -- So that tens of thousands of rows stand for millions.
             SET random_page_cost = 1.1;
             LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
             SET auto_explain.log_level = log",
        )
        .unwrap();
    let before = scene.database.cluster().log().len();
    // Often enough for plans that are kept.
    for _ in 0..8 {
        session
            .batch_execute(&format!("BEGIN; {CLAIM}; SELECT storage_private.next_due(now()); COMMIT"))
            .unwrap();
        session.batch_execute("SELECT storage_private.expire_uploads(1000)").unwrap();
        session
            .batch_execute(
                "UPDATE storage.object_deletions SET claimed_until = NULL WHERE claimed_until IS NOT NULL",
            )
            .unwrap();
    }
    session.batch_execute("SELECT * FROM storage.deletion_queue WHERE dead").unwrap();
    let claimed: i64 = session.query_one(CLAIM, &[]).unwrap().get(0);
    assert!(
        (2000..=3000).contains(&claimed),
        "1000 of each bucket, but for those of pending uploads: {claimed}"
    );
    eventually("the log", Duration::from_secs(10), || {
        scene.database.cluster().log()[before..].contains("expire_uploads").then_some(())
    });
    let log = scene.database.cluster().log()[before..].to_owned();
    for index in [
        "object_deletions_queue",
        "object_deletions_dead",
        "object_deletions_claimed",
        "upload_requests_pending",
    ] {
        assert!(log.contains(index), "{index}");
    }
    let plans: Vec<&str> =
        log.split("LOG:  duration").filter(|plan| !plan.contains("SET claimed_until = NULL")).collect();
    for plan in plans {
        for table in ["object_deletions", "upload_requests", "files", "objects"] {
            assert!(!plan.contains(&format!("Seq Scan on {table}")), "{plan}");
        }
    }
}
