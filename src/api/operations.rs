//! What operators ask for: maintenance, workers, findings, the cache.

use pgrx::pg_schema;

#[pg_schema]
mod storage_private {
    use pgrx::Uuid;
    use pgrx::datum::{Interval, TimestampWithTimeZone};
    use pgrx::prelude::*;

    use crate::clock::Moment;
    use crate::error::OrRaise;
    use crate::orphans::{self, Repair};
    use crate::{cache, diagnose, maintenance, worker};

    /// One pass of everything the worker does.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn maintain() -> TableIterator<
        'static,
        (
            name!(uploads_expired, i64),
            name!(uploads_confirmed, i64),
            name!(files_expired, i64),
            name!(objects_deleted, i64),
            name!(deletions_failed, i64),
            name!(buckets_provisioned, i64),
            name!(buckets_deleted, i64),
            name!(orphans_queued, i64),
            name!(multiparts_aborted, i64),
            name!(events_announced, i64),
            name!(events_removed, i64),
        ),
    > {
        let report = maintenance::run().or_raise();
        TableIterator::once((
            report.uploads_expired,
            report.uploads_confirmed,
            report.files_expired,
            report.objects_deleted,
            report.deletions_failed,
            report.buckets_provisioned,
            report.buckets_deleted,
            report.orphans_queued,
            report.multiparts_aborted,
            report.events_announced,
            report.events_removed,
        ))
    }

    /// Starts a worker for the current database.
    #[pg_extern(volatile)]
    fn start_worker() -> i32 {
        worker::start().or_raise()
    }

    /// Wakes the worker of this database once this transaction commits.
    #[pg_extern(volatile)]
    fn wake_worker() {
        worker::wake::at_commit();
    }

    /// Compares a physical bucket with the tables, both ways, a page at a time.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn scan(
        physical_name: Option<&str>,
        min_age: Interval,
        repair: bool,
    ) -> TableIterator<
        'static,
        (
            name!(kind, String),
            name!(key, String),
            name!(object_id, Option<Uuid>),
            name!(size, i64),
            name!(last_modified, Option<TimestampWithTimeZone>),
            name!(queued, bool),
        ),
    > {
        let repair = if repair { Repair::Waiting } else { Repair::Not };
        let findings =
            orphans::findings(physical_name.unwrap_or_default(), min_age, repair).or_raise().map(|finding| {
                let finding = finding.or_raise();
                let modified = finding.last_modified.and_then(|time| Moment::of_system(time).column().ok());
                let kind = finding.kind.as_str().to_owned();
                (kind, finding.key, finding.object, finding.size, modified, finding.queued)
            });
        TableIterator::new(findings)
    }

    /// Findings about settings, store and what it enforces.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn diagnose() -> TableIterator<
        'static,
        (
            name!(name, String),
            name!(status, String),
            name!(detail, Option<String>),
            name!(hint, Option<String>),
        ),
    > {
        TableIterator::new(diagnose::run())
    }

    /// Counters of the cache.
    #[allow(clippy::type_complexity)]
    #[pg_extern(volatile)]
    fn cache_statistics() -> TableIterator<
        'static,
        (
            name!(shared, bool),
            name!(capacity, i32),
            name!(entries, i32),
            name!(hits, i64),
            name!(misses, i64),
            name!(provisionings, i64),
            name!(evictions, i64),
        ),
    > {
        let (shared, capacity, entries, counters) = cache::statistics();
        TableIterator::once((
            shared,
            capacity as i32,
            entries as i32,
            counters.hits as i64,
            counters.misses as i64,
            counters.provisionings as i64,
            counters.evictions as i64,
        ))
    }

    /// Entries of the cache that belong to this database.
    #[pg_extern(volatile)]
    fn cache_entries() -> TableIterator<
        'static,
        (name!(physical_name, String), name!(endpoint, String), name!(generation, i64), name!(direct, bool)),
    > {
        TableIterator::new(
            cache::entries()
                .into_iter()
                .map(|(name, endpoint, ready)| (name, endpoint, ready.generation, ready.direct)),
        )
    }

    /// Empties the cache of this database.
    #[pg_extern(volatile)]
    fn clear_cache() {
        cache::clear();
    }

    /// Forgets a physical bucket once this transaction commits.
    #[pg_extern(volatile)]
    fn forget_at_commit(physical_name: &str) {
        cache::evict_at(cache::At::Commit, physical_name);
    }
}
