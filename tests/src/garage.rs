//! A real Garage on loopback: one node, or three of which one may go.

use crate::daemon::{Daemon, free_ports};
use crate::{StoreAccess, environment, eventually, http, scratch};
use pg_storage_core::digest::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Fixed, because the server lives only on loopback and only for one test process.
const ACCESS_KEY_ID: &str = "GK000000000000000000000001";
const SECRET_ACCESS_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const LIMIT: Duration = Duration::from_secs(60);

/// A running Garage; it ends with the value, or with the test process.
pub struct Garage {
    nodes: Vec<Node>,
    access: StoreAccess,
}

/// One of its servers.
struct Node {
    daemon: Mutex<Daemon>,
    directory: PathBuf,
    config: PathBuf,
    admin: u16,
}

impl Garage {
    /// Starts a node with a key that may create buckets, and waits until it is ready.
    pub fn start() -> Self {
        let (node, access) = Node::start(1, &secret(), &["--single-node", "--default-access-key"]);
        node.wait();
        Self { nodes: vec![node], access }
    }

    /// Starts three nodes that keep everything three times, with a key as above; requests go to the first.
    pub fn start_three() -> Self {
        let secret = secret();
        let (nodes, mut access): (Vec<Node>, Vec<StoreAccess>) =
            (0..3).map(|_| Node::start(3, &secret, &[])).unzip();
        let garage = Self { nodes, access: access.swap_remove(0) };
        // The address of each, by which it is also told from the others.
        let ids: Vec<String> = garage
            .nodes
            .iter()
            .map(|node| {
                eventually("Garage to know its id", LIMIT, || {
                    let (succeeded, printed) = node.try_cli(&["node", "id", "-q"]);
                    let line =
                        printed.lines().find(|line| line.contains('@')).map(|line| line.trim().to_owned());
                    line.filter(|_| succeeded)
                })
            })
            .collect();
        for (zone, id) in ids.iter().enumerate() {
            let name = id.split('@').next().unwrap_or(id);
            if zone > 0 {
                eventually("Garage's nodes to meet", LIMIT, || {
                    garage.nodes[0].try_cli(&["node", "connect", id]).0.then_some(())
                });
            }
            eventually("Garage to take a node in", LIMIT, || {
                let assign = ["layout", "assign", "-z", &format!("z{zone}"), "-c", "1G", name];
                garage.nodes[0].try_cli(&assign).0.then_some(())
            });
        }
        garage.cli(&["layout", "apply", "--version", "1"]);
        garage.wait();
        eventually("Garage to take the key", LIMIT, || {
            let import = ["key", "import", "--yes", "-n", "tests", ACCESS_KEY_ID, SECRET_ACCESS_KEY];
            garage.nodes[0].try_cli(&import).0.then_some(())
        });
        garage.cli(&["key", "allow", "--create-bucket", ACCESS_KEY_ID]);
        garage
    }

    /// Three nodes that the tests of a binary share, of which the last is killed and comes back all the time.
    pub fn shared_three() -> &'static Self {
        static SHARED: OnceLock<Garage> = OnceLock::new();
        static UNSTEADY: Once = Once::new();
        let garage = SHARED.get_or_init(Self::start_three);
        UNSTEADY.call_once(|| {
            std::thread::spawn(move || {
                loop {
                    std::thread::sleep(Duration::from_secs(2));
                    garage.kill_node(2);
                    std::thread::sleep(Duration::from_secs(2));
                    garage.start_node(2);
                }
            });
        });
        garage
    }

    /// Kills one of the nodes.
    pub fn kill_node(&self, number: usize) {
        self.nodes[number].daemon().end("KILL");
    }

    /// Starts a killed node over what it had.
    pub fn start_node(&self, number: usize) {
        let node = &self.nodes[number];
        *node.daemon() = node.spawn(&[]);
    }

    /// Waits until every node answers and sees all others.
    pub fn wait(&self) {
        self.nodes.iter().for_each(Node::wait);
        eventually("Garage's nodes to see each other", LIMIT, || {
            let sees_all = |node: &Node| {
                let (succeeded, printed) = node.try_cli(&["status"]);
                succeeded
                    && !printed.contains("FAILED")
                    && printed.matches("127.0.0.1:").count() >= self.nodes.len()
            };
            self.nodes.iter().all(sees_all).then_some(())
        });
    }

    /// The one server that the tests of a binary share; buckets are told apart by their names.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Garage> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// How to reach it.
    pub fn access(&self) -> &StoreAccess {
        &self.access
    }

    /// Another account on the same server, which may create buckets too.
    pub fn another_key(&self, name: &str) -> StoreAccess {
        let printed = self.cli(&["key", "create", name]);
        let field = |label: &str| {
            printed
                .lines()
                .find_map(|line| line.trim().strip_prefix(label))
                .unwrap_or_else(|| panic!("no {label} in:\n{printed}"))
                .trim()
                .to_owned()
        };
        let (access_key_id, secret_access_key) = (field("Key ID:"), field("Secret key:"));
        self.cli(&["key", "allow", "--create-bucket", &access_key_id]);
        StoreAccess { access_key_id, secret_access_key, ..self.access.clone() }
    }

    /// Runs Garage's own command line against the first server and gives what it printed.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let (succeeded, printed) = self.nodes[0].try_cli(arguments);
        assert!(succeeded, "garage {arguments:?} failed: {printed}");
        printed
    }

    /// The first server's log so far.
    pub fn log(&self) -> String {
        self.nodes[0].daemon().log()
    }

    /// Its version, such as `2.5.0`.
    pub fn version() -> String {
        let output = environment::clean_command(environment::garage()).arg("--version").output();
        let said = String::from_utf8_lossy(&output.expect("run garage").stdout).into_owned();
        let version = said.split_whitespace().nth(1).expect("`garage --version` has the version second");
        // It says where it was built from: `cargo:2.5.0`.
        version.rsplit(':').next().unwrap_or(version).trim_start_matches('v').to_owned()
    }
}

/// What the nodes of one Garage know each other by. One for all would let a node in that another test started on the port
/// of one that was killed.
fn secret() -> String {
    Digest::of(scratch().as_os_str().as_encoded_bytes()).to_hex()
}

impl Node {
    fn start(replication: u8, secret: &str, arguments: &[&str]) -> (Self, StoreAccess) {
        let directory = scratch();
        let [s3, rpc, admin] = free_ports();
        let config = directory.join("garage.toml");
        let text = format!(
            r#"metadata_dir = "{path}/meta"
data_dir = "{path}/blocks"
db_engine = "sqlite"
replication_factor = {replication}
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{secret}"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:{s3}"
[admin]
api_bind_addr = "127.0.0.1:{admin}"
"#,
            path = directory.display()
        );
        fs::write(&config, text).expect("write Garage's configuration");
        let access = StoreAccess {
            endpoint: format!("http://127.0.0.1:{s3}"),
            region: "garage".to_owned(),
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        };
        let daemon = Mutex::new(serve(&config, &directory, arguments));
        (Self { daemon, directory, config, admin }, access)
    }

    fn spawn(&self, arguments: &[&str]) -> Daemon {
        serve(&self.config, &self.directory, arguments)
    }

    fn daemon(&self) -> MutexGuard<'_, Daemon> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        let health = format!("http://127.0.0.1:{}/health", self.admin);
        let deadline = Instant::now() + LIMIT;
        loop {
            self.daemon().assert_running();
            let answer = http::try_get(&health);
            if answer.as_ref().is_some_and(http::Response::is_success) {
                return;
            }
            let said = answer.map(|answer| answer.text());
            assert!(Instant::now() < deadline, "Garage is not healthy: {said:?}\n{}", self.daemon().log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it succeeded, and what it printed.
    fn try_cli(&self, arguments: &[&str]) -> (bool, String) {
        let output = environment::clean_command(environment::garage())
            .arg("-c")
            .arg(&self.config)
            .args(arguments)
            .output()
            .expect("run garage");
        let printed = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.success(), String::from_utf8_lossy(&printed).into_owned())
    }
}

fn serve(config: &Path, directory: &Path, arguments: &[&str]) -> Daemon {
    let mut command = environment::clean_command(environment::garage());
    command
        .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY_ID)
        .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_ACCESS_KEY)
        .arg("-c")
        .arg(config)
        .arg("server")
        .args(arguments);
    Daemon::spawn("garage", command, directory)
}
