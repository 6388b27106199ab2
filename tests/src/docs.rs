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

/// A fenced block of a page.
#[derive(Debug)]
pub struct Block {
    /// What the fence says.
    pub language: String,
    /// The lines between the fences.
    pub text: String,
    /// The line of the page that its fence is in.
    pub line: usize,
}

/// The fenced blocks of a page, in order.
pub fn all_blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), inside) {
            (Some(language), false) => {
                blocks.push(Block { language: language.to_owned(), text: String::new(), line: number + 1 });
                inside = true;
            }
            (Some(_), true) => inside = false,
            (None, true) => {
                let block = blocks.last_mut().expect("its fence was seen");
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    blocks
}

/// The fenced blocks of a language, in order.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    all_blocks(text).into_iter().filter(|block| block.language == language).map(|block| block.text).collect()
}

/// Whether a page that shows this is right when that was printed. `…` stands for anything, alone in a line for any lines;
/// white space at the end of a line and empty lines at the end do not count.
pub fn shows(shown: &str, printed: &str) -> bool {
    fn lines(text: &str) -> Vec<&str> {
        text.trim_end().lines().map(str::trim_end).collect()
    }
    fn all(shown: &[&str], printed: &[&str]) -> bool {
        match (shown.split_first(), printed.split_first()) {
            (None, None) => true,
            (Some((&"…", rest)), _) if all(rest, printed) => true,
            (Some((&"…", _)), Some((_, printed))) => all(shown, printed),
            (Some((line, shown)), Some((other, printed))) => one(line, other) && all(shown, printed),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
    fn one(shown: &str, printed: &str) -> bool {
        let Some((start, rest)) = shown.split_once('…') else { return shown == printed };
        printed.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices().map(|(at, _)| at).chain([tail.len()]).any(|at| one(rest, &tail[at..]))
        })
    }
    all(&lines(shown), &lines(printed))
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

#[cfg(test)]
mod tests {
    use super::{all_blocks, shows};

    #[test]
    fn a_page_is_wrong_when_anything_else_was_printed() {
        assert!(shows("a\nb\n", "a \nb\n\n"));
        assert!(!shows("a\nb\n", "a\nc\n"));
        assert!(!shows("a\n", "a\nb\n"));
        assert!(!shows("a\nb\n", "a\n"));
        assert!(shows("id … of …\nend\n", "id 17 of 20\nend\n"));
        assert!(!shows("id … of 2\n", "id 17 of 20\n"));
        assert!(shows("a\n…\nz\n", "a\nb\nc\nz\n"));
        assert!(!shows("a\n…\nz\n", "a\nb\nc\n"));
        assert!(shows("…\n", ""));
    }

    #[test]
    fn blocks_have_their_language_text_and_line() {
        let blocks = all_blocks("one\n\n```sql\nSELECT 1;\n```\n\n```\nplain\n```\n");
        let found: Vec<_> = blocks.iter().map(|b| (b.language.as_str(), b.text.as_str(), b.line)).collect();
        assert_eq!(found, [("sql", "SELECT 1;\n", 3), ("", "plain\n", 7)]);
    }
}
