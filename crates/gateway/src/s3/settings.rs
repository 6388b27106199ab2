//! A bucket's settings: CORS, lifecycle, policy, public access block. Stored as the documents S3 exchanges.

use std::sync::Arc;

use s3s::dto::*;
use s3s::xml::Deserialize;
use s3s::{S3Error, S3Request, S3Result, s3_error};

use crate::failure::{Outcome, custom};
use crate::index::buckets;
use crate::index::records::Bucket;
use crate::store::Store;
use crate::{cors, document, lifecycle, policy};

async fn read<T: Send + 'static>(
    store: &Arc<Store>,
    bucket: String,
    setting: impl FnOnce(Bucket) -> Outcome<T> + Send + 'static,
) -> S3Result<T> {
    let read = store
        .run(move |store| setting(store.index.read(|transaction| buckets::get(transaction, &bucket))?))
        .await?;
    Ok(read)
}

/// A document that may be missing.
fn decode<T: for<'xml> Deserialize<'xml>>(text: Option<&str>) -> Outcome<Option<T>> {
    text.map(document::read).transpose()
}

async fn change(
    store: &Arc<Store>,
    bucket: String,
    change: impl FnOnce(&mut Bucket) + Send + 'static,
) -> S3Result<()> {
    store
        .run(move |store| store.index.write(|transaction| buckets::update(transaction, &bucket, change)))
        .await?;
    Ok(())
}

pub async fn put_bucket_cors(
    store: &Arc<Store>,
    request: S3Request<PutBucketCorsInput>,
) -> S3Result<PutBucketCorsOutput> {
    let configuration = request.input.cors_configuration;
    cors::validate(&configuration)?;
    let document = document::write(&configuration)?;
    change(store, request.input.bucket, |bucket| bucket.cors = Some(document)).await?;
    Ok(PutBucketCorsOutput::default())
}

pub async fn get_bucket_cors(
    store: &Arc<Store>,
    request: S3Request<GetBucketCorsInput>,
) -> S3Result<GetBucketCorsOutput> {
    let configuration: CORSConfiguration =
        read(store, request.input.bucket, |bucket| decode(bucket.cors.as_deref()))
            .await?
            .ok_or_else(|| s3_error!(NoSuchCORSConfiguration, "The CORS configuration does not exist"))?;
    Ok(GetBucketCorsOutput { cors_rules: Some(configuration.cors_rules) })
}

pub async fn delete_bucket_cors(
    store: &Arc<Store>,
    request: S3Request<DeleteBucketCorsInput>,
) -> S3Result<DeleteBucketCorsOutput> {
    change(store, request.input.bucket, |bucket| bucket.cors = None).await?;
    Ok(DeleteBucketCorsOutput::default())
}

pub async fn put_bucket_lifecycle_configuration(
    store: &Arc<Store>,
    request: S3Request<PutBucketLifecycleConfigurationInput>,
) -> S3Result<PutBucketLifecycleConfigurationOutput> {
    let mut configuration = request
        .input
        .lifecycle_configuration
        .ok_or_else(|| s3_error!(MalformedXML, "The lifecycle configuration is missing."))?;
    lifecycle::validate(&mut configuration)?;
    let document = document::write(&configuration)?;
    change(store, request.input.bucket, |bucket| bucket.lifecycle = Some(document)).await?;
    Ok(PutBucketLifecycleConfigurationOutput::default())
}

pub async fn get_bucket_lifecycle_configuration(
    store: &Arc<Store>,
    request: S3Request<GetBucketLifecycleConfigurationInput>,
) -> S3Result<GetBucketLifecycleConfigurationOutput> {
    let configuration: BucketLifecycleConfiguration =
        read(store, request.input.bucket, |bucket| decode(bucket.lifecycle.as_deref())).await?.ok_or_else(
            || s3_error!(NoSuchLifecycleConfiguration, "The lifecycle configuration does not exist"),
        )?;
    Ok(GetBucketLifecycleConfigurationOutput { rules: Some(configuration.rules), ..Default::default() })
}

pub async fn delete_bucket_lifecycle(
    store: &Arc<Store>,
    request: S3Request<DeleteBucketLifecycleInput>,
) -> S3Result<DeleteBucketLifecycleOutput> {
    change(store, request.input.bucket, |bucket| bucket.lifecycle = None).await?;
    Ok(DeleteBucketLifecycleOutput::default())
}

pub async fn put_bucket_policy(
    store: &Arc<Store>,
    request: S3Request<PutBucketPolicyInput>,
) -> S3Result<PutBucketPolicyOutput> {
    let (name, text) = (request.input.bucket, request.input.policy);
    let public = policy::Policy::parse(&text, &name)?.is_public();
    store
        .run(move |store| {
            store.index.write(|transaction| {
                let block = access_block(&buckets::get(transaction, &name)?)?;
                if public && block.is_some_and(|block| block.block_public_policy == Some(true)) {
                    return Err(s3_error!(
                        AccessDenied,
                        "Public policies are blocked by the BlockPublicPolicy setting of the bucket."
                    )
                    .into());
                }
                buckets::update(transaction, &name, |bucket| bucket.policy = Some(text))
            })
        })
        .await?;
    Ok(PutBucketPolicyOutput::default())
}

pub async fn get_bucket_policy(
    store: &Arc<Store>,
    request: S3Request<GetBucketPolicyInput>,
) -> S3Result<GetBucketPolicyOutput> {
    let policy = read(store, request.input.bucket, |bucket| Ok(bucket.policy)).await?;
    let policy = policy.ok_or_else(|| s3_error!(NoSuchBucketPolicy, "The bucket policy does not exist"))?;
    Ok(GetBucketPolicyOutput { policy: Some(policy) })
}

pub async fn delete_bucket_policy(
    store: &Arc<Store>,
    request: S3Request<DeleteBucketPolicyInput>,
) -> S3Result<DeleteBucketPolicyOutput> {
    change(store, request.input.bucket, |bucket| bucket.policy = None).await?;
    Ok(DeleteBucketPolicyOutput::default())
}

/// The bucket's public access block, if it has one.
pub fn access_block(bucket: &Bucket) -> Outcome<Option<PublicAccessBlockConfiguration>> {
    decode(bucket.access_block.as_deref())
}

pub async fn put_public_access_block(
    store: &Arc<Store>,
    request: S3Request<PutPublicAccessBlockInput>,
) -> S3Result<PutPublicAccessBlockOutput> {
    let document = document::write(&request.input.public_access_block_configuration)?;
    change(store, request.input.bucket, |bucket| bucket.access_block = Some(document)).await?;
    Ok(PutPublicAccessBlockOutput::default())
}

pub async fn get_public_access_block(
    store: &Arc<Store>,
    request: S3Request<GetPublicAccessBlockInput>,
) -> S3Result<GetPublicAccessBlockOutput> {
    let configuration = read(store, request.input.bucket, |bucket| access_block(&bucket)).await?;
    let configuration = configuration.ok_or_else(no_access_block)?;
    Ok(GetPublicAccessBlockOutput { public_access_block_configuration: Some(configuration) })
}

fn no_access_block() -> S3Error {
    custom(
        "NoSuchPublicAccessBlockConfiguration",
        http::StatusCode::NOT_FOUND,
        "The public access block configuration was not found",
    )
}

pub async fn delete_public_access_block(
    store: &Arc<Store>,
    request: S3Request<DeletePublicAccessBlockInput>,
) -> S3Result<DeletePublicAccessBlockOutput> {
    change(store, request.input.bucket, |bucket| bucket.access_block = None).await?;
    Ok(DeletePublicAccessBlockOutput::default())
}
