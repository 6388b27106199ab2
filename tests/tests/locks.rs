//! What those who run SQL of their own can keep others waiting with: nothing that they can compute the key of.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::Scene;
use pg_storage_tests::flow::{Upload, confirm};
use postgres::Client;

const BYTES: &[u8] = b"somebody waits";

/// Takes every advisory lock under which somebody else's locks are known, in each of the forms that SQL has.
fn hold(session: &mut Client, keys: &[(u32, u32)]) {
    for (high, low) in keys {
        let whole = (i64::from(*high) << 32) | i64::from(*low);
        let (high, low) = (high.cast_signed(), low.cast_signed());
        let got: bool = session
            .query_one(
                "SELECT pg_try_advisory_lock($1) AND pg_try_advisory_lock($2, $3) AND pg_try_advisory_lock($3, $2)",
                &[&whole, &high, &low],
            )
            .unwrap()
            .get(0);
        assert!(got, "somebody has {whole} already");
    }
}

/// The locks that a session holds in the open, as anybody can read them.
fn held_by(scene: &Scene, pid: i32) -> Vec<(u32, u32)> {
    let query = "SELECT classid::int8, objid::int8 FROM pg_locks WHERE pid = $1 AND locktype = 'advisory'";
    let number = |value: i64| u32::try_from(value).unwrap();
    scene
        .superuser()
        .query(query, &[&pid])
        .unwrap()
        .iter()
        .map(|row| (number(row.get(0)), number(row.get(1))))
        .collect()
}

/// What a first use, a request and a confirmation of these bytes do, in a transaction that is left open.
fn everything(session: &mut Client) {
    session.batch_execute("BEGIN; SET LOCAL lock_timeout = '10s'").unwrap();
    let upload = Upload::declared(BYTES).at("a/path");
    let ticket = upload.request(session);
    assert_eq!(ticket.put(BYTES).status, 200);
    assert_eq!(confirm(session, &ticket.upload_id).outcome(), ("uploaded", None));
}

/// The locks that a first use, a request and a confirmation of ada's leave held.
fn keys_of_everything(scene: &Scene) -> Vec<(u32, u32)> {
    scene.set("pg_storage.max_pending_uploads", "100");
    let mut ada = scene.user("ada");
    everything(&mut ada);
    let pid = ada.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let keys = held_by(scene, pid);
    assert!(keys.len() >= 3, "a path, a hash and a number of uploads: {keys:?}");
    ada.batch_execute("ROLLBACK").unwrap();
    keys
}

#[test]
fn nobody_waits_for_locks_that_anybody_can_take() {
    let scene = Scene::local();
    let keys = keys_of_everything(&scene);
    let mut eve = scene.user("eve");
    hold(&mut eve, &keys);
    let mut ada = scene.user("ada");
    everything(&mut ada);
    ada.batch_execute("COMMIT").unwrap();
}

/// Could it be computed, whoever chooses the path of a file could choose one that has the lock of somebody else's.
#[test]
fn what_has_which_lock_is_a_secret_of_the_database() {
    // The same tenant, user and bytes.
    let [first, second] = [(); 2].map(|()| keys_of_everything(&Scene::local()));
    let alike: Vec<_> = first.iter().filter(|key| second.contains(key)).collect();
    assert!(alike.is_empty(), "{alike:?}");
    // It does not change, nor does it depend on the session.
    let scene = Scene::local();
    let [mut before, mut after] = [(); 2].map(|()| keys_of_everything(&scene));
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(before.len(), after.len());
    assert!(before.iter().any(|key| after.contains(key)));
}
