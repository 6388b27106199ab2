//! Bytes that come when nobody waits for them any more, or whose request never was: all of them are found and removed.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_core::presign::Method;
use pg_storage_tests::flow::{self, Ticket, Upload, assert_downloads, confirm, recorded, some_bytes};
use pg_storage_tests::orphans::{copies, grow_old, rolled_back, scan};
use pg_storage_tests::scene::remote;
use pg_storage_tests::{
    Cluster, Fault, FaultyStore, Garage, LocalStore, Scene, StoreAccess, each_store, eventually, refused,
};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Passes of maintenance that reconcile whatever its age, each a second after the other.
fn reconcile(scene: &Scene) {
    scene.set("pg_storage.reconcile_interval", "1");
    scene.set("pg_storage.orphan_min_age", "0");
}

/// Runs passes until there are no bytes at this place.
fn until_gone(scene: &Scene, place: &(String, String)) {
    eventually("the removal of the bytes", LIMIT, || {
        scene.maintain();
        std::thread::sleep(Duration::from_millis(500));
        (!scene.exists(place)).then_some(())
    });
}

fn make_due(scene: &Scene) {
    scene.superuser().batch_execute("UPDATE storage.object_deletions SET not_before = now()").unwrap();
}

#[test]
fn bytes_of_a_request_that_was_rolled_back_are_removed() {
    each_store(|scene| {
        let kept = Upload::declared(b"kept").complete(&mut scene.user("ada"), b"kept");
        let (ticket, place) = rolled_back(scene, "ada", "BEGIN", b"rolled back");
        grow_old();
        scene.maintain();
        assert!(scene.exists(&place), "bytes that young are left alone");
        reconcile(scene);
        until_gone(scene, &place);
        // Its URL still lives, and brings them again.
        assert!(ticket.put(b"rolled back").is_success());
        until_gone(scene, &place);
        assert_downloads(&mut scene.user("ada"), &kept.file_id, b"kept");
        let finished = "SELECT count(*) FROM storage_private.reconciliations
                        WHERE finished_at >= began_at AND reached IS NULL AND last_error IS NULL";
        eventually("the end of the comparison", LIMIT, || {
            scene.maintain();
            (scene.value::<i64>(finished) >= 1).then_some(())
        });
    });
}

/// Nobody else ever uses the bucket, and still it is known that the store may have it.
#[test]
fn bytes_of_a_first_use_that_was_rolled_back_are_removed() {
    each_store(|scene| {
        reconcile(scene);
        let (_, place) = rolled_back(scene, "ada", "BEGIN", b"rolled back");
        assert!(scene.exists(&place));
        let state = "SELECT state::text FROM storage.physical_buckets";
        assert_eq!(scene.value::<String>(state), "pending");
        scene
            .superuser()
            .batch_execute("UPDATE storage.physical_buckets SET next_attempt_at = clock_timestamp()")
            .unwrap();
        grow_old();
        until_gone(scene, &place);
        assert_eq!(scene.value::<String>(state), "ready");
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.upload_requests"), 0);
    });
}

/// A transaction with one snapshot cannot see what is recorded beside it, and is undone like any other.
#[test]
fn bytes_of_a_first_use_in_a_serializable_transaction_are_removed_too() {
    each_store(|scene| {
        reconcile(scene);
        let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE";
        let (_, place) = rolled_back(scene, "ada", begin, b"rolled back");
        assert!(scene.exists(&place));
        scene
            .superuser()
            .batch_execute("UPDATE storage.physical_buckets SET next_attempt_at = clock_timestamp()")
            .unwrap();
        grow_old();
        until_gone(scene, &place);
        // One that commits is recorded by whoever comes next.
        let mut ada = scene.user("ada");
        ada.batch_execute(begin).unwrap();
        let ticket = Upload::declared(b"committed").to("public").request(&mut ada);
        ada.batch_execute("COMMIT").unwrap();
        assert!(ticket.put(b"committed").is_success());
        assert_eq!(flow::confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
        Upload::declared(b"next").to("public").complete(&mut ada, b"next");
        assert_eq!(
            scene.value::<i64>("SELECT count(*) FROM storage.physical_buckets WHERE state = 'ready' AND provisioned_at IS NOT NULL"),
            2
        );
    });
}

#[test]
fn what_a_confirmation_that_was_rolled_back_copied_is_removed() {
    each_store(|scene| {
        reconcile(scene);
        let mut ada = scene.user("ada");
        let bytes = some_bytes("confirmed", 60);
        let ticket = Upload::of(&bytes).request(&mut ada);
        assert!(ticket.put(&bytes).is_success());
        ada.batch_execute("BEGIN").unwrap();
        assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
        ada.batch_execute("ROLLBACK").unwrap();
        let [copy] = copies(scene, &ticket.upload_id).try_into().expect("one copy is there");
        let staged = scene.place_of_upload(&ticket.upload_id);
        grow_old();
        // While it can be confirmed again, nothing of it is anybody's to remove.
        scene.maintain();
        assert_eq!(scan(scene, &copy.0, true), []);
        assert!(scene.exists(&staged));
        flow::abort(&mut ada, &ticket.upload_id).unwrap();
        until_gone(scene, &copy);
        until_gone(scene, &staged);
    });
}

/// Begins to send a ticket's PUT and stops before the last byte.
fn begin_put(ticket: &Ticket, body: &[u8]) -> TcpStream {
    let rest = ticket.url().strip_prefix("http://").unwrap();
    let (host, target) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let headers: String = ticket
        .headers
        .iter()
        .filter(|(name, _)| !["host", "content-length"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    write!(stream, "PUT /{target} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n").unwrap();
    stream.write_all(&body[..length - 1]).unwrap();
    stream.flush().unwrap();
    stream
}

/// Sends the last byte; the status line.
fn end_put(mut stream: TcpStream, body: &[u8]) -> String {
    stream.write_all(&body[body.len() - 1..]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_put_that_ends_after_its_request_expired_is_removed() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        for upload in [Upload::of(b"late bytes"), Upload::declared(b"late bytes")] {
            let ticket = upload.expiring_in("2 seconds").request(&mut ada);
            let running = begin_put(&ticket, b"late bytes");
            eventually("the request to expire", LIMIT, || {
                scene.maintain();
                std::thread::sleep(Duration::from_millis(200));
                (recorded(&mut ada, &ticket.upload_id).status == "expired").then_some(())
            });
            let place = scene.place_of_upload(&ticket.upload_id);
            // Everything that is due now has been done before the bytes come.
            scene.maintain();
            let answer = end_put(running, b"late bytes");
            assert!(answer.contains(" 200"), "{answer}");
            assert!(scene.exists(&place));
            let swept = scene.value::<bool>(
                "SELECT count(*) > 0 AND max(not_before) < now() + interval '61 minutes' FROM storage.deletion_queue",
            );
            assert!(swept, "the key is looked at again an hour after its URL has ended");
            make_due(scene);
            scene.maintain();
            assert!(!scene.exists(&place));
        }
    });
}

#[test]
fn a_put_replayed_after_the_abort_is_removed() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        for upload in [Upload::of(b"replayed"), Upload::declared(b"replayed")] {
            let ticket = upload.request(&mut ada);
            assert!(ticket.put(b"replayed").is_success());
            flow::abort(&mut ada, &ticket.upload_id).unwrap();
            let place = scene.place_of_upload(&ticket.upload_id);
            scene.maintain();
            assert!(!scene.exists(&place));
            assert!(ticket.put(b"replayed").is_success(), "the URL lives on");
            assert!(scene.exists(&place));
            make_due(scene);
            scene.maintain();
            assert!(!scene.exists(&place));
        }
    });
}

#[test]
fn multipart_uploads_that_nobody_names_are_aborted() {
    each_store(|scene| {
        reconcile(scene);
        let mut ada = scene.user("ada");
        let pending = Upload::of(b"pending").request(&mut ada);
        let (_, nobodys) = rolled_back(scene, "ada", "BEGIN", b"rolled back");
        let named = scene.place_of_upload(&pending.upload_id);
        // Some stores end uploads to a key with the object that has it.
        let (bucket, key) = (nobodys.0.as_str(), nobodys.1.as_str());
        assert!(scene.ask_store(Method::Delete, (bucket, key), &[]).is_success());
        let foreign = (named.0.clone(), "somebody/else's".to_owned());
        let uploads = |(bucket, key): &(String, String)| -> usize {
            let answer = scene.ask_store(Method::Get, (bucket, ""), &[("uploads", ""), ("prefix", key)]);
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.text().matches("<Upload>").count()
        };
        for (bucket, key) in [&nobodys, &named, &foreign] {
            let answer = scene.ask_store(Method::Post, (bucket, key), &[("uploads", "")]);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!([&nobodys, &named, &foreign].map(uploads), [1, 1, 1]);
        let aborted = "SELECT multiparts_aborted FROM storage.run_maintenance()";
        let mut sum = 0;
        eventually("the end of the upload that nobody names", LIMIT, || {
            sum += scene.value::<i64>(aborted);
            std::thread::sleep(Duration::from_millis(500));
            (uploads(&nobodys) == 0).then_some(())
        });
        assert_eq!((sum, uploads(&named), uploads(&foreign)), (1, 1, 1));
    });
}

#[test]
fn a_comparison_goes_on_where_it_stopped_and_a_failing_bucket_holds_up_no_other() {
    let store = LocalStore::start();
    let proxy = FaultyStore::before(&store.access().endpoint);
    let access = StoreAccess { endpoint: proxy.endpoint(), ..store.access().clone() };
    let cluster = Box::leak(Box::new(Cluster::start(remote(&access))));
    let scene = Scene::on(cluster, &access);
    let mut places =
        [rolled_back(&scene, "ada", "BEGIN", b"one").1, rolled_back(&scene, "ada", "BEGIN", b"two").1];
    places.sort();
    let [first, second] = places;
    let public = Upload::declared(b"public").to("public").complete(&mut scene.user("ada"), b"public");
    let (other, _) = scene.place_of_file(&public.file_id);
    Upload::declared(b"private").complete(&mut scene.user("ada"), b"private");
    grow_old();
    scene.set("pg_storage.orphan_min_age", "0");
    // As a crash leaves it: the first key was reached, and no end recorded.
    let row = "INSERT INTO storage_private.reconciliations (physical_name, reached, began_at)
               VALUES ($1, convert_to($2, 'UTF8'), now() - interval '1 hour')";
    scene.superuser().execute(row, &[&first.0, &first.1]).unwrap();
    proxy.set(&format!("/{other}"), Fault::Denied);
    let queued = "SELECT orphans_queued FROM storage.run_maintenance()";
    assert_eq!(scene.value::<i64>(queued), 1);
    let keys = "SELECT array_agg(key) FROM storage.deletion_queue WHERE reason = 'orphan'";
    assert_eq!(scene.value::<Vec<String>>(keys), [second.1]);
    let state = |bucket: &str| -> String {
        scene.value(&format!(
            "SELECT format('%s %s %s', finished_at IS NOT NULL, queued, left(last_error, 12))
             FROM storage_private.reconciliations WHERE physical_name = '{bucket}'"
        ))
    };
    assert_eq!((state(&first.0).as_str(), state(&other).as_str()), ("t 1 ", "f 0 STORE_DENIED"));
    let trouble =
        "SELECT string_agg(status || ' ' || detail, '|') FROM storage.check() WHERE name = 'objects'";
    proxy.heal();
    let said: String = scene.value(trouble);
    assert!(
        said.starts_with(&format!("warn {other} could not be compared")) && !said.contains('|'),
        "{said}"
    );
    // The next pass tries again what failed; what is finished waits for a day.
    assert_eq!(scene.value::<i64>(queued), 0);
    assert_eq!(state(&other), "t 0 ");
    assert_eq!(scene.value::<Option<String>>(trouble), None);
    scene
        .superuser()
        .batch_execute("UPDATE storage_private.reconciliations SET began_at = now() - interval '25 hours'")
        .unwrap();
    assert_eq!(scene.value::<i64>(queued), 1, "the first key's turn");
    assert!(scene.exists(&first));
    scene.maintain();
    assert!(!scene.exists(&first));
    // Never.
    rolled_back(&scene, "ada", "BEGIN", b"three");
    grow_old();
    scene.set("pg_storage.reconcile_interval", "0");
    scene.superuser().batch_execute("DELETE FROM storage_private.reconciliations").unwrap();
    let asked = proxy.lines().len();
    assert_eq!(scene.value::<i64>(queued), 0);
    assert_eq!(proxy.lines().len(), asked, "the store is not even asked");
}

#[test]
fn the_worker_compares_with_no_transaction_open() {
    let store = LocalStore::start();
    let proxy = FaultyStore::before(&store.access().endpoint);
    let access = StoreAccess { endpoint: proxy.endpoint(), ..store.access().clone() };
    let options = remote(&access).setting("pg_storage.worker_interval", "1s");
    let scene = Scene::on(Box::leak(Box::new(Cluster::start(options))), &access);
    let kept = Upload::declared(b"kept").complete(&mut scene.user("ada"), b"kept");
    let (_, place) = rolled_back(&scene, "ada", "BEGIN", b"rolled back");
    reconcile(&scene);
    proxy.set("list-type=2", Fault::Silent);
    let pid: i32 = scene.value("SELECT storage.start_worker()");
    proxy.wait_for_caller();
    let open = format!(
        "SELECT xact_start IS NOT NULL OR backend_xmin IS NOT NULL OR backend_xid IS NOT NULL
                        FROM pg_stat_activity WHERE pid = {pid}"
    );
    assert!(!scene.value::<bool>(&open));
    assert_eq!(scene.value::<i64>(&format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND (relation IS NOT NULL OR transactionid IS NOT NULL)")), 0);
    proxy.heal();
    scene.superuser().execute("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
    eventually("the removal of the bytes", LIMIT, || (!scene.exists(&place)).then_some(()));
    assert_downloads(&mut scene.user("ada"), &kept.file_id, b"kept");
    let still: i64 = scene.value(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"));
    assert_eq!(still, 1, "a cancel ends a step and not the worker");
}

#[test]
fn a_copy_that_is_carried_out_late_lands_beside_what_was_verified() {
    let garage = Garage::shared().access();
    let proxy = FaultyStore::before(&garage.endpoint);
    let access = StoreAccess { endpoint: proxy.endpoint(), ..garage.clone() };
    let scene = Scene::on(Box::leak(Box::new(Cluster::start(remote(&access)))), &access);
    let mut ada = scene.user("ada");
    Upload::declared(b"warm").complete(&mut ada, b"warm");
    let bytes = some_bytes("copied twice", 60);
    let ticket = Upload::of(&bytes).request(&mut ada);
    assert!(ticket.put(&bytes).is_success());
    // The store holds the first copy back; its caller gives up, and the second attempt is verified and committed.
    proxy.set("x-id=CopyObject", Fault::Slow(Duration::from_secs(4)));
    ada.batch_execute("SET statement_timeout = '1s'").unwrap();
    assert_eq!(refused(flow::try_confirm(&mut ada, &ticket.upload_id)).sqlstate, "57014");
    proxy.heal();
    assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
    let kept = scene.place_of_file(&ticket.file_id);
    assert_eq!(copies(&scene, &ticket.upload_id), std::slice::from_ref(&kept));
    eventually("the late copy", LIMIT, || (copies(&scene, &ticket.upload_id).len() == 2).then_some(()));
    // Nothing names it; it is removed, and what was verified stays.
    eventually("the removal of the late copy", LIMIT, || {
        scan(&scene, &kept.0, true);
        scene.maintain();
        (copies(&scene, &ticket.upload_id) == [kept.clone()]).then_some(())
    });
    assert_downloads(&mut ada, &ticket.file_id, &bytes);
}
