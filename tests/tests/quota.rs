//! Limits of a bucket hold exactly, also for those who ask at the same moment, and cost nothing where none are set.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Ticket, Upload, confirm, some_bytes};
use pg_storage_tests::{Cluster, Options, Scene, eventually, refused, scene};
use postgres::{Client, Error};
use std::io::Write;
use std::process::Stdio;
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::Duration;

const FULL: (&str, &str) = ("53400", "QUOTA_EXCEEDED");

fn limited(limits: &str) -> Scene {
    let scene = Scene::local();
    scene.user("ada");
    limit(&scene, limits);
    scene
}

fn limit(scene: &Scene, limits: &str) {
    let statement = format!("UPDATE storage.buckets SET {limits} WHERE key = 'private'");
    scene.superuser().batch_execute(&statement).unwrap();
}

/// Files and bytes that the ledger says are taken in `private`, and those that a count finds.
fn ledger_and_count(scene: &Scene) -> ((i64, i64), (i64, i64)) {
    let query = "
        WITH b AS (SELECT id FROM storage.buckets WHERE key = 'private'), ledger AS (
            SELECT r.files, r.bytes FROM storage_private.room r JOIN b ON r.bucket_id = b.id
            UNION ALL SELECT -d.files, -d.bytes FROM storage_private.released_room d JOIN b ON d.bucket_id = b.id
        ), rows AS (
            SELECT f.size FROM storage.files f JOIN b ON f.bucket_id = b.id
            UNION ALL SELECT u.size FROM storage.upload_requests u JOIN b ON u.bucket_id = b.id WHERE u.status = 'requested'
        )
        SELECT (SELECT sum(files)::bigint FROM ledger), (SELECT sum(bytes)::bigint FROM ledger),
               count(*), coalesce(sum(size), 0)::bigint FROM rows";
    let row = scene.superuser().query_one(query, &[]).unwrap();
    ((row.get(0), row.get(1)), (row.get(2), row.get(3)))
}

#[track_caller]
fn assert_exact(scene: &Scene, files: i64) {
    let (ledger, count) = ledger_and_count(scene);
    assert_eq!(ledger, count, "the ledger and the count");
    assert_eq!(count.0, files);
}

/// Rows of the ledger, whatever they say.
fn ledger_rows(scene: &Scene) -> i64 {
    scene.value("SELECT (SELECT count(*) FROM storage_private.room) + (SELECT count(*) FROM storage_private.released_room)")
}

/// Does something in a session and waits until another one keeps it waiting.
fn blocked<T: Send + 'static>(
    scene: &Scene,
    mut session: Client,
    what: impl FnOnce(&mut Client) -> T + Send + 'static,
) -> JoinHandle<(Client, T)> {
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let doing = thread::spawn(move || {
        let done = what(&mut session);
        (session, done)
    });
    eventually("one session to wait for another", Duration::from_secs(30), || {
        scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
    });
    doing
}

fn request(seed: &str) -> impl FnOnce(&mut Client) -> Result<Ticket, Error> + Send + 'static {
    let upload = Upload::of(&some_bytes(seed, 100));
    move |session| upload.try_request(session)
}

#[test]
fn pending_uploads_reserve_and_whatever_ends_without_a_file_releases() {
    let scene = limited("max_total_size = 250");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("quota", 100);
    let upload = Upload::declared(&bytes);
    let full = |ada: &mut postgres::Client| {
        let refusal = refused(upload.try_request(ada));
        assert_eq!(refusal.code(), FULL);
        assert!(refusal.detail.unwrap().contains("200 bytes in 2 files"), "the numbers are told");
    };
    let file = upload.complete(&mut ada, &bytes);
    let pending = upload.clone().named("other.json", "application/json").request(&mut ada);
    full(&mut ada);

    flow::abort(&mut ada, &pending.upload_id).unwrap();
    let expiring =
        upload.clone().named("other.json", "application/json").expiring_in("1 second").request(&mut ada);
    assert!(!expiring.deduplicated);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(upload.request(&mut ada).deduplicated, "bytes that are shared count as a file of their own");
    full(&mut ada);
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&file.file_id]).unwrap();
    assert!(upload.request(&mut ada).deduplicated);
    full(&mut ada);
}

#[test]
fn the_number_of_files_is_limited_too() {
    let scene = limited("max_file_count = 1");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("count", 10);
    let ticket = Upload::declared(&bytes).request(&mut ada);
    assert_eq!(refused(Upload::declared(&bytes).try_request(&mut ada)).code(), FULL);
    assert!(ticket.put(&bytes).is_success());
    assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
    assert_eq!(refused(Upload::declared(&bytes).try_request(&mut ada)).code(), FULL);
    // Other buckets are not concerned.
    Upload::declared(&bytes).to("public").complete(&mut ada, &bytes);
}

#[test]
fn many_who_ask_for_the_last_room_at_once_get_it_once() {
    let scene = limited("max_total_size = 1000");
    let bytes = some_bytes("race", 300);
    Upload::declared(&bytes).to("public").complete(&mut scene.user("ada"), &bytes);
    let granted: usize = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..8)
            .map(|at| {
                let mut ada = scene.user("ada");
                scope.spawn(move || {
                    usize::from(Upload::of(&some_bytes(&at.to_string(), 300)).try_request(&mut ada).is_ok())
                })
            })
            .collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).sum()
    });
    assert_eq!(granted, 3);
    assert_exact(&scene, 3);
}

#[test]
fn of_two_requests_for_the_last_room_the_second_waits_for_the_first_to_commit_or_roll_back() {
    for (end, second_is_granted) in [("COMMIT", false), ("ROLLBACK", true)] {
        // The first request of all makes the ledger's row; the second finds it.
        for used_before in [false, true] {
            let scene = limited(if used_before { "max_file_count = 2" } else { "max_file_count = 1" });
            let (mut first, second) = (scene.user("ada"), scene.user("ada"));
            Upload::of(b"before").request(&mut first);
            if !used_before {
                scene
                    .superuser()
                    .batch_execute("DELETE FROM storage.upload_requests; DELETE FROM storage_private.room")
                    .unwrap();
            }
            first.batch_execute("BEGIN").unwrap();
            Upload::of(b"first").request(&mut first);
            let second = blocked(&scene, second, request("second"));
            first.batch_execute(end).unwrap();
            let (_, answer) = second.join().unwrap();
            assert_eq!(answer.is_ok(), second_is_granted, "{end}, used before: {used_before}");
            if !second_is_granted {
                assert_eq!(refused(answer).code(), FULL);
            }
            assert_exact(&scene, 1 + i64::from(used_before));
        }
    }
}

#[test]
fn every_way_to_end_gives_the_room_back_and_leaves_the_ledger_exact() {
    let scene = limited("max_file_count = 1");
    let mut ada = scene.user("ada");
    let text = some_bytes("ends", 40);
    let upload = Upload::of(&text);
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";
    let mut superuser = scene.superuser();
    let mut end = |how: &str, ada: &mut Client| {
        let body: &[u8] = if how == "reject" { png } else { &text };
        if how == "rollback to savepoint" {
            ada.batch_execute("BEGIN; SAVEPOINT s").unwrap();
            Upload::of(body).request(ada);
            ada.batch_execute("ROLLBACK TO s").unwrap();
            assert_exact(&scene, 0);
            Upload::of(body).request(ada);
            return ada.batch_execute("ROLLBACK").unwrap();
        }
        let ticket = Upload::of(body).expiring_in("1 hour").request(ada);
        assert_eq!(refused(upload.try_request(ada)).code(), FULL, "before {how}");
        let past =
            "UPDATE storage.upload_requests SET expires_at = clock_timestamp() WHERE status = 'requested'";
        match how {
            "abort" => assert_eq!(
                flow::abort(ada, &ticket.upload_id).unwrap().outcome(),
                ("aborted", Some("ABORTED"))
            ),
            "reject" => {
                assert!(ticket.put(png).is_success());
                assert_eq!(
                    confirm(ada, &ticket.upload_id).outcome(),
                    ("rejected", Some("CONTENT_TYPE_MISMATCH"))
                );
            }
            "expire" => {
                superuser.batch_execute(past).unwrap();
                assert_eq!(scene.maintain()[0], 1);
            }
            "confirm too late" => {
                superuser.batch_execute(past).unwrap();
                assert_eq!(confirm(ada, &ticket.upload_id).outcome(), ("expired", Some("EXPIRED")));
            }
            "delete the request" => {
                superuser.batch_execute("DELETE FROM storage.upload_requests").unwrap();
            }
            "delete the file" | "expire the file" => {
                assert!(ticket.put(body).is_success());
                assert_eq!(confirm(ada, &ticket.upload_id).outcome(), ("uploaded", None));
                assert_exact(&scene, 1);
                assert_eq!(refused(upload.try_request(ada)).code(), FULL, "a file takes room");
                if how == "delete the file" {
                    ada.batch_execute("DELETE FROM storage.files").unwrap();
                } else {
                    superuser
                        .batch_execute("UPDATE storage.files SET expires_at = clock_timestamp()")
                        .unwrap();
                    assert_eq!(scene.maintain()[1], 1);
                }
                // What is over is not given back a second time.
                superuser.batch_execute("DELETE FROM storage.upload_requests").unwrap();
            }
            _ => panic!("{how}"),
        }
    };
    for how in [
        "abort",
        "reject",
        "expire",
        "confirm too late",
        "delete the request",
        "delete the file",
        "expire the file",
        "rollback to savepoint",
    ] {
        end(how, &mut ada);
        println!("{how}");
        if ledger_rows(&scene) > 0 {
            assert_exact(&scene, 0);
        }
    }
    Upload::of(&text).request(&mut ada);
    assert_exact(&scene, 1);
}

#[test]
fn the_ledger_equals_a_count_after_many_sessions_did_everything_at_once() {
    let scene = limited("max_total_size = 1500, max_file_count = 20");
    let text = some_bytes("seed", 10);
    Upload::of(&text).complete(&mut scene.user("ada"), &text);
    thread::scope(|scope| {
        for worker in 0..6_u64 {
            let mut ada = scene.user("ada");
            let text = text.clone();
            let mut random = worker.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            scope.spawn(move || {
                let mut next = |bound: u64| {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    random % bound
                };
                for step in 0..40 {
                    let size = 20 + next(100) as usize;
                    let bytes = some_bytes(&format!("w{worker} {step}"), size);
                    let rolls_back = next(4) == 0;
                    if rolls_back {
                        ada.batch_execute("BEGIN").unwrap();
                    }
                    match next(6) {
                        0 => {
                            let _ = ada.execute(
                                "DELETE FROM storage.files WHERE id IN (SELECT id FROM storage.files LIMIT 3)",
                                &[],
                            );
                        }
                        1 => {
                            let oldest = ada.query_opt(
                                "SELECT id::text FROM storage.upload_requests WHERE status = 'requested' LIMIT 1",
                                &[],
                            );
                            if let Some(row) = oldest.unwrap() {
                                // Another session may have ended it by now.
                                let _ = flow::abort(&mut ada, row.get(0));
                            }
                        }
                        2 => drop(Upload::declared(&text).try_request(&mut ada)),
                        3 => drop(Upload::of(&bytes).expiring_in("1 second").try_request(&mut ada)),
                        _ => {
                            if let Ok(ticket) = Upload::of(&bytes).try_request(&mut ada) {
                                assert!(ticket.put(&bytes).is_success());
                                let _ = flow::try_confirm(&mut ada, &ticket.upload_id);
                            }
                        }
                    }
                    if rolls_back {
                        ada.batch_execute("ROLLBACK").unwrap();
                    }
                }
            });
        }
        for _ in 0..10 {
            scene.maintain();
            thread::sleep(Duration::from_millis(100));
        }
    });
    let (ledger, count) = ledger_and_count(&scene);
    assert_eq!(ledger, count);
    // Those past their time hold no room, but are counted until somebody ends them.
    thread::sleep(Duration::from_millis(1100));
    scene.maintain();
    let (ledger, count) = ledger_and_count(&scene);
    assert_eq!(ledger, count);
    assert!(count.0 > 0 && count.0 <= 20 && count.1 <= 1500, "{count:?}");
    let unsettled: i64 =
        scene.value("SELECT count(*) FROM storage_private.room WHERE uncounted IS DISTINCT FROM '{}'");
    assert_eq!(unsettled, 0);
}

#[test]
fn without_a_quota_there_is_no_row_and_no_lock_of_the_ledger() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("free", 10);
    let file = Upload::declared(&bytes).complete(&mut ada, &bytes);
    ada.batch_execute("BEGIN").unwrap();
    let pending = Upload::of(&bytes).request(&mut ada);
    flow::abort(&mut ada, &pending.upload_id).unwrap();
    let touched = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()
                   AND (locktype = 'advisory' OR relation::regclass::text = 'storage_private.released_room' AND mode <> 'RowExclusiveLock')";
    assert_eq!(ada.query_one(touched, &[]).unwrap().get::<_, i64>(0), 0);
    ada.batch_execute("COMMIT").unwrap();
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&file.file_id]).unwrap();
    scene
        .superuser()
        .batch_execute("DELETE FROM storage.upload_requests; DELETE FROM storage.buckets")
        .unwrap();
    assert_eq!(ledger_rows(&scene), 0);
}

#[test]
fn a_quota_waits_for_the_uploads_it_did_not_see_and_counts_them() {
    let scene = Scene::local();
    let mut early = scene.user("ada");
    Upload::of(b"makes the bucket ready").request(&mut early);
    scene.superuser().batch_execute("DELETE FROM storage.upload_requests").unwrap();
    early.batch_execute("BEGIN").unwrap();
    Upload::of(&some_bytes("early", 100)).request(&mut early);

    let setting = blocked(&scene, scene.superuser(), |session| {
        session.batch_execute("UPDATE storage.buckets SET max_file_count = 1 WHERE key = 'private'")
    });
    early.batch_execute("COMMIT").unwrap();
    setting.join().unwrap().1.unwrap();
    let refusal = refused(Upload::of(b"late").try_request(&mut early));
    assert_eq!(refusal.code(), FULL);
    assert!(refusal.detail.unwrap().contains("100 bytes in 1 files"));
}

#[test]
fn an_upload_that_slipped_past_the_quota_is_counted_when_it_commits() {
    static PREPARING: OnceLock<Cluster> = OnceLock::new();
    let cluster =
        PREPARING.get_or_init(|| Cluster::start(Options::new().setting("max_prepared_transactions", "4")));
    for end in [&["COMMIT"][..], &["PREPARE TRANSACTION 'slipped'", "COMMIT PREPARED 'slipped'"]] {
        let scene = Scene::on(cluster, &scene::local_access(cluster));
        let mut slipping = scene.user("ada");
        Upload::of(b"makes the bucket ready").request(&mut slipping);
        scene.superuser().batch_execute("DELETE FROM storage.upload_requests").unwrap();

        // It looks at the bucket before the quota is committed, and locks it after.
        let mut setting = scene.superuser();
        setting
            .batch_execute("BEGIN; UPDATE storage.buckets SET max_file_count = 2 WHERE key = 'private'")
            .unwrap();
        slipping.batch_execute("BEGIN").unwrap();
        let slipped = blocked(&scene, slipping, request("slipped"));
        setting.batch_execute("COMMIT").unwrap();
        let (mut slipping, answer) = slipped.join().unwrap();
        answer.unwrap();

        let mut ada = scene.user("ada");
        Upload::of(b"second").request(&mut ada);
        let uncounted = "SELECT cardinality(uncounted) FROM storage_private.room";
        assert_eq!(scene.value::<i32>(uncounted), 1);
        slipping.batch_execute(end[0]).unwrap();
        if let Some(rest) = end.get(1) {
            Upload::of(b"third").request(&mut ada);
            assert_eq!(scene.value::<i32>(uncounted), 1, "prepared, it is still under way");
            slipping.batch_execute(rest).unwrap();
        }
        let refusal = refused(Upload::of(b"one too many").try_request(&mut ada));
        assert_eq!(refusal.code(), FULL, "{end:?}");
        scene
            .superuser()
            .batch_execute("UPDATE storage.buckets SET max_file_count = 9 WHERE key = 'private'")
            .unwrap();
        Upload::of(b"more").request(&mut ada);
        assert_eq!(scene.value::<i32>(uncounted), 0);
        assert_exact(&scene, 2 + end.len() as i64);
    }
}

#[test]
fn a_statement_that_is_older_than_the_quota_keeps_to_it() {
    let scene = Scene::local();
    let mut early = scene.user("ada");
    Upload::of(b"makes the bucket ready").request(&mut early);
    scene.superuser().batch_execute("DELETE FROM storage.upload_requests").unwrap();
    // It begins before the quota is committed, and asks for the upload after another had the last room.
    let mut gate = scene.superuser();
    gate.batch_execute("BEGIN; SELECT pg_advisory_lock(1)").unwrap();
    let waiting = blocked(&scene, early, |session| {
        session.query(
            "SELECT storage.request_upload_url('private', 'a.txt', CASE WHEN pg_advisory_lock(1) IS NOT NULL THEN 'text/plain' END, 1)",
            &[],
        )
    });
    limit(&scene, "max_file_count = 1");
    Upload::of(b"the last").request(&mut scene.user("ada"));
    gate.batch_execute("SELECT pg_advisory_unlock(1); COMMIT").unwrap();
    let (_, answer) = waiting.join().unwrap();
    assert_eq!(refused(answer).code(), FULL);
    assert_exact(&scene, 1);
}

#[test]
fn a_transaction_that_is_older_than_the_quota_is_turned_back_and_can_try_again() {
    let scene = Scene::local();
    let mut old = scene.user("ada");
    Upload::of(b"before").request(&mut old);
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM storage.buckets").unwrap();
    limit(&scene, "max_file_count = 2");
    assert_eq!(refused(Upload::of(b"old").try_request(&mut old)).sqlstate, "40001");
    old.batch_execute("ROLLBACK; BEGIN ISOLATION LEVEL SERIALIZABLE").unwrap();
    Upload::of(b"new").request(&mut old);
    old.batch_execute("COMMIT").unwrap();
    assert_exact(&scene, 2);

    // Two of them for the last room: never both.
    limit(&scene, "max_file_count = 3");
    let mut first = scene.user("ada");
    for session in [&mut first, &mut old] {
        session
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM storage.buckets")
            .unwrap();
    }
    Upload::of(b"first").request(&mut first);
    let second = blocked(&scene, old, request("second"));
    first.batch_execute("COMMIT").unwrap();
    let (mut old, answer) = second.join().unwrap();
    assert_eq!(refused(answer).sqlstate, "40001");
    old.batch_execute("ROLLBACK").unwrap();
    assert_eq!(refused(Upload::of(b"second").try_request(&mut old)).code(), FULL);
    // Where there is no quota, an old transaction is as good as any.
    old.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE").unwrap();
    Upload::of(b"free").to("public").request(&mut old);
    old.batch_execute("COMMIT").unwrap();
}

#[test]
fn a_quota_that_is_dropped_leaves_nothing_and_one_that_returns_counts_what_came_meanwhile() {
    let scene = limited("max_file_count = 3");
    let mut ada = scene.user("ada");
    let tickets: Vec<_> = ["a", "b"].map(|seed| Upload::of(seed.as_bytes()).request(&mut ada)).into();
    flow::abort(&mut ada, &tickets[0].upload_id).unwrap();
    assert_eq!(ledger_rows(&scene), 2);
    // Another limit beside the first, or a change of one, is no new quota.
    limit(&scene, "max_total_size = 1000");
    limit(&scene, "max_file_count = NULL");
    assert_eq!(ledger_rows(&scene), 2);
    limit(&scene, "max_total_size = NULL");
    assert_eq!(ledger_rows(&scene), 0);

    for seed in ["c", "d", "e"] {
        Upload::of(seed.as_bytes()).request(&mut ada);
    }
    flow::abort(&mut ada, &tickets[1].upload_id).unwrap();
    limit(&scene, "max_file_count = 4");
    Upload::of(b"f").request(&mut ada);
    assert_exact(&scene, 4);
    let refusal = refused(Upload::of(b"g").try_request(&mut ada));
    assert!(refusal.detail.unwrap().contains("4 bytes in 4 files"));
    scene.superuser().batch_execute("DELETE FROM storage.buckets WHERE key = 'private'").unwrap();
    assert_eq!(ledger_rows(&scene), 0, "nor does a bucket that is gone leave anything");
}

#[test]
fn a_bucket_that_is_deleted_with_its_files_leaves_nothing() {
    let scene = limited("max_file_count = 3");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("doomed", 10);
    Upload::declared(&bytes).complete(&mut ada, &bytes);
    Upload::of(b"pending").request(&mut ada);
    assert_exact(&scene, 2);
    scene.manager("ada").batch_execute("SELECT storage.delete_bucket('private', true)").unwrap();
    let left = "SELECT count(*) FROM storage.buckets WHERE key = 'private'";
    eventually("the end of the bucket", Duration::from_secs(30), || {
        scene.maintain();
        (scene.value::<i64>(left) == 0).then_some(())
    });
    assert_eq!(ledger_rows(&scene), 0);
}

#[test]
fn a_ledger_that_says_too_much_is_corrected_before_anybody_is_refused() {
    let scene = limited("max_file_count = 2");
    let mut ada = scene.user("ada");
    Upload::of(b"one").request(&mut ada);
    assert_exact(&scene, 1);
    let superuser = &mut scene.superuser();
    superuser.batch_execute("UPDATE storage_private.room SET files = files + 1, bytes = bytes + 5").unwrap();
    assert_eq!(ledger_and_count(&scene), ((2, 8), (1, 3)));
    Upload::of(b"two").request(&mut ada);
    assert_exact(&scene, 2);
    assert_eq!(refused(Upload::of(b"three").try_request(&mut ada)).code(), FULL);
}

#[test]
fn maintenance_subtracts_what_was_released_except_where_a_request_is_at_it() {
    let scene = limited("max_file_count = 100");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("compact", 10);
    for _ in 0..10 {
        let ticket = Upload::declared(&bytes).request(&mut ada);
        if !ticket.deduplicated {
            assert!(ticket.put(&bytes).is_success());
            confirm(&mut ada, &ticket.upload_id);
        }
    }
    for _ in 0..6 {
        ada.batch_execute("DELETE FROM storage.files WHERE id = (SELECT id FROM storage.files LIMIT 1)")
            .unwrap();
    }
    assert_eq!(ledger_rows(&scene), 1 + 6);
    assert_exact(&scene, 4);

    ada.batch_execute("BEGIN").unwrap();
    Upload::of(b"open").request(&mut ada);
    assert_eq!(scene.value::<i64>("SELECT storage_private.compact_room()"), 0);
    ada.batch_execute("ROLLBACK").unwrap();
    assert_eq!(ledger_rows(&scene), 1 + 6);
    scene.maintain();
    assert_eq!(ledger_rows(&scene), 1);
    assert_exact(&scene, 4);

    // What is left of a quota that is gone goes too.
    scene
        .superuser()
        .batch_execute(
            "INSERT INTO storage_private.room SELECT id, 1, 1, '{}' FROM storage.buckets WHERE key = 'public';
             INSERT INTO storage_private.released_room SELECT id, 1, 1 FROM storage.buckets WHERE key <> 'private'",
        )
        .unwrap();
    scene.maintain();
    assert_eq!(ledger_rows(&scene), 1);

    // A request subtracts by itself.
    ada.batch_execute("DELETE FROM storage.files WHERE id = (SELECT id FROM storage.files LIMIT 1)").unwrap();
    Upload::of(b"next").request(&mut ada);
    assert_eq!(ledger_rows(&scene), 1);
    assert_exact(&scene, 4);
}

#[test]
fn a_restored_dump_counts_on_first_use() {
    let scene = limited("max_file_count = 3");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("dumped", 10);
    Upload::declared(&bytes).complete(&mut ada, &bytes);
    Upload::of(b"pending").request(&mut ada);
    let aborted = Upload::of(b"aborted").request(&mut ada);
    flow::abort(&mut ada, &aborted.upload_id).unwrap();

    let cluster = scene.database.cluster();
    let copy = cluster.bare_database();
    let dump = cluster.client_program("pg_dump").args(["-Fc", scene.database.name()]).output().unwrap();
    assert!(dump.status.success() && dump.stderr.is_empty());
    let mut restore = cluster
        .client_program("pg_restore")
        .args(["--exit-on-error", "-d", copy.name()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    restore.stdin.take().unwrap().write_all(&dump.stdout).unwrap();
    assert!(restore.wait().unwrap().success());

    let rooms = "SELECT count(*) FROM storage_private.room";
    assert_eq!(copy.superuser().query_one(rooms, &[]).unwrap().get::<_, i64>(0), 0);
    let writer = format!("{}_writer", scene.database.name());
    let mut restored = copy.connect_as(&writer, &[("jwt.claims.user_id", "ada")]);
    let setting = format!("SET pg_storage.bucket_prefix = '{}'", scene.prefix);
    assert_eq!(refused(restored.batch_execute(&setting)).sqlstate, "42501");
    copy.superuser()
        .batch_execute(&format!(
            "SELECT storage.adopt_installation(); ALTER DATABASE {} SET pg_storage.bucket_prefix = '{}'",
            copy.name(),
            scene.prefix
        ))
        .unwrap();
    let mut restored = copy.connect_as(&writer, &[("jwt.claims.user_id", "ada")]);
    Upload::of(b"third").request(&mut restored);
    let refusal = refused(Upload::of(b"fourth").try_request(&mut restored));
    assert_eq!(refusal.code(), FULL);
    assert!(refusal.detail.unwrap().contains("22 bytes in 3 files"));
}
