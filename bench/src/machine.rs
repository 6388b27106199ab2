//! What the numbers were measured on. No name of it, and no path.

use std::fs;
use std::process::Command;

use pg_storage_tests::Scene;

use crate::sizes::Sizes;

/// Lines for the head of the table.
pub fn describe(sizes: Sizes, scene: &Scene) -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cpu = field(&read("/proc/cpuinfo"), "model name");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let mebibytes = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or_default() / 1024;
    let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
    vec![
        format!("{cores} × {cpu}, {mebibytes} MiB, Linux {}", read("/proc/sys/kernel/osrelease").trim()),
        format!("PostgreSQL {}, {}", scene.value::<String>("SHOW server_version"), rustc()),
        format!(
            "built with the profile {}; the load of the machine was {load} at the beginning",
            std::env::var("PROFILE").unwrap_or_else(|_| "dev".to_owned())
        ),
        format!(
            "{} rounds each, medians; pgbench {} s each, fsync and synchronous_commit on but where a row says off, one \
             commit on this disk {}",
            sizes.rounds,
            sizes.seconds,
            commit(scene)
        ),
    ]
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// How long the disk takes for a commit, which decides what a request can lose.
fn commit(scene: &Scene) -> String {
    let mut session = scene.superuser();
    session.batch_execute("CREATE TABLE public.commits (n int)").expect("make a table");
    let commits = (0..101)
        .map(|n| {
            let one = crate::median::time(|| {
                session.execute("INSERT INTO public.commits VALUES ($1)", &[&n]).expect("insert");
            });
            one.as_secs_f64() * 1e6
        })
        .collect();
    format!("takes {:.0} µs", crate::median::median(commits))
}
