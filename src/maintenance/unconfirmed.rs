//! Uploads whose time is over and that nobody confirmed, where they are to be confirmed if their bytes are right.
//!
//! One after the other: claimed with a lease, looked at with no transaction open, settled if the claim still holds. A
//! client that confirms meanwhile is not kept waiting, and wins.

use std::time::{Duration, Instant};

use pg_storage_core::upload::Reason;
use pgrx::Uuid;
use pgrx::datum::{Interval, TimestampWithTimeZone};

use super::{Report, Scope, TURN};
use crate::error::{Failure, Result};
use crate::upload::{self, Examined, Judgement, Pending};
use crate::{catalog, guc};

/// How much longer a lease is than calls to the store: for reading what is to be hashed.
const LEASE_MARGIN: Duration = Duration::from_secs(600);

/// How long an upload waits that could not be looked at.
const PAUSE: Duration = Duration::from_secs(60);

/// A store that fails this often in one pass is left alone until the next.
const MOST_FAILURES: u32 = 5;

/// Settles what is due, one upload at a time.
pub fn run(scope: Scope, report: &mut Report) -> Result<()> {
    let turn = Instant::now();
    let capabilities = scope.step(upload::recorded_capabilities)?;
    let mut failures = Vec::new();
    while let Some(claim) = scope.step(claim)? {
        match upload::examine(std::slice::from_ref(&claim.pending), capabilities) {
            Ok(examined) => scope.step(|| settle(&claim, examined, report))?,
            Err(failure) => {
                scope.step(|| claim.renew(PAUSE))?;
                failures.push(failure);
            }
        }
        if failures.len() as u32 >= MOST_FAILURES {
            break;
        }
        if scope == Scope::Own && turn.elapsed() > TURN {
            report.unfinished = true;
            break;
        }
    }
    match failures.pop() {
        // A store that is away is no failure of a caller's: the uploads wait.
        Some(failure) if scope == Scope::Own => Err(failure),
        _ => Ok(()),
    }
}

/// An upload that is this collector's for the time of a lease.
struct Claim {
    upload: Uuid,
    until: TimestampWithTimeZone,
    pending: Pending,
}

impl Claim {
    fn renew(&self, time: Duration) -> Result<()> {
        catalog::run_as_owner(
            "SELECT storage_private.renew_unconfirmed($1, $2, $3)",
            &[self.upload.into(), self.until.into(), Interval::from_seconds(time.as_secs_f64()).into()],
        )
    }

    /// Whether it still is; then it is also held until the transaction ends.
    fn holds(&self) -> Result<bool> {
        catalog::as_owner(|| {
            catalog::write(
                "SELECT storage_private.hold_unconfirmed($1, $2)",
                &[self.upload.into(), self.until.into()],
                |rows| Ok(rows.first().get_one()?.unwrap_or(false)),
            )
        })
    }
}

fn claim() -> Result<Option<Claim>> {
    let call = Duration::from_millis(guc::REQUEST_TIMEOUT.get().unsigned_abs().into());
    let lease = Interval::from_seconds((call * 2 + LEASE_MARGIN).as_secs_f64());
    let claimed = catalog::as_owner(|| {
        catalog::write(
            "SELECT upload_id, claimed_until FROM storage_private.claim_unconfirmed($1)",
            &[lease.into()],
            |rows| {
                if rows.is_empty() {
                    return Ok(None);
                }
                let (upload, until) = rows.first().get_two::<Uuid, TimestampWithTimeZone>()?;
                Ok(upload.zip(until))
            },
        )
    })?;
    let Some((upload, until)) = claimed else { return Ok(None) };
    Ok(Some(Claim { upload, until, pending: upload::lock_one(upload)? }))
}

fn settle(claim: &Claim, examined: Vec<Examined>, report: &mut Report) -> Result<()> {
    if !claim.holds()? {
        return Ok(());
    }
    upload::note_missing(&examined)?;
    for examined in examined {
        conclude(claim, examined, report)?;
    }
    Ok(())
}

fn conclude(claim: &Claim, examined: Examined, report: &mut Report) -> Result<()> {
    match upload::judge(examined)? {
        Judgement::Absent => {
            upload::close(claim.upload, Reason::Expired, None, None)?;
            report.uploads_expired += 1;
        }
        Judgement::Refused => report.uploads_expired += 1,
        Judgement::Right(bytes) => {
            let accepted = catalog::as_owner(|| {
                catalog::write(
                    "SELECT storage_private.accept_unconfirmed($1, $2, $3, $4, $5)",
                    &[
                        bytes.upload.into(),
                        bytes.key.into(),
                        bytes.sha256.as_bytes().as_slice().into(),
                        bytes.size.into(),
                        bytes.etag.into(),
                    ],
                    |rows| {
                        rows.first()
                            .get_one::<bool>()?
                            .ok_or_else(|| Failure::internal("neither accepted nor refused"))
                    },
                )
            })?;
            *if accepted { &mut report.uploads_confirmed } else { &mut report.uploads_expired } += 1;
        }
    }
    Ok(())
}
