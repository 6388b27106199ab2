//! What is known of a bucket: what a look at the table costs, and that the store is not asked.

use std::hint::black_box;

use pg_storage_core::cache::{Counters, EMPTY, FORGETTINGS, Key, Ready, Table};
use pg_storage_tests::Scene;
use pg_storage_tests::flow::Upload;

use crate::files::USER;
use crate::median::{median, micros_each, time};
use crate::sizes::Sizes;
use crate::table::Row;

/// Entries of the table, as `pg_storage.cache_entries` has by default.
const ENTRIES: usize = 1024;
/// Physical buckets in it.
const BUCKETS: usize = 100;

/// A look that finds its entry, in the table that the server has: without the lightweight lock around it, which is
/// PostgreSQL's own.
pub fn look(sizes: Sizes) -> Row {
    let (mut counters, mut clock, mut forgettings) = (Counters::default(), 0, [0; FORGETTINGS]);
    let mut entries = vec![EMPTY; ENTRIES];
    let mut table = Table {
        counters: &mut counters,
        clock: &mut clock,
        forgettings: &mut forgettings,
        entries: &mut entries,
    };
    let names: Vec<String> =
        (0..BUCKETS).map(|at| format!("acme-tenant-{at}-private-0123456789ab")).collect();
    let endpoint = "https://s3.eu-central-1.amazonaws.com";
    let ready = Ready {
        generation: 1,
        access: None,
        fixed: false,
        recorded: true,
        settings: 0,
        origins: 0,
        server_origins: true,
        direct: true,
        create_only: true,
        marked: false,
    };
    names.iter().for_each(|name| table.put(&Key::new(1, endpoint, name), ready));
    let mut all = || {
        names.iter().for_each(|name| {
            black_box(table.get(&Key::new(1, endpoint, name)));
        })
    };
    let took = median((0..sizes.rounds * 100).map(|_| micros_each(time(&mut all), BUCKETS)).collect());
    assert_eq!(counters.misses, 0, "every look finds its entry");
    Row::new("one look into the cache, without its lock", format!("{took:.3} µs")).goal("< 1 µs", took < 1.0)
}

/// Requests of the store that warm upload requests and downloads take: counted by the store.
pub fn calls(sizes: Sizes) -> Row {
    let (scene, store) = Scene::counting();
    let mut user = scene.user(USER);
    Upload::of(b"first").request(&mut user);
    let hits = || scene.value::<i64>("SELECT (storage.cache_stats()).hits");
    let (asked_before, hits_before) = (scene.asked(store), hits());
    for _ in 0..sizes.uploads {
        Upload::of(b"content").request(&mut user);
    }
    let (asked, hits) = (scene.asked(store) - asked_before, hits() - hits_before);
    Row::new(
        format!("store calls of {} warm requests", sizes.uploads),
        format!("{asked} calls, {hits} cache hits"),
    )
    .goal("0", asked == 0 && hits >= sizes.uploads as i64)
}
