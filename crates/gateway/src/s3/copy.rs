//! CopyObject: the copy shares the source's bytes, so it takes one transaction whatever the size.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};

use super::headers::{self, take_headers};
use super::objects::check_key;
use crate::checksum::{Algorithm, Checksum, Coverage, show_checksum};
use crate::failure::Outcome;
use crate::index::objects::{self, Condition, Source, Target};
use crate::index::records::{Moment, Object as Record};
use crate::send;
use crate::store::Store;

pub async fn copy_object(
    store: &Arc<Store>,
    mut request: S3Request<CopyObjectInput>,
) -> S3Result<CopyObjectOutput> {
    headers::refuse_unsupported(&request.headers)?;
    // This CopyObjectInput has no fields for conditions on the target.
    let condition = Condition {
        if_match: condition_header(&request.headers, http::header::IF_MATCH)?,
        if_none_match: condition_header(&request.headers, http::header::IF_NONE_MATCH)?,
    };
    let input = &mut request.input;
    check_key(&input.key)?;
    let (bucket, key) = plain_source(&input.copy_source)?;
    let source = Source {
        bucket,
        key,
        if_match: input.copy_source_if_match.take(),
        if_none_match: input.copy_source_if_none_match.take(),
        if_unmodified_since: input.copy_source_if_unmodified_since.take(),
        if_modified_since: input.copy_source_if_modified_since.take(),
    };
    let replace = match input.metadata_directive.as_ref().map(MetadataDirective::as_str) {
        None | Some(MetadataDirective::COPY) => false,
        Some(MetadataDirective::REPLACE) => true,
        Some(_) => return Err(s3_error!(InvalidArgument, "Unknown metadata directive.")),
    };
    let algorithm = match &input.checksum_algorithm {
        Some(name) => Some(Algorithm::parse(name.as_str())?),
        None => None,
    };
    if source.bucket == input.bucket && source.key == input.key && !replace && algorithm.is_none() {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    let kept = if replace { Some(take_headers!(input)) } else { None };
    let source = Arc::new(source);
    let checksum = match algorithm {
        Some(algorithm) => recomputed(store, &source, algorithm).await?,
        None => None,
    };
    let target = Target {
        bucket: std::mem::take(&mut input.bucket),
        key: std::mem::take(&mut input.key),
        headers: kept,
        checksum,
        condition,
    };
    let object = store
        .run(move |store| {
            store.write(|transaction| objects::copy(transaction, &source, target, Moment::now()))
        })
        .await?;

    let mut result = CopyObjectResult {
        e_tag: Some(ETag::Strong(object.etag)),
        last_modified: Some(object.modified.timestamp()),
        checksum_type: object.checksum.as_ref().map(|checksum| checksum.coverage.dto()),
        ..Default::default()
    };
    show_checksum!(result, &object.checksum);
    Ok(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() })
}

/// Reads the source for a checksum it does not have yet.
async fn recomputed(
    store: &Arc<Store>,
    source: &Arc<Source>,
    algorithm: Algorithm,
) -> Outcome<Option<(Checksum, Record)>> {
    let wanted = Arc::clone(source);
    let (object, pinned) =
        store.run(move |store| send::hold(store, |transaction| wanted.get(transaction))).await?;
    let present = object.checksum.as_ref();
    if present.is_some_and(|sum| sum.algorithm == algorithm && sum.coverage == Coverage::FullObject) {
        return Ok(None);
    }
    let body = send::stream(&store.blobs, &object, 0..object.size, pinned);
    let checksum = digest(body, algorithm).await?;
    Ok(Some((checksum, object)))
}

async fn digest(mut body: StreamingBlob, algorithm: Algorithm) -> Outcome<Checksum> {
    use futures::StreamExt;
    let mut running = crate::checksum::Running::new(algorithm);
    while let Some(piece) = body.next().await {
        running.update(&piece.map_err(std::io::Error::other)?);
    }
    Ok(running.finish())
}

/// Bucket and key of a copy's source.
pub(super) fn plain_source(source: &CopySource) -> S3Result<(String, String)> {
    match source {
        CopySource::Bucket { bucket, key, version_id } => match version_id.as_deref() {
            None | Some("null") => Ok((bucket.to_string(), key.to_string())),
            Some(_) => Err(s3_error!(NoSuchVersion, "The specified version does not exist.")),
        },
        CopySource::AccessPoint { .. } | CopySource::Outpost { .. } => {
            Err(s3_error!(NotImplemented, "Access points are not implemented."))
        }
    }
}

fn condition_header(headers: &http::HeaderMap, name: http::HeaderName) -> S3Result<Option<ETagCondition>> {
    match headers.get(&name) {
        Some(value) => ETagCondition::parse_http_header(value.as_bytes())
            .map(Some)
            .map_err(|_| s3_error!(InvalidArgument, "The {name} header is not valid.")),
        None => Ok(None),
    }
}
