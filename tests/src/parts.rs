//! Uploads in parts as a client does them, and forms.

use crate::flow::{Upload, sha256};
use crate::http::{self, Headers, Response};
use postgres::{Client, Error};

/// The smallest part but the last that S3 takes.
pub const SMALLEST: usize = 5 * 1024 * 1024;

/// What `request_multipart_upload` gave.
#[derive(Clone, Debug)]
pub struct PartsTicket {
    /// What is confirmed.
    pub upload_id: String,
    /// The file to be.
    pub file_id: String,
    /// Whether it exists already.
    pub deduplicated: bool,
    /// Bytes of each part but the last.
    pub part_size: Option<i64>,
    /// How many there are.
    pub part_count: Option<i32>,
}

/// Asks for an upload in parts of the smallest size, or says why that was refused.
pub fn try_request_parts(
    session: &mut Client,
    upload: &Upload,
    part_sums: bool,
) -> Result<PartsTicket, Error> {
    let row = session.query_one(
        "SELECT t.upload_id::text, t.file_id::text, t.deduplicated, t.part_size, t.part_count
         FROM storage.request_multipart_upload($1, $2, $3, $4, 5242880, $5, $6, expires_in => $7::text::interval,
                                               part_sha256s => $8) t",
        &[
            &upload.bucket,
            &upload.filename,
            &upload.content_type,
            &upload.size,
            &upload.sha256,
            &upload.path,
            &upload.expires_in,
            &part_sums,
        ],
    )?;
    Ok(PartsTicket {
        upload_id: row.get(0),
        file_id: row.get(1),
        deduplicated: row.get(2),
        part_size: row.get(3),
        part_count: row.get(4),
    })
}

/// Asks for an upload in parts of the smallest size.
#[track_caller]
pub fn request_parts(session: &mut Client, upload: &Upload) -> PartsTicket {
    match try_request_parts(session, upload, false) {
        Ok(ticket) => ticket,
        Err(error) => panic!("the request was refused: {:?}", error.as_db_error()),
    }
}

/// Where one part is sent.
#[derive(Clone, Debug)]
pub struct SignedPart {
    /// Its number.
    pub number: i32,
    /// The bytes of the file that it has.
    pub bytes: std::ops::Range<usize>,
    /// Where to.
    pub url: String,
    /// With exactly these.
    pub headers: Headers,
}

impl SignedPart {
    /// Sends this part of `file`.
    #[track_caller]
    pub fn put(&self, file: &[u8]) -> Response {
        http::put(&self.url, &self.headers, &file[self.bytes.clone()])
    }

    /// Whether the store takes this part of `file`. One that refuses may hang up before it has read all of it.
    pub fn is_taken(&self, file: &[u8]) -> bool {
        http::try_put(&self.url, &self.headers, &file[self.bytes.clone()])
            .is_some_and(|answer| answer.is_success())
    }
}

/// URLs of these parts, or why there are none.
pub fn try_sign_parts(
    session: &mut Client,
    upload_id: &str,
    numbers: &[i32],
    sums: Option<&[String]>,
) -> Result<Vec<SignedPart>, Error> {
    let rows = session.query(
        "SELECT p.part_number, p.first_byte, p.size, p.url, p.method,
                ARRAY(SELECT h.key FROM jsonb_each_text(p.headers) h ORDER BY h.key),
                ARRAY(SELECT h.value FROM jsonb_each_text(p.headers) h ORDER BY h.key)
         FROM storage.sign_upload_parts($1::text::uuid, $2, $3) p",
        &[&upload_id, &numbers, &sums],
    )?;
    Ok(rows
        .iter()
        .map(|row| {
            assert_eq!(row.get::<_, &str>(4), "PUT");
            let (first, size): (i64, i64) = (row.get(1), row.get(2));
            let (names, values): (Vec<String>, Vec<String>) = (row.get(5), row.get(6));
            SignedPart {
                number: row.get(0),
                bytes: first as usize..(first + size) as usize,
                url: row.get(3),
                headers: names.into_iter().zip(values).collect(),
            }
        })
        .collect())
}

/// URLs of these parts.
#[track_caller]
pub fn sign_parts(session: &mut Client, upload_id: &str, numbers: &[i32]) -> Vec<SignedPart> {
    match try_sign_parts(session, upload_id, numbers, None) {
        Ok(parts) => parts,
        Err(error) => panic!("no URLs: {:?}", error.as_db_error()),
    }
}

/// Sends these parts of `file`.
#[track_caller]
pub fn send_parts(session: &mut Client, upload_id: &str, numbers: &[i32], file: &[u8]) {
    for part in sign_parts(session, upload_id, numbers) {
        let answer = part.put(file);
        assert!(answer.is_success(), "part {}: {} {}", part.number, answer.status, answer.text());
    }
}

/// The numbers of the parts that the store does not have yet, or why nobody knows.
pub fn try_missing_parts(session: &mut Client, upload_id: &str) -> Result<Vec<i32>, Error> {
    let query =
        "SELECT part_number FROM storage.list_upload_parts($1::text::uuid) WHERE NOT uploaded ORDER BY 1";
    Ok(session.query(query, &[&upload_id])?.iter().map(|row| row.get(0)).collect())
}

/// The numbers of the parts that the store does not have yet.
#[track_caller]
pub fn missing_parts(session: &mut Client, upload_id: &str) -> Vec<i32> {
    match try_missing_parts(session, upload_id) {
        Ok(numbers) => numbers,
        Err(error) => panic!("no list of parts: {:?}", error.as_db_error()),
    }
}

/// The SHA-256 of each part of `file`.
pub fn sums(file: &[u8]) -> Vec<String> {
    file.chunks(SMALLEST).map(sha256).collect()
}

/// What is between the fields of a form.
pub const BOUNDARY: &str = "a-boundary-of-the-tests";

/// What `request_upload_form` gave.
#[derive(Clone, Debug)]
pub struct Form {
    /// What is confirmed.
    pub upload_id: String,
    /// The file to be.
    pub file_id: String,
    /// Where it is posted.
    pub url: String,
    /// Names and values of its fields.
    pub fields: Vec<(String, String)>,
}

impl Form {
    /// Posts the form with `file`.
    #[track_caller]
    pub fn post(&self, file: &[u8]) -> Response {
        let (headers, body) = self.encode(file);
        http::request_with_body("POST", &self.url, &headers, &body)
    }

    /// What is sent: its headers, and the fields with `file` after them.
    pub fn encode(&self, file: &[u8]) -> (Headers, Vec<u8>) {
        let mut body = Vec::new();
        for (name, value) in &self.fields {
            let field =
                format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            body.extend_from_slice(field.as_bytes());
        }
        let head =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(file);
        body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let headers = Headers::from([
            ("content-type".to_owned(), format!("multipart/form-data; boundary={BOUNDARY}")),
            ("content-length".to_owned(), body.len().to_string()),
        ]);
        (headers, body)
    }

    /// The same form with another value of a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.retain(|(field, _)| !field.eq_ignore_ascii_case(name));
        self.fields.insert(0, (name.to_owned(), value.to_owned()));
        self
    }
}

/// Asks for a form for at most the upload's size, or says why that was refused.
pub fn try_request_form(session: &mut Client, upload: &Upload) -> Result<Form, Error> {
    let row = session.query_one(
        "SELECT t.upload_id::text, t.file_id::text, t.url,
                ARRAY(SELECT f.key FROM jsonb_each_text(t.fields) f ORDER BY f.key),
                ARRAY(SELECT f.value FROM jsonb_each_text(t.fields) f ORDER BY f.key)
         FROM storage.request_upload_form($1, $2, $3, $4, $5, expires_in => $6::text::interval) t",
        &[
            &upload.bucket,
            &upload.filename,
            &upload.content_type,
            &upload.size,
            &upload.path,
            &upload.expires_in,
        ],
    )?;
    let (names, values): (Vec<String>, Vec<String>) = (row.get(3), row.get(4));
    Ok(Form {
        upload_id: row.get(0),
        file_id: row.get(1),
        url: row.get(2),
        fields: names.into_iter().zip(values).collect(),
    })
}

/// Asks for a form for at most the upload's size.
#[track_caller]
pub fn request_form(session: &mut Client, upload: &Upload) -> Form {
    match try_request_form(session, upload) {
        Ok(form) => form,
        Err(error) => panic!("the request was refused: {:?}", error.as_db_error()),
    }
}
