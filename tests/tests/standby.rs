//! A standby signs downloads and nothing else, and never touches the store; neither does a read-only transaction.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::choice::lacks;
use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{Cluster, LocalStore, Options, StoreAccess, eventually, http, refused, scene};
use postgres::Client;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// What changes something; `{file}`, `{upload}` and `{bucket}` exist and belong to the caller.
const EFFECTS: [&str; 14] = [
    "storage.request_upload_url('private', 'a.txt', 'text/plain', 1)",
    "storage.request_upload_url('{bucket}', 'a.txt', 'text/plain', 1)",
    "storage.confirm_upload('{upload}')",
    "storage.abort_upload('{upload}')",
    "storage.delete_file('{file}')",
    "storage.put_file('private', 'a.txt', 'x', 'text/plain')",
    "storage.copy_file('{file}')",
    "storage.move_file('{file}', path => 'a')",
    "storage.set_file_access('{file}', 'public')",
    "storage.restore_version('{file}')",
    "storage.expire_versions('private', keep => 1)",
    "storage.create_bucket('more')",
    "storage.create_user_buckets('ada')",
    "storage.provision_bucket('private')",
];

struct Scenery {
    primary: Cluster,
    database: String,
    manager: String,
    file: String,
    public: String,
    pending: String,
    bucket: String,
    /// Whether the store lets read without a signature what is public.
    public_read: bool,
}

impl Scenery {
    fn new(store: &StoreAccess) -> Self {
        let primary = Cluster::start(scene::remote(store).setting("pg_storage.bucket_prefix", "standby"));
        let database = primary.database();
        let manager = database.role("manager");
        let mut ada = database.connect_as(&manager, &[("jwt.claims.user_id", "ada")]);
        ada.batch_execute("SELECT storage.create_user_buckets('ada')").unwrap();
        let file = Upload::of(b"replicated").complete(&mut ada, b"replicated").file_id;
        let public = Upload::of(b"replicated").to("public").complete(&mut ada, b"replicated").file_id;
        let pending = Upload::of(b"pending").request(&mut ada);
        assert!(pending.put(b"pending").is_success());
        let bucket = "SELECT id::text FROM storage.buckets WHERE key = 'private'";
        let bucket = ada.query_one(bucket, &[]).unwrap().get(0);
        let told = "SELECT status = 'ok' FROM storage.check() WHERE name = 'public_read'";
        let public_read = database.superuser().query_one(told, &[]).unwrap().get(0);
        let database = database.name().to_owned();
        Self { primary, database, manager, file, public, pending: pending.upload_id, bucket, public_read }
    }

    fn ada(&self, cluster: &Cluster) -> Client {
        let mut session = cluster.connect(&self.manager, &self.database);
        session.batch_execute("SET jwt.claims.user_id = 'ada'").unwrap();
        session
    }

    fn filled(&self, call: &str) -> String {
        call.replace("{file}", &self.file)
            .replace("{upload}", &self.pending)
            .replace("{bucket}", &self.bucket)
    }

    /// Every signing function works.
    fn assert_signs(&self, session: &mut Client) {
        flow::assert_downloads(session, &self.file, b"replicated");
        for query in [
            "SELECT url FROM storage.download_urls(ARRAY['{file}']::uuid[])",
            "SELECT storage.files_download_url(f) FROM storage.files f WHERE id = '{file}'",
            "SELECT url FROM storage_private.sign_downloads(ARRAY['{file}']::uuid[], '1 minute', false, 'b.txt')",
            "SELECT storage.public_url('{public}')",
            "SELECT storage.download_url(file_id) FROM storage.list_files('private', page_size => 1)",
        ] {
            let query = self.filled(query).replace("{public}", &self.public);
            let url: String = session.query_one(&query, &[]).unwrap().get(0);
            let answer = http::get(&url);
            if !self.public_read && query.contains("public_url") {
                lacks("public_read");
                assert_eq!(answer.status, 403, "{query}");
            } else {
                assert_eq!(answer.body, b"replicated", "{query}");
            }
        }
    }

    /// Every function with an effect refuses, and so does PostgreSQL where rows are written directly.
    fn assert_refuses(&self, session: &mut Client) {
        for call in EFFECTS {
            let refusal = refused(session.query(&self.filled(&format!("SELECT {call}")), &[]));
            assert_eq!(refusal.code(), ("25006", "READ_ONLY"), "{call}: {refusal:?}");
            assert!(refusal.hint.is_some(), "{call}");
        }
        for statement in [
            "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size) VALUES ('{bucket}', 'a', 'text/plain', 1)",
            "INSERT INTO storage.buckets (key) VALUES ('more')",
            "UPDATE storage.files SET filename = 'b.txt'",
            "DELETE FROM storage.files",
        ] {
            assert_eq!(
                refused(session.batch_execute(&self.filled(statement))).sqlstate,
                "25006",
                "{statement}"
            );
        }
    }
}

/// Waits until `standby` has everything that `primary` has written so far.
fn caught_up(primary: &Cluster, standby: &Cluster) {
    let written: String = primary
        .connect("postgres", "postgres")
        .query_one("SELECT pg_current_wal_flush_lsn()::text", &[])
        .unwrap()
        .get(0);
    let mut session = standby.connect("postgres", "postgres");
    eventually("the standby to catch up", LIMIT, || {
        let replayed = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        session.query_one(replayed, &[&written]).unwrap().get::<_, bool>(0).then_some(())
    });
}

#[test]
fn a_standby_signs_downloads_and_nothing_else_until_it_is_promoted() {
    let store = LocalStore::start();
    let scenery = Scenery::new(store.access());
    let standby = scenery.primary.standby();
    caught_up(&scenery.primary, &standby);
    let before = store.requests().len();

    let mut ada = scenery.ada(&standby);
    assert!(ada.query_one("SELECT pg_is_in_recovery()", &[]).unwrap().get::<_, bool>(0));
    scenery.assert_signs(&mut ada);
    // Row-level security is replicated with the rest.
    let mut bob = scenery.ada(&standby);
    bob.batch_execute("SET jwt.claims.user_id = 'bob'").unwrap();
    let hidden = format!("SELECT storage.download_url('{}')", scenery.file);
    assert_eq!(refused(bob.query(&hidden, &[])).code(), ("42704", "FILE_NOT_FOUND"));
    scenery.assert_refuses(&mut ada);

    let mut superuser = standby.connect("postgres", &scenery.database);
    // Not even a dry run: the primary's open transactions are not to be seen here.
    for call in [
        "run_maintenance()",
        "scan_orphans(name) FROM storage.physical_buckets",
        "adopt_bucket('any')",
        "import_objects('any', '{}')",
    ] {
        let refusal = refused(superuser.query(&format!("SELECT storage.{call}"), &[]));
        assert_eq!(refusal.code(), ("25006", "READ_ONLY"), "{call}");
    }
    for call in ["storage.enable_default_policies(false)", "storage.grant_access('postgres', 'reader')"] {
        assert_eq!(refused(superuser.query(&format!("SELECT {call}"), &[])).sqlstate, "25006", "{call}");
    }
    let findings = superuser.query("SELECT name || ' ' || status FROM storage.check()", &[]).unwrap();
    let findings: Vec<String> = findings.iter().map(|row| row.get(0)).collect();
    assert!(
        findings.contains(&"store ok".to_owned()) && findings.contains(&"capabilities warn".to_owned()),
        "{findings:?}"
    );
    // The downloads of this test and the questions of check() are all that the store has heard since.
    let heard = &store.requests()[before..];
    assert!(heard.iter().all(|request| ["GET", "HEAD"].contains(&request.method.as_str())), "{heard:?}");

    superuser.batch_execute("SELECT pg_promote()").unwrap();
    let mut ada = scenery.ada(&standby);
    assert_eq!(flow::confirm(&mut ada, &scenery.pending).outcome(), ("uploaded", None));
    let file = Upload::of(b"promoted").complete(&mut ada, b"promoted").file_id;
    flow::assert_downloads(&mut ada, &file, b"promoted");
}

#[test]
fn a_read_only_transaction_signs_downloads_and_nothing_else() {
    let scenery = Scenery::new(StoreAccess::chosen());
    let mut ada = scenery.ada(&scenery.primary);
    ada.batch_execute("SET default_transaction_read_only = on").unwrap();
    scenery.assert_signs(&mut ada);
    scenery.assert_refuses(&mut ada);
    ada.batch_execute("SET default_transaction_read_only = off").unwrap();
    assert_eq!(flow::confirm(&mut ada, &scenery.pending).outcome(), ("uploaded", None));
}

#[test]
fn what_the_primary_does_later_shows_on_the_standby() {
    let scenery = Scenery::new(StoreAccess::chosen());
    let standby = scenery.primary.standby();
    let mut there = scenery.ada(&standby);
    let mut here = scenery.ada(&scenery.primary);
    let file = Upload::of(b"later").complete(&mut here, b"later").file_id;
    caught_up(&scenery.primary, &standby);
    flow::assert_downloads(&mut there, &file, b"later");

    here.execute("SELECT storage.delete_file($1::text::uuid)", &[&file]).unwrap();
    let mut owner = scenery.primary.connect("postgres", &scenery.database);
    owner.batch_execute("SELECT storage.enable_default_policies(false)").unwrap();
    caught_up(&scenery.primary, &standby);
    for id in [&file, &scenery.file] {
        let refusal = refused(there.query("SELECT storage.download_url($1::text::uuid)", &[id]));
        assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"));
    }
}

/// The local store is for one machine: its bytes travel with a backup and not with the WAL.
#[test]
fn a_standby_with_a_local_store_serves_what_its_backup_holds() {
    let primary = Cluster::start(Options::new().embedded("it is about its directory"));
    let database = primary.database();
    let mut here = database.superuser();
    here.batch_execute("SELECT storage.create_user_buckets('postgres')").unwrap();
    let file = Upload::of(b"copied").complete(&mut here, b"copied").file_id;
    let standby = primary.standby();
    caught_up(&primary, &standby);
    let mut there = standby.connect("postgres", database.name());
    let url = flow::download_url(&mut there, &file);
    assert_eq!(http::get(&url).body, b"copied");
    let host = |url: &str| url.split('/').nth(2).unwrap().to_owned();
    assert_ne!(host(&url), host(&flow::download_url(&mut here, &file)), "each serves its own copy");

    let later = Upload::of(b"later").complete(&mut here, b"later").file_id;
    caught_up(&primary, &standby);
    assert_eq!(flow::download(&mut there, &later).status, 404);
    assert_eq!(
        refused(there.query("SELECT storage.delete_file($1::text::uuid)", &[&file])).code(),
        ("25006", "READ_ONLY")
    );
}
