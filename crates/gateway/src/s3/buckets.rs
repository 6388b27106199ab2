//! Buckets: create, look at, delete.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};

use super::headers::refuse_acls;
use crate::index::buckets;
use crate::index::records::Moment;
use crate::store::Store;

pub async fn create_bucket(
    store: &Arc<Store>,
    request: S3Request<CreateBucketInput>,
) -> S3Result<CreateBucketOutput> {
    refuse_acls(&request.headers)?;
    let input = request.input;
    if input.object_lock_enabled_for_bucket == Some(true) {
        return Err(s3_error!(NotImplemented, "Object lock is not implemented."));
    }
    let wanted =
        input.create_bucket_configuration.and_then(|configuration| configuration.location_constraint);
    if wanted.is_some_and(|wanted| wanted.as_str() != store.region) {
        return Err(s3_error!(
            IllegalLocationConstraintException,
            "The location constraint is incompatible for the region specific endpoint this request was sent to."
        ));
    }
    let location = format!("/{}", input.bucket);
    store
        .run(move |store| {
            store.index.write(|transaction| buckets::create(transaction, &input.bucket, Moment::now()))
        })
        .await?;
    Ok(CreateBucketOutput { location: Some(location) })
}

pub async fn head_bucket(
    store: &Arc<Store>,
    request: S3Request<HeadBucketInput>,
) -> S3Result<HeadBucketOutput> {
    exists(store, request.input.bucket).await?;
    Ok(HeadBucketOutput { bucket_region: Some(store.region.clone()), ..Default::default() })
}

pub async fn delete_bucket(
    store: &Arc<Store>,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<DeleteBucketOutput> {
    let bucket = request.input.bucket;
    store
        .run(move |store| store.write(|transaction| Ok(((), buckets::delete(transaction, &bucket)?))))
        .await?;
    Ok(DeleteBucketOutput::default())
}

pub async fn list_buckets(
    store: &Arc<Store>,
    request: S3Request<ListBucketsInput>,
) -> S3Result<ListBucketsOutput> {
    if request.input.continuation_token.is_some() {
        return Err(s3_error!(InvalidArgument, "The continuation token provided is incorrect"));
    }
    let prefix = request.input.prefix.unwrap_or_default();
    let all = store.run(|store| store.index.read(buckets::all)).await?;
    let buckets = all
        .into_iter()
        .filter(|(name, _)| name.starts_with(&prefix))
        .map(|(name, bucket)| Bucket {
            name: Some(name),
            creation_date: Some(bucket.created.timestamp()),
            ..Default::default()
        })
        .collect();
    Ok(ListBucketsOutput { buckets: Some(buckets), owner: Some(owner()), ..Default::default() })
}

/// The store has one account; listings must name somebody.
pub(super) fn owner() -> Owner {
    Owner { display_name: None, id: Some("local".to_owned()) }
}

pub async fn get_bucket_location(
    store: &Arc<Store>,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<GetBucketLocationOutput> {
    exists(store, request.input.bucket).await?;
    // S3 says nothing for its oldest region.
    let named = (store.region != "us-east-1").then(|| BucketLocationConstraint::from(store.region.clone()));
    Ok(GetBucketLocationOutput { location_constraint: named })
}

pub async fn get_bucket_versioning(
    store: &Arc<Store>,
    request: S3Request<GetBucketVersioningInput>,
) -> S3Result<GetBucketVersioningOutput> {
    exists(store, request.input.bucket).await?;
    // No status is how S3 says "never versioned".
    Ok(GetBucketVersioningOutput::default())
}

pub async fn put_bucket_versioning(
    _: &Arc<Store>,
    _: S3Request<PutBucketVersioningInput>,
) -> S3Result<PutBucketVersioningOutput> {
    Err(s3_error!(NotImplemented, "The local store keeps one version of an object."))
}

async fn exists(store: &Arc<Store>, bucket: String) -> S3Result<()> {
    store.run(move |store| store.index.read(|transaction| buckets::get(transaction, &bucket))).await?;
    Ok(())
}
