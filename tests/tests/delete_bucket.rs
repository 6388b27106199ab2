//! Deleting buckets: refused while they hold files, or with everything in them; then they are gone for everybody at one
//! commit, and their rows and bytes follow in steps that may be interrupted anywhere.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload, assert_downloads, some_bytes};
use pg_storage_tests::worker::{at_work, await_idle, await_successor, keep_worker, last_pass, nudge};
use pg_storage_tests::{Cluster, Options, Scene, each_store, eventually, process, refused, scene};
use postgres::Client;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn bucket_id(scene: &Scene, key: &str) -> String {
    scene.value(&format!(
        "SELECT id::text FROM storage.buckets WHERE key = '{key}' AND owner_id = 'ada' AND deleted_at IS NULL"
    ))
}

/// Deletes with force, as `session`.
fn force(session: &mut Client, bucket: &str) {
    let query =
        "SELECT (b).deleted_at IS NOT NULL FROM (SELECT storage.delete_bucket($1, force => true) AS b) d";
    assert!(session.query_one(query, &[&bucket]).unwrap().get::<_, bool>(0));
}

/// How many buckets a pass removed.
fn pass(scene: &Scene) -> i64 {
    let mut session = scene.superuser();
    session.batch_execute("SET lock_timeout = '10s'").unwrap();
    session.query_one("SELECT buckets_deleted FROM storage.run_maintenance()", &[]).unwrap().get(0)
}

/// What is left of the bucket that is being deleted: files, uploads, objects.
fn left(scene: &Scene) -> Option<[i64; 3]> {
    let query = "SELECT files_left, uploads_left, objects_left FROM storage.bucket_deletions";
    scene.superuser().query_opt(query, &[]).unwrap().map(|row| [0, 1, 2].map(|column| row.get(column)))
}

fn number(session: &mut Client, query: &str) -> i64 {
    session.query_one(query, &[]).unwrap().get(0)
}

/// A bucket with as many files as one likes, each over an object of its own, and a finished upload for each.
fn full_bucket(scene: &Scene, files: i32) -> String {
    let id: String = scene.value(
        "INSERT INTO storage.buckets (tenant_id, owner_id, key, physical_name)
         VALUES ('default', 'ada', 'full', 'a-physical-bucket') RETURNING id::text",
    );
    scene
        .superuser()
        .batch_execute(&format!(
            "SELECT storage.adopt_installation();
             WITH made AS (
                 INSERT INTO storage.objects (physical_name, key, bucket_id, sha256, size, content_type)
                 SELECT 'a-physical-bucket', 'key ' || n, '{id}', sha256(n::text::bytea), 1, 'text/plain' FROM generate_series(1, {files}) n
                 RETURNING *
             ), requested AS (
                 INSERT INTO storage.upload_requests (tenant_id, bucket_id, owner_id, filename, content_type, size, physical_name,
                     object_key, final_key, direct, create_only, status, expires_at)
                 SELECT 'default', bucket_id, 'ada', 'a.txt', content_type, size, physical_name, key, key, true, true, 'uploaded',
                        now() - interval '1 day' FROM made
             )
             INSERT INTO storage.files (tenant_id, bucket_id, object_id, owner_id, filename, content_type, size, sha256)
             SELECT 'default', bucket_id, id, 'ada', 'a.txt', content_type, size, encode(sha256, 'hex') FROM made"
        ))
        .unwrap();
    id
}

#[test]
fn without_force_a_bucket_must_be_empty_and_its_pending_uploads_end() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let mut ada = scene.user("ada");
        let mut manager = scene.manager("ada");
        let file = Upload::of(b"keeps it").complete(&mut ada, b"keeps it").file_id;
        let refusal = refused(manager.query("SELECT storage.delete_bucket('private')", &[]));
        assert_eq!(refusal.code(), ("55000", "BUCKET_NOT_EMPTY"));
        assert!(refusal.hint.is_some_and(|hint| hint.contains("force")));
        // Files of others, whom the manager does not see, keep it as well.
        scene.shared_bucket();
        let other = Upload::of(b"hidden").to("shared").complete(&mut scene.user("bob"), b"hidden").file_id;
        scene
            .superuser()
            .batch_execute("ALTER POLICY default_select ON storage.files USING (owner_id = 'ada')")
            .unwrap();
        assert_eq!(number(&mut manager, "SELECT count(*) FROM storage.files"), 1);
        let refusal = refused(manager.query("SELECT storage.delete_bucket('shared')", &[]));
        assert_eq!(refusal.code(), ("55000", "BUCKET_NOT_EMPTY"));
        assert_downloads(&mut scene.superuser(), &other, b"hidden");

        ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&file]).unwrap();
        let pending = Upload::of(b"pending").request(&mut ada);
        assert!(pending.put(b"pending").is_success());
        let place = scene.place_of_upload(&pending.upload_id);
        let row = manager
            .query_one("SELECT key, deleted_at IS NULL FROM storage.delete_bucket('private')", &[])
            .unwrap();
        assert_eq!((row.get::<_, &str>(0), row.get::<_, bool>(1)), ("private", true));
        assert_eq!(
            scene.value::<i64>(
                "SELECT count(*) FROM storage.buckets WHERE key = 'private' AND owner_id = 'ada'"
            ),
            0
        );
        assert_eq!(
            refused(flow::try_confirm(&mut ada, &pending.upload_id)).code(),
            ("42704", "UPLOAD_NOT_FOUND")
        );
        pass(scene);
        assert!(!scene.exists(&place));
    });
}

#[test]
fn with_force_a_bucket_and_its_files_are_gone_for_everybody_at_the_commit() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("doomed", 70);
        let file = Upload::declared(&bytes).to("public").at("a/b.txt").complete(&mut ada, &bytes).file_id;
        let pending = Upload::of(b"pending").to("public").request(&mut ada).upload_id;
        let id = bucket_id(scene, "public");
        let mut manager = scene.manager("ada");
        manager.batch_execute("BEGIN").unwrap();
        force(&mut manager, "public");
        assert_downloads(&mut ada, &file, &bytes);
        manager.batch_execute("ROLLBACK").unwrap();
        assert_downloads(&mut ada, &file, &bytes);
        force(&mut manager, "public");

        for (who, mut session) in [
            ("owner", ada),
            ("colleague", scene.user("bob")),
            ("manager", manager),
            ("superuser", scene.superuser()),
        ] {
            session.batch_execute("SET jwt.claims.user_id = 'ada'").unwrap();
            let not_found = |session: &mut Client, call: &str, token: &str| {
                let refusal = refused(session.query(&format!("SELECT storage.{call}"), &[]));
                assert_eq!(refusal.code(), ("42704", token), "{who}: {call}");
            };
            not_found(
                &mut session,
                &format!("request_upload_url('{id}', 'a.txt', 'text/plain', 1)"),
                "BUCKET_NOT_FOUND",
            );
            not_found(
                &mut session,
                "request_upload_url('public', 'a.txt', 'text/plain', 1)",
                "BUCKET_NOT_FOUND",
            );
            not_found(&mut session, &format!("confirm_upload('{pending}')"), "UPLOAD_NOT_FOUND");
            not_found(&mut session, &format!("abort_upload('{pending}')"), "UPLOAD_NOT_FOUND");
            not_found(&mut session, &format!("download_url('{file}')"), "FILE_NOT_FOUND");
            not_found(&mut session, &format!("public_url('{file}')"), "FILE_NOT_FOUND");
            if who == "manager" || who == "superuser" {
                for call in ["provision_bucket", "inspect_bucket", "delete_bucket"] {
                    not_found(&mut session, &format!("{call}('{id}')"), "BUCKET_NOT_FOUND");
                }
                not_found(&mut session, &format!("delete_bucket('{id}', force => true)"), "BUCKET_NOT_FOUND");
            }
            let signed = format!("SELECT count(*) FROM storage.download_urls('{{{file}}}')");
            assert_eq!(number(&mut session, &signed), 0, "{who}");
            if who != "superuser" {
                for table in ["files", "upload_requests"] {
                    let seen = format!("SELECT count(*) FROM storage.{table} WHERE bucket_id = '{id}'");
                    assert_eq!(number(&mut session, &seen), 0, "{who}: {table}");
                }
                let seen = format!("SELECT count(*) FROM storage.buckets WHERE id = '{id}'");
                assert_eq!(number(&mut session, &seen), 0, "{who}");
                for statement in ["UPDATE storage.files SET filename = 'x'", "DELETE FROM storage.files"] {
                    assert_eq!(session.execute(statement, &[]).unwrap(), 0, "{who}: {statement}");
                }
            }
        }
        // The same bytes are sent again where they are wanted next, and the key is free.
        let mut manager = scene.manager("ada");
        let again = "SELECT count(*) FROM storage.create_user_buckets('ada') b WHERE b.deleted_at IS NULL";
        assert_eq!(number(&mut manager, again), 3);
        assert_ne!(bucket_id(scene, "public"), id);
        let mut ada = scene.user("ada");
        let upload = Upload::declared(&bytes).to("public").at("a/b.txt");
        let ticket = upload.request(&mut ada);
        assert!(!ticket.deduplicated);
        assert!(ticket.put(&bytes).is_success());
        assert_eq!(flow::confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
        assert_ne!(
            scene.place_of_file(&ticket.file_id),
            scene.place_of_file(&file),
            "no object is shared with it"
        );
        let refusal = refused(manager.query("SELECT storage.create_bucket('public')", &[]));
        assert_eq!(refusal.code(), ("42710", "BUCKET_EXISTS"));
    });
}

#[test]
fn the_bytes_leave_the_store_after_the_delay_and_those_of_others_stay() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        scene
            .superuser()
            .batch_execute("UPDATE storage.buckets SET dedup = 'owner', access = 'private' WHERE key IN ('private', 'public')")
            .unwrap();
        let (mine, shared, late) = (some_bytes("mine", 80), some_bytes("shared", 80), some_bytes("late", 80));
        let gone = Upload::declared(&mine).complete(&mut ada, &mine);
        let first = Upload::declared(&shared).complete(&mut ada, &shared);
        let second = Upload::declared(&shared).to("public").request(&mut ada);
        assert!(second.deduplicated);
        let pending = Upload::of(&late).request(&mut ada);
        assert!(pending.put(&late).is_success());
        let places = [&gone, &first].map(|ticket| scene.place_of_file(&ticket.file_id));
        let waiting = scene.place_of_upload(&pending.upload_id);
        let events = "SELECT count(*) FROM storage.events WHERE kind = 'deleted'";
        assert_eq!(scene.value::<i64>(events), 0);

        force(&mut scene.manager("ada"), "private");
        assert_eq!(left(scene), Some([2, 3, 2]));
        assert_eq!(pass(scene), 1);
        assert_eq!(left(scene), None);
        assert_eq!(scene.value::<i64>(events), 2);
        let waits =
            "SELECT min(not_before - created_at) > '23 hours' FROM storage.deletion_queue WHERE key = $1";
        for (_, key) in &places {
            assert!(
                scene.superuser().query_one(waits, &[key]).unwrap().get::<_, bool>(0),
                "a day by default"
            );
        }
        pass(scene);
        assert!(places.iter().all(|place| scene.exists(place)));
        assert!(!scene.exists(&waiting), "nobody had seen these bytes");

        scene.superuser().batch_execute("UPDATE storage.object_deletions SET not_before = now()").unwrap();
        pass(scene);
        assert_eq!(places.each_ref().map(|place| scene.exists(place)), [false, true]);
        assert_downloads(&mut ada, &second.file_id, &shared);
    });
}

#[test]
fn being_allowed_to_delete_the_row_is_the_permission() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    Upload::of(b"kept").complete(&mut ada, b"kept");
    let id = bucket_id(&scene, "private");
    let mut stranger = scene.stranger("eve", "globex");
    for session in [&mut ada, &mut stranger] {
        for call in [
            "storage.delete_bucket('private', force => true)".to_owned(),
            format!("storage_private.mark_bucket_deleted('{id}')"),
        ] {
            assert_eq!(refused(session.query(&format!("SELECT {call}"), &[])).sqlstate, "42501", "{call}");
        }
    }
    let claims = [("jwt.claims.user_id", "ada"), ("jwt.claims.tenant_id", "globex")];
    let mut foreign = scene.database.connect_as(&format!("{}_manager", scene.database.name()), &claims);
    let mut manager = scene.manager("bob");
    scene
        .superuser()
        .batch_execute(
            "CREATE POLICY kept ON storage.buckets AS RESTRICTIVE FOR DELETE USING (key <> 'private')",
        )
        .unwrap();
    for call in [
        format!("storage.delete_bucket('{id}')"),
        format!("storage.delete_bucket('{id}', force => true)"),
        format!("storage_private.mark_bucket_deleted('{id}')"),
    ] {
        let query = format!("SELECT {call}");
        assert_eq!(refused(foreign.query(&query, &[])).code(), ("42704", "BUCKET_NOT_FOUND"), "{call}");
        assert_eq!(refused(manager.query(&query, &[])).code(), ("42501", "RBAC_FORBIDDEN"), "{call}");
    }
    for call in ["NULL", "NULL, true", "'nothing'", "'00000000-0000-0000-0000-000000000000', true", "''"] {
        let refusal = refused(manager.query(&format!("SELECT storage.delete_bucket({call})"), &[]));
        assert_eq!(refusal.code(), ("42704", "BUCKET_NOT_FOUND"), "{call}");
    }
    assert_eq!(
        refused(manager.query("SELECT storage_private.mark_bucket_deleted(NULL)", &[])).code().1,
        "BUCKET_NOT_FOUND"
    );
    let refusal = refused(manager.query("SELECT storage_private.is_being_marked($1::text::uuid)", &[&id]));
    assert_eq!(refusal.sqlstate, "42501");
    // After all those refusals a plain DELETE is still one.
    scene.superuser().batch_execute("DROP POLICY kept ON storage.buckets").unwrap();
    let refusal = refused(manager.execute("DELETE FROM storage.buckets WHERE id = $1::text::uuid", &[&id]));
    assert_eq!(refusal.code(), ("55000", "BUCKET_NOT_EMPTY"));
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.buckets WHERE deleted_at IS NOT NULL"), 0);
    force(&mut manager, &id);
    assert_eq!(
        refused(scene.superuser().execute("DELETE FROM storage.buckets", &[])).code(),
        ("55000", "BUCKET_NOT_EMPTY")
    );
}

#[test]
fn a_file_is_made_before_the_mark_or_not_at_all() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let [early, late] = [b"early", b"late."].map(|bytes| {
        let ticket = Upload::of(bytes).request(&mut ada);
        assert!(ticket.put(bytes).is_success());
        ticket
    });
    // The mark waits for a transaction that is making a file.
    ada.batch_execute("BEGIN").unwrap();
    assert_eq!(flow::confirm(&mut ada, &early.upload_id).outcome(), ("uploaded", None));
    let mut manager = scene.manager("ada");
    let waits = |session: &mut Client| -> String {
        let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")
    };
    let blocked = waits(&mut manager);
    let marking = std::thread::spawn(move || {
        manager.batch_execute("BEGIN").unwrap();
        force(&mut manager, "private");
        manager
    });
    eventually("the mark to wait", LIMIT, || scene.value::<bool>(&blocked).then_some(()));
    ada.batch_execute("COMMIT").unwrap();
    let mut manager = marking.join().unwrap();
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.files"), 1);

    // A confirmation that comes after it waits for the mark, and there is no file.
    let blocked = waits(&mut ada);
    let upload_id = late.upload_id.clone();
    let confirming = std::thread::spawn(move || (refused(flow::try_confirm(&mut ada, &upload_id)), ada));
    eventually("the confirmation to wait", LIMIT, || scene.value::<bool>(&blocked).then_some(()));
    manager.batch_execute("COMMIT").unwrap();
    let (refusal, mut ada) = confirming.join().unwrap();
    assert_eq!(refusal.code(), ("42704", "UPLOAD_NOT_FOUND"));
    assert_eq!(
        refused(ada.query("SELECT storage.download_url($1::text::uuid)", &[&early.file_id])).code().1,
        "FILE_NOT_FOUND"
    );
    assert_eq!(pass(&scene), 1);
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.files"), 0);
}

#[test]
fn a_large_bucket_goes_in_batches_and_a_pass_does_only_so_much() {
    let scene = Scene::local();
    let _ada = scene.user("ada");
    let id = full_bucket(&scene, 20_000);
    force(&mut scene.manager("ada"), &id);
    let (small, mut superuser) = (bucket_id(&scene, "temp"), scene.superuser());
    assert_eq!(left(&scene), Some([20_000, 20_000, 20_000]));
    assert_eq!(pass(&scene), 0);
    assert_eq!(left(&scene), Some([10_000, 20_000, 20_000]), "ten steps of a thousand");
    // A small one that comes later does not wait for the end of the large one.
    force(&mut scene.manager("ada"), &small);
    assert_eq!(pass(&scene), 1);
    assert_eq!(left(&scene), Some([1_000, 20_000, 20_000]));

    // Whatever is held by somebody is passed over, and nothing waits.
    let mut holder = scene.superuser();
    holder.batch_execute("BEGIN; SELECT FROM storage.files WHERE bucket_id IN (SELECT bucket_id FROM storage.bucket_deletions) LIMIT 7 FOR UPDATE").unwrap();
    pass(&scene);
    assert_eq!(left(&scene), Some([7, 20_000, 20_000]));
    holder.batch_execute("COMMIT").unwrap();
    let mut passes = 0;
    while left(&scene).is_some() {
        pass(&scene);
        passes += 1;
        assert!(passes < 10, "{:?}", left(&scene));
    }
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM storage.files"), 0);
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM storage.upload_requests"), 0);
    assert_eq!(
        number(&mut superuser, "SELECT count(*) FROM storage.objects WHERE bucket_id IS NULL"),
        20_000
    );
    // Each object once, and nothing for uploads that had ended long ago.
    let queued = "SELECT count(*) FROM storage.object_deletions WHERE reason = 'file deleted'";
    assert_eq!(number(&mut superuser, queued), 20_000);
    assert_eq!(number(&mut superuser, "SELECT count(DISTINCT key) FROM storage.object_deletions"), 20_000);
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM storage.object_deletions"), 20_000);
    assert_eq!(
        number(&mut superuser, "SELECT count(DISTINCT file_id) FROM storage.events WHERE kind = 'deleted'"),
        20_000
    );
}

#[test]
fn a_deletion_that_was_killed_goes_on_where_it_was() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(Options::new())));
    let scene = Scene::on(cluster, &scene::local_access(cluster));
    let _ada = scene.user("ada");
    let id = full_bucket(&scene, 12_000);
    force(&mut scene.manager("ada"), &id);
    pass(&scene);
    assert_eq!(left(&scene), Some([2_000, 12_000, 12_000]));
    // Killed in the middle of a pass: the first step is done, the second is under way.
    scene
        .superuser()
        .batch_execute(
            "CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(5); RETURN NULL; END $$;
             CREATE TRIGGER slow AFTER DELETE ON storage.files FOR EACH STATEMENT EXECUTE FUNCTION public.slow()",
        )
        .unwrap();
    let mut running = scene.superuser();
    let pid: i32 = running.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let pass_under_way =
        std::thread::spawn(move || running.batch_execute("SELECT storage.run_maintenance()"));
    let sleeping =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'");
    eventually("the pass to be in its first step", LIMIT, || {
        (scene.value::<i64>(&sleeping) == 1).then_some(())
    });
    process::signal(pid.unsigned_abs(), "KILL");
    assert!(pass_under_way.join().unwrap().is_err());
    eventually("the server to come back", LIMIT, || {
        let mut session = cluster.try_connect("postgres", scene.database.name()).ok()?;
        session.batch_execute("DROP TRIGGER slow ON storage.files").ok()
    });
    assert_eq!(left(&scene), Some([2_000, 12_000, 12_000]));
    eventually("the end of the deletion", LIMIT, || {
        pass(&scene);
        left(&scene).is_none().then_some(())
    });
    let jobs = "SELECT count(*) || ' ' || count(DISTINCT key) FROM storage.object_deletions";
    assert_eq!(scene.value::<String>(jobs), "12000 12000");
}

#[test]
fn the_worker_goes_on_until_the_bucket_is_gone_also_after_it_was_killed() {
    // It looks by itself once an hour only.
    let scene = at_work();
    let worker = keep_worker(&scene);
    let _ada = scene.user("ada");
    let id = full_bucket(&scene, 25_000);
    force(&mut scene.manager("ada"), &id);
    // Whatever it was doing then: what its steps committed stays, and the next one goes on.
    let before = eventually("its first steps", LIMIT, || {
        left(&scene).filter(|[files, ..]| *files < 25_000).map(|[files, ..]| files)
    });
    // A file that is held, so that it is not all over before the kill; that ends the holder as well.
    let mut holder = scene.superuser();
    let held = "BEGIN; SELECT FROM storage.files WHERE bucket_id IN (SELECT bucket_id FROM storage.bucket_deletions) LIMIT 1 FOR UPDATE SKIP LOCKED";
    holder.batch_execute(held).unwrap();
    process::signal(worker.unsigned_abs(), "KILL");
    await_successor(scene.database.cluster(), scene.database.name(), worker);
    assert!(left(&scene).is_none_or(|[files, ..]| files <= before));
    eventually("the end of the bucket", LIMIT, || left(&scene).is_none().then_some(()));
    let told = "SELECT count(*) || ' ' || count(DISTINCT file_id) FROM storage.events WHERE kind = 'deleted'";
    assert_eq!(scene.value::<String>(told), "25000 25000");
}

/// What is left of them is held by transactions that nobody ends.
#[test]
fn buckets_that_have_to_wait_hold_up_no_other_and_make_nobody_run_in_circles() {
    let scene = at_work();
    let _ada = scene.user("ada");
    let mut holder = scene.superuser();
    let mut manager = scene.manager("ada");
    let mut ids = Vec::new();
    for number in 0..12 {
        let id: String = manager
            .query_one("SELECT (storage.create_bucket($1)).id::text", &[&format!("waiting-{number}")])
            .unwrap()
            .get(0);
        ids.push(id);
    }
    for id in &ids {
        Upload::of(b"x").to(id).request(&mut scene.user("ada"));
    }
    holder.batch_execute("BEGIN; SELECT FROM storage.upload_requests FOR UPDATE").unwrap();
    let last = full_bucket(&scene, 5);
    for id in ids.iter().chain([&last]) {
        force(&mut manager, id);
    }
    keep_worker(&scene);
    let found = format!("SELECT count(*) FROM storage.buckets WHERE id = '{last}'");
    eventually("the bucket that need not wait", LIMIT, || (scene.value::<i64>(&found) == 0).then_some(()));
    await_idle(&scene);
    let before = last_pass(&scene);
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(last_pass(&scene), before, "nothing can be done");
    holder.batch_execute("ROLLBACK").unwrap();
    nudge(&scene);
    let marked = "SELECT count(*) FROM storage.bucket_deletions";
    eventually("the end of all", LIMIT, || (scene.value::<i64>(marked) == 0).then_some(()));
}
