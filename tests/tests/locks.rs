//! What those who run SQL of their own can keep others waiting with: nothing that they can compute the key of.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::Scene;
use pg_storage_tests::flow::{Upload, confirm, sha256};
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

/// The key that sessions line up behind while one of them makes a physical bucket ready, as the source says it.
fn provisioning_key(scene: &Scene, physical_name: &str) -> (u32, u32) {
    let mut text = Vec::new();
    for part in ["pg_storage provisioning", &scene.store.endpoint, physical_name] {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    let hash = sha256(&text);
    (u32::from_str_radix(&hash[..8], 16).unwrap(), u32::from_str_radix(&hash[8..16], 16).unwrap())
}

#[test]
fn nobody_waits_for_locks_that_anybody_can_take() {
    let scene = Scene::local();
    scene.set("pg_storage.max_pending_uploads", "100");
    let mut ada = scene.user("ada");
    everything(&mut ada);
    let pid = ada.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let mut keys = held_by(&scene, pid);
    assert!(keys.len() >= 3, "a path, a hash and a number of uploads: {keys:?}");
    ada.batch_execute("ROLLBACK").unwrap();
    let mut manager = scene.manager("ada");
    let provision = "SELECT name FROM storage.provision_bucket('private')";
    let physical_name: String = manager.query_one(provision, &[]).unwrap().get(0);
    keys.push(provisioning_key(&scene, &physical_name));
    keys.dedup();

    let mut eve = scene.user("eve");
    hold(&mut eve, &keys);
    everything(&mut ada);
    ada.batch_execute("COMMIT; SET lock_timeout = '10s'").unwrap();
    manager.batch_execute("SET lock_timeout = '10s'").unwrap();
    manager.query_one(provision, &[]).unwrap();
}
