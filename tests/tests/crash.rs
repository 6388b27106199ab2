//! Whatever dies, nothing that was confirmed is lost, nothing torn is visible, and everything comes back by itself.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Ticket, Upload};
use pg_storage_tests::orphans::{grow_old, scan};
use pg_storage_tests::scene::remote;
use pg_storage_tests::{
    Cluster, Fault, FaultyStore, Garage, LocalStore, Options, Scene, Stop, StoreAccess, eventually, http,
    process,
};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster of the test's own. It ends with the process: a scene lives as long as its cluster.
fn own(options: Options) -> &'static Cluster {
    Box::leak(Box::new(Cluster::start(options)))
}

/// The local store of `cluster`, once its worker serves: where, and under which process id.
fn local_store(cluster: &Cluster) -> (String, u32) {
    eventually("the local store to answer", LIMIT, || {
        let port = std::fs::read_to_string(cluster.data().join("pg_storage/port")).ok()?;
        let endpoint = format!("http://127.0.0.1:{}", port.trim());
        http::try_get(&endpoint)?;
        let pid = process::children_of(cluster.postmaster_pid())
            .into_iter()
            .find(|pid| process::title(*pid).contains("pg_storage local store"))?;
        Some((endpoint, pid))
    })
}

/// How often the server has begun anew after a process of its own crashed.
fn restarts(cluster: &Cluster) -> usize {
    cluster.log().matches("all server processes terminated; reinitializing").count()
}

/// Waits for one restart more than `before`: until the postmaster notices, it goes on accepting connections.
fn wait_for_recovery(cluster: &Cluster, before: usize) {
    eventually("the server to begin anew", LIMIT, || (restarts(cluster) > before).then_some(()));
    eventually("the server to accept connections again", LIMIT, || {
        cluster.try_connect("postgres", "postgres").ok()?.query_one("SELECT 1", &[]).ok()
    });
}

/// A backend dies while it waits for the store, in the first question or in the last.
fn kill_while_confirming(access: &StoreAccess, declared: bool, at: &str) {
    let cluster = own(remote(access));
    let scene = Scene::on(cluster, access);
    let store = FaultyStore::before(&access.endpoint);
    scene.set("pg_storage.endpoint", &store.endpoint());
    let mut ada = scene.user("ada");
    let bytes = flow::some_bytes("killed while confirming", 100_000);
    let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
    let ticket = upload.request(&mut ada);
    assert!(ticket.put(&bytes).is_success());
    let before = scene.rows();

    store.set(at, Fault::Silent);
    let pid: i32 = ada.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let confirming = std::thread::spawn({
        let upload_id = ticket.upload_id.clone();
        move || flow::try_confirm(&mut ada, &upload_id)
    });
    store.wait_for_caller();
    let restarted = restarts(cluster);
    process::signal(pid.unsigned_abs(), "KILL");
    confirming.join().unwrap().unwrap_err();
    wait_for_recovery(cluster, restarted);
    assert_eq!(scene.rows(), before, "{at}: the verdict had not been given");

    store.heal();
    let mut ada = scene.user("ada");
    assert_eq!(flow::recorded(&mut ada, &ticket.upload_id).outcome(), ("requested", None));
    assert_eq!(flow::confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None), "{at}");
    flow::assert_downloads(&mut ada, &ticket.file_id, &bytes);
}

#[test]
fn a_backend_killed_while_confirming_leaves_the_upload_to_be_confirmed() {
    kill_while_confirming(LocalStore::shared().access(), true, "HEAD /");
}

#[test]
fn a_backend_killed_while_copying_leaves_the_upload_to_be_confirmed() {
    // The copy itself is the last PUT; that it may or may not have happened must not matter.
    kill_while_confirming(LocalStore::shared().access(), false, "PUT /");
    kill_while_confirming(Garage::shared().access(), true, "PUT /");
}

#[test]
fn the_local_stores_worker_comes_back_on_the_same_port_with_the_same_data() {
    let cluster = own(Options::new().embedded("it ends with the server"));
    let (endpoint, worker) = local_store(cluster);
    let scene = Scene::on(cluster, &access_of(cluster, &endpoint));
    let mut ada = scene.user("ada");
    let bytes = flow::some_bytes("kept", 300_000);
    let ticket = Upload::declared(&bytes).complete(&mut ada, &bytes);
    let url = flow::download_url(&mut ada, &ticket.file_id);
    let pending = Upload::declared(b"pending").request(&mut ada);

    let restarted = restarts(cluster);
    process::signal(worker, "KILL");
    eventually("the end of the worker", LIMIT, || (!process::is_alive(worker)).then_some(()));
    wait_for_recovery(cluster, restarted);
    let (again, successor) = local_store(cluster);
    assert_eq!(again, endpoint);
    assert_ne!(successor, worker);

    // URLs that were handed out before are as good as they were.
    assert_eq!(http::get(&url).body, bytes);
    assert!(pending.put(b"pending").is_success());
    let mut ada = scene.user("ada");
    assert_eq!(flow::confirm(&mut ada, &pending.upload_id).outcome(), ("uploaded", None));
    Upload::declared(b"new").complete(&mut ada, b"new");
}

fn access_of(cluster: &Cluster, endpoint: &str) -> StoreAccess {
    let file = cluster.data().join("pg_storage/credentials");
    let credentials = pg_storage_gateway::load_or_create_credentials(&file).unwrap();
    StoreAccess {
        endpoint: endpoint.to_owned(),
        region: "local".to_owned(),
        access_key_id: credentials.access_key_id.clone(),
        secret_access_key: credentials.secret_access_key.expose().to_owned(),
    }
}

/// A way for the server to end and to come back.
type End = (&'static str, fn(&Cluster));

const ENDS: [End; 3] = [
    ("kill -9", |cluster| {
        cluster.kill();
        cluster.start_again();
    }),
    ("stop -m immediate", |cluster| cluster.restart(Stop::Immediate)),
    ("stop -m fast", |cluster| cluster.restart(Stop::Fast)),
];

#[test]
fn the_local_store_keeps_its_objects_through_every_end_of_the_server() {
    let cluster = own(Options::new().embedded("it ends with the server"));
    let (endpoint, _) = local_store(cluster);
    let scene = Scene::on(cluster, &access_of(cluster, &endpoint));
    let mut kept: Vec<(Ticket, Vec<u8>)> = Vec::new();
    for (how, end) in ENDS {
        let bytes = flow::some_bytes(how, 200_000);
        let mut ada = scene.user("ada");
        kept.push((Upload::declared(&bytes).complete(&mut ada, &bytes), bytes));
        end(cluster);
        assert_eq!(local_store(cluster).0, endpoint, "{how}");
        let mut ada = scene.user("ada");
        for (ticket, bytes) in &kept {
            flow::assert_downloads(&mut ada, &ticket.file_id, bytes);
        }
    }
}

/// Sends the head and the first half of the body, and keeps the connection open.
fn half_of(ticket: &Ticket, bytes: &[u8]) -> TcpStream {
    let (host, path) = ticket.url().trim_start_matches("http://").split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let headers: String = ticket.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "PUT /{path} HTTP/1.1\r\nhost: {host}\r\n{headers}\r\n").unwrap();
    stream.write_all(&bytes[..bytes.len() / 2]).unwrap();
    stream.flush().unwrap();
    stream
}

#[test]
fn a_half_sent_upload_is_never_visible() {
    let cluster = own(Options::new().embedded("it ends with the server"));
    let (endpoint, _) = local_store(cluster);
    let scene = Scene::on(cluster, &access_of(cluster, &endpoint));
    let bytes = flow::some_bytes("torn", 4_000_000);
    for (how, end) in &ENDS[..2] {
        let mut ada = scene.user("ada");
        let ticket = Upload::declared(&bytes).at(&how.replace(' ', "_")).request(&mut ada);
        let stalled = half_of(&ticket, &bytes);
        let received = || {
            let files = walk(&cluster.data().join("pg_storage"));
            files.iter().any(|size| *size >= 1_000_000 && *size < bytes.len() as u64)
        };
        eventually("half of the bytes to be on disk", LIMIT, || received().then_some(()));
        end(cluster);
        drop(stalled);
        local_store(cluster);
        let mut ada = scene.user("ada");
        let verdict = flow::confirm(&mut ada, &ticket.upload_id);
        assert_eq!(verdict.outcome(), ("requested", Some("NOT_UPLOADED")), "{how}");
        let (bucket, key) = scene.place_of_upload(&ticket.upload_id);
        assert!(!scene.exists(&(bucket, key)), "{how}");
        // The key is still free, and nothing of the first attempt is in the way.
        assert!(ticket.put(&bytes).is_success(), "{how}");
        assert_eq!(flow::confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
        flow::assert_downloads(&mut ada, &ticket.file_id, &bytes);
        ada.execute("DELETE FROM storage.files", &[]).unwrap();
        assert!(!received(), "{how}: what was half sent is gone from the disk");
    }
}

/// The sizes of all files below a directory.
fn walk(directory: &std::path::Path) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut sizes = Vec::new();
    for entry in entries.flatten() {
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sizes.extend(walk(&entry.path())),
            Ok(metadata) => sizes.push(metadata.len()),
            Err(_) => {}
        }
    }
    sizes
}

#[test]
fn fast_shutdown_waits_neither_for_idle_sessions_that_used_the_store_nor_for_stalled_uploads() {
    let remote_store = LocalStore::shared();
    let local = own(Options::new().embedded("it takes both kinds of store"));
    let distant = own(remote(remote_store.access()));
    for (cluster, endpoint) in
        [(local, local_store(local).0), (distant, remote_store.access().endpoint.clone())]
    {
        let scene = Scene::on(cluster, remote_store.access());
        if std::ptr::eq(cluster, distant) {
            // A host name: the threads that look it up must not hold the end up either.
            scene.set("pg_storage.endpoint", &endpoint.replace("127.0.0.1", "localhost"));
        }
        for round in 0..2 {
            let mut sessions: Vec<_> = (0..8).map(|n| scene.user(&format!("user{n}"))).collect();
            for (n, session) in sessions.iter_mut().enumerate() {
                let mine = format!("idle {round} {n}").into_bytes();
                Upload::of(&mine).complete(session, &mine);
            }
            let bytes = flow::some_bytes("idle", 2_000_000);
            let ticket = Upload::declared(&bytes).request(&mut sessions[0]);
            let _stalled = half_of(&ticket, &bytes);
            let begun = Instant::now();
            cluster.stop(Stop::Fast);
            let took = begun.elapsed();
            assert!(took < Duration::from_secs(10), "pg_ctl stop -m fast took {took:?}");
            cluster.start_again();
            if std::ptr::eq(cluster, local) {
                local_store(local);
            }
        }
    }
}

/// A backend dies while the server brings bytes in itself; what came of it is as after a ROLLBACK.
fn kill_while_bringing(access: &StoreAccess, calls: &[(&str, &str)]) {
    let cluster = own(remote(access));
    let scene = Scene::on(cluster, access);
    let store = FaultyStore::before(&access.endpoint);
    scene.set("pg_storage.endpoint", &store.endpoint());
    scene.set("pg_storage.deletion_delay", "0");
    let mut ada = scene.user("ada");
    let bytes = flow::some_bytes("brought", 50_000);
    let file = Upload::declared(&bytes).complete(&mut ada, &bytes).file_id;
    // Both buckets are ready.
    Upload::declared(b"ready").to("public").complete(&mut ada, b"ready");
    scene.collect();
    let physical: Vec<String> = ["private", "public"]
        .map(|key| {
            scene.value(&format!(
                "SELECT physical_name FROM storage.buckets WHERE owner_id = 'ada' AND key = '{key}'"
            ))
        })
        .into();
    for (call, at) in calls {
        let call = format!("SELECT storage.{}", call.replace("{file}", &file));
        let before = scene.rows();
        store.set(at, Fault::Silent);
        let mut dying = scene.try_session("ada", "default", false).unwrap();
        let pid: i32 = dying.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let bringing = std::thread::spawn({
            let call = call.clone();
            move || dying.batch_execute(&call)
        });
        store.wait_for_caller();
        let restarted = restarts(cluster);
        process::signal(pid.unsigned_abs(), "KILL");
        bringing.join().unwrap().unwrap_err();
        wait_for_recovery(cluster, restarted);
        store.heal();
        assert_eq!(scene.rows(), before, "{call} {at}");
        let mut ada = scene.try_session("ada", "default", false).unwrap();
        flow::assert_downloads(&mut ada, &file, &bytes);
        // What was brought and not recorded is found and removed.
        grow_old();
        physical.iter().for_each(|name| drop(scan(&scene, name, true)));
        scene.collect();
        for name in &physical {
            assert_eq!(scan(&scene, name, false), [], "{call} {at}");
        }
        // It is as easy as before to do it.
        ada.batch_execute(&call).unwrap_or_else(|error| panic!("{call}: {:?}", error.as_db_error()));
        ada.batch_execute(&format!("SELECT storage.move_file('{file}', 'private')")).unwrap();
        scene.collect();
        flow::assert_downloads(&mut ada, &file, &bytes);
    }
}

#[test]
fn a_backend_killed_while_it_brings_bytes_in_leaves_files_as_they_were() {
    let calls = [
        ("put_file('private', 'a.txt', 'put and killed', 'text/plain')", "PUT /"),
        ("put_file('private', 'b.txt', 'put and killed later', 'text/plain')", "HEAD /"),
        ("copy_file('{file}', 'public')", "PUT /"),
        ("set_file_access('{file}', 'public')", "GET /"),
    ];
    kill_while_bringing(LocalStore::shared().access(), &calls);
    kill_while_bringing(
        Garage::shared().access(),
        &[
            ("put_file('private', 'c.txt', 'put and killed there', 'text/plain')", "GET /"),
            ("set_file_access('{file}', 'public')", "GET /"),
        ],
    );
}

#[test]
fn an_answer_that_is_lost_while_bytes_are_brought_in_is_no_success_and_no_harm() {
    let access = LocalStore::shared().access();
    let cluster = own(remote(access));
    let scene = Scene::on(cluster, access);
    let store = FaultyStore::before(&access.endpoint);
    scene.set("pg_storage.endpoint", &store.endpoint());
    scene.set("pg_storage.request_timeout", "2s");
    let mut ada = scene.user("ada");
    let file = Upload::declared(b"answered").complete(&mut ada, b"answered").file_id;
    Upload::declared(b"ready").to("public").complete(&mut ada, b"ready");
    for (call, at) in [
        ("put_file('private', 'a.txt', 'put', 'text/plain')", "HEAD /"),
        ("copy_file('{file}', 'public')", "PUT /"),
        ("set_file_access('{file}', 'public')", "GET /"),
        ("get_file('{file}')", "GET /"),
    ] {
        let call = format!("SELECT storage.{}", call.replace("{file}", &file));
        for fault in [Fault::ReplyLost, Fault::Denied, Fault::InternalError, Fault::Truncated] {
            let before = scene.rows();
            store.set(at, fault);
            let refusal = pg_storage_tests::refused(ada.batch_execute(&call));
            assert_eq!(refusal.sqlstate, "58030", "{call} {fault:?}: {refusal:?}");
            store.heal();
            assert_eq!(scene.rows(), before, "{call} {fault:?}");
        }
        ada.batch_execute(&call).unwrap();
        flow::assert_downloads(&mut ada, &file, b"answered");
    }
}
