//! Listings: keys in byte order, page by page; keys under one delimiter fold into a common prefix,
//! which is skipped with one seek however many keys it hides.

use redb::ReadableTable;

use super::records::Summary;
use super::{OBJECTS, Tables, buckets, decode};
use crate::failure::Outcome;

/// What to list.
#[derive(Debug, Default)]
pub struct Query<'a> {
    /// Only keys that start with this.
    pub prefix: &'a str,
    /// Fold keys that contain this after the prefix. Empty: do not fold.
    pub delimiter: &'a str,
    /// Where the page starts.
    pub after: Position,
    /// At most this many keys and prefixes together.
    pub limit: usize,
}

/// A place between two entries of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Position {
    /// Before everything.
    #[default]
    Start,
    /// Right after this key.
    Key(String),
    /// After every key that starts with this common prefix.
    Prefix(String),
}

/// A page of a listing.
#[derive(Debug, Default)]
pub struct Page {
    /// Keys and what is shown of them.
    pub objects: Vec<(String, Summary)>,
    /// Common prefixes.
    pub prefixes: Vec<String>,
    /// Where the next page starts; `None` on the last one.
    pub next: Option<Position>,
}

/// One page of a bucket's keys.
pub fn page(transaction: &impl Tables, bucket: &str, query: &Query<'_>) -> Outcome<Page> {
    buckets::get(transaction, bucket)?;
    let table = transaction.table(OBJECTS)?;
    let mut page = Page::default();
    let mut last = query.after.clone();
    let mut start = seek(&last, query.prefix.as_bytes());
    if query.limit == 0 {
        return Ok(page);
    }
    'seek: while let Some(from) = start.take() {
        for entry in table.range((bucket, from.as_slice())..)? {
            let (place, record) = entry?;
            let (owner, bytes) = place.value();
            if owner != bucket || !bytes.starts_with(query.prefix.as_bytes()) {
                return Ok(page);
            }
            if page.objects.len() + page.prefixes.len() == query.limit {
                page.next = Some(last);
                return Ok(page);
            }
            let key = String::from_utf8_lossy(bytes).into_owned();
            if let Some(common) = common_prefix(&key, query) {
                page.prefixes.push(common.to_owned());
                last = Position::Prefix(common.to_owned());
                start = seek(&last, query.prefix.as_bytes());
                continue 'seek;
            }
            page.objects.push((key.clone(), decode(record.value())?));
            last = Position::Key(key);
        }
    }
    Ok(page)
}

fn common_prefix<'a>(key: &'a str, query: &Query<'_>) -> Option<&'a str> {
    if query.delimiter.is_empty() {
        return None;
    }
    let rest = key.get(query.prefix.len()..)?;
    let end = query.prefix.len() + rest.find(query.delimiter)? + query.delimiter.len();
    key.get(..end)
}

/// The first key that can come next; `None` when nothing can follow.
fn seek(after: &Position, prefix: &[u8]) -> Option<Vec<u8>> {
    let start = match after {
        Position::Start => Vec::new(),
        Position::Key(key) => {
            let mut next = key.clone().into_bytes();
            next.push(0);
            next
        }
        Position::Prefix(common) => past(common.as_bytes())?,
    };
    Some(start.max(prefix.to_vec()))
}

/// The smallest bytes greater than everything that starts with `prefix`.
fn past(prefix: &[u8]) -> Option<Vec<u8>> {
    let end = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut bytes = prefix.get(..=end)?.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last += 1;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seek_past_a_prefix_skips_all_of_it_and_nothing_else() {
        assert_eq!(past(b"a/"), Some(b"a0".to_vec()));
        assert_eq!(past(&[b'a', 0xff]), Some(b"b".to_vec()));
        assert_eq!(past(&[0xff, 0xff]), None);
    }
}
