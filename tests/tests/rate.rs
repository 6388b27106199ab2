//! Limits of a user: pending uploads are counted exactly, and the rate is one for all sessions.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload, confirm, some_bytes};
use pg_storage_tests::{Cluster, LocalStore, Refusal, Scene, eventually, refused, scene};
use postgres::Client;
use std::thread;
use std::time::Duration;

const PENDING: (&str, &str) = ("53400", "TOO_MANY_PENDING_UPLOADS");
const RATE: (&str, &str) = ("53400", "RATE_LIMIT");

fn set(setting: &str, value: &str) -> Scene {
    let scene = Scene::local();
    Upload::of(b"makes the bucket ready").complete(&mut scene.user("ada"), b"makes the bucket ready");
    scene.set(setting, value);
    scene
}

#[track_caller]
fn refusal(session: &mut Client) -> Refusal {
    refused(Upload::of(b"refused").try_request(session))
}

/// How many requests in a row are granted; the one after them is refused with RATE_LIMIT.
#[track_caller]
fn burst(session: &mut Client) -> usize {
    for granted in 0.. {
        if let Err(error) = Upload::of(b"asked").try_request(session) {
            assert_eq!(refused(Err::<(), _>(error)).code(), RATE);
            return granted;
        }
    }
    unreachable!()
}

#[test]
fn a_user_has_so_many_uploads_pending_and_no_more() {
    let scene = set("pg_storage.max_pending_uploads", "2");
    let mut ada = scene.user("ada");
    let bytes = some_bytes("pending", 10);
    let first = Upload::of(&bytes).request(&mut ada);
    // Buckets share the number, users and tenants do not.
    let second = Upload::of(&bytes).to("public").request(&mut ada);
    let told = refusal(&mut ada);
    assert_eq!(told.code(), PENDING);
    assert_eq!(told.detail.unwrap(), "2 are pending; pg_storage.max_pending_uploads allows 2.");
    assert!(told.hint.unwrap().contains("abort"));
    Upload::of(&bytes).request(&mut scene.user("bob"));
    Upload::of(&bytes).request(&mut scene.stranger("ada", "globex"));

    assert!(first.put(&bytes).is_success());
    assert_eq!(confirm(&mut ada, &first.upload_id).outcome(), ("uploaded", None));
    flow::abort(&mut ada, &second.upload_id).unwrap();
    for _ in 0..2 {
        Upload::of(&bytes).expiring_in("1 second").request(&mut ada);
    }
    assert_eq!(refusal(&mut ada).code(), PENDING);
    thread::sleep(Duration::from_millis(1100));
    Upload::of(&bytes).request(&mut ada);
    ada.batch_execute("BEGIN").unwrap();
    Upload::of(&bytes).request(&mut ada);
    ada.batch_execute("ROLLBACK").unwrap();
    Upload::of(&bytes).request(&mut ada);
    assert_eq!(refusal(&mut ada).code(), PENDING);
}

#[test]
fn of_two_who_ask_for_the_last_pending_upload_the_second_waits_for_the_first() {
    for isolation in ["READ COMMITTED", "SERIALIZABLE"] {
        for (end, second_is_granted) in [("COMMIT", false), ("ROLLBACK", true)] {
            let scene = set("pg_storage.max_pending_uploads", "1");
            let (mut first, mut second) = (scene.user("ada"), scene.user("ada"));
            first.batch_execute("BEGIN").unwrap();
            Upload::of(b"first").request(&mut first);
            let pid: i32 = second.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
            // Its snapshot is older than the first one's commit, in one case for good.
            second
                .batch_execute(&format!(
                    "BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM storage.buckets"
                ))
                .unwrap();
            let asking = thread::spawn(move || Upload::of(b"second").try_request(&mut second));
            eventually("the second to wait", Duration::from_secs(30), || {
                scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
            });
            first.batch_execute(end).unwrap();
            let answer = asking.join().unwrap();
            assert_eq!(answer.is_ok(), second_is_granted, "{isolation}: {end}");
            if !second_is_granted {
                assert_eq!(refused(answer).code(), PENDING, "{isolation}");
            }
        }
    }
}

#[test]
fn without_a_limit_nobody_waits_for_anybody() {
    let scene = set("pg_storage.max_pending_uploads", "0");
    let (mut first, mut second) = (scene.user("ada"), scene.user("ada"));
    for session in [&mut first, &mut second] {
        session.batch_execute("SET lock_timeout = '5s'; BEGIN").unwrap();
        Upload::of(b"open").request(session);
    }
}

#[test]
fn all_sessions_of_a_user_draw_from_one_rate() {
    // A token comes back in 20 seconds, more than these statements take.
    let scene = set("pg_storage.upload_rate", "3");
    let (mut one, mut other) = (scene.user("ada"), scene.user("ada"));
    for session in [&mut one, &mut other] {
        Upload::of(b"asked").request(session);
    }
    assert_eq!(burst(&mut one), 1);
    let told = refusal(&mut other);
    assert_eq!(told.code(), RATE);
    let detail = told.detail.unwrap();
    let seconds: u64 = detail
        .strip_prefix("pg_storage.upload_rate allows 3 a minute; the next is possible in ")
        .and_then(|rest| rest.strip_suffix(" seconds."))
        .unwrap_or_else(|| panic!("{detail}"))
        .parse()
        .unwrap();
    assert!((1..=21).contains(&seconds), "{detail}");
    assert_eq!(burst(&mut scene.user("bob")), 3);
    assert_eq!(burst(&mut scene.stranger("ada", "globex")), 3);
    // The same names in another database are other users.
    assert_eq!(burst(&mut set("pg_storage.upload_rate", "2").user("ada")), 2);

    let check = "SELECT status || ': ' || detail FROM storage.check() WHERE name = 'upload_rate'";
    assert_eq!(
        scene.value::<String>(check),
        "ok: All sessions of a user together may ask for 3 uploads a minute."
    );
}

#[test]
fn what_was_spent_comes_back_with_time_and_with_nothing_else() {
    let scene = set("pg_storage.upload_rate", "30");
    let mut ada = scene.user("ada");
    // Refused for other reasons, it costs nothing.
    for _ in 0..40 {
        let absurd = Upload { size: 0, ..Upload::of(b"") };
        assert_eq!(refused(absurd.try_request(&mut ada)).code(), ("22023", "INVALID_FILE_SIZE"));
    }
    scene
        .superuser()
        .batch_execute("UPDATE storage.buckets SET max_total_size = 5 WHERE key = 'public'")
        .unwrap();
    for _ in 0..40 {
        let large = Upload::of(b"too large").to("public");
        assert_eq!(refused(large.try_request(&mut ada)).code(), ("53400", "QUOTA_EXCEEDED"));
    }
    ada.batch_execute("BEGIN").unwrap();
    for _ in 0..30 {
        Upload::of(b"asked").request(&mut ada);
    }
    ada.batch_execute("ROLLBACK").unwrap();
    // A slow machine may have given a few back by now.
    let left = burst(&mut ada);
    assert!(left < 15, "{left} were given back by a rollback");

    eventually("the next turn", Duration::from_secs(30), || Upload::of(b"later").try_request(&mut ada).ok());
    scene.set("pg_storage.upload_rate", "0");
    let mut unlimited = scene.user("ada");
    for _ in 0..40 {
        Upload::of(b"free").request(&mut unlimited);
    }
    let check = "SELECT count(*) FROM storage.check() WHERE name = 'upload_rate'";
    assert_eq!(scene.value::<i64>(check), 0);
}

#[test]
fn a_file_and_its_earlier_versions_are_one_upload_when_it_is_made_private() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let put = "SELECT (storage.put_file('public', 'a.txt', $1::text::bytea, 'text/plain', 'a')).id::text";
    let files = ["one", "two", "three", "four"]
        .map(|text| -> String { ada.query_one(put, &[&text]).unwrap().get(0) });
    scene.set("pg_storage.upload_rate", "2");
    let mut ada = scene.user("ada");
    ada.execute("SELECT storage.set_file_access($1::text::uuid, 'private')", &[&files[3]]).unwrap();
    let left = "SELECT count(*) FROM storage.files f JOIN storage.buckets b ON b.id = f.bucket_id WHERE b.key = 'public'";
    assert_eq!(scene.value::<i64>(left), 0);
    // And one it is.
    assert_eq!(burst(&mut ada), 1);
}

#[test]
fn without_preload_each_session_counts_for_itself_and_check_says_so() {
    let store = LocalStore::shared();
    let cluster = Cluster::start(
        scene::remote(store.access())
            .without_preload()
            .setting("pg_storage.bucket_prefix", "ratenopre")
            .setting("pg_storage.upload_rate", "3"),
    );
    let database = cluster.database();
    let mut superuser = database.superuser();
    superuser.batch_execute("SELECT storage.create_user_buckets('ada')").unwrap();
    let writer = database.role("writer");
    for _ in 0..2 {
        let mut ada = database.connect_as(&writer, &[("jwt.claims.user_id", "ada")]);
        assert_eq!(burst(&mut ada), 3);
    }
    let check = "SELECT status || ': ' || detail FROM storage.check() WHERE name = 'upload_rate'";
    let told: String = superuser.query_one(check, &[]).unwrap().get(0);
    assert!(told.starts_with("warn: Each session may ask for 3"), "{told}");
}

#[test]
fn an_ordinary_role_cannot_change_its_limits() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    for setting in ["max_pending_uploads", "upload_rate"] {
        assert_eq!(refused(ada.batch_execute(&format!("SET pg_storage.{setting} = 0"))).sqlstate, "42501");
        let negative = format!("SET pg_storage.{setting} = -1");
        assert_eq!(refused(scene.superuser().batch_execute(&negative)).sqlstate, "22023");
    }
}
