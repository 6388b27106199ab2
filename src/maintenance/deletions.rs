//! The collector, the only one who deletes: works off the outbox.
//!
//! A batch is claimed in one step, with a lease; the store is asked; a second step settles what it said. Who dies in
//! between costs the batch one lease. No key comes back to life meanwhile, see `storage_private.live_object()`.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use pg_storage_core::backoff;
use pg_storage_store::{ErrorKind, MAX_DELETE_BATCH, S3Store, Store, StoreError};
use pgrx::datum::{Interval, TimestampWithTimeZone};

use super::{Report, Scope, TURN};
use crate::clock::Moment;
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::{catalog, config, guc, session, wait};

/// First wait after a failed deletion, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

/// A job that failed this often waits the longest time at once; `storage.deletion_queue` calls it dead after that.
const PATIENCE: i32 = 10;

/// How much longer a lease is than the calls it is for may take.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// The jobs of one physical bucket, as far as they were looked at.
struct Queue {
    physical: String,
    /// The store on record; `None`: nothing is recorded of this bucket.
    kept_by: Option<String>,
    /// Time and id of the last job that was looked at, wanted or not.
    after: Option<(TimestampWithTimeZone, i64)>,
}

/// A key that is due, and that no file uses.
struct Job {
    id: i64,
    key: String,
    attempts: i32,
    /// An upload in parts to this key, which is aborted first.
    multipart: Option<String>,
}

/// What the store said of a job.
type Outcome = std::result::Result<(), String>;

/// Looks at each job that is due once, however long that takes and whatever fails.
///
/// One batch of each bucket after the other, so that none waits for another's million; a bucket that fails as a whole is
/// left for the next pass.
pub fn run(scope: Scope, report: &mut Report) -> Result<()> {
    let turn = Instant::now();
    let began = Moment::now().column()?;
    let mut queues = scope.step(|| due_queues(began))?;
    while !queues.is_empty() {
        if scope == Scope::Own && turn.elapsed() > TURN {
            report.unfinished = true;
            break;
        }
        let mut unfinished = Vec::new();
        for mut queue in queues {
            if work_off(scope, &mut queue, began, report)? == Progress::More {
                unfinished.push(queue);
            }
        }
        queues = unfinished;
    }
    Ok(())
}

fn due_queues(due_by: TimestampWithTimeZone) -> Result<Vec<Queue>> {
    catalog::as_owner(|| {
        catalog::write(
            "SELECT physical_name, kept_by FROM storage_private.due_buckets($1)",
            &[due_by.into()],
            |rows| {
                rows.map(|row| {
                    let physical =
                        row.get(1)?.ok_or_else(|| Failure::internal("a deletion has no bucket"))?;
                    Ok(Queue { physical, kept_by: row.get(2)?, after: None })
                })
                .collect()
            },
        )
    })
}

#[derive(PartialEq, Eq)]
enum Progress {
    /// There may be further jobs.
    More,
    /// There are none, or they would meet the same failure.
    Done,
}

/// One batch of a queue.
fn work_off(
    scope: Scope,
    queue: &mut Queue,
    due_by: TimestampWithTimeZone,
    report: &mut Report,
) -> Result<Progress> {
    let config = config::current()?;
    let before = queue.after;
    let jobs = scope.step(|| claim(queue, due_by))?;
    let progress = if queue.after == before { Progress::Done } else { Progress::More };
    if jobs.is_empty() {
        return Ok(progress);
    }
    let (outcomes, progress) = match ask(&config, queue, &jobs)? {
        Ok(outcomes) => (outcomes, progress),
        Err(reason) => (vec![Err(reason); jobs.len()], Progress::Done),
    };
    scope.step(|| settle(&jobs, &outcomes))?;
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    report.objects_deleted += (jobs.len() - failed) as i64;
    report.deletions_failed += failed as i64;
    Ok(progress)
}

/// The next jobs of a queue, for the time of a lease.
fn claim(queue: &mut Queue, due_by: TimestampWithTimeZone) -> Result<Vec<Job>> {
    // A batch is one call, and a look at the bucket where that says the bucket is gone.
    let call = Duration::from_millis(guc::REQUEST_TIMEOUT.get().unsigned_abs().into());
    let lease = Interval::from_seconds((call * 2 + LEASE_MARGIN).as_secs_f64());
    let (after_due, after_id) = queue.after.unzip();
    catalog::as_owner(|| {
        catalog::write(
            // The column of uploads in parts is not there before ALTER EXTENSION UPDATE.
            "SELECT c.job_id, c.due, c.object_key, c.attempts, c.unused,
                    (SELECT pg_catalog.to_jsonb(d) OPERATOR(pg_catalog.->>) 'multipart_id'
                     FROM storage.object_deletions d WHERE d.id OPERATOR(pg_catalog.=) c.job_id)
             FROM storage_private.claim_deletions($1, $2, $3, $4, $5, $6) AS c",
            &[
                queue.physical.as_str().into(),
                (MAX_DELETE_BATCH as i32).into(),
                due_by.into(),
                after_due.into(),
                after_id.into(),
                lease.into(),
            ],
            |rows| {
                let mut jobs = Vec::new();
                for row in rows {
                    let missing = || Failure::internal("a deletion has no key");
                    let id = row.get(1)?.ok_or_else(missing)?;
                    queue.after = Some((row.get(2)?.ok_or_else(missing)?, id));
                    if row.get(5)?.unwrap_or(false) {
                        let attempts = row.get(4)?.unwrap_or(0);
                        let key = row.get(3)?.ok_or_else(missing)?;
                        jobs.push(Job { id, key, attempts, multipart: row.get(6)? });
                    }
                }
                Ok(jobs)
            },
        )
    })
}

/// Has the store delete a batch: an outcome for each job, or why none has one.
fn ask(config: &Config, queue: &Queue, jobs: &[Job]) -> Result<std::result::Result<Vec<Outcome>, String>> {
    // Another store knows nothing of these keys, and would call them deleted.
    if let Some(endpoint) = queue.kept_by.as_ref().filter(|endpoint| **endpoint != config.endpoint) {
        return Ok(Ok(vec![Err(format!("kept by another endpoint: {endpoint}")); jobs.len()]));
    }
    let store = session::store(config)?;
    let (bucket, on_record) = (queue.physical.clone(), queue.kept_by.is_some());
    let keys: Vec<String> = jobs.iter().map(|job| job.key.clone()).collect();
    let unfinished: Vec<(usize, String)> =
        jobs.iter().enumerate().filter_map(|(at, job)| Some((at, job.multipart.clone()?))).collect();
    let answer: std::result::Result<_, StoreError> = wait::until(async move {
        let aborted = abort(&store, &bucket, &keys, unfinished).await;
        let mut outcomes = delete(&store, &bucket, &keys, on_record).await?;
        for (at, error) in aborted {
            if let Some(outcome @ Ok(())) = outcomes.get_mut(at) {
                *outcome = Err(error);
            }
        }
        Ok(outcomes)
    })?;
    Ok(match answer {
        Ok(outcomes) => {
            Ok(outcomes.into_iter().map(|outcome| outcome.map_err(|error| error.to_string())).collect())
        }
        Err(error) => Err(error.to_string()),
    })
}

/// Ends uploads in parts, before their keys are deleted: what completes in between is deleted with the key. Gives the
/// places of those that go on.
async fn abort(
    store: &S3Store,
    bucket: &str,
    keys: &[String],
    unfinished: Vec<(usize, String)>,
) -> Vec<(usize, StoreError)> {
    let mut failed = Vec::new();
    for (at, upload_id) in unfinished {
        let Some(key) = keys.get(at) else { continue };
        match store.abort_multipart_upload(bucket, key, &upload_id).await {
            // Its parts went with the bucket, about which the deletion has the last word.
            Err(error) if error.kind != ErrorKind::NoSuchBucket => failed.push((at, error)),
            _ => {}
        }
    }
    failed
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

/// Forgets what is gone and puts the rest back for later.
fn settle(jobs: &[Job], outcomes: &[Outcome]) -> Result<()> {
    let (mut done, mut failed, mut waits, mut errors) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (job, outcome) in jobs.iter().zip(outcomes) {
        match outcome {
            Ok(()) => done.push(job.id),
            Err(error) => {
                failed.push(job.id);
                waits.push(pause(job).as_secs_f64());
                errors.push(error.as_str());
            }
        }
    }
    if !done.is_empty() {
        catalog::run_as_owner("SELECT storage_private.finish_deletions($1)", &[done.into()])?;
    }
    if failed.is_empty() {
        return Ok(());
    }
    catalog::run_as_owner(
        "SELECT storage_private.delay_deletions($1, $2, $3)",
        &[failed.into(), waits.into(), errors.into()],
    )
}

/// How long a failed job waits. The base is waited in full and the jitter comes on top.
fn pause(job: &Job) -> Duration {
    let random = RandomState::new().hash_one(job.id);
    if job.attempts >= PATIENCE {
        return BACKOFF.1 + backoff::delay(0, BACKOFF.0, BACKOFF.1, random);
    }
    BACKOFF.0 + backoff::delay(job.attempts.unsigned_abs(), BACKOFF.0, BACKOFF.1, random)
}
