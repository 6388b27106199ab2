//! Names people choose: a bucket's key and a file's name. Parsed once; after that the type is the proof.

use std::fmt;

use crate::error::{Invalid, Token, shown};

/// A bucket's key: 1 to 63 of `[a-z0-9._-]`, beginning with a letter or digit, never readable as a UUID.
///
/// SQL takes a key or an id in the same argument, so the two must not be confusable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketKey(String);

impl BucketKey {
    /// The most characters a key has: those of an S3 bucket's name, so that a key can always be shown in one.
    pub const MAX_LENGTH: usize = 63;

    /// Reads a key.
    ///
    /// # Errors
    /// [`Token::InvalidBucketKey`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |message: &str| Err(invalid_key(message, text));
        if text.is_empty() || text.chars().count() > Self::MAX_LENGTH {
            return refuse("a bucket key has 1 to 63 characters");
        }
        if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-')) {
            return refuse("a bucket key consists of lower-case letters, digits, '.', '_' and '-'");
        }
        if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return refuse("a bucket key begins with a letter or a digit");
        }
        if looks_like_uuid(text) {
            return refuse("a bucket key must not look like a UUID");
        }
        Ok(Self(text.to_owned()))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn invalid_key(message: &str, text: &str) -> Invalid {
    Invalid::new(Token::InvalidBucketKey, message)
        .with_detail(format!("The key is {}.", shown(text)))
        .with_hint("Use a short name such as 'avatars' or 'team-documents'.")
}

/// PostgreSQL reads 32 hexadecimal digits with a hyphen after any group of four as a UUID, which is more than the
/// spellings of RFC 9562; refusing hyphens anywhere covers both.
fn looks_like_uuid(text: &str) -> bool {
    let digits = || text.bytes().filter(|byte| *byte != b'-');
    digits().count() == 32 && digits().all(|byte| byte.is_ascii_hexdigit())
}

/// A file's name as people see it: 1 to 1024 characters of any script, on one line, without separators.
///
/// Refused are control characters (C0, DEL, C1), line and paragraph separators, `/` and `\`, the names `.` and `..`,
/// names that show nothing, and the bidirectional embedding, override and isolate controls with which `gnp.exe` is made
/// to read `exe.png`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filename(String);

impl Filename {
    /// The most characters (Unicode scalar values) a name has.
    pub const MAX_LENGTH: usize = 1024;

    /// Reads a name.
    ///
    /// # Errors
    /// [`Token::InvalidFilename`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let length = text.chars().count();
        let message = if length == 0 || length > Self::MAX_LENGTH {
            "a file name has 1 to 1024 characters"
        } else if text.contains(breaks_a_line) {
            "a file name contains no control characters or line breaks"
        } else if text.contains(reorders_text) {
            "a file name contains no bidirectional control characters"
        } else if text.contains(['/', '\\']) {
            "a file name contains no '/' or '\\'"
        } else if text == "." || text == ".." {
            "'.' and '..' are not file names"
        } else if text.chars().all(char::is_whitespace) {
            "a file name is not only spaces"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(Invalid::new(Token::InvalidFilename, message)
            .with_detail(format!("{length} characters: {}.", shown(text)))
            .with_hint("Give the last part of the file's path only; folders belong in the path argument."))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Filename {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Control characters of ASCII and Latin-1 (C0, DEL, C1) and Unicode's own line and paragraph separators.
pub(crate) fn breaks_a_line(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}')
}

/// The embedding, override and isolate controls of UAX #9. The marks (U+200E, U+200F, U+061C) stay: Hebrew and Arabic
/// names need them, and they reorder nothing by themselves.
pub(crate) fn reorders_text(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bucket_keys() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "private", "team.docs_2-x", "a-", "deadbeef", longest.as_str()] {
            assert_eq!(BucketKey::parse(good).unwrap().as_str(), good);
        }
        let too_long = "a".repeat(64);
        for bad in ["", "A", "Private", "-a", ".a", "_a", "a b", "a/b", "é", "a\0", "a\n", too_long.as_str()]
        {
            assert_eq!(BucketKey::parse(bad).unwrap_err().token, Token::InvalidBucketKey, "{bad:?}");
        }
    }

    #[test]
    fn bucket_keys_never_read_as_uuids() {
        for bad in [
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
            "a0eebc999c0b4ef8-bb6d6bb9bd380a11",
            "00000000-0000-0000-0000-000000000000",
        ] {
            assert!(BucketKey::parse(bad).is_err(), "{bad}");
        }
        assert!(BucketKey::parse("a0eebc999c0b4ef8bb6d6bb9bd380a1").is_ok());
        assert!(BucketKey::parse("a0eebc999c0b4ef8bb6d6bb9bd380a1x").is_ok());
    }

    #[test]
    fn filenames() {
        let longest = "é".repeat(1024);
        for good in [
            "a",
            "invoice.pdf",
            "Übersicht 2024 (final).xlsx",
            "图片.png",
            ".env",
            "...",
            "a: b?*",
            "👍.txt",
            longest.as_str(),
        ] {
            assert_eq!(Filename::parse(good).unwrap().as_str(), good);
        }
        let too_long = "a".repeat(1025);
        for bad in [
            "",
            ".",
            "..",
            " ",
            "\u{3000}",
            "a/b",
            "a\\b",
            "a\0b",
            "a\r\nb",
            "a\tb",
            "a\u{7f}",
            "a\u{85}b",
            "a\u{9b}b",
            "a\u{2028}b",
            "a\u{2029}b",
            "photo\u{202e}gnp.exe",
            "a\u{2066}b\u{2069}",
            too_long.as_str(),
        ] {
            assert_eq!(Filename::parse(bad).unwrap_err().token, Token::InvalidFilename, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text: String) {
            if let Ok(key) = BucketKey::parse(&text) {
                prop_assert_eq!(key.as_str(), text.as_str());
                prop_assert!(uuid::Uuid::parse_str(&text).is_err());
            }
            if let Ok(name) = Filename::parse(&text) {
                prop_assert_eq!(name.to_string(), text);
            }
        }

        #[test]
        fn no_uuid_is_a_bucket_key(bits: u128) {
            let uuid = uuid::Uuid::from_u128(bits);
            for spelling in [uuid.hyphenated().to_string(), uuid.simple().to_string(), uuid.urn().to_string(), uuid.braced().to_string()] {
                prop_assert!(BucketKey::parse(&spelling).is_err());
            }
        }
    }
}
