//! Files through SQL alone: put, read and copied, with the bytes where they belong.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::files::{behind, bucket, get, made, object, put, refuse, try_put};
use pg_storage_tests::flow::{Upload, assert_downloads, sha256, some_bytes};
use pg_storage_tests::orphans::{grow_old, scan};
use pg_storage_tests::{Scene, each_store, refused};

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
