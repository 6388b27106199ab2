//! Deleting a bucket with everything in it: the mark that makes it vanish. Maintenance does the rest.

use std::cell::Cell;

use pg_storage_core::error::Token;
use pgrx::datum::TimestampWithTimeZone;

use crate::bucket::{Bucket, not_found};
use crate::catalog;
use crate::error::{Failure, Result, shown_id};

/// What [`mark`] is doing right now.
#[derive(Clone, Copy)]
struct Marking {
    bucket: [u8; 16],
    /// Whether the DELETE reached the row, past privileges and policies.
    allowed: bool,
}

thread_local! {
    static MARKING: Cell<Option<Marking>> = const { Cell::new(None) };
}

/// Ends the marking also when an ERROR unwinds.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        MARKING.set(None);
    }
}

/// Marks a bucket as deleted and gives the time.
///
/// The permission is that of DELETE, and PostgreSQL itself is asked for it, by a DELETE as the caller. The trigger that
/// keeps full buckets learns from [`is_being_marked`] that this one is to become the mark.
pub fn mark(bucket: pgrx::Uuid) -> Result<TimestampWithTimeZone> {
    Bucket::visible(bucket)?;
    MARKING.set(Some(Marking { bucket: *bucket.as_bytes(), allowed: false }));
    let _ended = Ended;
    catalog::write(
        "DELETE FROM storage.buckets b WHERE b.id OPERATOR(pg_catalog.=) $1",
        &[bucket.into()],
        |_| Ok(()),
    )?;
    let marked_at: Option<TimestampWithTimeZone> = catalog::as_owner(|| {
        catalog::write("SELECT storage_private.marked_at($1)", &[bucket.into()], |rows| {
            Ok(rows.first().get_one()?)
        })
    })?;
    match (marked_at, MARKING.get().is_some_and(|marking| marking.allowed)) {
        (Some(marked_at), true) => Ok(marked_at),
        // Somebody else marked it while the DELETE waited for him.
        (Some(_), false) => Err(not_found(&shown_id(bucket))),
        (None, _) => Err(Failure::new(Token::RbacForbidden, "you may not delete this bucket")
            .detail(format!("Bucket {bucket}."))
            .hint("The DELETE policies of storage.buckets decide who may.")),
    }
}

/// Whether the DELETE of [`mark`] has just reached this bucket.
pub fn is_being_marked(bucket: pgrx::Uuid) -> bool {
    let Some(marking) = MARKING.get().filter(|marking| marking.bucket == *bucket.as_bytes()) else {
        return false;
    };
    MARKING.set(Some(Marking { allowed: true, ..marking }));
    true
}
