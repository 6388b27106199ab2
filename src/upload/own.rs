//! Uploads whose bytes the server brings itself: from a value, or from an object that the store has already.
//!
//! They are requests like any other, inserted as the caller, so the same policies, rules and limits decide. What differs
//! is that no URL ever names their key: it is the final one from the start, and new for each attempt.

use std::rc::Rc;

use pg_storage_core::agreement;
use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_core::error::Token;
use pg_storage_store::{Bring, Brought, HEAD_BYTES, Source};

use super::admission::{Placed, in_parts};
use super::confirm::{Verified, accept};
use super::pending::{Pending, lock_one};
use super::request::{Wanted, candidates, destination, open_placed, record_place, share_one};
use crate::bucket::Bucket;
use crate::error::{Failure, Result};
use crate::{catalog, config, session};

/// A request of the server's own, not yet ended.
pub struct Own {
    /// Where it goes.
    pub bucket: Rc<Bucket>,
    /// The file to be.
    pub file: pgrx::Uuid,
    pending: Pending,
    place: Placed,
    digest: Digest,
}

/// Inserts the request as the caller. What is declared has a digest.
pub fn open_own(bucket: pgrx::Uuid, wanted: Wanted<'_>) -> Result<Own> {
    let bucket = destination(|| Bucket::visible(bucket))?;
    let digest = wanted
        .declared
        .sha256
        .map(Digest::parse_hex)
        .transpose()?
        .ok_or_else(|| Failure::internal("bytes of the server's own have no digest"))?;
    let opened = in_parts(|| open_placed(&bucket, &wanted.declared, &wanted.metadata))?;
    let (upload, file) = (opened.id, opened.file_id);
    catalog::run_as_owner("SELECT storage_private.require_ownership()", &[])?;
    let mut pending = lock_one(upload)?;
    let placed = pending.place.take().ok_or_else(|| Failure::internal("an upload request has no place"))?;
    let place = Placed { object_key: placed.final_key.clone(), create_only: false, ..placed };
    record_place(upload, &Placed { direct: true, ..place.clone() })?;
    Ok(Own { bucket, file, pending, place, digest })
}

impl Own {
    /// The request.
    pub fn upload(&self) -> pgrx::Uuid {
        self.pending.id
    }

    /// The bucket in the store.
    pub fn physical_name(&self) -> &str {
        &self.place.physical_name
    }

    /// Whether the bucket wants leading bytes to agree with the type.
    pub fn checks_bytes(&self) -> bool {
        self.pending.check_bytes
    }

    /// Makes the file over one of these objects, the first that can be; `false`: none can.
    pub fn share(&self, objects: Vec<pgrx::Uuid>) -> Result<bool> {
        share_one(self.pending.id, objects)
    }

    /// Makes the file over an object of the same bytes that the caller can read already; `false`: there is none.
    pub fn share_alike(&self) -> Result<bool> {
        self.share(candidates(self.bucket.id_datum(), &self.digest.to_hex(), self.pending.size)?)
    }

    /// Has the store hold the bytes at the request's key, and looks whether it does.
    pub fn bring(&self, source: Source) -> Result<Verified> {
        let content_type = ContentType::parse(&self.pending.content_type)?;
        let check_bytes = self.pending.check_bytes;
        if let Source::Value(bytes) = &source {
            agree(&content_type, bytes.get(..HEAD_BYTES).unwrap_or(bytes), check_bytes)?;
        }
        let config = config::current()?;
        config.check_keeper(&self.place.physical_name, self.pending.kept_by.as_deref())?;
        let bring = Bring {
            source,
            bucket: self.place.physical_name.clone(),
            key: self.place.object_key.clone(),
            content_type: self.pending.content_type.clone(),
            cache_control: self.pending.access.cache_control(),
            size: self.pending.size.unsigned_abs(),
            digest: self.digest,
            // What refuses wrong bytes at a PUT has the right ones.
            enforced: self.place.direct,
        };
        let Brought { etag, head } =
            session::call(&config, |store| async move { bring.carry_out(&store).await })?;
        if let Some(head) = head {
            agree(&content_type, &head, check_bytes)?;
        }
        Ok(Verified {
            upload: self.pending.id,
            key: Some(self.place.object_key.clone()),
            size: self.pending.size,
            sha256: self.digest,
            etag,
        })
    }

    /// Makes the file over bytes that were brought.
    pub fn accept(&self, verified: Verified) -> Result<()> {
        accept(&[verified])
    }
}

fn agree(declared: &ContentType, leading: &[u8], check: bool) -> Result<()> {
    match agreement::sniff(leading) {
        Some(found) if check && !agreement::agrees(declared, found) => {
            Err(Failure::new(Token::UploadTypeMismatch, "the bytes are not of the declared type")
                .detail(format!("Declared {}, found {found}.", declared.as_str()))
                .hint("Declare the type that they have; buckets.verify_content_type turns the check off."))
        }
        _ => Ok(()),
    }
}
