//! Those who work for the house: their sessions, and the one who runs maintenance beside the worker.

use crate::CLIENTS;
use crate::world::World;
use pg_storage_tests::{Refusal, Rng};
use postgres::{Client, Error};
use std::time::Duration;

/// Gives a bucket that users have to themselves a limit, or takes it away.
const LIMIT: &str = "
    UPDATE storage.buckets b
    SET max_file_count = CASE WHEN b.max_file_count IS NULL THEN used.files + 6 END
    FROM (SELECT count(*) AS files FROM storage.files f JOIN storage.buckets o ON o.id = f.bucket_id
          WHERE o.owner_id = $1 AND o.key = 'public') AS used
    WHERE b.owner_id = $1 AND b.key = 'public'";

/// Limits that stay, for what is counted over a whole run.
const LASTING_LIMIT: &str =
    "UPDATE storage.buckets SET max_total_size = 1000000000 WHERE key = 'temp' AND max_total_size IS NULL";

/// A session of the superuser that comes back after every break.
pub struct Staff {
    world: &'static World,
    name: &'static str,
    client: Option<Client>,
}

impl Staff {
    pub fn new(world: &'static World, name: &'static str) -> Self {
        Self { world, name, client: None }
    }

    /// Ends the connection without a word.
    pub fn leave(&mut self) {
        self.client = None;
    }

    /// Runs something, in a session that is made if need be. Nothing but a cancel or the end of the server may stop it:
    /// a store that fails is not an error here.
    pub fn ask<T>(
        &mut self,
        what: &'static str,
        statement: impl FnOnce(&mut Client) -> Result<T, Error>,
    ) -> Option<T> {
        let world = self.world;
        if self.client.as_ref().is_none_or(Client::is_closed) {
            self.client = world.cluster.try_connect("postgres", world.scene.database.name()).ok();
            // These wait for nobody but the store.
            let limits = "SET lock_timeout = '10s'; SET statement_timeout = '30s'";
            self.client.as_mut()?.batch_execute(limits).ok()?;
        }
        let client = self.client.as_mut()?;
        let result = world.watched(self.name, what, || statement(client));
        world.did(what);
        if let Err(error) = &result {
            self.explain(what, error);
            // It may be in a transaction that has failed.
            self.leave();
        }
        result.ok()
    }

    fn explain(&self, what: &str, error: &Error) {
        if let Some(refusal) = Refusal::of(error).filter(|refusal| !refusal.sqlstate.starts_with("57P")) {
            self.world.refused(&refusal);
            // A limit that waits for uploads under way, or a scan for another one, and gives up; and a scan that
            // cannot go on without the store.
            let excused = match what {
                "limit" => refusal.sqlstate == "55P03",
                "scan_orphans" => ["55P03", "58030"].contains(&refusal.sqlstate.as_str()),
                _ => false,
            };
            if refusal.sqlstate != "57014" && !excused {
                self.world.violation(format!("{what} failed: {refusal:?}"));
            }
        }
    }
}

/// Scans a bucket, and repairs it as the worker does; a file whose bytes the store does not have is a loss.
fn scan(world: &World, client: &mut Client, choice: u64) -> Result<(), Error> {
    let buckets =
        client.query("SELECT name FROM storage.physical_buckets WHERE state = 'ready' ORDER BY name", &[])?;
    if buckets.is_empty() {
        return Ok(());
    }
    let bucket: String = buckets[choice as usize % buckets.len()].get(0);
    let scan = "SELECT kind::text, object_id::text
                FROM storage.scan_orphans($1, current_setting('pg_storage.orphan_min_age')::interval, true)";
    for row in client.query(scan, &[&bucket])? {
        let (kind, object): (String, Option<String>) = (row.get(0), row.get(1));
        world.ended(&format!("scan: {kind}"));
        let used = "SELECT EXISTS (SELECT FROM storage.files WHERE object_id::text = $1)";
        if kind == "row_without_object" && client.query_one(used, &[&object])?.get(0) {
            world.violation(format!("{bucket}: object {object:?} has files, and the store does not have it"));
        }
    }
    Ok(())
}

/// Maintains until the run is over.
pub fn keep(world: &'static World, mut rng: Rng) {
    let mut session = Staff::new(world, "the keeper");
    while !world.is_finishing() {
        std::thread::sleep(Duration::from_millis(rng.below(3000)));
        session.ask("limit", |client| client.execute(LASTING_LIMIT, &[]));
        if rng.percent(25) {
            let user = format!("user{}", rng.below(CLIENTS as u64));
            session.ask("limit", |client| client.execute(LIMIT, &[&user]));
        }
        if rng.percent(25) {
            session.ask("scan_orphans", |client| scan(world, client, rng.number()));
        }
        session.ask("run_maintenance", |client| {
            if rng.percent(10) {
                // Whoever runs it in a transaction of their own may think better of it.
                client.batch_execute("BEGIN; SELECT storage.run_maintenance(); ROLLBACK")
            } else {
                client.batch_execute("SELECT storage.run_maintenance()")
            }
        });
    }
}
