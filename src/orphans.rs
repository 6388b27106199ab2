//! Reconciliation of a physical bucket with the tables: bytes that no row names, rows whose bytes are gone.
//!
//! A [`Scan`] goes through the bucket in steps. A step compares at most one page of the store's listing with the rows
//! between the same two keys, so memory does not grow with the bucket, and a key is all that has to be kept to go on.
//! The database is asked in short reads between the calls to the store; what looks wrong then is looked at again,
//! because either side may have changed between being asked and being compared.

#![allow(unsafe_code)]

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::time::SystemTime;

use pg_storage_core::error::Token;
use pg_storage_core::key::{Maker, SCRATCH_PREFIX, upload_of};
use pg_storage_store::{Listed, Page, S3Store, Store, StoreError};
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::{PgMemoryContexts, Uuid};
use tokio::task::JoinSet;

use crate::clock::Moment;
use crate::config::{self, Config};
use crate::error::{Failure, Result};
use crate::maintenance::Scope;
use crate::{catalog, session};

/// Rows that one step compares: as many as a page of the listing has keys.
const ROWS: usize = 1000;

/// How many HEADs run at once.
const AT_ONCE: usize = 16;

/// The greatest character: no key of ours comes after a prefix and this.
const LAST: char = char::MAX;

/// What is done about bytes that no row names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Nothing.
    Not,
    /// They are queued for deletion, after whoever is doing the same.
    Waiting,
    /// They are queued for deletion, unless somebody is doing the same.
    IfFree,
}

/// What does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes that this database brought in and no row names.
    ObjectWithoutRow,
    /// A row whose bytes are gone.
    RowWithoutObject,
    /// Bytes that no row names and that somebody else brought in.
    ForeignObject,
}

impl Kind {
    /// As `storage.orphan_kind` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ObjectWithoutRow => "object_without_row",
            Self::RowWithoutObject => "row_without_object",
            Self::ForeignObject => "foreign_object",
        }
    }
}

/// One mismatch.
#[derive(Debug)]
pub struct Finding {
    /// What does not match.
    pub kind: Kind,
    /// The key, as SQL can show it.
    pub key: String,
    /// The row.
    pub object: Option<Uuid>,
    /// Bytes.
    pub size: i64,
    /// By the store's clock.
    pub last_modified: Option<SystemTime>,
    /// Whether its deletion is queued.
    pub queued: bool,
}

/// What one step found.
pub struct Step {
    /// In the order of the keys.
    pub findings: Vec<Finding>,
    /// Where the next step begins; `None`: this was the last.
    pub next: Option<String>,
}

/// A row of `storage.objects`.
struct Row {
    id: Uuid,
    key: String,
    size: i64,
}

/// A comparison of one physical bucket with the tables.
pub struct Scan {
    scope: Scope,
    config: Rc<Config>,
    physical: String,
    /// Ours, in their order; one empty prefix where the whole bucket is.
    prefixes: Vec<String>,
    /// Whose keys are this database's.
    makers: Vec<Maker>,
    min_age: Interval,
    /// Seconds that our clock is ahead of the store's, at most one too many.
    ahead: i64,
    repair: Repair,
}

impl Scan {
    /// Prepares a comparison; asks the store for the time.
    ///
    /// # Errors
    /// `BUCKET_NOT_FOUND`, `NOT_OWNER_OF_OBJECTS` to repair in a copy, `NOT_CONFIGURED` for a bucket of another
    /// endpoint, and what the store fails with.
    pub fn open(scope: Scope, physical: &str, min_age: Interval, repair: Repair) -> Result<Self> {
        let (endpoint, prefixes, makers) = scope.step(|| begin(physical, repair != Repair::Not))?;
        let config = config::current()?;
        if endpoint != config.endpoint {
            return Err(Failure::new(Token::NotConfigured, "the bucket is kept by another endpoint")
                .detail(format!("{physical} is at {endpoint}, pg_storage.endpoint is {}.", config.endpoint))
                .hint("Set pg_storage.endpoint to the store that has the bucket."));
        }
        let time = session::call(&config, |store| async move { store.server_time().await })?;
        let ahead = time.map_or(0, |time| Moment::now().unix().saturating_sub(time));
        let physical = physical.to_owned();
        Ok(Self { scope, config, physical, prefixes, makers, min_age, ahead, repair })
    }

    /// Where a whole comparison begins.
    pub fn start(&self) -> String {
        self.prefixes.first().cloned().unwrap_or_default()
    }

    /// The prefixes that are ours.
    pub fn prefixes(&self) -> &[String] {
        &self.prefixes
    }

    /// Compares what comes after the key `after`; `None` when another scan is repairing and was not to be waited for.
    pub fn step(&self, after: &str) -> Result<Option<Step>> {
        // The arguments of its statements end with it, and not with the statement that asked for the whole scan.
        let mut memory = PgMemoryContexts::new("a step of a scan");
        // SAFETY: what leaves the context is owned by Rust.
        unsafe { memory.switch_to(|_| self.compare(after)) }
    }

    fn compare(&self, after: &str) -> Result<Option<Step>> {
        // Within a prefix, or at the beginning of the next one.
        let place = self
            .prefixes
            .iter()
            .map(String::as_str)
            .position(|prefix| after <= prefix || after.starts_with(prefix));
        let Some((place, prefix)) = place.and_then(|place| Some((place, self.prefixes.get(place)?))) else {
            return Ok(Some(Step { findings: Vec::new(), next: None }));
        };
        let after = after.max(prefix.as_str());
        let Page { objects: mut listed, next: mut last } = self.list(prefix, after)?;
        let end = last.clone().unwrap_or_else(|| format!("{prefix}{LAST}"));
        let rows = self.scope.step(|| self.rows(after, &end))?;
        if rows.len() == ROWS {
            // There may be more rows than the page has keys: the rest is for the next step, which lists it again.
            last = rows.last().map(|row| row.key.clone());
            listed.retain(|object| last.as_deref().is_none_or(|last| object.key.as_str() <= last));
        }
        let recorded: HashSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
        let present: HashSet<&str> = listed.iter().map(|object| object.key.as_str()).collect();
        let unknown = listed.iter().filter(|object| !recorded.contains(object.key.as_str())).collect();
        let missing = rows.iter().filter(|row| !present.contains(row.key.as_str())).collect();
        let Some(mut findings) = self.without_row(prefix, after, unknown)? else { return Ok(None) };
        findings.extend(self.without_object(missing)?);
        findings.sort_by(|one, other| one.key.cmp(&other.key));
        let next = last.or_else(|| self.prefixes.get(place + 1).cloned());
        Ok(Some(Step { findings, next }))
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Page> {
        let (bucket, prefix, after) = (self.physical.clone(), prefix.to_owned(), after.to_owned());
        session::call(&self.config, |store| async move {
            store.list_page(&bucket, &prefix, Some(after.as_str()).filter(|after| !after.is_empty())).await
        })
    }

    fn rows(&self, after: &str, end: &str) -> Result<Vec<Row>> {
        let arguments = &[
            self.physical.as_str().into(),
            before_nul(after).into(),
            before_nul(end).into(),
            (ROWS as i32).into(),
        ];
        catalog::as_owner(|| {
            // Not a read, here and below: each step must see what was committed before it.
            catalog::write(
                "SELECT object_id, key, size FROM storage_private.objects_between($1, $2, $3, $4)",
                arguments,
                |rows| {
                    rows.map(|row| {
                        let missing = || Failure::internal("an object has no key");
                        Ok(Row {
                            id: row.get(1)?.ok_or_else(missing)?,
                            key: row.get(2)?.ok_or_else(missing)?,
                            size: row.get(3)?.ok_or_else(missing)?,
                        })
                    })
                    .collect()
                },
            )
        })
    }

    /// Those of the listed objects that nothing names and that are still there.
    fn without_row(&self, prefix: &str, after: &str, unknown: Vec<&Listed>) -> Result<Option<Vec<Finding>>> {
        let keys =
            unknown.iter().map(|object| (object.key.as_str(), object.last_modified)).collect::<Vec<_>>();
        let mut unnamed: Vec<&Listed> =
            self.unnamed(&keys)?.into_iter().filter_map(|place| unknown.get(place).copied()).collect();
        if unnamed.is_empty() {
            return Ok(Some(Vec::new()));
        }
        // What the collector removed after the listing has lost its row since.
        let again = self.list(prefix, after)?;
        let there: HashSet<&str> = again.objects.iter().map(|object| object.key.as_str()).collect();
        let beyond = |key: &str| again.next.as_deref().is_some_and(|last| key > last);
        unnamed.retain(|object| there.contains(object.key.as_str()) || beyond(&object.key));

        let ours: Vec<String> = unnamed
            .iter()
            .filter(|object| self.is_ours(&object.key))
            .map(|object| object.key.clone())
            .collect();
        let repair = self.repair != Repair::Not;
        if repair && !ours.is_empty() && !self.scope.step(|| self.queue(&ours))? {
            return Ok(None);
        }
        let finding = |object: &Listed| {
            let ours = self.is_ours(&object.key);
            Finding {
                kind: if ours { Kind::ObjectWithoutRow } else { Kind::ForeignObject },
                key: object.key.replace('\0', "\u{2400}"),
                object: None,
                size: i64::try_from(object.size).unwrap_or(i64::MAX),
                last_modified: object.last_modified,
                queued: ours && repair,
            }
        };
        Ok(Some(unnamed.into_iter().map(finding).collect()))
    }

    /// The places of those keys that nothing names and that were written long enough ago.
    pub fn unnamed(&self, keys: &[(&str, Option<SystemTime>)]) -> Result<Vec<usize>> {
        let (mut places, mut names, mut written, mut uploads) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (place, (key, time)) in keys.iter().enumerate() {
            // What has no age is not old.
            let Some(time) = time.and_then(|time| Moment::of_system(time).shifted(self.ahead).column().ok())
            else {
                continue;
            };
            places.push(place);
            // No row names a key that text cannot hold, nor what comes before the NUL in it.
            names.push(key.replace('\0', "\u{2400}"));
            written.push(time);
            uploads.push(Uuid::from_bytes(upload_of(key).unwrap_or_default().into_bytes()));
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.scope.step(|| self.ask_unnamed(names, written, uploads))?;
        Ok(found
            .into_iter()
            .filter_map(|place| places.get(usize::try_from(place).ok()?.checked_sub(1)?).copied())
            .collect())
    }

    fn ask_unnamed(
        &self,
        keys: Vec<String>,
        written: Vec<TimestampWithTimeZone>,
        uploads: Vec<Uuid>,
    ) -> Result<Vec<i32>> {
        let arguments = &[
            self.physical.as_str().into(),
            keys.into(),
            written.into(),
            uploads.into(),
            self.min_age.into(),
        ];
        catalog::as_owner(|| {
            catalog::write(
                "SELECT place FROM storage_private.unnamed_keys($1, $2, $3, $4, $5) AS u(place)",
                arguments,
                |rows| rows.map(|row| Ok(row.get(1)?)).filter_map(Result::transpose).collect(),
            )
        })
    }

    /// Whether this database brought these bytes in, or tried out the store with them.
    pub fn is_ours(&self, key: &str) -> bool {
        let scratch = |prefix: &String| {
            // A fixed bucket has a prefix for it; else it is at the top.
            let folder = if prefix.is_empty() { SCRATCH_PREFIX } else { prefix.as_str() };
            folder.ends_with(SCRATCH_PREFIX) && key.starts_with(folder)
        };
        !key.contains('\0')
            && (self.prefixes.iter().any(scratch)
                || upload_of(key).is_some_and(|upload| self.makers.iter().any(|maker| maker.made(&upload))))
    }

    fn queue(&self, keys: &[String]) -> Result<bool> {
        catalog::as_owner(|| {
            catalog::write(
                "SELECT storage_private.queue_orphans($1, $2, $3)",
                &[
                    self.physical.as_str().into(),
                    keys.to_vec().into(),
                    (self.repair == Repair::Waiting).into(),
                ],
                |rows| Ok(rows.first().get_one::<i64>()?.is_some()),
            )
        })
    }

    /// Those of the rows whose bytes are gone although nobody is deleting them.
    fn without_object(&self, missing: Vec<&Row>) -> Result<Vec<Finding>> {
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        // The listing is older than the rows.
        let keys = missing.iter().map(|row| row.key.clone()).collect();
        let bucket = self.physical.clone();
        let absent = session::call(&self.config, |store| async move { absent(&store, &bucket, keys).await })?;
        let mut lost: Vec<&Row> = missing.into_iter().filter(|row| absent.contains(&row.key)).collect();
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        // The rows are older than these answers.
        let ids: Vec<Uuid> = lost.iter().map(|row| row.id).collect();
        let recorded: HashSet<[u8; 16]> = self.scope.step(|| {
            catalog::as_owner(|| {
                catalog::write(
                    "SELECT id FROM storage_private.still_recorded($1) AS s(id)",
                    &[ids.into()],
                    |rows| {
                        rows.map(|row| Ok(row.get::<Uuid>(1)?.map(|id| *id.as_bytes())))
                            .filter_map(Result::transpose)
                            .collect()
                    },
                )
            })
        })?;
        lost.retain(|row| recorded.contains(row.id.as_bytes()));
        let finding = |row: &Row| Finding {
            kind: Kind::RowWithoutObject,
            key: row.key.clone(),
            object: Some(row.id),
            size: row.size,
            last_modified: None,
            queued: false,
        };
        Ok(lost.into_iter().map(finding).collect())
    }

    /// When something was done at the store, by our clock.
    pub fn by_our_clock(&self, time: SystemTime) -> Moment {
        Moment::of_system(time).shifted(self.ahead)
    }

    /// The settings that it runs with.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

/// A bound for keys in the tables, which hold no NUL: whatever is between two keys is between their bounds.
fn before_nul(key: &str) -> &str {
    key.split('\0').next().unwrap_or(key)
}

fn begin(physical: &str, repair: bool) -> Result<(String, Vec<String>, Vec<Maker>)> {
    catalog::as_owner(|| {
        catalog::write(
            "SELECT endpoint, prefixes, system_identifiers, databases FROM storage_private.begin_scan($1, $2)",
            &[physical.into(), repair.into()],
            |rows| {
                let row = rows.first();
                let missing = || Failure::internal("a physical bucket has no endpoint");
                let systems: Vec<i64> = row.get(3)?.unwrap_or_default();
                let databases: Vec<pgrx::pg_sys::Oid> = row.get(4)?.unwrap_or_default();
                let makers = systems.into_iter().zip(databases);
                Ok((
                    row.get(1)?.ok_or_else(missing)?,
                    row.get(2)?.ok_or_else(missing)?,
                    makers.map(|(system, database)| Maker::new(system as u64, database.to_u32())).collect(),
                ))
            },
        )
    })
}

/// Those of the keys that the store does not have.
async fn absent(
    store: &S3Store,
    bucket: &str,
    keys: Vec<String>,
) -> std::result::Result<HashSet<String>, StoreError> {
    let mut absent = HashSet::new();
    let mut waiting = keys.into_iter();
    let mut running = JoinSet::new();
    loop {
        for key in waiting.by_ref().take(AT_ONCE - running.len()) {
            let (store, bucket) = (store.clone(), bucket.to_owned());
            running.spawn(async move { store.head(&bucket, &key).await.map(|head| (key, head)) });
        }
        match running.join_next().await {
            None => return Ok(absent),
            Some(Ok(answer)) => {
                if let (key, None) = answer? {
                    absent.insert(key);
                }
            }
            // A call that panicked says nothing about its key, so it counts as there; tokio reports the panic.
            Some(Err(_)) => {}
        }
    }
}

/// All findings of one scan in the caller's transaction, found as they are asked for.
pub fn findings(
    physical: &str,
    min_age: Interval,
    repair: Repair,
) -> Result<impl Iterator<Item = Result<Finding>> + use<>> {
    let scan = Scan::open(Scope::Callers, physical, min_age, repair)?;
    let mut next = Some(scan.start());
    let mut found = VecDeque::new();
    Ok(std::iter::from_fn(move || {
        while found.is_empty() {
            match scan.step(&next.take()?) {
                Ok(Some(step)) => {
                    found.extend(step.findings);
                    next = step.next;
                }
                Ok(None) => {}
                Err(failure) => return Some(Err(failure)),
            }
        }
        found.pop_front().map(Ok)
    }))
}
