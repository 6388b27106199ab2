//! What PostgREST sends: one transaction for each request, role and claims set in it and for it alone, functions called by
//! name with a JSON body, computed columns as attributes. Its binary is in no registry that the tests can reach, so the
//! statements are spelled out here as it builds them.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_tests::flow::{sha256, some_bytes};
use pg_storage_tests::{Refusal, Scene, http, refused};
use postgres::{Client, Error};
use serde_json::{Value, json};

/// The login role of the API, in one session that all requests share, as a pool may do.
struct Api {
    session: Client,
    database: String,
}

/// GET runs in a read-only transaction, everything else in one that writes.
#[derive(Clone, Copy, PartialEq)]
enum Verb {
    Get,
    Post,
}

impl Api {
    fn new(scene: &Scene) -> Self {
        let database = scene.database.name().to_owned();
        scene
            .superuser()
            .batch_execute(&format!(
                "CREATE ROLE {database}_anon;
                 SELECT storage.grant_access('{database}_anon', 'reader');
                 CREATE ROLE {database}_authenticator LOGIN NOINHERIT;
                 GRANT {database}_anon, {database}_writer TO {database}_authenticator;"
            ))
            .unwrap();
        let session = scene.database.connect_as(&format!("{database}_authenticator"), &[]);
        Self { session, database }
    }

    /// The claims that a token of this user would carry; without one, PostgREST passes only the role.
    fn claims(&self, user: Option<&str>) -> Value {
        let role = |name: &str| format!("{}_{name}", self.database);
        match user {
            Some(user) => {
                json!({ "sub": user, "tenant_id": "default", "role": role("writer"), "exp": 4_102_444_800_u64 })
            }
            None => json!({ "role": role("anon") }),
        }
    }

    /// One request.
    fn send(
        &mut self,
        verb: Verb,
        user: Option<&str>,
        statement: &str,
        body: &Value,
    ) -> Result<Value, Error> {
        let claims = self.claims(user);
        let mut transaction = self
            .session
            .build_transaction()
            .isolation_level(postgres::IsolationLevel::ReadCommitted)
            .read_only(verb == Verb::Get)
            .start()?;
        transaction.execute(
            "SELECT set_config('search_path', '\"storage\", \"public\"', true), set_config('role', $1, true),
                    set_config('request.jwt.claims', $2, true), set_config('request.method', 'POST', true),
                    set_config('request.path', '/rpc', true), set_config('request.headers', '{}', true),
                    set_config('request.cookies', '{}', true)",
            &[&claims["role"].as_str().unwrap(), &claims.to_string()],
        )?;
        let shown = format!(
            "WITH pgrst_source AS ({statement})
             SELECT pg_catalog.count(_postgrest_t), coalesce(json_agg(_postgrest_t)::text, '[]'),
                    nullif(current_setting('response.headers', true), '')
             FROM (SELECT * FROM pgrst_source) _postgrest_t"
        );
        let row = transaction.query_one(&shown, &[&body.to_string()])?;
        let found = serde_json::from_str(row.get(1)).unwrap();
        transaction.commit()?;
        Ok(found)
    }

    /// `POST /rpc/function` with a JSON body: only the parameters that the body names are passed.
    fn call(&mut self, user: Option<&str>, function: &str, body: &Value) -> Result<Value, Error> {
        let mut answer = self.send(Verb::Post, user, &call(function, body), body)?;
        Ok(answer[0].take())
    }
}

/// The types that PostgREST takes from its cache of the schema, for the parameters used here.
fn type_of(parameter: &str) -> &'static str {
    match parameter {
        "size" => "bigint",
        "metadata" => "jsonb",
        "expires_in" => "interval",
        "upload_id" | "file_id" => "uuid",
        "file_ids" => "uuid[]",
        _ => "text",
    }
}

fn call(function: &str, body: &Value) -> String {
    let names: Vec<&String> = body.as_object().unwrap().keys().collect();
    let list =
        |spell: &dyn Fn(&str) -> String| names.iter().map(|name| spell(name)).collect::<Vec<_>>().join(", ");
    format!(
        "SELECT pgrst_call.* FROM (SELECT $1::text::json AS json_data) pgrst_payload,
         LATERAL (SELECT {} FROM json_to_record(pgrst_payload.json_data) AS _({}) LIMIT 1) pgrst_body,
         LATERAL \"storage\".\"{function}\"({}) pgrst_call",
        list(&|name| format!("\"{name}\"")),
        list(&|name| format!("\"{name}\" {}", type_of(name))),
        list(&|name| format!("\"{name}\" := pgrst_body.\"{name}\"")),
    )
}

/// `GET /files?select=…`, with the computed column as an attribute of the table.
const FILES: &str = "SELECT \"storage\".\"files\".\"id\", \"storage\".\"files\".\"filename\",
        \"storage\".\"files\".\"files_download_url\" AS \"downloadUrl\"
     FROM \"storage\".\"files\" WHERE $1::text IS NOT NULL ORDER BY \"storage\".\"files\".\"filename\" ASC LIMIT 10 OFFSET 0";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

fn put(ticket: &Value, bytes: &[u8]) {
    let headers = ticket["headers"].as_object().unwrap();
    let headers = headers.iter().map(|(name, value)| (name.clone(), text(value).to_owned())).collect();
    let answer = http::put(text(&ticket["url"]), &headers, bytes);
    assert!(answer.is_success(), "{} {}", answer.status, answer.text());
}

fn declared(filename: &str, bytes: &[u8]) -> Value {
    json!({ "bucket": "private", "filename": filename, "content_type": "text/plain", "size": bytes.len(),
            "sha256": sha256(bytes), "metadata": { "from": "postgrest" }, "expires_in": "10 minutes" })
}

#[test]
fn the_life_of_a_file_by_calls_with_json_bodies() {
    let scene = Scene::local();
    for user in ["ada", "bob"] {
        scene.user(user);
    }
    let mut api = Api::new(&scene);
    let bytes = some_bytes("over PostgREST", 3000);
    let ticket = api.call(Some("ada"), "request_upload_url", &declared("note.txt", &bytes)).unwrap();
    put(&ticket, &bytes);
    let upload = json!({ "upload_id": ticket["upload_id"] });
    let request = api.call(Some("ada"), "confirm_upload", &upload).unwrap();
    assert_eq!((&request["status"], &request["file_id"]), (&json!("uploaded"), &ticket["file_id"]));

    // Everything that reads does so in a read-only transaction.
    let shown = api.send(Verb::Get, Some("ada"), FILES, &json!({})).unwrap();
    assert_eq!((shown.as_array().unwrap().len(), &shown[0]["filename"]), (1, &json!("note.txt")));
    assert_eq!(http::get(text(&shown[0]["downloadUrl"])).body, bytes);
    let file = json!({ "file_id": ticket["file_id"] });
    let signed = api.send(Verb::Get, Some("ada"), &call("download_url", &file), &file).unwrap();
    assert_eq!(http::get(text(&signed[0]["pgrst_call"])).body, bytes);
    let many = json!({ "file_ids": format!("{{{}}}", text(&ticket["file_id"])) });
    let signed = api.send(Verb::Get, Some("ada"), &call("download_urls", &many), &many).unwrap();
    assert_eq!(http::get(text(&signed[0]["url"])).body, bytes);

    // PATCH and DELETE of a row, with the representation returned.
    let patch = "UPDATE \"storage\".\"files\" SET \"filename\" = pgrst_body.\"filename\"
         FROM (SELECT $1::text::json AS json_data) pgrst_payload,
         LATERAL (SELECT \"filename\" FROM json_to_record(pgrst_payload.json_data) AS _(\"filename\" text) LIMIT 1) pgrst_body
         RETURNING \"storage\".\"files\".\"filename\"";
    let renamed = json!({ "filename": "letter.txt" });
    assert_eq!(
        api.send(Verb::Post, Some("bob"), patch, &renamed).unwrap(),
        json!([]),
        "bob sees none to rename"
    );
    assert_eq!(api.send(Verb::Post, Some("ada"), patch, &renamed).unwrap(), json!([renamed]));
    let delete = "DELETE FROM \"storage\".\"files\" WHERE $1::text IS NOT NULL RETURNING \"storage\".\"files\".\"filename\"";
    assert_eq!(api.send(Verb::Post, Some("bob"), delete, &json!({})).unwrap(), json!([]));
    assert_eq!(api.send(Verb::Post, Some("ada"), delete, &json!({})).unwrap(), json!([renamed]));

    let ticket = api.call(Some("ada"), "request_upload_url", &declared("never.txt", b"never sent")).unwrap();
    let aborted =
        api.call(Some("ada"), "abort_upload", &json!({ "upload_id": ticket["upload_id"] })).unwrap();
    assert_eq!((&aborted["status"], &aborted["reason"]), (&json!("aborted"), &json!("ABORTED")));
}

#[test]
fn a_request_knows_nothing_of_the_one_before_it_in_the_same_session() {
    let scene = Scene::local();
    for user in ["ada", "bob"] {
        scene.user(user);
    }
    let mut api = Api::new(&scene);
    for user in ["ada", "bob"] {
        let name = format!("{user}.txt");
        let ticket = api.call(Some(user), "request_upload_url", &declared(&name, name.as_bytes())).unwrap();
        put(&ticket, name.as_bytes());
        api.call(Some(user), "confirm_upload", &json!({ "upload_id": ticket["upload_id"] })).unwrap();
    }
    let names = |api: &mut Api, user: Option<&str>| -> Vec<String> {
        let shown = api.send(Verb::Get, user, FILES, &json!({})).unwrap();
        shown.as_array().unwrap().iter().map(|file| text(&file["filename"]).to_owned()).collect()
    };
    for _ in 0..2 {
        assert_eq!(names(&mut api, Some("ada")), ["ada.txt"]);
        assert_eq!(names(&mut api, Some("bob")), ["bob.txt"]);
        assert!(names(&mut api, None).is_empty());
        // An error ends its transaction, and with it who called.
        let refusal = refused(api.call(Some("ada"), "delete_file", &json!({ "file_id": uuid(0) })));
        assert_eq!(refusal.code(), ("42704", "FILE_NOT_FOUND"));
        assert!(names(&mut api, None).is_empty());
    }
    // Outside of a request the session is the login role, which may do nothing.
    let refusal = refused(api.session.query("SELECT count(*) FROM storage.files", &[]));
    assert_eq!(refusal.sqlstate, "42501");
}

fn uuid(number: u8) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

#[test]
fn errors_give_the_four_fields_that_it_passes_on() {
    let scene = Scene::local();
    scene.user("ada");
    let mut api = Api::new(&scene);
    let before = scene.rows();
    let with = |name: &str, value: Value| {
        let mut body = declared("a.txt", b"hello");
        body[name] = value;
        body
    };
    let cases = [
        ("request_upload_url", with("bucket", json!("attic")), ("42704", "BUCKET_NOT_FOUND")),
        ("request_upload_url", with("sha256", json!("abc")), ("22023", "INVALID_CONTENT_HASH")),
        ("request_upload_url", with("expires_in", json!("1 year")), ("22023", "INVALID_EXPIRY")),
        ("confirm_upload", json!({ "upload_id": uuid(1) }), ("42704", "UPLOAD_NOT_FOUND")),
        ("delete_file", json!({ "file_id": uuid(2) }), ("42704", "FILE_NOT_FOUND")),
    ];
    for (function, body, code) in &cases {
        let refusal = refused(api.call(Some("ada"), function, body));
        assert_eq!(refusal.code(), *code, "{function} {body}: {refusal:?}");
        let Refusal { detail, hint, .. } = &refusal;
        assert!(detail.is_some() && hint.is_some(), "{function} {body}: {refusal:?}");
    }
    let refusal = refused(api.call(None, "request_upload_url", &declared("a.txt", b"hello")));
    assert_eq!(refusal.sqlstate, "42501", "{refusal:?}");
    assert_eq!(scene.rows(), before);
}

/// Views and functions of a schema of one's own, the usual way to publish a part: rights and rows stay the caller's.
#[test]
fn a_schema_of_ones_own_passes_through_to_the_callers_rights() {
    let scene = Scene::local();
    for user in ["ada", "bob"] {
        scene.user(user);
    }
    let mut api = Api::new(&scene);
    let (database, mut superuser) = (scene.database.name(), scene.superuser());
    let owner = format!("{database}_api");
    superuser
        .batch_execute(&format!(
            "CREATE ROLE {owner};
             CREATE SCHEMA api AUTHORIZATION {owner};
             SELECT storage.grant_access('{owner}', 'reader');
             SET ROLE {owner};
             CREATE VIEW api.documents WITH (security_invoker) AS
                 SELECT f.id, f.filename, storage.files_download_url(f) AS url FROM storage.files f;
             CREATE FUNCTION api.request_upload(json) RETURNS storage.upload_ticket LANGUAGE sql AS $$
                 SELECT storage.request_upload_url(bucket => 'private', filename => $1->>'filename',
                     content_type => $1->>'content_type', size => ($1->>'size')::bigint)
             $$;
             GRANT USAGE ON SCHEMA api TO {database}_writer, {database}_anon;
             GRANT SELECT ON api.documents TO {database}_writer, {database}_anon;
             RESET ROLE;"
        ))
        .unwrap();

    // A function with one unnamed parameter of type json gets the body as it is.
    let single = "SELECT pgrst_call.* FROM (SELECT $1::text::json AS json_data) pgrst_payload,
         LATERAL \"api\".\"request_upload\"(pgrst_payload.json_data) pgrst_call";
    let bytes = some_bytes("as one object", 200);
    let body = json!({ "filename": "one.txt", "content_type": "text/plain", "size": bytes.len(), "more": 1 });
    let ticket = api.send(Verb::Post, Some("ada"), single, &body).unwrap()[0].take();
    put(&ticket, &bytes);
    api.call(Some("ada"), "confirm_upload", &json!({ "upload_id": ticket["upload_id"] })).unwrap();

    let view = "SELECT \"api\".\"documents\".* FROM \"api\".\"documents\" WHERE $1::text IS NOT NULL";
    let shown = api.send(Verb::Get, Some("ada"), view, &json!({})).unwrap();
    assert_eq!((shown.as_array().unwrap().len(), &shown[0]["filename"]), (1, &json!("one.txt")));
    assert_eq!(http::get(text(&shown[0]["url"])).body, bytes);
    for other in [Some("bob"), None] {
        assert_eq!(api.send(Verb::Get, other, view, &json!({})).unwrap(), json!([]), "{other:?}");
    }
    let refusal = refused(api.send(Verb::Post, None, single, &body));
    assert_eq!(refusal.sqlstate, "42501", "{refusal:?}");
}
