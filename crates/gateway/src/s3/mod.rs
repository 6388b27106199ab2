//! The S3 operations this store has; whatever is not here s3s answers with `NotImplemented`.

mod buckets;
mod copy;
mod headers;
mod list;
mod multipart;
mod objects;
mod parts;
mod settings;

pub use headers::{encoding, refuse_unsupported, user};
pub use objects::{check_key, publish};
pub use settings::access_block;

use std::sync::Arc;

use async_trait::async_trait;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result};

use crate::store::Store;

/// s3s's view of the store.
pub struct Api(pub Arc<Store>);

/// One trait method per operation; the operations themselves live in this folder, by subject.
macro_rules! operations {
    ($($name:ident in $module:ident: $input:ident -> $output:ident;)*) => {
        #[async_trait]
        impl S3 for Api {
            $(async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                Ok(S3Response::new($module::$name(&self.0, request).await?))
            })*
        }
    };
}

operations! {
    create_bucket in buckets: CreateBucketInput -> CreateBucketOutput;
    head_bucket in buckets: HeadBucketInput -> HeadBucketOutput;
    delete_bucket in buckets: DeleteBucketInput -> DeleteBucketOutput;
    list_buckets in buckets: ListBucketsInput -> ListBucketsOutput;
    get_bucket_location in buckets: GetBucketLocationInput -> GetBucketLocationOutput;
    get_bucket_versioning in buckets: GetBucketVersioningInput -> GetBucketVersioningOutput;
    put_bucket_versioning in buckets: PutBucketVersioningInput -> PutBucketVersioningOutput;

    put_bucket_cors in settings: PutBucketCorsInput -> PutBucketCorsOutput;
    get_bucket_cors in settings: GetBucketCorsInput -> GetBucketCorsOutput;
    delete_bucket_cors in settings: DeleteBucketCorsInput -> DeleteBucketCorsOutput;
    put_bucket_lifecycle_configuration in settings:
        PutBucketLifecycleConfigurationInput -> PutBucketLifecycleConfigurationOutput;
    get_bucket_lifecycle_configuration in settings:
        GetBucketLifecycleConfigurationInput -> GetBucketLifecycleConfigurationOutput;
    delete_bucket_lifecycle in settings: DeleteBucketLifecycleInput -> DeleteBucketLifecycleOutput;
    put_bucket_policy in settings: PutBucketPolicyInput -> PutBucketPolicyOutput;
    get_bucket_policy in settings: GetBucketPolicyInput -> GetBucketPolicyOutput;
    delete_bucket_policy in settings: DeleteBucketPolicyInput -> DeleteBucketPolicyOutput;
    put_public_access_block in settings: PutPublicAccessBlockInput -> PutPublicAccessBlockOutput;
    get_public_access_block in settings: GetPublicAccessBlockInput -> GetPublicAccessBlockOutput;
    delete_public_access_block in settings: DeletePublicAccessBlockInput -> DeletePublicAccessBlockOutput;

    put_object in objects: PutObjectInput -> PutObjectOutput;
    post_object in objects: PostObjectInput -> PostObjectOutput;
    get_object in objects: GetObjectInput -> GetObjectOutput;
    head_object in objects: HeadObjectInput -> HeadObjectOutput;
    delete_object in objects: DeleteObjectInput -> DeleteObjectOutput;
    delete_objects in objects: DeleteObjectsInput -> DeleteObjectsOutput;
    copy_object in copy: CopyObjectInput -> CopyObjectOutput;
    list_objects in list: ListObjectsInput -> ListObjectsOutput;
    list_objects_v2 in list: ListObjectsV2Input -> ListObjectsV2Output;

    create_multipart_upload in multipart: CreateMultipartUploadInput -> CreateMultipartUploadOutput;
    complete_multipart_upload in multipart: CompleteMultipartUploadInput -> CompleteMultipartUploadOutput;
    abort_multipart_upload in multipart: AbortMultipartUploadInput -> AbortMultipartUploadOutput;
    list_multipart_uploads in multipart: ListMultipartUploadsInput -> ListMultipartUploadsOutput;
    upload_part in parts: UploadPartInput -> UploadPartOutput;
    upload_part_copy in parts: UploadPartCopyInput -> UploadPartCopyOutput;
    list_parts in parts: ListPartsInput -> ListPartsOutput;
}
