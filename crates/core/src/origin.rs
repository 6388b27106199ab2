//! Origins that browsers may upload and download from, as CORS rules name them.

use std::fmt;

use crate::endpoint::{parse_host, parse_port};
use crate::error::{Invalid, Token, shown};

/// One entry of `allowed_origins`: an origin in the spelling that browsers send, or one with a wildcard.
///
/// `https://app.example.com[:port]`, `https://*.example.com` (any subdomain), `http://localhost:*` (any port), or `*`
/// (anyone, for public buckets behind a CDN). Stores compare bytes, so the entry is kept as browsers spell it (RFC 6454
/// section 6.2): lower case, without the scheme's own port. S3 accepts one `*` per origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`Token::InvalidOrigin`].
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        normalise(text).map(Self).map_err(|message| {
            Invalid::new(Token::InvalidOrigin, message).with_detail(format!("The origin is {}.", shown(text))).with_hint(
                "Give scheme, host and port only, such as 'https://app.example.com', 'https://*.example.com' or 'http://localhost:*'; \
                 international names in their xn-- form.",
            )
        })
    }

    /// The origin.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How many entries one list may have. Buckets and tenants may share a physical bucket, whose CORS document S3 limits to 64 KB
/// (`PutBucketCors` in its reference).
pub const MAX_LISTED: usize = 100;

/// Whether these may be the entries of one list.
///
/// # Errors
/// [`Token::InvalidOrigin`].
pub fn check_list<'a>(mut origins: impl ExactSizeIterator<Item = &'a str>) -> Result<(), Invalid> {
    if origins.len() > MAX_LISTED {
        return Err(Invalid::new(Token::InvalidOrigin, "too many origins")
            .with_detail(format!("{} are listed; {MAX_LISTED} may be.", origins.len()))
            .with_hint("A wildcard such as 'https://*.example.com' stands for many."));
    }
    origins.try_for_each(|origin| Origin::parse(origin).map(drop))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn normalise(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok("*".to_owned());
    }
    let text = text.to_ascii_lowercase();
    let (scheme, default_port, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => ("https", 443, rest),
        (_, Some(rest)) => ("http", 80, rest),
        _ => return Err("an origin begins with 'https://' or 'http://'".to_owned()),
    };
    if rest.contains(['/', '?', '#', '@']) {
        return Err("an origin has no path, query, fragment or user, and no '/' at its end".to_owned());
    }
    // The colons of an IPv6 address are inside its brackets.
    let host_end = match rest.find(']') {
        Some(bracket) => bracket + 1,
        None => rest.find(':').unwrap_or(rest.len()),
    };
    let (host, after_host) = rest.split_at(host_end);
    let (wildcard, name) = match host.strip_prefix("*.") {
        Some(parent) => ("*.", parent),
        None => ("", host),
    };
    if parse_host(name)?.is_some() && !wildcard.is_empty() {
        return Err("an IP address has no subdomains".to_owned());
    }
    let port = match after_host {
        ":*" if wildcard.is_empty() => ":*".to_owned(),
        ":*" => return Err("an origin has at most one '*'".to_owned()),
        _ => match parse_port(after_host)? {
            Some(port) if port != default_port => format!(":{port}"),
            _ => String::new(),
        },
    };
    Ok(format!("{scheme}://{wildcard}{name}{port}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_has_an_end() {
        let of = |count: usize| check_list(std::iter::repeat_n("https://a.example", count));
        assert_eq!(of(0), Ok(()));
        assert_eq!(of(MAX_LISTED), Ok(()));
        assert_eq!(of(MAX_LISTED + 1).unwrap_err().token, Token::InvalidOrigin);
        assert!(check_list(["https://a.example", "nonsense"].into_iter()).is_err());
    }

    #[test]
    fn accepted_in_the_spelling_of_browsers() {
        for (given, kept) in [
            ("*", "*"),
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.com:443", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://localhost:80", "http://localhost"),
            ("http://example.com:443", "http://example.com:443"),
            ("https://*.example.com", "https://*.example.com"),
            ("https://*.example.com:8443", "https://*.example.com:8443"),
            ("http://localhost:*", "http://localhost:*"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://127.0.0.1:*", "http://127.0.0.1:*"),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ] {
            assert_eq!(Origin::parse(given).unwrap().as_str(), kept);
        }
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "null",
            "app.example.com",
            "ftp://a.com",
            "https://",
            "https://*",
            "https://*.",
            "https://*.*.com",
            "https://a.*.com",
            "https://*a.com",
            "https://*.a.com:*",
            "https://a.com/",
            "https://a.com/x",
            "https://a.com?x",
            "https://a.com#x",
            "https://u@a.com",
            "https://a.com:",
            "https://a.com:0",
            "https://a.com:99999",
            "https://a..com",
            "https://bücher.example",
            "https://a.com, https://b.com",
            "https://a.com ",
            "https://a.com\n",
            "http://*.127.0.0.1",
            "http://[::1",
            "http://[::1]x",
            "**",
            "http://[::1]]",
        ] {
            assert_eq!(Origin::parse(bad).unwrap_err().token, Token::InvalidOrigin, "{bad:?}");
        }
    }

    #[test]
    fn a_second_wildcard_is_called_by_its_name() {
        let refusal = Origin::parse("https://*.a.com:*").unwrap_err();
        assert_eq!(refusal.to_string(), "INVALID_ORIGIN: an origin has at most one '*'");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text: String) {
            let _ = Origin::parse(&text);
            let _ = Origin::parse(&format!("https://{text}"));
        }

        #[test]
        fn what_is_accepted_reads_back(text in "https?://[a-zA-Z0-9.:/*\\[\\]_-]{1,16}") {
            if let Ok(origin) = Origin::parse(&text) {
                prop_assert!(origin.as_str().matches('*').count() <= 1);
                prop_assert_eq!(Origin::parse(origin.as_str()), Ok(origin));
            }
        }
    }
}
