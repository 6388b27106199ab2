//! HTTP as an attacker writes it: every byte of the request as given, nothing added, corrected or refused on the way.

use crate::http::{Headers, Response};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// How long an answer may take; a server that says nothing has refused.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request, part by part.
#[derive(Clone, Debug)]
pub struct RawRequest {
    /// GET, PUT, or anything else.
    pub method: String,
    /// What stands before the question mark.
    pub path: String,
    /// Names and values as they stand in the URL, in order; empty: no question mark either.
    pub query: Vec<(String, String)>,
    /// `HTTP/1.1`
    pub version: String,
    /// In order; a name may come more than once.
    pub headers: Vec<(String, String)>,
    /// What follows the headers, framing included.
    pub body: Vec<u8>,
    /// Whether nothing can follow the body: the sending side of the connection is closed. Some servers take that for the
    /// end of the whole conversation.
    pub cut: bool,
}

impl RawRequest {
    /// The honest request for a URL.
    pub fn to(method: &str, url: &str, headers: &Headers, body: &[u8]) -> Self {
        let (_, rest) = url.split_once("://").expect("a URL has a scheme");
        let (host, rest) = rest.split_once('/').expect("a URL has a path");
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let pair = |text: &str| {
            let (name, value) = text.split_once('=').expect("a parameter has a value");
            (name.to_owned(), value.to_owned())
        };
        let own = headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        let host = ("host".to_owned(), host.to_owned());
        Self {
            method: method.to_owned(),
            path: format!("/{path}"),
            query: query.split('&').filter(|parameter| !parameter.is_empty()).map(pair).collect(),
            version: "HTTP/1.1".to_owned(),
            headers: std::iter::once(host).chain(own).collect(),
            body: body.to_vec(),
            cut: false,
        }
    }

    /// The place of a parameter in the query.
    pub fn parameter(&mut self, name: &str) -> &mut (String, String) {
        let found = self.query.iter_mut().find(|(other, _)| other == name);
        found.unwrap_or_else(|| panic!("the URL has no {name}"))
    }

    /// Adds a parameter at the end.
    pub fn ask(&mut self, name: &str, value: &str) {
        self.query.push((name.to_owned(), value.to_owned()));
    }

    /// The place of a header.
    pub fn header(&mut self, name: &str) -> &mut (String, String) {
        let found = self.headers.iter_mut().find(|(other, _)| other == name);
        found.unwrap_or_else(|| panic!("the request has no {name}"))
    }

    /// Adds a header at the end.
    pub fn say(&mut self, name: &str, value: &str) {
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// Leaves a header out.
    pub fn hush(&mut self, name: &str) {
        self.headers.retain(|(other, _)| other != name);
    }

    /// Sends the request on a connection of its own; `None` when the server hangs up or says nothing.
    pub fn send(&self, endpoint: &str) -> Option<Response> {
        let address = endpoint.strip_prefix("http://").expect("the stores of the tests speak HTTP");
        let mut stream = TcpStream::connect(address).expect("the store listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a time limit");
        // Either may fail because the server refused before it had read everything.
        let _ = stream.write_all(&self.bytes());
        if self.cut {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            answer.extend(buffer.iter().take(read));
        }
        parse(&answer)
    }

    fn bytes(&self) -> Vec<u8> {
        let query: Vec<String> = self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let mut text = format!("{} {}{mark}{} {}\r\n", self.method, self.path, query.join("&"), self.version);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("connection: close\r\n\r\n");
        [text.as_bytes(), &self.body].concat()
    }
}

/// The last answer in `bytes`: interim ones (100) come before it.
fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    let body = bytes.get(end + 4..)?;
    let mut lines = head.lines();
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    if status < 200 {
        return parse(body);
    }
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Some(Response { status, headers, body: body.to_vec() })
}

/// `body` in chunks, as `Transfer-Encoding: chunked` has it.
pub fn chunked(body: &[u8]) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in body.chunks(100) {
        framed.extend(format!("{:x}\r\n", chunk.len()).bytes());
        framed.extend(chunk);
        framed.extend(b"\r\n");
    }
    framed.extend(b"0\r\n\r\n");
    framed
}
