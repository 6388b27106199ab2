//! What the store is asked about uploads, many at once. Talks to the store only: the worker does it with no transaction
//! open.

use std::collections::BTreeSet;

use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_core::key::attempt_key;
use pg_storage_core::parts::Parts;
use pg_storage_store::assemble::assemble;
use pg_storage_store::probe::Capabilities;
use pg_storage_store::verify::{self, Expected, Finding};
use pg_storage_store::{ErrorKind, S3Store, StoreError, Unfinished};
use pgrx::JsonB;

use super::pending::Pending;
use crate::config::{self, Config};
use crate::error::{Failure, Result};
use crate::{cache, catalog, provision, session};

/// What the store was seen to hold for an upload.
pub struct Examined {
    pub(super) upload: pgrx::Uuid,
    pub(super) seen: Seen,
    /// What this examination may have copied the bytes to.
    pub(super) copy: Option<String>,
    /// The key that the URL names.
    pub(super) object_key: Option<String>,
}

pub(super) enum Seen {
    /// Bytes, or none.
    Found(Finding),
    /// Not even this bucket.
    BucketGone(String),
}

/// One upload's question to the store.
struct Question {
    physical: String,
    key: String,
    /// Where staged bytes are copied to; `None`: they are at their final key.
    copy: Option<String>,
    /// What the store calls the upload, and its parts, if it comes in parts.
    parts: Option<(String, Parts)>,
    expected: Expected,
}

impl Question {
    /// `None`: nothing was ever asked to be there.
    fn about(pending: &Pending, capabilities: &Capabilities) -> Result<Option<Self>> {
        let Some(place) = &pending.place else { return Ok(None) };
        Ok(Some(Self {
            physical: place.physical_name.clone(),
            key: place.object_key.clone(),
            copy: (!place.direct).then(|| attempt_key(&place.final_key)),
            parts: pending.parts.clone(),
            expected: Expected {
                size: pending.size.unsigned_abs(),
                at_most: pending.at_most,
                sha256: pending.sha256.as_deref().map(Digest::parse_hex).transpose()?,
                content_type: ContentType::parse(&pending.content_type)?,
                check_bytes: pending.check_bytes,
                // Where parts are taken at all, none can be a copy.
                mark: (capabilities.marked() && pending.parts.is_none()).then(|| pending.id.to_string()),
                cache_control: pending.access.cache_control(),
            },
        }))
    }

    async fn ask(
        self,
        store: S3Store,
        capabilities: Capabilities,
    ) -> std::result::Result<(Seen, Self), StoreError> {
        let Self { physical, key, copy, parts, expected } = &self;
        let finding = match (parts, copy) {
            (Some((upload_id, parts)), _) => {
                let upload = Unfinished { bucket: physical, key, upload_id };
                assemble(&store, upload, *parts, expected).await
            }
            (None, None) => verify::direct(&store, physical, key, expected, &capabilities).await,
            (None, Some(copy)) => verify::staged(&store, physical, key, copy, expected, &capabilities).await,
        };
        match finding {
            Ok(finding) => Ok((Seen::Found(finding), self)),
            Err(error) if error.kind == ErrorKind::NoSuchBucket => {
                Ok((Seen::BucketGone(self.physical.clone()), self))
            }
            Err(error) => Err(error),
        }
    }
}

/// Asks the store what arrived for each of these uploads; the answers are in their order. Staged bytes that are as
/// promised have been copied to a key of this call's own. The first question that fails ends all.
///
/// Where it is not on record what the store enforces, that is tried out first: whoever keeps it from being recorded must
/// not have less asked of an upload.
pub fn examine(uploads: &[Pending], recorded: Option<Capabilities>) -> Result<Vec<Examined>> {
    let config = config::current()?;
    for pending in uploads {
        if let Some(place) = &pending.place {
            config.check_keeper(&place.physical_name, pending.kept_by.as_deref())?;
        }
    }
    let placed = uploads.iter().find_map(|pending| pending.place.as_ref());
    let capabilities = match (recorded, placed) {
        (Some(recorded), _) => recorded,
        (None, Some(place)) => provision::try_out(&config, &place.physical_name)?,
        (None, None) => Capabilities::default(),
    };
    let mut examined = Vec::with_capacity(uploads.len());
    let mut questions = Vec::with_capacity(uploads.len());
    for (at, pending) in uploads.iter().enumerate() {
        let absent = Seen::Found(Finding::Absent);
        examined.push(Examined { upload: pending.id, seen: absent, copy: None, object_key: None });
        if let Some(question) = Question::about(pending, &capabilities)? {
            questions.push((at, question));
        }
    }
    if questions.is_empty() {
        return Ok(examined);
    }
    let answers = session::call_each(&config, questions, move |store, (at, question)| async move {
        let answer = question.ask(store, capabilities).await;
        answer.map(|answer| (at, answer)).map_err(|error| (at, error))
    })?;
    let answers = answers.map_err(|(at, error)| match uploads {
        [_] => Failure::from(error),
        _ => {
            let upload = uploads.get(at).map(|pending| pending.id.to_string()).unwrap_or_default();
            Failure::from(error).about(format!("Upload {upload}"))
        }
    })?;
    for (at, (seen, question)) in answers {
        if let Some(examined) = examined.get_mut(at) {
            (examined.seen, examined.copy, examined.object_key) = (seen, question.copy, Some(question.key));
        }
    }
    Ok(examined)
}

/// Records which physical buckets were seen to be gone, in the order of their names.
pub fn note_missing(examined: &[Examined]) -> Result<()> {
    let gone: BTreeSet<&str> = examined
        .iter()
        .filter_map(|examined| match &examined.seen {
            Seen::BucketGone(physical) => Some(physical.as_str()),
            Seen::Found(_) => None,
        })
        .collect();
    for physical in gone {
        cache::evict(physical);
        cache::evict_at(cache::At::Commit, physical);
        catalog::run_as_owner("SELECT storage_private.mark_missing($1)", &[physical.into()])?;
    }
    Ok(())
}

/// What the store was seen to enforce, if all of it is on record.
pub fn recorded_capabilities() -> Result<Option<Capabilities>> {
    let config = config::current()?;
    let recorded: Option<JsonB> = catalog::as_owner(|| {
        catalog::read(
            "SELECT storage_private.capabilities_of($1)",
            &[config.endpoint.as_str().into()],
            |rows| Ok(rows.first().get_one()?),
        )
    })?;
    Ok(recorded.and_then(|json| serde_json::from_value(json.0).ok()).filter(Capabilities::is_complete))
}

/// What the store of a physical bucket enforces: what is on record, else what is seen by trying.
pub fn capabilities(config: &Config, physical: &str) -> Result<Capabilities> {
    match recorded_capabilities()? {
        Some(recorded) => Ok(recorded),
        None => provision::try_out(config, physical),
    }
}
