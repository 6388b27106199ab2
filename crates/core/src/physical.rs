//! Names of physical buckets, minted or given, and the prefix under which an operator lets us keep keys in a shared one.

use std::fmt;

use crate::slug::{fingerprint, slug};

/// What every minted bucket name begins with: 1 to 20 of `[a-z0-9-]`, a letter or digit at both ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BucketPrefix(String);

impl BucketPrefix {
    /// Reads a prefix.
    ///
    /// # Errors
    /// Says what is wrong, for the setting's error message.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > 20 {
            return Err("a bucket prefix has 1 to 20 characters".to_owned());
        }
        if !text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            return Err("a bucket prefix consists of lower-case letters, digits and '-'".to_owned());
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err("a bucket prefix begins and ends with a letter or a digit".to_owned());
        }
        // A minted name continues with '-', which completes prefixes that S3 reserves ("sthree-").
        check_bucket_name(&format!("{text}-0")).map(|()| Self(text.to_owned()))
    }

    /// The prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The prefix of all our keys in a bucket that is not ours alone: empty, or segments each followed by a slash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyPrefix(String);

impl KeyPrefix {
    /// The most bytes of a prefix, which leaves ample room for our own keys in the 1024 bytes of an S3 key.
    pub const MAX_BYTES: usize = 256;

    /// Reads a prefix; the trailing slash may be left out. Segments consist of `[A-Za-z0-9._-]` and do not begin with a
    /// dot: the prefix becomes part of bucket policies, where `*`, `?` and `$` have a meaning, and of URLs.
    ///
    /// # Errors
    /// Says what is wrong, for the setting's error message.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let path = text.strip_suffix('/').unwrap_or(text);
        if path.len() >= Self::MAX_BYTES {
            return Err("a key prefix has at most 255 bytes before its final '/'".to_owned());
        }
        for segment in path.split('/') {
            if segment.is_empty() {
                return Err("a key prefix has no empty segments and does not begin with '/'".to_owned());
            }
            if segment.starts_with('.') {
                return Err("no segment of a key prefix begins with '.'".to_owned());
            }
            if !segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
            {
                return Err(
                    "a key prefix consists of ASCII letters, digits, '.', '_', '-' and '/'".to_owned()
                );
            }
        }
        Ok(Self(format!("{path}/")))
    }

    /// The prefix, empty or with its trailing slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of the physical bucket that stands for `parts` (such as tenant and access):
/// `{prefix}-{readable part}-{12 hexadecimal digits}`, or without the readable part when nothing can be read.
///
/// A pure function of its arguments, so every session on every server mints the same name. 3 to 63 of `[a-z0-9-]`,
/// different for different parts even where the readable part was cut or folded.
pub fn bucket_name(prefix: &BucketPrefix, parts: &[&str]) -> String {
    const HASH: usize = 12;
    let fixed = prefix.as_str().len() + 1 + 1 + HASH;
    let readable = slug(&parts.join("-"), 63_usize.saturating_sub(fixed));
    let hash = fingerprint(parts);
    if readable.is_empty() { format!("{prefix}-{hash}") } else { format!("{prefix}-{readable}-{hash}") }
}

/// Whether S3 would accept `name` for a general purpose bucket (AWS, "General purpose bucket naming rules").
///
/// # Errors
/// Says which rule is broken.
pub fn check_bucket_name(name: &str) -> Result<(), String> {
    const RESERVED_STARTS: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
    const RESERVED_ENDS: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !(3..=63).contains(&name.len()) {
        return Err("a bucket name has 3 to 63 characters".to_owned());
    }
    if !name.bytes().all(|byte| alphanumeric(&byte) || matches!(byte, b'.' | b'-')) {
        return Err("a bucket name consists of lower-case letters, digits, '.' and '-'".to_owned());
    }
    if !name.as_bytes().first().is_some_and(alphanumeric) || !name.as_bytes().last().is_some_and(alphanumeric)
    {
        return Err("a bucket name begins and ends with a letter or a digit".to_owned());
    }
    if name.contains("..") {
        return Err("a bucket name has no two adjacent dots".to_owned());
    }
    if name.split('.').count() == 4
        && name.split('.').all(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err("a bucket name is not an IP address".to_owned());
    }
    if let Some(start) = RESERVED_STARTS.iter().find(|start| name.starts_with(**start)) {
        return Err(format!("S3 reserves bucket names that begin with '{start}'"));
    }
    if let Some(end) = RESERVED_ENDS.iter().find(|end| name.ends_with(**end)) {
        return Err(format!("S3 reserves bucket names that end with '{end}'"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes() {
        for good in ["a", "0", "acme", "acme-prod", "a--b", "abcdefghijklmnopqrst"] {
            assert_eq!(BucketPrefix::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "A",
            "-a",
            "a-",
            "a.b",
            "a_b",
            "é",
            "abcdefghijklmnopqrstu",
            "xn--a",
            "sthree",
            "sthree-x",
            "amzn-s3-demo",
        ] {
            assert!(BucketPrefix::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn key_prefixes() {
        for (given, kept) in [("", ""), ("a", "a/"), ("a/b/", "a/b/"), ("A_1.x/b-c", "A_1.x/b-c/")] {
            assert_eq!(KeyPrefix::parse(given).unwrap().as_str(), kept);
        }
        let too_long = "a".repeat(256);
        for bad in [
            "/",
            "/a",
            "a//",
            "a//b",
            "..",
            "a/../b",
            ".a",
            "a b",
            "a*",
            "a?",
            "${x}",
            "é",
            "a\n",
            too_long.as_str(),
        ] {
            assert!(KeyPrefix::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(KeyPrefix::parse(&"a".repeat(255)).unwrap().as_str().len(), KeyPrefix::MAX_BYTES);
    }

    #[test]
    fn minted_names_do_not_change() {
        let prefix = BucketPrefix::parse("acme").unwrap();
        assert_eq!(bucket_name(&prefix, &["Tenant One", "private"]), "acme-tenant-one-private-987d3ac8beea");
        assert_eq!(bucket_name(&prefix, &["日本"]).len(), "acme-".len() + 12);
    }

    #[test]
    fn names_equal_after_cutting_still_differ() {
        let prefix = BucketPrefix::parse("abcdefghijklmnopqrst").unwrap();
        let long = "x".repeat(200);
        let one = bucket_name(&prefix, &[&format!("{long}1")]);
        let two = bucket_name(&prefix, &[&format!("{long}2")]);
        assert_eq!(one.len(), 63);
        assert_ne!(one, two);
        assert_ne!(bucket_name(&prefix, &["a", "b"]), bucket_name(&prefix, &["a-b"]));
        assert_ne!(bucket_name(&prefix, &["Acme"]), bucket_name(&prefix, &["acme"]));
    }

    #[test]
    fn given_names() {
        let longest = "a".repeat(63);
        for good in ["abc", "my-bucket", "my.bucket.name", "1.2.3", "a1.2.3.4", longest.as_str()] {
            assert_eq!(check_bucket_name(good), Ok(()), "{good}");
        }
        let too_long = "a".repeat(64);
        for bad in [
            "",
            "ab",
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "192.168.5.4",
            "xn--abc",
            "sthree-abc",
            "amzn-s3-demo-x",
            "abc-s3alias",
            "abc--ol-s3",
            "abc.mrap",
            "abc--x-s3",
            "abc--table-s3",
            "a/b",
            "é12",
            "a b",
            too_long.as_str(),
        ] {
            assert!(check_bucket_name(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_minted_name_is_legal(prefix in "[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", parts: Vec<String>) {
            let Ok(prefix) = BucketPrefix::parse(&prefix) else { return Ok(()) };
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let name = bucket_name(&prefix, &parts);
            prop_assert_eq!(check_bucket_name(&name), Ok(()));
            prop_assert!(!name.contains('.'));
            prop_assert_eq!(&name, &bucket_name(&prefix, &parts));
        }

        #[test]
        fn any_text_is_answered(text: String) {
            let _ = BucketPrefix::parse(&text);
            let _ = check_bucket_name(&text);
            if let Ok(prefix) = KeyPrefix::parse(&text) {
                prop_assert!(prefix.as_str().is_empty() || prefix.as_str().ends_with('/'));
            }
        }
    }
}
