//! A load of real clients while processes are killed, the store fails in every way and the network lies; then every
//! row and every object is looked at. A row of `files` has its bytes, what was committed is there, what was rolled back
//! is not, and nothing is left in the store that no row names.
//!
//! `PG_STORAGE_FAULT_SEED` repeats a run, `PG_STORAGE_FAULT_OPERATIONS` makes it longer; see CONTRIBUTING.md.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod actions;
mod client;
mod consumer;
mod invariants;
mod keeper;
mod ledger;
mod saboteur;
mod session;
mod settle;
mod world;

use client::Client;
use keeper::Staff;
use pg_storage_tests::choice::Kind;
use pg_storage_tests::scene::remote;
use pg_storage_tests::{Cluster, FaultyStore, Garage, LocalStore, Rng, Scene, StoreAccess, say};
use saboteur::{DRIZZLE, Saboteur};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use world::{Counts, World, total};

const CLIENTS: usize = 8;

/// At least one fault for so many operations.
const OPERATIONS_PER_FAULT: usize = 50;

/// At least one round of everything that can be done to processes for so many operations.
const OPERATIONS_PER_ROUND: usize = 3500;

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value}")))
}

fn print(title: &str, counts: &Counts) {
    say(&format!("{title}:"));
    for (name, count) in counts {
        say(&format!("  {count:6} {name}"));
    }
}

#[test]
fn nothing_is_lost_and_nothing_left_behind_whatever_fails() {
    let store = LocalStore::start();
    let access = store.access().clone();
    run(&access, Some(store), target());
}

/// A store that does not refuse both, other bytes than those declared and a second PUT: the chosen one, if it is such.
#[test]
fn nothing_is_lost_on_a_store_where_uploads_are_staged() {
    let access = Kind::chosen_access().unwrap_or_else(|| Garage::shared().access());
    run(access, None, target() / 5);
}

fn target() -> usize {
    setting("PG_STORAGE_FAULT_OPERATIONS").unwrap_or(10_000) as usize
}

/// Only what the run is about: two at once would be in each other's way.
static ALONE: Mutex<()> = Mutex::new(());

fn run(access: &StoreAccess, store: Option<LocalStore>, target: usize) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seed = setting("PG_STORAGE_FAULT_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
        now.subsec_nanos().into()
    });
    say(&format!("PG_STORAGE_FAULT_SEED={seed}, {target} operations"));

    let begun = Instant::now();
    let mut rng = Rng::new(seed);
    let world = open(access, store.is_some(), &mut rng);
    if world.confirms {
        say("the server confirms what nobody confirmed");
    }
    let saboteur = Saboteur::new(world, store, rng.fork());
    world.proxy.disturb(rng.number(), 60, &DRIZZLE);

    let clients: Vec<Client> = (0..CLIENTS)
        .map(|number| {
            let buckets = &["private", "private", "private", "shared", "shared", "public", "temp"];
            Client::new(world, &format!("user{number}"), "default", buckets, rng.fork())
        })
        .collect();
    let (mut newcomers, keeper, consumer) = (rng.fork(), rng.fork(), rng.fork());
    let (mut clients, saboteur, mut seen) = std::thread::scope(|scope| {
        let working: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(move || client.work(usize::MAX))).collect();
        let keeping = scope.spawn(move || keeper::keep(world, keeper));
        let consuming = scope.spawn(move || consumer::consume(world, consumer));
        let arriving = scope.spawn(move || arrive(world, &mut newcomers));
        let sabotaging = scope.spawn(move || sabotage(saboteur, target, begun));
        while !sabotaging.is_finished() {
            world.watch();
            std::thread::sleep(Duration::from_millis(200));
        }
        // Whatever happened to it, the others must come to an end.
        world.proxy.heal();
        world.finish();
        let saboteur = sabotaging.join().expect("the saboteur came to its end");
        let mut clients = arriving.join().expect("the newcomers came to their end");
        clients.extend(working.into_iter().map(|client| client.join().expect("a client came to its end")));
        keeping.join().expect("the keeper came to its end");
        (clients, saboteur, consuming.join().expect("the consumer came to its end"))
    });
    let (operations, faults) = (world.operations(), world.faults());
    print("operations", &operations);
    print("faults", &faults);
    print("outcomes", &world.outcomes());
    print("longest waits in milliseconds", &world.longest());
    say(&format!(
        "{} operations, {} faults in {} rounds, {} clients, {:?}",
        total(&operations),
        total(&faults),
        saboteur.rounds,
        clients.len(),
        begun.elapsed()
    ));

    world.proxy.wait_until_idle();
    settle::settle(world, &mut clients);
    consumer::drain(world, &mut seen);
    invariants::check(world, &mut clients, &seen, &saboteur);
    say(&format!("looked at everything after {:?}", begun.elapsed()));
    let violations = world.violations();
    assert!(
        violations.is_empty(),
        "{} violations with PG_STORAGE_FAULT_SEED={seed}, {target} operations:\n{}",
        violations.len(),
        violations.join("\n")
    );
    assert!(total(&operations) >= target && total(&faults) >= target / OPERATIONS_PER_FAULT);
}

/// Whether the store fails without our doing.
fn is_unsteady() -> bool {
    Kind::chosen() == Some(Kind::GarageThree)
}

/// A cluster whose sessions and clients reach the store through the proxy only.
fn open(store: &StoreAccess, enforces: bool, rng: &mut Rng) -> &'static World {
    let proxy = FaultyStore::before(&store.endpoint);
    let options = remote(&StoreAccess { endpoint: proxy.endpoint(), ..store.clone() })
        .setting("max_prepared_transactions", "50")
        .setting("pg_storage.deletion_delay", "0")
        .setting("pg_storage.worker_interval", "1")
        .setting("pg_storage.unconfirmed_uploads", if rng.percent(50) { "confirm" } else { "expire" })
        .setting("pg_storage.reconcile_interval", "3")
        // Where the store's clock is set back, what has just been written looks old for as long as that.
        .setting("pg_storage.orphan_min_age", if enforces { "3600" } else { "0" })
        // A run may last longer than the usual lifetime; the uploads that expire ask for it.
        .setting("pg_storage.upload_url_ttl", "86400")
        .setting("pg_storage.connect_timeout", "1000")
        // Of three nodes one is away half of the time, and hundreds of deletions in one call take longer there.
        .setting("pg_storage.request_timeout", if is_unsteady() { "10000" } else { "2000" });
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(options)));
    let scene = Scene::on(cluster, store);
    scene.shared_bucket();
    cluster.set("pg_storage.databases", scene.database.name());
    cluster.reload();
    Box::leak(Box::new(World::new(cluster, scene, proxy, enforces, rng)))
}

/// One tenant after the other begins, so that buckets are provisioned all through the run.
fn arrive(world: &'static World, rng: &mut Rng) -> Vec<Client> {
    let mut arrived = Vec::new();
    while !world.is_finishing() {
        let tenant = format!("tenant{}", arrived.len());
        let client = Client::new(world, "founder", &tenant, &["private", "public", "temp"], rng.fork());
        let mut client = client.work(12);
        if rng.percent(40) {
            leave(world, &mut client);
        }
        arrived.push(client);
    }
    arrived
}

/// A tenant's buckets are deleted, with all that is in them.
fn leave(world: &'static World, client: &mut Client) {
    let mut session = Staff::new(world, "the registrar");
    let delete = "SELECT storage.delete_bucket(id::text, force => true) FROM storage.buckets
                  WHERE tenant_id = $1 AND deleted_at IS NULL";
    // Repeated until it was answered; what is deleted already is not asked for again.
    while session.ask("delete_bucket", |staff| staff.execute(delete, &[&client.tenant])).is_none() {
        std::thread::sleep(Duration::from_millis(100));
    }
    client.ledger.bury();
}

/// Breaks things until there was enough of everything.
fn sabotage(mut saboteur: Saboteur, target: usize, begun: Instant) -> Saboteur {
    let world = saboteur.world();
    loop {
        saboteur.act();
        let (operations, faults) = (total(&world.operations()), total(&world.faults()));
        let rounds = 1 + target / OPERATIONS_PER_ROUND;
        if operations >= target && faults >= target / OPERATIONS_PER_FAULT && saboteur.rounds >= rounds {
            return saboteur;
        }
        let limit = Duration::from_secs(1200).max(Duration::from_millis(target as u64 * 120));
        assert!(begun.elapsed() < limit, "after {limit:?} only {operations} operations and {faults} faults");
    }
}
