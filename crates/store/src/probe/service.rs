//! What the software asks of a store beyond uploads: downloads, reading, copying, listing, deleting, CORS. Nothing is
//! decided by it, so it is tried only when somebody wants to know.

use pg_storage_core::digest::Digest;
use pg_storage_core::policy::Access;
use pg_storage_core::presign::{Method, Signer, encode_key};

use super::Support;
use super::bench::{Bench, Reply, Ticket};
use super::reason::Reason;
use super::trials::{BAD, GOOD, WRITERS, control, forge_signature, refused, same_length};
use crate::error::{ErrorKind, StoreError};
use crate::s3::S3Store;
use crate::store::{Description, Store as _};

/// What a store was seen to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// A download URL is refused when it has expired, and after a change to its key, its signature or what it asks for.
    pub download: Support,
    /// A download comes with the headers that its URL asks for.
    pub response_headers: bool,
    /// Nobody reads (except where the bucket is public), lists, writes or deletes without a signature.
    pub anonymous: Support,
    /// Of concurrent writers with one URL, only those with the declared SHA-256 are stored. `None`: it is not enforced
    /// for one either.
    pub concurrent_checksum: Option<Support>,
    /// A range of bytes is that range, and none beyond the end.
    pub range: bool,
    /// A copy has the bytes of its source and the description that was asked for; one of nothing is an error.
    pub copy: bool,
    /// A listing has the keys below its prefix and no others, in the order of their bytes, and goes on after a key.
    pub listing: bool,
    /// Of many objects those named are deleted and no others, and one that is not there is no error.
    pub deletion: bool,
}

/// Tries the store out as [`probe`](super::probe) does.
///
/// # Errors
/// As [`probe`](super::probe).
pub async fn serve(
    store: &S3Store,
    signer: Signer,
    bucket: &str,
    scratch_prefix: &str,
    access: Access,
    enforces_sums: bool,
) -> Result<Service, StoreError> {
    let mut bench = Bench::new(store, signer, bucket, scratch_prefix);
    let outcome = run(&mut bench, access, enforces_sums).await;
    bench.clean_up().await;
    outcome
}

/// Whether anybody reads an object of a public bucket without a signature.
///
/// # Errors
/// As [`probe`](super::probe).
pub async fn reads_publicly(
    store: &S3Store,
    signer: Signer,
    bucket: &str,
    prefix: &str,
) -> Result<bool, StoreError> {
    let mut bench = Bench::new(store, signer, bucket, prefix);
    let outcome = async {
        let ticket = control(&mut bench).await?;
        let url = unsigned(&ticket.url).to_owned();
        match bench.fetch("GET", &url, &Vec::new(), Reason::Signature).await? {
            Ok(answer) => Ok(answer.body == GOOD),
            Err(_) => Ok(false),
        }
    };
    let outcome = outcome.await;
    bench.clean_up().await;
    outcome
}

/// Whether pages of `origin`, and of no other, may upload with every header that is signed. `origin` is one that a
/// browser would send.
///
/// # Errors
/// As [`probe`](super::probe).
pub async fn preflight(
    store: &S3Store,
    signer: Signer,
    bucket: &str,
    scratch_prefix: &str,
    origin: &str,
    headers: &[&str],
) -> Result<Support, StoreError> {
    const STRANGER: &str = "https://stranger.example.net";
    let mut bench = Bench::new(store, signer, bucket, scratch_prefix);
    let key = bench.key("preflight");
    let url = bench.url(Method::Put, &key, &Vec::new(), &[], (300, 0));
    let url = unsigned(&url).to_owned();
    let mut ask = async |origin: &str, headers: &str| -> Result<bool, StoreError> {
        let said = vec![
            ("origin", origin.to_owned()),
            ("access-control-request-method", "PUT".to_owned()),
            ("access-control-request-headers", headers.to_owned()),
        ];
        let answer = match bench.fetch("OPTIONS", &url, &said, Reason::Signature).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Ok(false),
            Err(error) if matches!(error.kind, ErrorKind::NotImplemented | ErrorKind::NotFound) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let allowed = answer.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
        let allowed: Vec<&str> = allowed.split(',').map(str::trim).collect();
        let permits = |wanted: &str| allowed.contains(&"*") || allowed.contains(&wanted);
        Ok(
            matches!(answer.header("access-control-allow-origin"), Some(given) if given == origin || given == "*")
                && headers.split(',').all(permits),
        )
    };
    let all = headers.join(",");
    if ask(STRANGER, &all).await? {
        return Ok(Support::Ignored);
    }
    Ok(if ask(origin, &all).await? { Support::Enforced } else { Support::Refused })
}

async fn run(bench: &mut Bench<'_>, access: Access, enforces_sums: bool) -> Result<Service, StoreError> {
    let control = control(bench).await?;
    let concurrent_checksum = if enforces_sums { Some(concurrent_checksum(bench).await?) } else { None };
    let mut service = Service {
        download: download(bench, &control).await?,
        response_headers: response_headers(bench, &control).await?,
        anonymous: Support::Ignored,
        concurrent_checksum,
        range: range(bench, &control).await?,
        copy: copy(bench, &control).await?,
        listing: listing(bench).await?,
        deletion: deletion(bench).await?,
    };
    // The last one, because what is wrong with it may take away what the others need.
    service.anonymous = anonymous(bench, &control, access).await?;
    Ok(service)
}

const WISH: (&str, &str) = ("response-content-disposition", "attachment; filename=\"a b.txt\"");

async fn download(bench: &mut Bench<'_>, control: &Ticket) -> Result<Support, StoreError> {
    let other = bench.ticket("other-download", same_length(BAD, GOOD), None, false)?;
    if !matches!(bench.send(&other, same_length(BAD, GOOD), Reason::None).await?, Reply::Stored) {
        return Ok(Support::Refused);
    }
    let get =
        |bench: &mut Bench<'_>, times| bench.url(Method::Get, &control.key, &Vec::new(), &[WISH], times);
    let good = get(bench, (300, 0));
    let forged = [
        // An hour, so that no server's allowance for clocks that differ covers it.
        get(bench, (60, 3600)),
        good.replacen("control", "other-download", 1),
        forge_signature(&good),
        good.replacen("attachment", "inline", 1),
        format!("{good}&response-content-type=text%2Fhtml"),
        good.replacen("X-Amz-Expires=300", "X-Amz-Expires=604800", 1),
    ];
    for url in forged {
        if bench.fetch("GET", &url, &Vec::new(), Reason::Signature).await?.is_ok() {
            return Ok(Support::Ignored);
        }
    }
    Ok(match bench.fetch("GET", &good, &Vec::new(), Reason::Signature).await? {
        Ok(answer) if answer.body == GOOD => Support::Enforced,
        _ => Support::Refused,
    })
}

async fn response_headers(bench: &mut Bench<'_>, control: &Ticket) -> Result<bool, StoreError> {
    let kept = ("response-cache-control", "max-age=60");
    let url = bench.url(Method::Get, &control.key, &Vec::new(), &[kept, WISH], (300, 0));
    Ok(match bench.fetch("GET", &url, &Vec::new(), Reason::Signature).await? {
        Ok(answer) => {
            answer.header("content-disposition") == Some(WISH.1)
                && answer.header("cache-control") == Some(kept.1)
        }
        Err(_) => false,
    })
}

async fn anonymous(bench: &mut Bench<'_>, control: &Ticket, access: Access) -> Result<Support, StoreError> {
    let put = bench.ticket("anonymous", GOOD, None, false)?;
    let unsigned_put = Ticket { url: unsigned(&put.url).to_owned(), ..put.clone() };
    if !refused(bench.send(&unsigned_put, GOOD, Reason::Signature).await?)
        || !bench.is_absent(&put.key).await?
    {
        return Ok(Support::Ignored);
    }
    let object = unsigned(&control.url).to_owned();
    if bench.fetch("DELETE", &object, &Vec::new(), Reason::Signature).await?.is_ok()
        || !bench.holds(&control.key, GOOD).await?
    {
        return Ok(Support::Ignored);
    }
    let root = object.strip_suffix(&*encode_key(&control.key)).unwrap_or(&object);
    let mut asked = vec![format!("{root}?list-type=2"), root.to_owned()];
    if access != Access::Public {
        asked.push(object.clone());
    }
    for url in asked {
        // What is refused otherwise is not given either.
        if let Ok(answer) = bench.fetch("GET", &url, &Vec::new(), Reason::Absence).await?
            && (answer.body == GOOD || answer.body.windows(13).any(|part| part == b"ListBucketRes"))
        {
            return Ok(Support::Ignored);
        }
    }
    Ok(Support::Enforced)
}

/// Writers at once with one URL, all but one with other bytes than it was signed for.
async fn concurrent_checksum(bench: &mut Bench<'_>) -> Result<Support, StoreError> {
    let sum = Digest::of(GOOD);
    let ticket = bench.ticket("sum-race", GOOD, Some(&sum), false)?;
    let right = usize::from(WRITERS / 2);
    let bodies: Vec<Vec<u8>> = (0..WRITERS)
        .map(
            |writer| {
                if usize::from(writer) == right { GOOD.to_vec() } else { vec![b'a' + writer; GOOD.len()] }
            },
        )
        .collect();
    let race = bench.race(&ticket, &bodies, Reason::Sum).await;
    if race.winners.iter().any(|winner| *winner != right) {
        return Ok(Support::Racy);
    }
    match race.trouble {
        Some(error) => Err(error),
        None if race.winners.is_empty() || !bench.holds(&ticket.key, GOOD).await? => Ok(Support::Racy),
        None => Ok(Support::Enforced),
    }
}

async fn range(bench: &mut Bench<'_>, control: &Ticket) -> Result<bool, StoreError> {
    let length = GOOD.len() as u64;
    let beyond = bench.store.get_range(bench.bucket, &control.key, length, 10).await?;
    let across = bench.store.get_range(bench.bucket, &control.key, length - 3, 10).await?;
    let inside = bench.store.get_range(bench.bucket, &control.key, 5, 7).await?;
    Ok(beyond.is_empty()
        && Some(across.as_slice()) == GOOD.get(GOOD.len() - 3..)
        && Some(inside.as_slice()) == GOOD.get(5..12))
}

async fn copy(bench: &mut Bench<'_>, control: &Ticket) -> Result<bool, StoreError> {
    let kept = Access::Public.cache_control();
    let description = Description { content_type: "text/x-copied", cache_control: kept };
    let (missing, nothing, to) = (bench.key("copy-source"), bench.key("copy-nothing"), bench.key("copied"));
    let (store, bucket) = (bench.store, bench.bucket);
    match store.copy(bucket, &missing, bucket, &nothing, None, Some(description)).await {
        Err(error) if error.kind == ErrorKind::NotFound => {}
        Err(error) if error.kind == ErrorKind::NotImplemented => return Ok(false),
        Err(error) => return Err(error),
        Ok(_) => return Ok(false),
    }
    if !bench.is_absent(&nothing).await? {
        return Ok(false);
    }
    store.copy(bucket, &control.key, bucket, &to, None, Some(description)).await?;
    let head = store.head(bucket, &to).await?;
    Ok(bench.holds(&to, GOOD).await?
        && head.is_some_and(|head| {
            head.content_type.as_deref() == Some(description.content_type)
                && head.cache_control.as_deref() == kept
        }))
}

async fn listing(bench: &mut Bench<'_>) -> Result<bool, StoreError> {
    let [neighbour, second, first, third] =
        ["list0", "list/b!", "list/a", "list/b/c"].map(|name| bench.key(name));
    for key in [&neighbour, &second, &first, &third] {
        bench.store.put(bench.bucket, key, GOOD.to_vec(), super::trials::PLAIN).await?;
    }
    let below = first.strip_suffix('a').unwrap_or_default().to_owned();
    let mut pages = Vec::new();
    for (prefix, after) in [(format!("{below}z"), None), (below.clone(), None), (below, Some(first.as_str()))]
    {
        let page = match bench.store.list_page(bench.bucket, &prefix, after).await {
            Ok(page) => page,
            // Keys out of order, or no word on how to go on.
            Err(error) if error.kind == ErrorKind::Unexpected => return Ok(false),
            Err(error) => return Err(error),
        };
        if page.next.is_some() || page.objects.iter().any(|object| object.size != GOOD.len() as u64) {
            return Ok(false);
        }
        pages.push(page.objects.into_iter().map(|object| object.key).collect::<Vec<_>>());
    }
    let rest = vec![second, third];
    Ok(pages == [Vec::new(), [vec![first], rest.clone()].concat(), rest])
}

async fn deletion(bench: &mut Bench<'_>) -> Result<bool, StoreError> {
    let keys: Vec<String> = (0..4).map(|n| bench.key(&format!("deleted-{n}"))).collect();
    let [kept, one, missing, two] = keys.as_slice() else { return Ok(false) };
    for key in [kept, one, two] {
        bench.store.put(bench.bucket, key, GOOD.to_vec(), super::trials::PLAIN).await?;
    }
    let named = [one.clone(), missing.clone(), two.clone()];
    let outcomes = bench.store.delete_batch(bench.bucket, &named).await?;
    Ok(outcomes.len() == named.len()
        && outcomes.iter().all(Result::is_ok)
        && bench.is_absent(one).await?
        && bench.is_absent(two).await?
        && bench.holds(kept, GOOD).await?)
}

/// The URL without its query, and so without its signature.
fn unsigned(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}
