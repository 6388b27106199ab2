//! From a declaration to a ticket: the request is inserted as the caller, then placed, shared or signed.
//!
//! Many at once are one or nothing, and go through each step together: nothing is made ready for the first before all of
//! them were allowed.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_core::error::Token;
use pg_storage_core::presign::{Method, Presign};
use pg_storage_core::upload::signed_headers;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::{JsonB, PgTryBuilder};
use uuid::Uuid;

use super::admission::{self, Declared, Placed, check_metadata};
use super::examine::capabilities;
use crate::bucket::Bucket;
use crate::clock::Moment;
use crate::error::{Failure, Result};
use crate::json::Jsonb;
use crate::operation::Operation;
use crate::provision::{self, Ask};
use crate::{cache, catalog, config, rate, session};

/// What the client gets.
pub struct Ticket {
    /// What is confirmed later.
    pub upload_id: pgrx::Uuid,
    /// The file to be, or that is already.
    pub file_id: pgrx::Uuid,
    /// URL, headers and end; `None`: no bytes are needed.
    pub upload: Option<(String, JsonB, TimestampWithTimeZone)>,
}

/// A file to come.
pub struct Wanted<'a> {
    /// What is said of it.
    pub declared: Declared<'a>,
    /// A JSON object to be kept with it.
    pub metadata: Jsonb,
}

/// The row of an upload request, as far as a ticket needs it.
pub(super) struct Opened {
    pub(super) id: pgrx::Uuid,
    pub(super) file_id: pgrx::Uuid,
    place: Option<Named>,
    pub(super) cache_control: Option<&'static str>,
    pub(super) created_at: Moment,
    pub(super) expires_at: Moment,
}

impl Opened {
    /// What a URL of the request names.
    pub(super) fn named(&self) -> Result<&Named> {
        self.place.as_ref().ok_or_else(|| Failure::internal("an upload request has no place"))
    }
}

/// What a URL names.
pub(super) struct Named {
    pub(super) physical_name: String,
    pub(super) object_key: String,
    /// The key of the object, where nothing is copied.
    pub(super) final_key: String,
    create_only: bool,
    /// Whether uploads carry a mark, if it is known from making the bucket ready.
    marked: Option<bool>,
}

/// The bucket that uploads are to go to, found once they count as under way.
///
/// # Errors
/// `READ_ONLY`, and those of finding it.
pub fn destination(find: impl FnOnce() -> Result<Bucket>) -> Result<Rc<Bucket>> {
    catalog::require_writable()?;
    catalog::lock_upload_requests();
    find().map(Rc::new)
}

/// Inserts the request as the caller, shares an object the caller can already read, or signs a URL.
pub fn open(bucket: &Rc<Bucket>, wanted: Wanted<'_>) -> Result<Ticket> {
    let tickets = open_all(bucket, vec![wanted], |_, failure| failure)?;
    tickets.into_iter().next().ok_or_else(|| Failure::internal("one upload request gave no ticket"))
}

/// The same for many, all or none, in the order given. `about` says in a failure which of them it is about.
pub(super) fn open_all(
    bucket: &Rc<Bucket>,
    files: Vec<Wanted<'_>>,
    about: impl Fn(usize, Failure) -> Failure,
) -> Result<Vec<Ticket>> {
    let mut declared = Vec::with_capacity(files.len());
    let mut opened = Vec::with_capacity(files.len());
    rate::spending_at_once(|| {
        for (at, wanted) in files.into_iter().enumerate() {
            opened.push(
                insert(bucket, &wanted.declared, &wanted.metadata).map_err(|failure| about(at, failure))?,
            );
            declared.push(wanted.declared);
        }
        Ok(())
    })?;
    place(&mut opened, bucket, &declared)?;
    let shared = share(&opened, bucket.id_datum(), &declared)?;
    let mut tickets = Vec::with_capacity(opened.len());
    for ((opened, declared), shared) in opened.iter().zip(&declared).zip(shared) {
        let upload = if shared { None } else { Some(sign(opened, declared)?) };
        tickets.push(Ticket { upload_id: opened.id, file_id: opened.file_id, upload });
    }
    Ok(tickets)
}

/// Inserts one request as the caller and gives it a place; it says in its row yet that it is one by PUT.
pub(super) fn open_placed(bucket: &Rc<Bucket>, declared: &Declared<'_>, metadata: &Jsonb) -> Result<Opened> {
    let mut opened = insert(bucket, declared, metadata)?;
    place(std::slice::from_mut(&mut opened), bucket, std::slice::from_ref(declared))?;
    Ok(opened)
}

fn insert(bucket: &Rc<Bucket>, declared: &Declared<'_>, metadata: &Jsonb) -> Result<Opened> {
    check_metadata(metadata)?;
    with_forbidden_named(|| {
        admission::destined_for(bucket, || {
            Operation::Upload.during(|| catalog::write(
            "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size, sha256, path, metadata, expires_in)
             VALUES ($1, $2, $3, $4, $5, $6, $7::pg_catalog.jsonb, $8)
             RETURNING id, file_id, physical_name, object_key, create_only, created_at, expires_at, final_key",
            &[
                bucket.id_datum().into(),
                declared.filename.into(),
                declared.content_type.into(),
                declared.size.into(),
                declared.sha256.into(),
                declared.path.into(),
                metadata.as_str().into(),
                declared.expires_in.into(),
            ],
            |rows| {
                let row = rows.first();
                let missing = || Failure::internal("an inserted upload request has no columns");
                Ok(Opened {
                    id: row.get(1)?.ok_or_else(missing)?,
                    file_id: row.get(2)?.ok_or_else(missing)?,
                    place: match (row.get(3)?, row.get(4)?, row.get(8)?) {
                        (Some(physical_name), Some(object_key), Some(final_key)) => Some(Named {
                            physical_name,
                            object_key,
                            final_key,
                            create_only: row.get(5)?.unwrap_or(false),
                            marked: None,
                        }),
                        _ => None,
                    },
                    cache_control: bucket.access.cache_control(),
                    created_at: Moment::of(row.get(6)?.ok_or_else(missing)?),
                    expires_at: Moment::of(row.get(7)?.ok_or_else(missing)?),
                })
            },
        ))
        })
    })
}

/// First use: the caller was allowed to insert the requests, so their bucket is made ready now and each gets a place.
fn place(opened: &mut [Opened], bucket: &Bucket, declared: &[Declared<'_>]) -> Result<()> {
    if opened.iter().all(|opened| opened.place.is_some()) {
        return Ok(());
    }
    let ready = provision::ensure(bucket, Ask::Use)?;
    for (opened, declared) in opened.iter_mut().zip(declared).filter(|(opened, _)| opened.place.is_none()) {
        let digest = declared.sha256.map(Digest::parse_hex).transpose()?;
        let id = Uuid::from_bytes(*opened.id.as_bytes());
        let placed = Placed::new(bucket, &ready, digest.as_ref(), &id);
        (opened.created_at, opened.expires_at) = record_place(opened.id, &placed)?;
        let Placed { physical_name, object_key, final_key, create_only, .. } = placed;
        let marked = Some(ready.ready.marked);
        opened.place = Some(Named { physical_name, object_key, final_key, create_only, marked });
    }
    Ok(())
}

/// Gives a request its place, and the time of its URL, which begins now.
pub(super) fn record_place(upload: pgrx::Uuid, placed: &Placed) -> Result<(Moment, Moment)> {
    catalog::as_owner(|| {
        catalog::write(
            "SELECT created_at, expires_at FROM storage_private.place_upload($1, $2, $3, $4, $5, $6)",
            &[
                upload.into(),
                placed.physical_name.as_str().into(),
                placed.object_key.as_str().into(),
                placed.final_key.as_str().into(),
                placed.direct.into(),
                placed.create_only.into(),
            ],
            |rows| {
                let row = rows.first();
                let missing = || Failure::internal("the upload request has vanished");
                Ok((
                    Moment::of(row.get(1)?.ok_or_else(missing)?),
                    Moment::of(row.get(2)?.ok_or_else(missing)?),
                ))
            },
        )
    })
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

/// Ends each upload that can be over a verified object that the caller can read already; says which.
///
/// Looked for as the caller, and as for a download: a hash somebody claims gives nothing that row-level security does
/// not, and a file shows its own hash to whoever may see its row.
pub(super) fn share(opened: &[Opened], bucket: pgrx::Uuid, declared: &[Declared<'_>]) -> Result<Vec<bool>> {
    let mut shareable = Vec::with_capacity(opened.len());
    for declared in declared {
        shareable.push(match declared.sha256 {
            Some(sha256) => candidates(bucket, sha256, declared.size)?,
            None => Vec::new(),
        });
    }
    let paths: Vec<&str> = declared
        .iter()
        .zip(&shareable)
        .filter(|(_, candidates)| !candidates.is_empty())
        .filter_map(|(declared, _)| declared.path)
        .collect();
    if paths.len() > 1 {
        catalog::run_as_owner(
            "SELECT storage_private.lock_paths($1, $2)",
            &[vec![bucket; paths.len()].into(), paths.into()],
        )?;
    }
    opened.iter().zip(shareable).map(|(opened, candidates)| share_one(opened.id, candidates)).collect()
}

pub(super) fn candidates(bucket: pgrx::Uuid, sha256: &str, size: i64) -> Result<Vec<pgrx::Uuid>> {
    Operation::Sign.during(|| {
        catalog::write(
            "SELECT object_id FROM storage_private.shareable_objects($1, $2, $3) AS s(object_id)",
            &[bucket.into(), sha256.into(), size.into()],
            |rows| rows.map(|row| Ok(row.get::<pgrx::Uuid>(1)?)).filter_map(Result::transpose).collect(),
        )
    })
}

pub(super) fn share_one(upload: pgrx::Uuid, candidates: Vec<pgrx::Uuid>) -> Result<bool> {
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

fn sign(opened: &Opened, declared: &Declared<'_>) -> Result<(String, JsonB, TimestampWithTimeZone)> {
    let place = opened.named()?;
    let content_type = ContentType::parse(declared.content_type)?;
    let digest = declared.sha256.map(Digest::parse_hex).transpose()?;
    let config = config::current()?;
    let marked = match place.marked.or_else(|| cache::marked(&config.endpoint, &place.physical_name)) {
        Some(marked) => marked,
        None => capabilities(&config, &place.physical_name)?.marked(),
    };
    let id = Uuid::from_bytes(*opened.id.as_bytes());
    let headers = signed_headers(
        &content_type,
        declared.size.unsigned_abs(),
        digest.as_ref(),
        place.create_only,
        marked.then_some(&id),
        opened.cache_control,
    );
    let borrowed: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
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
