//! What the store has against what the tables say, both ways: found page by page, repaired through the queue alone,
//! and never at the expense of an upload that is under way.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_core::presign::Method;
use pg_storage_tests::flow::{Upload, assert_downloads, confirm, some_bytes};
use pg_storage_tests::http::Headers;
use pg_storage_tests::orphans::{Orphan, grow_old, rolled_back, scan, try_scan};
use pg_storage_tests::scene::remote;
use pg_storage_tests::{
    Cluster, Fault, FaultyStore, LocalStore, Scene, StoreAccess, each_store, eventually, refused,
};
use postgres::Client;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn orphan(kind: &str, key: &str, queued: bool) -> Orphan {
    Orphan { kind: kind.to_owned(), key: key.to_owned(), queued }
}

fn jobs(scene: &Scene) -> i64 {
    scene.value("SELECT count(*) FROM storage.deletion_queue WHERE reason = 'orphan'")
}

fn remove(scene: &Scene, (bucket, key): &(String, String)) {
    let answer = scene.at_store(Method::Delete, (bucket, key), &Headers::new(), &[]);
    assert!(answer.is_success(), "DELETE: {} {}", answer.status, answer.text());
}

#[test]
fn what_does_not_match_is_found_both_ways_and_only_our_own_bytes_are_removed() {
    const FOREIGN: [&str; 5] =
        ["a b/c+d=e&f%", "ünï/日本語", "x\u{1}", "staging/default/photo.jpg", "~\u{10fff0}"];
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        let kept = Upload::declared(b"kept").complete(&mut ada, b"kept");
        let lost = Upload::declared(b"lost").complete(&mut ada, b"lost");
        let pending =
            [Upload::declared(b"pending").request(&mut ada), Upload::of(b"pending").request(&mut ada)];
        pending.iter().for_each(|ticket| assert!(ticket.put(b"pending").is_success()));
        let deleted = Upload::declared(b"deleted").complete(&mut ada, b"deleted");
        ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&deleted.file_id]).unwrap();
        let (_, nobodys) = rolled_back(scene, "ada", "BEGIN", b"rolled back");
        let (bucket, lost_key) = scene.place_of_file(&lost.file_id);
        FOREIGN
            .iter()
            .for_each(|key| scene.overwrite(&(bucket.clone(), (*key).to_owned()), "a/b", b"foreign"));
        remove(scene, &(bucket.clone(), lost_key.clone()));
        grow_old();

        let expected = |queued| {
            let mut all: Vec<Orphan> =
                FOREIGN.iter().map(|key| orphan("foreign_object", key, false)).collect();
            all.push(orphan("object_without_row", &nobodys.1, queued));
            all.push(orphan("row_without_object", &lost_key, false));
            all.sort_by(|one, other| one.key.cmp(&other.key));
            all
        };
        let before = scene.rows();
        assert_eq!(scan(scene, &bucket, false), expected(false));
        assert_eq!(scene.rows(), before, "a dry run changes nothing");
        let young = try_scan(&mut scene.superuser(), &bucket, "1 hour", true).unwrap();
        assert_eq!(
            young,
            [orphan("row_without_object", &lost_key, false)],
            "bytes are too young, a row has no age"
        );
        assert_eq!(jobs(scene), 0);
        assert_eq!(scan(scene, &bucket, true), expected(true));
        assert_eq!(jobs(scene), 1);
        assert!(scene.exists(&nobodys), "nothing is deleted directly");
        assert!(
            scan(scene, &bucket, true).iter().all(|found| !found.queued),
            "what is queued is not found again"
        );
        let row = scene
            .superuser()
            .query_one(
                "SELECT o.object_id, o.size, o.last_modified IS NULL, o.physical_name
                 FROM storage.scan_orphans($1, '0') o WHERE kind = 'row_without_object'",
                &[&bucket],
            )
            .unwrap();
        assert_eq!(
            (row.get::<_, i64>(1), row.get::<_, bool>(2), row.get::<_, &str>(3)),
            (4, true, bucket.as_str())
        );

        scene.maintain();
        let said: String =
            scene.value("SELECT status || ' ' || detail FROM storage.check() WHERE name = 'objects'");
        assert_eq!(said, format!("fail 1 row(s) of storage.objects have no bytes in {bucket}."));
        assert!(!scene.exists(&nobodys));
        FOREIGN.iter().for_each(|key| assert!(scene.exists(&(bucket.clone(), (*key).to_owned())), "{key}"));
        assert_downloads(&mut ada, &kept.file_id, b"kept");
        for ticket in &pending {
            assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
            assert_downloads(&mut ada, &ticket.file_id, b"pending");
        }
    });
}

#[test]
fn bytes_of_an_open_transaction_are_nobodys_only_once_it_has_ended() {
    static CLUSTER: std::sync::OnceLock<Cluster> = std::sync::OnceLock::new();
    let store = LocalStore::shared();
    let cluster = CLUSTER
        .get_or_init(|| Cluster::start(remote(store.access()).setting("max_prepared_transactions", "5")));
    let scene = Scene::on(cluster, store.access());
    let warm = Upload::declared(b"warm").complete(&mut scene.user("ada"), b"warm");
    let (bucket, _) = scene.place_of_file(&warm.file_id);
    // However a transaction is open: seen, not tracked, or prepared.
    for (name, before, after) in [
        ("tracked", "", ""),
        ("untracked", "SET track_activities = off;", ""),
        ("prepared", "", "PREPARE TRANSACTION 'upload'"),
    ] {
        let mut open = scene.user("ada");
        if !before.is_empty() {
            let role: String = open.query_one("SELECT current_user::text", &[]).unwrap().get(0);
            let allow = format!("ALTER ROLE {role} SET track_activities = off");
            scene.superuser().batch_execute(&allow).unwrap();
            open = scene.user("ada");
            assert_eq!(open.query_one("SHOW track_activities", &[]).unwrap().get::<_, &str>(0), "off");
            scene.superuser().batch_execute(&format!("ALTER ROLE {role} RESET track_activities")).unwrap();
        }
        open.batch_execute("BEGIN").unwrap();
        let bytes = some_bytes(name, 50);
        let ticket = Upload::declared(&bytes).request(&mut open);
        assert!(ticket.put(&bytes).is_success());
        if !after.is_empty() {
            open.batch_execute(after).unwrap();
        }
        grow_old();
        assert_eq!(scan(&scene, &bucket, true), [], "{name}");
        assert_eq!(jobs(&scene), 0);
        // The collector keeps its hands off as well, should it be told otherwise before and after the commit.
        open.batch_execute(if after.is_empty() { "COMMIT" } else { "COMMIT PREPARED 'upload'" }).unwrap();
        assert_eq!(scan(&scene, &bucket, true), [], "{name}");
        let tell = "INSERT INTO storage.object_deletions (physical_name, key, reason, not_before)
                    SELECT physical_name, object_key, 'orphan', now() FROM storage.upload_requests WHERE id = $1::text::uuid";
        scene.superuser().execute(tell, &[&ticket.upload_id]).unwrap();
        scene.maintain();
        assert_eq!(confirm(&mut open, &ticket.upload_id).outcome(), ("uploaded", None), "{name}");
        scene.maintain();
        assert_eq!(jobs(&scene), 0, "a file has the bytes, so the job is dropped");
        assert_downloads(&mut open, &ticket.file_id, &bytes);
    }
    let (_, place) = rolled_back(&scene, "ada", "BEGIN", b"rolled back");
    grow_old();
    assert_eq!(scan(&scene, &bucket, true), [orphan("object_without_row", &place.1, true)]);
}

#[test]
fn thousands_of_objects_are_compared_page_by_page_in_steady_memory() {
    let (scene, store) = Scene::counting();
    let warm = Upload::declared(b"warm").complete(&mut scene.user("ada"), b"warm");
    let (bucket, _) = scene.place_of_file(&warm.file_id);
    // Rows and objects interleaved: most match, every tenth object has no row, every hundredth row no object.
    let key = |n: usize| format!("many/{n:05}{}", ["", "-ü", " +", "/x"][n % 4]);
    std::thread::scope(|scope| {
        for part in 0..8 {
            let (scene, bucket) = (&scene, &bucket);
            scope.spawn(move || {
                for n in (part..3600).step_by(8).filter(|n| n % 100 != 50) {
                    scene.overwrite_silently(&(bucket.clone(), key(n)), "a/b", b"x");
                }
            });
        }
    });
    let keys: Vec<String> = (0..3600).filter(|n| n % 10 != 1).map(key).collect();
    let mut session = scene.superuser();
    session
        .execute(
            "INSERT INTO storage.objects (physical_name, key, size, content_type) SELECT $1, k, 1, 'a/b' FROM unnest($2::text[]) k",
            &[&bucket, &keys],
        )
        .unwrap();
    // A tail of rows without any object: many rows to one page.
    session
        .execute(
            "INSERT INTO storage.objects (physical_name, key, size, content_type)
             SELECT $1, 'tail/' || n, 1, 'a/b' FROM generate_series(10001, 11050) n",
            &[&bucket],
        )
        .unwrap();
    grow_old();

    let listings = || {
        let path = format!("/{bucket}");
        store
            .requests()
            .iter()
            .filter(|r| r.operation == "ListObjectsV2" && r.path.starts_with(&path))
            .count()
    };
    let before = listings();
    let found = try_scan(&mut session, &bucket, "0", false).unwrap();
    let pages = listings() - before;
    let of = |kind: &str| -> Vec<String> {
        found.iter().filter(|orphan| orphan.kind == kind).map(|orphan| orphan.key.clone()).collect()
    };
    let mut foreign: Vec<String> = (0..3600).filter(|n| n % 10 == 1).map(key).collect();
    foreign.sort();
    assert_eq!(of("foreign_object"), foreign);
    let mut lost: Vec<String> = (0..3600).filter(|n| n % 100 == 50).map(key).collect();
    lost.extend((10001..=11050).map(|n| format!("tail/{n}")));
    lost.sort();
    assert_eq!(of("row_without_object"), lost);
    assert_eq!(found.len(), foreign.len() + lost.len());
    // Four pages of objects, two of rows, and each looked at again at most once.
    assert!((4..=12).contains(&pages), "{pages} listings");

    // The first scan filled what a session keeps; what four more add is the allocator's slack, not twenty thousand keys.
    let resident = |session: &mut Client| {
        let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap()
    };
    let before = resident(&mut session);
    for _ in 0..4 {
        assert_eq!(try_scan(&mut session, &bucket, "0", false).unwrap().len(), found.len());
    }
    let grown = resident(&mut session) - before;
    assert!(grown < 4500, "{grown} kB more after four more scans");
}

#[test]
fn rows_are_read_by_the_index_in_the_order_of_the_bytes() {
    let scene = Scene::local();
    scene
        .superuser()
        .batch_execute(
            "INSERT INTO storage.objects (physical_name, key, size, content_type)
             SELECT 'bucket-' || n % 3, md5(n::text) || '/ü', 1, 'a/b' FROM generate_series(1, 150000) n;
             ANALYZE storage.objects",
        )
        .unwrap();
    let mut session = scene.superuser();
    let plan: Vec<String> = session
        .query(
            "EXPLAIN SELECT o.id, o.key, o.size FROM storage.objects o
             WHERE o.physical_name = 'bucket-1' AND o.key > '7' AND o.key <= 'f' ORDER BY o.key LIMIT 1000",
            &[],
        )
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let plan = plan.join("\n");
    assert!(plan.contains("objects_key_unique") && !plan.contains("Sort") && !plan.contains("Seq"), "{plan}");
    // What the scan's own function reads, in blocks: its plan is not shown, what it touches is.
    let mut touched = || -> i64 {
        session
            .query_one(
                "SELECT (idx_blks_hit + idx_blks_read)::bigint FROM pg_statio_user_tables WHERE relname = 'objects'",
                &[],
            )
            .unwrap()
            .get(0)
    };
    let before = touched();
    let mut other = scene.superuser();
    for _ in 0..10 {
        let rows = other
            .query(
                "SELECT key FROM storage_private.objects_between('bucket-1', '7', U&'\\+10FFFF', 1000)",
                &[],
            )
            .unwrap();
        assert_eq!(rows.len(), 1000);
        let keys: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(keys.is_sorted());
    }
    drop(other);
    eventually("the statistics of the reads", LIMIT, || (touched() > before).then_some(()));
    assert!(touched() - before < 20_000, "{} index blocks", touched() - before);
}

#[test]
fn a_scan_obeys_cancel_and_leaves_no_half_of_a_repair() {
    let store = LocalStore::start();
    let proxy = FaultyStore::before(&store.access().endpoint);
    let access = StoreAccess { endpoint: proxy.endpoint(), ..store.access().clone() };
    let cluster = Box::leak(Box::new(Cluster::start(remote(&access))));
    let scene = Scene::on(cluster, &access);
    let warm = Upload::declared(b"warm").complete(&mut scene.user("ada"), b"warm");
    let (bucket, _) = scene.place_of_file(&warm.file_id);
    rolled_back(&scene, "ada", "BEGIN", b"rolled back");
    grow_old();
    let mut session = scene.superuser();
    session.batch_execute("SET statement_timeout = '500ms'").unwrap();
    proxy.set("list-type=2", Fault::Silent);
    let refusal = refused(try_scan(&mut session, &bucket, "0", true));
    assert_eq!(refusal.sqlstate, "57014", "{refusal:?}");
    proxy.wait_for_silence();
    proxy.heal();
    assert_eq!(jobs(&scene), 0);
    session.batch_execute("RESET statement_timeout").unwrap();
    assert_eq!(try_scan(&mut session, &bucket, "0", true).unwrap().len(), 1);
    proxy.set("list-type=2", Fault::Denied);
    let refusal = refused(try_scan(&mut session, &bucket, "0", true));
    assert_eq!(refusal.code(), ("58030", "STORE_DENIED"), "{refusal:?}");
}

#[test]
fn two_scans_at_once_queue_once() {
    let scene = Scene::local();
    let warm = Upload::declared(b"warm").complete(&mut scene.user("ada"), b"warm");
    let (bucket, _) = scene.place_of_file(&warm.file_id);
    for n in 0..3 {
        rolled_back(&scene, "ada", "BEGIN", format!("rolled back {n}").as_bytes());
    }
    grow_old();
    let mut first = scene.superuser();
    first.batch_execute("BEGIN").unwrap();
    assert_eq!(try_scan(&mut first, &bucket, "0", true).unwrap().len(), 3);
    let mut second = scene.superuser();
    let pid: i32 = second.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| try_scan(&mut second, &bucket, "0", true).unwrap());
        eventually("the second scan to wait for the first", LIMIT, || {
            scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
        });
        // A pass of maintenance waits for nobody.
        scene.set("pg_storage.orphan_min_age", "0");
        scene.maintain();
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage_private.reconciliations"), 0);
        first.batch_execute("COMMIT").unwrap();
        assert!(waiting.join().unwrap().iter().all(|orphan| orphan.queued));
    });
    assert_eq!(jobs(&scene), 3);
}

#[test]
fn uploads_go_on_while_everything_is_repaired() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        scene.set("pg_storage.reconcile_interval", "1");
        scene.set("pg_storage.orphan_min_age", "0");
        let warm = Upload::declared(b"warm").complete(&mut scene.user("ada"), b"warm");
        let (bucket, _) = scene.place_of_file(&warm.file_id);
        let uploading = AtomicBool::new(true);
        let files: Vec<(String, Vec<u8>)> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    scope.spawn(move || {
                        let mut session = scene.user("ada");
                        let mut files = Vec::new();
                        let began = std::time::Instant::now();
                        for n in 0.. {
                            let bytes = some_bytes(&format!("{writer} {n}"), 40);
                            let upload =
                                if n % 2 == 0 { Upload::declared(&bytes) } else { Upload::of(&bytes) };
                            // Some requests stay open for a while, some are rolled back, and one keeps its bytes waiting.
                            session.batch_execute("BEGIN").unwrap();
                            let ticket = upload.request(&mut session);
                            assert!(ticket.put(&bytes).is_success());
                            if n % 5 == 4 {
                                std::thread::sleep(Duration::from_millis(1500));
                            }
                            if n % 3 == 2 {
                                session.batch_execute("ROLLBACK").unwrap();
                                continue;
                            }
                            session.batch_execute("COMMIT").unwrap();
                            let verdict = confirm(&mut session, &ticket.upload_id);
                            assert_eq!(verdict.outcome(), ("uploaded", None), "{verdict:?}");
                            files.push((ticket.file_id, bytes));
                            if began.elapsed() > Duration::from_secs(8) {
                                break;
                            }
                        }
                        files
                    })
                })
                .collect();
            let repairing = scope.spawn(|| {
                let mut session = scene.superuser();
                while uploading.load(Ordering::Acquire) {
                    let found = try_scan(&mut session, &bucket, "0", true).unwrap();
                    assert!(found.iter().all(|orphan| orphan.kind != "row_without_object"), "{found:?}");
                    scene.maintain();
                }
            });
            // Told to end whatever became of the writers: a failed one must not leave this waiting.
            let files: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            uploading.store(false, Ordering::Release);
            repairing.join().unwrap();
            files.into_iter().flat_map(Result::unwrap).collect()
        });
        assert!(files.len() > 10, "{}", files.len());
        eventually("the end of everything that nobody names", LIMIT, || {
            std::thread::sleep(Duration::from_secs(1));
            scene.maintain();
            scene
                .superuser()
                .batch_execute("UPDATE storage.object_deletions SET not_before = now()")
                .unwrap();
            let empty = scene.value::<i64>("SELECT count(*) FROM storage.deletion_queue") == 0;
            (empty && scan(scene, &bucket, false).is_empty()).then_some(())
        });
        let mut ada = scene.user("ada");
        files.iter().for_each(|(file, bytes)| assert_downloads(&mut ada, file, bytes));
    });
}

#[test]
fn a_fixed_bucket_is_scanned_below_our_prefix_only() {
    let (scene, _) = Scene::counting();
    let bucket = format!("{}-operators", scene.prefix);
    assert!(scene.at_store(Method::Put, (&bucket, ""), &Headers::new(), &[]).is_success());
    scene.set("pg_storage.fixed_bucket", &bucket);
    scene.set("pg_storage.key_prefix", "app/one");
    let mut ada = scene.user("ada");
    let mut nobodys = Vec::new();
    for access in ["private", "public", "temp"] {
        let bytes = some_bytes(access, 40);
        Upload::of(&bytes).to(access).complete(&mut ada, &bytes);
        let mut session = scene.user("ada");
        session.batch_execute("BEGIN").unwrap();
        let ticket = Upload::of(&bytes).to(access).request(&mut session);
        assert!(ticket.put(&bytes).is_success());
        let find = "SELECT object_key FROM storage.upload_requests WHERE id = $1::text::uuid";
        nobodys.push(session.query_one(find, &[&ticket.upload_id]).unwrap().get::<_, String>(0));
        session.batch_execute("ROLLBACK").unwrap();
    }
    let scratch = "app/one/scratch/left over/by a probe";
    for key in ["invoice.pdf", "app/one", "app/one/", "app/one/private", "app/one0", "private/a", scratch] {
        scene.overwrite(&(bucket.clone(), key.to_owned()), "a/b", b"theirs");
    }
    // Confirmed uploads have left their staged bytes, which are queued.
    grow_old();
    nobodys.push(scratch.to_owned());
    nobodys.sort();
    let found = scan(&scene, &bucket, true);
    assert!(found.iter().all(|orphan| orphan.kind == "object_without_row" && orphan.queued), "{found:?}");
    assert_eq!(found.iter().map(|orphan| orphan.key.clone()).collect::<Vec<_>>(), nobodys);
}

/// A second database with the rows of the scene's, in the same cluster.
fn copy_of(scene: &Scene) -> Client {
    let cluster: &'static Cluster = scene.database.cluster();
    let (original, copy) = (scene.database.name(), format!("{}_copy", scene.database.name()));
    eventually("the sessions on the original to end", LIMIT, || {
        let create = format!("CREATE DATABASE {copy} TEMPLATE {original}");
        cluster.connect("postgres", "postgres").batch_execute(&create).ok()
    });
    let mut session = cluster.connect("postgres", &copy);
    let settings =
        format!("SET pg_storage.bucket_prefix = '{}'; SET jwt.claims.user_id = 'ada'", scene.prefix);
    session.batch_execute(&settings).unwrap();
    session
}

#[test]
fn databases_that_share_a_bucket_leave_each_other_alone() {
    let (scene, other) = (Scene::local(), Scene::local());
    other.set("pg_storage.bucket_prefix", &scene.prefix);
    let mut expected = Vec::new();
    let mut bucket = String::new();
    for (scene, kind) in [(&scene, "object_without_row"), (&other, "foreign_object")] {
        let kept = Upload::declared(b"kept").complete(&mut scene.user("ada"), b"kept");
        let place = scene.place_of_file(&kept.file_id);
        if kind == "foreign_object" {
            assert_eq!(place.0, bucket, "one bucket for both");
            expected.push(orphan(kind, &place.1, false));
            // What was staged is queued for deletion there, where nobody else looks.
            if !scene.direct {
                expected.push(orphan(kind, &scene.place_of_upload(&kept.upload_id).1, false));
            }
        }
        bucket = place.0;
        let (_, nobodys) = rolled_back(scene, "ada", "BEGIN", b"rolled back");
        expected.push(orphan(kind, &nobodys.1, kind != "foreign_object"));
    }
    expected.sort_by(|one, other| one.key.cmp(&other.key));
    grow_old();
    assert_eq!(scan(&scene, &bucket, true), expected);
}

#[test]
fn what_the_original_left_behind_is_the_copys_once_it_is_declared_the_owner() {
    let scene = Scene::local();
    let kept = Upload::declared(b"kept").complete(&mut scene.user("ada"), b"kept");
    let (bucket, kept_key) = scene.place_of_file(&kept.file_id);
    let (_, nobodys) = rolled_back(&scene, "ada", "BEGIN", b"rolled back");
    let mut copy = copy_of(&scene);
    grow_old();
    let foreign = [orphan("foreign_object", &nobodys.1, false)];
    assert_eq!(try_scan(&mut copy, &bucket, "0", false).unwrap(), foreign);
    let refusal = refused(try_scan(&mut copy, &bucket, "0", true));
    assert_eq!(refusal.code(), ("55000", "NOT_OWNER_OF_OBJECTS"), "{refusal:?}");
    copy.batch_execute("SELECT storage.adopt_installation(), storage.adopt_installation()").unwrap();
    let found = try_scan(&mut copy, &bucket, "0", true).unwrap();
    assert_eq!(found, [orphan("object_without_row", &nobodys.1, true)]);
    copy.execute("SELECT storage.run_maintenance()", &[]).unwrap();
    assert!(!scene.exists(&nobodys) && scene.exists(&(bucket, kept_key)));
}

#[test]
fn what_cannot_be_scanned_is_refused() {
    let scene = Scene::local();
    let ticket = Upload::declared(b"bytes").complete(&mut scene.user("ada"), b"bytes");
    let (bucket, _) = scene.place_of_file(&ticket.file_id);
    let mut session = scene.superuser();
    let refusal = refused(try_scan(&mut session, "no-such-bucket", "1 day", false));
    assert_eq!(refusal.code(), ("42704", "BUCKET_NOT_FOUND"), "{refusal:?}");
    let refusal = refused(session.query("SELECT storage.scan_orphans(NULL)", &[]));
    assert_eq!(refusal.code(), ("42704", "BUCKET_NOT_FOUND"), "{refusal:?}");
    let refusal = refused(try_scan(&mut session, &bucket, "-1 second", false));
    assert_eq!(refusal.code(), ("22023", "INVALID_EXPIRY"), "{refusal:?}");
    session.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    let refusal = refused(try_scan(&mut session, &bucket, "1 day", false));
    assert_eq!(refusal.sqlstate, "25001", "{refusal:?}");
    session.batch_execute("ROLLBACK; BEGIN READ ONLY").unwrap();
    assert_eq!(try_scan(&mut session, &bucket, "1 day", false).unwrap(), []);
    let refusal = refused(try_scan(&mut session, &bucket, "1 day", true));
    assert_eq!(refusal.code(), ("25006", "READ_ONLY"), "{refusal:?}");
    session.batch_execute("ROLLBACK").unwrap();
    session
        .batch_execute("SELECT storage.scan_orphans(name, NULL, NULL) FROM storage.physical_buckets")
        .unwrap();
    let refusal = refused(scene.manager("ada").query("SELECT storage.scan_orphans($1)", &[&bucket]));
    assert_eq!(refusal.sqlstate, "42501", "{refusal:?}");
    session
        .batch_execute("UPDATE storage.physical_buckets SET endpoint = 'https://elsewhere.example'")
        .unwrap();
    let refusal = refused(try_scan(&mut session, &bucket, "1 day", false));
    assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"), "{refusal:?}");
    assert!(refusal.detail.unwrap().contains("https://elsewhere.example"));
}
