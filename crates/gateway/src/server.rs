//! The server: accepts on loopback, serves HTTP/1.1, stops when told.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use crate::front::Front;
use crate::front::idle::PATIENCE;
use crate::store::{Store, Trouble};
use crate::{LocalStore, lifecycle};

/// Connections served at a time; further ones wait in the listener's queue.
const MAX_CONNECTIONS: usize = 256;

/// How long the head of a request may take, which is also how long an idle connection is kept.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// How long requests under way may take once the server is told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// The pause after an accept that failed, for want of file descriptors most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A local store that is open and has its listener, ready to serve.
pub struct Server {
    listener: TcpListener,
    store: Arc<Store>,
    front: Arc<Front>,
}

impl Server {
    /// Opens the store below `config.root`, which removes what a crash left behind.
    ///
    /// # Errors
    /// `InvalidInput` for a listener beyond loopback; anything that keeps the store from opening, such as another
    /// server on the same root.
    pub async fn open(listener: TcpListener, config: LocalStore) -> io::Result<Self> {
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the local store serves loopback only, not {address}"),
            ));
        }
        let (root, region) = (config.root.clone(), config.region.clone());
        let opened = tokio::task::spawn_blocking(move || Store::open(&root, region)).await?;
        let store = Arc::new(opened.map_err(io::Error::other)?);
        let front = Arc::new(Front::new(&config, Arc::clone(&store))?);
        Ok(Self { listener, store, front })
    }

    /// What goes wrong inside the store, for whoever keeps a log: the store itself writes none.
    pub fn trouble(&self) -> watch::Receiver<Trouble> {
        self.store.trouble.subscribe()
    }

    /// Serves until `shutdown` completes, then gives requests under way five seconds to end.
    ///
    /// Needs nothing of the process: no signal handler, no global state, no output. Runs on any tokio runtime with
    /// I/O and time enabled; when its future is dropped everything it started ends.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let mut tasks = JoinSet::new();
        tasks.spawn(lifecycle::keep_running(self.store));
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let graceful = GracefulShutdown::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            match accepted {
                Ok((stream, slot)) => {
                    tasks.spawn(connection(stream, slot, Arc::clone(&self.front), graceful.watcher()));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
            while tasks.try_join_next().is_some() {}
        }
        drop(self.listener);
        // Past the grace period connections are cut; every write is atomic, so that costs no object.
        let _ = tokio::time::timeout(GRACE, graceful.shutdown()).await;
    }
}

/// [`Server::open`] and [`Server::run`] in one.
///
/// # Errors
/// Those of [`Server::open`].
pub async fn serve(
    listener: TcpListener,
    config: LocalStore,
    shutdown: impl Future<Output = ()> + Send,
) -> io::Result<()> {
    Server::open(listener, config).await?.run(shutdown).await;
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    // First the slot: a connection that cannot be served yet is better off in the listener's queue.
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
}

async fn connection(stream: TcpStream, slot: OwnedSemaphorePermit, front: Arc<Front>, watcher: Watcher) {
    // Without it every answer waits for a delayed acknowledgement, 40 ms.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(PATIENCE));
    let service = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { Ok::<_, std::convert::Infallible>(front.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    // The client is told what there is to tell in the answer; a broken connection has nobody to tell.
    let _ = watcher.watch(connection).await;
    drop(slot);
}
