//! A way to a store on which a test can have requests refused, delayed, lost, repeated, left unanswered, or counted.

mod exchange;
mod fault;

use crate::eventually;
use crate::rng::Rng;
use exchange::Exchange;
pub use fault::Fault;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A proxy in front of a store, one request to a connection. Bytes pass unchanged; the signatures stay good, because
/// they name the proxy.
pub struct FaultyStore {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    upstream: String,
    faults: Mutex<Vec<(String, Fault)>>,
    plan: Mutex<Option<Plan>>,
    injected: Mutex<BTreeMap<&'static str, usize>>,
    lines: Mutex<Vec<String>>,
    waiting: Arc<AtomicUsize>,
    busy: AtomicUsize,
    closing: AtomicBool,
}

/// Faults that befall requests at random.
struct Plan {
    rng: Rng,
    one_in: u64,
    faults: Vec<Fault>,
}

impl FaultyStore {
    /// Opens a free port in front of `endpoint`, `http://127.0.0.1:port`. Without faults it changes nothing.
    pub fn before(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            upstream: endpoint.trim_start_matches("http://").to_owned(),
            faults: Mutex::new(Vec::new()),
            plan: Mutex::new(None),
            injected: Mutex::new(BTreeMap::new()),
            lines: Mutex::new(Vec::new()),
            waiting: Arc::new(AtomicUsize::new(0)),
            busy: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || {
                for stream in listener.incoming().flatten() {
                    if shared.closing.load(Ordering::Acquire) {
                        break;
                    }
                    let shared = shared.clone();
                    std::thread::spawn(move || {
                        shared.busy.fetch_add(1, Ordering::AcqRel);
                        // A connection that breaks is its caller's business.
                        let _ = shared.serve(stream);
                        shared.busy.fetch_sub(1, Ordering::AcqRel);
                    });
                }
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    /// `http://127.0.0.1:port`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on, requests whose first line (`PUT /bucket?cors HTTP/1.1`) holds `text` have this fault.
    pub fn set(&self, text: &str, fault: Fault) {
        lock(&self.shared.faults).push((text.to_owned(), fault));
    }

    /// From now on, one request in so many has one of these faults, both drawn from the seed.
    pub fn disturb(&self, seed: u64, one_in: u64, faults: &[Fault]) {
        *lock(&self.shared.plan) = Some(Plan { rng: Rng::new(seed), one_in, faults: faults.to_vec() });
    }

    /// From now on, every request is passed on at once.
    pub fn heal(&self) {
        lock(&self.shared.faults).clear();
        *lock(&self.shared.plan) = None;
    }

    /// Takes back what [`FaultyStore::set`] set; what befalls at random goes on.
    pub fn clear(&self) {
        lock(&self.shared.faults).clear();
    }

    /// How many requests had each kind of fault so far.
    pub fn injected(&self) -> BTreeMap<&'static str, usize> {
        lock(&self.shared.injected).clone()
    }

    /// The first lines of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.shared.lines).clone()
    }

    /// How many callers wait for an answer that will never come.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Waits until somebody waits.
    pub fn wait_for_caller(&self) {
        eventually("a request that gets no answer", Duration::from_secs(30), || {
            (self.waiting() > 0).then_some(())
        });
    }

    /// Waits until everybody has given up and closed the connection.
    pub fn wait_for_silence(&self) {
        eventually("the end of the abandoned requests", Duration::from_secs(30), || {
            (self.waiting() == 0).then_some(())
        });
    }

    /// Waits until no request is under way, those included that are delivered after their caller has gone.
    pub fn wait_until_idle(&self) {
        eventually("the end of all requests", Duration::from_secs(60), || {
            (self.shared.busy.load(Ordering::Acquire) == 0).then_some(())
        });
    }
}

impl Drop for FaultyStore {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        // Wakes the thread out of accept; if the connection fails, the listener is gone and so is the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("the accepting thread does not panic");
        }
    }
}

impl Shared {
    fn serve(&self, caller: TcpStream) -> std::io::Result<()> {
        let exchange = Exchange::begin(caller, &self.upstream, &self.waiting)?;
        let line = exchange.head().lines().next().unwrap_or_default().to_owned();
        let fault = self.fault_of(&line, exchange.head());
        lock(&self.lines).push(line);
        if let Some(fault) = fault {
            *lock(&self.injected).entry(fault.name()).or_default() += 1;
        }
        fault::serve(fault, exchange)
    }

    fn fault_of(&self, line: &str, head: &str) -> Option<Fault> {
        let set =
            lock(&self.faults).iter().find(|(text, _)| line.contains(text.as_str())).map(|(_, fault)| *fault);
        let drawn = || {
            let mut plan = lock(&self.plan);
            let plan = plan.as_mut()?;
            // Both are drawn in any case, so that the plan does not depend on what the requests are.
            let (hit, fault) = (plan.rng.below(plan.one_in) == 0, plan.rng.pick(&plan.faults));
            hit.then_some(fault)
        };
        set.or_else(drawn).filter(|fault| fault.befalls(head))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
