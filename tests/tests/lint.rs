//! Every function in PL/pgSQL through plpgsql_check; the exact privileges on every object of ours and the exact labels of
//! every function, as lists under tests/golden.
//!
//! `PG_STORAGE_UPDATE_GOLDEN=1` writes the lists anew instead of comparing them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::Cluster;
use std::collections::BTreeSet;
use std::path::Path;

/// Findings that are none: function, beginning of the message, and why.
const ACCEPTED: &[(&str, &str, &str)] = &[
    ("storage.create_bucket", "control reached end", "its handlers end in refuse(), which raises"),
    (
        "storage.grant_access",
        "text type variable",
        "the text is one of level_privileges(), all constants of ours",
    ),
    (
        "storage.revoke_access",
        "text type variable",
        "the text is one of level_privileges(), all constants of ours",
    ),
    (
        "storage_private.create_own_policy",
        "text type variable",
        "expressions passed validate_expression() before",
    ),
    ("storage_private.announce_events", HIDDEN_CAST, "the constant of a counter"),
    ("storage_private.compact_room", HIDDEN_CAST, "the constant of a counter"),
    (
        "storage_private.claim_deletions",
        HIDDEN_CAST,
        "empty arrays, read by the input function of their type",
    ),
    (
        "storage_private.objects_between",
        "routine is marked as VOLATILE",
        "a pass compares listings that go on with rows as they are now, not as at the snapshot of its statement",
    ),
];

const HIDDEN_CAST: &str = "target type is different type";

/// A function with the table it is a trigger of (0 for none) and the names of the trigger's transition tables.
const FUNCTIONS: &str = "
    SELECT p.oid, coalesce(t.tgrelid, 0::oid) AS relation, t.tgoldtable::text AS old_table, t.tgnewtable::text AS new_table
    FROM pg_proc p JOIN pg_language l ON l.oid = prolang LEFT JOIN pg_trigger t ON t.tgfoid = p.oid
    WHERE pronamespace IN ('storage'::regnamespace, 'storage_private'::regnamespace) AND lanname = 'plpgsql'";

#[test]
fn plpgsql_check_finds_nothing_in_any_function() {
    let database = Cluster::shared().database();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE EXTENSION plpgsql_check SCHEMA public").unwrap();
    // A trigger function for tables of the users' own, so that it has one.
    superuser
        .batch_execute(
            "CREATE TABLE public.users (id text PRIMARY KEY, tenant text);
             CREATE TRIGGER seed AFTER INSERT ON public.users
                 FOR EACH ROW EXECUTE FUNCTION storage.seed_user_buckets('id', 'tenant')",
        )
        .unwrap();
    let checked = format!(
        "SELECT f.oid::regproc::text, c.level, coalesce(c.sqlstate, ''), c.lineno, c.message, c.detail, c.hint
         FROM ({FUNCTIONS}) f,
              LATERAL public.plpgsql_check_function_tb(
                  f.oid, f.relation, fatal_errors => false, all_warnings => true,
                  oldtable => f.old_table, newtable => f.new_table) c
         ORDER BY 1, 4"
    );
    let mut unused: BTreeSet<_> =
        ACCEPTED.iter().map(|(function, message, _)| (*function, *message)).collect();
    let mut found = Vec::new();
    for row in superuser.query(&checked, &[]).unwrap() {
        let (function, message): (String, String) = (row.get(0), row.get(4));
        let accepted = ACCEPTED.iter().find(|(name, text, _)| *name == function && message.starts_with(text));
        match accepted {
            Some((name, text, _)) => {
                unused.remove(&(*name, *text));
            }
            None => found.push(format!(
                "{function}:{} {} {} {message} {:?} {:?}",
                row.get::<_, Option<i32>>(3).unwrap_or_default(),
                row.get::<_, String>(1),
                row.get::<_, String>(2),
                row.get::<_, Option<String>>(5),
                row.get::<_, Option<String>>(6),
            )),
        }
    }
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
    assert!(unused.is_empty(), "accepted, and not found any more: {unused:?}");

    let count = "SELECT count(*), count(DISTINCT oid) FROM ($1) f".replace("$1", FUNCTIONS);
    let row = superuser.query_one(&count, &[]).unwrap();
    let (checks, functions): (i64, i64) = (row.get(0), row.get(1));
    println!("plpgsql_check: {checks} checks of {functions} functions, {} exceptions", ACCEPTED.len());
    assert!(functions >= 40, "{functions}");
    // A trigger function that nobody's trigger uses was checked without a table, which is no check.
    let loose = format!(
        "SELECT f.oid::regproc::text FROM ({FUNCTIONS}) f JOIN pg_proc p USING (oid)
         WHERE prorettype = 'trigger'::regtype AND relation = 0"
    );
    let loose: Vec<String> = superuser.query(&loose, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(loose.is_empty(), "trigger functions without a trigger: {loose:?}");
}

/// The check itself sees what it is for.
#[test]
fn plpgsql_check_finds_a_fault_that_is_there() {
    let database = Cluster::shared().database();
    let mut superuser = database.superuser();
    superuser.batch_execute("CREATE EXTENSION plpgsql_check SCHEMA public").unwrap();
    superuser
        .batch_execute(
            "CREATE FUNCTION public.faulty() RETURNS void LANGUAGE plpgsql AS
             $$ BEGIN PERFORM no_such_column FROM storage.files; END $$",
        )
        .unwrap();
    let query =
        "SELECT sqlstate FROM public.plpgsql_check_function_tb('public.faulty()', all_warnings => true)";
    let states: Vec<String> = superuser.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(states.contains(&"42703".to_owned()), "{states:?}");
}

/// What `storage.grant_access` gives at each level and what nobody has, object by object. A new line here is a new door.
#[test]
fn privileges_are_exactly_these() {
    let database = Cluster::shared().database();
    let roles = ["reader", "writer", "manager"].map(|level| database.role(level));
    let mut superuser = database.superuser();
    let query = "
        WITH objects (kind, name, owner, acl, default_acl) AS (
            SELECT 'schema', nspname::text, nspowner, nspacl, acldefault('n', nspowner)
            FROM pg_namespace WHERE nspname IN ('storage', 'storage_private')
            UNION ALL
            SELECT CASE relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' ELSE relkind::text END,
                   oid::regclass::text, relowner, relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", relowner)
            FROM pg_class WHERE relnamespace::regnamespace::text IN ('storage', 'storage_private') AND relkind IN ('r', 'v', 'm', 'S', 'f', 'p')
            UNION ALL
            SELECT 'column', attrelid::regclass || '.' || attname, relowner, attacl, NULL
            FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
            WHERE relnamespace::regnamespace::text IN ('storage', 'storage_private') AND attacl IS NOT NULL
            UNION ALL
            SELECT 'function', oid::regprocedure::text, proowner, proacl, acldefault('f', proowner)
            FROM pg_proc WHERE pronamespace::regnamespace::text IN ('storage', 'storage_private')
            UNION ALL
            SELECT 'type', oid::regtype::text, typowner, typacl, acldefault('T', typowner)
            FROM pg_type WHERE typnamespace::regnamespace::text IN ('storage', 'storage_private')
              AND typtype IN ('e', 'd') OR typrelid IN (SELECT oid FROM pg_class
                  WHERE relkind = 'c' AND relnamespace::regnamespace::text IN ('storage', 'storage_private'))
        )
        SELECT kind || ' ' || name || ': ' || coalesce(string_agg(
                   CASE grantee WHEN 0 THEN 'PUBLIC'
                                ELSE replace(pg_get_userbyid(grantee), current_database() || '_', '') END
                   || ' ' || privileges, ', ' ORDER BY grantee <> 0, pg_get_userbyid(grantee)), 'owner')
        FROM objects LEFT JOIN LATERAL (
            SELECT grantee, string_agg(lower(privilege_type) || CASE WHEN is_grantable THEN '*' ELSE '' END, '+'
                                       ORDER BY privilege_type) AS privileges
            FROM aclexplode(coalesce(acl, default_acl)) WHERE grantee <> owner GROUP BY grantee
        ) granted ON true
        GROUP BY kind, name ORDER BY kind COLLATE \"C\", name COLLATE \"C\"";
    let lines: Vec<String> = superuser.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(!lines.iter().any(|line| roles.iter().any(|role| line.contains(role))));
    for line in &lines {
        assert!(!line.contains("PUBLIC"), "{line}");
        assert!(!line.contains('*'), "nobody grants on: {line}");
    }
    assert_golden("acl.txt", &lines);
}

/// What a function promises the planner and the caller: volatility, parallel safety, whose rights, what NULL does.
#[test]
fn labels_of_functions_are_exactly_these() {
    let database = Cluster::shared().database();
    let query = "
        SELECT oid::regprocedure || ': '
            || CASE provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END
            || CASE proparallel WHEN 's' THEN ', parallel safe' WHEN 'r' THEN ', parallel restricted' ELSE '' END
            || CASE WHEN proisstrict THEN ', strict' ELSE '' END
            || CASE WHEN proleakproof THEN ', leakproof' ELSE '' END
            || CASE WHEN prosecdef THEN ', security definer' ELSE '' END
            || coalesce(', ' || array_to_string(proconfig, ', '), '')
        FROM pg_proc WHERE pronamespace::regnamespace::text IN ('storage', 'storage_private')
        ORDER BY oid::regprocedure::text COLLATE \"C\"";
    let rows = database.superuser().query(query, &[]).unwrap();
    assert_golden("labels.txt", &rows.iter().map(|row| row.get(0)).collect::<Vec<String>>());
}

fn assert_golden(name: &str, lines: &[String]) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("PG_STORAGE_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, lines.join("\n") + "\n").unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    let expected: BTreeSet<&str> = expected.lines().collect();
    let actual: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
    let missing: Vec<_> = expected.difference(&actual).collect();
    let added: Vec<_> = actual.difference(&expected).collect();
    assert!(
        missing.is_empty() && added.is_empty(),
        "not there: {missing:#?}\nnew: {added:#?}\nPG_STORAGE_UPDATE_GOLDEN=1 writes tests/golden/{name} anew"
    );
    println!("{} lines as in tests/golden/{name}", actual.len());
}
