//! Files made public and private again: the bytes move, and nothing stays public that should not.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::choice::lacks;
use pg_storage_tests::files::{bucket, get, made, put, refuse, versions};
use pg_storage_tests::flow::{assert_downloads, download_url, some_bytes};
use pg_storage_tests::{Scene, each_store, eventually, http};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

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
