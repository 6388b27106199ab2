//! What we ask of an S3-compatible store, and the plain values it answers with.

use std::future::Future;
use std::time::SystemTime;

use pg_storage_core::digest::Digest;
use pg_storage_core::policy::{CorsRule, Lifecycle};
use serde::Serialize;
use serde_json::Value;

use crate::error::StoreError;

/// How many leading bytes of an object tell its type.
pub const HEAD_BYTES: usize = 4096;

/// How many keys one call may delete: the limit of S3's `DeleteObjects`.
pub const MAX_DELETE_BATCH: usize = 1000;

/// What a store says about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag as sent, quotes included.
    pub etag: Option<String>,
    /// The content type it was stored with.
    pub content_type: Option<String>,
    /// The content encoding it was stored with, which whoever downloads it undoes.
    pub content_encoding: Option<String>,
    /// What it tells caches about itself.
    pub cache_control: Option<String>,
    /// The upload that it says it came from, see [`pg_storage_core::upload::signed_headers`].
    pub mark: Option<String>,
    /// The SHA-256 the store has for the whole object. A store may merely echo what the uploader declared.
    pub sha256: Option<Digest>,
    /// When it was written.
    pub last_modified: Option<SystemTime>,
}

/// What was seen of an object whose bytes were all read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHash {
    /// How many bytes were read.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: Digest,
    /// The entity tag of exactly these bytes.
    pub etag: Option<String>,
    /// The content type it was stored with.
    pub content_type: Option<String>,
    /// The content encoding it was stored with.
    pub content_encoding: Option<String>,
    /// What it tells caches about itself.
    pub cache_control: Option<String>,
    /// The upload that it says it came from.
    pub mark: Option<String>,
    /// The first [`HEAD_BYTES`] bytes, fewer if the object is shorter.
    pub head: Vec<u8>,
}

/// How reading an object through SHA-256 ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOutcome {
    /// All bytes were read.
    Complete(ObjectHash),
    /// The object is longer than the cap; reading stopped there.
    OverCap {
        /// Its length where the store announced it, else how many bytes had come by then.
        size: u64,
    },
}

/// What an object says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Description<'a> {
    /// Its content type.
    pub content_type: &'a str,
    /// What it tells caches, see [`pg_storage_core::policy::Access::cache_control`].
    pub cache_control: Option<&'a str>,
}

impl<'a> Description<'a> {
    /// Of an object that leaves caches to themselves.
    pub const fn typed(content_type: &'a str) -> Self {
        Self { content_type, cache_control: None }
    }
}

/// How an object is to be stored.
#[derive(Clone, Copy, Debug)]
pub struct PutOptions<'a> {
    /// What it is to say of itself.
    pub description: Description<'a>,
    /// The SHA-256 the store shall check the bytes against.
    pub sha256: Option<&'a Digest>,
    /// Refuse ([`ErrorKind::Precondition`](crate::ErrorKind::Precondition)) if the key exists. Not every store
    /// honours it.
    pub create_only: bool,
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag as sent, quotes included.
    pub etag: Option<String>,
    /// When it was written.
    pub last_modified: Option<SystemTime>,
}

/// A page of a listing, in the order of the keys' bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most 1000 objects.
    pub objects: Vec<Listed>,
    /// The last of these keys, where the next page begins; `None` after the last page.
    pub next: Option<String>,
}

/// A multipart upload that was neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUpload {
    /// The key it is to become.
    pub key: String,
    /// Its identity at the store.
    pub upload_id: String,
    /// When it was begun.
    pub initiated: Option<SystemTime>,
}

/// A page of the unfinished multipart uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadPage {
    /// At most 1000 uploads.
    pub uploads: Vec<ListedUpload>,
    /// Key and identity after which the next page begins; `None` after the last page.
    pub next: Option<(String, String)>,
}

/// A part of an unfinished multipart upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: i32,
    /// Its length in bytes.
    pub size: u64,
    /// Its entity tag as sent, quotes included.
    pub etag: Option<String>,
    /// The SHA-256 that it was sent with, where the store tells it.
    pub sha256: Option<Digest>,
}

/// A page of the parts of an upload, in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartPage {
    /// At most 1000 parts.
    pub parts: Vec<Part>,
    /// The number after which the next page begins; `None` after the last page.
    pub next: Option<i32>,
}

/// Where an upload in parts goes.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key that it is to become.
    pub key: &'a str,
    /// Its identity at the store.
    pub upload_id: &'a str,
}

/// Where the bytes of a copied part come from.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The object.
    pub key: &'a str,
    /// The entity tag that the object must have.
    pub etag: Option<&'a str>,
    /// The first byte.
    pub from: u64,
    /// How many.
    pub len: u64,
}

/// The four switches of S3's public-access block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PublicAccessBlock {
    /// Refuse new public ACLs.
    pub block_public_acls: bool,
    /// Disregard public ACLs.
    pub ignore_public_acls: bool,
    /// Refuse policies that make the bucket public.
    pub block_public_policy: bool,
    /// Let only the owner use a bucket whose policy is public.
    pub restrict_public_buckets: bool,
}

impl PublicAccessBlock {
    /// Nothing is public.
    pub const ALL: Self = Self {
        block_public_acls: true,
        ignore_public_acls: true,
        block_public_policy: true,
        restrict_public_buckets: true,
    };

    /// A bucket policy may make objects public; ACLs may not.
    pub const POLICY_ONLY: Self = Self {
        block_public_acls: true,
        ignore_public_acls: true,
        block_public_policy: false,
        restrict_public_buckets: false,
    };
}

/// An S3-compatible store.
///
/// Every method is one operation with one deadline. All fail with [`StoreError`]; the kinds named at a method are
/// the ones its callers are expected to tell apart.
pub trait Store: Send + Sync {
    /// What the store says about an object, its checksum included; `None` if there is none. A missing bucket looks
    /// the same, because a HEAD has no body to say which.
    fn head(
        &self,
        bucket: &str,
        key: &str,
    ) -> impl Future<Output = Result<Option<ObjectHead>, StoreError>> + Send;

    /// At most `len` bytes from offset `from`; fewer, or none, where the object ends. `NotFound` without object.
    fn get_range(
        &self,
        bucket: &str,
        key: &str,
        from: u64,
        len: u64,
    ) -> impl Future<Output = Result<Vec<u8>, StoreError>> + Send;

    /// Reads an object through SHA-256 in bounded memory, giving up beyond `cap` bytes. `NotFound` without object.
    fn hash_object(
        &self,
        bucket: &str,
        key: &str,
        cap: u64,
    ) -> impl Future<Output = Result<HashOutcome, StoreError>> + Send;

    /// Stores an object; its entity tag. `Precondition` if it is to be created only and exists; that is sent once, so
    /// that nobody is refused for their own object.
    fn put(
        &self,
        bucket: &str,
        key: &str,
        body: Vec<u8>,
        options: PutOptions<'_>,
    ) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// Copies an object of at most 5 GiB within the store, asking it to compute a SHA-256; the copy's entity tag.
    /// With a `description` that is all the copy's metadata; without, the copy has the source's metadata.
    /// It is sent once: whoever repeats it must expect the first one to be carried out later than the second.
    /// With `source_etag`, `Precondition` if the source is not that one (where the store honours it).
    fn copy(
        &self,
        from_bucket: &str,
        from_key: &str,
        bucket: &str,
        key: &str,
        source_etag: Option<&str>,
        description: Option<Description<'_>>,
    ) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// Deletes at most [`MAX_DELETE_BATCH`] objects: one outcome per key, in the order given. A key that does not
    /// exist counts as deleted, and one that the deadline left over failed with `Timeout`. `Err` only if the call as a
    /// whole failed, for example with `NoSuchBucket`.
    fn delete_batch(
        &self,
        bucket: &str,
        keys: &[String],
    ) -> impl Future<Output = Result<Vec<Result<(), StoreError>>, StoreError>> + Send;

    /// A page of the objects whose keys begin with `prefix` and come after the key `after`. A key and not the store's
    /// token is where a listing goes on: it may do so days later, and in another process. `Unexpected` if the store cuts
    /// the listing off without saying how to go on, or lists keys out of order.
    fn list_page(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
    ) -> impl Future<Output = Result<Page, StoreError>> + Send;

    /// Begins a multipart upload; its identity. With `checksums`, each part has to come with its SHA-256. Sent once: what
    /// a lost answer began would be nobody's.
    fn create_multipart_upload(
        &self,
        bucket: &str,
        key: &str,
        description: Description<'_>,
        checksums: bool,
    ) -> impl Future<Output = Result<String, StoreError>> + Send;

    /// A page of the parts that have arrived; `after` is [`PartPage::next`] of the page before. `NotFound` if there is no
    /// such upload, be it finished or aborted.
    fn list_parts(
        &self,
        upload: Unfinished<'_>,
        after: Option<i32>,
    ) -> impl Future<Output = Result<PartPage, StoreError>> + Send;

    /// Makes an object of exactly these parts. `NotFound` if there is no such upload.
    fn complete_multipart_upload(
        &self,
        upload: Unfinished<'_>,
        parts: &[Part],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Copies a piece of an object within the store as part `number` of an upload; its entity tag.
    fn copy_part(
        &self,
        upload: Unfinished<'_>,
        number: i32,
        piece: Piece<'_>,
    ) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// A page of the unfinished multipart uploads to keys that begin with `prefix`; `after` is [`UploadPage::next`] of
    /// the page before. `NotImplemented` where the store has none.
    fn list_multipart_uploads(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(&str, &str)>,
    ) -> impl Future<Output = Result<UploadPage, StoreError>> + Send;

    /// Ends a multipart upload and removes its parts; having ended already is fine.
    fn abort_multipart_upload(
        &self,
        bucket: &str,
        key: &str,
        upload_id: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Creates a bucket in the configured region. `AlreadyExists` and `NameTaken` are what the store claims, and
    /// stores claim differently: ask [`Store::head_bucket`].
    fn create_bucket(&self, bucket: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Whether a bucket exists that we may use; `Denied` if it exists and we may not.
    fn head_bucket(&self, bucket: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Whether the bucket is listed among those of our account.
    fn owns_bucket(&self, bucket: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Deletes an empty bucket. `NoSuchBucket` if there is none.
    fn delete_bucket(&self, bucket: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Sets the public-access block.
    fn put_public_access_block(
        &self,
        bucket: &str,
        block: PublicAccessBlock,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The public-access block; `None` if none is set.
    fn public_access_block(
        &self,
        bucket: &str,
    ) -> impl Future<Output = Result<Option<PublicAccessBlock>, StoreError>> + Send;

    /// Sets the bucket policy, a policy document in JSON.
    fn put_policy(&self, bucket: &str, policy: &Value)
    -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Removes the bucket policy; having none is fine.
    fn delete_policy(&self, bucket: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The bucket policy; `None` if none is set.
    fn policy(&self, bucket: &str) -> impl Future<Output = Result<Option<Value>, StoreError>> + Send;

    /// Makes `rule` the only CORS rule.
    fn put_cors(&self, bucket: &str, rule: &CorsRule) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The CORS rules; `None` if none are set.
    fn cors(&self, bucket: &str) -> impl Future<Output = Result<Option<Value>, StoreError>> + Send;

    /// Switches versioning on.
    fn enable_versioning(&self, bucket: &str) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// `Enabled` or `Suspended`; `None` if versioning was never on.
    fn versioning(&self, bucket: &str) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;

    /// Makes these the only lifecycle rules, for keys that begin with `key_prefix`.
    fn put_lifecycle(
        &self,
        bucket: &str,
        key_prefix: &str,
        lifecycle: &Lifecycle,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The lifecycle rules; `None` if none are set.
    fn lifecycle(&self, bucket: &str) -> impl Future<Output = Result<Option<Value>, StoreError>> + Send;
}
