//! A logical bucket as the caller sees it.

use pg_storage_core::error::Token;
use pg_storage_core::policy::Access;
use pgrx::datum::{DatumWithOid, Interval};
use pgrx::spi::quote_literal;
use uuid::Uuid;

use crate::error::{Failure, Result, shown_id};
use crate::{catalog, identity};

/// What uploads need to know of a bucket.
pub struct Bucket {
    /// Its identity.
    pub id: Uuid,
    /// The tenant it belongs to.
    pub tenant: String,
    /// Its name within its owner.
    pub key: String,
    /// private, public or temp.
    pub access: Access,
    /// The bucket in the store; `None` until first use.
    pub physical_name: Option<String>,
    /// Types accepted; empty accepts all.
    pub allowed_mime_types: Vec<String>,
    /// Largest file in bytes.
    pub max_file_size: Option<i64>,
    /// Whether the number or the sum of its files is limited.
    pub has_quota: bool,
    /// Lifetime of upload URLs.
    pub upload_url_ttl: Option<Interval>,
}

/// A query for buckets that the caller can see and that are not being deleted.
macro_rules! buckets_where {
    ($which:literal) => {
        concat!(
            "SELECT b.id, b.tenant_id, b.key, b.access::pg_catalog.text, b.physical_name, b.allowed_mime_types,
                    b.max_file_size, b.upload_url_ttl, b.max_total_size IS NOT NULL OR b.max_file_count IS NOT NULL
             FROM storage.buckets b WHERE b.deleted_at IS NULL AND ",
            $which
        )
    };
}

impl Bucket {
    /// The bucket with this id, if the caller can see it.
    ///
    /// # Errors
    /// `BUCKET_NOT_FOUND`, in the same words whether it is absent or hidden.
    pub fn visible(id: pgrx::Uuid) -> Result<Self> {
        Self::with_id(id)?.ok_or_else(|| not_found(&shown_id(id)))
    }

    /// The bucket that a key or id means among those the caller can see: its own first, then the tenant's.
    ///
    /// `name`: `None` means the caller's one default.
    ///
    /// # Errors
    /// `BUCKET_NOT_FOUND`, `DEFAULT_BUCKET_MISSING`, `DEFAULT_BUCKET_AMBIGUOUS`, `TENANT_REQUIRED`.
    pub fn named(name: Option<&str>) -> Result<Self> {
        let Some(name) = name else { return Self::usual() };
        let found = match Uuid::try_parse(name) {
            // A bucket's key never is one.
            Ok(id) => Self::with_id(pgrx::Uuid::from_bytes(*id.as_bytes()))?,
            Err(_) => {
                let (tenant, user) = (identity::tenant()?, identity::user()?);
                Self::first(Self::all(
                    buckets_where!(
                        "b.tenant_id OPERATOR(pg_catalog.=) $1 AND b.key OPERATOR(pg_catalog.=) $2
                         AND (b.owner_id OPERATOR(pg_catalog.=) $3 OR b.owner_id IS NULL)
                         ORDER BY b.owner_id NULLS LAST"
                    ),
                    &[tenant.into(), name.into(), user.into()],
                )?)
            }
        };
        found.ok_or_else(|| not_found(&quote_literal(name)))
    }

    /// The caller's one default bucket.
    fn usual() -> Result<Self> {
        let (tenant, user) = (identity::tenant()?, identity::user()?);
        let found = Self::all(
            buckets_where!(
                "b.tenant_id OPERATOR(pg_catalog.=) $1 AND b.owner_id OPERATOR(pg_catalog.=) $2 AND b.is_default"
            ),
            &[tenant.as_str().into(), user.as_str().into()],
        )?;
        if found.len() > 1 {
            let candidates: Vec<String> = found.iter().map(|bucket| bucket.id.to_string()).collect();
            return Err(Failure::new(Token::DefaultBucketAmbiguous, "you have several default buckets")
                .detail(format!("Candidates: {}.", candidates.join(", ")))
                .hint("Name a bucket, or keep is_default on one only."));
        }
        Self::first(found).ok_or_else(|| {
            Failure::new(Token::DefaultBucketMissing, "you have no default bucket")
                .detail(format!("User {} of tenant {}.", quote_literal(user), quote_literal(tenant)))
                .hint("Name a bucket, or create one with is_default => true; storage.create_user_buckets() makes the usual three.")
        })
    }

    fn with_id(id: pgrx::Uuid) -> Result<Option<Self>> {
        Self::all(buckets_where!("b.id OPERATOR(pg_catalog.=) $1"), &[id.into()]).map(Self::first)
    }

    fn first(found: Vec<Self>) -> Option<Self> {
        found.into_iter().next()
    }

    fn all(query: &'static str, arguments: &[DatumWithOid<'_>]) -> Result<Vec<Self>> {
        let missing = || Failure::internal("a bucket has no columns");
        catalog::read(query, arguments, |rows| {
            rows.map(|row| {
                let access: String = row.get(4)?.ok_or_else(missing)?;
                Ok(Self {
                    id: Uuid::from_bytes(*row.get::<pgrx::Uuid>(1)?.ok_or_else(missing)?.as_bytes()),
                    tenant: row.get(2)?.ok_or_else(missing)?,
                    key: row.get(3)?.ok_or_else(missing)?,
                    access: Access::parse(&access)
                        .ok_or_else(|| Failure::internal(format!("unknown bucket access {access}")))?,
                    physical_name: row.get(5)?,
                    allowed_mime_types: row
                        .get::<Vec<Option<String>>>(6)?
                        .unwrap_or_default()
                        .into_iter()
                        .flatten()
                        .collect(),
                    max_file_size: row.get(7)?,
                    upload_url_ttl: row.get(8)?,
                    has_quota: row.get(9)?.unwrap_or(false),
                })
            })
            .collect()
        })
    }

    /// The id as an SQL argument.
    pub fn id_datum(&self) -> pgrx::Uuid {
        pgrx::Uuid::from_bytes(*self.id.as_bytes())
    }
}

/// The words for a bucket that is absent or hidden. `asked`: what for, as it is shown.
pub fn not_found(asked: &str) -> Failure {
    Failure::new(Token::BucketNotFound, "no such bucket")
        .detail(format!("Asked for {asked}."))
        .hint("A bucket is named by its key or its id; storage.buckets lists those you can see.")
}
