//! A consumer of the events: it claims, acknowledges some, forgets others, and goes away in the middle.

use crate::keeper::Staff;
use crate::world::World;
use pg_storage_tests::Rng;
use postgres::{Client, Error};
use std::collections::BTreeSet;
use std::time::Duration;

/// Which events it was given.
#[derive(Default)]
pub struct Seen {
    pub ids: BTreeSet<i64>,
    acknowledged: BTreeSet<i64>,
}

/// Consumes until the run is over, and then what is left.
pub fn consume(world: &'static World, mut rng: Rng) -> Seen {
    let mut seen = Seen::default();
    let mut session = Staff::new(world, "the consumer");
    while !world.is_finishing() {
        std::thread::sleep(Duration::from_millis(rng.below(700)));
        let (limit, kept, vanishes) = (1 + rng.below(40) as i32, rng.below(4), rng.percent(10));
        let done = session.ask("claim_events", |client| take(client, limit, kept, vanishes, &mut seen));
        if done.is_none() || vanishes {
            session.leave();
        }
    }
    seen
}

/// Claims and acknowledges, all but every so-manieth; a consumer that vanishes has claimed for nothing.
fn take(client: &mut Client, limit: i32, kept: u64, vanishes: bool, seen: &mut Seen) -> Result<(), Error> {
    if vanishes {
        client.batch_execute("BEGIN")?;
    }
    let ids: Vec<i64> = client
        .query("SELECT id FROM storage.claim_events($1, '2 seconds')", &[&limit])?
        .iter()
        .map(|row| row.get(0))
        .collect();
    if vanishes {
        return Ok(());
    }
    seen.ids.extend(&ids);
    let again: Vec<i64> = ids.iter().copied().filter(|id| seen.acknowledged.contains(id)).collect();
    assert!(again.is_empty(), "acknowledged events come again: {again:?}");
    let done: Vec<i64> =
        ids.into_iter().filter(|id| kept == 0 || !(*id as u64).is_multiple_of(kept + 2)).collect();
    client.execute("SELECT storage.acknowledge_events($1)", &[&done])?;
    // Only what was answered is certain.
    seen.acknowledged.extend(done);
    Ok(())
}

/// Takes what is left, once nothing is in the way.
pub fn drain(world: &World, seen: &mut Seen) {
    let mut client = world.scene.superuser();
    client.batch_execute("UPDATE storage.events SET claimed_until = NULL").expect("end the claims");
    loop {
        let before = seen.ids.len() + seen.acknowledged.len();
        take(&mut client, 10_000, 0, false, seen).expect("consume without faults");
        if seen.ids.len() + seen.acknowledged.len() == before {
            return;
        }
    }
}
