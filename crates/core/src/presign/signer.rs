//! The query signer. One URL costs one SHA-256 of the canonical request and one HMAC with a key kept for the day.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::{self, Write as _};
use std::iter::once;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::encode::component;
use super::{Credentials, Method, Target, Timestamp};

type HmacSha256 = Hmac<Sha256>;

/// One request that a URL is to permit.
#[derive(Clone, Copy, Debug)]
pub struct Presign<'a> {
    /// What the URL permits.
    pub method: Method,
    /// The physical bucket.
    pub bucket: &'a str,
    /// The object's key, not encoded.
    pub key: &'a str,
    /// How long the URL lives, in seconds; see [`crate::lifetime::check_expiry`].
    pub expires: u32,
    /// Headers the client must send exactly, besides `host`, each name once, in any order; see
    /// [`crate::upload::signed_headers`].
    pub headers: &'a [(&'a str, &'a str)],
    /// Parameters such as `response-content-disposition` or `partNumber`, not encoded, in any order. Names that begin
    /// with `X-Amz-` are the signature's own.
    pub query: &'a [(&'a str, &'a str)],
}

/// Signs URLs for one store with one set of credentials.
///
/// Keeps the key of the day and its buffers: a batch of URLs allocates little but the URLs.
#[derive(Clone)]
pub struct Signer {
    target: Target,
    credentials: Credentials,
    /// `&X-Amz-Security-Token=…`, or empty.
    token_parameter: String,
    day: Option<DayKey>,
    buffers: Buffers,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("target", &self.target)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

/// Texts of one request, kept for their capacity. What is hashed is written in one piece each: the hash then reads it
/// where it stands, instead of part by part through its own buffer.
#[derive(Clone, Default)]
struct Buffers {
    host: String,
    header_names: String,
    canonical_request: String,
    string_to_sign: String,
}

impl Signer {
    /// A signer for URLs at `target`.
    pub fn new(target: Target, credentials: Credentials) -> Self {
        let mut token_parameter = String::new();
        if let Some(token) = &credentials.session_token {
            token_parameter.push_str("&X-Amz-Security-Token=");
            token_parameter.extend(component(token.expose()));
        }
        Self { target, credentials, token_parameter, day: None, buffers: Buffers::default() }
    }

    /// Where the URLs point.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The session token of temporary credentials.
    pub(super) fn session_token(&self) -> Option<&str> {
        self.credentials.session_token.as_ref().map(|token| token.expose())
    }

    /// The URL that permits `request` for `request.expires` seconds from `at`. The payload is not part of the signature
    /// (`UNSIGNED-PAYLOAD`); what binds it are signed headers.
    ///
    /// Whatever the inputs contain, the URL is one URL: keys and parameters are percent-encoded, header values are only
    /// hashed, with white space and control characters collapsed, so that none can pass for a second header.
    pub fn url(&mut self, request: &Presign<'_>, at: Timestamp) -> String {
        const SIGNATURE: &str = "&X-Amz-Signature=";
        let Buffers { host, header_names, canonical_request, string_to_sign } = &mut self.buffers;
        for buffer in [&mut *host, header_names, canonical_request, string_to_sign] {
            buffer.clear();
        }
        let day = key_of_the_day(&mut self.day, &self.target, &self.credentials, at);

        canonical_request.push_str(request.method.as_str());
        canonical_request.push('\n');
        let path_start = canonical_request.len();
        self.target.locate(request.bucket, Some(request.key), host, canonical_request);
        let path_end = canonical_request.len();
        canonical_request.push('\n');
        let query_start = canonical_request.len();
        let headers = in_order(request.headers, by_lower_case_name);
        let (before_host, after_host) = around(&headers, |(name, _)| lower_case(name).lt(*b"host"));
        let headers = || {
            before_host.iter().copied().chain(once(("host", host.as_str()))).chain(after_host.iter().copied())
        };
        write_names(header_names, headers());
        write_query(canonical_request, request, day, at, &self.token_parameter, header_names);
        let query_end = canonical_request.len();
        canonical_request.push('\n');
        write_lines(canonical_request, headers());
        canonical_request.push('\n');
        canonical_request.push_str(header_names);
        canonical_request.push_str("\nUNSIGNED-PAYLOAD");

        let mut digest = [0; 64];
        let digest = hex(&Sha256::digest(&*canonical_request), &mut digest);
        for part in ["AWS4-HMAC-SHA256\n", at.amz_date(), "\n", &day.scope, "\n", digest] {
            string_to_sign.push_str(part);
        }
        let mut signature = [0; 64];
        let signature = day.sign(string_to_sign, &mut signature);

        // Both ranges were measured on this very text, between whole characters.
        let path = canonical_request.get(path_start..path_end).unwrap_or_default();
        let query = canonical_request.get(query_start..query_end).unwrap_or_default();
        let scheme = self.target.scheme();
        let length =
            scheme.len() + 3 + host.len() + path.len() + 1 + query.len() + SIGNATURE.len() + signature.len();
        let mut url = String::with_capacity(length);
        for part in [scheme, "://", host, path, "?", query, SIGNATURE, signature] {
            url.push_str(part);
        }
        url
    }

    /// The key of the day of `at`, for signatures over something else than a URL.
    pub(super) fn day_key(&mut self, at: Timestamp) -> &DayKey {
        key_of_the_day(&mut self.day, &self.target, &self.credentials, at)
    }
}

/// What depends on the UTC day only.
#[derive(Clone)]
pub(super) struct DayKey {
    /// `{day}/{region}/s3/aws4_request`.
    pub(super) scope: String,
    /// `{access key id}/{scope}`.
    pub(super) credential: String,
    /// The first parameters of every URL's query, up to and including `X-Amz-Date=`.
    parameters: String,
    /// The keyed state; cloning it saves hashing the padded key, which is half the cost of a short HMAC.
    mac: HmacSha256,
}

impl DayKey {
    fn derive(target: &Target, credentials: &Credentials, day: &str) -> Self {
        let scope = format!("{day}/{}/s3/aws4_request", target.region());
        let credential = format!("{}/{scope}", credentials.access_key_id);
        let parameters = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date=",
            component(&credential)
        );
        let mac = keyed(&signing_key(credentials.secret_access_key.expose(), day, target.region(), "s3"));
        Self { scope, credential, parameters, mac }
    }

    /// The signature of a text, in hexadecimal.
    pub(super) fn sign<'b>(&self, text: &str, hexadecimal: &'b mut [u8; 64]) -> &'b str {
        let mut mac = self.mac.clone();
        mac.update(text.as_bytes());
        hex(&mac.finalize().into_bytes(), hexadecimal)
    }
}

fn key_of_the_day<'a>(
    kept: &'a mut Option<DayKey>,
    target: &Target,
    credentials: &Credentials,
    at: Timestamp,
) -> &'a DayKey {
    let day = at.day();
    if kept.as_ref().is_some_and(|kept| !kept.scope.starts_with(day)) {
        *kept = None;
    }
    kept.get_or_insert_with(|| DayKey::derive(target, credentials, day))
}

/// SigV4's key derivation.
fn signing_key(secret: &str, day: &str, region: &str, service: &str) -> Vec<u8> {
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [day, region, service, "aws4_request"] {
        let mut mac = keyed(&key);
        mac.update(part.as_bytes());
        key = mac.finalize().into_bytes().to_vec();
    }
    key
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("a key of any length")
}

#[expect(clippy::expect_used, reason = "32 bytes are 64 hexadecimal digits")]
fn hex<'b>(bytes: &[u8], buffer: &'b mut [u8; 64]) -> &'b str {
    base16ct::lower::encode_str(bytes, buffer).expect("room for 64 digits")
}

/// A name and a value, of a header or of a parameter.
type Pair<'a> = (&'a str, &'a str);

/// The pairs sorted, without copying those that are sorted already.
fn in_order<'a, 'b>(
    pairs: &'b [Pair<'a>],
    compare: fn(&Pair<'_>, &Pair<'_>) -> Ordering,
) -> Cow<'b, [Pair<'a>]> {
    if pairs.is_sorted_by(|one, two| compare(one, two).is_le()) {
        return Cow::Borrowed(pairs);
    }
    let mut sorted = pairs.to_vec();
    sorted.sort_by(compare);
    Cow::Owned(sorted)
}

/// Sorted pairs in two parts: those that come before something, and the rest.
fn around<'a, 'b>(
    sorted: &'b [Pair<'a>],
    comes_before: impl FnMut(&Pair<'a>) -> bool,
) -> (&'b [Pair<'a>], &'b [Pair<'a>]) {
    // A partition point is at most the length.
    sorted.split_at(sorted.partition_point(comes_before))
}

/// The canonical query is sorted by encoded name, then by encoded value.
fn by_encoded_name(one: &Pair<'_>, two: &Pair<'_>) -> Ordering {
    let bytes = |text| component(text).flat_map(str::bytes);
    bytes(one.0).cmp(bytes(two.0)).then_with(|| bytes(one.1).cmp(bytes(two.1)))
}

fn by_lower_case_name(one: &Pair<'_>, two: &Pair<'_>) -> Ordering {
    lower_case(one.0).cmp(lower_case(two.0))
}

fn lower_case(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().map(|byte| byte.to_ascii_lowercase())
}

/// Writes the canonical query: the signature's own parameters among the request's.
fn write_query(
    query: &mut String,
    request: &Presign<'_>,
    day: &DayKey,
    at: Timestamp,
    token_parameter: &str,
    header_names: &str,
) {
    let parameters = in_order(request.query, by_encoded_name);
    let (before, after) =
        around(&parameters, |(name, _)| component(name).flat_map(str::bytes).lt(*b"X-Amz-"));
    for (name, value) in before {
        write_parameter(query, name, value);
        query.push('&');
    }
    query.push_str(&day.parameters);
    query.push_str(at.amz_date());
    // Writing to a String does not fail.
    let _ = write!(query, "&X-Amz-Expires={}", request.expires);
    query.push_str(token_parameter);
    query.push_str("&X-Amz-SignedHeaders=");
    query.extend(component(header_names));
    for (name, value) in after {
        query.push('&');
        write_parameter(query, name, value);
    }
}

fn write_parameter(query: &mut String, name: &str, value: &str) {
    query.extend(component(name));
    query.push('=');
    query.extend(component(value));
}

/// Writes the list of the headers' names.
fn write_names<'a>(names: &mut String, headers: impl Iterator<Item = Pair<'a>>) {
    for (name, _) in headers {
        if !names.is_empty() {
            names.push(';');
        }
        push_lower_case(names, name);
    }
}

/// Writes the canonical headers.
fn write_lines<'a>(lines: &mut String, headers: impl Iterator<Item = Pair<'a>>) {
    for (name, value) in headers {
        push_lower_case(lines, name);
        lines.push(':');
        write_trimmed(lines, value);
        lines.push('\n');
    }
}

/// Nearly every name is in lower case already. Looking at the name before copying it is cheaper than folding the copy,
/// which would wait for the bytes just written.
fn push_lower_case(out: &mut String, name: &str) {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        out.extend(name.chars().map(|character| character.to_ascii_lowercase()));
    } else {
        out.push_str(name);
    }
}

/// SigV4's `Trimall`: no white space at either end, single spaces within. Control characters count as white space, which
/// no header that can be sent contains.
fn write_trimmed(line: &mut String, value: &str) {
    if is_trimmed(value) {
        line.push_str(value);
        return;
    }
    let separates = |character: char| character == ' ' || character.is_ascii_control();
    let mut words = value.split(separates).filter(|word| !word.is_empty());
    if let Some(first) = words.next() {
        line.push_str(first);
    }
    for word in words {
        line.push(' ');
        line.push_str(word);
    }
}

/// Nearly every value is; looking is cheaper than taking it apart.
fn is_trimmed(value: &str) -> bool {
    let mut previous = b' ';
    for byte in value.bytes() {
        if byte.is_ascii_control() || (byte == b' ' && previous == b' ') {
            return false;
        }
        previous = byte;
    }
    previous != b' '
}

#[cfg(test)]
#[path = "signer_tests.rs"]
mod tests;
