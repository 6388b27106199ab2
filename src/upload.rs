//! Uploads: admitted, opened, confirmed, aborted. The rows are SQL's; deciding, signing and asking the store are here.

use std::panic::AssertUnwindSafe;

use pg_storage_core::agreement;
use pg_storage_core::content_type::{ContentType, allowed};
use pg_storage_core::digest::Digest;
use pg_storage_core::error::Token;
use pg_storage_core::key::{attempt_key, content_key, staging_key, undeclared_key};
use pg_storage_core::name::Filename;
use pg_storage_core::path::FilePath;
use pg_storage_core::presign::{Method, Presign};
use pg_storage_core::upload::{Reason, Status, signed_headers};
use pg_storage_store::ErrorKind;
use pg_storage_store::probe::Capabilities;
use pg_storage_store::verify::{self, Expected, Finding};
use pgrx::datum::{DatumWithOid, Interval, TimestampWithTimeZone};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::{JsonB, PgTryBuilder};
use uuid::Uuid;

use crate::bucket::Bucket;
use crate::clock::{Moment, lifetime};
use crate::error::{Failure, OrRaise, Result};
use crate::operation::Operation;
use crate::provision::{self, Ask, Place};
use crate::{cache, catalog, config, guc, installation, limits, session, wait};

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
    fn new(bucket: &Bucket, place: Place, digest: Option<&Digest>, id: &Uuid) -> Self {
        let direct = digest.is_some() && place.ready.direct;
        let final_key = match digest {
            Some(digest) => content_key(&bucket.tenant, &bucket.id, digest, id),
            None => undeclared_key(&bucket.tenant, &bucket.id, id),
        };
        let final_key = format!("{}{final_key}", place.key_prefix);
        let staging = format!("{}{}", place.key_prefix, staging_key(&bucket.tenant, id));
        Self {
            physical_name: place.name,
            object_key: if direct { final_key.clone() } else { staging },
            final_key,
            direct,
            create_only: place.ready.create_only,
        }
    }
}

/// Validates what is declared against the rules and the bucket, and chooses what only the server may choose.
pub fn admit(bucket: &Bucket, declared: &Declared<'_>) -> Result<Admission> {
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

    catalog::run_as_owner("SELECT storage_private.record_installation()", &[])?;
    let id = installation::maker().upload_id();
    let place = provision::known(bucket)?.map(|place| Placed::new(bucket, place, digest.as_ref(), &id));
    limits::note(id, bucket);
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

fn check_size(bucket: &Bucket, size: i64) -> Result<()> {
    let server = (guc::MAX_FILE_SIZE.get() as i64).min(SINGLE_PUT);
    if size < 1 || size > server {
        return Err(Failure::new(Token::InvalidFileSize, format!("a file has 1 to {server} bytes"))
            .detail(format!("{size} bytes were declared."))
            .hint("Declare the exact size; pg_storage.max_file_size is the server's limit, and one PUT carries 5 GiB."));
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

/// What the client gets.
pub struct Ticket {
    /// What is confirmed later.
    pub upload_id: pgrx::Uuid,
    /// The file to be, or that is already.
    pub file_id: pgrx::Uuid,
    /// URL, headers and end; `None`: no bytes are needed.
    pub upload: Option<(String, JsonB, TimestampWithTimeZone)>,
}

/// The row of an upload request, as far as a ticket needs it.
struct Opened {
    id: pgrx::Uuid,
    file_id: pgrx::Uuid,
    place: Option<Named>,
    created_at: Moment,
    expires_at: Moment,
}

/// What a URL names.
struct Named {
    physical_name: String,
    object_key: String,
    create_only: bool,
}

/// Inserts the request as the caller, shares an object the caller can already read, or signs a URL.
pub fn open(bucket: pgrx::Uuid, declared: &Declared<'_>, metadata: JsonB) -> Result<Ticket> {
    if !metadata.0.is_object() {
        return Err(Failure::new(Token::InvalidMetadata, "metadata is a JSON object")
            .detail(format!("It is {}.", metadata.0))
            .hint("Wrap the value: {\"value\": ...}."));
    }
    let mut opened = with_forbidden_named(|| {
        Operation::Upload.during(|| catalog::write(
            "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size, sha256, path, metadata, expires_in)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             RETURNING id, file_id, physical_name, object_key, create_only, created_at, expires_at",
            &[
                bucket.into(),
                declared.filename.into(),
                declared.content_type.into(),
                declared.size.into(),
                declared.sha256.into(),
                declared.path.into(),
                metadata.into(),
                declared.expires_in.into(),
            ],
            |rows| {
                let row = rows.first();
                let missing = || Failure::internal("an inserted upload request has no columns");
                Ok(Opened {
                    id: row.get(1)?.ok_or_else(missing)?,
                    file_id: row.get(2)?.ok_or_else(missing)?,
                    place: match (row.get(3)?, row.get(4)?) {
                        (Some(physical_name), Some(object_key)) => Some(Named {
                            physical_name,
                            object_key,
                            create_only: row.get(5)?.unwrap_or(false),
                        }),
                        _ => None,
                    },
                    created_at: Moment::of(row.get(6)?.ok_or_else(missing)?),
                    expires_at: Moment::of(row.get(7)?.ok_or_else(missing)?),
                })
            },
        ))
    })?;
    let place = match opened.place.take() {
        Some(place) => place,
        None => place(&mut opened, bucket, declared)?,
    };
    if let Some(sha256) = declared.sha256
        && share(opened.id, bucket, sha256, declared.size)?
    {
        return Ok(Ticket { upload_id: opened.id, file_id: opened.file_id, upload: None });
    }
    let upload = sign(&opened, &place, declared)?;
    Ok(Ticket { upload_id: opened.id, file_id: opened.file_id, upload: Some(upload) })
}

/// First use: the caller was allowed to insert the request, so its bucket is made ready now and the request gets a place.
fn place(opened: &mut Opened, bucket: pgrx::Uuid, declared: &Declared<'_>) -> Result<Named> {
    let bucket = Bucket::visible(bucket)?;
    let digest = declared.sha256.map(Digest::parse_hex).transpose()?;
    let id = Uuid::from_bytes(*opened.id.as_bytes());
    let placed = Placed::new(&bucket, provision::ensure(&bucket, Ask::Use)?, digest.as_ref(), &id);
    catalog::as_owner(|| {
        catalog::write(
            "SELECT created_at, expires_at FROM storage_private.place_upload($1, $2, $3, $4, $5, $6)",
            &[
                opened.id.into(),
                placed.physical_name.as_str().into(),
                placed.object_key.as_str().into(),
                placed.final_key.as_str().into(),
                placed.direct.into(),
                placed.create_only.into(),
            ],
            |rows| {
                let row = rows.first();
                let missing = || Failure::internal("the upload request has vanished");
                opened.created_at = Moment::of(row.get(1)?.ok_or_else(missing)?);
                opened.expires_at = Moment::of(row.get(2)?.ok_or_else(missing)?);
                Ok(())
            },
        )
    })?;
    let Placed { physical_name, object_key, create_only, .. } = placed;
    Ok(Named { physical_name, object_key, create_only })
}

/// PostgreSQL's own words for a refused INSERT, under our token.
fn with_forbidden_named<T>(insert: impl FnOnce() -> Result<T>) -> Result<T> {
    PgTryBuilder::new(AssertUnwindSafe(insert))
        .catch_when(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, |error| match &error {
            CaughtError::PostgresError(report) if !has_token(report.message()) => {
                Err(Failure::new(Token::RbacForbidden, "you may not upload to this bucket")
                    .detail(format!("{}.", report.message()))
                    .hint("The INSERT policies of storage.upload_requests decide who may."))
            }
            _ => error.rethrow(),
        })
        .execute()
}

fn has_token(message: &str) -> bool {
    message.split_once(':').is_some_and(|(word, _)| Token::ALL.iter().any(|token| token.as_str() == word))
}

/// Ends the upload over a verified object that the caller can read already; `false` when there is none.
///
/// Looked for as the caller, and as for a download: a hash somebody claims gives nothing that row-level security does
/// not, and a file shows its own hash to whoever may see its row.
fn share(upload: pgrx::Uuid, bucket: pgrx::Uuid, sha256: &str, size: i64) -> Result<bool> {
    let candidates: Vec<pgrx::Uuid> = Operation::Sign.during(|| {
        catalog::write(
            "SELECT object_id FROM storage_private.shareable_objects($1, $2, $3) AS s(object_id)",
            &[bucket.into(), sha256.into(), size.into()],
            |rows| rows.map(|row| Ok(row.get::<pgrx::Uuid>(1)?)).filter_map(Result::transpose).collect(),
        )
    })?;
    for object in candidates {
        let shared = catalog::as_owner(|| {
            catalog::write(
                "SELECT storage_private.share_object($1, $2)",
                &[upload.into(), object.into()],
                |rows| Ok(rows.first().get_one::<bool>()?.unwrap_or(false)),
            )
        })?;
        if shared {
            return Ok(true);
        }
    }
    Ok(false)
}

fn sign(
    opened: &Opened,
    place: &Named,
    declared: &Declared<'_>,
) -> Result<(String, JsonB, TimestampWithTimeZone)> {
    let content_type = ContentType::parse(declared.content_type)?;
    let digest = declared.sha256.map(Digest::parse_hex).transpose()?;
    let headers =
        signed_headers(&content_type, declared.size.unsigned_abs(), digest.as_ref(), place.create_only);
    let borrowed: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let config = config::current()?;
    let url = session::with_signer(&config, |signer| {
        signer.url(
            &Presign {
                method: Method::Put,
                bucket: &place.physical_name,
                key: &place.object_key,
                expires: opened.created_at.seconds_until(opened.expires_at),
                headers: &borrowed,
                query: &[],
            },
            opened.created_at.signing(),
        )
    })?;
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
    Ok((url, JsonB(serde_json::Value::Object(headers)), opened.expires_at.column()?))
}

/// An upload request as it is now.
pub struct Pending {
    content_type: String,
    size: i64,
    sha256: Option<String>,
    place: Option<Placed>,
    status: Status,
    expires_at: Moment,
    check_bytes: bool,
    /// The endpoint of the store that has the bucket, as far as that is on record.
    kept_by: Option<String>,
}

/// Asks the store what arrived and settles the upload. The verdict is in the row.
pub fn confirm(upload: pgrx::Uuid) -> Result<()> {
    if status(upload)?.is_final() {
        return Ok(());
    }
    let pending = lock(upload)?;
    if pending.status.is_final() {
        return Ok(());
    }
    let over = Moment::now() >= pending.expires_at;
    if over && guc::UNCONFIRMED_UPLOADS.get() == guc::Unconfirmed::Expire {
        return close(upload, Reason::Expired, None, None);
    }
    // The original may confirm it as well.
    catalog::run_as_owner("SELECT storage_private.require_ownership()", &[])?;
    let examined = pending.examine(&recorded_capabilities()?)?;
    match judge(upload, examined)? {
        Judgement::Absent if over => close(upload, Reason::Expired, None, None),
        Judgement::Absent => {
            catalog::run_as_owner("SELECT storage_private.note_waiting($1)", &[upload.into()])
        }
        Judgement::Refused => Ok(()),
        Judgement::Right(bytes) => {
            let [key, sha256, size, etag] = bytes.datums()?;
            let accept = "SELECT storage_private.accept_upload($1, $2, $3, $4, $5)";
            catalog::run_as_owner(accept, &[upload.into(), key, sha256, size, etag])
        }
    }
}

/// What the store was seen to hold for an upload.
pub struct Examined {
    seen: Seen,
    /// What this examination may have copied the bytes to.
    copy: Option<String>,
    /// The key that the URL names.
    object_key: Option<String>,
}

enum Seen {
    /// Bytes, or none.
    Found(Finding),
    /// Not even this bucket.
    BucketGone(String),
}

/// Verified bytes.
pub struct Verified {
    key: Option<String>,
    size: u64,
    sha256: Digest,
    etag: Option<String>,
}

impl Verified {
    /// Key, digest, size and entity tag as arguments of a statement.
    pub fn datums(&self) -> Result<[DatumWithOid<'_>; 4]> {
        let size = i64::try_from(self.size).map_err(|_| Failure::internal("an object is larger than any"))?;
        Ok([
            self.key.as_deref().into(),
            self.sha256.as_bytes().as_slice().into(),
            size.into(),
            self.etag.as_deref().into(),
        ])
    }
}

/// What becomes of an upload.
pub enum Judgement {
    /// Nothing arrived; the upload is as it was.
    Absent,
    /// What arrived is not what was promised; the upload has been ended.
    Refused,
    /// What arrived is right; the upload is to be accepted.
    Right(Verified),
}

/// Draws the conclusions from what was seen, short of accepting. Talks to the database only.
pub fn judge(upload: pgrx::Uuid, examined: Examined) -> Result<Judgement> {
    let Examined { seen, copy, object_key } = examined;
    let (reason, details) = match seen {
        Seen::BucketGone(physical) => {
            cache::evict(&physical);
            cache::evict_at(cache::At::Commit, &physical);
            catalog::run_as_owner("SELECT storage_private.mark_missing($1)", &[physical.into()])?;
            return Ok(Judgement::Absent);
        }
        Seen::Found(Finding::Absent) => return Ok(Judgement::Absent),
        Seen::Found(Finding::Verified { size, sha256, etag, .. }) => {
            return Ok(Judgement::Right(Verified { key: copy.or(object_key), size, sha256, etag }));
        }
        Seen::Found(Finding::Empty) => (Reason::EmptyFile, None),
        Seen::Found(Finding::SizeMismatch { declared, found }) => {
            (Reason::SizeMismatch, Some(format!("declared {declared} bytes, found {found}")))
        }
        Seen::Found(Finding::HashMismatch { declared, found }) => {
            (Reason::HashMismatch, Some(format!("declared {}, found {}", declared.to_hex(), found.to_hex())))
        }
        Seen::Found(Finding::ContentTypeMismatch { declared, found }) => {
            (Reason::ContentTypeMismatch, Some(format!("declared {declared}, found {found}")))
        }
    };
    close(upload, reason, details, copy.as_deref())?;
    Ok(Judgement::Refused)
}

/// Ends a pending upload. Aborting twice is no error.
pub fn abort(upload: pgrx::Uuid) -> Result<()> {
    status(upload)?;
    match lock(upload)?.status {
        pending if pending.can_move(Status::Aborted) => close(upload, Reason::Aborted, None, None),
        Status::Aborted => Ok(()),
        ended => Err(Failure::new(Token::UploadNotPending, "the upload has already ended")
            .detail(format!("Upload {upload} is {}.", ended.as_str()))
            .hint("Only a requested upload can be aborted; delete the file of an uploaded one.")),
    }
}

/// The status of an upload that the caller can see.
fn status(upload: pgrx::Uuid) -> Result<Status> {
    let status: Option<String> = catalog::read(
        "SELECT u.status::pg_catalog.text FROM storage.upload_requests u WHERE u.id OPERATOR(pg_catalog.=) $1",
        &[upload.into()],
        |rows| if rows.is_empty() { Ok(None) } else { Ok(rows.first().get_one()?) },
    )?;
    let status = status.ok_or_else(|| {
        Failure::new(Token::UploadNotFound, "no such upload")
            .detail(format!("Asked for '{upload}'."))
            .hint("storage.upload_requests lists your uploads.")
    })?;
    parse_status(&status)
}

fn parse_status(status: &str) -> Result<Status> {
    Status::parse(status).ok_or_else(|| Failure::internal(format!("unknown upload status {status}")))
}

/// An upload request as it is now, held against every other transition until the transaction ends.
pub fn lock(upload: pgrx::Uuid) -> Result<Pending> {
    let mut pending = catalog::as_owner(|| {
        catalog::write(
            "SELECT content_type, size, sha256, physical_name, object_key, final_key, direct, create_only,
                    status::pg_catalog.text, expires_at, verify_content_type
             FROM storage_private.lock_upload($1)",
            &[upload.into()],
            |rows| {
                let row = rows.first();
                let missing = || Failure::internal(format!("upload {upload} has vanished"));
                Ok(Pending {
                    content_type: row.get(1)?.ok_or_else(missing)?,
                    size: row.get(2)?.ok_or_else(missing)?,
                    sha256: row.get(3)?,
                    place: match (row.get(4)?, row.get(5)?, row.get(6)?) {
                        (Some(physical_name), Some(object_key), Some(final_key)) => Some(Placed {
                            physical_name,
                            object_key,
                            final_key,
                            direct: row.get(7)?.unwrap_or(false),
                            create_only: row.get(8)?.unwrap_or(false),
                        }),
                        _ => None,
                    },
                    status: parse_status(&row.get::<String>(9)?.ok_or_else(missing)?)?,
                    expires_at: Moment::of(row.get(10)?.ok_or_else(missing)?),
                    check_bytes: row.get(11)?.unwrap_or(true),
                    kept_by: None,
                })
            },
        )
    })?;
    if let Some(place) = &pending.place {
        pending.kept_by = provision::keeper_of(&place.physical_name)?;
    }
    Ok(pending)
}

/// Ends an upload without a file; `copy` is what this confirmation may have copied.
pub fn close(upload: pgrx::Uuid, reason: Reason, details: Option<String>, copy: Option<&str>) -> Result<()> {
    catalog::run_as_owner(
        "SELECT storage_private.close_upload($1, $2::storage.upload_status, $3, $4, $5)",
        &[
            upload.into(),
            reason.status().as_str().into(),
            reason.as_str().into(),
            details.into(),
            copy.into(),
        ],
    )
}

impl Pending {
    /// Asks the store what arrived. Staged bytes that are as promised have been copied to a key of this call's own.
    ///
    /// Talks to the store only: the worker calls it with no transaction open.
    pub fn examine(&self, capabilities: &Capabilities) -> Result<Examined> {
        let Some(place) = &self.place else {
            return Ok(Examined { seen: Seen::Found(Finding::Absent), copy: None, object_key: None });
        };
        let config = config::current()?;
        // Another store knows nothing of these keys, and would say that nothing arrived.
        if let Some(kept_by) = self.kept_by.as_ref().filter(|kept_by| **kept_by != config.endpoint) {
            return Err(Failure::new(Token::NotConfigured, "another store has the bucket")
                .detail(format!("{} is kept by {kept_by}; pg_storage.endpoint is {}.", place.physical_name, config.endpoint))
                .hint("Set pg_storage.endpoint back; or, where the store has moved with its objects, storage.provision_bucket() records that."));
        }
        let store = session::store(&config)?;
        let expected = Expected {
            size: self.size.unsigned_abs(),
            sha256: self.sha256.as_deref().map(Digest::parse_hex).transpose()?,
            content_type: ContentType::parse(&self.content_type)?,
            check_bytes: self.check_bytes,
        };
        let (physical, key) = (place.physical_name.clone(), place.object_key.clone());
        let copy = (!place.direct).then(|| attempt_key(&place.final_key));
        let (to, capabilities) = (copy.clone(), *capabilities);
        let finding = wait::until(async move {
            match to {
                None => verify::direct(&store, &physical, &key, &expected, &capabilities).await,
                Some(copy) => verify::staged(&store, &physical, &key, &copy, &expected, &capabilities).await,
            }
        })?;
        let seen = match finding {
            Ok(finding) => Seen::Found(finding),
            Err(error) if error.kind == ErrorKind::NoSuchBucket => {
                Seen::BucketGone(place.physical_name.clone())
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Examined { seen, copy, object_key: Some(place.object_key.clone()) })
    }
}

/// What the store was seen to enforce; what is not recorded counts as not enforced.
pub fn recorded_capabilities() -> Result<Capabilities> {
    let config = config::current()?;
    let recorded: Option<JsonB> = catalog::as_owner(|| {
        catalog::read(
            "SELECT storage_private.capabilities_of($1)",
            &[config.endpoint.as_str().into()],
            |rows| Ok(rows.first().get_one()?),
        )
    })?;
    Ok(recorded.and_then(|json| serde_json::from_value(json.0).ok()).unwrap_or_default())
}

/// Refuses a name or path that breaks the rules.
pub fn check_names(filename: &str, path: Option<&str>) {
    Filename::parse(filename).or_raise();
    path.map(FilePath::parse).transpose().or_raise();
}
