//! Uploads that nobody confirms: where the setting says so, a pass of maintenance does, with the same care.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Ticket, Upload, assert_downloads, confirm, some_bytes};
use pg_storage_tests::worker::{LIMIT, at_work, await_idle, behind_proxy, delete, keep_worker, nudge};
use pg_storage_tests::{Fault, Scene, each_store, eventually};

/// Expired and confirmed in one pass.
fn pass(scene: &Scene) -> [i64; 2] {
    let report = "SELECT uploads_expired, uploads_confirmed FROM storage.run_maintenance()";
    let row = scene.superuser().query_one(report, &[]).unwrap();
    [row.get(0), row.get(1)]
}

fn end(scene: &Scene, tickets: &[&Ticket]) {
    for ticket in tickets {
        let over = "UPDATE storage.upload_requests SET expires_at = now() WHERE id = $1::text::uuid";
        scene.superuser().execute(over, &[&ticket.upload_id]).unwrap();
    }
}

#[test]
fn those_whose_bytes_are_right_become_files_and_the_others_end_with_the_reason() {
    each_store(|scene| {
        scene.set("pg_storage.unconfirmed_uploads", "confirm");
        let mut ada = scene.user("ada");
        let bytes = some_bytes("forgotten", 60);
        let [declared, undeclared] =
            [Upload::declared(&bytes), Upload::of(&bytes)].map(|upload| upload.request(&mut ada));
        for ticket in [&declared, &undeclared] {
            assert!(ticket.put(&bytes).is_success());
        }
        let absent = Upload::of(&bytes).request(&mut ada);
        let wrong = Upload::of(b"%PDF-1.7 and not a picture").named("a.png", "image/png").request(&mut ada);
        assert!(wrong.put(b"%PDF-1.7 and not a picture").is_success());
        let waiting = Upload::of(&bytes).request(&mut ada);
        assert_eq!(pass(scene), [0, 0], "their time is not over");

        end(scene, &[&declared, &undeclared, &absent, &wrong]);
        // A client that comes late is served as well.
        assert_eq!(confirm(&mut ada, &undeclared.upload_id).outcome(), ("uploaded", None));
        assert_eq!(pass(scene), [2, 1]);
        let mut outcome = |ticket: &Ticket| {
            let verdict = flow::recorded(&mut ada, &ticket.upload_id);
            (verdict.status, verdict.reason)
        };
        assert_eq!(outcome(&declared), ("uploaded".to_owned(), None));
        assert_eq!(outcome(&undeclared), ("uploaded".to_owned(), None));
        assert_eq!(outcome(&absent), ("expired".to_owned(), Some("EXPIRED".to_owned())));
        assert_eq!(outcome(&wrong), ("rejected".to_owned(), Some("CONTENT_TYPE_MISMATCH".to_owned())));
        assert_eq!(outcome(&waiting), ("requested".to_owned(), None));
        assert_downloads(&mut ada, &declared.file_id, &bytes);
        assert_downloads(&mut ada, &undeclared.file_id, &bytes);
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 1, "shared as ever");
        assert_eq!(pass(scene), [0, 0]);
    });
}

#[test]
fn one_whose_path_was_taken_meanwhile_ends_and_stops_no_other() {
    let scene = Scene::local();
    scene.set("pg_storage.unconfirmed_uploads", "confirm");
    scene.shared_bucket();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let first = Upload::of(b"ada's").to("shared").at("report.txt").request(&mut ada);
    assert!(first.put(b"ada's").is_success());
    let other = Upload::of(b"another").request(&mut ada);
    assert!(other.put(b"another").is_success());
    Upload::of(b"bob's").to("shared").at("report.txt").complete(&mut bob, b"bob's");
    end(&scene, &[&first, &other]);
    assert_eq!(pass(&scene), [1, 1]);
    let verdict = flow::recorded(&mut ada, &first.upload_id);
    assert_eq!(verdict.outcome(), ("expired", Some("EXPIRED")));
    assert!(verdict.details.unwrap().contains("PATH_TAKEN"));
}

#[test]
fn no_lock_is_held_while_the_store_is_asked_and_a_late_answer_settles_nothing() {
    let (scene, proxy, _store) = behind_proxy();
    scene.set("pg_storage.unconfirmed_uploads", "confirm");
    let pid = keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("slow store", 60);
    let tickets = [Upload::declared(&bytes).request(&mut ada), Upload::of(b"second").request(&mut ada)];
    assert!(tickets[0].put(&bytes).is_success() && tickets[1].put(b"second").is_success());
    proxy.set("HEAD /", Fault::Silent);
    end(&scene, &[&tickets[0]]);
    scene.database.cluster().reload();
    proxy.wait_for_caller();
    let mut session = scene.superuser();
    let open =
        "SELECT xact_start IS NOT NULL OR backend_xmin IS NOT NULL FROM pg_stat_activity WHERE pid = $1";
    assert!(!session.query_one(open, &[&pid]).unwrap().get::<_, bool>(0));
    // Whoever may change the upload is not kept waiting.
    session.batch_execute("SET lock_timeout = '5s'").unwrap();
    ada.batch_execute("SET lock_timeout = '5s'").unwrap();
    assert_eq!(flow::abort(&mut ada, &tickets[0].upload_id).unwrap().status, "aborted");
    session.execute("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
    proxy.wait_for_silence();
    await_idle(&scene);
    assert_eq!(flow::recorded(&mut ada, &tickets[0].upload_id).status, "aborted");

    // A store that fails leaves it for later.
    proxy.heal();
    proxy.set("HEAD /", Fault::Denied);
    end(&scene, &[&tickets[1]]);
    nudge(&scene);
    await_idle(&scene);
    assert_eq!(flow::recorded(&mut ada, &tickets[1].upload_id).status, "requested");
    let error: String = scene.value("SELECT last_error FROM storage.worker_state WHERE kind = 'worker'");
    assert!(error.contains("STORE_DENIED"), "{error}");
    let waits = "SELECT claimed_until BETWEEN now() AND now() + interval '1 min' FROM storage.upload_requests WHERE status = 'requested'";
    assert!(scene.value::<bool>(waits));
    proxy.heal();
    session.batch_execute("UPDATE storage.upload_requests SET claimed_until = now()").unwrap();
    scene.database.cluster().reload();
    eventually("the confirmation", LIMIT, || {
        (flow::recorded(&mut ada, &tickets[1].upload_id).status == "uploaded").then_some(())
    });
    delete(&mut ada, &tickets[1]);
}

#[test]
fn an_open_transaction_that_holds_a_lock_stops_neither_the_others_nor_the_other_tasks() {
    let scene = at_work();
    scene.set("pg_storage.unconfirmed_uploads", "confirm");
    scene.database.cluster().reload();
    scene.shared_bucket();
    keep_worker(&scene);
    let mut ada = scene.user("ada");
    let held = Upload::of(b"held").to("shared").at("held.txt").request(&mut ada);
    let free = Upload::of(b"free").request(&mut ada);
    let deleted = Upload::declared(b"deleted").complete(&mut ada, b"deleted");
    let place = scene.place_of_file(&deleted.file_id);
    assert!(held.put(b"held").is_success() && free.put(b"free").is_success());
    // An upload to the same path, confirmed in a transaction that its client forgets.
    let mut holder = scene.user("ada");
    holder.batch_execute("BEGIN").unwrap();
    Upload::of(b"first").to("shared").at("held.txt").complete(&mut holder, b"first");
    end(&scene, &[&held]);
    eventually("the worker to give up waiting", LIMIT, || {
        nudge(&scene);
        let told = "SELECT coalesce(last_error, '') LIKE '%lock timeout%' FROM storage.worker_state WHERE kind = 'worker'";
        scene.value::<bool>(told).then_some(())
    });
    end(&scene, &[&free]);
    delete(&mut ada, &deleted);
    nudge(&scene);
    eventually("the other task", LIMIT, || (!scene.exists(&place)).then_some(()));
    eventually("the other upload", LIMIT, || {
        nudge(&scene);
        (flow::recorded(&mut ada, &free.upload_id).status == "uploaded").then_some(())
    });
    assert_eq!(flow::recorded(&mut ada, &held.upload_id).status, "requested");
    holder.batch_execute("ROLLBACK").unwrap();
    scene.superuser().batch_execute("UPDATE storage.upload_requests SET claimed_until = now()").unwrap();
    nudge(&scene);
    eventually("what was held", LIMIT, || {
        (flow::recorded(&mut ada, &held.upload_id).status == "uploaded").then_some(())
    });
}
