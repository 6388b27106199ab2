//! The smallest run of `make bench`: every row is there and has its numbers. How large they are is nobody's promise here.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

/// What the rows begin with.
const ROWS: &[&str] = &[
    "sign one URL, the signer alone",
    "the same by the Rust SDK's presigner",
    "the same by boto3",
    "download_urls of 2,",
    "download_urls of 20,",
    "request_upload_url, warm, 1 client",
    "request_upload_url, warm, 8 clients",
    "request_upload_url, warm, 1 client, synchronous_commit = off",
    "confirm_uploads of 5, local store",
    "confirm_uploads of 5, store 20 ms away",
    "confirm_uploads of 5, Garage",
    "download_url of another user's file, until it is denied",
    "one look into the cache",
    "store calls of 5 warm requests",
    "private memory of a backend that called a function over a table with policies",
    "private memory of a backend that did that and signed",
    "private memory of a backend that did that, signed and talked to the store",
    "local store, memory during an upload of 2 MiB",
    "list_files, page of 1000 files of 4000 files, at 0 %",
    "list_files, page of 1000 files of 4000 files, at 99 %",
    "list_files, page of 1000 folders of 4000 files, at 0 %",
];

#[test]
fn every_benchmark_runs_and_gives_numbers() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/bench.sh");
    let sizes = [
        ("ROUNDS", "1"),
        ("SECONDS_EACH", "1"),
        ("URLS", "20"),
        ("UPLOADS", "5"),
        ("ROWS", "4000"),
        ("MEBIBYTES", "2"),
    ];
    let output = Command::new(script)
        .env("PG_STORAGE_BENCH", env!("CARGO_BIN_EXE_pg_storage_bench"))
        .env_remove("PG_STORAGE_BOTO3")
        .envs(sizes)
        .output()
        .expect("run scripts/bench.sh");
    let table = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{table}\n{said}");
    for what in ROWS {
        let row = table.lines().find(|line| line.starts_with(&format!("| {what}")));
        let row = row.unwrap_or_else(|| panic!("no row {what}:\n{table}\n{said}"));
        let measured = row.split('|').nth(2).unwrap();
        assert!(measured.contains(|c: char| c.is_ascii_digit()), "a number was measured: {row}");
    }
    let dir = std::env::var("HOME").unwrap();
    assert!(!table.contains(&dir), "no path of this machine:\n{table}");
}
