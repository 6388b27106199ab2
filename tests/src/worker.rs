//! Looking at the workers of databases, and having the launcher start them.

use crate::flow::Ticket;
use crate::scene::{local_access, remote};
use crate::{Cluster, FaultyStore, LocalStore, Options, Scene, StoreAccess, eventually};
use postgres::Client;
use std::time::{Duration, SystemTime};

/// Longer than anything here takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What workers are tested with: nothing is delayed, and they look by themselves once an hour only.
const SETTINGS: [(&str, &str); 5] = [
    ("pg_storage.deletion_delay", "0"),
    ("pg_storage.worker_interval", "1h"),
    ("pg_storage.request_timeout", "60s"),
    ("pg_storage.max_attempts", "1"),
    ("max_prepared_transactions", "5"),
];

fn leaked(options: Options) -> &'static Cluster {
    let options = SETTINGS.iter().fold(options, |options, (name, value)| options.setting(name, value));
    Box::leak(Box::new(Cluster::start(options)))
}

/// A scene on the local store of a cluster of its own, without a worker yet.
pub fn at_work() -> Scene {
    let cluster = leaked(Options::new());
    Scene::on(cluster, &local_access(cluster))
}

/// The same on a store behind a proxy; the store is to be kept.
pub fn behind_proxy() -> (Scene, &'static FaultyStore, LocalStore) {
    let store = LocalStore::start();
    let proxy: &'static FaultyStore = Box::leak(Box::new(FaultyStore::before(&store.access().endpoint)));
    let access = StoreAccess { endpoint: proxy.endpoint(), ..store.access().clone() };
    (Scene::on(leaked(remote(&access)), &access), proxy, store)
}

/// The process ids of the workers of a database, as `pg_stat_activity` shows them.
pub fn workers(session: &mut Client, database: &str) -> Vec<i32> {
    let query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_storage worker' AND datname = $1";
    session.query(query, &[&database]).expect("look for workers").iter().map(|row| row.get(0)).collect()
}

/// Waits until a database has a worker other than `before`; the server may be restarting meanwhile.
pub fn await_successor(cluster: &Cluster, database: &str, before: i32) -> i32 {
    let query = "SELECT pid FROM pg_stat_activity
                 WHERE backend_type = 'pg_storage worker' AND datname = $1 AND pid <> $2";
    eventually("another worker of the database", LIMIT, || {
        let mut session = cluster.try_connect("postgres", "postgres").ok()?;
        session.query_opt(query, &[&database, &before]).ok()?.map(|row| row.get(0))
    })
}

/// Waits for the one worker of a database.
pub fn await_worker(cluster: &Cluster, database: &str) -> i32 {
    eventually("the worker of the database", LIMIT, || {
        let mut session = cluster.try_connect("postgres", "postgres").ok()?;
        workers(&mut session, database).first().copied()
    })
}

/// Names the scene's database in `pg_storage.databases` and waits for its worker and the first pass of that.
pub fn keep_worker(scene: &Scene) -> i32 {
    let cluster = scene.database.cluster();
    cluster.set("pg_storage.databases", scene.database.name());
    cluster.reload();
    let pid = await_worker(cluster, scene.database.name());
    eventually("its first pass", LIMIT, || last_pass(scene));
    await_idle(scene);
    pid
}

/// When the last pass ended.
pub fn last_pass(scene: &Scene) -> Option<SystemTime> {
    scene.value("SELECT max(last_pass_at) FROM storage.worker_state")
}

/// Waits until the worker has nothing to do, and what commits just woke it for is done.
pub fn await_idle(scene: &Scene) {
    let idle = "SELECT max(last_pass_at) FROM storage.worker_state WHERE kind = 'worker' AND state = 'idle'";
    eventually("the worker to be idle", LIMIT, || {
        let before = scene.value::<Option<SystemTime>>(idle)?;
        std::thread::sleep(Duration::from_millis(400));
        (scene.value::<Option<SystemTime>>(idle) == Some(before)).then_some(())
    });
}

/// Has the worker make a pass now: reloading wakes it.
pub fn nudge(scene: &Scene) {
    let before = last_pass(scene);
    scene.database.cluster().reload();
    eventually("a pass", LIMIT, || (last_pass(scene) != before).then_some(()));
}

/// Deletes a file.
pub fn delete(session: &mut Client, ticket: &Ticket) {
    session.execute("SELECT storage.delete_file($1::text::uuid)", &[&ticket.file_id]).expect("delete_file");
}

/// Waits until no deletion is queued that is due.
pub fn await_empty_queue(scene: &Scene) {
    eventually("the end of the deletions that are due", LIMIT, || {
        (scene.value::<i64>("SELECT count(*) FROM storage.deletion_queue WHERE due") == 0).then_some(())
    });
}
