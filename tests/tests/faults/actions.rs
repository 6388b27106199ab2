//! What a client does with uploads and files, one statement or one request to the store at a time.

use crate::client::{Client, Step};
use crate::ledger::{Digests, Effect, Standing, Upload};
use crate::session::{Session, Trouble};
use crate::world::Content;
use pg_storage_tests::flow::{self, Verdict};
use pg_storage_tests::http::{self, Headers, Response};
use std::io::{Cursor, Read};
use std::sync::Arc;
use std::time::Duration;

/// How long a client waits for the store.
const PATIENCE: Duration = Duration::from_secs(6);

/// What a step did, or why it did not, with what it may have done if the connection broke.
type Done = Result<Vec<Effect>, (Trouble, Vec<Effect>)>;

/// A body whose second half is late.
struct Hesitant {
    bytes: Cursor<Vec<u8>>,
    pause: Option<Duration>,
}

impl Read for Hesitant {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let half = self.bytes.get_ref().len() as u64 / 2;
        if self.bytes.position() >= half
            && let Some(pause) = self.pause.take()
        {
            std::thread::sleep(pause);
        }
        let left = if self.pause.is_some() { (half - self.bytes.position()) as usize } else { buffer.len() };
        let length = left.min(buffer.len()).max(1);
        self.bytes.read(&mut buffer[..length])
    }
}

impl Client {
    pub fn step(&mut self, step: Step, effects: &[Effect]) -> Done {
        match step {
            Step::Request => self.request(),
            Step::Put => {
                if let Some(upload) = self.target(effects) {
                    self.put(&upload);
                }
                Ok(Vec::new())
            }
            Step::Confirm => self.target(effects).map_or(Ok(Vec::new()), |upload| self.confirm(&upload)),
            Step::Abort => self.target(effects).map_or(Ok(Vec::new()), |upload| self.abort(&upload)),
            Step::Delete => self.delete(effects),
            Step::Download => self.download(effects),
        }
    }

    /// The upload just asked for, or one that is pending.
    fn target(&mut self, effects: &[Effect]) -> Option<String> {
        let pending = self.ledger.pending(effects);
        let current = self.current.clone().filter(|current| pending.contains(current));
        current.or_else(|| (!pending.is_empty()).then(|| self.rng.pick(&pending)))
    }

    fn request(&mut self) -> Done {
        self.requests += 1;
        let filename = format!("{} {}.txt", self.user, self.requests);
        let content = self.content(&filename);
        let declared = self.rng.percent(60);
        let short = self.rng.percent(6);
        let mut upload =
            flow::Upload::of(&content.bytes).to(self.rng.pick(self.buckets)).named(&filename, "text/plain");
        upload.sha256 = declared.then(|| content.sha256.clone());
        upload.path = self.rng.percent(30).then(|| format!("shelf/{}.txt", self.rng.below(12)));
        upload.expires_in = short.then(|| format!("{} s", 1 + self.rng.below(2)));
        let ticket = match self.session.ask("request", |session| upload.try_request(session)) {
            Ok(ticket) => ticket,
            Err(trouble) => {
                if matches!(trouble, Trouble::Lost) {
                    self.ledger.lost.insert(filename);
                }
                return Err((trouble, Vec::new()));
            }
        };
        self.ledger.requested.push((ticket.upload_id.clone(), ticket.file_id.clone()));
        if ticket.deduplicated {
            self.world.ended("shared at the request");
            return Ok(vec![Effect::Made(ticket.file_id, Digests::from([content.sha256.clone()]))]);
        }
        let id = ticket.upload_id.clone();
        self.current = Some(id.clone());
        self.ledger.uploads.insert(
            id.clone(),
            Upload {
                ticket,
                content,
                declared,
                short,
                pathless: upload.path.is_none(),
                standing: Standing::New,
                doubtful: false,
                sent: Digests::new(),
                arrived: false,
            },
        );
        Ok(vec![Effect::Opened(id)])
    }

    fn content(&mut self, unique: &str) -> Arc<Content> {
        if self.rng.percent(80) {
            let hot = self.rng.percent(60);
            self.rng.pick(if hot { &self.world.contents[..5] } else { &self.world.contents })
        } else {
            let length = 1 + self.rng.below(20_000) as usize;
            Arc::new(Content::new(flow::some_bytes(unique, length)))
        }
    }

    /// Sends the bytes, or what a bad client sends.
    fn put(&mut self, id: &str) {
        let Some(upload) = self.ledger.uploads.get_mut(id) else { return };
        let (url, headers) = (upload.ticket.url().to_owned(), upload.ticket.headers.clone());
        let right = upload.content.clone();
        let send = |bytes: &[u8], headers: &Headers| {
            http::try_upload(&url, headers, Cursor::new(bytes.to_vec()), bytes.len(), PATIENCE)
        };
        let world = self.world;
        match self.rng.below(100) {
            0..10 => {
                world.did("PUT, wrong bytes");
                let mut wrong = right.bytes.clone();
                wrong[0] ^= 1;
                let wrong = Content::new(wrong);
                // Before the answer, which may be lost.
                upload.sent.insert(wrong.sha256.clone());
                let refuses = world.enforces && upload.declared;
                upload.arrived &= refuses;
                let answer = send(&wrong.bytes, &headers);
                if refuses {
                    upload.sent.remove(&wrong.sha256);
                    if answer.is_some_and(|answer| answer.is_success()) {
                        world.violation(format!("the store took other bytes for upload {id}"));
                    }
                }
            }
            10..14 => {
                world.did("PUT, wrong length");
                let longer = [&right.bytes[..], b"more"].concat();
                let headers = headers.into_iter().filter(|(name, _)| name != "content-length").collect();
                if send(&longer, &headers).is_some_and(|answer| answer.is_success()) {
                    world.violation(format!("the store took a longer body for upload {id}"));
                }
            }
            kind => {
                let only_right = upload.sent.iter().all(|digest| *digest == right.sha256);
                upload.sent.insert(right.sha256.clone());
                let answer = if kind < 22 {
                    world.did("PUT, slow");
                    let pause = Duration::from_millis(200 + self.rng.below(1500));
                    let body = Hesitant { bytes: Cursor::new(right.bytes.clone()), pause: Some(pause) };
                    http::try_upload(&url, &headers, body, right.bytes.len(), PATIENCE)
                } else {
                    world.did("PUT");
                    send(&right.bytes, &headers)
                };
                let twice = self.rng.percent(8).then(|| {
                    world.did("PUT, again");
                    send(&right.bytes, &headers)
                });
                let arrived = |answer: &Option<Response>| answer.as_ref().is_some_and(Response::is_success);
                upload.arrived |= only_right && (arrived(&answer) || twice.as_ref().is_some_and(arrived));
            }
        }
    }

    /// A PUT whose URL still works after its upload ended or was rolled back.
    pub fn put_out_of_turn(&mut self) {
        if let Some(upload) = self.any_upload(&[Standing::Ended, Standing::Ghost]) {
            self.world.did("PUT, out of turn");
            self.put(&upload);
        }
    }

    fn confirm(&mut self, id: &str) -> Done {
        let first = match confirm_in(&mut self.session, id) {
            Ok(first) => first,
            Err(trouble) => return Err(self.doubt(id, trouble)),
        };
        let effects = self.believe(id, &first);
        if self.rng.percent(10) {
            match confirm_in(&mut self.session, id) {
                Ok(second) if first.finished && second != first => {
                    self.world.violation(format!("upload {id} was {first:?} and then {second:?}"));
                }
                // The first one has committed by itself.
                Err(_) if self.auto => {}
                Err(trouble) => return Err((trouble, effects)),
                Ok(_) => {}
            }
        }
        Ok(effects)
    }

    /// What a failed confirmation may have done all the same.
    fn doubt(&mut self, id: &str, trouble: Trouble) -> (Trouble, Vec<Effect>) {
        let Some(upload) = self.ledger.uploads.get_mut(id) else { return (trouble, Vec::new()) };
        let file = upload.ticket.file_id.clone();
        let possible = vec![Effect::Made(file, upload.promised()), Effect::Ended(id.to_owned())];
        if trouble.is("42704", "UPLOAD_NOT_FOUND") {
            if upload.doubtful {
                upload.standing = Standing::Ghost;
            } else {
                self.world.violation(format!("upload {id} of {} is gone", self.user));
            }
            return (trouble, Vec::new());
        }
        (trouble, possible)
    }

    /// What a verdict means, and whether it can be true.
    fn believe(&mut self, id: &str, verdict: &Verdict) -> Vec<Effect> {
        let Some(upload) = self.ledger.uploads.get(id) else { return Vec::new() };
        let (file, ended) = (upload.ticket.file_id.clone(), Effect::Ended(id.to_owned()));
        let contradictory = upload.is_contradictory();
        self.world.ended(match verdict.status.as_str() {
            "uploaded" => "verdict: uploaded",
            "rejected" => "verdict: rejected",
            "requested" => "verdict: not uploaded",
            _ => "verdict: expired or aborted",
        });
        match verdict.status.as_str() {
            "rejected" if contradictory => vec![Effect::Gone(file, "rejected"), ended],
            "uploaded" if !contradictory => {
                if upload.sent.is_empty() {
                    self.world.violation(format!("upload {id} of {} is confirmed without a PUT", self.user));
                }
                vec![Effect::Made(file, upload.promised()), ended]
            }
            "expired" if upload.short => vec![Effect::Gone(file, "expired"), ended],
            "aborted" if upload.doubtful => vec![Effect::Gone(file, "aborted"), ended],
            "rejected" if !upload.arrived => vec![Effect::Gone(file, "rejected"), ended],
            "requested" if !upload.arrived => Vec::new(),
            _ => {
                let put =
                    if upload.arrived { "whose bytes had arrived" } else { "whose bytes had not arrived" };
                self.world.violation(format!("upload {id} of {}, {put}, is {verdict:?}", self.user));
                Vec::new()
            }
        }
    }

    /// Two sessions confirm one upload.
    pub fn confirm_at_once(&mut self) {
        let Some(id) = self.target(&[]) else { return };
        if self.second.connect().is_err() {
            return;
        }
        self.world.did("confirm at once");
        let (one, two) = std::thread::scope(|scope| {
            let (session, second) = (&mut self.session, &mut self.second);
            let other = scope.spawn(|| confirm_in(second, &id));
            let one = confirm_in(session, &id);
            (one, other.join().expect("a session does not panic"))
        });
        let mut verdicts = Vec::new();
        for result in [one, two] {
            match result {
                Ok(verdict) => verdicts.push(verdict),
                Err(trouble) => {
                    let (trouble, possible) = self.doubt(&id, trouble);
                    if matches!(trouble, Trouble::Lost) {
                        self.ledger.lose(possible);
                    }
                }
            }
        }
        // A final verdict stands whatever the other session was told a moment earlier.
        verdicts.sort_by_key(|verdict| verdict.finished);
        for verdict in verdicts {
            let effects = self.believe(&id, &verdict);
            self.ledger.commit(effects);
        }
    }

    fn abort(&mut self, id: &str) -> Done {
        match self.session.ask("abort", |session| flow::abort(session, id)) {
            Ok(_) => {
                let file = self.ledger.uploads.get(id).map(|upload| upload.ticket.file_id.clone());
                let gone = file.map(|file| Effect::Gone(file, "aborted"));
                Ok(gone.into_iter().chain([Effect::Ended(id.to_owned())]).collect())
            }
            Err(trouble) if trouble.is("55000", "UPLOAD_NOT_PENDING") => {
                let explained =
                    self.ledger.uploads.get(id).is_none_or(|upload| upload.doubtful || upload.short);
                if !explained {
                    self.world.violation(format!("upload {id} of {} has ended by itself", self.user));
                }
                Err((trouble, Vec::new()))
            }
            Err(trouble) => {
                let (trouble, _) = self.doubt(id, trouble);
                Err((trouble, vec![Effect::Ended(id.to_owned())]))
            }
        }
    }

    fn delete(&mut self, effects: &[Effect]) -> Done {
        let files = self.ledger.visible_files(effects);
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let (file, _) = self.rng.pick(&files);
        let gone = vec![Effect::Gone(file.clone(), "deleted")];
        let deleted = self
            .session
            .ask("delete", |session| session.execute("SELECT storage.delete_file($1::text::uuid)", &[&file]));
        match deleted {
            Ok(_) => Ok(gone),
            Err(trouble) => {
                self.miss(&trouble, &file, "delete");
                Err((trouble, gone))
            }
        }
    }

    fn miss(&self, trouble: &Trouble, file: &str, what: &str) {
        if trouble.is("42704", "FILE_NOT_FOUND") {
            self.world.violation(format!("{} has lost file {file}: {what}", self.user));
        }
    }

    fn download(&mut self, effects: &[Effect]) -> Done {
        let files = self.ledger.visible_files(effects);
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let (file, digests) = self.rng.pick(&files);
        let url = self.session.ask("download_url", |session| {
            let row = session.query_one("SELECT storage.download_url($1::text::uuid)", &[&file])?;
            Ok(row.get::<_, String>(0))
        });
        let url = url.map_err(|trouble| {
            self.miss(&trouble, &file, "download_url");
            (trouble, Vec::new())
        })?;
        self.world.did("GET");
        match http::try_request("GET", &url, &Headers::new(), PATIENCE) {
            Some(answer) if answer.is_success() && !digests.contains(&flow::sha256(&answer.body)) => {
                self.world.violation(format!("file {file} of {} has other bytes", self.user));
            }
            Some(answer) if answer.status == 404 => {
                self.world.violation(format!("file {file} of {} has no bytes", self.user));
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    /// Any file that this user can see; it may go at any time, but while it answers its bytes are the right ones.
    pub fn read_a_strangers_file(&mut self) {
        let found = self.session.ask("look around", |session| {
            session.query_opt(
                "SELECT f.sha256, storage.download_url(f.id) FROM storage.files f
                 WHERE f.owner_id <> storage.current_user_id() ORDER BY f.id > gen_random_uuid(), f.id LIMIT 1",
                &[],
            )
        });
        let Ok(Some(row)) = found else { return };
        let (sha256, url): (String, String) = (row.get(0), row.get(1));
        self.world.did("GET");
        if let Some(answer) = http::try_request("GET", &url, &Headers::new(), PATIENCE)
            && answer.is_success()
            && flow::sha256(&answer.body) != sha256
        {
            self.world.violation(format!("{} was given other bytes than those of {sha256}", self.user));
        }
    }
}

fn confirm_in(session: &mut Session, id: &str) -> Result<Verdict, Trouble> {
    session.ask("confirm", |client| flow::try_confirm(client, id))
}
