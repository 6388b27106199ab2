//! Content types as clients declare them, and the patterns a bucket allows.

use std::fmt;

use crate::error::{Invalid, Token, shown};

/// A declared content type: `type/subtype` with optional parameters (RFC 9110 section 8.3.1), names of RFC 6838
/// section 4.2, at most 255 bytes of printable ASCII.
///
/// It becomes a signed header, so it is held to what every store signs alike: no control character (hence no header can
/// be injected), no space at either end, no two in a row (SigV4 collapses them, some stores do not).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContentType {
    text: String,
    essence: String,
}

impl ContentType {
    /// The most bytes of a content type.
    pub const MAX_BYTES: usize = 255;

    /// Reads a content type.
    ///
    /// # Errors
    /// [`Token::InvalidContentType`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match essence_of(text) {
            Ok(essence) => Ok(Self { text: text.to_owned(), essence: essence.to_ascii_lowercase() }),
            Err(message) => Err(invalid(message, text)),
        }
    }

    /// The type as given, parameters included: what is signed, sent and stored.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `type/subtype` in lower case, without parameters: what is compared.
    pub fn essence(&self) -> &str {
        &self.essence
    }
}

impl fmt::Display for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn invalid(message: &str, text: &str) -> Invalid {
    Invalid::new(Token::InvalidContentType, message)
        .with_detail(format!("The content type is {}.", shown(text)))
        .with_hint("Give a type such as 'image/png' or 'text/plain; charset=utf-8'.")
}

fn essence_of(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() || text.len() > ContentType::MAX_BYTES {
        return Err("a content type has 1 to 255 bytes");
    }
    if !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("a content type consists of printable ASCII");
    }
    if text.starts_with(' ') || text.ends_with(' ') || text.contains("  ") {
        return Err("a content type has no spaces around it and no two in a row");
    }
    let (essence, parameters) = match text.split_once(';') {
        Some((essence, parameters)) => (essence.trim_end_matches(' '), Some(parameters)),
        None => (text, None),
    };
    match essence.split_once('/') {
        Some((main, sub)) if is_restricted_name(main) && is_restricted_name(sub) => {}
        _ => return Err("a content type is 'type/subtype'"),
    }
    match parameters {
        Some(parameters) if !are_parameters(parameters) => {
            Err("a parameter is 'name=value' or 'name=\"quoted value\"'")
        }
        _ => Ok(essence),
    }
}

/// RFC 6838 section 4.2: 1 to 127 characters, the first a letter or digit. It has no `*`, so no pattern is a type.
fn is_restricted_name(name: &str) -> bool {
    (1..=127).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

/// RFC 9110 section 5.6.6, after the first `;`. Stricter in one point: no empty parameters.
fn are_parameters(mut rest: &str) -> bool {
    loop {
        let Some((name, value)) = rest.trim_start_matches(' ').split_once('=') else { return false };
        if !is_token(name) {
            return false;
        }
        let after = match value.strip_prefix('"') {
            Some(quoted) => after_quoted(quoted),
            None => {
                let end = value.find([';', ' ']).unwrap_or(value.len());
                let (token, after) = value.split_at(end);
                is_token(token).then_some(after)
            }
        };
        match after.map(|after| after.trim_start_matches(' ')) {
            Some("") => return true,
            Some(after) => match after.strip_prefix(';') {
                Some(next) => rest = next,
                None => return false,
            },
            None => return false,
        }
    }
}

/// What follows the closing quote; `None` when there is no closing quote.
fn after_quoted(quoted: &str) -> Option<&str> {
    let mut escaped = false;
    for (index, byte) in quoted.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return quoted.get(index + 1..),
            _ => {}
        }
    }
    None
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// One entry of a bucket's allowed types: `*/*`, `type/*` or `type/subtype`, compared without case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// The main type in lower case; `None` is any.
    main: Option<String>,
    /// The subtype in lower case; `None` is any.
    sub: Option<String>,
}

impl Pattern {
    /// Reads an entry. A parameter is refused: the comparison ignores parameters, so it would promise too much.
    ///
    /// # Errors
    /// [`Token::InvalidContentType`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let part = |part: &str| match part {
            "*" => Some(None),
            name => is_restricted_name(name).then(|| Some(name.to_ascii_lowercase())),
        };
        match text.split_once('/').map(|(main, sub)| (part(main), part(sub))) {
            Some((Some(main), Some(sub))) if main.is_some() || sub.is_none() => Ok(Self { main, sub }),
            _ => Err(Invalid::new(
                Token::InvalidContentType,
                "an allowed type is '*/*', 'type/*' or 'type/subtype'",
            )
            .with_detail(format!("The entry is {}.", shown(text)))
            .with_hint("Give entries such as 'image/*' or 'application/pdf'.")),
        }
    }

    /// Whether a type falls under this entry.
    pub fn matches(&self, content_type: &ContentType) -> bool {
        let covers =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        content_type
            .essence()
            .split_once('/')
            .is_some_and(|(main, sub)| covers(&self.main, main) && covers(&self.sub, sub))
    }
}

/// Whether a bucket with these allowed types takes a file of this type. An empty list allows everything; an entry that is
/// not a pattern allows nothing.
pub fn allowed(content_type: &ContentType, patterns: &[String]) -> bool {
    patterns.is_empty()
        || patterns
            .iter()
            .any(|entry| Pattern::parse(entry).is_ok_and(|pattern| pattern.matches(content_type)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepted() {
        let longest = format!("text/plain; x={}", "a".repeat(255 - "text/plain; x=".len()));
        for (text, essence) in [
            ("image/png", "image/png"),
            ("Image/PNG", "image/png"),
            ("text/plain; charset=utf-8", "text/plain"),
            ("text/plain;charset=UTF-8", "text/plain"),
            ("text/plain ; charset=utf-8 ; format=flowed", "text/plain"),
            ("multipart/form-data; boundary=\"a b;c=\\\"d\\\"\"", "multipart/form-data"),
            ("text/plain; x=\"\"", "text/plain"),
            (
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
                "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            ),
            ("image/svg+xml", "image/svg+xml"),
            (longest.as_str(), "text/plain"),
        ] {
            let parsed = ContentType::parse(text).unwrap();
            assert_eq!((parsed.as_str(), parsed.essence()), (text, essence));
        }
    }

    #[test]
    fn refused() {
        let too_long = format!("text/{}", "a".repeat(251));
        let long_name = format!("text/{}", "a".repeat(128));
        for bad in [
            "",
            "/",
            "text",
            "text/",
            "/plain",
            "text/plain/x",
            "text plain",
            "*/*",
            "image/*",
            " text/plain",
            "text/plain ",
            "text/plain;",
            "text/plain; ",
            "text/plain;;a=b",
            "text/plain; charset",
            "text/plain; charset=",
            "text/plain; =x",
            "text/plain; a=b c",
            "text/plain; a=\"b",
            "text/plain; a=\"b\"c",
            "text/plain; a=b  ; c=d",
            "text/plain;\tcharset=x",
            "text/plain\r\nX-Evil: 1",
            "text/plain; a=\"\r\n\"",
            "text/plain; a=\"é\"",
            "text/pläin",
            "text/plain\0",
            "-a/b",
            "a/.b",
            "text/pl(ain",
            "text/plain, text/html",
            too_long.as_str(),
            long_name.as_str(),
        ] {
            assert_eq!(ContentType::parse(bad).unwrap_err().token, Token::InvalidContentType, "{bad:?}");
        }
    }

    fn allows(content_type: &str, patterns: &[&str]) -> bool {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        allowed(&ContentType::parse(content_type).unwrap(), &patterns)
    }

    #[test]
    fn allow_lists() {
        assert!(allows("image/png", &[]));
        assert!(allows("image/png", &["*/*"]));
        assert!(allows("image/png", &["image/*"]));
        assert!(allows("image/png", &["text/plain", "IMAGE/PNG"]));
        assert!(allows("Image/PNG; q=1", &["image/png"]));
        assert!(!allows("image/png", &["image/jpeg"]));
        assert!(!allows("image/png", &["text/*"]));
        assert!(!allows("imagex/png", &["image/*"]));
        assert!(!allows("image/png", &["", "*", "image", "image/", "png"]));
    }

    #[test]
    fn patterns() {
        for good in ["*/*", "image/*", "image/png", "Image/PNG", "application/vnd.a+b"] {
            assert!(Pattern::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "*", "image", "*/png", "image/p*", "image/*; q=1", "image/png ", "a/b/c", "é/x"] {
            assert_eq!(Pattern::parse(bad).unwrap_err().token, Token::InvalidContentType, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text: String) {
            let _ = Pattern::parse(&text);
            let _ = ContentType::parse(&text);
        }

        #[test]
        fn near_misses_are_answered(text in "[a/;= \"\\\\\r\né]{0,16}|text/plain;[a/;= \"\\\\\r\né]{0,16}") {
            if let Ok(parsed) = ContentType::parse(&text) {
                prop_assert!(parsed.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte)));
                prop_assert!(!parsed.as_str().contains("  "));
                prop_assert_eq!(parsed.as_str(), parsed.as_str().trim());
            }
        }
    }
}
