//! Where a store listens: a URL that is known to be one, before anything is sent to it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use http::Uri;

/// `http[s]://host[:port][/base]`: no user, no query, no fragment.
///
/// The host is a DNS name or an IP address (IPv6 in brackets), kept in lower case. The port is dropped where it is the
/// scheme's own, because HTTP clients drop it from `Host`, which is signed. The base path consists of unreserved
/// characters: anything else has two spellings, and a signature covers one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    tls: bool,
    host: String,
    address: Option<IpAddr>,
    authority: String,
    base_path: String,
}

impl Endpoint {
    /// Reads an endpoint. A trailing slash is ignored.
    ///
    /// # Errors
    /// Says what is wrong without repeating the value, which might contain a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains(['#', '?']) {
            return Err("an endpoint has no query and no fragment".to_owned());
        }
        if text.contains('@') {
            return Err("an endpoint names no user and no password".to_owned());
        }
        let uri: Uri =
            text.parse().map_err(|_| "an endpoint is 'http[s]://host[:port][/base]'".to_owned())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("an endpoint begins with 'https://' or 'http://'".to_owned()),
        };
        let authority = uri.authority().ok_or_else(|| "an endpoint names a host".to_owned())?;
        let host = authority.host().to_ascii_lowercase();
        let address = parse_host(&host)?;
        let port = parse_port(authority.as_str().get(authority.host().len()..).unwrap_or_default())?;
        let default_port = if tls { 443 } else { 80 };
        let authority = match port {
            Some(port) if port != default_port => format!("{host}:{port}"),
            _ => host.clone(),
        };
        let base_path = uri.path().strip_suffix('/').unwrap_or(uri.path()).to_owned();
        check_base_path(&base_path)?;
        Ok(Self { tls, host, address, authority, base_path })
    }

    /// `"https"` or `"http"`.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Host and port as in the `Host` header: the scheme's own port is left out.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host in lower case, an IPv6 address with its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What stands between the host and the bucket: empty, or `/base` without a trailing slash.
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// Whether the host is an IP address. Such a host has no subdomains.
    pub fn is_ip_address(&self) -> bool {
        self.address.is_some()
    }

    /// Whether the host is this machine by its very name: 127.0.0.0/8, `::1` (also in IPv4-mapped form) or `localhost`.
    /// Nothing is resolved, so any other name is not loopback whatever DNS says.
    pub fn is_loopback(&self) -> bool {
        match self.address {
            Some(address) => address.to_canonical().is_loopback(),
            None => self.host == "localhost",
        }
    }

    /// Whether what is sent can be read on the way.
    pub fn is_plain_http(&self) -> bool {
        !self.tls
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority, self.base_path)
    }
}

/// The address, if the host is one; otherwise the host is a name made of DNS labels. Underscores are accepted because
/// container networks name hosts with them.
pub(crate) fn parse_host(host: &str) -> Result<Option<IpAddr>, String> {
    if let Some(bracketed) = host.strip_prefix('[') {
        let address = bracketed.strip_suffix(']').and_then(|address| address.parse::<Ipv6Addr>().ok());
        return address
            .map(|address| Some(address.into()))
            .ok_or_else(|| "the host is not an IPv6 address".to_owned());
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Some(address));
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.len() > 253 || !host.split('.').all(is_label) {
        return Err("the host is neither a DNS name nor an IP address".to_owned());
    }
    // Resolvers read "127.1" and "0x7f000001" as addresses; such a name would mean different things to different code.
    if host.rsplit('.').next().is_some_and(|last| last.starts_with(|first: char| first.is_ascii_digit())) {
        return Err("the host is an IP address in an unusual spelling".to_owned());
    }
    Ok(None)
}

/// The port of what follows the host in an authority: nothing, or `:` and 1 to 65535.
pub(crate) fn parse_port(after_host: &str) -> Result<Option<u16>, String> {
    let Some(digits) = after_host.strip_prefix(':') else {
        return if after_host.is_empty() {
            Ok(None)
        } else {
            Err("the port follows the host after ':'".to_owned())
        };
    };
    match digits.parse() {
        Ok(port @ 1..) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(port)),
        _ => Err("the port is a number from 1 to 65535".to_owned()),
    }
}

fn check_base_path(base_path: &str) -> Result<(), String> {
    for segment in base_path.split('/').skip(1) {
        if segment.is_empty() || segment == "." || segment == ".." {
            return Err("the base path has no empty segments, '.' or '..'".to_owned());
        }
        if !segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
            return Err("the base path consists of letters, digits and - . _ ~".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts() {
        for (text, scheme, host, authority, base_path) in [
            (
                "https://s3.eu-central-1.amazonaws.com",
                "https",
                "s3.eu-central-1.amazonaws.com",
                "s3.eu-central-1.amazonaws.com",
                "",
            ),
            ("https://S3.Example.COM:443/", "https", "s3.example.com", "s3.example.com", ""),
            ("http://minio:9000", "http", "minio", "minio:9000", ""),
            ("http://my_store:80", "http", "my_store", "my_store", ""),
            ("https://h:80", "https", "h", "h:80", ""),
            ("https://h/a/b.c~d_e-f/", "https", "h", "h", "/a/b.c~d_e-f"),
            ("http://[::1]:9000/s3", "http", "[::1]", "[::1]:9000", "/s3"),
            ("http://127.0.0.1:8080", "http", "127.0.0.1", "127.0.0.1:8080", ""),
        ] {
            let endpoint = Endpoint::parse(text).unwrap();
            let found = (endpoint.scheme(), endpoint.host(), endpoint.authority(), endpoint.base_path());
            assert_eq!(found, (scheme, host, authority, base_path), "{text}");
            assert_eq!(Endpoint::parse(&endpoint.to_string()).unwrap(), endpoint);
        }
    }

    #[test]
    fn refused() {
        for bad in [
            "",
            "s3.example.com",
            "//h",
            "/path",
            "ftp://h",
            "https://",
            "https:///x",
            "https://h:0",
            "https://h:65536",
            "https://h:",
            "https://h:+1",
            "https://h:9x",
            "https://h?x=1",
            "https://h/#f",
            "https://h#f",
            "https://u@h",
            "https://u:secret@h",
            "https://h/a//b",
            "https://h//",
            "https://h/../x",
            "https://h/./x",
            "https://h/a%20b",
            "https://h/a b",
            "https://h/ä",
            "https://ä.de",
            "https://-h",
            "https://h-.de",
            "https://h..de",
            "https://h.de.",
            "https://[::1",
            "https://[::g]",
            "https://[fe80::1%25eth0]",
            "http://127.1",
            "http://2130706433",
            "http://0x7f000001",
            "http://127.0.0.1.",
            "https://h\r\n",
            " https://h",
            "https://*.h",
        ] {
            let reason = Endpoint::parse(bad).unwrap_err();
            assert!(!reason.contains("secret"), "{bad}: {reason}");
        }
    }

    #[test]
    fn loopback() {
        for text in [
            "http://localhost",
            "http://LOCALHOST:1",
            "http://127.0.0.1",
            "http://127.8.9.1",
            "http://[::1]:1",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(Endpoint::parse(text).unwrap().is_loopback(), "{text}");
        }
        for text in [
            "http://localhost.example.com",
            "http://128.0.0.1",
            "http://[::2]",
            "http://0.0.0.0",
            "http://10.0.0.1",
        ] {
            assert!(!Endpoint::parse(text).unwrap().is_loopback(), "{text}");
        }
        assert!(Endpoint::parse("http://h").unwrap().is_plain_http());
        assert!(!Endpoint::parse("https://h").unwrap().is_plain_http());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text: String) {
            let _ = Endpoint::parse(&text);
            let _ = Endpoint::parse(&format!("https://{text}"));
        }

        #[test]
        fn what_is_accepted_reads_back(text in "https?://[a-zA-Z0-9.:/@%\\[\\]_-]{1,16}") {
            if let Ok(endpoint) = Endpoint::parse(&text) {
                prop_assert_eq!(Endpoint::parse(&endpoint.to_string()), Ok(endpoint));
            }
        }
    }
}
