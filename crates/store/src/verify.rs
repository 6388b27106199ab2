//! What confirming an upload asks the store: are exactly the promised bytes there?
//!
//! Two ways, chosen by what the store was seen to enforce. *Direct*: the store refused every other body at upload,
//! so a HEAD is enough. *Staged*: the bytes are read through SHA-256 and copied to a key that no URL names.

use pg_storage_core::agreement;
use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;

use crate::error::{ErrorKind, StoreError};
use crate::probe::{Capabilities, Support};
use crate::store::{HEAD_BYTES, HashOutcome, ObjectHash, ObjectHead, Store};

/// The largest object that one `CopyObject` takes (AWS: 5 GiB).
const MAX_COPY: u64 = 5 * 1024 * 1024 * 1024;

/// How often a staged object is read again because it was overwritten meanwhile.
const TRIES: u32 = 3;

const STAGED: &str = "verify";

/// What the upload promised.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, if declared.
    pub sha256: Option<Digest>,
    /// Its content type.
    pub content_type: ContentType,
    /// Whether the leading bytes must agree with the content type.
    pub check_bytes: bool,
}

/// What was found. When several things are wrong, the first in this order is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing has arrived.
    Absent,
    /// An object without bytes.
    Empty,
    /// Another length. When reading stopped at a limit, `found` may be less than the whole.
    SizeMismatch {
        /// Bytes promised.
        declared: u64,
        /// Bytes found.
        found: u64,
    },
    /// Other bytes.
    HashMismatch {
        /// The SHA-256 promised.
        declared: Digest,
        /// The SHA-256 found.
        found: Digest,
    },
    /// Another content type, by the store's record or by the leading bytes.
    ContentTypeMismatch {
        /// The type promised.
        declared: String,
        /// The type found.
        found: String,
    },
    /// All as promised.
    Verified {
        /// Its length in bytes.
        size: u64,
        /// Its SHA-256: enforced by the store at upload (direct) or computed here (staged).
        sha256: Digest,
        /// The entity tag of the object to be kept, as sent.
        etag: Option<String>,
        /// The content type it is stored with.
        content_type: String,
        /// The type its leading bytes show, if they were looked at and show one.
        detected: Option<&'static str>,
    },
}

/// The outcome of the staged way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// What was found.
    pub finding: Finding,
    /// Where the verified copy is; only with [`Finding::Verified`].
    pub final_key: Option<String>,
}

impl From<Finding> for Staged {
    fn from(finding: Finding) -> Self {
        Self { finding, final_key: None }
    }
}

/// Looks at an upload that the store itself held to its declared hash, at its final key.
///
/// # Errors
/// `Invalid` if no hash was declared, `NoSuchBucket` if the bucket is gone, and whatever a HEAD fails with.
pub async fn direct(
    store: &impl Store,
    bucket: &str,
    key: &str,
    expected: &Expected,
) -> Result<Finding, StoreError> {
    let Some(declared) = &expected.sha256 else {
        let message = "an upload without a declared hash cannot be verified by HEAD";
        return Err(StoreError::local(ErrorKind::Invalid, "HeadObject", message));
    };
    let (head, leading) = if expected.check_bytes {
        let len = HEAD_BYTES as u64;
        let (head, leading) = tokio::join!(store.head(bucket, key), store.get_range(bucket, key, 0, len));
        (head?, Some(leading))
    } else {
        (store.head(bucket, key).await?, None)
    };
    let Some(head) = head else { return absent(store, bucket).await };
    if let Some(finding) = wrong_size(expected, head.size) {
        return Ok(finding);
    }
    if let Some(found) = head.sha256.filter(|found| found != declared) {
        return Ok(Finding::HashMismatch { declared: *declared, found });
    }
    let leading = leading.transpose()?;
    match agreed_type(expected, head.content_type, leading.as_deref()) {
        Err(mismatch) => Ok(mismatch),
        Ok((content_type, detected)) => Ok(Finding::Verified {
            size: head.size,
            sha256: *declared,
            etag: head.etag,
            content_type,
            detected,
        }),
    }
}

/// Reads an upload, copies it to the key that `final_key` makes of its hash, and makes sure that the copy holds
/// the bytes that were read. The staging object stays; removing it is the caller's business.
///
/// Memory does not grow with the object. Reading stops beyond `cap` bytes or the promised size, whichever is less.
///
/// # Errors
/// `NoSuchBucket` if the bucket is gone, `Invalid` above 5 GiB or `cap`, `Precondition` if the object kept changing while
/// it was looked at, and whatever the calls fail with. A copy that cannot be vouched for is removed.
pub async fn staged(
    store: &impl Store,
    bucket: &str,
    staging_key: &str,
    final_key: impl Fn(&Digest) -> String + Send,
    expected: &Expected,
    cap: u64,
    capabilities: &Capabilities,
) -> Result<Staged, StoreError> {
    if expected.size > MAX_COPY {
        let message = "objects above 5 GiB cannot be copied in one piece";
        return Err(StoreError::local(ErrorKind::Invalid, "CopyObject", message));
    }
    for _ in 0..TRIES {
        let read = match store.hash_object(bucket, staging_key, cap.min(expected.size)).await {
            Ok(HashOutcome::Complete(read)) => read,
            Ok(HashOutcome::OverCap { size }) if size > expected.size => {
                return Ok(Finding::SizeMismatch { declared: expected.size, found: size }.into());
            }
            Ok(HashOutcome::OverCap { .. }) => {
                let message = format!("the object is larger than the {cap} bytes that may be read");
                return Err(StoreError::local(ErrorKind::Invalid, STAGED, message));
            }
            Err(error) if error.kind == ErrorKind::NotFound => {
                return absent(store, bucket).await.map(Staged::from);
            }
            Err(error) => return Err(error),
        };
        let (content_type, detected) = match judge(expected, &read) {
            Ok(agreed) => agreed,
            Err(finding) => return Ok(finding.into()),
        };
        let key = final_key(&read.sha256);
        let source = Source { bucket, key: staging_key, read: &read, capabilities };
        if let Some(copy) = source.copy_to(store, &key, &content_type).await? {
            let finding = Finding::Verified {
                size: read.size,
                sha256: read.sha256,
                etag: copy.etag,
                content_type,
                detected,
            };
            return Ok(Staged { finding, final_key: Some(key) });
        }
    }
    let message = "the uploaded object kept changing while it was verified";
    Err(StoreError::local(ErrorKind::Precondition, STAGED, message))
}

/// A staged object as it was when it was read.
struct Source<'a> {
    bucket: &'a str,
    key: &'a str,
    read: &'a ObjectHash,
    capabilities: &'a Capabilities,
}

impl Source<'_> {
    /// The copy at `key` if it is what was read; `None` if the source changed in between.
    async fn copy_to(
        &self,
        store: &impl Store,
        key: &str,
        content_type: &str,
    ) -> Result<Option<ObjectHead>, StoreError> {
        let honoured = self.capabilities.copy_source_if_match == Support::Enforced;
        let pin = self.read.etag.as_deref().filter(|_| honoured);
        match store.copy(self.bucket, self.key, self.bucket, key, pin, content_type).await {
            Ok(_) => {}
            // Gone or replaced since it was read: the next reading finds out which.
            Err(error) if matches!(error.kind, ErrorKind::Precondition | ErrorKind::NotFound) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        match self.vouch(store, key, pin.is_some()).await {
            Ok(Some(copy)) => Ok(Some(copy)),
            refuted => {
                // Best effort: the key holds unverified bytes, but no row will ever name it.
                let _ = store.delete_batch(self.bucket, &[key.to_owned()]).await;
                refuted
            }
        }
    }

    /// The copy's HEAD if the copy is known to be what was read.
    async fn vouch(
        &self,
        store: &impl Store,
        key: &str,
        pinned: bool,
    ) -> Result<Option<ObjectHead>, StoreError> {
        let Some(copy) = store.head(self.bucket, key).await? else {
            let message = "the store reported a copy that is not there";
            return Err(StoreError::local(ErrorKind::Unexpected, "CopyObject", message));
        };
        if copy.size != self.read.size {
            return Ok(None);
        }
        // Only a store that refuses wrong sums computes its own; others echo what an uploader declared.
        let computed = self.capabilities.checksum == Support::Enforced;
        match copy.sha256 {
            Some(sum) if sum != self.read.sha256 => return Ok(None),
            Some(_) if computed => return Ok(Some(copy)),
            _ => {}
        }
        let unchanged = pinned || self.source_is_unchanged(store).await?;
        if !unchanged {
            return Ok(None);
        }
        match same_content(self.read.etag.as_deref(), copy.etag.as_deref()) {
            Some(same) => Ok(same.then_some(copy)),
            None => self.read_copy(store, key, copy).await,
        }
    }

    async fn source_is_unchanged(&self, store: &impl Store) -> Result<bool, StoreError> {
        let after = store.head(self.bucket, self.key).await?;
        Ok(after.is_some_and(|now| now.size == self.read.size && now.etag == self.read.etag))
    }

    /// Entity tags that say nothing (parts, encryption) leave only the bytes themselves.
    async fn read_copy(
        &self,
        store: &impl Store,
        key: &str,
        copy: ObjectHead,
    ) -> Result<Option<ObjectHead>, StoreError> {
        match store.hash_object(self.bucket, key, self.read.size).await? {
            HashOutcome::Complete(again) if again.sha256 == self.read.sha256 => Ok(Some(copy)),
            _ => Ok(None),
        }
    }
}

/// Whether two entity tags mean the same content; `None` if they cannot tell. Only tags that look like an MD5 are
/// made of the content alone.
fn same_content(one: Option<&str>, other: Option<&str>) -> Option<bool> {
    let digest = |tag: &str| {
        let tag = tag.trim_matches('"');
        (tag.len() == 32 && tag.bytes().all(|b| b.is_ascii_hexdigit())).then(|| tag.to_ascii_lowercase())
    };
    Some(digest(one?)? == digest(other?)?)
}

/// Nothing at the key: not yet uploaded, or is the bucket itself gone?
async fn absent(store: &impl Store, bucket: &str) -> Result<Finding, StoreError> {
    match store.head_bucket(bucket).await {
        Ok(false) => Err(StoreError::local(
            ErrorKind::NoSuchBucket,
            "HeadBucket",
            format!("the bucket {bucket} does not exist"),
        )),
        // Credentials that may not ask about the bucket can still be told that the object is absent.
        _ => Ok(Finding::Absent),
    }
}

/// Size, hash and type of bytes that were read: the type to store them with, and what they look like.
fn judge(expected: &Expected, read: &ObjectHash) -> Result<(String, Option<&'static str>), Finding> {
    if let Some(finding) = wrong_size(expected, read.size) {
        return Err(finding);
    }
    if let Some(declared) = expected.sha256.as_ref().filter(|declared| **declared != read.sha256) {
        return Err(Finding::HashMismatch { declared: *declared, found: read.sha256 });
    }
    let leading = expected.check_bytes.then_some(read.head.as_slice());
    agreed_type(expected, read.content_type.clone(), leading)
}

fn wrong_size(expected: &Expected, found: u64) -> Option<Finding> {
    match found {
        0 => Some(Finding::Empty),
        _ if found != expected.size => Some(Finding::SizeMismatch { declared: expected.size, found }),
        _ => None,
    }
}

/// The stored type and the leading bytes against the declared type; silence agrees.
fn agreed_type(
    expected: &Expected,
    stored: Option<String>,
    leading: Option<&[u8]>,
) -> Result<(String, Option<&'static str>), Finding> {
    let declared = &expected.content_type;
    let mismatch =
        |found: String| Finding::ContentTypeMismatch { declared: declared.as_str().to_owned(), found };
    let stored = stored.unwrap_or_else(|| declared.as_str().to_owned());
    if !ContentType::parse(&stored).is_ok_and(|stored| stored.essence() == declared.essence()) {
        return Err(mismatch(stored));
    }
    let detected = leading.and_then(agreement::sniff);
    match detected {
        Some(found) if !agreement::agrees(declared, found) => Err(mismatch(found.to_owned())),
        _ => Ok((stored, detected)),
    }
}
