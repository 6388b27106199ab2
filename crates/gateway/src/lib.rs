//! The local store: an S3 endpoint on loopback over a directory, for one machine.
//!
//! It enforces what real stores enforce (signatures, expiry, signed headers, checksums, create-only writes, CORS,
//! public read, lifecycle) and survives a crash at any point with whole objects only. One process serves a
//! directory at a time; versions of objects, ACLs, tags and encryption are refused, not pretended.
#![forbid(unsafe_code)]

mod blobs;
mod checksum;
mod cors;
mod credentials;
mod document;
mod failure;
mod form;
mod front;
mod index;
mod lifecycle;
mod policy;
mod receive;
mod s3;
mod send;
mod server;
mod store;

use std::path::PathBuf;

use pg_storage_core::presign::Credentials;

pub use credentials::load_or_create_credentials;
pub use server::{Server, serve};
pub use store::Trouble;

/// What a local store is and who may use it.
#[derive(Debug, Clone)]
pub struct LocalStore {
    /// The directory everything lies in; created if it is missing, its parent is not.
    pub root: PathBuf,
    /// The region requests must be signed for, such as `local`.
    pub region: String,
    /// The one key pair that may do everything. A session token is not used.
    pub credentials: Credentials,
    /// A file to append one line per request to: `METHOD path status operation`. `None`: no log.
    pub access_log: Option<PathBuf>,
}
