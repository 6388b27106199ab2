//! Reconciliation, a task: each physical bucket is compared with the tables now and then, a share of it in each pass.

use pg_storage_store::{ErrorKind, Store, UploadPage};
use pgrx::datum::Interval;

use super::{Report, Scope};
use crate::clock::Moment;
use crate::config::{self, Config};
use crate::error::Result;
use crate::orphans::{Kind, Repair, Scan};
use crate::{catalog, guc, session, wait};

/// Pages of a listing that one pass asks for: a hundred thousand objects, and then the other tasks' turn.
const PAGES: u32 = 100;

/// Seconds after which a multipart upload is nobody's, whoever began it: no presigned URL lives longer than seven days.
const UPLOAD_ENDS: i64 = 8 * 86_400;

/// A physical bucket whose turn it is.
struct Due {
    physical: String,
    endpoint: String,
    reached: Option<Vec<u8>>,
}

/// Goes on with the comparisons that are under way, and begins those that are due.
pub fn run(scope: Scope, report: &mut Report) -> Result<()> {
    let every = guc::RECONCILE_INTERVAL.get();
    if every == 0 {
        return Ok(());
    }
    let due = scope.step(|| due(every))?;
    if due.is_empty() {
        return Ok(());
    }
    let config = config::current()?;
    let mut pages = PAGES;
    for bucket in due.iter().filter(|bucket| bucket.endpoint == config.endpoint) {
        if let Err(failure) = reconcile(scope, bucket, &mut pages, report) {
            // The next pass tries again; the other buckets do not wait for it.
            let reason = failure.summary();
            pgrx::log!("pg_storage: comparing {} with the tables failed: {reason}", bucket.physical);
            scope.step(|| note(&bucket.physical, &Progress::default(), Some(&reason)))?;
        }
        if pages == 0 {
            report.unfinished = true;
            break;
        }
    }
    Ok(())
}

fn due(every: i32) -> Result<Vec<Due>> {
    catalog::as_owner(|| {
        catalog::write(
            "SELECT physical_name, endpoint, reached FROM storage_private.due_reconciliations($1)",
            &[Interval::from_seconds(every.into()).into()],
            |rows| {
                rows.map(|row| {
                    Ok(Due {
                        physical: row.get(1)?.unwrap_or_default(),
                        endpoint: row.get(2)?.unwrap_or_default(),
                        reached: row.get(3)?,
                    })
                })
                .collect()
            },
        )
    })
}

/// What one step adds to what is known of a comparison.
#[derive(Default)]
struct Progress<'a> {
    reached: Option<&'a [u8]>,
    finished: bool,
    queued: i64,
    lost: i64,
}

/// Records progress; `false` when another transaction is at the same bucket.
fn note(physical: &str, progress: &Progress<'_>, error: Option<&str>) -> Result<bool> {
    catalog::as_owner(|| {
        catalog::write(
            "SELECT storage_private.note_reconciliation($1, $2, $3, $4, $5, $6)",
            &[
                physical.into(),
                progress.reached.into(),
                progress.finished.into(),
                progress.queued.into(),
                progress.lost.into(),
                error.into(),
            ],
            |rows| Ok(rows.first().get_one()?.unwrap_or(false)),
        )
    })
}

/// Whether no other transaction is at this bucket now.
fn is_free(physical: &str) -> Result<bool> {
    catalog::as_owner(|| {
        catalog::write("SELECT storage_private.hold_reconciliation($1, false)", &[physical.into()], |rows| {
            Ok(rows.first().get_one()?.unwrap_or(false))
        })
    })
}

fn reconcile(scope: Scope, bucket: &Due, pages: &mut u32, report: &mut Report) -> Result<()> {
    if !scope.step(|| is_free(&bucket.physical))? {
        return Ok(());
    }
    let min_age = Interval::from_seconds(guc::ORPHAN_MIN_AGE.get().into());
    let scan = Scan::open(scope, &bucket.physical, min_age, Repair::IfFree)?;
    let reached = bucket.reached.clone().and_then(|key| String::from_utf8(key).ok());
    let mut after = Some(reached.unwrap_or_else(|| scan.start()));
    while let Some(key) = after {
        if *pages == 0 {
            return Ok(());
        }
        *pages -= 1;
        let Some(step) = scan.step(&key)? else { return Ok(()) };
        let count = |kind| step.findings.iter().filter(|finding| finding.kind == kind).count() as i64;
        let (queued, lost) = (count(Kind::ObjectWithoutRow), count(Kind::RowWithoutObject));
        if lost > 0 {
            pgrx::log!(
                "pg_storage: {lost} row(s) of storage.objects have no bytes in {}; storage.scan_orphans() names them",
                bucket.physical
            );
        }
        report.orphans_queued += queued;
        if step.next.is_none() {
            report.multiparts_aborted += abort_stale_uploads(&scan, &bucket.physical)?;
        }
        let progress = Progress {
            reached: step.next.as_deref().map(str::as_bytes),
            finished: step.next.is_none(),
            queued,
            lost,
        };
        if !scope.step(|| note(&bucket.physical, &progress, None))? {
            return Ok(());
        }
        after = step.next;
    }
    Ok(())
}

/// Aborts multipart uploads that no pending upload names, and all that outlived every URL.
fn abort_stale_uploads(scan: &Scan, physical: &str) -> Result<i64> {
    let mut aborted = 0;
    for prefix in scan.prefixes() {
        let mut after = None;
        for _ in 0..PAGES {
            let Some(page) = list(scan.config(), physical, prefix, after)? else { return Ok(aborted) };
            let stale = stale(scan, &page)?;
            aborted += stale.len() as i64;
            let bucket = physical.to_owned();
            session::call(scan.config(), |store| async move {
                for (key, upload) in stale {
                    store.abort_multipart_upload(&bucket, &key, &upload).await?;
                }
                Ok(())
            })?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(aborted)
}

/// A page of unfinished uploads; `None` where the store has no such thing.
fn list(
    config: &Config,
    physical: &str,
    prefix: &str,
    after: Option<(String, String)>,
) -> Result<Option<UploadPage>> {
    let store = session::store(config)?;
    let (bucket, prefix) = (physical.to_owned(), prefix.to_owned());
    let answer = wait::until(async move {
        let after = after.as_ref().map(|(key, id)| (key.as_str(), id.as_str()));
        store.list_multipart_uploads(&bucket, &prefix, after).await
    })?;
    match answer {
        Err(error) if error.kind == ErrorKind::NotImplemented => Ok(None),
        answer => Ok(Some(answer?)),
    }
}

fn stale(scan: &Scan, page: &UploadPage) -> Result<Vec<(String, String)>> {
    let uploads: Vec<_> = page.uploads.iter().map(|upload| (upload.key.as_str(), upload.initiated)).collect();
    let unnamed = scan.unnamed(&uploads)?;
    let ended = Moment::now().shifted(-UPLOAD_ENDS);
    let is_stale = |(place, upload): &(usize, &pg_storage_store::ListedUpload)| {
        unnamed.contains(place) && scan.is_ours(&upload.key)
            || upload.initiated.is_some_and(|time| scan.by_our_clock(time) < ended)
    };
    let stale = page.uploads.iter().enumerate().filter(is_stale);
    Ok(stale.map(|(_, upload)| (upload.key.clone(), upload.upload_id.clone())).collect())
}
