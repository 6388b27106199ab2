//! The shipped policies: owner, another user of the tenant, another tenant and nobody, over buckets, files and uploads.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::choice::lacks;
use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{Refusal, Scene, refused};
use postgres::Client;

const ABSENT: &str = "00000000-0000-4000-8000-000000000000";
const BUCKETS: [&str; 4] = ["private", "public", "temp", "shared"];

/// A tenant in which ada has a file in each of her buckets and in one of the tenant's, and a pending upload in each.
struct Acme {
    scene: Scene,
    buckets: Vec<String>,
    files: Vec<String>,
    pending: Vec<String>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Owner,
    Colleague,
    Manager,
    Stranger,
    Nobody,
}

use Who::{Colleague, Manager, Nobody, Owner, Stranger};

const ALL: [Who; 5] = [Owner, Colleague, Manager, Stranger, Nobody];

impl Acme {
    fn new() -> Self {
        let mut acme =
            Self { scene: Scene::local(), buckets: Vec::new(), files: Vec::new(), pending: Vec::new() };
        let mut manager = acme.session(Manager);
        manager
            .batch_execute(
                "SELECT storage.create_user_buckets('ada'); SELECT storage.create_user_buckets('bob')",
            )
            .unwrap();
        manager.batch_execute("SELECT storage.create_bucket('shared', owner_id => NULL)").unwrap();
        let mut ada = acme.session(Owner);
        for bucket in BUCKETS {
            let bytes = format!("ada's in {bucket}");
            let upload = Upload::of(bytes.as_bytes()).to(bucket);
            acme.files.push(upload.complete(&mut ada, bytes.as_bytes()).file_id);
            acme.pending.push(upload.request(&mut ada).upload_id);
            let id = "SELECT bucket_id::text FROM storage.files WHERE id = $1::text::uuid";
            acme.buckets.push(ada.query_one(id, &[&acme.files[acme.files.len() - 1]]).unwrap().get(0));
        }
        acme
    }

    fn session(&self, who: Who) -> Client {
        let database = &self.scene.database;
        let level = if who == Manager { "manager" } else { "writer" };
        let claims: &[(&str, &str)] = match who {
            Owner => &[("jwt.claims.user_id", "ada"), ("jwt.claims.tenant_id", "acme")],
            Colleague => &[("jwt.claims.user_id", "bob"), ("jwt.claims.tenant_id", "acme")],
            Manager => &[("jwt.claims.user_id", "max"), ("jwt.claims.tenant_id", "acme")],
            // The same user id in another tenant is another user.
            Stranger => &[("jwt.claims.user_id", "ada"), ("jwt.claims.tenant_id", "globex")],
            Nobody => &[],
        };
        database.connect_as(&format!("{}_{level}", database.name()), claims)
    }

    /// Which of ada's rows a query shows, as the names of their buckets.
    fn seen(&self, session: &mut Client, query: &str, ids: &[String]) -> Vec<&'static str> {
        let shown: Vec<String> = session.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        BUCKETS.into_iter().zip(ids).filter(|(_, id)| shown.contains(id)).map(|(name, _)| name).collect()
    }
}

fn buckets_seen_by(who: Who) -> &'static [&'static str] {
    match who {
        Owner | Manager => &BUCKETS,
        Colleague => &["public", "shared"],
        Stranger | Nobody => &[],
    }
}

/// Managing buckets is no right to read what is in them.
fn files_seen_by(who: Who) -> &'static [&'static str] {
    match who {
        Owner => &BUCKETS,
        Colleague | Manager => &["public", "shared"],
        Stranger | Nobody => &[],
    }
}

/// A call with an id in it, and its refusal with that id taken out: hidden and absent must not differ in a letter.
fn refusal(session: &mut Client, call: &str, id: &str) -> Refusal {
    let statement = format!("SELECT {}", call.replace("{}", id));
    let mut refusal = refused(session.query(&statement, &[]));
    refusal.detail = refusal.detail.map(|detail| detail.replace(id, "?"));
    refusal
}

#[test]
fn tables_show_ones_own_the_tenants_and_the_public() {
    let acme = Acme::new();
    for who in ALL {
        let mut session = acme.session(who);
        let buckets = acme.seen(&mut session, "SELECT id::text FROM storage.buckets", &acme.buckets);
        assert_eq!(buckets, buckets_seen_by(who), "{who:?}");
        let files = acme.seen(&mut session, "SELECT id::text FROM storage.files", &acme.files);
        assert_eq!(files, files_seen_by(who), "{who:?}");
        let uploads = acme.seen(&mut session, "SELECT id::text FROM storage.upload_requests", &acme.pending);
        assert_eq!(uploads, if who == Owner { &BUCKETS[..] } else { &[] }, "{who:?}");
    }
}

#[test]
fn what_is_hidden_is_refused_in_the_words_for_what_is_absent() {
    let acme = Acme::new();
    let before = acme.scene.rows();
    for who in [Colleague, Manager, Stranger, Nobody] {
        let mut session = acme.session(who);
        let mut same = |call: &str, id: &str, code: (&str, &str)| {
            let hidden = refusal(&mut session, call, id);
            assert_eq!(hidden.code(), code, "{who:?}: {call}: {hidden:?}");
            assert_eq!(hidden, refusal(&mut session, call, ABSENT), "{who:?}: {call}");
        };
        for (place, bucket) in BUCKETS.into_iter().enumerate() {
            let (file, upload) = (&acme.files[place], &acme.pending[place]);
            same("storage.confirm_upload('{}')", upload, ("42704", "UPLOAD_NOT_FOUND"));
            same("storage.abort_upload('{}')", upload, ("42704", "UPLOAD_NOT_FOUND"));
            // Only one's own can be deleted, visible or not.
            same("storage.delete_file('{}')", file, ("42704", "FILE_NOT_FOUND"));
            if !files_seen_by(who).contains(&bucket) {
                same("storage.download_url('{}')", file, ("42704", "FILE_NOT_FOUND"));
                same("storage.public_url('{}')", file, ("42704", "FILE_NOT_FOUND"));
            }
            if !buckets_seen_by(who).contains(&bucket) {
                let request = "storage.request_upload_url('{}', 'a.txt', 'text/plain', 1)";
                same(request, &acme.buckets[place], ("42704", "BUCKET_NOT_FOUND"));
            }
        }
    }
    assert_eq!(acme.scene.rows(), before);
}

#[test]
fn what_is_visible_can_be_downloaded() {
    let acme = Acme::new();
    for who in ALL {
        let mut session = acme.session(who);
        let ids = acme.files.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
        let query = format!("SELECT file_id::text FROM storage.download_urls(ARRAY[{ids}]::uuid[])");
        assert_eq!(acme.seen(&mut session, &query, &acme.files), files_seen_by(who), "{who:?}");
        for (place, bucket) in BUCKETS.into_iter().enumerate() {
            if files_seen_by(who).contains(&bucket) {
                flow::assert_downloads(
                    &mut session,
                    &acme.files[place],
                    format!("ada's in {bucket}").as_bytes(),
                );
            }
            // A row made up by the caller is looked up again by its id.
            let made_up = format!(
                "SELECT storage.files_download_url(jsonb_populate_record(NULL::storage.files, '{{\"id\": \"{}\"}}'))",
                acme.files[place]
            );
            let url: Option<String> = session.query_one(&made_up, &[]).unwrap().get(0);
            assert_eq!(url.is_some(), files_seen_by(who).contains(&bucket), "{who:?}: {bucket}");
        }
        if files_seen_by(who).contains(&"public") {
            let public = format!("SELECT storage.public_url('{}')", acme.files[1]);
            let url: String = session.query_one(&public, &[]).unwrap().get(0);
            let answer = pg_storage_tests::http::get(&url);
            let told = "SELECT status FROM storage.check() WHERE name = 'public_read'";
            if acme.scene.value::<String>(told) == "ok" {
                assert_eq!(answer.body, b"ada's in public");
            } else {
                lacks("public_read");
                assert_eq!(answer.status, 403);
            }
        }
    }
}

/// One's own and the tenant's buckets take uploads; others that can be seen refuse them. The cache that the owner
/// warmed must not change that, nor one that knows nothing.
#[test]
fn public_buckets_of_others_are_read_only_with_a_cold_cache_and_a_warm_one() {
    let acme = Acme::new();
    for reset in ["SELECT 1", "SELECT storage.reset_cache()"] {
        acme.scene.superuser().batch_execute(reset).unwrap();
        let before = acme.scene.rows();
        for who in [Colleague, Manager, Stranger, Nobody] {
            let mut session = acme.session(who);
            for (place, bucket) in BUCKETS.into_iter().enumerate() {
                let id = &acme.buckets[place];
                let insert = format!(
                    "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size)
                     VALUES ('{id}', 'a.txt', 'text/plain', 1)"
                );
                let request = format!("SELECT storage.request_upload_url('{id}', 'a.txt', 'text/plain', 1)");
                if !buckets_seen_by(who).contains(&bucket) {
                    for statement in [&request, &insert] {
                        let refusal = refused(session.batch_execute(statement));
                        assert_eq!(refusal.code(), ("42704", "BUCKET_NOT_FOUND"), "{who:?}: {statement}");
                    }
                } else if bucket == "shared" {
                    for statement in [&request, &insert] {
                        session.batch_execute(&format!("BEGIN; {statement}; ROLLBACK")).unwrap();
                    }
                } else {
                    let refusal = refused(session.batch_execute(&request));
                    assert_eq!(refusal.code(), ("42501", "RBAC_FORBIDDEN"), "{who:?}: {bucket}");
                    let refusal = refused(session.batch_execute(&insert));
                    assert_eq!(refusal.sqlstate, "42501", "{who:?}: {bucket}");
                }
            }
        }
        assert_eq!(acme.scene.rows(), before, "{reset}");
    }
}

#[test]
fn nobody_changes_or_deletes_files_of_others() {
    let acme = Acme::new();
    let before = acme.scene.rows();
    for who in [Colleague, Manager, Stranger, Nobody] {
        let mut session = acme.session(who);
        for (bucket, file) in BUCKETS.into_iter().zip(&acme.files) {
            for statement in [
                format!("UPDATE storage.files SET filename = 'x' WHERE id = '{file}'"),
                format!("DELETE FROM storage.files WHERE id = '{file}'"),
            ] {
                assert_eq!(session.execute(&statement, &[]).unwrap(), 0, "{who:?}: {bucket}: {statement}");
            }
        }
        assert_eq!(session.execute("DELETE FROM storage.files", &[]).unwrap(), 0, "{who:?}");
    }
    assert_eq!(acme.scene.rows(), before);
    let mut ada = acme.session(Owner);
    assert_eq!(ada.execute("UPDATE storage.files SET filename = 'x'", &[]).unwrap(), 4);
    assert_eq!(ada.execute("DELETE FROM storage.files", &[]).unwrap(), 4);
}

#[test]
fn writers_change_no_bucket_and_managers_only_their_tenants() {
    let acme = Acme::new();
    for who in [Owner, Colleague, Stranger, Nobody] {
        let mut session = acme.session(who);
        for statement in [
            "INSERT INTO storage.buckets (key) VALUES ('x')",
            "UPDATE storage.buckets SET max_file_size = 1",
            "DELETE FROM storage.buckets",
            "SELECT storage.create_bucket('x')",
            "SELECT storage.create_user_buckets('x')",
        ] {
            assert_eq!(refused(session.batch_execute(statement)).sqlstate, "42501", "{who:?}: {statement}");
        }
    }
    let foreign =
        "INSERT INTO storage.buckets (tenant_id, key) VALUES ('globex', 'theirs'), ('globex', 'more')";
    acme.scene.superuser().batch_execute(foreign).unwrap();
    let mut manager = acme.session(Manager);
    // ada's, bob's and the tenant's.
    assert_eq!(manager.execute("UPDATE storage.buckets SET max_file_size = 1", &[]).unwrap(), 7);
    assert_eq!(
        manager
            .execute("DELETE FROM storage.buckets WHERE owner_id = 'bob' OR tenant_id = 'globex'", &[])
            .unwrap(),
        3
    );
    assert_eq!(
        acme.scene.value::<i64>(
            "SELECT count(*) FROM storage.buckets WHERE tenant_id = 'globex' AND max_file_size IS NULL"
        ),
        2
    );
}

#[test]
fn physical_buckets_show_a_manager_its_tenants_alone() {
    let acme = Acme::new();
    let mut eve = acme.session(Stranger);
    let mut globex = acme.scene.database.connect_as(
        &format!("{}_manager", acme.scene.database.name()),
        &[("jwt.claims.user_id", "ada"), ("jwt.claims.tenant_id", "globex")],
    );
    globex
        .batch_execute(
            "SELECT storage.create_user_buckets('ada'); SELECT storage.provision_bucket('private')",
        )
        .unwrap();
    let query = "SELECT DISTINCT tenant_id FROM storage.physical_buckets";
    let tenants = |session: &mut Client| -> Vec<String> {
        session.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(tenants(&mut acme.session(Manager)), ["acme"]);
    assert_eq!(tenants(&mut globex), ["globex"]);
    assert_eq!(refused(eve.query(query, &[])).sqlstate, "42501");
}

/// The shipped policies that allow something, as the catalog has them.
fn policies(scene: &Scene) -> Vec<String> {
    let query =
        "SELECT format('%s %s %s %s %s', tablename, policyname, cmd, qual, with_check) FROM pg_policies
                 WHERE schemaname = 'storage' AND permissive = 'PERMISSIVE' ORDER BY 1";
    scene.superuser().query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn without_the_shipped_policies_everybody_sees_nothing_until_others_are_made() {
    let acme = Acme::new();
    let shipped = policies(&acme.scene);
    assert!(shipped.len() >= 10, "{shipped:?}");
    let mut open = acme.session(Owner);
    let mut superuser = acme.scene.superuser();
    // Twice each: the second time changes nothing.
    for _ in 0..2 {
        superuser.batch_execute("SELECT storage.enable_default_policies(false)").unwrap();
        assert_eq!(policies(&acme.scene), Vec::<String>::new());
    }
    for (who, session) in
        [(Owner, &mut open), (Owner, &mut acme.session(Owner)), (Manager, &mut acme.session(Manager))]
    {
        for table in ["buckets", "files", "upload_requests"] {
            let query = format!("SELECT FROM storage.{table}");
            assert_eq!(session.query(&query, &[]).unwrap().len(), 0, "{who:?}: {table}");
        }
        let id = format!("storage.request_upload_url('{}', 'a.txt', 'text/plain', 1)", acme.buckets[0]);
        assert_eq!(refusal(session, &id, ABSENT).code(), ("42704", "BUCKET_NOT_FOUND"));
        let download = format!("storage.download_url('{}')", acme.files[0]);
        assert_eq!(refusal(session, &download, ABSENT).code(), ("42704", "FILE_NOT_FOUND"));
    }

    // Policies of one's own take their place, and stay when the shipped ones come back.
    superuser
        .batch_execute("CREATE POLICY mine ON storage.files FOR SELECT USING (filename = 'note.txt')")
        .unwrap();
    assert_eq!(acme.session(Nobody).query("SELECT FROM storage.files", &[]).unwrap().len(), 4);
    for _ in 0..2 {
        superuser.batch_execute("SELECT storage.enable_default_policies()").unwrap();
    }
    superuser
        .batch_execute("SELECT storage.enable_default_policies(true); DROP POLICY mine ON storage.files")
        .unwrap();
    assert_eq!(policies(&acme.scene), shipped);
    assert_eq!(open.query("SELECT FROM storage.files", &[]).unwrap().len(), 4);
}

#[test]
fn switching_policies_follows_commit_and_rollback() {
    let scene = Scene::local();
    let shipped = policies(&scene);
    let mut superuser = scene.superuser();
    superuser.batch_execute("BEGIN; SELECT storage.enable_default_policies(false); ROLLBACK").unwrap();
    assert_eq!(policies(&scene), shipped);
    superuser.batch_execute("SELECT storage.enable_default_policies(false)").unwrap();
    superuser.batch_execute("BEGIN; SELECT storage.enable_default_policies(true); ROLLBACK").unwrap();
    assert_eq!(policies(&scene), Vec::<String>::new());
}
