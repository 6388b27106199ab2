//! Where the next page of a listing begins, as a text that its client hands back and can neither read usefully nor change.
//!
//! A position is a value and no offset: what is written meanwhile moves nothing. It is authenticated together with the
//! listing it belongs to, so that it fits no other.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

use crate::error::{Invalid, Token};

/// By what a listing is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By the bytes of the path; files without one come last.
    Path,
    /// Latest first.
    Newest,
    /// Largest first.
    Largest,
}

impl Order {
    /// The order of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "path" => Some(Self::Path),
            "newest" => Some(Self::Newest),
            "largest" => Some(Self::Largest),
            _ => None,
        }
    }
}

/// What is listed.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a> {
    /// The bucket.
    pub bucket: Uuid,
    /// What the paths begin with.
    pub prefix: &'a str,
    /// What ends a folder; `None`: there are none.
    pub delimiter: Option<&'a str>,
    /// By what it is sorted.
    pub order: Order,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// At this path, or the next one there is.
    Path(String),
    /// Among the files without a path, after this one.
    Pathless(Uuid),
    /// After this file of this time, in PostgreSQL's microseconds.
    Newest(i64, Uuid),
    /// After this file of this size.
    Largest(i64, Uuid),
}

/// Bytes of the authenticator.
const TAG: usize = 16;

/// The token of a position.
pub fn seal(key: &[u8], listing: &Listing<'_>, position: &Position) -> String {
    let mut token = encode(position);
    let tag = authenticator(key, listing, &token).finalize().into_bytes();
    token.extend(tag.iter().take(TAG));
    URL_SAFE_NO_PAD.encode(token)
}

/// The position of a token.
///
/// # Errors
/// [`Token::InvalidPageToken`] for one that was not sealed with this key for this listing.
pub fn open(key: &[u8], listing: &Listing<'_>, token: &str) -> Result<Position, Invalid> {
    let opened = || {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (body, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG)?)?;
        authenticator(key, listing, body).verify_truncated_left(tag).ok()?;
        decode(body)
    };
    opened().ok_or_else(|| {
        Invalid::new(Token::InvalidPageToken, "this listing has no such page token").with_hint(
            "Pass page_token as the last row of the page before had it, with the same bucket, prefix, delimiter and order, \
             or begin again without one.",
        )
    })
}

fn authenticator(key: &[u8], listing: &Listing<'_>, body: &[u8]) -> Hmac<Sha256> {
    #[allow(clippy::expect_used)]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    let order = match listing.order {
        Order::Path => 0u8,
        Order::Newest => 1,
        Order::Largest => 2,
    };
    mac.update(b"pg_storage page 1");
    mac.update(listing.bucket.as_bytes());
    mac.update(&[order, u8::from(listing.delimiter.is_some())]);
    for field in [listing.prefix.as_bytes(), listing.delimiter.unwrap_or_default().as_bytes(), body] {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field);
    }
    mac
}

fn encode(position: &Position) -> Vec<u8> {
    match position {
        Position::Path(path) => [&[0], path.as_bytes()].concat(),
        Position::Pathless(id) => [&[1], id.as_bytes().as_slice()].concat(),
        Position::Newest(time, id) => [&[2], time.to_be_bytes().as_slice(), id.as_bytes()].concat(),
        Position::Largest(size, id) => [&[3], size.to_be_bytes().as_slice(), id.as_bytes()].concat(),
    }
}

fn decode(body: &[u8]) -> Option<Position> {
    let (kind, rest) = body.split_first()?;
    let numbered = || {
        let (number, id) = rest.split_first_chunk::<8>()?;
        Some((i64::from_be_bytes(*number), Uuid::from_slice(id).ok()?))
    };
    match kind {
        0 => Some(Position::Path(std::str::from_utf8(rest).ok()?.to_owned())),
        1 => Some(Position::Pathless(Uuid::from_slice(rest).ok()?)),
        2 => numbered().map(|(time, id)| Position::Newest(time, id)),
        3 => numbered().map(|(size, id)| Position::Largest(size, id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    const KEY: &[u8] = b"a key of this database";
    const LISTING: Listing<'static> =
        Listing { bucket: Uuid::from_u128(7), prefix: "docs/", delimiter: Some("/"), order: Order::Path };

    fn positions() -> [Position; 5] {
        let id = Uuid::from_u128(0x0123_4567_89ab_cdef);
        [
            Position::Path("docs/größe.txt\u{1}".to_owned()),
            Position::Path(String::new()),
            Position::Pathless(id),
            Position::Newest(-1, id),
            Position::Largest(i64::MAX, id),
        ]
    }

    #[test]
    fn what_was_sealed_opens() {
        for position in positions() {
            let token = seal(KEY, &LISTING, &position);
            assert!(token.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_'), "{token}");
            assert_eq!(open(KEY, &LISTING, &token).unwrap(), position);
        }
    }

    #[test]
    fn it_opens_for_no_other_listing_and_no_other_key() {
        for position in positions() {
            let token = seal(KEY, &LISTING, &position);
            for other in [
                Listing { bucket: Uuid::from_u128(8), ..LISTING },
                Listing { prefix: "docs", delimiter: Some("//"), ..LISTING },
                Listing { prefix: "docs//", delimiter: Some(""), ..LISTING },
                Listing { prefix: "", ..LISTING },
                Listing { delimiter: None, ..LISTING },
                Listing { order: Order::Newest, ..LISTING },
                Listing { order: Order::Largest, ..LISTING },
            ] {
                assert_eq!(
                    open(KEY, &other, &token).unwrap_err().token,
                    Token::InvalidPageToken,
                    "{other:?}"
                );
            }
            assert!(open(b"another", &LISTING, &token).is_err());
        }
    }

    #[test]
    fn a_changed_token_is_none() {
        for position in positions() {
            let token = seal(KEY, &LISTING, &position);
            let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
            for place in 0..bytes.len() {
                for bit in 0..8 {
                    let mut changed = bytes.clone();
                    changed[place] ^= 1 << bit;
                    assert!(open(KEY, &LISTING, &URL_SAFE_NO_PAD.encode(changed)).is_err());
                }
                assert!(open(KEY, &LISTING, &URL_SAFE_NO_PAD.encode(&bytes[..place])).is_err());
            }
            assert!(open(KEY, &LISTING, &format!("{token}A")).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused(token in "\\PC{0,80}") {
            prop_assert!(open(KEY, &LISTING, &token).is_err());
        }
    }
}
