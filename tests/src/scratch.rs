//! Throw-away directories, and the guardian that ends whatever runs in them once the test process is gone.

use crate::environment;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Waits for the end of its standard input, which only the test process holds open, so it notices every kind of end,
/// `kill -9` and abort included. Then it ends the servers and removes the directory.
const GUARDIAN: &str = r#"
read -r _
pids=$(head -qn 1 "$1"/*/pid "$1"/*/data/postmaster.pid 2>/dev/null)
for pid in $pids; do kill -QUIT "$pid"; done
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  alive=
  # Not kill -0: it takes a zombie that init has yet to collect for alive.
  for pid in $pids; do if readlink "/proc/$pid/exe"; then alive="$alive $pid"; fi; done
  [ -n "$alive" ] || break
  sleep 0.25
done
for pid in $alive; do kill -KILL "$pid"; done
rm -rf "$1"
"#;

struct Root {
    path: PathBuf,
    /// Its standard input stays open for as long as this process lives; never written to.
    _guardian: Child,
}

impl Root {
    fn new() -> Self {
        let path = environment::run_dir().join(std::process::id().to_string());
        fs::create_dir(&path).expect("make the scratch directory of this process");
        give_to_server_user(&path);
        let guardian = environment::clean_command("/bin/sh")
            .args(["-c", GUARDIAN, "guardian"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of the terminal's process group: Ctrl-C must not take the one that cleans up.
            .process_group(0)
            .spawn()
            .expect("start the guardian");
        Self { path, _guardian: guardian }
    }
}

fn give_to_server_user(path: &PathBuf) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).expect("close the directory to others");
    let (uid, gid) = environment::server_user();
    chown(path, Some(uid), Some(gid)).expect("give the directory to the server user");
}

/// Makes a new directory of the server user's. A file `pid` in it, or `data/postmaster.pid`, names a process that is
/// ended with the test process. Names stay short because Unix sockets are made in it.
pub fn scratch() -> PathBuf {
    static ROOT: OnceLock<Root> = OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = ROOT.get_or_init(Root::new).path.join(number.to_string());
    fs::create_dir(&path).expect("make a scratch directory");
    give_to_server_user(&path);
    path
}
