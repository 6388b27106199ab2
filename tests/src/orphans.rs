//! `scan_orphans()` as a DBA calls it.

use crate::flow::{Ticket, Upload};
use crate::{Scene, eventually};
use postgres::{Client, Error};
use std::time::Duration;

/// One row of `storage.scan_orphans()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// object_without_row, row_without_object, foreign_object.
    pub kind: String,
    /// The key in the store.
    pub key: String,
    /// Whether its deletion is queued.
    pub queued: bool,
}

/// Scans, or says why that was refused. `min_age` is an interval as PostgreSQL spells it.
pub fn try_scan(
    session: &mut Client,
    physical: &str,
    min_age: &str,
    repair: bool,
) -> Result<Vec<Orphan>, Error> {
    let rows = session.query(
        "SELECT kind::text, key, queued FROM storage.scan_orphans($1, $2::text::interval, $3)",
        &[&physical, &min_age, &repair],
    )?;
    Ok(rows.iter().map(|row| Orphan { kind: row.get(0), key: row.get(1), queued: row.get(2) }).collect())
}

/// Scans for bytes of any age.
#[track_caller]
pub fn scan(scene: &Scene, physical: &str, repair: bool) -> Vec<Orphan> {
    match try_scan(&mut scene.superuser(), physical, "0", repair) {
        Ok(found) => found,
        Err(error) => panic!("the scan was refused: {:?}", error.as_db_error()),
    }
}

/// Requests an upload, puts `bytes`, and rolls the request back. Gives the ticket, and bucket and key of the bytes.
pub fn rolled_back(scene: &Scene, user: &str, begin: &str, bytes: &[u8]) -> (Ticket, (String, String)) {
    let mut session = scene.user(user);
    session.batch_execute(begin).expect("BEGIN");
    let ticket = Upload::declared(bytes).request(&mut session);
    let answer = ticket.put(bytes);
    assert!(answer.is_success(), "PUT: {} {}", answer.status, answer.text());
    let row = session
        .query_one(
            "SELECT physical_name, object_key FROM storage.upload_requests WHERE id = $1::text::uuid",
            &[&ticket.upload_id],
        )
        .expect("read the request");
    let place = (row.get(0), row.get(1));
    session.batch_execute("ROLLBACK").expect("ROLLBACK");
    (ticket, place)
}

/// What confirmations of an upload have copied and is still there: keys below its final key.
pub fn copies(scene: &Scene, upload_id: &str) -> Vec<(String, String)> {
    let (bucket, stem) = scene.place_of_final_key(upload_id);
    let below = format!("{stem}/");
    let keys = scene.store.listing(&bucket).into_keys().filter(|key| key.starts_with(&below));
    keys.map(|key| (bucket.clone(), key)).collect()
}

/// Waits until reconciliation has removed what confirmations of an upload copied.
pub fn until_no_copies(scene: &Scene, upload_id: &str) {
    let (bucket, _) = scene.place_of_final_key(upload_id);
    eventually("the removal of the copies", Duration::from_secs(60), || {
        scan(scene, &bucket, true);
        scene.maintain();
        copies(scene, upload_id).is_empty().then_some(())
    });
}

/// Until whole seconds, in which stores tell the time, tell what is there already from what comes now.
pub fn grow_old() {
    std::thread::sleep(Duration::from_secs(4));
}
