//! Looking at processes from outside, through /proc: who lives, with how many threads, descriptors and blocked signals.

use crate::environment;
use std::fs;
use std::path::PathBuf;

/// Fields of /proc/PID/stat after the command name, which may itself hold spaces and parentheses.
fn stat(pid: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(line.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

/// Whether the process runs. A zombie that init has yet to collect does not.
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}

/// Whether the process has come to a stop after SIGSTOP: the signal waits for the end of a system call, such as a fork.
pub fn is_stopped(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "T"))
}

/// The children of a process.
pub fn children_of(parent: u32) -> Vec<u32> {
    let parent = parent.to_string();
    fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| stat(*pid).is_some_and(|fields| fields.get(1) == Some(&parent)))
        .collect()
}

/// What `ps` shows of a process: PostgreSQL's processes write there what they are.
pub fn title(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Everything a process was started with, its environment included: `NAME=value`.
pub fn environment_of(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', "\n")
}

/// Sends a signal, given by its name without SIG, to a process that is known to run.
pub fn signal(pid: u32, name: &str) {
    assert!(try_signal(pid, name), "kill -s {name} {pid} failed");
}

/// Sends a signal to a process that may have ended; whether it was still there.
pub fn try_signal(pid: u32, name: &str) -> bool {
    environment::clean_command("/bin/sh")
        .args(["-c", "kill -s \"$1\" \"$2\" 2>/dev/null", "kill", name, &pid.to_string()])
        .status()
        .expect("run kill")
        .success()
}

/// A thread and the signals it does not receive, signal n as bit n - 1.
#[derive(Clone, Copy, Debug)]
pub struct Thread {
    /// Its id; the main thread's is the process's.
    pub id: u32,
    /// The mask.
    pub blocked: u64,
}

impl Thread {
    /// Whether everything is blocked that can be: not KILL and STOP, nor the two that the C library keeps for itself.
    pub fn blocks_everything(&self) -> bool {
        const ALL: u64 = !(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32);
        self.blocked & ALL == ALL
    }

    /// Whether one signal is blocked.
    pub fn blocks(&self, signal: u32) -> bool {
        self.blocked >> (signal - 1) & 1 == 1
    }
}

/// The threads of a process, the main one first.
pub fn threads(pid: u32) -> Vec<Thread> {
    let tasks: PathBuf = format!("/proc/{pid}/task").into();
    let mut threads: Vec<Thread> = fs::read_dir(&tasks)
        .expect("the process runs")
        .filter_map(|entry| {
            let entry = entry.ok()?;
            // A thread may end between the two looks.
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
            let blocked = u64::from_str_radix(mask.trim(), 16).ok()?;
            Some(Thread { id: entry.file_name().to_str()?.parse().ok()?, blocked })
        })
        .collect();
    threads.sort_by_key(|thread| (thread.id != pid, thread.id));
    threads
}

/// How many sockets, event counters and the like a process has open; its files are left out, because PostgreSQL keeps
/// those of its tables open on its own account.
pub fn descriptors(pid: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs");
    let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| !target.is_absolute()).count()
}
