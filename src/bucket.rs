//! A logical bucket as the caller sees it.

use pg_storage_core::error::Token;
use pg_storage_core::policy::Access;
use pgrx::datum::Interval;
use uuid::Uuid;

use crate::catalog;
use crate::error::{Failure, Result};

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

impl Bucket {
    /// The bucket with this id, if the caller can see it.
    ///
    /// # Errors
    /// `BUCKET_NOT_FOUND`, in the same words whether it is absent or hidden.
    pub fn visible(id: pgrx::Uuid) -> Result<Self> {
        catalog::read(
            "SELECT b.tenant_id, b.key, b.access::pg_catalog.text, b.physical_name, b.allowed_mime_types, b.max_file_size, b.upload_url_ttl,
                    b.max_total_size IS NOT NULL OR b.max_file_count IS NOT NULL
             FROM storage.buckets b WHERE b.id OPERATOR(pg_catalog.=) $1 AND b.deleted_at IS NULL",
            &[id.into()],
            |rows| {
                let row = rows.first();
                if row.is_empty() {
                    return Err(not_found(id));
                }
                let access: String = row.get(3)?.unwrap_or_default();
                Ok(Self {
                    id: Uuid::from_bytes(*id.as_bytes()),
                    tenant: row.get(1)?.unwrap_or_default(),
                    key: row.get(2)?.unwrap_or_default(),
                    access: Access::parse(&access)
                        .ok_or_else(|| Failure::internal(format!("unknown bucket access {access}")))?,
                    physical_name: row.get(4)?,
                    allowed_mime_types: row.get::<Vec<Option<String>>>(5)?.unwrap_or_default().into_iter().flatten().collect(),
                    max_file_size: row.get(6)?,
                    upload_url_ttl: row.get(7)?,
                    has_quota: row.get(8)?.unwrap_or(false),
                })
            },
        )
    }

    /// The id as an SQL argument.
    pub fn id_datum(&self) -> pgrx::Uuid {
        pgrx::Uuid::from_bytes(*self.id.as_bytes())
    }
}

/// The words for a bucket that is absent or hidden.
pub fn not_found(id: pgrx::Uuid) -> Failure {
    Failure::new(Token::BucketNotFound, "no such bucket")
        .detail(format!("Asked for '{id}'."))
        .hint("A bucket is named by its key or its id; storage.buckets lists those you can see.")
}
