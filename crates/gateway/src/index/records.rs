//! The records of the index, stored as JSON so that a field can be added without rewriting a store.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use s3s::dto::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checksum::Checksum;

/// Milliseconds since 1970, what the index keeps of a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(pub u64);

impl Moment {
    /// The wall clock.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// This moment some days later (a day is 86,400 seconds).
    pub fn plus_days(self, days: u32) -> Self {
        Self(self.0.saturating_add(u64::from(days) * 86_400_000))
    }

    /// In the form S3 answers with: whole seconds, as HTTP dates have no more.
    pub fn timestamp(self) -> Timestamp {
        Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(self.0 / 1000))
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A bucket and its settings, each as the document the client sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bucket {
    /// When it was created.
    pub created: Moment,
    /// The CORS configuration, XML.
    pub cors: Option<String>,
    /// The lifecycle configuration, XML.
    pub lifecycle: Option<String>,
    /// The bucket policy, JSON.
    pub policy: Option<String>,
    /// The public access block, XML.
    pub access_block: Option<String>,
}

/// One run of an object's bytes: a whole blob. A multipart object has one per part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The blob.
    pub blob: Uuid,
    /// Its length in bytes.
    pub size: u64,
}

/// The headers that are kept with an object and given back with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headers {
    /// `Content-Type` exactly as it was declared.
    pub content_type: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Encoding`, without the transport's `aws-chunked`.
    pub content_encoding: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Expires`.
    pub expires: Option<Timestamp>,
    /// `x-amz-meta-*`, names without the prefix.
    pub user: BTreeMap<String, String>,
}

/// An object: where its bytes are and everything told about it. One record, so both change together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its length in bytes.
    pub size: u64,
    /// The entity tag without quotes.
    pub etag: String,
    /// When it was last written.
    pub modified: Moment,
    /// The checksum kept with it.
    pub checksum: Option<Checksum>,
    /// The headers kept with it.
    pub headers: Headers,
    /// Its bytes, in order.
    pub segments: Vec<Segment>,
}

/// What a listing shows of an object; decodes from the same record.
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    /// Length in bytes.
    pub size: u64,
    /// The entity tag without quotes.
    pub etag: String,
    /// When it was last written.
    pub modified: Moment,
    /// The checksum kept with it.
    pub checksum: Option<Checksum>,
}

/// A multipart upload that is neither completed nor aborted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upload {
    /// When it was started.
    pub started: Moment,
    /// The headers of the object to be.
    pub headers: Headers,
    /// The checksum asked for, and whether it covers the whole object or the list of the parts' sums.
    pub checksum: Option<(crate::checksum::Algorithm, crate::checksum::Coverage)>,
}

/// One uploaded part.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    /// Its length in bytes.
    pub size: u64,
    /// MD5, lower-case hex.
    pub etag: String,
    /// When it was uploaded.
    pub modified: Moment,
    /// Its checksums: the one it was sent with, and the one the object will need where that is another.
    pub checksums: Vec<Checksum>,
    /// Its bytes; none when it is empty.
    pub segments: Vec<Segment>,
}
