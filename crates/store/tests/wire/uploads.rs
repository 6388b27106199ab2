//! What the tests of verification share: a promise, objects to answer with, and what may never be sent.

use md5::{Digest as _, Md5};
use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_store::verify::{Expected, Finding};

use crate::canned::{Reply, Server};

pub const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

/// As long as the PNG and also one, but other bytes.
pub fn other_png() -> Vec<u8> {
    let mut other = PNG.to_vec();
    other[15] ^= 1;
    other
}

pub fn expected(body: &[u8], content_type: &str) -> Expected {
    Expected {
        size: body.len() as u64,
        at_most: false,
        sha256: Some(Digest::of(body)),
        content_type: ContentType::parse(content_type).unwrap(),
        check_bytes: true,
        mark: None,
        cache_control: None,
    }
}

pub fn undeclared(body: &[u8], content_type: &str) -> Expected {
    Expected { sha256: None, ..expected(body, content_type) }
}

pub fn etag(body: &[u8]) -> String {
    format!("\"{}\"", Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// A GET or HEAD of `body`.
pub fn object(body: &[u8], content_type: &str) -> Reply {
    Reply::new(200).header("content-type", content_type).header("etag", &etag(body)).body(body)
}

/// The finding that a PNG of these bytes is as promised.
pub fn verified(body: &[u8]) -> Finding {
    Finding::Verified {
        size: body.len() as u64,
        sha256: Digest::of(body),
        etag: Some(etag(body)),
        content_type: "image/png".to_owned(),
    }
}

pub fn wrong_type(declared: &str, found: &str) -> Finding {
    Finding::ContentTypeMismatch { declared: declared.to_owned(), found: found.to_owned() }
}

/// Verification looks; the one thing it may write is the copy.
pub fn assert_harmless(server: &Server) {
    for line in server.lines() {
        let looks = line.starts_with("HEAD ") || line.starts_with("GET ");
        assert!(looks || line == "PUT /b/f", "{line}");
    }
}
