//! Waiting for the network as PostgreSQL waits: latch, interrupts, postmaster death.
//!
//! A future runs on an I/O thread of its own that is started on first use, after fork, with every signal blocked.
//! The backend sleeps in `WaitLatchOrSocket` on its latch and on an eventfd the finished future writes, so cancel,
//! `statement_timeout`, terminate and shutdown end the wait at once; unwinding aborts the future. No runtime is ever
//! on the stack when PostgreSQL leaves it, and only owned values cross to the thread: no Datum, no SPI, no log call.

#![allow(unsafe_code)]

use std::future::Future;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use once_cell::sync::OnceCell;
use pgrx::prelude::*;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::error::{Failure, Result};

/// How often a wait looks whether the client is still there; cancel and timeouts do not depend on it.
const CLIENT_CHECK_MS: std::ffi::c_long = 1000;

struct IoThread {
    runtime: Handle,
    wake: OwnedFd,
    stop: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

static IO: OnceCell<IoThread> = OnceCell::new();

/// Runs `future` on the I/O thread and waits for it under PostgreSQL's rules.
///
/// Deadlines are the future's own. An interrupt ends the statement through unwinding and aborts the future.
pub fn until<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let io = io_thread()?;
    let wake = io.wake.as_raw_fd();
    let (sender, mut receiver) = oneshot::channel();
    let task = io.runtime.spawn(async move {
        // Declared first, so dropped last: whoever is woken finds the answer, or the channel closed by a panic.
        let _wake = WakeOnDrop(wake);
        let _ = sender.send(future.await);
    });
    let _abort = AbortOnDrop(task.abort_handle());
    loop {
        match receiver.try_recv() {
            Ok(value) => return Ok(value),
            Err(oneshot::error::TryRecvError::Empty) => sleep(wake),
            Err(oneshot::error::TryRecvError::Closed) => {
                return Err(Failure::internal("a call to the store ended without an answer"));
            }
        }
    }
}

/// Connections that PostgreSQL's accounting of descriptors knows of, until dropped. For calls that open many; the few of
/// any other call are within what it always leaves.
pub struct Connections(usize);

impl Connections {
    /// As many as are left, at most `wanted`; at least two, which are among the few.
    pub fn reserve(wanted: usize) -> Self {
        let mut reserved = Self(0);
        // SAFETY: counts, and closes files that PostgreSQL can open again; on the main thread.
        while reserved.0 < wanted && unsafe { pg_sys::AcquireExternalFD() } {
            reserved.0 += 1;
        }
        reserved
    }

    /// How many may be opened.
    pub fn count(&self) -> usize {
        self.0.max(2)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        for _ in 0..self.0 {
            // SAFETY: gives back what was acquired, once; allowed while an ERROR unwinds.
            unsafe { pg_sys::ReleaseExternalFD() };
        }
    }
}

/// Runs `build` where a runtime is in reach, for clients that look for one when they are made.
pub fn in_runtime<T>(build: impl FnOnce() -> T) -> Result<T> {
    let _entered = io_thread()?.runtime.enter();
    Ok(with_signals_blocked(build))
}

/// One sleep of the backend: until the eventfd is written, the latch is set, or it is time to look at the client.
fn sleep(wake: RawFd) {
    let events =
        pg_sys::WL_LATCH_SET | pg_sys::WL_SOCKET_READABLE | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: called on the backend's main thread with its own latch and a descriptor that lives as long as the process.
    let woken = unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            wake,
            CLIENT_CHECK_MS,
            pg_sys::PG_WAIT_EXTENSION,
        )
    } as u32;
    if woken & pg_sys::WL_SOCKET_READABLE != 0 {
        let mut count = 0u64;
        // SAFETY: reads eight bytes into a u64 from a non-blocking eventfd, as eventfd(2) asks.
        unsafe { libc::read(wake, (&raw mut count).cast(), 8) };
    }
    if woken & pg_sys::WL_LATCH_SET != 0 {
        // SAFETY: the backend's own latch, on its main thread.
        unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
    }
    if woken & pg_sys::WL_TIMEOUT != 0 {
        notice_lost_client();
    }
    pgrx::check_for_interrupts!();
}

unsafe extern "C-unwind" {
    /// Exported by PostgreSQL 15 and later; not among pgrx's bindings.
    fn pq_check_connection() -> bool;
}

/// A client that is gone will never read the answer; `client_connection_check_interval` is off by default.
fn notice_lost_client() {
    // SAFETY: MyProcPort is set for client backends only, for which pq_check_connection is meant; the two flags are
    // what PostgreSQL's own timeout handler sets.
    unsafe {
        if !pg_sys::MyProcPort.is_null() && !pq_check_connection() {
            pg_sys::ClientConnectionLost = 1;
            pg_sys::InterruptPending = 1;
        }
    }
}

fn io_thread() -> Result<&'static IoThread> {
    IO.get_or_try_init(start)
        .map_err(|error| Failure::internal(format!("cannot start the I/O thread: {error}")))
}

fn start() -> std::io::Result<IoThread> {
    // SAFETY: eventfd(2) has no preconditions; the descriptor is owned from here on.
    let wake = unsafe {
        match libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) {
            -1 => return Err(std::io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
    let handle = runtime.handle().clone();
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = with_signals_blocked(|| {
        std::thread::Builder::new().name("pg_storage I/O".into()).spawn(move || {
            // Either a message or the sender's end: both mean that the backend is leaving.
            let _ = runtime.block_on(stopped);
            // Not a plain drop, which would wait for a name look-up.
            runtime.shutdown_background();
        })
    })?;
    // SAFETY: tells PostgreSQL's descriptor accounting about ours: the eventfd, the runtime's epoll set and its waker.
    // Last, because what failed above has closed them and is tried again by the next call.
    unsafe {
        for _ in 0..3 {
            pg_sys::ReserveExternalFD();
        }
    }
    // SAFETY: registers a callback with a static function, on the main thread, outside any critical section.
    unsafe { pg_sys::on_proc_exit(Some(stop_io_thread), pg_sys::Datum::from(0)) };
    Ok(IoThread { runtime: handle, wake, stop: Mutex::new(Some((stop, thread))) })
}

/// PostgreSQL's signal handlers must run on its main thread only; threads inherit the mask they are created under.
pub(crate) fn with_signals_blocked<T>(spawn: impl FnOnce() -> T) -> T {
    // SAFETY: sigfillset initialises the set; pthread_sigmask changes this thread's mask only and restores it below.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let result = spawn();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        result
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn stop_io_thread(_code: i32, _arg: pg_sys::Datum) {
    if let Some((stop, thread)) =
        IO.get().and_then(|io| io.stop.lock().unwrap_or_else(PoisonError::into_inner).take())
    {
        let _ = stop.send(());
        let _ = thread.join();
    }
}

static ONE: u64 = 1;

struct WakeOnDrop(RawFd);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        // SAFETY: writes eight bytes to an eventfd that lives as long as the process; a full counter is a wake-up too.
        unsafe { libc::write(self.0, (&raw const ONE).cast(), 8) };
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
