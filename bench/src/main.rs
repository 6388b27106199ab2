//! How fast it is: one table of what was measured against what it could not be faster than, all from the same run.
//!
//! `make bench` prints it, `make bench-record` writes it to docs/benchmarks.md. Nothing here is asserted but that what
//! is measured happened.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cached;
mod confirming;
mod files;
mod hashing;
mod hidden;
mod listing;
mod machine;
mod median;
mod memory;
mod requests;
mod signing;
mod sizes;
mod table;

use pg_storage_tests::{Cluster, Options, Scene, say, scene};

use crate::files::USER;
use crate::sizes::Sizes;
use crate::table::{Row, markdown};

fn main() {
    let sizes = Sizes::from_environment();
    let durable = Options::new().setting("fsync", "on");
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(durable)));
    let local = || Scene::on(cluster, &scene::local_access(cluster));
    let machine = machine::describe(sizes, &local());
    let mut rows = Vec::new();
    let only = std::env::var("PART").unwrap_or_default();
    let mut part = |what: &str, measure: &mut dyn FnMut() -> Vec<Row>| {
        if !what.contains(&only) {
            return;
        }
        say(&format!("measuring {what}"));
        let measured = measure();
        say(markdown(&measured).split_once("-|\n").map_or("", |(_, lines)| lines).trim_end());
        rows.extend(measured);
    };
    part("signatures", &mut || signing::rows_outside(sizes));
    part("signatures in SQL", &mut || {
        let scene = warm(local());
        signing::rows_in_sql(sizes, &scene, &mut scene.user(USER))
    });
    part("upload requests", &mut || requests::rows(sizes, warm(local())));
    part("confirmations", &mut || {
        let mut rows = vec![confirming::row(sizes, &warm(local()), "local store"), confirming::far(sizes)];
        if std::env::var_os("PG_STORAGE_GARAGE").is_some_and(|path| std::path::Path::new(&path).is_file()) {
            rows.push(confirming::row(sizes, &warm(Scene::garage()), "Garage"));
        } else {
            rows.push(Row::new("confirm_uploads, Garage", "not there: run make garage"));
        }
        rows
    });
    part("hidden rows", &mut || hidden::rows(sizes, &warm(local())));
    part("the cache", &mut || vec![cached::look(sizes), cached::calls(sizes)]);
    part("memory", &mut || {
        let scene = warm(local());
        let mut rows = memory::backends(sizes, &scene);
        rows.push(memory::local_store(sizes, &scene));
        rows
    });
    part("listings", &mut || listing::rows(sizes));

    for line in machine {
        println!("- {line}");
    }
    println!("\n{}", markdown(&rows));
}

/// A scene whose user's bucket has been used.
fn warm(scene: Scene) -> Scene {
    scene
        .user(USER)
        .execute("SELECT storage.request_upload_url('private', 'first.txt', 'text/plain', 1)", &[])
        .expect("the first request makes the bucket ready");
    scene
}
