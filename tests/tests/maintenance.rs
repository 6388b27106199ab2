//! Expiry and the collector: the only one who deletes, after the commit, after the delay, and never what a file uses.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Ticket, Upload, assert_downloads, confirm, some_bytes};
use pg_storage_tests::orphans::until_no_copies;
use pg_storage_tests::scene::remote;
use pg_storage_tests::{Cluster, LocalStore, Scene, each_store, refused};
use postgres::Client;

fn delete(session: &mut Client, ticket: &Ticket) {
    session.execute("SELECT storage.delete_file($1::text::uuid)", &[&ticket.file_id]).unwrap();
}

#[test]
fn bytes_stay_for_the_deletion_delay() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("delayed", 60);
        let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
        let place = scene.place_of_file(&ticket.file_id);
        scene.maintain();
        delete(&mut ada, &ticket);
        let waits: f64 = scene.value(
            "SELECT extract(epoch FROM not_before - created_at)::float8 FROM storage.deletion_queue WHERE reason = 'file deleted'",
        );
        assert!((86_390.0..86_410.0).contains(&waits), "a day by default, not {waits} s");
        assert_eq!(scene.maintain(), [0, 0, 0, 0]);
        assert!(scene.exists(&place));

        scene
            .superuser()
            .batch_execute(
                "UPDATE storage.object_deletions SET not_before = not_before - interval '1 day'
                 WHERE reason = 'file deleted'",
            )
            .unwrap();
        assert_eq!(scene.maintain(), [0, 0, 1, 0]);
        assert!(!scene.exists(&place));
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 0);
        // The upload's URL still lives, and with the object gone its key is free: both are looked after.
        assert!(ticket.put(&bytes).is_success());
        assert!(scene.exists(&place) || !scene.direct);
        scene.superuser().batch_execute("UPDATE storage.object_deletions SET not_before = now()").unwrap();
        scene.maintain();
        assert!(!scene.exists(&place) && !scene.exists(&scene.place_of_upload(&ticket.upload_id)));
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.deletion_queue"), 0);
    });
}

#[test]
fn a_rollback_finds_the_bytes_in_place_even_when_maintenance_ran_in_the_same_transaction() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        let bytes = some_bytes("same transaction", 60);
        let upload = Upload::declared(&bytes);
        let alone = upload.complete(&mut ada, &bytes);
        let mut superuser = scene.superuser();
        let within = |superuser: &mut Client, doing: &str, file: &str| {
            superuser.batch_execute("BEGIN").unwrap();
            superuser.batch_execute(doing).unwrap();
            superuser.batch_execute("SELECT storage.run_maintenance()").unwrap();
            superuser.batch_execute("ROLLBACK").unwrap();
            assert_downloads(&mut scene.user("ada"), file, &bytes);
        };
        let delete_all = "DELETE FROM storage.files";
        within(&mut superuser, delete_all, &alone.file_id);
        within(&mut superuser, &format!("SAVEPOINT s; {delete_all}; RELEASE s"), &alone.file_id);

        // A deletion that was committed earlier, while another file still had the bytes, is due.
        let shared = upload.request(&mut ada);
        assert!(shared.deduplicated);
        delete(&mut ada, &alone);
        within(&mut superuser, delete_all, &shared.file_id);
        // The same with a file that expires within that transaction.
        within(
            &mut superuser,
            "UPDATE storage.files SET expires_at = clock_timestamp() - interval '1 hour'",
            &shared.file_id,
        );
        scene.maintain();
        assert_downloads(&mut ada, &shared.file_id, &bytes);
    });
}

#[test]
fn a_rolled_back_pass_of_maintenance_is_repeated_and_harms_no_file() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        let bytes = some_bytes("repeated", 60);
        let upload = Upload::declared(&bytes);
        let first = upload.complete(&mut ada, &bytes);
        delete(&mut ada, &first);
        scene.superuser().batch_execute("BEGIN; SELECT storage.run_maintenance(); ROLLBACK").unwrap();
        // The bytes are gone and the record is back; nobody must be linked to it.
        let again = upload.request(&mut ada);
        assert!(!again.deduplicated);
        assert!(again.put(&bytes).is_success());
        assert_eq!(confirm(&mut ada, &again.upload_id).outcome(), ("uploaded", None));
        assert_downloads(&mut ada, &again.file_id, &bytes);
        scene.maintain();
        assert_downloads(&mut ada, &again.file_id, &bytes);
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 1);
    });
}

#[test]
fn a_pass_whose_snapshot_is_older_than_a_file_is_refused_and_the_file_keeps_its_bytes() {
    let scene = Scene::local();
    scene.set("pg_storage.deletion_delay", "0");
    let mut ada = scene.user("ada");
    let mut bytes_of = |level: &str| {
        let bytes = some_bytes(level, 60);
        let first = Upload::declared(&bytes).complete(&mut ada, &bytes);
        (first, bytes)
    };
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let (first, bytes) = bytes_of(level);
        // A second file is made of the same bytes while the first is deleted; the snapshot is between the two commits.
        let mut sharing = scene.user("ada");
        sharing.batch_execute("BEGIN").unwrap();
        let second = Upload::declared(&bytes).request(&mut sharing);
        assert!(second.deduplicated);
        delete(&mut scene.user("ada"), &first);
        let mut collector = scene.superuser();
        collector
            .batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM storage.files"))
            .unwrap();
        sharing.batch_execute("COMMIT").unwrap();

        let refusal = refused(collector.batch_execute("SELECT storage.run_maintenance()"));
        assert_eq!(refusal.sqlstate, "25001", "{refusal:?}");
        assert!(refusal.hint.is_some(), "{refusal:?}");
        collector.batch_execute("ROLLBACK").unwrap();
        scene.maintain();
        assert_downloads(&mut sharing, &second.file_id, &bytes);
    }
}

#[test]
fn two_passes_at_once_neither_wait_nor_delete_twice() {
    let (scene, store) = Scene::counting();
    scene.set("pg_storage.deletion_delay", "0");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("once", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    delete(&mut ada, &ticket);
    let mut first = scene.superuser();
    first.batch_execute("BEGIN").unwrap();
    let deleted: i64 =
        first.query_one("SELECT objects_deleted FROM storage.run_maintenance()", &[]).unwrap().get(0);
    let asked = scene.asked(store);
    assert_eq!((deleted, scene.maintain()), (1, [0, 0, 0, 0]));
    assert_eq!(scene.asked(store), asked);
    first.batch_execute("COMMIT").unwrap();
    assert_eq!(scene.maintain(), [0, 0, 0, 0]);
}

#[test]
fn many_deletions_go_to_the_store_in_batches() {
    let (scene, store) = Scene::counting();
    scene.set("pg_storage.reconcile_interval", "0");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("batch", 60);
    let kept = Upload::declared(&bytes).complete(&mut ada, &bytes);
    scene
        .superuser()
        .batch_execute(
            "INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
             SELECT physical_name, 'nothing/' || n, 'test', now() FROM storage.buckets, generate_series(1, 1500) n
             WHERE physical_name IS NOT NULL;
             INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
             SELECT physical_name, key, 'a mistake', now() FROM storage.objects",
        )
        .unwrap();
    let asked = scene.asked(store);
    assert_eq!(
        scene.maintain(),
        [0, 0, 1500, 0],
        "absent keys are as good as deleted; a used one is not touched"
    );
    assert_eq!(scene.asked(store), asked + 2, "1000 to a call");
    assert_downloads(&mut ada, &kept.file_id, &bytes);
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.deletion_queue"), 0);
}

#[test]
fn what_the_store_does_not_delete_stays_queued_with_its_error_and_is_repeated() {
    let mut store = LocalStore::start();
    let access = store.access().clone();
    let cluster: &'static Cluster =
        Box::leak(Box::new(Cluster::start(remote(&access).setting("pg_storage.deletion_delay", "0"))));
    let scene = Scene::on(cluster, &access);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("stubborn", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    delete(&mut ada, &ticket);
    store.stop("TERM");
    assert_eq!(scene.maintain(), [0, 0, 0, 1]);
    let row = scene
        .superuser()
        .query_one(
            "SELECT attempts, last_error, due FROM storage.deletion_queue WHERE reason = 'file deleted'",
            &[],
        )
        .unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, bool>(2)), (1, false));
    let error: &str = row.get(1);
    assert!(!error.is_empty() && !error.contains(&access.secret_access_key), "{error}");
    assert_eq!(scene.maintain(), [0, 0, 0, 0], "not before its time");
    store.start_again();
    scene.superuser().batch_execute("UPDATE storage.object_deletions SET not_before = now()").unwrap();
    assert!(scene.maintain()[2] >= 1);
    assert!(!scene.exists(&place));
}

#[test]
fn uploads_whose_time_is_over_expire_and_leave_no_bytes() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("abandoned", 60);
        let (sent, unsent) =
            (Upload::declared(&bytes).request(&mut ada), Upload::of(&bytes).request(&mut ada));
        let running = Upload::of(&bytes).request(&mut ada);
        assert!(sent.put(&bytes).is_success());
        let place = scene.place_of_upload(&sent.upload_id);
        assert_eq!(scene.maintain(), [0, 0, 0, 0], "nothing is due");
        for ticket in [&sent, &unsent] {
            scene
                .superuser()
                .execute(
                    "UPDATE storage.upload_requests SET created_at = created_at - interval '1 hour',
                     expires_at = expires_at - interval '1 hour' WHERE id = $1::text::uuid",
                    &[&ticket.upload_id],
                )
                .unwrap();
        }
        assert_eq!(scene.maintain()[0], 2);
        for ticket in [&sent, &unsent] {
            let verdict = flow::recorded(&mut ada, &ticket.upload_id);
            assert_eq!((verdict.outcome(), verdict.finished), (("expired", Some("EXPIRED")), true));
            assert_eq!(confirm(&mut ada, &ticket.upload_id), verdict);
        }
        assert_eq!(flow::recorded(&mut ada, &running.upload_id).status, "requested");
        assert_eq!(scene.maintain()[0], 0);
        assert!(!scene.exists(&place));
    });
}

#[test]
fn temporary_files_vanish_after_a_day_and_others_after_their_buckets_time() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        scene
            .superuser()
            .batch_execute(
                "UPDATE storage.buckets SET file_ttl = '2 hours' WHERE key = 'public';
                 UPDATE storage.buckets SET file_ttl = '3 days' WHERE key = 'temp'",
            )
            .unwrap();
        let bytes = some_bytes("brief", 60);
        let upload =
            |ada: &mut Client, bucket: &str| Upload::declared(&bytes).to(bucket).complete(ada, &bytes);
        let files = ["temp", "public", "private"].map(|bucket| upload(&mut ada, bucket));
        let lives = |ticket: &Ticket| -> Option<f64> {
            scene.value(&format!(
                "SELECT extract(epoch FROM f.expires_at - u.created_at)::float8
                 FROM storage.files f JOIN storage.upload_requests u ON u.file_id = f.id WHERE f.id = '{}'",
                ticket.file_id
            ))
        };
        assert_eq!(files.each_ref().map(lives), [Some(86_400.0), Some(7_200.0), None]);
        assert_eq!(scene.maintain()[1], 0);

        let place = scene.place_of_file(&files[0].file_id);
        scene
            .superuser()
            .batch_execute("UPDATE storage.files SET expires_at = expires_at - interval '25 hours'")
            .unwrap();
        // Over is over, collected or not.
        for ticket in &files[..2] {
            let refusal =
                refused(ada.query("SELECT storage.download_url($1::text::uuid)", &[&ticket.file_id]));
            assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"));
        }
        assert_eq!(scene.maintain()[1], 2);
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.files"), 1);
        scene.maintain();
        assert!(!scene.exists(&place));
        assert_downloads(&mut ada, &files[2].file_id, &bytes);
    });
}

#[test]
fn a_confirmation_that_was_rolled_back_and_never_repeated_leaves_nothing_in_the_store() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("rolled back", 60);
        for upload in [Upload::of(&bytes), Upload::declared(&bytes)] {
            let ticket = upload.request(&mut ada);
            assert!(ticket.put(&bytes).is_success());
            ada.batch_execute("BEGIN").unwrap();
            assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
            let staged = scene.place_of_upload(&ticket.upload_id);
            assert!(scene.exists(&staged));
            ada.batch_execute("ROLLBACK").unwrap();

            scene
                .superuser()
                .batch_execute(
                    "UPDATE storage.upload_requests SET expires_at = now() WHERE status = 'requested'",
                )
                .unwrap();
            assert_eq!(scene.maintain()[0], 1, "expired in this pass, collected in the next");
            scene.maintain();
            assert!(!scene.exists(&staged));
            until_no_copies(scene, &ticket.upload_id);
        }
    });
}
