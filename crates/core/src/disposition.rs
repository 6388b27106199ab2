//! The `Content-Disposition` under which a download is saved (RFC 6266, RFC 8187).

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::name::{breaks_a_line, reorders_text};

/// The characters of `attr-char` in RFC 8187 section 3.2.1 stay as they are.
const NOT_ATTR_CHAR: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// The most bytes of a suggested name, the limit of common file systems. It also keeps URLs that carry the header within
/// what proxies pass.
const MAX_BYTES: usize = 255;

/// `attachment` or `inline` with the name under which to save the file.
///
/// The name may be any text. A name that is plain ASCII is given as it is; any other as an ASCII stand-in, in which `_`
/// takes the place of what had to go, and exactly, as `filename*`. The result is printable ASCII whatever the name: a name
/// cannot add a header, nor a parameter. Path separators, control characters and bidirectional overrides become `_`, and
/// a name of more than 255 bytes loses the end of its stem but not its extension.
pub fn content_disposition(attachment: bool, filename: &str) -> String {
    let disposition = if attachment { "attachment" } else { "inline" };
    let name: String = shortened(filename).chars().map(harmless).collect();
    let fallback: String = name.chars().map(quotable).collect();
    if fallback == name {
        format!("{disposition}; filename=\"{fallback}\"")
    } else {
        let exact = utf8_percent_encode(&name, NOT_ATTR_CHAR);
        format!("{disposition}; filename=\"{fallback}\"; filename*=UTF-8''{exact}")
    }
}

fn harmless(character: char) -> char {
    let harmful = matches!(character, '/' | '\\') || breaks_a_line(character) || reorders_text(character);
    if harmful { '_' } else { character }
}

/// RFC 6266 appendix D advises against `%` in the quoted form, which some browsers decode, and against `"` and `\`, which
/// need an escape that not all of them read.
fn quotable(character: char) -> char {
    match character {
        '"' | '\\' | '%' => '_',
        ' '..='~' => character,
        _ => '_',
    }
}

fn shortened(filename: &str) -> Cow<'_, str> {
    if filename.len() <= MAX_BYTES {
        return Cow::Borrowed(filename);
    }
    let (stem, extension) = match filename.rfind('.').map(|dot| filename.split_at(dot)) {
        Some((stem, extension)) if !stem.is_empty() && extension.len() <= 32 => (stem, extension),
        _ => (filename, ""),
    };
    let end = stem.floor_char_boundary(MAX_BYTES - extension.len());
    let (stem, _) = stem.split_at(end);
    Cow::Owned(format!("{stem}{extension}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    #[test]
    fn plain_names() {
        assert_eq!(content_disposition(true, "invoice.pdf"), "attachment; filename=\"invoice.pdf\"");
        assert_eq!(content_disposition(false, "a b;c=d.txt"), "inline; filename=\"a b;c=d.txt\"");
    }

    #[test]
    fn names_beyond_ascii() {
        // The euro example is that of RFC 6266 section 5.
        assert_eq!(
            content_disposition(true, "€ rates"),
            "attachment; filename=\"_ rates\"; filename*=UTF-8''%E2%82%AC%20rates"
        );
        assert_eq!(
            content_disposition(true, "50% \"off\"*.txt"),
            "attachment; filename=\"50_ _off_*.txt\"; filename*=UTF-8''50%25%20%22off%22%2A.txt"
        );
    }

    #[test]
    fn names_cannot_break_out() {
        for evil in [
            "a\r\nSet-Cookie: x=1",
            "a\"; filename=\"b.exe",
            "../../etc/passwd",
            "x\u{202e}gnp.exe",
            "a\\\"b",
            "a\0b",
        ] {
            let header = content_disposition(true, evil);
            assert_eq!(header.matches('"').count(), 2, "{header}");
            assert!(!header.contains(['/', '\\', '\r', '\n']), "{header}");
            assert!(
                !header.contains("%2F") && !header.contains("%0A") && !header.contains("%E2%80%AE"),
                "{header}"
            );
        }
    }

    #[test]
    fn long_names_keep_their_extension() {
        let header = content_disposition(true, &format!("{}.tar", "é".repeat(600)));
        let exact = header.split_once("''").unwrap().1;
        let name = percent_decode_str(exact).decode_utf8().unwrap();
        assert!(name.ends_with("é.tar") && name.len() <= MAX_BYTES && name.len() > MAX_BYTES - 2, "{name}");
        let header = content_disposition(true, &format!("a.{}", "b".repeat(600)));
        assert_eq!(header.len(), "attachment; filename=\"\"".len() + MAX_BYTES);
        assert!(content_disposition(true, &"é".repeat(600)).is_ascii());
    }

    proptest! {
        #[test]
        fn any_name_gives_one_printable_header(name: String, attachment: bool) {
            let header = content_disposition(attachment, &name);
            prop_assert!(header.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert_eq!(header.matches('"').count(), 2);
            if let Some((_, exact)) = header.split_once("filename*=UTF-8''") {
                prop_assert!(!exact.contains([' ', ';', '"', ',', '\'']));
                let decoded = percent_decode_str(exact).decode_utf8().unwrap();
                prop_assert!(name.len() > MAX_BYTES || decoded.chars().count() == name.chars().count());
            }
        }
    }
}
