//! The parts of a multipart upload.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};

use super::copy::plain_source;
use super::list::limit;
use crate::checksum::{Algorithm, checksum_values, show_checksum};
use crate::index::objects::Source;
use crate::index::records::{Moment, Part as Record, Upload};
use crate::index::uploads;
use crate::receive::{Declared, Received, receive};
use crate::send;
use crate::store::Store;

/// Part numbers go from 1 to 10,000.
pub(super) fn part_number(number: i32) -> S3Result<u32> {
    u32::try_from(number).ok().filter(|number| (1..=10_000).contains(number)).ok_or_else(|| {
        s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive")
    })
}

async fn upload(store: &Arc<Store>, bucket: &str, key: &str, id: &str) -> S3Result<Upload> {
    let (bucket, key, id) = (bucket.to_owned(), key.to_owned(), id.to_owned());
    let upload = store
        .run(move |store| store.index.read(|transaction| uploads::get(transaction, &bucket, &key, &id)))
        .await?;
    Ok(upload)
}

/// The algorithm the parts of an upload are summed with.
fn algorithm(upload: &Upload) -> Algorithm {
    upload.checksum.map_or(Algorithm::Crc64nvme, |(algorithm, _)| algorithm)
}

async fn record(
    store: &Arc<Store>,
    (bucket, key, id): (String, String, String),
    number: u32,
    received: Received,
) -> S3Result<Record> {
    let mut part = Record {
        size: received.size,
        etag: received.md5,
        modified: Moment::now(),
        checksums: std::iter::once(received.checksum).chain(received.also).collect(),
        segments: Vec::new(),
    };
    let part = store
        .run(move |store| {
            store.publish(received.staged, |transaction, segments| {
                part.segments = segments;
                let released = uploads::put_part(transaction, (&bucket, &key, &id), number, &part)?;
                Ok((part.clone(), released))
            })
        })
        .await?;
    Ok(part)
}

pub async fn upload_part(
    store: &Arc<Store>,
    mut request: S3Request<UploadPartInput>,
) -> S3Result<UploadPartOutput> {
    let input = &mut request.input;
    let number = part_number(input.part_number)?;
    let upload = upload(store, &input.bucket, &input.key, &input.upload_id).await?;
    let declared = Declared::parse(
        input.content_length,
        input.content_md5.as_deref(),
        checksum_values!(input),
        &request.headers,
        request.trailing_headers.take(),
        algorithm(&upload),
    )?
    .and(algorithm(&upload));
    if upload.checksum.is_some() && declared.algorithm() != algorithm(&upload) {
        return Err(s3_error!(
            InvalidRequest,
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            algorithm(&upload).name().to_lowercase(),
            declared.algorithm().name().to_lowercase()
        ));
    }
    let body = input.body.take().ok_or_else(|| s3_error!(IncompleteBody))?;
    let received = receive(store, body, declared).await?;
    let place = (
        std::mem::take(&mut input.bucket),
        std::mem::take(&mut input.key),
        std::mem::take(&mut input.upload_id),
    );
    let part = record(store, place, number, received).await?;
    let mut output = UploadPartOutput { e_tag: Some(ETag::Strong(part.etag)), ..Default::default() };
    show_checksum!(output, part.checksums.first());
    Ok(output)
}

pub async fn upload_part_copy(
    store: &Arc<Store>,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<UploadPartCopyOutput> {
    let input = request.input;
    let number = part_number(input.part_number)?;
    let upload = upload(store, &input.bucket, &input.key, &input.upload_id).await?;
    let (bucket, key) = plain_source(&input.copy_source)?;
    let source = Source {
        bucket,
        key,
        if_match: input.copy_source_if_match,
        if_none_match: input.copy_source_if_none_match,
        if_unmodified_since: input.copy_source_if_unmodified_since,
        if_modified_since: input.copy_source_if_modified_since,
    };
    let (object, pinned) =
        store.run(move |store| send::hold(store, |transaction| source.get(transaction))).await?;
    let range = match &input.copy_source_range {
        Some(text) => exact_range(text, object.size)?,
        None => 0..object.size,
    };
    let declared = Declared::computed(algorithm(&upload), range.end - range.start);
    let body = send::stream(&store.blobs, &object, range, pinned);
    let received = receive(store, body, declared).await?;
    let part = record(store, (input.bucket, input.key, input.upload_id), number, received).await?;
    let mut result = CopyPartResult {
        e_tag: Some(ETag::Strong(part.etag)),
        last_modified: Some(part.modified.timestamp()),
        ..Default::default()
    };
    show_checksum!(result, part.checksums.first());
    Ok(UploadPartCopyOutput { copy_part_result: Some(result), ..Default::default() })
}

/// `x-amz-copy-source-range` has both ends and must lie inside the source.
fn exact_range(text: &str, size: u64) -> S3Result<std::ops::Range<u64>> {
    match s3s::dto::Range::parse(text) {
        Ok(s3s::dto::Range::Int { first, last: Some(last) }) if last < size => Ok(first..last + 1),
        Ok(s3s::dto::Range::Int { last: Some(_), .. }) => {
            Err(s3_error!(InvalidArgument, "Range specified is not valid for source object of size: {size}"))
        }
        _ => Err(s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last"
        )),
    }
}

pub async fn list_parts(store: &Arc<Store>, request: S3Request<ListPartsInput>) -> S3Result<ListPartsOutput> {
    let input = request.input;
    let limit = limit(input.max_parts)?;
    let marker = input.part_number_marker.unwrap_or(0);
    let after = u32::try_from(marker).map_err(|_| {
        s3_error!(InvalidArgument, "Argument part-number-marker must be an integer between 0 and 2147483647")
    })?;
    let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
    let (upload, mut parts) = store
        .run(move |store| {
            store.index.read(|transaction| {
                let upload = uploads::get(transaction, &bucket, &key, &id)?;
                Ok((upload, uploads::parts(transaction, &id, after, limit + 1)?))
            })
        })
        .await?;
    let truncated = parts.len() > limit;
    parts.truncate(limit);
    let next = parts.last().map(|(number, _)| *number).filter(|_| truncated);
    let parts = parts
        .into_iter()
        .map(|(number, part)| {
            let mut shown = Part {
                part_number: i32::try_from(number).ok(),
                e_tag: Some(ETag::Strong(part.etag)),
                size: i64::try_from(part.size).ok(),
                last_modified: Some(part.modified.timestamp()),
                ..Default::default()
            };
            for checksum in &part.checksums {
                show_checksum!(shown, Some(checksum));
            }
            shown
        })
        .collect();
    Ok(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        part_number_marker: Some(marker),
        next_part_number_marker: next.and_then(|number| i32::try_from(number).ok()),
        max_parts: i32::try_from(limit).ok(),
        is_truncated: Some(truncated),
        parts: Some(parts),
        owner: Some(super::buckets::owner()),
        storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
        checksum_algorithm: upload
            .checksum
            .map(|(algorithm, _)| ChecksumAlgorithm::from_static(algorithm.name())),
        checksum_type: upload.checksum.map(|(_, coverage)| coverage.dto()),
        ..Default::default()
    })
}
