//! The local store's own binary, over a directory of its own, with a log of the requests it answered.

use crate::daemon::Daemon;
use crate::{StoreAccess, choice, environment, eventually, process, scratch};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

const REGION: &str = "local";

/// A request as the store saw it, from its access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// GET, PUT, …
    pub method: String,
    /// `/bucket/key`, percent-encoded as it was sent.
    pub path: String,
    /// What it was answered.
    pub status: u16,
    /// The S3 operation, such as `CreateBucket`.
    pub operation: String,
}

/// A running local store; it ends with the value, or with the test process.
pub struct LocalStore {
    daemon: Daemon,
    directory: PathBuf,
    access: StoreAccess,
}

impl LocalStore {
    /// Starts a store over a new directory, on a free port, with credentials of its own making.
    pub fn start() -> Self {
        choice::stays("its store is a process of its own");
        let directory = scratch();
        let credentials = pg_storage_gateway::load_or_create_credentials(&directory.join("credentials"))
            .expect("make credentials for the local store");
        let (daemon, endpoint) = spawn(&directory, "127.0.0.1:0", None);
        let access = StoreAccess {
            endpoint,
            region: REGION.to_owned(),
            access_key_id: credentials.access_key_id.clone(),
            secret_access_key: credentials.secret_access_key.expose().to_owned(),
        };
        Self { daemon, directory, access }
    }

    /// The one store that the tests of a binary share; buckets are told apart by their names.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<LocalStore> = OnceLock::new();
        choice::stays("it counts what its store is asked, or replaces it");
        SHARED.get_or_init(Self::start)
    }

    /// How to reach it.
    pub fn access(&self) -> &StoreAccess {
        &self.access
    }

    /// The directory that holds the bytes.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Every request answered so far, in the order of the answers.
    pub fn requests(&self) -> Vec<Request> {
        let log = fs::read_to_string(self.directory.join("access.log")).unwrap_or_default();
        log.lines().map(parse_request).collect()
    }

    /// How many requests of an S3 operation named a path that starts with `prefix` and succeeded.
    pub fn succeeded(&self, operation: &str, prefix: &str) -> usize {
        let counts = |request: &&Request| {
            request.operation == operation && request.path.starts_with(prefix) && request.status < 300
        };
        self.requests().iter().filter(counts).count()
    }

    /// Ends the process with a signal (`TERM`, `KILL`) and starts it again over the same directory and port.
    pub fn restart(&mut self, signal: &str) {
        self.stop(signal);
        self.start_again();
    }

    /// Starts the process after [`LocalStore::stop`], over the same directory and port.
    pub fn start_again(&mut self) {
        self.start_with_clock(None);
    }

    /// Starts the process after [`LocalStore::stop`] with a clock that differs from ours, as in `+20m` or `-20m`.
    pub fn start_skewed(&mut self, offset: &str) {
        self.start_with_clock(Some(offset));
    }

    fn start_with_clock(&mut self, offset: Option<&str>) {
        let address = self.access.endpoint.trim_start_matches("http://").to_owned();
        (self.daemon, _) = spawn(&self.directory, &address, offset);
    }

    /// Stops the process in its tracks; connections stay open.
    pub fn freeze(&self) {
        process::signal(self.daemon.pid(), "STOP");
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self) {
        process::signal(self.daemon.pid(), "CONT");
    }

    /// Whether the disk has no room: from now on the kernel fails every write, as on a full disk.
    pub fn set_disk_full(&self, full: bool) {
        let limit = format!("--fsize={}:", if full { "0" } else { "unlimited" });
        let status = environment::clean_command("prlimit")
            .args(["--pid", &self.daemon.pid().to_string(), &limit])
            .status()
            .expect("run prlimit");
        assert!(status.success(), "prlimit {limit} failed");
    }

    /// Ends the process with a signal (`TERM`, `KILL`); the directory stays.
    pub fn stop(&mut self, signal: &str) {
        let status = self.daemon.end(signal);
        assert!(
            signal != "TERM" || status.success(),
            "the local store ended with {status}:\n{}",
            self.daemon.log()
        );
    }

    /// What the process printed so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}

/// One line of the access log: `METHOD path status operation`.
fn parse_request(line: &str) -> Request {
    let fields: Vec<&str> = line.split(' ').collect();
    let [method, path, status, operation] = fields[..] else { panic!("not a line of an access log: {line}") };
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        status: status.parse().unwrap_or_else(|_| panic!("not a line of an access log: {line}")),
        operation: operation.to_owned(),
    }
}

/// Starts the binary and waits for the line in which it says where it listens.
fn spawn(directory: &Path, listen: &str, clock: Option<&str>) -> (Daemon, String) {
    let mut command = environment::clean_command("env");
    if let Some(offset) = clock {
        // Timers must not jump with the clock.
        command
            .env("LD_PRELOAD", environment::faketime())
            .env("FAKETIME", offset)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    command
        // The signal that comes with a limit on files would end the process.
        .arg("--ignore-signal=XFSZ")
        .arg(environment::workspace_binary("pg_storage_local_store"))
        .args(["--listen", listen, "--region", REGION])
        .arg("--root")
        .arg(directory.join("root"))
        .arg("--credentials")
        .arg(directory.join("credentials"))
        .arg("--access-log")
        .arg(directory.join("access.log"));
    let mut daemon = Daemon::spawn("pg_storage_local_store", command, directory);
    let endpoint = eventually("the local store to listen", Duration::from_secs(30), || {
        daemon.assert_running();
        let log = daemon.log();
        let line = log.lines().find(|line| line.starts_with("listening on "))?;
        Some(line.trim_start_matches("listening on ").to_owned())
    });
    (daemon, endpoint)
}
