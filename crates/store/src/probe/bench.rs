//! The workbench of the trials: signing, sending as a stranger would, looking at what is there, cleaning up.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_core::policy::Access;
use pg_storage_core::presign::{Form, Method, Presign, SignedForm, Signer, Timestamp};
use pg_storage_core::upload::signed_headers;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::reason::Reason;
use crate::error::{ErrorKind, StoreError};
use crate::http::{Answer, Plainly};
use crate::s3::S3Store;
use crate::store::Store as _;

pub(super) const OPERATION: &str = "presigned PUT";

/// The headers of an upload, as the client must send them.
pub(super) type Headers = Vec<(&'static str, String)>;

/// A URL and what it was signed with.
#[derive(Clone)]
pub(super) struct Ticket {
    pub(super) key: String,
    pub(super) url: String,
    pub(super) headers: Headers,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Reply {
    /// Answered with success.
    Stored,
    /// Refused for the reason that was looked for.
    Refused,
    /// The store does not know such a request.
    Unknown,
}

/// What became of one URL that many used at once.
pub(super) struct Race {
    /// Whose bodies were answered with success.
    pub(super) winners: Vec<usize>,
    /// An answer, or the lack of one, that is neither success nor a refusal by the condition.
    pub(super) trouble: Option<StoreError>,
}

pub(super) struct Bench<'a> {
    pub(super) store: &'a S3Store,
    pub(super) bucket: &'a str,
    signer: Signer,
    prefix: String,
    keys: Vec<String>,
    plainly: Option<Arc<Plainly>>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(store: &'a S3Store, signer: Signer, bucket: &'a str, scratch_prefix: &str) -> Self {
        // Its own folder each time: two probes at once must not see each other's objects.
        let prefix = format!("{scratch_prefix}{}/", Uuid::new_v4().simple());
        Self { store, bucket, signer, prefix, keys: Vec::new(), plainly: None }
    }

    /// A key that will be cleaned up.
    pub(super) fn key(&mut self, name: &str) -> String {
        let key = format!("{}{name}", self.prefix);
        self.keys.push(key.clone());
        key
    }

    /// A URL, valid now, to PUT `body` under a fresh key.
    pub(super) fn ticket(
        &mut self,
        name: &str,
        body: &[u8],
        sha256: Option<&Digest>,
        create_only: bool,
    ) -> Result<Ticket, StoreError> {
        let content_type = ContentType::parse("application/octet-stream")
            .map_err(|error| StoreError::local(ErrorKind::Invalid, OPERATION, error.to_string()))?;
        let headers = signed_headers(
            &content_type,
            body.len() as u64,
            sha256,
            create_only,
            None,
            // One that is missed when it is left out: what public files carry is tried like the rest.
            Access::Public.cache_control(),
        );
        let key = self.key(name);
        let url = self.sign(&key, &headers, 300, 0);
        Ok(Ticket { key, url, headers })
    }

    /// Signs as if `age` seconds ago.
    pub(super) fn sign(&mut self, key: &str, headers: &Headers, expires: u32, age: i64) -> String {
        self.url(Method::Put, key, headers, &[], (expires, age))
    }

    /// The same for any request, with parameters; `times` are the lifetime and the age.
    pub(super) fn url(
        &mut self,
        method: Method,
        key: &str,
        headers: &Headers,
        query: &[(&str, &str)],
        (expires, age): (u32, i64),
    ) -> String {
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let request = Presign { method, bucket: self.bucket, key, expires, headers: &headers, query };
        self.signer.url(&request, ago(age))
    }

    /// A URL to PUT the first part of an upload: `size` bytes, with this sum.
    pub(super) fn part(&mut self, key: &str, upload_id: &str, size: usize, sum: Option<&Digest>) -> Ticket {
        let mut headers = vec![("content-length", size.to_string())];
        if let Some(sum) = sum {
            headers.push(("x-amz-checksum-sha256", sum.to_base64()));
            headers.push(("x-amz-sdk-checksum-algorithm", "SHA256".to_owned()));
        }
        let query = [("partNumber", "1"), ("uploadId", upload_id)];
        let url = self.url(Method::Put, key, &headers, &query, (300, 0));
        Ticket { key: key.to_owned(), url, headers }
    }

    /// A form for at most `max_size` bytes under a fresh key, made `age` seconds ago.
    pub(super) fn form(
        &mut self,
        name: &str,
        max_size: u64,
        age: i64,
    ) -> Result<(String, SignedForm), StoreError> {
        let content_type = ContentType::parse("application/octet-stream")
            .map_err(|error| StoreError::local(ErrorKind::Invalid, OPERATION, error.to_string()))?;
        let key = self.key(name);
        let form = Form {
            bucket: self.bucket,
            key: &key,
            content_type: &content_type,
            max_size,
            expires: 60,
            mark: None,
            cache_control: Access::Public.cache_control(),
        };
        let signed = self.signer.form(&form, ago(age));
        Ok((key, signed))
    }

    /// Posts a form with `body` as its file.
    pub(super) async fn post(&mut self, form: &SignedForm, body: &[u8]) -> Result<Reply, StoreError> {
        const BOUNDARY: &str = "pg-storage-trial";
        let mut document = Vec::new();
        for (name, value) in &form.fields {
            let field =
                format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            document.extend_from_slice(field.as_bytes());
        }
        let file = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"trial\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        document.extend_from_slice(file.as_bytes());
        document.extend_from_slice(body);
        document.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
        let headers = [
            ("content-length", document.len().to_string()),
            ("content-type", format!("multipart/form-data; boundary={BOUNDARY}")),
        ];
        let sent = self.sender(&form.url).send("POST", "form", &form.url, &headers, document).await;
        match judge(sent, Reason::Signature) {
            // A store without forms answers a POST to a bucket as it likes.
            Err(error) if matches!(error.status, Some(404 | 405 | 411)) => Ok(Reply::Unknown),
            reply => reply,
        }
    }

    /// Sends `body` with the ticket's headers, but with the length it really has. Only a refusal for `reason` is one.
    ///
    /// # Errors
    /// Whatever says nothing about the request itself: no connection, no answer, a server in trouble or too busy,
    /// rights that are missing.
    pub(super) async fn send(
        &mut self,
        ticket: &Ticket,
        body: &[u8],
        reason: Reason,
    ) -> Result<Reply, StoreError> {
        let headers = with_length(&ticket.headers, body.len());
        let sent = self.sender(&ticket.url).put(OPERATION, &ticket.url, &headers, body.to_vec()).await;
        judge(sent, reason)
    }

    /// Sends a request without a body; `Err` within, if it was refused for `reason`.
    ///
    /// # Errors
    /// As [`Bench::send`].
    pub(super) async fn fetch(
        &mut self,
        method: &str,
        url: &str,
        headers: &Headers,
        reason: Reason,
    ) -> Result<Result<Answer, StoreError>, StoreError> {
        match self.sender(url).ask("presigned request", method, url, headers, Vec::new()).await {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) if reason.explains(&error) => Ok(Err(error)),
            Err(error) => Err(error),
        }
    }

    /// Sends all bodies to one URL at the same time; whoever is refused should be for `reason`.
    pub(super) async fn race(&mut self, ticket: &Ticket, bodies: &[Vec<u8>], reason: Reason) -> Race {
        let sender = self.sender(&ticket.url);
        let mut running = JoinSet::new();
        for (index, body) in bodies.iter().enumerate() {
            let (sender, url, body) = (Arc::clone(&sender), ticket.url.clone(), body.clone());
            let headers = with_length(&ticket.headers, body.len());
            running.spawn(async move { (index, sender.put(OPERATION, &url, &headers, body).await) });
        }
        let mut race = Race { winners: Vec::new(), trouble: None };
        for (index, sent) in running.join_all().await {
            match judge(sent, reason) {
                Ok(Reply::Stored) => race.winners.push(index),
                Ok(Reply::Refused) => {}
                Ok(Reply::Unknown) => {
                    let what = "the store knows create-only PUTs and then does not";
                    race.trouble = Some(StoreError::local(ErrorKind::Unexpected, OPERATION, what));
                }
                Err(error) => race.trouble = Some(error),
            }
        }
        race
    }

    /// Whether nothing is stored under `key`.
    pub(super) async fn is_absent(&self, key: &str) -> Result<bool, StoreError> {
        Ok(self.store.head(self.bucket, key).await?.is_none())
    }

    /// Whether exactly `body` is stored under `key`.
    pub(super) async fn holds(&self, key: &str, body: &[u8]) -> Result<bool, StoreError> {
        self.store.holds(self.bucket, key, body).await
    }

    /// Removes everything that any trial may have stored. What cannot be removed now is found by a scan for
    /// orphans: the verdict does not depend on it.
    pub(super) async fn clean_up(&self) {
        let _ = self.store.delete_batch(self.bucket, &self.keys).await;
    }

    fn sender(&mut self, url: &str) -> Arc<Plainly> {
        let store = self.store;
        Arc::clone(self.plainly.get_or_insert_with(|| {
            Arc::new(Plainly::new(url, store.connect_timeout(), store.request_timeout()))
        }))
    }
}

/// The time `age` seconds ago.
fn ago(age: i64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    Timestamp::from_unix(i64::try_from(now).unwrap_or(i64::MAX) - age)
}

fn judge(sent: Result<(), StoreError>, reason: Reason) -> Result<Reply, StoreError> {
    match sent {
        Ok(()) => Ok(Reply::Stored),
        Err(error) if reason.explains(&error) => Ok(Reply::Refused),
        Err(error) if error.kind == ErrorKind::NotImplemented => Ok(Reply::Unknown),
        Err(error) => Err(error),
    }
}

fn with_length(headers: &Headers, length: usize) -> Headers {
    let set = |(name, value): &(&'static str, String)| match *name {
        "content-length" => (*name, length.to_string()),
        _ => (*name, value.clone()),
    };
    headers.iter().map(set).collect()
}
