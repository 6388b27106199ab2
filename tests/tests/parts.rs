//! Uploads in parts: resumed by whoever knows the id, completed when confirmed, verified as a whole, and never left behind.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_core::presign::Method;
use pg_storage_tests::flow::{self, Upload, assert_downloads, confirm, sha256, some_bytes, try_confirm};
use pg_storage_tests::http;
use pg_storage_tests::orphans::grow_old;
use pg_storage_tests::parts::{
    PartsTicket, SMALLEST, missing_parts, request_form, request_parts, send_parts, sign_parts, sums,
    try_missing_parts, try_request_parts, try_sign_parts,
};
use pg_storage_tests::{Fault, FaultyStore, Scene, each_store_with_parts, eventually, refused};
use postgres::Client;
use std::sync::Barrier;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A file of three parts.
fn file(seed: &str) -> Vec<u8> {
    some_bytes(seed, 2 * SMALLEST + 1000)
}

fn multipart_id(scene: &Scene, ticket: &PartsTicket) -> String {
    let id = &ticket.upload_id;
    scene.value(&format!("SELECT multipart_id FROM storage.upload_requests WHERE id = '{id}'"))
}

/// Whether the store still has an upload of this name at this place.
fn unfinished(scene: &Scene, place: &(String, String), name: &str) -> bool {
    let query = [("uploads", ""), ("prefix", place.1.as_str())];
    let answer = scene.ask_store(Method::Get, (&place.0, ""), &query);
    assert!(answer.is_success(), "{} {}", answer.status, answer.text());
    answer.text().contains(name)
}

#[track_caller]
fn assert_uploaded(session: &mut Client, ticket: &PartsTicket, file: &[u8]) {
    let verdict = confirm(session, &ticket.upload_id);
    assert_eq!(verdict.outcome(), ("uploaded", None), "{verdict:?}");
    assert_downloads(session, &ticket.file_id, file);
}

#[test]
fn an_upload_is_resumed_with_nothing_but_its_id_and_completed_when_confirmed() {
    each_store_with_parts(|scene| {
        for declared in [true, false] {
            let file = file(&format!("resumed {declared}"));
            let (id, ticket) = {
                let mut here = scene.user("ada");
                let upload = if declared { Upload::declared(&file) } else { Upload::of(&file) };
                let ticket = request_parts(&mut here, &upload.at("large"));
                assert!(!ticket.deduplicated);
                assert_eq!((ticket.part_size, ticket.part_count), (Some(SMALLEST as i64), Some(3)));
                assert_eq!(missing_parts(&mut here, &ticket.upload_id), [1, 2, 3]);
                send_parts(&mut here, &ticket.upload_id, &[3, 1], &file);
                let verdict = confirm(&mut here, &ticket.upload_id);
                assert_eq!(verdict.outcome(), ("requested", Some("NOT_UPLOADED")), "a part is missing");
                (ticket.upload_id.clone(), ticket)
            };
            let mut there = scene.user("ada");
            let missing = missing_parts(&mut there, &id);
            assert_eq!(missing, [2]);
            send_parts(&mut there, &id, &missing, &file);
            assert!(missing_parts(&mut there, &id).is_empty());
            assert!(
                !scene.exists(&scene.place_of_upload(&id)),
                "nothing is made of it before it is confirmed"
            );
            assert_uploaded(&mut there, &ticket, &file);
            assert_uploaded(&mut there, &ticket, &file);
            let row = there
                .query_one(
                    "SELECT sha256, size FROM storage.files WHERE id = $1::text::uuid",
                    &[&ticket.file_id],
                )
                .unwrap();
            assert_eq!(
                (row.get::<_, &str>(0), row.get::<_, i64>(1)),
                (sha256(&file).as_str(), file.len() as i64)
            );
            // An upload that is over takes no parts.
            for refusal in [
                refused(try_sign_parts(&mut there, &id, &[1], None)),
                refused(try_missing_parts(&mut there, &id)),
            ] {
                assert_eq!(refusal.code(), ("55000", "UPLOAD_NOT_PENDING"));
            }
        }
    });
}

#[test]
fn what_is_there_already_is_not_sent_again_and_confirmed_twice_is_stored_once() {
    let scene = Scene::with_parts();
    let mut ada = scene.user("ada");
    let file = file("shared");
    let upload = Upload::declared(&file);
    let tickets = [request_parts(&mut ada, &upload), request_parts(&mut ada, &upload)];
    for ticket in &tickets {
        assert!(!ticket.deduplicated, "a claim is no hash");
        send_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], &file);
        assert_uploaded(&mut ada, ticket, &file);
    }
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 1);
    let again = request_parts(&mut ada, &upload);
    assert_eq!((again.deduplicated, again.part_size, again.part_count), (true, None, None));
    assert_downloads(&mut ada, &again.file_id, &file);
}

#[test]
fn the_whole_file_is_held_against_its_hash_and_parts_against_theirs() {
    each_store_with_parts(|scene| {
        let mut ada = scene.user("ada");
        let (file, other) = (file("right"), file("wrong"));
        // Each part is what its URL permits; the file is not what was declared.
        let ticket = request_parts(&mut ada, &Upload::declared(&file));
        send_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], &file);
        send_parts(&mut ada, &ticket.upload_id, &[2], &other);
        let place = scene.place_of_upload(&ticket.upload_id);
        let verdict = confirm(&mut ada, &ticket.upload_id);
        assert_eq!(verdict.outcome(), ("rejected", Some("HASH_MISMATCH")), "{verdict:?}");
        eventually("the rejected bytes to go", LIMIT, || {
            scene.maintain();
            (!scene.exists(&place)).then_some(())
        });

        let ticket = try_request_parts(&mut ada, &Upload::declared(&file), true).unwrap();
        let sums = sums(&file);
        let parts = try_sign_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], Some(&sums)).unwrap();
        for part in &parts {
            assert!(part.headers.contains_key("x-amz-checksum-sha256"));
            assert!(!part.is_taken(&other), "other bytes");
            let mut without = part.clone();
            without.headers.remove("x-amz-checksum-sha256");
            assert!(!without.is_taken(&file), "a signed header is left out");
        }
        assert_eq!(missing_parts(&mut ada, &ticket.upload_id), [1, 2, 3]);
        for part in &parts {
            let answer = part.put(&file);
            assert!(answer.is_success(), "{} {}", answer.status, answer.text());
        }
        assert_uploaded(&mut ada, &ticket, &file);
        for bad in [None, Some(sums[..1].to_vec())] {
            let ticket = try_request_parts(&mut ada, &Upload::of(&file), true).unwrap();
            let refusal = refused(try_sign_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], bad.as_deref()));
            assert_eq!(refusal.code(), ("22023", "INVALID_PART"));
        }
    });
}

#[test]
fn a_part_whose_second_sending_breaks_off_can_be_sent_again() {
    each_store_with_parts(|scene| {
        let mut ada = scene.user("ada");
        let file = file("broken off");
        let ticket = try_request_parts(&mut ada, &Upload::of(&file), true).unwrap();
        let parts = try_sign_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], Some(&sums(&file))).unwrap();
        for part in &parts {
            assert!(part.is_taken(&file));
        }
        assert!(!parts[1].is_taken(&some_bytes("others", file.len())));
        // Some stores keep the part that was there, others want it again, and say so.
        if let Err(error) = try_confirm(&mut ada, &ticket.upload_id) {
            let refusal = refused::<()>(Err(error));
            assert_eq!(refusal.code(), ("58030", "STORE_ERROR"));
            assert!(refusal.hint.unwrap().contains("storage.sign_upload_parts()"));
            assert!(parts[1].is_taken(&file));
        }
        assert_uploaded(&mut ada, &ticket, &file);
    });
}

#[test]
fn a_url_permits_its_part_in_its_length_and_nothing_else() {
    each_store_with_parts(|scene| {
        let mut ada = scene.user("ada");
        let secret = some_bytes("what others must not have", SMALLEST);
        let kept = Upload::of(&secret).complete(&mut scene.user("bob"), &secret);
        let (bucket, key) = scene.place_of_file(&kept.file_id);
        let file = file("permitted");
        let ticket = request_parts(&mut ada, &Upload::of(&file));
        let parts = sign_parts(&mut ada, &ticket.upload_id, &[1]);
        let part = &parts[0];
        let refused = |what: &str, part: &pg_storage_tests::parts::SignedPart, body: &[u8]| {
            let answer = http::try_put(&part.url, &part.headers, body);
            assert!(!answer.is_some_and(|answer| answer.is_success()), "{what}");
        };
        let body = &file[part.bytes.clone()];
        let mut longer = part.clone();
        longer.headers.insert("content-length".to_owned(), (SMALLEST + 1).to_string());
        refused("longer", &longer, &[body, b"!"].concat());
        let mut shorter = part.clone();
        shorter.headers.insert("content-length".to_owned(), "10".to_owned());
        refused("shorter", &shorter, &body[..10]);
        let mut elsewhere = part.clone();
        elsewhere.url = elsewhere.url.replacen("partNumber=1", "partNumber=2", 1);
        assert_ne!(elsewhere.url, part.url);
        refused("another part", &elsewhere, body);
        let mut copy = part.clone();
        copy.headers.insert("x-amz-copy-source".to_owned(), format!("/{bucket}/{key}"));
        refused("a copy of another's file", &copy, body);
        copy.headers.insert("content-length".to_owned(), "0".to_owned());
        refused("a copy without a body", &copy, b"");
        assert_eq!(missing_parts(&mut ada, &ticket.upload_id), [1, 2, 3], "none of it has arrived");
        // The URL is no key to what is stored, nor to the upload as a whole.
        for method in ["GET", "HEAD", "DELETE", "POST"] {
            assert!(!http::request(method, &part.url, &http::Headers::new()).is_success(), "{method}");
        }
        assert!(part.put(&file).is_success());
        send_parts(&mut ada, &ticket.upload_id, &[2, 3], &file);
        assert_uploaded(&mut ada, &ticket, &file);
        // Replayed after the confirmation it changes nothing.
        assert!(!part.is_taken(&some_bytes("replayed", file.len())));
        assert_downloads(&mut ada, &ticket.file_id, &file);
    });
}

#[test]
fn an_upload_is_its_owners_alone() {
    let scene = Scene::with_parts();
    let (mut ada, file) = (scene.user("ada"), file("ada's"));
    let ticket = request_parts(&mut ada, &Upload::of(&file));
    let absent = "00000000-0000-4000-8000-000000000000";
    for mut stranger in [scene.user("eve"), scene.stranger("ada", "globex")] {
        for id in [ticket.upload_id.as_str(), absent] {
            for refusal in [
                refused(try_sign_parts(&mut stranger, id, &[1], None)),
                refused(try_missing_parts(&mut stranger, id)),
            ] {
                assert_eq!(refusal.code(), ("42704", "UPLOAD_NOT_FOUND"));
                assert_eq!(refusal.detail.unwrap(), format!("Asked for '{id}'."));
            }
        }
    }
    let put = Upload::of(b"x").request(&mut ada);
    let refusal = refused(try_sign_parts(&mut ada, &put.upload_id, &[1], None));
    assert_eq!(refusal.code(), ("55000", "UPLOAD_NOT_PENDING"));
    for number in [i32::MIN, 0, 4, i32::MAX] {
        let refusal = refused(try_sign_parts(&mut ada, &ticket.upload_id, &[1, number], None));
        assert_eq!(refusal.code(), ("22023", "INVALID_PART"));
    }
    let refusal = refused(try_sign_parts(&mut ada, &ticket.upload_id, &[1, 1, 1, 1], None));
    assert_eq!(refusal.code(), ("22023", "INVALID_PART"), "each part once");
    assert!(sign_parts(&mut ada, &ticket.upload_id, &[]).is_empty());
}

#[test]
fn up_to_five_tebibytes_are_declared_where_the_server_allows_it() {
    let scene = Scene::with_parts();
    let mut ada = scene.user("ada");
    let huge = Upload { size: 5 << 40, ..Upload::of(b"") };
    let ask = |session: &mut Client, size: i64, part: &str| {
        session.query_one(
            &format!(
                "SELECT part_size, part_count FROM storage.request_multipart_upload('private', 'a.txt', 'text/plain', $1, {part})"
            ),
            &[&size],
        )
    };
    let refusal = refused(try_request_parts(&mut ada, &huge, false));
    assert_eq!(refusal.code(), ("22023", "INVALID_FILE_SIZE"));
    scene.set("pg_storage.max_file_size", "5TB");
    let mut ada = scene.user("ada");
    let row = ask(&mut ada, 5 << 40, "NULL").unwrap();
    let (size, count): (i64, i32) = (row.get(0), row.get(1));
    assert!(count <= 10_000 && size * i64::from(count) >= 5 << 40);
    for (size, part, code) in [
        ((5 << 40) + 1, "NULL", "INVALID_FILE_SIZE"),
        (0, "NULL", "INVALID_FILE_SIZE"),
        (5 << 40, "5242880", "INVALID_PART"),
        (100, "5242879", "INVALID_PART"),
        (100, "-1", "INVALID_PART"),
        (100, "9223372036854775807", "INVALID_PART"),
    ] {
        assert_eq!(refused(ask(&mut ada, size, part)).code(), ("22023", code), "{size} {part}");
    }
    // One PUT carries no more than it did.
    let refusal = refused(Upload { size: (5 << 30) + 1, ..huge.clone() }.try_request(&mut ada));
    assert_eq!(refusal.code(), ("22023", "INVALID_FILE_SIZE"));
    let direct = "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size)
                  SELECT id, 'a.txt', 'text/plain', 5497558138880 FROM storage.buckets WHERE key = 'private'";
    assert_eq!(refused(ada.execute(direct, &[])).code(), ("22023", "INVALID_FILE_SIZE"));
}

#[test]
fn two_who_confirm_at_once_get_the_same_file_and_one_who_aborts_gets_all_or_nothing() {
    each_store_with_parts(|scene| {
        let file = file("raced");
        let mut ada = scene.user("ada");
        let ticket = request_parts(&mut ada, &Upload::declared(&file));
        send_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], &file);
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut session = scene.user("ada");
                    barrier.wait();
                    assert_eq!(confirm(&mut session, &ticket.upload_id).outcome(), ("uploaded", None));
                });
            }
        });
        assert_downloads(&mut ada, &ticket.file_id, &file);

        for round in 0..4 {
            let ticket = request_parts(&mut ada, &Upload::of(&file));
            send_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], &file);
            let barrier = Barrier::new(2);
            let (confirmed, aborted) = std::thread::scope(|scope| {
                let confirming = scope.spawn(|| {
                    let mut session = scene.user("ada");
                    barrier.wait();
                    confirm(&mut session, &ticket.upload_id)
                });
                let aborting = scope.spawn(|| {
                    let mut session = scene.user("ada");
                    barrier.wait();
                    std::thread::sleep(Duration::from_millis(round * 5));
                    flow::abort(&mut session, &ticket.upload_id)
                });
                (confirming.join().unwrap(), aborting.join().unwrap())
            });
            match confirmed.outcome() {
                ("uploaded", None) => {
                    assert_eq!(refused(aborted).code(), ("55000", "UPLOAD_NOT_PENDING"));
                    assert_downloads(&mut ada, &ticket.file_id, &file);
                }
                ("aborted", Some("ABORTED")) => {
                    aborted.unwrap();
                    let files = "SELECT FROM storage.files WHERE id = $1::text::uuid";
                    assert!(ada.query(files, &[&ticket.file_id]).unwrap().is_empty());
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn parts_that_are_replaced_while_it_is_confirmed_are_all_old_or_all_seen() {
    each_store_with_parts(|scene| {
        let (file, other) = (file("kept"), file("replaced"));
        let mut ada = scene.user("ada");
        let ticket = request_parts(&mut ada, &Upload::declared(&file));
        send_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], &file);
        let parts = sign_parts(&mut ada, &ticket.upload_id, &[1, 2]);
        let barrier = Barrier::new(2);
        let outcome = std::thread::scope(|scope| {
            let replacing = scope.spawn(|| {
                barrier.wait();
                for _ in 0..6 {
                    for part in &parts {
                        part.is_taken(&other);
                        part.is_taken(&file);
                    }
                }
            });
            barrier.wait();
            let outcome = try_confirm(&mut ada, &ticket.upload_id);
            replacing.join().unwrap();
            outcome
        });
        // Whichever was there when the store made one object of them: a file has the bytes of its hash.
        match outcome {
            Ok(verdict) => match verdict.outcome() {
                ("uploaded", None) => assert_downloads(&mut ada, &ticket.file_id, &file),
                ("rejected", Some("HASH_MISMATCH")) => {}
                other => panic!("{other:?}"),
            },
            Err(error) => {
                assert_eq!(refused::<()>(Err(error)).code(), ("58030", "STORE_ERROR"));
                assert_uploaded(&mut ada, &ticket, &file);
            }
        }
    });
}

#[test]
fn a_confirmation_that_is_lost_after_completion_is_made_again() {
    each_store_with_parts(|scene| {
        let file = file("lost");
        let mut ada = scene.user("ada");
        let ticket = request_parts(&mut ada, &Upload::declared(&file).at("lost"));
        send_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], &file);
        let place = scene.place_of_upload(&ticket.upload_id);
        ada.batch_execute("BEGIN").unwrap();
        assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
        let pid: i32 = ada.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        scene.superuser().execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
        drop(ada);
        assert!(scene.exists(&place), "the store has made one object of the parts");
        let mut ada = scene.user("ada");
        eventually("the transaction to be gone", LIMIT, || {
            (flow::recorded(&mut ada, &ticket.upload_id).status == "requested").then_some(())
        });
        assert!(missing_parts(&mut ada, &ticket.upload_id).is_empty(), "no part is asked for again");
        assert_uploaded(&mut ada, &ticket, &file);
    });
}

#[test]
fn statement_timeout_in_a_completion_leaves_an_upload_that_can_be_confirmed() {
    let (scene, store) = Scene::counting();
    let proxy = FaultyStore::before(&store.access().endpoint);
    scene.set("pg_storage.endpoint", &proxy.endpoint());
    scene.set("pg_storage.public_endpoint", &store.access().endpoint);
    let mut ada = scene.user("ada");
    for (at, fault) in [Fault::Silent, Fault::ReplyLost, Fault::ErrorInSuccess].into_iter().enumerate() {
        let file = file(fault.name());
        let ticket = request_parts(&mut ada, &Upload::declared(&file));
        send_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], &file);
        proxy.set("?uploadId=", fault);
        ada.batch_execute("SET statement_timeout = '3s'").unwrap();
        let refusal = refused(try_confirm(&mut ada, &ticket.upload_id));
        let expected = if at == 2 { "58030" } else { "57014" };
        assert_eq!(refusal.sqlstate, expected, "{fault:?} {refusal:?} {:?}", proxy.lines());
        ada.batch_execute("RESET statement_timeout").unwrap();
        proxy.heal();
        assert_uploaded(&mut ada, &ticket, &file);
    }
}

#[test]
fn what_was_aborted_or_expired_is_aborted_at_the_store_by_the_collector() {
    each_store_with_parts(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        let file = file("aborted");
        let aborted = request_parts(&mut ada, &Upload::of(&file));
        send_parts(&mut ada, &aborted.upload_id, &[1, 2, 3], &file);
        let expired = request_parts(&mut ada, &Upload::of(&file).expiring_in("20 seconds"));
        send_parts(&mut ada, &expired.upload_id, &[2], &file);
        let deleted = request_parts(&mut ada, &Upload::of(&file));
        let uploads = [&aborted, &expired, &deleted]
            .map(|ticket| (scene.place_of_upload(&ticket.upload_id), multipart_id(scene, ticket)));
        for (place, name) in &uploads {
            assert!(unfinished(scene, place, name));
        }
        let url = sign_parts(&mut ada, &aborted.upload_id, &[1]).remove(0);
        // Not within the transaction: it may be rolled back.
        ada.batch_execute("BEGIN").unwrap();
        flow::abort(&mut ada, &aborted.upload_id).unwrap();
        ada.batch_execute("ROLLBACK").unwrap();
        assert!(unfinished(scene, &uploads[0].0, &uploads[0].1));
        assert!(missing_parts(&mut ada, &aborted.upload_id).is_empty());
        flow::abort(&mut ada, &aborted.upload_id).unwrap();
        let forget = "DELETE FROM storage.upload_requests WHERE id = $1::text::uuid";
        scene.superuser().execute(forget, &[&deleted.upload_id]).unwrap();
        for (place, name) in &uploads {
            eventually("the upload to end at the store", LIMIT, || {
                scene.maintain();
                (!unfinished(scene, place, name)).then_some(())
            });
            assert!(!scene.exists(place));
        }
        assert_eq!(flow::recorded(&mut ada, &expired.upload_id).outcome(), ("expired", Some("EXPIRED")));
        assert!(!url.is_taken(&file), "an upload that is over takes no parts");
    });
}

#[test]
fn the_sweep_spares_pending_uploads_and_ends_what_was_rolled_back() {
    each_store_with_parts(|scene| {
        let mut ada = scene.user("ada");
        let file = file("swept");
        let pending = request_parts(&mut ada, &Upload::of(&file));
        send_parts(&mut ada, &pending.upload_id, &[1], &file);
        let (place, name) = (scene.place_of_upload(&pending.upload_id), multipart_id(scene, &pending));
        ada.batch_execute("BEGIN").unwrap();
        let lost = request_parts(&mut ada, &Upload::of(&file));
        let row = ada
            .query_one(
                "SELECT physical_name, object_key, multipart_id FROM storage.upload_requests WHERE id = $1::text::uuid",
                &[&lost.upload_id],
            )
            .unwrap();
        let (lost_place, lost_name): ((String, String), String) = ((row.get(0), row.get(1)), row.get(2));
        scene.set("pg_storage.reconcile_interval", "1s");
        scene.set("pg_storage.orphan_min_age", "1s");
        grow_old();
        scene.maintain();
        assert!(unfinished(scene, &lost_place, &lost_name), "its transaction may still commit");
        ada.batch_execute("ROLLBACK").unwrap();
        assert!(unfinished(scene, &lost_place, &lost_name));
        eventually("the sweep", LIMIT, || {
            scene.maintain();
            (!unfinished(scene, &lost_place, &lost_name)).then_some(())
        });
        assert!(unfinished(scene, &place, &name));
        send_parts(&mut ada, &pending.upload_id, &[2, 3], &file);
        assert_uploaded(&mut ada, &pending, &file);
    });
}

#[test]
fn a_store_where_a_part_may_be_a_copy_takes_no_parts() {
    let scene = Scene::with_parts();
    let mut ada = scene.user("ada");
    Upload::of(b"first use").complete(&mut ada, b"first use");
    let record = |capability: &str| {
        let update = "UPDATE storage.store_capabilities SET capabilities = capabilities || $1::text::jsonb";
        scene.superuser().execute(update, &[&capability]).unwrap();
    };
    for capability in [r#"{"parts": "ignored"}"#, r#"{"parts": "refused"}"#] {
        record(capability);
        let before = scene.rows();
        let refusal = refused(try_request_parts(&mut ada, &Upload::of(b"x"), false));
        assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"));
        assert!(refusal.hint.unwrap().contains("storage.check()"));
        assert_eq!(scene.rows(), before);
    }
    // What was never tried is tried first.
    record(r#"{"parts": null}"#);
    request_parts(&mut ada, &Upload::of(b"x"));
}

#[test]
fn the_worker_confirms_what_nobody_confirmed() {
    let scene = Scene::with_parts();
    scene.set("pg_storage.unconfirmed_uploads", "confirm");
    let mut ada = scene.user("ada");
    let file = file("nobody");
    let ticket = request_parts(&mut ada, &Upload::declared(&file).expiring_in("15 seconds"));
    let half = request_parts(&mut ada, &Upload::declared(&file).expiring_in("15 seconds"));
    send_parts(&mut ada, &ticket.upload_id, &[1, 2, 3], &file);
    send_parts(&mut ada, &half.upload_id, &[1, 3], &file);
    eventually("the uploads to be settled", LIMIT, || {
        scene.maintain();
        let over = |id: &str, session: &mut Client| flow::recorded(session, id).finished;
        (over(&ticket.upload_id, &mut ada) && over(&half.upload_id, &mut ada)).then_some(())
    });
    assert_eq!(flow::recorded(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
    assert_downloads(&mut ada, &ticket.file_id, &file);
    assert_eq!(flow::recorded(&mut ada, &half.upload_id).outcome(), ("expired", Some("EXPIRED")));
}

#[test]
fn on_ceph_a_part_may_be_a_copy_and_forms_are_kept_to() {
    let scene = Scene::ceph();
    let mut ada = scene.user("ada");
    Upload::of(b"first use").complete(&mut ada, b"first use");
    let found = "SELECT string_agg(name || ' ' || status, ', ' ORDER BY name) FROM storage.check()
                 WHERE name IN ('forms', 'multipart')";
    assert_eq!(scene.value::<String>(found), "forms ok, multipart warn");
    let refusal = refused(try_request_parts(&mut ada, &Upload::of(b"x"), false));
    assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"));

    let form = request_form(&mut ada, &Upload { size: 100, ..Upload::of(b"") });
    assert!(form.fields.iter().any(|(name, _)| name == "x-amz-meta-upload"), "a mark, which is signed");
    let unmarked = form.clone().with("x-amz-meta-upload", "00000000-0000-4000-8000-000000000000");
    assert!(!unmarked.post(b"forged").is_success());
    assert!(form.post(b"by form").is_success());
    assert_eq!(confirm(&mut ada, &form.upload_id).outcome(), ("uploaded", None));
    assert_downloads(&mut ada, &form.file_id, b"by form");
}
