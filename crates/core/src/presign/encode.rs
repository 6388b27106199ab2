//! The URI encoding of SigV4: every byte but the unreserved ones of RFC 3986, in upper-case hexadecimal.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};

/// All but `A-Z a-z 0-9 - . _ ~`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The same, but slashes separate the segments of a key.
const RESERVED_IN_PATH: &AsciiSet = &RESERVED.remove(b'/');

/// A name or value of a query string, piece by piece.
pub(super) fn component(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// An object key as part of a URL's path, piece by piece.
pub(super) fn path(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED_IN_PATH)
}

/// An object key as it stands in a URL, signed or not: each byte but `A-Z a-z 0-9 - . _ ~ /` percent-encoded.
///
/// For URLs that the signer does not make, such as those of a CDN.
pub fn encode_key(key: &str) -> String {
    path(key).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    /// AWS's `UriEncode` pseudo code, word for word.
    fn uri_encode(text: &str, encode_slash: bool) -> String {
        let mut result = String::new();
        for byte in text.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'~' | b'.' => {
                    result.push(char::from(byte))
                }
                b'/' if !encode_slash => result.push('/'),
                _ => result.push_str(&format!("%{byte:02X}")),
            }
        }
        result
    }

    #[test]
    fn keys() {
        assert_eq!(encode_key("a b+c/ü~%2F=*'()"), "a%20b%2Bc/%C3%BC~%252F%3D%2A%27%28%29");
        assert_eq!(encode_key("//a/../b/"), "//a/../b/");
        assert_eq!(encode_key("\r\n\0"), "%0D%0A%00");
    }

    proptest! {
        #[test]
        fn encoding_is_that_of_aws(text in ".{0,40}|[ -~]{0,40}|\\PC{0,40}") {
            prop_assert_eq!(encode_key(&text), uri_encode(&text, false));
            prop_assert_eq!(component(&text).collect::<String>(), uri_encode(&text, true));
            let decoded = percent_encoding::percent_decode_str(&encode_key(&text)).decode_utf8().unwrap().into_owned();
            prop_assert_eq!(decoded, text);
        }
    }
}
