//! Which physical bucket a bucket gets, under which name, for whom, and with whose web origins.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_core::presign::Method;
use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::http::Headers;
use pg_storage_tests::scene::{ORIGIN, remote};
use pg_storage_tests::{Cluster, LocalStore, Request, Scene, refused};
use postgres::Client;
use std::sync::OnceLock;

/// Uploads to a bucket and gives the physical bucket the URL named.
fn physical(session: &mut Client, bucket: &str) -> String {
    let ticket = Upload::declared(b"where").to(bucket).request(session);
    ticket.url().split('/').nth(3).unwrap().to_owned()
}

/// Requests about buckets rather than objects since the first `skip` of the log.
fn bucket_requests(store: &LocalStore, skip: usize, bucket: &str) -> Vec<Request> {
    let bare = format!("/{bucket}");
    store
        .requests()
        .into_iter()
        .skip(skip)
        .filter(|request| request.path.trim_end_matches('/') == bare)
        .collect()
}

/// The origins the store has for a bucket.
fn origins(scene: &Scene, owner: &str, bucket: &str) -> Vec<String> {
    scene
        .manager(owner)
        .query_one(
            "SELECT ARRAY(SELECT DISTINCT o FROM storage.inspect_bucket($1) i,
                                 jsonb_path_query(i.cors, '$.**.allowed_origins[*]') j, trim('\"' FROM j::text) o ORDER BY o)",
            &[&bucket],
        )
        .unwrap()
        .get(0)
}

#[test]
fn tenant_layout_shares_by_tenant_and_access() {
    let (scene, _) = Scene::counting();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let mut eve = scene.stranger("eve", "acme");
    let mine = physical(&mut ada, "private");
    assert_eq!(mine, physical(&mut bob, "private"));
    let all = [mine, physical(&mut ada, "public"), physical(&mut ada, "temp"), physical(&mut eve, "private")];
    for (at, name) in all.iter().enumerate() {
        assert!(!all[..at].contains(name), "{all:?}");
        assert!(name.len() <= 63 && name.starts_with(&scene.database.name().replace('_', "-")), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
    }
    assert!(all[3].contains("acme"), "{}", all[3]);
}

#[test]
fn bucket_layout_gives_every_bucket_its_own() {
    let (scene, _) = Scene::counting();
    scene.set("pg_storage.bucket_layout", "bucket");
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    let all = [physical(&mut ada, "private"), physical(&mut ada, "public"), physical(&mut bob, "private")];
    assert!(all[0] != all[1] && all[0] != all[2] && all[1] != all[2], "{all:?}");
    assert_eq!(physical(&mut ada, "private"), all[0]);
}

#[test]
fn access_layout_shares_by_access_among_all_tenants() {
    let (scene, _) = Scene::counting();
    scene.set("pg_storage.bucket_layout", "access");
    let (mut ada, mut eve) = (scene.user("ada"), scene.stranger("eve", "acme"));
    assert_eq!(physical(&mut ada, "private"), physical(&mut eve, "private"));
    assert_ne!(physical(&mut ada, "private"), physical(&mut ada, "public"));
    let shared = "SELECT bool_and(tenant_id IS NULL AND access IS NOT NULL) FROM storage.physical_buckets";
    assert!(scene.value::<bool>(shared));
    // Keys keep the tenants apart.
    let ticket = Upload::declared(b"eve").complete(&mut eve, b"eve");
    assert!(scene.place_of_file(&ticket.file_id).1.starts_with("acme/"));
}

#[test]
fn the_layout_is_read_anew_when_it_changes_in_a_session() {
    let (scene, _) = Scene::counting();
    let mut root = scene.superuser();
    root.batch_execute(
        "SELECT storage.create_bucket('one', owner_id => 'postgres'); SELECT storage.create_bucket('two', owner_id => 'postgres')",
    )
    .unwrap();
    let by_tenant = physical(&mut root, "one");
    root.batch_execute("SET pg_storage.bucket_layout = 'bucket'").unwrap();
    assert_ne!(physical(&mut root, "two"), by_tenant);
    assert_eq!(physical(&mut root, "one"), by_tenant, "the recorded name wins over the rule");
}

/// One existing bucket for everything: nothing is created or configured there, and keys stay below the prefix.
fn fixed_bucket(scene: &Scene, bucket: &str) {
    scene.set("pg_storage.fixed_bucket", bucket);
    scene.set("pg_storage.key_prefix", "app/one");
    let mut ada = scene.user("ada");
    for access in ["private", "public", "temp"] {
        for declared in [true, false] {
            let bytes = format!("{access} {declared}").into_bytes();
            let upload = if declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
            let ticket = upload.to(access).complete(&mut ada, &bytes);
            let (name, key) = scene.place_of_file(&ticket.file_id);
            assert_eq!(name, bucket);
            assert!(key.starts_with(&format!("app/one/{access}/")), "{key}");
            assert!(scene.place_of_upload(&ticket.upload_id).1.starts_with(&format!("app/one/{access}/")));
            flow::assert_downloads(&mut ada, &ticket.file_id, &bytes);
        }
    }
    let steps: Vec<String> = scene.value(
        "SELECT array_agg(s.outcome || coalesce(': ' || s.reason, '')) FROM storage.provisioning_state s",
    );
    assert_eq!(steps.len(), 6);
    assert!(steps.iter().all(|step| step.starts_with("skipped: ")), "{steps:?}");
    let hint: String =
        scene.value("SELECT hint FROM storage.check() WHERE name = 'layout' AND status = 'ok'");
    assert!(hint.contains("CORS") && hint.contains("public"), "{hint}");
}

#[test]
fn a_fixed_bucket_is_used_as_it_is() {
    let (scene, store) = Scene::counting();
    let answer = scene.at_store(Method::Put, ("operators-own", ""), &Headers::new(), &[]);
    assert!(answer.is_success(), "{}", answer.text());
    let before = store.requests().len();
    fixed_bucket(&scene, "operators-own");
    let touched = bucket_requests(store, before, "operators-own");
    assert!(
        touched.iter().all(|request| ["HEAD", "GET", "POST"].contains(&request.method.as_str())),
        "{touched:?}"
    );
    assert!(touched.iter().all(|request| request.operation != "CreateBucket"));
    let created = |request: &Request| request.operation == "CreateBucket";
    let own = scene.database.name().replace('_', "-");
    assert!(!store.requests()[before..].iter().any(|r| created(r) && r.path.contains(&own)));
}

#[test]
fn a_fixed_bucket_stays_as_it_is_when_the_setting_is_gone_or_names_another() {
    for next in ["", "operators-next"] {
        let (scene, store) = Scene::counting();
        let name = format!("operators-{}", scene.database.name().replace('_', "-"));
        for bucket in [&name, "operators-next"] {
            scene.at_store(Method::Put, (bucket, ""), &Headers::new(), &[]);
        }
        scene.set("pg_storage.fixed_bucket", &name);
        scene.set("pg_storage.key_prefix", "app/one");
        let mut ada = scene.user("ada");
        for access in ["private", "public", "temp"] {
            Upload::declared(access.as_bytes()).to(access).complete(&mut ada, access.as_bytes());
        }
        let before = store.requests().len();
        scene.set("pg_storage.fixed_bucket", next);
        scene.set("pg_storage.key_prefix", "app/two");
        for stage in ["cached", "forgotten"] {
            if stage == "forgotten" {
                scene.superuser().batch_execute("SELECT storage.reset_cache()").unwrap();
            }
            for access in ["private", "public", "temp"] {
                let bytes = format!("{stage} {access}").into_bytes();
                for explicit in [false, true] {
                    if explicit {
                        let provision = "SELECT storage.provision_bucket($1)";
                        scene.manager("ada").query_one(provision, &[&access]).unwrap();
                    }
                    let ticket = Upload::declared(&bytes).to(access).request(&mut scene.user("ada"));
                    let (bucket, key) = scene.place_of_upload(&ticket.upload_id);
                    assert_eq!(bucket, name);
                    assert!(key.starts_with(&format!("app/one/{access}/")), "{stage}: {key}");
                }
            }
        }
        let touched = bucket_requests(store, before, &name);
        assert!(touched.iter().all(|request| request.operation == "HeadBucket"), "{touched:?}");
    }
}

#[test]
fn a_fixed_bucket_whose_first_use_is_not_on_record_is_not_named() {
    let (scene, store) = Scene::counting();
    let name = format!("operators-{}", scene.database.name().replace('_', "-"));
    scene.at_store(Method::Put, (&name, ""), &Headers::new(), &[]);
    scene.set("pg_storage.fixed_bucket", &name);
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    ada.batch_execute("BEGIN").unwrap();
    Upload::declared(b"open").to("public").request(&mut ada);
    assert_eq!(physical(&mut bob, "public"), name);
    ada.batch_execute("ROLLBACK").unwrap();
    scene.set("pg_storage.fixed_bucket", "");
    let before = store.requests().len();
    assert_ne!(physical(&mut scene.user("bob"), "public"), name);
    scene.manager("bob").query_one("SELECT storage.provision_bucket('public')", &[]).unwrap();
    assert_eq!(bucket_requests(store, before, &name), []);
}

#[test]
fn a_fixed_bucket_is_used_as_it_is_on_garage_without_the_right_to_create() {
    let garage = pg_storage_tests::Garage::shared();
    let access = garage.another_key("operator");
    garage.cli(&["key", "deny", "--create-bucket", &access.access_key_id]);
    garage.cli(&["bucket", "create", "operators-own"]);
    garage.cli(&["bucket", "allow", "--read", "--write", "operators-own", "--key", &access.access_key_id]);
    let cluster = Box::leak(Box::new(Cluster::start(remote(&access))));
    let scene = Scene::on(cluster, &access);
    fixed_bucket(&scene, "operators-own");

    // The same credentials may not make a bucket of their own, and are told so.
    scene.set("pg_storage.fixed_bucket", "");
    let mut bob = scene.user("bob");
    let before = scene.rows();
    let refusal = refused(Upload::of(b"x").try_request(&mut bob));
    assert_eq!(refusal.code(), ("58030", "STORE_DENIED"), "{refusal:?}");
    assert_eq!(scene.rows(), before);
}

#[test]
fn a_fixed_bucket_that_does_not_exist_is_not_created() {
    let (scene, _) = Scene::counting();
    scene.set("pg_storage.fixed_bucket", "nobody-made-this");
    let mut ada = scene.user("ada");
    let before = scene.rows();
    let refusal = refused(Upload::of(b"x").try_request(&mut ada));
    assert_eq!(refusal.code(), ("58030", "STORE_ERROR"), "{refusal:?}");
    assert!(refusal.message.contains("must exist already"), "{refusal:?}");
    assert_eq!(scene.rows(), before);
    let checked: String =
        scene.value("SELECT detail FROM storage.check() WHERE status = 'fail' AND name = 'capabilities'");
    assert!(checked.contains("fixed_bucket"), "{checked}");
}

#[test]
fn a_preset_name_is_used_verbatim() {
    for scene in [Scene::counting().0, Scene::garage()] {
        scene.user("ada");
        let name = format!("preset.{}", scene.database.name().replace('_', "-"));
        let preset = format!("UPDATE storage.buckets SET physical_name = '{name}' WHERE key = 'private'");
        scene.superuser().batch_execute(&preset).unwrap();
        // The naming rule is not asked, so it may be missing.
        scene.set("pg_storage.bucket_prefix", "");
        let ticket = Upload::declared(b"preset").complete(&mut scene.user("ada"), b"preset");
        assert_eq!(scene.place_of_file(&ticket.file_id).0, name);
        assert_eq!(
            scene.value::<String>("SELECT physical_name FROM storage.buckets WHERE key = 'private'"),
            name
        );
    }
}

#[test]
fn no_prefix_is_no_name() {
    let (scene, store) = Scene::counting();
    scene.set("pg_storage.bucket_prefix", "");
    let mut ada = scene.user("ada");
    let (before, asked) = (scene.rows(), store.requests().len());
    let refusal = refused(Upload::of(b"x").try_request(&mut ada));
    assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"));
    assert!(refusal.message.contains("pg_storage.bucket_prefix"), "{refusal:?}");
    assert_eq!(scene.rows(), before);
    let own = scene.database.name().replace('_', "-");
    assert!(!store.requests()[asked..].iter().any(|request| request.path.contains(&own)));
}

#[test]
fn two_accesses_never_share_a_physical_bucket() {
    let (scene, _) = Scene::counting();
    let mut ada = scene.user("ada");
    let name = format!("{}-shared", scene.database.name().replace('_', "-"));
    let preset = format!("UPDATE storage.buckets SET physical_name = '{name}'");
    scene.superuser().batch_execute(&preset).unwrap();
    // Whether the first use is committed, open, or forgotten by the cache, the second access is refused.
    ada.batch_execute("BEGIN").unwrap();
    Upload::declared(b"mine").to("private").request(&mut ada);
    let mut again = scene.user("ada");
    for stage in ["open", "open and forgotten", "committed", "forgotten"] {
        match stage {
            "committed" => ada.batch_execute("COMMIT").unwrap(),
            "forgotten" | "open and forgotten" => {
                scene.superuser().batch_execute("SELECT storage.reset_cache()").unwrap();
            }
            _ => {}
        }
        for access in ["public", "temp"] {
            let refusal = refused(Upload::declared(b"theirs").to(access).try_request(&mut again));
            assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"), "{stage}: {refusal:?}");
            assert!(refusal.message.contains("serves another access"), "{stage}: {refusal:?}");
            let explicit =
                refused(scene.manager("ada").query("SELECT storage.provision_bucket($1)", &[&access]));
            assert_eq!(explicit.token, "NOT_CONFIGURED", "{stage}");
        }
    }
    // Nothing became public meanwhile.
    let policy: Option<String> = scene
        .manager("ada")
        .query_one("SELECT policy::text FROM storage.inspect_bucket('private')", &[])
        .unwrap()
        .get(0);
    assert_eq!(policy, None);
}

#[test]
fn no_origin_anywhere_is_refused_and_never_opened_to_all() {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    let store = LocalStore::shared();
    let cluster = CLUSTER.get_or_init(|| Cluster::start(remote(store.access())));
    cluster.unset("pg_storage.allowed_origins");
    cluster.reload();
    let scene = Scene::on(cluster, store.access());
    scene.set("pg_storage.bucket_prefix", "originless");
    let mut ada = scene.user("ada");
    let before = scene.rows();
    let refusal = refused(Upload::of(b"x").try_request(&mut ada));
    assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"), "{refusal:?}");
    assert!(refusal.message.contains("pg_storage.allowed_origins"), "{refusal:?}");
    assert_eq!(scene.rows(), before);
    assert!(!store.requests().iter().any(|request| request.path.starts_with("/originless")));
    // An empty list is no list.
    scene.superuser().batch_execute("UPDATE storage.buckets SET allowed_origins = '{}'").unwrap();
    assert_eq!(refused(Upload::of(b"x").try_request(&mut ada)).token, "NOT_CONFIGURED");
    // One at any level will do.
    scene
        .manager("ada")
        .batch_execute(
            "UPDATE storage.buckets SET allowed_origins = '{https://bucket.example}' WHERE key = 'private'",
        )
        .unwrap();
    Upload::of(b"x").complete(&mut ada, b"x");
    assert_eq!(origins(&scene, "ada", "private"), ["https://bucket.example"]);
}

#[test]
fn origins_are_the_buckets_else_the_tenants_else_the_servers_and_changes_are_applied_on_the_next_use() {
    for scene in [Scene::counting().0, Scene::garage()] {
        scene.set("pg_storage.bucket_layout", "bucket");
        let mut ada = scene.user("ada");
        let mut manager = scene.manager("ada");
        physical(&mut ada, "private");
        assert_eq!(origins(&scene, "ada", "private"), [ORIGIN]);

        let steps = [
            (
                "INSERT INTO storage.tenant_settings VALUES ('default', '{https://tenant.example}')",
                "https://tenant.example",
            ),
            (
                "UPDATE storage.buckets SET allowed_origins = '{https://bucket.example}' WHERE key = 'private'",
                "https://bucket.example",
            ),
            (
                "UPDATE storage.tenant_settings SET allowed_origins = '{https://other.example}'",
                "https://bucket.example",
            ),
            (
                "UPDATE storage.buckets SET allowed_origins = '{}' WHERE key = 'private'",
                "https://other.example",
            ),
            ("UPDATE storage.tenant_settings SET allowed_origins = '{}'", ORIGIN),
            (
                "UPDATE storage.tenant_settings SET allowed_origins = '{https://tenant.example}'",
                "https://tenant.example",
            ),
            ("DELETE FROM storage.tenant_settings", ORIGIN),
        ];
        for (change, expected) in steps {
            manager.batch_execute(change).unwrap();
            physical(&mut ada, "private");
            assert_eq!(origins(&scene, "ada", "private"), [expected], "{change}");
        }
    }
}

#[test]
fn a_change_of_the_servers_origins_is_applied_once_on_the_next_use() {
    let (scene, store) = Scene::counting();
    let name = physical(&mut scene.user("ada"), "private");
    scene.set("pg_storage.allowed_origins", "https://moved.example");
    let before = store.requests().len();
    for _ in 0..2 {
        assert_eq!(physical(&mut scene.user("ada"), "private"), name);
    }
    let applied = |from: usize| {
        bucket_requests(store, from, &name)
            .iter()
            .filter(|request| request.operation == "PutBucketCors")
            .count()
    };
    assert_eq!(applied(before), 1);
    assert_eq!(origins(&scene, "ada", "private"), ["https://moved.example"]);
    // Nothing named any more: what is applied stays, and uploads go on.
    scene.set("pg_storage.allowed_origins", "");
    let before = store.requests().len();
    physical(&mut scene.user("ada"), "private");
    assert_eq!(applied(before), 0);
    assert_eq!(origins(&scene, "ada", "private"), ["https://moved.example"]);
}

#[test]
fn the_first_use_of_a_bucket_brings_its_origins_to_a_physical_bucket_that_is_shared() {
    let (scene, _) = Scene::counting();
    let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
    physical(&mut ada, "private");
    scene
        .superuser()
        .batch_execute(
            "UPDATE storage.buckets SET allowed_origins = '{https://bob.example}'
             WHERE key = 'private' AND owner_id = 'bob'",
        )
        .unwrap();
    physical(&mut bob, "private");
    assert_eq!(origins(&scene, "ada", "private"), [ORIGIN, "https://bob.example"]);
}

#[test]
fn a_change_that_leaves_the_origins_alone_calls_no_store() {
    let (scene, store) = Scene::counting();
    let mut ada = scene.user("ada");
    let name = physical(&mut ada, "private");
    let before = store.requests().len();
    scene
        .manager("ada")
        .batch_execute(
            "UPDATE storage.buckets SET metadata = '{\"a\": 1}', max_file_size = 1000 WHERE key = 'private';
             UPDATE storage.buckets SET allowed_origins = allowed_origins WHERE key = 'private'",
        )
        .unwrap();
    physical(&mut ada, "private");
    assert_eq!(bucket_requests(store, before, &name), []);
}

#[test]
fn the_servers_origins_come_with_the_first_bucket_that_names_none() {
    for preset in [false, true] {
        let (scene, store) = Scene::counting();
        let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
        let set = |statement: &str| scene.superuser().batch_execute(statement).unwrap();
        set("UPDATE storage.buckets SET allowed_origins = '{https://ada.example}' WHERE owner_id = 'ada'");
        let name = physical(&mut ada, "private");
        assert_eq!(origins(&scene, "ada", "private"), ["https://ada.example"]);
        if preset {
            set(&format!(
                "UPDATE storage.buckets SET physical_name = '{name}' WHERE key = 'private' AND owner_id = 'bob'"
            ));
        }
        physical(&mut bob, "private");
        assert_eq!(origins(&scene, "ada", "private"), ["https://ada.example", ORIGIN], "preset: {preset}");
        let before = store.requests().len();
        for session in [&mut ada, &mut bob] {
            physical(session, "private");
        }
        assert_eq!(bucket_requests(store, before, &name), []);
    }
}

#[test]
fn a_bucket_with_a_preset_name_brings_its_origins() {
    let (scene, store) = Scene::counting();
    let mut ada = scene.user("ada");
    let name = physical(&mut ada, "private");
    let at_insert = format!(
        "INSERT INTO storage.buckets (tenant_id, owner_id, key, access, physical_name, allowed_origins)
         VALUES ('default', 'ada', 'preset', 'private', '{name}', '{{https://preset.example}}')"
    );
    let later = format!(
        "INSERT INTO storage.buckets (tenant_id, owner_id, key, access, allowed_origins)
         VALUES ('default', 'ada', 'later', 'private', '{{https://later.example}}');
         UPDATE storage.buckets SET physical_name = '{name}' WHERE key = 'later'"
    );
    let mut expected = vec![ORIGIN];
    for (statement, bucket, origin) in
        [(at_insert, "preset", "https://preset.example"), (later, "later", "https://later.example")]
    {
        scene.superuser().batch_execute(&statement).unwrap();
        assert_eq!(physical(&mut ada, bucket), name);
        expected.push(origin);
        expected.sort_unstable();
        assert_eq!(origins(&scene, "ada", "private"), expected, "{bucket}");
    }
    let before = store.requests().len();
    physical(&mut ada, "later");
    assert_eq!(bucket_requests(store, before, &name), []);
}
