//! Time by the wall clock. Transaction time would let an expiry begin before the call that asks for it.

#![allow(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pg_storage_core::error::{Invalid, Token};
use pg_storage_core::lifetime::check_expiry;
use pg_storage_core::presign::Timestamp;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys;

use crate::error::{Failure, Result};

/// Seconds from the Unix epoch to PostgreSQL's.
const POSTGRES_EPOCH: i64 = 946_684_800;
const MICROS: i64 = 1_000_000;

/// A moment, in PostgreSQL's microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// Now.
    pub fn now() -> Self {
        // SAFETY: reads the clock.
        Self(unsafe { pg_sys::GetCurrentTimestamp() })
    }

    /// The moment a column holds.
    pub fn of(column: TimestampWithTimeZone) -> Self {
        Self(column.into())
    }

    /// The moment of so many microseconds.
    pub fn of_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// As [`of_micros`](Self::of_micros) takes it.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// So many seconds after 1970 began.
    pub fn of_unix(seconds: i64) -> Self {
        Self(seconds.saturating_sub(POSTGRES_EPOCH).saturating_mul(MICROS))
    }

    /// What a clock that counts from 1970 shows.
    pub fn of_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let micros = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Self(micros.saturating_sub(POSTGRES_EPOCH * MICROS))
    }

    /// This moment by a clock that is `seconds` ahead; behind, if they are negative.
    pub fn shifted(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(MICROS)))
    }

    /// This moment and `seconds` more.
    pub fn plus(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(i64::from(seconds) * MICROS))
    }

    /// This moment and `time` more.
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time until `later`, at least none.
    pub fn until(self, later: Self) -> Duration {
        Duration::from_micros(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }

    /// Whole seconds until `later`, at least 0.
    pub fn seconds_until(self, later: Self) -> u32 {
        u32::try_from((later.0 - self.0) / MICROS).unwrap_or(0)
    }

    /// As signatures spell it.
    pub fn signing(self) -> Timestamp {
        Timestamp::from_unix(self.unix())
    }

    /// Seconds since 1970.
    pub fn unix(self) -> i64 {
        self.0.div_euclid(MICROS) + POSTGRES_EPOCH
    }

    /// For a column.
    pub fn column(self) -> Result<TimestampWithTimeZone> {
        TimestampWithTimeZone::try_from(self.0)
            .map_err(|_| Failure::internal("the clock is outside PostgreSQL's range"))
    }
}

/// The lifetime in seconds that an interval asks for.
pub fn lifetime(asked: &Interval) -> std::result::Result<u32, Invalid> {
    let seconds = asked.as_micros() / i128::from(MICROS);
    i64::try_from(seconds)
        .map_err(|_| Invalid::new(Token::InvalidExpiry, "a URL lives between 1 second and 7 days"))
        .and_then(check_expiry)
}
