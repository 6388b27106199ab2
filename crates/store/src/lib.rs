//! The client side of `pg_storage`: talking to an S3-compatible store.
//!
//! [`S3Store`] is the connection, [`Store`] what it can do. On top of it: [`provision`] makes buckets, [`probe`]
//! finds out what a store really enforces, [`verify`] makes sure that an upload holds exactly the promised bytes,
//! [`assemble`] makes one object of the parts of an upload, [`copy`] copies objects of any size.
//!
//! Every future here is `Send`, owns or borrows only plain values, and is safe to drop at any point. None of them
//! knows PostgreSQL: the caller decides on which thread they run and when they are dropped.

#![forbid(unsafe_code)]

pub mod assemble;
mod bring;
mod clock;
mod config;
pub mod copy;
mod credentials;
mod each;
mod error;
mod http;
mod inspect;
pub mod probe;
pub mod provision;
mod s3;
mod store;
pub mod verify;

pub use bring::{Bring, Brought, Source};
pub use config::{CredentialSource, StoreConfig};
pub use each::each;
pub use error::{ErrorKind, StoreError};
pub use inspect::{Inspection, Reading, inspect};
pub use s3::S3Store;
pub use store::{
    Description, HEAD_BYTES, HashOutcome, Listed, ListedUpload, MAX_DELETE_BATCH, ObjectHash, ObjectHead,
    Page, Part, PartPage, Piece, PublicAccessBlock, PutOptions, Store, Unfinished, UploadPage,
};
