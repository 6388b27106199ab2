//! Uploads in parts.

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use pg_storage_core::digest::Digest;
use pg_storage_core::presign::encode_key;

use super::S3Store;
use super::call::call;
use super::convert::length;
use crate::error::{ErrorKind, StoreError};
use crate::store::{Description, Part, PartPage, Piece, Unfinished};

const LIST: &str = "ListParts";

impl S3Store {
    pub(super) async fn begin_parts(
        &self,
        bucket: &str,
        key: &str,
        description: Description<'_>,
        checksums: bool,
    ) -> Result<String, StoreError> {
        let request = self.client().await?.create_multipart_upload();
        let request = request
            .bucket(bucket)
            .key(key)
            .content_type(description.content_type)
            .set_cache_control(description.cache_control.map(ToOwned::to_owned));
        let request = request.set_checksum_algorithm(checksums.then_some(ChecksumAlgorithm::Sha256));
        let request = request.customize().config_override(self.once());
        call!("CreateMultipartUpload", request, customized)?.upload_id.filter(|id| !id.is_empty()).ok_or_else(
            || {
                let message = "the store does not tell the upload's id";
                StoreError::local(ErrorKind::Unexpected, "CreateMultipartUpload", message)
            },
        )
    }

    pub(super) async fn parts_of(
        &self,
        upload: Unfinished<'_>,
        after: Option<i32>,
    ) -> Result<PartPage, StoreError> {
        let request = self.client().await?.list_parts();
        let request = request.bucket(upload.bucket).key(upload.key).upload_id(upload.upload_id);
        let request = request.set_part_number_marker(after.map(|number| number.to_string()));
        let output = call!("ListParts", request)?;
        let mut parts = Vec::with_capacity(output.parts().len());
        for part in output.parts() {
            let (Some(number), Some(size)) = (part.part_number(), length(part.size())) else {
                return Err(unexpected("a part without a number or a size"));
            };
            // A store that does not know the marker would give the first page for ever.
            if parts.last().map(|last: &Part| last.number).or(after).is_some_and(|last| number <= last) {
                return Err(unexpected("the parts are not in the order of their numbers"));
            }
            parts.push(Part {
                number,
                size,
                etag: part.e_tag().map(ToOwned::to_owned),
                sha256: part.checksum_sha256().and_then(Digest::from_base64),
            });
        }
        let truncated = output.is_truncated == Some(true);
        let next = parts.last().map(|part| part.number).filter(|_| truncated);
        if truncated && next.is_none() {
            return Err(unexpected("the listing is cut off and does not say how to go on"));
        }
        Ok(PartPage { parts, next })
    }

    pub(super) async fn finish_parts(
        &self,
        upload: Unfinished<'_>,
        parts: &[Part],
    ) -> Result<(), StoreError> {
        let completed = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number)
                .set_e_tag(part.etag.clone())
                .set_checksum_sha256(part.sha256.as_ref().map(Digest::to_base64))
                .build()
        });
        let list = CompletedMultipartUpload::builder().set_parts(Some(completed.collect())).build();
        let request = self.client().await?.complete_multipart_upload();
        let request = request.bucket(upload.bucket).key(upload.key).upload_id(upload.upload_id);
        let request = request.multipart_upload(list).customize().config_override(self.unhurried());
        call!("CompleteMultipartUpload", request, customized).map(drop)
    }

    pub(super) async fn copy_piece(
        &self,
        upload: Unfinished<'_>,
        number: i32,
        piece: Piece<'_>,
    ) -> Result<Option<String>, StoreError> {
        let last = (piece.from + piece.len).saturating_sub(1);
        let request = self.client().await?.upload_part_copy();
        let request = request.bucket(upload.bucket).key(upload.key).upload_id(upload.upload_id);
        let request = request
            .part_number(number)
            .copy_source(format!("{}/{}", piece.bucket, encode_key(piece.key)))
            .copy_source_range(format!("bytes={}-{last}", piece.from))
            .set_copy_source_if_match(piece.etag.map(ToOwned::to_owned));
        let request = request.customize().config_override(self.unhurried());
        let output = call!("UploadPartCopy", request, customized)?;
        Ok(output.copy_part_result.and_then(|result| result.e_tag))
    }
}

fn unexpected(what: &str) -> StoreError {
    StoreError::local(ErrorKind::Unexpected, LIST, what)
}
