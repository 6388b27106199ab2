//! A real Garage server, one node, on loopback.

use crate::daemon::{Daemon, free_ports};
use crate::{StoreAccess, environment, eventually, http, scratch};
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// Fixed, because the server lives only on loopback and only for one test process.
const ACCESS_KEY_ID: &str = "GK000000000000000000000001";
const SECRET_ACCESS_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";

/// A running Garage; it ends with the value, or with the test process.
pub struct Garage {
    daemon: Daemon,
    config: PathBuf,
    access: StoreAccess,
}

impl Garage {
    /// Starts a node with a key that may create buckets, and waits until it is ready.
    pub fn start() -> Self {
        let program = environment::garage();
        let directory = scratch();
        let [s3, rpc, admin] = free_ports();
        let config = directory.join("garage.toml");
        fs::write(
            &config,
            format!(
                r#"metadata_dir = "{path}/meta"
data_dir = "{path}/blocks"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:{rpc}"
rpc_public_addr = "127.0.0.1:{rpc}"
rpc_secret = "{SECRET_ACCESS_KEY}"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:{s3}"
[admin]
api_bind_addr = "127.0.0.1:{admin}"
"#,
                path = directory.display()
            ),
        )
        .expect("write Garage's configuration");

        let mut command = environment::clean_command(program);
        command
            .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY_ID)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_ACCESS_KEY)
            .arg("-c")
            .arg(&config)
            .args(["server", "--single-node", "--default-access-key"]);
        let mut daemon = Daemon::spawn("garage", command, &directory);
        eventually("Garage to be healthy", Duration::from_secs(60), || {
            daemon.assert_running();
            http::try_get(&format!("http://127.0.0.1:{admin}/health")).filter(http::Response::is_success)
        });
        let access = StoreAccess {
            endpoint: format!("http://127.0.0.1:{s3}"),
            region: "garage".to_owned(),
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        };
        Self { daemon, config, access }
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

    /// Runs Garage's own command line against this server and gives what it printed.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let output = environment::clean_command(environment::garage())
            .arg("-c")
            .arg(&self.config)
            .args(arguments)
            .output()
            .expect("run garage");
        assert!(
            output.status.success(),
            "garage {arguments:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }
}
