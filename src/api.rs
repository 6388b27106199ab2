//! The functions SQL calls, all of them private to `sql/`. Each is safe when called directly: it takes an id and looks
//! at that row as the caller, so nothing here gives more than the caller's own policies.

use pgrx::Uuid;

mod buckets;
mod callers;
mod files;
mod operations;
mod uploads;

/// NULL is the id of no row, and so is the nil UUID: the answer is "not found", in the usual words.
fn or_nil(id: Option<Uuid>) -> Uuid {
    id.unwrap_or_else(|| Uuid::from_bytes([0; 16]))
}
