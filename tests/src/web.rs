//! Web clients of a scene: a site with a GraphQL API in front of its database, and a browser that opens a page of it.

use crate::daemon::Daemon;
use crate::{Scene, docs, environment, eventually, http, scratch};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Signs the tokens of the tests' sites.
const JWT_SECRET: &str = "only of these tests";

/// A site in front of a scene's database: PostGraphile at `/graphql`, pages at `/`, `/form` and `/parts`. Its login role may become the scene's
/// manager or writer, or a reader for those who did not log in, and can do nothing itself.
pub struct Site {
    daemon: Daemon,
    scripts: PathBuf,
    origin: String,
    database: String,
    operations: String,
}

impl Site {
    /// Starts one, with a port and so an origin of its own.
    pub fn start(scene: &Scene) -> Self {
        let database = scene.database.name();
        let (login, reader) = (format!("{database}_site"), format!("{database}_reader"));
        scene
            .superuser()
            .batch_execute(&format!(
                "DO $$ BEGIN
                    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{login}') THEN
                        CREATE ROLE {reader};
                        PERFORM storage.grant_access('{reader}', 'reader');
                        CREATE ROLE {login} LOGIN NOINHERIT;
                        GRANT {database}_manager, {database}_writer, {reader} TO {login};
                    END IF;
                 END $$"
            ))
            .expect("make the roles of the site");
        Self::behind(scene, &login, &reader)
    }

    /// Starts one that logs in as `login` and becomes `anonymous` for those who did not log in.
    pub fn behind(scene: &Scene, login: &str, anonymous: &str) -> Self {
        let database = scene.database.name();
        let scripts = scripts();
        let mut command = node(&scripts, "site.mjs");
        command
            .env("DATABASE_URL", format!("postgresql://{login}@/{database}?host={}", socket(scene)))
            .env("ANONYMOUS_ROLE", anonymous);
        let mut daemon = Daemon::spawn("the site", command, &scripts);
        let origin = eventually("the site to listen", Duration::from_secs(120), || {
            daemon.assert_running();
            let log = daemon.log();
            let line = log.lines().find_map(|line| line.strip_prefix("listening on "))?;
            Some(line.to_owned())
        });
        let operations = fs::read_to_string(scripts.join("operations.graphql")).expect("read the operations");
        Self { daemon, scripts, origin, database: database.to_owned(), operations }
    }

    /// `http://127.0.0.1:port`
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// A token of a user who logged in: a `writer` or a `manager` of the tenant `default`.
    pub fn token(&self, user: &str, level: &str) -> String {
        let role = format!("{}_{level}", self.database);
        self.sign(&json!({ "sub": user, "tenant_id": "default", "role": role }))
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let output = node(&self.scripts, "token.mjs").arg(claims.to_string()).output().expect("run node");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a token is text").trim().to_owned()
    }

    /// Runs an operation of `operations.graphql` and gives the whole answer, errors included.
    pub fn run(&self, token: Option<&str>, operation: &str, variables: &Value) -> Value {
        self.send(
            token,
            &json!({ "query": self.operations, "operationName": operation, "variables": variables }),
        )
    }

    /// Runs an operation and gives its data.
    #[track_caller]
    pub fn data(&self, token: &str, operation: &str, variables: &Value) -> Value {
        let mut answer = self.run(Some(token), operation, variables);
        assert!(answer.get("errors").is_none(), "{operation} {variables}: {answer:#}\n{}", self.log());
        answer["data"].take()
    }

    /// Runs an operation that is refused, and gives the message and the extensions of its one error.
    #[track_caller]
    pub fn error(&self, token: &str, operation: &str, variables: &Value) -> (String, Value) {
        let mut answer = self.run(Some(token), operation, variables);
        let errors = answer["errors"].as_array_mut().map(std::mem::take).unwrap_or_default();
        let [error] = errors.as_slice() else { panic!("{operation} {variables}: {errors:?} {answer:#}") };
        (error["message"].as_str().unwrap_or_default().to_owned(), error["extensions"].clone())
    }

    /// Any query.
    pub fn query(&self, token: Option<&str>, query: &str) -> Value {
        self.send(token, &json!({ "query": query }))
    }

    fn send(&self, token: Option<&str>, body: &Value) -> Value {
        let mut headers = http::Headers::from([("content-type".to_owned(), "application/json".to_owned())]);
        if let Some(token) = token {
            headers.insert("authorization".to_owned(), format!("Bearer {token}"));
        }
        let url = format!("{}/graphql", self.origin);
        let answer = http::request_with_body("POST", &url, &headers, body.to_string().as_bytes());
        serde_json::from_slice(&answer.body)
            .unwrap_or_else(|error| panic!("{error}: {} {}\n{}", answer.status, answer.text(), self.log()))
    }

    /// Opens the page `/` in a browser as a user who logged in, uploads `bytes` under `filename` into a bucket, and downloads
    /// them again; gives what `drive.mjs` saw.
    pub fn visit(&self, token: &str, bucket: &str, filename: &str, bytes: &[u8]) -> Value {
        self.visit_page("/", token, bucket, filename, bytes)
    }

    /// The same on another page: `/form` or `/parts`.
    pub fn visit_page(&self, page: &str, token: &str, bucket: &str, filename: &str, bytes: &[u8]) -> Value {
        let scripts = scripts();
        let file = scripts.join(filename);
        fs::write(&file, bytes).expect("write the file to be uploaded");
        let task = json!({
            "chromium": environment::chromium(), "scratch": &scripts, "url": format!("{}{page}", self.origin),
            "token": token, "bucket": bucket, "file": file,
        });
        let output = node(&scripts, "drive.mjs").arg(task.to_string()).output().expect("run node");
        let (shown, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success(),
            "the browser did not get through: {shown}\n{errors}\n{}",
            self.log()
        );
        serde_json::from_str(&shown).expect("drive.mjs prints JSON")
    }
}

/// The clients' scripts in a directory of their own, with their packages beside them.
fn scripts() -> PathBuf {
    let directory = scratch();
    for entry in fs::read_dir(sources()).expect("list tests/web") {
        let entry = entry.expect("list tests/web");
        fs::copy(entry.path(), directory.join(entry.file_name())).expect("copy a script");
    }
    symlink(environment::web_packages(), directory.join("node_modules")).expect("link the packages");
    directory
}

/// Where the clients are kept.
fn sources() -> PathBuf {
    docs::root().join("tests/web")
}

fn node(directory: &Path, script: &str) -> Command {
    let mut command = environment::clean_command(environment::node());
    command
        .current_dir(directory)
        .env("HOME", directory)
        .env("JWT_SECRET", JWT_SECRET)
        .env("GRAPHILE_ENV", "production")
        .arg(script);
    command
}

/// The directory of the scene's socket, as a URL spells it.
fn socket(scene: &Scene) -> String {
    let path = scene.database.cluster().data().to_str().expect("a path in UTF-8");
    path.replace('/', "%2F")
}
