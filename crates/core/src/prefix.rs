//! Strings that begin alike, as ranges in the order of their bytes: what an index can look up.

/// Comes after every path: no path begins with a character that is none.
pub const AFTER_ALL: &str = "\u{10ffff}";

/// The least text that comes after every text beginning with `prefix`; `None`: there is none.
///
/// UTF-8 keeps the order of code points, so it is the prefix with its last character replaced by the next one.
pub fn end_of(prefix: &str) -> Option<String> {
    let mut shorter = prefix.to_owned();
    while let Some(last) = shorter.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            last => char::from_u32(u32::from(last) + 1),
        };
        if let Some(next) = next {
            shorter.push(next);
            return Some(shorter);
        }
    }
    None
}

/// The least text after `text` that PostgreSQL can hold: it knows no NUL.
pub fn next_after(text: &str) -> String {
    format!("{text}\u{1}")
}

/// The folder that a path is in, as seen from `prefix`, with its delimiter; `None`: in none.
pub fn folder_of<'a>(path: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    let end = prefix.len() + rest.find(delimiter)? + delimiter.len();
    path.get(..end)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ends() {
        assert_eq!(end_of("docs/").as_deref(), Some("docs0"));
        assert_eq!(end_of("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(end_of("\u{d7ff}").as_deref(), Some("\u{e000}"));
        assert_eq!(end_of("\u{7f}").as_deref(), Some("\u{80}"));
        assert_eq!(end_of("\u{10ffff}"), None);
        assert_eq!(end_of(""), None);
    }

    #[test]
    fn folders() {
        assert_eq!(folder_of("a/b/c", "", "/"), Some("a/"));
        assert_eq!(folder_of("a/b/c", "a/", "/"), Some("a/b/"));
        assert_eq!(folder_of("a/b/c", "a", "/"), Some("a/"));
        assert_eq!(folder_of("a/b/c", "a/b/", "/"), None);
        assert_eq!(folder_of("a/b/c", "a/b/c", "/"), None);
        assert_eq!(folder_of("a/b/c", "b", "/"), None);
        assert_eq!(folder_of("größe--x", "gr", "--"), Some("größe--"));
    }

    proptest! {
        #[test]
        fn a_prefix_is_a_range(prefix in "\\PC{0,4}", text in "\\PC{0,6}") {
            let in_range = text >= prefix && end_of(&prefix).is_none_or(|end| text < end);
            prop_assert_eq!(in_range, text.starts_with(&prefix));
        }

        #[test]
        fn what_begins_with_it_is_before_its_end(prefix in "\\PC{1,4}", more in "\\PC{0,4}") {
            let text = format!("{prefix}{more}");
            prop_assert!(end_of(&prefix).is_none_or(|end| text < end));
        }

        #[test]
        fn nothing_is_between_a_text_and_the_next(text in "\\PC{0,4}", other in "\\PC{0,6}") {
            prop_assert_eq!(other >= next_after(&text), other > text);
        }
    }
}
