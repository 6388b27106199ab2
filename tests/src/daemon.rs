//! A server process of a test, other than PostgreSQL: started, watched, signalled, ended.

use crate::process;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

pub(crate) struct Daemon {
    name: &'static str,
    child: Child,
    pid_file: PathBuf,
    log: PathBuf,
    /// How much an earlier process over the same directory had written.
    log_start: usize,
}

impl Daemon {
    /// Starts `command` with its output in `directory/log`; `directory` comes from [`scratch()`](crate::scratch()).
    pub(crate) fn spawn(name: &'static str, mut command: Command, directory: &Path) -> Self {
        let log = directory.join("log");
        let log_start = fs::read(&log).map_or(0, |earlier| earlier.len());
        let output = File::options().create(true).append(true).open(&log).expect("open the log");
        let errors = output.try_clone().expect("share the log");
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let pid_file = directory.join("pid");
        // With its newline: the guardian reads many such files as one list.
        fs::write(&pid_file, format!("{}\n", child.id())).expect("note the process id");
        Self { name, child, pid_file, log, log_start }
    }

    /// What the process wrote so far.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// Fails the test, with the log, if the process has ended.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().expect("ask for the state of a child") {
            panic!("{} ended with {status}; its log:\n{}", self.name, self.log());
        }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, waits for the end, and says how it ended.
    pub(crate) fn end(&mut self, signal: &str) -> ExitStatus {
        process::signal(self.child.id(), signal);
        self.child.wait().expect("wait for a child")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only when the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // The next process over the same directory may have noted its own by now.
        if fs::read_to_string(&self.pid_file).is_ok_and(|noted| noted.trim() == self.child.id().to_string()) {
            let _ = fs::remove_file(&self.pid_file);
        }
    }
}

/// Ports on loopback that were free a moment ago, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("bind a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound socket has an address").port())
}
