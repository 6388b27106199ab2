//! `make install`: what reaches a server is complete, and nothing else is written.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::environment;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// What the build needs of the environment; the rest is that of the tests.
const KEPT: &[&str] = &[
    "HOME",
    "XDG_CACHE_HOME",
    "CARGO_HOME",
    "CARGO_TARGET_DIR",
    "PG_STORAGE_CACHE",
    "PG_MAJOR",
    "PG_CONFIG",
];

fn files_below(directory: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, files);
        } else {
            files.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), path);
        }
    }
}

/// Whether `make install` succeeded below a directory, and what it said.
fn install(destination: &Path, pg_config: Option<&str>) -> (bool, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let kept = env::vars_os().filter(|(name, _)| {
        let name = name.to_str().unwrap_or_default();
        KEPT.contains(&name) || name.starts_with("RUSTUP_")
    });
    // What stands between the harness of pgrx and cargo-pgrx knows only the former.
    let path = env::var_os("PATH").expect("PATH");
    let path =
        env::join_paths(env::split_paths(&path).filter(|place| *place != root.join("scripts/shim"))).unwrap();
    let output = environment::clean_command(root.join("scripts/install.sh"))
        .envs(kept)
        .envs(pg_config.map(|pg_config| ("PG_CONFIG", pg_config)))
        .env("PATH", path)
        .env("PROFILE", env::var("PGRX_BUILD_PROFILE").expect("the profile that the tests are built with"))
        .env("DESTDIR", destination)
        .output()
        .unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.success(), said)
}

#[test]
fn a_package_holds_the_library_and_its_scripts_and_nothing_else() {
    let destination = environment::run_dir().join(format!("package-{}", std::process::id()));
    let (installed, said) = install(&destination, None);
    assert!(installed, "{said}");

    let mut files = BTreeMap::new();
    files_below(&destination, &mut files);
    let version = env!("CARGO_PKG_VERSION");
    let (install, update) =
        (format!("pg_storage--{version}.sql"), format!("pg_storage--0.1.0--{version}.sql"));
    assert_eq!(
        files.keys().map(String::as_str).collect::<Vec<_>>(),
        [update.as_str(), install.as_str(), "pg_storage.control", "pg_storage.so"],
        "{said}"
    );
    let control = fs::read_to_string(&files["pg_storage.control"]).unwrap();
    assert!(control.contains(&format!("default_version = '{version}'")), "{control}");
    let script = fs::read_to_string(&files[&install]).unwrap();
    assert!(script.contains("storage.request_upload_url"), "{install} does not declare the calls");
    let elsewhere: Vec<_> = files.values().filter(|path| !said.contains(path.to_str().unwrap())).collect();
    assert!(elsewhere.is_empty(), "written and not said: {elsewhere:?}\n{said}");
    fs::remove_dir_all(destination).unwrap();
}

#[test]
fn nothing_is_installed_for_another_postgresql_than_the_one_that_is_named() {
    let destination = environment::run_dir().join(format!("refused-{}", std::process::id()));
    // /bin/true runs, and is of no version.
    for pg_config in ["/nowhere/pg_config", "/bin/true"] {
        let (installed, said) = install(&destination, Some(pg_config));
        assert!(!installed && said.contains(&format!("PG_CONFIG={pg_config}")), "{said}");
        assert!(!destination.exists(), "{said}");
    }
}
