//! [`Store`] in terms of S3 operations.

use std::num::NonZeroU64;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, BucketVersioningStatus, ChecksumAlgorithm, ChecksumMode,
    CreateBucketConfiguration, MetadataDirective, VersioningConfiguration,
};
use pg_storage_core::digest::Digest;
use pg_storage_core::policy::{CorsRule, Lifecycle};
use pg_storage_core::presign::encode_key;
use serde_json::Value;

use super::S3Store;
use super::call::{add_content_md5, call};
use super::convert::{
    access_block_from_sdk, access_block_misnamed, access_block_to_sdk, cors_from_sdk, cors_to_sdk,
    incomplete, length, lifecycle_from_sdk, lifecycle_to_sdk, time,
};
use super::read::{collect, hash, mark};
use crate::error::{ErrorKind, StoreError};
use crate::store::{
    Description, HashOutcome, ObjectHead, Page, Part, PartPage, Piece, PublicAccessBlock, PutOptions, Store,
    Unfinished, UploadPage,
};

/// The one region whose name AWS refuses as a location.
const NAMELESS_REGION: &str = "us-east-1";

impl Store for S3Store {
    async fn head(&self, bucket: &str, key: &str) -> Result<Option<ObjectHead>, StoreError> {
        let request = self.client().await?.head_object();
        let request = request.bucket(bucket).key(key).checksum_mode(ChecksumMode::Enabled);
        let Some(found) = absent_is_none(call!("HeadObject", request))? else { return Ok(None) };
        let size = length(found.content_length()).ok_or_else(|| {
            StoreError::local(
                ErrorKind::Unexpected,
                "HeadObject",
                "the store does not tell the object's size",
            )
        })?;
        Ok(Some(ObjectHead {
            size,
            // A sum over the sums of parts ends in "-3" or so, which is not Base64: it says nothing about the whole.
            sha256: found.checksum_sha256().and_then(Digest::from_base64),
            last_modified: time(found.last_modified()),
            etag: found.e_tag,
            content_type: found.content_type,
            content_encoding: found.content_encoding,
            cache_control: found.cache_control,
            mark: mark(found.metadata),
        }))
    }

    async fn get_range(&self, bucket: &str, key: &str, from: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let Some(wanted) = NonZeroU64::new(len) else { return Ok(Vec::new()) };
        match self.open_range(bucket, key, from, wanted).await? {
            Some(output) => collect(output.body, len, self.request_timeout).await,
            None => Ok(Vec::new()),
        }
    }

    async fn hash_object(&self, bucket: &str, key: &str, cap: u64) -> Result<HashOutcome, StoreError> {
        let request = self.client().await?.get_object().bucket(bucket).key(key);
        hash(call!("GetObject", request)?, cap, self.request_timeout).await
    }

    async fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Vec<u8>,
        options: PutOptions<'_>,
    ) -> Result<Option<String>, StoreError> {
        let mut request = self.client().await?.put_object().bucket(bucket).key(key);
        let Description { content_type, cache_control } = options.description;
        request = request.content_type(content_type).set_cache_control(cache_control.map(ToOwned::to_owned));
        request = request.body(ByteStream::from(body));
        if let Some(sha256) = options.sha256 {
            // Ceph checks the sum only if the algorithm is named as well.
            request =
                request.checksum_sha256(sha256.to_base64()).checksum_algorithm(ChecksumAlgorithm::Sha256);
        }
        if options.create_only {
            request = request.if_none_match("*");
        }
        // Tried again after a lost answer, it would meet its own object and call it another's.
        let attempts = if options.create_only { self.once() } else { self.unhurried() };
        let request = request.customize().config_override(attempts);
        Ok(call!("PutObject", request, customized)?.e_tag)
    }

    async fn copy(
        &self,
        from_bucket: &str,
        from_key: &str,
        bucket: &str,
        key: &str,
        source_etag: Option<&str>,
        description: Option<Description<'_>>,
    ) -> Result<Option<String>, StoreError> {
        let request = self
            .client()
            .await?
            .copy_object()
            .copy_source(format!("{from_bucket}/{}", encode_key(from_key)))
            .set_copy_source_if_match(source_etag.map(ToOwned::to_owned))
            .bucket(bucket)
            .key(key)
            .metadata_directive(match description {
                Some(_) => MetadataDirective::Replace,
                None => MetadataDirective::Copy,
            })
            .set_content_type(description.map(|said| said.content_type.to_owned()))
            .set_cache_control(description.and_then(|said| said.cache_control).map(ToOwned::to_owned))
            .checksum_algorithm(ChecksumAlgorithm::Sha256);
        // A copy that the store carries out late must not overwrite what a second one was verified to be.
        let request = request.customize().config_override(self.once());
        let output = call!("CopyObject", request, customized)?;
        Ok(output.copy_object_result.and_then(|result| result.e_tag))
    }

    async fn delete_batch(
        &self,
        bucket: &str,
        keys: &[String],
    ) -> Result<Vec<Result<(), StoreError>>, StoreError> {
        self.delete_many(bucket, keys).await
    }

    async fn list_page(&self, bucket: &str, prefix: &str, after: Option<&str>) -> Result<Page, StoreError> {
        self.list_objects(bucket, prefix, after).await
    }

    async fn create_multipart_upload(
        &self,
        bucket: &str,
        key: &str,
        description: Description<'_>,
        checksums: bool,
    ) -> Result<String, StoreError> {
        self.begin_parts(bucket, key, description, checksums).await
    }

    async fn list_parts(&self, upload: Unfinished<'_>, after: Option<i32>) -> Result<PartPage, StoreError> {
        self.parts_of(upload, after).await
    }

    async fn complete_multipart_upload(
        &self,
        upload: Unfinished<'_>,
        parts: &[Part],
    ) -> Result<(), StoreError> {
        self.finish_parts(upload, parts).await
    }

    async fn copy_part(
        &self,
        upload: Unfinished<'_>,
        number: i32,
        piece: Piece<'_>,
    ) -> Result<Option<String>, StoreError> {
        self.copy_piece(upload, number, piece).await
    }

    async fn list_multipart_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(&str, &str)>,
    ) -> Result<UploadPage, StoreError> {
        self.list_uploads(bucket, prefix, after).await
    }

    async fn abort_multipart_upload(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
    ) -> Result<(), StoreError> {
        let request = self.client().await?.abort_multipart_upload();
        let request = request.bucket(bucket).key(key).upload_id(upload_id);
        unset_is_none(call!("AbortMultipartUpload", request)).map(drop)
    }

    async fn create_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        let client = self.client().await?;
        if self.region == NAMELESS_REGION {
            return call!("CreateBucket", client.create_bucket().bucket(bucket)).map(drop);
        }
        let location = CreateBucketConfiguration::builder()
            .location_constraint(BucketLocationConstraint::from(self.region.as_str()))
            .build();
        let request = client.create_bucket().bucket(bucket).create_bucket_configuration(location);
        match call!("CreateBucket", request) {
            // Elsewhere than on AWS a region to sign for need not be a location to ask for.
            Err(error) if is_about_location(&error) => {
                match call!("CreateBucket", client.create_bucket().bucket(bucket)) {
                    Err(again) if is_about_location(&again) => Err(error),
                    outcome => outcome.map(drop),
                }
            }
            outcome => outcome.map(drop),
        }
    }

    async fn head_bucket(&self, bucket: &str) -> Result<bool, StoreError> {
        let outcome = call!("HeadBucket", self.client().await?.head_bucket().bucket(bucket));
        absent_is_none(outcome).map(|found| found.is_some())
    }

    async fn owns_bucket(&self, bucket: &str) -> Result<bool, StoreError> {
        let output = call!("ListBuckets", self.client().await?.list_buckets().prefix(bucket))?;
        Ok(output.buckets().iter().any(|ours| ours.name() == Some(bucket)))
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        call!("DeleteBucket", self.client().await?.delete_bucket().bucket(bucket)).map(drop)
    }

    async fn put_public_access_block(
        &self,
        bucket: &str,
        block: PublicAccessBlock,
    ) -> Result<(), StoreError> {
        let request = self.client().await?.put_public_access_block().bucket(bucket);
        let request = request.public_access_block_configuration(access_block_to_sdk(block));
        let request = request.customize().mutate_request(add_content_md5);
        call!("PutPublicAccessBlock", request, customized).map(drop)
    }

    async fn public_access_block(&self, bucket: &str) -> Result<Option<PublicAccessBlock>, StoreError> {
        let request = self.client().await?.get_public_access_block().bucket(bucket).customize();
        let outcome = call!("GetPublicAccessBlock", request, customized, or access_block_misnamed);
        let output = unset_is_none(outcome)?;
        Ok(output.and_then(|o| o.public_access_block_configuration.as_ref().map(access_block_from_sdk)))
    }

    async fn put_policy(&self, bucket: &str, policy: &Value) -> Result<(), StoreError> {
        let request = self.client().await?.put_bucket_policy().bucket(bucket).policy(policy.to_string());
        let request = request.customize().mutate_request(add_content_md5);
        call!("PutBucketPolicy", request, customized).map(drop)
    }

    async fn delete_policy(&self, bucket: &str) -> Result<(), StoreError> {
        let outcome = call!("DeleteBucketPolicy", self.client().await?.delete_bucket_policy().bucket(bucket));
        unset_is_none(outcome).map(drop)
    }

    async fn policy(&self, bucket: &str) -> Result<Option<Value>, StoreError> {
        let outcome = call!("GetBucketPolicy", self.client().await?.get_bucket_policy().bucket(bucket));
        let text = unset_is_none(outcome)?.and_then(|output| output.policy);
        // What is not JSON is shown as it is: this is read for humans.
        Ok(text.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    async fn put_cors(&self, bucket: &str, rule: &CorsRule) -> Result<(), StoreError> {
        let rules = cors_to_sdk(rule).map_err(incomplete("PutBucketCors"))?;
        let request = self.client().await?.put_bucket_cors().bucket(bucket).cors_configuration(rules);
        let request = request.customize().mutate_request(add_content_md5);
        call!("PutBucketCors", request, customized).map(drop)
    }

    async fn cors(&self, bucket: &str) -> Result<Option<Value>, StoreError> {
        let outcome = call!("GetBucketCors", self.client().await?.get_bucket_cors().bucket(bucket));
        Ok(unset_is_none(outcome)?.map(|output| cors_from_sdk(output.cors_rules())))
    }

    async fn enable_versioning(&self, bucket: &str) -> Result<(), StoreError> {
        let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
        let request = self.client().await?.put_bucket_versioning().bucket(bucket);
        let request = request.versioning_configuration(on).customize().mutate_request(add_content_md5);
        call!("PutBucketVersioning", request, customized).map(drop)
    }

    async fn versioning(&self, bucket: &str) -> Result<Option<String>, StoreError> {
        let request = self.client().await?.get_bucket_versioning().bucket(bucket);
        Ok(call!("GetBucketVersioning", request)?.status.map(|status| status.as_str().to_owned()))
    }

    async fn put_lifecycle(
        &self,
        bucket: &str,
        key_prefix: &str,
        lifecycle: &Lifecycle,
    ) -> Result<(), StoreError> {
        const OPERATION: &str = "PutBucketLifecycleConfiguration";
        let rules = lifecycle_to_sdk(key_prefix, lifecycle).map_err(incomplete(OPERATION))?;
        let request = self.client().await?.put_bucket_lifecycle_configuration().bucket(bucket);
        let request = request.lifecycle_configuration(rules).customize().mutate_request(add_content_md5);
        call!("PutBucketLifecycleConfiguration", request, customized).map(drop)
    }

    async fn lifecycle(&self, bucket: &str) -> Result<Option<Value>, StoreError> {
        let request = self.client().await?.get_bucket_lifecycle_configuration().bucket(bucket);
        let outcome = call!("GetBucketLifecycleConfiguration", request);
        Ok(unset_is_none(outcome)?.map(|output| lifecycle_from_sdk(output.rules())))
    }
}

/// For HEAD, whose 404 has no body to say what is missing.
fn absent_is_none<T>(outcome: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::NoSuchBucket) => Ok(None),
        Err(error) => Err(error),
    }
}

/// For a part of a bucket's configuration that is not set: a 404 which does not say that the bucket is missing.
fn unset_is_none<T>(outcome: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_about_location(error: &StoreError) -> bool {
    error.status == Some(400) && error.code.as_deref().is_some_and(|code| code.contains("LocationConstraint"))
}
