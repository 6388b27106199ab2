//! A page of a thousand entries, from the beginning to the end of a large bucket, as its client gets it.

use pg_storage_tests::{Cluster, Options, Scene};
use postgres::Client;

use crate::files::{USER, add_in_folders};
use crate::median::{median, time};
use crate::sizes::Sizes;
use crate::table::Row;

const PAGE: usize = 1000;

/// Files by path, and folders.
pub fn rows(sizes: Sizes) -> Vec<Row> {
    // Nothing of this is to survive: it is as fast as it can be made.
    let options = Options::new()
        .setting("wal_level", "minimal")
        .setting("max_wal_senders", "0")
        .setting("max_wal_size", "8GB")
        .setting("shared_buffers", "1GB")
        .setting("autovacuum", "off");
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(options)));
    let access = pg_storage_tests::scene::local_access(cluster);
    let scene = Scene::on(cluster, &access);
    let mut user = scene.user(USER);
    add_in_folders(&scene, sizes.rows);
    let files = pages(sizes, &mut user, None, sizes.rows / PAGE);
    let folders = pages(sizes, &mut user, Some("/"), sizes.rows.div_ceil(PAGE) / PAGE);
    cluster.stop(pg_storage_tests::Stop::Immediate);
    std::fs::remove_dir_all(cluster.data()).expect("remove the large cluster");
    let mut rows = Vec::new();
    for (what, pages) in [("files", files), ("folders", folders)] {
        let first = pages.first().map_or(0.0, |(_, took)| *took);
        for (depth, took) in pages {
            let what = format!("list_files, page of {PAGE} {what} of {} files, at {depth} %", sizes.rows);
            rows.push(
                Row::new(what, format!("{took:.2} ms"))
                    .against(format!("{first:.2} ms the first page"), took / first)
                    .goal("< 5 ms, flat", took < 5.0 && took < 1.5 * first),
            );
        }
    }
    rows
}

/// Milliseconds for a page at some depths in a listing of so many pages.
fn pages(sizes: Sizes, user: &mut Client, delimiter: Option<&str>, pages: usize) -> Vec<(usize, f64)> {
    let next = user
        .prepare("SELECT l.page_token FROM storage.list_files('private', '', $1, $2, $3) l WHERE l.page_token IS NOT NULL")
        .expect("prepare the way");
    let page = user
        .prepare("SELECT * FROM storage.list_files('private', '', $1, $2, $3)")
        .expect("prepare the page");
    let mut at = 0;
    let mut token: Option<String> = None;
    let mut found = Vec::new();
    for depth in [0, 50, 99] {
        // The last page may be a short one.
        let wanted = (pages * depth / 100).min(pages.saturating_sub(1));
        while at < wanted {
            let row = user.query_opt(&next, &[&delimiter, &(PAGE as i32), &token]).expect("list");
            token = Some(row.expect("there is a next page").get(0));
            at += 1;
        }
        let took = (0..sizes.rounds * 3)
            .map(|_| {
                let one = time(|| {
                    let entries = user.query(&page, &[&delimiter, &(PAGE as i32), &token]).expect("list");
                    assert!(!entries.is_empty(), "a page has entries");
                });
                one.as_secs_f64() * 1e3
            })
            .collect();
        found.push((depth, median(took)));
    }
    found
}
