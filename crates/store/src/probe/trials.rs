//! The trials themselves: each does what the promise forbids.

use std::time::Duration;

use pg_storage_core::backoff;
use pg_storage_core::digest::Digest;
use uuid::Uuid;

use super::bench::{Bench, OPERATION, Reply, Ticket};
use super::reason::Reason;
use super::{Capabilities, Support, forms, parts};
use crate::error::{ErrorKind, StoreError};
use crate::store::{Description, PutOptions, Store as _};

/// How many write one key at once, and how often: fewer miss the servers that are only sometimes wrong.
pub(super) const WRITERS: u8 = 16;
const ROUNDS: usize = 10;

/// How often a round is run while some of its writers learn nothing.
const TRIES: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

pub(super) const GOOD: &[u8] = b"what was promised, byte for byte";
pub(super) const BAD: &[u8] = b"something else of the same length";

/// How the server itself stores what a trial needs to be there.
pub(super) const PLAIN: PutOptions<'static> = PutOptions {
    description: Description::typed("application/octet-stream"),
    sha256: None,
    create_only: false,
};

pub(super) async fn run(bench: &mut Bench<'_>) -> Result<Capabilities, StoreError> {
    let control = control(bench).await?;
    let create_only = create_only(bench).await?;
    // The promises are tried with the headers that uploads to this store will carry.
    let with_condition = create_only != Support::Refused;
    let (checksum, head_checksum) = checksum(bench, with_condition).await?;
    let with_sum = checksum != Support::Refused;
    let in_parts = parts::run(bench, &control, GOOD).await?;
    let part_checksum = match in_parts {
        Support::Enforced => parts::sums(bench).await?,
        _ => Support::default(),
    };
    Ok(Capabilities {
        checksum,
        length: length(bench).await?,
        create_only,
        head_checksum,
        copy_source_if_match: copy_source_if_match(bench, &control).await?,
        expiry: expiry(bench).await?,
        tampering: tampering(bench, with_sum, with_condition).await?,
        unsigned: Some(unsigned(bench, &control).await?),
        forms: Some(forms::run(bench).await?),
        parts: Some(in_parts),
        part_checksum,
    })
}

/// A plain upload must work, or every refusal below would mean nothing.
pub(super) async fn control(bench: &mut Bench<'_>) -> Result<Ticket, StoreError> {
    let ticket = bench.ticket("control", GOOD, None, false)?;
    match bench.send(&ticket, GOOD, Reason::None).await? {
        Reply::Stored if bench.holds(&ticket.key, GOOD).await? => Ok(ticket),
        _ => Err(StoreError::local(
            ErrorKind::Unexpected,
            OPERATION,
            "a plain presigned PUT does not store what it is given",
        )),
    }
}

async fn create_only(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    let ticket = bench.ticket("create-only", GOOD, None, true)?;
    if !matches!(bench.send(&ticket, GOOD, Reason::Header).await?, Reply::Stored) {
        return Ok(Support::Refused);
    }
    let again = bench.send(&ticket, same_length(BAD, GOOD), Reason::Condition).await?;
    if !refused(again) || !bench.holds(&ticket.key, GOOD).await? {
        return Ok(Support::Ignored);
    }
    for round in 0..ROUNDS {
        if !one_wins(bench, round).await? {
            return Ok(Support::Racy);
        }
    }
    Ok(Support::Enforced)
}

/// Whether, of all who create one key at once, one is told so and stays, and all others are refused.
///
/// Two winners, or one whose bytes are not there, are final, whatever the others were told. A round in which somebody
/// learnt nothing is run again: a lost answer may be the winner's, and a writer who was sent away never raced.
async fn one_wins(bench: &mut Bench<'_>, round: usize) -> Result<bool, StoreError> {
    let bodies: Vec<Vec<u8>> = (0..WRITERS).map(|writer| vec![b'a' + writer; 4096]).collect();
    let mut failures = 0;
    loop {
        let ticket = bench.ticket(&format!("race-{round}-{failures}"), &[0; 4096], None, true)?;
        let race = bench.race(&ticket, &bodies, Reason::Condition).await;
        let winner = match race.winners.as_slice() {
            [] => None,
            [winner] => bodies.get(*winner),
            _ => return Ok(false),
        };
        if let Some(body) = winner
            && !bench.holds(&ticket.key, body).await?
        {
            return Ok(false);
        }
        if winner.is_some() && race.trouble.is_none() {
            return Ok(true);
        }
        failures += 1;
        if failures == TRIES {
            return race.trouble.map_or(Ok(false), Err);
        }
        let random = Uuid::new_v4().as_u64_pair().1;
        tokio::time::sleep(backoff::delay(failures - 1, FIRST_WAIT, LONGEST_WAIT, random)).await;
    }
}

async fn checksum(bench: &mut Bench<'_>, with_condition: bool) -> Result<(Support, bool), StoreError> {
    let sum = Digest::of(GOOD);
    let bad = same_length(BAD, GOOD);

    let ticket = bench.ticket("sum-wrong", GOOD, Some(&sum), with_condition)?;
    let refused_fresh = leaves_no_trace(bench, &ticket, bad, Reason::Sum).await?;

    let ticket = bench.ticket("sum-right", GOOD, Some(&sum), with_condition)?;
    if !matches!(bench.send(&ticket, GOOD, Reason::Header).await?, Reply::Stored) {
        return Ok((Support::Refused, false));
    }
    let head = bench.store.head(bench.bucket, &ticket.key).await?;
    let head_checksum = head.is_some_and(|head| head.sha256 == Some(sum));

    let reason = if with_condition { Reason::SumOrCondition } else { Reason::Sum };
    let refused_over =
        refused(bench.send(&ticket, bad, reason).await?) && bench.holds(&ticket.key, GOOD).await?;
    let support = if refused_fresh && refused_over { Support::Enforced } else { Support::Ignored };
    Ok((support, head_checksum))
}

async fn length(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    let longer = [GOOD, b"!"].concat();
    let shorter = GOOD.get(1..).unwrap_or_default();
    for (name, body) in [("longer", longer.as_slice()), ("shorter", shorter)] {
        let ticket = bench.ticket(name, GOOD, None, false)?;
        if !leaves_no_trace(bench, &ticket, body, Reason::Signature).await? {
            return Ok(Support::Ignored);
        }
    }
    Ok(Support::Enforced)
}

async fn expiry(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    let mut ticket = bench.ticket("expired", GOOD, None, false)?;
    // An hour, so that no server's allowance for clocks that differ covers it.
    ticket.url = bench.sign(&ticket.key, &ticket.headers, 60, 3600);
    let seen = leaves_no_trace(bench, &ticket, GOOD, Reason::Signature).await?;
    Ok(if seen { Support::Enforced } else { Support::Ignored })
}

async fn tampering(
    bench: &mut Bench<'_>,
    with_sum: bool,
    with_condition: bool,
) -> Result<Support, StoreError> {
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
    let mut forged = vec![other_key, other_signature, other_header];

    // Without the length no request can be sent; without any other signed header its promise is void.
    let sum = Digest::of(GOOD);
    let sum = with_sum.then_some(&sum);
    let signed = bench.ticket("with-all", GOOD, sum, with_condition)?.headers;
    for (left_out, _) in signed.iter().filter(|(name, _)| *name != "content-length") {
        let mut ticket = bench.ticket(&format!("without-{left_out}"), GOOD, sum, with_condition)?;
        ticket.headers.retain(|(name, _)| name != left_out);
        forged.push(ticket);
    }
    for ticket in forged {
        if !leaves_no_trace(bench, &ticket, GOOD, Reason::Signature).await? {
            return Ok(Support::Ignored);
        }
    }
    Ok(Support::Enforced)
}

/// Whether a header that nobody signed makes the store copy another object in place of the body: then whoever may upload
/// and knows a key gets what is there.
async fn unsigned(bench: &mut Bench<'_>, source: &Ticket) -> Result<Support, StoreError> {
    let mut ticket = bench.ticket("copied", GOOD, None, false)?;
    ticket.headers.push(("x-amz-copy-source", format!("/{}/{}", bench.bucket, source.key)));
    bench.send(&ticket, same_length(BAD, GOOD), Reason::Signature).await?;
    Ok(if bench.holds(&ticket.key, GOOD).await? { Support::Ignored } else { Support::Enforced })
}

async fn copy_source_if_match(bench: &mut Bench<'_>, source: &Ticket) -> Result<Support, StoreError> {
    const OTHER: &str = "\"00000000000000000000000000000000\"";
    const TYPED: Description<'_> = Description::typed("application/octet-stream");
    let (store, bucket) = (bench.store, bench.bucket);
    let wrong = bench.key("copy-wrong");
    let right = bench.key("copy-right");
    match store.copy(bucket, &source.key, bucket, &wrong, Some(OTHER), Some(TYPED)).await {
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
    match store.copy(bucket, &source.key, bucket, &right, etag.as_deref(), Some(TYPED)).await {
        Ok(_) if bench.holds(&right, GOOD).await? => Ok(Support::Enforced),
        Ok(_) => Ok(Support::Ignored),
        Err(error) if error.kind == ErrorKind::Precondition => Ok(Support::Refused),
        Err(error) => Err(error),
    }
}

/// Whether a forbidden request to a fresh key is refused for `reason` and stores nothing.
async fn leaves_no_trace(
    bench: &mut Bench<'_>,
    ticket: &Ticket,
    body: &[u8],
    reason: Reason,
) -> Result<bool, StoreError> {
    Ok(refused(bench.send(ticket, body, reason).await?) && bench.is_absent(&ticket.key).await?)
}

pub(super) fn refused(reply: Reply) -> bool {
    matches!(reply, Reply::Refused)
}

/// `text` cut to the length of `model`, which is shorter.
pub(super) fn same_length<'a>(text: &'a [u8], model: &[u8]) -> &'a [u8] {
    text.get(..model.len()).unwrap_or(text)
}

/// The URL with the last digit of its signature changed.
pub(super) fn forge_signature(url: &str) -> String {
    const NAME: &str = "X-Amz-Signature=";
    let Some((before, rest)) = url.split_once(NAME) else { return url.to_owned() };
    let (signature, after) = rest.find('&').map_or((rest, ""), |end| rest.split_at(end));
    let mut digits: Vec<char> = signature.chars().collect();
    if let Some(last) = digits.last_mut() {
        *last = if *last == '0' { '1' } else { '0' };
    }
    format!("{before}{NAME}{}{after}", String::from_iter(digits))
}

#[cfg(test)]
mod tests {
    use super::forge_signature;

    #[test]
    fn a_forged_signature_differs_in_its_last_digit() {
        for (url, forged) in [
            (
                "http://h/b/k?X-Amz-Date=d&X-Amz-Signature=0a1f",
                "http://h/b/k?X-Amz-Date=d&X-Amz-Signature=0a10",
            ),
            ("http://h/b/k?X-Amz-Signature=0a10&x=0", "http://h/b/k?X-Amz-Signature=0a11&x=0"),
        ] {
            assert_eq!(forge_signature(url), forged);
        }
    }
}
