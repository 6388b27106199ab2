//! What is fuzzed: functions from any bytes to nothing, which panic where a promise is broken.
//!
//! Two drivers call them: `cargo fuzz` (the crate below `fuzz/`, guided by coverage, for as long as one likes) and the
//! tests of this crate (seeded, a fixed number of inputs, on any toolchain). `make fuzz T=target SECONDS=60` takes the
//! first where it is installed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![forbid(unsafe_code)]

pub mod generate;
mod input;
pub mod local_store;
mod outputs;
mod parsers;

/// One thing to fuzz.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name of the target, and of its binary below `fuzz/`.
    pub name: &'static str,
    /// Takes any bytes; panics where a promise is broken.
    pub run: fn(&[u8]),
    /// How many inputs of a second's worth: a request costs more than a parse.
    pub per_second: u32,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "parsers", run: parsers::run, per_second: 2000 },
    Target { name: "outputs", run: outputs::run, per_second: 1000 },
    Target { name: "local_store_bytes", run: local_store::bytes, per_second: 200 },
    Target { name: "local_store_requests", run: local_store::requests, per_second: 150 },
];

/// Runs the target of this name on one input.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(data);
}
