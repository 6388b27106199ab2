//! What the days after a run would bring: whatever is pending expires, every deletion is due, every bucket is compared
//! with the tables.

use crate::client::Client;
use crate::invariants::buckets_in_the_store;
use crate::is_unsteady;
use crate::world::World;
use pg_storage_tests::orphans;
use std::time::{Duration, Instant};

/// Until nothing is left to be done.
pub fn settle(world: &World, clients: &mut [Client]) {
    if world.confirms {
        clients.iter_mut().for_each(|client| client.ledger.expect_confirmations());
    }
    world
        .scene
        .superuser()
        .batch_execute(
            "UPDATE storage.upload_requests SET expires_at = now() - interval '1 s', claimed_until = NULL
             WHERE status = 'requested'",
        )
        .expect("expire what is pending");
    work_off(world);
    record_every_bucket(world, clients);
    // Only what is older than the last transaction counts as left behind.
    orphans::grow_old();
    for bucket in buckets_in_the_store(world) {
        for found in orphans::scan(&world.scene, &bucket, true) {
            if found.kind != "object_without_row" {
                world.violation(format!("in {bucket}: {found:?}"));
            }
        }
    }
    work_off(world);
}

/// How long the queue may take to become empty on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Passes of maintenance until the queue is empty.
fn work_off(world: &World) {
    let began = Instant::now();
    loop {
        // As if the hours had passed: also the leases of those who died are over.
        world
            .scene
            .superuser()
            .batch_execute("UPDATE storage.object_deletions SET not_before = now(), claimed_until = NULL")
            .expect("make due");
        let [.., failed] = world.scene.maintain();
        // Of three nodes one comes and goes all the time; what failed for that is tried again.
        assert!(failed == 0 || is_unsteady(), "{failed} deletions failed without any fault");
        let left: i64 = world.scene.value(
            "SELECT (SELECT count(*) FROM storage.object_deletions)
                  + (SELECT count(*) FROM storage.upload_requests WHERE status = 'requested')
                  + (SELECT count(*) FROM storage.buckets WHERE deleted_at IS NOT NULL)",
        );
        if left == 0 {
            return;
        }
        // The worker may be at some of them.
        std::thread::sleep(Duration::from_millis(300));
        if began.elapsed() > PATIENCE {
            let why: Option<String> = world.scene.value(
                "SELECT string_agg(DISTINCT concat(reason, ' after ', attempts, ': ', last_error), E'\\n')
                 FROM storage.object_deletions",
            );
            panic!("{left} deletions stay queued however often they are tried:\n{}", why.unwrap_or_default());
        }
    }
}

/// A bucket whose first use was rolled back is in the store, and comes on record with its next use: also of those who
/// had deleted theirs.
fn record_every_bucket(world: &World, clients: &[Client]) {
    for client in clients {
        world.scene.try_session(&client.user, &client.tenant, true).expect("make buckets without faults");
    }
    world
        .scene
        .superuser()
        .batch_execute(
            "SELECT storage.provision_bucket(b.id::text) FROM storage.buckets b
             WHERE NOT EXISTS (SELECT FROM storage.physical_buckets p WHERE p.name = b.physical_name)",
        )
        .expect("provision without faults");
}
