//! Objects: put, get, head, delete.

use std::ops::Range;
use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3Error, S3Request, S3Result, s3_error};

use super::headers::{self, show_headers, take_headers};
use crate::checksum::{Algorithm, checksum_values, show_checksum};
use crate::failure::{Failure, custom};
use crate::index::objects::{self, Condition, names};
use crate::index::records::{Headers, Moment, Object as Record};
use crate::index::{Released, buckets};
use crate::receive::{Declared, receive};
use crate::send;
use crate::store::Store;

/// The most keys `DeleteObjects` takes.
const MAX_DELETES: usize = 1000;

pub async fn put_object(
    store: &Arc<Store>,
    mut request: S3Request<PutObjectInput>,
) -> S3Result<PutObjectOutput> {
    headers::refuse_unsupported(&request.headers)?;
    let input = &mut request.input;
    check_key(&input.key)?;
    let declared = Declared::parse(
        input.content_length,
        input.content_md5.as_deref(),
        checksum_values!(input),
        &request.headers,
        request.trailing_headers.take(),
        Algorithm::Crc64nvme,
    )?;
    let kept = take_headers!(input);
    let condition = Condition { if_match: input.if_match.take(), if_none_match: input.if_none_match.take() };
    let (bucket, key) = (std::mem::take(&mut input.bucket), std::mem::take(&mut input.key));
    let body = input.body.take().ok_or_else(|| s3_error!(IncompleteBody))?;
    let object = publish(store, bucket, key, kept, condition, body, declared).await?;

    let mut output = PutObjectOutput { e_tag: Some(ETag::Strong(object.etag)), ..Default::default() };
    output.checksum_type = object.checksum.as_ref().map(|checksum| checksum.coverage.dto());
    show_checksum!(output, &object.checksum);
    Ok(output)
}

/// Receives a body and makes an object of it.
pub async fn publish(
    store: &Arc<Store>,
    bucket: String,
    key: String,
    headers: Headers,
    condition: Condition,
    body: StreamingBlob,
    declared: Declared,
) -> S3Result<Record> {
    // Before the body, so that a bucket that does not exist costs no transfer.
    let name = bucket.clone();
    store.run(move |store| store.index.read(|transaction| buckets::get(transaction, &name))).await?;
    let received = receive(store, body, declared).await?;
    let mut object = Record {
        size: received.size,
        etag: received.md5,
        modified: Moment::now(),
        checksum: Some(received.checksum),
        headers,
        segments: Vec::new(),
    };
    let object = store
        .run(move |store| {
            store.publish(received.staged, |transaction, segments| {
                object.segments = segments;
                let released = objects::put(transaction, &bucket, &key, &object, &condition)?;
                Ok((object.clone(), released))
            })
        })
        .await?;
    Ok(object)
}

/// A key is 1 to 1024 bytes. s3s checks the key in a path; this one may come from elsewhere too.
pub fn check_key(key: &str) -> S3Result<()> {
    match key.len() {
        0 => Err(s3_error!(InvalidArgument, "A key must not be empty.")),
        1..=1024 => Ok(()),
        _ => Err(s3_error!(KeyTooLongError, "Your key is too long")),
    }
}

/// Whoever may not list a bucket must not learn from a 404 which keys are free: S3 answers 403.
fn veiled(failure: Failure, anonymous: bool) -> S3Error {
    match S3Error::from(failure) {
        error
            if anonymous
                && matches!(error.code(), s3s::S3ErrorCode::NoSuchKey | s3s::S3ErrorCode::NoSuchBucket) =>
        {
            s3_error!(AccessDenied, "Access Denied")
        }
        error => error,
    }
}

/// There is one version of every object here, and S3 calls it `null`.
fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
    }
}

/// The conditions of a read, in the order of RFC 9110, section 13.2.2.
struct ReadCondition<'a> {
    if_match: Option<&'a ETagCondition>,
    if_none_match: Option<&'a ETagCondition>,
    if_modified_since: Option<&'a Timestamp>,
    if_unmodified_since: Option<&'a Timestamp>,
}

impl ReadCondition<'_> {
    fn check(&self, object: &Record) -> S3Result<()> {
        let modified = object.modified.timestamp();
        let holds = match (self.if_match, self.if_unmodified_since) {
            (Some(ETagCondition::Any), _) | (None, None) => true,
            (Some(ETagCondition::ETag(tag)), _) => names(tag, object),
            (None, Some(since)) => headers::unchanged_since(&modified, since),
        };
        if !holds {
            return Err(objects::precondition_failed());
        }
        let same = match (self.if_none_match, self.if_modified_since) {
            (Some(ETagCondition::Any), _) => true,
            (Some(ETagCondition::ETag(tag)), _) => tag.value() == object.etag,
            (None, Some(since)) => headers::unchanged_since(&modified, since),
            (None, None) => false,
        };
        if !same {
            return Ok(());
        }
        let mut error = s3_error!(NotModified, "Not Modified");
        let mut kept = http::HeaderMap::new();
        if let Ok(tag) = http::HeaderValue::from_str(&format!("\"{}\"", object.etag)) {
            kept.insert(http::header::ETAG, tag);
        }
        error.set_headers(kept);
        Err(error)
    }
}

/// The bytes to send, and what `Content-Range` says of them.
fn extent(
    object: &Record,
    range: Option<&s3s::dto::Range>,
    part: Option<i32>,
) -> S3Result<(Range<u64>, Option<String>, Option<i32>)> {
    let unsatisfiable = || {
        let mut error = s3_error!(InvalidRange, "The requested range is not satisfiable");
        let mut kept = http::HeaderMap::new();
        if let Ok(size) = http::HeaderValue::from_str(&format!("bytes */{}", object.size)) {
            kept.insert(http::header::CONTENT_RANGE, size);
        }
        error.set_headers(kept);
        error
    };
    let shown = |range: &Range<u64>| format!("bytes {}-{}/{}", range.start, range.end - 1, object.size);
    match (range, part) {
        (Some(_), Some(_)) => {
            Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query parameter"))
        }
        (None, None) => Ok((0..object.size, None, None)),
        (Some(range), None) => {
            let range = range.check(object.size).map_err(|_| unsatisfiable())?;
            let text = shown(&range);
            Ok((range, Some(text), None))
        }
        (None, Some(number)) => {
            let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
            let index = index.ok_or_else(|| {
                s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000")
            })?;
            if index == 0 && object.size == 0 {
                return Ok((0..0, None, None));
            }
            let segment = object.segments.get(index).ok_or_else(|| {
                custom(
                    "InvalidPartNumber",
                    http::StatusCode::RANGE_NOT_SATISFIABLE,
                    "The requested part number is not satisfiable",
                )
            })?;
            let start = object.segments.iter().take(index).map(|segment| segment.size).sum::<u64>();
            let range = start..start + segment.size;
            let text = shown(&range);
            let count =
                object.etag.contains('-').then(|| i32::try_from(object.segments.len()).unwrap_or(i32::MAX));
            Ok((range, Some(text), count))
        }
    }
}

pub async fn get_object(store: &Arc<Store>, request: S3Request<GetObjectInput>) -> S3Result<GetObjectOutput> {
    let (input, anonymous) = (request.input, request.credentials.is_none());
    check_version(input.version_id.as_deref())?;
    let (bucket, key) = (input.bucket, input.key);
    let (object, pinned) = store
        .run(move |store| send::hold_key(store, &bucket, &key))
        .await
        .map_err(|failure| veiled(failure, anonymous))?;
    ReadCondition {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    }
    .check(&object)?;
    let (range, content_range, parts_count) = extent(&object, input.range.as_ref(), input.part_number)?;
    let whole = content_range.is_none();
    let mut output = GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: i64::try_from(range.end - range.start).ok(),
        content_range,
        parts_count,
        e_tag: Some(ETag::Strong(object.etag.clone())),
        last_modified: Some(object.modified.timestamp()),
        body: Some(send::stream(&store.blobs, &object, range, pinned)),
        ..Default::default()
    };
    // A checksum of the whole says nothing about a part of it.
    if whole && input.checksum_mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED) {
        output.checksum_type = object.checksum.as_ref().map(|checksum| checksum.coverage.dto());
        show_checksum!(output, &object.checksum);
    }
    show_headers!(output, object.headers);
    Ok(output)
}

pub async fn head_object(
    store: &Arc<Store>,
    request: S3Request<HeadObjectInput>,
) -> S3Result<HeadObjectOutput> {
    let (input, anonymous) = (request.input, request.credentials.is_none());
    check_version(input.version_id.as_deref())?;
    let (bucket, key) = (input.bucket, input.key);
    let object = store
        .run(move |store| store.index.read(|transaction| objects::get(transaction, &bucket, &key)))
        .await
        .map_err(|failure| veiled(failure, anonymous))?;
    ReadCondition {
        if_match: input.if_match.as_ref(),
        if_none_match: input.if_none_match.as_ref(),
        if_modified_since: input.if_modified_since.as_ref(),
        if_unmodified_since: input.if_unmodified_since.as_ref(),
    }
    .check(&object)?;
    let (range, content_range, parts_count) = extent(&object, input.range.as_ref(), input.part_number)?;
    let mut output = HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: i64::try_from(range.end - range.start).ok(),
        content_range,
        parts_count,
        e_tag: Some(ETag::Strong(object.etag.clone())),
        last_modified: Some(object.modified.timestamp()),
        ..Default::default()
    };
    if input.checksum_mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED) {
        output.checksum_type = object.checksum.as_ref().map(|checksum| checksum.coverage.dto());
        show_checksum!(output, &object.checksum);
    }
    show_headers!(output, object.headers);
    Ok(output)
}

pub async fn delete_object(
    store: &Arc<Store>,
    request: S3Request<DeleteObjectInput>,
) -> S3Result<DeleteObjectOutput> {
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    if input.if_match.is_some()
        || input.if_match_size.is_some()
        || input.if_match_last_modified_time.is_some()
    {
        return Err(s3_error!(NotImplemented, "Conditional deletes are not implemented."));
    }
    store
        .run(move |store| {
            store.write(|transaction| {
                buckets::get(transaction, &input.bucket)?;
                let mut released = Released::default();
                objects::delete(transaction, &input.bucket, &input.key, &mut released)?;
                Ok(((), released))
            })
        })
        .await?;
    Ok(DeleteObjectOutput::default())
}

pub async fn delete_objects(
    store: &Arc<Store>,
    request: S3Request<DeleteObjectsInput>,
) -> S3Result<DeleteObjectsOutput> {
    let input = request.input;
    let quiet = input.delete.quiet.unwrap_or(false);
    let wanted = input.delete.objects;
    if wanted.is_empty() || wanted.len() > MAX_DELETES {
        return Err(s3_error!(MalformedXML, "A request must name 1 to {MAX_DELETES} keys."));
    }
    let (deleted, errors) = store
        .run(move |store| {
            store.write(|transaction| {
                buckets::get(transaction, &input.bucket)?;
                let mut released = Released::default();
                let (mut deleted, mut errors) = (Vec::new(), Vec::new());
                for object in &wanted {
                    match check_version(object.version_id.as_deref()) {
                        Ok(()) => {
                            objects::delete(transaction, &input.bucket, &object.key, &mut released)?;
                            deleted
                                .push(DeletedObject { key: Some(object.key.clone()), ..Default::default() });
                        }
                        Err(error) => errors.push(Error {
                            code: Some(error.code().as_str().to_owned()),
                            key: Some(object.key.clone()),
                            message: error.message().map(str::to_owned),
                            version_id: object.version_id.clone(),
                        }),
                    }
                }
                Ok(((deleted, errors), released))
            })
        })
        .await?;
    Ok(DeleteObjectsOutput {
        deleted: (!quiet).then_some(deleted),
        errors: Some(errors),
        ..Default::default()
    })
}

/// Forms are taken before s3s sees them; this is for one that got past, which would be held in memory.
pub async fn post_object(_: &Arc<Store>, _: S3Request<PostObjectInput>) -> S3Result<PostObjectOutput> {
    Err(s3_error!(
        MalformedPOSTRequest,
        "The body of your POST request is not well-formed multipart/form-data."
    ))
}
