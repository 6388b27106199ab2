//! What a caller declares, held against the rules, and the trusted columns that only the server chooses.

use std::cell::Cell;

use pg_storage_core::agreement;
use pg_storage_core::content_type::{ContentType, allowed};
use pg_storage_core::digest::Digest;
use pg_storage_core::error::Token;
use pg_storage_core::key::{content_key, staging_key, undeclared_key};
use pg_storage_core::name::Filename;
use pg_storage_core::path::FilePath;
use pgrx::datum::Interval;
use uuid::Uuid;

use crate::bucket::Bucket;
use crate::clock::{Moment, lifetime};
use crate::error::{Failure, Result};
use crate::json::Jsonb;
use crate::provision::{self, Place};
use crate::{guc, installation, limits};

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

/// The trusted columns of an upload request.
pub struct Admission {
    /// Its identity.
    pub id: Uuid,
    /// The file it may become.
    pub file_id: Uuid,
    /// The bucket's tenant.
    pub tenant: String,
    /// Where its bytes go; `None` before the first use of the bucket.
    pub place: Option<Placed>,
    /// Now.
    pub created_at: Moment,
    /// When URL and request end.
    pub expires_at: Moment,
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

/// Validates what is declared against the rules and the bucket, and chooses what only the server may choose.
pub fn admit(bucket: &Bucket, declared: &Declared<'_>) -> Result<Admission> {
    let Accepted { digest, expires } = accept(bucket, declared)?;
    installation::record()?;
    let id = installation::maker().upload_id();
    let place = provision::known(bucket)?.map(|place| Placed::new(bucket, &place, digest.as_ref(), &id));
    limits::keep_later(id, bucket, declared.size, declared.path);
    let created_at = Moment::now();
    Ok(Admission {
        id,
        file_id: Uuid::new_v4(),
        tenant: bucket.tenant.clone(),
        place,
        created_at,
        expires_at: created_at.plus(expires),
    })
}

/// The most bytes that one PUT carries (AWS: 5 GiB).
const SINGLE_PUT: i64 = 5 * 1024 * 1024 * 1024;

thread_local! {
    static IN_PARTS: Cell<bool> = const { Cell::new(false) };
}

/// Inserts a request whose bytes come in parts, so that the limit of one PUT is not theirs. The row itself says so only
/// once the store has begun the upload.
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
        return Err(Failure::new(Token::InvalidFileSize, format!("a file has 1 to {server} bytes"))
            .detail(format!("{size} bytes were declared."))
            .hint("Declare the exact size; pg_storage.max_file_size is the server's limit, and one PUT carries 5 GiB; storage.request_multipart_upload() takes more."));
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
