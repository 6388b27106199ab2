//! Uploads in parts: whether a part can be made a copy of another object, and whether parts become an object.

use super::Support;
use super::bench::{Bench, Ticket};
use super::reason::Reason;
use crate::assemble::arrived;
use crate::error::{ErrorKind, StoreError};
use crate::store::{Store as _, Unfinished};

/// Of another length than what could be copied.
const BODY: &[u8] = b"a part";

/// Whether parts hold what was sent with a signed URL, and nothing else. `source` holds `secret`.
pub(super) async fn run(
    bench: &mut Bench<'_>,
    source: &Ticket,
    secret: &[u8],
) -> Result<Support, StoreError> {
    let key = bench.key("parts");
    let (store, bucket) = (bench.store, bench.bucket);
    let begun = store.create_multipart_upload(bucket, &key, "application/octet-stream", false).await;
    let upload_id = match begun {
        Ok(upload_id) => upload_id,
        Err(error) if lacks(&error) => return Ok(Support::Refused),
        Err(error) => return Err(error),
    };
    let outcome =
        trials(bench, Unfinished { bucket, key: &key, upload_id: &upload_id }, source, secret).await;
    // After it was completed there is nothing to abort; what stays after a failure, the sweep finds.
    let _ = store.abort_multipart_upload(bucket, &key, &upload_id).await;
    match outcome {
        Err(error) if lacks(&error) => Ok(Support::Refused),
        outcome => outcome,
    }
}

async fn trials(
    bench: &mut Bench<'_>,
    upload: Unfinished<'_>,
    source: &Ticket,
    secret: &[u8],
) -> Result<Support, StoreError> {
    let store = bench.store;
    let honest = bench.part(upload.key, upload.upload_id, 1, BODY.len());
    for body in [BODY, b""] {
        let mut ticket = bench.part(upload.key, upload.upload_id, 1, body.len());
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
