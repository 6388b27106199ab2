//! Who may do what: the one key holder everything, everybody else what a bucket's policy opens.

use std::sync::Arc;

use async_trait::async_trait;
use s3s::access::{S3Access, S3AccessContext};
use s3s::{S3Result, s3_error};

use super::Operation;
use crate::failure::{Failure, Outcome};
use crate::index::buckets;
use crate::index::records::Bucket;
use crate::policy::Policy;
use crate::s3::access_block;
use crate::store::Store;

/// The access check s3s asks before it reads a body.
pub struct Access {
    /// Where the policies are.
    pub store: Arc<Store>,
}

#[async_trait]
impl S3Access for Access {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let name = context.s3_op().name().to_owned();
        let signed = context.credentials().is_some();
        let reads = matches!(name.as_str(), "GetObject" | "HeadObject");
        let target = context.s3_path().as_object().map(|(bucket, key)| (bucket.to_owned(), key.to_owned()));
        let overrides = context.uri().query().is_some_and(|query| {
            form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name.starts_with("response-"))
        });
        if let Some(operation) = context.extensions_mut().get::<Operation>() {
            operation.set(&name);
        }
        if signed {
            return Ok(());
        }
        let Some((bucket, key)) = target.filter(|_| reads) else { return Err(denied()) };
        let open = self.store.run(move |store| {
            let found = store.index.read(|transaction| buckets::get(transaction, &bucket))?;
            is_open(&found, &bucket, &key)
        });
        if !open.await.map_err(|_| denied())? {
            return Err(denied());
        }
        if overrides {
            return Err(s3_error!(
                InvalidRequest,
                "Request specific response headers cannot be used for anonymous GET requests."
            ));
        }
        Ok(())
    }
}

fn denied() -> s3s::S3Error {
    s3_error!(AccessDenied, "Access Denied")
}

/// Whether everybody may read this object.
fn is_open(bucket: &Bucket, name: &str, key: &str) -> Outcome<bool> {
    let Some(text) = &bucket.policy else { return Ok(false) };
    if access_block(bucket)?.is_some_and(|block| block.restrict_public_buckets == Some(true)) {
        return Ok(false);
    }
    let policy = Policy::parse(text, name).map_err(|error| Failure::Record(Box::new(error)))?;
    Ok(policy.allows_everybody("s3:GetObject", name, key))
}
