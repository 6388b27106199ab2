//! A real Ceph: one monitor, one storage daemon that keeps everything in memory, and one RADOS gateway, on loopback.

use crate::daemon::{Daemon, free_ports};
use crate::{StoreAccess, environment, eventually, http, scratch};
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// Fixed, because the servers live only on loopback and only for one test process.
const ACCESS_KEY_ID: &str = "CEPH0000000000000001";
const SECRET_ACCESS_KEY: &str = "ceph000000000000000000000000000000000001";
const LIMIT: Duration = Duration::from_secs(120);

/// A running Ceph; it ends with the value, or with the test process.
pub struct Ceph {
    // In the order of their ends: whoever depends on another goes before it.
    _gateway: Daemon,
    _storage: Daemon,
    _monitor: Daemon,
    access: StoreAccess,
}

impl Ceph {
    /// Starts the three daemons with a user who may create buckets, and waits until the gateway answers.
    pub fn start() -> Self {
        let [s3, monitor_port] = free_ports();
        let (home, storage_home, gateway_home) = (scratch(), scratch(), scratch());
        let config = home.join("ceph.conf");
        fs::write(&config, configuration(&home, &storage_home, &gateway_home, s3, monitor_port))
            .expect("write Ceph's configuration");
        let map = home.join("monmap");
        let program = |name: &str| {
            let mut command = environment::ceph(name);
            command.env("CEPH_CONF", &config);
            command
        };

        let address = format!("[v2:127.0.0.1:{monitor_port}]");
        run(program("monmaptool")
            .args(["--create", "--addv", "a", &address, "--fsid", CLUSTER_ID])
            .arg(&map));
        run(program("ceph-mon").args(["-i", "a", "--mkfs", "--monmap"]).arg(&map));
        let mut command = program("ceph-mon");
        command.args(["-f", "-i", "a"]);
        let mut monitor = Daemon::spawn("ceph-mon", command, &home);

        // Waits for the monitor by itself.
        run(program("ceph").args(["--connect-timeout", "60", "osd", "new", STORAGE_ID]));
        monitor.assert_running();
        run(program("ceph-osd").args(["-i", "0", "--mkfs", "--osd-uuid", STORAGE_ID]));
        let mut command = program("ceph-osd");
        command.args(["-f", "-i", "0"]);
        let mut storage = Daemon::spawn("ceph-osd", command, &storage_home);
        eventually("Ceph's storage daemon to be up", LIMIT, || {
            storage.assert_running();
            run(program("ceph").args(["osd", "stat"])).contains("1 up").then_some(())
        });

        let mut command = program("radosgw");
        command.args(["-f", "-n", "client.rgw"]);
        let mut gateway = Daemon::spawn("radosgw", command, &gateway_home);
        eventually("Ceph's gateway to listen", LIMIT, || {
            gateway.assert_running();
            TcpStream::connect(("127.0.0.1", s3)).ok()
        });
        run(program("radosgw-admin").args(["-n", "client.rgw", "user", "create", "--uid=tests"]).args([
            "--display-name=tests".to_owned(),
            format!("--access-key={ACCESS_KEY_ID}"),
            format!("--secret-key={SECRET_ACCESS_KEY}"),
        ]));
        let endpoint = format!("http://127.0.0.1:{s3}");
        eventually("Ceph's gateway to answer", LIMIT, || http::try_get(&endpoint));
        let access = StoreAccess {
            endpoint,
            region: "default".to_owned(),
            access_key_id: ACCESS_KEY_ID.to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.to_owned(),
        };
        Self { _gateway: gateway, _storage: storage, _monitor: monitor, access }
    }

    /// The one cluster that the tests of a binary share; buckets are told apart by their names.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Ceph> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// How to reach it.
    pub fn access(&self) -> &StoreAccess {
        &self.access
    }

    /// Its version, such as `16.2.15`: releases differ in what they enforce.
    pub fn version() -> String {
        let said = run(environment::ceph("ceph").arg("--version"));
        let version = said.split_whitespace().nth(2).expect("`ceph --version` has the version third");
        version.split('+').next().unwrap_or(version).to_owned()
    }
}

const CLUSTER_ID: &str = "00000000-0000-4000-8000-000000000001";
const STORAGE_ID: &str = "00000000-0000-4000-8000-000000000002";

fn configuration(home: &Path, storage: &Path, gateway: &Path, s3: u16, monitor: u16) -> String {
    let classes = classes();
    // No authentication between the daemons: whoever reaches them on loopback could read their keys as well. Without the
    // path of the classes (Debian's is relative) and without the monitor's mode the daemons never come up. The monitor
    // proposes at once instead of every second, which makes the start eight times as fast; it would refuse to run on a disk
    // that is nearly full. The gateway of 16.2.15 may crash when it works on several keys of one DeleteObjects at once.
    format!(
        "[global]
fsid = {CLUSTER_ID}
mon_host = [v2:127.0.0.1:{monitor}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
ms_mon_client_mode = crc secure
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
run_dir = {home}
admin_socket =
log_file =
log_to_stderr = true
debug_rocksdb = 0/0
osd_objectstore = memstore
osd_class_dir = {classes}
osd_class_load_list = *
osd_class_default_list = *
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data_avail_crit = 0
mon_data_avail_warn = 0
mon_data = {home}/mon
osd_data = {storage}
rgw_data = {gateway}
rgw_multi_obj_del_max_aio = 1
rgw_frontends = beast endpoint=127.0.0.1:{s3} tcp_nodelay=1
",
        home = home.display(),
        storage = storage.display(),
        gateway = gateway.display(),
        classes = classes.display(),
    )
}

/// Where Debian keeps the code that objects are worked on with; the folder is named after the machine.
fn classes() -> PathBuf {
    let machines = fs::read_dir("/usr/lib").expect("read /usr/lib").flatten();
    machines
        .map(|machine| machine.path().join("rados-classes"))
        .find(|path| path.is_dir())
        .expect("there is no /usr/lib/*/rados-classes: run `make ceph`")
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("run a program of Ceph");
    let errors = String::from_utf8_lossy(&output.stderr);
    let program = command.get_program().display();
    assert!(output.status.success(), "{program} failed: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
