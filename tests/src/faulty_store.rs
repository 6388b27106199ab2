//! A way to a store on which a test can have requests refused, delayed, left unanswered, or counted.

use crate::eventually;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// What happens to requests whose first line holds the fault's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered 403 AccessDenied, without a question to the store.
    Denied,
    /// Passed on after this long.
    Slow(Duration),
    /// Never answered: the request waits until its caller gives up.
    Silent,
}

/// A proxy in front of a store, one request to a connection. The signatures stay good, because they name the proxy.
pub struct FaultyStore {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: String,
    faults: Mutex<Vec<(String, Fault)>>,
    lines: Mutex<Vec<String>>,
    waiting: AtomicUsize,
    closing: AtomicBool,
}

impl FaultyStore {
    /// Opens a free port in front of `endpoint`, `http://127.0.0.1:port`. Without faults it changes nothing.
    pub fn before(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            upstream: endpoint.trim_start_matches("http://").to_owned(),
            faults: Mutex::new(Vec::new()),
            lines: Mutex::new(Vec::new()),
            waiting: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    if shared.closing.load(Ordering::Acquire) {
                        break;
                    }
                    let shared = shared.clone();
                    // A connection that breaks is its caller's business.
                    std::thread::spawn(move || shared.serve(stream).unwrap_or_default());
                }
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// `http://127.0.0.1:port`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, requests whose first line (`PUT /bucket?cors HTTP/1.1`) holds `text` have this fault.
    pub fn set(&self, text: &str, fault: Fault) {
        lock(&self.shared.faults).push((text.to_owned(), fault));
    }

    /// From now on, every request is passed on at once.
    pub fn heal(&self) {
        lock(&self.shared.faults).clear();
    }

    /// The first lines of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.shared.lines).clone()
    }

    /// How many callers wait for an answer that will never come.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Waits until somebody waits.
    pub fn wait_for_caller(&self) {
        eventually("a request that gets no answer", Duration::from_secs(30), || {
            (self.waiting() > 0).then_some(())
        });
    }

    /// Waits until everybody has given up and closed the connection.
    pub fn wait_for_silence(&self) {
        eventually("the end of the abandoned requests", Duration::from_secs(30), || {
            (self.waiting() == 0).then_some(())
        });
    }
}

impl Drop for FaultyStore {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        // Wakes the thread out of accept; if the connection fails, the listener is gone and so is the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("the accepting thread does not panic");
        }
    }
}

impl Shared {
    fn serve(&self, mut caller: TcpStream) -> std::io::Result<()> {
        let (head, mut body) = read_head(&mut caller)?;
        let line = head.lines().next().unwrap_or_default().to_owned();
        let fault =
            lock(&self.faults).iter().find(|(text, _)| line.contains(text.as_str())).map(|(_, fault)| *fault);
        lock(&self.lines).push(line);
        let length = header(&head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0usize);
        if header(&head, "expect").is_some() {
            caller.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut rest = vec![0; length.saturating_sub(body.len())];
        caller.read_exact(&mut rest)?;
        body.extend(rest);
        match fault {
            Some(Fault::Denied) => return caller.write_all(DENIED.as_bytes()),
            Some(Fault::Slow(time)) => std::thread::sleep(time),
            Some(Fault::Silent) => {
                self.waiting.fetch_add(1, Ordering::AcqRel);
                let ended = std::io::copy(&mut caller, &mut std::io::sink());
                self.waiting.fetch_sub(1, Ordering::AcqRel);
                return ended.map(drop);
            }
            None => {}
        }
        let mut store = TcpStream::connect(&self.upstream)?;
        // Hop-by-hop headers are not signed, so they may change: one request, then the end.
        let head: Vec<&str> = head
            .lines()
            .filter(|line| {
                let line = line.to_ascii_lowercase();
                !line.is_empty() && !line.starts_with("connection:") && !line.starts_with("expect:")
            })
            .collect();
        store.write_all(format!("{}\r\nconnection: close\r\n\r\n", head.join("\r\n")).as_bytes())?;
        store.write_all(&body)?;
        std::io::copy(&mut store, &mut caller)?;
        Ok(())
    }
}

const DENIED: &str = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/xml\r\nconnection: close\r\n\
content-length: 85\r\n\r\n<Error><Code>AccessDenied</Code><Message>not with these credentials</Message></Error>";

/// Everything up to the empty line, and what came with it of the body.
fn read_head(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        match stream.read(&mut chunk)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend(&chunk[..read]),
        }
    }
}

fn header<'head>(head: &'head str, name: &str) -> Option<&'head str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
