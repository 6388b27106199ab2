//! The checksums of S3: computed while the bytes pass, compared before anything is published.
//!
//! Rules from "Checking object integrity in Amazon S3" and the `PutObject` and `CompleteMultipartUpload` references.

use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::{S3Error, S3Result, s3_error};
use serde::{Deserialize, Serialize};

/// A checksum algorithm of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// CRC-32 (ISO-HDLC).
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME, what S3 computes when the client asks for nothing.
    Crc64nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// What a checksum was computed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coverage {
    /// All the bytes of the object.
    FullObject,
    /// The checksums of the parts, one after the other.
    Composite,
}

/// A checksum as S3 writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checksum {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// What it covers.
    pub coverage: Coverage,
    /// Base64; for a composite one followed by `-` and the number of parts.
    pub value: String,
}

impl Algorithm {
    /// Every algorithm, in the order of S3's documentation.
    pub const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64nvme, Self::Sha1, Self::Sha256];

    /// The name in `x-amz-checksum-algorithm` and in listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header that carries a value of this algorithm.
    pub fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// The algorithm of that name, any case.
    pub fn parse(name: &str) -> S3Result<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| s3_error!(InvalidRequest, "Checksum algorithm provided is unsupported."))
    }

    fn digest_len(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    fn hasher(self) -> ChecksumHasher {
        let mut hasher = ChecksumHasher::default();
        match self {
            Self::Crc32 => hasher.crc32 = Some(Crc32::new()),
            Self::Crc32c => hasher.crc32c = Some(Crc32c::new()),
            Self::Crc64nvme => hasher.crc64nvme = Some(Crc64Nvme::new()),
            Self::Sha1 => hasher.sha1 = Some(Sha1::new()),
            Self::Sha256 => hasher.sha256 = Some(Sha256::new()),
        }
        hasher
    }

    fn crc(self) -> Option<crc_fast::CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(crc_fast::CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(crc_fast::CrcAlgorithm::Crc32Iscsi),
            Self::Crc64nvme => Some(crc_fast::CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }
}

/// A running checksum.
pub struct Running {
    algorithm: Algorithm,
    hasher: ChecksumHasher,
}

impl Running {
    /// Starts one.
    pub fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, hasher: algorithm.hasher() }
    }

    /// Takes bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The checksum of everything taken in.
    pub fn finish(self) -> Checksum {
        let sums = self.hasher.finalize();
        let value = match self.algorithm {
            Algorithm::Crc32 => sums.checksum_crc32,
            Algorithm::Crc32c => sums.checksum_crc32c,
            Algorithm::Crc64nvme => sums.checksum_crc64nvme,
            Algorithm::Sha1 => sums.checksum_sha1,
            Algorithm::Sha256 => sums.checksum_sha256,
        };
        Checksum {
            algorithm: self.algorithm,
            coverage: Coverage::FullObject,
            value: value.unwrap_or_default(),
        }
    }
}

/// The one checksum among the values a request declares.
///
/// # Errors
/// `InvalidRequest` when there are several, or when the value is not base64 of the algorithm's length.
pub fn declared(values: [Option<String>; 5]) -> S3Result<Option<(Algorithm, String)>> {
    let mut given = Algorithm::ALL.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)));
    let Some((algorithm, value)) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(s3_error!(
            InvalidRequest,
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."
        ));
    }
    check_form(algorithm, &value)?;
    Ok(Some((algorithm, value)))
}

/// Refuses a value that cannot be a checksum of the algorithm.
pub fn check_form(algorithm: Algorithm, value: &str) -> S3Result<()> {
    match decode(value) {
        Some(bytes) if bytes.len() == algorithm.digest_len() => Ok(()),
        _ => Err(s3_error!(InvalidRequest, "Value for {} header is invalid.", algorithm.header())),
    }
}

/// The checksum of an object made of parts.
///
/// # Errors
/// `InvalidRequest` when a full-object checksum is asked of an algorithm that cannot be joined.
pub fn of_parts(algorithm: Algorithm, coverage: Coverage, parts: &[(&str, u64)]) -> S3Result<Checksum> {
    let value = match coverage {
        Coverage::Composite => composite(algorithm, parts)?,
        Coverage::FullObject => joined(algorithm, parts)?,
    };
    Ok(Checksum { algorithm, coverage, value })
}

fn composite(algorithm: Algorithm, parts: &[(&str, u64)]) -> S3Result<String> {
    let mut running = Running::new(algorithm);
    for (value, _) in parts {
        running.update(&decode(value).ok_or_else(undecodable)?);
    }
    Ok(format!("{}-{}", running.finish().value, parts.len()))
}

fn joined(algorithm: Algorithm, parts: &[(&str, u64)]) -> S3Result<String> {
    let crc = algorithm.crc().ok_or_else(|| {
        s3_error!(
            InvalidRequest,
            "The FULL_OBJECT checksum type cannot be used with the {} algorithm.",
            algorithm.name()
        )
    })?;
    let mut sum = None;
    for (value, size) in parts {
        let bytes = decode(value).ok_or_else(undecodable)?;
        let part = bytes.iter().fold(0u64, |number, byte| (number << 8) | u64::from(*byte));
        sum = Some(match sum {
            None => part,
            Some(before) => crc_fast::checksum_combine(crc, before, part, *size),
        });
    }
    let bytes = sum.unwrap_or_default().to_be_bytes();
    let from = bytes.len().saturating_sub(algorithm.digest_len());
    Ok(encode(bytes.get(from..).unwrap_or_default()))
}

fn undecodable() -> S3Error {
    s3_error!(InternalError, "a stored checksum is not base64")
}

/// Base64 as S3 writes it.
pub fn encode(bytes: &[u8]) -> String {
    base64_simd::STANDARD.encode_to_string(bytes)
}

/// The bytes of a base64 text.
pub fn decode(value: &str) -> Option<Vec<u8>> {
    base64_simd::STANDARD.decode_to_vec(value).ok()
}

/// The checksum values of a request type, in the order of [`Algorithm::ALL`].
macro_rules! checksum_values {
    ($input:expr) => {
        [
            $input.checksum_crc32.take(),
            $input.checksum_crc32c.take(),
            $input.checksum_crc64nvme.take(),
            $input.checksum_sha1.take(),
            $input.checksum_sha256.take(),
        ]
    };
}
pub(crate) use checksum_values;

/// Puts a checksum into the field of a response type that belongs to its algorithm.
macro_rules! show_checksum {
    ($output:expr, $checksum:expr) => {
        if let Some(checksum) = $checksum {
            let value = Some(checksum.value.clone());
            match checksum.algorithm {
                $crate::checksum::Algorithm::Crc32 => $output.checksum_crc32 = value,
                $crate::checksum::Algorithm::Crc32c => $output.checksum_crc32c = value,
                $crate::checksum::Algorithm::Crc64nvme => $output.checksum_crc64nvme = value,
                $crate::checksum::Algorithm::Sha1 => $output.checksum_sha1 = value,
                $crate::checksum::Algorithm::Sha256 => $output.checksum_sha256 = value,
            }
        }
    };
}
pub(crate) use show_checksum;

impl Coverage {
    /// As S3 writes it in `x-amz-checksum-type`.
    pub fn dto(self) -> s3s::dto::ChecksumType {
        s3s::dto::ChecksumType::from_static(match self {
            Self::FullObject => s3s::dto::ChecksumType::FULL_OBJECT,
            Self::Composite => s3s::dto::ChecksumType::COMPOSITE,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sum(algorithm: Algorithm, bytes: &[u8]) -> String {
        let mut running = Running::new(algorithm);
        running.update(bytes);
        running.finish().value
    }

    #[test]
    fn joining_the_sums_of_the_parts_gives_the_sum_of_the_whole() {
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64nvme] {
            let (left, right) = (sum(algorithm, b"hello "), sum(algorithm, b"world"));
            let whole = of_parts(algorithm, Coverage::FullObject, &[(&left, 6), (&right, 5)]).unwrap();
            assert_eq!(whole.value, sum(algorithm, b"hello world"), "{algorithm:?}");
        }
    }

    #[test]
    fn a_hash_of_the_whole_cannot_be_had_from_hashes_of_the_parts() {
        assert!(of_parts(Algorithm::Sha256, Coverage::FullObject, &[]).is_err());
    }

    #[test]
    fn one_declared_value_of_the_right_length_is_accepted() {
        let good = sum(Algorithm::Sha256, b"x");
        assert!(declared([None, None, None, None, Some(good.clone())]).unwrap().is_some());
        assert!(declared([Some("AAAAAA==".into()), None, None, None, Some(good)]).is_err());
        assert!(declared([None, None, None, None, Some("AAAAAA==".into())]).is_err());
        assert!(declared([None, None, None, None, Some("not base64!".into())]).is_err());
        assert!(declared(Default::default()).unwrap().is_none());
    }
}
