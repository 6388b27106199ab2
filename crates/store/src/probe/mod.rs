//! What a store really enforces, found by trying it with presigned URLs in a scratch prefix.
//!
//! A 200 proves nothing and neither does a HEAD that echoes the declared sum: several servers store a wrong body
//! and do both. So every trial is the forbidden thing itself, and counts as enforced only if it was refused for that *and*
//! nothing was stored. An answer about anything else, such as a throttle, proves nothing either way. Create-only is tried by concurrent writers too, because some servers pass two in a row.

mod bench;
mod forms;
mod parts;
mod reason;
mod service;
mod trials;

use pg_storage_core::presign::Signer;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;
use crate::s3::S3Store;
use bench::Bench;

pub use service::{Service, preflight, reads_publicly, serve};

/// What became of one promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Support {
    /// The forbidden thing was refused and left no trace.
    Enforced,
    /// The forbidden thing was done, or was never seen to be refused.
    #[default]
    Ignored,
    /// Refused in a row, but not among concurrent writers.
    Racy,
    /// Even the permitted thing was refused: the store does not know the request.
    Refused,
}

/// What a store was seen to do. The default is a store of which nothing is known: nothing is relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// A body that does not have the declared SHA-256 is refused, and an object already there stays as it is.
    pub checksum: Support,
    /// A body longer or shorter than the signed length is refused.
    pub length: Support,
    /// Of all who write one key with `If-None-Match: *`, one wins, one after another and at the same time.
    pub create_only: Support,
    /// HEAD gives the SHA-256 of an object that was uploaded with one.
    pub head_checksum: bool,
    /// A copy whose source has another entity tag than asked for is refused.
    pub copy_source_if_match: Support,
    /// An expired URL is refused.
    pub expiry: Support,
    /// A URL is refused after a change to its key, its signature or a signed header, and without one of these headers.
    pub tampering: Support,
    /// An `x-amz-copy-source` that nobody signed does not make a copy of the upload. `None`: it was not tried.
    pub unsigned: Option<Support>,
    /// A form is refused after a change to a field, with a file that is too long, and after its time. `None`: it was not
    /// tried.
    pub forms: Option<Support>,
    /// An `x-amz-copy-source` that nobody signed does not make a part of an upload a copy of another object, and parts
    /// can be listed and completed. `None`: it was not tried.
    pub parts: Option<Support>,
    /// A part that does not have the declared SHA-256 is refused.
    pub part_checksum: Support,
}

impl Capabilities {
    /// Whether an upload with a declared hash can go straight to its final key: nothing but the declared bytes
    /// can ever be there. Whoever may leave a signed header out is bound by none, hence `tampering`.
    #[must_use]
    pub fn direct(&self) -> bool {
        let needed = [self.checksum, self.length, self.create_only, self.tampering];
        needed.iter().all(|&support| support == Support::Enforced) && self.unsigned == Some(Support::Enforced)
    }

    /// Whether everything was tried that is tried today.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.unsigned.is_some() && self.forms.is_some() && self.parts.is_some()
    }

    /// Whether uploads by form can be offered.
    #[must_use]
    pub fn has_forms(&self) -> bool {
        self.forms == Some(Support::Enforced)
    }

    /// Whether uploads in parts can be offered: a part carries no mark, by which a copy could be told from it.
    #[must_use]
    pub fn has_parts(&self) -> bool {
        self.parts == Some(Support::Enforced)
    }

    /// Whether uploads have to carry a mark, by which a copy of another object is told from them.
    #[must_use]
    pub fn marked(&self) -> bool {
        self.unsigned == Some(Support::Ignored)
    }
}

/// Tries the store out below `scratch_prefix` of an existing bucket, in about two hundred small requests, and
/// removes what that leaves there, also after a failure.
///
/// # Errors
/// The store cannot be judged now: it cannot be reached, refuses even a plain presigned PUT (wrong credentials, a
/// clock that is off), or fails in between. A capability is never derived from such a failure.
pub async fn probe(
    store: &S3Store,
    signer: Signer,
    bucket: &str,
    scratch_prefix: &str,
) -> Result<Capabilities, StoreError> {
    let mut bench = Bench::new(store, signer, bucket, scratch_prefix);
    let outcome = trials::run(&mut bench).await;
    bench.clean_up().await;
    outcome
}
