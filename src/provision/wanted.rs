//! What a physical bucket is to be: the name that a logical bucket gets, and whom it serves.

use pg_storage_core::error::Token;
use pg_storage_core::physical::bucket_name;
use pg_storage_core::policy::Access;

use super::record::Known;
use crate::bucket::Bucket;
use crate::config::{Config, Layout};
use crate::error::{Failure, Result};
use crate::guc::BucketLayout;

/// What a physical bucket is to be.
pub struct Wanted {
    /// Its name in the store.
    pub name: String,
    /// An operator's bucket: by the setting, or on record as one.
    pub fixed: bool,
    /// First part of every key in a fixed bucket.
    pub key_prefix: String,
    /// The one tenant it serves; `None`: several.
    pub tenant: Option<String>,
    /// The one access it serves; `None`: several.
    pub access: Option<Access>,
}

/// The physical bucket that the bucket has or would get.
pub fn physical_name(config: &Config, bucket: &Bucket) -> Result<String> {
    Ok(Wanted::of(config, bucket)?.name)
}

impl Wanted {
    /// What a logical bucket needs, by its row and the settings.
    pub fn of(config: &Config, bucket: &Bucket) -> Result<Self> {
        let tenant = Some(bucket.tenant.clone());
        let access = Some(bucket.access);
        let ours = |name, tenant| Wanted { name, fixed: false, key_prefix: String::new(), tenant, access };
        let operators = |name: &String| Wanted {
            name: name.clone(),
            fixed: true,
            key_prefix: config.key_prefix.to_string(),
            tenant: None,
            access: None,
        };
        match (&config.layout, &bucket.physical_name) {
            (Layout::Fixed(fixed), None) => Ok(operators(fixed)),
            (Layout::Fixed(fixed), Some(name)) if fixed == name => Ok(operators(fixed)),
            (Layout::Minted(BucketLayout::Access), Some(name)) => Ok(ours(name.clone(), None)),
            (_, Some(name)) => Ok(ours(name.clone(), tenant)),
            (Layout::Minted(layout), None) => {
                let prefix =
                    config.prefix.as_ref().ok_or_else(|| Failure::setting("bucket_prefix", "is not set"))?;
                let label = bucket.access.as_str();
                let id = bucket.id.to_string();
                Ok(match layout {
                    BucketLayout::Tenant => ours(bucket_name(prefix, &[&bucket.tenant, label]), tenant),
                    BucketLayout::Bucket => {
                        ours(bucket_name(prefix, &[&bucket.tenant, &bucket.key, &id]), tenant)
                    }
                    BucketLayout::Access => ours(bucket_name(prefix, &[label]), None),
                })
            }
        }
    }

    /// An operator's bucket stays one when the setting that named it is gone: it is not ours to open or to empty.
    pub fn heed(&mut self, known: &Known) {
        if known.fixed && !self.fixed {
            self.fixed = true;
            self.key_prefix = known.key_prefix.clone();
            self.tenant = None;
            self.access = None;
        }
    }
}

/// Private bytes must never land in a bucket that the world can read.
pub fn refuse_mixed_access(bucket: &Bucket, name: &str, known: Option<Access>) -> Result<()> {
    match known {
        Some(known) if known != bucket.access => Err(Failure::new(
            Token::NotConfigured,
            "the physical bucket serves another access",
        )
        .detail(format!("{name} is {}, the bucket is {}.", known.as_str(), bucket.access.as_str()))
        .hint("Preset another physical_name; private, public and temp files never share a physical bucket.")),
        _ => Ok(()),
    }
}
