//! The second at which a URL is signed.

use std::fmt;

use time::UtcDateTime;

/// A second in UTC, in the one spelling that SigV4 uses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    text: [u8; 16],
}

impl Timestamp {
    /// The last second of the year 9999, the last that the spelling can express.
    const LAST: i64 = 253_402_300_799;

    /// A timestamp from seconds since 1970-01-01 00:00 UTC. What the spelling cannot express (before 1970, after 9999)
    /// becomes the nearest second that it can; no store accepts either, and no working clock shows them.
    pub fn from_unix(seconds: i64) -> Self {
        let seconds = seconds.clamp(0, Self::LAST);
        let at = utc(seconds);
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second) = at.as_hms();
        // The clamped year has four digits and no sign.
        let year = year.unsigned_abs();
        let [y1, y2] = two_digits(year / 100);
        let [y3, y4] = two_digits(year % 100);
        let [m1, m2] = two_digits(u8::from(month).into());
        let [d1, d2] = two_digits(day.into());
        let [h1, h2] = two_digits(hour.into());
        let [n1, n2] = two_digits(minute.into());
        let [s1, s2] = two_digits(second.into());
        Self { seconds, text: [y1, y2, y3, y4, m1, m2, d1, d2, b'T', h1, h2, n1, n2, s1, s2, b'Z'] }
    }

    /// `YYYYMMDDTHHMMSSZ`, as in `X-Amz-Date`.
    pub fn amz_date(&self) -> &str {
        // ASCII by construction.
        std::str::from_utf8(&self.text).unwrap_or_default()
    }

    /// `YYYYMMDD`, as in the credential scope.
    pub(super) fn day(&self) -> &str {
        // The first 8 of 16 ASCII characters.
        self.amz_date().get(..8).unwrap_or_default()
    }

    /// `YYYY-MM-DDTHH:MM:SSZ` of the second `lifetime` seconds later, as in the expiration of a POST policy.
    pub(super) fn expiration(&self, lifetime: u32) -> String {
        let at = utc((self.seconds + i64::from(lifetime)).min(Self::LAST));
        let (year, month, day) = at.to_calendar_date();
        let (hour, minute, second) = at.as_hms();
        format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({})", self.amz_date())
    }
}

/// The calendar has every second between the years 1970 and 9999.
fn utc(seconds: i64) -> UtcDateTime {
    UtcDateTime::from_unix_timestamp(seconds).unwrap_or(UtcDateTime::UNIX_EPOCH)
}

/// The last two decimal digits of a number.
fn two_digits(number: u32) -> [u8; 2] {
    // A remainder of 10 fits in a byte.
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_seconds() {
        for (seconds, text) in [
            (0, "19700101T000000Z"),
            (951_782_399, "20000228T235959Z"),
            (951_782_400, "20000229T000000Z"),
            (1_369_353_600, "20130524T000000Z"),
            (1_440_938_160, "20150830T123600Z"),
            (4_107_542_399, "21000228T235959Z"),
            (4_107_542_400, "21000301T000000Z"),
            (253_402_300_799, "99991231T235959Z"),
        ] {
            assert_eq!(Timestamp::from_unix(seconds).amz_date(), text);
        }
        assert_eq!(Timestamp::from_unix(i64::MAX), Timestamp::from_unix(Timestamp::LAST));
        assert_eq!(Timestamp::from_unix(i64::MIN), Timestamp::from_unix(0));
        assert_eq!(Timestamp::from_unix(1_369_353_600).day(), "20130524");
        assert_eq!(Timestamp::from_unix(1_369_353_600).expiration(86_401), "2013-05-25T00:00:01Z");
        assert_eq!(Timestamp::from_unix(i64::MAX).expiration(u32::MAX), "9999-12-31T23:59:59Z");
    }

    proptest! {
        #[test]
        fn later_is_greater(one in 0..Timestamp::LAST, two in 0..Timestamp::LAST) {
            prop_assert_eq!(one.cmp(&two), Timestamp::from_unix(one).amz_date().cmp(Timestamp::from_unix(two).amz_date()));
        }
    }
}
