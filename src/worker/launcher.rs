//! The launcher: keeps a worker running in each database that `pg_storage.databases` names.
//!
//! It is connected to no database, so it is in nobody's way, and still in `pg_stat_activity`. When it ends, its workers
//! end with it, and when PostgreSQL has started it again it starts them anew.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ffi::CStr;
use std::time::{Duration, Instant};

use pgrx::prelude::*;

use super::maintainer;
use super::process::{self, Farewell};
use crate::guc;
use crate::lock::{self, On};

const NAME: &CStr = c"pg_storage launcher";

/// A worker that ended is started again after this long, and so is the launcher.
const PAUSE: Duration = Duration::from_secs(5);

/// How often the launcher looks when nothing is wrong; SIGHUP and the end of a worker wake it at once.
const LOOK: Duration = Duration::from_secs(60);

/// A worker of this launcher.
struct Worker {
    database: pg_sys::Oid,
    handle: *mut pg_sys::BackgroundWorkerHandle,
    /// When it was seen to have ended.
    ended: Option<Instant>,
}

thread_local! {
    static WORKERS: RefCell<Vec<Worker>> = const { RefCell::new(Vec::new()) };
}

/// Registers the launcher, while preloading.
pub fn install() {
    let mut launcher = process::describe(NAME, c"pg_storage_launcher_main", Some(PAUSE), pg_sys::InvalidOid);
    // SAFETY: while preloading; the description is copied.
    unsafe { pg_sys::RegisterBackgroundWorker(&mut launcher) };
}

/// Main function of the launcher.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_storage_launcher_main(_argument: pg_sys::Datum) {
    process::begin(Farewell::Return);
    // SAFETY: once, at the start of a background worker that asked for a connection; it is to no database.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
        pg_sys::before_shmem_exit(Some(end_workers), pg_sys::Datum::from(0));
    }
    let mut complained = false;
    loop {
        process::report(None);
        let pause = keep_running(&mut complained);
        process::sleep(pause);
    }
}

/// Starts and ends workers as the setting and the databases are now; when to look again.
fn keep_running(complained: &mut bool) -> Duration {
    let names = guc::text(&guc::DATABASES).and_then(|list| guc::parse_identifiers(&list)).unwrap_or_default();
    let listed = if names.is_empty() { Vec::new() } else { existing(&names) };
    let missing = listed.len() < names.len();
    WORKERS.with_borrow_mut(|workers| {
        workers.retain(|worker| {
            let wanted = listed.contains(&worker.database);
            if !wanted {
                worker.end();
            }
            wanted
        });
        let mut look = if missing { PAUSE } else { LOOK };
        for database in listed {
            let known = workers.iter_mut().find(|worker| worker.database == database);
            let wait = match known {
                Some(worker) => worker.revive(complained),
                None => start(database, complained).map_or(Some(PAUSE), |worker| {
                    workers.push(worker);
                    None
                }),
            };
            look = wait.unwrap_or(look).min(look);
        }
        look
    })
}

impl Worker {
    fn end(&self) {
        if self.ended.is_none() {
            // SAFETY: a handle that PostgreSQL gave; it knows by itself when the worker has gone.
            unsafe { pg_sys::TerminateBackgroundWorker(self.handle) };
        }
    }

    /// Starts it again if it ended long enough ago; how long that takes yet.
    fn revive(&mut self, complained: &mut bool) -> Option<Duration> {
        if self.ended.is_none() {
            let mut pid = 0;
            // SAFETY: a handle that PostgreSQL gave; it is not used any more once the worker has gone.
            unsafe {
                let status = pg_sys::GetBackgroundWorkerPid(self.handle, &mut pid);
                if status != pg_sys::BgwHandleStatus::BGWH_STOPPED {
                    return None;
                }
                pg_sys::pfree(self.handle.cast());
            }
            self.ended = Some(Instant::now());
        }
        let rest = self.ended.map_or(Duration::ZERO, |ended| PAUSE.saturating_sub(ended.elapsed()));
        if !rest.is_zero() {
            return Some(rest);
        }
        match start(self.database, complained) {
            Some(worker) => {
                *self = worker;
                None
            }
            None => Some(PAUSE),
        }
    }
}

/// Starts a worker; `None` when there is no room for it, or a worker that is not this launcher's.
fn start(database: pg_sys::Oid, complained: &mut bool) -> Option<Worker> {
    if lock::is_held(On::Worker(database)) {
        return None;
    }
    match maintainer::register(database, None) {
        Some(handle) => {
            *complained = false;
            Some(Worker { database, handle, ended: None })
        }
        None => {
            if !std::mem::replace(complained, true) {
                ereport!(
                    PgLogLevel::WARNING,
                    PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                    "pg_storage: there is no room for a worker",
                    "Raise max_worker_processes; it is tried again until there is."
                );
            }
            None
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn end_workers(_code: i32, _argument: pg_sys::Datum) {
    WORKERS.with(|workers| {
        if let Ok(workers) = workers.try_borrow() {
            workers.iter().for_each(Worker::end);
        }
    });
}

/// Those of the named databases that exist and accept connections.
///
/// Read as the autovacuum launcher does: without a database there are no indexes.
fn existing(names: &[String]) -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    // SAFETY: a shared catalog, read in a transaction of its own under its lock; each row is looked at before the next.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::GetTransactionSnapshot();
        let catalog = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(catalog, 0, std::ptr::null_mut());
        loop {
            let row = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if row.is_null() {
                break;
            }
            let database = pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(row);
            let name = CStr::from_ptr((*database).datname.data.as_ptr());
            if (*database).datallowconn && names.iter().any(|wanted| wanted.as_bytes() == name.to_bytes()) {
                found.push((*database).oid);
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
        pg_sys::CommitTransactionCommand();
    }
    found
}
