//! Every example, setting and command of the README is true.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use pg_storage_tests::docs::{self, blocks};
use pg_storage_tests::reader::Reader;
use pg_storage_tests::{Cluster, Options};

fn readme() -> String {
    docs::read("README.md")
}

#[test]
fn every_sql_example_runs_and_shows_what_it_says() {
    let cluster = Cluster::start(
        Options::new().embedded("the README begins with it").setting("pg_storage.bucket_prefix", "readme"),
    );
    let database = cluster.bare_database();
    let shown = Reader::new(&database).follow("README.md", &["sql"]);
    let line = |wanted: &str| shown.lines().any(|line| line.trim() == wanted);
    assert!(line("uploaded |"), "the upload was confirmed:\n{shown}");
    assert!(shown.contains("hello "), "the file was downloaded:\n{shown}");
    assert!(line("t            |"), "the second upload needed no bytes:\n{shown}");
    assert!(
        line("texts/one.txt | uploaded  |") && line("texts/two.txt | requested | NOT_UPLOADED"),
        "each of many has its verdict:\n{shown}"
    );
    assert!(!shown.contains("| fail"), "the local store passes its own examination:\n{shown}");
}

#[test]
fn every_store_example_is_a_valid_configuration() {
    let examples = blocks(&readme(), "ini");
    assert!(examples.len() >= 6, "AWS, Garage, Ceph, MinIO, Hetzner and R2: {examples:?}");
    let cluster = Cluster::start(Options::new().embedded("the README sets the store"));
    let mut session = cluster.connect("postgres", "postgres");
    for example in examples {
        let settings: Vec<(&str, &str)> = example
            .lines()
            .map(|line| line.split_once(" = ").unwrap())
            .map(|(name, value)| (name, value.trim_matches('\'')))
            .collect();
        for (name, value) in &settings {
            cluster.set(name, value);
        }
        cluster.reload();
        for (name, value) in &settings {
            let row = session
                .query_one(
                    "SELECT setting, error FROM pg_file_settings WHERE name = $1 ORDER BY seqno DESC LIMIT 1",
                    &[name],
                )
                .unwrap();
            assert_eq!((row.get::<_, &str>(0), row.get::<_, Option<&str>>(1)), (*value, None), "{name}");
            let shown: String = session.query_one("SELECT current_setting($1)", &[name]).unwrap().get(0);
            let secret = name.ends_with("access_key") || name.ends_with("access_key_id");
            assert_eq!(shown, if secret { "********" } else { value }, "{name}");
            cluster.unset(name);
        }
    }
}

#[test]
fn the_settings_table_is_complete() {
    let text = readme();
    let table = text.split("\n## Settings\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let documented: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
        .flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`').to_owned()))
        .collect();

    let cluster = Cluster::start(Options::new().embedded("the README begins with it"));
    let mut session = cluster.connect("postgres", "postgres");
    let mut defined: BTreeSet<String> = session
        .query("SELECT substr(name, 12) FROM pg_settings WHERE name LIKE 'pg\\_storage.%'", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    // Secrets are in no list, so they are asked for by name.
    for secret in ["access_key_id", "secret_access_key"] {
        session.query_one("SELECT current_setting($1)", &[&format!("pg_storage.{secret}")]).unwrap();
        assert!(defined.insert(secret.to_owned()), "{secret} is listed");
    }
    assert_eq!(documented, defined);
}

#[test]
fn every_make_target_exists() {
    let makefile = docs::read("Makefile");
    let contributing = docs::read("CONTRIBUTING.md");
    let mut named = 0;
    for text in [readme(), contributing] {
        for command in text.split(['`', '\n']).filter_map(|part| part.trim_start().strip_prefix("make ")) {
            let target = command.trim_start_matches("-s ").split_whitespace().next().unwrap();
            assert!(makefile.contains(&format!("\n{target}: ")), "make {target}");
            named += 1;
        }
    }
    assert!(named > 5, "{named}");
}
