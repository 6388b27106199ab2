//! Whoever breaks things: processes of the server, the store, and the way between them.

use crate::world::World;
use pg_storage_tests::{Fault, LocalStore, Rng, Stop, eventually, process};
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

/// What single requests suffer, all through a run.
pub const DRIZZLE: [Fault; 11] = [
    Fault::Denied,
    Fault::InternalError,
    Fault::SlowDown,
    Fault::ErrorInSuccess,
    Fault::Slow(Duration::from_millis(2500)),
    Fault::Silent,
    Fault::Reset,
    Fault::Truncated,
    Fault::ReplyLost,
    Fault::Duplicate(Duration::from_millis(700)),
    Fault::Drip(Duration::from_millis(20)),
];

/// How long a crashed server may take to accept connections again.
const RECOVERY: Duration = Duration::from_secs(60);

/// One way to break something; each is over when it returns.
#[derive(Clone, Copy, Debug)]
enum Act {
    Cancel,
    Terminate,
    KillBackend,
    KillWorker,
    KillLauncher,
    TerminateWorker,
    KillPostmaster,
    StopImmediately,
    StopFast,
    Store(StoreAct),
    Disturb(Fault),
}

/// One way to break the store.
#[derive(Clone, Copy, Debug)]
enum StoreAct {
    Kill,
    Freeze,
    FillDisk,
    Skew(&'static str),
}

/// Keeps count of what it killed, to tell it from what died by itself.
pub struct Saboteur {
    world: &'static World,
    /// `None`: a store that is left in peace, but for its requests.
    store: Option<LocalStore>,
    rng: Rng,
    round: Vec<Act>,
    /// Processes of the server that were killed while the rest was left alive.
    pub killed: BTreeSet<u32>,
    /// How often the server was started.
    pub starts: usize,
    /// How many rounds were completed.
    pub rounds: usize,
}

impl Saboteur {
    pub fn new(world: &'static World, store: Option<LocalStore>, rng: Rng) -> Self {
        Self { world, store, rng, round: Vec::new(), killed: BTreeSet::new(), starts: 1, rounds: 0 }
    }

    pub fn world(&self) -> &'static World {
        self.world
    }

    /// Breaks one thing, waits a while, and mends it. Each round has everything once, in another order.
    pub fn act(&mut self) {
        if self.round.is_empty() {
            self.round = round(self.store.is_some());
            self.rng.shuffle(&mut self.round);
        }
        let Some(act) = self.round.pop() else { return };
        self.rounds += usize::from(self.round.is_empty());
        let pause = Duration::from_millis(300 + self.rng.below(1500));
        match act {
            Act::Cancel => drop(self.signal_backend("INT", "cancel")),
            Act::Terminate => drop(self.signal_backend("TERM", "terminate")),
            Act::KillBackend => {
                let victim = self.signal_backend("KILL", "kill -9 of a backend");
                self.await_recovery(victim);
            }
            Act::KillWorker => {
                let victim = self.signal_one("KILL", "kill -9 of the worker", is_worker);
                self.await_recovery(victim);
            }
            Act::KillLauncher => {
                let is_launcher = |title: &str| title.contains("pg_storage launcher");
                let victim = self.signal_one("KILL", "kill -9 of the launcher", is_launcher);
                self.await_recovery(victim);
            }
            Act::TerminateWorker => drop(self.signal_one("TERM", "terminate the worker", is_worker)),
            Act::KillPostmaster => {
                self.world.cluster.kill();
                self.start("kill -9 of the postmaster");
            }
            Act::StopImmediately => {
                self.world.cluster.stop(Stop::Immediate);
                self.start("stop -m immediate");
            }
            Act::StopFast => {
                self.world.cluster.stop(Stop::Fast);
                self.start("stop -m fast");
            }
            Act::Store(act) => {
                if let Some(store) = &mut self.store {
                    self.world.inflicted(break_store(store, act, pause));
                }
            }
            Act::Disturb(fault) => {
                self.world.proxy.set("", fault);
                sleep(pause / 2);
                self.world.proxy.clear();
                self.world.inflicted("store: every request disturbed for a while");
            }
        }
        sleep(Duration::from_millis(200 + self.rng.below(1200)));
    }

    /// Signals a session of a client; its process id, if there was one.
    fn signal_backend(&mut self, signal: &str, name: &str) -> Option<u32> {
        let database = format!(" {} ", self.world.scene.database.name());
        self.signal_one(signal, name, |title| {
            title.contains(&database) && !title.contains("pg_storage worker")
        })
    }

    fn signal_one(&mut self, signal: &str, name: &str, fits: impl Fn(&str) -> bool) -> Option<u32> {
        let mut victims = process::children_of(self.world.cluster.postmaster_pid());
        victims.retain(|pid| fits(&process::title(*pid)));
        if victims.is_empty() {
            return None;
        }
        let victim = self.rng.pick(&victims);
        process::try_signal(victim, signal).then(|| {
            self.world.inflicted(name);
            victim
        })
    }

    /// After a kill: the server takes all sessions down and begins anew, unless the victim was just ending by itself.
    fn await_recovery(&mut self, victim: Option<u32>) {
        let Some(victim) = victim else { return };
        self.killed.insert(victim);
        eventually("the end of the killed process", RECOVERY, || (!process::is_alive(victim)).then_some(()));
        // Until the postmaster notices, it goes on accepting connections.
        sleep(Duration::from_millis(200));
        self.await_connections();
    }

    fn start(&mut self, fault: &str) {
        self.world.cluster.start_again();
        self.starts += 1;
        self.world.inflicted(fault);
        self.await_connections();
    }

    fn await_connections(&self) {
        eventually("the server to accept connections again", RECOVERY, || {
            self.world.cluster.try_connect("postgres", "postgres").ok()?.query_one("SELECT 1", &[]).ok()
        });
    }
}

/// Breaks the store, waits a while, and mends it; its name.
fn break_store(store: &mut LocalStore, act: StoreAct, pause: Duration) -> &'static str {
    match act {
        StoreAct::Kill => {
            store.stop("KILL");
            sleep(pause);
            store.start_again();
            "store: kill -9"
        }
        StoreAct::Freeze => {
            store.freeze();
            // Longer than the server waits for it, now and then.
            sleep(pause * 2);
            store.thaw();
            "store: frozen"
        }
        StoreAct::FillDisk => {
            store.set_disk_full(true);
            sleep(pause);
            store.set_disk_full(false);
            "store: disk full"
        }
        StoreAct::Skew(offset) => {
            store.stop("TERM");
            store.start_skewed(offset);
            sleep(pause);
            store.restart("TERM");
            if offset.starts_with('+') {
                "store: clock 20 minutes ahead"
            } else {
                "store: clock 20 minutes behind"
            }
        }
    }
}

fn is_worker(title: &str) -> bool {
    title.contains("pg_storage worker")
}

fn round(with_store: bool) -> Vec<Act> {
    let mut acts = vec![
        Act::Cancel,
        Act::Cancel,
        Act::Terminate,
        Act::Terminate,
        Act::KillBackend,
        Act::KillBackend,
        Act::KillWorker,
        Act::KillLauncher,
        Act::TerminateWorker,
        Act::KillPostmaster,
        Act::StopImmediately,
        Act::StopFast,
    ];
    if with_store {
        let twice = [StoreAct::Kill, StoreAct::Freeze, StoreAct::FillDisk].map(Act::Store);
        acts.extend(twice);
        acts.extend(twice);
        acts.extend(["+20m", "-20m"].map(|offset| Act::Store(StoreAct::Skew(offset))));
    }
    acts.extend(DRIZZLE.map(Act::Disturb));
    acts
}
