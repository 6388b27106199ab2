//! The worker of a database: passes of maintenance, each task in steps with transactions of their own, and sleep between.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use pg_storage_core::error::Token;
use pgrx::PgMemoryContexts;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;

use super::process::{self, Farewell, surviving};
use super::wake;
use crate::clock::Moment;
use crate::error::{Failure, Result};
use crate::lock::{self, On};
use crate::maintenance::{self, Report, Scope, TASKS};
use crate::{catalog, guc};

const NAME: &CStr = c"pg_storage worker";

/// A worker that somebody started by SQL is started again this long after it failed; at once after a crash of the server.
const RESTART: Duration = Duration::from_secs(5);

/// How long a new worker tries to become the database's: another may be just leaving.
const CONTEST: Duration = Duration::from_secs(3);

/// Between two passes at least: what many commits ask for at once is done in one.
const BREATH: Duration = Duration::from_millis(100);

/// A pass that failed is repeated after this long at most, whatever the usual interval.
const RETRY: Duration = Duration::from_secs(60);

/// Registers a worker; `None`: the server has no room for it. The caller is told when it starts and ends.
pub fn register(
    database: pg_sys::Oid,
    restart: Option<Duration>,
) -> Option<*mut pg_sys::BackgroundWorkerHandle> {
    let mut worker = process::describe(NAME, c"pg_storage_worker_main", restart, database);
    let mut handle = std::ptr::null_mut();
    // SAFETY: the description is copied; the handle is made where it outlives every transaction.
    unsafe {
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let registered = pg_sys::RegisterDynamicBackgroundWorker(&mut worker, &mut handle);
        pg_sys::MemoryContextSwitchTo(before);
        registered.then_some(handle)
    }
}

/// Starts a worker for the current database and waits until it is at work; its process id.
pub fn start() -> Result<i32> {
    // SAFETY: a plain read of a process-local variable.
    let database = unsafe { pg_sys::MyDatabaseId };
    if lock::is_held(On::Worker(database)) {
        return Err(Failure::new(Token::WorkerRunning, "a worker runs in this database already")
            .detail("One is enough, and a second would leave at once.")
            .hint("storage.worker_state shows it; pg_terminate_backend() ends it."));
    }
    let handle = register(database, Some(RESTART)).ok_or_else(|| {
        Failure::new(Token::NoWorkerSlot, "the server has no room for another background worker")
            .detail("All of max_worker_processes are taken.")
            .hint("Raise max_worker_processes, or end other background workers.")
    })?;
    let mut pid = 0;
    // SAFETY: the handle that the registration gave.
    let status = unsafe { pg_sys::WaitForBackgroundWorkerStartup(handle, &mut pid) };
    let mut running = status == pg_sys::BgwHandleStatus::BGWH_STARTED;
    while running && !lock::is_held(On::Worker(database)) {
        pause(Duration::from_millis(20));
        // SAFETY: as above.
        running = unsafe { pg_sys::GetBackgroundWorkerPid(handle, &mut pid) }
            == pg_sys::BgwHandleStatus::BGWH_STARTED;
    }
    if !running {
        return Err(Failure::internal("the worker ended at once")
            .hint("The server's log says why; it is tried again every few seconds."));
    }
    Ok(pid)
}

/// Waits under PostgreSQL's rules.
fn pause(time: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: the backend's own latch, on its main thread.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, time.as_millis() as i64, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}

/// Main function of the worker; its argument is the database.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_storage_worker_main(argument: pg_sys::Datum) {
    process::begin(Farewell::ForGood);
    let database = pg_sys::Oid::from(argument.value() as u32);
    connect(database);
    let contest = Instant::now();
    while !lock::keep(On::Worker(database)) {
        if contest.elapsed() > CONTEST {
            return;
        }
        process::sleep(BREATH);
    }
    wake::enlist();
    let mut memory = PgMemoryContexts::new("pg_storage pass");
    let mut worker = Worker::default();
    loop {
        let woken = wake::count();
        // SAFETY: the context is this function's own; what a pass leaves in it is never looked at again.
        let pause = unsafe { memory.switch_to(|_| worker.pass()) };
        // SAFETY: as above.
        unsafe { memory.reset() };
        sleep(pause, woken);
    }
}

/// Sleeps until the time is over, or a commit, a reload or the end calls. The breath is taken in any case.
fn sleep(pause: Duration, woken: u64) {
    let began = Instant::now();
    loop {
        let called = wake::count() != woken;
        let whole = if called { BREATH } else { pause.max(BREATH) };
        let rest = whole.saturating_sub(began.elapsed());
        if rest.is_zero() || process::sleep(rest) {
            return;
        }
    }
}

/// Connects as the bootstrap superuser, as PostgreSQL's own workers do, and steps back where others are waiting.
fn connect(database: pg_sys::Oid) {
    // SAFETY: once, at the start of a background worker that asked for a connection. The two copies of the flags are
    // changed together under ProcArrayLock, which is the fifth of PostgreSQL's own locks in all its versions.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, pg_sys::InvalidOid, 0);
        // As an autovacuum worker: DROP DATABASE, and whoever else needs the database for itself, ends this process and
        // waits for that (CountOtherDBBackends); who waits for a lock of ours longer than deadlock_timeout, such as DROP
        // EXTENSION, cancels the step that holds it (ProcSleep). CREATE INDEX CONCURRENTLY does not wait for our
        // snapshots, of which none is older than the one statement that it is for.
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(4)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let me = pg_sys::MyProc;
        (*me).statusFlags |= pg_sys::PROC_IS_AUTOVACUUM as u8;
        *(*pg_sys::ProcGlobal).statusFlags.add((*me).pgxactoff as usize) = (*me).statusFlags;
        pg_sys::LWLockRelease(lock);
    }
    // What a database or the superuser's role is set to is meant for sessions.
    for (name, value) in [
        (c"application_name", NAME),
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"default_transaction_isolation", c"read committed"),
        (c"default_transaction_read_only", c"off"),
        (c"default_transaction_deferrable", c"off"),
        (c"statement_timeout", c"0"),
        // Whoever forgets an open transaction holds up one task, and not all.
        (c"lock_timeout", c"5s"),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"row_security", c"on"),
    ] {
        process::set(name, value);
    }
}

/// What the worker remembers from pass to pass.
#[derive(Default)]
struct Worker {
    /// What it said last of each task, so that it says it once.
    said: HashMap<&'static str, String>,
}

impl Worker {
    /// One pass; how long to sleep after it.
    fn pass(&mut self) -> Duration {
        let interval = Duration::from_secs(guc::WORKER_INTERVAL.get().unsigned_abs().into());
        if !installed() {
            return interval;
        }
        let began = Moment::now();
        let mut report = Report::default();
        let mut trouble = None;
        let mut refused = false;
        match surviving(|| maintenance::begin(Scope::Own)) {
            Ok(()) => {
                self.said.remove("beginning");
                for task in TASKS {
                    process::report(CString::new(task.name).ok().as_deref());
                    match surviving(|| (task.run)(Scope::Own, &mut report)) {
                        Ok(()) => drop(self.said.remove(task.name)),
                        Err(failure) => trouble = self.complain(task.name, &failure).or(trouble),
                    }
                }
            }
            Err(failure) => {
                refused = true;
                trouble = self.complain("beginning", &failure);
            }
        }
        let longest = if trouble.is_some() { interval.min(RETRY) } else { interval };
        let recorded = surviving(|| {
            Scope::Own.step(|| record((!refused).then_some(&report), trouble.as_deref(), began, longest))
        });
        process::report(None);
        // SAFETY: outside a transaction, as PostgreSQL's own workers do before they sleep.
        unsafe { pg_sys::pgstat_report_stat(true) };
        match recorded {
            Ok(pause) => {
                self.said.remove("recording");
                if report.unfinished { Duration::ZERO } else { pause }
            }
            Err(failure) => {
                self.complain("recording", &failure);
                longest
            }
        }
    }

    /// Says what went wrong, unless it was said before, or the extension has just been dropped.
    fn complain(&mut self, task: &'static str, failure: &Failure) -> Option<String> {
        if !installed() {
            return None;
        }
        let summary = failure.summary();
        if self.said.get(task) != Some(&summary) {
            let detail = failure.details().map(|detail| format!(" ({detail})")).unwrap_or_default();
            warning!("pg_storage worker, {task}: {summary}{detail}");
            self.said.insert(task, summary.clone());
        }
        Some(format!("{task}: {summary}"))
    }
}

/// Whether there is anything to maintain.
fn installed() -> bool {
    surviving(|| {
        // SAFETY: a look-up by name in a transaction, with missing_ok.
        Scope::Own.step(|| {
            Ok(unsafe { pg_sys::get_extension_oid(c"pg_storage".as_ptr(), true) } != pg_sys::InvalidOid)
        })
    })
    .unwrap_or(false)
}

/// Records a pass and gives the time until the next.
fn record(
    report: Option<&Report>,
    trouble: Option<&str>,
    began: Moment,
    longest: Duration,
) -> Result<Duration> {
    let due: Option<TimestampWithTimeZone> = match report {
        Some(_) => catalog::as_owner(|| {
            catalog::write("SELECT storage_private.next_due($1)", &[began.column()?.into()], |rows| {
                Ok(rows.first().get_one()?)
            })
        })?,
        None => None,
    };
    let now = Moment::now();
    let pause = due.map_or(longest, |due| now.until(Moment::of(due)).min(longest));
    catalog::run_as_owner(
        "SELECT storage_private.record_pass($1, $2, $3)",
        &[
            report.map(|report| report.numbers().to_vec()).into(),
            trouble.into(),
            now.after(pause).column()?.into(),
        ],
    )?;
    Ok(pause)
}
