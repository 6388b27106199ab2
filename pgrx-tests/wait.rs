//! Waiting: values come back, interrupts end the wait and drop the future, and no thread of ours takes a signal.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use std::fs;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use pgrx::prelude::*;

    use crate::wait;

    #[pg_test]
    fn a_future_gives_its_value() {
        assert_eq!(wait::until(async { 42 }).unwrap(), 42);
        let slow = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            vec![7_u8; 1 << 20]
        };
        assert_eq!(wait::until(slow).unwrap().len(), 1 << 20);
    }

    #[pg_test]
    fn many_waits_one_after_the_other_lose_no_wake_up() {
        for round in 0..2000_u32 {
            let value = wait::until(async move {
                tokio::task::yield_now().await;
                round
            });
            assert_eq!(value.unwrap(), round);
        }
    }

    #[pg_test]
    fn a_future_that_panics_is_an_error_and_the_next_one_works() {
        let failure = wait::until(async {
            if true {
                panic!("on purpose");
            }
        })
        .unwrap_err();
        assert!(failure.summary().contains("without an answer"), "{}", failure.summary());
        assert_eq!(wait::until(async { 1 }).unwrap(), 1);
    }

    struct Dropped(Arc<AtomicBool>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[pg_test]
    fn a_cancel_ends_the_wait_at_once_and_drops_the_future() {
        let dropped = Arc::new(AtomicBool::new(false));
        let witness = Dropped(dropped.clone());
        let begun = Instant::now();
        let caught = PgTryBuilder::new(|| {
            let _ = wait::until(async move {
                let _witness = witness;
                tokio::time::sleep(Duration::from_millis(20)).await;
                // What pg_cancel_backend() sends.
                // SAFETY: a signal to this very process, which handles it.
                #[allow(unsafe_code)]
                unsafe {
                    libc::kill(libc::getpid(), libc::SIGINT)
                };
                std::future::pending::<()>().await;
            });
            false
        })
        .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |_| true)
        .execute();
        assert!(caught, "the wait went on");
        assert!(begun.elapsed() < Duration::from_secs(5));
        let deadline = Instant::now() + Duration::from_secs(5);
        while !dropped.load(Ordering::SeqCst) {
            assert!(Instant::now() < deadline, "the future is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(wait::until(async { 2 }).unwrap(), 2);
    }

    #[pg_test]
    fn our_threads_have_every_signal_blocked() {
        wait::until(async {
            // Name look-ups and file work run on threads beside the runtime's.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        })
        .unwrap();
        let own = std::process::id().to_string();
        let mut others = 0;
        for task in fs::read_dir("/proc/self/task").unwrap() {
            let task = task.unwrap();
            if task.file_name().to_str() == Some(&own) {
                continue;
            }
            let status = fs::read_to_string(task.path().join("status")).unwrap();
            let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
            let blocked = u64::from_str_radix(blocked, 16).unwrap();
            for signal in
                [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGHUP, libc::SIGALRM, libc::SIGQUIT]
            {
                assert!(blocked & (1 << (signal - 1)) != 0, "signal {signal} is not blocked in {status}");
            }
            others += 1;
        }
        assert!(others >= 2, "only {others} other threads");
    }

    #[pg_test]
    fn a_client_is_built_where_a_runtime_is_in_reach() {
        let inside = wait::in_runtime(|| tokio::runtime::Handle::try_current().is_ok()).unwrap();
        assert!(inside);
        assert!(tokio::runtime::Handle::try_current().is_err(), "the runtime stays out of the backend");
    }
}
