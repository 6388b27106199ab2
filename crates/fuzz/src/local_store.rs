//! The local store's handling of requests, over HTTP as everybody reaches it: every request is answered in time, none
//! fails inside, no task of the server panics, and nothing appears outside of the store's own files.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{Credentials, Method, Presign, Secret, Signer, Target, Timestamp};
use pg_storage_gateway::{LocalStore, Server};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::input::Input;

/// Longer than any of these small requests takes on a busy machine: what takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);
/// The directory is looked at after so many requests.
const LOOK_EVERY: usize = 64;
/// A thread of the server, for the hook that notices its panics.
const THREAD: &str = "fuzzed local store";
const SENTINEL: &str = "outside of the store";

/// A server in this process, for as long as that lives.
struct World {
    address: SocketAddr,
    outside: TempDir,
    root: PathBuf,
    own: BTreeSet<String>,
    cases: AtomicUsize,
    answered: [AtomicUsize; 6],
    _runtime: Runtime,
}

static PANICKED: AtomicBool = AtomicBool::new(false);

fn credentials() -> Credentials {
    Credentials {
        access_key_id: "FUZZED".to_owned(),
        secret_access_key: Secret::new("the secret of the fuzzed store"),
        session_token: None,
    }
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::open)
}

/// How many requests were answered with a status of each hundred; the first number is of those that got no answer.
pub fn answered() -> [usize; 6] {
    std::array::from_fn(|class| world().answered[class].load(Ordering::Relaxed))
}

impl World {
    fn open() -> Self {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name() == Some(THREAD) {
                PANICKED.store(true, Ordering::Release);
            }
            before(panic);
        }));
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("sentinel"), SENTINEL).unwrap();
        // Deep enough for some `..` to end where it is noticed.
        let root = outside.path().join("a/b/root");
        std::fs::create_dir_all(root.parent().unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(THREAD)
            .enable_all()
            .build()
            .unwrap();
        let config = LocalStore {
            root: root.clone(),
            region: "local".to_owned(),
            credentials: credentials(),
            access_log: None,
        };
        let (server, address) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            (Server::open(listener, config).await.unwrap(), address)
        });
        runtime.spawn(server.run(std::future::pending()));
        let own = names(&root);
        Self {
            address,
            outside,
            root,
            own,
            cases: AtomicUsize::new(0),
            answered: Default::default(),
            _runtime: runtime,
        }
    }

    /// Sends bytes and reads to the end of the answer.
    fn ask(&self, bytes: &[u8], last: bool) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        // A server that refuses early may close while this still writes.
        let _ = stream.write_all(bytes);
        if last {
            // Whoever sends half a request is gone after it.
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("no answer in {DEADLINE:?} to {:?}", String::from_utf8_lossy(bytes))
            }
            // A reset after an early refusal.
            _ => answer,
        }
    }

    /// Whether the answer is one, and the world as it was.
    fn check(&self, answer: &[u8], asked: &[u8]) {
        let shown =
            || format!("{:?} to {:?}", String::from_utf8_lossy(answer), String::from_utf8_lossy(asked));
        let code = [&b"HTTP/1.1 "[..], b"HTTP/1.0 "].iter().find_map(|version| answer.strip_prefix(*version));
        let class = code.and_then(|code| code.first()).map_or(0, |digit| digit.wrapping_sub(b'0'));
        self.answered[usize::from(class).min(5)].fetch_add(1, Ordering::Relaxed);
        assert!(answer.is_empty() || (1..=5).contains(&class), "no HTTP: {}", shown());
        let failed = class == 5 && !code.is_some_and(|code| code.starts_with(b"501"));
        assert!(!failed, "failed inside: {}", shown());
        let head = answer.split(|byte| *byte == b'\n').take_while(|line| *line != b"\r");
        for line in head {
            assert!(
                !line.to_ascii_lowercase().starts_with(b"x-injected"),
                "a header of the caller's: {}",
                shown()
            );
        }
        assert!(!PANICKED.load(Ordering::Acquire), "the server panicked: {}", shown());
        if self.cases.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_EVERY) {
            self.look();
            // Some input may have deleted it.
            self.ask(&signed(Method::Put, "bucket", "", &[], &[], b""), false);
        }
    }

    /// Nothing outside of the store, and inside what it makes itself: an index, and blobs named by hexadecimal digits.
    fn look(&self) {
        let outside = self.outside.path();
        assert_eq!(names(outside), ["a", "sentinel"].map(str::to_owned).into());
        assert_eq!(names(&outside.join("a")), ["b".to_owned()].into());
        assert_eq!(names(&outside.join("a/b")), ["root".to_owned()].into());
        assert_eq!(std::fs::read_to_string(outside.join("sentinel")).unwrap(), SENTINEL);
        let added: Vec<String> = names(&self.root).difference(&self.own).cloned().collect();
        assert!(added.iter().all(|name| name == "index.redb"), "{added:?}");
        let is_id = |name: &str| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let staged = names(&self.root.join("staging"));
        assert!(staged.iter().all(|name| is_id(name)), "{staged:?}");
        for shard in names(&self.root.join("data")) {
            assert!(shard.len() == 2 && shard.bytes().all(|byte| byte.is_ascii_hexdigit()), "{shard}");
            for blob in names(&self.root.join("data").join(&shard)) {
                assert!(is_id(&blob) && blob.starts_with(&shard), "{shard}/{blob}");
            }
        }
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// A request whose presigned URL is good, for whatever it asks.
fn signed(
    method: Method,
    bucket: &str,
    key: &str,
    headers: &[(&str, &str)],
    query: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let address = world_address();
    let endpoint = Endpoint::parse(&format!("http://{address}")).unwrap();
    let mut signer = Signer::new(Target::new(&endpoint, "local", true), credentials());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let request = Presign { method, bucket, key, expires: 300, headers, query };
    let url = signer.url(&request, Timestamp::from_unix(i64::try_from(now).unwrap()));
    let target = &url["http://".len() + address.to_string().len()..];
    written(method.as_str(), target, headers, body, &address)
}

fn world_address() -> SocketAddr {
    static ADDRESS: OnceLock<SocketAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| world().address)
}

fn written(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8], host: &SocketAddr) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [head.as_bytes(), body].concat()
}

/// Any bytes on a connection.
pub(crate) fn bytes(data: &[u8]) {
    let world = world();
    let answer = world.ask(data, true);
    world.check(&answer, data);
}

const METHODS: [Method; 5] = [Method::Get, Method::Put, Method::Head, Method::Delete, Method::Post];

const PARAMETERS: [&str; 32] = [
    "uploads",
    "uploadId",
    "partNumber",
    "list-type",
    "delete",
    "cors",
    "policy",
    "policyStatus",
    "lifecycle",
    "versioning",
    "versions",
    "versionId",
    "tagging",
    "acl",
    "publicAccessBlock",
    "location",
    "encryption",
    "prefix",
    "delimiter",
    "max-keys",
    "continuation-token",
    "start-after",
    "encoding-type",
    "marker",
    "key-marker",
    "upload-id-marker",
    "max-uploads",
    "max-parts",
    "part-number-marker",
    "response-content-disposition",
    "response-content-type",
    "x-id",
];

const NAMES: [&str; 24] = [
    "content-type",
    "content-md5",
    "content-encoding",
    "content-disposition",
    "cache-control",
    "range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "origin",
    "expect",
    "x-amz-copy-source",
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-range",
    "x-amz-metadata-directive",
    "x-amz-checksum-sha256",
    "x-amz-checksum-crc32",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-content-sha256",
    "x-amz-decoded-content-length",
    "x-amz-meta-a",
    "x-amz-acl",
    "x-amz-tagging",
    "x-amz-storage-class",
];

/// Requests that get past the gate, because their signature is good; one in eight has none, or one that was tampered
/// with.
pub(crate) fn requests(data: &[u8]) {
    let world = world();
    let mut input = Input::new(data);
    let (method, way) = (input.choice(&METHODS), input.byte() % 8);
    let bucket = if input.one_in(4) { input.text() } else { "bucket".to_owned() };
    let key = if input.one_in(4) { String::new() } else { input.text() };
    let query: Vec<(&str, String)> =
        (0..input.byte() % 4).map(|_| (input.choice(&PARAMETERS), input.text())).collect();
    let headers: Vec<(&str, String)> = (0..input.byte() % 4)
        .map(|_| {
            let value: String = input.text().chars().filter(|c| !c.is_control()).collect();
            (input.choice(&NAMES), value)
        })
        .collect();
    let pairs = |list: &[(&'static str, String)]| -> Vec<(&'static str, String)> {
        // Each name once, as in every request of ours.
        let mut seen = BTreeSet::new();
        list.iter().filter(|(name, _)| seen.insert(*name)).cloned().collect()
    };
    let (query, headers) = (pairs(&query), pairs(&headers));
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.trim())).collect();
    let mut request = signed(method, &bucket, &key, &headers, &query, input.rest());
    if way == 1 {
        let at = request.len() / 3;
        request[at] ^= 1;
    }
    let unsigned = String::from_utf8_lossy(&request).replacen("X-Amz-", "x-Bmz-", 9).into_bytes();
    if way == 2 {
        request = unsigned;
    }
    // What was spoilt may have another length now.
    let answer = world.ask(&request, matches!(way, 1 | 2));
    assert!(
        matches!(way, 1 | 2) || !answer.is_empty(),
        "no answer to {:?}",
        String::from_utf8_lossy(&request)
    );
    world.check(&answer, &request);
}
