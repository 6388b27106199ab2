//! A loopback HTTP server that answers as a test scripts it, down to connections that break or fall silent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{Credentials, Secret};
use pg_storage_store::{CredentialSource, S3Store, StoreConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request as it arrived; header names in lower case.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    /// The head byte for byte, up to and including the empty line.
    pub head: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    /// `PUT /bucket?policy`: method, path and the sub-resource if there is one.
    pub fn line(&self) -> String {
        let resource = self.query.split('&').find(|pair| {
            let name = pair.trim_end_matches('=');
            !name.contains('=') && !name.is_empty()
        });
        match resource {
            Some(name) => format!("{} {}?{}", self.method, self.path, name.trim_end_matches('=')),
            None => format!("{} {}", self.method, self.path),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What happens to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It stays open for the next request.
    Keep,
    /// It is closed without a word, as servers do with idle connections.
    Close,
    /// It stays open and silent.
    Hang,
    /// It is silent from the start: there is no answer at all.
    Mute,
    /// No length is announced, and the body is sent again and again until the client leaves.
    Flood,
}

#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<usize>,
    after: After,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), length: None, after: After::Keep }
    }

    /// S3's error document.
    pub fn error(status: u16, code: &str) -> Self {
        Self::new(status).header("x-amz-request-id", "REQ-42").body(format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>about {code}</Message></Error>"
        ))
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Announces another length than the body has.
    pub fn announce(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    pub fn then(mut self, after: After) -> Self {
        self.after = after;
        self
    }
}

/// The server; it ends with the test's runtime.
pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    flooded: Arc<Mutex<usize>>,
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

impl Server {
    pub async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let flooded = Arc::new(Mutex::new(0));
        let handler: Arc<Handler> = Arc::new(handler);
        let (log, flood) = (Arc::clone(&requests), Arc::clone(&flooded));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&handler), Arc::clone(&log), Arc::clone(&flood)));
            }
        });
        Self { url, requests, flooded }
    }

    /// Everything that has arrived so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Forgets what has arrived so far.
    pub fn forget(&self) {
        self.requests.lock().unwrap().clear();
    }

    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }

    /// How many bytes of a flood the client took.
    pub fn flooded(&self) -> usize {
        *self.flooded.lock().unwrap()
    }

    /// A client with ample time and three attempts.
    pub fn store(&self) -> S3Store {
        S3Store::connect(config(&self.url)).unwrap()
    }
}

pub const ACCESS_KEY: &str = "AKIAEXAMPLE";
pub const SECRET_KEY: &str = "wJalrXUtnFEMI-secret";
pub const SESSION_TOKEN: &str = "FwoGZXIvYXdzE-token";

pub fn config(url: &str) -> StoreConfig {
    StoreConfig {
        endpoint: Endpoint::parse(url).unwrap(),
        region: "us-east-1".to_owned(),
        path_style: true,
        credentials: CredentialSource::Static(Credentials {
            access_key_id: ACCESS_KEY.to_owned(),
            secret_access_key: Secret::new(SECRET_KEY),
            session_token: Some(Secret::new(SESSION_TOKEN)),
        }),
        connect_timeout: Duration::from_secs(5),
        request_timeout: Duration::from_secs(20),
        max_attempts: 3,
    }
}

async fn serve(
    mut stream: TcpStream,
    handler: Arc<Handler>,
    log: Arc<Mutex<Vec<Request>>>,
    flood: Arc<Mutex<usize>>,
) {
    let mut buffer = Vec::new();
    while let Some(request) = receive(&mut stream, &mut buffer).await {
        let head = request.method == "HEAD";
        let reply = handler(&request);
        log.lock().unwrap().push(request);
        if reply.after == After::Mute {
            std::future::pending::<()>().await;
        }
        let length = reply.length.unwrap_or(reply.body.len());
        let framing = match reply.after {
            After::Flood => "connection: close".to_owned(),
            _ => format!("content-length: {length}"),
        };
        let mut text = format!("HTTP/1.1 {} Canned\r\n{framing}\r\n", reply.status);
        for (name, value) in &reply.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        if !head {
            bytes.extend_from_slice(&reply.body);
        }
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        match reply.after {
            After::Keep => {}
            After::Close => return,
            After::Hang | After::Mute => std::future::pending().await,
            After::Flood => loop {
                if stream.write_all(&reply.body).await.is_err() {
                    return;
                }
                *flood.lock().unwrap() += reply.body.len();
            },
        }
    }
}

async fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Request> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let mut lines = head.split("\r\n");
    let mut start = lines.next()?.split(' ');
    let method = start.next()?.to_owned();
    let target = start.next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // The SDK writes a bucket with and without a closing slash.
    let path = if path == "/" { path } else { path.trim_end_matches('/') };
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer.drain(..length).collect();
    Some(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        head: head.clone(),
        headers,
        body,
    })
}
