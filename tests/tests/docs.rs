//! Whoever does what a page in `docs` says sees what it shows.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_core::presign::Method;
use pg_storage_tests::choice::{Kind, lacks};
use pg_storage_tests::docs;
use pg_storage_tests::flow::Upload;
use pg_storage_tests::http::{self, Headers};
use pg_storage_tests::reader::Reader;
use pg_storage_tests::scene::takes_parts;
use pg_storage_tests::{Cluster, Garage, Options, Scene, StoreAccess, scene};
use std::collections::BTreeSet;
use std::fs;

/// Pages that are followed here; each has a test below.
const FOLLOWED: [&str; 8] = [
    "browser",
    "erasure",
    "from-activestorage",
    "from-supabase",
    "large-files",
    "psql",
    "public-assets",
    "python",
];
/// By the tests of what it is about.
const FOLLOWED_ELSEWHERE: [&str; 1] = ["graphql"];

const COMMANDS: [&str; 3] = ["sql", "sh", "python"];

/// As `make up` leaves it.
fn local() -> Cluster {
    Cluster::start(Options::new().setting("pg_storage.allowed_origins", scene::ORIGIN))
}

fn garage() -> Cluster {
    let options = scene::remote(Garage::shared().access());
    Cluster::start(options.setting("pg_storage.bucket_prefix", "docs"))
}

/// Follows a page in clusters of its own, because pages make roles.
fn follow(page: &str, clusters: impl IntoIterator<Item = Cluster>) {
    for cluster in clusters {
        let database = cluster.bare_database();
        Reader::new(&database).follow(&format!("docs/{page}.md"), &COMMANDS);
    }
}

#[test]
fn every_page_with_commands_is_followed() {
    let mut pages = BTreeSet::new();
    for entry in fs::read_dir(docs::root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        if docs::all_blocks(&text).iter().any(|block| COMMANDS.contains(&&*block.language)) {
            pages.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    let known: BTreeSet<String> =
        FOLLOWED.iter().chain(&FOLLOWED_ELSEWHERE).map(|page| (*page).to_owned()).collect();
    assert_eq!(pages, known);
    let readme = docs::read("README.md");
    for page in FOLLOWED {
        assert!(readme.contains(&format!("(docs/{page}.md)")), "the README does not link docs/{page}.md");
    }
}

#[test]
fn first_upload_from_psql() {
    follow("psql", [local(), garage()]);
}

#[test]
fn first_upload_from_python() {
    follow("python", [local(), garage()]);
}

#[test]
fn large_files() {
    if takes_parts() {
        follow("large-files", [local(), garage()]);
    } else {
        follow("large-files", [garage()]);
    }
}

/// Garage gives nothing to those who do not sign, as the page says, and `check()` reports it.
#[test]
fn public_assets() {
    let scene = Scene::local();
    Upload::of(b"first use").to("public").complete(&mut scene.user("ada"), b"first use");
    if scene.value("SELECT status = 'ok' FROM storage.check() WHERE name = 'public_read'") {
        follow("public-assets", [local()]);
    } else {
        lacks("public_read");
        let options = Options::new().embedded("the chosen store gives nothing to those who do not sign");
        follow(
            "public-assets",
            [Cluster::start(options.setting("pg_storage.allowed_origins", scene::ORIGIN))],
        );
    }
}

#[test]
fn erasing_a_user() {
    follow("erasure", [local(), garage()]);
}

/// What it shows of a site and a page in a browser is tested in `browser.rs`.
#[test]
fn uploading_from_a_browser() {
    follow("browser", [local(), garage()]);
}

/// Puts what another system left into a bucket of the store.
fn fill(store: &StoreAccess, bucket: &str, objects: &[(&str, &str, &str)]) {
    let put = |key: &str, content_type: &str, bytes: &str| {
        let headers = Headers::from([("content-type".to_owned(), content_type.to_owned())]);
        let answer =
            http::put(&store.url(Method::Put, (bucket, key), &headers, &[]), &headers, bytes.as_bytes());
        assert!(answer.is_success(), "PUT {bucket}/{key}: {} {}", answer.status, answer.text());
    };
    put("", "", "");
    for (key, content_type, bytes) in objects {
        put(key, content_type, bytes);
    }
}

/// The clusters of pages about moving in, each with the store that has the objects already.
fn with_stores() -> Vec<(Cluster, StoreAccess)> {
    let mut clusters = vec![(garage(), Garage::shared().access().clone())];
    // Its objects are there once.
    if Kind::chosen() != Some(Kind::Garage) {
        let local = local();
        let access = scene::local_access(&local);
        clusters.push((local, access));
    }
    clusters
}

#[test]
fn moving_from_supabase() {
    for (cluster, store) in with_stores() {
        let text = "text/plain";
        fill(
            &store,
            "supabase-files",
            &[
                ("stub/My Documents/letters/Dear Charles.txt/v1", text, "Dear Charles,"),
                ("stub/My Documents/notes/G.txt/v2", text, "Note G"),
                ("stub/My Documents/engine.txt/v3", text, "The Engine"),
                ("stub/avatars/ada.svg/v5", "image/svg+xml", "<svg/>"),
            ],
        );
        let supabase = cluster.bare_database();
        supabase.superuser().batch_execute(&docs::read("tests/moving/supabase.sql")).unwrap();
        let database = cluster.bare_database();
        Reader::new(&database)
            .variable("SUPABASE_URL", &format!("dbname={}", supabase.name()))
            .follow("docs/from-supabase.md", &COMMANDS);
    }
}

#[test]
fn moving_from_activestorage() {
    for (cluster, store) in with_stores() {
        let text = "text/plain";
        fill(
            &store,
            "rails-files",
            &[
                ("4hv2zqkq0kpbn1v8wqy3c5lm7d9r", text, "Dear Charles,"),
                ("9f3kd81bqz0x7vnm2wprty5l6c4h", text, "Note G"),
                ("c7n1w0x5rk8ypqz2mvt9d6lf3b4j", text, "The Engine"),
                ("z1x2c3v4b5n6m7k8l9p0q1w2e3r4", text, "torn at sea"),
            ],
        );
        let database = cluster.bare_database();
        database.superuser().batch_execute(&docs::read("tests/moving/activestorage.sql")).unwrap();
        Reader::new(&database).follow("docs/from-activestorage.md", &COMMANDS);
    }
}
