//! What no signer can do without: the hash of the canonical request and the HMAC of the string to sign, of the same
//! number and length, with the same code that the signer calls.

use std::hint::black_box;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// The texts that are hashed for one URL.
pub struct Hashing {
    canonical: Vec<u8>,
    to_sign: Vec<u8>,
    keyed: Hmac<Sha256>,
}

impl Hashing {
    /// As much as signing `url`, in which only `host` is a signed header, for `region`.
    pub fn of(url: &str, region: &str) -> Self {
        let (_, rest) = url.split_once("://").expect("a URL has a scheme");
        let (host, path_and_query) = rest.split_once('/').expect("a URL has a path");
        let (path_and_query, _) = path_and_query.split_once("&X-Amz-Signature=").expect("a URL is signed");
        // The question mark of the URL is a line's end here.
        let canonical = format!("GET\n/{path_and_query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
        let hash = "0".repeat(64);
        let to_sign =
            format!("AWS4-HMAC-SHA256\n20130524T000000Z\n20130524/{region}/s3/aws4_request\n{hash}");
        let keyed = Hmac::<Sha256>::new_from_slice(&[7; 32]).expect("a key of any length will do");
        Self { canonical: canonical.into_bytes(), to_sign: to_sign.into_bytes(), keyed }
    }

    /// For one URL.
    pub fn once(&self) {
        let hash = Sha256::digest(black_box(&self.canonical));
        let mut mac = self.keyed.clone();
        mac.update(black_box(&self.to_sign));
        black_box((hash, mac.finalize().into_bytes()));
    }
}
