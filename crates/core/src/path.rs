//! A file's path within its bucket, for those who address files by path.

use std::fmt;

use unicode_normalization::is_nfc;

use crate::error::{Invalid, Token, shown};

/// A relative path: 1 to 1024 bytes of non-empty segments separated by single slashes.
///
/// Allowed are letters and digits of any script and ``_ - . ( ) + = @ , ~ ! $ & ' [ ]``. A path appears in URLs, shells
/// and listings, so what any of those treats as syntax is refused: spaces, control characters, `: ? # \ * " < > |`,
/// emoji, a leading or trailing slash, `..` anywhere, a segment that begins with `-` (an option) or with `.` (reserved).
/// What Unicode spells in several ways has one spelling here, the composed one (NFC), and no letter is invisible: one text
/// must not be two files. Letters of two scripts may look alike all the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

impl FilePath {
    /// The most bytes a path has, which is also the longest object key S3 accepts.
    pub const MAX_BYTES: usize = 1024;

    /// Reads a path.
    ///
    /// # Errors
    /// [`Token::InvalidPath`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(message) => Err(Invalid::new(Token::InvalidPath, message)
                .with_detail(format!("{} bytes: {}.", text.len(), shown(text)))
                .with_hint(
                    "Give a relative path such as 'docs/v1.2.3/guide.pdf', accented letters composed (NFC).",
                )),
        }
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fault(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.len() > FilePath::MAX_BYTES {
        return Some("a path has 1 to 1024 bytes");
    }
    if text.starts_with('/') || text.ends_with('/') {
        return Some("a path is relative and names a file: no '/' at either end");
    }
    if !is_nfc(text) {
        return Some("a path is spelled with composed letters (NFC)");
    }
    text.split('/').find_map(|segment| {
        if segment.is_empty() {
            Some("a path has no empty segments")
        } else if segment.contains("..") {
            Some("a path contains no '..'")
        } else if segment.starts_with('.') {
            Some("no segment of a path begins with '.'")
        } else if segment.starts_with('-') {
            Some("no segment of a path begins with '-'")
        } else if !segment.chars().all(is_allowed) {
            Some("a path contains only letters, digits and _ - . ( ) + = @ , ~ ! $ & ' [ ]")
        } else {
            None
        }
    })
}

fn is_allowed(character: char) -> bool {
    match character {
        '_' | '-' | '.' | '(' | ')' | '+' | '=' | '@' | ',' | '~' | '!' | '$' | '&' | '\'' | '[' | ']' => {
            true
        }
        // Unicode counts these as alphabetic or numeric, fonts show them as emoji.
        '\u{2139}' | '\u{24c2}' | '\u{3297}' | '\u{3299}' | '\u{1f100}'..='\u{1f1ff}' => false,
        // And these, which fill the place of a letter with nothing.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' | '\u{13441}' | '\u{13442}' => false,
        _ => character.is_alphanumeric(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepted() {
        let longest = "é".repeat(512);
        for good in [
            "_next/static/chunks/main-abc123.js",
            "_headers",
            "index.html",
            "docs/v1.2.3/guide.pdf",
            "a",
            "a/b/c",
            "Größe/图片/фото.png",
            "\u{c5}/\u{ac00}/\u{9cb}/\u{1fb3}",
            "हिन्दी".get(..3).unwrap(),
            "(1)+[2]=3@x,~!$&'.txt",
            "a.",
            longest.as_str(),
        ] {
            assert_eq!(FilePath::parse(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn refused() {
        let too_long = format!("{}a", "é".repeat(512));
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "..",
            "../a",
            "a/..",
            "a/../b",
            "a..b",
            "a/b..",
            ".",
            "./a",
            "a/./b",
            ".git/config",
            ".well-known/x",
            "-rf",
            "a/-b",
            "a b",
            " a",
            "a:b",
            "C:a",
            "a?b",
            "a#b",
            "a\\b",
            "a*b",
            "a\"b",
            "a<b",
            "a>b",
            "a|b",
            "a%2e",
            "a;b",
            "a^b",
            "a`b",
            "a{b}",
            "a\0b",
            "a\nb",
            "a\u{85}b",
            "a\u{a0}b",
            "a\u{2028}b",
            "a\u{202e}b",
            "a\u{feff}b",
            "👍",
            "🅰",
            "Ⓜ",
            "㊗",
            "ℹ",
            "a\u{200d}b",
            "e\u{301}",
            "\u{212b}",
            "\u{1100}\u{1161}",
            "\u{9c7}\u{9be}",
            "\u{3b1}\u{345}",
            "a\u{3164}",
            "a\u{13441}",
            "a\u{13442}",
            "a\u{fe0f}",
            too_long.as_str(),
        ] {
            assert_eq!(FilePath::parse(bad).unwrap_err().token, Token::InvalidPath, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text: String) {
            let _ = FilePath::parse(&text);
        }

        #[test]
        fn what_is_accepted_cannot_climb_or_break_a_url(text in "[a-zé./_%: -]{1,12}") {
            if let Ok(path) = FilePath::parse(&text) {
                prop_assert!(!path.as_str().contains(".."));
                prop_assert!(path.as_str().split('/').all(|segment| !segment.is_empty() && !segment.starts_with(['.', '-'])));
                prop_assert!(!path.as_str().contains(['%', ':', ' ']));
            }
        }
    }
}
