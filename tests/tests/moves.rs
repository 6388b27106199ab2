//! Files that get another path, another name or another bucket, also while somebody else wants the same.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::files::{behind, made, object, put, refuse, versions};
use pg_storage_tests::flow::{Upload, assert_downloads, some_bytes};
use pg_storage_tests::orphans::scan;
use pg_storage_tests::{Scene, each_store, refused};
use postgres::Client;

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
