//! Multipart uploads: start, complete, abort, list.

use std::sync::Arc;

use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};
use uuid::Uuid;

use super::headers::{self, take_headers};
use super::list::{Encoding, limit};
use super::objects::check_key;
use super::parts::part_number;
use crate::checksum::{self, Algorithm, Coverage, checksum_values, show_checksum};
use crate::failure::Outcome;
use crate::index::objects::Condition;
use crate::index::records::{Moment, Object as Record, Part as PartRecord, Upload};
use crate::index::{buckets, uploads};
use crate::store::Store;

/// The smallest part but the last: 5 MiB.
const MIN_PART: u64 = 5 * 1024 * 1024;

pub async fn create_multipart_upload(
    store: &Arc<Store>,
    mut request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<CreateMultipartUploadOutput> {
    headers::refuse_unsupported(&request.headers)?;
    let input = &mut request.input;
    check_key(&input.key)?;
    let checksum = wanted_checksum(input.checksum_algorithm.as_ref(), input.checksum_type.as_ref())?;
    let upload = Upload { started: Moment::now(), headers: take_headers!(input), checksum };
    let id = Uuid::new_v4().simple().to_string();
    let (bucket, key) = (std::mem::take(&mut input.bucket), std::mem::take(&mut input.key));
    let output = CreateMultipartUploadOutput {
        bucket: Some(bucket.clone()),
        key: Some(key.clone()),
        upload_id: Some(id.clone()),
        checksum_algorithm: checksum.map(|(algorithm, _)| ChecksumAlgorithm::from_static(algorithm.name())),
        checksum_type: checksum.map(|(_, coverage)| coverage.dto()),
        ..Default::default()
    };
    store
        .run(move |store| {
            store.index.write(|transaction| uploads::create(transaction, &bucket, &key, &id, &upload))
        })
        .await?;
    Ok(output)
}

/// Hashes cover the list of parts, CRC-64 the whole object, the other CRCs whichever is asked for (`COMPOSITE` when
/// nothing is): the table in "Checking object integrity".
fn wanted_checksum(
    algorithm: Option<&ChecksumAlgorithm>,
    coverage: Option<&ChecksumType>,
) -> S3Result<Option<(Algorithm, Coverage)>> {
    let Some(algorithm) = algorithm else {
        return match coverage {
            None => Ok(None),
            Some(_) => Err(s3_error!(
                InvalidRequest,
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            )),
        };
    };
    let algorithm = Algorithm::parse(algorithm.as_str())?;
    let coverage = match (algorithm, coverage.map(ChecksumType::as_str)) {
        (Algorithm::Crc64nvme, None | Some(ChecksumType::FULL_OBJECT)) => Coverage::FullObject,
        (Algorithm::Crc32 | Algorithm::Crc32c, Some(ChecksumType::FULL_OBJECT)) => Coverage::FullObject,
        (Algorithm::Crc64nvme, _) | (_, Some(ChecksumType::FULL_OBJECT)) => {
            return Err(s3_error!(
                InvalidRequest,
                "The checksum type cannot be used with the {} checksum algorithm.",
                algorithm.name()
            ));
        }
        (_, None | Some(ChecksumType::COMPOSITE)) => Coverage::Composite,
        (_, Some(_)) => {
            return Err(s3_error!(InvalidRequest, "Value for x-amz-checksum-type header is invalid."));
        }
    };
    Ok(Some((algorithm, coverage)))
}

/// What the client says the finished object is.
struct Claim {
    parts: Vec<(u32, CompletedPart)>,
    size: Option<u64>,
    checksum: Option<(Algorithm, String)>,
}

impl Claim {
    fn parse(input: &mut CompleteMultipartUploadInput) -> S3Result<Self> {
        let listed = input.multipart_upload.take().and_then(|upload| upload.parts).unwrap_or_default();
        let mut parts = Vec::with_capacity(listed.len());
        for part in listed {
            let number = part
                .part_number
                .ok_or_else(|| s3_error!(MalformedXML, "Every part needs a number."))
                .and_then(part_number)?;
            if parts.last().is_some_and(|(before, _)| *before >= number) {
                return Err(s3_error!(
                    InvalidPartOrder,
                    "The list of parts was not in ascending order. The parts list must be specified in order by part number."
                ));
            }
            parts.push((number, part));
        }
        if parts.is_empty() {
            return Err(s3_error!(MalformedXML, "You must specify at least one part"));
        }
        let values = checksum_values!(input);
        let mut given =
            Algorithm::ALL.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)));
        let checksum = given.next();
        if given.next().is_some() {
            return Err(s3_error!(InvalidRequest, "Expecting a single x-amz-checksum- header."));
        }
        let size = input.mpu_object_size.and_then(|size| u64::try_from(size).ok());
        Ok(Self { parts, size, checksum })
    }

    /// The object, if everything the client claims is true of the parts.
    fn object(mut self, upload: Upload, stored: &[(u32, PartRecord)]) -> S3Result<Record> {
        let mut chosen: Vec<&PartRecord> = Vec::with_capacity(self.parts.len());
        for (number, claimed) in &mut self.parts {
            let found = stored.binary_search_by_key(number, |(number, _)| *number).ok();
            let part = found.and_then(|index| stored.get(index)).map(|(_, part)| part);
            chosen.push(part.filter(|part| is_as_claimed(part, claimed)).ok_or_else(|| {
                s3_error!(
                    InvalidPart,
                    "One or more of the specified parts could not be found. The part may not have been uploaded, or \
                     the specified entity tag may not match the part's entity tag."
                )
            })?);
        }
        if let Some((_, before)) = chosen.split_last()
            && before.iter().any(|part| part.size < MIN_PART)
        {
            return Err(s3_error!(
                EntityTooSmall,
                "Your proposed upload is smaller than the minimum allowed size"
            ));
        }
        let size = chosen.iter().map(|part| part.size).sum();
        if self.size.is_some_and(|claimed| claimed != size) {
            return Err(s3_error!(
                InvalidRequest,
                "The provided 'x-amz-mp-object-size' header value does not match what was computed: {size}"
            ));
        }
        let (algorithm, coverage) = upload.checksum.unwrap_or((Algorithm::Crc64nvme, Coverage::FullObject));
        let sums: Vec<(&str, u64)> = chosen
            .iter()
            .filter_map(|part| {
                let sum = part.checksums.iter().find(|sum| sum.algorithm == algorithm)?;
                Some((sum.value.as_str(), part.size))
            })
            .collect();
        let checksum = checksum::of_parts(algorithm, coverage, &sums)?;
        if let Some((claimed, value)) = self.checksum
            && (claimed != algorithm || value.split('-').next() != checksum.value.split('-').next())
        {
            return Err(s3_error!(
                BadDigest,
                "The {} you specified did not match the calculated checksum.",
                claimed.name()
            ));
        }
        let mut md5 = Md5::new();
        for part in &chosen {
            md5.update(
                &base16ct::lower::decode_vec(&part.etag)
                    .map_err(|_| s3_error!(InternalError, "a stored entity tag is not hex"))?,
            );
        }
        Ok(Record {
            size,
            etag: format!("{}-{}", base16ct::lower::encode_string(md5.finalize().as_ref()), chosen.len()),
            modified: Moment::now(),
            checksum: Some(checksum),
            headers: upload.headers,
            segments: chosen.iter().flat_map(|part| part.segments.iter().copied()).collect(),
        })
    }
}

fn is_as_claimed(part: &PartRecord, claimed: &mut CompletedPart) -> bool {
    let same_tag = claimed.e_tag.as_ref().is_some_and(|tag| tag.value() == part.etag);
    let values = Algorithm::ALL.into_iter().zip(checksum_values!(claimed));
    let same_sums = values.filter_map(|(name, value)| Some((name, value?))).all(|(algorithm, value)| {
        part.checksums.iter().any(|sum| sum.algorithm == algorithm && sum.value == value)
    });
    same_tag && same_sums
}

pub async fn complete_multipart_upload(
    store: &Arc<Store>,
    mut request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<CompleteMultipartUploadOutput> {
    let input = &mut request.input;
    let claim = Claim::parse(input)?;
    let condition = Condition { if_match: input.if_match.take(), if_none_match: input.if_none_match.take() };
    let (bucket, key) = (std::mem::take(&mut input.bucket), std::mem::take(&mut input.key));
    let id = std::mem::take(&mut input.upload_id);
    let location = format!("/{bucket}/{key}");
    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(bucket.clone()),
        key: Some(key.clone()),
        ..Default::default()
    };
    let object = store
        .run(move |store| {
            store.write(|transaction| {
                let upload = uploads::get(transaction, &bucket, &key, &id)?;
                let stored = uploads::parts(transaction, &id, 0, usize::MAX)?;
                let object = claim.object(upload, &stored)?;
                let released = uploads::complete(transaction, (&bucket, &key, &id), &object, &condition)?;
                Ok((object, released))
            })
        })
        .await?;
    output.location = Some(location);
    output.e_tag = Some(ETag::Strong(object.etag));
    output.checksum_type = object.checksum.as_ref().map(|checksum| checksum.coverage.dto());
    show_checksum!(output, &object.checksum);
    Ok(output)
}

pub async fn abort_multipart_upload(
    store: &Arc<Store>,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<AbortMultipartUploadOutput> {
    let input = request.input;
    store
        .run(move |store| {
            store.write(|transaction| {
                Ok(((), uploads::abort(transaction, &input.bucket, &input.key, &input.upload_id)?))
            })
        })
        .await?;
    Ok(AbortMultipartUploadOutput::default())
}

pub async fn list_multipart_uploads(
    store: &Arc<Store>,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<ListMultipartUploadsOutput> {
    let input = request.input;
    let encoding = Encoding::parse(input.encoding_type.as_ref())?;
    let limit = limit(input.max_uploads)?;
    if input.delimiter.as_ref().is_some_and(|delimiter| !delimiter.is_empty()) {
        return Err(s3_error!(NotImplemented, "A delimiter in a listing of uploads is not implemented."));
    }
    let bucket = input.bucket.clone();
    let prefix = input.prefix.clone().unwrap_or_default();
    let after = input.key_marker.clone().filter(|key| !key.is_empty()).map(|key| {
        // Without an upload id the marker stands for all uploads of its key.
        let id = input.upload_id_marker.clone().filter(|id| !id.is_empty());
        (key, id.unwrap_or_else(|| "\u{10ffff}".to_owned()))
    });
    let mut found = store
        .run(move |store| {
            store.index.read(|transaction| -> Outcome<Vec<uploads::Entry>> {
                buckets::get(transaction, &bucket)?;
                let after = after.as_ref().map(|(key, id)| (key.as_str(), id.as_str()));
                uploads::page(transaction, &bucket, &prefix, after, limit + 1)
            })
        })
        .await?;
    let truncated = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| truncated).map(|(key, id, _)| (key.clone(), id.clone()));
    let uploads = found
        .into_iter()
        .map(|(key, id, upload)| MultipartUpload {
            key: Some(encoding.show(&key)),
            upload_id: Some(id),
            initiated: Some(upload.started.timestamp()),
            storage_class: Some(StorageClass::from_static(StorageClass::STANDARD)),
            owner: Some(super::buckets::owner()),
            checksum_algorithm: upload
                .checksum
                .map(|(algorithm, _)| ChecksumAlgorithm::from_static(algorithm.name())),
            checksum_type: upload.checksum.map(|(_, coverage)| coverage.dto()),
            ..Default::default()
        })
        .collect();
    Ok(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        prefix: Some(encoding.show(&input.prefix.unwrap_or_default())),
        key_marker: Some(encoding.show(&input.key_marker.unwrap_or_default())),
        upload_id_marker: input.upload_id_marker,
        next_key_marker: last.as_ref().map(|(key, _)| encoding.show(key)),
        next_upload_id_marker: last.map(|(_, id)| id),
        max_uploads: i32::try_from(limit).ok(),
        is_truncated: Some(truncated),
        uploads: Some(uploads),
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}
