//! Uploads by form: what the form says is all that it permits, and what arrives is verified as any upload is.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload, assert_downloads, confirm, sha256, some_bytes};
use pg_storage_tests::http;
use pg_storage_tests::parts::{request_form, try_request_form};
use pg_storage_tests::{Scene, each_store, eventually, refused};
use std::time::Duration;

/// A form for at most so many bytes.
fn at_most(size: usize) -> Upload {
    Upload { size: size as i64, ..Upload::of(b"") }
}

#[test]
fn a_form_brings_one_file_of_up_to_so_many_bytes() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        for (size, path) in [(1, None), (700, Some("by/form")), (1000, Some("by/form"))] {
            let bytes = some_bytes(&size.to_string(), size);
            let form = request_form(&mut ada, &Upload { path: path.map(str::to_owned), ..at_most(1000) });
            assert_eq!(flow::recorded(&mut ada, &form.upload_id).outcome(), ("requested", None));
            assert_eq!(confirm(&mut ada, &form.upload_id).outcome(), ("requested", Some("NOT_UPLOADED")));
            let answer = form.post(&bytes);
            assert!(answer.is_success(), "{} {}", answer.status, answer.text());
            for _ in 0..2 {
                assert_eq!(confirm(&mut ada, &form.upload_id).outcome(), ("uploaded", None));
            }
            assert_downloads(&mut ada, &form.file_id, &bytes);
            let row = ada
                .query_one(
                    "SELECT size, sha256, content_type, path FROM storage.files WHERE id = $1::text::uuid",
                    &[&form.file_id],
                )
                .unwrap();
            assert_eq!(row.get::<_, i64>(0), size as i64, "the bytes that came, not the most there could be");
            assert_eq!(row.get::<_, &str>(1), sha256(&bytes));
            assert_eq!((row.get::<_, &str>(2), row.get::<_, Option<&str>>(3)), ("text/plain", path));
        }
    });
}

#[test]
fn what_the_form_does_not_say_it_does_not_permit() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("form", 100);
        let other = request_form(&mut ada, &at_most(100));
        let key = |form: &pg_storage_tests::parts::Form| {
            form.fields.iter().find(|(name, _)| name == "key").unwrap().1.clone()
        };
        let form = request_form(&mut ada, &at_most(100));
        let late = request_form(&mut ada, &at_most(100).expiring_in("1 second"));
        let refusals = [
            ("too long", form.clone(), some_bytes("form", 101)),
            ("empty", form.clone(), Vec::new()),
            ("another key", form.clone().with("key", &key(&other)), bytes.clone()),
            ("a key made up", form.clone().with("key", "made/up"), bytes.clone()),
            ("another type", form.clone().with("Content-Type", "text/html"), bytes.clone()),
            ("a field more", form.clone().with("x-amz-meta-more", "1"), bytes.clone()),
            ("public", form.clone().with("acl", "public-read"), bytes.clone()),
            ("a redirect", form.clone().with("success_action_redirect", "http://127.0.0.1/"), bytes.clone()),
            ("a copy", form.clone().with("x-amz-copy-source", "/a/b"), bytes.clone()),
            ("another signature", form.clone().with("x-amz-signature", &"0".repeat(64)), bytes.clone()),
            ("no policy", form.clone().with("policy", "e30="), bytes.clone()),
        ];
        for (what, form, body) in refusals {
            let answer = form.post(&body);
            assert!(!answer.is_success(), "{what}: {}", answer.status);
            assert_eq!(
                confirm(&mut ada, &form.upload_id).outcome(),
                ("requested", Some("NOT_UPLOADED")),
                "{what}"
            );
        }
        eventually("the form to end", Duration::from_secs(60), || {
            (!late.post(&bytes).is_success()).then_some(())
        });
        // The form itself still works, and after the confirmation what it brings again harms nobody.
        assert!(form.post(&bytes).is_success());
        assert_eq!(confirm(&mut ada, &form.upload_id).outcome(), ("uploaded", None));
        form.post(&some_bytes("replayed", 100));
        assert_downloads(&mut ada, &form.file_id, &bytes);
    });
}

#[test]
fn a_file_of_another_type_than_declared_is_rejected() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let form = request_form(&mut ada, &at_most(100).named("a.png", "image/png"));
        assert!(form.post(b"%PDF-1.7 not a picture").is_success());
        let verdict = confirm(&mut ada, &form.upload_id);
        assert_eq!(verdict.outcome(), ("rejected", Some("CONTENT_TYPE_MISMATCH")));
    });
}

#[test]
fn limits_count_the_most_that_a_form_takes_until_it_is_confirmed() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    scene
        .superuser()
        .batch_execute(
            "UPDATE storage.buckets SET max_total_size = 1000, max_file_size = 900 WHERE key = 'private'",
        )
        .unwrap();
    let refusal = refused(try_request_form(&mut ada, &at_most(901)));
    assert_eq!(refusal.code(), ("53400", "FILE_TOO_LARGE"));
    let form = request_form(&mut ada, &at_most(900));
    let refusal = refused(try_request_form(&mut ada, &at_most(101)));
    assert_eq!(refusal.code(), ("53400", "QUOTA_EXCEEDED"));
    assert!(form.post(b"ten bytes.").is_success());
    assert_eq!(confirm(&mut ada, &form.upload_id).outcome(), ("uploaded", None));
    request_form(&mut ada, &at_most(900));
    for (upload, code) in [
        (at_most(0), "INVALID_FILE_SIZE"),
        (at_most(9).named("", "text/plain"), "INVALID_FILENAME"),
        (at_most(9).named("a", "nonsense"), "INVALID_CONTENT_TYPE"),
        (at_most(9).expiring_in("8 days"), "INVALID_EXPIRY"),
    ] {
        assert_eq!(refused(try_request_form(&mut ada, &upload)).code(), ("22023", code));
    }
}

#[test]
fn an_aborted_form_is_cleaned_up() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        let form = request_form(&mut ada, &at_most(100));
        assert!(form.post(b"not wanted").is_success());
        let place = scene.place_of_upload(&form.upload_id);
        assert!(scene.exists(&place));
        assert_eq!(flow::abort(&mut ada, &form.upload_id).unwrap().outcome(), ("aborted", Some("ABORTED")));
        eventually("the bytes to go", Duration::from_secs(60), || {
            scene.maintain();
            (!scene.exists(&place)).then_some(())
        });
    });
}

#[test]
fn check_says_what_was_seen_of_forms_and_parts() {
    let form = "A form that was changed, is too late or brings too much: refused.";
    let kept = [
        ("forms", "ok", form, None),
        ("multipart", "ok", "A part that is a copy of another object: refused.", None),
        ("wrong_part_checksum", "ok", "A part with another SHA-256 than signed: refused.", None),
    ];
    let on_ceph = [
        kept[0],
        (
            "multipart",
            "warn",
            "A part that is a copy of another object: accepted.",
            Some("storage.request_multipart_upload() is refused on this store."),
        ),
    ];
    for (scene, expected) in [
        (Scene::embedded("it is about each store"), &kept[..]),
        (Scene::garage(), &kept),
        (Scene::ceph(), &on_ceph),
    ] {
        Upload::of(b"first use").complete(&mut scene.user("ada"), b"first use");
        let query = "SELECT name, status, detail, hint FROM storage.check()
                     WHERE name IN ('forms', 'multipart', 'wrong_part_checksum') ORDER BY name";
        let rows = scene.superuser().query(query, &[]).unwrap();
        let found: Vec<(&str, &str, &str, Option<&str>)> =
            rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_store_that_was_not_seen_to_keep_to_its_forms_gets_none() {
    let scene = Scene::embedded("it begins with a store that has all");
    let mut ada = scene.user("ada");
    Upload::of(b"first use").complete(&mut ada, b"first use");
    let found = |name: &str| {
        scene.value::<String>(&format!("SELECT status FROM storage.check() WHERE name = '{name}'"))
    };
    assert_eq!((found("forms").as_str(), found("multipart").as_str()), ("ok", "ok"));
    let record = |capability: &str| {
        let update = "UPDATE storage.store_capabilities SET capabilities = capabilities || $1::text::jsonb";
        scene.superuser().execute(update, &[&capability]).unwrap();
    };
    for capability in [r#"{"forms": "ignored"}"#, r#"{"forms": "refused"}"#] {
        record(capability);
        let before = scene.rows();
        let refusal = refused(try_request_form(&mut ada, &at_most(9)));
        assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"));
        assert!(refusal.hint.unwrap().contains("storage.check()"));
        assert_eq!(scene.rows(), before);
    }
    // What was never tried is tried first.
    record(r#"{"forms": null}"#);
    request_form(&mut ada, &at_most(9));
    record(r#"{"forms": "ignored"}"#);
    // Trying the store again finds what it can do.
    assert_eq!(found("forms"), "ok");
    let form = request_form(&mut ada, &at_most(9));
    assert_eq!(http::get(&form.url).status, 403, "where forms are posted nothing can be read");
}
