//! Objects that were in a store before become files where they are, and only after they were looked at.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_core::presign::Method;
use pg_storage_tests::flow::{Upload, assert_downloads, sha256, some_bytes, try_request_all};
use pg_storage_tests::http::Headers;
use pg_storage_tests::orphans::scan;
use pg_storage_tests::{Cluster, Garage, Scene, each_store, eventually, refused, scene};
use postgres::{Client, Error};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

/// A bucket that somebody else made and filled, and the key of the logical one over it.
struct Old<'scene> {
    scene: &'scene Scene,
    name: String,
}

impl<'scene> Old<'scene> {
    /// In the store, not yet on record.
    fn made(scene: &'scene Scene) -> Self {
        // Databases of different clusters share the name, and Garage.
        let test = sha256(thread::current().name().unwrap().as_bytes())[..12].to_owned();
        let old = Self { scene, name: format!("{}-{test}", scene.prefix) };
        let answer = scene.at_store(Method::Put, (&old.name, ""), &Headers::new(), &[]);
        assert!(answer.is_success(), "{}", answer.text());
        old
    }

    /// On record, with a private bucket `old` of ada's over it.
    fn adopted(scene: &'scene Scene) -> Self {
        let old = Self::made(scene);
        scene.user("ada");
        old.adopt();
        old.bucket("old");
        old
    }

    fn adopt(&self) {
        let row = self
            .scene
            .superuser()
            .query_one("SELECT fixed, state::text FROM storage.adopt_bucket($1)", &[&self.name])
            .unwrap();
        assert_eq!((row.get(0), row.get(1)), (true, "ready"));
    }

    fn bucket(&self, key: &str) {
        let insert = "INSERT INTO storage.buckets (tenant_id, owner_id, key, physical_name)
                      VALUES ('default', 'ada', $1, $2)";
        self.scene.superuser().execute(insert, &[&key, &self.name]).unwrap();
    }

    fn put(&self, key: &str, content_type: &str, bytes: &[u8]) {
        self.scene.overwrite_silently(&self.at(key), content_type, bytes);
    }

    fn at(&self, key: &str) -> (String, String) {
        (self.name.clone(), key.to_owned())
    }

    fn import(&self, objects: &Value) -> Vec<Verdict> {
        import(&mut self.scene.superuser(), "old", objects).unwrap()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Verdict {
    key: String,
    file_id: Option<String>,
    status: String,
    reason: Option<String>,
    details: Option<String>,
}

impl Verdict {
    fn outcome(&self) -> (&str, &str, Option<&str>) {
        (&self.key, &self.status, self.reason.as_deref())
    }
}

fn import(session: &mut Client, bucket: &str, objects: &Value) -> Result<Vec<Verdict>, Error> {
    session.batch_execute("SET jwt.claims.user_id = 'ada'")?;
    let rows = session.query(
        "SELECT key, file_id::text, status::text, reason, details FROM storage.import_objects($1, ARRAY(
            SELECT s FROM jsonb_populate_recordset(NULL::storage.import_spec, $2::text::jsonb) s))",
        &[&bucket, &objects.to_string()],
    )?;
    Ok(rows
        .iter()
        .map(|row| Verdict {
            key: row.get(0),
            file_id: row.get(1),
            status: row.get(2),
            reason: row.get(3),
            details: row.get(4),
        })
        .collect())
}

/// All that an import may write.
fn rows(scene: &Scene) -> Vec<i64> {
    let mut rows = scene.rows();
    rows.push(scene.value("SELECT count(*) FROM storage.events"));
    rows
}

#[test]
fn an_import_takes_the_path_of_a_file_that_is_over() {
    let scene = Scene::local();
    let old = Old::adopted(&scene);
    old.put("first", "text/plain", b"first");
    old.put("second", "text/plain", b"second");
    let first = old.import(&json!([{ "key": "first", "path": "a" }])).remove(0).file_id.unwrap();
    let second = json!([{ "key": "second", "path": "a" }]);
    assert_eq!(old.import(&second)[0].outcome(), ("second", "refused", Some("PATH_TAKEN")));
    scene.superuser().batch_execute("UPDATE storage.files SET expires_at = now()").unwrap();
    assert_eq!(old.import(&second)[0].outcome(), ("second", "imported", None));
    let left = format!("SELECT count(*) FROM storage.files WHERE id = '{first}'");
    assert_eq!(scene.value::<i64>(&left), 0);
}

#[test]
fn objects_become_files_where_they_are_each_with_a_verdict_of_its_own() {
    each_store(|scene| {
        let old = Old::adopted(scene);
        let (cat, text) = (b"\x89PNG\r\n\x1a\n a cat".as_slice(), b"Dear Charles,".as_slice());
        old.put("t/pets/cats/cat one+ü.png/v1", "image/png", cat);
        old.put("t/letters/1.txt/v1", "text/plain", text);
        old.put("wrong-size", "text/plain", text);
        old.put("wrong-hash", "text/plain", text);
        old.put("wrong-tag", "text/plain", text);
        old.put("wrong-type", "text/plain", text);
        old.put("wrong-bytes", "text/plain", cat);
        old.put("empty", "text/plain", b"");
        old.put("bad-path", "text/plain", text);
        old.put("same-path", "text/plain", text);
        let id = "3e2d5a4c-0b7f-4a55-9d7e-111111111111";
        let (sum, other) = (sha256(text), sha256(cat));
        let objects = json!([
            { "key": "t/pets/cats/cat one+ü.png/v1", "path": "cats/cat_one+ü.png", "filename": "cat one+ü.png", "content_type": "image/png",
              "size": cat.len(), "file_id": id, "created_at": "2020-02-02T12:00:00Z", "metadata": { "n": 1.50 } },
            { "key": "t/letters/1.txt/v1", "path": "letters/1.txt", "size": text.len(), "sha256": sum },
            { "key": "nowhere", "size": 4 },
            { "key": "wrong-size", "size": 14 },
            { "key": "wrong-hash", "sha256": other },
            { "key": "wrong-tag", "etag": "\"0123456789abcdef0123456789abcdef\"" },
            { "key": "wrong-type", "content_type": "image/png" },
            { "key": "wrong-bytes" },
            { "key": "empty" },
            { "key": "bad-path", "path": "/etc/passwd" },
            { "key": "same-path", "path": "letters/1.txt" },
            { "key": "a/../b" },
            { "key": "t/letters/1.txt/v1", "path": "again.txt" },
            { "key": "same-path", "sha256": "ABC" },
            { "key": "same-path", "file_id": id },
            { "key": "same-path", "metadata": [1] },
        ]);
        let verdicts = old.import(&objects);
        let outcomes: Vec<_> = verdicts.iter().map(Verdict::outcome).collect();
        assert_eq!(
            outcomes,
            [
                ("t/pets/cats/cat one+ü.png/v1", "imported", None),
                ("t/letters/1.txt/v1", "imported", None),
                ("nowhere", "refused", Some("NOT_UPLOADED")),
                ("wrong-size", "refused", Some("SIZE_MISMATCH")),
                ("wrong-hash", "refused", Some("HASH_MISMATCH")),
                ("wrong-tag", "refused", Some("ETAG_MISMATCH")),
                ("wrong-type", "refused", Some("CONTENT_TYPE_MISMATCH")),
                ("wrong-bytes", "refused", Some("CONTENT_TYPE_MISMATCH")),
                ("empty", "refused", Some("EMPTY_FILE")),
                ("bad-path", "refused", Some("INVALID_PATH")),
                ("same-path", "refused", Some("PATH_TAKEN")),
                ("a/../b", "refused", Some("INVALID_KEY")),
                ("t/letters/1.txt/v1", "present", None),
                ("same-path", "refused", Some("INVALID_CONTENT_HASH")),
                ("same-path", "refused", Some("FILE_ID_TAKEN")),
                ("same-path", "refused", Some("INVALID_METADATA")),
            ]
        );
        assert_eq!(verdicts[3].details.as_deref(), Some("declared 14 bytes, found 13"));
        assert_eq!(verdicts[0].file_id.as_deref(), Some(id));

        // What was imported is as any file.
        let row = scene
            .superuser()
            .query_one(
                "SELECT f.owner_id, f.filename, f.path, f.size, f.sha256, f.metadata::text, o.key, f.version,
                        f.created_at = '2020-02-02T12:00:00Z', o.bucket_id = f.bucket_id
                 FROM storage.files f JOIN storage.objects o ON o.id = f.object_id WHERE f.id = $1::text::uuid",
                &[&id],
            )
            .unwrap();
        let (owner, filename, path): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        assert_eq!((&*owner, &*filename, &*path), ("ada", "cat one+ü.png", "cats/cat_one+ü.png"));
        assert_eq!((row.get::<_, i64>(3), row.get::<_, String>(4)), (cat.len() as i64, sha256(cat)));
        assert_eq!(row.get::<_, String>(5), "{\"n\": 1.5}");
        assert_eq!(row.get::<_, String>(6), "t/pets/cats/cat one+ü.png/v1");
        assert_eq!((row.get::<_, i32>(7), row.get(8), row.get(9)), (1, true, true));
        assert_eq!(
            scene.value::<i64>(
                "SELECT count(*) FROM storage.events WHERE kind = 'created' AND upload_id IS NULL"
            ),
            2
        );
        let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
        assert_downloads(&mut ada, id, cat);
        let hidden = refused(bob.query_one("SELECT storage.download_url($1::text::uuid)", &[&id]));
        assert_eq!(hidden.code(), ("42704", "FILE_NOT_FOUND"));
        let letter = verdicts[1].file_id.clone().unwrap();
        assert_downloads(&mut ada, &letter, text);

        // Again is a no-op.
        let before = rows(scene);
        let again = old.import(&objects);
        let expected: Vec<_> = verdicts
            .iter()
            .map(|verdict| match verdict.status.as_str() {
                "imported" => Verdict { status: "present".to_owned(), ..verdict.clone() },
                _ => verdict.clone(),
            })
            .collect();
        assert_eq!(again, expected);
        assert_eq!(rows(scene), before);
    });
}

#[test]
fn bytes_that_the_store_keeps_but_no_longer_has_whole_are_not_believed() {
    // The store was seen to refuse wrong bytes, so it is asked for the digest only: one of another object is found out.
    let scene = Scene::local();
    let old = Old::adopted(&scene);
    Upload::declared(b"tried out").complete(&mut scene.user("ada"), b"tried out");
    scene.overwrite(&old.at("summed"), "text/plain", b"Dear Charles,");
    let verdicts =
        old.import(&json!([{ "key": "summed", "sha256": sha256(b"Dear Babbage,") }, { "key": "summed" }]));
    let outcomes: Vec<_> = verdicts.iter().map(Verdict::outcome).collect();
    assert_eq!(outcomes, [("summed", "refused", Some("HASH_MISMATCH")), ("summed", "imported", None)]);
    let sum: String = scene.value("SELECT encode(sha256, 'hex') FROM storage.objects WHERE key = 'summed'");
    assert_eq!(sum, sha256(b"Dear Charles,"));
}

#[test]
fn an_imported_object_is_ours_from_then_on_and_no_other_is() {
    each_store(|scene| {
        scene.set("pg_storage.deletion_delay", "0");
        let old = Old::adopted(scene);
        // As others may name it.
        let key = "t/mine & <yours>+ü \"1\"";
        let (mine, others) =
            (some_bytes("mine", 3000), ["other", "scratch/left/over", "private/a", "pg_storage"]);
        old.put(key, "application/octet-stream", &mine);
        for key in others {
            old.put(key, "application/octet-stream", key.as_bytes());
        }
        let verdicts = old.import(&json!([{ "key": key, "path": "mine.bin" }]));
        let file = verdicts[0].file_id.clone().unwrap();

        // Uploads of the same bytes share it; others go below a folder of their own, and nothing is configured.
        let mut ada = scene.user("ada");
        let alike =
            Upload::declared(&mine).named("b.bin", "application/octet-stream").to("old").request(&mut ada);
        assert!(alike.deduplicated, "{alike:?}");
        let new = Upload::declared(b"new").to("old").complete(&mut ada, b"new");
        let place = scene.place_of_file(&new.file_id);
        assert!(place.0 == old.name && place.1.starts_with("pg_storage/private/"), "{place:?}");
        let steps = format!("SELECT steps::text FROM storage.physical_buckets WHERE name = '{}'", old.name);
        assert!(!scene.value::<String>(&steps).contains("applied"), "{}", scene.value::<String>(&steps));

        // It goes with its last file and not before; what was not imported is nobody's business.
        let delete = |file: &str| {
            let mut ada = scene.user("ada");
            ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&file]).unwrap();
            scene.maintain();
            scan(scene, &old.name, true);
            scene.maintain();
        };
        delete(&file);
        assert!(scene.exists(&old.at(key)), "another file has it");
        assert_eq!(old.import(&json!([{ "key": key }]))[0].outcome(), (key, "present", None));
        delete(&alike.file_id);
        assert!(!scene.exists(&old.at(key)));
        for key in others {
            assert!(scene.exists(&old.at(key)), "{key}");
        }
        assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.deletion_queue WHERE due"), 0);
        assert_eq!(old.import(&json!([{ "key": key }]))[0].outcome(), (key, "refused", Some("NOT_UPLOADED")));
    });
}

#[test]
fn keys_of_uploads_and_of_deletions_are_not_imported() {
    let scene = Scene::local();
    let old = Old::adopted(&scene);
    let mut ada = scene.user("ada");
    let pending = Upload::declared(b"pending").to("old").request(&mut ada);
    assert!(pending.put(b"pending").is_success());
    let (_, pending_key) = scene.place_of_upload(&pending.upload_id);
    let done = Upload::declared(b"done").to("private").complete(&mut ada, b"done");
    let (_, done_key) = scene.place_of_file(&done.file_id);
    old.put("leaving", "text/plain", b"leaving");
    let leaving = old.import(&json!([{ "key": "leaving" }]))[0].file_id.clone().unwrap();
    ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&leaving]).unwrap();

    let verdicts = old.import(&json!([{ "key": pending_key }, { "key": done_key }, { "key": "leaving" }]));
    for verdict in verdicts {
        assert_eq!(
            (&*verdict.status, verdict.reason.as_deref()),
            ("refused", Some("KEY_TAKEN")),
            "{verdict:?}"
        );
    }
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.files"), 1);
}

#[test]
fn only_the_owner_adopts_and_imports_and_only_from_what_is_on_record() {
    let scene = Scene::local();
    let old = Old::made(&scene);
    scene.user("ada");
    let mut root = scene.superuser();
    let absent = refused(root.query("SELECT storage.adopt_bucket('nobodys-bucket')", &[]));
    assert_eq!(absent.code(), ("42704", "BUCKET_NOT_FOUND"));
    let unused = refused(import(&mut root, "private", &json!([{ "key": "a" }])));
    assert_eq!(unused.code(), ("55000", "NOT_CONFIGURED"));
    old.bucket("early");
    let early = refused(import(&mut root, "early", &json!([{ "key": "a" }])));
    assert_eq!(early.code(), ("55000", "NOT_CONFIGURED"));
    old.adopt();
    old.adopt();

    for call in ["storage.adopt_bucket('any')", "storage.import_objects('early', '{}')"] {
        let refusal = refused(scene.manager("ada").query(&format!("SELECT {call}"), &[]));
        assert_eq!(refusal.sqlstate, "42501", "{call}");
    }
    assert_eq!(import(&mut root, "early", &json!([])).unwrap(), []);
    scene.set("pg_storage.max_bulk_files", "2");
    let many = json!([{ "key": "a" }, { "key": "b" }, { "key": "c" }]);
    let refusal = refused(import(&mut scene.superuser(), "early", &many));
    assert_eq!(refusal.code(), ("53400", "BULK_UPLOAD_FILES_EXCEEDED"));
}

#[test]
fn a_quota_counts_what_is_imported() {
    let scene = Scene::local();
    let old = Old::adopted(&scene);
    scene
        .superuser()
        .batch_execute("UPDATE storage.buckets SET max_file_count = 2 WHERE key = 'old'")
        .unwrap();
    for key in ["a", "b", "c"] {
        old.put(key, "text/plain", key.as_bytes());
    }
    let verdicts = old.import(&json!([{ "key": "a" }, { "key": "b" }, { "key": "c" }]));
    let outcomes: Vec<_> = verdicts.iter().map(Verdict::outcome).collect();
    assert_eq!(
        outcomes,
        [("a", "imported", None), ("b", "imported", None), ("c", "refused", Some("QUOTA_EXCEEDED"))]
    );
    let full = refused(try_request_all(&mut scene.user("ada"), &[Upload::of(b"x").to("old")]));
    assert_eq!(full.code(), ("53400", "QUOTA_EXCEEDED"));
    let objects = "SELECT count(*) FROM storage.objects";
    assert_eq!(scene.value::<i64>(objects), 2, "the refused one left no row");
}

#[test]
fn of_two_imports_of_the_same_objects_one_makes_the_files() {
    let scene = Scene::garage();
    let old = Old::adopted(&scene);
    let keys: Vec<String> = (0..20).map(|n| format!("o/{n}")).collect();
    // Looking at them takes long enough for both to be at it, and no path has them take turns.
    let bytes = some_bytes("both", 300_000);
    for (n, key) in keys.iter().enumerate() {
        old.put(key, "application/octet-stream", &bytes[n..]);
    }
    let objects: Value = keys.iter().map(|key| json!({ "key": key })).collect();
    let both: Vec<Vec<Verdict>> = thread::scope(|scope| {
        let running: Vec<_> = (0..2).map(|_| scope.spawn(|| old.import(&objects))).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (one, other) in both[0].iter().zip(&both[1]) {
        assert_eq!(one.file_id, other.file_id);
        let mut statuses = [&*one.status, &*other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, ["imported", "present"]);
    }
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM storage.objects"), 20);
}

#[test]
fn an_import_that_is_killed_goes_on_where_it_was() {
    let cluster: &'static Cluster =
        Box::leak(Box::new(Cluster::start(scene::remote(Garage::shared().access()))));
    let scene = Scene::on(cluster, Garage::shared().access());
    let old = Old::adopted(&scene);
    let bytes = some_bytes("killed", 200_000);
    let keys: Vec<String> = (0..60).map(|n| format!("k/{n:02}")).collect();
    for (n, key) in keys.iter().enumerate() {
        old.put(key, "application/octet-stream", &bytes[n..]);
    }
    // As docs/from-supabase.md does it: whatever has no verdict yet, some at a time.
    scene
        .superuser()
        .batch_execute(
            "CREATE TABLE old AS SELECT 'k/' || lpad(n::text, 2, '0') AS key FROM generate_series(0, 59) n;
             CREATE TABLE verdicts AS SELECT * FROM storage.import_objects((SELECT id::text FROM storage.buckets WHERE key = 'old'), '{}');
             CREATE PROCEDURE go_on() LANGUAGE plpgsql AS $$
             BEGIN
                 LOOP
                     INSERT INTO verdicts SELECT v.* FROM storage.import_objects(
                         (SELECT id::text FROM storage.buckets WHERE key = 'old'),
                         ARRAY(SELECT (o.key, NULL, o.key, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::storage.import_spec
                               FROM old o WHERE NOT EXISTS (SELECT FROM verdicts d WHERE d.key = o.key) ORDER BY o.key LIMIT 4)) v;
                     EXIT WHEN NOT FOUND;
                     COMMIT;
                 END LOOP;
             END $$",
        )
        .unwrap();
    let done = || scene.value::<i64>("SELECT count(*) FROM storage.files");
    for kill in ["a backend", "the server"] {
        let before = done();
        let mut session = scene.superuser();
        let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
        let running = thread::spawn(move || session.batch_execute("CALL go_on()"));
        eventually("some of them to be imported", Duration::from_secs(60), || {
            (done() > before).then_some(())
        });
        if kill == "a backend" {
            scene.superuser().execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
        } else {
            cluster.kill();
            cluster.start_again();
        }
        let ended = running.join().unwrap();
        println!("killed {kill}: {} of 60, {ended:?}", done());
    }
    scene.superuser().batch_execute("CALL go_on()").unwrap();
    assert_eq!((done(), scene.value::<i64>("SELECT count(*) FROM storage.objects")), (60, 60));
    assert_eq!(scene.value::<i64>("SELECT count(*) FROM verdicts WHERE status = 'imported'"), 60);
    let id: String = scene.value("SELECT id::text FROM storage.files WHERE path = 'k/59'");
    assert_downloads(&mut scene.user("ada"), &id, &bytes[59..]);
}
