//! Uploads that a store turns into copies of others' objects, because it obeys headers that nobody signed: Ceph 16 does.
//! Signed marks tell them apart, also while it is not on record what the store enforces.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Ticket, Upload, assert_downloads, confirm, some_bytes};
use pg_storage_tests::{Scene, http, say};

/// What others could not know of the store if the record of its capabilities is gone, or of a version that tried less.
const FORGETTING: [&str; 2] = [
    "DELETE FROM storage.store_capabilities",
    "UPDATE storage.store_capabilities SET capabilities = capabilities - 'unsigned'",
];

/// Asks for an upload and has the store fill it with the bytes of another's file, if it does that.
fn steal(scene: &Scene, place: &(String, String), bytes: &[u8]) -> (Ticket, bool) {
    let ticket = Upload::of(bytes).request(&mut scene.user("eve"));
    let mut headers = ticket.headers.clone();
    headers.insert("x-amz-copy-source".to_owned(), format!("/{}/{}", place.0, place.1));
    let taken = http::put(ticket.url(), &headers, bytes).is_success();
    (ticket, taken)
}

#[test]
fn a_copy_is_not_taken_for_an_upload_whether_or_not_the_store_is_on_record() {
    for (name, scene) in [("Ceph", Scene::ceph()), ("local store", Scene::local())] {
        let bytes = some_bytes("ada's", 300);
        let others = some_bytes("eve's", 300);
        let file = Upload::of(&bytes).complete(&mut scene.user("ada"), &bytes).file_id;
        let place = scene.place_of_file(&file);
        let mut obeyed = 0;
        for forget in FORGETTING {
            let [(asked, first), (left, second)] = [(); 2].map(|()| steal(&scene, &place, &others));
            obeyed += usize::from(first) + usize::from(second);
            scene.superuser().batch_execute(forget).unwrap();
            let mut eve = scene.user("eve");
            let verdict = confirm(&mut eve, &asked.upload_id);
            let expected = if first { "rejected" } else { "requested" };
            assert_eq!(verdict.status, expected, "{name}: {forget}: {verdict:?}");

            scene.superuser().batch_execute(forget).unwrap();
            scene.set("pg_storage.unconfirmed_uploads", "confirm");
            scene
                .superuser()
                .execute(
                    "UPDATE storage.upload_requests SET expires_at = now() WHERE id = $1::text::uuid",
                    &[&left.upload_id],
                )
                .unwrap();
            scene.superuser().batch_execute("SELECT storage.run_maintenance()").unwrap();
            scene.set("pg_storage.unconfirmed_uploads", "expire");
            let verdict = flow::recorded(&mut eve, &left.upload_id);
            assert_ne!(verdict.status, "uploaded", "{name}: {forget}: {verdict:?}");
            assert!(verdict.finished, "{name}: {forget}: {verdict:?}");
            // An honest one is.
            let honest = Upload::of(&others).complete(&mut eve, &others);
            assert_downloads(&mut eve, &honest.file_id, &others);
        }
        say(&format!("marks: {name} obeyed {obeyed} of 4 headers that nobody signed"));
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.files WHERE owner_id = 'eve'"), 2);
    }
}
