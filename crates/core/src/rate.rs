//! How often something may happen: token buckets, many of them in a table of fixed size.
//!
//! A bucket of N tokens that fills up within a minute is one number, the time when it will be full: a token costs a
//! minute's Nth part, and there is none left when the bucket would be full only in more than a minute. So a limit may be
//! changed at any time, and an idle bucket is worth no more than an unknown one.

use std::time::Duration;

/// How long an empty bucket takes to fill up, in nanoseconds.
const WINDOW: u64 = 60_000_000_000;
/// Buckets that share a hash; a look-up reads all of them.
const WAYS: usize = 8;

/// The buckets of those whose hashes meet: a table is a slice of these, all zeros at first.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Set {
    /// The latest time at which a bucket that had to make room would have been full. Who has no bucket here may have had
    /// that one, so nobody gains by being forgotten.
    floor: u64,
    buckets: [Bucket; WAYS],
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Bucket {
    owner: u64,
    /// Nanoseconds of the caller's clock; 0: nobody's bucket.
    full_at: u64,
}

impl Set {
    /// Nobody has taken anything.
    pub const EMPTY: Self = Self { floor: 0, buckets: [Bucket { owner: 0, full_at: 0 }; WAYS] };

    fn take(&mut self, owner: u64, now: u64, per_minute: u32, tokens: u32) -> Result<(), Duration> {
        let known = self.buckets.iter().position(|bucket| bucket.full_at > 0 && bucket.owner == owner);
        let full_at = match known.and_then(|at| self.buckets.get(at)) {
            Some(bucket) => bucket.full_at,
            None => self.floor,
        };
        let cost = (WINDOW / u64::from(per_minute.max(1))).saturating_mul(u64::from(tokens));
        let full_at = full_at.max(now).saturating_add(cost);
        let latest = now.saturating_add(WINDOW);
        if full_at > latest {
            return Err(Duration::from_nanos(full_at - latest));
        }
        let fullest = self.buckets.iter().enumerate().min_by_key(|(_, bucket)| bucket.full_at);
        let place = known.or(fullest.map(|(at, _)| at)).and_then(|at| self.buckets.get_mut(at));
        if let Some(bucket) = place {
            if known.is_none() {
                self.floor = self.floor.max(bucket.full_at);
            }
            *bucket = Bucket { owner, full_at };
        }
        Ok(())
    }
}

/// Takes tokens from the bucket of `owner`, a hash; else says how long it takes until there are so many, and takes nothing.
/// More than a minute's there never are.
///
/// `now` is nanoseconds of a clock that only goes forward, the same for all who use the table. A table that is full
/// forgets the bucket that is closest to full; whoever is not in it is taken for the one forgotten.
///
/// # Errors
/// How long to wait.
pub fn take(table: &mut [Set], owner: u64, now: u64, per_minute: u32, tokens: u32) -> Result<(), Duration> {
    let sets = table.len().max(1) as u64;
    match table.get_mut((owner % sets) as usize) {
        Some(set) => set.take(owner, now, per_minute, tokens),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_000 * SECOND;

    /// How many tokens `owner` gets without a pause.
    fn burst(table: &mut [Set], owner: u64, now: u64, per_minute: u32) -> u32 {
        (0..).take_while(|_| take(table, owner, now, per_minute, 1).is_ok()).count() as u32
    }

    #[test]
    fn a_burst_is_the_rate_and_a_token_comes_back_in_its_time() {
        for per_minute in [1, 2, 7, 60, 1000, 1_000_000] {
            let mut table = [Set::EMPTY; 4];
            assert_eq!(burst(&mut table, 5, START, per_minute), per_minute);
            let wait = take(&mut table, 5, START, per_minute, 1).err().unwrap_or_default();
            assert!(
                wait > Duration::ZERO && wait <= Duration::from_nanos(WINDOW / u64::from(per_minute)),
                "{wait:?}"
            );
            let then = START + wait.as_nanos() as u64;
            assert!(take(&mut table, 5, then - 1, per_minute, 1).is_err());
            assert_eq!(burst(&mut table, 5, then, per_minute), 1, "{per_minute} a minute");
        }
    }

    #[test]
    fn a_refusal_costs_nothing_and_a_minute_fills_a_bucket() {
        let mut table = [Set::EMPTY; 1];
        assert_eq!(burst(&mut table, 5, START, 10), 10);
        for _ in 0..1000 {
            assert!(take(&mut table, 5, START, 10, 1).is_err());
        }
        assert_eq!(burst(&mut table, 5, START + 30 * SECOND, 10), 5);
        assert_eq!(burst(&mut table, 5, START + 1000 * SECOND, 10), 10, "idling saves nothing up");
    }

    #[test]
    fn many_are_taken_together_or_not_at_all() {
        let mut table = [Set::EMPTY; 1];
        assert!(take(&mut table, 5, START, 10, 11).is_err());
        assert_eq!(take(&mut table, 5, START, 10, 7), Ok(()));
        let wait = take(&mut table, 5, START, 10, 4);
        assert_eq!(wait, Err(Duration::from_secs(6)));
        assert_eq!(take(&mut table, 5, START + 6 * SECOND, 10, 4), Ok(()));
        assert_eq!(burst(&mut table, 5, START + 6 * SECOND, 10), 0);
        assert!(take(&mut table, 6, START, 1_000_000, u32::MAX).is_err());
    }

    #[test]
    fn owners_have_buckets_of_their_own() {
        let mut table = [Set::EMPTY; 2];
        for owner in 0..16 {
            assert_eq!(burst(&mut table, owner, START, 3), 3, "{owner}");
        }
    }

    #[test]
    fn whoever_is_forgotten_gains_nothing_by_it() {
        let mut table = [Set::EMPTY; 1];
        assert_eq!(burst(&mut table, 1, START, 10), 10);
        for owner in 2..100 {
            let _ = take(&mut table, owner, START, 10, 1);
        }
        assert_eq!(burst(&mut table, 1, START, 10), 0);
        // The others are let in again as time passes.
        assert_eq!(burst(&mut table, 1000, START + 60 * SECOND, 10), 10);
    }

    #[test]
    fn a_lower_limit_counts_what_was_taken_under_the_higher_one() {
        let mut table = [Set::EMPTY; 1];
        assert_eq!(burst(&mut table, 5, START, 100), 100);
        assert_eq!(burst(&mut table, 5, START + 6 * SECOND, 10), 1);
    }

    proptest! {
        #[test]
        fn nobody_ever_gets_more_than_the_burst_and_what_time_brings(
            asks in prop::collection::vec((0u64..40, 0u64..SECOND), 1..2000), per_minute in 1u32..30,
        ) {
            let mut table = [Set::EMPTY; 2];
            let mut now = START;
            let mut granted: HashMap<u64, u64> = HashMap::new();
            for (owner, passed) in asks {
                now += passed;
                if take(&mut table, owner, now, per_minute, 1).is_ok() {
                    let sum = granted.entry(owner).or_default();
                    *sum += 1;
                    let earned = (now - START) * u64::from(per_minute) / WINDOW;
                    prop_assert!(*sum <= u64::from(per_minute) + earned + 1, "{sum} of {per_minute}, {earned} earned");
                }
            }
        }
    }
}
