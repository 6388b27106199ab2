//! Any text as a short run of lower-case letters, digits and single hyphens, for the readable part of generated names.

use crate::digest::Hasher;

/// Lower-case ASCII letters and digits of `text`, everything else as single hyphens, none of them at either end, at most
/// `longest` bytes. Empty when nothing of the text can be shown.
pub(crate) fn slug(text: &str, longest: usize) -> String {
    let mut slug = String::with_capacity(longest);
    for character in text.chars() {
        if slug.len() >= longest {
            break;
        }
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// The first 12 hexadecimal digits of the parts' SHA-256, each part preceded by its length so that
/// `["ab", "c"]` and `["a", "bc"]` differ.
pub(crate) fn fingerprint(parts: &[&str]) -> String {
    let mut hasher = Hasher::new();
    for part in parts {
        // A usize fits in 64 bits on every platform PostgreSQL runs on.
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let mut hex = hasher.finish().to_hex();
    hex.truncate(12);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        assert_eq!(slug("My Café.Public", 40), "my-caf-public");
        assert_eq!(slug("--a--b--", 40), "a-b");
        assert_eq!(slug("日本", 40), "");
        assert_eq!(slug("abc-def", 4), "abc");
        assert_eq!(slug("abcdef", 4), "abcd");
    }

    #[test]
    fn fingerprints_keep_parts_apart() {
        assert_ne!(fingerprint(&["ab", "c"]), fingerprint(&["a", "bc"]));
        assert_ne!(fingerprint(&["a"]), fingerprint(&["a", ""]));
        assert_eq!(fingerprint(&["a", "b"]), fingerprint(&["a", "b"]));
        assert_eq!(fingerprint(&[]).len(), 12);
    }
}
