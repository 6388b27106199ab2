//! How a file is divided into the parts of a multipart upload: all equal, the last one shorter.

use crate::error::{Invalid, Token};

const MIB: u64 = 1024 * 1024;

/// The smallest part but the last, in bytes: S3's limit.
pub const SMALLEST: u64 = 5 * MIB;

/// The largest part, in bytes: S3's limit, which is that of a single PUT as well.
pub const LARGEST: u64 = 5 * 1024 * MIB;

/// The most parts: S3's limit.
pub const MOST: u64 = 10_000;

/// The usual part: large enough for the way to the store not to count, small enough to be sent again.
const USUAL: u64 = 16 * MIB;

/// A file and its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    size: u64,
    part_size: u64,
}

impl Parts {
    /// The parts of a file of `size` bytes, each of `part_size` bytes; without one, of the usual size or of what keeps
    /// their number within the limit.
    ///
    /// # Errors
    /// [`Token::InvalidPart`].
    pub fn divide(size: u64, part_size: Option<i64>) -> Result<Self, Invalid> {
        let part_size = match part_size {
            Some(asked) => u64::try_from(asked).unwrap_or(0),
            None => USUAL.max(size.div_ceil(MOST).next_multiple_of(MIB)),
        };
        if !(SMALLEST..=LARGEST).contains(&part_size) {
            return Err(Invalid::new(
                Token::InvalidPart,
                format!("a part has {SMALLEST} to {LARGEST} bytes"),
            )
            .with_detail(format!("{part_size} bytes were asked for."))
            .with_hint("Leave part_size out to have one chosen."));
        }
        let parts = Self { size, part_size };
        if size.div_ceil(part_size) > MOST {
            return Err(Invalid::new(Token::InvalidPart, format!("an upload has at most {MOST} parts"))
                .with_detail(format!(
                    "{size} bytes are {} parts of {part_size} bytes.",
                    size.div_ceil(part_size)
                ))
                .with_hint("Ask for larger parts, or leave part_size out to have one chosen."));
        }
        Ok(parts)
    }

    /// Bytes of each part but the last.
    pub const fn part_size(&self) -> u64 {
        self.part_size
    }

    /// How many there are.
    #[expect(clippy::cast_possible_truncation, reason = "at most 10,000")]
    pub const fn count(&self) -> i32 {
        self.size.div_ceil(self.part_size) as i32
    }

    /// First byte and number of bytes of a part.
    ///
    /// # Errors
    /// [`Token::InvalidPart`] for a part that there is not.
    pub fn place(&self, number: i32) -> Result<(u64, u64), Invalid> {
        match u64::try_from(number).ok().filter(|_| (1..=self.count()).contains(&number)) {
            Some(nth) => {
                let start = (nth - 1) * self.part_size;
                Ok((start, self.part_size.min(self.size - start)))
            }
            None => Err(Invalid::new(Token::InvalidPart, "the upload has no such part")
                .with_detail(format!("Asked for part {number} of {}.", self.count()))
                .with_hint("Parts are numbered from 1.")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const TIB: u64 = 1024 * 1024 * MIB;

    #[test]
    fn parts_are_equal_and_cover_the_file() {
        for size in [1, 5 * MIB, 16 * MIB, 16 * MIB + 1, 6 * 1024 * MIB, 5 * TIB - 1, 5 * TIB] {
            let parts = Parts::divide(size, None).unwrap();
            let mut end = 0;
            for number in 1..=parts.count() {
                let (start, bytes) = parts.place(number).unwrap();
                assert_eq!(start, end);
                assert!(number == parts.count() || bytes == parts.part_size());
                end = start + bytes;
            }
            assert_eq!(end, size);
            assert!(parts.count() as u64 <= MOST && parts.part_size() >= SMALLEST);
        }
    }

    #[test]
    fn limits_of_s3_are_kept() {
        let token = |size, part_size| Parts::divide(size, Some(part_size)).unwrap_err().token;
        for part_size in [i64::MIN, -1, 0, 1, SMALLEST as i64 - 1, LARGEST as i64 + 1, i64::MAX] {
            assert_eq!(token(100 * MIB, part_size), Token::InvalidPart, "{part_size}");
        }
        assert_eq!(Parts::divide(MOST * SMALLEST, Some(SMALLEST as i64)).unwrap().count(), 10_000);
        assert_eq!(token(MOST * SMALLEST + 1, SMALLEST as i64), Token::InvalidPart);
        let parts = Parts::divide(11 * MIB, Some(SMALLEST as i64)).unwrap();
        assert_eq!(parts.place(3).unwrap(), (10 * MIB, MIB));
        for number in [i32::MIN, -1, 0, 4, i32::MAX] {
            assert_eq!(parts.place(number).unwrap_err().token, Token::InvalidPart, "{number}");
        }
    }
}
