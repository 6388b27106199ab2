//! What confirming finds when the store holds something else than was declared: a verdict in the row, durable.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_core::presign::Method;
use pg_storage_tests::flow::{self, Ticket, Upload, confirm, recorded, some_bytes};
use pg_storage_tests::http::Headers;
use pg_storage_tests::{Scene, each_store, refused};
use postgres::Client;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89";
const ZIP: &[u8] = b"PK\x03\x04\x14\0\0\0\x08\0\0\0!\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0a.txt";

/// Confirms, and proves that the verdict is final: other sessions see it, repeating changes nothing, no file was made,
/// and the bytes go with the next maintenance.
#[track_caller]
fn assert_rejected(scene: &Scene, session: &mut Client, ticket: &Ticket, reason: &str) -> String {
    let place = scene.place_of_upload(&ticket.upload_id);
    assert!(scene.exists(&place));
    let verdict = confirm(session, &ticket.upload_id);
    assert_eq!((verdict.outcome(), verdict.finished), (("rejected", Some(reason)), true), "{verdict:?}");
    assert_eq!(recorded(&mut scene.superuser(), &ticket.upload_id), verdict, "durable");
    assert_eq!(confirm(session, &ticket.upload_id), verdict, "idempotent");
    let files = format!("SELECT count(*) FROM storage.files WHERE id = '{}'", ticket.file_id);
    assert_eq!(scene.value::<i64>(&files), 0);
    let refusal = refused(flow::abort(session, &ticket.upload_id));
    assert_eq!(refusal.code(), ("55000", "UPLOAD_NOT_PENDING"));
    scene.maintain();
    assert!(!scene.exists(&place), "rejected bytes are collected");
    verdict.details.unwrap_or_default()
}

#[test]
fn other_bytes_of_equal_length_without_a_checksum_are_read_before_they_are_believed() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("promised", 100);
        let ticket = Upload::declared(&bytes).request(&mut ada);
        assert!(ticket.put(&bytes).is_success());
        let place = scene.place_of_upload(&ticket.upload_id);
        scene.overwrite_silently(&place, "text/plain", &some_bytes("PROMISED", 100));
        let details = assert_rejected(scene, &mut ada, &ticket, "HASH_MISMATCH");
        assert!(details.contains(&flow::sha256(&some_bytes("PROMISED", 100))), "{details}");
    });
}

#[test]
fn bytes_that_replaced_the_uploaded_ones_are_rejected_for_what_is_wrong_with_them() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("promised", 100);
        for declared in [true, false] {
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            let mut replaced = |body: &[u8], content_type: &str| {
                let ticket = upload.request(&mut ada);
                assert!(ticket.put(&bytes).is_success());
                scene.overwrite(&scene.place_of_upload(&ticket.upload_id), content_type, body);
                ticket
            };
            let empty = replaced(b"", "text/plain");
            let longer = replaced(&some_bytes("promised", 101), "text/plain");
            let shorter = replaced(&bytes[..99], "text/plain");
            let other_type = replaced(&bytes, "text/html");
            let other_bytes = replaced(&some_bytes("PROMISED", 100), "text/plain");

            assert_rejected(scene, &mut ada, &empty, "EMPTY_FILE");
            let details = assert_rejected(scene, &mut ada, &longer, "SIZE_MISMATCH");
            assert!(details.contains("100") && details.contains("101"), "{details}");
            assert_rejected(scene, &mut ada, &shorter, "SIZE_MISMATCH");
            let details = assert_rejected(scene, &mut ada, &other_type, "CONTENT_TYPE_MISMATCH");
            assert!(details.contains("text/plain") && details.contains("text/html"), "{details}");
            if declared {
                let details = assert_rejected(scene, &mut ada, &other_bytes, "HASH_MISMATCH");
                assert!(details.contains(&flow::sha256(&bytes)), "{details}");
                assert!(details.contains(&flow::sha256(&some_bytes("PROMISED", 100))), "{details}");
            }
        }
    });
}

#[test]
fn leading_bytes_that_contradict_the_declared_type_are_rejected_unless_the_bucket_does_not_look() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        for declared in [true, false] {
            let upload = |bytes: &[u8], filename: &str, content_type: &str| {
                let upload = if declared { Upload::declared(bytes) } else { Upload::of(bytes) };
                upload.named(filename, content_type)
            };
            let ticket = upload(ZIP, "picture.png", "image/png").request(&mut ada);
            assert!(ticket.put(ZIP).is_success());
            let details = assert_rejected(scene, &mut ada, &ticket, "CONTENT_TYPE_MISMATCH");
            assert!(details.contains("image/png") && details.contains("application/zip"), "{details}");

            // Told alike by name, type and bytes; by bytes nobody knows; and by a container that holds the type.
            upload(PNG, "avatar.png", "image/png").complete(&mut ada, PNG);
            let vendor = [b"\x01\x02\x03\x04".as_slice(), declared.to_string().as_bytes()].concat();
            upload(&vendor, "data.own", "application/vnd.own").complete(&mut ada, &vendor);
            let document = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
            let letter = [ZIP, declared.to_string().as_bytes()].concat();
            upload(&letter, "letter.docx", document).complete(&mut ada, &letter);
        }
        scene.superuser().batch_execute("UPDATE storage.buckets SET verify_content_type = false").unwrap();
        Upload::declared(ZIP).named("trusted.png", "image/png").complete(&mut ada, ZIP);
    });
}

#[test]
fn an_upload_whose_bytes_have_not_arrived_waits_and_may_still_succeed() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        for declared in [true, false] {
            let bytes = some_bytes(&format!("late {declared}"), 100);
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            let ticket = upload.request(&mut ada);
            for _ in 0..2 {
                let verdict = confirm(&mut ada, &ticket.upload_id);
                assert_eq!(
                    (verdict.outcome(), verdict.finished),
                    (("requested", Some("NOT_UPLOADED")), false)
                );
                assert_eq!(recorded(&mut scene.superuser(), &ticket.upload_id), verdict);
            }
            assert!(ticket.put(&bytes).is_success());
            let verdict = confirm(&mut ada, &ticket.upload_id);
            assert_eq!((verdict.outcome(), verdict.finished), (("uploaded", None), true));
        }
    });
}

#[test]
fn an_aborted_upload_stays_aborted_and_its_bytes_go() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("aborted", 100);
        let ticket = Upload::declared(&bytes).request(&mut ada);
        assert!(ticket.put(&bytes).is_success());
        for _ in 0..2 {
            let verdict = flow::abort(&mut ada, &ticket.upload_id).unwrap();
            assert_eq!((verdict.outcome(), verdict.finished), (("aborted", Some("ABORTED")), true));
        }
        assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("aborted", Some("ABORTED")));
        let place = scene.place_of_upload(&ticket.upload_id);
        scene.maintain();
        assert!(!scene.exists(&place));
        // The URL still lives: what it brings in is removed once it has ended, and makes no file.
        assert!(ticket.put(&bytes).is_success());
        assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("aborted", Some("ABORTED")));
        scene.maintain();
        scene.superuser().batch_execute("UPDATE storage.object_deletions SET not_before = now()").unwrap();
        scene.maintain();
        assert!(!scene.exists(&place));
        let uploaded = Upload::declared(&bytes).complete(&mut ada, &bytes);
        let refusal = refused(flow::abort(&mut ada, &uploaded.upload_id));
        assert_eq!(refusal.code(), ("55000", "UPLOAD_NOT_PENDING"));
        assert!(refusal.detail.is_some() && refusal.hint.is_some(), "{refusal:?}");
    });
}

#[test]
fn rolling_a_confirmation_back_leaves_the_upload_to_be_confirmed_again() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        for declared in [true, false] {
            let bytes = some_bytes(&format!("rolled back {declared}"), 100);
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            let ticket = upload.request(&mut ada);
            assert!(ticket.put(&bytes).is_success());
            let before = scene.rows();
            ada.batch_execute("BEGIN").unwrap();
            assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
            flow::assert_downloads(&mut ada, &ticket.file_id, &bytes);
            ada.batch_execute("ROLLBACK").unwrap();
            assert_eq!(scene.rows(), before);
            scene.maintain();
            assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
            flow::assert_downloads(&mut ada, &ticket.file_id, &bytes);
        }
    });
}

#[test]
fn a_request_that_is_rolled_back_leaves_no_row_and_its_late_bytes_no_file() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("never", 100);
        Upload::of(&bytes).request(&mut ada);
        let before = scene.rows();
        ada.batch_execute("BEGIN").unwrap();
        let ticket = Upload::declared(&bytes).request(&mut ada);
        ada.batch_execute("ROLLBACK").unwrap();
        assert_eq!(scene.rows(), before);
        assert!(ticket.put(&bytes).is_success(), "nobody can take a URL back");
        let refusal = refused(flow::try_confirm(&mut ada, &ticket.upload_id));
        assert_eq!(refusal.code(), ("42704", "UPLOAD_NOT_FOUND"));
        assert_eq!(scene.rows(), before);
    });
}

#[test]
fn two_sessions_that_confirm_one_upload_make_one_file_and_both_succeed() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("twice", 200_000);
        for declared in [true, false] {
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            let ticket = upload.to("temp").request(&mut ada);
            assert!(ticket.put(&bytes).is_success());
            std::thread::scope(|scope| {
                let sessions = [scene.user("ada"), scene.user("ada")];
                let threads = sessions.map(|mut session| {
                    scope.spawn({
                        let upload_id = &ticket.upload_id;
                        move || confirm(&mut session, upload_id)
                    })
                });
                for thread in threads {
                    assert_eq!(thread.join().unwrap().outcome(), ("uploaded", None));
                }
            });
            flow::assert_downloads(&mut ada, &ticket.file_id, &bytes);
        }
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.files"), 2);
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 2);
    });
}

#[test]
fn confirming_asks_for_what_it_needs_and_confirming_again_asks_nothing() {
    let (scene, store) = Scene::counting();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("asked", 100_000);
    let ticket = Upload::declared(&bytes).request(&mut ada);
    assert!(ticket.put(&bytes).is_success());
    let before = scene.asked(store);
    confirm(&mut ada, &ticket.upload_id);
    let place = scene.place_of_upload(&ticket.upload_id);
    let path = format!("/{}/{}", place.0, place.1);
    let asked: Vec<String> = store
        .requests()
        .into_iter()
        .filter(|request| request.path == path)
        .map(|request| format!("{} {}", request.operation, request.status))
        .collect();
    // A ranged read of the leading bytes, beside the HEAD.
    assert_eq!(asked[..1], ["PutObject 200"]);
    let mut confirming = asked[1..].to_vec();
    confirming.sort();
    assert_eq!(confirming, ["GetObject 206", "HeadObject 200"]);
    let after = scene.asked(store);
    assert_eq!(after, before + 2);
    assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
    assert_eq!(scene.asked(store), after);
}

#[test]
fn an_error_in_the_servers_own_work_gives_its_rights_back() {
    let scene = Scene::local();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    scene.shared_bucket();
    let bytes = some_bytes("rights", 50);
    let ticket = Upload::of(&bytes).to("shared").at("taken").request(&mut bob);
    assert!(ticket.put(&bytes).is_success());
    Upload::of(&bytes).to("shared").at("taken").complete(&mut ada, &bytes);
    // Caught in the same transaction, where nothing else would reset who the session is.
    bob.batch_execute(&format!(
        "CREATE TEMP TABLE noted (caught text, role text);
         DO $$ BEGIN
             PERFORM storage.confirm_upload('{}');
         EXCEPTION WHEN duplicate_object THEN
             INSERT INTO noted VALUES (SQLERRM, current_user);
             BEGIN
                 DELETE FROM storage.objects;
                 INSERT INTO noted VALUES ('deleted', current_user);
             EXCEPTION WHEN insufficient_privilege THEN
                 INSERT INTO noted VALUES ('forbidden', current_user);
             END;
         END $$",
        ticket.upload_id
    ))
    .unwrap();
    let noted: Vec<(String, bool)> = bob
        .query("SELECT caught, role = session_user FROM noted", &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert!(noted.iter().all(|(_, own)| *own), "{noted:?}");
    assert!(noted[0].0.starts_with("PATH_TAKEN: ") && noted[1].0 == "forbidden", "{noted:?}");
}

/// The settings point to a store that knows nothing of what was uploaded to the one before.
#[test]
fn a_store_that_does_not_keep_the_bucket_is_not_asked() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("kept elsewhere", 60);
    let tickets = [Upload::declared(&bytes), Upload::of(&bytes)].map(|upload| upload.request(&mut ada));
    let (bucket, _) = scene.place_of_upload(&tickets[0].upload_id);
    assert_eq!(scene.at_store(Method::Delete, (&bucket, ""), &Headers::new(), &[]).status, 204);
    let endpoint: String = scene.value("SELECT endpoint FROM storage.physical_buckets");
    let keep = |endpoint: &str| {
        scene.superuser().execute("UPDATE storage.physical_buckets SET endpoint = $1", &[&endpoint]).unwrap();
    };
    keep("https://elsewhere.example");
    let record = "SELECT string_agg(p::text, ' ') FROM storage.physical_buckets p";
    let before: String = scene.value(record);
    for ticket in &tickets {
        let refusal = refused(flow::try_confirm(&mut ada, &ticket.upload_id));
        assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"), "{refusal:?}");
        assert!(refusal.detail.unwrap().contains("https://elsewhere.example"));
        assert!(refusal.hint.unwrap().contains("provision_bucket"));
    }
    assert_eq!(scene.value::<String>(record), before);
    keep(&endpoint);
    assert_eq!(scene.at_store(Method::Put, (&bucket, ""), &Headers::new(), &[]).status, 200);
    for ticket in &tickets {
        assert!(ticket.put(&bytes).is_success());
        assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
    }
}
