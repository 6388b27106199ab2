//! SHA-256 of file contents, as a value and incrementally, in the two spellings that matter: hexadecimal in SQL, Base64
//! in S3's `x-amz-checksum-sha256`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest as _;

use crate::error::{Invalid, Token, shown};

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Reads a digest the way clients declare one: exactly 64 lower-case hexadecimal digits.
    ///
    /// Upper case is refused rather than folded: the text is compared and indexed as it stands.
    ///
    /// # Errors
    /// [`Token::InvalidContentHash`].
    pub fn parse_hex(text: &str) -> Result<Self, Invalid> {
        let mut bytes = [0; 32];
        if text.len() == 64 && base16ct::lower::decode(text, &mut bytes).is_ok() {
            return Ok(Self(bytes));
        }
        let detail = format!("{} characters: {}.", text.chars().count(), shown(text));
        Err(Invalid::new(Token::InvalidContentHash, "a content hash is 64 lower-case hexadecimal digits")
            .with_detail(detail)
            .with_hint("Give the SHA-256 of the file's bytes in lower-case hexadecimal, or NULL when it is not known."))
    }

    /// The digest of bytes that are all at hand.
    pub fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// A digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        base16ct::lower::encode_string(&self.0)
    }

    /// The 44 characters of standard Base64 that S3's checksum headers carry.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Reads what a store reports as `x-amz-checksum-sha256`.
    ///
    /// `None` for anything that is not the padded Base64 of 32 bytes, in particular for the checksum of checksums that
    /// stores report for multipart uploads (`…=-3`): that one is not the digest of the content.
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// SHA-256 of bytes that arrive piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Hasher(sha2::Sha256);

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes; how they are cut into pieces does not matter.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything seen.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    /// FIPS 180-4 gives "abc"; the other two are the values everyone publishes.
    const PUBLISHED: [(&str, &str); 3] = [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        ("hello world", "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9"),
    ];

    #[test]
    fn published_digests() {
        for (text, hex) in PUBLISHED {
            assert_eq!(Digest::of(text.as_bytes()).to_hex(), hex);
            assert_eq!(Digest::parse_hex(hex).unwrap(), Digest::of(text.as_bytes()));
        }
        assert_eq!(Digest::of(b"").to_base64(), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn hex_is_lower_case_and_complete() {
        let good = Digest::of(b"x").to_hex();
        let bad = [
            String::new(),
            good[..63].to_owned(),
            format!("{good}0"),
            good.to_uppercase(),
            good.replacen(|c: char| c.is_ascii_digit(), "g", 1),
            format!(" {}", &good[1..]),
            good.repeat(3),
            format!("{}é", &good[..62]),
        ];
        for text in bad {
            assert_eq!(Digest::parse_hex(&text).unwrap_err().token, Token::InvalidContentHash, "{text}");
        }
    }

    #[test]
    fn base64_of_anything_but_one_digest_is_none() {
        let digest = Digest::of(b"x");
        let text = digest.to_base64();
        assert_eq!(Digest::from_base64(&text), Some(digest));
        for bad in ["", "=", text.trim_end_matches('='), &format!("{text}-3"), &format!(" {text}"), "AAAA"] {
            assert_eq!(Digest::from_base64(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes: Vec<u8>, cut: prop::sample::Index) {
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            let mut hasher = Hasher::new();
            hasher.update(head);
            hasher.update(tail);
            prop_assert_eq!(hasher.finish(), Digest::of(&bytes));
        }

        #[test]
        fn both_spellings_read_back(bytes: [u8; 32]) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(Digest::parse_hex(&digest.to_hex()).unwrap(), digest);
            prop_assert_eq!(Digest::from_base64(&digest.to_base64()), Some(digest));
        }

        #[test]
        fn any_text_is_answered(text: String) {
            let _ = Digest::from_base64(&text);
            prop_assert_eq!(Digest::parse_hex(&text).is_ok(), text.len() == 64 && text.bytes().all(|b| b"0123456789abcdef".contains(&b)));
        }
    }
}
