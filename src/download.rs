//! Downloads: presigned and public URLs of files the caller can see.
//!
//! Which files, is asked as the caller; where their bytes are, as the owner. Nothing here writes, so a standby signs too.

use pg_storage_core::disposition::content_disposition;
use pg_storage_core::error::Token;
use pg_storage_core::lifetime::in_period;
use pg_storage_core::name::Filename;
use pg_storage_core::policy::Access;
use pg_storage_core::presign::{Method, Presign, Signer, encode_key, plain_url};
use pgrx::datum::{Interval, TimestampWithTimeZone};

use crate::clock::{Moment, lifetime};
use crate::error::{Failure, Result, shown_id};
use crate::operation::Operation;
use crate::{catalog, config, guc, session};

/// A presigned download URL.
pub type Signed = (pgrx::Uuid, String, TimestampWithTimeZone);

/// How URLs are wanted.
pub struct Wish<'a> {
    /// Lifetime; `None`: the bucket's, else the server's.
    pub expires_in: Option<Interval>,
    /// Saved rather than shown.
    pub attachment: bool,
    /// Offered instead of the file's own name.
    pub filename: Option<&'a str>,
}

/// A file and where its bytes are.
struct Located {
    file: pgrx::Uuid,
    filename: String,
    physical_name: String,
    key: String,
    access: Access,
    usual_lifetime: Option<Interval>,
}

/// Signs the visible ones of `files`, in the order given.
pub fn sign(files: &[pgrx::Uuid], wish: &Wish<'_>) -> Result<Vec<Signed>> {
    let asked = wish.expires_in.as_ref().map(lifetime).transpose()?;
    wish.filename.map(Filename::parse).transpose()?;
    let located = locate(files)?;
    if located.is_empty() {
        return Ok(Vec::new());
    }
    let config = config::current()?;
    let now = Moment::now();
    session::with_signer(&config, |signer| {
        located.iter().map(|file| sign_one(signer, file, asked, wish, now)).collect::<Result<Vec<Signed>>>()
    })?
}

fn sign_one(
    signer: &mut Signer,
    file: &Located,
    asked: Option<u32>,
    wish: &Wish<'_>,
    now: Moment,
) -> Result<Signed> {
    let expires = match (asked, &file.usual_lifetime) {
        (Some(asked), _) => asked,
        (None, Some(usual)) => lifetime(usual)?,
        (None, None) => guc::DOWNLOAD_URL_TTL.get().unsigned_abs(),
    };
    let disposition = content_disposition(wish.attachment, wish.filename.unwrap_or(&file.filename));
    let period = guc::DOWNLOAD_URL_PERIOD.get().unsigned_abs();
    let (signed, lives) = in_period(now.unix(), expires, period);
    // Who has the URL may have the bytes: a cache may answer for the store, for a period after it got them.
    let kept = (lives > expires).then(|| format!("max-age={}", lives - expires));
    // The year that public files are kept is for the URL that stays. A browser that kept this answer for a link would give it
    // to a script as well, without the headers that let scripts read it.
    let kept = kept.or_else(|| file.access.cache_control().map(|_| "no-store".to_owned()));
    let mut query = vec![("response-content-disposition", disposition.as_str())];
    if let Some(kept) = &kept {
        query.insert(0, ("response-cache-control", kept));
    }
    let request = Presign {
        method: Method::Get,
        bucket: &file.physical_name,
        key: &file.key,
        expires: lives,
        headers: &[],
        query: &query,
    };
    let signed = Moment::of_unix(signed);
    Ok((file.file, signer.url(&request, signed.signing()), signed.plus(lives).column()?))
}

/// The unsigned URL of a file in a public bucket.
pub fn public_url(file: pgrx::Uuid) -> Result<String> {
    let located = locate(&[file])?.into_iter().next().ok_or_else(|| {
        Failure::new(Token::FileNotFound, "no such file")
            .detail(format!("Asked for {}.", shown_id(file)))
            .hint("storage.files lists those you can see.")
    })?;
    if located.access != Access::Public {
        return Err(Failure::new(Token::NotPublic, "the file is not in a public bucket")
            .detail(format!("File {file} is in a bucket that is {}.", located.access.as_str()))
            .hint("storage.download_url() gives a signed URL."));
    }
    let config = config::current()?;
    Ok(match &config.public_url_base {
        Some(base) => format!("{base}/{}/{}", located.physical_name, encode_key(&located.key)),
        None => plain_url(&config.public, &located.physical_name, &located.key),
    })
}

/// A file as its caller sees it.
struct Visible {
    file: pgrx::Uuid,
    filename: String,
    object: pgrx::Uuid,
    bucket: pgrx::Uuid,
}

fn visible(files: &[pgrx::Uuid]) -> Result<Vec<Visible>> {
    let missing = || Failure::internal("a file has no columns");
    Operation::Sign.during(|| {
        catalog::uncompiled(|| {
            catalog::read(
                "SELECT f.id, f.filename, f.object_id, f.bucket_id
                 FROM pg_catalog.unnest($1) WITH ORDINALITY AS asked(id, place)
                 JOIN storage.files f ON f.id OPERATOR(pg_catalog.=) asked.id
                 WHERE f.expires_at IS NULL OR f.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
                 ORDER BY asked.place",
                &[files.to_vec().into()],
                |rows| {
                    rows.map(|row| {
                        Ok(Visible {
                            file: row.get(1)?.ok_or_else(missing)?,
                            filename: row.get(2)?.ok_or_else(missing)?,
                            object: row.get(3)?.ok_or_else(missing)?,
                            bucket: row.get(4)?.ok_or_else(missing)?,
                        })
                    })
                    .collect()
                },
            )
        })
    })
}

fn locate(files: &[pgrx::Uuid]) -> Result<Vec<Located>> {
    let visible = visible(files)?;
    if visible.is_empty() {
        return Ok(Vec::new());
    }
    let objects: Vec<pgrx::Uuid> = visible.iter().map(|file| file.object).collect();
    let buckets: Vec<pgrx::Uuid> = visible.iter().map(|file| file.bucket).collect();
    catalog::as_owner(|| {
        catalog::read(
            "SELECT physical_name, key, access::pg_catalog.text, download_url_ttl
             FROM storage_private.locate_objects($1, $2)",
            &[objects.into(), buckets.into()],
            |rows| {
                rows.zip(visible)
                    .map(|(row, Visible { file, filename, .. })| {
                        let missing = || Failure::internal(format!("the object of file {file} is missing"));
                        // Who is not bound by policies sees files of a bucket that is being deleted, and gets no URL either.
                        let Some(access) = row.get::<String>(3)? else { return Ok(None) };
                        Ok(Some(Located {
                            file,
                            filename,
                            physical_name: row.get(1)?.ok_or_else(missing)?,
                            key: row.get(2)?.ok_or_else(missing)?,
                            access: Access::parse(&access).ok_or_else(missing)?,
                            usual_lifetime: row.get(4)?,
                        }))
                    })
                    .filter_map(Result::transpose)
                    .collect()
            },
        )
    })
}
