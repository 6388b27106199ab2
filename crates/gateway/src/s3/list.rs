//! ListObjectsV2 and its predecessor.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use s3s::dto::*;
use s3s::{S3Request, S3Result, s3_error};

use super::buckets::owner;
use crate::index::list::{self, Page, Position, Query};
use crate::index::records::Summary;
use crate::store::Store;

/// The most entries of one page.
pub(super) const MAX_KEYS: usize = 1000;

/// What `encoding-type=url` leaves as it is: the unreserved characters and the slash.
const URL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// `encoding-type`: keys may hold characters that XML cannot carry.
#[derive(Clone, Copy)]
pub(super) struct Encoding(bool);

impl Encoding {
    pub(super) fn parse(wanted: Option<&EncodingType>) -> S3Result<Self> {
        match wanted.map(EncodingType::as_str) {
            None => Ok(Self(false)),
            Some(EncodingType::URL) => Ok(Self(true)),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    pub(super) fn show(self, text: &str) -> String {
        if self.0 { utf8_percent_encode(text, URL).to_string() } else { text.to_owned() }
    }
}

/// `max-keys` and its relatives: up to 1000, which is also the default.
pub(super) fn limit(wanted: Option<i32>) -> S3Result<usize> {
    match wanted {
        None => Ok(MAX_KEYS),
        Some(number) => usize::try_from(number).map(|number| number.min(MAX_KEYS)).map_err(|_| {
            s3_error!(InvalidArgument, "Argument max-keys must be an integer between 0 and 2147483647")
        }),
    }
}

async fn page(
    store: &Arc<Store>,
    bucket: String,
    prefix: Option<String>,
    delimiter: Option<String>,
    after: Position,
    limit: usize,
) -> S3Result<Page> {
    let page = store
        .run(move |store| {
            let query = Query {
                prefix: prefix.as_deref().unwrap_or_default(),
                delimiter: delimiter.as_deref().unwrap_or_default(),
                after,
                limit,
            };
            store.index.read(|transaction| list::page(transaction, &bucket, &query))
        })
        .await?;
    Ok(page)
}

fn object(key: &str, summary: Summary, encoding: Encoding, owned: bool) -> Object {
    let checksum = summary.checksum;
    Object {
        key: Some(encoding.show(key)),
        size: i64::try_from(summary.size).ok(),
        e_tag: Some(ETag::Strong(summary.etag)),
        last_modified: Some(summary.modified.timestamp()),
        storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
        checksum_type: checksum.as_ref().map(|checksum| checksum.coverage.dto()),
        checksum_algorithm: checksum
            .map(|checksum| vec![ChecksumAlgorithm::from_static(checksum.algorithm.name())]),
        owner: owned.then(owner),
        ..Default::default()
    }
}

fn prefixes(page: &[String], encoding: Encoding) -> Vec<CommonPrefix> {
    page.iter().map(|prefix| CommonPrefix { prefix: Some(encoding.show(prefix)) }).collect()
}

/// A place in a listing as an opaque text.
fn token(position: &Position) -> String {
    let (kind, text) = match position {
        Position::Start => ("s", ""),
        Position::Key(key) => ("k", key.as_str()),
        Position::Prefix(prefix) => ("p", prefix.as_str()),
    };
    format!("{kind}{}", utf8_percent_encode(text, NON_ALPHANUMERIC))
}

fn position(token: &str) -> S3Result<Position> {
    let bad = || s3_error!(InvalidArgument, "The continuation token provided is incorrect");
    let decode = |text: &str| percent_decode_str(text).decode_utf8().map(String::from).map_err(|_| bad());
    match (token.get(..1), token.get(1..)) {
        (Some("k"), Some(text)) => Ok(Position::Key(decode(text)?)),
        (Some("p"), Some(text)) => Ok(Position::Prefix(decode(text)?)),
        _ => Err(bad()),
    }
}

pub async fn list_objects_v2(
    store: &Arc<Store>,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<ListObjectsV2Output> {
    let input = request.input;
    let encoding = Encoding::parse(input.encoding_type.as_ref())?;
    let limit = limit(input.max_keys)?;
    let after = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => position(token)?,
        (None, Some(key)) if !key.is_empty() => Position::Key(key.clone()),
        (None, _) => Position::Start,
    };
    let page = page(store, input.bucket.clone(), input.prefix.clone(), input.delimiter.clone(), after, limit)
        .await?;
    let owned = input.fetch_owner.unwrap_or(false);
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encoding.show(&input.prefix.unwrap_or_default())),
        delimiter: input.delimiter.map(|delimiter| encoding.show(&delimiter)),
        start_after: input.start_after.map(|key| encoding.show(&key)),
        max_keys: i32::try_from(limit).ok(),
        key_count: i32::try_from(page.objects.len() + page.prefixes.len()).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(page.next.is_some()),
        next_continuation_token: page.next.as_ref().map(token),
        common_prefixes: Some(prefixes(&page.prefixes, encoding)),
        contents: Some(
            page.objects.into_iter().map(|(key, summary)| object(&key, summary, encoding, owned)).collect(),
        ),
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}

pub async fn list_objects(
    store: &Arc<Store>,
    request: S3Request<ListObjectsInput>,
) -> S3Result<ListObjectsOutput> {
    let input = request.input;
    let encoding = Encoding::parse(input.encoding_type.as_ref())?;
    let limit = limit(input.max_keys)?;
    let delimiter = input.delimiter.clone().unwrap_or_default();
    let after = match input.marker.as_deref() {
        None | Some("") => Position::Start,
        // A marker that is a common prefix was one this listing handed out.
        Some(marker) if !delimiter.is_empty() && marker.ends_with(&delimiter) => {
            Position::Prefix(marker.to_owned())
        }
        Some(marker) => Position::Key(marker.to_owned()),
    };
    let page = page(store, input.bucket.clone(), input.prefix.clone(), input.delimiter.clone(), after, limit)
        .await?;
    let next = match &page.next {
        Some(Position::Key(text) | Position::Prefix(text)) if !delimiter.is_empty() => {
            Some(encoding.show(text))
        }
        _ => None,
    };
    Ok(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(encoding.show(&input.prefix.unwrap_or_default())),
        delimiter: input.delimiter.map(|delimiter| encoding.show(&delimiter)),
        marker: Some(encoding.show(&input.marker.unwrap_or_default())),
        max_keys: i32::try_from(limit).ok(),
        is_truncated: Some(page.next.is_some()),
        next_marker: next,
        common_prefixes: Some(prefixes(&page.prefixes, encoding)),
        contents: Some(
            page.objects.into_iter().map(|(key, summary)| object(&key, summary, encoding, true)).collect(),
        ),
        encoding_type: input.encoding_type,
        ..Default::default()
    })
}
