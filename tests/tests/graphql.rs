//! PostGraphile over the schema: what a site does with its users' files, under a role and the claims of a token.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{sha256, some_bytes};
use pg_storage_tests::parts::{Form, SMALLEST};
use pg_storage_tests::reader::Reader;
use pg_storage_tests::scene::takes_parts;
use pg_storage_tests::{Scene, docs, http, web::Site};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// The id of a user's bucket, as the user sees it.
fn bucket(site: &Site, token: &str, key: &str) -> String {
    let buckets = site.data(token, "Buckets", &json!({}));
    let found = buckets["buckets"]["nodes"].as_array().unwrap().iter().find(|bucket| bucket["key"] == key);
    text(&found.unwrap_or_else(|| panic!("no bucket {key} in {buckets}"))["rowId"]).to_owned()
}

/// Asks for an upload to the bucket `private` and gives the ticket.
fn request(site: &Site, token: &str, filename: &str, bytes: &[u8]) -> Value {
    let variables = json!({ "bucket": "private", "filename": filename, "contentType": "text/plain",
                            "size": bytes.len().to_string(), "sha256": sha256(bytes) });
    site.data(token, "RequestUpload", &variables)["requestUploadUrl"]["result"].take()
}

/// Sends the bytes as the ticket says.
fn put(ticket: &Value, bytes: &[u8]) {
    let headers = ticket["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), text(value).to_owned()))
        .collect();
    let answer = http::request_with_body(text(&ticket["method"]), text(&ticket["url"]), &headers, bytes);
    assert!(answer.is_success(), "{} {}", answer.status, answer.text());
}

/// Confirms and gives the verdict and the file.
fn confirm(site: &Site, token: &str, ticket: &Value) -> (Value, Value) {
    let variables = json!({ "uploadId": ticket["uploadId"], "fileId": ticket["fileId"] });
    let mut answer = site.data(token, "ConfirmUpload", &variables)["confirmUpload"].take();
    (answer["result"].take(), answer["query"]["file"].take())
}

/// Uploads and gives the file.
fn upload(site: &Site, token: &str, filename: &str, bytes: &[u8]) -> Value {
    let ticket = request(site, token, filename, bytes);
    put(&ticket, bytes);
    let (verdict, file) = confirm(site, token, &ticket);
    assert_eq!(verdict, json!({ "status": "uploaded", "reason": null, "details": null }));
    file
}

/// All pages of the files of a bucket, by name.
fn pages(site: &Site, token: &str, bucket: &str, first: i32, between: impl Fn(usize)) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut after = Value::Null;
    loop {
        let variables = json!({ "bucketId": bucket, "first": first, "after": after });
        let files = site.data(token, "Files", &variables)["files"].take();
        pages.push(
            files["nodes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|file| text(&file["filename"]).to_owned())
                .collect(),
        );
        assert!(pages.len() < 100, "the pages have no end: {pages:?}");
        if files["pageInfo"]["hasNextPage"] == false {
            return pages;
        }
        after = files["pageInfo"]["endCursor"].clone();
        between(pages.len());
    }
}

#[test]
fn the_life_of_a_file_over_graphql() {
    let scene = Scene::local();
    scene.user("ada");
    let site = Site::start(&scene);
    let ada = site.token("ada", "writer");
    assert_eq!(
        site.data(&ada, "Me", &json!({})),
        json!({ "currentUserId": "ada", "currentTenantId": "default" })
    );
    let private = bucket(&site, &ada, "private");

    let bytes = some_bytes("over GraphQL", 5000);
    let ticket = request(&site, &ada, "note.txt", &bytes);
    assert_eq!((&ticket["deduplicated"], &ticket["method"]), (&json!(false), &json!("PUT")));
    // Nothing has arrived: that is an answer and no error.
    let (verdict, file) = confirm(&site, &ada, &ticket);
    assert_eq!((&verdict["status"], &verdict["reason"]), (&json!("requested"), &json!("NOT_UPLOADED")));
    assert_eq!(file, Value::Null);

    put(&ticket, &bytes);
    let (verdict, file) = confirm(&site, &ada, &ticket);
    assert_eq!(verdict["status"], "uploaded");
    assert_eq!((&file["rowId"], &file["filename"]), (&ticket["fileId"], &json!("note.txt")));
    assert_eq!((&file["size"], &file["sha256"]), (&json!("5000"), &json!(sha256(&bytes))));
    let answer = http::get(text(&file["downloadUrl"]));
    assert_eq!((answer.status, &answer.body), (200, &bytes));
    assert_eq!(answer.headers["content-type"], "text/plain");

    // The same bytes again: no upload is asked for.
    let again = request(&site, &ada, "copy.txt", &bytes);
    assert_eq!((&again["deduplicated"], &again["url"]), (&json!(true), &Value::Null));
    let (verdict, copy) = confirm(&site, &ada, &again);
    assert_eq!((&verdict["status"], &copy["filename"]), (&json!("uploaded"), &json!("copy.txt")));

    let renamed = json!({ "fileId": file["rowId"], "filename": "letter.txt", "metadata": { "tags": ["a"] } });
    assert_eq!(
        site.data(&ada, "RenameFile", &renamed)["updateFile"]["file"],
        json!({ "filename": "letter.txt", "metadata": { "tags": ["a"] } })
    );

    let deleted = site.data(&ada, "DeleteFile", &json!({ "fileId": file["rowId"] }));
    assert_eq!(deleted["deleteFile"]["result"]["filename"], "letter.txt");
    assert_eq!(pages(&site, &ada, &private, 10, |_| ()), [["copy.txt"]]);
    assert_eq!(http::get(text(&copy["downloadUrl"])).body, bytes, "its bytes are the other file's as well");

    let ticket = request(&site, &ada, "never.txt", b"never sent");
    let aborted = site.data(&ada, "AbortUpload", &json!({ "uploadId": ticket["uploadId"] }));
    assert_eq!(aborted["abortUpload"]["result"], json!({ "status": "aborted", "reason": "ABORTED" }));
    let (verdict, _) = confirm(&site, &ada, &ticket);
    assert_eq!(verdict["status"], "aborted");
}

#[test]
fn forms_and_parts_over_graphql() {
    let scene = Scene::local();
    scene.user("ada");
    let site = Site::start(&scene);
    let ada = site.token("ada", "writer");

    let variables = json!({ "bucket": "private", "filename": "form.txt", "contentType": "text/plain", "maxSize": "1000" });
    let ticket = site.data(&ada, "RequestForm", &variables)["requestUploadForm"]["result"].take();
    let fields = ticket["fields"].as_object().unwrap().iter();
    let form = Form {
        upload_id: text(&ticket["uploadId"]).to_owned(),
        file_id: text(&ticket["fileId"]).to_owned(),
        url: text(&ticket["url"]).to_owned(),
        fields: fields.map(|(name, value)| (name.clone(), text(value).to_owned())).collect(),
    };
    assert!(form.post(b"by form, over GraphQL").is_success());
    let (verdict, file) = confirm(&site, &ada, &ticket);
    assert_eq!((&verdict["status"], &file["size"]), (&json!("uploaded"), &json!("21")));

    let bytes = some_bytes("parts over GraphQL", SMALLEST + 10);
    let variables = json!({ "bucket": "private", "filename": "parts.txt", "contentType": "text/plain",
                            "size": bytes.len().to_string(), "partSize": SMALLEST.to_string() });
    if !takes_parts() {
        let (message, extensions) = site.error(&ada, "RequestParts", &variables);
        assert!(message.starts_with("NOT_CONFIGURED: "), "{message} {extensions}");
        return;
    }
    let ticket = site.data(&ada, "RequestParts", &variables)["requestMultipartUpload"]["result"].take();
    assert_eq!((&ticket["deduplicated"], &ticket["partCount"]), (&json!(false), &json!(2)));
    let upload = json!({ "uploadId": ticket["uploadId"] });
    for sent in 0..2 {
        let listed = site.data(&ada, "ListParts", &upload)["listUploadParts"]["result"].take();
        let missing = listed.as_array().unwrap().iter().filter(|part| part["uploaded"] == false);
        let missing: Vec<&Value> = missing.map(|part| &part["partNumber"]).collect();
        assert_eq!(missing.len(), 2 - sent, "{listed}");
        let (verdict, _) = confirm(&site, &ada, &ticket);
        assert_eq!((&verdict["status"], &verdict["reason"]), (&json!("requested"), &json!("NOT_UPLOADED")));
        let variables = json!({ "uploadId": ticket["uploadId"], "partNumbers": [missing[0]] });
        let part = &site.data(&ada, "SignParts", &variables)["signUploadParts"]["result"].take()[0];
        let number = |name: &str| text(&part[name]).parse::<usize>().unwrap();
        put(part, &bytes[number("firstByte")..number("firstByte") + number("size")]);
    }
    let (verdict, file) = confirm(&site, &ada, &ticket);
    assert_eq!((&verdict["status"], &file["sha256"]), (&json!("uploaded"), &json!(sha256(&bytes))));
    let (message, extensions) = site.error(&ada, "ListParts", &upload);
    assert!(message.starts_with("UPLOAD_NOT_PENDING: "), "{message} {extensions}");

    let ticket = site.data(
        &ada,
        "RequestParts",
        &json!({ "bucket": "private", "filename": "never.txt", "contentType": "text/plain", "size": "10" }),
    )["requestMultipartUpload"]["result"]
        .take();
    let aborted = site.data(&ada, "AbortUpload", &json!({ "uploadId": ticket["uploadId"] }));
    assert_eq!(aborted["abortUpload"]["result"]["status"], "aborted");
}

#[test]
fn many_uploads_in_one_call() {
    let scene = Scene::local();
    scene.user("ada");
    let site = Site::start(&scene);
    let ada = site.token("ada", "writer");
    let files: Vec<Vec<u8>> =
        (0..4).map(|number| some_bytes(&format!("one of many {number}"), 100 + number)).collect();
    let spec = |bytes: &Vec<u8>| {
        json!({ "filename": format!("{}.txt", bytes.len()), "contentType": "text/plain",
                                         "size": bytes.len().to_string(), "metadata": { "batch": 1 } })
    };
    let specs: Vec<Value> = files.iter().map(spec).collect();
    let mut asked = site.data(&ada, "RequestUploads", &json!({ "bucket": "private", "files": specs }));
    let tickets = asked["requestUploadUrls"]["result"].take();
    let tickets = tickets.as_array().unwrap();
    assert_eq!(tickets.len(), 4);
    // The last one is never sent.
    for (ticket, bytes) in tickets.iter().zip(&files).take(3) {
        put(ticket, bytes);
    }
    let ids: Vec<&Value> = tickets.iter().map(|ticket| &ticket["uploadId"]).collect();
    let verdicts = site.data(&ada, "ConfirmUploads", &json!({ "uploadIds": ids }));
    let outcomes: Vec<(&str, Option<&str>)> = verdicts["confirmUploads"]["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|verdict| (text(&verdict["status"]), verdict["reason"].as_str()))
        .collect();
    let uploaded = ("uploaded", None);
    assert_eq!(outcomes, [uploaded, uploaded, uploaded, ("requested", Some("NOT_UPLOADED"))]);
    let mut found = pages(&site, &ada, &bucket(&site, &ada, "private"), 10, |_| ()).concat();
    found.sort();
    assert_eq!(found, ["100.txt", "101.txt", "102.txt"]);

    // One that is refused refuses all.
    let before = scene.rows();
    let mut specs = specs;
    specs[2]["filename"] = json!("a/b.txt");
    let (_, extensions) = site.error(&ada, "RequestUploads", &json!({ "bucket": "private", "files": specs }));
    assert_eq!(extensions["code"], "INVALID_FILENAME");
    assert_eq!(scene.rows(), before);
}

#[test]
fn a_rejected_upload_stays_rejected_because_the_mutation_commits() {
    let scene = Scene::garage();
    let mut ada = scene.user("ada");
    let site = Site::start(&scene);
    let token = site.token("ada", "writer");
    let ticket = request(&site, &token, "note.txt", b"the declared bytes");
    put(&ticket, b"the declared bytes");
    scene.overwrite(&scene.place_of_upload(text(&ticket["uploadId"])), "text/plain", b"THE DECLARED BYTES");
    for time in ["the first time", "again"] {
        let (verdict, file) = confirm(&site, &token, &ticket);
        assert_eq!(
            (&verdict["status"], &verdict["reason"]),
            (&json!("rejected"), &json!("HASH_MISMATCH")),
            "{time}"
        );
        assert!(text(&verdict["details"]).contains(&sha256(b"THE DECLARED BYTES")), "{verdict}");
        assert_eq!(file, Value::Null);
    }
    let recorded: String =
        ada.query_one("SELECT status::text FROM storage.upload_requests", &[]).unwrap().get(0);
    assert_eq!(recorded, "rejected");
}

#[test]
fn pages_hold_what_the_caller_may_see_and_each_file_once() {
    let scene = Scene::local();
    for user in ["ada", "bob"] {
        scene.user(user);
    }
    let site = Site::start(&scene);
    let (ada, bob) = (site.token("ada", "writer"), site.token("bob", "writer"));
    let name = |user: &str, number: i32| format!("{user} {number}.txt");
    let ids: BTreeMap<String, Value> = (0..7)
        .flat_map(|number| [("ada", &ada, number), ("bob", &bob, number)])
        .map(|(user, token, number)| {
            let name = name(user, number);
            (name.clone(), upload(&site, token, &name, name.as_bytes())["rowId"].clone())
        })
        .collect();

    for (user, token, other) in [("ada", &ada, &bob), ("bob", &bob, &ada)] {
        let own: BTreeSet<String> = (0..7).map(|number| name(user, number)).collect();
        let found = pages(&site, token, &bucket(&site, token, "private"), 3, |_| ());
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1], "{found:?}");
        assert_eq!(found.concat().into_iter().collect::<BTreeSet<_>>(), own);
        // Another's bucket has no files, and no number of files.
        let foreign = json!({ "bucketId": bucket(&site, other, "private"), "first": 3 });
        let hidden = site.data(token, "Files", &foreign);
        assert_eq!((&hidden["files"]["totalCount"], &hidden["files"]["nodes"]), (&json!(0), &json!([])));
    }
    let nobody = site.run(None, "Files", &json!({ "bucketId": bucket(&site, &ada, "private"), "first": 3 }));
    assert_eq!(nobody["data"]["files"]["nodes"], json!([]), "{nobody}");

    // What comes and goes between two pages neither repeats a file nor leaves one out.
    let first = &pages(&site, &ada, &bucket(&site, &ada, "private"), 3, |_| ())[0];
    let found = pages(&site, &ada, &bucket(&site, &ada, "private"), 3, |page| {
        if page == 1 {
            site.data(&ada, "DeleteFile", &json!({ "fileId": ids[&first[0]] }));
        }
    });
    let all: BTreeSet<String> = (0..7).map(|number| name("ada", number)).collect();
    assert_eq!(found.concat().len(), 7, "{found:?}");
    assert_eq!(found.concat().into_iter().collect::<BTreeSet<_>>(), all);
}

#[test]
fn an_error_has_its_token_and_sqlstate_and_leaves_nothing_behind() {
    let scene = Scene::local();
    let mut session = scene.user("ada");
    scene.user("bob");
    let site = Site::start(&scene);
    let (ada, bob) = (site.token("ada", "writer"), site.token("bob", "writer"));
    let theirs = upload(&site, &bob, "secret.txt", b"of bob")["rowId"].clone();
    scene
        .superuser()
        .batch_execute("UPDATE storage.buckets SET max_file_size = 1000 WHERE owner_id = 'ada'")
        .unwrap();
    let before = scene.rows();

    let ask = |filename: &str, size: &str, bucket: &str| json!({ "bucket": bucket, "filename": filename, "contentType": "text/plain", "size": size });
    let nothing = "00000000-0000-4000-8000-000000000000";
    let cases = [
        ("RequestUpload", ask("a.txt", "5", "attic"), "BUCKET_NOT_FOUND", "42704"),
        ("RequestUpload", ask("a/b.txt", "5", "private"), "INVALID_FILENAME", "22023"),
        ("RequestUpload", ask("a.txt", "-1", "private"), "INVALID_FILE_SIZE", "22023"),
        ("RequestUpload", ask("a.txt", "1001", "private"), "FILE_TOO_LARGE", "53400"),
        ("ConfirmUpload", json!({ "uploadId": nothing, "fileId": nothing }), "UPLOAD_NOT_FOUND", "42704"),
        ("AbortUpload", json!({ "uploadId": nothing }), "UPLOAD_NOT_FOUND", "42704"),
        ("DeleteFile", json!({ "fileId": nothing }), "FILE_NOT_FOUND", "42704"),
        ("DeleteFile", json!({ "fileId": theirs }), "FILE_NOT_FOUND", "42704"),
    ];
    for (operation, variables, token, sqlstate) in &cases {
        let (message, extensions) = site.error(&ada, operation, variables);
        assert!(message.starts_with(&format!("{token}: ")), "{operation} {variables}: {message}");
        assert_eq!(
            (&extensions["code"], &extensions["sqlstate"]),
            (&json!(token), &json!(sqlstate)),
            "{operation} {variables}: {extensions}"
        );
        assert!(extensions["hint"].is_string(), "{operation} {variables}: {extensions}");
    }
    // Hidden and absent differ in nothing.
    let (hidden, absent) = (&cases[7].1, &cases[6].1);
    let words = |variables: &Value| {
        let (message, extensions) = site.error(&ada, "DeleteFile", variables);
        let id = text(&variables["fileId"]);
        (message.replace(id, "X"), extensions.to_string().replace(id, "X"))
    };
    assert_eq!(words(hidden), words(absent));
    assert_eq!(scene.rows(), before);

    // What is not ours stays masked, and a caller who did not log in finds no door.
    let refused = site.run(None, "RequestUpload", &ask("a.txt", "5", "private"));
    let (message, extensions) = (&refused["errors"][0]["message"], &refused["errors"][0]["extensions"]);
    assert!(text(message).starts_with("An error occurred"), "{refused}");
    assert_eq!(extensions.get("sqlstate"), None, "{refused}");
    let nameless =
        site.sign(&json!({ "tenant_id": "default", "role": format!("{}_writer", scene.database.name()) }));
    for token in [format!("{ada}x"), nameless, "null".to_owned()] {
        let answer = site.run(Some(&token), "Me", &json!({}));
        assert_eq!(answer["errors"][0]["message"], "the token is not valid", "{answer}");
        assert!(answer["data"].is_null(), "{answer}");
    }
    assert_eq!(scene.rows(), before);
    assert_eq!(
        session.query_one("SELECT count(*) FROM storage.upload_requests", &[]).unwrap().get::<_, i64>(0),
        0
    );
}

/// A type as GraphQL spells it.
fn spelled(of: &Value) -> String {
    match of["kind"].as_str() {
        Some("NON_NULL") => format!("{}!", spelled(&of["ofType"])),
        Some("LIST") => format!("[{}]", spelled(&of["ofType"])),
        _ => text(&of["name"]).to_owned(),
    }
}

#[test]
fn the_mutations_are_these_and_write_no_trusted_column() {
    let scene = Scene::local();
    // Anyone may call what another extension brings, and it is not for the API all the same.
    scene.superuser().batch_execute("CREATE EXTENSION pg_trgm SCHEMA storage").unwrap();
    let site = Site::start(&scene);
    let schema = site.query(
        None,
        "{ __schema { mutationType { fields { name } } types { name inputFields { name type { ...T } } fields { name description } } } }
         fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name } } } }",
    );
    let schema = &schema["data"]["__schema"];
    let types = schema["types"].as_array().unwrap();
    let inputs: BTreeMap<&str, String> = types
        .iter()
        .filter_map(|of| {
            let fields = of["inputFields"].as_array()?;
            let fields = fields.iter().filter(|field| field["name"] != "clientMutationId");
            let fields: Vec<String> = fields
                .map(|field| format!("{}: {}", text(&field["name"]), spelled(&field["type"])))
                .collect();
            Some((text(&of["name"]), fields.join(", ")))
        })
        .collect();
    let mut shown: Vec<String> = schema["mutationType"]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| {
            let name = text(&field["name"]);
            let input = format!("{}{}Input", name[..1].to_uppercase(), &name[1..]);
            format!("{name}({})", inputs[input.as_str()])
        })
        .collect();
    let patches = ["FilePatch", "BucketPatch", "TenantSettingPatch", "TenantSettingInput"];
    shown.extend(patches.iter().map(|patch| format!("{patch}: {}", inputs[patch])));
    shown.sort();
    let golden = include_str!("graphql/mutations.txt");
    assert_eq!(
        shown.join("\n"),
        golden.trim_end(),
        "what the site offers changed; if meant, change graphql/mutations.txt"
    );

    // What describes a table or column in the database describes it here, without what is meant for PostGraphile.
    let file = types.iter().find(|of| of["name"] == "File").unwrap();
    for field in file["fields"].as_array().unwrap() {
        let known = ["bucket", "id"].contains(&text(&field["name"]));
        assert!(known || field["description"].is_string(), "{field}");
    }
    assert!(!schema.to_string().contains("@behavior"));
    let queries = types.iter().find(|of| of["name"] == "Query").unwrap()["fields"].to_string();
    assert!(queries.contains("\"downloadUrls\"") && !queries.contains("\"similarity\""), "{queries}");
}

#[test]
fn what_the_page_about_it_shows_is_what_runs_here() {
    docs::assert_shows_what_runs(
        "docs/graphql.md",
        &["pg_storage.mjs", "graphile.config.mjs", "operations.graphql"],
    );

    let scene = Scene::local();
    scene.user("ada");
    Reader::new(&scene.database).follow("docs/graphql.md", &["sql"]);
    let site = Site::behind(&scene, "site", "anonymous");
    let ada = site.sign(&json!({ "sub": "ada", "tenant_id": "default", "role": "member" }));
    let file = upload(&site, &ada, "note.txt", b"by a member");
    assert_eq!(http::get(text(&file["downloadUrl"])).body, b"by a member");
    let nobody = site.run(None, "Buckets", &json!({}));
    let seen = nobody["data"]["buckets"]["nodes"].as_array().unwrap();
    assert!(seen.iter().all(|bucket| bucket["access"] == "public") && !seen.is_empty(), "{nobody}");
}

#[test]
fn a_manager_makes_and_deletes_buckets() {
    let scene = Scene::local();
    let site = Site::start(&scene);
    let root = site.token("root", "manager");
    let run = |mutation: &str| {
        let answer = site.query(Some(&root), &format!("mutation {{ {mutation} }}"));
        assert!(answer.get("errors").is_none(), "{mutation}: {answer}");
        answer["data"].clone()
    };
    let made = run("createUserBuckets(input: { ownerId: \"ada\" }) { result { key access isDefault } }");
    assert_eq!(made["createUserBuckets"]["result"].as_array().map(Vec::len), Some(3), "{made}");
    let made = run(
        "createBucket(input: { key: \"docs\", ownerId: \"ada\", access: private }) { result { rowId key } }",
    );
    assert_eq!(made["createBucket"]["result"]["key"], "docs");

    let ada = site.token("ada", "writer");
    let id = bucket(&site, &ada, "docs");
    let change = format!("updateBucket(input: {{ rowId: \"{id}\", patch: {{ maxFileSize: \"10\" }} }})");
    let changed = run(&format!("{change} {{ bucket {{ maxFileSize }} }}"));
    assert_eq!(changed["updateBucket"]["bucket"]["maxFileSize"], "10");
    let ticket = json!({ "bucket": "docs", "filename": "a.txt", "contentType": "text/plain", "size": "11" });
    assert_eq!(site.error(&ada, "RequestUpload", &ticket).1["code"], "FILE_TOO_LARGE");

    run(&format!("deleteBucket(input: {{ bucket: \"{id}\" }}) {{ result {{ key }} }}"));
    assert_eq!(site.error(&ada, "RequestUpload", &ticket).1["code"], "BUCKET_NOT_FOUND");
    // A writer is offered the same by the API and refused by the database.
    let refused = site.query(Some(&ada), &format!("mutation {{ {change} {{ clientMutationId }} }}"));
    assert!(refused["errors"].is_array(), "{refused}");
}
