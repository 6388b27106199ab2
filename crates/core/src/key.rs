//! Object keys. Only the server makes keys; no part of one is taken from a client as it came.

use uuid::{Builder, Uuid};

use crate::digest::Digest;
use crate::slug::{fingerprint, slug};

/// Where bytes wait whose hash nobody declared, until confirm has seen them.
const STAGING: &str = "staging";

/// Where the store's capabilities are tried out. Nothing under it is ever anyone's file.
pub const SCRATCH_PREFIX: &str = "scratch/";

/// A tenant as one key segment of `[A-Za-z0-9_.-]`, at most 64 bytes.
///
/// Tenants of 1 to 64 of `[A-Za-z0-9_-]` are taken verbatim, except those that would read as one of our own folders; any
/// other becomes `{readable part}.{12 hexadecimal digits of its SHA-256}`. The dot keeps the two forms apart.
pub fn tenant_segment(tenant: &str) -> String {
    let plain = tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    // Compared without case: a store on a case-insensitive file system takes "Staging" for "staging".
    let reserved = [STAGING, "scratch"].iter().any(|folder| tenant.eq_ignore_ascii_case(folder));
    if plain && !reserved && (1..=64).contains(&tenant.len()) {
        return tenant.to_owned();
    }
    let readable = slug(tenant, 40);
    let readable = if readable.is_empty() { "tenant" } else { &readable };
    format!("{readable}.{}", fingerprint(&[tenant]))
}

/// The final key of bytes whose hash was declared: `{tenant}/{bucket id}/{sha256}/{upload id}`.
///
/// The upload's id makes it unique: two uploads of the same bytes never share a key, so neither can touch the other's.
pub fn content_key(tenant: &str, bucket_id: &Uuid, sha256: &Digest, upload_id: &Uuid) -> String {
    format!("{}/{bucket_id}/{sha256}/{upload_id}", tenant_segment(tenant))
}

/// The final key of bytes whose hash was not declared: `{tenant}/{bucket id}/undeclared/{upload id}`. It is known before
/// the bytes are, so that what a confirmation copied there can be found again after a ROLLBACK.
pub fn undeclared_key(tenant: &str, bucket_id: &Uuid, upload_id: &Uuid) -> String {
    format!("{}/{bucket_id}/undeclared/{upload_id}", tenant_segment(tenant))
}

/// The key under which bytes arrive that have to be read before they are believed: `staging/{tenant}/{upload id}`.
pub fn staging_key(tenant: &str, upload_id: &Uuid) -> String {
    format!("{STAGING}/{}/{upload_id}", tenant_segment(tenant))
}

/// The database that makes keys. Several may share a physical bucket: those of one cluster the local store's, those of
/// an operator a fixed one, a copy its original's. So every key tells who made it, in the upload id that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maker([u8; 6]);

impl Maker {
    /// The database with this oid in the cluster with this system identifier.
    pub fn new(system_identifier: u64, database: u32) -> Self {
        let mark = fingerprint(&[&system_identifier.to_string(), &database.to_string()]);
        let mut bytes = [0; 6];
        for (byte, digits) in bytes.iter_mut().zip(mark.as_bytes().chunks(2)) {
            // A fingerprint is twelve hexadecimal digits.
            *byte =
                std::str::from_utf8(digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok()).unwrap_or(0);
        }
        Self(bytes)
    }

    /// A new upload id: a UUID of version 8 that begins with this maker's mark and is random otherwise.
    pub fn upload_id(self) -> Uuid {
        let mut bytes = *Uuid::new_v4().as_bytes();
        for (byte, mark) in bytes.iter_mut().zip(self.0) {
            *byte = mark;
        }
        Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Whether an upload id is one of this maker's.
    pub fn made(self, upload_id: &Uuid) -> bool {
        upload_id.get_version_num() == 8 && upload_id.as_bytes().starts_with(&self.0)
    }
}

/// The key of the copy that one attempt to confirm makes: the upload's final key and eight random hexadecimal digits.
///
/// A store may carry out a copy long after its caller gave up. It must not land on what a later attempt verified.
pub fn attempt_key(final_key: &str) -> String {
    let (random, ..) = Uuid::new_v4().as_fields();
    format!("{final_key}/{random:08x}")
}

/// The upload whose bytes a key holds, staged or final; `None` for what is not a key of ours.
pub fn upload_of(key: &str) -> Option<Uuid> {
    let mut segments = key.rsplit('/');
    let last = segments.next()?;
    let id = if is_attempt(last) { segments.next()? } else { last };
    // Only as keys spell it: a parser that takes other spellings would take other keys for ours.
    Uuid::try_parse(id).ok().filter(|upload| upload.hyphenated().to_string() == id)
}

/// Whether a key's last segment is that of a copy made by one attempt to confirm.
fn is_attempt(segment: &str) -> bool {
    segment.len() == 8 && segment.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_tenants_are_verbatim() {
        let longest = "a".repeat(64);
        for plain in ["acme", "Acme_2-x", "0", "-", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", longest.as_str()]
        {
            assert_eq!(tenant_segment(plain), plain);
        }
    }

    #[test]
    fn other_tenants_are_hashed() {
        let too_long = "a".repeat(65);
        for other in [
            "",
            "..",
            "a/b",
            "a.b",
            "a b",
            "é",
            "staging",
            "STAGING",
            "scratch",
            "日本",
            "a\0",
            too_long.as_str(),
        ] {
            let segment = tenant_segment(other);
            let (readable, hash) = segment.split_once('.').unwrap_or_default();
            assert!(!readable.is_empty() && hash.len() == 12, "{other:?}: {segment}");
        }
        assert_ne!(tenant_segment("a/b"), tenant_segment("a b"));
        assert_ne!(tenant_segment("É"), tenant_segment("é"));
    }

    #[test]
    fn keys() {
        let bucket = Uuid::from_u128(1);
        let upload = Uuid::from_u128(2);
        assert_eq!(
            content_key("acme", &bucket, &Digest::of(b""), &upload),
            "acme/00000000-0000-0000-0000-000000000001/\
             e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/00000000-0000-0000-0000-000000000002"
        );
        assert_eq!(staging_key("acme", &upload), "staging/acme/00000000-0000-0000-0000-000000000002");
        assert_eq!(staging_key("staging", &upload).split('/').count(), 3);
    }

    #[test]
    fn attempts_are_told_apart() {
        let keys: std::collections::HashSet<String> = (0..100).map(|_| attempt_key("a/b")).collect();
        assert_eq!(keys.len(), 100);
        assert!(keys.iter().all(|key| key.len() == 12 && key.starts_with("a/b/")));
    }

    #[test]
    fn a_key_tells_its_upload_and_its_maker() {
        let (ours, theirs) = (Maker::new(7_000_000_000, 5), Maker::new(7_000_000_000, 16_384));
        let upload = ours.upload_id();
        assert!(ours.made(&upload) && !theirs.made(&upload) && ours.upload_id() != upload);
        assert!(!ours.made(&Uuid::new_v4()));
        let bucket = Uuid::from_u128(1);
        let keys = [
            content_key("acme", &bucket, &Digest::of(b""), &upload),
            undeclared_key("acme", &bucket, &upload),
            format!("app/private/{}", staging_key("a/b", &upload)),
            attempt_key(&undeclared_key("acme", &bucket, &upload)),
        ];
        for key in keys {
            assert_eq!(upload_of(&key), Some(upload), "{key}");
        }
        let spelt = upload.simple().to_string();
        for foreign in
            ["", "/", "photo.jpg", "a/0123abcd", &format!("a/{spelt}"), &format!("{upload}/0123ABCD")]
        {
            assert_eq!(upload_of(foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn a_tenant_is_one_safe_segment(tenant: String) {
            let segment = tenant_segment(&tenant);
            prop_assert!((1..=64).contains(&segment.len()));
            prop_assert!(segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)));
            prop_assert!(!segment.starts_with('.') && !segment.contains(".."));
            prop_assert!(!content_key(&tenant, &Uuid::nil(), &Digest::of(b""), &Uuid::nil()).starts_with("staging/"));
        }

        #[test]
        fn a_hashed_segment_is_nobodys_verbatim_one(tenant: String) {
            let segment = tenant_segment(&tenant);
            prop_assert!(segment == tenant || tenant_segment(&segment) != segment);
        }
    }
}
