//! Events: one for each file that was committed as created or deleted, none for others; claimed, acknowledged, replayed,
//! announced, and carried by a dump.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload, some_bytes};
use pg_storage_tests::worker::{at_work, keep_worker};
use pg_storage_tests::{
    Cluster, Database, Options, Scene, each_store, eventually, process, refused, scratch,
};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use std::collections::BTreeSet;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// Kind and file of every event, in order.
fn recorded(scene: &Scene) -> Vec<(String, String)> {
    let query = "SELECT kind::text, file_id::text FROM storage.events ORDER BY id";
    scene.superuser().query(query, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The ids of the events that a call of `claim_events` gives.
fn claim(session: &mut Client, arguments: &str) -> Vec<i64> {
    let query = format!("SELECT id FROM storage.claim_events({arguments})");
    session.query(&query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn count(session: &mut Client, query: &str) -> i64 {
    session.query_one(query, &[]).unwrap().get(0)
}

/// Events as if files had been made, without the files.
fn invent(session: &mut Client, number: i32) {
    session
        .execute(
            "INSERT INTO storage.events (kind, file_id, bucket_id, object_id, tenant_id, owner_id, filename, content_type, size)
             SELECT 'created', gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'default', 'ada', 'a.txt', 'text/plain', 1
             FROM generate_series(1, $1)",
            &[&number],
        )
        .unwrap();
}

fn announced_and_removed(scene: &Scene) -> (i64, i64) {
    let query = "SELECT events_announced, events_removed FROM storage.run_maintenance()";
    let row = scene.superuser().query_one(query, &[]).unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn a_file_has_one_event_when_it_is_made_and_one_when_it_is_deleted() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("told", 60);
        let first = Upload::declared(&bytes).at("docs/a.txt").complete(&mut ada, &bytes);
        // A confirmation that is repeated makes nothing, and bytes that were there already make a file as well.
        flow::confirm(&mut ada, &first.upload_id);
        let shared = Upload::declared(&bytes).request(&mut ada);
        assert!(shared.deduplicated);
        let pending = Upload::of(&bytes).request(&mut ada);
        flow::abort(&mut ada, &pending.upload_id).unwrap();
        ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&first.file_id]).unwrap();
        ada.execute("DELETE FROM storage.files", &[]).unwrap();
        let expected = [("created", &first), ("created", &shared), ("deleted", &first), ("deleted", &shared)];
        assert_eq!(recorded(scene), expected.map(|(kind, ticket)| (kind.to_owned(), ticket.file_id.clone())));

        let row = scene
            .superuser()
            .query_one(
                "SELECT e.upload_id::text, e.bucket_id::text, e.tenant_id, e.owner_id, e.filename, e.path, e.content_type, e.size,
                        o.physical_name || '/' || o.key
                 FROM storage.events e JOIN storage.objects o ON o.id = e.object_id WHERE e.id = 1",
                &[],
            )
            .unwrap();
        let bucket: String = scene.value("SELECT id::text FROM storage.buckets WHERE key = 'private'");
        let texts = [0, 1, 2, 3, 4, 5, 6].map(|column| row.get::<_, String>(column));
        let told = [&first.upload_id, &bucket, "default", "ada", "note.txt", "docs/a.txt", "text/plain"];
        assert_eq!(texts, told);
        assert_eq!(row.get::<_, i64>(7), 60);
        let (physical, key) = scene.place_of_final_key(&first.upload_id);
        // Staged bytes are kept below it.
        assert!(row.get::<_, String>(8).starts_with(&format!("{physical}/{key}")));
    });
}

#[test]
fn what_is_rolled_back_has_no_event() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let kept = Upload::of(b"kept").complete(&mut ada, b"kept");
    let sent = Upload::of(b"sent").request(&mut ada);
    assert!(sent.put(b"sent").is_success());
    let before = recorded(&scene);
    ada.batch_execute("BEGIN").unwrap();
    flow::confirm(&mut ada, &sent.upload_id);
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&kept.file_id]).unwrap();
    ada.batch_execute("ROLLBACK").unwrap();
    assert_eq!(recorded(&scene), before);

    ada.batch_execute("BEGIN; SAVEPOINT s").unwrap();
    flow::confirm(&mut ada, &sent.upload_id);
    ada.batch_execute("ROLLBACK TO s").unwrap();
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&kept.file_id]).unwrap();
    ada.batch_execute("COMMIT").unwrap();
    let mut after = before;
    after.push(("deleted".to_owned(), kept.file_id));
    assert_eq!(recorded(&scene), after);
}

#[test]
fn a_prepared_transaction_has_its_events_when_it_is_committed() {
    let cluster: &'static Cluster =
        Box::leak(Box::new(Cluster::start(Options::new().setting("max_prepared_transactions", "4"))));
    let scene = Scene::on(cluster, &pg_storage_tests::scene::local_access(cluster));
    let mut ada = scene.user("ada");
    for (end, events) in [("ROLLBACK", 0), ("COMMIT", 1)] {
        let sent = Upload::of(end.as_bytes()).request(&mut ada);
        assert!(sent.put(end.as_bytes()).is_success());
        ada.batch_execute("BEGIN").unwrap();
        flow::confirm(&mut ada, &sent.upload_id);
        ada.batch_execute("PREPARE TRANSACTION 'p'").unwrap();
        assert_eq!(recorded(&scene), []);
        scene.superuser().batch_execute(&format!("{end} PREPARED 'p'")).unwrap();
        assert_eq!(recorded(&scene).len(), events, "{end}");
    }
    assert_eq!(announced_and_removed(&scene), (1, 0));
}

#[test]
fn whoever_claims_an_event_can_read_the_bytes() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let mut consumer = scene.superuser();
        let consuming = std::thread::spawn(move || {
            let mut seen = Vec::new();
            eventually("ten events", LIMIT, || {
                let query = "SELECT file_id::text, kind::text FROM storage.claim_events(2)";
                for row in consumer.query(query, &[]).unwrap() {
                    assert_eq!(row.get::<_, &str>(1), "created");
                    let answer = flow::download(&mut consumer, row.get(0));
                    assert_eq!(answer.status, 200);
                    seen.push(row.get::<_, String>(0));
                }
                (seen.len() >= 10).then_some(())
            });
            seen
        });
        let files: BTreeSet<String> = (0..10)
            .map(|n| {
                let bytes = some_bytes(&format!("watched {n}"), 50);
                Upload::declared(&bytes).complete(&mut ada, &bytes).file_id
            })
            .collect();
        let seen = consuming.join().unwrap();
        assert_eq!(seen.len(), 10);
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), files);
    });
}

#[test]
fn events_are_claimed_in_order_by_one_consumer_at_a_time_until_they_are_acknowledged() {
    let scene = Scene::local();
    let mut first = scene.superuser();
    let mut second = scene.superuser();
    invent(&mut first, 10);
    second.batch_execute("SET lock_timeout = '5s'").unwrap();

    // Neither waits for the other, also while the other's claim is not committed.
    first.batch_execute("BEGIN").unwrap();
    assert_eq!(claim(&mut first, "3"), [1, 2, 3]);
    assert_eq!(claim(&mut second, "3"), [4, 5, 6]);
    first.batch_execute("ROLLBACK").unwrap();
    assert_eq!(claim(&mut second, "max => 2"), [1, 2], "a claim that was rolled back never was");

    let acknowledge = |session: &mut Client, ids: &[Option<i64>]| -> i64 {
        session.query_one("SELECT storage.acknowledge_events($1)", &[&ids]).unwrap().get(0)
    };
    assert_eq!(acknowledge(&mut second, &[Some(1), Some(4), Some(4), None, Some(99)]), 2);
    assert_eq!(acknowledge(&mut second, &[Some(1), Some(4)]), 0);
    assert_eq!(acknowledge(&mut second, &[]), 0);
    assert_eq!(claim(&mut first, ""), [3, 7, 8, 9, 10]);
    assert_eq!(claim(&mut first, ""), Vec::<i64>::new());

    // The lease ends: what was not acknowledged comes again, and counts it.
    first.batch_execute("UPDATE storage.events SET claimed_until = now() WHERE id IN (1, 2, 3)").unwrap();
    let again = first.query("SELECT id, attempts FROM storage.claim_events()", &[]).unwrap();
    let again: Vec<(i64, i32)> = again.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(again, [(2, 2), (3, 2)]);
    let lease = "SELECT extract(epoch FROM claimed_until - clock_timestamp())::float8 FROM storage.events WHERE id = 2";
    assert!((290.0..=300.0).contains(&scene.value::<f64>(lease)));
    assert_eq!(claim(&mut first, "lease => '1 second'"), Vec::<i64>::new());
}

#[test]
fn the_claims_of_a_consumer_that_was_killed_come_back_after_their_lease() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(Options::new())));
    let scene = Scene::on(cluster, &pg_storage_tests::scene::local_access(cluster));
    let mut consumer = scene.superuser();
    invent(&mut consumer, 5);
    assert_eq!(claim(&mut consumer, "2, '2 seconds'"), [1, 2]);
    let pid: i32 = consumer.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let mut other = scene.superuser();
    process::signal(pid.unsigned_abs(), "KILL");
    // A session that is begun before the postmaster has noticed would end with all the others.
    eventually("the end of all sessions", LIMIT, || other.simple_query("SELECT 1").is_err().then_some(()));
    eventually("the server to come back", LIMIT, || {
        cluster.try_connect("postgres", scene.database.name()).ok()?.simple_query("SELECT 1").ok()
    });
    let mut successor = scene.superuser();
    assert_eq!(claim(&mut successor, "10"), [3, 4, 5]);
    let again = eventually("the end of the lease", LIMIT, || {
        Some(claim(&mut successor, "10")).filter(|ids| !ids.is_empty())
    });
    assert_eq!(again, [1, 2]);
}

#[test]
fn acknowledged_events_can_be_replayed() {
    let scene = Scene::local();
    let mut consumer = scene.superuser();
    invent(&mut consumer, 4);
    assert_eq!(claim(&mut consumer, ""), [1, 2, 3, 4]);
    consumer.execute("SELECT storage.acknowledge_events('{1,2,3}')", &[]).unwrap();
    consumer
        .batch_execute(
            "UPDATE storage.events SET acknowledged_at = acknowledged_at - interval '1 hour' WHERE id = 1",
        )
        .unwrap();
    let replayed = "SELECT storage.replay_events(now() - interval '30 minutes')";
    assert_eq!(count(&mut consumer, replayed), 2);
    let again = consumer.query("SELECT id, attempts FROM storage.claim_events()", &[]).unwrap();
    let again: Vec<(i64, i32)> = again.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(again, [(2, 1), (3, 1)], "1 was acknowledged before, and 4 is still claimed");
    assert_eq!(count(&mut consumer, "SELECT storage.replay_events(NULL)"), 0);
    assert_eq!(count(&mut consumer, "SELECT storage.replay_events('-infinity')"), 1);
}

#[test]
fn arguments_that_mean_nothing_are_refused() {
    let scene = Scene::local();
    let mut consumer = scene.superuser();
    for (arguments, token) in [
        ("0", "INVALID_LIMIT"),
        ("-1", "INVALID_LIMIT"),
        ("10001", "INVALID_LIMIT"),
        ("NULL", "INVALID_LIMIT"),
        ("1, '0'", "INVALID_EXPIRY"),
        ("1, '-5 minutes'", "INVALID_EXPIRY"),
        ("1, '8 days'", "INVALID_EXPIRY"),
        ("1, NULL", "INVALID_EXPIRY"),
    ] {
        let refusal = refused(consumer.query(&format!("SELECT storage.claim_events({arguments})"), &[]));
        assert_eq!(refusal.code(), ("22023", token), "{arguments}");
        assert!(refusal.detail.is_some() && refusal.hint.is_some(), "{refusal:?}");
    }
    consumer.batch_execute("SET default_transaction_read_only = on").unwrap();
    for call in ["claim_events()", "acknowledge_events('{1}')", "replay_events(now())"] {
        let refusal = refused(consumer.query(&format!("SELECT storage.{call}"), &[]));
        assert_eq!(refusal.code(), ("25006", "READ_ONLY"), "{call}");
    }
}

/// The payloads that have arrived, in order.
fn heard(listener: &mut Client) -> Vec<String> {
    listener
        .notifications()
        .timeout_iter(Duration::from_millis(200))
        .map(|note| Ok(note.payload().to_owned()))
        .collect()
        .unwrap()
}

#[test]
fn each_event_is_announced_once_after_its_commit_with_ids_alone() {
    let scene = Scene::local();
    let mut listener = scene.superuser();
    listener.batch_execute("LISTEN storage_events").unwrap();
    let mut ada = scene.user("ada");
    let ticket = Upload::of(b"announced").complete(&mut ada, b"announced");
    assert_eq!(
        heard(&mut listener),
        Vec::<String>::new(),
        "nothing is sent by the transaction that makes a file"
    );

    // A pass that is rolled back announced nothing.
    scene.superuser().batch_execute("BEGIN; SELECT storage.run_maintenance(); ROLLBACK").unwrap();
    assert_eq!(heard(&mut listener), Vec::<String>::new());
    assert_eq!(announced_and_removed(&scene), (1, 0));
    assert_eq!(heard(&mut listener), [format!("[{{\"event\":1,\"file\":\"{}\"}}]", ticket.file_id)]);
    assert_eq!(announced_and_removed(&scene), (0, 0));
    assert_eq!(heard(&mut listener), Vec::<String>::new());

    // Ids as long as they can be, and so many that they need several messages and several steps.
    let mut superuser = scene.superuser();
    superuser.batch_execute("ALTER TABLE storage.events ALTER id RESTART 9223372036854770000").unwrap();
    invent(&mut superuser, 2350);
    assert_eq!(announced_and_removed(&scene), (2350, 0));
    let payloads = heard(&mut listener);
    assert_eq!(payloads.len(), 24);
    assert!(payloads.iter().all(|payload| payload.len() < 8000));
    let mut ids = Vec::new();
    for payload in payloads {
        let query = "SELECT (e ->> 'event')::bigint FROM jsonb_array_elements($1::text::jsonb) e";
        ids.extend(superuser.query(query, &[&payload]).unwrap().iter().map(|row| row.get::<_, i64>(0)));
    }
    assert_eq!(ids, (9223372036854770000..9223372036854772350).collect::<Vec<_>>());
}

#[test]
fn events_past_their_time_are_removed_and_without_any_none_are_recorded() {
    let scene = Scene::local();
    let mut superuser = scene.superuser();
    invent(&mut superuser, 3000);
    superuser
        .batch_execute(
            "UPDATE storage.events SET created_at = created_at - interval '8 days' WHERE id <= 2500;
             UPDATE storage.events SET acknowledged_at = now() WHERE id % 2 = 0",
        )
        .unwrap();
    // A consumer holds one of them: the pass does not wait, and takes it next time.
    let mut consumer = scene.superuser();
    consumer.batch_execute("BEGIN; SELECT FROM storage.events WHERE id = 1700 FOR UPDATE").unwrap();
    superuser.batch_execute("SET lock_timeout = '5s'").unwrap();
    let removed = "SELECT events_removed FROM storage.run_maintenance()";
    assert_eq!(count(&mut superuser, removed), 1999, "a step that is not full ends the task");
    consumer.batch_execute("COMMIT").unwrap();
    assert_eq!(count(&mut superuser, removed), 501);
    assert_eq!(count(&mut superuser, "SELECT count(*) FROM storage.events"), 500);

    scene.set("pg_storage.event_retention", "0");
    let mut ada = scene.user("ada");
    let file = Upload::of(b"untold").complete(&mut ada, b"untold").file_id;
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&file]).unwrap();
    assert_eq!(announced_and_removed(&scene).1, 500);
    assert_eq!(recorded(&scene), []);
}

#[test]
fn nobody_sees_events_but_those_who_were_granted_them_and_then_those_of_their_tenant() {
    let scene = Scene::local();
    let mut superuser = scene.superuser();
    invent(&mut superuser, 2);
    superuser.batch_execute("UPDATE storage.events SET tenant_id = 'globex' WHERE id = 2").unwrap();
    let mut manager = scene.manager("ada");
    for statement in [
        "SELECT storage.claim_events()",
        "SELECT storage.acknowledge_events('{1}')",
        "SELECT storage.replay_events(now())",
        "SELECT FROM storage.events",
    ] {
        assert_eq!(refused(manager.query(statement, &[])).sqlstate, "42501", "{statement}");
    }

    let consumer = scene.database.role("reader");
    superuser
        .batch_execute(&format!(
            "GRANT SELECT, UPDATE (claimed_until, attempts, acknowledged_at) ON storage.events TO {consumer};
             GRANT EXECUTE ON FUNCTION storage.claim_events(integer, interval), storage.acknowledge_events(bigint[]),
                 storage.replay_events(timestamptz), storage_private.require_writable() TO {consumer}"
        ))
        .unwrap();
    for (tenant, event) in [("default", 1), ("globex", 2)] {
        let mut session = scene.database.connect_as(&consumer, &[("jwt.claims.tenant_id", tenant)]);
        assert_eq!(claim(&mut session, ""), [event]);
        assert_eq!(count(&mut session, "SELECT storage.acknowledge_events('{1,2}')"), 1);
        assert_eq!(count(&mut session, "SELECT storage.replay_events('-infinity')"), 1);
        assert_eq!(claim(&mut session, ""), [event]);
        assert_eq!(
            refused(session.execute("UPDATE storage.events SET kind = 'deleted'", &[])).sqlstate,
            "42501"
        );
    }
}

/// Dumps a database and restores it into a new one of the same cluster.
fn restored(source: &Database<'static>, options: &[&str]) -> Database<'static> {
    let cluster = source.cluster();
    let file = scratch().join("dump");
    let dump = cluster.client_program("pg_dump").args(options).arg(source.name()).output().unwrap();
    assert!(dump.status.success() && dump.stderr.is_empty(), "{}", String::from_utf8_lossy(&dump.stderr));
    std::fs::write(&file, dump.stdout).unwrap();
    let copy = cluster.bare_database();
    let mut restore = if options.contains(&"-Fc") {
        cluster.client_program("pg_restore")
    } else {
        let mut psql = cluster.client_program("psql");
        psql.args(["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-f"]);
        psql
    };
    let output = restore.arg(&file).args(["-d", copy.name()]).output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    copy
}

#[test]
fn a_dump_carries_the_queue_and_a_restore_tells_nothing_twice() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let files: Vec<String> = (0..4)
        .map(|n| {
            let bytes = format!("dumped {n}");
            Upload::of(bytes.as_bytes()).complete(&mut ada, bytes.as_bytes()).file_id
        })
        .collect();
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&files[0]]).unwrap();
    let mut consumer = scene.superuser();
    assert_eq!(claim(&mut consumer, "3, '3 seconds'"), [1, 2, 3]);
    consumer.execute("SELECT storage.acknowledge_events('{1,2}')", &[]).unwrap();
    assert_eq!(announced_and_removed(&scene), (5, 0));
    let rows = |session: &mut Client| -> Vec<String> {
        let query = "SELECT e::text FROM storage.events e ORDER BY id";
        session.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    let before = rows(&mut consumer);

    for options in [&["-Fc"][..], &["-Fp"], &["-Fp", "--inserts"]] {
        let copy = restored(&scene.database, options);
        let mut session = copy.superuser();
        assert_eq!(rows(&mut session), before, "{options:?}");
        assert_eq!(count(&mut session, "SELECT count(*) FROM storage.files"), 3);
        assert!(claim(&mut session, "").iter().all(|id| [3, 4, 5].contains(id)));
        eventually("the claim of 3 to end", LIMIT, || {
            claim(&mut session, "");
            (count(
                &mut session,
                "SELECT count(*) FROM storage.events WHERE claimed_until > now() + interval '1 minute'",
            ) == 3)
                .then_some(())
        });
        session.execute("DELETE FROM storage.files WHERE id = $1::text::uuid", &[&files[1]]).unwrap();
        let last = "SELECT id FROM storage.events WHERE kind = 'deleted' ORDER BY id DESC LIMIT 1";
        assert_eq!(count(&mut session, last), 6, "ids go on where they were");
        assert_eq!(claim(&mut session, ""), [6]);
    }
}

#[test]
fn the_worker_announces_a_file_soon_after_its_commit() {
    // It looks by itself once an hour only.
    let scene = at_work();
    keep_worker(&scene);
    let mut listener = scene.superuser();
    listener.batch_execute("LISTEN storage_events").unwrap();
    let mut ada = scene.user("ada");
    for n in 1..=2 {
        let bytes = format!("heard {n}");
        let file = Upload::of(bytes.as_bytes()).complete(&mut ada, bytes.as_bytes()).file_id;
        let payload = eventually("the announcement", LIMIT, || heard(&mut listener).pop());
        assert_eq!(payload, format!("[{{\"event\":{n},\"file\":\"{file}\"}}]"));
    }
}
