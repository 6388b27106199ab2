//! Objects: looked up, published, copied, deleted.

use redb::{ReadableTable, WriteTransaction};
use s3s::dto::{ETag, ETagCondition};
use s3s::{S3Error, s3_error};

use super::records::{Headers, Moment, Object};
use super::{BLOBS, OBJECTS, Released, Tables, buckets, decode, encode, hold, release};
use crate::failure::Outcome;

/// What must be true of the key for a write to happen.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// `If-Match`: the object there now.
    pub if_match: Option<ETagCondition>,
    /// `If-None-Match`; only `*` is defined for writes.
    pub if_none_match: Option<ETagCondition>,
}

impl Condition {
    fn check(&self, present: Option<&Object>) -> Result<(), S3Error> {
        match &self.if_none_match {
            None => {}
            Some(ETagCondition::Any) if present.is_none() => {}
            Some(ETagCondition::Any) => return Err(precondition_failed()),
            Some(ETagCondition::ETag(_)) => {
                return Err(s3_error!(
                    NotImplemented,
                    "If-None-Match of a write takes nothing but an asterisk."
                ));
            }
        }
        match (&self.if_match, present) {
            (None, _) | (Some(ETagCondition::Any), Some(_)) => Ok(()),
            (Some(ETagCondition::ETag(tag)), Some(object)) if names(tag, object) => Ok(()),
            (Some(_), Some(_)) => Err(precondition_failed()),
            (Some(_), None) => Err(no_such_key()),
        }
    }
}

/// Whether the entity tag is the object's. A weak tag never is: RFC 9110, section 13.1.1.
pub fn names(tag: &ETag, object: &Object) -> bool {
    tag.as_strong() == Some(object.etag.as_str())
}

/// The `PreconditionFailed` answer.
pub fn precondition_failed() -> S3Error {
    s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
}

/// The `NoSuchKey` answer.
pub fn no_such_key() -> S3Error {
    s3_error!(NoSuchKey, "The specified key does not exist.")
}

/// The object, or `NoSuchBucket` or `NoSuchKey`.
pub fn get(transaction: &impl Tables, bucket: &str, key: &str) -> Outcome<Object> {
    match find(transaction, bucket, key)? {
        Some(object) => Ok(object),
        None => {
            buckets::get(transaction, bucket)?;
            Err(no_such_key().into())
        }
    }
}

/// The object, if there is one under this key.
pub fn find(transaction: &impl Tables, bucket: &str, key: &str) -> Outcome<Option<Object>> {
    let table = transaction.table(OBJECTS)?;
    match table.get((bucket, key.as_bytes()))? {
        Some(record) => decode(record.value()).map(Some),
        None => Ok(None),
    }
}

/// Publishes an object under a key, replacing what was there, if the condition holds.
pub fn put(
    transaction: &WriteTransaction,
    bucket: &str,
    key: &str,
    object: &Object,
    condition: &Condition,
) -> Outcome<Released> {
    buckets::get(transaction, bucket)?;
    let present = find(transaction, bucket, key)?;
    condition.check(present.as_ref())?;
    let mut released = Released::default();
    let mut blobs = transaction.open_table(BLOBS)?;
    // First hold, then release: a copy of an object onto itself must not drop the bytes it shares.
    hold(&mut blobs, &object.segments)?;
    if let Some(present) = present {
        release(&mut blobs, &present.segments, &mut released)?;
    }
    transaction.open_table(OBJECTS)?.insert((bucket, key.as_bytes()), encode(object)?.as_slice())?;
    Ok(released)
}

/// Removes an object if it is there; whether it was.
pub fn delete(
    transaction: &WriteTransaction,
    bucket: &str,
    key: &str,
    released: &mut Released,
) -> Outcome<bool> {
    let Some(object) = find(transaction, bucket, key)? else { return Ok(false) };
    transaction.open_table(OBJECTS)?.remove((bucket, key.as_bytes()))?;
    release(&mut transaction.open_table(BLOBS)?, &object.segments, released)?;
    Ok(true)
}

/// Where a copy comes from and what must be true of it.
#[derive(Debug)]
pub struct Source {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// `x-amz-copy-source-if-match`.
    pub if_match: Option<ETagCondition>,
    /// `x-amz-copy-source-if-none-match`.
    pub if_none_match: Option<ETagCondition>,
    /// `x-amz-copy-source-if-unmodified-since`.
    pub if_unmodified_since: Option<s3s::dto::Timestamp>,
    /// `x-amz-copy-source-if-modified-since`.
    pub if_modified_since: Option<s3s::dto::Timestamp>,
}

impl Source {
    /// The source object, or `PreconditionFailed`. When both members of a pair are given the tag decides,
    /// as `CopyObject` documents it.
    pub fn get(&self, transaction: &impl Tables) -> Outcome<Object> {
        let object = get(transaction, &self.bucket, &self.key)?;
        let modified = object.modified.timestamp();
        let unchanged = match (&self.if_match, &self.if_unmodified_since) {
            (Some(ETagCondition::ETag(tag)), _) => names(tag, &object),
            (Some(ETagCondition::Any), _) | (None, None) => true,
            (None, Some(since)) => modified <= *since,
        };
        let changed = match (&self.if_none_match, &self.if_modified_since) {
            (Some(ETagCondition::ETag(tag)), _) => !names(tag, &object),
            (Some(ETagCondition::Any), _) => false,
            (None, Some(since)) => modified > *since,
            (None, None) => true,
        };
        if unchanged && changed { Ok(object) } else { Err(precondition_failed().into()) }
    }
}

/// Where a copy goes.
#[derive(Debug)]
pub struct Target {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Headers to replace the source's with; `None` keeps them.
    pub headers: Option<Headers>,
    /// A checksum to keep instead of the source's, and the source it was computed from.
    pub checksum: Option<(crate::checksum::Checksum, Object)>,
    /// What must be true of the key.
    pub condition: Condition,
}

/// Copies an object in one transaction: the source is read, judged and shared at the same instant.
pub fn copy(
    transaction: &WriteTransaction,
    source: &Source,
    target: Target,
    now: Moment,
) -> Outcome<(Object, Released)> {
    let mut object = source.get(transaction)?;
    if let Some((checksum, computed_from)) = target.checksum {
        if computed_from.segments != object.segments {
            return Err(s3_error!(
                OperationAborted,
                "The source changed while it was copied. Please try again."
            )
            .into());
        }
        object.checksum = Some(checksum);
    }
    object.modified = now;
    if let Some(headers) = target.headers {
        object.headers = headers;
    }
    let released = put(transaction, &target.bucket, &target.key, &object, &target.condition)?;
    Ok((object, released))
}
