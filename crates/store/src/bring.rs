//! What the server brings into a store itself, at a key that nobody else can write, and the look at what came of it.

use pg_storage_core::digest::Digest;

use crate::copy;
use crate::error::{ErrorKind, StoreError};
use crate::store::{Description, HashOutcome, PutOptions, Store};

/// Where bytes come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// They are here.
    Value(Vec<u8>),
    /// The store has them.
    Object {
        /// Its bucket.
        bucket: String,
        /// Its key.
        key: String,
    },
}

/// What is to be brought.
#[derive(Clone, Debug)]
pub struct Bring {
    /// Where it comes from.
    pub source: Source,
    /// The bucket it goes to.
    pub bucket: String,
    /// The key it goes to.
    pub key: String,
    /// The content type to store.
    pub content_type: String,
    /// What the object shall tell caches.
    pub cache_control: Option<&'static str>,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub digest: Digest,
    /// Whether the store was seen to refuse a body that is not of the declared SHA-256: then it need not be read back.
    pub enforced: bool,
}

/// What the store has then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    /// Its entity tag, as sent.
    pub etag: Option<String>,
    /// Its leading bytes, where it was read back.
    pub head: Option<Vec<u8>>,
}

impl Bring {
    /// Has the store hold the bytes, and looks whether it does.
    ///
    /// A copy is always read: no store was seen to refuse a wrong one.
    ///
    /// # Errors
    /// `Unexpected` where the store has something else then, and whatever the calls fail with.
    pub async fn carry_out(self, store: &impl Store) -> Result<Brought, StoreError> {
        let Self { source, bucket, key, content_type, cache_control, size, digest, enforced } = self;
        let description = Description { content_type: &content_type, cache_control };
        let wrong = |operation| {
            let message = "the store has not what it was given";
            Err(StoreError::local(ErrorKind::Unexpected, operation, message))
        };
        match source {
            Source::Value(bytes) => {
                let options = PutOptions { description, sha256: Some(&digest), create_only: false };
                store.put(&bucket, &key, bytes, options).await?;
                if enforced {
                    return match store.head(&bucket, &key).await? {
                        Some(head) if head.size == size => Ok(Brought { etag: head.etag, head: None }),
                        _ => wrong("HeadObject"),
                    };
                }
            }
            Source::Object { bucket: from, key: from_key } => {
                let source = copy::Source { bucket: &from, key: &from_key, size, etag: None };
                copy::copy(store, source, &bucket, &key, Some(description)).await?;
            }
        }
        match store.hash_object(&bucket, &key, size).await? {
            HashOutcome::Complete(read) if read.size == size && read.sha256 == digest => {
                Ok(Brought { etag: read.etag, head: Some(read.head) })
            }
            _ => wrong("GetObject"),
        }
    }
}
