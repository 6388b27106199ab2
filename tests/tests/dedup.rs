//! Identical bytes are shared only when they were verified, only within the bucket's scope, only with those who can read
//! them anyway; and sharing never lets one file's end touch another's bytes.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_core::presign::Method;
use pg_storage_tests::flow::{self, Ticket, Upload, assert_downloads, confirm, some_bytes};
use pg_storage_tests::http::Headers;
use pg_storage_tests::{Scene, each_store};
use postgres::Client;

fn count(scene: &Scene, table: &str) -> i64 {
    scene.value(&format!("SELECT count(*) FROM storage.{table}"))
}

fn object_of(scene: &Scene, ticket: &Ticket) -> String {
    scene.value(&format!("SELECT object_id::text FROM storage.files WHERE id = '{}'", ticket.file_id))
}

fn delete(session: &mut Client, ticket: &Ticket) {
    session.execute("SELECT storage.delete_file($1::text::uuid)", &[&ticket.file_id]).unwrap();
}

#[test]
fn verified_bytes_are_not_sent_again() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("known", 100);
        // Verified is verified, whether the hash was declared or computed.
        let first = Upload::of(&bytes).complete(&mut ada, &bytes);
        let again = Upload::declared(&bytes).named("copy.txt", "text/plain").at("a/copy").request(&mut ada);
        assert!(again.deduplicated);
        assert_eq!((&again.url, again.expires_at), (&None, None));
        assert!(again.headers.is_empty(), "{:?}", again.headers);
        assert_ne!(again.file_id, first.file_id);
        assert_eq!(
            confirm(&mut ada, &again.upload_id).outcome(),
            ("uploaded", None),
            "confirming is harmless"
        );
        assert_downloads(&mut ada, &again.file_id, &bytes);
        assert_eq!(object_of(scene, &first), object_of(scene, &again));
        let name: String = ada
            .query_one(
                "SELECT filename || ' ' || path FROM storage.files WHERE id = $1::text::uuid",
                &[&again.file_id],
            )
            .unwrap()
            .get(0);
        assert_eq!(name, "copy.txt a/copy");
        // Undeclared bytes have to come: nobody knows what they are.
        assert!(!Upload::of(&bytes).request(&mut ada).deduplicated);
    });
}

#[test]
fn a_claim_of_another_type_or_size_is_no_hit() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("typed", 100);
    Upload::declared(&bytes).named("orig.json", "application/json").complete(&mut ada, &bytes);
    let other = Upload::declared(&bytes).named("evil.txt", "text/plain");
    assert!(!other.request(&mut ada).deduplicated);
    assert!(!Upload { size: 99, ..other.clone() }.request(&mut ada).deduplicated);
    // Whoever has the bytes gets the type that was declared with them.
    let sent = other.complete(&mut ada, &bytes);
    assert_eq!(flow::download(&mut ada, &sent.file_id).headers["content-type"], "text/plain");
}

/// Deletes the last file over bytes and lets a pass of maintenance that is rolled back remove them from the store.
fn lose_bytes_but_not_their_record(scene: &Scene, file_id: &str) {
    let mut superuser = scene.superuser();
    superuser.execute("SELECT storage.delete_file($1::text::uuid)", &[&file_id]).unwrap();
    superuser.batch_execute("BEGIN; SELECT storage.run_maintenance(); ROLLBACK").unwrap();
}

#[test]
fn a_snapshot_that_still_sees_a_deleted_file_shares_nothing() {
    let scene = Scene::local();
    scene.set("pg_storage.deletion_delay", "0");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("old snapshot", 100);
    for claim_only in [true, false] {
        let first = Upload::declared(&bytes).complete(&mut ada, &bytes);
        let pending = Upload::declared(&bytes).named("other.txt", "text/plain");
        // Asked for before the snapshot, so that confirming is all that happens in it.
        let mut late = scene.user("ada");
        late.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
        assert_eq!(late.query("SELECT FROM storage.files", &[]).unwrap().len(), 1);
        lose_bytes_but_not_their_record(&scene, &first.file_id);

        let ticket = pending.request(&mut late);
        assert!(!ticket.deduplicated);
        assert!(ticket.put(&bytes).is_success());
        if claim_only {
            late.batch_execute("ROLLBACK").unwrap();
        } else {
            assert_eq!(confirm(&mut late, &ticket.upload_id).outcome(), ("uploaded", None));
            late.batch_execute("COMMIT").unwrap();
            scene.maintain();
            assert_downloads(&mut ada, &ticket.file_id, &bytes);
        }
        scene.maintain();
    }
}

#[test]
fn private_public_and_temporary_files_share_nothing_even_in_one_physical_bucket() {
    let scene = Scene::local();
    scene.user("ada");
    scene.superuser().batch_execute("UPDATE storage.buckets SET dedup = 'owner'").unwrap();
    let bytes = some_bytes("one bucket for all", 100);
    let mut objects = Vec::new();
    let answer = scene.at_store(Method::Put, ("one-for-all", ""), &Headers::new(), &[]);
    assert!(answer.is_success(), "{}", answer.text());
    scene.set("pg_storage.fixed_bucket", "one-for-all");
    let mut ada = scene.user("ada");
    for bucket in ["temp", "public", "private"] {
        // Undeclared as well, so that confirming looks for an object to share.
        let sent = Upload::of(&bytes).to(bucket).complete(&mut ada, &bytes);
        objects.push(scene.place_of_file(&sent.file_id).1);
    }
    for (object, access) in objects.iter().zip(["temp", "public", "private"]) {
        assert!(object.starts_with(&format!("{access}/")), "{access}: {object}");
    }
}

#[test]
fn an_upload_that_was_not_verified_is_never_a_hit() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("unverified", 100);
        let upload = Upload::declared(&bytes);
        let mut ask = |what: &str| {
            let ticket = upload.request(&mut ada);
            assert!(!ticket.deduplicated && ticket.url.is_some(), "{what}");
            ticket
        };
        ask("nothing known");
        ask("requested");
        let sent = ask("requested");
        assert!(sent.put(&bytes).is_success());
        let rejected = ask("sent and not confirmed");
        assert!(rejected.put(&bytes).is_success());
        scene.overwrite(&scene.place_of_upload(&rejected.upload_id), "text/plain", b"x");
        let aborted = ask("requested");
        let mut second = scene.user("ada");
        assert_eq!(confirm(&mut second, &rejected.upload_id).outcome().0, "rejected");
        flow::abort(&mut second, &aborted.upload_id).unwrap();
        ask("rejected and aborted");
        scene
            .superuser()
            .batch_execute("UPDATE storage.upload_requests SET expires_at = now() - interval '1 minute'")
            .unwrap();
        scene.maintain();
        ask("expired");
        let last = ask("expired");
        assert_eq!(count(scene, "files"), 0);
        assert!(last.put(&bytes).is_success());
        assert_eq!(confirm(&mut second, &last.upload_id).outcome(), ("uploaded", None));
        assert!(upload.request(&mut second).deduplicated, "and now it is one");
    });
}

#[test]
fn sharing_keeps_to_the_scope_of_the_bucket() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let mut bob = scene.user("bob");
    let mut superuser = scene.superuser();
    let mut manager = scene.manager("ada");
    for key in ["second", "third"] {
        manager.execute("SELECT storage.create_bucket($1)", &[&key]).unwrap();
    }
    let bytes = some_bytes("scope", 100);
    let hit = |session: &mut Client, bucket: &str| {
        Upload::declared(&bytes).to(bucket).request(session).deduplicated
    };

    Upload::declared(&bytes).complete(&mut ada, &bytes);
    assert!(hit(&mut ada, "private"));
    assert!(!hit(&mut ada, "second"), "scope bucket: another bucket");
    assert!(!hit(&mut bob, "private"), "another user's bucket");

    superuser
        .batch_execute("UPDATE storage.buckets SET dedup = 'owner' WHERE key IN ('private', 'second')")
        .unwrap();
    assert!(hit(&mut ada, "second"), "scope owner: another bucket of the same owner");
    assert!(!hit(&mut ada, "third"), "which does not share");
    assert!(!hit(&mut ada, "public"), "private bytes never serve a public bucket");
    assert!(!hit(&mut bob, "private"), "another owner");

    superuser.batch_execute("UPDATE storage.buckets SET dedup = 'off'").unwrap();
    assert!(!hit(&mut ada, "private") && !hit(&mut ada, "second"));
    let objects = count(&scene, "objects");
    Upload::declared(&bytes).complete(&mut ada, &bytes);
    assert_eq!(count(&scene, "objects"), objects + 1, "off: confirming does not share either");

    superuser.batch_execute("UPDATE storage.buckets SET dedup = 'owner'").unwrap();
    for _ in 0..2 {
        assert!(!hit(&mut ada, "temp"));
        Upload::declared(&bytes).to("temp").complete(&mut ada, &bytes);
    }
    assert_eq!(count(&scene, "objects"), objects + 3, "temp never shares");
}

#[test]
fn sharing_across_buckets_brings_no_type_into_a_bucket_that_does_not_take_it() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let mut manager = scene.manager("ada");
    manager
        .batch_execute("SELECT storage.create_bucket('texts', allowed_mime_types => '{text/plain}')")
        .unwrap();
    scene.superuser().batch_execute("UPDATE storage.buckets SET dedup = 'owner'").unwrap();
    let bytes = some_bytes("script", 100);
    Upload::declared(&bytes).named("page.html", "text/html").complete(&mut ada, &bytes);
    let claim = Upload::declared(&bytes).to("texts").request(&mut ada);
    assert!(!claim.deduplicated);
    assert!(claim.put(&bytes).is_success());
    assert_eq!(confirm(&mut ada, &claim.upload_id).outcome(), ("uploaded", None));
    assert_eq!(flow::download(&mut ada, &claim.file_id).headers["content-type"], "text/plain");
}

#[test]
fn a_hash_of_bytes_the_caller_cannot_see_is_no_hit_and_tells_nothing() {
    each_store(|scene| {
        let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
        // One bucket for the tenant, in which everybody sees their own files only.
        scene
            .superuser()
            .batch_execute(
                "INSERT INTO storage.buckets (tenant_id, owner_id, key) VALUES ('default', NULL, 'shared');
                 DROP POLICY default_select ON storage.files;
                 CREATE POLICY own ON storage.files FOR SELECT USING (owner_id = storage.current_user_id())",
            )
            .unwrap();
        let bytes = some_bytes("secret of ada", 100);
        let hers = Upload::declared(&bytes).to("shared").complete(&mut ada, &bytes);
        let his = Upload::declared(&bytes).to("shared").request(&mut bob);
        assert!(!his.deduplicated);
        // Without the bytes there is no file.
        assert_eq!(confirm(&mut bob, &his.upload_id).outcome(), ("requested", Some("NOT_UPLOADED")));
        assert!(his.put(&bytes).is_success());
        assert_eq!(confirm(&mut bob, &his.upload_id).outcome(), ("uploaded", None));
        assert_eq!(object_of(scene, &hers), object_of(scene, &his), "who has the bytes may share them");
        assert!(Upload::declared(&bytes).to("shared").request(&mut bob).deduplicated);
        assert_downloads(&mut bob, &his.file_id, &bytes);
        assert_eq!(bob.query("SELECT FROM storage.files", &[]).unwrap().len(), 2);
    });
}

#[test]
fn identical_uploads_confirmed_at_once_are_one_object_and_two_files() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        for declared in [true, false] {
            let bytes = some_bytes(&format!("at once {declared}"), 1000);
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            // Both have requested and sent before either confirms.
            let barrier = std::sync::Barrier::new(2);
            let tickets = std::thread::scope(|scope| {
                let sessions = [scene.user("ada"), scene.user("ada")];
                let (upload, barrier, bytes) = (&upload, &barrier, &bytes);
                let threads = sessions.map(|mut session| {
                    scope.spawn(move || {
                        let ticket = upload.request(&mut session);
                        assert!(!ticket.deduplicated);
                        assert!(ticket.put(bytes).is_success());
                        barrier.wait();
                        assert_eq!(confirm(&mut session, &ticket.upload_id).outcome(), ("uploaded", None));
                        ticket
                    })
                });
                threads.map(|thread| thread.join().unwrap())
            });
            let [one, two] = &tickets;
            assert_eq!(object_of(scene, one), object_of(scene, two));
            assert_eq!(scene.place_of_file(&one.file_id), scene.place_of_file(&two.file_id));

            let mut ada = scene.user("ada");
            scene.maintain();
            let place = scene.place_of_file(&one.file_id);
            let keys = tickets.each_ref().map(|ticket| scene.place_of_upload(&ticket.upload_id));
            assert_eq!(
                keys.iter().filter(|key| **key != place && scene.exists(key)).count(),
                0,
                "the other key goes"
            );
            delete(&mut ada, one);
            scene.maintain();
            assert_downloads(&mut ada, &two.file_id, &bytes);
            delete(&mut ada, two);
            scene.maintain();
            assert!(!scene.exists(&place), "after the last file the bytes go");
            assert_eq!(count(scene, "objects"), 0);
        }
    });
}

#[test]
fn confirming_waits_for_another_that_is_recording_the_same_bytes() {
    let scene = Scene::local();
    let (mut one, mut two) = (scene.user("ada"), scene.user("ada"));
    let bytes = some_bytes("recording", 100);
    let tickets = [Upload::declared(&bytes).request(&mut one), Upload::of(&bytes).request(&mut two)];
    assert!(tickets.iter().all(|ticket| ticket.put(&bytes).is_success()));
    one.batch_execute("BEGIN").unwrap();
    assert_eq!(confirm(&mut one, &tickets[0].upload_id).outcome(), ("uploaded", None));
    let (_, verdict) = scene.confirm_behind(&mut one, two, &tickets[1].upload_id);
    assert_eq!(verdict.outcome(), ("uploaded", None));
    assert_eq!(object_of(&scene, &tickets[0]), object_of(&scene, &tickets[1]));
    assert_eq!(count(&scene, "objects"), 1);
}

#[test]
fn bytes_deleted_and_uploaded_again_before_the_collection_stay() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        let bytes = some_bytes("again", 100);
        let upload = Upload::declared(&bytes);
        let first = upload.complete(&mut ada, &bytes);
        let old = scene.place_of_file(&first.file_id);
        let shared = upload.request(&mut ada);
        assert!(shared.deduplicated);

        // Queued while another file has the bytes: nothing happens.
        delete(&mut ada, &first);
        assert!(
            scene.value::<bool>(
                "SELECT bool_or(due) FROM storage.deletion_queue WHERE reason = 'file deleted'"
            )
        );
        scene.maintain();
        assert_downloads(&mut ada, &shared.file_id, &bytes);

        // Queued, and the bytes come again before the collector.
        delete(&mut ada, &shared);
        let again = upload.request(&mut ada);
        assert!(!again.deduplicated, "bytes on their way out are not shared");
        assert!(again.put(&bytes).is_success());
        assert_eq!(confirm(&mut ada, &again.upload_id).outcome(), ("uploaded", None));
        scene.maintain();
        assert_downloads(&mut ada, &again.file_id, &bytes);
        assert!(!scene.exists(&old));
    });
}

#[test]
fn bytes_that_another_transaction_is_just_sharing_are_not_collected() {
    let scene = Scene::local();
    scene.set("pg_storage.deletion_delay", "0");
    for end in ["COMMIT", "ROLLBACK"] {
        let (mut ada, mut sharing) = (scene.user("ada"), scene.user("ada"));
        let bytes = some_bytes(end, 100);
        let first = Upload::declared(&bytes).complete(&mut ada, &bytes);
        let place = scene.place_of_file(&first.file_id);
        scene.maintain();
        sharing.batch_execute("BEGIN").unwrap();
        let second = Upload::declared(&bytes).request(&mut sharing);
        assert!(second.deduplicated);
        delete(&mut ada, &first);
        assert_eq!(scene.maintain()[2], 0, "the only file that others see is gone");
        sharing.batch_execute(end).unwrap();
        scene.maintain();
        assert_eq!(scene.exists(&place), end == "COMMIT");
        if end == "COMMIT" {
            assert_downloads(&mut ada, &second.file_id, &bytes);
        }
    }
}

#[test]
fn confirming_waits_for_a_collector_that_is_removing_the_same_bytes() {
    let scene = Scene::local();
    scene.set("pg_storage.deletion_delay", "0");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("race", 100);
    let upload = Upload::declared(&bytes);
    let first = upload.complete(&mut ada, &bytes);
    delete(&mut ada, &first);
    let again = upload.request(&mut ada);
    assert!(again.put(&bytes).is_success());

    let mut collector = scene.superuser();
    collector.batch_execute("BEGIN; SELECT storage.run_maintenance()").unwrap();
    let (mut ada, verdict) = scene.confirm_behind(&mut collector, ada, &again.upload_id);
    assert_eq!(verdict.outcome(), ("uploaded", None));
    assert_downloads(&mut ada, &again.file_id, &bytes);
    scene.maintain();
    assert_downloads(&mut ada, &again.file_id, &bytes);
}
