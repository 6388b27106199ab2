//! The pages that people read, as the tests check them.

use std::fs;
use std::path::{Path, PathBuf};

/// A file of the repository, by its path from the root.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the repository").to_owned()
}

/// The fenced blocks of a language, in order.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap_or(rest).to_owned()).collect()
}

/// Fails the test unless `page` shows the files `whole` of `tests/web` from their first line to their last, and nothing else
/// in the languages of the web but parts of files there.
#[track_caller]
pub fn assert_shows_what_runs(page: &str, whole: &[&str]) {
    let text = read(page);
    let shown: Vec<String> =
        ["js", "html", "graphql", "json"].iter().flat_map(|language| blocks(&text, language)).collect();
    for file in whole {
        let source = read(&format!("tests/web/{file}"));
        assert!(shown.contains(&source), "{page} does not show tests/web/{file} as it is");
    }
    let sources: Vec<String> = fs::read_dir(root().join("tests/web"))
        .expect("list tests/web")
        .map(|entry| fs::read_to_string(entry.expect("list tests/web").path()).expect("read tests/web"))
        .collect();
    for block in &shown {
        assert!(
            sources.iter().any(|source| source.contains(block.as_str())),
            "{page} shows what no file has:\n{block}"
        );
    }
}
