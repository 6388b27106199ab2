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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn one_second_to_seven_days() {
        for good in [1, 60, 900, 604_800] {
            assert_eq!(i64::from(check_expiry(good).unwrap()), good);
        }
        for bad in [i64::MIN, -1, 0, 604_801, i64::from(u32::MAX) + 61, i64::MAX] {
            assert_eq!(check_expiry(bad).unwrap_err().token, Token::InvalidExpiry, "{bad}");
        }
    }
}
