//! When to try again: exponential with full jitter, so that many who failed together do not return together.

use std::time::Duration;

/// A delay between zero and `min(cap, base × 2^attempt)`, chosen by `random`.
///
/// `attempt` counts failures so far, from zero. `random` is 64 uniform bits; the delay is proportional to it, so equal
/// inputs give equal delays. The ceiling saturates at `cap`, whatever the attempt.
pub fn delay(attempt: u32, base: Duration, cap: Duration, random: u64) -> Duration {
    let factor = 2_u32.checked_pow(attempt).unwrap_or(u32::MAX);
    let ceiling = base.saturating_mul(factor).min(cap);
    // Nanoseconds in 64 bits reach 584 years; beyond that the ceiling is as good as forever.
    let nanoseconds = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    let share = (u128::from(nanoseconds) * u128::from(random)) >> 64;
    // The product of two 64-bit numbers shifted by 64 bits fits in 64 bits.
    Duration::from_nanos(share as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let top = |attempt| delay(attempt, SECOND, HOUR, u64::MAX).as_secs_f64().round();
        assert_eq!(
            [top(0), top(1), top(2), top(11), top(12), top(u32::MAX)],
            [1., 2., 4., 2048., 3600., 3600.]
        );
    }

    #[test]
    fn jitter_covers_the_whole_range() {
        assert_eq!(delay(3, SECOND, HOUR, 0), Duration::ZERO);
        assert_eq!(delay(3, SECOND, HOUR, 1 << 63), Duration::from_secs(4));
    }

    proptest! {
        #[test]
        fn never_above_the_cap(attempt: u32, base: Duration, cap: Duration, random: u64) {
            prop_assert!(delay(attempt, base, cap, random) <= cap);
        }
    }
}
