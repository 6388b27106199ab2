//! Uploads in parts: whether a part can be made a copy of another object, and whether parts become an object.

use pg_storage_core::digest::Digest;

use super::Support;
use super::bench::{Bench, Ticket};
use super::reason::Reason;
use crate::assemble::arrived;
use crate::error::{ErrorKind, StoreError};
use crate::store::{Description, Store as _, Unfinished};

/// Of another length than what could be copied.
const BODY: &[u8] = b"a part";

/// Of the same length.
const OTHER: &[u8] = b"b part";

/// Whether parts hold what was sent with a signed URL, and nothing else. `source` holds `secret`.
pub(super) async fn run(
    bench: &mut Bench<'_>,
    source: &Ticket,
    secret: &[u8],
) -> Result<Support, StoreError> {
    let key = bench.key("parts");
    let Some(upload_id) = begin(bench, &key, false).await? else { return Ok(Support::Refused) };
    let upload = Unfinished { bucket: bench.bucket, key: &key, upload_id: &upload_id };
    let outcome = trials(bench, upload, source, secret).await;
    end(bench, upload, outcome).await
}

/// Whether a part that does not have its declared SHA-256 is refused.
pub(super) async fn sums(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    let key = bench.key("parts-summed");
    let Some(upload_id) = begin(bench, &key, true).await? else { return Ok(Support::Refused) };
    let upload = Unfinished { bucket: bench.bucket, key: &key, upload_id: &upload_id };
    let outcome = trial_of_sums(bench, upload).await;
    end(bench, upload, outcome).await
}

/// `None`: the store does not know such uploads.
async fn begin(bench: &Bench<'_>, key: &str, sums: bool) -> Result<Option<String>, StoreError> {
    let description = Description::typed("application/octet-stream");
    let begun = bench.store.create_multipart_upload(bench.bucket, key, description, sums).await;
    match begun {
        Ok(upload_id) => Ok(Some(upload_id)),
        Err(error) if lacks(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn end(
    bench: &Bench<'_>,
    upload: Unfinished<'_>,
    outcome: Result<Support, StoreError>,
) -> Result<Support, StoreError> {
    // After it was completed there is nothing to abort; what stays after a failure, the sweep finds.
    let _ = bench.store.abort_multipart_upload(upload.bucket, upload.key, upload.upload_id).await;
    match outcome {
        Err(error) if lacks(&error) => Ok(Support::Refused),
        outcome => outcome,
    }
}

async fn trial_of_sums(bench: &mut Bench<'_>, upload: Unfinished<'_>) -> Result<Support, StoreError> {
    let ticket = bench.part(upload.key, upload.upload_id, BODY.len(), Some(&Digest::of(BODY)));
    bench.send(&ticket, OTHER, Reason::Sum).await?;
    if !arrived(bench.store, upload).await?.is_empty() {
        return Ok(Support::Ignored);
    }
    bench.send(&ticket, BODY, Reason::None).await?;
    let arrived = arrived(bench.store, upload).await?;
    Ok(if arrived.len() == 1 { Support::Enforced } else { Support::Refused })
}

async fn trials(
    bench: &mut Bench<'_>,
    upload: Unfinished<'_>,
    source: &Ticket,
    secret: &[u8],
) -> Result<Support, StoreError> {
    let store = bench.store;
    let honest = bench.part(upload.key, upload.upload_id, BODY.len(), None);
    for body in [BODY, b""] {
        let mut ticket = bench.part(upload.key, upload.upload_id, body.len(), None);
        ticket.headers.push(("x-amz-copy-source", format!("/{}/{}", bench.bucket, source.key)));
        // Ceph calls it a timeout when it waits for a body that a copy does not have. What counts is what is there.
        let sent = bench.send(&ticket, body, Reason::Signature).await;
        if let Err(error) = sent
            && error.code.as_deref() != Some("RequestTimeout")
        {
            return Err(error);
        }
        if arrived(store, upload).await?.iter().any(|part| part.size == secret.len() as u64) {
            return Ok(Support::Ignored);
        }
    }
    bench.send(&honest, &[BODY, BODY].concat(), Reason::Signature).await?;
    if arrived(store, upload).await?.iter().any(|part| part.size > BODY.len() as u64) {
        return Ok(Support::Ignored);
    }
    bench.send(&honest, BODY, Reason::None).await?;
    let parts = arrived(store, upload).await?;
    store.complete_multipart_upload(upload, &parts).await?;
    Ok(if bench.holds(upload.key, BODY).await? { Support::Enforced } else { Support::Refused })
}

/// The store does not have this, or not for these credentials.
fn lacks(error: &StoreError) -> bool {
    matches!(error.kind, ErrorKind::Denied | ErrorKind::NotImplemented | ErrorKind::Invalid)
        || matches!(error.status, Some(404 | 405))
}
