//! A server of one test: started on a free port, stopped when dropped; and the two ways to talk to it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Credentials, Region};
use hmac::{Hmac, KeyInit, Mac};
use pg_storage_core::digest::Digest;
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{self, Method, Presign, Secret, Signer, Target, Timestamp};
use tempfile::TempDir;

/// The only region of the tests' servers.
pub const REGION: &str = "local";

/// Where a server keeps its things, and the server itself.
pub struct Server {
    pub directory: TempDir,
    root: PathBuf,
    child: Child,
    address: String,
}

impl Server {
    /// Starts a server on a fresh directory.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        Self::start_in(directory, root, |command| command)
    }

    /// Starts a server on a given root, below limits that `prepare` sets.
    pub fn start_in(
        directory: TempDir,
        root: PathBuf,
        prepare: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        let (child, address) = spawn(&directory, &root, prepare);
        Self { directory, root, child, address }
    }

    /// Ends the server as a power failure would, and starts it again on the same directory.
    pub fn kill_and_restart(mut self) -> Self {
        self.kill();
        let (child, address) = spawn(&self.directory, &self.root, |command| command);
        self.child = child;
        self.address = address;
        self
    }

    /// `SIGKILL`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `SIGTERM`; whether the server ended with success.
    pub fn terminate(&mut self) -> bool {
        signal("TERM", self.child.id());
        self.child.wait().unwrap().success()
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn root(&self) -> &std::path::Path {
        &self.root
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("access.log")).unwrap()
    }

    fn keys(&self) -> (String, String) {
        let text = fs::read_to_string(self.directory.path().join("credentials")).unwrap();
        let mut lines = text.lines().map(str::to_owned);
        (lines.next().unwrap(), lines.next().unwrap())
    }

    /// The bytes of a request that an SDK client signs with this server's credentials, for sending them again spoilt.
    pub async fn record(&self, send: impl AsyncFnOnce(Client)) -> Vec<u8> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = self.client_of(&listener.local_addr().unwrap().to_string());
        let recorder = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
            while !is_complete(&bytes) {
                let read = stream.read(&mut piece).unwrap();
                bytes.extend_from_slice(&piece[..read]);
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            bytes
        });
        send(client).await;
        let sent = recorder.join().unwrap();
        // The recorder's address is signed; the connection is to be closed after the answer.
        let head = sent.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        [&sent[..head], b"Connection: close\r\n", &sent[head..]].concat()
    }

    /// An SDK client as applications use it.
    pub fn client(&self) -> Client {
        self.client_of(&self.address)
    }

    fn client_of(&self, address: &str) -> Client {
        let (id, secret) = self.keys();
        let config = aws_sdk_s3::Config::builder()
            .region(Region::new(REGION))
            .endpoint_url(format!("http://{address}"))
            .force_path_style(true)
            .credentials_provider(Credentials::new(id, secret, None, None, "test"))
            .retry_config(aws_sdk_s3::config::retry::RetryConfig::disabled())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Client::from_conf(config)
    }

    /// A client and a bucket named `bucket`.
    pub async fn with_bucket(&self) -> Client {
        let client = self.client();
        client.create_bucket().bucket("bucket").send().await.unwrap();
        client
    }

    /// A signer for this server with its credentials, or with another secret.
    pub fn signer(&self, region: &str, secret: Option<&str>) -> Signer {
        let (id, own) = self.keys();
        let endpoint = Endpoint::parse(&format!("http://{}", self.address)).unwrap();
        Signer::new(
            Target::new(&endpoint, region, true),
            presign::Credentials {
                access_key_id: id,
                secret_access_key: Secret::new(secret.unwrap_or(&own)),
                session_token: None,
            },
        )
    }

    /// A presigned URL for `bucket`, valid for a minute from now.
    pub fn presign(&self, method: Method, key: &str, headers: &[(&str, &str)]) -> String {
        self.presign_at(method, key, headers, 60, now())
    }

    /// A presigned URL with its own time and lifetime.
    pub fn presign_at(
        &self,
        method: Method,
        key: &str,
        headers: &[(&str, &str)],
        expires: u32,
        at: i64,
    ) -> String {
        let request = Presign { method, bucket: "bucket", key, expires, headers, query: &[] };
        self.signer(REGION, None).url(&request, Timestamp::from_unix(at))
    }

    /// Sends a request as it is. `url` is absolute or a path with its query.
    pub fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let target = url.strip_prefix("http://").map_or(url, |rest| &rest[rest.find('/').unwrap()..]);
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) && method != "GET" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send_bytes(&[head.as_bytes(), body].concat())
    }

    /// Sends a request signed in its `Authorization` header; `path` has no query and needs no encoding.
    pub fn send_signed(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let (id, _) = self.keys();
        let time = Timestamp::from_unix(now());
        let (date, day) = (time.amz_date(), &time.amz_date()[..8]);
        let mut all: Vec<(&str, &str)> = [("host", self.address()), ("x-amz-date", date)].into();
        all.extend(headers);
        all.sort_unstable();
        let names: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = all.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let payload = all.iter().find(|(name, _)| *name == "x-amz-content-sha256").unwrap().1;
        let request = format!("{method}\n{path}\n\n{lines}\n{names}\n{payload}");
        let scope = format!("{day}/{REGION}/s3/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", Digest::of(request.as_bytes()).to_hex());
        let signature = self.signature(day, &text);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}");
        let mut sent: Vec<(&str, &str)> = all.into_iter().filter(|(name, _)| *name != "host").collect();
        sent.push(("Authorization", &authorization));
        self.send(method, path, &sent, body)
    }

    /// The signature of a text under the key of a day, `YYYYMMDD`.
    pub fn signature(&self, day: &str, text: &str) -> String {
        let mut key = format!("AWS4{}", self.keys().1).into_bytes();
        for part in [day, REGION, "s3", "aws4_request", text] {
            let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
            mac.update(part.as_bytes());
            key = mac.finalize().into_bytes().to_vec();
        }
        key.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Sends bytes and reads the answer to its end.
    pub fn send_bytes(&self, bytes: &[u8]) -> Reply {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // A server that refuses early may close while this still writes; the answer is what counts.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Reply::parse(&answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(
    directory: &TempDir,
    root: &std::path::Path,
    prepare: impl FnOnce(&mut Command) -> &mut Command,
) -> (Child, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg_storage_local_store"));
    prepare(&mut command)
        .arg("--root")
        .arg(root)
        .args(["--listen", "127.0.0.1:0", "--region", REGION])
        .arg("--credentials")
        .arg(directory.path().join("credentials"))
        .arg("--access-log")
        .arg(directory.path().join("access.log"))
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").expect("the ready line").to_owned();
    (child, address)
}

/// Whether these are all the bytes of a request with a length.
fn is_complete(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    body.len() >= length.expect("a content-length").trim().parse().unwrap()
}

/// The shell's own `kill`: a bare machine has no other.
pub fn signal(name: &str, process_id: u32) {
    let kill = format!("kill -{name} {process_id}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

/// Seconds since 1970.
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a complete answer");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { status, headers, body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(present, _)| present == name).map(|(_, value)| value.as_str())
    }

    /// The S3 error code in the body.
    pub fn code(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let code = text.split("<Code>").nth(1).and_then(|rest| rest.split("</Code>").next());
        code.unwrap_or_default().to_owned()
    }

    /// Status and code, for assertions.
    pub fn verdict(&self) -> (u16, String) {
        (self.status, self.code())
    }
}

/// Status and code of an SDK error.
pub fn refusal<E, R>(error: aws_sdk_s3::error::SdkError<E, R>) -> (u16, String)
where
    E: aws_sdk_s3::error::ProvideErrorMetadata + std::fmt::Debug,
    R: std::fmt::Debug + Raw,
{
    let status = error.raw_response().map_or(0, Raw::status);
    let code = error.as_service_error().and_then(E::code);
    (status, code.unwrap_or_default().to_owned())
}

/// The status of an SDK's raw answer.
pub trait Raw {
    fn status(&self) -> u16;
}

impl Raw for aws_sdk_s3::config::http::HttpResponse {
    fn status(&self) -> u16 {
        self.status().as_u16()
    }
}

/// Base64 of the SHA-256 of the bytes, as `x-amz-checksum-sha256` has it.
pub fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_base64()
}
