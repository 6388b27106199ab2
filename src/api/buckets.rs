//! Buckets of the store behind logical ones.

use pgrx::pg_schema;

#[pg_schema]
mod storage_private {
    use pg_storage_store::inspect;
    use pgrx::datum::TimestampWithTimeZone;
    use pgrx::prelude::*;
    use pgrx::{JsonB, Uuid};

    use crate::api::or_nil;
    use crate::bucket::Bucket;
    use crate::error::{self, Failure, OrRaise};
    use crate::files::found;
    use crate::provision::{self, Ask};
    use crate::{bucket_deletion, config, session, wait};

    /// The bucket that a key or id means.
    #[pg_extern(stable)]
    fn find_bucket(bucket: Option<&str>) -> Uuid {
        Bucket::named(bucket).or_raise().id_datum()
    }

    /// The endpoint of the store, which has this bucket.
    #[pg_extern(volatile)]
    fn keeper_of(physical_name: &str) -> String {
        found::keeper(physical_name).or_raise()
    }

    /// Provisions a bucket now and gives the name of its physical bucket.
    #[pg_extern(volatile)]
    fn provision(bucket_id: Uuid) -> String {
        Bucket::visible(bucket_id)
            .and_then(|bucket| provision::ensure(&bucket, Ask::Explicit))
            .or_raise()
            .name
    }

    /// Marks a bucket that the caller may delete, and gives the time.
    #[pg_extern(volatile)]
    fn mark_bucket_deleted(bucket_id: Option<Uuid>) -> TimestampWithTimeZone {
        bucket_deletion::mark(or_nil(bucket_id)).or_raise()
    }

    /// Whether this session is just having a bucket marked.
    #[pg_extern(volatile)]
    fn is_being_marked(bucket_id: Uuid) -> bool {
        bucket_deletion::is_being_marked(bucket_id)
    }

    /// What the store says of a bucket's physical bucket.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn inspect_bucket(
        bucket_id: Uuid,
    ) -> TableIterator<
        'static,
        (
            name!(physical_name, String),
            name!(exists, bool),
            name!(public_access_block, Option<JsonB>),
            name!(policy, Option<JsonB>),
            name!(cors, Option<JsonB>),
            name!(lifecycle, Option<JsonB>),
            name!(versioning, Option<JsonB>),
        ),
    > {
        let (physical, inspection) = read_back(bucket_id).or_raise();
        let part = |name: &str| inspection.get(name).filter(|part| !part.is_null()).cloned().map(JsonB);
        let exists = inspection.get("exists").and_then(serde_json::Value::as_bool).unwrap_or(false);
        TableIterator::once((
            physical,
            exists,
            part("public_access_block"),
            part("policy"),
            part("cors"),
            part("lifecycle"),
            part("versioning"),
        ))
    }

    fn read_back(bucket_id: Uuid) -> error::Result<(String, serde_json::Value)> {
        let bucket = Bucket::visible(bucket_id)?;
        let config = config::current()?;
        let physical = provision::physical_name(&config, &bucket)?;
        let (store, name) = (session::store(&config)?, physical.clone());
        let inspection = wait::until(async move { inspect(&store, &name).await })?;
        // A store that cannot be reached describes nothing.
        if let pg_storage_store::Reading::Error(error) = inspection.exists {
            return Err(error.into());
        }
        let json = serde_json::to_value(inspection).map_err(|error| Failure::internal(error.to_string()))?;
        Ok((physical, json))
    }
}
