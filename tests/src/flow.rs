//! The main job as a client does it: request over SQL, PUT over HTTP, confirm, download.

use crate::http::{self, Headers, Response};
use pg_storage_core::digest::Digest;
use postgres::{Client, Error, Row};
use std::time::SystemTime;

/// What a client declares of a file. Start from [`Upload::of`] and change what the test is about.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Key or id of the bucket; `None`: the default.
    pub bucket: Option<String>,
    /// File name.
    pub filename: String,
    /// MIME type.
    pub content_type: String,
    /// Bytes.
    pub size: i64,
    /// 64 lower-case hex; `None`: undeclared.
    pub sha256: Option<String>,
    /// Path in the bucket.
    pub path: Option<String>,
    /// An interval as PostgreSQL spells it.
    pub expires_in: Option<String>,
}

impl Upload {
    /// An upload of `bytes` to the bucket `private`, as text, its hash not declared.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            bucket: Some("private".to_owned()),
            filename: "note.txt".to_owned(),
            content_type: "text/plain".to_owned(),
            size: bytes.len() as i64,
            sha256: None,
            path: None,
            expires_in: None,
        }
    }

    /// The same with the hash declared.
    pub fn declared(bytes: &[u8]) -> Self {
        Self { sha256: Some(sha256(bytes)), ..Self::of(bytes) }
    }

    /// The same to another bucket.
    pub fn to(self, bucket: &str) -> Self {
        Self { bucket: Some(bucket.to_owned()), ..self }
    }

    /// The same under another name and type.
    pub fn named(self, filename: &str, content_type: &str) -> Self {
        Self { filename: filename.to_owned(), content_type: content_type.to_owned(), ..self }
    }

    /// The same with a path.
    pub fn at(self, path: &str) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// The same with a lifetime.
    pub fn expiring_in(self, interval: &str) -> Self {
        Self { expires_in: Some(interval.to_owned()), ..self }
    }

    /// Asks for a ticket, or says why it was refused.
    pub fn try_request(&self, session: &mut Client) -> Result<Ticket, Error> {
        let call = "storage.request_upload_url($1, $2, $3, $4, $5, $6, expires_in => $7::text::interval)";
        let row = session.query_one(
            &format!("SELECT {TICKET} FROM {call} t"),
            &[
                &self.bucket,
                &self.filename,
                &self.content_type,
                &self.size,
                &self.sha256,
                &self.path,
                &self.expires_in,
            ],
        )?;
        Ok(Ticket::of(&row))
    }

    /// Asks for a ticket.
    #[track_caller]
    pub fn request(&self, session: &mut Client) -> Ticket {
        match self.try_request(session) {
            Ok(ticket) => ticket,
            Err(error) => panic!("the request was refused: {:?}", error.as_db_error()),
        }
    }

    /// Request, PUT, confirm; the file exists afterwards.
    #[track_caller]
    pub fn complete(&self, session: &mut Client, bytes: &[u8]) -> Ticket {
        let ticket = self.request(session);
        let answer = ticket.put(bytes);
        assert!(answer.is_success(), "PUT: {} {}", answer.status, answer.text());
        let verdict = confirm(session, &ticket.upload_id);
        assert_eq!(verdict.outcome(), ("uploaded", None), "{verdict:?}");
        ticket
    }
}

/// Asks for tickets for all of these in one call, or says why it was refused. The bucket is the first one's.
pub fn try_request_all(session: &mut Client, uploads: &[Upload]) -> Result<Vec<Ticket>, Error> {
    let bucket = uploads.first().and_then(|upload| upload.bucket.as_deref());
    let column = |of: fn(&Upload) -> Option<&str>| uploads.iter().map(of).collect::<Vec<_>>();
    let rows = session.query(
        &format!(
            "SELECT {TICKET}
             FROM storage.request_upload_urls($1, ARRAY(
                SELECT ROW(f.filename, f.content_type, f.size, f.sha256, f.path, NULL)::storage.upload_spec
                FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[])
                     WITH ORDINALITY AS f(filename, content_type, size, sha256, path, place)
                ORDER BY f.place)) t"
        ),
        &[
            &bucket,
            &column(|upload| Some(&upload.filename)),
            &column(|upload| Some(&upload.content_type)),
            &uploads.iter().map(|upload| upload.size).collect::<Vec<_>>(),
            &column(|upload| upload.sha256.as_deref()),
            &column(|upload| upload.path.as_deref()),
        ],
    )?;
    Ok(rows.iter().map(Ticket::of).collect())
}

/// Asks for tickets for all of these in one call.
#[track_caller]
pub fn request_all(session: &mut Client, uploads: &[Upload]) -> Vec<Ticket> {
    match try_request_all(session, uploads) {
        Ok(tickets) => tickets,
        Err(error) => panic!("the request was refused: {:?}", error.as_db_error()),
    }
}

/// The columns of a ticket `t` that [`Ticket::of`] reads.
const TICKET: &str = "t.upload_id::text, t.file_id::text, t.deduplicated, t.method, t.url, t.expires_at,
    ARRAY(SELECT h.key FROM jsonb_each_text(t.headers) h ORDER BY h.key),
    ARRAY(SELECT h.value FROM jsonb_each_text(t.headers) h ORDER BY h.key)";

/// What `request_upload_url` gave.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// What is confirmed.
    pub upload_id: String,
    /// The file to be.
    pub file_id: String,
    /// Whether it exists already.
    pub deduplicated: bool,
    /// PUT.
    pub method: Option<String>,
    /// Where to.
    pub url: Option<String>,
    /// With exactly these.
    pub headers: Headers,
    /// Until when.
    pub expires_at: Option<SystemTime>,
}

impl Ticket {
    fn of(row: &Row) -> Self {
        let (names, values): (Vec<String>, Vec<String>) = (row.get(6), row.get(7));
        Self {
            upload_id: row.get(0),
            file_id: row.get(1),
            deduplicated: row.get(2),
            method: row.get(3),
            url: row.get(4),
            expires_at: row.get(5),
            headers: names.into_iter().zip(values).collect(),
        }
    }

    /// The URL of a ticket that is not deduplicated.
    #[track_caller]
    pub fn url(&self) -> &str {
        self.url.as_deref().expect("a ticket that is not deduplicated has a URL")
    }

    /// Sends `body` with exactly the returned headers.
    #[track_caller]
    pub fn put(&self, body: &[u8]) -> Response {
        http::put(self.url(), &self.headers, body)
    }
}

/// The row of an upload request, as far as tests look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// requested, uploaded, rejected, expired or aborted.
    pub status: String,
    /// Why.
    pub reason: Option<String>,
    /// What was declared and what was found.
    pub details: Option<String>,
    /// Whether it has ended.
    pub finished: bool,
}

impl Verdict {
    fn of(row: &Row) -> Self {
        Self { status: row.get(0), reason: row.get(1), details: row.get(2), finished: row.get(3) }
    }

    /// Status and reason for one assertion.
    pub fn outcome(&self) -> (&str, Option<&str>) {
        (&self.status, self.reason.as_deref())
    }
}

/// Confirms, or says why that failed.
pub fn try_confirm(session: &mut Client, upload_id: &str) -> Result<Verdict, Error> {
    verdict_of(session, "storage.confirm_upload($1::text::uuid)", upload_id)
}

/// Confirms.
#[track_caller]
pub fn confirm(session: &mut Client, upload_id: &str) -> Verdict {
    match try_confirm(session, upload_id) {
        Ok(verdict) => verdict,
        Err(error) => panic!("confirm failed: {:?}", error.as_db_error()),
    }
}

/// Confirms all of these in one call and gives id and verdict of each row, or says why that failed.
pub fn try_confirm_all(session: &mut Client, upload_ids: &[&str]) -> Result<Vec<(String, Verdict)>, Error> {
    let rows = session.query(
        "SELECT u.status::text, u.reason, u.details, u.finished_at IS NOT NULL, u.id::text
         FROM storage.confirm_uploads($1::text[]::uuid[]) u",
        &[&upload_ids],
    )?;
    Ok(rows.iter().map(|row| (row.get(4), Verdict::of(row))).collect())
}

/// Confirms all of these in one call: a verdict for each, in order.
#[track_caller]
pub fn confirm_all(session: &mut Client, upload_ids: &[&str]) -> Vec<Verdict> {
    match try_confirm_all(session, upload_ids) {
        Ok(rows) => {
            assert_eq!(rows.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), upload_ids);
            rows.into_iter().map(|(_, verdict)| verdict).collect()
        }
        Err(error) => panic!("confirm failed: {:?}", error.as_db_error()),
    }
}

/// Aborts, or says why that was refused.
pub fn abort(session: &mut Client, upload_id: &str) -> Result<Verdict, Error> {
    verdict_of(session, "storage.abort_upload($1::text::uuid)", upload_id)
}

/// The row as `session` sees it, without asking the store.
pub fn recorded(session: &mut Client, upload_id: &str) -> Verdict {
    let row = "(SELECT r FROM storage.upload_requests r WHERE r.id = $1::text::uuid)";
    verdict_of(session, row, upload_id).expect("read the upload request")
}

fn verdict_of(session: &mut Client, source: &str, upload_id: &str) -> Result<Verdict, Error> {
    let row = session.query_one(
        &format!(
            "WITH settled AS MATERIALIZED (SELECT {source} AS u)
             SELECT (u).status::text, (u).reason, (u).details, (u).finished_at IS NOT NULL FROM settled"
        ),
        &[&upload_id],
    )?;
    Ok(Verdict::of(&row))
}

/// The presigned URL of a file.
#[track_caller]
pub fn download_url(session: &mut Client, file_id: &str) -> String {
    session
        .query_one("SELECT storage.download_url($1::text::uuid)", &[&file_id])
        .expect("download_url")
        .get(0)
}

/// Downloads a file through its presigned URL.
#[track_caller]
pub fn download(session: &mut Client, file_id: &str) -> Response {
    http::get(&download_url(session, file_id))
}

/// Fails the test unless the file downloads and its bytes are `bytes`.
#[track_caller]
pub fn assert_downloads(session: &mut Client, file_id: &str, bytes: &[u8]) {
    let answer = download(session, file_id);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(sha256(&answer.body), sha256(bytes));
}

/// 64 lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    Digest::of(bytes).to_hex()
}

/// Bytes that no other test has, with no type to be recognised.
pub fn some_bytes(seed: &str, length: usize) -> Vec<u8> {
    format!("{seed} ").bytes().cycle().take(length).collect()
}
