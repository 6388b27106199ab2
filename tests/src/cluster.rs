//! A throw-away PostgreSQL cluster with the extension's library, reached over its own Unix socket.

use crate::choice::{self, Kind};
use crate::environment::{self, server_command};
use crate::scene::ORIGIN;
use crate::{Database, StoreAccess, eventually, process, scratch};
use postgres::{Client, Config, NoTls};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime};

/// The same in every cluster, for each has a socket directory of its own and listens on no address.
const PORT: u16 = 5432;
const LIMIT: Duration = Duration::from_secs(60);

/// What a cluster is started with. By default the library is preloaded and no store is configured.
pub struct Options {
    preload: bool,
    settings: BTreeMap<String, String>,
    environment: Vec<(String, String)>,
    programs: Option<PathBuf>,
    store: Whose,
}

/// Which store a cluster is to use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// What it is told by settings or environment, else the store of the tests.
    Chosen,
    /// What it is told, else its own.
    Own,
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

impl Options {
    /// The library preloaded, no other setting, an empty environment.
    pub fn new() -> Self {
        Self {
            preload: true,
            settings: BTreeMap::new(),
            environment: Vec::new(),
            programs: None,
            store: Whose::Chosen,
        }
    }

    /// Without another store it uses its own, whatever store was chosen for the tests; `why` says what for.
    pub fn embedded(mut self, why: &str) -> Self {
        choice::stays(why);
        self.store = Whose::Own;
        self
    }

    /// Another PostgreSQL, named by the directory of its programs; the extension is installed there.
    pub fn programs(mut self, directory: PathBuf) -> Self {
        self.programs = Some(directory);
        self
    }

    /// Leaves the library out of `shared_preload_libraries`: sessions load it on first use.
    pub fn without_preload(mut self) -> Self {
        self.preload = false;
        self
    }

    /// A line of postgresql.conf, its value as one would type it between the quotes.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Variables of the server process, such as those of [`crate::StoreAccess::environment`].
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// Sessions are ended, then a checkpoint is written.
    Fast,
    /// All processes quit at once; the next start recovers.
    Immediate,
}

/// A cluster of its own; it ends with the value, or with the test process.
pub struct Cluster {
    directory: PathBuf,
    data: PathBuf,
    environment: Vec<(String, String)>,
    settings: Mutex<BTreeMap<String, String>>,
    databases: AtomicUsize,
    /// CREATE DATABASE fails while another one copies the same template.
    creating: Mutex<()>,
    programs: PathBuf,
    /// The store that it uses because it was chosen for the tests.
    store: Option<&'static StoreAccess>,
}

impl Cluster {
    /// Makes and starts a cluster.
    pub fn start(options: Options) -> Self {
        let directory = scratch();
        let data = directory.join("data");
        let mut settings = options.settings;
        let mut environment = options.environment;
        let told = settings.contains_key("pg_storage.endpoint")
            || environment.iter().any(|(name, _)| name == "S3_ENDPOINT");
        let open = options.store == Whose::Chosen && options.preload && !told;
        let store = if open { Kind::chosen_access() } else { None };
        if let Some(access) = store {
            environment.extend(access.environment());
            // The local store has these by default.
            static CLUSTERS: AtomicUsize = AtomicUsize::new(0);
            let prefix = format!("tests-{}", CLUSTERS.fetch_add(1, Ordering::Relaxed));
            for (name, value) in [("bucket_prefix", prefix), ("allowed_origins", ORIGIN.to_owned())] {
                settings.entry(format!("pg_storage.{name}")).or_insert(value);
            }
        }
        if options.preload {
            settings.entry("shared_preload_libraries".to_owned()).or_insert_with(|| "pg_storage".to_owned());
        }
        let cluster = Self {
            directory,
            data,
            environment,
            settings: Mutex::new(settings),
            databases: AtomicUsize::new(1),
            creating: Mutex::new(()),
            programs: options.programs.unwrap_or_else(crate::environment::postgres_programs),
            store,
        };
        cluster.initialise();
        cluster.start_again();
        cluster
    }

    fn initialise(&self) {
        run(server_command(self.program("initdb")).arg("-D").arg(&self.data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]));
        let main = self.data.join("postgresql.conf");
        let shipped = fs::read_to_string(&main).expect("initdb wrote postgresql.conf");
        fs::write(&main, shipped + "\ninclude 'test.conf'\n").expect("extend postgresql.conf");
        self.write_settings();
    }

    fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The one cluster, preloaded and without a store of its own choosing, that the tests of a binary share; each
    /// takes a database of its own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Options::new()))
    }

    /// A streaming standby of this cluster, with the same settings and environment; it answers queries.
    pub fn standby(&self) -> Self {
        let directory = scratch();
        let data = directory.join("data");
        run(self
            .client_program("pg_basebackup")
            .args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync", "-D"])
            .arg(&data));
        // The socket is in the data directory, and its lock is copied as any file there.
        fs::remove_file(data.join(format!(".s.PGSQL.{PORT}.lock")))
            .expect("a backup holds the socket's lock");
        let standby = Self {
            directory,
            data,
            environment: self.environment.clone(),
            settings: Mutex::new(self.settings().clone()),
            databases: AtomicUsize::new(1),
            creating: Mutex::new(()),
            programs: self.programs.clone(),
            store: self.store,
        };
        standby.write_settings();
        standby.start_again();
        standby
    }

    /// What pg_upgrade makes of this cluster, which is stopped for good; the upgraded one runs on the PostgreSQL of the
    /// tests.
    pub fn upgraded(&self) -> Self {
        self.stop(Stop::Fast);
        let directory = scratch();
        let upgraded = Self {
            data: directory.join("data"),
            directory,
            environment: self.environment.clone(),
            settings: Mutex::new(self.settings().clone()),
            databases: AtomicUsize::new(self.databases.load(Ordering::Relaxed)),
            creating: Mutex::new(()),
            programs: environment::postgres_programs(),
            store: self.store,
        };
        upgraded.initialise();
        run(server_command(environment::postgres_program("pg_upgrade"))
            .current_dir(&upgraded.directory)
            .args(["-U", "postgres", "--socketdir"])
            .arg(&upgraded.directory)
            .arg("-b")
            .arg(&self.programs)
            .arg("-B")
            .arg(&upgraded.programs)
            .arg("-d")
            .arg(&self.data)
            .arg("-D")
            .arg(&upgraded.data));
        upgraded.start_again();
        upgraded
    }

    /// The store that it uses because it was chosen for the tests; `None`: another, or its own.
    pub fn chosen_store(&self) -> Option<&'static StoreAccess> {
        self.store
    }

    /// A new database with the extension in it.
    pub fn database(&self) -> Database<'_> {
        let database = self.bare_database();
        database
            .superuser()
            .batch_execute("CREATE EXTENSION pg_storage")
            .expect("CREATE EXTENSION pg_storage");
        database
    }

    /// A new database without the extension.
    pub fn bare_database(&self) -> Database<'_> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let _alone = self.creating.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.connect("postgres", "postgres")
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
            .expect("CREATE DATABASE");
        Database::new(self, name)
    }

    /// Connects as `user`, without a password.
    pub fn connect(&self, user: &str, database: &str) -> Client {
        self.try_connect(user, database).expect("connect to the cluster")
    }

    /// Connects as `user`, or says why not.
    pub fn try_connect(&self, user: &str, database: &str) -> Result<Client, postgres::Error> {
        Config::new().host_path(&self.data).port(PORT).user(user).dbname(database).connect(NoTls)
    }

    /// Runs a client program such as `pg_dump` or `pgbench` against this cluster; the caller adds its arguments.
    pub fn client_program(&self, name: &str) -> Command {
        let mut command = server_command(self.program(name));
        command.env("PGHOST", &self.data).env("PGPORT", PORT.to_string()).env("PGUSER", "postgres");
        command
    }

    /// Changes a line of postgresql.conf; takes effect with [`Cluster::reload`] or a restart.
    pub fn set(&self, name: &str, value: &str) {
        self.settings().insert(name.to_owned(), value.to_owned());
        self.write_settings();
    }

    /// Takes a line out of postgresql.conf.
    pub fn unset(&self, name: &str) {
        self.settings().remove(name);
        self.write_settings();
    }

    fn settings(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        self.settings.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write_settings(&self) {
        let mut lines = format!(
            "port = {PORT}\nlisten_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\n\
             log_line_prefix = '%m [%p] %b '\nmax_connections = 200\n",
            self.data.display()
        );
        for (name, value) in self.settings().iter() {
            writeln!(lines, "{name} = '{}'", value.replace('\'', "''"))
                .expect("writing to a String succeeds");
        }
        fs::write(self.data.join("test.conf"), lines).expect("write test.conf");
    }

    /// Has the server read its configuration again, and waits until a new session sees it.
    pub fn reload(&self) {
        let mut session = self.connect("postgres", "postgres");
        let mut loaded =
            || session.query_one("SELECT pg_conf_load_time()", &[]).expect("ask").get::<_, SystemTime>(0);
        let before = loaded();
        process::signal(self.postmaster_pid(), "HUP");
        eventually("the reload of the configuration", LIMIT, || (loaded() > before).then_some(()));
    }

    /// Starts the server after a stop or a crash.
    pub fn start_again(&self) {
        let output = server_command(self.program("pg_ctl"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(["start", "-w", "-t", "60", "-D"])
            .arg(&self.data)
            .arg("-l")
            .arg(self.log_file())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("run pg_ctl");
        assert!(output.success(), "the server did not start; its log:\n{}", self.log());
    }

    /// Stops the server and waits until it has gone.
    pub fn stop(&self, how: Stop) {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        run(server_command(self.program("pg_ctl"))
            .args(["stop", "-w", "-t", "60", "-m", mode, "-D"])
            .arg(&self.data));
    }

    /// Stops and starts.
    pub fn restart(&self, how: Stop) {
        self.stop(how);
        self.start_again();
    }

    /// `kill -9` to the postmaster and to every child of it, as the out-of-memory killer or a power cut would.
    pub fn kill(&self) {
        let postmaster = self.postmaster_pid();
        // Stopped, it starts no child that would not be among them.
        process::signal(postmaster, "STOP");
        eventually("the postmaster to stop", LIMIT, || process::is_stopped(postmaster).then_some(()));
        let children = process::children_of(postmaster);
        process::signal(postmaster, "KILL");
        for child in &children {
            process::try_signal(*child, "KILL");
        }
        eventually("the end of the killed server", LIMIT, || {
            (children.iter().chain([&postmaster]).all(|pid| !process::is_alive(*pid))).then_some(())
        });
        // The dead may stay zombies until init collects them, and to the next postmaster a zombie looks alive.
        for lock in ["postmaster.pid".to_owned(), format!(".s.PGSQL.{PORT}.lock")] {
            fs::remove_file(self.data.join(lock)).expect("a killed server leaves its lock files");
        }
    }

    /// The process id of the running postmaster.
    pub fn postmaster_pid(&self) -> u32 {
        let file = fs::read_to_string(self.data.join("postmaster.pid")).expect("the server runs");
        file.lines()
            .next()
            .and_then(|line| line.trim().parse().ok())
            .expect("postmaster.pid starts with a number")
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The server's log since the cluster was made.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// A session that stays open beside a dangerous act, to prove afterwards that the cluster did not restart.
    pub fn witness(&self) -> Witness {
        Witness { session: self.connect("postgres", "postgres") }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ok(file) = fs::read_to_string(self.data.join("postmaster.pid"))
            && let Some(pid) = file.lines().next().and_then(|line| line.trim().parse::<u32>().ok())
            && process::is_alive(pid)
        {
            self.stop(Stop::Immediate);
        }
        fs::remove_dir_all(&self.directory).expect("remove the directory of the cluster");
    }
}

/// An open session: when any backend crashes, PostgreSQL ends all of them, this one included.
pub struct Witness {
    session: Client,
}

impl Witness {
    /// Fails the test if the cluster restarted since the witness was called.
    #[track_caller]
    pub fn assert_no_restart(mut self) {
        // A client loses its connection a moment before the postmaster learns why and ends the other sessions.
        std::thread::sleep(Duration::from_millis(100));
        self.session
            .query_one("SELECT 1", &[])
            .expect("the cluster restarted: it ended the witness's session");
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("run a program of PostgreSQL");
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}
