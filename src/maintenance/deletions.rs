//! The collector, the only one who deletes: works off the outbox.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use pg_storage_core::backoff;
use pg_storage_store::{ErrorKind, MAX_DELETE_BATCH, S3Store, Store, StoreError};
use pgrx::datum::{Interval, TimestampWithTimeZone};

use super::{Report, Scope};
use crate::clock::Moment;
use crate::error::{Failure, Result};
use crate::{catalog, config, session, wait};

/// First wait after a failed deletion, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

/// A key that is due, and that no file uses.
struct Job {
    id: i64,
    key: String,
    attempts: i32,
}

/// The jobs of one physical bucket.
#[derive(Default)]
struct Batch {
    /// The store on record; `None`: nothing is recorded of this bucket.
    kept_by: Option<String>,
    jobs: Vec<Job>,
}

/// What one look into the queue brought.
#[derive(Default)]
struct Claimed {
    /// The last job that was looked at, wanted or not; `None`: none was left.
    last: Option<i64>,
    /// By physical bucket.
    batches: BTreeMap<String, Batch>,
}

/// Looks at each job that is due once, however long that takes and whatever fails.
pub fn run(scope: Scope, report: &mut Report) -> Result<()> {
    let began = Moment::now().column()?;
    let (mut after, mut failed) = (0, Vec::new());
    loop {
        let claimed = scope.step(|| claim(after, began, &failed))?;
        let Some(last) = claimed.last else { return Ok(()) };
        after = last;
        for (physical, batch) in claimed.batches {
            if collect(&physical, &batch, report)? == Whole::Failed {
                failed.push(physical);
            }
        }
    }
}

/// The next jobs after one, held until the transaction ends.
fn claim(after: i64, due_by: TimestampWithTimeZone, except: &[String]) -> Result<Claimed> {
    catalog::as_owner(|| {
        catalog::write(
            "SELECT job_id, physical_name, object_key, attempts, kept_by, unused
             FROM storage_private.claim_deletions($1, $2, $3, $4)",
            &[(MAX_DELETE_BATCH as i32).into(), after.into(), due_by.into(), except.to_vec().into()],
            |rows| {
                let mut claimed = Claimed::default();
                for row in rows {
                    let missing = || Failure::internal("a deletion has no key");
                    let id = row.get(1)?.ok_or_else(missing)?;
                    claimed.last = Some(id);
                    if !row.get(6)?.unwrap_or(false) {
                        continue;
                    }
                    let batch = claimed.batches.entry(row.get(2)?.ok_or_else(missing)?).or_default();
                    batch.kept_by = row.get(5)?;
                    batch.jobs.push(Job {
                        id,
                        key: row.get(3)?.ok_or_else(missing)?,
                        attempts: row.get(4)?.unwrap_or(0),
                    });
                }
                Ok(claimed)
            },
        )
    })
}

/// How a physical bucket did as a whole.
#[derive(PartialEq, Eq)]
enum Whole {
    /// The store answered for each key.
    Answered,
    /// The store did not, and further jobs of this bucket would meet the same.
    Failed,
}

fn collect(physical: &str, batch: &Batch, report: &mut Report) -> Result<Whole> {
    let config = config::current()?;
    // Another store knows nothing of these keys, and would call them deleted.
    if let Some(endpoint) = batch.kept_by.as_ref().filter(|endpoint| **endpoint != config.endpoint) {
        let reason = format!("kept by another endpoint: {endpoint}");
        batch.jobs.iter().try_for_each(|job| delay(job, &reason, report))?;
        return Ok(Whole::Answered);
    }
    let store = session::store(&config)?;
    let (bucket, on_record) = (physical.to_owned(), batch.kept_by.is_some());
    let keys: Vec<String> = batch.jobs.iter().map(|job| job.key.clone()).collect();
    let answer = wait::until(async move { delete(&store, &bucket, &keys, on_record).await })?;
    let outcomes = match answer {
        Ok(outcomes) => outcomes,
        Err(error) => {
            let reason = error.to_string();
            batch.jobs.iter().try_for_each(|job| delay(job, &reason, report))?;
            return Ok(Whole::Failed);
        }
    };
    let mut done = Vec::new();
    for (job, outcome) in batch.jobs.iter().zip(outcomes) {
        match outcome {
            Ok(()) => done.push(job.id),
            Err(error) => delay(job, &error.to_string(), report)?,
        }
    }
    report.objects_deleted += done.len() as i64;
    catalog::run_as_owner("SELECT storage_private.finish_deletions($1)", &[done.into()])?;
    Ok(Whole::Answered)
}

/// Deletes keys. What was in a bucket that is gone is gone, if it is on record that this store had the bucket.
async fn delete(
    store: &S3Store,
    bucket: &str,
    keys: &[String],
    on_record: bool,
) -> std::result::Result<Vec<std::result::Result<(), StoreError>>, StoreError> {
    match store.delete_batch(bucket, keys).await {
        Err(error) if error.kind == ErrorKind::NoSuchBucket && on_record => {
            if store.head_bucket(bucket).await? {
                Err(error)
            } else {
                Ok(keys.iter().map(|_| Ok(())).collect())
            }
        }
        answer => answer,
    }
}

/// Puts a job back for later.
fn delay(job: &Job, reason: &str, report: &mut Report) -> Result<()> {
    let random = RandomState::new().hash_one(job.id);
    // The base is waited in full and the jitter comes on top.
    let wait = BACKOFF.0 + backoff::delay(job.attempts.unsigned_abs(), BACKOFF.0, BACKOFF.1, random);
    report.deletions_failed += 1;
    catalog::run_as_owner(
        "SELECT storage_private.delay_deletions($1, $2, $3)",
        &[vec![job.id].into(), Interval::from_seconds(wait.as_secs_f64()).into(), reason.into()],
    )
}
