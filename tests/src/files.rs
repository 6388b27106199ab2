//! Files through SQL alone, as most tests about them make and look at them.

use crate::{Refusal, Scene, eventually, refused};
use postgres::{Client, Error};
use std::time::Duration;

/// Makes a small text file with metadata; its id.
pub fn try_put(
    session: &mut Client,
    bucket: &str,
    content: &[u8],
    path: Option<&str>,
) -> Result<String, Error> {
    let put = "SELECT (storage.put_file($1, 'note.txt', $2, 'text/plain', $3, '{\"n\": 1.50}')).id::text";
    session.query_one(put, &[&bucket, &content, &path]).map(|row| row.get(0))
}

/// The same, which is not refused.
#[track_caller]
pub fn put(session: &mut Client, bucket: &str, content: &[u8], path: Option<&str>) -> String {
    try_put(session, bucket, content, path).unwrap_or_else(|error| panic!("{:?}", error.as_db_error()))
}

/// The bytes of a small file.
pub fn get(session: &mut Client, file: &str) -> Result<Vec<u8>, Error> {
    session.query_one("SELECT storage.get_file($1::text::uuid)", &[&file]).map(|row| row.get(0))
}

/// The id of the file that a call gives.
#[track_caller]
pub fn made(session: &mut Client, call: &str) -> String {
    match session.query_one(&format!("SELECT (storage.{call}).id::text"), &[]) {
        Ok(row) => row.get(0),
        Err(error) => panic!("{call}: {:?}", error.as_db_error()),
    }
}

/// The refusal of a call, which has a detail and a hint.
#[track_caller]
pub fn refuse(session: &mut Client, call: &str) -> Refusal {
    let refusal = refused(session.query(&format!("SELECT storage.{call}"), &[]));
    assert!(refusal.detail.is_some() && refusal.hint.is_some(), "{call}: {refusal:?}");
    refusal
}

/// The id of the object that a file has.
pub fn object(scene: &Scene, file: &str) -> String {
    scene.value(&format!("SELECT object_id::text FROM storage.files WHERE id = '{file}'"))
}

/// The id of a bucket of somebody's.
pub fn bucket(scene: &Scene, owner: &str, key: &str) -> String {
    scene.value(&format!("SELECT id::text FROM storage.buckets WHERE owner_id = '{owner}' AND key = '{key}'"))
}

/// The versions of a path in a bucket, the current one with a star, each after the one it replaced.
pub fn versions(scene: &Scene, bucket: &str, path: &str) -> String {
    scene.value(&format!(
        "SELECT coalesce(string_agg(concat_ws('<', p.version, f.version) || CASE WHEN f.is_current THEN '*' ELSE '' END, ' ' ORDER BY f.version), '')
         FROM storage.files f LEFT JOIN storage.files p ON p.id = f.previous_version_id
         WHERE f.bucket_id = '{bucket}' AND f.path = '{path}'"
    ))
}

/// Runs `call` in a session of ada's, which must wait for the transaction that `open` is in, and ends that.
pub fn behind(scene: &Scene, open: &mut Client, end: &str, call: String) -> Result<(), Error> {
    let mut waiting = scene.try_session("ada", "default", false).unwrap();
    let pid: i32 = waiting.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let acting = std::thread::spawn(move || waiting.batch_execute(&call));
    eventually("one session to wait for the other", Duration::from_secs(30), || {
        scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
    });
    open.batch_execute(end).unwrap();
    acting.join().unwrap()
}
