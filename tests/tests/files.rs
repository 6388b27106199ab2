//! Files are rows: renamed, versioned and deleted by SQL, with what the server vouches for out of the caller's reach.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{Upload, assert_downloads, confirm, download, some_bytes, try_confirm};
use pg_storage_tests::{Scene, each_store, eventually, refused};
use std::time::Duration;

/// A bucket of the tenant, in which everybody may upload and everybody sees everything.
#[test]
fn the_owner_renames_and_describes_by_plain_update() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("renamed", 50);
        let file = Upload::of(&bytes).complete(&mut ada, &bytes).file_id;
        let place = scene.place_of_file(&file);
        let updated = ada
            .execute(
                "UPDATE storage.files SET filename = 'neu – ß.txt', path = 'a/b.txt', metadata = '{\"k\": [1]}'
                 WHERE id = $1::text::uuid",
                &[&file],
            )
            .unwrap();
        assert_eq!(updated, 1);
        let answer = download(&mut ada, &file);
        assert_eq!(answer.body, bytes);
        assert_eq!(
            answer.headers["content-disposition"],
            "attachment; filename=\"neu _ _.txt\"; filename*=UTF-8''neu%20%E2%80%93%20%C3%9F.txt"
        );
        assert_eq!(scene.place_of_file(&file), place, "a rename moves no bytes");

        let mut refuse = |assignment: &str| {
            let rows = scene.rows();
            let statement = format!("UPDATE storage.files SET {assignment} WHERE id = '{file}'");
            let refusal = refused(ada.execute(&statement, &[]));
            assert_eq!(scene.rows(), rows, "{assignment}");
            refusal
        };
        assert_eq!(refuse("filename = 'a/b'").code(), ("22023", "INVALID_FILENAME"));
        assert_eq!(refuse("filename = ''").code(), ("22023", "INVALID_FILENAME"));
        assert_eq!(refuse("path = '../b'").code(), ("22023", "INVALID_PATH"));
        assert_eq!(refuse("path = '/b'").code(), ("22023", "INVALID_PATH"));
        assert_eq!(refuse("metadata = '[]'").sqlstate, "23514");
    });
}

#[test]
fn nobody_writes_what_the_server_vouches_for() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("trusted", 50);
    Upload::of(&bytes).complete(&mut ada, &bytes);
    let pending = Upload::of(&bytes).request(&mut ada).upload_id;
    let rows = scene.rows();

    let mut statements: Vec<String> = [
        "id",
        "tenant_id",
        "bucket_id",
        "object_id",
        "owner_id",
        "version",
        "previous_version_id",
        "is_current",
        "content_type",
        "size",
        "sha256",
        "expires_at",
        "created_at",
        "superseded_at",
    ]
    .map(|column| format!("UPDATE storage.files SET {column} = {column}"))
    .into();
    statements.extend(
        [
            "status",
            "object_key",
            "direct",
            "size",
            "sha256",
            "expires_at",
            "owner_id",
            "physical_name",
            "file_id",
        ]
        .map(|column| format!("UPDATE storage.upload_requests SET {column} = {column}")),
    );
    for columns in ["object_key", "status", "owner_id", "tenant_id", "id", "file_id", "direct", "expires_at"]
    {
        statements.push(format!(
            "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size, {columns})
             SELECT bucket_id, filename, content_type, size, {columns} FROM storage.upload_requests"
        ));
    }
    for statement in [
        "INSERT INTO storage.files SELECT * FROM storage.files",
        "DELETE FROM storage.upload_requests",
        "TRUNCATE storage.files",
        "SELECT * FROM storage.objects",
        "UPDATE storage.objects SET sha256 = sha256",
        "DELETE FROM storage.objects",
        "SELECT * FROM storage.object_deletions",
        "INSERT INTO storage.object_deletions (physical_name, key, reason, not_before) VALUES ('b', 'k', 'r', now())",
        "DELETE FROM storage.object_deletions",
        "UPDATE storage.buckets SET physical_name = 'mine'",
        "INSERT INTO storage.buckets (key) VALUES ('mine')",
        "SELECT storage.create_bucket('mine')",
        "SELECT storage.run_maintenance()",
        "SELECT storage.check()",
        "SELECT storage.grant_access(current_user, 'manager')",
        "SELECT storage.enable_default_policies(false)",
        "SELECT storage_private.maintain()",
        "SELECT storage_private.claim_deletions('b', 1, now(), now(), 0, '1 minute')",
        "SELECT storage_private.locate_objects('{}', '{}')",
        "SELECT storage_private.live_object(gen_random_uuid())",
    ] {
        statements.push(statement.to_owned());
    }
    statements.extend([
        format!("SELECT storage_private.accept_upload('{pending}', 'k', sha256('x'), 1, NULL)"),
        format!("SELECT storage_private.close_upload('{pending}', 'rejected', 'r', NULL, NULL)"),
        format!("SELECT storage_private.share_object('{pending}', gen_random_uuid())"),
        format!("SELECT storage_private.lock_upload('{pending}')"),
    ]);
    for statement in statements {
        let refusal = refused(ada.batch_execute(&statement));
        assert_eq!(refusal.sqlstate, "42501", "{statement}: {refusal:?}");
        assert_eq!(scene.rows(), rows, "{statement}");
    }
    // Not even the superuser truncates: no record of the bytes would be left.
    for table in ["files", "objects", "upload_requests"] {
        let refusal = refused(scene.superuser().batch_execute(&format!("TRUNCATE storage.{table} CASCADE")));
        assert_eq!(refusal.code(), ("55000", "BUCKET_NOT_EMPTY"));
    }
    assert_eq!(scene.rows(), rows);
}

#[test]
fn a_readers_files_are_the_owners_to_change() {
    let scene = Scene::local();
    scene.shared_bucket();
    let (mut ada, mut bob, mut eve) =
        (scene.user("ada"), scene.user("bob"), scene.stranger("ada", "elsewhere"));
    let bytes = some_bytes("hers", 50);
    let file = Upload::of(&bytes).to("shared").complete(&mut ada, &bytes).file_id;
    assert_downloads(&mut bob, &file, &bytes);
    let rows = scene.rows();
    for session in [&mut bob, &mut eve] {
        assert_eq!(session.execute("UPDATE storage.files SET filename = 'his.txt'", &[]).unwrap(), 0);
        assert_eq!(session.execute("DELETE FROM storage.files", &[]).unwrap(), 0);
        let refusal = refused(session.execute("SELECT storage.delete_file($1::text::uuid)", &[&file]));
        assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"));
        assert!(refusal.detail.is_some() && refusal.hint.is_some(), "{refusal:?}");
    }
    let refusal = refused(eve.query("SELECT storage.download_url($1::text::uuid)", &[&file]));
    assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"));
    assert_eq!(scene.rows(), rows);
}

/// version, is_current, id of the previous version
fn versions(scene: &Scene, path: &str) -> Vec<(i32, bool, Option<String>)> {
    scene
        .superuser()
        .query(
            "SELECT version, is_current, previous_version_id::text FROM storage.files WHERE path = $1 ORDER BY version",
            &[&path],
        )
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

#[test]
fn a_new_upload_to_a_path_is_its_next_version_and_the_old_bytes_stay() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = ["one", "two", "three"].map(|seed| some_bytes(seed, 60));
        let upload = |bytes: &[u8]| Upload::declared(bytes).at("docs/guide.txt");
        let one = upload(&bytes[0]).complete(&mut ada, &bytes[0]).file_id;
        let two = upload(&bytes[1]).complete(&mut ada, &bytes[1]).file_id;
        // The first bytes again, without sending them.
        let three = upload(&bytes[0]).request(&mut ada);
        assert!(three.deduplicated);
        let expected = [(1, false, None), (2, false, Some(one.clone())), (3, true, Some(two.clone()))];
        assert_eq!(versions(scene, "docs/guide.txt"), expected);
        for (file, bytes) in [(&one, &bytes[0]), (&two, &bytes[1]), (&three.file_id, &bytes[0])] {
            assert_downloads(&mut ada, file, bytes);
        }
        // An upload that never arrives changes nothing at the path.
        upload(&bytes[2]).request(&mut ada);
        assert_eq!(versions(scene, "docs/guide.txt"), expected);

        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&one]).unwrap();
        scene.maintain();
        assert_downloads(&mut ada, &three.file_id, &bytes[0]);
        assert_eq!(
            versions(scene, "docs/guide.txt"),
            [(2, false, None), (3, true, Some(two))],
            "the chain loses its end"
        );
    });
}

#[test]
fn version_numbers_go_on_after_the_current_version_was_deleted() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bytes = ["one", "two", "three"].map(|seed| some_bytes(seed, 60));
    let files = [0, 1].map(|at| Upload::declared(&bytes[at]).at("v").complete(&mut ada, &bytes[at]).file_id);
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&files[1]]).unwrap();
    assert_eq!(versions(&scene, "v"), [(1, false, None)]);
    Upload::declared(&bytes[2]).at("v").complete(&mut ada, &bytes[2]);
    assert_eq!(versions(&scene, "v"), [(1, false, None), (2, true, Some(files[0].clone()))]);
}

#[test]
fn uploads_confirmed_to_one_path_at_once_are_a_chain_of_versions() {
    let scene = Scene::local();
    let (mut one, mut two) = (scene.user("ada"), scene.user("ada"));
    let (first, second) = (some_bytes("first", 60), some_bytes("second", 60));
    let tickets = [
        Upload::declared(&first).at("race").request(&mut one),
        Upload::declared(&second).at("race").request(&mut two),
    ];
    assert!(tickets[0].put(&first).is_success() && tickets[1].put(&second).is_success());
    one.batch_execute("BEGIN").unwrap();
    assert_eq!(confirm(&mut one, &tickets[0].upload_id).outcome(), ("uploaded", None));
    let (_, verdict) = scene.confirm_behind(&mut one, two, &tickets[1].upload_id);
    assert_eq!(verdict.outcome(), ("uploaded", None));
    assert_eq!(versions(&scene, "race"), [(1, false, None), (2, true, Some(tickets[0].file_id.clone()))]);
}

#[test]
fn a_path_of_another_user_is_taken() {
    each_store(|scene| {
        scene.shared_bucket();
        let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
        let (hers, his) = (some_bytes("hers", 60), some_bytes("his", 60));
        let ticket = Upload::declared(&his).to("shared").at("index.html").request(&mut bob);
        assert!(ticket.put(&his).is_success());
        let file = Upload::declared(&hers).to("shared").at("index.html").complete(&mut ada, &hers).file_id;
        let rows = scene.rows();
        let refusal = refused(try_confirm(&mut bob, &ticket.upload_id));
        assert_eq!(refusal.code(), ("42710", "PATH_TAKEN"));
        assert!(refusal.detail.is_some() && refusal.hint.is_some(), "{refusal:?}");
        // Known bytes are refused at the request.
        let refusal = refused(Upload::declared(&hers).to("shared").at("index.html").try_request(&mut bob));
        assert_eq!(refusal.code(), ("42710", "PATH_TAKEN"));
        assert_eq!(scene.rows(), rows);
        assert_downloads(&mut ada, &file, &hers);

        // Nor does a rename get there, to another's path or to one's own.
        let other = Upload::declared(&his).to("shared").at("other").complete(&mut bob, &his).file_id;
        assert!(Upload::declared(&his).to("shared").at("mine").request(&mut bob).deduplicated);
        let rows = scene.rows();
        for path in ["index.html", "mine"] {
            let rename = format!("UPDATE storage.files SET path = '{path}' WHERE id = '{other}'");
            let refusal = refused(bob.execute(&rename, &[]));
            assert_eq!(refusal.code(), ("42710", "PATH_TAKEN"), "{path}");
            assert!(refusal.detail.is_some() && refusal.hint.is_some(), "{refusal:?}");
        }
        assert_eq!(scene.rows(), rows);
        assert_eq!(
            bob.execute(
                &format!("UPDATE storage.files SET path = 'free', filename = 'x' WHERE id = '{other}'"),
                &[]
            )
            .unwrap(),
            1
        );
    });
}

#[test]
fn a_deleted_file_is_gone_at_once_and_a_rollback_brings_it_back_whole() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        for statement in ["SELECT storage.delete_file('ID')", "DELETE FROM storage.files WHERE id = 'ID'"] {
            let bytes = some_bytes(statement, 60);
            let file = Upload::of(&bytes).complete(&mut ada, &bytes).file_id;
            let place = scene.place_of_file(&file);
            let statement = statement.replace("ID", &file);
            scene.maintain();

            ada.batch_execute("BEGIN").unwrap();
            ada.batch_execute(&statement).unwrap();
            assert!(scene.exists(&place));
            ada.batch_execute("ROLLBACK").unwrap();
            scene.maintain();
            assert_downloads(&mut ada, &file, &bytes);

            ada.batch_execute(&statement).unwrap();
            let refusal = refused(ada.query("SELECT storage.download_url($1::text::uuid)", &[&file]));
            assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"));
            assert!(scene.exists(&place), "only the collector deletes");
            assert_eq!(scene.maintain()[2], 1);
            assert!(!scene.exists(&place));
            let refusal = refused(ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&file]));
            assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"));
        }
    });
}

#[test]
fn two_renames_to_one_path_at_once_are_one_and_a_taken_path() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("renamed", 60);
    let files = [0, 1].map(|_| Upload::of(&bytes).complete(&mut ada, &bytes).file_id);
    let rename = "UPDATE storage.files SET path = 'same' WHERE id = $1::text::uuid";
    let mut other = scene.user("ada");
    ada.batch_execute("BEGIN").unwrap();
    ada.execute(rename, &[&files[0]]).unwrap();
    let second = files[1].clone();
    let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let waiting = std::thread::spawn(move || other.execute(rename, &[&second]));
    eventually("the second rename to wait", Duration::from_secs(30), || {
        scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
    });
    ada.batch_execute("COMMIT").unwrap();
    assert_eq!(refused(waiting.join().unwrap()).code(), ("42710", "PATH_TAKEN"));
}

#[test]
fn a_path_of_another_user_is_refused_before_any_bytes_are_sent() {
    let scene = Scene::local();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    scene.shared_bucket();
    let bytes = some_bytes("hers", 60);
    Upload::of(&bytes).to("shared").at("plan").complete(&mut ada, &bytes);
    let before = scene.rows();
    let refusal = refused(Upload::of(&bytes).to("shared").at("plan").try_request(&mut bob));
    assert_eq!(refusal.code(), ("42710", "PATH_TAKEN"));
    assert_eq!(scene.rows(), before);
}
