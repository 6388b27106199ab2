//! Buckets and their settings.

use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use s3s::s3_error;

use super::records::{Bucket, Moment};
use super::{BUCKETS, OBJECTS, Released, Tables, decode, encode, uploads};
use crate::failure::Outcome;

/// The bucket, or `NoSuchBucket`.
pub fn get(transaction: &impl Tables, name: &str) -> Outcome<Bucket> {
    let table = transaction.table(BUCKETS)?;
    match table.get(name)? {
        Some(record) => decode(record.value()),
        None => Err(s3_error!(NoSuchBucket, "The specified bucket does not exist").into()),
    }
}

/// All buckets in the order of their names.
pub fn all(transaction: &ReadTransaction) -> Outcome<Vec<(String, Bucket)>> {
    let table = transaction.table(BUCKETS)?;
    let mut buckets = Vec::new();
    for entry in table.iter()? {
        let (name, record) = entry?;
        buckets.push((name.value().to_owned(), decode(record.value())?));
    }
    Ok(buckets)
}

/// Creates the bucket, or `BucketAlreadyOwnedByYou`.
pub fn create(transaction: &WriteTransaction, name: &str, now: Moment) -> Outcome<()> {
    let mut table = transaction.open_table(BUCKETS)?;
    if table.get(name)?.is_some() {
        return Err(s3_error!(
            BucketAlreadyOwnedByYou,
            "Your previous request to create the named bucket succeeded and you already own it."
        )
        .into());
    }
    let bucket = Bucket { created: now, cors: None, lifecycle: None, policy: None, access_block: None };
    table.insert(name, encode(&bucket)?.as_slice())?;
    Ok(())
}

/// Changes a bucket's settings.
pub fn update(transaction: &WriteTransaction, name: &str, change: impl FnOnce(&mut Bucket)) -> Outcome<()> {
    let mut bucket = get(transaction, name)?;
    change(&mut bucket);
    transaction.open_table(BUCKETS)?.insert(name, encode(&bucket)?.as_slice())?;
    Ok(())
}

/// Removes an empty bucket and its unfinished uploads, or `BucketNotEmpty`.
pub fn delete(transaction: &WriteTransaction, name: &str) -> Outcome<Released> {
    get(transaction, name)?;
    let first: &[u8] = &[];
    let occupied = match transaction.open_table(OBJECTS)?.range((name, first)..)?.next() {
        Some(entry) => entry?.0.value().0 == name,
        None => false,
    };
    if occupied {
        return Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty").into());
    }
    let mut released = Released::default();
    for (key, id) in uploads::all_in(transaction, name)? {
        released.0.extend(uploads::abort(transaction, name, &key, &id)?.0);
    }
    transaction.open_table(BUCKETS)?.remove(name)?;
    Ok(released)
}
