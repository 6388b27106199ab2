//! What each store can and cannot, as `storage.check()` finds it: the table in docs/stores.md. And a store of three
//! nodes that loses one.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fmt::Write as _;

use pg_storage_tests::flow::{Upload, assert_downloads, confirm, some_bytes};
use pg_storage_tests::scene::{ORIGIN, remote};
use pg_storage_tests::{Ceph, Cluster, Garage, Scene, docs, each_store};

const PAGE: &str = "docs/stores.md";
const AGAIN: &str = "PG_STORAGE_UPDATE_GOLDEN=1 make test-one T=what_check_says_of_each_store";
const BEGIN: &str = "<!-- what check() says -->\n";
const END: &str = "<!-- end -->\n";

/// Findings about the server and not about the store.
const OF_THE_SERVER: [&str; 7] = ["preload", "worker", "settings", "layout", "credentials", "store", "clock"];

struct Found {
    name: String,
    status: String,
    detail: String,
    hint: Option<String>,
}

/// With buckets of each kind in the store.
fn check(scene: &Scene) -> Vec<Found> {
    scene.set("pg_storage.allowed_origins", ORIGIN);
    let mut ada = scene.user("ada");
    for bucket in ["private", "public", "temp"] {
        let bytes = some_bytes(bucket, 20);
        Upload::declared(&bytes).to(bucket).complete(&mut ada, &bytes);
    }
    let rows =
        scene.superuser().query("SELECT name, status, detail, hint FROM storage.check()", &[]).unwrap();
    let found = rows.iter().map(|row| Found {
        name: row.get(0),
        status: row.get(1),
        detail: row.get(2),
        hint: row.get(3),
    });
    found.filter(|found| !OF_THE_SERVER.contains(&found.name.as_str())).collect()
}

/// The table, and what the words "no" in it mean. Of the local store everything is `ok`, so its findings say what is asked.
fn page(columns: &[(String, Vec<Found>)]) -> String {
    let mut text = String::from("| `check()` | found on the local store |");
    for (store, _) in columns {
        let _ = write!(text, " {store} |");
    }
    text.push_str("\n| --- | --- |");
    text.push_str(&" --- |".repeat(columns.len()));
    text.push('\n');
    for asked in &columns[0].1 {
        let _ = write!(text, "| `{}` | {} |", asked.name, asked.detail);
        for (_, findings) in columns {
            let cell = match findings.iter().find(|found| found.name == asked.name) {
                None => "not asked",
                Some(found) if found.status == "fail" => "**no**",
                Some(found) if found.status == "warn" => "no",
                Some(found) if found.detail != asked.detail => "otherwise",
                Some(_) => "yes",
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    for (store, findings) in &columns[1..] {
        let _ = writeln!(text, "\n{store}:\n");
        for found in findings {
            let asked = columns[0].1.iter().find(|asked| asked.name == found.name);
            if asked.is_none_or(|asked| asked.detail != found.detail) {
                let hint = found.hint.as_deref().map(|hint| format!(" {hint}")).unwrap_or_default();
                let _ = writeln!(text, "- `{}`: {}{hint}", found.name, found.detail);
            }
        }
    }
    text
}

#[test]
fn the_page_is_what_check_says_of_each_store() {
    let ceph = format!("Ceph {}", Ceph::version());
    let columns = [
        ("local store".to_owned(), check(&Scene::embedded("it is about each store"))),
        (format!("Garage {}", Garage::version()), check(&Scene::garage())),
        ("Garage, three nodes".to_owned(), check(&Scene::garage_three())),
        (ceph.clone(), check(&Scene::ceph())),
    ];
    for found in &columns[0].1 {
        assert_eq!(found.status, "ok", "{}: {}", found.name, found.detail);
    }
    let now = page(&columns);
    let kept = docs::read(PAGE);
    let (before, rest) = kept.split_once(BEGIN).expect("the page has the mark where the table begins");
    let (table, after) = rest.split_once(END).expect("the page has the mark where the table ends");
    if std::env::var_os("PG_STORAGE_UPDATE_GOLDEN").is_some() {
        let page = format!("{before}{BEGIN}\n{now}\n{END}{after}");
        std::fs::write(docs::root().join(PAGE), page).unwrap();
        return;
    }
    // Of another release of Ceph the page says nothing.
    let now = if table.contains(&ceph) { now } else { page(&columns[..3]) };
    let rows = |text: &str| -> Vec<String> {
        let lines = text.lines().take_while(|line| !line.starts_with("Ceph")).filter(|line| !line.is_empty());
        let cells = lines.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        let kept = if table.contains(&ceph) { usize::MAX } else { 6 };
        cells.map(|cells| cells.into_iter().take(kept).collect::<Vec<_>>().join("|")).collect()
    };
    let (now, kept) = (rows(&now), rows(table));
    let lost = kept.iter().filter(|row| !now.contains(row)).map(|row| format!("- {row}"));
    let new = now.iter().filter(|row| !kept.contains(row)).map(|row| format!("+ {row}"));
    let differences: Vec<String> = lost.chain(new).collect();
    assert!(now == kept, "{PAGE} is not what check() says; {AGAIN}\n{}", differences.join("\n"));
}

#[test]
fn trials_leave_nothing_behind() {
    each_store(|scene| {
        check(scene);
        let buckets: Vec<String> =
            scene.value("SELECT array_agg(name) FROM storage.physical_buckets WHERE state = 'ready'");
        assert_eq!(buckets.len(), 3, "{buckets:?}");
        for bucket in buckets {
            let left = scene.store.listing(&bucket);
            let left: Vec<&String> = left.keys().filter(|key| key.starts_with("scratch/")).collect();
            assert!(left.is_empty(), "{bucket}: {left:?}");
        }
    });
}

#[test]
fn files_go_on_while_one_of_three_nodes_is_down() {
    let garage: &'static Garage = Box::leak(Box::new(Garage::start_three()));
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(remote(garage.access()))));
    let scene = Scene::on(cluster, garage.access());
    scene.set("pg_storage.deletion_delay", "0");
    let mut ada = scene.user("ada");
    let bytes = |name: &str| some_bytes(name, 2_000_000);
    // Its blocks are on all nodes, and one upload is under way.
    let before = Upload::declared(&bytes("before")).complete(&mut ada, &bytes("before")).file_id;
    let goes = Upload::of(&bytes("goes")).complete(&mut ada, &bytes("goes")).file_id;
    let half = Upload::declared(&bytes("half")).request(&mut ada);
    assert!(half.put(&bytes("half")).is_success());

    garage.kill_node(2);
    assert_eq!(confirm(&mut ada, &half.upload_id).outcome(), ("uploaded", None));
    for file in [&before, &half.file_id] {
        let name = if *file == before { "before" } else { "half" };
        assert_downloads(&mut ada, file, &bytes(name));
    }
    // Also the first use of a bucket.
    let public = Upload::of(&bytes("public")).to("public").complete(&mut ada, &bytes("public")).file_id;
    let place = scene.place_of_file(&goes);
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&goes]).unwrap();
    let [_, _, deleted, failed] = scene.maintain();
    assert!(deleted >= 1 && failed == 0, "{deleted} deleted, {failed} failed");
    assert!(!scene.exists(&place));

    garage.start_node(2);
    garage.wait();
    assert!(!scene.exists(&place));
    assert_downloads(&mut ada, &public, &bytes("public"));
    // What came while one was away does not depend on another one of them.
    garage.kill_node(1);
    for (file, name) in [(&before, "before"), (&half.file_id, "half"), (&public, "public")] {
        assert_downloads(&mut ada, file, &bytes(name));
    }
    let after = Upload::of(&bytes("after")).complete(&mut ada, &bytes("after")).file_id;
    assert_downloads(&mut ada, &after, &bytes("after"));
}
