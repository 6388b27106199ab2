//! Measuring many times and taking the middle: this machine does other things as well.

use std::time::{Duration, Instant};

/// The middle of some numbers.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().expect("something was measured")
}

/// How long `work` takes.
pub fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// The medians of two things that are done in turns, so that what else happens meanwhile happens to both.
pub fn in_turns(rounds: usize, mut one: impl FnMut() -> f64, mut other: impl FnMut() -> f64) -> (f64, f64) {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ones.push(one());
        others.push(other());
    }
    (median(ones), median(others))
}

/// Microseconds, for one of `count`.
pub fn micros_each(took: Duration, count: usize) -> f64 {
    took.as_secs_f64() * 1e6 / count as f64
}
