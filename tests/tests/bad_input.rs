//! Bad input is refused with its token, its SQLSTATE, DETAIL and HINT, before any row is written or the store is asked.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload, confirm, some_bytes, try_confirm};
use pg_storage_tests::scene::remote;
use pg_storage_tests::{Cluster, Garage, LocalStore, Options, Refusal, Scene, StoreAccess, refused};
use postgres::Client;

/// SQLSTATE and token, and both DETAIL and HINT say something.
#[track_caller]
fn assert_refusal(what: &str, refusal: &Refusal, sqlstate: &str, token: &str) {
    assert_eq!(refusal.code(), (sqlstate, token), "{what}: {refusal:?}");
    let says = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.trim().is_empty());
    assert!(says(&refusal.detail) && says(&refusal.hint), "{what}: {refusal:?}");
    assert!(!refusal.message.contains('\n'), "{what}: {refusal:?}");
}

/// The good request that every bad one differs from in one point; as SQL expressions.
const GOOD: [(&str, &str); 8] = [
    ("bucket", "'private'"),
    ("filename", "'note.txt'"),
    ("content_type", "'text/plain'"),
    ("size", "5"),
    ("sha256", "repeat('a', 64)"),
    ("path", "'docs/note.txt'"),
    ("metadata", "'{}'"),
    ("expires_in", "'1 minute'"),
];

fn request_with(argument: &str, value: &str) -> String {
    let arguments: Vec<String> = GOOD
        .iter()
        .map(|(name, good)| format!("{name} => {}", if *name == argument { value } else { good }))
        .collect();
    format!("SELECT * FROM storage.request_upload_url({})", arguments.join(", "))
}

#[test]
fn every_bad_request_is_refused_by_name_and_changes_nothing() {
    let (scene, store) = Scene::counting();
    let mut ada = scene.user("ada");
    scene.user("bob");
    let id_of = |owner: &str| -> String {
        scene.value(&format!(
            "SELECT quote_literal(id) FROM storage.buckets WHERE owner_id = '{owner}' AND key = 'private'"
        ))
    };
    let (mine, hidden) = (id_of("ada"), id_of("bob"));
    scene
        .superuser()
        .batch_execute(
            "UPDATE storage.buckets SET max_file_size = 1000, allowed_mime_types = '{text/plain,image/*}' WHERE key = 'private'",
        )
        .unwrap();

    let long = |n: usize| format!("repeat('x', {n})");
    let cases: Vec<(&str, String, &str, &str)> = [
        ("bucket", "'nowhere'", "42704", "BUCKET_NOT_FOUND"),
        ("bucket", "'00000000-0000-0000-0000-000000000000'", "42704", "BUCKET_NOT_FOUND"),
        ("bucket", &hidden, "42704", "BUCKET_NOT_FOUND"),
        ("bucket", "''", "42704", "BUCKET_NOT_FOUND"),
        ("bucket", "'urn:uuid:00000000-0000-0000-0000-000000000001'", "42704", "BUCKET_NOT_FOUND"),
        ("metadata", "'[1]'", "22023", "INVALID_METADATA"),
        ("metadata", "'null'", "22023", "INVALID_METADATA"),
        ("size", "0", "22023", "INVALID_FILE_SIZE"),
        ("size", "NULL", "22023", "INVALID_FILE_SIZE"),
        ("size", "-1", "22023", "INVALID_FILE_SIZE"),
        ("size", "-9223372036854775808", "22023", "INVALID_FILE_SIZE"),
        ("size", "200 * 1024 * 1024 + 1", "22023", "INVALID_FILE_SIZE"),
        ("size", "9223372036854775807", "22023", "INVALID_FILE_SIZE"),
        ("size", "1001", "53400", "FILE_TOO_LARGE"),
        ("sha256", "repeat('a', 63)", "22023", "INVALID_CONTENT_HASH"),
        ("sha256", "repeat('a', 65)", "22023", "INVALID_CONTENT_HASH"),
        ("sha256", "repeat('A', 64)", "22023", "INVALID_CONTENT_HASH"),
        ("sha256", "repeat('g', 64)", "22023", "INVALID_CONTENT_HASH"),
        ("sha256", "''", "22023", "INVALID_CONTENT_HASH"),
        ("sha256", "repeat('é', 32)", "22023", "INVALID_CONTENT_HASH"),
        ("content_type", "''", "22023", "INVALID_CONTENT_TYPE"),
        ("content_type", "NULL", "22023", "INVALID_CONTENT_TYPE"),
        ("content_type", "'textplain'", "22023", "INVALID_CONTENT_TYPE"),
        ("content_type", "'text/'", "22023", "INVALID_CONTENT_TYPE"),
        ("content_type", "'*/*'", "22023", "INVALID_CONTENT_TYPE"),
        ("content_type", "E'text/plain\\r\\nx-amz-acl: public-read'", "22023", "INVALID_CONTENT_TYPE"),
        ("content_type", "E'text/plain\\n'", "22023", "INVALID_CONTENT_TYPE"),
        ("content_type", "'text/plain; a=' || repeat('x', 242)", "22023", "INVALID_CONTENT_TYPE"),
        ("content_type", "'application/zip'", "22023", "CONTENT_TYPE_NOT_ALLOWED"),
        ("content_type", "'image/png'", "22023", "UPLOAD_TYPE_MISMATCH"),
        ("filename", "''", "22023", "INVALID_FILENAME"),
        ("filename", "NULL", "22023", "INVALID_FILENAME"),
        ("filename", "E'a\\r\\nb.txt'", "22023", "INVALID_FILENAME"),
        ("filename", "'a/b.txt'", "22023", "INVALID_FILENAME"),
        ("filename", "'..'", "22023", "INVALID_FILENAME"),
        ("filename", &long(1025), "22023", "INVALID_FILENAME"),
        ("filename", "'photo' || chr(8238) || 'txt.exe'", "22023", "INVALID_FILENAME"),
        ("path", "''", "22023", "INVALID_PATH"),
        ("path", "'a/../b'", "22023", "INVALID_PATH"),
        ("path", "'..'", "22023", "INVALID_PATH"),
        ("path", "'/etc/passwd'", "22023", "INVALID_PATH"),
        ("path", "'a//b'", "22023", "INVALID_PATH"),
        ("path", "E'a\\x01b'", "22023", "INVALID_PATH"),
        ("path", "'.staging/a'", "22023", "INVALID_PATH"),
        ("path", "'-rf'", "22023", "INVALID_PATH"),
        ("path", "'a b'", "22023", "INVALID_PATH"),
        ("path", "'👍'", "22023", "INVALID_PATH"),
        ("path", "repeat('é', 513)", "22023", "INVALID_PATH"),
        ("expires_in", "'0'", "22023", "INVALID_EXPIRY"),
        ("expires_in", "'-1 second'", "22023", "INVALID_EXPIRY"),
        ("expires_in", "'0.5 seconds'", "22023", "INVALID_EXPIRY"),
        ("expires_in", "'7 days 1 second'", "22023", "INVALID_EXPIRY"),
        ("expires_in", "'178000000 years'", "22023", "INVALID_EXPIRY"),
    ]
    .map(|(argument, value, sqlstate, token)| (argument, value.to_owned(), sqlstate, token))
    .into();

    let rows = scene.rows();
    let asked = scene.asked(store);
    for (argument, value, sqlstate, token) in &cases {
        let what = format!("{argument} => {value}");
        println!("{what}");
        let refusal = refused(ada.query(&request_with(argument, value), &[]));
        assert_refusal(&what, &refusal, sqlstate, token);
        assert_eq!(scene.rows(), rows, "{what} changed a row");
    }
    // A zero byte never becomes a text in PostgreSQL; the protocol refuses it.
    let refusal = refused(
        ada.query("SELECT * FROM storage.request_upload_url('private', $1, 'text/plain', 5)", &[&"a\0b.txt"]),
    );
    assert_eq!((refusal.sqlstate.as_str(), scene.rows()), ("22021", rows.clone()));
    // The same rules hold for the plain INSERT that the function makes.
    let insert = format!(
        "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size) VALUES ({mine}, 'a/b', 'text/plain', 5)"
    );
    assert_refusal("INSERT", &refused(ada.execute(&insert, &[])), "22023", "INVALID_FILENAME");
    assert_eq!(scene.rows(), rows);
    assert_eq!(scene.asked(store), asked, "the store was asked");

    // And the good one is good.
    assert_eq!(ada.query(&request_with("", ""), &[]).unwrap().len(), 1);
}

#[test]
fn what_is_just_within_the_limits_is_accepted() {
    let scene = Scene::local();
    scene.set("pg_storage.max_file_size", "5TB");
    let mut ada = scene.user("ada");
    let one_put = 5_i64 << 30;
    for size in [1, 3 << 30, one_put] {
        let ticket = Upload { size, ..Upload::of(b"") }.request(&mut ada);
        assert_eq!(ticket.headers["content-length"], size.to_string());
    }
    let refusal = refused(Upload { size: one_put + 1, ..Upload::of(b"") }.try_request(&mut ada));
    assert_refusal("above what one PUT carries", &refusal, "22023", "INVALID_FILE_SIZE");
    scene.superuser().batch_execute("UPDATE storage.buckets SET max_file_size = 1000").unwrap();
    Upload { size: 1000, ..Upload::of(b"") }.request(&mut ada);
    let longest = format!("{}.txt", "é".repeat(1020));
    Upload::of(b"hello").named(&longest, "text/plain").at(&"é".repeat(512)).request(&mut ada);
    let widest = format!("text/plain; a={}", "x".repeat(241));
    let ticket = Upload::of(b"hello").named("a", &widest).request(&mut ada);
    assert_eq!(ticket.headers["content-type"], widest);
    assert!(ticket.put(b"hello").is_success());
    assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
}

#[test]
fn a_read_only_transaction_signs_downloads_and_refuses_what_writes() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("read only", 10);
    let ticket = Upload::of(&bytes).complete(&mut ada, &bytes);
    let rows = scene.rows();
    ada.batch_execute("SET default_transaction_read_only = on").unwrap();
    flow::assert_downloads(&mut ada, &ticket.file_id, &bytes);
    for refusal in [
        refused(Upload::of(&bytes).try_request(&mut ada)),
        refused(try_confirm(&mut ada, &ticket.upload_id)),
        refused(flow::abort(&mut ada, &ticket.upload_id)),
        refused(ada.query("SELECT storage.delete_file($1::text::uuid)", &[&ticket.file_id])),
    ] {
        assert_eq!(refusal.code(), ("25006", "READ_ONLY"), "{refusal:?}");
    }
    assert_eq!(scene.rows(), rows);
}

#[test]
fn a_hidden_bucket_is_refused_in_the_words_of_an_absent_one() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    scene.user("bob");
    scene.stranger("eve", "elsewhere");
    let mut ask = |bucket: &str| {
        let refusal = refused(Upload::of(b"hello").to(bucket).try_request(&mut ada));
        let detail = refusal.detail.as_deref().unwrap_or_default().replace(bucket, "ID");
        (refusal.code().0.to_owned(), refusal.message, detail, refusal.hint)
    };
    let absent = ask("00000000-0000-0000-0000-000000000000");
    for owner in ["bob", "eve"] {
        let id: String = scene.value(&format!(
            "SELECT id::text FROM storage.buckets WHERE owner_id = '{owner}' AND key = 'private'"
        ));
        assert_eq!(ask(&id), absent);
    }
}

#[test]
fn a_bucket_that_is_seen_but_not_owned_takes_no_upload() {
    let (scene, store) = Scene::counting();
    let mut ada = scene.user("ada");
    let mut bob = scene.user("bob");
    let bytes = some_bytes("bob's", 10);
    Upload::of(&bytes).to("public").complete(&mut bob, &bytes);
    let public: String =
        scene.value("SELECT id::text FROM storage.buckets WHERE owner_id = 'bob' AND key = 'public'");
    let (rows, asked) = (scene.rows(), scene.asked(store));
    let refusal = refused(Upload::of(b"hello").to(&public).try_request(&mut ada));
    assert_refusal("another's public bucket", &refusal, "42501", "RBAC_FORBIDDEN");
    assert_eq!(scene.rows(), rows);
    assert_eq!(scene.asked(store), asked, "the store was asked");
}

#[test]
fn without_a_tenant_nothing_is_asked_or_written() {
    let scene = Scene::local();
    scene.user("ada");
    scene.set("pg_storage.default_tenant", "");
    let writer: String = scene.value("SELECT current_database() || '_writer'");
    let mut nobody = scene.database.connect_as(&writer, &[("jwt.claims.user_id", "ada")]);
    let rows = scene.rows();
    let refusal = refused(Upload::of(b"hello").try_request(&mut nobody));
    assert_refusal("no tenant", &refusal, "42501", "TENANT_REQUIRED");
    assert_eq!(scene.rows(), rows);
}

#[test]
fn no_default_bucket_and_several_are_refused() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let upload = Upload { bucket: None, ..Upload::of(b"hello") };
    assert!(upload.try_request(&mut ada).is_ok(), "the private one of the seeded three is the default");
    let mut superuser = scene.superuser();
    superuser.batch_execute("UPDATE storage.buckets SET is_default = false").unwrap();
    let rows = scene.rows();
    assert_refusal("none", &refused(upload.try_request(&mut ada)), "55000", "DEFAULT_BUCKET_MISSING");
    superuser.batch_execute("UPDATE storage.buckets SET is_default = true").unwrap();
    assert_refusal("several", &refused(upload.try_request(&mut ada)), "55000", "DEFAULT_BUCKET_AMBIGUOUS");
    assert_eq!(scene.rows(), rows);
}

#[test]
fn downloads_refuse_lifetimes_and_names_that_uploads_refuse() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bytes = some_bytes("download", 10);
    let file = Upload::of(&bytes).complete(&mut ada, &bytes).file_id;
    let mut ask = |arguments: &str| {
        refused(ada.query(&format!("SELECT storage.download_url('{file}', {arguments})"), &[]))
    };
    for interval in ["0", "-1 hour", "8 days", "0.9 seconds"] {
        let refusal = ask(&format!("expires_in => '{interval}'"));
        assert_refusal(interval, &refusal, "22023", "INVALID_EXPIRY");
    }
    for name in ["''", "E'a\\nb'", "'a/b'"] {
        assert_refusal(name, &ask(&format!("filename => {name}")), "22023", "INVALID_FILENAME");
    }
}

/// A cluster for one test; leaked, the guardian of the harness ends it.
fn cluster(options: Options) -> &'static Cluster {
    Box::leak(Box::new(Cluster::start(options)))
}

fn refuse_first_upload(scene: &Scene, what: &str, sqlstate: &str, token: &str) -> Refusal {
    let mut ada = scene.user("ada");
    let rows = scene.rows();
    let refusal = refused(Upload::of(b"hello").try_request(&mut ada));
    assert_refusal(what, &refusal, sqlstate, token);
    assert_eq!(scene.rows(), rows, "{what}");
    refusal
}

#[test]
fn a_server_without_a_store_says_what_to_configure() {
    let nowhere = StoreAccess {
        endpoint: String::new(),
        region: String::new(),
        access_key_id: String::new(),
        secret_access_key: String::new(),
    };
    let bare = cluster(Options::new().without_preload());
    let scene = Scene::on(bare, &nowhere);
    refuse_first_upload(&scene, "not preloaded, no endpoint", "55000", "NOT_CONFIGURED");

    let halfway = cluster(Options::new().setting("pg_storage.endpoint", "http://127.0.0.1:9"));
    let scene = Scene::on(halfway, &nowhere);
    let refusal = refuse_first_upload(&scene, "no region", "55000", "NOT_CONFIGURED");
    assert!(refusal.message.contains("pg_storage.region"), "{refusal:?}");
}

#[test]
fn a_store_that_is_down_or_denies_is_named_and_nothing_is_kept() {
    let mut store = LocalStore::start();
    let access = store.access().clone();
    let scene = Scene::on(cluster(remote(&access)), &access);
    store.stop("TERM");
    refuse_first_upload(&scene, "store down", "58030", "STORE_UNAVAILABLE");
    store.start_again();

    let mut ada = scene.user("ada");
    let bytes = some_bytes("down", 100);
    for upload in [Upload::declared(&bytes), Upload::of(&bytes)] {
        let ticket = upload.request(&mut ada);
        assert!(ticket.put(&bytes).is_success());
        let before = scene.rows();
        store.stop("TERM");
        let refusal = refused(try_confirm(&mut ada, &ticket.upload_id));
        assert_refusal("confirm, store down", &refusal, "58030", "STORE_UNAVAILABLE");
        assert_eq!(scene.rows(), before);
        // Signing needs no store.
        assert!(upload.request(&mut ada).url.is_some());
        store.start_again();
        assert_eq!(confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
    }

    for access in [store.access(), Garage::shared().access()] {
        let wrong = StoreAccess { secret_access_key: "0123456789abcdef".repeat(4), ..access.clone() };
        let scene = Scene::on(cluster(remote(&wrong)), &wrong);
        let refusal = refuse_first_upload(&scene, "wrong secret", "58030", "STORE_DENIED");
        let everything = format!("{refusal:?}");
        assert!(!everything.contains(&wrong.secret_access_key), "{everything}");
        assert!(refusal.detail.is_some_and(|detail| detail.contains("status 403")), "{everything}");
    }
}

/// Confirming and aborting, refused alike for what is absent and for what is another's.
#[test]
fn an_upload_of_another_user_or_tenant_is_refused_in_the_words_of_an_absent_one() {
    let scene = Scene::local();
    let bytes = some_bytes("theirs", 10);
    let mut ada = scene.user("ada");
    let (mut bob, mut eve) = (scene.user("bob"), scene.stranger("ada", "elsewhere"));
    let theirs = Upload::of(&bytes).request(&mut ada);
    assert!(theirs.put(&bytes).is_success());
    let rows = scene.rows();
    let absent = "11111111-1111-4111-8111-111111111111";
    type Act = fn(&mut Client, &str) -> Result<flow::Verdict, postgres::Error>;
    for act in [try_confirm as Act, flow::abort as Act] {
        for session in [&mut bob, &mut eve] {
            let said = refused(act(session, absent));
            assert_refusal("absent", &said, "42704", "UPLOAD_NOT_FOUND");
            let hidden = refused(act(session, &theirs.upload_id));
            assert_eq!(
                (hidden.code(), &hidden.message, &hidden.hint),
                (said.code(), &said.message, &said.hint)
            );
            assert_eq!(hidden.detail.map(|detail| detail.replace(&theirs.upload_id, absent)), said.detail);
        }
    }
    assert_eq!(scene.rows(), rows);
    for function in ["confirm_upload", "abort_upload", "delete_file", "download_url"] {
        let refusal = refused(bob.query(&format!("SELECT storage.{function}(NULL)"), &[]));
        assert_eq!(refusal.sqlstate, "42704", "{function}(NULL): {refusal:?}");
    }
    assert_eq!(confirm(&mut ada, &theirs.upload_id).outcome(), ("uploaded", None));
}
