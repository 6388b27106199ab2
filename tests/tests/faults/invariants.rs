//! What must hold once everything is quiet, over every row and every object.

use crate::client::Client;
use crate::consumer::Seen;
use crate::ledger::Fate;
use crate::saboteur::Saboteur;

use crate::world::World;
use pg_storage_core::presign::Method;
use pg_storage_tests::http::{self, Headers};
use pg_storage_tests::{eventually, flow, say};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Compares everything with everything.
pub fn check(world: &World, clients: &mut [Client], seen: &Seen, saboteur: &Saboteur) {
    same_as_promised(world, clients);
    one_event_each(world, clients, seen);
    bytes_of_every_file(world, clients);
    store_and_tables_agree(world);
    nothing_left_open(world);
    no_crash_but_ours(world, saboteur);
}

/// Every file that a client was told of is there, and no other.
fn same_as_promised(world: &World, clients: &[Client]) {
    let rows = world
        .scene
        .superuser()
        .query("SELECT id::text, sha256, filename, owner_id FROM storage.files", &[])
        .expect("read the files");
    let files: BTreeMap<String, (String, String)> =
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
    let mut explained = BTreeSet::new();
    for client in clients {
        for (id, fate) in &client.ledger.files {
            match (fate, files.get(id)) {
                (Fate::Exists(digests) | Fate::Unknown(digests), Some((sha256, _))) => {
                    explained.insert(id);
                    if !digests.contains(sha256) {
                        world.violation(format!("file {id} has digest {sha256}, sent were {digests:?}"));
                    }
                }
                (Fate::Exists(_), None) => {
                    world.violation(format!(
                        "{} was told that file {id} is committed, and it is gone",
                        client.user
                    ));
                }
                (Fate::Absent(why), Some(_)) => {
                    world.violation(format!(
                        "{} was told that file {id} was {why}, and it is there",
                        client.user
                    ));
                }
                (Fate::Absent(_) | Fate::Unknown(_), None) => {}
            }
        }
    }
    for (id, (_, filename)) in &files {
        let lost = clients.iter().any(|client| client.ledger.lost.contains(filename));
        if !explained.contains(id) && !lost {
            world.violation(format!("nobody was told of file {id}, {filename}"));
        }
    }
}

/// Whatever was committed has its event, once; and the consumer was given all of them.
fn one_event_each(world: &World, clients: &[Client], seen: &Seen) {
    let mut events: BTreeMap<(String, String), Vec<i64>> = BTreeMap::new();
    let mut names = BTreeMap::new();
    let query = "SELECT kind::text, file_id::text, id, announced, acknowledged_at IS NOT NULL, filename
                 FROM storage.events";
    for row in world.scene.superuser().query(query, &[]).expect("read the events") {
        let id: i64 = row.get(2);
        events.entry((row.get(1), row.get(0))).or_default().push(id);
        names.insert(row.get::<_, String>(1), row.get::<_, String>(5));
        if !seen.ids.contains(&id) || !row.get::<_, bool>(3) || !row.get::<_, bool>(4) {
            world.violation(format!("event {id} was not announced, given and acknowledged"));
        }
    }
    let mut expect = |id: &str, kind: &str, wanted: &[usize]| {
        let found = events.remove(&(id.to_owned(), kind.to_owned())).unwrap_or_default();
        if !wanted.contains(&found.len()) {
            world.violation(format!("file {id} has the events {found:?} that it was {kind}, not {wanted:?}"));
        }
    };
    for (id, fate) in clients.iter().flat_map(|client| &client.ledger.files) {
        let (created, deleted): (&[usize], &[usize]) = match fate {
            Fate::Exists(_) => (&[1], &[0]),
            Fate::Absent("deleted") => (&[1], &[1]),
            Fate::Absent(_) => (&[0], &[0]),
            Fate::Unknown(_) => (&[0, 1], &[0, 1]),
        };
        expect(id, "created", created);
        expect(id, "deleted", deleted);
    }
    // What is left is of requests whose answer was lost.
    for (file, kind) in events.keys() {
        if !clients.iter().any(|client| client.ledger.lost.contains(&names[file])) {
            world.violation(format!("an event says that file {file} was {kind}"));
        }
    }
}

/// Each owner downloads all of their files.
fn bytes_of_every_file(world: &World, clients: &mut [Client]) {
    let mut read = 0;
    for client in &mut *clients {
        client.session.connect().expect("connect without faults");
        let rows = client
            .session
            .ask("download_urls", |session| {
                session.query(
                    "SELECT f.id::text, f.sha256, f.size, u.url
                     FROM storage.files f
                     JOIN storage.download_urls(ARRAY(SELECT id FROM storage.files WHERE owner_id = storage.current_user_id())) u
                       ON u.file_id = f.id",
                    &[],
                )
            })
            .expect("sign without faults");
        for row in rows {
            let (id, sha256, size, url): (String, String, i64, String) =
                (row.get(0), row.get(1), row.get(2), row.get(3));
            let answer = http::get(&url);
            if answer.status != 200
                || answer.body.len() as i64 != size
                || flow::sha256(&answer.body) != sha256
            {
                world.violation(format!(
                    "file {id} of {} does not have its bytes: {}",
                    client.user, answer.status
                ));
            }
            read += 1;
        }
        client.session.drop_connection();
    }
    let files: i64 = world.scene.value("SELECT count(*) FROM storage.files");
    assert_eq!(read, files, "every file was downloaded by its owner");
    assert!(files > 20, "only {files} files are left to look at");
}

/// No object without a row, no row without its object, and no row that no file uses.
fn store_and_tables_agree(world: &World) {
    let rows = world
        .scene
        .superuser()
        .query(
            "SELECT o.physical_name, o.key, o.size, encode(o.sha256, 'hex'),
                    EXISTS (SELECT FROM storage.files f WHERE f.object_id = o.id)
             FROM storage.objects o",
            &[],
        )
        .expect("read the objects");
    let mut objects: BTreeMap<(String, String), (i64, String)> = BTreeMap::new();
    for row in &rows {
        let place: (String, String) = (row.get(0), row.get(1));
        if !row.get::<_, bool>(4) {
            world.violation(format!("object {place:?} is on record, and no file uses it"));
        }
        objects.insert(place, (row.get(2), row.get(3)));
    }
    let mut orphans = Vec::new();
    for bucket in &buckets_in_the_store(world) {
        for (key, listed) in world.scene.store.listing(bucket) {
            let place = (bucket.clone(), key);
            match objects.remove(&place) {
                Some((recorded, sha256)) => {
                    let bytes = world.scene.at_store(Method::Get, (&place.0, &place.1), &Headers::new(), &[]);
                    if recorded != listed.size as i64 || flow::sha256(&bytes.body) != sha256 {
                        world.violation(format!("object {place:?} is not what its row says"));
                    }
                }
                None => orphans.push((place, listed.modified)),
            }
        }
    }
    for place in objects.keys() {
        world.violation(format!("object {place:?} is on record and not in the store"));
    }
    let mut future = 0;
    for (place, modified) in &orphans {
        let is_future =
            world.scene.superuser().query_one("SELECT $1::text::timestamptz > now()", &[modified]);
        if is_future.expect("compare times").get(0) {
            // Written while the store's clock was ahead: its time to be reconciled comes when ours is there.
            future += 1;
        } else {
            world.violation(format!("object {place:?} of {modified} is in the store, and no row names it"));
        }
    }
    say(&format!("{future} objects without a row are from the future"));
}

/// Every bucket that a request named and that exists, on record or not.
pub fn buckets_in_the_store(world: &World) -> BTreeSet<String> {
    let lines = world.proxy.lines();
    let named = lines.iter().filter_map(|line| line.split(' ').nth(1)?.split(['/', '?']).nth(1));
    let mine = format!("{}-", world.scene.prefix);
    let named: BTreeSet<String> = named.filter(|name| name.starts_with(&mine)).map(str::to_owned).collect();
    let exists =
        |name: &String| world.scene.at_store(Method::Head, (name, ""), &Headers::new(), &[]).status == 200;
    named.into_iter().filter(exists).collect()
}

/// No lock, no prepared transaction, no job, and counters that are right.
fn nothing_left_open(world: &World) {
    for (what, query) in [
        // A worker has one for as long as it lives.
        ("our locks", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 4"),
        ("prepared transactions", "SELECT count(*) FROM pg_prepared_xacts"),
        ("queued deletions", "SELECT count(*) FROM storage.object_deletions"),
        (
            "buckets whose ledger of room is wrong",
            "SELECT count(*) FROM storage_private.room r
             CROSS JOIN LATERAL (SELECT coalesce(sum(d.files), 0) AS files, coalesce(sum(d.bytes), 0) AS bytes
                                 FROM storage_private.released_room d WHERE d.bucket_id = r.bucket_id) AS released
             CROSS JOIN LATERAL (SELECT count(*) AS files, coalesce(sum(f.size), 0) AS bytes
                                 FROM storage.files f WHERE f.bucket_id = r.bucket_id) AS counted
             WHERE (r.files - released.files, r.bytes - released.bytes)
                   IS DISTINCT FROM (counted.files, counted.bytes)",
        ),
        ("objects being deleted", "SELECT count(*) FROM storage.objects WHERE deleting"),
        ("buckets being deleted", "SELECT count(*) FROM storage.buckets WHERE deleted_at IS NOT NULL"),
        ("pending uploads", "SELECT count(*) FROM storage.upload_requests WHERE status = 'requested'"),
        (
            "uploads without a file that was never deleted",
            "SELECT count(*) FROM storage.files f LEFT JOIN storage.upload_requests u ON u.file_id = f.id
             WHERE u.status IS DISTINCT FROM 'uploaded'",
        ),
        (
            "wrong counts",
            "SELECT count(*) FROM storage.bucket_usage u
             CROSS JOIN LATERAL (SELECT count(*) AS files, coalesce(sum(o.size), 0)::bigint AS bytes
                                 FROM storage.files f JOIN storage.objects o ON o.id = f.object_id
                                 WHERE f.bucket_id = u.bucket_id) AS counted
             WHERE (u.files, u.bytes) IS DISTINCT FROM (counted.files, counted.bytes)",
        ),
    ] {
        let left: i64 = world.scene.value(query);
        if left != 0 {
            world.violation(format!("{left} {what} are left"));
        }
    }
}

/// The server restarted where it was killed, and nowhere else.
fn no_crash_but_ours(world: &World, saboteur: &Saboteur) {
    let log = world.cluster.log();
    for line in log.lines().filter(|line| line.contains("was terminated by signal")) {
        let pid = line.split("(PID ").nth(1).and_then(|rest| rest.split(')').next()?.parse().ok());
        if pid.is_none_or(|pid| !saboteur.killed.contains(&pid)) {
            world.violation(format!("the server crashed by itself: {line}"));
        }
    }
    for sign in ["PANIC:", "panicked at", "TRAP:"] {
        for line in log.lines().filter(|line| line.contains(sign)) {
            world.violation(format!("in the log: {line}"));
        }
    }
    let starts = log.matches("starting PostgreSQL").count();
    if starts != saboteur.starts {
        world.violation(format!("the server was started {} times and began {starts} times", saboteur.starts));
    }
    let crashes = log.matches("all server processes terminated; reinitializing").count();
    if crashes > saboteur.killed.len() {
        world.violation(format!("{crashes} crashes after {} kills", saboteur.killed.len()));
    }
    eventually("the worker to run", Duration::from_secs(30), || {
        let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_storage worker'";
        (world.scene.value::<i64>(workers) == 1).then_some(())
    });
}
