//! A brief run of every target, the same inputs each time. `PG_STORAGE_FUZZ_SECONDS` makes it longer, `PG_STORAGE_FUZZ_SEED`
//! gives other inputs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write as _;
use std::time::{Duration, Instant};

use pg_storage_fuzz::generate::Generator;
use pg_storage_fuzz::{TARGETS, Target, local_store};

/// Each input may take this long on a busy machine; none needs a thousandth of it.
const DEADLINE: Duration = Duration::from_secs(90);

/// Past the capture of output: how many cases ran is part of the result.
fn tell(what: &str) {
    // A test whose output cannot be written has nobody to tell.
    let _ = writeln!(std::io::stderr(), "fuzz {what}");
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Without a time, a fixed number of inputs: what passes on an idle machine passes on a busy one.
fn drive(target: &Target) {
    let seed = setting("PG_STORAGE_FUZZ_SEED").unwrap_or(1);
    let time = setting("PG_STORAGE_FUZZ_SECONDS").map(Duration::from_secs);
    let (mut generator, start, mut cases) = (Generator::new(seed), Instant::now(), 0_u32);
    while time.map_or(cases < 5 * target.per_second, |time| start.elapsed() < time) {
        let input = generator.input();
        let before = Instant::now();
        // The input is printed by whoever reads a panic's message: a seed and a number say which.
        let outcome = std::panic::catch_unwind(|| (target.run)(&input));
        assert!(outcome.is_ok(), "{}: input {cases} of seed {seed} broke a promise: {input:?}", target.name);
        assert!(before.elapsed() < DEADLINE, "{}: input {cases} of seed {seed} hangs", target.name);
        cases += 1;
    }
    tell(&format!("{}: {cases} inputs of seed {seed}", target.name));
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}

#[test]
fn parsers() {
    drive(target("parsers"));
}

#[test]
fn outputs() {
    drive(target("outputs"));
}

#[test]
fn local_store_bytes() {
    drive(target("local_store_bytes"));
}

#[test]
fn local_store_requests() {
    drive(target("local_store_requests"));
    let answered = local_store::answered();
    tell(&format!("local store: {answered:?} answers: none, 1xx, 2xx, 3xx, 4xx, 5xx"));
    // Inputs that all end at the gate would show nothing about what is behind it.
    assert!(answered[2] > 0 && answered[4] > 0, "{answered:?}");
}

#[test]
fn every_target_has_its_binary_for_cargo_fuzz() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    for target in TARGETS {
        let source = std::fs::read_to_string(directory.join(format!("{}.rs", target.name))).unwrap();
        assert!(source.contains(&format!("pg_storage_fuzz::run(\"{}\"", target.name)));
    }
}
