//! Who the caller is: claims of PostGraphile, claims of PostgREST, else the role; and who may say so.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::{Cluster, Database, Options, Refusal, Scene, refused};
use postgres::Client;

/// User and tenant as the session's claims make them.
fn identity(session: &mut Client) -> (String, String) {
    let row =
        session.query_one("SELECT storage.current_user_id(), storage.current_tenant_id()", &[]).unwrap();
    (row.get(0), row.get(1))
}

fn claims(database: &Database<'_>, role: &str, claims: &[(&str, &str)]) -> (String, String) {
    identity(&mut database.connect_as(role, claims))
}

fn pair(user: &str, tenant: &str) -> (String, String) {
    (user.to_owned(), tenant.to_owned())
}

#[test]
fn postgraphile_claims_name_user_and_tenant() {
    let database = Cluster::shared().database();
    let role = database.role("reader");
    let of = |given: &[(&str, &str)]| claims(&database, &role, given);
    assert_eq!(of(&[("jwt.claims.user_id", "ada"), ("jwt.claims.tenant_id", "acme")]), pair("ada", "acme"));
    assert_eq!(of(&[("jwt.claims.user_id", "42")]), pair("42", "default"));
    // An empty claim is none: that is how poolers and SET LOCAL leave a setting behind.
    assert_eq!(of(&[("jwt.claims.user_id", ""), ("jwt.claims.tenant_id", "")]), pair(&role, "default"));
}

#[test]
fn postgrest_claims_name_user_and_tenant() {
    let database = Cluster::shared().database();
    let role = database.role("reader");
    let of = |json: &str| claims(&database, &role, &[("request.jwt.claims", json)]);
    assert_eq!(of(r#"{"sub": "ada", "tenant_id": "acme", "role": "x"}"#), pair("ada", "acme"));
    assert_eq!(of(r#"{"sub": 42, "tenant_id": 7}"#), pair("42", "7"));
    assert_eq!(of(r#"{"sub": 9007199254740993}"#), pair("9007199254740993", "default"));
    assert_eq!(of("{}"), pair(&role, "default"));
}

/// Whoever set them meant to say who calls; the role behind the API and the default tenant are somebody else.
#[test]
fn claims_that_cannot_be_read_make_nobody_the_role() {
    let database = Cluster::shared().database();
    let role = database.role("manager");
    let count = |query: &str| database.superuser().query_one(query, &[]).unwrap().get::<_, i64>(0);
    for claims in [
        r#"{"sub": "hunter2", "tenant_id": "acme""#,
        r#"{"sub": "hunter2"} {}"#,
        "hunter2",
        "[1]",
        "\"hunter2\"",
        "null",
        " ",
    ] {
        let mut session = database.connect_as(&role, &[]);
        session.execute("SELECT set_config('request.jwt.claims', $1, false)", &[&claims]).unwrap();
        for call in [
            "SELECT storage.current_user_id()",
            "SELECT storage.current_tenant_id()",
            "SELECT storage.create_bucket('docs')",
            "SELECT storage.request_upload_url('private', 'a.txt', 'text/plain', 1)",
            "SELECT count(*) FROM storage.buckets",
        ] {
            let refusal = refused(session.query(call, &[]));
            assert_eq!(refusal.code(), ("42501", "TENANT_REQUIRED"), "{claims}: {call}: {refusal:?}");
            assert!(refusal.message.contains("request.jwt.claims"), "{refusal:?}");
            assert!(!format!("{refusal:?}").contains("hunter2"), "{refusal:?}");
        }
        // One by one: what the separate settings say needs no JSON.
        session.execute("SELECT set_config('jwt.claims.user_id', 'ada', false)", &[]).unwrap();
        session.query_one("SELECT storage.current_user_id()", &[]).unwrap();
        assert_eq!(refused(session.query("SELECT storage.current_tenant_id()", &[])).sqlstate, "42501");
    }
    assert_eq!(count("SELECT count(*) FROM storage.buckets"), 0);
}

/// What one part of a system reads as another user than another part does, is nobody.
#[test]
fn a_claim_that_can_be_read_in_two_ways_is_refused() {
    let scene = Scene::local();
    let mut session = scene.database.connect_as(&scene.writer, &[]);
    for claims in [
        r#"{"sub": "42\u0000evil"}"#,
        r#"{"sub": "ada\u0000"}"#,
        r#"{"sub": "line\nbreak"}"#,
        r#"{"sub": ""}"#,
        r#"{"sub": true}"#,
        r#"{"sub": null}"#,
        r#"{"sub": ["ada"]}"#,
        r#"{"sub": 12345678901234567890123}"#,
        r#"{"sub": 1.0}"#,
    ] {
        session.execute("SELECT set_config('request.jwt.claims', $1, false)", &[&claims]).unwrap();
        let refusal = refused(session.query("SELECT storage.current_user_id()", &[]));
        assert_eq!(refusal.code(), ("42501", "TENANT_REQUIRED"), "{claims}");
        let tenant = claims.replace("sub", "tenant_id");
        session.execute("SELECT set_config('request.jwt.claims', $1, false)", &[&tenant]).unwrap();
        let refusal = refused(session.query("SELECT storage.current_tenant_id()", &[]));
        assert_eq!(refusal.code(), ("42501", "TENANT_REQUIRED"), "{tenant}");
    }
    session.batch_execute("SELECT set_config('request.jwt.claims', '', false)").unwrap();
    session.execute("SELECT set_config('jwt.claims.user_id', $1, false)", &[&"ada\u{1}"]).unwrap();
    let refusal = refused(session.query("SELECT storage.current_user_id()", &[]));
    assert_eq!(refusal.code(), ("42501", "TENANT_REQUIRED"));
    // Written over several lines, with numbers that are exact.
    session.batch_execute("SELECT set_config('jwt.claims.user_id', '', false)").unwrap();
    let claims = "{\n\t\"sub\": 18446744073709551615\n}";
    session.execute("SELECT set_config('request.jwt.claims', $1, false)", &[&claims]).unwrap();
    let user: String = session.query_one("SELECT storage.current_user_id()", &[]).unwrap().get(0);
    assert_eq!(user, "18446744073709551615");
}

#[test]
fn separate_settings_win_over_the_json_one_by_one() {
    let database = Cluster::shared().database();
    let role = database.role("reader");
    let json = ("request.jwt.claims", r#"{"sub": "bob", "tenant_id": "globex"}"#);
    assert_eq!(claims(&database, &role, &[("jwt.claims.user_id", "ada"), json]), pair("ada", "globex"));
    assert_eq!(claims(&database, &role, &[("jwt.claims.tenant_id", "acme"), json]), pair("bob", "acme"));
}

#[test]
fn without_claims_the_role_is_the_user() {
    let database = Cluster::shared().database();
    let role = database.role("reader");
    assert_eq!(claims(&database, &role, &[]), pair(&role, "default"));
    // The current role and not the one that logged in: PostgREST logs in as one and becomes another.
    let mut session = database.superuser();
    session.batch_execute(&format!("SET ROLE {role}")).unwrap();
    assert_eq!(identity(&mut session), pair(&role, "default"));
}

#[test]
fn other_settings_can_carry_the_claims() {
    let database = Cluster::shared().database();
    let role = database.role("reader");
    let name = database.name();
    database
        .superuser()
        .batch_execute(&format!(
            "ALTER DATABASE {name} SET pg_storage.user_id_setting = 'app.uid';
             ALTER DATABASE {name} SET pg_storage.tenant_id_setting = 'app.org';
             ALTER DATABASE {name} SET pg_storage.default_tenant = 'everyone'"
        ))
        .unwrap();
    let of = |given: &[(&str, &str)]| claims(&database, &role, given);
    assert_eq!(of(&[("app.uid", "ada"), ("app.org", "acme")]), pair("ada", "acme"));
    assert_eq!(of(&[("app.uid", "ada")]), pair("ada", "everyone"));
    // The usual names mean nothing here any more.
    assert_eq!(
        of(&[("jwt.claims.user_id", "eve"), ("jwt.claims.tenant_id", "acme")]),
        pair(&role, "everyone")
    );
}

/// Every call that needs a tenant.
const CALLS: [&str; 10] = [
    "SELECT storage.current_tenant_id()",
    "SELECT storage.create_bucket('docs')",
    "SELECT storage.create_bucket('docs', owner_id => NULL)",
    "SELECT storage.create_user_buckets('ada')",
    "SELECT storage.request_upload_url('private', 'a.txt', 'text/plain', 1)",
    "SELECT storage.request_upload_url(NULL, 'a.txt', 'text/plain', 1)",
    "SELECT storage.provision_bucket('private')",
    "SELECT storage.inspect_bucket('private')",
    "SELECT count(*) FROM storage.buckets",
    "UPDATE storage.buckets SET is_default = true",
];

#[test]
fn without_a_default_tenant_every_call_needs_one() {
    let database = Cluster::shared().database();
    let manager = database.role("manager");
    let mut known = database.connect_as(&manager, &[("jwt.claims.user_id", "ada")]);
    known.execute("SELECT storage.create_user_buckets('ada')", &[]).unwrap();
    let name = database.name();
    database
        .superuser()
        .batch_execute(&format!("ALTER DATABASE {name} SET pg_storage.default_tenant = ''"))
        .unwrap();

    let mut session = database.connect_as(&manager, &[("jwt.claims.user_id", "ada")]);
    for call in CALLS {
        let refusal = refused(session.query(call, &[]));
        assert_eq!(refusal.code(), ("42501", "TENANT_REQUIRED"), "{call}: {refusal:?}");
        assert!(refusal.hint.is_some_and(|hint| hint.contains("pg_storage.default_tenant")), "{call}");
    }
    let count = |query: &str| database.superuser().query_one(query, &[]).unwrap().get::<_, i64>(0);
    assert_eq!(count("SELECT count(*) FROM storage.buckets"), 3);
    assert_eq!(count("SELECT count(*) FROM storage.upload_requests"), 0);

    session.execute("SELECT set_config('jwt.claims.tenant_id', 'default', false)", &[]).unwrap();
    assert_eq!(session.query("SELECT FROM storage.buckets", &[]).unwrap().len(), 3);
}

#[test]
fn only_superusers_choose_which_settings_are_believed() {
    let database = Cluster::shared().database();
    let manager = database.role("manager");
    let mut session = database.connect_as(&manager, &[("jwt.claims.user_id", "ada"), ("app.uid", "root")]);
    for setting in ["user_id_setting", "tenant_id_setting", "default_tenant", "tenant"] {
        for value in ["app.uid", ""] {
            let refusal = refused(
                session.execute("SELECT set_config('pg_storage.' || $1, $2, false)", &[&setting, &value]),
            );
            assert_eq!(refusal.sqlstate, "42501", "{setting}: {refusal:?}");
        }
        let refusal = refused(
            session.batch_execute(&format!("ALTER ROLE {manager} SET pg_storage.{setting} = 'app.uid'")),
        );
        assert_eq!(refusal.sqlstate, "42501", "{setting}: {refusal:?}");
    }
    assert_eq!(identity(&mut session), pair("ada", "default"));
}

#[test]
fn a_setting_that_cannot_carry_a_claim_is_refused() {
    let mut session = Cluster::shared().database().superuser();
    for bad in ["user", "a..b", "1.x", "a.b c", "a.b;"] {
        let Refusal { sqlstate, message, .. } =
            refused(session.execute("SELECT set_config('pg_storage.user_id_setting', $1, false)", &[&bad]));
        assert_eq!(sqlstate, "22023", "{bad}");
        assert!(message.contains("pg_storage.user_id_setting"), "{message}");
    }
}

#[test]
fn local_claims_last_as_long_as_their_transaction() {
    let database = Cluster::shared().database();
    let role = database.role("writer");
    let mut session = database.connect_as(&role, &[]);
    for end in ["COMMIT", "ROLLBACK"] {
        session
            .batch_execute(
                "BEGIN; SET LOCAL jwt.claims.user_id = 'ada';
                 SET LOCAL request.jwt.claims = '{\"tenant_id\": \"acme\"}'",
            )
            .unwrap();
        assert_eq!(identity(&mut session), pair("ada", "acme"));
        // Also where a function asks in several statements, and where a policy asks.
        session
            .batch_execute(
                "DO $$ BEGIN
                     PERFORM FROM storage.files;
                     ASSERT storage.current_user_id() = 'ada' AND storage.current_tenant_id() = 'acme';
                 END $$",
            )
            .unwrap();
        session.batch_execute(end).unwrap();
        assert_eq!(identity(&mut session), pair(&role, "default"), "after {end}");
    }
    session.batch_execute("BEGIN; SAVEPOINT s; SET LOCAL jwt.claims.user_id = 'ada'; ROLLBACK TO s").unwrap();
    assert_eq!(identity(&mut session), pair(&role, "default"));
    session.batch_execute("COMMIT").unwrap();
}

#[test]
fn a_prepared_statement_follows_the_claims() {
    let database = Cluster::shared().database();
    let manager = database.role("manager");
    let mut session = database.connect_as(&manager, &[]);
    for user in ["ada", "bob"] {
        session.execute("SELECT storage.create_user_buckets($1)", &[&user]).unwrap();
    }
    let writer = database.role("writer");
    let mut session = database.connect_as(&writer, &[]);
    let statement =
        session.prepare("SELECT DISTINCT owner_id FROM storage.buckets WHERE access <> 'public'").unwrap();
    // Often enough for a generic plan, which must not have the first caller baked in.
    for round in 0..14 {
        let user = if round % 2 == 0 { "ada" } else { "bob" };
        session.execute("SELECT set_config('jwt.claims.user_id', $1, false)", &[&user]).unwrap();
        let owners: Vec<String> =
            session.query(&statement, &[]).unwrap().iter().map(|row| row.get(0)).collect();
        assert_eq!(owners, [user]);
    }
}

/// A database in which the role is the user: ada of acme and bob of globex may run any SQL.
fn roles_as_users(database: &Database<'_>) -> [String; 2] {
    let name = database.name();
    database
        .superuser()
        .batch_execute(&format!("ALTER DATABASE {name} SET pg_storage.identity_source = 'role'"))
        .unwrap();
    [("ada", "acme"), ("bob", "globex")].map(|(user, tenant)| {
        let role = format!("{name}_{user}");
        database
            .superuser()
            .batch_execute(&format!(
                "CREATE ROLE {role} LOGIN; SELECT storage.grant_access('{role}', 'manager');
                 ALTER ROLE {role} SET pg_storage.tenant = '{tenant}'"
            ))
            .unwrap();
        role
    })
}

const EVERY_CLAIM: [(&str, &str); 3] = [
    ("jwt.claims.user_id", "mallory"),
    ("jwt.claims.tenant_id", "evil"),
    ("request.jwt.claims", r#"{"sub": "mallory", "tenant_id": "evil"}"#),
];

#[test]
fn where_the_role_is_the_user_claims_mean_nothing() {
    let database = Cluster::shared().database();
    let [ada, bob] = roles_as_users(&database);
    assert_eq!(claims(&database, &ada, &EVERY_CLAIM), pair(&ada, "acme"));
    assert_eq!(claims(&database, &bob, &EVERY_CLAIM), pair(&bob, "globex"));
    // Also claims that cannot be read.
    assert_eq!(claims(&database, &ada, &[("request.jwt.claims", "{")]), pair(&ada, "acme"));
    // Who has no tenant of its own has the default one.
    let other = database.role("reader");
    assert_eq!(claims(&database, &other, &EVERY_CLAIM), pair(&other, "default"));

    let mut session = database.connect_as(&ada, &[]);
    session.execute("SELECT storage.create_user_buckets(storage.current_user_id())", &[]).unwrap();
    for (role, expected) in [(&ada, 3), (&bob, 0)] {
        let mut session = database.connect_as(role, &EVERY_CLAIM);
        session.execute("SELECT set_config('jwt.claims.user_id', $1, false)", &[&ada]).unwrap();
        session.execute("SELECT set_config('jwt.claims.tenant_id', 'acme', false)", &[]).unwrap();
        assert_eq!(session.query("SELECT FROM storage.buckets", &[]).unwrap().len(), expected, "{role}");
    }
}

/// What a role that can run SQL could do to become somebody else.
#[test]
fn where_the_role_is_the_user_nobody_can_become_another() {
    let database = Cluster::shared().database();
    let [ada, bob] = roles_as_users(&database);
    let name = database.name();
    let mut session = database.connect_as(&bob, &[]);
    for statement in [
        "SET pg_storage.identity_source = 'claims'".to_owned(),
        "SET LOCAL pg_storage.identity_source = 'claims'".to_owned(),
        "RESET pg_storage.identity_source; SET pg_storage.tenant = 'acme'".to_owned(),
        "SELECT set_config('pg_storage.tenant', 'acme', true)".to_owned(),
        format!("ALTER ROLE {bob} SET pg_storage.tenant = 'acme'"),
        format!("ALTER ROLE {bob} IN DATABASE {name} SET pg_storage.identity_source = 'claims'"),
        format!("ALTER DATABASE {name} SET pg_storage.identity_source = 'claims'"),
        format!("SET ROLE {ada}"),
        format!("SET SESSION AUTHORIZATION {ada}"),
        // A setting in a function's definition is set when it is called, with the rights of the caller.
        "CREATE FUNCTION pg_temp.f() RETURNS text SET pg_storage.tenant = 'acme' LANGUAGE sql AS 'SELECT storage.current_tenant_id()'; SELECT pg_temp.f()".to_owned(),
    ] {
        let refusal = refused(session.batch_execute(&statement));
        assert_eq!(refusal.sqlstate, "42501", "{statement}: {refusal:?}");
        assert_eq!(identity(&mut session), pair(&bob, "globex"), "{statement}");
    }
    assert_eq!(refused(session.batch_execute("RESET pg_storage.tenant")).sqlstate, "42501");
    session.batch_execute("RESET ALL").unwrap();
    session.batch_execute("DISCARD ALL").unwrap();
    assert_eq!(identity(&mut session), pair(&bob, "globex"));
}

/// Until the library is loaded the settings are nobody's, and anybody can set them.
#[test]
fn where_the_role_is_the_user_values_set_before_the_library_was_loaded_count_for_nothing() {
    let cluster = Cluster::start(Options::new().without_preload());
    let database = cluster.database();
    let [ada, bob] = roles_as_users(&database);
    let name = database.name();
    for statement in [
        "SET pg_storage.identity_source = 'claims'; SET pg_storage.tenant = 'acme'".to_owned(),
        "SELECT set_config('pg_storage.identity_source', 'claims', false), set_config('pg_storage.tenant', 'acme', false)".to_owned(),
        "CREATE FUNCTION pg_temp.f() RETURNS text SET pg_storage.tenant = 'acme' SET pg_storage.identity_source = 'claims'
         LANGUAGE sql AS 'SELECT storage.current_tenant_id()'; SELECT pg_temp.f()".to_owned(),
        "BEGIN; SET LOCAL pg_storage.identity_source = 'claims'; SAVEPOINT s; SET LOCAL pg_storage.tenant = 'acme'".to_owned(),
        format!("ALTER ROLE {bob} SET pg_storage.tenant = 'acme'"),
        format!("SET pg_storage.tenant = 'acme'; ALTER ROLE {bob} SET pg_storage.tenant FROM CURRENT"),
        format!("ALTER ROLE {bob} IN DATABASE {name} SET pg_storage.identity_source = 'claims'"),
    ] {
        let mut session = database.connect_as(&bob, &EVERY_CLAIM);
        session.execute("SELECT set_config('jwt.claims.user_id', $1, false)", &[&ada]).unwrap();
        // Accepted or not, it changes nothing.
        drop(session.batch_execute(&statement));
        if statement.contains("pg_temp") || statement.starts_with("ALTER") {
            drop(session.batch_execute("ROLLBACK"));
        }
        assert_eq!(identity(&mut session), pair(&bob, "globex"), "{statement}");
        assert_eq!(identity(&mut database.connect_as(&bob, &EVERY_CLAIM)), pair(&bob, "globex"), "{statement}");
    }
}

/// A value that comes with the connection takes the place of those of the database and the role, and would be dropped for the
/// built-in default: no claims may be believed and no limit forgotten because of that.
#[test]
fn a_connection_that_brings_settings_it_may_not_set_gets_nothing() {
    let cluster = Cluster::start(Options::new().without_preload());
    let database = cluster.database();
    let [ada, bob] = roles_as_users(&database);
    let ask = |role: &str, options: &str, statement: &str| {
        let mut psql = cluster.client_program("psql");
        psql.env("PGUSER", role).env("PGOPTIONS", format!("-c jwt.claims.user_id={ada} {options}"));
        psql.args(["-XAqtd", database.name(), "-v", "VERBOSITY=verbose", "-c", statement]);
        let output = psql.output().unwrap();
        (
            String::from_utf8(output.stdout).unwrap().trim().to_owned(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let who = "SELECT storage.current_user_id()";
    assert_eq!(ask(&bob, "", who).0, bob);
    for options in [
        "-c pg_storage.identity_source=claims",
        "-c pg_storage.tenant=acme",
        "-c PG_Storage.Tenant=globex",
        "-c pg_storage.max_file_size=1000000",
        "-c pg_storage.nobody_knows=1",
    ] {
        for statement in [
            who,
            "SELECT storage.current_tenant_id()",
            "SELECT count(*) FROM storage.files",
            "SELECT storage.create_user_buckets('x')",
            "RESET ALL; SELECT storage.current_user_id()",
        ] {
            let (answer, error) = ask(&bob, options, statement);
            assert_eq!(answer, "", "{options} {statement}");
            assert!(error.contains("42501: RBAC_FORBIDDEN: "), "{options} {statement}: {error}");
            assert!(error.contains("DETAIL:") && error.contains("HINT:"), "{error}");
        }
        // It stays so, however often one tries.
        let mut session = cluster.client_program("psql");
        session.env("PGUSER", &bob).env("PGOPTIONS", options).args(["-XAqtd", database.name()]);
        session.args(["-c", who, "-c", who, "-c", "DISCARD ALL", "-c", who]);
        assert_eq!(String::from_utf8(session.output().unwrap().stdout).unwrap().trim(), "");
    }
    // Whoever may set it may bring it.
    assert_eq!(ask("postgres", "-c pg_storage.tenant=acme", "SELECT storage.current_tenant_id()").0, "acme");
    cluster
        .connect("postgres", database.name())
        .batch_execute(&format!("GRANT SET ON PARAMETER pg_storage.tenant TO {bob}"))
        .unwrap();
    assert_eq!(ask(&bob, "-c pg_storage.tenant=acme", "SELECT storage.current_tenant_id()").0, "acme");
}

/// The user is the role that PostgreSQL goes by: members may change to theirs, a definer's functions are the definer.
/// The tenant is the session's.
#[test]
fn where_the_role_is_the_user_it_is_the_current_one() {
    let database = Cluster::shared().database();
    let [ada, bob] = roles_as_users(&database);
    database
        .superuser()
        .batch_execute(&format!(
            "GRANT {ada} TO {bob}; GRANT CREATE ON SCHEMA public TO {ada}; SET ROLE {ada};
             CREATE FUNCTION public.as_ada() RETURNS text SECURITY DEFINER LANGUAGE sql SET search_path = pg_catalog, pg_temp
             RETURN storage.current_user_id()"
        ))
        .unwrap();
    let mut session = database.connect_as(&bob, &[]);
    assert_eq!(session.query_one("SELECT public.as_ada()", &[]).unwrap().get::<_, String>(0), ada);
    assert_eq!(identity(&mut session), pair(&bob, "globex"));
    session.batch_execute(&format!("SET ROLE {ada}")).unwrap();
    assert_eq!(identity(&mut session), pair(&ada, "globex"));
    // Uploads are the user's, whoever runs the trigger that says so.
    session
        .batch_execute("RESET ROLE; SELECT storage.create_user_buckets(storage.current_user_id())")
        .unwrap();
    session.execute("SELECT storage.request_upload_url('private', 'a.txt', 'text/plain', 1)", &[]).unwrap();
    let owner: String =
        session.query_one("SELECT owner_id FROM storage.upload_requests", &[]).unwrap().get(0);
    assert_eq!(owner, bob);
}

/// The same in the default mode: what SECURITY.md says of a role that can run SQL is so.
#[test]
fn where_claims_are_believed_whoever_runs_sql_is_whoever_he_says() {
    let database = Cluster::shared().database();
    let manager = database.role("manager");
    database
        .connect_as(&manager, &[("jwt.claims.user_id", "ada"), ("jwt.claims.tenant_id", "acme")])
        .execute("SELECT storage.create_user_buckets('ada')", &[])
        .unwrap();
    let mut session =
        database.connect_as(&manager, &[("jwt.claims.user_id", "bob"), ("jwt.claims.tenant_id", "globex")]);
    assert_eq!(session.query("SELECT FROM storage.buckets", &[]).unwrap().len(), 0);
    session.batch_execute("SET jwt.claims.user_id = 'ada'; SET jwt.claims.tenant_id = 'acme'").unwrap();
    assert_eq!(session.query("SELECT FROM storage.buckets", &[]).unwrap().len(), 3);
}
