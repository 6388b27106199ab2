//! Uploads in parts: begun at the store, signed part by part, resumed by whoever knows the upload's id.
//!
//! The store begins the upload within the caller's transaction. When that rolls back, no row names what was begun, and the
//! sweep of unfinished uploads ends it.

use std::rc::Rc;

use pg_storage_core::digest::Digest;
use pg_storage_core::error::Token;
use pg_storage_core::parts::Parts;
use pg_storage_core::presign::{Method, Presign};
use pg_storage_store::assemble::arrived;
use pg_storage_store::probe::Support;
use pg_storage_store::{Description, ErrorKind, Part, Store, Unfinished};
use pgrx::JsonB;
use pgrx::datum::{Interval, TimestampWithTimeZone};

use super::admission::in_parts;
use super::examine::capabilities;
use super::request::{Wanted, open_placed, share};
use crate::bucket::Bucket;
use crate::clock::{Moment, lifetime};
use crate::error::{Failure, Result, shown_id};
use crate::operation::Operation;
use crate::{cache, catalog, config, guc, session, wait};

/// How long an upload may take when nobody says: long enough for a slow line, short enough for a client that is gone.
const USUAL_LIFETIME: f64 = 86_400.0;

/// A file to come in parts.
pub struct PartsWanted<'a> {
    /// What is said of it.
    pub file: Wanted<'a>,
    /// Bytes of each part but the last; `None`: the usual.
    pub part_size: Option<i64>,
    /// Whether each part's SHA-256 will be given.
    pub sums: bool,
}

/// What the client gets.
pub struct PartsTicket {
    /// What is signed, confirmed or aborted later.
    pub upload_id: pgrx::Uuid,
    /// The file to be, or that is already.
    pub file_id: pgrx::Uuid,
    /// The parts, and when the request ends; `None`: no bytes are needed.
    pub parts: Option<(Parts, TimestampWithTimeZone)>,
}

/// Inserts the request as the caller, shares an object the caller can already read, or has the store begin the upload.
///
/// # Errors
/// `INVALID_PART`; `NOT_CONFIGURED` where a part could be a copy of another object; those of a request by PUT and those of
/// the store.
pub fn open_parts(bucket: &Rc<Bucket>, mut wanted: PartsWanted<'_>) -> Result<PartsTicket> {
    let declared = &mut wanted.file.declared;
    declared.expires_in.get_or_insert_with(|| Interval::from_seconds(USUAL_LIFETIME));
    let opened = in_parts(|| open_placed(bucket, &wanted.file.declared, &wanted.file.metadata))?;
    let declared = &wanted.file.declared;
    let parts = Parts::divide(declared.size.unsigned_abs(), wanted.part_size)?;
    let one = std::slice::from_ref(&opened);
    if share(one, bucket.id_datum(), std::slice::from_ref(declared))?.contains(&true) {
        return Ok(PartsTicket { upload_id: opened.id, file_id: opened.file_id, parts: None });
    }
    let config = config::current()?;
    let place = opened.named()?;
    let capabilities = capabilities(&config, &place.physical_name)?;
    if !capabilities.has_parts() {
        return Err(Failure::new(Token::NotConfigured, "the store takes no uploads in parts")
            .detail("It was not seen to refuse a part that is a copy of another object.")
            .hint("Use storage.request_upload_url(), up to 5 GiB; storage.check() tries the store again."));
    }
    let sums = wanted.sums && capabilities.part_checksum == Support::Enforced;
    let (physical, key) = (place.physical_name.clone(), place.final_key.clone());
    let (content_type, cache_control) = (declared.content_type.to_owned(), opened.cache_control);
    let store = session::store(&config)?;
    let begun = wait::until(async move {
        let description = Description { content_type: &content_type, cache_control };
        store.create_multipart_upload(&physical, &key, description, sums).await
    })?;
    let multipart_id = begun.inspect_err(|error| {
        if error.kind == ErrorKind::NoSuchBucket {
            cache::evict(&place.physical_name);
        }
    })?;
    catalog::run_as_owner(
        "SELECT storage_private.place_multipart($1, $2, $3, $4)",
        &[
            opened.id.into(),
            multipart_id.into(),
            i64::try_from(parts.part_size()).unwrap_or(i64::MAX).into(),
            wanted.sums.then_some(sums).into(),
        ],
    )?;
    let parts = Some((parts, opened.expires_at.column()?));
    Ok(PartsTicket { upload_id: opened.id, file_id: opened.file_id, parts })
}

/// A pending upload in parts.
struct Own {
    physical: String,
    key: String,
    multipart_id: String,
    parts: Parts,
    sums: Option<bool>,
    expires_at: Moment,
    url_ttl: Option<Interval>,
}

/// An upload in parts that the caller may end: whoever may only see those of others sends no bytes to them.
fn own(upload: pgrx::Uuid) -> Result<Own> {
    let not_pending = |what: &str| {
        Failure::new(Token::UploadNotPending, "the upload takes no parts")
            .detail(format!("Upload {upload} {what}."))
            .hint("storage.request_multipart_upload() begins one that does.")
    };
    Operation::Upload.during(|| {
        catalog::read(
        "SELECT u.physical_name, u.object_key, u.multipart_id, u.size, u.part_size, u.part_sums, u.expires_at,
                u.status::pg_catalog.text, b.upload_url_ttl
         FROM storage.upload_requests u JOIN storage.buckets b ON b.id OPERATOR(pg_catalog.=) u.bucket_id
         WHERE u.id OPERATOR(pg_catalog.=) $1 AND b.deleted_at IS NULL",
        &[upload.into()],
        |rows| {
            let row = rows.first();
            if row.is_empty() {
                return Err(Failure::new(Token::UploadNotFound, "no such upload")
                    .detail(format!("Asked for {}.", shown_id(upload)))
                    .hint("storage.upload_requests lists your uploads."));
            }
            let missing = || Failure::internal("an upload request has no columns");
            let (physical, key, multipart_id) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let (Some(physical), Some(key), Some(multipart_id)) = (physical, key, multipart_id) else {
                return Err(not_pending("is not in parts"));
            };
            let size: i64 = row.get(4)?.ok_or_else(missing)?;
            let own = Own {
                physical,
                key,
                multipart_id,
                parts: Parts::divide(size.unsigned_abs(), row.get(5)?)?,
                sums: row.get(6)?,
                expires_at: Moment::of(row.get(7)?.ok_or_else(missing)?),
                url_ttl: row.get(9)?,
            };
            let status: String = row.get(8)?.ok_or_else(missing)?;
            if status != "requested" {
                return Err(not_pending(&format!("is {status}")));
            }
            if Moment::now() >= own.expires_at {
                return Err(not_pending("is past its time"));
            }
            Ok(own)
        },
    )
    })
}

/// Where one part is sent.
pub struct SignedPart {
    /// Its number.
    pub number: i32,
    /// Where it begins in the file.
    pub first_byte: i64,
    /// Its bytes.
    pub size: i64,
    /// Where to.
    pub url: String,
    /// With exactly these.
    pub headers: JsonB,
    /// Until when.
    pub expires_at: TimestampWithTimeZone,
}

/// URLs for parts of an upload of the caller's own, in the order given.
///
/// # Errors
/// `UPLOAD_NOT_FOUND`, `UPLOAD_NOT_PENDING`, `INVALID_PART`, `INVALID_CONTENT_HASH`.
pub fn sign_parts(
    upload: pgrx::Uuid,
    numbers: &[Option<i32>],
    sums: Option<Vec<Option<String>>>,
) -> Result<Vec<SignedPart>> {
    let own = own(upload)?;
    if numbers.len() > usize::try_from(own.parts.count()).unwrap_or_default() {
        return Err(Failure::new(Token::InvalidPart, "more parts are asked for than there are")
            .detail(format!("{} were asked for; the upload has {}.", numbers.len(), own.parts.count()))
            .hint("Ask for each part once; a URL can be asked for again in another call."));
    }
    let sums = sums_of(&own, numbers.len(), sums)?;
    let now = Moment::now();
    let usual = match &own.url_ttl {
        Some(usual) => lifetime(usual)?,
        None => guc::UPLOAD_URL_TTL.get().unsigned_abs(),
    };
    let expires = usual.min(now.seconds_until(own.expires_at)).max(1);
    let expires_at = now.plus(expires).column()?;
    let config = config::current()?;
    let mut signed = Vec::with_capacity(numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        let number = number.unwrap_or_default();
        let (first_byte, size) = own.parts.place(number)?;
        let mut headers = vec![("content-length", size.to_string())];
        if let Some(sum) = sums.get(at) {
            headers.push(("x-amz-checksum-sha256", sum.to_base64()));
            headers.push(("x-amz-sdk-checksum-algorithm", "SHA256".to_owned()));
        }
        let borrowed: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let part = number.to_string();
        let request = Presign {
            method: Method::Put,
            bucket: &own.physical,
            key: &own.key,
            expires,
            headers: &borrowed,
            query: &[("partNumber", &part), ("uploadId", &own.multipart_id)],
        };
        let url = session::with_signer(&config, |signer| signer.url(&request, now.signing()))?;
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        signed.push(SignedPart {
            number,
            first_byte: i64::try_from(first_byte).unwrap_or(i64::MAX),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            url,
            headers: JsonB(serde_json::Value::Object(headers)),
            expires_at,
        });
    }
    Ok(signed)
}

/// The sums to be signed: none, or one for each part.
fn sums_of(own: &Own, count: usize, given: Option<Vec<Option<String>>>) -> Result<Vec<Digest>> {
    let refuse = |message: &str, hint: &str| {
        Err(Failure::new(Token::InvalidPart, message)
            .detail(format!("{count} parts, {} sums.", given.as_ref().map_or(0, Vec::len)))
            .hint(hint))
    };
    match (own.sums, &given) {
        (None, None) => return Ok(Vec::new()),
        (None, Some(_)) => {
            return refuse(
                "the upload was begun without the sums of its parts",
                "Say part_sha256s => true to storage.request_multipart_upload().",
            );
        }
        (Some(_), given) if given.as_ref().map_or(0, Vec::len) != count => {
            return refuse(
                "each part of this upload needs its SHA-256",
                "Pass sha256s, one for each of part_numbers.",
            );
        }
        _ => {}
    }
    let parsed: std::result::Result<Vec<Digest>, _> = given
        .unwrap_or_default()
        .iter()
        .map(|sum| Digest::parse_hex(sum.as_deref().unwrap_or_default()))
        .collect();
    // What the store does not enforce is not signed; the sums have been looked at all the same.
    Ok(if own.sums == Some(true) { parsed? } else { parsed.map(|_| Vec::new())? })
}

/// One part, and whether the store has it.
pub struct ArrivedPart {
    /// Its number.
    pub number: i32,
    /// Where it begins in the file.
    pub first_byte: i64,
    /// Its bytes.
    pub size: i64,
    /// Whether it is there.
    pub uploaded: bool,
    /// The store's entity tag.
    pub etag: Option<String>,
    /// The SHA-256 that it was sent with.
    pub sha256: Option<String>,
}

/// All parts of an upload of the caller's own, and which of them the store has.
///
/// # Errors
/// `UPLOAD_NOT_FOUND`, `UPLOAD_NOT_PENDING`, and those of the store.
pub fn arrived_parts(upload: pgrx::Uuid) -> Result<Vec<ArrivedPart>> {
    let own = own(upload)?;
    let config = config::current()?;
    let (bucket, key, upload_id) = (own.physical, own.key, own.multipart_id);
    let found: Option<Vec<Part>> = session::call(&config, |store| async move {
        let upload = Unfinished { bucket: &bucket, key: &key, upload_id: &upload_id };
        match arrived(&store, upload).await {
            // A confirmation that was rolled back has made them one object, or the store has given them up.
            Err(error) if error.kind == ErrorKind::NotFound => {
                Ok(if store.head(&bucket, &key).await?.is_some() { None } else { Some(Vec::new()) })
            }
            found => found.map(Some),
        }
    })?;
    let mut list = Vec::new();
    for number in 1..=own.parts.count() {
        let (first_byte, size) = own.parts.place(number)?;
        let part = found
            .as_ref()
            .and_then(|found| found.iter().find(|part| part.number == number && part.size == size));
        list.push(ArrivedPart {
            number,
            first_byte: i64::try_from(first_byte).unwrap_or(i64::MAX),
            size: i64::try_from(size).unwrap_or(i64::MAX),
            uploaded: found.is_none() || part.is_some(),
            etag: part.and_then(|part| part.etag.clone()),
            sha256: part.and_then(|part| part.sha256.as_ref()).map(Digest::to_hex),
        });
    }
    Ok(list)
}
