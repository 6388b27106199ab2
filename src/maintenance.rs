//! Maintenance: one pass of expiry and of the collector.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use pg_storage_core::backoff;
use pg_storage_store::{ErrorKind, MAX_DELETE_BATCH, Store, StoreError};
use pgrx::datum::Interval;

use crate::error::{Failure, Result};
use crate::{catalog, config, session, wait};

/// First wait after a failed deletion, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));

/// What one pass did.
#[derive(Default)]
pub struct Report {
    /// Pending uploads ended.
    pub uploads_expired: i64,
    /// Files past their time deleted.
    pub files_expired: i64,
    /// Objects removed from the store.
    pub objects_deleted: i64,
    /// Deletions put back for later.
    pub deletions_failed: i64,
}

/// A key that is due, and that no file uses.
struct Job {
    id: i64,
    key: String,
    attempts: i32,
}

/// One pass of everything.
pub fn run() -> Result<Report> {
    let mut report = Report {
        uploads_expired: count("SELECT storage_private.expire_uploads()")?,
        files_expired: count("SELECT storage_private.expire_files()")?,
        ..Report::default()
    };
    loop {
        let claimed = claim()?;
        if claimed.is_empty() {
            return Ok(report);
        }
        for (physical, jobs) in claimed {
            collect(&physical, &jobs, &mut report)?;
        }
    }
}

fn count(statement: &'static str) -> Result<i64> {
    catalog::as_owner(|| catalog::write(statement, &[], |rows| Ok(rows.first().get_one()?.unwrap_or(0))))
}

/// The next jobs, by physical bucket, held until the transaction ends.
fn claim() -> Result<BTreeMap<String, Vec<Job>>> {
    catalog::as_owner(|| {
        catalog::write(
            "SELECT job_id, physical_name, object_key, attempts FROM storage_private.claim_deletions($1)",
            &[(MAX_DELETE_BATCH as i32).into()],
            |rows| {
                let mut claimed: BTreeMap<String, Vec<Job>> = BTreeMap::new();
                for row in rows {
                    let missing = || Failure::internal("a deletion has no key");
                    let job = Job {
                        id: row.get(1)?.ok_or_else(missing)?,
                        key: row.get(3)?.ok_or_else(missing)?,
                        attempts: row.get(4)?.unwrap_or(0),
                    };
                    claimed.entry(row.get(2)?.ok_or_else(missing)?).or_default().push(job);
                }
                Ok(claimed)
            },
        )
    })
}

fn collect(physical: &str, jobs: &[Job], report: &mut Report) -> Result<()> {
    let config = config::current()?;
    let store = session::store(&config)?;
    let (bucket, keys) = (physical.to_owned(), jobs.iter().map(|job| job.key.clone()).collect::<Vec<_>>());
    let answer = wait::until(async move { store.delete_batch(&bucket, &keys).await })?;
    let outcomes = match answer {
        Ok(outcomes) => outcomes,
        // What was in a bucket that is gone is gone.
        Err(error) if error.kind == ErrorKind::NoSuchBucket => jobs.iter().map(|_| Ok(())).collect(),
        Err(error) => jobs.iter().map(|_| Err(error.clone())).collect(),
    };
    let mut done = Vec::new();
    for (job, outcome) in jobs.iter().zip(outcomes) {
        match outcome {
            Ok(()) => done.push(job.id),
            Err(error) => {
                delay(job, &error)?;
                report.deletions_failed += 1;
            }
        }
    }
    report.objects_deleted += done.len() as i64;
    catalog::run_as_owner("SELECT storage_private.finish_deletions($1)", &[done.into()])
}

fn delay(job: &Job, error: &StoreError) -> Result<()> {
    let random = RandomState::new().hash_one(job.id);
    // The base is waited in full and the jitter comes on top: a pass never meets the same job twice.
    let wait = BACKOFF.0 + backoff::delay(job.attempts.unsigned_abs(), BACKOFF.0, BACKOFF.1, random);
    catalog::run_as_owner(
        "SELECT storage_private.delay_deletions($1, $2, $3)",
        &[vec![job.id].into(), Interval::from_seconds(wait.as_secs_f64()).into(), error.to_string().into()],
    )
}
