//! How much is measured: the usual amounts, less for a machine that has something else to do, least for a test.

/// How much of everything.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Repetitions, of which the median counts.
    pub rounds: usize,
    /// Seconds that pgbench runs in each.
    pub seconds: u64,
    /// URLs of the larger batch; the smaller one has a tenth.
    pub urls: usize,
    /// Uploads that are confirmed at once.
    pub uploads: usize,
    /// Files of the bucket that is listed.
    pub rows: usize,
    /// MiB of the one large upload.
    pub mebibytes: usize,
}

impl Sizes {
    /// From the variables of the environment that README and `make bench` name.
    pub fn from_environment() -> Self {
        Self {
            rounds: number("ROUNDS", 5),
            seconds: number("SECONDS_EACH", 5) as u64,
            urls: number("URLS", 10_000),
            uploads: number("UPLOADS", 1000),
            rows: number("ROWS", 10_000_000),
            mebibytes: number("MEBIBYTES", 1024),
        }
    }
}

fn number(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => {
            text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}"))
        }
        _ => usual,
    }
}
