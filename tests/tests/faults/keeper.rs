//! Whoever runs maintenance beside the load, as a server without the worker would have it done.

use crate::world::World;
use pg_storage_tests::{Refusal, Rng};
use postgres::{Client, Error};
use std::time::Duration;

/// What a pass may fail of: a cancel, or a server that goes away. A store that fails is not an error of the pass.
const EXPECTED: [&str; 1] = ["57014"];

/// Maintains until the run is over.
pub fn keep(world: &'static World, mut rng: Rng) {
    let mut session: Option<Client> = None;
    while !world.is_finishing() {
        std::thread::sleep(Duration::from_millis(rng.below(1200)));
        let client = match session.as_mut().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let Ok(mut client) = world.cluster.try_connect("postgres", world.scene.database.name())
                else {
                    continue;
                };
                // A pass waits for nobody but the store.
                if client.batch_execute("SET lock_timeout = '10s'; SET statement_timeout = '30s'").is_err() {
                    continue;
                }
                session.insert(client)
            }
        };
        let passed = world.watched("the keeper", "run_maintenance", || {
            client.query_one("SELECT * FROM storage.run_maintenance()", &[])
        });
        world.did("run_maintenance");
        if let Err(error) = passed {
            explain(world, &error);
        }
    }
}

fn explain(world: &World, error: &Error) {
    if let Some(refusal) = Refusal::of(error).filter(|refusal| !refusal.sqlstate.starts_with("57P")) {
        world.refused(&refusal);
        if !EXPECTED.contains(&refusal.sqlstate.as_str()) {
            world.violation(format!("run_maintenance failed: {refusal:?}"));
        }
    }
}
