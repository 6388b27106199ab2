//! Objects that others brought into the store, looked at where they are before a file is made of them.

use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_core::error::Token;
use pg_storage_core::key::{Maker, upload_of};
use pg_storage_store::Store;
use pg_storage_store::verify::{self, Claim, Finding};

use crate::error::{Failure, Result};
use crate::upload::{check_count, recorded_capabilities};
use crate::{catalog, config, session};

/// What is said of an object.
pub struct Said<'a> {
    /// Its key.
    pub key: &'a str,
    /// Bytes.
    pub size: Option<i64>,
    /// 64 lower-case hex.
    pub sha256: Option<&'a str>,
    /// MIME type.
    pub content_type: Option<&'a str>,
}

/// An object that is there, and as it was said to be.
pub struct Seen {
    /// SHA-256 of its bytes.
    pub sha256: Digest,
    /// Bytes.
    pub size: i64,
    /// The type that the store has it with.
    pub content_type: String,
    /// The store's entity tag, as sent.
    pub etag: Option<String>,
}

/// Why no file can be made of an object: a word for programs, and words for people.
pub struct Obstacle {
    /// What kind of obstacle.
    pub reason: String,
    /// The values that were compared.
    pub details: Option<String>,
}

impl Obstacle {
    fn new(reason: &str, details: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), details: Some(details.into()) }
    }

    fn of(failure: &Failure) -> Self {
        let summary = failure.summary();
        let (reason, message) = summary.split_once(": ").unwrap_or(("STORE_ERROR", &summary));
        let details = match failure.details() {
            Some(details) => format!("{message}: {details}"),
            None => message.to_owned(),
        };
        Self::new(reason, details)
    }
}

/// Looks at objects in a physical bucket; the answers are in their order. One that cannot be looked at hinders no other.
///
/// # Errors
/// `NOT_CONFIGURED`, `BULK_UPLOAD_FILES_EXCEEDED`.
pub fn look(
    physical: &str,
    check_bytes: bool,
    said: &[Said<'_>],
) -> Result<Vec<std::result::Result<Seen, Obstacle>>> {
    check_count(said.len())?;
    let makers = makers()?;
    let claims: Vec<_> = said.iter().map(|said| claim(said, &makers, check_bytes)).collect();
    let claimed = said
        .iter()
        .zip(&claims)
        .filter_map(|(said, claim)| Some((said.key.to_owned(), claim.as_ref().ok()?.clone())));
    let questions: Vec<_> = claimed.collect();
    if questions.is_empty() {
        return Ok(claims.into_iter().filter_map(|claim| claim.err().map(Err)).collect());
    }
    // A store of which nothing is on record is not tried out in a bucket of others: everything is read then.
    let capabilities = recorded_capabilities()?.unwrap_or_default();
    let physical = physical.to_owned();
    let found = session::call_each(&*config::current()?, questions, move |store, (key, claim)| {
        let physical = physical.clone();
        async move {
            let finding = verify::found(&store, &physical, &key, &claim, &capabilities).await;
            Ok::<_, std::convert::Infallible>(finding)
        }
    })?;
    let Ok(mut found) = found.map(IntoIterator::into_iter);
    let answer = |claim: std::result::Result<Claim, Obstacle>| {
        claim?;
        let finding =
            found.next().ok_or_else(|| Obstacle::new(Token::StoreError.as_str(), "there is no answer"))?;
        finding.map_err(|error| Obstacle::of(&Failure::from(error))).and_then(judge)
    };
    Ok(claims.into_iter().map(answer).collect())
}

/// The endpoint of the store, which has this bucket.
///
/// # Errors
/// `BUCKET_NOT_FOUND`, `NOT_CONFIGURED`, and those of the store.
pub fn keeper(physical: &str) -> Result<String> {
    let config = config::current()?;
    let bucket = physical.to_owned();
    if session::call(&config, |store| async move { store.head_bucket(&bucket).await })? {
        return Ok(config.endpoint.clone());
    }
    Err(Failure::new(Token::BucketNotFound, "the store has no such bucket")
        .detail(format!("Asked {} for \"{}\".", config.endpoint, physical.escape_debug()))
        .hint("Name a bucket that the store has and that the server's credentials may read and write."))
}

/// What is said, held against the rules.
fn claim(said: &Said<'_>, makers: &[Maker], check_bytes: bool) -> std::result::Result<Claim, Obstacle> {
    // What this database brought in and no row names is on its way out.
    if upload_of(said.key).is_some_and(|upload| makers.iter().any(|maker| maker.made(&upload))) {
        return Err(Obstacle::new("KEY_TAKEN", "an upload to this database made this key"));
    }
    let invalid = |invalid| Obstacle::of(&Failure::from(invalid));
    let size = match said.size.map(u64::try_from) {
        None => None,
        Some(Ok(size)) if size > 0 => Some(size),
        Some(_) => {
            return Err(Obstacle::new(Token::InvalidFileSize.as_str(), "a file has at least one byte"));
        }
    };
    Ok(Claim {
        size,
        sha256: said.sha256.map(Digest::parse_hex).transpose().map_err(invalid)?,
        content_type: said.content_type.map(ContentType::parse).transpose().map_err(invalid)?,
        check_bytes,
    })
}

fn judge(finding: Finding) -> std::result::Result<Seen, Obstacle> {
    Err(match finding {
        Finding::Verified { size, sha256, etag, content_type, .. } => {
            let size = i64::try_from(size).map_err(|_| Obstacle::new("FILE_TOO_LARGE", "larger than any"))?;
            return Ok(Seen { sha256, size, content_type, etag });
        }
        Finding::Absent => Obstacle::new("NOT_UPLOADED", "the store has nothing at this key"),
        Finding::Empty => Obstacle::new("EMPTY_FILE", "the object has no bytes"),
        Finding::SizeMismatch { declared, found } => {
            Obstacle::new("SIZE_MISMATCH", format!("declared {declared} bytes, found {found}"))
        }
        Finding::HashMismatch { declared, found } => Obstacle::new(
            "HASH_MISMATCH",
            format!("declared {}, found {}", declared.to_hex(), found.to_hex()),
        ),
        Finding::ContentTypeMismatch { declared, found } => {
            Obstacle::new("CONTENT_TYPE_MISMATCH", format!("declared {declared}, found {found}"))
        }
    })
}

/// The databases whose keys are this one's.
fn makers() -> Result<Vec<Maker>> {
    catalog::read(
        "SELECT m.system_identifier, m.database FROM storage_private.this_installation() m
         UNION SELECT f.system_identifier, f.database FROM storage_private.former_installations f",
        &[],
        |rows| {
            rows.map(|row| {
                let missing = || Failure::internal("an installation has no identity");
                let system: i64 = row.get(1)?.ok_or_else(missing)?;
                let database: pgrx::pg_sys::Oid = row.get(2)?.ok_or_else(missing)?;
                Ok(Maker::new(system as u64, database.to_u32()))
            })
            .collect()
        },
    )
}
