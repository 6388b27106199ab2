//! What a caller declares, held against the rules, and the trusted columns that only the server chooses.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pg_storage_core::agreement;
use pg_storage_core::content_type::{ContentType, allowed};
use pg_storage_core::digest::Digest;
use pg_storage_core::error::Token;
use pg_storage_core::key::{content_key, staging_key, undeclared_key};
use pg_storage_core::name::Filename;
use pg_storage_core::path::FilePath;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::{AllocatedByRust, PgTrigger};
use uuid::Uuid;

use crate::bucket::Bucket;
use crate::clock::{Moment, lifetime};
use crate::error::{Failure, Result};
use crate::json::Jsonb;
use crate::provision::{self, Place};
use crate::row::NewRow;
use crate::{guc, identity, installation, limits};

/// What a caller says about a file to come.
pub struct Declared<'a> {
    /// Name of the file.
    pub filename: &'a str,
    /// MIME type.
    pub content_type: &'a str,
    /// Bytes.
    pub size: i64,
    /// 64 lower-case hex.
    pub sha256: Option<&'a str>,
    /// Path in the bucket.
    pub path: Option<&'a str>,
    /// Lifetime of the URL.
    pub expires_in: Option<Interval>,
}

/// Where the bytes of an upload go.
#[derive(Clone)]
pub struct Placed {
    /// The bucket in the store.
    pub physical_name: String,
    /// The key the URL names.
    pub object_key: String,
    /// The key the object will have, or what it begins with where bytes are staged.
    pub final_key: String,
    /// Whether these are the same.
    pub direct: bool,
    /// Whether If-None-Match is signed.
    pub create_only: bool,
}

impl Placed {
    pub(super) fn new(bucket: &Bucket, place: &Place, digest: Option<&Digest>, id: &Uuid) -> Self {
        let direct = digest.is_some() && place.ready.direct;
        let final_key = match digest {
            Some(digest) => content_key(&bucket.tenant, &bucket.id, digest, id),
            None => undeclared_key(&bucket.tenant, &bucket.id, id),
        };
        let final_key = format!("{}{final_key}", place.key_prefix);
        let staging = format!("{}{}", place.key_prefix, staging_key(&bucket.tenant, id));
        Self {
            physical_name: place.name.clone(),
            object_key: if direct { final_key.clone() } else { staging },
            final_key,
            direct,
            create_only: place.ready.create_only,
        }
    }
}

/// What follows from a declaration that keeps the rules.
struct Accepted {
    digest: Option<Digest>,
    /// Lifetime of the URL in seconds.
    expires: u32,
}

/// Refuses a declaration that breaks a rule, its bucket's included.
pub fn validate(bucket: &Bucket, declared: &Declared<'_>) -> Result<()> {
    accept(bucket, declared).map(drop)
}

fn accept(bucket: &Bucket, declared: &Declared<'_>) -> Result<Accepted> {
    let filename = Filename::parse(declared.filename)?;
    let content_type = ContentType::parse(declared.content_type)?;
    check_size(bucket, declared.size)?;
    let digest = declared.sha256.map(Digest::parse_hex).transpose()?;
    declared.path.map(FilePath::parse).transpose()?;
    let expires = match (&declared.expires_in, &bucket.upload_url_ttl) {
        (Some(asked), _) => lifetime(asked)?,
        (None, Some(usual)) => lifetime(usual)?,
        (None, None) => guc::UPLOAD_URL_TTL.get().unsigned_abs(),
    };
    if !allowed(&content_type, &bucket.allowed_mime_types) {
        return Err(Failure::new(Token::ContentTypeNotAllowed, "the bucket does not take this type")
            .detail(format!(
                "{} is not among {}.",
                content_type.as_str(),
                bucket.allowed_mime_types.join(", ")
            ))
            .hint("buckets.allowed_mime_types lists what it takes."));
    }
    agreement::declared_with_extension(filename.as_str(), &content_type)?;
    Ok(Accepted { digest, expires })
}

/// Refuses metadata that is no JSON object.
pub fn check_metadata(metadata: &Jsonb) -> Result<()> {
    if metadata.is_object() {
        return Ok(());
    }
    Err(Failure::new(Token::InvalidMetadata, "metadata is a JSON object")
        .detail(format!("It is {}.", metadata.as_str()))
        .hint("Wrap the value: {\"value\": ...}."))
}

thread_local! {
    /// The bucket that uploads are being requested for, as its caller saw it.
    static DESTINATION: RefCell<Option<Rc<Bucket>>> = const { RefCell::new(None) };
}

/// Inserts requests for a bucket that the caller was seen to see, so that their trigger need not look again.
pub(super) fn destined_for<T>(bucket: &Rc<Bucket>, insert: impl FnOnce() -> T) -> T {
    struct Back(Option<Rc<Bucket>>);
    impl Drop for Back {
        fn drop(&mut self) {
            DESTINATION.set(self.0.take());
        }
    }
    let _back = Back(DESTINATION.replace(Some(bucket.clone())));
    insert()
}

fn bucket_of(id: Option<pgrx::Uuid>) -> Result<Rc<Bucket>> {
    // NULL is the id of no bucket, and so is this.
    let id = id.unwrap_or_else(|| pgrx::Uuid::from_bytes([0; 16]));
    match DESTINATION.with_borrow(Clone::clone) {
        Some(bucket) if bucket.id_datum() == id => Ok(bucket),
        _ => Bucket::visible(id).map(Rc::new),
    }
}

/// Validates what the row of an upload request declares against the rules and its bucket, and fills the columns that only
/// the server may choose.
pub fn admit<'t>(trigger: &'t PgTrigger<'t>) -> Result<PgHeapTuple<'t, AllocatedByRust>> {
    let mut row = NewRow::of(trigger)?;
    let bucket = bucket_of(row.get("bucket_id")?)?;
    let (filename, content_type): (Option<String>, Option<String>) =
        (row.get("filename")?, row.get("content_type")?);
    let (sha256, path): (Option<String>, Option<String>) = (row.get("sha256")?, row.get("path")?);
    // What is missing breaks the same rule as what is empty.
    let declared = Declared {
        filename: filename.as_deref().unwrap_or_default(),
        content_type: content_type.as_deref().unwrap_or_default(),
        size: row.get("size")?.unwrap_or_default(),
        sha256: sha256.as_deref(),
        path: path.as_deref(),
        expires_in: row.get("expires_in")?,
    };
    let Accepted { digest, expires } = accept(&bucket, &declared)?;
    installation::record()?;
    let id = installation::maker().upload_id();
    let place = provision::known(&bucket)?.map(|place| Placed::new(&bucket, &place, digest.as_ref(), &id));
    limits::keep_later(id, &bucket, declared.size, declared.path);
    let created_at = Moment::now();
    row.set("id", pgrx::Uuid::from_bytes(*id.as_bytes()))?;
    row.set("file_id", pgrx::Uuid::from_bytes(*Uuid::new_v4().as_bytes()))?;
    row.set("tenant_id", bucket.tenant.as_str())?;
    row.set("owner_id", identity::user()?)?;
    row.set("physical_name", place.as_ref().map(|place| place.physical_name.as_str()))?;
    row.set("object_key", place.as_ref().map(|place| place.object_key.as_str()))?;
    row.set("final_key", place.as_ref().map(|place| place.final_key.as_str()))?;
    row.set("direct", place.as_ref().is_some_and(|place| place.direct))?;
    row.set("create_only", place.as_ref().is_some_and(|place| place.create_only))?;
    row.set("method", "PUT")?;
    row.set_spelled("status", "requested")?;
    row.set("reason", None::<String>)?;
    row.set("created_at", created_at.column()?)?;
    row.set("expires_at", created_at.plus(expires).column()?)?;
    row.set("finished_at", None::<TimestampWithTimeZone>)?;
    row.formed()
}

/// The most bytes that one PUT carries (AWS: 5 GiB).
const SINGLE_PUT: i64 = 5 * 1024 * 1024 * 1024;

thread_local! {
    static IN_PARTS: Cell<bool> = const { Cell::new(false) };
}

/// Inserts a request whose bytes come in parts, or are copied so where they are many, so that the limit of one PUT is not
/// theirs. The row itself says so only once the store has begun the upload.
pub(super) fn in_parts<T>(insert: impl FnOnce() -> T) -> T {
    struct Back;
    impl Drop for Back {
        fn drop(&mut self) {
            IN_PARTS.set(false);
        }
    }
    IN_PARTS.set(true);
    let _back = Back;
    insert()
}

fn check_size(bucket: &Bucket, size: i64) -> Result<()> {
    let one_call = if IN_PARTS.get() { i64::MAX } else { SINGLE_PUT };
    let server = (guc::MAX_FILE_SIZE.get() as i64).min(one_call);
    if size < 1 || size > server {
        let hint = if size > SINGLE_PUT && server == SINGLE_PUT {
            "One PUT carries 5 GiB; storage.request_multipart_upload() takes more."
        } else {
            "Declare the exact size; pg_storage.max_file_size is the server's limit."
        };
        return Err(Failure::new(Token::InvalidFileSize, format!("a file has 1 to {server} bytes"))
            .detail(format!("{size} bytes were declared."))
            .hint(hint));
    }
    match bucket.max_file_size {
        Some(limit) if size > limit => {
            Err(Failure::new(Token::FileTooLarge, format!("the bucket takes files of at most {limit} bytes"))
                .detail(format!("{size} bytes were declared."))
                .hint("buckets.max_file_size is the bucket's limit."))
        }
        _ => Ok(()),
    }
}
