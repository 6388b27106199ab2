//! Listings: what is there and visible, in order, once, with folders, on pages that hold still.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{Upload, some_bytes};
use pg_storage_tests::{Rng, Scene, each_store, refused};
use postgres::{Client, Error};
use std::collections::BTreeSet;

/// A call of `list_files`.
#[derive(Clone, Debug)]
struct List<'a> {
    bucket: &'a str,
    prefix: &'a str,
    delimiter: Option<&'a str>,
    page_size: i32,
    order: &'a str,
}

impl<'a> List<'a> {
    fn of(bucket: &'a str) -> Self {
        Self { bucket, prefix: "", delimiter: None, page_size: 100, order: "path" }
    }

    /// Kind and path, or the file's name where it has no path; and the token of the next page.
    fn try_page(
        &self,
        session: &mut Client,
        token: Option<&str>,
    ) -> Result<(Vec<String>, Option<String>), Error> {
        let rows = session.query(
            "SELECT kind, coalesce(path, filename), page_token, file_id IS NULL
             FROM storage.list_files($1, $2, $3, $4, $5, $6::text::storage.list_order)",
            &[&self.bucket, &self.prefix, &self.delimiter, &self.page_size, &token, &self.order],
        )?;
        for row in &rows {
            assert_eq!(row.get::<_, &str>(0) == "prefix", row.get::<_, bool>(3));
        }
        let last = rows.len().saturating_sub(1);
        assert!(rows.iter().take(last).all(|row| row.get::<_, Option<String>>(2).is_none()));
        let next = rows.last().and_then(|row| row.get(2));
        let entries =
            rows.iter().map(|row| format!("{} {}", row.get::<_, String>(0), row.get::<_, String>(1)));
        Ok((entries.collect(), next))
    }

    #[track_caller]
    fn page(&self, session: &mut Client, token: Option<&str>) -> (Vec<String>, Option<String>) {
        self.try_page(session, token).unwrap_or_else(|error| panic!("{self:?}: {:?}", error.as_db_error()))
    }

    /// All pages.
    #[track_caller]
    fn all(&self, session: &mut Client) -> Vec<String> {
        let (mut entries, mut next) = self.page(session, None);
        assert!(entries.len() <= self.page_size as usize);
        while let Some(token) = next {
            assert_eq!(
                entries.len() % self.page_size as usize,
                0,
                "{self:?}: a page before the last is full"
            );
            let (more, after) = self.page(session, Some(&token));
            assert!(!more.is_empty(), "{self:?}: a token leads to something");
            entries.extend(more);
            next = after;
        }
        entries
    }
}

/// Rows of files whose bytes nobody asks for.
fn put_rows(scene: &Scene, bucket: &str, owner: &str, files: &[(Option<String>, &str)]) {
    let mut superuser = scene.superuser();
    superuser.batch_execute("SET session_replication_role = replica").unwrap();
    let statement = format!(
        "INSERT INTO storage.files (tenant_id, bucket_id, object_id, owner_id, filename, path, content_type, size, sha256, created_at, is_current, expires_at)
         SELECT 'default', '{bucket}', gen_random_uuid(), '{owner}', $2, $1, 'text/plain', 1 + (random() * 5)::int,
                repeat('0', 64), now() - interval '1 second' * (random() * 5)::int, $3 <> 'old',
                CASE $3 WHEN 'over' THEN now() - interval '1 second' END"
    );
    let statement = superuser.prepare(&statement).unwrap();
    for (place, (path, kind)) in files.iter().enumerate() {
        superuser.execute(&statement, &[path, &format!("file {place}"), kind]).unwrap();
    }
}

fn bucket_of(scene: &Scene, owner: &str, key: &str) -> String {
    scene.value(&format!("SELECT id::text FROM storage.buckets WHERE owner_id = '{owner}' AND key = '{key}'"))
}

/// What a listing by path is: written down without any index.
fn expected(paths: &BTreeSet<String>, pathless: &[String], list: &List<'_>) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    // Strings compare by their bytes.
    for path in paths.iter().filter(|path| path.starts_with(list.prefix)) {
        let rest = &path[list.prefix.len()..];
        let entry = match list.delimiter.and_then(|delimiter| Some((rest.find(delimiter)?, delimiter))) {
            Some((at, delimiter)) => format!("prefix {}{}", list.prefix, &rest[..at + delimiter.len()]),
            None => format!("file {path}"),
        };
        if entries.last() != Some(&entry) {
            entries.push(entry);
        }
    }
    if list.prefix.is_empty() {
        entries.extend(pathless.iter().map(|name| format!("file {name}")));
    }
    entries
}

#[test]
fn any_prefix_and_delimiter_list_what_is_visible_in_order() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bucket = bucket_of(&scene, "ada", "private");
    let mut rng = Rng::new(5);
    // Characters on both sides of the delimiters, one before and one after all ASCII.
    let parts = ["a", "b", "A", "+", "a-b", "é", "ab", "z", "図", "--"];
    let mut random_path = || -> String {
        let depth = 1 + rng.below(4);
        (0..depth).map(|_| rng.pick(&parts)).collect::<Vec<_>>().join("/")
    };
    let visible: BTreeSet<String> = (0..400).map(|_| random_path()).collect();
    // Alone in folders of their own and beside hers: of other users, expired, or a version that was.
    let hidden: BTreeSet<String> = (0..200)
        .map(|n| if n % 2 == 0 { format!("hidden{n}/x") } else { format!("{}/h{n}", random_path()) })
        .collect();
    let as_rows = |paths: &BTreeSet<String>, kind: &'static str| -> Vec<(Option<String>, &'static str)> {
        paths.iter().map(|path| (Some(path.clone()), kind)).collect()
    };
    put_rows(&scene, &bucket, "ada", &as_rows(&visible, "current"));
    put_rows(&scene, &bucket, "ada", &as_rows(&visible, "old"));
    let (others, rest): (BTreeSet<String>, BTreeSet<String>) =
        hidden.into_iter().enumerate().fold(Default::default(), |mut sorted, (n, path)| {
            if n % 3 == 0 {
                sorted.0.insert(path)
            } else {
                sorted.1.insert(path)
            };
            sorted
        });
    put_rows(&scene, &bucket, "bob", &as_rows(&others, "current"));
    put_rows(&scene, &bucket, "ada", &as_rows(&rest, "over"));
    put_rows(&scene, &bucket, "ada", &[(None, "current"), (None, "current"), (None, "current")]);
    let pathless: Vec<String> = ada
        .query("SELECT filename FROM storage.files WHERE path IS NULL ORDER BY id", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();

    let mut compared = 0;
    for prefix in [
        "",
        "a",
        "a/",
        "a/b/",
        "a/a",
        "é",
        "é/",
        "図/",
        "hidden",
        "z/z/z/z",
        "nothing",
        "--/",
        "\u{10ffff}",
        "a b",
    ] {
        for delimiter in [None, Some("/"), Some("-"), Some("/a"), Some("é"), Some("--/")] {
            for page_size in [1, 2, 7, 1000] {
                let list = List { prefix, delimiter, page_size, ..List::of("private") };
                assert_eq!(list.all(&mut ada), expected(&visible, &pathless, &list), "{list:?}");
                compared += 1;
            }
        }
    }
    println!("{compared} listings of {} files", visible.len());
    // Empty is none.
    let empty = List { delimiter: Some(""), ..List::of("private") };
    assert_eq!(empty.all(&mut ada), List::of("private").all(&mut ada));
}

#[test]
fn folders_are_the_same_on_pages_of_any_size_whatever_is_hidden_between() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bucket = bucket_of(&scene, "ada", "private");
    // Files before, in, between and behind folders; names that begin alike; delimiters in a row and at an end.
    let visible: BTreeSet<String> = [
        "a",
        "a!",
        "a/1",
        "a/2/x",
        "a/2/y",
        "a/é",
        "a0",
        "b--c",
        "b---c",
        "b--",
        "é/図/z",
        "é/図/ß",
        "éa",
        "図",
        "図/図",
        "\u{fb01}/x",
        "\u{1d7d8}/x",
        "\u{1d7d8}",
    ]
    .map(str::to_owned)
    .into();
    let rows: Vec<_> = visible.iter().map(|path| (Some(path.clone()), "current")).collect();
    put_rows(&scene, &bucket, "ada", &rows);
    put_rows(&scene, &bucket, "ada", &[(None, "current"), (None, "current")]);
    let pathless: Vec<String> = ada
        .query("SELECT filename FROM storage.files WHERE path IS NULL ORDER BY id", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    // What bob has: in folders of his own beside each of hers, and in hers before and behind her files.
    let his: Vec<_> = visible
        .iter()
        .flat_map(|path| {
            (0..20).flat_map(move |n| [format!("{path}+/{n}"), format!("{path}/!{n}"), format!("{path}~{n}")])
        })
        .map(|path| (Some(path), "current"))
        .collect();
    put_rows(&scene, &bucket, "bob", &his);
    for prefix in ["", "a", "a/", "a/2", "b", "b-", "é/", "é", "図", "\u{1d7d8}"] {
        for delimiter in ["/", "--", "-", "é/", "図/", "/図", "0", "\u{10ffff}", "\u{d7ff}"] {
            let list = List { prefix, delimiter: Some(delimiter), ..List::of("private") };
            let whole = expected(&visible, &pathless, &list);
            for page_size in 1..=whole.len() as i32 + 1 {
                let list = List { page_size, ..list.clone() };
                assert_eq!(list.all(&mut ada), whole, "{list:?}");
            }
        }
    }
}

#[test]
fn a_page_of_folders_reads_one_row_of_each_and_sorts_nothing() {
    let scene = Scene::local();
    scene.user("ada");
    let bucket = bucket_of(&scene, "ada", "private");
    let mut session = scene.superuser();
    session
        .batch_execute(&format!(
            "SET session_replication_role = replica;
             INSERT INTO storage.files (tenant_id, bucket_id, object_id, owner_id, filename, path, content_type, size, sha256)
             SELECT 'default', '{bucket}', gen_random_uuid(), 'ada', 'f', to_char(n % 200, 'FM000') || '/' || n, 'text/plain', 1,
                    repeat('0', 64)
             FROM generate_series(1, 40000) n;
             ANALYZE storage.files;
             LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
             SET auto_explain.log_level = log;
             SET SESSION AUTHORIZATION {}; SELECT set_config('jwt.claims.user_id', 'ada', false)",
            scene.writer
        ))
        .unwrap();
    let read = |session: &mut Client| -> i64 {
        let read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables
                    WHERE relid = 'storage.files'::regclass";
        session.query_one(read, &[]).unwrap().get(0)
    };
    let list = List { delimiter: Some("/"), ..List::of("private") };
    let before = scene.database.cluster().log().len();
    // Often enough for a plan that is kept.
    for round in 0..8 {
        session.batch_execute("BEGIN").unwrap();
        let so_far = read(&mut session);
        assert_eq!(list.page(&mut session, None).0.len(), 100);
        assert_eq!(read(&mut session) - so_far, 101, "round {round}");
        session.batch_execute("COMMIT").unwrap();
    }
    let log = scene.database.cluster().log();
    let plans: Vec<&str> = log[before..].split("Query Text: WITH RECURSIVE entry").skip(1).collect();
    assert!(plans.len() >= 8);
    for plan in plans {
        // Lines of one message begin with a tab.
        let plan =
            plan.lines().skip(1).take_while(|line| line.starts_with('\t')).collect::<Vec<_>>().join("\n");
        assert_eq!(plan.matches("Index Scan using files_by_path").count(), 2, "{plan}");
        assert!(!plan.contains("Sort") && !plan.contains("Seq Scan on files"), "{plan}");
    }
}

#[test]
fn the_newest_and_the_largest_come_first_on_any_pages() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bucket = bucket_of(&scene, "ada", "private");
    let rows: Vec<_> = (0..60).map(|n| (Some(format!("{}/{n}", n % 3)), "current")).collect();
    put_rows(&scene, &bucket, "ada", &rows);
    put_rows(&scene, &bucket, "ada", &[(None, "current"), (None, "over"), (Some("1/old".to_owned()), "old")]);
    put_rows(&scene, &bucket, "bob", &[(Some("1/his".to_owned()), "current")]);
    for (order, column) in [("newest", "created_at"), ("largest", "size")] {
        for prefix in ["", "1/"] {
            let query = format!(
                "SELECT 'file ' || coalesce(path, filename) FROM storage.files
                 WHERE is_current AND owner_id = 'ada' AND expires_at IS NULL AND (path ^@ '{prefix}' OR '{prefix}' = '')
                 ORDER BY {column} DESC, id DESC"
            );
            let expected: Vec<String> =
                scene.superuser().query(&query, &[]).unwrap().iter().map(|row| row.get(0)).collect();
            assert_eq!(expected.len(), if prefix.is_empty() { 61 } else { 20 });
            for page_size in [1, 7, 1000] {
                let list = List { order, prefix, page_size, ..List::of("private") };
                assert_eq!(list.all(&mut ada), expected, "{list:?}");
            }
        }
    }
}

#[test]
fn an_uploaded_file_is_listed_with_what_is_known_of_it() {
    each_store(|scene| {
        scene.shared_bucket();
        let (mut ada, mut bob) = (scene.user("ada"), scene.user("bob"));
        let bytes = some_bytes("listed", 70);
        let file = Upload::declared(&bytes).to("shared").at("docs/a.txt").complete(&mut ada, &bytes).file_id;
        Upload::of(b"never sent").to("shared").at("docs/later.txt").request(&mut ada);
        for session in [&mut ada, &mut bob] {
            let row = session
                .query_one(
                    "SELECT l.file_id::text = $1 AND l.sha256 = f.sha256 AND l.size = 70 AND l.filename = f.filename
                            AND l.owner_id = 'ada' AND l.version = 1 AND l.content_type = f.content_type
                            AND l.metadata = f.metadata AND l.created_at = f.created_at
                            AND l.expires_at IS NOT DISTINCT FROM f.expires_at AND l.page_token IS NULL
                     FROM storage.list_files('shared', 'docs/') l, storage.files f WHERE f.id = l.file_id",
                    &[&file],
                )
                .unwrap();
            assert!(row.get::<_, bool>(0));
        }
        // A new version takes its place, a deleted file is gone.
        let bytes = some_bytes("again", 71);
        let next = Upload::declared(&bytes).to("shared").at("docs/a.txt").complete(&mut ada, &bytes);
        let version = "SELECT version FROM storage.list_files('shared')";
        assert_eq!(bob.query_one(version, &[]).unwrap().get::<_, i32>(0), 2);
        ada.execute("SELECT storage.delete_file($1::text::uuid)", &[&next.file_id]).unwrap();
        assert_eq!(List::of("shared").all(&mut bob), Vec::<String>::new());
    });
}

#[test]
fn a_token_fits_its_listing_and_no_other() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bucket = bucket_of(&scene, "ada", "private");
    let rows: Vec<_> = (0..9).map(|n| (Some(format!("a/{n}")), "current")).collect();
    put_rows(&scene, &bucket, "ada", &rows);
    let list = List { page_size: 2, ..List::of("private") };
    let token = list.page(&mut ada, None).1.unwrap();
    assert_eq!(list.page(&mut ada, Some(&token)).0, ["file a/2", "file a/3"]);
    // The bucket may be named otherwise, and pages may have another size.
    let by_id = List { bucket: &bucket, page_size: 3, ..list.clone() };
    assert_eq!(by_id.page(&mut ada, Some(&token)).0, ["file a/2", "file a/3", "file a/4"]);

    let mut wrong = vec![
        (list.clone(), format!("{token}A")),
        (list.clone(), token[1..].to_owned()),
        (list.clone(), String::new()),
        (list.clone(), "🙂".to_owned()),
        (List { bucket: "public", ..list.clone() }, token.clone()),
        (List { prefix: "a", ..list.clone() }, token.clone()),
        (List { delimiter: Some("/"), ..list.clone() }, token.clone()),
        (List { order: "newest", ..list.clone() }, token.clone()),
    ];
    for place in 0..token.len() {
        let other = if &token[place..=place] == "A" { "B" } else { "A" };
        wrong.push((list.clone(), format!("{}{other}{}", &token[..place], &token[place + 1..])));
    }
    for (list, token) in &wrong {
        let refusal = refused(list.try_page(&mut ada, Some(token)));
        assert_eq!(refusal.code(), ("22023", "INVALID_PAGE_TOKEN"), "{list:?} {token}");
        assert!(refusal.hint.is_some());
    }
    // The key is the owner's, and with another one the token is none.
    let refusal = refused(ada.query("SELECT key FROM storage_private.secrets", &[]));
    assert_eq!(refusal.sqlstate, "42501");
    let refusal = refused(ada.query("SELECT storage_private.secret()", &[]));
    assert_eq!(refusal.sqlstate, "42501");
    let another = "UPDATE storage_private.secrets SET key = sha256('another')";
    scene.superuser().batch_execute(another).unwrap();
    // A session asks for it once.
    assert_eq!(
        refused(list.try_page(&mut scene.user("ada"), Some(&token))).code(),
        ("22023", "INVALID_PAGE_TOKEN")
    );
}

#[test]
fn a_token_shows_nobody_what_they_may_not_see() {
    let scene = Scene::local();
    scene.shared_bucket();
    let (mut ada, mut eve) = (scene.user("ada"), scene.stranger("eve", "elsewhere"));
    let bucket: String = scene.value("SELECT id::text FROM storage.buckets WHERE key = 'shared'");
    let rows: Vec<_> = (0..9).map(|n| (Some(format!("a/{n}")), "current")).collect();
    put_rows(&scene, &bucket, "ada", &rows);
    let list = List { bucket: &bucket, page_size: 2, ..List::of("shared") };
    let token = list.page(&mut ada, None).1.unwrap();
    assert_eq!(refused(list.try_page(&mut eve, Some(&token))).code(), ("42704", "BUCKET_NOT_FOUND"));
    let direct =
        format!("SELECT * FROM storage_private.list_page('{bucket}', '', NULL, 2, '{token}', 'path')");
    assert_eq!(eve.query(&direct, &[]).unwrap().len(), 0);
}

#[test]
fn what_is_there_all_the_time_is_listed_once_whatever_is_written_meanwhile() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let bucket = bucket_of(&scene, "ada", "private");
    let kept: Vec<_> = (0..100).map(|n| (Some(format!("kept{}/{n}", n % 10)), "current")).collect();
    put_rows(&scene, &bucket, "ada", &kept);
    for order in ["path", "newest", "largest"] {
        let list = List { page_size: 7, order, ..List::of("private") };
        let (mut seen, mut next) = list.page(&mut ada, None);
        let mut turn = 0;
        while let Some(token) = next {
            // Before, at and after the position; and the entry that the token stands for goes.
            turn += 1;
            let new: Vec<_> = ["a", "kept", "kept3/", "z"]
                .map(|place| (Some(format!("{place}{order}new{turn}")), "current"))
                .into();
            put_rows(&scene, &bucket, "ada", &new);
            if turn % 2 == 0 {
                ada.batch_execute("DELETE FROM storage.files WHERE path LIKE '%new%' AND random() < 0.5")
                    .unwrap();
            }
            let (more, after) = list.page(&mut ada, Some(&token));
            seen.extend(more);
            next = after;
        }
        assert!(turn > 10);
        let distinct: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len(), "{order}: nothing twice");
        let kept_seen = seen.iter().filter(|entry| !entry.contains("new")).count();
        assert_eq!(kept_seen, 100, "{order}: nothing left out");
        ada.batch_execute("DELETE FROM storage.files WHERE path LIKE '%new%'").unwrap();
    }
    // The last entry of a page may be gone when the next is asked for.
    let list = List { page_size: 5, ..List::of("private") };
    let (first, token) = list.page(&mut ada, None);
    let last = first.last().unwrap().strip_prefix("file ").unwrap().to_owned();
    ada.execute("DELETE FROM storage.files WHERE path = $1", &[&last]).unwrap();
    let again = list.page(&mut ada, None).0;
    let second = list.page(&mut ada, token.as_deref()).0;
    assert_eq!(again[4], second[0]);
}

#[test]
fn policies_are_told_that_a_listing_asks() {
    let scene = Scene::local();
    scene.shared_bucket();
    let bucket: String = scene.value("SELECT id::text FROM storage.buckets WHERE key = 'shared'");
    let rows = ["list/a", "read/a", "sign/a", "list/b"].map(|path| (Some(path.to_owned()), "current"));
    put_rows(&scene, &bucket, "ada", &rows);
    scene
        .superuser()
        .batch_execute(
            "SELECT storage.enable_default_policies(false);
             SELECT storage.add_policy('b', 'buckets', 'read', 'true');
             SELECT storage.add_policy('l', 'files', 'list', $$path ^@ 'list/'$$);
             SELECT storage.add_policy('r', 'files', 'read', $$path ^@ 'read/'$$);
             SELECT storage.add_policy('s', 'files', 'sign', $$path ^@ 'sign/'$$)",
        )
        .unwrap();
    let mut bob = scene.database.connect_as(&scene.writer, &[("jwt.claims.user_id", "bob")]);
    let list = List::of("shared");
    assert_eq!(list.all(&mut bob), ["file list/a", "file list/b"]);
    assert_eq!(List { delimiter: Some("/"), ..list.clone() }.all(&mut bob), ["prefix list/"]);
    for order in ["newest", "largest"] {
        assert_eq!(List { order, ..list.clone() }.all(&mut bob).len(), 2);
        assert_eq!(List { order, prefix: "sign/", ..list.clone() }.all(&mut bob).len(), 0);
    }
    // An error on the way leaves nothing behind.
    refused(List { page_size: 0, ..list }.try_page(&mut bob, None));
    assert_eq!(bob.query_one("SELECT storage.operation()", &[]).unwrap().get::<_, String>(0), "read");
}

#[test]
fn arguments_are_refused_with_their_reason() {
    let scene = Scene::local();
    let mut ada = scene.user("ada");
    let list = List::of("private");
    for (list, code) in [
        (List { page_size: 0, ..list.clone() }, ("22023", "INVALID_LIMIT")),
        (List { page_size: -1, ..list.clone() }, ("22023", "INVALID_LIMIT")),
        (List { page_size: 1001, ..list.clone() }, ("22023", "INVALID_LIMIT")),
        (List { delimiter: Some("/"), order: "newest", ..list.clone() }, ("22023", "INVALID_DELIMITER")),
        (List { delimiter: Some("/"), order: "largest", ..list.clone() }, ("22023", "INVALID_DELIMITER")),
        (List { bucket: "none", ..list.clone() }, ("42704", "BUCKET_NOT_FOUND")),
    ] {
        let refusal = refused(list.try_page(&mut ada, None));
        assert_eq!(refusal.code(), code, "{list:?}");
        assert!(refusal.detail.is_some() && refusal.hint.is_some(), "{refusal:?}");
    }
    let nulls = "SELECT * FROM storage.list_files(NULL, NULL, NULL, NULL, NULL, NULL)";
    assert_eq!(ada.query(nulls, &[]).unwrap().len(), 0);
    // A reader lists; and in a transaction that only reads.
    let role = scene.database.role("reader");
    let mut reader = scene.database.connect_as(&role, &[("jwt.claims.user_id", "ada")]);
    reader.batch_execute("BEGIN READ ONLY; SELECT storage.list_files('private'); COMMIT").unwrap();
}

#[test]
fn a_dump_has_no_key() {
    let scene = Scene::local();
    let dumped: i64 = scene.value(
        "SELECT count(*) FROM pg_extension e, unnest(e.extconfig) c
         WHERE e.extname = 'pg_storage' AND c = 'storage_private.secrets'::regclass",
    );
    assert_eq!(dumped, 0);
    let keys = |scene: &Scene| -> Vec<u8> { scene.value("SELECT key FROM storage_private.secrets") };
    assert_ne!(keys(&scene), keys(&Scene::local()), "each database has its own");
}
