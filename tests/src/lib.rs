//! The harness of the client-side tests: throw-away clusters, real stores, a store that hangs, and a small HTTP client.
//!
//! Everything listens on loopback or on a Unix socket, lives in a directory of its own, and is gone when the test
//! process is, however that ended. `make test` and `make test-one T=name` set what [`environment`] reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![forbid(unsafe_code)]

pub mod backup;
mod black_hole;
mod ceph;
pub mod choice;
mod cluster;
mod daemon;
mod database;
pub mod docs;
pub mod environment;
mod faulty_store;
pub mod files;
pub mod flow;
mod garage;
pub mod http;
mod local_store;
pub mod orphans;
pub mod parts;
pub mod process;
pub mod raw_http;
pub mod reader;
mod rng;
pub mod scene;
mod scratch;
mod sql;
mod store;
mod wait;
pub mod web;
pub mod worker;

pub use black_hole::BlackHole;
pub use ceph::Ceph;
pub use cluster::{Cluster, Options, Stop, Witness};
pub use database::Database;
pub use faulty_store::{Fault, FaultyStore};
pub use garage::Garage;
pub use local_store::{LocalStore, Request};
pub use rng::Rng;
pub use scene::{Scene, each_store, each_store_with_parts};
pub use scratch::scratch;
pub use sql::{Refusal, refused};
pub use store::{Listed, StoreAccess};
pub use wait::eventually;

/// Tells whoever watches, whether the test passes or not: the harness of Rust keeps what tests print to itself.
pub fn say(line: &str) {
    // Nobody who cannot be told is told.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
}
