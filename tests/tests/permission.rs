//! The permission comes before the store: who may not upload to a bucket has nothing made for it, whatever they call.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{LocalStore, Scene, refused};
use postgres::Client;

/// The id of a bucket that nobody has used yet.
fn bucket(scene: &Scene, owner: &str, key: &str) -> String {
    scene.value(&format!("SELECT id::text FROM storage.buckets WHERE owner_id = '{owner}' AND key = '{key}'"))
}

/// No bucket was made ready, named, or asked for.
#[track_caller]
fn assert_untouched(scene: &Scene, store: &LocalStore) {
    assert_eq!(scene.asked(store), 0);
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.physical_buckets"), 0);
    assert_eq!(scene.value::<i64>("SELECT count(physical_name) FROM storage.buckets"), 0);
}

fn insert(session: &mut Client, bucket: &str) -> Result<u64, postgres::Error> {
    session.execute(
        "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size)
         VALUES ($1::text::uuid, 'note.txt', 'text/plain', 1)",
        &[&bucket],
    )
}

#[test]
fn a_bucket_that_is_seen_but_not_uploaded_to_is_not_provisioned() {
    let (scene, store) = Scene::counting();
    let (_ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let public = bucket(&scene, "ada", "public");
    let before = scene.rows();
    for upload in [Upload::of(b"x"), Upload::declared(b"x")] {
        let refusal = refused(upload.to(&public).try_request(&mut bob));
        assert_eq!(refusal.code(), ("42501", "RBAC_FORBIDDEN"));
    }
    assert_eq!(refused(insert(&mut bob, &public)).sqlstate, "42501");
    assert_eq!(scene.rows(), before);
    assert_untouched(&scene, store);
}

/// Without the library's help no URL names it, so there is nothing that it could wait for or leave behind.
#[test]
fn a_row_inserted_directly_before_the_first_use_has_no_place_and_ends_like_any_other() {
    let (scene, store) = Scene::counting();
    let mut ada = scene.user("ada");
    let private = bucket(&scene, "ada", "private");
    for _ in 0..3 {
        insert(&mut ada, &private).unwrap();
    }
    assert_untouched(&scene, store);
    let ids: Vec<String> = scene.value("SELECT array_agg(id::text) FROM storage.upload_requests");
    assert_eq!(flow::confirm(&mut ada, &ids[0]).outcome(), ("requested", Some("NOT_UPLOADED")));
    ada.execute("SELECT storage.abort_upload($1::text::uuid)", &[&ids[0]]).unwrap();
    let mut superuser = scene.superuser();
    superuser
        .batch_execute(&format!(
            "UPDATE storage.upload_requests SET expires_at = now() WHERE id = '{}';
             DELETE FROM storage.upload_requests WHERE id = '{}'",
            ids[1], ids[2]
        ))
        .unwrap();
    assert_eq!(scene.maintain()[0], 1);
    let ended: Vec<String> =
        scene.value("SELECT array_agg(status::text ORDER BY status) FROM storage.upload_requests");
    assert_eq!(ended, ["expired", "aborted"]);
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.object_deletions"), 0);
    assert_untouched(&scene, store);
}

/// The URL of a first use lives as long as any other: the time that provisioning took is not taken off.
#[test]
fn the_first_use_places_the_request_and_starts_its_time_then() {
    let (scene, store) = Scene::counting();
    let mut ada = scene.user("ada");
    let ticket = Upload::declared(b"first").request(&mut ada);
    assert!(scene.asked(store) > 0);
    let placed: bool = scene.value(
        "SELECT u.physical_name = b.physical_name AND u.object_key = u.final_key AND u.direct
             AND u.expires_at = u.created_at + interval '15 minutes'
             AND u.created_at >= (SELECT provisioned_at FROM storage.physical_buckets)
         FROM storage.upload_requests u JOIN storage.buckets b ON b.id = u.bucket_id",
    );
    assert!(placed);
    assert!(ticket.put(b"first").is_success());
    assert_eq!(flow::confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
}

/// A path, a quota or a rate is not told to somebody who may not upload in any case.
#[test]
fn limits_are_told_only_to_those_who_may_upload() {
    let (scene, _store) = Scene::counting();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    Upload::of(b"taken").to("public").at("taken.txt").complete(&mut ada, b"taken");
    scene
        .superuser()
        .batch_execute("UPDATE storage.buckets SET max_file_count = 1 WHERE key = 'public'")
        .unwrap();
    let public = bucket(&scene, "ada", "public");
    for upload in [Upload::of(b"x"), Upload::of(b"x").at("taken.txt"), Upload::of(b"x").at("free.txt")] {
        let refusal = refused(upload.to(&public).try_request(&mut bob));
        assert_eq!(refusal.code(), ("42501", "RBAC_FORBIDDEN"), "{refusal:?}");
    }
    assert_eq!(refused(insert(&mut bob, &public)).sqlstate, "42501");
    let full = refused(Upload::of(b"x").to("public").try_request(&mut ada));
    assert_eq!(full.code(), ("53400", "QUOTA_EXCEEDED"));
    assert_eq!(refused(insert(&mut ada, &public)).code(), ("53400", "QUOTA_EXCEEDED"));
}
