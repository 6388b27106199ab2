//! One provisioning, however many ask first, whatever becomes of their transactions, and whatever fails on the way.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_core::presign::Method;
use pg_storage_tests::choice::lacks;
use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::http::Headers;
use pg_storage_tests::scene::remote;
use pg_storage_tests::{
    Cluster, Fault, FaultyStore, Garage, LocalStore, Options, Scene, each_store, eventually, refused,
};
use postgres::Client;
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// A cluster and a store of the test's own. They end with the process: a scene lives as long as its cluster.
fn own(options: impl FnOnce(Options) -> Options) -> (Scene, &'static LocalStore) {
    let store: &'static LocalStore = Box::leak(Box::new(LocalStore::start()));
    let cluster = Box::leak(Box::new(Cluster::start(options(remote(store.access())))));
    (Scene::on(cluster, store.access()), store)
}

/// How often the store was asked to create a bucket whose name begins with `prefix`, whatever it answered.
fn creations(store: &LocalStore, prefix: &str) -> usize {
    let asked = |request: &&pg_storage_tests::Request| {
        request.operation == "CreateBucket" && request.path.trim_start_matches('/').starts_with(prefix)
    };
    store.requests().iter().filter(asked).count()
}

/// What the names of the scene's buckets begin with; with the hyphen, for `test-1` begins `test-10` as well.
fn prefix_of(scene: &Scene) -> String {
    scene.value::<String>("SELECT current_setting('pg_storage.bucket_prefix')") + "-"
}

/// Name and state of every physical bucket on record, with whether its configuration is the wanted one.
fn on_record(scene: &Scene) -> Vec<(String, String, bool)> {
    let rows = scene
        .superuser()
        .query(
            "SELECT name, state::text, applied_generation = desired_generation FROM storage.physical_buckets
             ORDER BY name",
            &[],
        )
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

fn bucket_of(url: &str) -> String {
    url.split('/').nth(3).expect("a URL in path style names the bucket").to_owned()
}

/// 24 sessions of 12 users ask for their first upload at the same instant, through a store that takes its time.
fn two_dozen_first_uploads(scene: &Scene, store: &LocalStore) {
    let slow = FaultyStore::before(&store.access().endpoint);
    slow.set("PUT /", Fault::Slow(Duration::from_millis(150)));
    scene.set("pg_storage.endpoint", &slow.endpoint());
    let sessions: Vec<Client> = (0..24).map(|n| scene.user(&format!("user{}", n % 12))).collect();
    let start = Arc::new(Barrier::new(sessions.len()));
    let asking: Vec<_> = sessions
        .into_iter()
        .enumerate()
        .map(|(n, mut session)| {
            let start = start.clone();
            std::thread::spawn(move || {
                let bytes = format!("upload {n}").into_bytes();
                start.wait();
                let ticket = Upload::declared(&bytes).request(&mut session);
                (session, ticket, bytes)
            })
        })
        .collect();
    let mut asked: Vec<_> = asking.into_iter().map(|thread| thread.join().unwrap()).collect();

    let name = bucket_of(asked[0].1.url());
    assert!(asked.iter().all(|(_, ticket, _)| bucket_of(ticket.url()) == name));
    assert_eq!(store.succeeded("CreateBucket", "/"), 1);
    assert_eq!(on_record(scene), [(name.clone(), "ready".to_owned(), true)]);
    slow.heal();
    for (session, ticket, bytes) in &mut asked {
        assert!(ticket.put(bytes).is_success());
        assert_eq!(flow::confirm(session, &ticket.upload_id).outcome(), ("uploaded", None));
    }
    assert_eq!(
        scene.value::<i64>("SELECT count(*) FROM storage.buckets WHERE physical_name IS NOT NULL"),
        12
    );
}

#[test]
fn two_dozen_first_uploads_ask_the_store_for_one_bucket() {
    let (scene, store) = own(|options| options);
    two_dozen_first_uploads(&scene, store);
    assert_eq!(creations(store, ""), 1, "nobody else even asked");
    assert_eq!(scene.value::<i64>("SELECT provisionings FROM storage.cache_stats()"), 1);
}

/// Without preload no memory is shared, and what a transaction recorded is seen only once it has committed. So a
/// session may configure again what another one has just made; it looks first, and creates nothing again.
#[test]
fn two_dozen_first_uploads_make_one_bucket_without_preload() {
    let (scene, store) = own(Options::without_preload);
    two_dozen_first_uploads(&scene, store);
    assert_eq!(creations(store, ""), 1);
}

/// Everything that ends an open first use otherwise than with COMMIT or ROLLBACK, and still keeps its locks.
#[test]
fn a_first_transaction_that_stays_open_makes_nobody_provision_again_and_again() {
    for (preload, keep) in [
        (true, "SAVEPOINT s; ROLLBACK TO s"),
        (true, "PREPARE TRANSACTION 'first'"),
        (false, "SAVEPOINT s; ROLLBACK TO s"),
    ] {
        let (scene, store) = own(|options| {
            let options = options.setting("max_prepared_transactions", "2");
            if preload { options } else { options.without_preload() }
        });
        let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
        bob.batch_execute("SET statement_timeout = '20s'").unwrap();
        ada.batch_execute("BEGIN").unwrap();
        Upload::declared(b"open").request(&mut ada);
        ada.batch_execute(keep).unwrap();
        let made = store.requests().len();
        Upload::declared(b"one").request(&mut bob);
        if preload && keep.starts_with("SAVEPOINT") {
            assert_eq!(store.requests().len(), made, "what the savepoint did not cover is still known");
        }
        let before = store.requests().len();
        for _ in 0..3 {
            Upload::declared(b"more").request(&mut bob);
        }
        assert_eq!(store.requests().len(), before, "preload {preload}: {keep}");
        if keep.starts_with("PREPARE") {
            ada.batch_execute("ROLLBACK PREPARED 'first'").unwrap();
        } else {
            ada.batch_execute("ROLLBACK").unwrap();
        }
        Upload::declared(b"after").complete(&mut bob, b"after");
        assert_eq!(on_record(&scene).len(), 1, "preload {preload}: {keep}");
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.store_capabilities"), 1);
    }
}

#[test]
fn provisioning_explicitly_waits_for_a_record_and_holds_nobody_up() {
    let (scene, _) = own(|options| options);
    let (mut ada, mut bob) = (scene.manager("ada"), scene.user("bob"));
    let (mut waiting, mut again) = (scene.manager("bob"), scene.user("bob"));
    for session in [&mut ada, &mut bob, &mut again, &mut waiting] {
        session.batch_execute("SET statement_timeout = '30s'").unwrap();
    }
    scene.user("ada");
    ada.batch_execute("BEGIN").unwrap();
    Upload::declared(b"open").request(&mut ada);
    let pid: i32 = waiting.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let provisioning = std::thread::spawn(move || {
        waiting.query_one("SELECT state::text FROM storage.provision_bucket('private')", &[]).unwrap().get(0)
    });
    eventually("provision_bucket() to wait for the open transaction", Duration::from_secs(20), || {
        let blocked = format!("SELECT cardinality(pg_blocking_pids({pid})) > 0");
        scene.value::<bool>(&blocked).then_some(())
    });
    // Cold first uses and the open transaction itself go on meanwhile.
    scene.superuser().batch_execute("SELECT storage.reset_cache()").unwrap();
    Upload::declared(b"cold").request(&mut bob);
    ada.query_one("SELECT storage.provision_bucket('private')", &[]).unwrap();
    ada.batch_execute("COMMIT").unwrap();
    let state: String = provisioning.join().unwrap();
    assert_eq!(state, "ready");
    Upload::declared(b"after").complete(&mut again, b"after");
}

#[test]
fn an_open_transaction_that_asked_first_delays_nobody() {
    let (scene, store) = Scene::counting();
    let prefix = prefix_of(&scene);
    let (mut first, mut same, mut other) = (scene.user("ada"), scene.user("ada"), scene.user("bob"));
    let mut manager = scene.manager("eve");
    manager.execute("SELECT storage.create_user_buckets('eve')", &[]).unwrap();
    for session in [&mut same, &mut other, &mut manager] {
        session.batch_execute("SET statement_timeout = '20s'; SET lock_timeout = '10s'").unwrap();
    }
    first.batch_execute("BEGIN").unwrap();
    let open = Upload::declared(b"first").request(&mut first);

    // The same bucket, another bucket on the same physical one: while the first transaction stays open.
    let one = Upload::declared(b"same").complete(&mut same, b"same");
    let two = Upload::declared(b"other").complete(&mut other, b"other");
    assert_eq!(creations(store, &prefix), 1);

    first.batch_execute("ROLLBACK").unwrap();
    let name = bucket_of(open.url());
    assert_eq!([bucket_of(one.url()), bucket_of(two.url())], [name.clone(), name.clone()]);
    flow::assert_downloads(&mut same, &one.file_id, b"same");

    // Converges: with the next use everything is on record, under the same name and in one bucket.
    Upload::declared(b"next").complete(&mut same, b"next");
    assert_eq!(on_record(&scene), [(name.clone(), "ready".to_owned(), true)]);
    assert_eq!(store.succeeded("CreateBucket", &format!("/{prefix}")), 1);
    let unnamed = "SELECT count(*) FROM storage.buckets WHERE key = 'private' AND owner_id <> 'eve' AND physical_name IS NULL";
    assert_eq!(scene.value::<i64>(unnamed), 0);
    let probed: i64 = scene.value("SELECT count(*) FROM storage.store_capabilities");
    assert_eq!(probed, 1);
    manager.query_one("SELECT storage.provision_bucket('private')", &[]).unwrap();
}

#[test]
fn rolling_the_first_use_back_leaves_the_same_name_and_a_full_record() {
    for savepoint in [false, true] {
        let (scene, store) = Scene::counting();
        let prefix = prefix_of(&scene);
        let mut ada = scene.user("ada");
        let before = scene.rows();
        ada.batch_execute(if savepoint { "BEGIN; SAVEPOINT s" } else { "BEGIN" }).unwrap();
        let undone = Upload::declared(b"undone").request(&mut ada);
        ada.batch_execute(if savepoint { "ROLLBACK TO s; COMMIT" } else { "ROLLBACK" }).unwrap();
        assert_eq!(scene.rows(), before, "rolled back: no row stays");

        let ticket = Upload::declared(b"done").complete(&mut ada, b"done");
        let name = bucket_of(undone.url());
        assert_eq!(bucket_of(ticket.url()), name);
        assert_eq!(on_record(&scene), [(name, "ready".to_owned(), true)], "savepoint: {savepoint}");
        assert_eq!(store.succeeded("CreateBucket", &format!("/{prefix}")), 1, "one bucket");
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.store_capabilities"), 1);
    }
}

/// As a script that sets up everything in one transaction does: DDL on the table of records, then a first use.
#[test]
fn a_first_use_after_ddl_in_the_same_transaction_does_not_wait_for_itself() {
    let (scene, _store) = Scene::counting();
    drop(scene.user("ada"));
    let mut script = scene.superuser();
    script
        .batch_execute(&format!(
            "SET statement_timeout = '20s'; BEGIN;
             SELECT storage.enable_default_policies(false), storage.enable_default_policies();
             SET LOCAL ROLE {}; SET LOCAL jwt.claims.user_id = 'ada'",
            scene.writer
        ))
        .unwrap();
    let ticket = Upload::declared(b"seeded").request(&mut script);
    assert!(ticket.put(b"seeded").is_success());
    script.batch_execute("COMMIT").unwrap();
    assert_eq!(flow::confirm(&mut scene.user("ada"), &ticket.upload_id).outcome(), ("uploaded", None));
}

/// A prepared transaction ends in another session, which knows nothing of the cache.
#[test]
fn a_prepared_first_use_delays_nobody_and_may_be_rolled_back() {
    let (scene, store) = own(|options| options.setting("max_prepared_transactions", "2"));
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    ada.batch_execute("BEGIN").unwrap();
    let prepared = Upload::declared(b"prepared").request(&mut ada);
    ada.batch_execute("PREPARE TRANSACTION 'first'").unwrap();
    bob.batch_execute("SET statement_timeout = '20s'").unwrap();
    for bytes in [b"one", b"two"] {
        Upload::declared(bytes).complete(&mut bob, bytes);
    }
    assert_eq!(on_record(&scene), [(bucket_of(prepared.url()), "pending".to_owned(), false)]);
    ada.batch_execute("ROLLBACK PREPARED 'first'").unwrap();
    let ticket = Upload::declared(b"after").complete(&mut bob, b"after");
    let name = bucket_of(prepared.url());
    assert_eq!(bucket_of(ticket.url()), name);
    assert_eq!(on_record(&scene), [(name, "ready".to_owned(), true)]);
    assert_eq!(store.succeeded("CreateBucket", "/"), 1);
}

#[test]
fn a_step_that_fails_leaves_nothing_behind_and_the_next_use_completes_it() {
    for step in ["create", "policy", "cors", "lifecycle"] {
        let (scene, store) = Scene::counting();
        let faulty = FaultyStore::before(&store.access().endpoint);
        scene.set("pg_storage.endpoint", &faulty.endpoint());
        let prefix = prefix_of(&scene);
        faulty.set(if step == "create" { "PUT /" } else { step }, Fault::Denied);
        let mut ada = scene.user("ada");
        let before = scene.rows();
        let refusal = refused(Upload::declared(b"x").try_request(&mut ada));
        assert_eq!(refusal.code(), ("58030", "STORE_DENIED"), "{step}: {refusal:?}");
        let detail = refusal.detail.unwrap();
        assert!(detail.contains("status 403") && detail.contains("code AccessDenied"), "{detail}");
        assert!(detail.contains(&format!("{step} failed")), "the steps are in DETAIL: {detail}");
        assert_eq!(scene.rows(), before, "{step}");
        let cached: i64 = scene.value("SELECT count(*) FROM storage.provisioned_buckets()");
        assert_eq!(cached, 0, "a failure is not remembered as success");
        let mut manager = scene.manager("ada");
        let explicit = refused(manager.query("SELECT storage.provision_bucket('private')", &[]));
        assert_eq!(explicit.code(), ("58030", "STORE_DENIED"), "{step}");

        faulty.heal();
        Upload::declared(b"x").complete(&mut ada, b"x");
        let outcomes: Vec<String> = scene.value(
            "SELECT array_agg(s.step || ' ' || s.outcome) FROM storage.provisioning_state s WHERE s.state = 'ready'",
        );
        assert_eq!(
            outcomes,
            [
                "create applied",
                "public_access_block applied",
                "policy applied",
                "cors applied",
                "versioning skipped",
                "lifecycle applied"
            ],
            "{step}"
        );
        assert_eq!(store.succeeded("CreateBucket", &format!("/{prefix}")), 1);
    }
}

#[test]
fn a_store_that_dies_during_provisioning_is_told_and_tried_again() {
    let mut store = LocalStore::start();
    let cluster = Box::leak(Box::new(Cluster::start(remote(store.access()))));
    let scene = Scene::on(cluster, store.access());
    scene.set("pg_storage.request_timeout", "3s");
    let mut ada = scene.user("ada");
    store.stop("KILL");
    let refusal = refused(Upload::declared(b"x").try_request(&mut ada));
    assert_eq!(refusal.sqlstate, "58030", "{refusal:?}");
    assert!(["STORE_UNAVAILABLE", "STORE_TIMEOUT"].contains(&refusal.token.as_str()), "{refusal:?}");
    store.start_again();
    Upload::declared(b"x").complete(&mut ada, b"x");
    let states: Vec<String> = on_record(&scene).into_iter().map(|(_, state, _)| state).collect();
    assert_eq!(states, ["ready"]);
}

/// State, attempts, last error, whether another attempt has a time, and the steps with outcomes and reasons.
type Attempted = (String, i32, Option<String>, bool, Vec<String>);

/// What is on record once it says so many failed attempts.
fn recorded(scene: &Scene, attempts: i32) -> Attempted {
    let query = "SELECT p.state::text, p.attempts, p.last_error, p.next_attempt_at IS NOT NULL,
                        ARRAY(SELECT concat_ws(' ', s.step, s.outcome, CASE WHEN s.outcome = 'failed' THEN s.reason END)
                              FROM storage.provisioning_state s WHERE s.name = p.name)
                 FROM storage.physical_buckets p WHERE p.attempts = $1";
    eventually(&format!("{attempts} failed attempts are recorded"), Duration::from_secs(10), || {
        let row = scene.superuser().query_opt(query, &[&attempts]).unwrap()?;
        Some((row.get(0), row.get(1), row.get(2), row.get(3), row.get(4)))
    })
}

/// The error rolls the caller's transaction back; the record is not in it.
#[test]
fn what_failed_is_on_record_although_its_transaction_is_rolled_back() {
    for preload in [true, false] {
        let (scene, store) = own(|options| if preload { options } else { options.without_preload() });
        let faulty = FaultyStore::before(&store.access().endpoint);
        scene.set("pg_storage.endpoint", &faulty.endpoint());
        faulty.set("cors", Fault::Denied);
        let mut ada = scene.user("ada");
        let before = scene.rows();
        for attempt in 1..=2 {
            ada.batch_execute("BEGIN").unwrap();
            let refusal = refused(Upload::declared(b"x").try_request(&mut ada));
            assert_eq!(refusal.code(), ("58030", "STORE_DENIED"));
            ada.batch_execute("ROLLBACK").unwrap();
            recorded(&scene, attempt);
        }
        let (state, _, error, again, steps) = recorded(&scene, 2);
        assert_eq!(state, "failed", "preload: {preload}");
        assert!(again, "another attempt has a time");
        let error = error.unwrap();
        assert!(error.contains("PutBucketCors") && error.contains("AccessDenied"), "{error}");
        assert_eq!(steps[..3], ["create applied", "public_access_block applied", "policy applied"]);
        assert!(steps[3].starts_with("cors failed PutBucketCors"), "{steps:?}");
        assert_eq!(steps.len(), 4, "nothing after it was tried");
        assert_eq!(scene.rows(), before);

        faulty.heal();
        Upload::declared(b"x").complete(&mut ada, b"x");
        let (state, attempts, error, again, steps) = recorded(&scene, 0);
        assert_eq!((state.as_str(), attempts, error, again), ("ready", 0, None, false));
        assert_eq!(steps.len(), 6);
        assert_eq!(store.succeeded("CreateBucket", "/"), 1);
    }
}

/// Each failure is recorded by a process of its own, of which there are few for all.
#[test]
fn whoever_fails_in_a_loop_has_one_process_at_a_time() {
    let (scene, store) = own(|options| options);
    let faulty = FaultyStore::before(&store.access().endpoint);
    scene.set("pg_storage.endpoint", &faulty.endpoint());
    faulty.set("cors", Fault::Denied);
    let mut ada = scene.user("ada");
    // The record waits for this, as long as it waits for anything.
    let mut blocker = scene.superuser();
    blocker.batch_execute("BEGIN; LOCK TABLE storage.physical_buckets IN SHARE MODE").unwrap();
    let trying = std::thread::spawn(move || {
        for _ in 0..3 {
            let refusal = refused(Upload::declared(b"x").try_request(&mut ada));
            assert_eq!(refusal.code(), ("58030", "STORE_DENIED"));
        }
    });
    let mut most = 0;
    while !trying.is_finished() {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_storage attempt'";
        most = most.max(scene.value::<i64>(running));
    }
    trying.join().unwrap();
    assert_eq!(most, 1);
    blocker.batch_execute("ROLLBACK").unwrap();
}

/// The next attempt is due now.
fn make_due(scene: &Scene) {
    scene.superuser().batch_execute("UPDATE storage.physical_buckets SET next_attempt_at = now()").unwrap();
}

/// Buckets that this pass of maintenance brought to their wanted configuration.
fn provisioned_by_a_pass(scene: &Scene) -> i64 {
    scene.value("SELECT buckets_provisioned FROM storage.run_maintenance()")
}

#[test]
fn maintenance_makes_ready_what_failed_and_only_when_it_is_due() {
    let (scene, store) = Scene::counting();
    let faulty = FaultyStore::before(&store.access().endpoint);
    scene.set("pg_storage.endpoint", &faulty.endpoint());
    faulty.set("cors", Fault::Denied);
    let mut ada = scene.user("ada");
    refused(Upload::declared(b"x").try_request(&mut ada));
    recorded(&scene, 1);
    let asked = scene.asked(store);
    assert_eq!(provisioned_by_a_pass(&scene), 0);
    assert_eq!(scene.asked(store), asked, "not due yet");

    make_due(&scene);
    assert_eq!(provisioned_by_a_pass(&scene), 0);
    let (state, _, error, again, steps) = recorded(&scene, 2);
    assert_eq!((state.as_str(), again), ("failed", true));
    assert!(error.unwrap().contains("AccessDenied") && steps[3].starts_with("cors failed"), "{steps:?}");

    faulty.heal();
    make_due(&scene);
    assert_eq!(provisioned_by_a_pass(&scene), 1);
    let (state, _, error, again, _) = recorded(&scene, 0);
    assert_eq!((state.as_str(), error, again), ("ready", None, false));
    let before = scene.asked(store);
    Upload::declared(b"x").request(&mut ada);
    assert_eq!(scene.asked(store), before, "the first upload finds it ready");
}

#[test]
fn maintenance_applies_changed_origins_before_anybody_asks() {
    for (scene, direct) in [(Scene::local(), true), (Scene::garage(), false)] {
        let (mut ada, mut manager) = (scene.user("ada"), scene.manager("ada"));
        Upload::declared(b"x").complete(&mut ada, b"x");
        assert_eq!(provisioned_by_a_pass(&scene), 0, "nothing is stale");
        manager
            .execute(
                "UPDATE storage.buckets SET allowed_origins = '{https://new.example}' WHERE key = 'private'",
                &[],
            )
            .unwrap();
        assert_eq!(provisioned_by_a_pass(&scene), 1, "direct: {direct}");
        let applied: String = manager
            .query_one("SELECT cors::text FROM storage.inspect_bucket('private')", &[])
            .unwrap()
            .get(0);
        assert!(applied.contains("https://new.example"), "{applied}");
        assert!(on_record(&scene).iter().all(|(_, state, current)| state == "ready" && *current));
    }
}

/// The session's own use and the pass line up behind the same lock; neither waits for the other's transaction.
#[test]
fn maintenance_leaves_a_bucket_to_the_session_that_is_making_it_ready() {
    let (scene, store) = Scene::counting();
    let faulty = FaultyStore::before(&store.access().endpoint);
    scene.set("pg_storage.endpoint", &faulty.endpoint());
    faulty.set("cors", Fault::Denied);
    let mut ada = scene.user("ada");
    refused(Upload::declared(b"x").try_request(&mut ada));
    recorded(&scene, 1);
    make_due(&scene);
    faulty.heal();
    faulty.set("cors", Fault::Slow(Duration::from_secs(3)));
    let cors = || faulty.lines().iter().filter(|line| line.contains("cors")).count();
    let before = cors();
    let asking = std::thread::spawn(move || {
        Upload::declared(b"x").request(&mut ada);
    });
    eventually("the session waits for the store", Duration::from_secs(10), || {
        (cors() > before).then_some(())
    });
    assert_eq!(provisioned_by_a_pass(&scene), 0);
    asking.join().unwrap();
    assert_eq!(on_record(&scene).len(), 1);
}

#[test]
fn a_repair_that_fails_leaves_a_ready_bucket_ready_and_says_why() {
    let (scene, store) = Scene::counting();
    let faulty = FaultyStore::before(&store.access().endpoint);
    scene.set("pg_storage.endpoint", &faulty.endpoint());
    let (mut ada, mut manager) = (scene.user("ada"), scene.manager("ada"));
    Upload::declared(b"x").complete(&mut ada, b"x");
    faulty.set("lifecycle", Fault::Denied);
    let refusal = refused(manager.query("SELECT storage.provision_bucket('private')", &[]));
    assert_eq!(refusal.code(), ("58030", "STORE_DENIED"));
    let (state, _, error, _, steps) = recorded(&scene, 1);
    assert_eq!(state, "ready");
    assert!(error.unwrap().contains("AccessDenied"));
    assert!(steps[5].starts_with("lifecycle failed"), "{steps:?}");
    Upload::declared(b"y").complete(&mut ada, b"y");
}

/// What never came to be binds nobody: its name may be given to another access.
#[test]
fn a_failed_attempt_does_not_fix_the_access_of_a_name() {
    let (scene, store) = Scene::counting();
    let faulty = FaultyStore::before(&store.access().endpoint);
    scene.set("pg_storage.endpoint", &faulty.endpoint());
    let mut ada = scene.user("ada");
    let name = format!("{}-preset", scene.prefix);
    let preset = |key: &str, name: Option<&str>| {
        let update = "UPDATE storage.buckets SET physical_name = $2 WHERE key = $1";
        scene.superuser().execute(update, &[&key, &name]).unwrap();
    };
    preset("private", Some(&name));
    faulty.set("PUT /", Fault::Denied);
    refused(Upload::declared(b"x").try_request(&mut ada));
    recorded(&scene, 1);
    faulty.heal();
    preset("private", None);
    preset("public", Some(&name));
    Upload::declared(b"x").to("public").complete(&mut ada, b"x");
    let access: String =
        scene.value("SELECT access::text FROM storage.physical_buckets WHERE state = 'ready'");
    assert_eq!(access, "public");
}

/// The recorded steps of the bucket `public`, as `step outcome`, and the reasons of those skipped.
fn steps(scene: &Scene, access: &str) -> Vec<(String, Option<String>)> {
    let rows = scene
        .superuser()
        .query(
            "SELECT s.step || ' ' || s.outcome, s.reason FROM storage.provisioning_state s WHERE s.access::text = $1",
            &[&access],
        )
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn every_step_is_recorded_and_what_a_store_lacks_is_skipped_with_the_reason() {
    let chosen = std::env::var("PG_STORAGE_TEST_STORE").unwrap_or_default();
    let local_has = !chosen.starts_with("garage");
    for (scene, has_policies) in [(Scene::local(), local_has), (Scene::garage(), false)] {
        let mut ada = scene.user("ada");
        for access in ["private", "public", "temp"] {
            Upload::of(b"x").to(access).request(&mut ada);
            let steps = steps(&scene, access);
            let names: Vec<&str> = steps.iter().map(|(step, _)| step.as_str()).collect();
            let [block, policy] = if has_policies {
                ["public_access_block applied", "policy applied"]
            } else {
                ["public_access_block skipped", "policy skipped"]
            };
            assert_eq!(
                names,
                ["create applied", block, policy, "cors applied", "versioning skipped", "lifecycle applied"]
            );
            for (step, reason) in &steps {
                assert_eq!(step.ends_with("skipped"), reason.is_some(), "{step}: {reason:?}");
                if step == "policy skipped" {
                    let reason = reason.as_deref().unwrap();
                    assert!(reason.starts_with("the store has no bucket policies (501"), "{reason}");
                }
            }
        }
    }
}

#[test]
fn provisioning_again_changes_nothing_and_inspection_reads_the_store() {
    each_store(|scene| {
        scene.user("ada");
        let mut manager = scene.manager("ada");
        for access in ["private", "public", "temp"] {
            let mut seen = Vec::new();
            for _ in 0..2 {
                let row = manager
                    .query_one(
                        "SELECT name, state::text, steps::text FROM storage.provision_bucket($1)",
                        &[&access],
                    )
                    .unwrap();
                let inspection = manager
                    .query_one(
                        "SELECT physical_name, \"exists\", cors::text, policy::text, lifecycle::text, public_access_block::text
                         FROM storage.inspect_bucket($1)",
                        &[&access],
                    )
                    .unwrap();
                let text = |column| {
                    let text = inspection.get::<_, Option<String>>(column).unwrap_or_default();
                    // Each answer has an id of its own.
                    text.split(", request id ").next().unwrap_or_default().to_owned()
                };
                assert!(inspection.get::<_, bool>(1));
                seen.push((
                    [row.get::<_, String>(0), row.get(1), row.get(2)],
                    [text(0), text(2), text(3), text(4), text(5)],
                ));
            }
            assert_eq!(seen[0], seen[1]);
            let [name, cors, policy, lifecycle, block] = &seen[0].1;
            assert_eq!(*name, seen[0].0[0]);
            assert!(cors.contains("PUT") && cors.contains("x-amz-checksum-sha256"), "{cors}");
            assert_eq!(cors.contains("GET"), access != "private", "{cors}");
            assert!(lifecycle.to_lowercase().contains("multipart"), "{lifecycle}");
            if policy.contains("unsupported") {
                lacks("policy");
                assert!(!scene.direct, "{policy}");
                let record = &seen[0].0[2];
                assert!(
                    access != "public" || record.contains("the store has no bucket policies"),
                    "{record}"
                );
            } else {
                assert_eq!(policy.contains("s3:GetObject"), access == "public", "{policy}");
            }
            if block.contains("unsupported") {
                lacks("public_access_block");
            } else {
                // Ceph takes no upload where new public ACLs are refused; where they are ignored nothing rests on that.
                assert!(block.contains("\"ignore_public_acls\": true"), "{block}");
                for switch in ["block_public_policy", "restrict_public_buckets"] {
                    let is_on = block.contains(&format!("\"{switch}\": true"));
                    assert_eq!(is_on, access != "public", "{switch}: {block}");
                }
            }
        }
        assert_eq!(on_record(scene).len(), 3);
    });
}

#[test]
fn inspecting_a_bucket_that_was_never_used_says_that_it_is_not_there() {
    let (scene, _) = Scene::counting();
    scene.user("ada");
    let row = scene
        .manager("ada")
        .query_one("SELECT \"exists\", cors ->> 'error' FROM storage.inspect_bucket('private')", &[])
        .unwrap();
    assert!(!row.get::<_, bool>(0));
    assert!(row.get::<_, &str>(1).contains("NoSuchBucket"), "{row:?}");
    assert_eq!(on_record(&scene), []);
}

#[test]
fn a_name_of_somebody_else_is_refused_and_nothing_is_applied_to_it() {
    let garage = Garage::shared();
    // Two accounts on one server: ours may create buckets, the other one owns the name.
    let (ours, other) = (garage.another_key("ours"), garage.access());
    let cluster = Box::leak(Box::new(Cluster::start(remote(&ours))));
    let scene = Scene::on(cluster, &ours);
    garage.cli(&["bucket", "create", "theirs-0001"]);
    garage.cli(&[
        "bucket",
        "allow",
        "--read",
        "--write",
        "--owner",
        "theirs-0001",
        "--key",
        &other.access_key_id,
    ]);
    let before = garage.cli(&["bucket", "info", "theirs-0001"]);
    let mut ada = scene.user("ada");
    scene
        .superuser()
        .batch_execute("UPDATE storage.buckets SET physical_name = 'theirs-0001' WHERE key = 'private'")
        .unwrap();
    let rows = scene.rows();
    for attempt in 0..2 {
        let refusal = refused(Upload::of(b"x").try_request(&mut ada));
        assert_eq!(refusal.code(), ("58030", "BUCKET_NAME_TAKEN"), "attempt {attempt}: {refusal:?}");
        assert!(refusal.hint.unwrap().contains("bucket_prefix"));
    }
    assert_eq!(scene.rows(), rows);
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.provisioned_buckets()"), 0);
    assert_eq!(garage.cli(&["bucket", "info", "theirs-0001"]), before);
}

#[test]
fn a_bucket_that_vanished_is_noticed_when_confirming_and_made_again_on_the_next_use() {
    let (counting, store) = Scene::counting();
    for (scene, store) in [(counting, Some(store)), (Scene::garage(), None)] {
        let prefix = prefix_of(&scene);
        let mut ada = scene.user("ada");
        let file = Upload::declared(b"was there").complete(&mut ada, b"was there");
        let lost = Upload::declared(b"lost").request(&mut ada);
        let name = bucket_of(lost.url());
        for (bucket, key) in [scene.place_of_upload(&file.upload_id), scene.place_of_file(&file.file_id)] {
            assert!(scene.at_store(Method::Delete, (&bucket, &key), &Headers::new(), &[]).is_success());
        }
        eventually("an empty bucket to be deleted", Duration::from_secs(10), || {
            let answer = scene.at_store(Method::Delete, (&name, ""), &Headers::new(), &[]);
            answer.is_success().then_some(())
        });

        let verdict = flow::confirm(&mut ada, &lost.upload_id);
        assert_eq!(verdict.outcome(), ("requested", Some("NOT_UPLOADED")));
        assert_eq!(on_record(&scene), [(name.clone(), "pending".to_owned(), false)]);
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.provisioned_buckets()"), 0);

        let again = Upload::declared(b"found").complete(&mut ada, b"found");
        assert_eq!(bucket_of(again.url()), name, "the recorded name wins");
        assert_eq!(on_record(&scene), [(name.clone(), "ready".to_owned(), true)]);
        let same = Upload::declared(b"was there").request(&mut ada);
        assert!(!same.deduplicated, "what went with the bucket is shared no more");
        // The old ticket is as good as new.
        assert!(lost.put(b"lost").is_success());
        assert_eq!(flow::confirm(&mut ada, &lost.upload_id).outcome(), ("uploaded", None));
        if let Some(store) = store {
            assert_eq!(store.succeeded("CreateBucket", &format!("/{prefix}")), 2);
        }
    }
}
