//! A page in Chromium uploads straight to the store, which is another origin, and downloads again.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{sha256, some_bytes};
use pg_storage_tests::scene::takes_parts;
use pg_storage_tests::{Garage, Scene, docs, each_store, web::Site};
use serde_json::{Value, json};

/// A scene with the three buckets of ada, and a site whose origin they allow.
fn site(scene: &Scene) -> Site {
    scene.user("ada");
    let site = Site::start(scene);
    let allow = format!("UPDATE storage.buckets SET allowed_origins = '{{{}}}'", site.origin());
    scene.superuser().batch_execute(&allow).unwrap();
    site
}

/// The request with this method among those that the browser sent to the store.
fn sent<'seen>(requests: &'seen Value, method: &str) -> Option<&'seen Value> {
    requests.as_array().unwrap().iter().find(|request| request["method"] == method)
}

/// The headers of an upload that the page sets itself; the browser sets its length. Two of them go to stores that obey
/// headers which nobody signed.
fn headers(scene: &Scene) -> Vec<&'static str> {
    let marked: bool =
        scene.value("SELECT capabilities ->> 'unsigned' = 'ignored' FROM storage.store_capabilities");
    let mut headers = vec!["content-type", "if-none-match", "x-amz-checksum-sha256"];
    headers.extend(marked.then_some(["x-amz-meta-upload", "x-amz-metadata-directive"]).into_iter().flatten());
    headers.push("x-amz-sdk-checksum-algorithm");
    headers
}

/// The user of a page whose origin is allowed uploads and downloads.
fn assert_gets_through(site: &Site, scene: &Scene, bucket: &str, seed: &str) {
    let bytes = some_bytes(seed, 3_000_000);
    let token = site.token("ada", "writer");
    let seen = site.visit(&token, bucket, "Übersicht \"1\".bin", &bytes);
    let digest = sha256(&bytes);
    assert_eq!(seen["status"], format!("uploaded Übersicht \"1\".bin {digest}"), "{seen:#}");

    // The browser asked first and then sent exactly what was signed.
    let preflight = sent(&seen["uploading"], "OPTIONS").unwrap_or_else(|| panic!("no preflight: {seen:#}"));
    assert_eq!(preflight["status"], 200, "{preflight:#}");
    let mut headers = headers(scene);
    if bucket == "public" {
        headers.insert(0, "cache-control");
    }
    assert_eq!(preflight["headers"]["access-control-request-headers"], headers.join(","));
    let put = sent(&seen["uploading"], "PUT").unwrap_or_else(|| panic!("no upload: {seen:#}"));
    assert_eq!((&put["status"], put.get("refused")), (&json!(200), None), "{put:#}");
    assert_eq!(put["headers"]["origin"], site.origin());
    assert_eq!(put["headers"]["content-length"], bytes.len().to_string());
    for name in headers {
        assert!(put["headers"][name].is_string(), "{name} is missing: {put:#}");
    }
    let progress: Vec<f64> =
        seen["progress"].as_array().unwrap().iter().map(|share| share.as_f64().unwrap()).collect();
    assert!(progress[0] < 1.0 && progress.is_sorted(), "the bar moves forward: {progress:?}");
    assert_eq!(progress.last(), Some(&1.0));

    // Any user who has the link downloads; a page's script reads public files only.
    assert_eq!(seen["saved"], json!({ "name": "Übersicht _1_.bin", "sha256": digest }), "{seen:#}");
    if bucket == "public" {
        assert_eq!(seen["fetched"], json!({ "status": 200, "sha256": digest }), "{seen:#}");
    } else {
        assert!(seen["fetched"]["error"].is_string(), "{seen:#}");
    }
    let count = format!("SELECT count(*) FROM storage.files WHERE sha256 = '{digest}'");
    assert_eq!(scene.value::<i64>(&count), 1);
}

/// A page that has a ticket, but whose origin the bucket does not allow, fails; gives what the browser let it send.
fn refused(scene: &Scene, seed: &str) -> Value {
    let stranger = Site::start(scene);
    let seen =
        stranger.visit(&stranger.token("ada", "writer"), "private", "b.bin", &some_bytes(seed, 20_000));
    assert_eq!(seen["status"], "failed: the store cannot be reached from this page", "{seen:#}");
    let count =
        format!("SELECT count(*) FROM storage.files WHERE sha256 = '{}'", sha256(&some_bytes(seed, 20_000)));
    assert_eq!(scene.value::<i64>(&count), 0);
    let put =
        sent(&seen["uploading"], "PUT").unwrap_or_else(|| panic!("the page did not even try: {seen:#}"));
    assert!(put["refused"].is_string(), "{put:#}");
    put.clone()
}

#[test]
fn a_page_of_an_allowed_origin_uploads_with_a_progress_bar_and_downloads() {
    each_store(|scene| {
        let site = site(scene);
        for bucket in ["private", "public"] {
            assert_gets_through(&site, scene, bucket, &format!("browser {bucket}"));
        }
    });
}

#[test]
fn a_page_of_another_origin_is_refused_before_it_sends_anything() {
    let scene = Scene::embedded("other stores have tests of their own here");
    let site = site(&scene);
    assert_gets_through(&site, &scene, "private", "right origin");
    let put = refused(&scene, "wrong origin");
    assert_eq!(
        (&put["refused"], put.get("headers")),
        (&json!("PreflightMissingAllowOriginHeader"), None),
        "{put:#}"
    );
}

/// The user of a page that uploads by form or in parts; gives what the browser sent to the store.
fn assert_gets_through_by(page: &str, site: &Site, scene: &Scene, bytes: &[u8]) -> Vec<Value> {
    let name = format!("{}.bin", &page[1..]);
    let seen = site.visit_page(page, &site.token("ada", "writer"), "private", &name, bytes);
    let digest = sha256(bytes);
    assert_eq!(seen["status"], format!("uploaded {name} {digest}"), "{seen:#}");
    assert_eq!(seen["saved"], json!({ "name": name, "sha256": digest }), "{seen:#}");
    let count = format!("SELECT count(*) FROM storage.files WHERE sha256 = '{digest}'");
    assert_eq!(scene.value::<i64>(&count), 1);
    seen["uploading"].as_array().unwrap().clone()
}

fn assert_posts_a_form(site: &Site, scene: &Scene) {
    let sent = assert_gets_through_by("/form", site, scene, &some_bytes("by form", 30_000));
    let methods: Vec<&str> = sent.iter().map(|request| request["method"].as_str().unwrap()).collect();
    assert_eq!(methods, ["POST"], "a form is posted without asking: {sent:#?}");
    // For want of a body Chromium notes that such an answer failed; a page that may not see it hears a reason.
    assert_eq!((&sent[0]["status"], &sent[0]["refused"]), (&json!(204), &json!("failed")), "{sent:#?}");
}

fn assert_is_told_that_there_are_no_parts(site: &Site) {
    let seen = site.visit_page("/parts", &site.token("ada", "writer"), "private", "a.bin", b"in parts");
    assert_eq!(seen["status"], "failed: NOT_CONFIGURED: the store takes no uploads in parts", "{seen:#}");
}

#[test]
fn a_page_uploads_by_form_and_in_slices() {
    each_store(|scene| {
        let site = site(scene);
        assert_posts_a_form(&site, scene);
        if !takes_parts() {
            assert_is_told_that_there_are_no_parts(&site);
            return;
        }
        let bytes = some_bytes("in slices", (5 << 20) + 70_000);
        let sent = assert_gets_through_by("/parts", &site, scene, &bytes);
        let puts: Vec<&Value> = sent.iter().filter(|request| request["method"] == "PUT").collect();
        let lengths: Vec<&Value> = puts.iter().map(|put| &put["headers"]["content-length"]).collect();
        assert_eq!(lengths, [&json!((5 << 20).to_string()), &json!("70000")], "{sent:#?}");
        assert!(puts.iter().all(|put| put["status"] == 200 && put["headers"].get("content-type").is_none()));
        assert_eq!(sent.iter().filter(|request| request["method"] == "OPTIONS").count(), 2, "{sent:#?}");
    });
}

#[test]
fn a_form_of_a_page_of_another_origin_is_answered_to_nobody() {
    let scene = Scene::local();
    let site = site(&scene);
    assert_posts_a_form(&site, &scene);
    let stranger = Site::start(&scene);
    let pages: &[&str] = if takes_parts() { &["/form", "/parts"] } else { &["/form"] };
    for page in pages {
        let bytes = some_bytes("wrong origin", 20_000);
        let seen = stranger.visit_page(page, &stranger.token("ada", "writer"), "private", "b.bin", &bytes);
        assert_eq!(seen["status"], "failed: the store cannot be reached from this page", "{seen:#}");
    }
}

#[test]
fn on_ceph_a_page_uploads_by_form_and_is_told_that_there_are_no_parts() {
    let scene = Scene::ceph();
    let site = site(&scene);
    assert_posts_a_form(&site, &scene);
    assert_is_told_that_there_are_no_parts(&site);
}

#[test]
fn bytes_that_are_there_already_are_not_sent() {
    let scene = Scene::local();
    let site = site(&scene);
    let (bytes, token) = (some_bytes("twice", 20_000), site.token("ada", "writer"));
    for (filename, sent) in [("first.bin", 2), ("second.bin", 0)] {
        let seen = site.visit(&token, "private", filename, &bytes);
        assert_eq!(seen["status"], format!("uploaded {filename} {}", sha256(&bytes)), "{seen:#}");
        assert_eq!(
            seen["uploading"].as_array().unwrap().len(),
            sent,
            "preflight and upload, or neither: {seen:#}"
        );
        assert_eq!(seen["saved"], json!({ "name": filename, "sha256": sha256(&bytes) }), "{seen:#}");
    }
}

#[test]
fn pages_of_both_origins_on_ceph() {
    let scene = Scene::ceph();
    let site = site(&scene);
    for bucket in ["private", "public"] {
        assert_gets_through(&site, &scene, bucket, &format!("browser {bucket}"));
    }
    let put = refused(&scene, "wrong origin");
    assert_eq!(
        (&put["refused"], put.get("headers")),
        (&json!("PreflightMissingAllowOriginHeader"), None),
        "{put:#}"
    );
}

/// Garage knows a bucket that was made over S3 under a name of the key's own, and a preflight, which is not signed, has no key.
/// It allows every preflight then, and the page is refused only what the upload answers.
#[test]
fn on_garage_a_page_of_another_origin_hears_nothing_and_sends_nothing_once_the_name_is_global() {
    let scene = Scene::garage();
    let site = site(&scene);
    assert_gets_through(&site, &scene, "private", "right origin");
    let put = refused(&scene, "wrong origin");
    assert_eq!(
        (&put["refused"], &put["status"]),
        (&json!("MissingAllowOriginHeader"), &json!(200)),
        "{put:#}"
    );

    let name: String = scene.value("SELECT physical_name FROM storage.buckets WHERE key = 'private'");
    let garage = Garage::shared();
    let buckets = garage.cli(&["bucket", "list"]);
    let line =
        buckets.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("no {name} in {buckets}"));
    let id = line.split_whitespace().next().unwrap();
    garage.cli(&["bucket", "alias", id, &name]);
    let put = refused(&scene, "wrong origin, global name");
    assert_eq!((&put["refused"], put.get("headers")), (&json!("PreflightInvalidStatus"), None), "{put:#}");
    assert_gets_through(&site, &scene, "private", "right origin, global name");
}

#[test]
fn what_the_page_about_it_shows_is_what_runs_here() {
    docs::assert_shows_what_runs("docs/browser.md", &["page.html", "page.js", "ways.js"]);
}
