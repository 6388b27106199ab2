//! One request on its connection, and the way on to the store.

use crate::http::header;
use std::io::{Read, Result, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A request that has been read, its caller, and the store's address.
pub(super) struct Exchange {
    caller: TcpStream,
    head: String,
    body: Vec<u8>,
    upstream: String,
    waiting: Arc<AtomicUsize>,
}

impl Exchange {
    /// Reads a request.
    pub(super) fn begin(mut caller: TcpStream, upstream: &str, waiting: &Arc<AtomicUsize>) -> Result<Self> {
        let (head, mut body) = read_head(&mut caller)?;
        if header(&head, "expect").is_some() {
            caller.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let length = header(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0usize);
        let mut rest = vec![0; length.saturating_sub(body.len())];
        caller.read_exact(&mut rest)?;
        body.extend(rest);
        Ok(Self { caller, head, body, upstream: upstream.to_owned(), waiting: waiting.clone() })
    }

    pub(super) fn head(&self) -> &str {
        &self.head
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(super) fn caller(&mut self) -> &mut TcpStream {
        &mut self.caller
    }

    /// Delivers the request to the store, as it came.
    fn deliver(&self) -> Result<TcpStream> {
        let mut store = TcpStream::connect(&self.upstream)?;
        // Hop-by-hop headers are not signed, so they may change: one request, then the end.
        let head: Vec<&str> = self
            .head
            .lines()
            .filter(|line| {
                let line = line.to_ascii_lowercase();
                !line.is_empty() && !line.starts_with("connection:") && !line.starts_with("expect:")
            })
            .collect();
        store.write_all(format!("{}\r\nconnection: close\r\n\r\n", head.join("\r\n")).as_bytes())?;
        store.write_all(&self.body)?;
        Ok(store)
    }

    /// Delivers the request and hands the answer on while it comes.
    pub(super) fn pass(&mut self) -> Result<()> {
        let mut store = self.deliver()?;
        std::io::copy(&mut store, &mut self.caller).map(drop)
    }

    /// Delivers the request and keeps the answer.
    pub(super) fn ask(&self) -> Result<Reply> {
        let mut answer = Vec::new();
        self.deliver()?.read_to_end(&mut answer)?;
        Ok(Reply(answer))
    }

    pub(super) fn answer(&mut self, reply: &Reply) -> Result<()> {
        self.caller.write_all(&reply.0)
    }

    pub(super) fn hang_up(&self) -> Result<()> {
        self.caller.shutdown(Shutdown::Both)
    }

    /// Waits until the caller gives up.
    pub(super) fn wait_for_end(&mut self) -> Result<()> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        let ended = std::io::copy(&mut self.caller, &mut std::io::sink());
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        ended.map(drop)
    }
}

/// An answer as it goes over the wire.
pub(super) struct Reply(Vec<u8>);

impl Reply {
    /// An XML document with a status such as `403 Forbidden`.
    pub(super) fn document(status: &str, document: &str) -> Self {
        let length = document.len();
        Self(
            format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/xml\r\nconnection: close\r\n\
                 content-length: {length}\r\n\r\n{document}"
            )
            .into_bytes(),
        )
    }

    /// The head and half of the body; half of the head where there is no body.
    pub(super) fn first_half(&self) -> &[u8] {
        let body = end_of_head(&self.0).filter(|end| self.0.len() > end + 1);
        let cut = body.map_or(self.0.len() / 2, |end| (end + self.0.len()) / 2);
        &self.0[..cut]
    }

    /// The answer in at most so many pieces.
    pub(super) fn pieces(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        self.0.chunks(self.0.len().div_ceil(count).max(1))
    }
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|start| start + 4)
}

/// Everything up to the empty line, and what came with it of the body.
fn read_head(stream: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = end_of_head(&bytes) {
            let body = bytes.split_off(end);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        match stream.read(&mut chunk)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend(&chunk[..read]),
        }
    }
}
