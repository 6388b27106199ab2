//! Whose objects they are: a copy of the database changes nothing in the original's store until somebody says it owns them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload, assert_downloads, some_bytes};
use pg_storage_tests::{Cluster, Scene, eventually, refused};
use postgres::Client;
use std::time::Duration;

/// A second database with the rows of the scene's, in the same cluster.
fn copy_of(scene: &Scene) -> Client {
    let cluster: &'static Cluster = scene.database.cluster();
    let (original, copy) = (scene.database.name(), format!("{}_copy", scene.database.name()));
    eventually("the sessions on the original to end", Duration::from_secs(30), || {
        let create = format!("CREATE DATABASE {copy} TEMPLATE {original}");
        cluster.connect("postgres", "postgres").batch_execute(&create).ok()
    });
    let mut session = cluster.connect("postgres", &copy);
    session
        .batch_execute(&format!(
            "SET pg_storage.bucket_prefix = '{}'; SET pg_storage.deletion_delay = 0; SET jwt.claims.user_id = 'ada'",
            scene.prefix
        ))
        .unwrap();
    session
}

fn pass(session: &mut Client) -> i64 {
    session.query_one("SELECT objects_deleted FROM storage.run_maintenance()", &[]).unwrap().get(0)
}

#[test]
fn a_copy_of_the_database_adds_and_deletes_nothing_until_it_is_declared_the_owner() {
    let (scene, store) = Scene::counting();
    scene.set("pg_storage.deletion_delay", "0");
    let bytes = some_bytes("original", 60);
    let ticket = Upload::declared(&bytes).complete(&mut scene.user("ada"), &bytes);
    let place = scene.place_of_file(&ticket.file_id);
    assert_eq!(scene.maintain(), [0, 0, 0, 0], "the original is not refused");
    let original: String =
        scene.value("SELECT DISTINCT format('system %s, database %s', system_identifier, database) FROM storage_private.installation");

    let pending = Upload::of(b"pending").request(&mut scene.user("ada"));
    let mut copy = copy_of(&scene);
    let asked = scene.asked(store);
    let provision = "SELECT name FROM storage.provision_bucket('private')";
    for refusal in [
        refused(Upload::declared(b"made by the copy").try_request(&mut copy)),
        refused(flow::try_confirm(&mut copy, &pending.upload_id)),
        refused(copy.query_one(provision, &[])),
    ] {
        assert_eq!(refusal.code(), ("55000", "NOT_OWNER_OF_OBJECTS"), "{refusal:?}");
    }
    assert_eq!(scene.asked(store), asked, "the store was not even asked");
    assert_downloads(&mut copy, &ticket.file_id, &bytes);
    copy.batch_execute(
        "UPDATE storage.upload_requests SET expires_at = now();
         DELETE FROM storage.files; UPDATE storage.object_deletions SET not_before = now()",
    )
    .unwrap();
    let asked = scene.asked(store);
    for _ in 0..2 {
        let refusal = refused(copy.query("SELECT * FROM storage.run_maintenance()", &[]));
        assert_eq!(refusal.code(), ("55000", "NOT_OWNER_OF_OBJECTS"), "{refusal:?}");
        assert!(refusal.hint.unwrap().contains("storage.adopt_installation()"));
        let detail = refusal.detail.unwrap();
        let this: String = copy
            .query_one("SELECT 'database ' || oid FROM pg_database WHERE datname = current_database()", &[])
            .unwrap()
            .get(0);
        assert!(detail.contains(&original) && detail.contains(&this), "{detail}");
    }
    assert_eq!(scene.asked(store), asked, "the store was not even asked");
    assert_downloads(&mut scene.user("ada"), &ticket.file_id, &bytes);

    copy.batch_execute("SELECT storage.adopt_installation(), storage.adopt_installation()").unwrap();
    assert_eq!(pass(&mut copy), 1);
    assert!(!scene.exists(&place));
    let own = Upload::declared(b"made by the copy").complete(&mut copy, b"made by the copy");
    assert_downloads(&mut copy, &own.file_id, b"made by the copy");
    assert_eq!(scene.maintain(), [0, 0, 0, 0], "the original goes on");
}

#[test]
fn the_first_upload_records_the_owner_and_waits_for_nobody() {
    let scene = Scene::local();
    let rows = || scene.value::<i64>("SELECT count(*) FROM storage_private.installation");
    assert_eq!(scene.maintain(), [0, 0, 0, 0], "nothing is owned, nothing is refused");
    let (mut first, mut second) = (scene.user("ada"), scene.user("ada"));
    first.batch_execute("BEGIN").unwrap();
    Upload::declared(b"undone").request(&mut first);
    second.batch_execute("SET lock_timeout = '10s'; BEGIN").unwrap();
    Upload::declared(b"done").request(&mut second);
    first.batch_execute("ROLLBACK").unwrap();
    assert_eq!(rows(), 1, "what the store may have is owned, whatever became of the upload");
    second.batch_execute("COMMIT").unwrap();
    assert!(rows() >= 1, "whoever committed an upload has committed the owner");
    Upload::declared(b"more").request(&mut first);
    assert_eq!(scene.maintain(), [0, 0, 0, 0]);
    let owners = "SELECT count(DISTINCT i) FROM storage_private.installation i";
    assert_eq!(scene.value::<i64>(owners), 1);
}

#[test]
fn rows_that_came_without_an_owner_are_left_alone() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    Upload::declared(b"bytes").complete(&mut ada, b"bytes");
    scene.superuser().batch_execute("DELETE FROM storage_private.installation").unwrap();
    // A bucket that is known to be ready serves on; the rows stay nobody's.
    let other = Upload::declared(b"other bytes").request(&mut ada);
    let refusal = refused(flow::try_confirm(&mut ada, &other.upload_id));
    assert_eq!(refusal.code(), ("55000", "NOT_OWNER_OF_OBJECTS"));
    let refusal = refused(scene.superuser().query("SELECT storage.run_maintenance()", &[]));
    assert_eq!(refusal.code(), ("55000", "NOT_OWNER_OF_OBJECTS"));
    scene.superuser().batch_execute("SELECT storage.adopt_installation()").unwrap();
    assert_eq!(scene.maintain(), [0, 0, scene.staged(1), 0]);
}

/// Inserted directly, an upload has nothing made ready, which would be recorded apart from the transaction.
const INSERT: &str = "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size)
                      SELECT id, 'a.txt', 'text/plain', 1 FROM storage.buckets WHERE key = 'private'";

fn owners(scene: &Scene) -> i64 {
    scene.value("SELECT count(*) FROM storage_private.installation")
}

#[test]
fn an_owner_that_was_rolled_back_is_recorded_again() {
    for (begin, end) in [("BEGIN", "ROLLBACK"), ("BEGIN; SAVEPOINT s", "ROLLBACK TO s; COMMIT")] {
        let scene = Scene::local();
        let mut ada = scene.user("ada");
        ada.batch_execute(&format!("{begin}; {INSERT}; {INSERT}; {end}")).unwrap();
        assert_eq!(owners(&scene), 0, "{end}");
        ada.batch_execute(INSERT).unwrap();
        assert_eq!(owners(&scene), 1, "{end}");
    }
}

#[test]
fn a_session_that_outlives_the_extension_records_the_owner_in_the_next() {
    let scene = Scene::local();
    scene.user("ada");
    let mut superuser = scene.superuser();
    superuser.batch_execute(&format!("SET jwt.claims.user_id = 'ada'; {INSERT}")).unwrap();
    assert_eq!(owners(&scene), 1);
    superuser.batch_execute("DROP EXTENSION pg_storage CASCADE; CREATE EXTENSION pg_storage").unwrap();
    superuser.batch_execute("SELECT storage.create_user_buckets('ada')").unwrap();
    assert_eq!(owners(&scene), 0);
    superuser.batch_execute(INSERT).unwrap();
    assert_eq!(owners(&scene), 1);
}
