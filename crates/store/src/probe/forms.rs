//! Forms: what a policy forbids is tried first, then what it permits.

use super::Support;
use super::bench::{Bench, Reply};
use crate::error::{ErrorKind, StoreError};

const MOST: u64 = 32;

/// Whether a form permits what it says and nothing else.
pub(super) async fn run(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    match trials(bench).await {
        // Rights to store by PUT need not be rights to store by form; without either there are no forms.
        Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::NotImplemented) => {
            Ok(Support::Refused)
        }
        outcome => outcome,
    }
}

async fn trials(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    let body = [b'f'; MOST as usize];
    let (too_long, form) = bench.form("form-long", MOST - 1, 0)?;
    bench.post(&form, &body).await?;
    let (late, form) = bench.form("form-late", MOST, 3600)?;
    bench.post(&form, &body).await?;
    // Each of these fields is in the policy with one value.
    let (signed, mut form) = bench.form("form-signed", MOST, 0)?;
    let forged = bench.key("form-forged");
    replace(&mut form.fields, "key", &forged);
    bench.post(&form, &body).await?;
    let (typed, mut form) = bench.form("form-type", MOST, 0)?;
    replace(&mut form.fields, "Content-Type", "text/html");
    bench.post(&form, &body).await?;
    let (extended, mut form) = bench.form("form-more", MOST, 0)?;
    form.fields.insert(1, ("x-amz-meta-more", "more".to_owned()));
    bench.post(&form, &body).await?;
    for key in [too_long, late, signed, forged, typed, extended] {
        if !bench.is_absent(&key).await? {
            return Ok(Support::Ignored);
        }
    }

    let (key, form) = bench.form("form", MOST, 0)?;
    let stored = matches!(bench.post(&form, &body).await?, Reply::Stored) && bench.holds(&key, &body).await?;
    Ok(if stored { Support::Enforced } else { Support::Refused })
}

fn replace(fields: &mut [(&'static str, String)], wanted: &str, new: &str) {
    for (_, value) in fields.iter_mut().filter(|(name, _)| *name == wanted) {
        new.clone_into(value);
    }
}
