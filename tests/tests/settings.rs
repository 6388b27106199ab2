//! Settings: a bad value is refused where it is set, by the setting's name; a reload takes effect at once and whole.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::scene::{ORIGIN, remote};
use pg_storage_tests::{Cluster, Garage, LocalStore, Options, Scene, Stop, StoreAccess, refused};
use postgres::Client;

/// A cluster of the test's own. It ends with the process: a scene lives as long as its cluster.
fn own(options: Options) -> &'static Cluster {
    Box::leak(Box::new(Cluster::start(options)))
}

/// Every setting with values that break its rule.
const BAD: &[(&str, &[&str])] = &[
    (
        "endpoint",
        &["ftp://store", "store:9000", "http://user@store", "https://store/?x=1", "https://", "http://a b"],
    ),
    ("public_endpoint", &["nonsense", "https://store#f"]),
    ("public_url_base", &["cdn.example.com"]),
    ("region", &["eu west", "x/y", "a\nb"]),
    ("user_id_setting", &["nodot", "a..b", "1a.b", "a.b; DROP"]),
    ("tenant_id_setting", &["nodot", "jwt.claims.'x"]),
    ("bucket_prefix", &["Upper", "-a", "a-", "a_b", "a-prefix-longer-than-20-characters"]),
    ("bucket_layout", &["none"]),
    ("fixed_bucket", &["ab", "UPPER", "a..b", "192.168.0.1"]),
    ("key_prefix", &["/a", "a//b", "../a"]),
    ("allowed_origins", &["example.com", "https://a.example/path", "https://a.example, nonsense"]),
    ("max_file_size", &["0", "-1", "6TB"]),
    ("max_inline_size", &["0", "-1", "257MB"]),
    ("max_bulk_files", &["0", "-1", "10001", "many"]),
    ("max_bulk_size", &["0", "-1", "1025TB", "big"]),
    ("upload_url_ttl", &["0", "-1", "-900s", "8d", "604801"]),
    ("download_url_ttl", &["0", "-1", "8d"]),
    ("download_url_period", &["-1", "8d"]),
    ("deletion_delay", &["-1"]),
    ("connect_timeout", &["0", "-1"]),
    ("request_timeout", &["0", "-5s"]),
    ("max_attempts", &["0", "-1", "21"]),
    ("force_path_style", &["perhaps"]),
    ("allow_insecure", &["perhaps"]),
];

fn literal(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

fn shown(session: &mut Client, setting: &str) -> String {
    session.query_one(&format!("SHOW pg_storage.{setting}"), &[]).unwrap().get(0)
}

#[test]
fn a_bad_value_is_refused_where_it_is_set_and_named() {
    let scene = Scene::local();
    let database = scene.database.name();
    let mut root = scene.superuser();
    for (setting, values) in BAD {
        let before = shown(&mut root, setting);
        for value in *values {
            for statement in [
                "SET pg_storage.{setting} = {value}".to_owned(),
                "SET LOCAL pg_storage.{setting} = {value}".to_owned(),
                format!("ALTER DATABASE {database} SET pg_storage.{{setting}} = {{value}}"),
                "ALTER ROLE postgres SET pg_storage.{setting} = {value}".to_owned(),
                "ALTER SYSTEM SET pg_storage.{setting} = {value}".to_owned(),
            ] {
                let statement = statement.replace("{setting}", setting).replace("{value}", &literal(value));
                let refusal = refused(root.batch_execute(&statement));
                assert_eq!(refusal.sqlstate, "22023", "{statement}: {refusal:?}");
                assert!(
                    refusal.message.contains(&format!("pg_storage.{setting}")),
                    "{statement}: {refusal:?}"
                );
            }
        }
        assert_eq!(shown(&mut root, setting), before);
        assert_eq!(shown(&mut scene.superuser(), setting), before);
    }
}

#[test]
fn the_bounds_themselves_are_accepted() {
    let mut root = Scene::local().superuser();
    for (setting, value) in [
        ("upload_url_ttl", "1"),
        ("upload_url_ttl", "7d"),
        ("download_url_ttl", "604800"),
        ("download_url_period", "7d"),
        ("deletion_delay", "0"),
        ("max_file_size", "5TB"),
        ("endpoint", "https://s3.example.com:8443/base"),
        ("endpoint", "http://[::1]:9000"),
        ("endpoint", ""),
        ("bucket_prefix", "a"),
        ("allowed_origins", "https://a.example, http://localhost:*, https://*.example.com"),
    ] {
        root.batch_execute(&format!("SET pg_storage.{setting} = {}", literal(value))).unwrap();
    }
}

#[test]
fn ordinary_roles_change_none_of_them() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    for (setting, _) in BAD {
        let value = shown(&mut ada, setting);
        let refusal = refused(ada.batch_execute(&format!("SET pg_storage.{setting} = {}", literal(&value))));
        assert_eq!(refusal.sqlstate, "42501", "{setting}");
    }
    // Nor can they invent one.
    assert_eq!(refused(ada.batch_execute("SET pg_storage.unheard_of = 'x'")).sqlstate, "42602");
}

#[test]
fn a_bad_value_in_the_file_keeps_the_old_one_on_reload() {
    let options = Options::new().embedded("it takes back every setting");
    let cluster = own(options.setting("pg_storage.upload_url_ttl", "77s"));
    let scene = Scene::on(cluster, LocalStore::shared().access());
    let mut open = scene.user("ada");
    for (setting, values) in BAD {
        let before = shown(&mut open, setting);
        for value in values.iter().filter(|value| !value.contains('\n')) {
            cluster.set(&format!("pg_storage.{setting}"), value);
            cluster.reload();
            assert_eq!(shown(&mut open, setting), before, "{setting} = {value}");
            assert_eq!(shown(&mut scene.superuser(), setting), before, "{setting} = {value}");
            assert!(
                cluster.log().contains(&format!("parameter \"pg_storage.{setting}\"")),
                "{setting} = {value}"
            );
        }
        if *setting == "upload_url_ttl" {
            cluster.set("pg_storage.upload_url_ttl", "77s");
        } else {
            cluster.unset(&format!("pg_storage.{setting}"));
        }
    }
    cluster.reload();
    Upload::declared(b"x").complete(&mut open, b"x");
}

#[test]
fn a_bad_text_in_the_file_at_start_is_refused_at_first_use_by_name() {
    for preload in [true, false] {
        for (setting, value) in [
            ("endpoint", "ftp://store"),
            ("public_endpoint", "nonsense"),
            ("bucket_prefix", "Upper_Case"),
            ("key_prefix", "../a"),
            ("allowed_origins", "nonsense"),
            ("public_url_base", "cdn.example.com"),
            ("region", "eu west"),
            ("fixed_bucket", "UPPER"),
        ] {
            let store = LocalStore::shared();
            let mut options = remote(store.access()).setting(&format!("pg_storage.{setting}"), value);
            if !preload {
                options = options.without_preload();
            }
            let cluster = Cluster::start(options);
            let database = cluster.database();
            let mut root = database.superuser();
            root.batch_execute("SELECT storage.create_bucket('b', owner_id => 'postgres')").unwrap();
            if setting != "bucket_prefix" {
                root.batch_execute("SET pg_storage.bucket_prefix = 'ok'").unwrap();
            }
            let refusal = refused(Upload::of(b"x").to("b").try_request(&mut root));
            assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"), "{setting}: {refusal:?}");
            assert!(refusal.message.contains(&format!("pg_storage.{setting}")), "{refusal:?}");
            let found =
                root.query_one("SELECT detail FROM storage.check() WHERE status = 'fail'", &[]).unwrap();
            assert!(found.get::<_, &str>(0).contains(&format!("pg_storage.{setting}")), "{found:?}");
        }
    }
}

#[test]
fn a_bad_name_of_a_claim_at_start_makes_nobody_somebody_else() {
    for (setting, function) in
        [("user_id_setting", "current_user_id"), ("tenant_id_setting", "current_tenant_id")]
    {
        let cluster = Cluster::start(Options::new().setting(&format!("pg_storage.{setting}"), "nodot"));
        let refusal =
            refused(cluster.database().superuser().query(&format!("SELECT storage.{function}()"), &[]));
        assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"), "{setting}: {refusal:?}");
        assert!(refusal.message.contains(&format!("pg_storage.{setting}")), "{refusal:?}");
    }
}

/// A number out of range is PostgreSQL's own to judge: at the start it keeps the default, and says so by name.
#[test]
fn a_bad_number_in_the_file_at_start_leaves_the_default_and_a_warning() {
    let cluster = Cluster::start(
        Options::new().setting("pg_storage.upload_url_ttl", "-5").setting("pg_storage.bucket_layout", "none"),
    );
    let mut session = cluster.connect("postgres", "postgres");
    session.batch_execute("LOAD 'pg_storage'").unwrap();
    assert_eq!(shown(&mut session, "upload_url_ttl"), "15min");
    assert_eq!(shown(&mut session, "bucket_layout"), "tenant");
    for setting in ["upload_url_ttl", "bucket_layout"] {
        assert!(cluster.log().contains(&format!("\"pg_storage.{setting}\"")), "{}", cluster.log());
    }
}

#[test]
fn http_beyond_loopback_needs_allow_insecure() {
    let (scene, _) = Scene::counting();
    let mut root = scene.superuser();
    root.batch_execute("SELECT storage.create_bucket('b', owner_id => 'postgres')").unwrap();
    Upload::of(b"x").to("b").complete(&mut root, b"x");
    for setting in ["endpoint", "public_endpoint"] {
        root.batch_execute(&format!("SET pg_storage.{setting} = 'http://192.0.2.1:9000'")).unwrap();
        let refusal = refused(Upload::of(b"x").to("b").try_request(&mut root));
        assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"), "{refusal:?}");
        assert!(
            refusal.message.contains(&format!("pg_storage.{setting} is http beyond loopback")),
            "{refusal:?}"
        );
        assert!(refusal.hint.unwrap().contains("pg_storage.allow_insecure"));
        if setting == "endpoint" {
            root.batch_execute("RESET pg_storage.endpoint").unwrap();
        }
    }
    // Signing for the public endpoint calls nobody.
    root.batch_execute("SET pg_storage.allow_insecure = on; SET pg_storage.endpoint = ''").unwrap();
    let ticket = Upload::of(b"y").to("b").request(&mut root);
    assert!(ticket.url().starts_with("http://192.0.2.1:9000/"), "{}", ticket.url());
    root.batch_execute(
        "SET pg_storage.public_endpoint = 'https://files.example.com'; RESET pg_storage.allow_insecure",
    )
    .unwrap();
    assert!(Upload::of(b"z").to("b").request(&mut root).url().starts_with("https://files.example.com/"));
}

fn without(access: &StoreAccess, variables: &[&str]) -> Options {
    let environment =
        access.environment().into_iter().filter(|(name, _)| !variables.contains(&name.as_str()));
    Options::new()
        .environment(environment)
        .setting("pg_storage.allowed_origins", ORIGIN)
        .setting("pg_storage.bucket_prefix", "set")
}

#[test]
fn a_missing_region_is_named() {
    let cluster = own(without(LocalStore::shared().access(), &["S3_REGION"]));
    let scene = Scene::on(cluster, LocalStore::shared().access());
    let mut ada = scene.user("ada");
    let before = scene.rows();
    let refusal = refused(Upload::of(b"x").try_request(&mut ada));
    assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"));
    assert!(refusal.message.contains("pg_storage.region is not set"), "{refusal:?}");
    assert_eq!(scene.rows(), before);
    cluster.set("pg_storage.region", &LocalStore::shared().access().region);
    cluster.reload();
    // A session that is there may be told a moment later.
    Upload::of(b"x").complete(&mut scene.user("ada"), b"x");
}

const SECRETS: [&str; 2] = ["S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"];

/// The URL names the key id, the store takes it, and `check()` says where it came from.
fn works_with(scene: &Scene, access: &StoreAccess, source: &str) {
    let mut ada = scene.user("ada");
    ada.batch_execute("DELETE FROM storage.files").unwrap();
    let ticket = Upload::declared(source.as_bytes()).complete(&mut ada, source.as_bytes());
    assert!(ticket.url().contains(&format!("X-Amz-Credential={}%2F", access.access_key_id)), "{source}");
    flow::assert_downloads(&mut ada, &ticket.file_id, source.as_bytes());
    let found: String = scene.value("SELECT detail FROM storage.check() WHERE name = 'credentials'");
    assert!(found.contains(source), "{found}");
}

#[test]
fn credentials_come_from_the_configuration_file() {
    let access = LocalStore::shared().access();
    let wrong = [("S3_ACCESS_KEY_ID", "ENVIRONMENT"), ("S3_SECRET_ACCESS_KEY", "not the one")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let cluster = own(without(access, &SECRETS)
        .environment(wrong)
        .setting("pg_storage.access_key_id", &access.access_key_id)
        .setting("pg_storage.secret_access_key", &access.secret_access_key));
    works_with(&Scene::on(cluster, access), access, "settings");
    // Half a pair is named, rather than completed from somewhere else.
    for setting in ["secret_access_key", "access_key_id"] {
        cluster.unset(&format!("pg_storage.{setting}"));
        cluster.reload();
        let scene = Scene::on(cluster, access);
        let refusal = refused(Upload::of(b"x").try_request(&mut scene.user("ada")));
        assert_eq!(refusal.code(), ("55000", "NOT_CONFIGURED"));
        assert!(refusal.message.contains(&format!("pg_storage.{setting} is not set")), "{refusal:?}");
        let value =
            if setting == "access_key_id" { &access.access_key_id } else { &access.secret_access_key };
        cluster.set(&format!("pg_storage.{setting}"), value);
    }
}

#[test]
fn credentials_come_from_the_s3_environment() {
    let access = Garage::shared().access();
    works_with(&Scene::on(own(without(access, &[])), access), access, "environment");
}

#[test]
fn credentials_come_from_the_aws_default_chain() {
    let access = LocalStore::shared().access();
    let aws = [
        ("AWS_ACCESS_KEY_ID", access.access_key_id.as_str()),
        ("AWS_SECRET_ACCESS_KEY", access.secret_access_key.as_str()),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let cluster = own(without(access, &SECRETS).environment(aws));
    works_with(&Scene::on(cluster, access), access, "default chain");
}

#[test]
fn credentials_come_from_a_file_and_a_profile() {
    let access = LocalStore::shared().access();
    let cluster = own(without(access, &SECRETS));
    let file = cluster.data().join("aws-credentials");
    std::fs::write(
        &file,
        format!(
            "[default]\naws_access_key_id = WRONG\naws_secret_access_key = wrong\n\
             [work]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            access.access_key_id, access.secret_access_key
        ),
    )
    .unwrap();
    cluster.set("pg_storage.credentials_file", &file.display().to_string());
    cluster.set("pg_storage.profile", "work");
    cluster.reload();
    let scene = Scene::on(cluster, access);
    works_with(&scene, access, "default chain");
    cluster.set("pg_storage.profile", "default");
    cluster.reload();
    let refusal = refused(Upload::of(b"x").to("public").try_request(&mut scene.user("ada")));
    assert_eq!(refusal.code(), ("58030", "STORE_DENIED"), "{refusal:?}");
    cluster.set("pg_storage.profile", "nobody");
    cluster.reload();
    let refusal = refused(Upload::of(b"x").to("public").try_request(&mut scene.user("ada")));
    assert!(["NOT_CONFIGURED", "STORE_DENIED"].contains(&refusal.token.as_str()), "{refusal:?}");
    assert!(!format!("{refusal:?}").contains(&access.secret_access_key));
}

/// A server configured by its environment has no line of ours whose change would tell a session.
#[test]
fn a_reload_reads_rotated_credentials_files_again() {
    let first = Garage::shared().access();
    let second = Garage::shared().another_key("rotated in its file");
    let given = first.environment().into_iter().filter(|(name, _)| !SECRETS.contains(&name.as_str()));
    let cluster = own(Options::new().environment(given).environment([
        ("AWS_SHARED_CREDENTIALS_FILE".to_owned(), "credentials-to-rotate".to_owned()),
        ("AWS_EC2_METADATA_DISABLED".to_owned(), "true".to_owned()),
    ]));
    let write = |access: &StoreAccess| {
        let text = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            access.access_key_id, access.secret_access_key
        );
        // Relative to the data directory, in which the server runs.
        std::fs::write(cluster.data().join("credentials-to-rotate"), text).unwrap();
    };
    write(first);
    let scene = Scene::on(cluster, first);
    scene.set("pg_storage.allowed_origins", ORIGIN);
    let mut open = scene.user("ada");
    Upload::declared(b"first").complete(&mut open, b"first");
    write(&second);
    cluster.reload();
    let url = Upload::declared(b"second").request(&mut open).url().to_owned();
    assert!(url.contains(&format!("X-Amz-Credential={}%2F", second.access_key_id)), "{url}");
}

/// What `check()` says about the settings that the file holds and the server does not.
#[test]
fn check_names_what_the_configuration_file_could_not_set() {
    let cluster = own(remote(LocalStore::shared().access()));
    let scene = Scene::on(cluster, LocalStore::shared().access());
    let found = || -> Vec<(String, String)> {
        let rows = scene.superuser().query(
            "SELECT status, detail FROM storage.check() WHERE name = 'configuration_file' ORDER BY detail",
            &[],
        );
        rows.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    assert_eq!(found(), []);
    cluster.set("pg_storage.upload_url_ttl", "8d");
    cluster.set("pg_storage.endpiont", "hunter2");
    cluster.reload();
    let findings = found();
    assert_eq!(findings.len(), 2, "{findings:?}");
    for ((status, detail), setting) in findings.iter().zip(["endpiont", "upload_url_ttl"]) {
        assert_eq!(status, "warn");
        assert!(detail.starts_with(&format!("pg_storage.{setting}: ")) && detail.contains("test.conf"));
        assert!(!detail.contains("hunter2"), "{detail}");
    }
    cluster.unset("pg_storage.upload_url_ttl");
    cluster.unset("pg_storage.endpiont");
    cluster.reload();
    assert_eq!(found(), []);
}

/// The local store has all of them, Garage neither policies nor a public-access block.
#[test]
fn check_tells_which_functions_of_buckets_the_store_has() {
    for (scene, missing) in
        [(Scene::counting().0, &[][..]), (Scene::garage(), &["policy", "public_access_block"][..])]
    {
        let of_steps = "SELECT name, status, detail FROM storage.check()
             WHERE name IN ('create', 'public_access_block', 'policy', 'cors', 'versioning', 'lifecycle')
             ORDER BY name";
        // Nothing is on record before the first bucket.
        assert!(scene.superuser().query(of_steps, &[]).unwrap().is_empty());
        let mut ada = scene.user("ada");
        for bucket in ["private", "public", "temp"] {
            Upload::of(bucket.as_bytes()).to(bucket).request(&mut ada);
        }
        let rows = scene.superuser().query(of_steps, &[]).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(names, ["cors", "lifecycle", "policy", "public_access_block"]);
        for row in &rows {
            let (name, status, detail): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
            let expected = if missing.contains(&name) { "warn" } else { "ok" };
            assert_eq!(status, expected, "{name}: {detail}");
            assert!(status == "ok" || detail.contains("the store has no "), "{name}: {detail}");
        }
    }
}

#[test]
fn a_reload_brings_another_store_into_open_sessions_and_serves_no_old_credentials() {
    let (first, second) = (LocalStore::shared().access(), Garage::shared().access());
    let third = Garage::shared().another_key("rotated");
    let cluster = own(Options::new().setting("pg_storage.allowed_origins", ORIGIN));
    let scene = Scene::on(cluster, first);
    let mut ada = scene.user("ada");
    // The cluster's own local store, then three others, and back; the session stays the same.
    let own_url = Upload::declared(b"own").complete(&mut ada, b"own").url().to_owned();
    for (n, access) in [first, second, &third, second].into_iter().enumerate() {
        cluster.set("pg_storage.endpoint", &access.endpoint);
        cluster.set("pg_storage.region", &access.region);
        cluster.set("pg_storage.access_key_id", &access.access_key_id);
        cluster.set("pg_storage.secret_access_key", &access.secret_access_key);
        // A rotated key has no right to the buckets of the other one, only to sign.
        cluster.reload();
        let bytes = format!("store {n}").into_bytes();
        let upload = Upload::declared(&bytes);
        let credential = format!("X-Amz-Credential={}%2F", access.access_key_id);
        if n == 2 {
            let ticket = upload.request(&mut ada);
            assert!(ticket.url().starts_with(&access.endpoint) && ticket.url().contains(&credential), "{n}");
            continue;
        }
        let ticket = upload.complete(&mut ada, &bytes);
        assert!(ticket.url().starts_with(&access.endpoint), "{n}: {}", ticket.url());
        assert!(ticket.url().contains(&credential), "{n}");
        let download = flow::download_url(&mut ada, &ticket.file_id);
        assert!(download.starts_with(&access.endpoint) && download.contains(&credential), "{n}");
        flow::assert_downloads(&mut ada, &ticket.file_id, &bytes);
    }
    for setting in ["endpoint", "region", "access_key_id", "secret_access_key"] {
        cluster.unset(&format!("pg_storage.{setting}"));
    }
    cluster.reload();
    let again = Upload::declared(b"back").complete(&mut ada, b"back");
    let host = |url: &str| url.split('/').nth(2).unwrap().to_owned();
    assert_eq!(host(again.url()), host(&own_url), "the local store is back on its port");
}

#[test]
fn credentials_are_set_in_the_file_and_nowhere_else() {
    let scene = Scene::local();
    let database = scene.database.name().to_owned();
    let mut root = scene.superuser();
    for setting in ["access_key_id", "secret_access_key"] {
        for statement in [
            format!("SET pg_storage.{setting} = 'mine'"),
            format!("SET LOCAL pg_storage.{setting} = 'mine'"),
            format!("SELECT set_config('pg_storage.{setting}', 'mine', false)"),
            format!("ALTER SYSTEM SET pg_storage.{setting} = 'mine'"),
            format!("ALTER DATABASE {database} SET pg_storage.{setting} = 'mine'"),
            format!("ALTER ROLE postgres SET pg_storage.{setting} = 'mine'"),
        ] {
            let refusal = refused(root.batch_execute(&statement));
            assert_eq!(refusal.sqlstate, "55P02", "{statement}: {refusal:?}");
            let mut ada = scene.user("ada");
            assert!(["42501", "55P02"].contains(&refused(ada.batch_execute(&statement)).sqlstate.as_str()));
        }
    }
    Upload::of(b"x").complete(&mut scene.user("ada"), b"x");
}

#[test]
fn the_settings_of_the_server_process_survive_a_restart() {
    let access = LocalStore::shared().access();
    let cluster = own(without(access, &[]));
    let scene = Scene::on(cluster, access);
    works_with(&scene, access, "environment");
    cluster.restart(Stop::Fast);
    works_with(&scene, access, "environment");
}
