//! What all threads of a run share: the cluster, the way to the store, the counts, and what was found wrong.

use pg_storage_tests::{Cluster, FaultyStore, Refusal, Rng, Scene, flow};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest that a statement may take before its client calls it hung: `statement_timeout` and generous room for a
/// busy machine.
const DEADLINE: Duration = Duration::from_secs(45);

/// How every PNG image begins.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

pub type Counts = BTreeMap<String, usize>;

/// One run.
pub struct World {
    pub cluster: &'static Cluster,
    pub scene: Scene,
    /// Between everybody and the store.
    pub proxy: FaultyStore,
    /// Whether the store refuses bytes that are not those declared, and a second PUT to a key.
    pub enforces: bool,
    /// Whether the server confirms what nobody confirmed.
    pub confirms: bool,
    /// The first of them are asked for most often.
    pub contents: Vec<Arc<Content>>,
    operations: Mutex<Counts>,
    outcomes: Mutex<Counts>,
    faults: Mutex<Counts>,
    violations: Mutex<Vec<String>>,
    calls: Mutex<BTreeMap<String, (&'static str, Instant)>>,
    longest: Mutex<BTreeMap<&'static str, Duration>>,
    finishing: AtomicBool,
}

/// Bytes that several clients upload.
pub struct Content {
    pub bytes: Vec<u8>,
    pub sha256: String,
    /// Whether they begin like an image, which no text does.
    pub contradictory: bool,
}

impl Content {
    pub fn new(bytes: Vec<u8>) -> Self {
        let sha256 = flow::sha256(&bytes);
        Self { contradictory: bytes.starts_with(PNG), bytes, sha256 }
    }
}

impl World {
    pub fn new(
        cluster: &'static Cluster,
        scene: Scene,
        proxy: FaultyStore,
        enforces: bool,
        rng: &mut Rng,
    ) -> Self {
        let confirms = scene.value::<String>("SHOW pg_storage.unconfirmed_uploads") == "confirm";
        let contents = (0..40)
            .map(|number| {
                let length = match rng.below(10) {
                    0 => 1 + rng.below(4),
                    1 => 1_000_000 + rng.below(1_000_000),
                    2..5 => 10_000 + rng.below(100_000),
                    _ => 20 + rng.below(5000),
                };
                let mut bytes = flow::some_bytes(&format!("{number}"), length as usize);
                if number % 16 == 15 {
                    bytes.splice(..0, PNG.iter().copied());
                }
                Arc::new(Content::new(bytes))
            })
            .collect();
        Self {
            cluster,
            scene,
            proxy,
            enforces,
            confirms,
            contents,
            operations: Mutex::default(),
            outcomes: Mutex::default(),
            faults: Mutex::default(),
            violations: Mutex::default(),
            calls: Mutex::default(),
            longest: Mutex::default(),
            finishing: AtomicBool::new(false),
        }
    }

    /// Counts something a client did.
    pub fn did(&self, operation: &str) {
        *lock(&self.operations).entry(operation.to_owned()).or_default() += 1;
    }

    /// Counts how something ended.
    pub fn ended(&self, outcome: &str) {
        *lock(&self.outcomes).entry(outcome.to_owned()).or_default() += 1;
    }

    /// Counts something that was done to the system.
    pub fn inflicted(&self, fault: &str) {
        *lock(&self.faults).entry(fault.to_owned()).or_default() += 1;
    }

    /// Counts an ERROR.
    pub fn refused(&self, refusal: &Refusal) {
        let name = format!("refused: {} {}", refusal.sqlstate, refusal.token);
        self.ended(name.trim_end());
    }

    /// Notes a promise that was broken.
    pub fn violation(&self, what: String) {
        let mut violations = lock(&self.violations);
        if violations.len() < 50 {
            eprintln!("violation: {what}");
        }
        violations.push(what);
    }

    pub fn operations(&self) -> Counts {
        lock(&self.operations).clone()
    }

    pub fn outcomes(&self) -> Counts {
        lock(&self.outcomes).clone()
    }

    /// Everything inflicted so far, on processes and on requests.
    pub fn faults(&self) -> Counts {
        let mut faults = lock(&self.faults).clone();
        for (name, count) in self.proxy.injected() {
            faults.insert(format!("request: {name}"), count);
        }
        faults
    }

    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// The longest that anybody waited for a statement of each kind, in milliseconds.
    pub fn longest(&self) -> Counts {
        let longest = lock(&self.longest);
        longest.iter().map(|(what, took)| ((*what).to_owned(), took.as_millis() as usize)).collect()
    }

    /// From now on clients settle what is open and end.
    pub fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
    }

    pub fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Acquire)
    }

    /// Runs a statement of `who` under the watch.
    pub fn watched<T>(&self, who: &str, what: &'static str, statement: impl FnOnce() -> T) -> T {
        lock(&self.calls).insert(who.to_owned(), (what, Instant::now()));
        let result = statement();
        let Some((_, begun)) = lock(&self.calls).remove(who) else { return result };
        let took = begun.elapsed();
        if took > DEADLINE {
            self.violation(format!("{who} waited {took:?} for {what}"));
        }
        let mut longest = lock(&self.longest);
        let longest = longest.entry(what).or_default();
        *longest = took.max(*longest);
        result
    }

    /// Ends the process when a statement does not come back at all, for its thread cannot be ended.
    pub fn watch(&self) {
        for (who, (what, begun)) in lock(&self.calls).iter() {
            if begun.elapsed() > 3 * DEADLINE {
                eprintln!("{who} has been waiting {:?} for {what}; the server's log:", begun.elapsed());
                eprintln!("{}", self.cluster.log().lines().rev().take(60).collect::<Vec<_>>().join("\n"));
                std::process::exit(1);
            }
        }
    }
}

pub fn total(counts: &Counts) -> usize {
    counts.values().sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
