//! Waiting for something that another process is about to do.

use std::time::{Duration, Instant};

/// Asks every 20 ms until `ready` gives a value; fails the test, naming `what`, after `limit`.
pub fn eventually<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
