//! Limits hold however the bytes of an upload come: by one URL, by form, in parts.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::parts::{try_request_form, try_request_parts};
use pg_storage_tests::scene::takes_parts;
use pg_storage_tests::{Scene, refused};
use postgres::{Client, Error};

/// A way to ask for an upload; gives its id.
type Ask = fn(&mut Client, &Upload) -> Result<String, Error>;

const WAYS: [(&str, Ask); 3] = [
    ("by one URL", |session, upload| upload.try_request(session).map(|ticket| ticket.upload_id)),
    ("by form", |session, upload| try_request_form(session, upload).map(|form| form.upload_id)),
    ("in parts", |session, upload| try_request_parts(session, upload, false).map(|ticket| ticket.upload_id)),
];

/// Those that the store has.
fn ways() -> &'static [(&'static str, Ask)] {
    if takes_parts() { &WAYS } else { &WAYS[..2] }
}

fn ready() -> Scene {
    let scene = Scene::local();
    Upload::of(b"makes the bucket ready").complete(&mut scene.user("ada"), b"makes the bucket ready");
    scene
}

fn of(size: i64) -> Upload {
    Upload { size, ..Upload::of(b"") }
}

/// Asks, and asks again after a ROLLBACK: what is refused takes nothing, nor does what never was.
#[track_caller]
fn assert_refused(session: &mut Client, ask: Ask, upload: &Upload, token: &str, way: &str) {
    session.batch_execute("BEGIN").unwrap();
    assert_eq!(refused(ask(session, upload)).token, token, "{way}");
    session.batch_execute("ROLLBACK").unwrap();
    assert_eq!(refused(ask(session, upload)).token, token, "{way}");
}

#[test]
fn room_is_reserved_and_given_back() {
    for (way, ask) in ways() {
        let scene = ready();
        let mut ada = scene.user("ada");
        let limit =
            "UPDATE storage.buckets SET max_total_size = 1022, max_file_count = 3 WHERE key = 'private'";
        scene.superuser().batch_execute(limit).unwrap();
        // 22 bytes are taken by what made the bucket ready.
        let first = ask(&mut ada, &of(900)).unwrap();
        for (_, other) in ways() {
            assert_refused(&mut ada, *other, &of(101), "QUOTA_EXCEEDED", way);
        }
        ada.batch_execute("BEGIN").unwrap();
        ask(&mut ada, &of(100)).unwrap();
        assert_eq!(refused(ask(&mut ada, &of(1))).token, "QUOTA_EXCEEDED", "{way}");
        ada.batch_execute("ROLLBACK").unwrap();
        ask(&mut ada, &of(50)).unwrap();
        assert_refused(&mut ada, *ask, &of(1), "QUOTA_EXCEEDED", "a fourth file");
        flow::abort(&mut ada, &first).unwrap();
        ask(&mut ada, &of(950)).unwrap();
    }
}

#[test]
fn pending_uploads_are_counted() {
    let scene = ready();
    scene.set("pg_storage.max_pending_uploads", &ways().len().to_string());
    let mut ada = scene.user("ada");
    let asked: Vec<String> = ways().iter().map(|(_, ask)| ask(&mut ada, &of(1)).unwrap()).collect();
    for (at, (way, ask)) in ways().iter().enumerate() {
        assert_refused(&mut ada, *ask, &of(1), "TOO_MANY_PENDING_UPLOADS", way);
        flow::abort(&mut ada, &asked[at]).unwrap();
        ask(&mut ada, &of(1)).unwrap();
    }
}

#[test]
fn all_draw_from_one_rate() {
    let scene = ready();
    // A turn comes back in 20 seconds, more than these statements take.
    scene.set("pg_storage.upload_rate", &ways().len().to_string());
    let mut ada = scene.user("ada");
    for (_, ask) in ways() {
        ask(&mut ada, &of(1)).unwrap();
    }
    for (way, ask) in ways() {
        assert_eq!(refused(ask(&mut ada, &of(1))).code(), ("53400", "RATE_LIMIT"), "{way}");
    }
}

#[test]
fn another_users_path_is_taken() {
    let scene = ready();
    scene.shared_bucket();
    let at = |path: &str| of(5).to("shared").at(path);
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    at("taken").complete(&mut bob, b"bob's");
    for (way, ask) in ways() {
        assert_refused(&mut ada, *ask, &at("taken"), "PATH_TAKEN", way);
        ask(&mut ada, &at("free")).unwrap();
    }
}
