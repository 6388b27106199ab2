//! The races that systems of this kind lose, each between real sessions that are held at the dangerous moment.
//!
//! Those that belong to one subject are tested with it: identical uploads confirmed at once
//! (`dedup::identical_uploads_confirmed_at_once_are_one_object_and_two_files`,
//! `dedup::confirming_waits_for_another_that_is_recording_the_same_bytes`), a dedup hit whose transaction is open while
//! the file is deleted (`dedup::bytes_that_another_transaction_is_just_sharing_are_not_collected`), a collector that is
//! removing what is uploaded again (`dedup::confirming_waits_for_a_collector_that_is_removing_the_same_bytes`,
//! `outbox::identical_bytes_that_come_after_the_claim_become_an_object_of_their_own`,
//! `outbox::a_link_that_is_not_committed_yet_keeps_the_bytes`, `outbox::a_link_waits_for_a_claim_that_is_not_committed_yet`), one
//! upload confirmed by two at the same instant (`verdicts::two_sessions_that_confirm_one_upload_make_one_file_and_both_succeed`),
//! first uses at once and rolled back (`provisioning::two_dozen_first_uploads_ask_the_store_for_one_bucket`,
//! `provisioning::rolling_the_first_use_back_leaves_the_same_name_and_a_full_record`,
//! `provisioning::a_prepared_first_use_delays_nobody_and_may_be_rolled_back`), a URL used again after the confirmation
//! (`flow::a_second_put_changes_nothing_that_was_confirmed`), and hashes of bytes that somebody else has
//! (`dedup::a_hash_of_bytes_the_caller_cannot_see_is_no_hit_and_tells_nothing`).
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Ticket, Upload, assert_downloads, confirm, some_bytes, try_confirm};
use pg_storage_tests::orphans::until_no_copies;
use pg_storage_tests::scene::remote;
use pg_storage_tests::{
    Cluster, Fault, FaultyStore, Garage, LocalStore, Scene, StoreAccess, each_store, eventually, refused,
    worker,
};
use postgres::Client;
use std::sync::Barrier;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

const LIMIT: Duration = Duration::from_secs(30);

/// Runs `act` in `waiting`, which must wait for the transaction that `open` is in, and ends that with `end`.
fn behind<T: Send + 'static>(
    scene: &Scene,
    open: &mut Client,
    end: &str,
    mut waiting: Client,
    act: impl FnOnce(&mut Client) -> T + Send + 'static,
) -> (Client, T) {
    let pid: i32 = waiting.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let acting = std::thread::spawn(move || {
        let result = act(&mut waiting);
        (waiting, result)
    });
    eventually("one session to wait for the other", LIMIT, || {
        scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
    });
    open.batch_execute(end).unwrap();
    acting.join().unwrap()
}

fn delete(session: &mut Client, ticket: &Ticket) {
    session.execute("SELECT storage.delete_file($1::text::uuid)", &[&ticket.file_id]).unwrap();
}

fn files(scene: &Scene) -> i64 {
    scene.value("SELECT count(*) FROM storage.files")
}

/// What is waited for is time itself.
fn wait_until_expired(ticket: &Ticket) {
    let left = ticket.expires_at.unwrap().duration_since(SystemTime::now()).unwrap_or_default();
    sleep(left + Duration::from_millis(20));
}

/// Removes whatever is queued, as the passes of the next days would.
fn collect_everything(scene: &Scene) {
    // More than once: what is deleted may be queued again for late bytes, and a worker may be at it.
    eventually("the end of the queue", LIMIT, || {
        scene.superuser().batch_execute("UPDATE storage.object_deletions SET not_before = now()").unwrap();
        scene.maintain();
        (scene.value::<i64>("SELECT count(*) FROM storage.object_deletions") == 0).then_some(())
    });
}

#[test]
fn a_confirmation_that_is_open_when_its_time_ends_is_left_to_its_end() {
    for end in ["COMMIT", "ROLLBACK"] {
        let scene = Scene::local();
        let mut ada = scene.user("ada");
        let bytes = some_bytes(end, 100);
        let ticket = Upload::declared(&bytes).expiring_in("2 seconds").request(&mut ada);
        assert!(ticket.put(&bytes).is_success());
        ada.batch_execute("BEGIN").unwrap();
        assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
        wait_until_expired(&ticket);
        assert_eq!(scene.maintain()[0], 0, "somebody is just ending it");
        ada.batch_execute(end).unwrap();
        let committed = end == "COMMIT";
        assert_eq!(scene.maintain()[0], i64::from(!committed));
        collect_everything(&scene);
        assert_eq!(files(&scene), i64::from(committed));
        if committed {
            assert_downloads(&mut ada, &ticket.file_id, &bytes);
        } else {
            assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("expired", Some("EXPIRED")));
            assert!(!scene.exists(&scene.place_of_upload(&ticket.upload_id)));
        }
    }
}

#[test]
fn a_confirmation_that_meets_an_open_expiry_makes_no_file_whatever_becomes_of_the_pass() {
    for end in ["COMMIT", "ROLLBACK"] {
        let scene = Scene::local();
        let mut ada = scene.user("ada");
        let bytes = some_bytes(end, 100);
        let ticket = Upload::declared(&bytes).expiring_in("5 seconds").request(&mut ada);
        assert!(ticket.put(&bytes).is_success());
        wait_until_expired(&ticket);
        let mut pass = scene.superuser();
        pass.batch_execute("BEGIN; SELECT storage.run_maintenance()").unwrap();
        let upload = ticket.upload_id.clone();
        let (_, verdict) = behind(&scene, &mut pass, end, ada, move |ada| confirm(ada, &upload));
        assert_eq!(verdict.outcome(), ("expired", Some("EXPIRED")), "{end}");
        collect_everything(&scene);
        assert_eq!(files(&scene), 0);
        assert!(!scene.exists(&scene.place_of_upload(&ticket.upload_id)));
    }
}

/// The store of a scene behind a proxy, which clients do not use.
fn proxied(access: &StoreAccess) -> (Scene, FaultyStore) {
    let proxy = FaultyStore::before(&access.endpoint);
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(
        remote(&StoreAccess { endpoint: proxy.endpoint(), ..access.clone() })
            .setting("pg_storage.public_endpoint", &access.endpoint)
            .setting("pg_storage.deletion_delay", "0"),
    )));
    (Scene::on(cluster, access), proxy)
}

#[test]
fn a_confirmation_asked_for_in_time_counts_even_when_the_store_answers_later() {
    let (scene, proxy) = proxied(StoreAccess::chosen());
    let mut ada = scene.user("ada");
    Upload::of(b"first use").complete(&mut ada, b"first use");
    let ticket = Upload::declared(b"in time").expiring_in("2 seconds").request(&mut ada);
    assert!(ticket.put(b"in time").is_success());
    proxy.set("HEAD /", Fault::Slow(Duration::from_secs(3)));
    let seen = proxy.lines().len();
    let upload = ticket.upload_id.clone();
    let confirming = std::thread::spawn(move || {
        let verdict = confirm(&mut ada, &upload);
        (ada, verdict)
    });
    eventually("the question to the store", LIMIT, || (proxy.lines().len() > seen).then_some(()));
    wait_until_expired(&ticket);
    assert_eq!(scene.maintain()[0], 0, "it is being confirmed");
    let (mut ada, verdict) = confirming.join().unwrap();
    assert_eq!(verdict.outcome(), ("uploaded", None));
    proxy.heal();
    collect_everything(&scene);
    assert_downloads(&mut ada, &ticket.file_id, b"in time");
}

#[test]
fn of_two_confirmations_the_second_does_the_work_when_the_first_is_rolled_back() {
    each_store(|scene| {
        for (declared, end) in [(true, "ROLLBACK"), (false, "ROLLBACK"), (true, "COMMIT"), (false, "COMMIT")]
        {
            let (mut one, two) = (scene.user("ada"), scene.user("ada"));
            let bytes = some_bytes(&format!("{declared} {end}"), 100);
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            let before = files(scene);
            let ticket = upload.request(&mut one);
            assert!(ticket.put(&bytes).is_success());
            one.batch_execute("BEGIN").unwrap();
            assert_eq!(confirm(&mut one, &ticket.upload_id).outcome(), ("uploaded", None));
            let id = ticket.upload_id.clone();
            let (mut two, verdict) = behind(scene, &mut one, end, two, move |two| confirm(two, &id));
            assert_eq!(verdict.outcome(), ("uploaded", None));
            assert_eq!(files(scene), before + 1);
            collect_everything(scene);
            assert_downloads(&mut two, &ticket.file_id, &bytes);
        }
    });
}

#[test]
fn an_abort_decides_over_the_confirmation_that_waits_for_it() {
    each_store(|scene| {
        for declared in [true, false] {
            for (end, outcome) in [("COMMIT", ("aborted", Some("ABORTED"))), ("ROLLBACK", ("uploaded", None))]
            {
                let (mut aborting, confirming) = (scene.user("ada"), scene.user("ada"));
                let bytes = some_bytes(&format!("abort {declared} {end}"), 100);
                let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
                let ticket = upload.request(&mut aborting);
                assert!(ticket.put(&bytes).is_success());
                aborting.batch_execute("BEGIN").unwrap();
                flow::abort(&mut aborting, &ticket.upload_id).unwrap();
                let id = ticket.upload_id.clone();
                let (mut ada, verdict) =
                    behind(scene, &mut aborting, end, confirming, move |ada| confirm(ada, &id));
                assert_eq!(verdict.outcome(), outcome, "{end}");
                collect_everything(scene);
                if end == "ROLLBACK" {
                    assert_downloads(&mut ada, &ticket.file_id, &bytes);
                } else {
                    assert!(!scene.exists(&scene.place_of_upload(&ticket.upload_id)));
                    until_no_copies(scene, &ticket.upload_id);
                }
            }
        }
    });
}

#[test]
fn a_confirmation_decides_over_the_abort_that_waits_for_it() {
    each_store(|scene| {
        for end in ["COMMIT", "ROLLBACK"] {
            let (mut confirming, aborting) = (scene.user("ada"), scene.user("ada"));
            let bytes = some_bytes(&format!("confirmed {end}"), 100);
            let ticket = Upload::of(&bytes).request(&mut confirming);
            assert!(ticket.put(&bytes).is_success());
            confirming.batch_execute("BEGIN").unwrap();
            assert_eq!(confirm(&mut confirming, &ticket.upload_id).outcome(), ("uploaded", None));
            let id = ticket.upload_id.clone();
            let (mut ada, aborted) =
                behind(scene, &mut confirming, end, aborting, move |ada| flow::abort(ada, &id));
            collect_everything(scene);
            if end == "COMMIT" {
                assert_eq!(refused(aborted).code(), ("55000", "UPLOAD_NOT_PENDING"));
                assert_downloads(&mut ada, &ticket.file_id, &bytes);
            } else {
                assert_eq!(aborted.unwrap().outcome(), ("aborted", Some("ABORTED")));
                // What the confirmation had copied went with it.
                assert!(!scene.exists(&scene.place_of_upload(&ticket.upload_id)));
                until_no_copies(scene, &ticket.upload_id);
            }
        }
    });
}

#[test]
fn a_deletion_and_a_dedup_hit_that_do_not_see_each_other_leave_the_bytes_to_the_hit() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let (mut ada, mut deleting) = (scene.user("ada"), scene.user("ada"));
        let bytes = some_bytes("unseen", 100);
        let first = Upload::declared(&bytes).complete(&mut ada, &bytes);
        deleting.batch_execute("BEGIN").unwrap();
        delete(&mut deleting, &first);
        let second = Upload::declared(&bytes).request(&mut ada);
        assert!(second.deduplicated, "the deletion is not committed");
        scene.maintain();
        deleting.batch_execute("COMMIT").unwrap();
        collect_everything(scene);
        assert_downloads(&mut ada, &second.file_id, &bytes);
    });
}

/// Nobody is held here: three sessions do at the same instant what must not be done in a wrong order.
fn delete_share_upload_again_and_collect_at_once(scene: &Scene) {
    scene.set("pg_storage.deletion_delay", "0");
    let mut ada = scene.user("ada");
    let (mut shared, mut sent) = (0, 0);
    for round in 0..40 {
        let bytes = some_bytes(&format!("round {}", round % 3), 100);
        let first = Upload::declared(&bytes).request(&mut ada);
        if !first.deduplicated {
            assert!(first.put(&bytes).is_success());
            confirm(&mut ada, &first.upload_id);
        }
        let start = Barrier::new(3);
        let (mut deleting, mut asking) = (scene.user("ada"), scene.user("ada"));
        let second = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                delete(&mut deleting, &first);
            });
            scope.spawn(|| {
                start.wait();
                scene.maintain();
                scene.maintain();
            });
            start.wait();
            let second = Upload::declared(&bytes).request(&mut asking);
            if !second.deduplicated {
                assert!(second.put(&bytes).is_success());
                assert_eq!(confirm(&mut asking, &second.upload_id).outcome(), ("uploaded", None));
            }
            second
        });
        if second.deduplicated {
            shared += 1
        } else {
            sent += 1
        }
        scene.maintain();
        assert_downloads(&mut ada, &second.file_id, &bytes);
        delete(&mut ada, &second);
        if round % 2 == 0 {
            scene.maintain();
        }
    }
    println!("{shared} times shared, {sent} times sent again");
    collect_everything(scene);
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 0);
}

#[test]
fn deleting_sharing_uploading_again_and_collecting_at_once_never_take_a_files_bytes() {
    each_store(delete_share_upload_again_and_collect_at_once);
}

#[test]
fn nor_do_they_when_the_worker_collects_as_well() {
    let scene = worker::at_work();
    worker::keep_worker(&scene);
    delete_share_upload_again_and_collect_at_once(&scene);
}

/// The prefix is a setting, and two sessions may have been begun under different ones. While neither has committed,
/// neither sees the other's name; afterwards there is one.
#[test]
fn first_uses_under_different_prefixes_all_work_and_the_recorded_name_wins() {
    let store = LocalStore::shared();
    let proxy = FaultyStore::before(&store.access().endpoint);
    let access = StoreAccess { endpoint: proxy.endpoint(), ..store.access().clone() };
    let options = remote(&access).setting("pg_storage.deletion_delay", "0");
    let scene = Scene::on(Box::leak(Box::new(Cluster::start(options))), store.access());
    proxy.set("PUT /", Fault::Slow(Duration::from_millis(300)));
    let sessions = ["race-one", "race-two"].map(|prefix| {
        scene.set("pg_storage.bucket_prefix", prefix);
        scene.user("ada")
    });
    let start = Barrier::new(2);
    let tickets = std::thread::scope(|scope| {
        let asking = sessions.map(|mut session| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let ticket = Upload::declared(b"first").request(&mut session);
                assert!(ticket.put(b"first").is_success());
                assert_eq!(confirm(&mut session, &ticket.upload_id).outcome(), ("uploaded", None));
                ticket
            })
        });
        asking.map(|asking| asking.join().unwrap())
    });
    let names = tickets.each_ref().map(|ticket| scene.place_of_upload(&ticket.upload_id).0);
    let recorded: String = scene
        .value("SELECT string_agg(DISTINCT physical_name, ' ') FROM storage.buckets WHERE key = 'private'");
    assert!(names.contains(&recorded), "{recorded} is one of {names:?}");
    scene.set("pg_storage.bucket_prefix", "race-three");
    let mut ada = scene.user("ada");
    let later = Upload::declared(b"later").complete(&mut ada, b"later");
    assert_eq!(scene.place_of_upload(&later.upload_id).0, recorded, "the name on record wins");
    assert_eq!(store.succeeded("CreateBucket", "/race-three"), 0);
    for ticket in &tickets {
        assert_downloads(&mut ada, &ticket.file_id, b"first");
    }
    for ticket in tickets.iter().chain([&later]) {
        delete(&mut ada, ticket);
    }
    collect_everything(&scene);
    for name in &names {
        assert_eq!(scene.store.listing(name).len(), 0, "{name}: whatever the name, nothing is left behind");
    }
}

/// Two servers with databases of their own that do not know of each other, on one store and for one tenant.
#[test]
fn two_servers_that_provision_at_once_keep_to_their_own_prefix() {
    let store = LocalStore::shared();
    let scenes = ["left", "right"].map(|prefix| {
        let options = remote(store.access()).setting("pg_storage.deletion_delay", "0");
        let scene = Scene::on(Box::leak(Box::new(Cluster::start(options))), store.access());
        scene.set("pg_storage.bucket_prefix", prefix);
        scene
    });
    let start = Barrier::new(2);
    let tickets = std::thread::scope(|scope| {
        let asking = scenes.each_ref().map(|scene| {
            let start = &start;
            scope.spawn(move || {
                let mut ada = scene.user("ada");
                start.wait();
                Upload::declared(b"same").complete(&mut ada, b"same")
            })
        });
        asking.map(|asking| asking.join().unwrap())
    });
    for (scene, (prefix, ticket)) in scenes.iter().zip(["left", "right"].into_iter().zip(&tickets)) {
        assert!(scene.place_of_file(&ticket.file_id).0.starts_with(&format!("{prefix}-")));
        assert_eq!(store.succeeded("CreateBucket", &format!("/{prefix}-")), 1);
    }
    // What one deletes is its own.
    delete(&mut scenes[0].user("ada"), &tickets[0]);
    collect_everything(&scenes[0]);
    assert_downloads(&mut scenes[1].user("ada"), &tickets[1].file_id, b"same");
}

/// On a store that lets a URL be used again, other bytes may come between any two looks at the first ones.
#[test]
fn a_url_used_again_while_its_upload_is_confirmed_never_makes_a_file_of_other_bytes() {
    let access = Garage::shared().access();
    let (scene, proxy) = proxied(access);
    let mut ada = scene.user("ada");
    Upload::of(b"first use").complete(&mut ada, b"first use");
    let (bytes, other) = (some_bytes("promised", 5000), some_bytes("replayed", 5000));
    for declared in [true, false] {
        // Before the copy, and while the copy is read.
        for at in ["PUT /", "GET /"] {
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            let ticket =
                upload.named(&format!("{declared} {at}").replace('/', "_"), "text/plain").request(&mut ada);
            if ticket.deduplicated {
                panic!("{declared} {at}: nothing was left to be shared");
            }
            assert!(ticket.put(&bytes).is_success());
            proxy.set(at, Fault::Slow(Duration::from_millis(800)));
            let seen = proxy.lines().iter().filter(|line| line.starts_with(at)).count();
            let upload = ticket.upload_id.clone();
            let confirming = std::thread::spawn(move || {
                let verdict = try_confirm(&mut ada, &upload);
                (ada, verdict)
            });
            eventually("the confirmation to be half-way", LIMIT, || {
                (proxy.lines().iter().filter(|line| line.starts_with(at)).count() > seen).then_some(())
            });
            // With its own checksum, which the URL of an undeclared upload permits.
            let answer = ticket.put(&other);
            assert!(declared || answer.is_success(), "{}", answer.text());
            let (session, _) = confirming.join().unwrap();
            ada = session;
            proxy.heal();
            let verdict = confirm(&mut ada, &ticket.upload_id);
            match verdict.status.as_str() {
                "uploaded" => {
                    let recorded: String = scene
                        .value(&format!("SELECT sha256 FROM storage.files WHERE id = '{}'", ticket.file_id));
                    ticket.put(&other);
                    let body = flow::download(&mut ada, &ticket.file_id).body;
                    assert_eq!(flow::sha256(&body), recorded, "{declared} {at}");
                    assert!(!declared || body == bytes);
                    delete(&mut ada, &ticket);
                }
                _ => assert!(declared && verdict.outcome().1 == Some("HASH_MISMATCH"), "{verdict:?}"),
            }
            collect_everything(&scene);
        }
    }
}

#[test]
fn a_claim_of_bytes_that_are_just_being_confirmed_gets_nothing_without_them() {
    each_store(|scene| {
        scene.shared_bucket();
        let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
        let bytes = some_bytes("just being confirmed", 100);
        let hers = Upload::declared(&bytes).request(&mut ada);
        assert!(hers.put(&bytes).is_success());
        let claims = [Upload::declared(&bytes), Upload::declared(&bytes).to("shared")];
        ada.batch_execute("BEGIN").unwrap();
        assert_eq!(confirm(&mut ada, &hers.upload_id).outcome(), ("uploaded", None));
        let his = claims.map(|claim| claim.request(&mut bob));
        for end in [None, Some("COMMIT")] {
            end.map_or(Ok(()), |end| ada.batch_execute(end)).unwrap();
            for ticket in &his {
                assert!(!ticket.deduplicated);
                let verdict = confirm(&mut bob, &ticket.upload_id);
                assert_eq!(verdict.outcome(), ("requested", Some("NOT_UPLOADED")), "{end:?}");
            }
        }
        assert_eq!(bob.query("SELECT FROM storage.files", &[]).unwrap().len(), 0);
        assert_eq!(files(scene), 1);
    });
}
