//! The main job on the local store and on Garage, its heart on Ceph too: request, PUT, confirm, download.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::choice::lacks;
use pg_storage_tests::flow::{self, Upload, assert_downloads, confirm, download, sha256, some_bytes};
use pg_storage_tests::http;
use pg_storage_tests::{Cluster, Scene, each_store, process, refused};
use std::time::{Duration, SystemTime};

/// A request's row: direct, object_key, sha256.
fn request_row(scene: &Scene, upload_id: &str) -> (bool, String, Option<String>) {
    let row = scene
        .superuser()
        .query_one(
            "SELECT direct, object_key, sha256 FROM storage.upload_requests WHERE id = $1::text::uuid",
            &[&upload_id],
        )
        .unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[test]
fn every_kind_of_upload_comes_back_byte_for_byte_with_its_type_and_name() {
    each_store(upload_every_kind);
}

#[test]
fn every_kind_of_upload_comes_back_from_ceph_as_well() {
    upload_every_kind(&Scene::ceph());
}

fn upload_every_kind(scene: &Scene) {
    // name, type, path, the disposition it is downloaded with
    let kinds = [
        ("note.txt", "text/plain", None, "attachment; filename=\"note.txt\""),
        (
            "Übersicht \"final\".pdf",
            "application/pdf",
            Some("docs/v1.2.3/guide.pdf"),
            "attachment; filename=\"_bersicht _final_.pdf\"; filename*=UTF-8''%C3%9Cbersicht%20%22final%22.pdf",
        ),
        (
            "résumé 100%.md",
            "text/markdown",
            Some("Größe/图片"),
            "attachment; filename=\"r_sum_ 100_.md\"; filename*=UTF-8''r%C3%A9sum%C3%A9%20100%25.md",
        ),
        (
            "图片.bin",
            "application/x-own+thing; version=\"2 b\"",
            None,
            "attachment; filename=\"__.bin\"; filename*=UTF-8''%E5%9B%BE%E7%89%87.bin",
        ),
    ];
    let mut ada = scene.user("ada");
    for (number, (filename, content_type, path, disposition)) in kinds.iter().enumerate() {
        for declared in [true, false] {
            let bytes = some_bytes(&format!("flow {number} {declared}"), 1000 + number);
            let mut upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            upload = upload.named(filename, content_type);
            upload.path = path.map(|path| format!("{declared}/{path}"));

            let ticket = upload.request(&mut ada);
            assert_eq!((ticket.deduplicated, ticket.method.as_deref()), (false, Some("PUT")));
            let (direct, key, recorded_hash) = request_row(scene, &ticket.upload_id);
            assert_eq!(direct, scene.direct && declared, "which path this store takes");
            assert_eq!(key.starts_with("staging/"), !direct, "{key}");
            assert_eq!(recorded_hash, upload.sha256);

            let answer = ticket.put(&bytes);
            assert!(answer.is_success(), "{} {}", answer.status, answer.text());
            assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));

            let answer = download(&mut ada, &ticket.file_id);
            assert_eq!((answer.status, sha256(&answer.body)), (200, sha256(&bytes)));
            assert_eq!(answer.headers["content-type"], *content_type);
            assert_eq!(answer.headers["content-disposition"], *disposition);

            let row = ada
                .query_one(
                    "SELECT filename, path, content_type, size, sha256, owner_id, version, is_current
                     FROM storage.files WHERE id = $1::text::uuid",
                    &[&ticket.file_id],
                )
                .unwrap();
            assert_eq!(row.get::<_, &str>(0), *filename);
            assert_eq!(row.get::<_, Option<String>>(1), upload.path);
            assert_eq!(row.get::<_, &str>(2), *content_type);
            assert_eq!(row.get::<_, i64>(3), bytes.len() as i64);
            assert_eq!(row.get::<_, String>(4), sha256(&bytes));
            assert_eq!(
                (row.get::<_, &str>(5), row.get::<_, i32>(6), row.get::<_, bool>(7)),
                ("ada", 1, true)
            );
        }
    }
}

#[test]
fn which_path_a_store_takes_is_visible_in_check() {
    each_store(|scene| {
        let bytes = some_bytes("check", 10);
        Upload::declared(&bytes).complete(&mut scene.user("ada"), &bytes);
        let findings =
            scene.superuser().query("SELECT name, status, detail FROM storage.check()", &[]).unwrap();
        let finding = |name: &str| {
            let row = findings.iter().find(|row| row.get::<_, &str>(0) == name).unwrap();
            (row.get::<_, String>(1), row.get::<_, String>(2))
        };
        let path = finding("upload_path").1;
        assert!(path.contains(if scene.direct { "straight to their final key" } else { "staged" }), "{path}");
        // The direct way rests on these, so a store without it reports which it lacks.
        let needed = ["create_only", "wrong_checksum", "wrong_length", "tampered_url", "unsigned_headers"];
        let lacking: Vec<&str> = needed.into_iter().filter(|name| finding(name).0 != "ok").collect();
        assert_eq!(lacking.is_empty(), scene.direct, "{lacking:?}");
        lacking.iter().for_each(|lacking| lacks(lacking));
        assert_eq!((finding("wrong_length").0.as_str(), finding("tampered_url").0.as_str()), ("ok", "ok"));
    });
}

#[test]
fn a_public_file_is_read_without_a_signature_where_the_store_can_and_the_record_says_where_not() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("public", 500);
        let ticket =
            Upload::declared(&bytes).to("public").named("é.txt", "text/plain").complete(&mut ada, &bytes);
        let url: String =
            ada.query_one("SELECT storage.public_url($1::text::uuid)", &[&ticket.file_id]).unwrap().get(0);
        assert!(!url.contains('?'), "{url}");
        assert_downloads(&mut ada, &ticket.file_id, &bytes);

        let policy: (String, Option<String>) = {
            let row = scene
                .superuser()
                .query_one(
                    "SELECT outcome, reason FROM storage.provisioning_state WHERE access = 'public' AND step = 'policy'",
                    &[],
                )
                .unwrap();
            (row.get(0), row.get(1))
        };
        let answer = http::get(&url);
        let told = "SELECT status FROM storage.check() WHERE name = 'public_read'";
        let told: String = scene.value(told);
        if policy.0 == "applied" {
            assert_eq!((policy.1, told.as_str()), (None, "ok"));
            assert_eq!((answer.status, answer.body == bytes), (200, true));
        } else {
            lacks("policy");
            assert_eq!((policy.0.as_str(), told.as_str()), ("skipped", "warn"));
            assert!(policy.1.is_some_and(|reason| !reason.is_empty()), "a skipped step says why");
            assert_eq!(answer.status, 403);
        }

        let private = Upload::declared(&bytes).complete(&mut ada, &bytes);
        let refusal = refused(ada.query("SELECT storage.public_url($1::text::uuid)", &[&private.file_id]));
        assert_eq!(refusal.code(), ("55000", "NOT_PUBLIC"));
        let place = scene.place_of_file(&private.file_id);
        let plain = http::get(&format!("{}/{}/{}", scene.store.endpoint, place.0, place.1));
        assert_eq!(plain.status, 403, "a private file needs a signature");
    });
}

#[test]
fn download_urls_keep_the_input_order_and_leave_hidden_files_out() {
    each_store(|scene| {
        let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
        let upload = |session: &mut postgres::Client, seed: &str| {
            let bytes = some_bytes(seed, 50);
            (Upload::declared(&bytes).complete(session, &bytes).file_id, bytes)
        };
        let mine: Vec<_> = ["one", "two", "three"].map(|seed| upload(&mut ada, seed)).into();
        let hidden = upload(&mut bob, "hidden").0;
        let absent = "00000000-0000-0000-0000-000000000000".to_owned();

        let asked = [&mine[2].0, &hidden, &mine[0].0, &absent, &mine[1].0, &mine[0].0];
        let asked: Vec<String> = asked.into_iter().cloned().collect();
        let rows = ada
            .query("SELECT file_id::text, url, expires_at FROM storage.download_urls($1::text[]::uuid[], '2 minutes')", &[&asked])
            .unwrap();
        let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(ids, [&mine[2].0, &mine[0].0, &mine[1].0, &mine[0].0].map(Clone::clone));
        for (row, bytes) in rows.iter().zip([&mine[2].1, &mine[0].1, &mine[1].1, &mine[0].1]) {
            let url: &str = row.get(1);
            assert!(url.contains("X-Amz-Expires=120"), "{url}");
            assert_eq!(http::get(url).body, *bytes);
            let left = row.get::<_, SystemTime>(2).duration_since(SystemTime::now()).unwrap();
            assert!(left <= Duration::from_secs(120) && left > Duration::from_secs(60), "{left:?}");
        }

        let url: String = ada
            .query_one(
                "SELECT storage.files_download_url(f) FROM storage.files f WHERE id = $1::text::uuid",
                &[&mine[1].0],
            )
            .unwrap()
            .get(0);
        assert_eq!(http::get(&url).body, mine[1].1);

        let gone = refused(ada.query("SELECT storage.download_url($1::text::uuid)", &[&hidden]));
        let never = refused(ada.query("SELECT storage.download_url($1::text::uuid)", &[&absent]));
        assert_eq!(gone.code(), ("42704", "FILE_NOT_FOUND"));
        assert_eq!((gone.code(), &gone.message, &gone.hint), (never.code(), &never.message, &never.hint));
        assert_eq!(
            gone.detail.map(|text| text.replace(&hidden, "ID")),
            never.detail.map(|text| text.replace(&absent, "ID"))
        );
    });
}

#[test]
fn a_download_can_be_shown_rather_than_saved_and_under_another_name() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("inline", 20);
        let file = Upload::of(&bytes).complete(&mut ada, &bytes).file_id;
        let url: String = ada
            .query_one(
                "SELECT storage.download_url($1::text::uuid, attachment => false, filename => 'naïve.txt')",
                &[&file],
            )
            .unwrap()
            .get(0);
        let answer = http::get(&url);
        assert_eq!(
            answer.headers["content-disposition"],
            "inline; filename=\"na_ve.txt\"; filename*=UTF-8''na%C3%AFve.txt"
        );
        let tampered = url.replace("inline", "attachment");
        assert_ne!(tampered, url);
        assert_eq!(http::get(&tampered).status, 403);
    });
}

#[test]
fn the_store_refuses_every_put_that_is_not_the_one_asked_for() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("refusals", 300);
        let ticket = Upload::declared(&bytes).request(&mut ada);
        let place = scene.place_of_upload(&ticket.upload_id);
        let mut refuse = |what: &str, answer: Option<http::Response>| {
            // A store may hang up on a body that it will not take.
            if let Some(answer) = answer {
                assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
            }
            assert!(!scene.exists(&place), "{what}: nothing is stored");
            assert_eq!(
                confirm(&mut ada, &ticket.upload_id).outcome(),
                ("requested", Some("NOT_UPLOADED")),
                "{what}"
            );
        };

        let other = some_bytes("REFUSALS", 300);
        let told = "SELECT status FROM storage.check() WHERE name = 'wrong_checksum'";
        if scene.value::<String>(told) == "ok" {
            refuse("other bytes of equal length", http::try_put(ticket.url(), &ticket.headers, &other));
        } else {
            // What comes of them is in the verdicts.
            lacks("wrong_checksum");
        }
        for (what, length) in [("shorter", 299), ("longer", 301), ("empty", 0)] {
            let mut headers = ticket.headers.clone();
            headers.insert("content-length".to_owned(), length.to_string());
            refuse(what, http::try_put(ticket.url(), &headers, &some_bytes("refusals", length)));
        }
        refuse("no length", {
            let mut headers = ticket.headers.clone();
            headers.remove("content-length");
            http::try_put_chunked(ticket.url(), &headers, &bytes)
        });
        let mut names: Vec<&str> = ticket.headers.keys().map(String::as_str).collect();
        names.retain(|name| *name != "content-length");
        assert!(names.contains(&"content-type") && names.contains(&"x-amz-checksum-sha256"), "{names:?}");
        for name in names {
            let mut fewer = ticket.headers.clone();
            fewer.remove(name);
            refuse(&format!("without {name}"), http::try_put(ticket.url(), &fewer, &bytes));
        }
        let mut other_type = ticket.headers.clone();
        other_type.insert("content-type".to_owned(), "text/html".to_owned());
        refuse("other type", http::try_put(ticket.url(), &other_type, &bytes));
        let mut other_sum = ticket.headers.clone();
        other_sum.insert(
            "x-amz-checksum-sha256".to_owned(),
            pg_storage_core::digest::Digest::of(&other).to_base64(),
        );
        refuse("other bytes with their own checksum", http::try_put(ticket.url(), &other_sum, &other));
        refuse(
            "tampered key",
            http::try_put(&ticket.url().replace(&place.1, &format!("{}x", place.1)), &ticket.headers, &bytes),
        );
        refuse(
            "tampered expiry",
            http::try_put(
                &ticket.url().replace("X-Amz-Expires=900", "X-Amz-Expires=9000"),
                &ticket.headers,
                &bytes,
            ),
        );
        refuse("GET with a PUT's URL", Some(http::get(ticket.url())));

        let answer = ticket.put(&bytes);
        assert!(answer.is_success(), "the real one: {} {}", answer.status, answer.text());
        assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
    });
}

#[test]
fn a_second_put_changes_nothing_that_was_confirmed() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        for declared in [true, false] {
            let bytes = some_bytes(&format!("second {declared}"), 100);
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            let ticket = upload.complete(&mut ada, &bytes);
            let again = ticket.put(&bytes);
            let told = "SELECT status FROM storage.check() WHERE name = 'create_only'";
            if scene.value::<String>(told) == "ok" {
                assert_eq!(again.status, 412, "{}", again.text());
            } else {
                lacks("create_only");
                assert!(again.is_success(), "that is why it is staged: {}", again.status);
            }
            // Undeclared bytes are bound by length and type only, so others of equal length may follow.
            if !declared {
                ticket.put(&some_bytes("SECOND", 100));
            }
            assert_downloads(&mut ada, &ticket.file_id, &bytes);
            assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None), "idempotent");
            assert_downloads(&mut ada, &ticket.file_id, &bytes);
        }
    });
}

#[test]
fn undeclared_bytes_are_hashed_and_copied_to_a_key_no_url_names_and_their_staging_key_goes() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("staged", 70_000);
        let ticket = Upload::of(&bytes).request(&mut ada);
        assert!(!ticket.headers.contains_key("x-amz-checksum-sha256"), "{:?}", ticket.headers);
        let staging = scene.place_of_upload(&ticket.upload_id);
        assert!(staging.1.starts_with("staging/"), "{staging:?}");
        assert!(ticket.put(&bytes).is_success());
        assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));

        let place = scene.place_of_file(&ticket.file_id);
        assert!(place.1.contains(&format!("/undeclared/{}/", ticket.upload_id)), "{place:?}");
        assert!(!ticket.url().contains(&place.1));
        // Other bytes at the staging key no longer matter.
        scene.overwrite(&staging, "text/plain", b"something else");
        assert_eq!(scene.bytes_at(&place), bytes, "the copy is what was hashed");

        scene.maintain();
        assert!(!scene.exists(&staging), "the staging key is gone");
        assert!(scene.exists(&place));
        assert_downloads(&mut ada, &ticket.file_id, &bytes);
    });
}

#[test]
fn sixty_four_mebibytes_pass_without_backend_or_worker_growing() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let small = some_bytes("warm", 10);
        Upload::of(&small).complete(&mut ada, &small);
        let pid: i32 = ada.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let bytes = some_bytes("large", 64 << 20);
        let worker = scene.direct.then(|| local_store_worker(scene.database.cluster()));
        for declared in [true, false] {
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            let ticket = upload.to("temp").request(&mut ada);
            let growing = |pid: i32| {
                // Makes the peak the present size (proc(5)).
                std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
                (pid, peak(pid))
            };
            let stores = worker.map(growing);
            assert!(ticket.put(&bytes).is_success());
            let confirms = growing(pid);
            assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
            assert_downloads(&mut ada, &ticket.file_id, &bytes);
            for (who, (pid, before)) in [("backend", Some(confirms)), ("local store", stores)]
                .into_iter()
                .filter_map(|(who, measured)| Some((who, measured?)))
            {
                let grown = peak(pid).saturating_sub(before);
                assert!(grown < 16 << 10, "the {who} took {grown} KiB more memory for 64 MiB");
            }
        }
    });
}

/// The background worker that serves the local store.
fn local_store_worker(cluster: &Cluster) -> i32 {
    let children = process::children_of(cluster.postmaster_pid());
    let worker = children.into_iter().find(|pid| process::title(*pid).contains("local store"));
    worker.expect("the worker runs").try_into().unwrap()
}

/// Largest resident size since it was last reset, in KiB.
fn peak(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_thousand_warm_requests_ask_the_store_nothing() {
    let (scene, store) = Scene::counting();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("warm", 100);
    let file = Upload::declared(&bytes).complete(&mut ada, &bytes).file_id;
    let mut other_backend = scene.user("ada");
    let asked = || scene.asked(store);

    let before = asked();
    assert!(before > 0, "the first upload did ask the store");
    let session: [&mut postgres::Client; 2] = [&mut ada, &mut other_backend];
    for session in session {
        let requests: i64 = session
            .query_one(
                "SELECT count(t.url) FROM generate_series(1, 500) n,
                 LATERAL storage.request_upload_url('private', n || '.txt', 'text/plain', n) t",
                &[],
            )
            .unwrap()
            .get(0);
        assert_eq!(requests, 500);
    }
    assert!(Upload::declared(&bytes).request(&mut ada).deduplicated);
    flow::download_url(&mut ada, &file);
    assert_eq!(asked(), before);
    assert_eq!(
        scene.value::<i64>("SELECT count(*) FROM storage.upload_requests WHERE status = 'requested'"),
        1000
    );
}
