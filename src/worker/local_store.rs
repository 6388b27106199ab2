//! The local store's background worker: serves S3 on loopback while no endpoint is set.
//!
//! The server runs on threads of its own with every signal blocked; the main thread only waits as PostgreSQL waits.
//! Backends learn the port from shared memory and the credentials from a file that only the server's user can read.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pg_storage_core::error::Token;
use pg_storage_core::presign::Credentials;
use pg_storage_gateway::{LocalStore, Trouble, load_or_create_credentials};
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::prelude::*;
use pgrx::{PgAtomic, pg_shmem_init};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::error::{Failure, Result};
use crate::{guc, preload, wait};

/// The region of the local store; `pg_storage.region` is for others.
pub const REGION: &str = "local";

/// How long a first call waits for a worker that is just starting.
const STARTUP: Duration = Duration::from_secs(5);

/// How often the worker looks whether its server is still running.
const LOOK: Duration = Duration::from_secs(1);

/// The port that is being served; 0: none.
static PORT: PgAtomic<AtomicU32> = unsafe { PgAtomic::new(c"pg_storage local store port") };

/// How a backend reaches the local store.
pub struct LocalAccess {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// The generated key pair.
    pub credentials: Credentials,
}

/// Asks for shared memory and registers the worker, while preloading.
pub fn install() {
    pg_shmem_init!(PORT);
    BackgroundWorkerBuilder::new("pg_storage local store")
        .set_type("pg_storage local store")
        .set_library("pg_storage")
        .set_function("pg_storage_local_store_main")
        .enable_shmem_access(None)
        .set_start_time(BgWorkerStartTime::PostmasterStart)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// The port that is being served; 0: none.
pub fn port() -> u16 {
    if preload::preloaded() { PORT.get().load(Ordering::Acquire) as u16 } else { 0 }
}

/// How to reach the local store, waiting for a worker that is just starting.
pub fn access() -> Result<LocalAccess> {
    if !preload::preloaded() {
        return Err(Failure::new(Token::NotConfigured, "no store is configured")
            .detail("pg_storage.endpoint is empty, and the local store needs the library preloaded.")
            .hint(
                "Set pg_storage.endpoint, or add pg_storage to shared_preload_libraries for the local store.",
            ));
    }
    let step = Duration::from_millis(50);
    for _ in 0..STARTUP.as_millis() / step.as_millis() {
        if port() != 0 {
            break;
        }
        wait::until(async move { tokio::time::sleep(step).await })?;
    }
    let unavailable = |reason: String| {
        Failure::new(Token::StoreUnavailable, "the local store is not running")
            .detail(reason)
            .hint("The server's log says why; look for 'pg_storage local store'.")
    };
    match port() {
        0 => Err(unavailable("Its background worker has not opened a port.".to_owned())),
        port => credentials()
            .map(|credentials| LocalAccess { port, credentials })
            .map_err(|error| unavailable(format!("Its credentials cannot be read: {error}."))),
    }
}

/// The credentials of the server that runs. Only the worker makes some: a backend's own would be unknown to it.
fn credentials() -> io::Result<Credentials> {
    let file = directory().join("credentials");
    fs::metadata(&file)?;
    load_or_create_credentials(&file)
}

fn directory() -> PathBuf {
    guc::text(&guc::LOCAL_STORE_DIRECTORY).map_or_else(
        || {
            // SAFETY: DataDir is set before any process that runs our code exists and never changes.
            let data = unsafe { CStr::from_ptr(pg_sys::DataDir) };
            PathBuf::from(data.to_string_lossy().into_owned()).join("pg_storage")
        },
        PathBuf::from,
    )
}

fn wanted() -> bool {
    guc::text(&guc::ENDPOINT).is_none() && std::env::var("S3_ENDPOINT").unwrap_or_default().is_empty()
}

/// Main function of the background worker.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_storage_local_store_main(_arg: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    if let Err(error) = serve_while_wanted() {
        log!("pg_storage local store: {error} (directory {})", directory().display());
        // A non-zero exit is what makes the postmaster start the worker again after its restart time.
        // SAFETY: ends this process the way PostgreSQL ends its processes.
        unsafe { pg_sys::proc_exit(1) };
    }
}

/// Serves while no endpoint is set, until the postmaster asks to stop.
fn serve_while_wanted() -> io::Result<()> {
    let mut server: Option<Server> = None;
    loop {
        let ended = server.as_ref().is_some_and(Server::ended);
        if ended || !wanted() {
            server.take().map_or(Ok(()), Server::stop)?;
        }
        if server.is_none() && wanted() {
            server = Some(Server::start()?);
        }
        if let Some(running) = &mut server {
            running.report_trouble();
        }
        let go_on = BackgroundWorker::wait_latch(Some(LOOK));
        if !go_on {
            return server.map_or(Ok(()), Server::stop);
        }
        if BackgroundWorker::sighup_received() {
            // SAFETY: on the main thread of a background worker, outside a transaction, as PostgreSQL's own workers do.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
    }
}

/// The S3 server on its own threads.
struct Server {
    runtime: Runtime,
    running: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    trouble: watch::Receiver<Trouble>,
}

impl Server {
    fn start() -> io::Result<Self> {
        let directory = directory();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let config = LocalStore {
            root: directory.join("objects"),
            region: REGION.to_owned(),
            credentials: load_or_create_credentials(&directory.join("credentials"))?,
            access_log: None,
        };
        let listener = listen(&directory.join("port"))?;
        let port = listener.local_addr()?.port();
        // Opening starts threads too.
        let (runtime, server) = wait::with_signals_blocked(|| {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let server = runtime.block_on(async {
                pg_storage_gateway::Server::open(tokio::net::TcpListener::from_std(listener)?, config).await
            })?;
            io::Result::Ok((runtime, server))
        })?;
        let trouble = server.trouble();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = runtime.spawn(server.run(async {
            let _ = stopped.await;
        }));
        PORT.get().store(port.into(), Ordering::Release);
        log!("pg_storage local store: serving {} on 127.0.0.1:{port}", directory.display());
        Ok(Self { runtime, running, stop, trouble })
    }

    fn ended(&self) -> bool {
        self.running.is_finished()
    }

    /// Tells the server's log what clients saw as an internal error.
    fn report_trouble(&mut self) {
        if self.trouble.has_changed().unwrap_or(false) {
            let trouble = self.trouble.borrow_and_update().clone();
            let last = trouble.last.unwrap_or_default();
            log!("pg_storage local store: {} failed operation(s), the last: {last}", trouble.count);
        }
    }

    fn stop(self) -> io::Result<()> {
        PORT.get().store(0, Ordering::Release);
        let _ = self.stop.send(());
        let ended = self.runtime.block_on(self.running).map_err(io::Error::other);
        self.runtime.shutdown_timeout(LOOK);
        ended
    }
}

/// A listener on the configured port, else on the port used before, else on a free one that is kept from then on.
fn listen(kept: &PathBuf) -> io::Result<TcpListener> {
    let bind = |port: u16| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    if let Ok(port @ 1..) = u16::try_from(guc::LOCAL_STORE_PORT.get()) {
        return bind(port);
    }
    let before = fs::read_to_string(kept).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let listener = bind(before).or_else(|_: io::Error| bind(0))?;
    fs::write(kept, listener.local_addr()?.port().to_string())?;
    Ok(listener)
}
