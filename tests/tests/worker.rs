//! The worker of a database: it deletes what commits queue, wakes for it, and survives what happens to it.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{Upload, assert_downloads, some_bytes};
use pg_storage_tests::scene::remote;
use pg_storage_tests::worker::{
    LIMIT, at_work, await_idle, await_successor, await_worker, behind_proxy, delete, keep_worker, last_pass,
    nudge, workers,
};
use pg_storage_tests::{Cluster, Fault, LocalStore, Scene, Stop, eventually, process, refused};
use std::time::Duration;

#[test]
fn a_commit_wakes_it_and_a_rollback_does_not() {
    let scene = at_work();
    keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("woken", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    await_idle(&scene);
    let before = last_pass(&scene);
    ada.batch_execute("BEGIN").unwrap();
    delete(&mut ada, &ticket);
    ada.batch_execute("ROLLBACK; BEGIN; SELECT FROM storage.files; COMMIT").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(last_pass(&scene), before, "nothing was committed");

    // A savepoint that is rolled back may wake it for nothing, and queues nothing.
    ada.batch_execute("BEGIN; SAVEPOINT s").unwrap();
    delete(&mut ada, &ticket);
    ada.batch_execute("ROLLBACK TO s; COMMIT").unwrap();
    assert_downloads(&mut ada, &ticket.file_id, &bytes);

    delete(&mut ada, &ticket);
    eventually("the worker to delete", Duration::from_secs(10), || (!scene.exists(&place)).then_some(()));
    eventually("the record of that", LIMIT, || {
        scene
            .value::<bool>("SELECT EXISTS (SELECT FROM storage.worker_state WHERE kind = 'worker' AND objects_deleted = 1)")
            .then_some(())
    });
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 0);
    let row = scene
        .superuser()
        .query_one(
            "SELECT database, state, last_error IS NULL, last_pass_at > started_at,
                    next_pass_at BETWEEN now() + interval '1 min' AND now() + interval '1 hour',
                    (SELECT count(*) FROM storage.worker_state WHERE kind = 'launcher' AND database IS NULL AND pid > 0)
             FROM storage.worker_state WHERE kind = 'worker'",
            &[],
        )
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), (scene.database.name(), "idle"));
    assert_eq!([row.get::<_, bool>(2), row.get(3), row.get(4)], [true; 3]);
    assert_eq!(row.get::<_, i64>(5), 1);
}

#[test]
fn it_wakes_when_a_job_or_an_expiry_becomes_due() {
    let scene = at_work();
    keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("due", 60);
    let expiring = Upload::declared(&bytes).expiring_in("2 s").request(&mut ada);
    assert!(expiring.put(&bytes).is_success());
    let place = scene.place_of_upload(&expiring.upload_id);
    scene
        .superuser()
        .batch_execute(
            "INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
             SELECT physical_name, object_key, 'soon', now() + interval '1 s' FROM storage.upload_requests",
        )
        .unwrap();
    // The job first: it is left alone while the upload is pending. Then the upload, and its bytes.
    eventually("the upload to expire", Duration::from_secs(20), || {
        scene
            .value::<bool>("SELECT EXISTS (SELECT FROM storage.upload_requests WHERE status = 'expired')")
            .then_some(())
    });
    eventually("its bytes to go", Duration::from_secs(20), || (!scene.exists(&place)).then_some(()));
    // What is not due makes nobody run in circles.
    let sweeps = "SELECT count(*) FROM storage.deletion_queue WHERE NOT due";
    assert!(scene.value::<i64>(sweeps) >= 1);
    await_idle(&scene);
    let before = last_pass(&scene);
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(last_pass(&scene), before);
}

#[test]
fn what_a_prepared_transaction_queued_is_found_at_its_commit() {
    let scene = at_work();
    keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("prepared", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    ada.batch_execute("BEGIN").unwrap();
    delete(&mut ada, &ticket);
    ada.batch_execute("PREPARE TRANSACTION 'deletion'").unwrap();
    await_idle(&scene);
    let before = last_pass(&scene);
    ada.batch_execute("BEGIN; SELECT FROM storage.files; COMMIT").unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(last_pass(&scene), before, "the next commit of that session is another one");
    nudge(&scene);
    assert!(scene.exists(&place));
    await_idle(&scene);
    let mut superuser = scene.superuser();
    superuser.batch_execute("COMMIT PREPARED 'deletion'").unwrap();
    eventually("the worker to delete", LIMIT, || (!scene.exists(&place)).then_some(()));
    await_idle(&scene);
    let before = last_pass(&scene);
    superuser.batch_execute("BEGIN; SELECT FROM storage.files; PREPARE TRANSACTION 'nothing'").unwrap();
    superuser.batch_execute("ROLLBACK PREPARED 'nothing'").unwrap();
    superuser.batch_execute("COMMIT PREPARED 'no such'").unwrap_err();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(last_pass(&scene), before, "nothing was committed");
}

#[test]
fn after_a_crash_of_the_worker_all_goes_on() {
    let scene = at_work();
    let pid = keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("crash", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    process::signal(pid as u32, "KILL");
    await_successor(scene.database.cluster(), scene.database.name(), pid);
    delete(&mut scene.user("ada"), &ticket);
    eventually("the new worker to delete", LIMIT, || (!scene.exists(&place)).then_some(()));
}

#[test]
fn no_transaction_is_open_while_it_waits_and_a_cancel_ends_the_task_alone() {
    let (scene, proxy, _store) = behind_proxy();
    let pid = keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("hanging", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    proxy.set("POST /", Fault::Silent);
    delete(&mut ada, &ticket);
    proxy.wait_for_caller();
    let row = scene
        .superuser()
        .query_one(
            "SELECT state, query, xact_start IS NULL AND backend_xid IS NULL AND backend_xmin IS NULL,
                    (SELECT count(*) FROM pg_locks l WHERE l.pid = a.pid AND NOT (l.locktype = 'advisory' AND l.objsubid = 4
                                                                          OR l.locktype = 'virtualxid')),
                    application_name
             FROM pg_stat_activity a WHERE pid = $1",
            &[&pid],
        )
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("active", "deleting objects"));
    assert_eq!((row.get::<_, bool>(2), row.get::<_, i64>(3)), (true, 0));
    assert_eq!(row.get::<_, &str>(4), "pg_storage worker");
    let claimed =
        "SELECT count(*) FROM storage.deletion_queue WHERE claimed_until > now() + interval '1 min'";
    assert_eq!(scene.value::<i64>(claimed), 1);

    scene.superuser().execute("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
    proxy.wait_for_silence();
    await_idle(&scene);
    assert_eq!(workers(&mut scene.superuser(), scene.database.name()), [pid]);
    let error: String = scene.value("SELECT last_error FROM storage.worker_state WHERE kind = 'worker'");
    assert!(error.starts_with("deleting objects: ") && error.contains("cancel"), "{error}");
    assert!(scene.database.cluster().log().contains("pg_storage worker, deleting objects: "));

    // The lease of the batch that was given up runs on; after it, any collector may take it.
    proxy.heal();
    nudge(&scene);
    assert_eq!(scene.maintain(), [0, 0, 0, 0]);
    assert!(scene.exists(&place));
    let expire = "UPDATE storage.object_deletions SET claimed_until = now()";
    scene.superuser().batch_execute(expire).unwrap();
    nudge(&scene);
    eventually("the deletion", LIMIT, || (!scene.exists(&place)).then_some(()));
}

#[test]
fn a_worker_that_dies_between_claim_and_deletion_costs_one_lease() {
    let (scene, proxy, _store) = behind_proxy();
    let pid = keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("killed", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    proxy.set("POST /", Fault::Silent);
    delete(&mut ada, &ticket);
    proxy.wait_for_caller();
    process::signal(pid as u32, "KILL");
    proxy.wait_for_silence();
    proxy.heal();
    await_successor(scene.database.cluster(), scene.database.name(), pid);
    nudge(&scene);
    assert!(scene.exists(&place), "the lease holds");
    // The new worker slept until the lease of the old one ends; here it ends now.
    let sleeps =
        "SELECT next_pass_at < now() + interval '4 min' FROM storage.worker_state WHERE kind = 'worker'";
    assert!(scene.value::<bool>(sleeps));
    let mut ada = scene.user("ada");
    let again = Upload::declared(&bytes).request(&mut ada);
    assert!(!again.deduplicated, "the object is being deleted");
    scene
        .superuser()
        .batch_execute("UPDATE storage.object_deletions SET claimed_until = now() + interval '1 s'")
        .unwrap();
    nudge(&scene);
    eventually("the deletion", LIMIT, || {
        (scene.value::<i64>("SELECT count(*) FROM storage.objects") == 0).then_some(())
    });
    assert!(!scene.exists(&place));
}

#[test]
fn a_store_that_is_down_is_asked_again_and_its_error_can_be_read() {
    let (scene, proxy, mut store) = behind_proxy();
    keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("down", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    store.stop("TERM");
    delete(&mut ada, &ticket);
    let failed = "SELECT attempts, dead, due, claimed_until IS NULL, last_error FROM storage.deletion_queue WHERE last_error IS NOT NULL";
    let row = eventually("the failure", LIMIT, || scene.superuser().query_opt(failed, &[]).unwrap());
    assert_eq!((row.get::<_, i32>(0), row.get::<_, bool>(1), row.get::<_, bool>(2)), (1, false, false));
    assert!(row.get::<_, bool>(3) && !row.get::<_, &str>(4).is_empty());
    assert!(!row.get::<_, &str>(4).contains(&scene.store.secret_access_key));
    await_idle(&scene);
    let wakes =
        "SELECT next_pass_at < now() + interval '30 s' FROM storage.worker_state WHERE kind = 'worker'";
    assert!(scene.value::<bool>(wakes), "it sleeps until the next attempt is due");
    store.start_again();
    proxy.heal();
    eventually("the next attempt", LIMIT, || (!scene.exists(&place)).then_some(()));
}

#[test]
fn a_copy_of_a_database_is_left_alone_and_says_so() {
    let scene = at_work();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("copied", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    delete(&mut ada, &ticket);
    scene
        .superuser()
        .batch_execute("UPDATE storage_private.installation SET system_identifier = system_identifier + 1")
        .unwrap();
    keep_worker(&scene);
    let error: String = scene.value("SELECT last_error FROM storage.worker_state WHERE kind = 'worker'");
    assert!(error.contains("NOT_OWNER_OF_OBJECTS"), "{error}");
    assert!(scene.exists(&place));
    scene.superuser().batch_execute("SELECT storage.adopt_installation()").unwrap();
    nudge(&scene);
    eventually("the deletion", LIMIT, || (!scene.exists(&place)).then_some(()));
}

#[test]
fn a_standby_has_no_worker_until_it_is_promoted() {
    let store = LocalStore::start();
    let primary: &'static Cluster = Box::leak(Box::new(Cluster::start(
        remote(store.access())
            .setting("pg_storage.deletion_delay", "0")
            .setting("pg_storage.worker_interval", "1h"),
    )));
    let scene = Scene::on(primary, store.access());
    keep_worker(&scene);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("standby", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    let standby = primary.standby();
    let mut session = standby.connect("postgres", scene.database.name());
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(workers(&mut session, scene.database.name()), Vec::<i32>::new());
    assert_eq!(refused(session.query("SELECT storage.start_worker()", &[])).code(), ("25006", "READ_ONLY"));
    primary.stop(Stop::Fast);
    session.query_one("SELECT pg_promote()", &[]).unwrap();
    await_worker(&standby, scene.database.name());
    let delete = "DELETE FROM storage.files";
    standby.connect("postgres", scene.database.name()).batch_execute(delete).unwrap();
    eventually("the new primary's worker to delete", LIMIT, || (!scene.exists(&place)).then_some(()));
}

#[test]
fn what_sessions_of_the_database_are_set_to_does_not_concern_it() {
    let scene = at_work();
    let name = scene.database.name();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("settings", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    delete(&mut ada, &ticket);
    let mut superuser = scene.superuser();
    let settings = [
        ("default_transaction_isolation", "'serializable'"),
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "'1ms'"),
        ("search_path", "public"),
    ];
    for (setting, value) in settings {
        superuser.batch_execute(&format!("ALTER DATABASE {name} SET {setting} = {value}")).unwrap();
    }
    let cluster = scene.database.cluster();
    cluster.set("pg_storage.databases", name);
    cluster.reload();
    await_worker(cluster, name);
    // For the sessions of this test, which come later.
    for (setting, _) in settings {
        superuser.batch_execute(&format!("ALTER DATABASE {name} RESET {setting}")).unwrap();
    }
    eventually("the worker to delete", LIMIT, || (!scene.exists(&place)).then_some(()));
    let error: Option<String> =
        scene.value("SELECT last_error FROM storage.worker_state WHERE kind = 'worker'");
    assert_eq!(error, None);
}

#[test]
fn a_task_that_fails_stops_no_other_and_is_told_once() {
    let scene = at_work();
    let mut ada = scene.user("ada");
    let [expiring, gone] =
        [b"expiring".as_slice(), b"gone"].map(|bytes| Upload::declared(bytes).complete(&mut ada, bytes));
    let place = scene.place_of_file(&gone.file_id);
    delete(&mut ada, &gone);
    scene
        .superuser()
        .batch_execute(
            "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN RAISE division_by_zero USING MESSAGE = ''not today''; END';
             CREATE TRIGGER fail BEFORE DELETE ON storage.files FOR EACH ROW EXECUTE FUNCTION public.fail();
             UPDATE storage.files SET expires_at = now()",
        )
        .unwrap();
    let pid = keep_worker(&scene);
    eventually("the other task", LIMIT, || (!scene.exists(&place)).then_some(()));
    nudge(&scene);
    await_idle(&scene);
    let mut superuser = scene.superuser();
    assert_eq!(workers(&mut superuser, scene.database.name()), [pid]);
    let row = superuser
        .query_one(
            "SELECT last_error, next_pass_at <= last_pass_at + interval '61 s' FROM storage.worker_state WHERE kind = 'worker'",
            &[],
        )
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, bool>(1)), ("expiring files: not today", true));
    let told = scene.database.cluster().log().matches("pg_storage worker, expiring files: not today").count();
    assert_eq!(told, 1);
    superuser.batch_execute("DROP TRIGGER fail ON storage.files").unwrap();
    nudge(&scene);
    let left = format!("SELECT count(*) FROM storage.files WHERE id = '{}'", expiring.file_id);
    eventually("the end of the failure", LIMIT, || (scene.value::<i64>(&left) == 0).then_some(()));
}
