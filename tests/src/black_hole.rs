//! A store that accepts every connection and never answers.

use crate::eventually;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Listens on loopback for as long as the value lives.
pub struct BlackHole {
    address: SocketAddr,
    held: Arc<Mutex<Vec<TcpStream>>>,
    closing: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl BlackHole {
    /// Opens a free port.
    pub fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let held = Arc::new(Mutex::new(Vec::new()));
        let closing = Arc::new(AtomicBool::new(false));
        let accepting = std::thread::spawn({
            let (held, closing) = (held.clone(), closing.clone());
            move || {
                for stream in listener.incoming() {
                    if closing.load(Ordering::Acquire) {
                        break;
                    }
                    held.lock().expect("no holder panics").extend(stream);
                }
            }
        });
        Self { address, held, closing, accepting: Some(accepting) }
    }

    /// `http://127.0.0.1:port`
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.held.lock().expect("no holder panics").len()
    }

    /// Waits until more than `before` connections were accepted: somebody is now waiting for an answer.
    pub fn wait_for_caller(&self, before: usize) {
        eventually("a connection to the black hole", Duration::from_secs(30), || {
            (self.accepted() > before).then_some(())
        });
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Wakes the thread out of accept; if the connection fails, the listener is gone and so is the thread.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().expect("the accepting thread does not panic");
        }
    }
}
