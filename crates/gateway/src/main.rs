//! `pg_storage_local_store`: the local store on its own, for development and tests.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::{Long, Short, ValueExt};
use pg_storage_gateway::{LocalStore, Server, load_or_create_credentials};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "\
Usage: pg_storage_local_store --root DIR --listen 127.0.0.1:PORT --credentials FILE [--region NAME] [--access-log FILE]

  --root         directory of the store, created if missing
  --listen       loopback address and port; port 0 takes a free one
  --credentials  file with access key and secret key, one per line, mode 0600; made if missing
  --region       region requests are signed for (default: local)
  --access-log   file to append one line per request to";

struct Options {
    root: PathBuf,
    listen: SocketAddr,
    credentials: PathBuf,
    region: String,
    access_log: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pg_storage_local_store: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let Some(options) = parse()? else {
        println!("{USAGE}");
        return Ok(());
    };
    let credentials = load_or_create_credentials(&options.credentials)?;
    let config = LocalStore {
        root: options.root,
        region: options.region,
        credentials,
        access_log: options.access_log,
    };
    // One thread for the sockets; disk and hashing have the blocking pool.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let server = Server::open(listener, config).await?;
        println!("listening on http://{address}");
        std::io::stdout().flush()?;
        let mut trouble = server.trouble();
        tokio::spawn(async move {
            while trouble.changed().await.is_ok() {
                let last = trouble.borrow_and_update().last.clone().unwrap_or_default();
                eprintln!("pg_storage_local_store: {last}");
            }
        });
        server
            .run(async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await;
        Ok::<_, std::io::Error>(())
    })?;
    Ok(())
}

fn parse() -> Result<Option<Options>, lexopt::Error> {
    let (mut root, mut listen, mut credentials, mut access_log) = (None, None, None, None);
    let mut region = "local".to_owned();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("root") => root = Some(PathBuf::from(arguments.value()?)),
            Long("listen") => listen = Some(arguments.value()?.parse()?),
            Long("credentials") => credentials = Some(PathBuf::from(arguments.value()?)),
            Long("region") => region = arguments.value()?.string()?,
            Long("access-log") => access_log = Some(PathBuf::from(arguments.value()?)),
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(Options {
        root: root.ok_or("--root is missing")?,
        listen: listen.ok_or("--listen is missing")?,
        credentials: credentials.ok_or("--credentials is missing")?,
        region,
        access_log,
    }))
}
