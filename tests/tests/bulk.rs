//! Many files in one call: all or none are asked for, each has a verdict of its own, and two calls about the same files
//! never lock each other out. That a silent store never holds such a call up is tested in `waiting`.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{
    self, Ticket, Upload, assert_downloads, confirm_all, request_all, sha256, some_bytes, try_confirm_all,
    try_request_all,
};
use pg_storage_tests::{Fault, FaultyStore, Refusal, Scene, each_store, eventually, http, refused};
use postgres::Client;
use std::sync::Barrier;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

const ABSENT: &str = "00000000-0000-4000-8000-000000000000";
const LIMIT: Duration = Duration::from_secs(30);

fn ids(tickets: &[Ticket]) -> Vec<&str> {
    tickets.iter().map(|ticket| ticket.upload_id.as_str()).collect()
}

#[track_caller]
fn put_all(tickets: &[Ticket], bytes: &[u8]) {
    for ticket in tickets {
        let answer = ticket.put(bytes);
        assert!(answer.is_success(), "{} {}", answer.status, answer.text());
    }
}

/// A scene whose private bucket has been used.
fn used() -> Scene {
    let scene = Scene::local();
    Upload::of(b"first use").complete(&mut scene.user("ada"), b"first use");
    scene
}

/// A scene whose server reaches the store through a proxy, which clients do not use; its private bucket has been used.
fn proxied() -> (Scene, FaultyStore) {
    let (scene, store) = Scene::counting();
    let proxy = FaultyStore::before(&store.access().endpoint);
    scene.set("pg_storage.endpoint", &proxy.endpoint());
    scene.set("pg_storage.public_endpoint", &store.access().endpoint);
    Upload::of(b"first use").complete(&mut scene.user("ada"), b"first use");
    (scene, proxy)
}

/// Refused, and nothing happened.
#[track_caller]
fn refused_whole(scene: &Scene, session: &mut Client, files: &[Upload]) -> Refusal {
    let before = scene.rows();
    let refusal = refused(try_request_all(session, files));
    assert_eq!(scene.rows(), before, "{refusal:?}");
    refusal
}

#[test]
fn many_files_take_two_calls_and_answers_come_in_order() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes: Vec<Vec<u8>> = (0..24).map(|at| some_bytes(&at.to_string(), 50 + at)).collect();
        let files: Vec<Upload> = bytes
            .iter()
            .enumerate()
            .map(|(at, bytes)| {
                let upload = if at % 3 == 0 { Upload::of(bytes) } else { Upload::declared(bytes) };
                let upload = upload.named(&format!("file {at}.txt"), "text/plain");
                if at % 2 == 0 { upload.at(&format!("all/{at}")) } else { upload }
            })
            .collect();
        let tickets = request_all(&mut ada, &files);
        assert_eq!(tickets.len(), files.len());
        for ((ticket, file), bytes) in tickets.iter().zip(&files).zip(&bytes) {
            assert!(!ticket.deduplicated);
            assert_eq!(ticket.method.as_deref(), Some("PUT"));
            assert_eq!(ticket.headers.contains_key("x-amz-checksum-sha256"), file.sha256.is_some());
            put_all(std::slice::from_ref(ticket), bytes);
        }
        let mut asked = ids(&tickets);
        asked.reverse();
        for verdict in confirm_all(&mut ada, &asked) {
            assert_eq!(verdict.outcome(), ("uploaded", None), "{verdict:?}");
        }
        for ((ticket, file), bytes) in tickets.iter().zip(&files).zip(&bytes) {
            let query = "SELECT filename, path FROM storage.files WHERE id = $1::text::uuid";
            let row = ada.query_one(query, &[&ticket.file_id]).unwrap();
            assert_eq!(row.get::<_, &str>(0), file.filename);
            assert_eq!(row.get::<_, Option<&str>>(1), file.path.as_deref());
            assert_downloads(&mut ada, &ticket.file_id, bytes);
        }
        // Again, and with one of them twice: the same answers and nothing more.
        let rows = scene.rows();
        asked.push(asked[0]);
        assert!(confirm_all(&mut ada, &asked).iter().all(|verdict| verdict.outcome() == ("uploaded", None)));
        assert_eq!(scene.rows(), rows);
    });
}

#[test]
fn metadata_is_kept_and_a_list_may_be_empty_or_null() {
    let scene = used();
    let mut ada = scene.user("ada");
    let call =
        |files: &str| format!("SELECT upload_id::text FROM storage.request_upload_urls('private', {files})");
    for nothing in ["'{}'", "NULL"] {
        assert!(ada.query(&call(nothing), &[]).unwrap().is_empty());
        let confirm = format!("SELECT FROM storage.confirm_uploads({nothing})");
        assert!(ada.query(&confirm, &[]).unwrap().is_empty());
    }
    let files = "ARRAY[('a.txt', 'text/plain', 1, NULL, NULL, '{\"of\": \"a\"}'), ('b.txt', 'text/plain', 1, NULL, NULL, NULL)]::storage.upload_spec[]";
    let uploads: Vec<String> = ada.query(&call(files), &[]).unwrap().iter().map(|row| row.get(0)).collect();
    for (upload, metadata) in uploads.iter().zip([r#"{"of": "a"}"#, "{}"]) {
        let query = "SELECT metadata::text FROM storage.upload_requests WHERE id = $1::text::uuid";
        assert_eq!(ada.query_one(query, &[upload]).unwrap().get::<_, &str>(0), metadata);
    }
    // A file of which nothing is said, in a list that is several arrays deep.
    for files in ["ARRAY[NULL]::storage.upload_spec[]", "ARRAY[ARRAY[NULL]]::storage.upload_spec[]"] {
        let refusal = refused(ada.query(&call(files), &[]));
        assert_eq!(refusal.code(), ("22023", "INVALID_FILENAME"));
        assert!(refusal.detail.unwrap().starts_with("File 1 of 1"));
    }
}

#[test]
fn metadata_is_kept_to_the_last_digit_and_however_deep_it_is() {
    let scene = used();
    let mut ada = scene.user("ada");
    let deep = format!(r#"{{"deep": {}1{}}}"#, "[".repeat(1000), "]".repeat(1000));
    let values =
        [r#"{"n": [1.10, 12345678901234567890123, 0.12345678901234567890], "s": "\\\\ \" ü"}"#, &deep];
    for metadata in values {
        for call in [
            "request_upload_url('private', 'a.txt', 'text/plain', 1, metadata => $1::text::jsonb)",
            "request_upload_urls('private', ARRAY[('a.txt', 'text/plain', 1, NULL, NULL, $1::text::jsonb)]::storage.upload_spec[])",
        ] {
            let query = format!("SELECT upload_id::text FROM storage.{call}");
            let upload: String = ada.query_one(&query, &[&metadata]).unwrap().get(0);
            let same = "SELECT metadata::text = $2::text::jsonb::text FROM storage.upload_requests WHERE id = $1::text::uuid";
            assert!(ada.query_one(same, &[&upload, &metadata]).unwrap().get::<_, bool>(0), "{call}");
        }
    }
}

#[test]
fn the_same_hash_twice_in_one_call_gives_two_working_answers() {
    each_store(|scene| {
        for (bucket, objects) in [("private", 1i64), ("temp", 2)] {
            let mut ada = scene.user("ada");
            let bytes = some_bytes(bucket, 100);
            let twice =
                vec![Upload::declared(&bytes).to(bucket), Upload::declared(&bytes).to(bucket).at("b")];
            let stored = || {
                let hash = sha256(&bytes);
                scene
                    .value::<i64>(&format!("SELECT count(*) FROM storage.objects WHERE sha256 = '\\x{hash}'"))
            };
            let tickets = request_all(&mut ada, &twice);
            assert!(tickets.iter().all(|ticket| !ticket.deduplicated), "a claim is no hash");
            assert_ne!(tickets[0].url(), tickets[1].url());
            put_all(&tickets, &bytes);
            let verdicts = confirm_all(&mut ada, &ids(&tickets));
            assert!(verdicts.iter().all(|verdict| verdict.outcome() == ("uploaded", None)), "{verdicts:?}");
            for ticket in &tickets {
                assert_downloads(&mut ada, &ticket.file_id, &bytes);
            }
            assert_eq!(stored(), objects, "{bucket}");

            // Now that they are there, neither needs bytes, unless the bucket shares none.
            let tickets = request_all(&mut ada, &twice);
            let shares = objects == 1;
            assert!(tickets.iter().all(|ticket| ticket.deduplicated == shares));
            if shares {
                assert_ne!(tickets[0].file_id, tickets[1].file_id);
                for ticket in &tickets {
                    assert_eq!((&ticket.url, ticket.expires_at, ticket.headers.len()), (&None, None, 0));
                    assert_downloads(&mut ada, &ticket.file_id, &bytes);
                }
                // Confirming them is no error.
                let verdicts = confirm_all(&mut ada, &ids(&tickets));
                assert!(verdicts.iter().all(|verdict| verdict.outcome() == ("uploaded", None)));
            }
            assert_eq!(stored(), objects);
        }
    });
}

#[test]
fn the_same_path_twice_in_one_call_is_refused_and_in_two_calls_makes_versions() {
    let scene = used();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("path", 30);
    let at = |path: &str| Upload::declared(&bytes).at(path);
    let refusal = refused_whole(&scene, &mut ada, &[at("a"), at("b"), at("a")]);
    assert_eq!(refusal.code(), ("42710", "PATH_TAKEN"));
    assert!(refusal.detail.unwrap().starts_with("File 3 of 3: Path a in bucket "));
    assert!(refusal.hint.is_some());

    let first = request_all(&mut ada, &[at("a"), at("b")]);
    // Both are pending, which takes no path.
    let second = request_all(&mut ada, &[at("b"), at("a")]);
    put_all(&first, &bytes);
    put_all(&second, &bytes);
    let all: Vec<&str> = ids(&first).into_iter().chain(ids(&second)).collect();
    assert!(confirm_all(&mut ada, &all).iter().all(|verdict| verdict.outcome() == ("uploaded", None)));
    let versions =
        "SELECT array_agg(version ORDER BY path, version) FROM storage.files WHERE path IN ('a', 'b')";
    assert_eq!(scene.value::<Vec<i32>>(versions), [1, 2, 1, 2]);
    // Shared bytes take their paths as well, and nobody takes another user's.
    let third = request_all(&mut ada, &[at("b"), at("a")]);
    assert!(third.iter().all(|ticket| ticket.deduplicated));
    assert_eq!(scene.value::<Vec<i32>>(versions), [1, 2, 3, 1, 2, 3]);
    scene.shared_bucket();
    flow::Upload::declared(&bytes).to("shared").at("a").complete(&mut ada, &bytes);
    let mut bob = scene.user("bob");
    let files = [at("c").to("shared"), at("a").to("shared")];
    assert_eq!(refused_whole(&scene, &mut bob, &files).code(), ("42710", "PATH_TAKEN"));
}

#[test]
fn one_file_that_breaks_a_rule_refuses_all_and_is_named() {
    let scene = used();
    scene
        .superuser()
        .batch_execute("UPDATE storage.buckets SET max_file_size = 1000, allowed_mime_types = '{text/*}' WHERE key = 'private'")
        .unwrap();
    let mut ada = scene.user("ada");
    let good = Upload::declared(b"good");
    let broken = [
        (Upload { filename: "a/b".into(), ..good.clone() }, "INVALID_FILENAME"),
        (good.clone().named("a.txt", "text"), "INVALID_CONTENT_TYPE"),
        (good.clone().named("a.png", "image/png"), "CONTENT_TYPE_NOT_ALLOWED"),
        (good.clone().named("a.png", "text/plain"), "UPLOAD_TYPE_MISMATCH"),
        (Upload { size: 0, ..good.clone() }, "INVALID_FILE_SIZE"),
        (Upload { size: 1001, ..good.clone() }, "FILE_TOO_LARGE"),
        (Upload { sha256: Some("abc".into()), ..good.clone() }, "INVALID_CONTENT_HASH"),
        (good.clone().at("../a"), "INVALID_PATH"),
    ];
    for (bad, token) in broken {
        let one = refused(bad.try_request(&mut ada));
        let many = refused_whole(&scene, &mut ada, &[good.clone(), bad, good.clone()]);
        assert_eq!((one.code(), &one.message, &one.hint), (many.code(), &many.message, &many.hint));
        assert_eq!(many.token, token);
        // The same words, after which file they are about.
        let detail = one.detail.map_or("File 2 of 3.".to_owned(), |detail| format!("File 2 of 3: {detail}"));
        assert_eq!(many.detail, Some(detail));
    }
    let metadata = "SELECT storage.request_upload_urls('private',
        ARRAY[('a.txt', 'text/plain', 1, NULL, NULL, '[]')]::storage.upload_spec[])";
    let refusal = refused(ada.batch_execute(metadata));
    assert_eq!(refusal.token, "INVALID_METADATA");
    assert!(refusal.detail.unwrap().starts_with("File 1 of 1"));
}

#[test]
fn one_file_that_a_policy_refuses_refuses_all_before_anything_is_made_ready() {
    let (scene, store) = Scene::counting();
    scene
        .superuser()
        .batch_execute(
            "CREATE POLICY no_secrets ON storage.upload_requests AS RESTRICTIVE FOR INSERT WITH CHECK (filename <> 'secret.txt')",
        )
        .unwrap();
    let mut ada = scene.user("ada");
    let named = |name: &str| Upload::of(b"x").named(name, "text/plain");
    let refusal = refused_whole(&scene, &mut ada, &[named("a.txt"), named("secret.txt")]);
    assert_eq!(refusal.code(), ("42501", "RBAC_FORBIDDEN"));
    assert!(refusal.detail.unwrap().starts_with("File 2 of 2: "));
    assert_eq!(scene.asked(store), 0, "the bucket was never used");
    let tickets = request_all(&mut ada, &[named("a.txt"), named("b.txt")]);
    put_all(&tickets, b"x");
    assert!(confirm_all(&mut ada, &ids(&tickets)).iter().all(|verdict| verdict.status == "uploaded"));
}

#[test]
fn a_bucket_that_is_hidden_is_absent_and_none_means_the_default() {
    let scene = used();
    let mut ada = scene.user("ada");
    let bobs: String = scene
        .user("bob")
        .query_one("SELECT id::text FROM storage.buckets WHERE key = 'private' AND owner_id = 'bob'", &[])
        .unwrap()
        .get(0);
    let mut words = Vec::new();
    for bucket in [&bobs, ABSENT] {
        let files = [Upload::of(b"x").to(bucket), Upload::of(b"x").to(bucket)];
        let refusal = refused_whole(&scene, &mut ada, &files);
        assert_eq!(refusal.code(), ("42704", "BUCKET_NOT_FOUND"));
        words.push((refusal.message, refusal.detail.map(|detail| detail.replace(bucket, "?")), refusal.hint));
    }
    assert_eq!(words[0], words[1]);
    let files = vec![Upload { bucket: None, ..Upload::of(b"x") }; 2];
    for ticket in request_all(&mut ada, &files) {
        let query = "SELECT b.key FROM storage.upload_requests u JOIN storage.buckets b ON b.id = u.bucket_id WHERE u.id = $1::text::uuid";
        assert_eq!(ada.query_one(query, &[&ticket.upload_id]).unwrap().get::<_, &str>(0), "private");
    }
}

#[test]
fn a_call_has_so_many_files_and_bytes_and_no_more() {
    let scene = used();
    scene.set("pg_storage.max_bulk_files", "3");
    scene.set("pg_storage.max_bulk_size", "100B");
    let mut ada = scene.user("ada");
    let sized = |size| Upload { size, ..Upload::of(b"x") };
    let tickets = request_all(&mut ada, &[sized(50), sized(30), sized(20)]);
    let refusal = refused_whole(&scene, &mut ada, &vec![sized(1); 4]);
    assert_eq!(refusal.code(), ("53400", "BULK_UPLOAD_FILES_EXCEEDED"));
    assert_eq!(refusal.detail.as_deref(), Some("4 are listed; pg_storage.max_bulk_files allows 3."));
    let refusal = refused_whole(&scene, &mut ada, &[sized(50), sized(51)]);
    assert_eq!(refusal.code(), ("53400", "BULK_UPLOAD_SIZE_EXCEEDED"));
    assert_eq!(
        refusal.detail.as_deref(),
        Some("101 bytes are declared; pg_storage.max_bulk_size allows 100.")
    );
    // One call for each is not what is limited.
    sized(101).request(&mut ada);

    let mut listed = ids(&tickets);
    assert!(confirm_all(&mut ada, &listed).iter().all(|verdict| verdict.outcome().1 == Some("NOT_UPLOADED")));
    listed.push(ABSENT);
    let refusal = refused(try_confirm_all(&mut ada, &listed));
    assert_eq!(refusal.code(), ("53400", "BULK_UPLOAD_FILES_EXCEEDED"));
    // Links to files are not uploads.
    let many = vec![ABSENT; 5000];
    ada.query("SELECT storage.download_urls($1::text[]::uuid[])", &[&many]).unwrap();
}

#[test]
fn limits_of_buckets_and_users_count_each_file() {
    let quota = ("UPDATE storage.buckets SET max_file_count = 4 WHERE key = 'private'", "QUOTA_EXCEEDED");
    let room = ("UPDATE storage.buckets SET max_total_size = 39 WHERE key = 'private'", "QUOTA_EXCEEDED");
    for (limit, token) in [quota, room] {
        let scene = used();
        let mut ada = scene.user("ada");
        scene.superuser().batch_execute(limit).unwrap();
        let files = |count| vec![Upload { size: 10, ..Upload::of(b"x") }; count];
        // What was used first is in it.
        assert_eq!(refused_whole(&scene, &mut ada, &files(4)).code(), ("53400", token), "{limit}");
        request_all(&mut ada, &files(3));
        assert_eq!(refused_whole(&scene, &mut ada, &files(1)).code(), ("53400", token), "{limit}");
    }

    let scene = used();
    scene.set("pg_storage.max_pending_uploads", "3");
    let mut ada = scene.user("ada");
    let files = |count| vec![Upload::of(b"x"); count];
    let refusal = refused_whole(&scene, &mut ada, &files(4));
    assert_eq!(refusal.code(), ("53400", "TOO_MANY_PENDING_UPLOADS"));
    request_all(&mut ada, &files(3));
    assert_eq!(refused_whole(&scene, &mut ada, &files(1)).token, "TOO_MANY_PENDING_UPLOADS");
}

#[test]
fn the_rate_of_uploads_counts_each_file_and_a_refused_call_costs_nothing() {
    let limited = || {
        let scene = used();
        // One comes back every thirty seconds, which the test does not take.
        scene.set("pg_storage.upload_rate", "2");
        scene
    };
    let files = |count| vec![Upload::of(b"x"); count];
    let scene = limited();
    let mut ada = scene.user("ada");
    for _ in 0..3 {
        let refusal = refused_whole(&scene, &mut ada, &files(3));
        assert_eq!(refusal.code(), ("53400", "RATE_LIMIT"));
        assert!(refusal.detail.unwrap().starts_with("3 were asked for at once"));
    }
    request_all(&mut ada, &files(1));
    for _ in 0..3 {
        let refusal = refused_whole(&scene, &mut ada, &files(2));
        assert_eq!(refusal.code(), ("53400", "RATE_LIMIT"));
        assert!(refusal.detail.unwrap().contains("2 at once are possible in "));
    }
    request_all(&mut ada, &files(1));
    assert_eq!(refused_whole(&scene, &mut ada, &files(1)).token, "RATE_LIMIT");

    // Nor does one that is refused in the middle for something else, and what it owed is forgotten: rows inserted
    // directly are counted as ever.
    let scene = limited();
    let mut ada = scene.user("ada");
    let quota = |count: &str| {
        let update = format!("UPDATE storage.buckets SET max_file_count = {count} WHERE key = 'private'");
        scene.superuser().batch_execute(&update).unwrap();
    };
    quota("2");
    for _ in 0..3 {
        assert_eq!(refused_whole(&scene, &mut ada, &files(2)).token, "QUOTA_EXCEEDED");
    }
    quota("NULL");
    let insert = "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size)
                  SELECT id, 'a.txt', 'text/plain', 1 FROM storage.buckets WHERE key = 'private' AND owner_id = 'ada'";
    for _ in 0..2 {
        ada.batch_execute(insert).unwrap();
    }
    assert_eq!(refused(ada.batch_execute(insert)).token, "RATE_LIMIT");
}

#[test]
fn verdicts_are_values_each_of_its_own() {
    each_store(|scene| {
        let mut ada = scene.user("ada");
        let bytes = some_bytes("verdicts", 64);
        let tickets = request_all(&mut ada, &vec![Upload::of(&bytes).to("temp"); 7]);
        let expiring = Upload::of(&bytes).to("temp").expiring_in("1 second").request(&mut ada);
        let [right, absent, long, empty, typed, aborted, before] = tickets.as_slice() else { panic!() };
        put_all(&[right.clone(), before.clone()], &bytes);
        // Not through the URL, which a good store would not let be misused.
        let place = |ticket: &Ticket| scene.place_of_upload(&ticket.upload_id);
        scene.overwrite(&place(long), "text/plain", &some_bytes("longer", 65));
        scene.overwrite(&place(empty), "text/plain", b"");
        scene.overwrite(&place(typed), "image/png", &bytes);
        flow::abort(&mut ada, &aborted.upload_id).unwrap();
        assert_eq!(flow::confirm(&mut ada, &before.upload_id).outcome(), ("uploaded", None));
        let left = expiring.expires_at.unwrap().duration_since(SystemTime::now()).unwrap_or_default();
        sleep(left + Duration::from_millis(20));

        let mut asked = ids(&tickets);
        asked.insert(3, &expiring.upload_id);
        let expected = [
            ("uploaded", None),
            ("requested", Some("NOT_UPLOADED")),
            ("rejected", Some("SIZE_MISMATCH")),
            ("expired", Some("EXPIRED")),
            ("rejected", Some("EMPTY_FILE")),
            ("rejected", Some("CONTENT_TYPE_MISMATCH")),
            ("aborted", Some("ABORTED")),
            ("uploaded", None),
        ];
        let verdicts = confirm_all(&mut ada, &asked);
        assert_eq!(verdicts.iter().map(flow::Verdict::outcome).collect::<Vec<_>>(), expected);
        assert_downloads(&mut ada, &right.file_id, &bytes);
        // They last, but for the one that waits.
        put_all(std::slice::from_ref(absent), &bytes);
        let verdicts = confirm_all(&mut ada, &asked);
        assert_eq!(verdicts[1].outcome(), ("uploaded", None));
        assert_eq!(verdicts[2..].iter().map(flow::Verdict::outcome).collect::<Vec<_>>(), expected[2..]);
    });
}

#[test]
fn a_path_that_another_user_took_meanwhile_settles_none_and_the_upload_is_named() {
    let scene = used();
    scene.shared_bucket();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let files = ["a", "b"].map(|path| Upload::declared(b"hers").to("shared").at(path));
    let tickets = request_all(&mut ada, &files);
    put_all(&tickets, b"hers");
    Upload::declared(b"his").to("shared").at("b").complete(&mut bob, b"his");
    let rows = scene.rows();
    let refusal = refused(try_confirm_all(&mut ada, &ids(&tickets)));
    assert_eq!(refusal.code(), ("42710", "PATH_TAKEN"));
    assert!(refusal.detail.unwrap().ends_with(&format!(" Upload {}.", tickets[1].upload_id)));
    assert_eq!(scene.rows(), rows);
    assert_eq!(confirm_all(&mut ada, &[&tickets[0].upload_id])[0].outcome(), ("uploaded", None));
}

#[test]
fn an_unknown_upload_ends_the_call_before_the_store_is_asked_and_a_hidden_one_is_unknown() {
    let (scene, proxy) = proxied();
    let mut ada = scene.user("ada");
    let tickets = request_all(&mut ada, &vec![Upload::declared(b"mine"); 2]);
    put_all(&tickets, b"mine");
    let bobs = Upload::declared(b"his").request(&mut scene.user("bob")).upload_id;
    let rows = scene.rows();
    // Whoever asks the store is told something else.
    proxy.set("", Fault::Denied);
    let mut words = Vec::new();
    for other in [bobs.as_str(), ABSENT] {
        let listed = [&tickets[0].upload_id, other, &tickets[1].upload_id, other];
        let refusal = refused(try_confirm_all(&mut ada, &listed));
        assert_eq!(refusal.code(), ("42704", "UPLOAD_NOT_FOUND"));
        let one = refused(flow::try_confirm(&mut ada, other));
        assert_eq!(one, refusal, "the words of a call about it alone");
        words.push((refusal.message, refusal.detail.map(|detail| detail.replace(other, "?")), refusal.hint));
    }
    assert_eq!(words[0], words[1]);
    let null = "SELECT FROM storage.confirm_uploads(ARRAY[NULL]::uuid[])";
    assert_eq!(refused(ada.batch_execute(null)).token, "UPLOAD_NOT_FOUND");
    assert_eq!(scene.rows(), rows);
    assert_eq!(refused(try_confirm_all(&mut ada, &ids(&tickets))).token, "STORE_DENIED");
    proxy.heal();
    assert!(confirm_all(&mut ada, &ids(&tickets)).iter().all(|verdict| verdict.status == "uploaded"));
}

#[test]
fn asking_for_many_in_a_warm_bucket_and_linking_to_many_asks_the_store_nothing() {
    let (scene, proxy) = proxied();
    let mut ada = scene.user("ada");
    let tickets = request_all(&mut ada, &vec![Upload::declared(b"warm"); 3]);
    put_all(&tickets, b"warm");
    confirm_all(&mut ada, &ids(&tickets));
    // Whoever asks the store fails.
    proxy.set("", Fault::Denied);
    request_all(&mut ada, &vec![Upload::of(b"undeclared"); 50]);
    assert!(request_all(&mut ada, &vec![Upload::declared(b"warm"); 50]).iter().all(|one| one.deduplicated));
    // All of these are final.
    confirm_all(&mut ada, &ids(&tickets));
    let links = ada
        .query("SELECT s.url FROM storage.download_urls(ARRAY(SELECT f.id FROM storage.files f)) s", &[])
        .unwrap();
    // Those of the first use and of the three uploads among them.
    assert_eq!(links.len(), 54);
}

#[test]
fn thousands_of_links_come_in_order_and_without_those_the_caller_may_not_have() {
    let scene = used();
    let mut ada = scene.user("ada");
    // Over one object, of ada's and of bob's.
    scene.user("bob");
    scene
        .superuser()
        .batch_execute(
            "INSERT INTO storage.files (tenant_id, bucket_id, object_id, owner_id, filename, content_type, size, sha256)
             SELECT f.tenant_id, b.id, f.object_id, b.owner_id, 'file ' || n, f.content_type, f.size, f.sha256
             FROM storage.files f, generate_series(1, 3000) n, storage.buckets b
             WHERE f.filename = 'note.txt' AND b.key = 'private'",
        )
        .unwrap();
    let all: Vec<(String, String)> = scene
        .superuser()
        .query("SELECT id::text, owner_id FROM storage.files WHERE filename LIKE 'file %' ORDER BY id", &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert_eq!(all.len(), 6000);
    // Backwards, one of them twice, one that is not there.
    let mut asked: Vec<&str> = all.iter().rev().map(|(id, _)| id.as_str()).collect();
    asked.insert(1000, ABSENT);
    asked.push(asked[0]);
    let mine = |id: &&str| all.iter().any(|(other, owner)| other == id && owner == "ada");
    let expected: Vec<&str> = asked.iter().copied().filter(mine).collect();
    let rows = ada
        .query("SELECT s.file_id::text, s.url FROM storage.download_urls($1::text[]::uuid[]) s", &[&asked])
        .unwrap();
    let found: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(found, expected);
    for row in [&rows[0], &rows[rows.len() - 1]] {
        assert_eq!(http::get(row.get(1)).body, b"first use");
    }
}

#[test]
fn the_store_is_asked_about_many_at_once_and_not_about_all() {
    let (scene, proxy) = proxied();
    let mut ada = scene.user("ada");
    let tickets = request_all(&mut ada, &vec![Upload::declared(b"at once"); 60]);
    put_all(&tickets, b"at once");
    proxy.set("HEAD /", Fault::Silent);
    let pid: i32 = ada.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let asked: Vec<String> = tickets.iter().map(|ticket| ticket.upload_id.clone()).collect();
    let confirming = std::thread::spawn(move || {
        let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
        let refusal = refused(try_confirm_all(&mut ada, &asked));
        (ada, refusal)
    });
    eventually("all that are asked about at once", LIMIT, || (proxy.waiting() >= 32).then_some(()));
    assert_eq!(proxy.waiting(), 32);
    scene.superuser().execute("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
    let (mut ada, refusal) = confirming.join().unwrap();
    assert_eq!(refusal.sqlstate, "57014");
    proxy.wait_for_silence();
    proxy.heal();
    // Nothing was settled, and nothing is in the way.
    assert_eq!(flow::recorded(&mut ada, &tickets[0].upload_id).outcome(), ("requested", None));
    assert!(confirm_all(&mut ada, &ids(&tickets)).iter().all(|verdict| verdict.status == "uploaded"));
}

#[test]
fn a_store_that_fails_for_one_settles_none_and_the_one_is_named() {
    let (scene, proxy) = proxied();
    let bytes = some_bytes("fails", 40);
    let faults = [
        (Fault::InternalError, "STORE_UNAVAILABLE"),
        (Fault::Denied, "STORE_DENIED"),
        (Fault::Silent, "STORE_TIMEOUT"),
        (Fault::Reset, "STORE_UNAVAILABLE"),
    ];
    for (at, (fault, token)) in faults.into_iter().enumerate() {
        // The others have their answers within the time that the silent one is waited for.
        scene.set("pg_storage.request_timeout", if fault == Fault::Silent { "3s" } else { "60s" });
        let mut ada = scene.user("ada");
        for upload in [Upload::declared(&bytes), Upload::of(&bytes)] {
            let tickets = request_all(&mut ada, &vec![upload.to("temp"); 5]);
            put_all(&tickets[..4], &bytes);
            let (_, key) = scene.place_of_upload(&tickets[at].upload_id);
            let rows = scene.rows();
            proxy.set(&key, fault);
            let refusal = refused(try_confirm_all(&mut ada, &ids(&tickets)));
            assert_eq!(refusal.code(), ("58030", token), "{refusal:?}");
            let named = format!("Upload {}: ", tickets[at].upload_id);
            assert!(refusal.detail.as_ref().unwrap().starts_with(&named), "{fault:?}: {refusal:?}");
            assert_eq!(scene.rows(), rows);
            // The others can be confirmed meanwhile, and all of them once the store is itself again.
            let others: Vec<&str> =
                ids(&tickets).into_iter().filter(|id| *id != tickets[at].upload_id).collect();
            assert_eq!(confirm_all(&mut ada, &others)[0].outcome(), ("uploaded", None));
            proxy.heal();
            let verdicts = confirm_all(&mut ada, &ids(&tickets));
            assert_eq!(verdicts[at].outcome(), ("uploaded", None));
            assert_eq!(verdicts[4].outcome(), ("requested", Some("NOT_UPLOADED")));
        }
    }
}

#[test]
fn two_calls_about_the_same_uploads_in_other_orders_both_succeed() {
    each_store(|scene| {
        for (declared, end) in [(true, "COMMIT"), (false, "COMMIT"), (true, "ROLLBACK")] {
            let (mut one, mut two) = (scene.user("ada"), scene.user("ada"));
            let bytes = some_bytes(&format!("{declared} {end}"), 60);
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            let tickets = request_all(&mut one, &vec![upload; 6]);
            put_all(&tickets, &bytes);
            one.batch_execute("BEGIN").unwrap();
            let forth = ids(&tickets);
            assert!(confirm_all(&mut one, &forth).iter().all(|verdict| verdict.status == "uploaded"));
            let pid: i32 = two.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
            let back: Vec<String> = tickets.iter().rev().map(|ticket| ticket.upload_id.clone()).collect();
            let waiting = std::thread::spawn(move || {
                confirm_all(&mut two, &back.iter().map(String::as_str).collect::<Vec<_>>())
            });
            eventually("one call to wait for the other", LIMIT, || {
                scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
            });
            one.batch_execute(end).unwrap();
            let verdicts = waiting.join().unwrap();
            assert!(verdicts.iter().all(|verdict| verdict.outcome() == ("uploaded", None)), "{verdicts:?}");
            for ticket in &tickets {
                assert_downloads(&mut one, &ticket.file_id, &bytes);
            }
        }
    });
}

#[test]
fn calls_that_wait_for_one_in_the_middle_go_on_one_after_the_other() {
    let scene = used();
    let mut holding = scene.user("ada");
    let tickets = request_all(&mut holding, &vec![Upload::declared(b"held"); 3]);
    put_all(&tickets, b"held");
    let mut forth: Vec<String> = tickets.iter().map(|ticket| ticket.upload_id.clone()).collect();
    forth.sort_unstable();
    let back: Vec<String> = forth.iter().rev().cloned().collect();
    holding.batch_execute("BEGIN").unwrap();
    flow::confirm(&mut holding, &forth[1]);
    let waiting: Vec<_> = [forth, back]
        .into_iter()
        .map(|listed| {
            let mut session = scene.user("ada");
            let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
            let waiting = std::thread::spawn(move || {
                confirm_all(&mut session, &listed.iter().map(String::as_str).collect::<Vec<_>>())
            });
            eventually("a call to wait", LIMIT, || {
                scene.value::<bool>(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")).then_some(())
            });
            waiting
        })
        .collect();
    holding.batch_execute("COMMIT").unwrap();
    for waiting in waiting {
        let verdicts = waiting.join().unwrap();
        assert!(verdicts.iter().all(|verdict| verdict.outcome() == ("uploaded", None)), "{verdicts:?}");
    }
}

#[test]
fn calls_that_cross_in_uploads_hashes_and_paths_never_deadlock() {
    let scene = used();
    scene.set("deadlock_timeout", "100ms");
    const ROUNDS: usize = 8;
    const FILES: usize = 10;
    for round in 0..ROUNDS {
        let bytes: Vec<Vec<u8>> = (0..FILES).map(|at| some_bytes(&format!("{round} {at}"), 40)).collect();
        // Two uploads of each file and path: crossing calls share hashes, paths and two of the uploads.
        let files: Vec<Upload> = bytes
            .iter()
            .enumerate()
            .map(|(at, bytes)| Upload::declared(bytes).at(&format!("{round}/{at}")))
            .collect();
        let mut ada = scene.user("ada");
        let (first, second) = (request_all(&mut ada, &files), request_all(&mut ada, &files));
        for (at, bytes) in bytes.iter().enumerate() {
            put_all(&[first[at].clone(), second[at].clone()], bytes);
        }
        let forth = ids(&first);
        let mut back: Vec<&str> = ids(&second);
        for at in [round, round + 5] {
            back[at % FILES] = forth[at % FILES];
        }
        back.reverse();
        let barrier = Barrier::new(3);
        std::thread::scope(|scope| {
            for listed in [&forth, &back] {
                let mut session = scene.user("ada");
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let verdicts = confirm_all(&mut session, listed);
                    assert!(verdicts.iter().all(|verdict| verdict.outcome() == ("uploaded", None)));
                });
            }
            // And one that shares the same bytes at the same paths as soon as they are there.
            let mut session = scene.user("ada");
            let (files, barrier) = (&files, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for _ in 0..3 {
                    let mut files = files.clone();
                    request_all(&mut session, &files);
                    files.reverse();
                    request_all(&mut session, &files);
                }
            });
        });
    }
    let current = "SELECT count(*) FROM storage.files WHERE path IS NOT NULL AND is_current";
    assert_eq!(scene.value::<i64>(current), (ROUNDS * FILES) as i64);
    let objects = "SELECT count(*) FROM storage.objects";
    assert_eq!(scene.value::<i64>(objects), (ROUNDS * FILES) as i64 + 1);
}
