//! Files through SQL alone: made, read, copied, moved, made public and private again; with the bytes where they belong.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::choice::lacks;
use pg_storage_tests::flow::{Upload, assert_downloads, download_url, sha256, some_bytes};
use pg_storage_tests::orphans::{grow_old, scan};
use pg_storage_tests::{Refusal, Scene, each_store, eventually, http, refused};
use postgres::{Client, Error};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

fn try_put(session: &mut Client, bucket: &str, content: &[u8], path: Option<&str>) -> Result<String, Error> {
    let put = "SELECT (storage.put_file($1, 'note.txt', $2, 'text/plain', $3, '{\"n\": 1.50}')).id::text";
    session.query_one(put, &[&bucket, &content, &path]).map(|row| row.get(0))
}

#[track_caller]
fn put(session: &mut Client, bucket: &str, content: &[u8], path: Option<&str>) -> String {
    try_put(session, bucket, content, path).unwrap_or_else(|error| panic!("{:?}", error.as_db_error()))
}

fn get(session: &mut Client, file: &str) -> Result<Vec<u8>, Error> {
    session.query_one("SELECT storage.get_file($1::text::uuid)", &[&file]).map(|row| row.get(0))
}

/// The id of the file that a call gives.
#[track_caller]
fn made(session: &mut Client, call: &str) -> String {
    match session.query_one(&format!("SELECT (storage.{call}).id::text"), &[]) {
        Ok(row) => row.get(0),
        Err(error) => panic!("{call}: {:?}", error.as_db_error()),
    }
}

#[track_caller]
fn refuse(session: &mut Client, call: &str) -> Refusal {
    let refusal = refused(session.query(&format!("SELECT storage.{call}"), &[]));
    assert!(refusal.detail.is_some() && refusal.hint.is_some(), "{call}: {refusal:?}");
    refusal
}

fn object(scene: &Scene, file: &str) -> String {
    scene.value(&format!("SELECT object_id::text FROM storage.files WHERE id = '{file}'"))
}

fn bucket(scene: &Scene, owner: &str, key: &str) -> String {
    scene.value(&format!("SELECT id::text FROM storage.buckets WHERE owner_id = '{owner}' AND key = '{key}'"))
}

#[test]
fn what_is_put_is_a_file_like_any_other() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("put", 5000);
        let file = put(&mut ada, "private", &bytes, Some("docs/a.txt"));
        assert_eq!(get(&mut ada, &file).unwrap(), bytes);
        assert_downloads(&mut ada, &file, &bytes);
        let row = ada
            .query_one(
                "SELECT size = 5000 AND sha256 = $2 AND content_type = 'text/plain' AND path = 'docs/a.txt' AND is_current
                        AND metadata::text = '{\"n\": 1.50}' AND owner_id = 'ada'
                 FROM storage.files WHERE id = $1::text::uuid",
                &[&file, &sha256(&bytes)],
            )
            .unwrap();
        assert!(row.get::<_, bool>(0));
        let status = format!("SELECT status::text FROM storage.upload_requests WHERE file_id = '{file}'");
        assert_eq!(scene.value::<String>(&status), "uploaded");
        let events =
            format!("SELECT count(*) FROM storage.events WHERE file_id = '{file}' AND kind = 'created'");
        assert_eq!(scene.value::<i64>(&events), 1);
        // No byte is left to be removed, and none without a row.
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.object_deletions"), 0);
        let (physical, key) = scene.place_of_file(&file);
        assert!(!key.contains("staging/"), "{key}");
        assert_eq!(scan(scene, &physical, false), []);

        // The same bytes are not sent again; other ones at the path are its next version.
        let again = put(&mut ada, "private", &bytes, None);
        assert_eq!(object(scene, &again), object(scene, &file));
        let other = put(&mut ada, "private", b"other", Some("docs/a.txt"));
        let version = format!("SELECT version FROM storage.files WHERE id = '{other}'");
        assert_eq!(scene.value::<i32>(&version), 2);
        assert_eq!(get(&mut ada, &file).unwrap(), bytes);
    });
}

#[test]
fn bytes_of_a_put_that_is_rolled_back_are_collected() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        let kept = put(&mut ada, "private", b"kept", None);
        let rows = scene.rows();
        ada.batch_execute("BEGIN").unwrap();
        let gone = put(&mut ada, "private", b"rolled back", Some("a"));
        assert_eq!(get(&mut ada, &gone).unwrap(), b"rolled back");
        let place: (String, String) = {
            let of_object = "SELECT physical_name, object_key FROM storage.upload_requests WHERE file_id = $1::text::uuid";
            let row = ada.query_one(of_object, &[&gone]).unwrap();
            (row.get(0), row.get(1))
        };
        ada.batch_execute("ROLLBACK").unwrap();
        assert_eq!(scene.rows(), rows);
        assert!(scene.exists(&place));
        grow_old();
        let found = scan(scene, &place.0, true);
        assert_eq!(found.iter().map(|orphan| orphan.key.as_str()).collect::<Vec<_>>(), [place.1.as_str()]);
        scene.collect();
        assert!(!scene.exists(&place));
        assert_eq!(get(&mut ada, &kept).unwrap(), b"kept");
        // The path is free.
        put(&mut ada, "private", b"next", Some("a"));
    });
}

#[test]
fn sizes_types_and_rights_are_those_of_an_upload() {
    let scene = Scene::local();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let file = put(&mut ada, "private", b"hers", None);
    let rows = scene.rows();
    assert_eq!(refused(try_put(&mut ada, "private", b"", None)).code(), ("22023", "INVALID_FILE_SIZE"));
    assert_eq!(refused(try_put(&mut ada, "private", b"x", Some("/a"))).code(), ("22023", "INVALID_PATH"));
    assert_eq!(refused(try_put(&mut ada, "none", b"x", None)).code(), ("42704", "BUCKET_NOT_FOUND"));
    let hers = bucket(&scene, "ada", "public");
    assert_eq!(refused(try_put(&mut bob, &hers, b"x", None)).code(), ("42501", "RBAC_FORBIDDEN"));
    let png = "put_file('private', 'a.txt', '\\x89504e470d0a1a0a0000000d49484452', 'text/plain')";
    assert_eq!(refuse(&mut ada, png).code(), ("22023", "UPLOAD_TYPE_MISMATCH"));
    for nulls in
        ["put_file(NULL, NULL, NULL, NULL, NULL, NULL)", "put_file('private', 'a.txt', NULL, 'text/plain')"]
    {
        assert_eq!(refuse(&mut ada, nulls).sqlstate, "22023", "{nulls}");
    }
    assert_eq!(
        refuse(&mut ada, "put_file('private', 'a.txt', 'x', 'text/plain', metadata => '[]')").code().1,
        "INVALID_METADATA"
    );
    assert_eq!(refused(get(&mut bob, &file)).code(), ("42704", "FILE_NOT_FOUND"));
    assert_eq!(refuse(&mut ada, "get_file(NULL)").code(), ("42704", "FILE_NOT_FOUND"));
    assert_eq!(scene.rows(), rows);

    scene.set("pg_storage.max_inline_size", "10B");
    let mut ada = scene.user("ada");
    put(&mut ada, "private", &[b'x'; 10], None);
    assert_eq!(refused(try_put(&mut ada, "private", &[b'x'; 11], None)).code(), ("53400", "FILE_TOO_LARGE"));
    let large = Upload::of(b"eleven more").complete(&mut ada, b"eleven more").file_id;
    assert_eq!(refused(get(&mut ada, &large)).code(), ("53400", "FILE_TOO_LARGE"));
}

#[test]
fn bytes_that_the_store_has_no_longer_or_has_changed_are_not_given() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let file = put(&mut ada, "private", b"as it was", None);
        let place = scene.place_of_file(&file);
        scene.overwrite(&place, "text/plain", b"as it is!");
        assert_eq!(refused(get(&mut ada, &file)).code(), ("58030", "STORE_ERROR"));
        scene.overwrite(&place, "text/plain", b"short");
        assert_eq!(refused(get(&mut ada, &file)).code(), ("58030", "STORE_ERROR"));
        // Nor copied to where they would have to be others.
        let refusal = refuse(&mut ada, &format!("copy_file('{file}', 'public')"));
        assert_eq!(refusal.code(), ("58030", "STORE_ERROR"));
    });
}

#[test]
fn a_copy_within_a_physical_bucket_moves_no_bytes_and_outlives_its_source() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        scene
            .manager("ada")
            .batch_execute("SELECT storage.create_bucket('second'); SELECT storage.create_bucket('apart')")
            .unwrap();
        scene
            .superuser()
            .batch_execute("UPDATE storage.buckets SET dedup = 'off' WHERE key = 'apart'")
            .unwrap();
        let bytes = some_bytes("copied", 100);
        let file = put(&mut ada, "private", &bytes, Some("docs/a.txt"));
        for (arguments, path, name) in [
            ("", None, "note.txt"),
            (", path => 'docs/b.txt', filename => 'b.txt'", Some("docs/b.txt"), "b.txt"),
            (", 'second', 'docs/a.txt'", Some("docs/a.txt"), "note.txt"),
            (", 'apart'", None, "note.txt"),
        ] {
            let copy = made(&mut ada, &format!("copy_file('{file}'{arguments})"));
            assert_eq!(object(scene, &copy), object(scene, &file), "{arguments}");
            let row = ada
                .query_one(
                    "SELECT c.path, c.filename, c.metadata::text = f.metadata::text AND c.content_type = f.content_type AND c.sha256 = f.sha256
                     FROM storage.files c, storage.files f WHERE c.id = $1::text::uuid AND f.id = $2::text::uuid",
                    &[&copy, &file],
                )
                .unwrap();
            assert_eq!((row.get(0), row.get(1), row.get(2)), (path, name, true), "{arguments}");
        }
        let copy = made(&mut ada, &format!("copy_file('{file}')"));
        ada.execute("DELETE FROM storage.files WHERE id <> $1::text::uuid", &[&copy]).unwrap();
        scene.collect();
        assert_downloads(&mut ada, &copy, &bytes);
        // To a path that is taken it is the next version.
        let one = made(&mut ada, &format!("copy_file('{copy}', path => 'v')"));
        let two = made(&mut ada, &format!("copy_file('{copy}', path => 'v')"));
        let versions = format!(
            "SELECT string_agg(version::text, ' ' ORDER BY version) FROM storage.files WHERE id IN ('{one}', '{two}')"
        );
        assert_eq!(scene.value::<String>(&versions), "1 2");
    });
}

#[test]
fn a_copy_to_another_access_has_bytes_of_its_own() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        let bytes = some_bytes("apart", 3000);
        let file = put(&mut ada, "private", &bytes, Some("a/b.txt"));
        for key in ["public", "temp"] {
            let copy = made(&mut ada, &format!("copy_file('{file}', '{key}', 'c.txt')"));
            assert_ne!(object(scene, &copy), object(scene, &file));
            assert_ne!(scene.place_of_file(&copy).0, scene.place_of_file(&file).0);
            assert_downloads(&mut ada, &copy, &bytes);
        }
        // In a temporary bucket, where bytes have an age, a copy's are new.
        let temporary: String = scene.value("SELECT f.id::text FROM storage.files f JOIN storage.buckets b ON b.id = f.bucket_id WHERE b.key = 'temp'");
        let copy = made(&mut ada, &format!("copy_file('{temporary}')"));
        assert_ne!(object(scene, &copy), object(scene, &temporary));
        let queued =
            "SELECT coalesce(string_agg(reason || ' ' || key, ', '), '') FROM storage.object_deletions";
        assert_eq!(scene.value::<String>(queued), "");
        for physical in ["private", "public", "temp"] {
            let name: String = scene.value(&format!(
                "SELECT physical_name FROM storage.buckets WHERE owner_id = 'ada' AND key = '{physical}'"
            ));
            assert_eq!(scan(scene, &name, false), []);
        }
        // A transaction that keeps its snapshot shares nothing; it copies.
        ada.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
        let copy = made(&mut ada, &format!("copy_file('{file}')"));
        ada.batch_execute("COMMIT").unwrap();
        assert_ne!(object(scene, &copy), object(scene, &file));
        assert_downloads(&mut ada, &copy, &bytes);
    });
}

#[test]
fn copying_takes_the_right_to_download_and_the_right_to_upload() {
    let scene = Scene::local();
    scene.shared_bucket();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let hidden = put(&mut ada, "private", b"hidden", None);
    let shown = put(&mut ada, "shared", b"shown", None);
    assert_eq!(
        refuse(&mut bob, &format!("copy_file('{hidden}', 'private')")).code(),
        ("42704", "FILE_NOT_FOUND")
    );
    let hers = bucket(&scene, "ada", "public");
    assert_eq!(
        refuse(&mut bob, &format!("copy_file('{shown}', '{hers}')")).code(),
        ("42501", "RBAC_FORBIDDEN")
    );
    let copy = made(&mut bob, &format!("copy_file('{shown}', 'private')"));
    assert_eq!(
        scene.value::<String>(&format!("SELECT owner_id FROM storage.files WHERE id = '{copy}'")),
        "bob"
    );
    // Seeing the row is not enough where signing is a right of its own.
    scene
        .superuser()
        .batch_execute(
            "SELECT storage.enable_default_policies(false);
             SELECT storage.add_policy('b', 'buckets', 'read', 'true');
             SELECT storage.add_policy('u', 'upload_requests', 'upload', check_expr => 'true');
             SELECT storage.add_policy('ur', 'upload_requests', 'read', 'true');
             SELECT storage.add_policy('m', 'files', 'move', 'true');
             SELECT storage.add_policy('r', 'files', 'read', 'true')",
        )
        .unwrap();
    for call in [
        format!("copy_file('{hidden}', 'private')"),
        format!("move_file('{hidden}', 'private')"),
        format!("move_file('{hidden}', path => 'mine')"),
        format!("get_file('{hidden}')"),
    ] {
        assert_eq!(refuse(&mut bob, &call).code(), ("42704", "FILE_NOT_FOUND"), "{call}");
    }
}

#[test]
fn quotas_limits_and_types_of_the_bucket_count_for_copies_and_moves() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    scene
        .manager("ada")
        .batch_execute("SELECT storage.create_bucket('images', allowed_mime_types => '{image/*}'); SELECT storage.create_bucket('small', max_file_size => 5); SELECT storage.create_bucket('full')")
        .unwrap();
    scene
        .superuser()
        .batch_execute("UPDATE storage.buckets SET max_file_count = 1 WHERE key = 'full'")
        .unwrap();
    let file = put(&mut ada, "private", b"some text", Some("a"));
    for call in ["copy_file", "move_file"] {
        for (bucket, token) in [("images", "CONTENT_TYPE_NOT_ALLOWED"), ("small", "FILE_TOO_LARGE")] {
            assert_eq!(refuse(&mut ada, &format!("{call}('{file}', '{bucket}')")).code().1, token);
        }
    }
    let copy = made(&mut ada, &format!("copy_file('{file}', 'full')"));
    for call in ["copy_file", "move_file"] {
        assert_eq!(
            refuse(&mut ada, &format!("{call}('{file}', 'full')")).code(),
            ("53400", "QUOTA_EXCEEDED")
        );
    }
    // What moves out makes room, what moves in takes it.
    made(&mut ada, &format!("move_file('{copy}', 'private', 'b')"));
    made(&mut ada, &format!("move_file('{file}', 'full')"));
    assert_eq!(refused(try_put(&mut ada, "full", b"more", None)).code().1, "QUOTA_EXCEEDED");
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&file]).unwrap();
    put(&mut ada, "full", b"more", None);
}

#[test]
fn a_move_within_a_bucket_changes_the_path_alone() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let file = put(&mut ada, "private", b"moved", Some("a"));
    put(&mut ada, "private", b"there", Some("taken"));
    let before = scene.place_of_file(&file);
    made(&mut ada, &format!("move_file('{file}', path => 'b/c')"));
    made(&mut ada, &format!("move_file('{file}', 'private', 'b/d')"));
    made(&mut ada, &format!("move_file('{file}')"));
    let path: String = scene.value(&format!("SELECT path FROM storage.files WHERE id = '{file}'"));
    assert_eq!(path, "b/d");
    assert_eq!(scene.place_of_file(&file), before);
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.upload_requests"), 2, "it is no upload");
    assert_eq!(
        refuse(&mut ada, &format!("move_file('{file}', path => 'taken')")).code(),
        ("42710", "PATH_TAKEN")
    );
    assert_eq!(
        refuse(&mut ada, &format!("move_file('{file}', path => '../x')")).code(),
        ("22023", "INVALID_PATH")
    );
    let mut bob = scene.user("bob");
    assert_eq!(
        refuse(&mut bob, &format!("move_file('{file}', path => 'x')")).code(),
        ("42704", "FILE_NOT_FOUND")
    );
}

#[test]
fn a_file_that_came_in_parts_is_copied_and_moved_whatever_its_size() {
    let scene = Scene::local();
    scene.set("pg_storage.max_file_size", "10GB");
    let mut ada = scene.user("ada");
    scene.manager("ada").batch_execute("SELECT storage.create_bucket('second')").unwrap();
    let file = put(&mut ada, "private", b"6 GiB, as far as rows say", Some("film"));
    scene
        .superuser()
        .batch_execute(&format!(
            "UPDATE storage.objects SET size = 6::bigint << 30 WHERE id = '{}';
             UPDATE storage.files SET size = 6::bigint << 30 WHERE id = '{file}'",
            object(&scene, &file)
        ))
        .unwrap();
    let copy = made(&mut ada, &format!("copy_file('{file}', path => 'film')"));
    assert_eq!(object(&scene, &copy), object(&scene, &file));
    let restored = made(&mut ada, &format!("restore_version('{file}')"));
    assert_eq!(object(&scene, &restored), object(&scene, &file));
    made(&mut ada, &format!("move_file('{copy}', 'second', 'film')"));
    // The server's own limit counts all the same.
    scene.set("pg_storage.max_file_size", "5GB");
    assert_eq!(
        refuse(&mut scene.user("ada"), &format!("copy_file('{file}')")).code(),
        ("22023", "INVALID_FILE_SIZE")
    );
}

#[test]
fn a_file_that_moves_to_another_bucket_is_the_same_file() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        scene.manager("ada").batch_execute("SELECT storage.create_bucket('second')").unwrap();
        let bytes = some_bytes("same", 500);
        let file = Upload::of(&bytes).at("docs/a.txt").complete(&mut ada, &bytes).file_id;
        scene.collect();
        let (before, requests) =
            (object(scene, &file), scene.value::<i64>("SELECT count(*) FROM storage.upload_requests"));
        assert_eq!(made(&mut ada, &format!("move_file('{file}', 'second')")), file);
        assert_eq!(object(scene, &file), before, "no bytes move");
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.upload_requests"), requests);
        let events = format!(
            "SELECT string_agg(kind || ' ' || key, ', ' ORDER BY e.id) FROM storage.events e JOIN storage.buckets b ON b.id = e.bucket_id WHERE file_id = '{file}'"
        );
        assert_eq!(scene.value::<String>(&events), "created private, deleted private, created second");
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.object_deletions"), 0);
        // To where a path is taken it does not go, and nothing of the try is left.
        put(&mut ada, "private", b"in the way", Some("docs/a.txt"));
        let rows = scene.rows();
        assert_eq!(
            refuse(&mut ada, &format!("move_file('{file}', 'private')")).code(),
            ("42710", "PATH_TAKEN")
        );
        assert_eq!(scene.rows(), rows);
        made(&mut ada, &format!("move_file('{file}', 'temp', 'c')"));
        let expires: bool = scene.value(&format!(
            "SELECT expires_at > now() + interval '23 hours' FROM storage.files WHERE id = '{file}'"
        ));
        assert!(expires);
        assert_downloads(&mut ada, &file, &bytes);
    });
}

#[test]
fn access_is_set_by_bytes_that_move_and_a_public_url_ends() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("access", 700);
        let file = put(&mut ada, "private", &bytes, Some("me.txt"));
        let private = scene.place_of_file(&file);
        assert_eq!(refuse(&mut ada, &format!("public_url('{file}')")).code(), ("55000", "NOT_PUBLIC"));
        assert_eq!(made(&mut ada, &format!("set_file_access('{file}', 'public')")), file);
        let public = scene.place_of_file(&file);
        assert_ne!(public.0, private.0);
        let url: String =
            ada.query_one("SELECT storage.public_url($1::text::uuid)", &[&file]).unwrap().get(0);
        // Garage has no public buckets; its lack is check()'s to tell.
        let readable = http::get(&url).status == 200;
        let told = "SELECT status = 'ok' FROM storage.check() WHERE name = 'public_read'";
        assert_eq!(readable, scene.value::<bool>(told), "{url}");
        if !readable {
            lacks("public_read");
        }
        // Private bytes stay for the delay that a backup needs, public ones not.
        scene.maintain();
        assert!(scene.exists(&private));
        made(&mut ada, &format!("set_file_access('{file}', 'private')"));
        eventually("the public bytes to go", LIMIT, || {
            scene.maintain();
            (!scene.exists(&public)).then_some(())
        });
        assert_ne!(http::get(&url).status, 200);
        assert_downloads(&mut ada, &file, &bytes);
        let path: String = scene.value(&format!("SELECT path FROM storage.files WHERE id = '{file}'"));
        assert_eq!(path, "me.txt");
        // There already.
        let rows = scene.rows();
        assert_eq!(made(&mut ada, &format!("set_file_access('{file}', 'private')")), file);
        assert_eq!(scene.rows(), rows);
    });
}

/// The versions of a path in a bucket, the current one with a star, each after the one it replaced.
fn versions(scene: &Scene, bucket: &str, path: &str) -> String {
    scene.value(&format!(
        "SELECT coalesce(string_agg(concat_ws('<', p.version, f.version) || CASE WHEN f.is_current THEN '*' ELSE '' END, ' ' ORDER BY f.version), '')
         FROM storage.files f LEFT JOIN storage.files p ON p.id = f.previous_version_id
         WHERE f.bucket_id = '{bucket}' AND f.path = '{path}'"
    ))
}

#[test]
fn what_a_path_was_stays_public_no_longer_than_what_it_is() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let first = put(&mut ada, "public", b"a secret", Some("me.txt"));
        let second = put(&mut ada, "public", b"nothing", Some("me.txt"));
        let third = made(&mut ada, &format!("restore_version('{first}')"));
        let elsewhere = put(&mut ada, "public", b"another path", Some("you.txt"));
        let (public, private) = (bucket(scene, "ada", "public"), bucket(scene, "ada", "private"));
        assert_eq!(versions(scene, &public, "me.txt"), "1 1<2 2<3*");
        let files = [&first, &second, &third];
        let places = files.map(|file| scene.place_of_file(file));
        let urls: Vec<String> = files
            .iter()
            .map(|file| ada.query_one("SELECT storage.public_url($1::text::uuid)", &[file]).unwrap().get(0))
            .collect();
        let replaced = "SELECT string_agg(superseded_at::text, ' ' ORDER BY version) FROM storage.files WHERE path = 'me.txt'";
        let replaced_before: String = scene.value(replaced);

        // All or nothing: where the path is taken, none of them goes.
        let taken = put(&mut ada, "private", b"in the way", Some("me.txt"));
        let rows = scene.rows();
        let refusal = refuse(&mut ada, &format!("set_file_access('{third}', 'private')"));
        assert_eq!(refusal.code(), ("42710", "PATH_TAKEN"));
        assert_eq!(scene.rows(), rows);
        made(&mut ada, &format!("delete_file('{taken}')"));

        made(&mut ada, &format!("set_file_access('{third}', 'private')"));
        assert_eq!(versions(scene, &public, "me.txt"), "");
        assert_eq!(versions(scene, &private, "me.txt"), "1 1<2 2<3*");
        assert_eq!(scene.value::<String>(replaced), replaced_before);
        eventually("the public bytes to go", LIMIT, || {
            scene.maintain();
            places.iter().all(|place| !scene.exists(place)).then_some(())
        });
        for url in &urls {
            assert_ne!(http::get(url).status, 200, "{url}");
        }
        for (file, bytes) in files.iter().zip([&b"a secret"[..], b"nothing", b"a secret"]) {
            assert_downloads(&mut ada, file, bytes);
        }
        assert_eq!(versions(scene, &public, "you.txt"), "1*");
        assert_downloads(&mut ada, &elsewhere, b"another path");
        // One that is deleted while it is public stays for the delay.
        let public_place = scene.place_of_file(&elsewhere);
        made(&mut ada, &format!("delete_file('{elsewhere}')"));
        scene.maintain();
        assert!(scene.exists(&public_place));

        // Published is what was named, and nothing that it was before.
        made(&mut ada, &format!("set_file_access('{third}', 'public')"));
        assert_eq!(
            (versions(scene, &public, "me.txt"), versions(scene, &private, "me.txt")),
            ("1*".into(), "1 1<2".into())
        );
        // Taken back, it goes on where it was.
        made(&mut ada, &format!("set_file_access('{third}', 'private')"));
        assert_eq!(versions(scene, &private, "me.txt"), "1 1<2 2<3*");
        // An earlier one that is named goes alone.
        made(&mut ada, &format!("delete_file('{third}')"));
        made(&mut ada, &format!("set_file_access('{first}', 'public')"));
        assert_eq!(
            (versions(scene, &public, "me.txt"), versions(scene, &private, "me.txt")),
            ("1*".into(), "2".into())
        );
    });
}

#[test]
fn versions_of_another_user_stay_where_they_are() {
    let scene = Scene::local();
    scene.shared_bucket();
    scene
        .superuser()
        .batch_execute("INSERT INTO storage.buckets (tenant_id, owner_id, key, access) VALUES ('default', NULL, 'site', 'public')")
        .unwrap();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let adas = put(&mut ada, "site", b"adas", Some("index"));
    let second = put(&mut ada, "site", b"adas second", Some("index"));
    made(&mut ada, &format!("delete_file('{second}')"));
    put(&mut bob, "site", b"bobs", Some("index"));
    let bobs = put(&mut bob, "site", b"bobs second", Some("index"));
    let (site, shared): (String, String) = (
        scene.value("SELECT id::text FROM storage.buckets WHERE key = 'site'"),
        scene.value("SELECT id::text FROM storage.buckets WHERE key = 'shared'"),
    );
    made(&mut bob, &format!("set_file_access('{bobs}', 'private')"));
    assert_eq!(
        (versions(&scene, &site, "index"), versions(&scene, &shared, "index")),
        ("1".into(), "1 1<2*".into())
    );
    assert_downloads(&mut ada, &adas, b"adas");
}

#[test]
fn a_version_that_is_not_the_caller_s_to_change_keeps_all_of_them() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let first = put(&mut ada, "public", b"first", Some("kept"));
    let second = put(&mut ada, "public", b"second", Some("kept"));
    // Row security of one's own, that lets nobody see earlier versions.
    scene
        .superuser()
        .batch_execute(
            "CREATE POLICY current_only ON storage.files AS RESTRICTIVE FOR SELECT USING (is_current)",
        )
        .unwrap();
    let refusal = refuse(&mut ada, &format!("set_file_access('{second}', 'private')"));
    assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"));
    assert!(refusal.detail.unwrap().contains(&first));
    let public = bucket(&scene, "ada", "public");
    assert_eq!(versions(&scene, &public, "kept"), "1 1<2*");
}

#[test]
fn public_bytes_that_another_public_file_has_stay() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let one = put(&mut ada, "public", b"twice", None);
    let two = made(&mut ada, &format!("copy_file('{one}')"));
    made(&mut ada, &format!("set_file_access('{one}', 'private')"));
    scene.collect();
    for file in [&one, &two] {
        assert_downloads(&mut ada, file, b"twice");
    }
}

#[test]
fn a_name_that_contradicts_the_type_is_refused_when_it_is_given() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let file = put(&mut ada, "private", b"text", Some("a"));
    let rename = "UPDATE storage.files SET filename = $2 WHERE id = $1::text::uuid";
    let refusal = refused(ada.execute(rename, &[&file, &"picture.png"]));
    assert_eq!(refusal.code(), ("22023", "UPLOAD_TYPE_MISMATCH"));
    assert!(refusal.detail.unwrap().contains("picture.png"));
    // The hint is for somebody who renames: the type is what it is.
    let hint = refusal.hint.unwrap();
    assert!(hint.contains("text/plain") && !hint.contains("Declare"), "{hint}");
    for name in ["other.txt", "README", "notes.md"] {
        assert_eq!(ada.execute(rename, &[&file, &name]).unwrap(), 1, "{name}");
    }
    // One that has such a name already, by an import say, can be given another path, and metadata.
    scene
        .superuser()
        .batch_execute(&format!(
            "SET session_replication_role = replica; UPDATE storage.files SET filename = 'picture.png' WHERE id = '{file}'"
        ))
        .unwrap();
    let path = "UPDATE storage.files SET path = 'b', filename = filename WHERE id = $1::text::uuid";
    assert_eq!(ada.execute(path, &[&file]).unwrap(), 1);
    let refusal = refuse(&mut ada, &format!("set_file_access('{file}', 'public')"));
    assert_eq!(refusal.token, "UPLOAD_TYPE_MISMATCH");
    // And what its hint says can be done.
    assert!(refusal.hint.unwrap().contains("name"));
    ada.execute(rename, &[&file, &"picture.txt"]).unwrap();
    made(&mut ada, &format!("set_file_access('{file}', 'public')"));
}

#[test]
fn a_path_that_is_refused_today_is_kept_until_the_file_goes_elsewhere() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let file = put(&mut ada, "public", b"text", Some("a"));
    // Letters that are not composed were taken once.
    scene
        .superuser()
        .batch_execute(&format!(
            "SET session_replication_role = replica;
             UPDATE storage.files SET path = normalize('한', NFD) WHERE id = '{file}'"
        ))
        .unwrap();
    ada.batch_execute("UPDATE storage.files SET filename = 'b.txt'; UPDATE storage.files SET path = path")
        .unwrap();
    let refusal = refuse(&mut ada, &format!("set_file_access('{file}', 'private')"));
    assert_eq!(refusal.code(), ("22023", "INVALID_PATH"));
    ada.batch_execute("UPDATE storage.files SET path = normalize(path)").unwrap();
    made(&mut ada, &format!("set_file_access('{file}', 'private')"));
}

#[test]
fn a_file_that_is_over_holds_no_path() {
    let scene = Scene::local();
    scene.set("pg_storage.event_retention", "1h");
    scene.shared_bucket();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let shared: String = scene.value("SELECT id::text FROM storage.buckets WHERE key = 'shared'");
    let over = |session: &mut Client, path: &str| -> String {
        let file = put(session, "shared", b"over", Some(path));
        scene
            .superuser()
            .batch_execute(&format!("UPDATE storage.files SET expires_at = now() WHERE id = '{file}'"))
            .unwrap();
        file
    };
    let ended = |file: &str| -> bool {
        scene.value(&format!(
            "SELECT NOT EXISTS (SELECT FROM storage.files WHERE id = '{file}')
                AND EXISTS (SELECT FROM storage.events WHERE kind = 'deleted' AND file_id = '{file}')
                AND EXISTS (SELECT FROM storage.object_deletions d JOIN storage.objects o USING (physical_name, key)
                            JOIN storage.events e ON e.object_id = o.id WHERE e.kind = 'deleted' AND e.file_id = '{file}')"
        ))
    };
    // By an upload, whoever's the file was; and one by URL that was asked for meanwhile.
    for mine in [false, true] {
        let file = if mine { over(&mut bob, "mine") } else { over(&mut ada, "put") };
        put(&mut bob, "shared", b"bobs", Some(if mine { "mine" } else { "put" }));
        assert!(ended(&file));
        assert_eq!(versions(&scene, &shared, if mine { "mine" } else { "put" }), "1*");
    }
    let file = over(&mut ada, "url");
    Upload::declared(b"by url").to("shared").at("url").complete(&mut bob, b"by url");
    assert!(ended(&file));
    // By a rename and by a move.
    let file = over(&mut ada, "renamed");
    let other = put(&mut bob, "shared", b"bobs", None);
    bob.execute("UPDATE storage.files SET path = 'renamed' WHERE id = $1::text::uuid", &[&other]).unwrap();
    assert!(ended(&file));
    let file = over(&mut ada, "moved");
    let other = put(&mut bob, "private", b"bobs", Some("moved"));
    made(&mut bob, &format!("move_file('{other}', 'shared')"));
    assert!(ended(&file));
    // Who comes waits for whoever holds it.
    let file = over(&mut ada, "held");
    let mut holder = scene.superuser();
    holder
        .batch_execute(&format!("BEGIN; SELECT FROM storage.files WHERE id = '{file}' FOR KEY SHARE"))
        .unwrap();
    let put = "SELECT storage.put_file('shared', 'a.txt', 'adas', 'text/plain', 'held')".to_owned();
    behind(&scene, &mut holder, "COMMIT", put).unwrap();
    assert!(ended(&file));
}

#[test]
fn a_path_is_taken_also_while_somebody_holds_the_file_that_has_it() {
    let scene = Scene::local();
    scene.shared_bucket();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let adas = put(&mut ada, "shared", b"adas", Some("adas"));
    let bobs = put(&mut bob, "shared", b"bobs", Some("bobs"));
    let elsewhere = put(&mut ada, "private", b"adas", Some("bobs"));
    ada.batch_execute("SET lock_timeout = '10s'").unwrap();
    // Each holds what the other wants: both are refused, and neither waits.
    let touch = "UPDATE storage.files SET metadata = '{}' WHERE id = $1::text::uuid";
    let rename = "UPDATE storage.files SET path = $2 WHERE id = $1::text::uuid";
    bob.batch_execute("BEGIN").unwrap();
    bob.execute(touch, &[&bobs]).unwrap();
    ada.batch_execute("BEGIN").unwrap();
    ada.execute(touch, &[&adas]).unwrap();
    assert_eq!(refused(ada.execute(rename, &[&adas, &"bobs"])).code(), ("42710", "PATH_TAKEN"));
    assert_eq!(refused(bob.execute(rename, &[&bobs, &"adas"])).code(), ("42710", "PATH_TAKEN"));
    for session in [&mut ada, &mut bob] {
        session.batch_execute("ROLLBACK; BEGIN").unwrap();
    }
    bob.execute(touch, &[&bobs]).unwrap();
    assert_eq!(refuse(&mut ada, &format!("move_file('{elsewhere}', 'shared')")).token, "PATH_TAKEN");
    for session in [&mut ada, &mut bob] {
        session.batch_execute("ROLLBACK").unwrap();
    }
    // Whose upload has arrived waits for a file that is just going.
    for leave in ["DELETE FROM storage.files", "UPDATE storage.files SET path = 'left'"] {
        let ticket = Upload::declared(b"in time").to("shared").at("going").request(&mut ada);
        assert!(ticket.put(b"in time").is_success());
        put(&mut bob, "shared", b"going", Some("going"));
        bob.batch_execute(&format!("BEGIN; {leave} WHERE path = 'going'")).unwrap();
        behind(&scene, &mut bob, "COMMIT", format!("SELECT storage.confirm_upload('{}')", ticket.upload_id))
            .unwrap();
        assert_eq!(ada.execute("DELETE FROM storage.files WHERE path = 'going'", &[]).unwrap(), 1, "{leave}");
    }
}

#[test]
fn which_bucket_an_access_means_is_never_guessed() {
    let scene = Scene::local();
    scene.shared_bucket();
    let mut ada = scene.user("ada");
    let file = put(&mut ada, "private", b"which", None);
    let shared = put(&mut ada, "shared", b"which", None);
    let refusal = refuse(&mut ada, &format!("set_file_access('{shared}', 'public')"));
    assert_eq!(refusal.code(), ("55000", "DEFAULT_BUCKET_MISSING"));
    // Whoever may not change it is told what move_file() tells him, and nothing of buckets.
    let mut bob = scene.user("bob");
    let refusal = refuse(&mut bob, &format!("set_file_access('{shared}', 'public')"));
    assert_eq!(refusal, refuse(&mut bob, &format!("move_file('{shared}', 'private')")));
    assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"));
    let public = bucket(&scene, "ada", "public");
    scene
        .superuser()
        .batch_execute(&format!(
            "UPDATE storage.buckets SET key = 'one' WHERE id = '{public}';
             INSERT INTO storage.buckets (tenant_id, owner_id, key, access) VALUES ('default', 'ada', 'two', 'public')"
        ))
        .unwrap();
    let refusal = refuse(&mut ada, &format!("set_file_access('{file}', 'public')"));
    assert_eq!(refusal.code(), ("55000", "DEFAULT_BUCKET_AMBIGUOUS"));
    assert_eq!(
        refuse(&mut ada, &format!("set_file_access('{file}', NULL)")).code().1,
        "DEFAULT_BUCKET_MISSING"
    );
    scene
        .superuser()
        .batch_execute("UPDATE storage.buckets SET is_default = true WHERE key = 'two'")
        .unwrap();
    made(&mut ada, &format!("set_file_access('{file}', 'public')"));
    let key = format!(
        "SELECT b.key FROM storage.files f JOIN storage.buckets b ON b.id = f.bucket_id WHERE f.id = '{file}'"
    );
    assert_eq!(scene.value::<String>(&key), "two");
}

#[test]
fn null_is_the_id_of_no_file() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    for call in [
        "download_url(NULL)",
        "public_url(NULL)",
        "get_file(NULL)",
        "copy_file(NULL)",
        "move_file(NULL)",
        "set_file_access(NULL, 'public')",
        "restore_version(NULL)",
        "delete_file(NULL)",
    ] {
        let refusal = refuse(&mut ada, call);
        assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"), "{call}");
        assert_eq!(refusal.detail.as_deref(), Some("Asked for NULL."), "{call}");
        let changes = call.starts_with("move") || call.starts_with("set");
        assert_eq!(refusal.hint.unwrap().contains("moved"), changes, "{call}");
    }
    for call in [
        "confirm_upload(NULL)",
        "confirm_uploads('{NULL}')",
        "abort_upload(NULL)",
        "list_upload_parts(NULL)",
        "sign_upload_parts(NULL, '{1}')",
    ] {
        let refusal = refuse(&mut ada, call);
        assert_eq!(refusal.code(), ("42704", "UPLOAD_NOT_FOUND"), "{call}");
        assert_eq!(refusal.detail.as_deref(), Some("Asked for NULL."), "{call}");
    }
}

/// Runs `call` in a session of ada's, which must wait for the transaction that `open` is in, and ends that.
fn behind(scene: &Scene, open: &mut Client, end: &str, call: String) -> Result<(), Error> {
    let mut waiting = scene.try_session("ada", "default", false).unwrap();
    let pid: i32 = waiting.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let acting = std::thread::spawn(move || waiting.batch_execute(&call));
    eventually("one session to wait for the other", LIMIT, || {
        scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
    });
    open.batch_execute(end).unwrap();
    acting.join().unwrap()
}

#[test]
fn a_copy_and_a_deletion_that_meet_leave_a_copy_with_its_bytes_or_none() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        for (name, rest) in [
            ("copy_file", ""),
            ("copy_file", ", 'public'"),
            ("set_file_access", ", 'public'"),
            ("move_file", ", 'temp'"),
        ] {
            // The deletion comes second and waits: the copy has its bytes.
            let file = put(&mut ada, "private", b"contested", None);
            ada.batch_execute("BEGIN").unwrap();
            let result = made(&mut ada, &format!("{name}('{file}'{rest})"));
            let delete = format!("SELECT storage.delete_file('{file}')");
            behind(scene, &mut ada, "COMMIT", delete).unwrap();
            scene.collect();
            if result != file {
                assert_downloads(&mut ada, &result, b"contested");
            }
            let left = format!("SELECT count(*) FROM storage.files WHERE id = '{file}'");
            assert_eq!(scene.value::<i64>(&left), 0, "{name}{rest}");

            // The copy comes second and waits: there is nothing to copy. Unless the deletion is rolled back.
            for (end, token) in [("COMMIT", Some("FILE_NOT_FOUND")), ("ROLLBACK", None)] {
                let file = put(&mut ada, "private", b"contested too", None);
                ada.batch_execute("BEGIN").unwrap();
                ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&file]).unwrap();
                let call = format!("SELECT storage.{name}('{file}'{rest})");
                let answer = behind(scene, &mut ada, end, call);
                match token {
                    Some(token) => assert_eq!(refused(answer).token, token, "{name}{rest}"),
                    None => answer.unwrap_or_else(|error| panic!("{name}{rest}: {:?}", error.as_db_error())),
                }
            }
            ada.batch_execute("DELETE FROM storage.files").unwrap();
            scene.collect();
        }
    });
}

#[test]
fn a_move_and_an_upload_to_one_path_make_no_two_current_files() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    for target in ["private", "second"] {
        if target == "second" {
            scene.manager("ada").batch_execute("SELECT storage.create_bucket('second')").unwrap();
        }
        // The upload first: the move finds the path taken.
        let file = put(&mut ada, "private", b"mover", Some("from"));
        let moving = format!("SELECT storage.move_file('{file}', '{target}', 'to')");
        ada.batch_execute("BEGIN").unwrap();
        put(&mut ada, target, b"uploaded", Some("to"));
        assert_eq!(refused(behind(&scene, &mut ada, "COMMIT", moving.clone())).token, "PATH_TAKEN");
        ada.batch_execute("DELETE FROM storage.files WHERE path = 'to'").unwrap();
        // The move first: the upload is the next version.
        ada.batch_execute(&format!("BEGIN; {moving}")).unwrap();
        let uploading = format!("SELECT storage.put_file('{target}', 'a.txt', 'new', 'text/plain', 'to')");
        behind(&scene, &mut ada, "COMMIT", uploading).unwrap();
        let versions = "SELECT string_agg(version || ' ' || is_current, ', ' ORDER BY version) FROM storage.files WHERE path = 'to'";
        assert_eq!(scene.value::<String>(versions), "1 false, 2 true", "{target}");
        ada.batch_execute("DELETE FROM storage.files").unwrap();
    }
}

#[test]
fn two_moves_of_one_file_follow_each_other() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let file = put(&mut ada, "private", b"tossed", Some("from"));
    ada.batch_execute("BEGIN").unwrap();
    made(&mut ada, &format!("move_file('{file}', 'public', 'over')"));
    let second = format!("SELECT storage.move_file('{file}', 'temp')");
    behind(&scene, &mut ada, "COMMIT", second).unwrap();
    scene.collect();
    assert_downloads(&mut ada, &file, b"tossed");
    let key = format!(
        "SELECT b.key FROM storage.files f JOIN storage.buckets b ON b.id = f.bucket_id WHERE f.id = '{file}'"
    );
    assert_eq!(scene.value::<String>(&key), "temp");
    for name in ["private", "public", "temp"] {
        let physical: String = scene.value(&format!(
            "SELECT physical_name FROM storage.buckets WHERE owner_id = 'ada' AND key = '{name}'"
        ));
        assert_eq!(scan(&scene, &physical, false), []);
    }
}

#[test]
fn two_versions_that_move_to_one_path_do_not_wait_for_each_other() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let [first, second] =
        [b"first" as &[u8], b"second"].map(|content| put(&mut ada, "private", content, Some("from")));
    // It has reached the second version's row, and not yet the path.
    ada.batch_execute(&format!("BEGIN; UPDATE storage.files SET metadata = metadata WHERE id = '{second}'"))
        .unwrap();
    let move_to = |file: &str| format!("SELECT storage.move_file('{file}', 'public', 'to')");
    let end = format!("{}; COMMIT", move_to(&second));
    let refusal = refused(behind(&scene, &mut ada, &end, move_to(&first)));
    assert_eq!(refusal.code(), ("42710", "PATH_TAKEN"));
    let path: String = scene.value(&format!("SELECT path FROM storage.files WHERE id = '{second}'"));
    assert_eq!(path, "to");
}

#[test]
fn a_download_that_began_before_an_access_was_set_goes_on_until_the_bytes_go() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let file = put(&mut ada, "private", b"read on", None);
        let before = download_url(&mut ada, &file);
        let mut other = scene.user("ada");
        other.batch_execute("BEGIN").unwrap();
        made(&mut other, &format!("set_file_access('{file}', 'public')"));
        // Not committed: nobody else sees anything of it, and nobody waits.
        assert_eq!(http::get(&download_url(&mut ada, &file)).body, b"read on");
        assert_eq!(get(&mut ada, &file).unwrap(), b"read on");
        other.batch_execute("COMMIT").unwrap();
        scene.maintain();
        assert_eq!(http::get(&before).body, b"read on", "the old bytes stay for the delay");
        assert_downloads(&mut ada, &file, b"read on");
        scene.collect();
        assert_eq!(http::get(&before).status, 404);
        assert_downloads(&mut ada, &file, b"read on");
    });
}
