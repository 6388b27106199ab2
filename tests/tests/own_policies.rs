//! Policies of one's own: each operation apart, what an expression may do, and what is refused.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{self, Upload};
use pg_storage_tests::{Scene, refused};
use postgres::Client;

/// A tenant's bucket with a file of ada's in it, the shipped policies off, and buckets and uploads open to everybody.
struct Own {
    scene: Scene,
    file: String,
}

impl Own {
    fn new() -> Self {
        let scene = Scene::local();
        scene.shared_bucket();
        let bytes = b"whose are these";
        let file = Upload::declared(bytes)
            .to("shared")
            .at("a/b.txt")
            .complete(&mut scene.user("ada"), bytes)
            .file_id;
        let own = Self { scene, file };
        own.superuser("SELECT storage.enable_default_policies(false)");
        own.superuser(
            "SELECT storage.add_policy('see buckets', 'buckets', 'read', 'true');
             SELECT storage.add_policy('see uploads', 'upload_requests', 'read', $$owner_id = storage.current_user_id()$$)",
        );
        own
    }

    fn superuser(&self, statement: &str) {
        if let Err(error) = self.scene.superuser().batch_execute(statement) {
            panic!("{statement}: {:?}", error.as_db_error());
        }
    }

    fn add(&self, target: &str, command: &str, expression: &str) {
        let argument = if command == "upload" { "check_expr" } else { "using_expr" };
        self.superuser(&format!(
            "SELECT storage.add_policy('{command} {target}', '{target}', '{command}', {argument} => $${expression}$$)"
        ));
    }

    fn bob(&self) -> Client {
        self.writer("bob")
    }

    fn writer(&self, user: &str) -> Client {
        self.scene.database.connect_as(&self.scene.writer, &[("jwt.claims.user_id", user)])
    }

    /// Which of the things one can do with ada's file work for bob, each tried and rolled back.
    fn allowed(&self) -> Vec<&'static str> {
        let mut bob = self.bob();
        let file = &self.file;
        [
            ("read", "SELECT FROM storage.files".to_owned()),
            ("sign", format!("SELECT storage.download_url('{file}')")),
            ("sign many", format!("SELECT FROM storage.download_urls('{{{file}}}')")),
            ("move", "UPDATE storage.files SET filename = 'c.txt'".to_owned()),
            ("move by id", format!("UPDATE storage.files SET path = 'c' WHERE id = '{file}'")),
            ("delete", "DELETE FROM storage.files".to_owned()),
            ("delete_file", format!("SELECT storage.delete_file('{file}')")),
            (
                "upload",
                "SELECT storage.request_upload_url(id::text, 'a.txt', 'text/plain', 1) FROM storage.buckets WHERE key = 'shared'"
                    .to_owned(),
            ),
            (
                "insert",
                "INSERT INTO storage.upload_requests (bucket_id, filename, content_type, size)
                 SELECT id, 'a.txt', 'text/plain', 1 FROM storage.buckets WHERE key = 'shared'"
                    .to_owned(),
            ),
        ]
        .into_iter()
        .filter(|(_, statement)| {
            bob.batch_execute("BEGIN").unwrap();
            let done = bob.execute(statement, &[]).is_ok_and(|rows| rows > 0);
            bob.batch_execute("ROLLBACK").unwrap();
            done
        })
        .map(|(name, _)| name)
        .collect()
    }
}

#[test]
fn each_operation_is_allowed_apart() {
    let own = Own::new();
    assert_eq!(own.allowed(), Vec::<&str>::new());
    own.add("files", "sign", "true");
    assert_eq!(own.allowed(), ["sign", "sign many"], "a URL, and not a row");
    own.add("files", "read", "true");
    own.superuser("SELECT storage.drop_policy('sign files')");
    assert_eq!(own.allowed(), ["read"], "a row, and no URL");
    own.add("files", "move", "path LIKE 'a/%'");
    assert_eq!(own.allowed(), ["read", "move"], "the path may not leave what was allowed");
    own.superuser("SELECT storage.drop_policy('move files')");
    own.superuser("SELECT storage.add_policy('move files', 'files', 'move', 'true', 'true')");
    assert_eq!(own.allowed(), ["read", "move", "move by id"]);
    own.superuser("SELECT storage.drop_policy('move files')");
    own.add("files", "delete", "true");
    assert_eq!(own.allowed(), ["read", "delete", "delete_file"]);
    own.superuser("SELECT storage.drop_policy('delete files')");
    own.add("upload_requests", "upload", "storage.current_user_id() = 'bob' -- he alone");
    assert_eq!(own.allowed(), ["read", "upload", "insert"]);
    own.superuser(
        "SELECT storage.drop_policy('upload upload_requests'); SELECT storage.drop_policy('read files')",
    );
    own.add("upload_requests", "upload", "storage.operation() = 'upload'");
    assert_eq!(own.allowed(), ["upload"], "through the function alone");
    // Waits for a function that lists.
    own.add("files", "list", "true");
    assert_eq!(own.allowed(), ["upload"]);
}

/// Who sees a row sees its hash. Were that enough to be given the bytes, reading would be signing.
#[test]
fn bytes_are_shared_with_those_alone_who_may_sign_them() {
    let own = Own::new();
    own.add("files", "read", "true");
    own.add("upload_requests", "upload", "true");
    let again = Upload::declared(b"whose are these").to("shared");
    assert!(!again.request(&mut own.bob()).deduplicated);
    own.add("files", "sign", "true");
    assert!(again.request(&mut own.bob()).deduplicated);
}

const PARTS: &str = "SELECT storage.list_upload_parts($1::text::uuid)";

#[test]
fn seeing_an_upload_is_one_thing_and_ending_it_another() {
    let own = Own::new();
    own.add("upload_requests", "upload", "true");
    let mut ada = own.writer("ada");
    let bytes = b"somebody else's";
    let ticket = Upload::of(bytes).to("shared").request(&mut ada);
    assert_eq!(ticket.put(bytes).status, 200);
    own.superuser("SELECT storage.drop_policy('see uploads')");
    own.add("upload_requests", "read", "true");
    let mut bob = own.bob();
    assert_eq!(flow::recorded(&mut bob, &ticket.upload_id).outcome(), ("requested", None));
    for refusal in [
        refused(flow::try_confirm(&mut bob, &ticket.upload_id)),
        refused(flow::try_confirm_all(&mut bob, &[&ticket.upload_id])),
        refused(flow::abort(&mut bob, &ticket.upload_id)),
        refused(bob.query(PARTS, &[&ticket.upload_id])),
    ] {
        assert_eq!(refusal.code(), ("42704", "UPLOAD_NOT_FOUND"), "{refusal:?}");
    }
    assert_eq!(flow::recorded(&mut ada, &ticket.upload_id).outcome(), ("requested", None));
    // Whoever asked may end what they see, and others may where a policy says so.
    assert_eq!(flow::confirm(&mut ada, &ticket.upload_id).outcome(), ("uploaded", None));
    let second = Upload::of(bytes).to("shared").request(&mut ada);
    own.add("upload_requests", "move", "owner_id = 'ada'");
    let refusal = refused(bob.query(PARTS, &[&second.upload_id]));
    assert_eq!(
        refusal.code(),
        ("55000", "UPLOAD_NOT_PENDING"),
        "it is found, and takes no parts: {refusal:?}"
    );
    assert_eq!(flow::abort(&mut bob, &second.upload_id).unwrap().outcome(), ("aborted", Some("ABORTED")));
}

#[test]
fn a_policy_is_for_the_roles_it_names() {
    let own = Own::new();
    let reader = own.scene.database.role("reader");
    own.superuser(&format!(
        "SELECT storage.add_policy('readers', 'files', 'read', 'true', roles => ARRAY['{reader}', '{reader}'])"
    ));
    assert_eq!(own.allowed(), Vec::<&str>::new());
    let mut session = own.scene.database.connect_as(&reader, &[]);
    assert_eq!(session.query("SELECT FROM storage.files", &[]).unwrap().len(), 1);
    // Public beside others is public.
    own.superuser(&format!(
        "SELECT storage.drop_policy('readers');
         SELECT storage.add_policy('readers', 'files', 'read', 'true', roles => ARRAY['{reader}', 'public'])"
    ));
    assert_eq!(own.allowed(), ["read"]);
}

#[test]
fn the_operation_is_at_rest_after_errors_and_nobody_can_set_it() {
    let own = Own::new();
    own.add("files", "sign", "true");
    // Raises inside the statement that asks.
    own.superuser(
        "CREATE FUNCTION public.sour(text) RETURNS boolean LANGUAGE plpgsql AS $$
         BEGIN RAISE 'sour %', storage.operation(); END $$;
         SELECT storage.add_policy('sour', 'files', 'sign', 'public.sour(filename)')",
    );
    let mut bob = own.bob();
    bob.batch_execute("BEGIN; SAVEPOINT s").unwrap();
    let asked =
        |bob: &mut Client| -> String { bob.query_one("SELECT storage.operation()", &[]).unwrap().get(0) };
    let sign = format!("SELECT storage.download_url('{}')", own.file);
    // Two permissive policies: PostgreSQL may ask the sour one first.
    for _ in 0..3 {
        let said = bob.batch_execute(&sign);
        if let Err(error) = said {
            assert_eq!(error.as_db_error().unwrap().message(), "sour sign");
        }
        bob.batch_execute("ROLLBACK TO s").unwrap();
        assert_eq!(asked(&mut bob), "read");
    }
    bob.batch_execute("ROLLBACK").unwrap();
    own.superuser("SELECT storage.drop_policy('sign files')");
    assert_eq!(refused(bob.batch_execute(&sign)).message, "sour sign");
    assert_eq!(asked(&mut bob), "read");
    // Inside one statement too: the rows that the caller asks for himself are read while others are signed.
    own.superuser("SELECT storage.drop_policy('sour')");
    own.add("files", "sign", "true");
    let both = format!("SELECT storage.download_url('{}'), (SELECT count(*) FROM storage.files)", own.file);
    assert_eq!(bob.query_one(&both, &[]).unwrap().get::<_, i64>(1), 0);
    for setting in ["storage.operation", "pg_storage.operation"] {
        let set = bob.execute("SELECT set_config($1, 'sign', false)", &[&setting]);
        if setting.starts_with("pg_storage") {
            assert_eq!(refused(set).sqlstate, "42602");
        }
        assert_eq!(bob.query("SELECT FROM storage.files", &[]).unwrap().len(), 0);
    }
}

/// What an expression calls is its author's, and runs for whoever asks: with that one's rights and no other's, also while
/// our own statements run as the owner.
#[test]
fn an_expression_runs_as_the_caller_and_never_as_the_owner() {
    let own = Own::new();
    own.superuser(
        "CREATE TABLE public.seen (who text);
         GRANT INSERT ON public.seen TO PUBLIC;
         CREATE FUNCTION public.witness() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
         BEGIN INSERT INTO public.seen VALUES (current_user); RETURN true; END $$",
    );
    let mut policies = 0;
    for (target, commands) in [
        ("files", &["read", "list", "sign", "move", "delete"][..]),
        ("upload_requests", &["read", "upload", "move", "delete"]),
        ("buckets", &["read", "move", "upload", "delete"]),
        ("objects", &["read"]),
        ("object_deletions", &["read"]),
        ("physical_buckets", &["read"]),
        ("tenant_settings", &["read", "upload", "move", "delete"]),
        ("events", &["read", "move"]),
        ("store_capabilities", &["read"]),
    ] {
        for command in commands {
            own.add(target, command, "public.witness()");
            policies += 1;
        }
    }
    assert_eq!(policies, 23);
    let mut bob = own.bob();
    let file = Upload::declared(b"mine").to("shared").at("mine").complete(&mut bob, b"mine").file_id;
    Upload::declared(b"mine").to("shared").request(&mut bob);
    let waiting = Upload::of(b"no").to("shared").request(&mut bob);
    flow::abort(&mut bob, &waiting.upload_id).unwrap();
    flow::assert_downloads(&mut bob, &file, b"mine");
    bob.batch_execute(&format!(
        "UPDATE storage.files SET filename = 'd.txt' WHERE id = '{file}'; SELECT storage.delete_file('{file}')"
    ))
    .unwrap();
    let mut manager = own.scene.manager("max");
    manager
        .batch_execute(
            "SELECT storage.create_bucket('more'); SELECT storage.provision_bucket('more');
             UPDATE storage.buckets SET allowed_origins = '{https://a.example}' WHERE key = 'more';
             SELECT storage.delete_bucket('more', force => true)",
        )
        .unwrap();
    own.superuser("SELECT storage.run_maintenance()");
    let who = "SELECT array_agg(DISTINCT who ORDER BY who) FROM public.seen";
    let name = own.scene.database.name();
    assert_eq!(own.scene.value::<Vec<String>>(who), [format!("{name}_manager"), format!("{name}_writer")]);
}

#[test]
fn what_is_no_policy_is_refused_and_leaves_nothing() {
    let own = Own::new();
    let count =
        "SELECT (SELECT count(*) FROM pg_policy) * 1000 + (SELECT count(*) FROM storage_private.policies)";
    let before: i64 = own.scene.value(count);
    let invalid = ("22023", "INVALID_POLICY");
    for (arguments, code) in [
        ("'', 'files', 'read', 'true'", invalid),
        ("NULL, 'files', 'read', 'true'", invalid),
        ("'default_select', 'files', 'read', 'true'", invalid),
        ("'bucket_not_deleted', 'files', 'read', 'true'", invalid),
        ("repeat('é', 32), 'files', 'read', 'true'", invalid),
        ("'a', 'files', 'upload', check_expr => 'true'", invalid),
        ("'a', 'file', 'read', 'true'", invalid),
        ("'a', 'pg_class', 'read', 'true'", invalid),
        ("'a', 'upload_state', 'read', 'true'", invalid),
        ("'a', NULL, 'read', 'true'", invalid),
        ("'a', 'files', 'READ', 'true'", invalid),
        ("'a', 'files', NULL, 'true'", invalid),
        ("'a', 'buckets', 'sign', 'true'", invalid),
        ("'a', 'files', 'read'", invalid),
        ("'a', 'files', 'read', 'true', 'true'", invalid),
        ("'a', 'upload_requests', 'upload', 'true'", invalid),
        ("'a', 'upload_requests', 'upload', 'true', 'true'", invalid),
        ("'a', 'files', 'move', check_expr => 'true'", invalid),
        ("'a', 'upload_requests', 'move', 'true', 'true'", invalid),
        ("'a', 'files', 'read', 'true', roles => '{no_such_role}'", invalid),
        ("'a', 'files', 'read', 'true', roles => '{}'", invalid),
        ("'a', 'files', 'read', 'true', roles => NULL", invalid),
        ("'a', 'files', 'read', 'true', roles => '{NULL}'", invalid),
        // Not one expression, not one that PostgreSQL takes, or one that would end what it is put into.
        ("'a', 'files', 'read', ''", invalid),
        ("'a', 'files', 'read', '1'", invalid),
        ("'a', 'files', 'read', 'nobody_knows'", invalid),
        ("'a', 'files', 'read', 'true)'", invalid),
        ("'a', 'files', 'read', 'true) OR (true'", invalid),
        ("'a', 'files', 'read', 'true; DROP TABLE storage.files'", invalid),
        ("'a', 'files', 'read', 'true); DROP TABLE storage.files; --'", invalid),
        ("'a', 'files', 'read', 'true /*'", invalid),
        ("'a', 'files', 'read', 'true FROM pg_class'", invalid),
        ("'a', 'files', 'move', 'true', 'true) WITH CHECK (true'", invalid),
        // Another schema's function under a name of its own: names are qualified.
        ("'see buckets', 'files', 'read', 'true'", ("42710", "POLICY_EXISTS")),
        ("'bucket by hand', 'files', 'read', 'true'", ("42710", "POLICY_EXISTS")),
    ] {
        let mut session = own.scene.superuser();
        session
            .batch_execute("BEGIN; CREATE POLICY \"bucket by hand\" ON storage.files FOR SELECT USING (true)")
            .unwrap();
        let refusal = refused(session.batch_execute(&format!("SELECT storage.add_policy({arguments})")));
        assert_eq!(refusal.code(), code, "{arguments}: {refusal:?}");
        assert!(refusal.hint.is_some() && refusal.detail.is_some(), "{arguments}: {refusal:?}");
    }
    for name in ["'no such'", "NULL", "'default_select'"] {
        let refusal =
            refused(own.scene.superuser().batch_execute(&format!("SELECT storage.drop_policy({name})")));
        assert_eq!(refusal.code(), ("42704", "POLICY_NOT_FOUND"), "{name}");
    }
    assert_eq!(own.scene.value::<i64>(count), before);
    // Odd names are names.
    own.superuser(
        "SELECT storage.add_policy($$it's \"odd\" %I; --$$, 'files', 'read', $$filename <> 'a''b' /* ) */ -- )$$);
         SELECT storage.drop_policy($$it's \"odd\" %I; --$$)",
    );
    assert_eq!(own.scene.value::<i64>(count), before);
}

#[test]
fn adding_and_dropping_follow_rollback() {
    let own = Own::new();
    own.superuser("BEGIN; SELECT storage.add_policy('a', 'files', 'read', 'true'); ROLLBACK");
    assert_eq!(own.allowed(), Vec::<&str>::new());
    own.add("files", "read", "true");
    own.superuser("BEGIN; SELECT storage.drop_policy('read files'); ROLLBACK");
    assert_eq!(own.allowed(), ["read"]);
}
