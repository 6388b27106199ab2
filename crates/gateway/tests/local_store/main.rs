//! The local store over real HTTP: its binary as a child process, an SDK client, and raw requests for what no SDK sends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod anonymous;
mod buckets;
mod checksums;
mod copies;
mod cors;
mod durability;
mod forms;
mod harness;
mod hostile;
mod listing;
mod multipart;
mod objects;
mod signatures;
