//! The cache of provisioned buckets is a hint: it saves calls, and it never answers who may do what.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::scene::remote;
use pg_storage_tests::{Cluster, LocalStore, Options, Scene, refused};

/// A cluster and a store of the test's own, for counters count everything. They end with the process: a scene lives as
/// long as its cluster.
fn own(options: impl FnOnce(Options) -> Options) -> (Scene, &'static LocalStore) {
    let store: &'static LocalStore = Box::leak(Box::new(LocalStore::start()));
    let cluster = Box::leak(Box::new(Cluster::start(options(remote(store.access())))));
    (Scene::on(cluster, store.access()), store)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stats {
    shared: bool,
    capacity: i32,
    entries: i32,
    hits: i64,
    misses: i64,
    provisionings: i64,
    evictions: i64,
}

/// As `session` sees them: without preload each session has its own.
fn stats(session: &mut postgres::Client) -> Stats {
    let row = session.query_one("SELECT * FROM storage.cache_stats()", &[]).unwrap();
    Stats {
        shared: row.get(0),
        capacity: row.get(1),
        entries: row.get(2),
        hits: row.get(3),
        misses: row.get(4),
        provisionings: row.get(5),
        evictions: row.get(6),
    }
}

fn buckets(scene: &Scene, count: usize) {
    let make = format!(
        "SELECT storage.create_bucket('b' || n, owner_id => 'ada') FROM generate_series(1, {count}) n"
    );
    scene.manager("ada").batch_execute(&make).unwrap();
}

#[test]
fn what_one_session_provisioned_every_session_knows_and_a_thousand_warm_requests_call_no_store() {
    let (scene, store) = own(|options| options);
    let mut admin = scene.superuser();
    assert_eq!((stats(&mut admin).shared, stats(&mut admin).entries), (true, 0));
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    Upload::declared(b"first").complete(&mut ada, b"first");
    let cold = stats(&mut admin);
    assert_eq!((cold.entries, cold.provisionings, cold.evictions), (1, 1, 0));
    assert!(cold.misses >= 1);

    let before = store.requests().len();
    for n in 0..500 {
        let bytes = format!("warm {n}").into_bytes();
        Upload::declared(&bytes).request(&mut ada);
        Upload::of(&bytes).request(&mut bob);
    }
    assert_eq!(store.requests().len(), before, "1000 warm requests");
    let warm = stats(&mut admin);
    assert_eq!((warm.hits - cold.hits, warm.misses), (1000, cold.misses));
    assert_eq!(warm.provisionings, 1);

    let rows = admin
        .query("SELECT physical_name, endpoint, direct FROM storage.provisioned_buckets()", &[])
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, &str>(1), store.access().endpoint);
    assert!(rows[0].get::<_, bool>(2));
}

#[test]
fn databases_know_only_their_own_buckets() {
    let (scene, store) = own(|options| options);
    Upload::declared(b"x").complete(&mut scene.user("ada"), b"x");
    let other = Scene::on(scene.database.cluster(), store.access());
    assert_eq!(stats(&mut other.superuser()).entries, 0);
    assert_eq!(other.value::<i64>("SELECT count(*) FROM storage.provisioned_buckets()"), 0);
    other.superuser().batch_execute("SELECT storage.reset_cache()").unwrap();
    assert_eq!(stats(&mut scene.superuser()).entries, 1);
}

#[test]
fn losing_the_cache_costs_a_look_up_and_no_call() {
    let (scene, store) = own(|options| options);
    let mut ada = scene.user("ada");
    Upload::declared(b"x").complete(&mut ada, b"x");
    let mut admin = scene.superuser();
    let before = (store.requests().len(), stats(&mut admin));
    admin.batch_execute("SELECT storage.reset_cache()").unwrap();
    assert_eq!(stats(&mut admin).entries, 0);
    Upload::declared(b"y").request(&mut ada);
    let after = (store.requests().len(), stats(&mut admin));
    assert_eq!(after.0, before.0);
    assert_eq!((after.1.entries, after.1.provisionings), (1, 1));
    assert!(after.1.misses > before.1.misses);
    // A restart forgets it all as well.
    scene.database.cluster().restart(pg_storage_tests::Stop::Fast);
    Upload::declared(b"z").request(&mut scene.user("ada"));
    assert_eq!(store.requests().len(), before.0);
}

#[test]
fn without_preload_every_session_has_its_own_and_check_says_so() {
    let (scene, store) = own(Options::without_preload);
    let (mut one, mut two) = (scene.superuser(), scene.superuser());
    one.batch_execute("SELECT storage.create_bucket('b', owner_id => 'postgres')").unwrap();
    Upload::declared(b"x").to("b").complete(&mut one, b"x");
    let before = store.requests().len();
    Upload::declared(b"y").to("b").request(&mut two);
    Upload::declared(b"z").to("b").request(&mut two);
    assert_eq!(store.requests().len(), before, "what is on record is enough");
    assert_eq!((stats(&mut one).shared, stats(&mut one).provisionings), (false, 1));
    let second = stats(&mut two);
    assert_eq!((second.entries, second.hits, second.provisionings), (1, 1, 0));
    two.batch_execute("SELECT storage.reset_cache()").unwrap();
    assert_eq!((stats(&mut one).entries, stats(&mut two).entries), (1, 0));

    let row = two
        .query_one("SELECT status, detail, hint FROM storage.check() WHERE name = 'preload'", &[])
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "warn");
    assert!(row.get::<_, &str>(1).contains("every session has a cache of its own"));
    assert!(row.get::<_, &str>(2).contains("shared_preload_libraries"));
}

#[test]
fn a_change_of_origins_that_is_rolled_back_applies_nothing() {
    let (scene, store) = own(|options| options);
    let mut ada = scene.user("ada");
    Upload::declared(b"x").complete(&mut ada, b"x");
    let before = store.requests().len();
    let change = "UPDATE storage.buckets SET allowed_origins = '{https://changed.example}'";
    let mut manager = scene.manager("ada");
    for undone in [
        format!("BEGIN; {change}; ROLLBACK"),
        format!("BEGIN; SAVEPOINT s; {change}; ROLLBACK TO s; COMMIT"),
        format!("BEGIN; {change}"),
    ] {
        manager.batch_execute(&undone).unwrap();
        Upload::declared(b"y").request(&mut ada);
        assert_eq!(store.requests().len(), before, "{undone}");
    }
    // Committed, it is applied, once, by whoever comes next.
    manager.batch_execute("COMMIT").unwrap();
    Upload::declared(b"y").request(&mut ada);
    Upload::declared(b"y").request(&mut ada);
    let applied = store.requests()[before..].iter().filter(|r| r.operation == "PutBucketCors").count();
    assert_eq!(applied, 1);
    assert_eq!(stats(&mut scene.superuser()).provisionings, 2);
}

#[test]
fn a_full_cache_evicts_and_never_fails() {
    let (scene, store) = own(|options| options.setting("pg_storage.cache_entries", "64"));
    scene.set("pg_storage.bucket_layout", "bucket");
    buckets(&scene, 90);
    let mut ada = scene.user("ada");
    for n in 1..=90 {
        Upload::declared(b"x").to(&format!("b{n}")).request(&mut ada);
    }
    let mut admin = scene.superuser();
    let full = stats(&mut admin);
    assert_eq!((full.capacity, full.provisionings), (64, 90));
    assert!(full.entries <= 64 && full.evictions >= 26, "{full:?}");
    assert_eq!(i64::from(full.entries) + full.evictions, 90);

    // What was evicted costs a look-up, and no call.
    let before = store.requests().len();
    for n in 1..=90 {
        Upload::declared(b"y").to(&format!("b{n}")).request(&mut ada);
    }
    assert_eq!(store.requests().len(), before);
    let after = stats(&mut admin);
    assert_eq!(after.provisionings, 90);
    assert!(after.misses > full.misses);
}

#[test]
fn a_warm_cache_lets_nobody_do_what_the_policies_deny() {
    let (scene, store) = own(|options| options);
    let mut ada = scene.user("ada");
    for access in ["private", "public"] {
        Upload::declared(b"warm").to(access).complete(&mut ada, b"warm");
    }
    let id = |key: &str| -> String {
        scene.value(&format!("SELECT id::text FROM storage.buckets WHERE key = '{key}' AND owner_id = 'ada'"))
    };
    let (private, public) = (id("private"), id("public"));
    let reader = scene.database.role("reader");
    let before = scene.rows();
    let asked = store.requests().len();

    // Another user of the tenant, another tenant, and a reader in the owner's own name.
    let mut bob = scene
        .database
        .connect_as(&format!("{}_writer", scene.database.name()), &[("jwt.claims.user_id", "bob")]);
    let hidden = refused(Upload::declared(b"warm").to(&private).try_request(&mut bob));
    assert_eq!(hidden.code(), ("42704", "BUCKET_NOT_FOUND"));
    let forbidden = refused(Upload::declared(b"warm").to(&public).try_request(&mut bob));
    assert_eq!(forbidden.code(), ("42501", "RBAC_FORBIDDEN"));
    let claims = [("jwt.claims.user_id", "eve"), ("jwt.claims.tenant_id", "acme")];
    let mut eve = scene.database.connect_as(&format!("{}_writer", scene.database.name()), &claims);
    for bucket in [&private, &public] {
        let hidden = refused(Upload::declared(b"warm").to(bucket).try_request(&mut eve));
        assert_eq!(hidden.code(), ("42704", "BUCKET_NOT_FOUND"));
    }
    let mut reading = scene.database.connect_as(&reader, &[("jwt.claims.user_id", "ada")]);
    assert_eq!(refused(Upload::declared(b"warm").to(&private).try_request(&mut reading)).sqlstate, "42501");

    // Without policies nobody sees anything, however warm it is.
    scene.superuser().batch_execute("SELECT storage.enable_default_policies(false)").unwrap();
    let hidden = refused(Upload::declared(b"warm").to(&private).try_request(&mut ada));
    assert_eq!(hidden.code(), ("42704", "BUCKET_NOT_FOUND"));
    scene.superuser().batch_execute("SELECT storage.enable_default_policies(true)").unwrap();

    assert_eq!(scene.rows(), before);
    assert_eq!(store.requests().len(), asked);
    let ticket = Upload::declared(b"still mine").complete(&mut ada, b"still mine");
    flow::assert_downloads(&mut ada, &ticket.file_id, b"still mine");

    // Names of physical buckets are not for everybody either.
    for function in ["cache_stats()", "provisioned_buckets()", "reset_cache()"] {
        assert_eq!(
            refused(ada.query(&format!("SELECT storage.{function}"), &[])).sqlstate,
            "42501",
            "{function}"
        );
    }
}

#[test]
fn a_session_with_an_old_snapshot_keeps_what_it_sees_to_itself() {
    let (scene, store) = own(|options| options);
    let (mut ada, mut old) = (scene.user("ada"), scene.user("ada"));
    Upload::declared(b"x").complete(&mut ada, b"x");
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM storage.buckets").unwrap();
    scene
        .manager("ada")
        .batch_execute("UPDATE storage.buckets SET allowed_origins = '{https://changed.example}'")
        .unwrap();
    Upload::declared(b"old").request(&mut old);
    let before = store.requests().len();
    Upload::declared(b"new").request(&mut ada);
    let applied = store.requests()[before..].iter().filter(|r| r.operation == "PutBucketCors").count();
    assert_eq!(applied, 1);
}

#[test]
fn an_extension_made_anew_knows_nothing_of_the_one_before() {
    let (scene, _) = own(|options| options);
    Upload::declared(b"x").complete(&mut scene.user("ada"), b"x");
    let mut admin = scene.superuser();
    admin.batch_execute("DROP EXTENSION pg_storage CASCADE; CREATE EXTENSION pg_storage").unwrap();
    assert_eq!(stats(&mut admin).entries, 0);
    admin.batch_execute("SELECT storage.create_bucket('b', owner_id => 'postgres')").unwrap();
    Upload::declared(b"y").to("b").complete(&mut admin, b"y");
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.physical_buckets WHERE state = 'ready'"), 1);
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.store_capabilities"), 1);
}

#[test]
fn without_preload_a_change_of_origins_reaches_a_session_that_knew_the_bucket() {
    let (scene, store) = own(Options::without_preload);
    let mut ada = scene.user("ada");
    for bytes in [b"one", b"two"] {
        Upload::declared(bytes).request(&mut ada);
    }
    scene
        .manager("ada")
        .batch_execute("UPDATE storage.buckets SET allowed_origins = '{https://changed.example}'")
        .unwrap();
    let before = store.requests().len();
    for bytes in [b"3", b"4"] {
        Upload::declared(bytes).request(&mut ada);
    }
    let applied = store.requests()[before..].iter().filter(|r| r.operation == "PutBucketCors").count();
    assert_eq!(applied, 1);
}
