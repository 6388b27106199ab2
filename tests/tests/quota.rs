//! Limits of a bucket hold exactly, also for those who ask at the same moment, and cost nothing where none are set.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload, confirm, some_bytes};
use pg_storage_tests::{Scene, refused};

fn limited(limits: &str) -> Scene {
    let scene = Scene::local();
    scene.user("ada");
    scene
        .superuser()
        .batch_execute(&format!("UPDATE storage.buckets SET {limits} WHERE key = 'private'"))
        .unwrap();
    scene
}

#[test]
fn pending_uploads_reserve_and_whatever_ends_without_a_file_releases() {
    let scene = limited("max_total_size = 250");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("quota", 100);
    let upload = Upload::declared(&bytes);
    let full = |ada: &mut postgres::Client| {
        let refusal = refused(upload.try_request(ada));
        assert_eq!(refusal.code(), ("53400", "QUOTA_EXCEEDED"));
        assert!(refusal.detail.unwrap().contains("200 bytes in 2 files"), "the numbers are told");
    };
    let file = upload.complete(&mut ada, &bytes);
    let pending = upload.clone().named("other.json", "application/json").request(&mut ada);
    full(&mut ada);

    flow::abort(&mut ada, &pending.upload_id).unwrap();
    let expiring =
        upload.clone().named("other.json", "application/json").expiring_in("1 second").request(&mut ada);
    assert!(!expiring.deduplicated);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(upload.request(&mut ada).deduplicated, "bytes that are shared count as a file of their own");
    full(&mut ada);
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&file.file_id]).unwrap();
    assert!(upload.request(&mut ada).deduplicated);
    full(&mut ada);
}

#[test]
fn the_number_of_files_is_limited_too() {
    let scene = limited("max_file_count = 1");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("count", 10);
    let ticket = Upload::declared(&bytes).request(&mut ada);
    assert_eq!(refused(Upload::declared(&bytes).try_request(&mut ada)).code(), ("53400", "QUOTA_EXCEEDED"));
    assert!(ticket.put(&bytes).is_success());
    assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
    assert_eq!(refused(Upload::declared(&bytes).try_request(&mut ada)).code(), ("53400", "QUOTA_EXCEEDED"));
    // Other buckets are not concerned.
    Upload::declared(&bytes).to("public").complete(&mut ada, &bytes);
}

#[test]
fn many_who_ask_for_the_last_room_at_once_get_it_once() {
    let scene = limited("max_total_size = 1000");
    let bytes = some_bytes("race", 300);
    Upload::declared(&bytes).to("public").complete(&mut scene.user("ada"), &bytes);
    let granted: usize = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..8)
            .map(|at| {
                let mut ada = scene.user("ada");
                scope.spawn(move || {
                    usize::from(Upload::of(&some_bytes(&at.to_string(), 300)).try_request(&mut ada).is_ok())
                })
            })
            .collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).sum()
    });
    assert_eq!(granted, 3);
}
