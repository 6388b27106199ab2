//! Workers come and go with the setting, the databases and the calls of `storage.start_worker()`, and are in nobody's way.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{Upload, some_bytes};
use pg_storage_tests::scene::{local_access, remote};
use pg_storage_tests::worker::{
    LIMIT, await_idle, await_successor, await_worker, delete, keep_worker, last_pass, workers,
};
use pg_storage_tests::{
    BlackHole, Cluster, LocalStore, Options, Scene, StoreAccess, eventually, process, refused,
};
use std::time::{Duration, Instant};

fn cluster(options: Options) -> &'static Cluster {
    Box::leak(Box::new(Cluster::start(options)))
}

fn await_no_worker(cluster: &Cluster, database: &str) {
    let mut session = cluster.connect("postgres", "postgres");
    eventually("the worker to go", LIMIT, || workers(&mut session, database).is_empty().then_some(()));
}

#[test]
fn the_setting_names_the_databases_and_a_reload_changes_them() {
    let cluster = cluster(Options::new().setting("pg_storage.databases", "test_2, \"Mixed, Case\", nowhere"));
    let (first, second) = (cluster.database(), cluster.database());
    assert_eq!([first.name(), second.name()], ["test_1", "test_2"]);
    // Databases that come later are found too.
    let mut session = cluster.connect("postgres", "postgres");
    session.batch_execute("CREATE DATABASE \"Mixed, Case\"").unwrap();
    let pid = await_worker(cluster, "test_2");
    await_worker(cluster, "Mixed, Case");
    assert_eq!(workers(&mut session, "test_1"), Vec::<i32>::new());

    cluster.set("pg_storage.databases", "test_1,TEST_2");
    cluster.reload();
    await_worker(cluster, "test_1");
    await_no_worker(cluster, "Mixed, Case");
    assert_eq!(workers(&mut session, "test_2"), [pid], "a worker that stays listed stays");
    cluster.set("pg_storage.databases", "");
    cluster.reload();
    await_no_worker(cluster, "test_1");
    await_no_worker(cluster, "test_2");

    // What is no list leaves the value before it in force.
    cluster.set("pg_storage.databases", "test_1,,");
    cluster.reload();
    let mut later = cluster.connect("postgres", "postgres");
    let shown: String = later.query_one("SHOW pg_storage.databases", &[]).unwrap().get(0);
    assert_eq!(shown, "");
    assert!(
        cluster.log().contains("invalid value for parameter \"pg_storage.databases\""),
        "{}",
        cluster.log()
    );
}

#[test]
fn one_that_ended_is_started_again_also_with_the_launcher() {
    let cluster = cluster(Options::new().setting("pg_storage.databases", "test_1"));
    let database = cluster.database();
    let pid = await_worker(cluster, database.name());
    let mut session = cluster.connect("postgres", "postgres");
    session.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
    let second = await_successor(cluster, database.name(), pid);
    let launcher = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_storage launcher'";
    let launcher: i32 = session.query_one(launcher, &[]).unwrap().get(0);
    session.execute("SELECT pg_terminate_backend($1)", &[&launcher]).unwrap();
    let third = await_successor(cluster, database.name(), second);
    assert_eq!(workers(&mut session, database.name()), [third]);
}

#[test]
fn a_lack_of_slots_is_said_once_and_tried_again() {
    // The local store's, the launcher, PostgreSQL's own for logical replication, and one more.
    let cluster = cluster(
        Options::new().setting("max_worker_processes", "4").setting("pg_storage.databases", "test_1,test_2"),
    );
    let databases = [cluster.database(), cluster.database()];
    let complaint = "there is no room for a worker";
    eventually("the complaint", LIMIT, || cluster.log().contains(complaint).then_some(()));
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(cluster.log().matches(complaint).count(), 1);
    let mut session = cluster.connect("postgres", "postgres");
    let running = databases.iter().filter(|database| !workers(&mut session, database.name()).is_empty());
    let running: Vec<&str> = running.map(|database| database.name()).collect();
    let waiting = if running == ["test_1"] { "test_2" } else { "test_1" };
    assert_eq!(running.len(), 1);
    let refusal = refused(cluster.connect("postgres", waiting).query("SELECT storage.start_worker()", &[]));
    assert_eq!(refusal.code(), ("53400", "NO_WORKER_SLOT"), "{refusal:?}");
    assert!(refusal.hint.unwrap().contains("max_worker_processes"));
    cluster.set("pg_storage.databases", waiting);
    cluster.reload();
    await_worker(cluster, waiting);
}

#[test]
fn without_preload_a_call_starts_one_that_comes_back_after_a_crash_and_not_after_its_end() {
    let store = LocalStore::start();
    let cluster = cluster(
        remote(store.access())
            .without_preload()
            .setting("pg_storage.deletion_delay", "0")
            .setting("pg_storage.worker_interval", "1s"),
    );
    let scene = Scene::on(cluster, store.access());
    let finding = "SELECT status FROM storage.check() WHERE name = 'worker'";
    assert_eq!(scene.value::<String>(finding), "warn");
    let pid: i32 = scene.value("SELECT storage.start_worker()");
    let mut session = cluster.connect("postgres", "postgres");
    assert_eq!(workers(&mut session, scene.database.name()), [pid]);
    assert_eq!(scene.value::<String>(finding), "ok");
    let refusal = refused(scene.superuser().query("SELECT storage.start_worker()", &[]));
    assert_eq!(refusal.code(), ("55000", "WORKER_RUNNING"), "{refusal:?}");
    assert!(refusal.hint.unwrap().contains("storage.worker_state"));

    let mut ada = scene.user("ada");
    let bytes = some_bytes("looked for", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    delete(&mut ada, &ticket);
    eventually("the worker to look", LIMIT, || (!scene.exists(&place)).then_some(()));

    process::signal(pid as u32, "KILL");
    let second = await_successor(cluster, scene.database.name(), pid);
    let mut session = cluster.connect("postgres", "postgres");
    session.execute("SELECT pg_terminate_backend($1)", &[&second]).unwrap();
    await_no_worker(cluster, scene.database.name());
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(workers(&mut session, scene.database.name()), Vec::<i32>::new(), "for good");
    let states = "SELECT state FROM storage.worker_state WHERE kind = 'worker'";
    assert_eq!(scene.value::<String>(states), "not running");
}

#[test]
fn a_second_worker_leaves_and_no_role_can_keep_the_first_out() {
    let cluster = cluster(Options::new().setting("pg_storage.databases", "postgres"));
    let scene = Scene::on(cluster, &local_access(cluster));
    // Every advisory lock that the worker's could be mistaken for.
    let mut stranger = scene.manager("eve");
    stranger
        .batch_execute(&format!(
            "SELECT pg_advisory_lock(k), pg_advisory_lock(k::int, 0), pg_advisory_lock(0, k::int)
             FROM unnest(ARRAY[3079, {0}, 0]::bigint[]) k",
            u32::from_be_bytes(*b"pgst")
        ))
        .unwrap();
    let _: i32 = scene.value("SELECT storage.start_worker()");
    // Started by hand, it is not started again by the launcher.
    cluster.set("pg_storage.databases", scene.database.name());
    cluster.reload();
    let pid = await_worker(cluster, scene.database.name());
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(workers(&mut scene.superuser(), scene.database.name()), [pid]);
}

#[test]
fn a_database_can_be_dropped_copied_and_renamed_under_its_worker() {
    let cluster = cluster(Options::new().setting("max_worker_processes", "20"));
    let scene = Scene::on(cluster, &local_access(cluster));
    keep_worker(&scene);
    let name = scene.database.name();
    let mut session = cluster.connect("postgres", "postgres");
    session.batch_execute(&format!("CREATE DATABASE copied TEMPLATE {name}")).unwrap();
    let pid = await_worker(cluster, name);
    session
        .batch_execute(&format!(
            "ALTER DATABASE {name} RENAME TO renamed; ALTER DATABASE renamed RENAME TO {name}"
        ))
        .unwrap();
    await_successor(cluster, name, pid);
    session.batch_execute(&format!("DROP DATABASE {name}")).unwrap();
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(workers(&mut session, name), Vec::<i32>::new());
}

/// A worker that waits for a store that never answers.
fn hanging(hole: &BlackHole) -> (Scene, i32) {
    let store = LocalStore::start();
    let access = StoreAccess { endpoint: hole.endpoint(), ..store.access().clone() };
    let cluster = cluster(
        remote(&access)
            .setting("pg_storage.deletion_delay", "0")
            .setting("pg_storage.request_timeout", "10min")
            .setting("pg_storage.worker_interval", "1h"),
    );
    let scene = Scene::on(cluster, &access);
    let pid = keep_worker(&scene);
    let before = hole.accepted();
    scene
        .superuser()
        .batch_execute(
            "INSERT INTO storage_private.installation SELECT i.* FROM storage_private.this_installation() i;
             INSERT INTO storage.object_deletions (physical_name, key, reason, not_before) VALUES ('b', 'k', 'test', now())",
        )
        .unwrap();
    hole.wait_for_caller(before);
    (scene, pid)
}

#[test]
fn a_database_can_be_dropped_while_its_worker_waits_for_the_store() {
    let hole = BlackHole::open();
    let (scene, _) = hanging(&hole);
    let cluster = scene.database.cluster();
    let witness = cluster.witness();
    let mut session = cluster.connect("postgres", "postgres");
    let begun = Instant::now();
    session.batch_execute(&format!("DROP DATABASE {}", scene.database.name())).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    witness.assert_no_restart();
}

#[test]
fn shutdown_does_not_wait_for_the_store() {
    let hole = BlackHole::open();
    let (scene, _) = hanging(&hole);
    let begun = Instant::now();
    scene.database.cluster().stop(pg_storage_tests::Stop::Fast);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn the_extension_can_be_dropped_and_made_again_under_its_worker() {
    let hole = BlackHole::open();
    let (scene, pid) = hanging(&hole);
    let cluster = scene.database.cluster();
    let mut session = scene.superuser();
    session.batch_execute("SET lock_timeout = '10s'").unwrap();
    session.batch_execute("DROP EXTENSION pg_storage CASCADE").unwrap();
    session.execute("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
    let idle = "SELECT state FROM pg_stat_activity WHERE pid = $1";
    eventually("the worker to be idle", LIMIT, || {
        (session.query_one(idle, &[&pid]).unwrap().get::<_, &str>(0) == "idle").then_some(())
    });
    assert!(!cluster.log().contains("pg_storage worker,"), "what is gone is no trouble");
    session.batch_execute("CREATE EXTENSION pg_storage").unwrap();
    cluster.reload();
    eventually("a pass over the new extension", LIMIT, || last_pass(&scene));
    await_idle(&scene);
    assert_eq!(workers(&mut session, scene.database.name()), [pid]);
}

#[test]
fn whoever_waits_for_a_lock_of_a_step_goes_first() {
    let cluster = cluster(Options::new());
    let scene = Scene::on(cluster, &local_access(cluster));
    let mut ada = scene.user("ada");
    Upload::declared(b"some bytes").complete(&mut ada, b"some bytes");
    // A step that waits in the middle of its work, with locks taken.
    scene
        .superuser()
        .batch_execute(
            "CREATE FUNCTION public.linger() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_catalog.pg_sleep(600); RETURN NULL; END';
             CREATE TRIGGER linger AFTER DELETE ON storage.files EXECUTE FUNCTION public.linger();
             UPDATE storage.files SET expires_at = now()",
        )
        .unwrap();
    cluster.set("pg_storage.databases", scene.database.name());
    cluster.reload();
    let pid = await_worker(cluster, scene.database.name());
    let mut session = scene.superuser();
    let stuck =
        "SELECT query = 'expiring files' AND wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1";
    eventually("the step to hang", LIMIT, || {
        session.query_one(stuck, &[&pid]).unwrap().get::<_, Option<bool>>(0).filter(|stuck| *stuck)
    });
    session.batch_execute("SET lock_timeout = '10s'; DROP TRIGGER linger ON storage.files").unwrap();
    await_idle(&scene);
    assert_eq!(workers(&mut session, scene.database.name()), [pid]);
}
