//! Between the SDK's types and ours.

use std::time::SystemTime;

use aws_sdk_s3::error::{BuildError, SdkError};
use aws_sdk_s3::operation::get_public_access_block::GetPublicAccessBlockOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{
    AbortIncompleteMultipartUpload, BucketLifecycleConfiguration, CorsConfiguration, CorsRule as SdkCorsRule,
    ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
    PublicAccessBlockConfiguration,
};
use aws_smithy_runtime_api::http::Response;
use pg_storage_core::policy::{CorsRule, Lifecycle};
use serde_json::{Value, json};

use crate::error::{ErrorKind, StoreError};
use crate::store::PublicAccessBlock;

/// A request that the SDK will not build, because something it needs is missing.
pub(super) fn incomplete(operation: &'static str) -> impl Fn(BuildError) -> StoreError {
    move |error| StoreError::local(ErrorKind::Invalid, operation, error.to_string())
}

/// A length as S3's XML and headers carry it.
pub(super) fn length(value: Option<i64>) -> Option<u64> {
    value.and_then(|n| u64::try_from(n).ok())
}

pub(super) fn time(value: Option<&DateTime>) -> Option<SystemTime> {
    value.and_then(|at| SystemTime::try_from(*at).ok())
}

pub(super) fn access_block_to_sdk(block: PublicAccessBlock) -> PublicAccessBlockConfiguration {
    PublicAccessBlockConfiguration::builder()
        .block_public_acls(block.block_public_acls)
        .ignore_public_acls(block.ignore_public_acls)
        .block_public_policy(block.block_public_policy)
        .restrict_public_buckets(block.restrict_public_buckets)
        .build()
}

pub(super) fn access_block_from_sdk(block: &PublicAccessBlockConfiguration) -> PublicAccessBlock {
    PublicAccessBlock {
        block_public_acls: block.block_public_acls().unwrap_or(false),
        ignore_public_acls: block.ignore_public_acls().unwrap_or(false),
        block_public_policy: block.block_public_policy().unwrap_or(false),
        restrict_public_buckets: block.restrict_public_buckets().unwrap_or(false),
    }
}

/// The answer of Ceph 16, whose root element has another name than S3's and which the SDK therefore does not read.
pub(super) fn access_block_misnamed<E>(error: &SdkError<E, Response>) -> Option<GetPublicAccessBlockOutput> {
    let answer = error.raw_response().filter(|answer| answer.status().is_success())?;
    let body = std::str::from_utf8(answer.body().bytes()?).ok()?;
    let switch = |name: &str| {
        let (_, behind) = body.split_once(&format!("<{name}>"))?;
        let (value, _) = behind.split_once(&format!("</{name}>"))?;
        value.trim().parse::<bool>().ok()
    };
    let block = PublicAccessBlockConfiguration::builder()
        .block_public_acls(switch("BlockPublicAcls")?)
        .ignore_public_acls(switch("IgnorePublicAcls")?)
        .block_public_policy(switch("BlockPublicPolicy")?)
        .restrict_public_buckets(switch("RestrictPublicBuckets")?)
        .build();
    Some(GetPublicAccessBlockOutput::builder().public_access_block_configuration(block).build())
}

pub(super) fn cors_to_sdk(rule: &CorsRule) -> Result<CorsConfiguration, BuildError> {
    let rule = SdkCorsRule::builder()
        .set_allowed_methods(Some(owned(&rule.allowed_methods)))
        .set_allowed_headers(Some(owned(&rule.allowed_headers)))
        .set_allowed_origins(Some(owned(&rule.allowed_origins)))
        .set_expose_headers(Some(owned(&rule.expose_headers)))
        .max_age_seconds(i32::try_from(rule.max_age_seconds).unwrap_or(i32::MAX))
        .build()?;
    CorsConfiguration::builder().cors_rules(rule).build()
}

pub(super) fn cors_from_sdk(rules: &[SdkCorsRule]) -> Value {
    let rules = rules.iter().map(|rule| {
        json!({
            "allowed_methods": rule.allowed_methods(),
            "allowed_headers": rule.allowed_headers(),
            "allowed_origins": rule.allowed_origins(),
            "expose_headers": rule.expose_headers(),
            "max_age_seconds": rule.max_age_seconds(),
        })
    });
    Value::Array(rules.collect())
}

/// One rule per purpose: some stores refuse or forget a second action in one rule.
pub(super) fn lifecycle_to_sdk(
    key_prefix: &str,
    lifecycle: &Lifecycle,
) -> Result<BucketLifecycleConfiguration, BuildError> {
    let rule = |id: &str| {
        LifecycleRule::builder()
            .id(id)
            .status(ExpirationStatus::Enabled)
            .filter(LifecycleRuleFilter::builder().prefix(key_prefix).build())
    };
    let abort =
        AbortIncompleteMultipartUpload::builder().days_after_initiation(days(lifecycle.abort_multipart_days));
    let mut rules =
        vec![rule("pg-storage-abort-multipart").abort_incomplete_multipart_upload(abort.build()).build()?];
    if let Some(after) = lifecycle.expire_days {
        let expire = LifecycleExpiration::builder().days(days(after)).build();
        rules.push(rule("pg-storage-expire").expiration(expire).build()?);
    }
    BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build()
}

pub(super) fn lifecycle_from_sdk(rules: &[LifecycleRule]) -> Value {
    let rules = rules.iter().map(|rule| {
        json!({
            "id": rule.id(),
            "status": rule.status().as_str(),
            "prefix": rule.filter().and_then(LifecycleRuleFilter::prefix),
            "expire_days": rule.expiration().and_then(LifecycleExpiration::days),
            "abort_multipart_days": rule
                .abort_incomplete_multipart_upload()
                .and_then(AbortIncompleteMultipartUpload::days_after_initiation),
        })
    });
    Value::Array(rules.collect())
}

fn days(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn owned<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}
