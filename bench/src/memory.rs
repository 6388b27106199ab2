//! What a backend keeps to itself, and what the local store needs for a large upload.

use std::fs;
use std::io::Read;

use pg_storage_core::digest;
use pg_storage_tests::flow::Upload;
use pg_storage_tests::{Scene, process};
use postgres::Client;
use ureq::{Agent, SendBody};

use crate::files::USER;
use crate::median::median;
use crate::sizes::Sizes;
use crate::table::Row;

const MEBIBYTE: f64 = 1024.0;

/// Backends that connected, worked on tables of their own, signed, and talked to the store.
///
/// What PostgreSQL keeps of its catalog, and PL/pgSQL, a backend has that does anything at all: so the baseline is one that
/// called a function over a table with policies.
pub fn backends(sizes: Sizes, scene: &Scene) -> Vec<Row> {
    let own = format!(
        "CREATE SCHEMA own; GRANT USAGE ON SCHEMA own TO {0};
         CREATE TABLE own.folders (id bigint PRIMARY KEY, owner_id text NOT NULL);
         CREATE TABLE own.notes (id bigint PRIMARY KEY, folder_id bigint REFERENCES own.folders, note text);
         CREATE INDEX ON own.notes (folder_id);
         ALTER TABLE own.folders ENABLE ROW LEVEL SECURITY;
         ALTER TABLE own.notes ENABLE ROW LEVEL SECURITY;
         CREATE POLICY mine ON own.folders USING (owner_id = current_setting('jwt.claims.user_id'));
         CREATE POLICY mine ON own.notes USING (EXISTS (SELECT FROM own.folders f WHERE f.id = notes.folder_id));
         GRANT SELECT ON own.folders, own.notes TO {0};
         CREATE FUNCTION own.note(note bigint) RETURNS text LANGUAGE plpgsql STABLE AS
         $$ BEGIN RETURN (SELECT n.note FROM own.notes n WHERE n.id = note.note); END $$;",
        scene.writer
    );
    scene.superuser().batch_execute(&own).expect("make a table of one's own");
    let file = crate::files::add(scene, 1).remove(0);
    let ticket = Upload::declared(b"memory").request(&mut scene.user(USER));
    let worked = vec!["SELECT own.note(1)".to_owned()];
    let mut signed = worked.clone();
    signed.push(format!("SELECT storage.download_url('{file}')"));
    let mut talked = signed.clone();
    talked.push(format!("SELECT storage.confirm_upload('{}')", ticket.upload_id));
    // Another session does the same, as in any server in use: what both only map, neither has for itself.
    let mut other = scene.user(USER);
    run(&mut other, &talked);
    let of = |statements: &[String]| {
        median((0..sizes.rounds).map(|_| private_of_a_backend(scene, statements)).collect())
    };
    let (connected, worked, signed, talked) = (of(&[]), of(&worked), of(&signed), of(&talked));
    let row = |what: &str, now: f64, than: &str, before: f64| {
        Row::new(format!("private memory of a backend that {what}"), format!("+ {:.2} MiB", now - before))
            .against(format!("{before:.2} MiB of one that {than}"), now / before)
    };
    vec![
        row("called a function over a table with policies", worked, "connected", connected),
        row("did that and signed", signed, "did that", worked).goal("+ ≤ 0.5 MiB", signed - worked <= 0.5),
        row("did that, signed and talked to the store", talked, "did that", worked)
            .goal("+ ≤ 6 MiB", talked - worked <= 6.0),
    ]
}

/// MiB of a new backend after these statements.
fn private_of_a_backend(scene: &Scene, statements: &[String]) -> f64 {
    let mut session = scene.user(USER);
    run(&mut session, statements);
    private(pid(&mut session))
}

fn run(session: &mut Client, statements: &[String]) {
    for statement in statements {
        session.simple_query(statement).expect("a statement");
    }
}

fn pid(session: &mut Client) -> u32 {
    session
        .query_one("SELECT pg_backend_pid()", &[])
        .expect("ask for the pid")
        .get::<_, i32>(0)
        .unsigned_abs()
}

/// MiB that the process shares with nobody.
fn private(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the process runs");
    field(&rollup, "Private_Clean:") + field(&rollup, "Private_Dirty:")
}

/// A line of /proc, in MiB.
fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says so");
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kibibytes / MEBIBYTE
}

/// The most memory that the local store's worker had during one large upload.
pub fn local_store(sizes: Sizes, scene: &Scene) -> Row {
    scene.set("pg_storage.max_file_size", &format!("{}MB", sizes.mebibytes));
    let mut user = scene.user(USER);
    let size = sizes.mebibytes * 1024 * 1024;
    let upload = Upload { size: size as i64, sha256: Some(digest_of(size)), ..Upload::of(b"") };
    let ticket = upload.named("large.txt", "text/plain").request(&mut user);
    let worker = worker(scene);
    let status = || fs::read_to_string(format!("/proc/{worker}/status")).expect("the worker runs");
    let before = field(&status(), "VmRSS:");
    // Forgets the most that was ever used.
    fs::write(format!("/proc/{worker}/clear_refs"), "5").expect("reset the peak");
    let mut request = ureq::http::Request::put(ticket.url());
    for (name, value) in &ticket.headers {
        request = request.header(name, value);
    }
    let body = request.body(SendBody::from_owned_reader(Letters(size))).expect("a request");
    let agent: Agent = Agent::config_builder().build().into();
    let answer = agent.run(body).expect("the store takes it");
    assert!(answer.status().is_success(), "PUT: {}", answer.status());
    let most = field(&status(), "VmHWM:");
    let grew = most - before;
    Row::new(
        format!("local store, memory during an upload of {} MiB", sizes.mebibytes),
        format!("+ {grew:.1} MiB"),
    )
    .against(format!("{before:.1} MiB before"), most / before)
    .goal("does not grow with the file", grew < 16.0)
}

fn worker(scene: &Scene) -> u32 {
    let postmaster = scene.database.cluster().postmaster_pid();
    process::children_of(postmaster)
        .into_iter()
        .find(|pid| process::title(*pid).contains("local store"))
        .expect("the local store is a process of the server")
}

/// So many letters, made as they are read.
struct Letters(usize);

impl Read for Letters {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(self.0);
        buffer[..count].fill(b'a');
        self.0 -= count;
        Ok(count)
    }
}

fn digest_of(size: usize) -> String {
    let mut hasher = digest::Hasher::new();
    let mut letters = Letters(size);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match letters.read(&mut buffer) {
            Ok(0) | Err(_) => return hasher.finish().to_hex(),
            Ok(count) => hasher.update(&buffer[..count]),
        }
    }
}
