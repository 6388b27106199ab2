//! What a path has been stays readable, can be made current again, and goes by number or age; and files are found by what
//! was said of them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{Upload, assert_downloads, some_bytes};
use pg_storage_tests::{Scene, each_store, eventually, refused};
use postgres::Client;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

fn put(session: &mut Client, content: &[u8], path: &str) -> String {
    let put = "SELECT (storage.put_file('private', 'a.txt', $1::bytea, 'text/plain', $2, jsonb_build_object('v', length($1::bytea)))).id::text";
    session.query_one(put, &[&content, &path]).unwrap().get(0)
}

fn expire(session: &mut Client, arguments: &str) -> i64 {
    session.query_one(&format!("SELECT storage.expire_versions('private', {arguments})"), &[]).unwrap().get(0)
}

fn restore(session: &mut Client, file: &str) -> String {
    let restore = "SELECT (storage.restore_version($1::text::uuid)).id::text";
    session.query_one(restore, &[&file]).unwrap().get(0)
}

/// The versions of a path, the current one with a star.
fn versions(scene: &Scene, path: &str) -> String {
    scene.value(&format!(
        "SELECT coalesce(string_agg(version || CASE WHEN is_current THEN '*' ELSE '' END, ' ' ORDER BY version), '')
         FROM storage.files WHERE path = '{path}'"
    ))
}

#[test]
fn an_earlier_version_becomes_the_next_one_and_none_is_lost() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = ["one", "three", "fives"].map(|seed| some_bytes(seed, 50));
        let files = [0, 1, 2].map(|n| put(&mut ada, &bytes[n], "docs/a.txt"));
        let restored = restore(&mut ada, &files[0]);
        assert_eq!(versions(scene, "docs/a.txt"), "1 2 3 4*");
        for (file, bytes) in files.iter().zip(&bytes).chain([(&restored, &bytes[0])]) {
            assert_downloads(&mut ada, file, bytes);
        }
        let alike: bool = scene.value(&format!(
            "SELECT a.object_id = b.object_id AND a.metadata = b.metadata AND a.content_type = b.content_type AND a.filename = b.filename
             FROM storage.files a, storage.files b WHERE a.id = '{restored}' AND b.id = '{}'",
            files[0]
        ));
        assert!(alike);
        // The current one is current.
        assert_eq!(restore(&mut ada, &restored), restored);
        assert_eq!(versions(scene, "docs/a.txt"), "1 2 3 4*");
        // Also when the current one was deleted.
        ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&restored]).unwrap();
        let again = restore(&mut ada, &files[1]);
        assert_eq!(versions(scene, "docs/a.txt"), "1 2 3 4*");
        assert_downloads(&mut ada, &again, &bytes[1]);
    });
}

#[test]
fn versions_go_by_number_or_age_and_the_current_one_stays() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        let mut current = Vec::new();
        for path in ["a", "b/c"] {
            for n in 0..6 {
                let bytes = some_bytes(&format!("{path}{n}"), 40 + n);
                let file = put(&mut ada, &bytes, path);
                if n == 5 {
                    current.push((file, bytes));
                }
            }
        }
        assert_eq!(expire(&mut ada, "keep => 9"), 0);
        assert_eq!(expire(&mut ada, "older_than => '1 hour'"), 0);
        assert_eq!(expire(&mut ada, "path => 'a', keep => 3"), 2);
        assert_eq!(
            (versions(scene, "a"), versions(scene, "b/c")),
            ("3 4 5 6*".into(), "1 2 3 4 5 6*".into())
        );
        // 1 to 3 were replaced long ago, but 3 is among the latest three.
        scene
            .superuser()
            .batch_execute(
                "UPDATE storage.files SET superseded_at = now() - interval '1 day' WHERE path = 'b/c' AND version <= 3",
            )
            .unwrap();
        assert_eq!(expire(&mut ada, "keep => 3, older_than => '1 hour'"), 2);
        assert_eq!(versions(scene, "b/c"), "3 4 5 6*");
        assert_eq!(expire(&mut ada, "older_than => '1 hour'"), 1);
        assert_eq!(versions(scene, "b/c"), "4 5 6*");
        assert_eq!(expire(&mut ada, "keep => 0"), 5);
        assert_eq!((versions(scene, "a"), versions(scene, "b/c")), ("6*".into(), "6*".into()));
        assert_eq!(expire(&mut ada, "keep => 0, older_than => '0'"), 0);
        scene.collect();
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 2);
        for (file, bytes) in &current {
            assert_downloads(&mut ada, file, bytes);
        }
    });
}

#[test]
fn age_counts_from_the_replacement_wherever_the_next_version_went() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    for gone in [
        "SELECT storage.delete_file('{file}')",
        "UPDATE storage.files SET path = path || '-renamed' WHERE id = '{file}'",
        "SELECT storage.move_file('{file}', 'temp')",
    ] {
        let old = put(&mut ada, b"two years old", "aged");
        let aged = "UPDATE storage.files SET created_at = now() - interval '2 years' WHERE path = 'aged'";
        scene.superuser().batch_execute(aged).unwrap();
        let new = put(&mut ada, b"a moment old", "aged");
        ada.batch_execute(&gone.replace("{file}", &new)).unwrap();
        assert_eq!(expire(&mut ada, "path => 'aged', older_than => '30 days'"), 0, "{gone}");
        assert_downloads(&mut ada, &old, b"two years old");
        let later =
            "UPDATE storage.files SET superseded_at = superseded_at - interval '31 days' WHERE path = 'aged'";
        scene.superuser().batch_execute(later).unwrap();
        assert_eq!(expire(&mut ada, "path => 'aged', older_than => '30 days'"), 1, "{gone}");
    }
    // What is current again was replaced by nothing.
    for parted in [
        "UPDATE storage.files SET path = NULL WHERE id = '{file}'",
        "SELECT storage.move_file('{file}', path => 'b')",
    ] {
        let file = put(&mut ada, b"first", "a");
        put(&mut ada, b"second", "a");
        let replaced = format!("SELECT superseded_at IS NOT NULL FROM storage.files WHERE id = '{file}'");
        assert!(scene.value::<bool>(&replaced));
        ada.batch_execute(&parted.replace("{file}", &file)).unwrap();
        assert!(!scene.value::<bool>(&replaced), "{parted}");
    }
}

#[test]
fn only_those_that_the_caller_may_delete_go() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    (0..3).for_each(|n| drop(put(&mut ada, &[b'x'; 9][..=n], "a")));
    let bucket: String =
        scene.value("SELECT id::text FROM storage.buckets WHERE owner_id = 'ada' AND key = 'private'");
    let mut bob = scene.user("bob");
    let refusal = refused(bob.query(&format!("SELECT storage.expire_versions('{bucket}', keep => 0)"), &[]));
    assert_eq!(refusal.code(), ("42704", "BUCKET_NOT_FOUND"));
    for arguments in ["'private'", "'private', keep => -1", "'private', older_than => '-1 day'"] {
        let refusal = refused(ada.query(&format!("SELECT storage.expire_versions({arguments})"), &[]));
        assert_eq!(refusal.code(), ("22023", "INVALID_LIMIT"), "{arguments}");
        assert!(refusal.detail.is_some() && refusal.hint.is_some());
    }
    // Seen, and not his to delete.
    scene.superuser().batch_execute("UPDATE storage.buckets SET owner_id = NULL, key = 'shared' WHERE owner_id = 'ada' AND key = 'private'").unwrap();
    let gone: i64 = bob.query_one("SELECT storage.expire_versions('shared', keep => 0)", &[]).unwrap().get(0);
    assert_eq!(gone, 0);
    assert_eq!(versions(&scene, "a"), "1 2 3*");
}

#[test]
fn a_version_that_becomes_current_meanwhile_stays() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let first = put(&mut ada, b"first", "a");
    put(&mut ada, b"second", "a");
    // Moved away, an earlier version is a file of its own.
    scene.manager("ada").batch_execute("SELECT storage.create_bucket('second')").unwrap();
    let mut waiting = scene.try_session("ada", "default", false).unwrap();
    let pid: i32 = waiting.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    ada.batch_execute(&format!("BEGIN; SELECT storage.move_file('{first}', 'second', 'b')")).unwrap();
    let expiring = std::thread::spawn(move || expire(&mut waiting, "keep => 0"));
    eventually("one session to wait for the other", LIMIT, || {
        scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
    });
    ada.batch_execute("COMMIT").unwrap();
    assert_eq!(expiring.join().unwrap(), 0);
    assert_downloads(&mut ada, &first, b"first");
    assert_eq!((versions(&scene, "a"), versions(&scene, "b")), ("2*".into(), "1*".into()));
}

#[test]
fn files_are_found_by_what_was_said_of_them_and_hidden_ones_are_not() {
    each_store(|scene| {
        scene.shared_bucket();
        let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
        let put = |session: &mut Client, bucket: &str, metadata: &str| -> String {
            let put = "SELECT (storage.put_file($1, 'a.txt', 'found', 'text/plain', metadata => $2::text::jsonb)).id::text";
            session.query_one(put, &[&bucket, &metadata]).unwrap().get(0)
        };
        let found = |session: &mut Client, bucket: &str, metadata: &str| -> Vec<String> {
            let search = "SELECT id::text FROM storage.search_files($1, $2::text::jsonb)";
            session.query(search, &[&bucket, &metadata]).unwrap().iter().map(|row| row.get(0)).collect()
        };
        let mut red = vec![
            put(&mut ada, "private", r#"{"colour": "red", "size": {"w": 1}}"#),
            put(&mut ada, "private", r#"{"colour": "red", "tags": ["a", "b"]}"#),
        ];
        red.sort();
        put(&mut ada, "private", r#"{"colour": "blue"}"#);
        put(&mut ada, "private", "{}");
        let elsewhere = put(&mut ada, "shared", r#"{"colour": "red"}"#);
        assert_eq!(found(&mut ada, "private", r#"{"colour": "red"}"#), red);
        assert_eq!(found(&mut ada, "private", r#"{"tags": ["b"]}"#).len(), 1);
        assert_eq!(found(&mut ada, "private", r#"{"size": {"w": 1}}"#).len(), 1);
        assert_eq!(found(&mut ada, "private", r#"{"colour": "green"}"#).len(), 0);
        assert_eq!(found(&mut bob, "shared", r#"{"colour": "red"}"#), [elsewhere.as_str()]);
        assert_eq!(found(&mut bob, "private", r#"{"colour": "red"}"#).len(), 0);
        // Page by page.
        let page = "SELECT id::text FROM storage.search_files('private', '{\"colour\": \"red\"}', 1, $1::text::uuid)";
        let first: String = ada.query_one(page, &[&None::<String>]).unwrap().get(0);
        let second: String = ada.query_one(page, &[&first]).unwrap().get(0);
        assert_eq!([&first, &second], [&red[0], &red[1]]);
        assert_eq!(ada.query(page, &[&second]).unwrap().len(), 0);
        // Called directly, for a bucket that is hidden, nothing.
        let bucket: String =
            scene.value("SELECT id::text FROM storage.buckets WHERE owner_id = 'ada' AND key = 'private'");
        let direct = format!(
            "SELECT count(*) FROM storage_private.search('{bucket}', '{{\"colour\": \"red\"}}', 9, NULL)"
        );
        assert_eq!(bob.query_one(&direct, &[]).unwrap().get::<_, i64>(0), 0);
        let owners =
            format!("SELECT storage_private.described_files('{bucket}', '{{\"colour\": \"red\"}}', NULL)");
        assert_eq!(refused(bob.query(&owners, &[])).sqlstate, "42501");
        for arguments in ["'private', '{}'", "'private', '[]'", "'private', NULL", "'private', '1'"] {
            let refusal = refused(ada.query(&format!("SELECT storage.search_files({arguments})"), &[]));
            assert_eq!(refusal.code(), ("22023", "INVALID_METADATA"), "{arguments}");
        }
        let refusal = refused(ada.query("SELECT storage.search_files('private', '{\"a\": 1}', 1001)", &[]));
        assert_eq!(refusal.code(), ("22023", "INVALID_LIMIT"));
    });
}

#[test]
fn an_earlier_version_that_is_moved_is_a_file_of_its_own() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    scene
        .superuser()
        .batch_execute("UPDATE storage.buckets SET max_file_count = 3 WHERE key = 'private'")
        .unwrap();
    let first = put(&mut ada, b"first", "a");
    put(&mut ada, b"second", "a");
    let moved = "SELECT (storage.move_file($1::text::uuid, path => 'b')).id::text";
    assert_eq!(ada.query_one(moved, &[&first]).unwrap().get::<_, String>(0), first);
    assert_eq!((versions(&scene, "a"), versions(&scene, "b")), ("2*".into(), "1*".into()));
    assert_downloads(&mut ada, &first, b"first");
    // To the path it has, it stays what it is. And the room is as it was.
    let third = put(&mut ada, b"third", "b");
    ada.query_one(moved, &[&first]).unwrap();
    assert_eq!(versions(&scene, "b"), "1 2*");
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&third]).unwrap();
    put(&mut ada, b"fourth", "c");
    let full = "SELECT storage.put_file('private', 'a.txt', 'fifth', 'text/plain')";
    assert_eq!(refused(ada.query(full, &[])).code().1, "QUOTA_EXCEEDED");
}

#[test]
fn a_file_that_is_renamed_to_a_path_is_the_latest_version_there() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let first = put(&mut ada, b"first", "a");
    let second = put(&mut ada, b"second", "a");
    let third = put(&mut ada, b"third", "a");
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&third]).unwrap();
    let other = put(&mut ada, b"other", "b");
    ada.execute("UPDATE storage.files SET path = 'a' WHERE id = $1::text::uuid", &[&other]).unwrap();
    let next = put(&mut ada, b"next", "a");
    assert_eq!(versions(&scene, "a"), "1 2 3 4*");
    let previous = |file: &str| -> Option<String> {
        scene.value(&format!("SELECT previous_version_id::text FROM storage.files WHERE id = '{file}'"))
    };
    assert_eq!((previous(&next), previous(&other)), (Some(other.clone()), Some(second)));
    // Where nothing was before, it comes after nothing.
    put(&mut ada, b"old", "d");
    let renamed = put(&mut ada, b"new", "d");
    ada.execute("UPDATE storage.files SET path = 'e' WHERE id = $1::text::uuid", &[&renamed]).unwrap();
    assert_eq!((versions(&scene, "d"), versions(&scene, "e")), ("1".into(), "2*".into()));
    assert_eq!(previous(&renamed), None);
    // The latest of the earlier ones is what was there last.
    assert_eq!(expire(&mut ada, "path => 'a', keep => 1"), 2);
    assert_downloads(&mut ada, &other, b"other");
    assert!(
        refused(ada.query("SELECT storage.get_file($1::text::uuid)", &[&first]))
            .message
            .contains("FILE_NOT_FOUND")
    );
    // All that a path has been can be renamed as well, and stays in its order.
    ada.batch_execute("UPDATE storage.files SET path = 'c' WHERE path = 'a'").unwrap();
    assert_eq!((versions(&scene, "a"), versions(&scene, "c")), (String::new(), "3 4*".into()));
}

#[test]
fn no_two_versions_come_after_each_other() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let rename = "UPDATE storage.files SET path = $2 WHERE id = $1::text::uuid";
    let first = put(&mut ada, b"first", "a");
    let second = put(&mut ada, b"second", "a");
    // A file of its own for a while, it comes back when what came after it is what was there last.
    for path in [None, Some("b")] {
        ada.execute(rename, &[&first, &path]).unwrap();
    }
    let third = put(&mut ada, b"third", "a");
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&third]).unwrap();
    ada.execute(rename, &[&first, &"a"]).unwrap();
    assert_eq!(versions(&scene, "a"), "2 3*");
    let both =
        format!("SELECT count(previous_version_id) FROM storage.files WHERE id IN ('{first}', '{second}')");
    assert_eq!(scene.value::<i64>(&both), 1);
}

#[test]
fn an_earlier_version_is_renamed_to_nowhere_where_it_was_not() {
    let scene = Scene::local();
    scene.shared_bucket();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let put = |session: &mut Client, path: &str| -> String {
        let put = "SELECT (storage.put_file('shared', 'a.txt', 'shared', 'text/plain', $1)).id::text";
        session.query_one(put, &[&path]).unwrap().get(0)
    };
    let [first, second, _] = [(); 3].map(|()| put(&mut ada, "adas"));
    put(&mut ada, "other");
    put(&mut bob, "bobs");
    let rename = "UPDATE storage.files SET path = $2 WHERE id = $1::text::uuid";
    // Another's, a number that is another's already, and one after the current version's.
    for (file, path) in [(&first, "bobs"), (&first, "other"), (&second, "other")] {
        let refusal = refused(ada.query(rename, &[file, &path]));
        assert_eq!(refusal.code(), ("42710", "PATH_TAKEN"), "{path}");
        assert!(refusal.detail.is_some() && refusal.hint.is_some());
    }
    // Without a path it is no version of anything, and a file like any other.
    ada.execute(rename, &[&first, &None::<String>]).unwrap();
    let listed: i64 = ada
        .query_one(
            "SELECT count(*) FROM storage.list_files('shared') WHERE file_id = $1::text::uuid",
            &[&first],
        )
        .unwrap()
        .get(0);
    assert_eq!(listed, 1);
    assert_eq!(versions(&scene, "adas"), "2 3*");
}

#[test]
fn an_upload_by_url_is_a_version_as_well() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let first = put(&mut ada, b"by sql", "a");
    let second = Upload::declared(b"by url").at("a").complete(&mut ada, b"by url").file_id;
    assert_eq!(versions(&scene, "a"), "1 2*");
    restore(&mut ada, &first);
    assert_downloads(&mut ada, &second, b"by url");
    assert_eq!(versions(&scene, "a"), "1 2 3*");
}
