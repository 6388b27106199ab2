//! Whoever does what a page in `docs` says sees what it shows.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::docs;
use pg_storage_tests::reader::Reader;
use pg_storage_tests::{Cluster, Garage, Options, scene};
use std::collections::BTreeSet;
use std::fs;

/// Pages that are followed here; each has a test below.
const FOLLOWED: [&str; 5] = ["browser", "erasure", "psql", "public-assets", "python"];
/// Pages that tests of their own follow or write.
const OTHERS: [&str; 2] = ["abuse", "graphql"];

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
fn every_page_is_followed() {
    let pages: BTreeSet<String> = fs::read_dir(docs::root().join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let known: BTreeSet<String> = FOLLOWED.iter().chain(&OTHERS).map(|page| (*page).to_owned()).collect();
    assert_eq!(pages, known);
    for page in FOLLOWED {
        let readme = docs::read("README.md");
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

/// Garage gives nothing to those who do not sign, as the page says.
#[test]
fn public_assets() {
    follow("public-assets", [local()]);
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
