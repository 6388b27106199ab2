//! One pass of the collector: it asks only the store that has the bytes, looks at each job once, and waits for nobody.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::choice::lacks;
use pg_storage_tests::flow::{Ticket, Upload, assert_downloads, some_bytes};
use pg_storage_tests::scene::{local_access, remote};
use pg_storage_tests::{
    Cluster, Fault, FaultyStore, LocalStore, Options, Scene, Stop, StoreAccess, each_store, refused,
};
use postgres::Client;

fn own_cluster(options: Options) -> &'static Cluster {
    Box::leak(Box::new(Cluster::start(options.setting("pg_storage.deletion_delay", "0"))))
}

fn delete(session: &mut Client, ticket: &Ticket) {
    session.execute("SELECT storage.delete_file($1::text::uuid)", &[&ticket.file_id]).unwrap();
}

fn make_due(scene: &Scene) {
    scene.superuser().batch_execute("UPDATE storage.object_deletions SET not_before = now()").unwrap();
}

fn last_errors(scene: &Scene) -> String {
    scene.value("SELECT coalesce(string_agg(DISTINCT last_error, '|'), '') FROM storage.deletion_queue")
}

#[test]
fn deletions_wait_for_the_endpoint_that_has_the_bytes() {
    let (ours, other) = (LocalStore::start(), LocalStore::start());
    let access = ours.access().clone();
    let cluster = own_cluster(remote(&access));
    let scene = Scene::on(cluster, &access);
    let mut ada = scene.user("ada");
    let bytes = some_bytes("moved", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    delete(&mut ada, &ticket);

    let StoreAccess { endpoint, region, access_key_id, secret_access_key } = other.access().clone();
    let elsewhere = [
        ("pg_storage.endpoint", endpoint.as_str()),
        ("pg_storage.region", &region),
        ("pg_storage.access_key_id", &access_key_id),
        ("pg_storage.secret_access_key", &secret_access_key),
        ("pg_storage.force_path_style", "on"),
    ];
    elsewhere.iter().for_each(|(name, value)| cluster.set(name, value));
    cluster.reload();
    assert_eq!(scene.maintain(), [0, 0, 0, 1]);
    assert_eq!(last_errors(&scene), format!("kept by another endpoint: {}", access.endpoint));
    assert!(other.requests().is_empty(), "the other store was asked");
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 1);

    elsewhere.iter().for_each(|(name, _)| cluster.unset(name));
    cluster.reload();
    make_due(&scene);
    assert_eq!(scene.maintain(), [0, 0, 1, 0]);
    assert!(!scene.exists(&place));
}

#[test]
fn the_local_store_stays_the_same_store_on_another_port() {
    let cluster = own_cluster(Options::new().embedded("it is about its port"));
    let mut scene = Scene::on(cluster, &local_access(cluster));
    let mut ada = scene.user("ada");
    let bytes = some_bytes("another port", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    delete(&mut ada, &ticket);
    drop(ada);
    // Somebody else took the port while the server was down.
    cluster.stop(Stop::Fast);
    std::fs::remove_file(cluster.data().join("pg_storage/port")).unwrap();
    let taken = std::net::TcpListener::bind(scene.store.endpoint.trim_start_matches("http://")).unwrap();
    cluster.start_again();
    let now = local_access(cluster);
    assert_ne!(now.endpoint, scene.store.endpoint);
    assert_eq!(scene.maintain(), [0, 0, 1, 0], "{}", last_errors(&scene));
    scene.store = now;
    assert!(!scene.exists(&place));
    drop(taken);
}

#[test]
fn a_bucket_that_is_gone_ends_its_deletions_only_where_it_is_known_to_have_been() {
    each_store(|scene| {
        Upload::declared(b"bytes").complete(&mut scene.user("ada"), b"bytes");
        let (known, unknown) = (format!("{}-known", scene.prefix), format!("{}-unknown", scene.prefix));
        scene
            .superuser()
            .batch_execute(&format!(
                "INSERT INTO storage.physical_buckets (name, endpoint, access)
                 SELECT '{known}', endpoint, 'private' FROM storage.physical_buckets LIMIT 1;
                 INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
                 SELECT name, 'a/b', 'test', now() FROM unnest('{{{known},{unknown}}}'::text[]) name"
            ))
            .unwrap();
        let [.., deleted, failed] = scene.maintain();
        assert_eq!((deleted >= 1, failed), (true, 1));
        let left = format!(
            "SELECT count(*) FROM storage.deletion_queue WHERE physical_name = '{unknown}' AND last_error > ''"
        );
        assert_eq!(scene.value::<i64>(&left), 1);
        let gone = format!("SELECT count(*) FROM storage.deletion_queue WHERE physical_name = '{known}'");
        assert_eq!(scene.value::<i64>(&gone), 0);
    });
}

#[test]
fn a_pass_takes_what_was_due_when_it_began_and_asks_a_failing_bucket_once() {
    let store = LocalStore::start();
    let proxy = FaultyStore::before(&store.access().endpoint);
    let access = StoreAccess { endpoint: proxy.endpoint(), ..store.access().clone() };
    let cluster = own_cluster(
        remote(&access).setting("pg_storage.request_timeout", "3s").setting("pg_storage.max_attempts", "1"),
    );
    let scene = Scene::on(cluster, &access);
    scene.set("pg_storage.reconcile_interval", "0");
    Upload::declared(b"bytes").complete(&mut scene.user("ada"), b"bytes");
    let queue = |bucket: &str, jobs: i32| {
        scene
            .superuser()
            .batch_execute(&format!(
                "INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
                 SELECT '{bucket}', 'key/' || n, 'test', clock_timestamp() FROM generate_series(1, {jobs}) n"
            ))
            .unwrap();
    };
    scene
        .superuser()
        .batch_execute(
            "INSERT INTO storage.physical_buckets (name, endpoint, access, state, applied_generation)
             SELECT n.name, p.endpoint, 'private', 'ready', 1 FROM storage.physical_buckets p, unnest('{hanging,late}'::text[]) AS n(name)",
        )
        .unwrap();
    queue("hanging", 1500);
    proxy.set("/hanging", Fault::Silent);
    let report = std::thread::scope(|scope| {
        let pass = scope.spawn(|| scene.maintain());
        proxy.wait_for_caller();
        queue("late", 1);
        pass.join().unwrap()
    });
    assert_eq!(report, [0, 0, 0, 1000]);
    let asked = |bucket: &str| proxy.lines().iter().filter(|line| line.contains(bucket)).count();
    assert_eq!((asked("/hanging"), asked("/late")), (1, 0));
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.deletion_queue WHERE attempts = 0"), 501);
}

#[test]
fn a_pass_goes_on_behind_jobs_that_are_dropped_or_locked() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let kept = Upload::declared(b"kept").complete(&mut ada, b"kept");
    let held = Upload::declared(b"held").complete(&mut ada, b"held");
    scene
        .superuser()
        .batch_execute(
            "INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
             SELECT physical_name, key, 'a mistake', now() FROM storage.objects, generate_series(1, 1200);
             INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
             SELECT physical_name, 'nothing', 'behind', now() FROM storage.objects LIMIT 1",
        )
        .unwrap();
    let mut linking = scene.superuser();
    linking.batch_execute("BEGIN").unwrap();
    linking
        .execute(
            "SELECT FROM storage.objects o JOIN storage.files f ON f.object_id = o.id WHERE f.id = $1::text::uuid
             FOR KEY SHARE OF o",
            &[&held.file_id],
        )
        .unwrap();
    assert_eq!(scene.maintain(), [0, 0, 1 + scene.staged(2), 0]);
    assert_eq!(
        scene.value::<i64>("SELECT count(*) FROM storage.deletion_queue WHERE reason = 'a mistake'"),
        1200,
        "those that are held"
    );
    linking.batch_execute("COMMIT").unwrap();
    assert_eq!(scene.maintain(), [0, 0, 0, 0]);
    assert_eq!(
        scene.value::<i64>("SELECT count(*) FROM storage.deletion_queue WHERE reason = 'a mistake'"),
        0
    );
    assert_downloads(&mut ada, &kept.file_id, b"kept");
    assert_downloads(&mut ada, &held.file_id, b"held");
}

#[test]
fn a_file_that_somebody_is_changing_expires_in_the_next_pass() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let mut at = |path: &str, bytes: &[u8]| {
        Upload { path: Some(path.to_owned()), ..Upload::declared(bytes) }.complete(&mut ada, bytes).file_id
    };
    let files = [at("a", b"changed"), at("b", b"first"), at("b", b"second"), at("c", b"free")];
    let expire =
        "UPDATE storage.files SET expires_at = now() WHERE sha256 <> encode(sha256('second'), 'hex')";
    scene.superuser().batch_execute(expire).unwrap();
    // One file itself, and the version after another.
    let mut changing = scene.user("ada");
    changing.batch_execute("BEGIN").unwrap();
    for file in [&files[0], &files[2]] {
        let rename = "UPDATE storage.files SET filename = 'renamed.bin' WHERE id = $1::text::uuid";
        assert_eq!(changing.execute(rename, &[file]).unwrap(), 1);
    }
    assert_eq!(scene.maintain()[1], 1);
    changing.batch_execute("COMMIT").unwrap();
    assert_eq!(scene.maintain()[1], 2);
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.files"), 1);
}

#[test]
fn an_old_snapshot_is_refused_before_anything_expires() {
    let scene = Scene::local();
    Upload::declared(b"bytes").complete(&mut scene.user("ada"), b"bytes");
    let mut old = scene.superuser();
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM storage.files").unwrap();
    scene
        .superuser()
        .batch_execute(
            "UPDATE storage.files SET expires_at = now() - interval '1 s', metadata = '{\"a\": 1}'",
        )
        .unwrap();
    scene
        .superuser()
        .batch_execute("UPDATE storage.upload_requests SET status = 'requested', expires_at = now()")
        .unwrap();
    let refusal = refused(old.query("SELECT * FROM storage.run_maintenance()", &[]));
    assert_eq!(refusal.sqlstate, "25001", "{refusal:?}");
}

#[test]
fn bytes_of_a_put_that_was_still_running_when_its_url_ended_are_swept() {
    let scene = Scene::local();
    scene.set("pg_storage.deletion_delay", "0");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("slow", 60);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    if !scene.direct {
        // A URL never names what a file has. What it names is removed now, when it ends, and an hour later.
        lacks("upload_path");
        let staged = scene.place_of_upload(&ticket.upload_id);
        assert_ne!(staged, place);
        let sweeps = format!("SELECT count(*) FROM storage.object_deletions WHERE key = '{}'", staged.1);
        assert_eq!(scene.value::<i64>(&sweeps), 3);
        return;
    }
    scene
        .superuser()
        .batch_execute("UPDATE storage.upload_requests SET expires_at = now() - interval '10 minutes'")
        .unwrap();
    delete(&mut ada, &ticket);
    assert_eq!(scene.maintain(), [0, 0, 1, 0]);
    assert!(!scene.exists(&place));
    scene.overwrite(&place, "application/octet-stream", &bytes);
    let waiting = "SELECT count(*) FROM storage.deletion_queue WHERE reason = 'late bytes' AND NOT due
                   AND not_before < now() + interval '2 hours'";
    assert!(scene.value::<i64>(waiting) >= 1);
    make_due(&scene);
    scene.maintain();
    assert!(!scene.exists(&place));
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.deletion_queue"), 0);
}
