//! Many uploads asked for in one call: what such a call is refused for, beyond what one upload is.

use std::collections::HashSet;
use std::rc::Rc;

use pg_storage_core::error::Token;

use super::admission::{check_metadata, validate};
use super::request::{Ticket, Wanted, open_all};
use crate::bucket::Bucket;
use crate::error::{Failure, Result};
use crate::guc;

/// A ticket for each file, in the order given; all or none.
///
/// # Errors
/// `BULK_UPLOAD_FILES_EXCEEDED`, `BULK_UPLOAD_SIZE_EXCEEDED`, `PATH_TAKEN` for a path that is there twice, and those of
/// one request, with the file's place in the list.
pub fn open_many(bucket: &Rc<Bucket>, files: Vec<Wanted<'_>>) -> Result<Vec<Ticket>> {
    check_count(files.len())?;
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let count = files.len();
    let about = |at: usize, failure: Failure| failure.about(format!("File {} of {count}", at + 1));
    for (at, wanted) in files.iter().enumerate() {
        validate(bucket, &wanted.declared)
            .and_then(|()| check_metadata(&wanted.metadata))
            .map_err(|failure| about(at, failure))?;
    }
    check_sum(&files)?;
    check_paths(bucket, &files).map_err(|(at, failure)| about(at, failure))?;
    open_all(bucket, files, about)
}

/// Refuses a list that is longer than one call may bring.
pub fn check_count(count: usize) -> Result<()> {
    let limit = guc::MAX_BULK_FILES.get();
    if count <= limit.unsigned_abs() as usize {
        return Ok(());
    }
    Err(Failure::new(Token::BulkUploadFilesExceeded, "too many files in one call")
        .detail(format!("{count} are listed; pg_storage.max_bulk_files allows {limit}."))
        .hint("Make several calls."))
}

fn check_sum(files: &[Wanted<'_>]) -> Result<()> {
    let limit = guc::MAX_BULK_SIZE.get() as i128;
    let sum: i128 = files.iter().map(|wanted| i128::from(wanted.declared.size)).sum();
    if sum <= limit {
        return Ok(());
    }
    Err(Failure::new(Token::BulkUploadSizeExceeded, "the files of one call are too large together")
        .detail(format!("{sum} bytes are declared; pg_storage.max_bulk_size allows {limit}."))
        .hint("Make several calls."))
}

/// Two files cannot be at one path, and which of them would be the later version nobody said.
fn check_paths(bucket: &Bucket, files: &[Wanted<'_>]) -> std::result::Result<(), (usize, Failure)> {
    let mut taken = HashSet::new();
    for (at, wanted) in files.iter().enumerate() {
        if let Some(path) = wanted.declared.path
            && !taken.insert(path)
        {
            let failure = Failure::new(Token::PathTaken, "another file of the same call has this path")
                .detail(format!("Path {path} in bucket {}.", bucket.id))
                .hint("Choose another path, or make another call for the next version.");
            return Err((at, failure));
        }
    }
    Ok(())
}
