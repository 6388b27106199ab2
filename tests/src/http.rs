//! A small HTTP client for presigned URLs: it sends exactly the headers it is given and follows nothing.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;
use ureq::http::Request;
use ureq::{Agent, SendBody};

/// Header names in lower case with their values. A test leaves one out with `remove` and alters one with `insert`.
pub type Headers = BTreeMap<String, String>;

/// What came back, whatever the status.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header names in lower case; of several values the last.
    pub headers: Headers,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text, for error documents and assertions.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Uploads `body`. A content-length among the headers is sent as it stands; without one, the true length is sent.
pub fn put(url: &str, headers: &Headers, body: &[u8]) -> Response {
    send(
        "PUT",
        url,
        headers,
        SendBody::from_owned_reader(std::io::Cursor::new(body.to_vec())),
        Some(body.len()),
    )
}

/// Uploads `body`, or nothing when the server hangs up before it has read all of it, as some do that refuse.
pub fn try_put(url: &str, headers: &Headers, body: &[u8]) -> Option<Response> {
    let reader = SendBody::from_owned_reader(std::io::Cursor::new(body.to_vec()));
    try_send("PUT", url, headers, reader, Some(body.len())).ok()
}

/// Uploads `body` in chunks, so that no content-length is sent at all.
pub fn put_chunked(url: &str, headers: &Headers, body: &[u8]) -> Response {
    send("PUT", url, headers, SendBody::from_owned_reader(std::io::Cursor::new(body.to_vec())), None)
}

/// Uploads `body` in chunks, or nothing when the server hangs up before it has read all of it.
pub fn try_put_chunked(url: &str, headers: &Headers, body: &[u8]) -> Option<Response> {
    let reader = SendBody::from_owned_reader(std::io::Cursor::new(body.to_vec()));
    try_send("PUT", url, headers, reader, None).ok()
}

/// Downloads.
pub fn get(url: &str) -> Response {
    request("GET", url, &Headers::new())
}

/// Downloads, or nothing when nobody answers: for waiting until a server is there.
pub fn try_get(url: &str) -> Option<Response> {
    try_send("GET", url, &Headers::new(), SendBody::none(), None).ok()
}

/// Any method with a body.
pub fn request_with_body(method: &str, url: &str, headers: &Headers, body: &[u8]) -> Response {
    let reader = SendBody::from_owned_reader(std::io::Cursor::new(body.to_vec()));
    send(method, url, headers, reader, Some(body.len()))
}

/// Any method without a body: HEAD, DELETE, OPTIONS, or GET with headers.
pub fn request(method: &str, url: &str, headers: &Headers) -> Response {
    send(method, url, headers, SendBody::none(), None)
}

/// How long a client waits for a whole answer, unless it says otherwise.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a client of a store that fails does: it gives up after `limit`, and an answer that broke off is none.
pub fn try_request(method: &str, url: &str, headers: &Headers, limit: Duration) -> Option<Response> {
    exchange(method, url, headers, SendBody::none(), None, limit).ok()
}

/// Uploads `body`, which may keep its server waiting, giving up after `limit`.
pub fn try_upload(
    url: &str,
    headers: &Headers,
    body: impl Read + Send + 'static,
    length: usize,
    limit: Duration,
) -> Option<Response> {
    exchange("PUT", url, headers, SendBody::from_owned_reader(body), Some(length), limit).ok()
}

/// The value of a header in the head of a request.
pub(crate) fn header<'head>(head: &'head str, name: &str) -> Option<&'head str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn send(method: &str, url: &str, headers: &Headers, body: SendBody<'_>, length: Option<usize>) -> Response {
    try_send(method, url, headers, body, length)
        .unwrap_or_else(|error| panic!("{method} got no answer: {error}"))
}

fn try_send(
    method: &str,
    url: &str,
    headers: &Headers,
    body: SendBody<'_>,
    length: Option<usize>,
) -> Result<Response, ureq::Error> {
    exchange(method, url, headers, body, length, PATIENCE)
}

fn exchange(
    method: &str,
    url: &str,
    headers: &Headers,
    body: SendBody<'_>,
    length: Option<usize>,
    limit: Duration,
) -> Result<Response, ureq::Error> {
    let agent: Agent = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .allow_non_standard_methods(true)
        .timeout_global(Some(limit))
        .build()
        .into();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    if let Some(length) = length.filter(|_| !headers.contains_key("content-length")) {
        request = request.header("content-length", length);
    }
    let request = request.body(body).expect("a valid request");
    let mut response = agent.run(request)?;
    Ok(Response {
        status: response.status().as_u16(),
        headers: response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect(),
        body: response.body_mut().with_config().limit(u64::MAX).read_to_vec()?,
    })
}
