//! The suite against Garage, an S3 server in its own right, started on loopback for each test.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pg_storage_core::presign::{Credentials, Secret};
use pg_storage_store::probe::{Capabilities, Support};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::Fixture;
use crate::scratch::Scratch;

/// How long a start may take on a busy machine; it usually takes less than half a second.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    fixture: Fixture,
    process: Child,
    _directory: Scratch,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn binary() -> PathBuf {
    let path = match std::env::var_os("PG_STORAGE_GARAGE") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set"))
            .join(".cache/pg_storage/garage-2.5.0/bin/garage"),
    };
    assert!(
        path.is_file(),
        "there is no Garage server at {}: run `make garage`, or set PG_STORAGE_GARAGE to its binary",
        path.display()
    );
    path
}

/// Three ports that were free a moment ago.
fn ports() -> [u16; 3] {
    [(); 3]
        .map(|()| TcpListener::bind("127.0.0.1:0").unwrap())
        .map(|listener| listener.local_addr().unwrap().port())
}

async fn start() -> Server {
    let binary = binary();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(server) = attempt(&binary, deadline).await {
            return server;
        }
        assert!(Instant::now() < deadline, "Garage does not start");
    }
}

/// One start; `None` if the process ended, as when somebody else was faster to take a port.
async fn attempt(binary: &PathBuf, deadline: Instant) -> Option<Server> {
    let directory = Scratch::new();
    let [s3, rpc, admin] = ports();
    let root = directory.path().display();
    let config = format!(
        "metadata_dir = \"{root}/meta\"\n\
         data_dir = \"{root}/data\"\n\
         db_engine = \"sqlite\"\n\
         replication_factor = 1\n\
         rpc_bind_addr = \"127.0.0.1:{rpc}\"\n\
         rpc_public_addr = \"127.0.0.1:{rpc}\"\n\
         rpc_secret = \"{}\"\n\
         [s3_api]\n\
         s3_region = \"garage\"\n\
         api_bind_addr = \"127.0.0.1:{s3}\"\n\
         [admin]\n\
         api_bind_addr = \"127.0.0.1:{admin}\"\n",
        "ab".repeat(32),
    );
    let file = directory.path().join("garage.toml");
    std::fs::write(&file, config).unwrap();
    let credentials = Credentials {
        access_key_id: format!("GK{}", "0c".repeat(12)),
        secret_access_key: Secret::new("5e".repeat(32)),
        session_token: None,
    };
    let process = Command::new(binary)
        .arg("-c")
        .arg(&file)
        .args(["server", "--single-node", "--default-access-key"])
        .env("GARAGE_DEFAULT_ACCESS_KEY", &credentials.access_key_id)
        .env("GARAGE_DEFAULT_SECRET_KEY", credentials.secret_access_key.expose())
        .stdin(Stdio::null())
        .stdout(File::create(directory.path().join("out")).unwrap())
        .stderr(File::create(directory.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let capabilities = Capabilities {
        checksum: Support::Enforced,
        length: Support::Enforced,
        create_only: Support::Ignored,
        head_checksum: true,
        copy_source_if_match: Support::Enforced,
        expiry: Support::Enforced,
        tampering: Support::Enforced,
        unsigned: Some(Support::Enforced),
        forms: Some(Support::Enforced),
        parts: Some(Support::Enforced),
        part_checksum: Support::Enforced,
    };
    let fixture = Fixture {
        url: format!("http://127.0.0.1:{s3}"),
        region: "garage",
        credentials,
        capabilities,
        has_policies: false,
    };
    let mut server = Server { fixture, process, _directory: directory };
    while Instant::now() < deadline {
        if server.process.try_wait().unwrap().is_some() {
            return None;
        }
        if answers(admin, "/health", "200").await {
            // Not a stranger at the port that was to be ours: it refuses who does not sign, as S3 does.
            return if answers(s3, "/", "403").await { Some(server) } else { None };
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

async fn answers(port: u16, path: &str, status: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer.split(' ').nth(1) == Some(status))
    };
    ask.await.unwrap_or(false)
}

crate::every_behaviour!(super::garage::start);
