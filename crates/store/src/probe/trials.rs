//! The trials themselves: each does what the promise forbids.

use pg_storage_core::digest::Digest;

use super::bench::{Bench, OPERATION, Reply, Ticket};
use super::{Capabilities, Support};
use crate::error::{ErrorKind, StoreError};
use crate::store::Store as _;

/// How many write one key at once, and how often: fewer miss the servers that are only sometimes wrong.
const WRITERS: u8 = 16;
const ROUNDS: usize = 3;

const GOOD: &[u8] = b"what was promised, byte for byte";
const BAD: &[u8] = b"something else of the same length";

pub(super) async fn run(bench: &mut Bench<'_>) -> Result<Capabilities, StoreError> {
    let control = control(bench).await?;
    let create_only = create_only(bench).await?;
    // The promises are tried with the headers that uploads to this store will carry.
    let with_condition = create_only != Support::Refused;
    let (checksum, head_checksum) = checksum(bench, with_condition).await?;
    Ok(Capabilities {
        checksum,
        length: length(bench).await?,
        create_only,
        head_checksum,
        copy_source_if_match: copy_source_if_match(bench, &control).await?,
        expiry: expiry(bench).await?,
        tampering: tampering(bench).await?,
    })
}

/// A plain upload must work, or every refusal below would mean nothing.
async fn control(bench: &mut Bench<'_>) -> Result<Ticket, StoreError> {
    let ticket = bench.ticket("control", GOOD, None, false)?;
    match bench.send(&ticket, GOOD).await? {
        Reply::Stored if bench.holds(&ticket.key, GOOD).await? => Ok(ticket),
        Reply::Refused(error) => Err(error),
        Reply::Stored | Reply::Unknown => Err(StoreError::local(
            ErrorKind::Unexpected,
            OPERATION,
            "a plain presigned PUT does not store what it is given",
        )),
    }
}

async fn create_only(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    let ticket = bench.ticket("create-only", GOOD, None, true)?;
    if !matches!(bench.send(&ticket, GOOD).await?, Reply::Stored) {
        return Ok(Support::Refused);
    }
    if !refused(bench.send(&ticket, same_length(BAD, GOOD)).await?) || !bench.holds(&ticket.key, GOOD).await?
    {
        return Ok(Support::Ignored);
    }
    let bodies: Vec<Vec<u8>> = (0..WRITERS).map(|writer| vec![b'a' + writer; 4096]).collect();
    for round in 0..ROUNDS {
        let ticket = bench.ticket(&format!("race-{round}"), &[0; 4096], None, true)?;
        let winners = bench.race(&ticket, &bodies).await;
        let [winner] = winners.as_slice() else { return Ok(Support::Racy) };
        let body = bodies.get(*winner).map_or(&[][..], Vec::as_slice);
        if !bench.holds(&ticket.key, body).await? {
            return Ok(Support::Racy);
        }
    }
    Ok(Support::Enforced)
}

async fn checksum(bench: &mut Bench<'_>, with_condition: bool) -> Result<(Support, bool), StoreError> {
    let sum = Digest::of(GOOD);
    let bad = same_length(BAD, GOOD);

    let ticket = bench.ticket("sum-wrong", GOOD, Some(&sum), with_condition)?;
    let refused_fresh = refused(bench.send(&ticket, bad).await?) && bench.is_absent(&ticket.key).await?;

    let ticket = bench.ticket("sum-right", GOOD, Some(&sum), with_condition)?;
    if !matches!(bench.send(&ticket, GOOD).await?, Reply::Stored) {
        return Ok((Support::Refused, false));
    }
    let head = bench.store.head(bench.bucket, &ticket.key).await?;
    let head_checksum = head.is_some_and(|head| head.sha256 == Some(sum));

    let refused_over = refused(bench.send(&ticket, bad).await?) && bench.holds(&ticket.key, GOOD).await?;
    let support = if refused_fresh && refused_over { Support::Enforced } else { Support::Ignored };
    Ok((support, head_checksum))
}

async fn length(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    let longer = [GOOD, b"!"].concat();
    let shorter = GOOD.get(1..).unwrap_or_default();
    for (name, body) in [("longer", longer.as_slice()), ("shorter", shorter)] {
        let ticket = bench.ticket(name, GOOD, None, false)?;
        if !leaves_no_trace(bench, &ticket, body).await? {
            return Ok(Support::Ignored);
        }
    }
    Ok(Support::Enforced)
}

async fn expiry(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    let mut ticket = bench.ticket("expired", GOOD, None, false)?;
    // An hour, so that no server's allowance for clocks that differ covers it.
    ticket.url = bench.sign(&ticket.key, &ticket.headers, 60, 3600);
    enforced_if(leaves_no_trace(bench, &ticket, GOOD).await?)
}

async fn tampering(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    let mut other_key = bench.ticket("signed-key", GOOD, None, false)?;
    other_key.url = other_key.url.replacen("signed-key", "forged-key", 1);
    other_key.key = bench.key("forged-key");

    let mut other_signature = bench.ticket("other-signature", GOOD, None, false)?;
    other_signature.url = forge_signature(&other_signature.url);

    let mut other_header = bench.ticket("other-header", GOOD, None, false)?;
    for (name, value) in &mut other_header.headers {
        if *name == "content-type" {
            *value = "text/html".to_owned();
        }
    }
    for forged in [other_key, other_signature, other_header] {
        if !leaves_no_trace(bench, &forged, GOOD).await? {
            return Ok(Support::Ignored);
        }
    }
    Ok(Support::Enforced)
}

async fn copy_source_if_match(bench: &mut Bench<'_>, source: &Ticket) -> Result<Support, StoreError> {
    const OTHER: &str = "\"00000000000000000000000000000000\"";
    const TYPE: &str = "application/octet-stream";
    let (store, bucket) = (bench.store, bench.bucket);
    let wrong = bench.key("copy-wrong");
    let right = bench.key("copy-right");
    match store.copy(bucket, &source.key, bucket, &wrong, Some(OTHER), TYPE).await {
        Err(error) if error.kind == ErrorKind::Precondition => {}
        Err(error) if matches!(error.kind, ErrorKind::NotImplemented | ErrorKind::Invalid) => {
            return Ok(Support::Refused);
        }
        Err(error) => return Err(error),
        Ok(_) => return Ok(Support::Ignored),
    }
    if !bench.is_absent(&wrong).await? {
        return Ok(Support::Ignored);
    }
    let etag = store.head(bucket, &source.key).await?.and_then(|head| head.etag);
    match store.copy(bucket, &source.key, bucket, &right, etag.as_deref(), TYPE).await {
        Ok(_) if bench.holds(&right, GOOD).await? => Ok(Support::Enforced),
        Ok(_) => Ok(Support::Ignored),
        Err(error) if error.kind == ErrorKind::Precondition => Ok(Support::Refused),
        Err(error) => Err(error),
    }
}

/// Whether a forbidden request to a fresh key is refused and stores nothing.
async fn leaves_no_trace(bench: &mut Bench<'_>, ticket: &Ticket, body: &[u8]) -> Result<bool, StoreError> {
    Ok(refused(bench.send(ticket, body).await?) && bench.is_absent(&ticket.key).await?)
}

fn refused(reply: Reply) -> bool {
    matches!(reply, Reply::Refused(_))
}

fn enforced_if(seen: bool) -> Result<Support, StoreError> {
    Ok(if seen { Support::Enforced } else { Support::Ignored })
}

/// `text` cut to the length of `model`, which is shorter.
fn same_length<'a>(text: &'a [u8], model: &[u8]) -> &'a [u8] {
    text.get(..model.len()).unwrap_or(text)
}

/// The URL with the last digit of its signature changed.
fn forge_signature(url: &str) -> String {
    const NAME: &str = "X-Amz-Signature=";
    let Some(start) = url.find(NAME) else { return url.to_owned() };
    let signature = start + NAME.len();
    let changed = |c: char| if c == '0' { '1' } else { '0' };
    url.char_indices().map(|(at, c)| if at == signature { changed(c) } else { c }).collect()
}
