//! How long a presigned URL may live.

use crate::error::{Invalid, Token};

/// Seven days, the longest `X-Amz-Expires` that S3 accepts
/// (AWS, "Authenticating Requests: Using Query Parameters").
pub const MAX_SECONDS: u32 = 604_800;

/// A lifetime in whole seconds, from one second to [`MAX_SECONDS`].
///
/// # Errors
/// [`Token::InvalidExpiry`].
pub fn check_expiry(seconds: i64) -> Result<u32, Invalid> {
    match u32::try_from(seconds) {
        Ok(seconds @ 1..=MAX_SECONDS) => Ok(seconds),
        _ => Err(Invalid::new(Token::InvalidExpiry, "a URL lives between 1 second and 7 days")
            .with_detail(format!("{seconds} seconds."))
            .with_hint(format!("Give an interval between 1 second and 7 days ({MAX_SECONDS} seconds)."))),
    }
}

/// When a URL that is to live for `seconds` from `now` is signed, and for how long, so that it is the same URL each time
/// within a period. `now` is in seconds since 1970; a `period` of 0 is none.
///
/// It lives for at least `seconds` from now, for less than twice that, and for at most [`MAX_SECONDS`] from its
/// signing: the period is as short as that takes.
pub fn in_period(now: i64, seconds: u32, period: u32) -> (i64, u32) {
    let period = period.min(seconds).min(MAX_SECONDS.saturating_sub(seconds));
    if period == 0 {
        return (now, seconds);
    }
    (now - now.rem_euclid(period.into()), seconds + period)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_second_to_seven_days() {
        for good in [1, 60, 900, 604_800] {
            assert_eq!(i64::from(check_expiry(good).unwrap()), good);
        }
        for bad in [i64::MIN, -1, 0, 604_801, i64::from(u32::MAX) + 61, i64::MAX] {
            assert_eq!(check_expiry(bad).unwrap_err().token, Token::InvalidExpiry, "{bad}");
        }
    }

    #[test]
    fn a_period_begins_where_the_clock_is_a_multiple_of_it() {
        assert_eq!(in_period(7_199, 3_600, 1_800), (5_400, 5_400));
        assert_eq!(in_period(7_200, 3_600, 1_800), (7_200, 5_400));
        assert_eq!(in_period(7_199, 3_600, 0), (7_199, 3_600), "off");
        assert_eq!(in_period(7_199, 60, 1_800), (7_140, 120), "no URL lives twice as long as asked for");
        assert_eq!(in_period(7_199, MAX_SECONDS, 1_800), (7_199, MAX_SECONDS), "there is no room to round");
        assert_eq!(in_period(7_199, MAX_SECONDS - 100, 1_800), (7_100, MAX_SECONDS));
    }

    proptest! {
        #[test]
        fn no_period_shortens_a_lifetime_or_goes_beyond_its_bounds(
            now in 0..4_102_444_800i64,
            seconds in 1..=MAX_SECONDS,
            period in 0..=MAX_SECONDS,
        ) {
            let (signed, lives) = in_period(now, seconds, period);
            prop_assert!(signed <= now && (1..=MAX_SECONDS).contains(&lives));
            let left = signed + i64::from(lives) - now;
            prop_assert!(left >= i64::from(seconds) && left <= 2 * i64::from(seconds));
            // The same one second later, unless that is another period.
            let (later, as_long) = in_period(now + 1, seconds, period);
            prop_assert!(as_long == lives && (later == signed || later == now + 1));
        }
    }
}
