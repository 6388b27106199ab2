//! Where a case is played: a store with files that must come to no harm, and an upload or a file that the case is about.

use crate::cases::{Case, Start};
use pg_storage_core::presign::Method;
use pg_storage_tests::flow::{self, Ticket, Upload, some_bytes};
use pg_storage_tests::http::{self, Headers};
use pg_storage_tests::raw_http::RawRequest;
use pg_storage_tests::{Listed, Scene, eventually};
use postgres::Client;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Physical bucket and key.
pub type Place = (String, String);

/// Every upload has this length, so that the bytes of one would do for another.
pub const LENGTH: usize = 300;

/// A confirmed file that no case may touch.
pub struct Treasure {
    pub file_id: String,
    pub place: Place,
    pub bytes: Vec<u8>,
    /// What its bytes begin with; nobody else's do.
    pub mark: String,
}

pub struct Stage {
    pub scene: Scene,
    pub ada: Client,
    /// Ada's, whose URLs are abused.
    pub own: Treasure,
    /// Of another user of the tenant, in the same physical bucket.
    pub bobs: Treasure,
    /// Of another tenant, in another physical bucket.
    pub eves: Treasure,
    played: usize,
}

/// What a case is about.
pub struct Subject {
    /// The upload; `None`: a download of Ada's file.
    pub ticket: Option<Ticket>,
    /// What the honest client would send, or gets.
    pub bytes: Vec<u8>,
    /// Where its URL points.
    pub place: Place,
    /// The honest request.
    pub honest: RawRequest,
}

/// What the store's owner finds at a place.
pub enum Content {
    Absent,
    /// The store does not even give it to the owner of the bucket.
    Unreadable,
    /// Bytes, type, and whether they are said to be encoded.
    Stored(Vec<u8>, String, bool),
}

/// Every object in the scene's physical buckets.
pub type Snapshot = BTreeMap<Place, Listed>;

impl Stage {
    pub fn new(scene: Scene) -> Self {
        let mut ada = scene.user("ada");
        let own = treasure(&scene, &mut ada, "ada");
        let bobs = treasure(&scene, &mut scene.user("bob"), "bob");
        let eves = treasure(&scene, &mut scene.stranger("eve", "elsewhere"), "eve");
        assert_eq!(own.place.0, bobs.place.0);
        assert_ne!(own.place.0, eves.place.0);
        // What is deleted goes at the next pass.
        scene.set("pg_storage.deletion_delay", "0");
        let ada = scene.user("ada");
        Self { scene, ada, own, bobs, eves, played: 0 }
    }

    pub fn endpoint(&self) -> &str {
        &self.scene.store.endpoint
    }

    pub fn treasures(&self) -> [&Treasure; 3] {
        [&self.own, &self.bobs, &self.eves]
    }

    /// Bytes of the usual length that no other upload has.
    pub fn new_bytes(&mut self) -> Vec<u8> {
        self.played += 1;
        some_bytes(&format!("case {}", self.played), LENGTH)
    }

    /// Brings the subject of a case to where the case begins.
    pub fn prepare(&mut self, case: &Case) -> Subject {
        if case.start == Start::Download {
            return self.download();
        }
        let bytes = self.new_bytes();
        let mut upload = if case.declared { Upload::declared(&bytes) } else { Upload::of(&bytes) };
        if case.start == Start::Expired {
            upload = upload.expiring_in("1 second");
        }
        let ticket = upload.request(&mut self.ada);
        let place = self.scene.place_of_upload(&ticket.upload_id);
        let honest = RawRequest::to("PUT", ticket.url(), &ticket.headers, &bytes);
        match case.start {
            Start::Fresh | Start::Download => {}
            Start::Expired => {
                let over = ticket.expires_at.expect("a ticket ends");
                let limit = Duration::from_secs(30);
                eventually("the end of the URL", limit, || (SystemTime::now() > over).then_some(()));
                // Stores count in whole seconds.
                std::thread::sleep(Duration::from_secs(1));
            }
            Start::Confirmed | Start::Deleted => {
                self.put_and_confirm(&ticket, &bytes);
                if case.start == Start::Deleted {
                    let delete = "SELECT storage.delete_file($1::text::uuid)";
                    self.ada.execute(delete, &[&ticket.file_id]).expect("delete the file");
                    self.scene.maintain();
                    assert!(!self.scene.exists(&place), "the bytes went with the file");
                }
            }
            Start::Aborted => {
                flow::abort(&mut self.ada, &ticket.upload_id).expect("abort the upload");
            }
        }
        Subject { ticket: Some(ticket), bytes, place, honest }
    }

    fn download(&mut self) -> Subject {
        let url = flow::download_url(&mut self.ada, &self.own.file_id);
        Subject {
            ticket: None,
            bytes: self.own.bytes.clone(),
            place: self.own.place.clone(),
            honest: RawRequest::to("GET", &url, &Headers::new(), &[]),
        }
    }

    /// The query of a download of Ada's file.
    pub fn download_query(&mut self) -> Vec<(String, String)> {
        self.download().honest.query
    }

    /// The honest upload.
    #[track_caller]
    pub fn put_and_confirm(&mut self, ticket: &Ticket, bytes: &[u8]) {
        let answer = ticket.put(bytes);
        assert!(answer.is_success(), "the honest PUT: {} {}", answer.status, answer.text());
        let verdict = flow::confirm(&mut self.ada, &ticket.upload_id);
        assert_eq!(verdict.outcome(), ("uploaded", None), "{verdict:?}");
    }

    pub fn snapshot(&self) -> Snapshot {
        let buckets: Vec<String> =
            self.scene.value("SELECT array_agg(name ORDER BY name) FROM storage.physical_buckets");
        let listed = |bucket: String| {
            let objects = self.scene.store.listing(&bucket);
            objects.into_iter().map(move |(key, object)| ((bucket.clone(), key), object))
        };
        buckets.into_iter().flat_map(listed).collect()
    }

    /// What is at a place.
    pub fn content(&self, place: &Place) -> Content {
        let url = self.scene.store.url(Method::Get, (&place.0, &place.1), &Headers::new(), &[]);
        let answer = http::get(&url);
        match answer.status {
            200 => {
                let content_type = answer.headers.get("content-type").cloned().unwrap_or_default();
                let encoded = answer.headers.contains_key("content-encoding");
                Content::Stored(answer.body, content_type, encoded)
            }
            403 => Content::Unreadable,
            404 => Content::Absent,
            status => panic!("GET {place:?}: {status} {}", answer.text()),
        }
    }

    /// Whether anybody can read what is at a place, without a signature.
    pub fn is_open(&self, place: &Place) -> bool {
        http::get(&format!("{}/{}/{}", self.endpoint(), place.0, place.1)).is_success()
    }
}

fn treasure(scene: &Scene, session: &mut Client, user: &str) -> Treasure {
    let mark = format!("treasure of {user} ");
    let bytes = some_bytes(mark.trim_end(), LENGTH);
    let ticket = Upload::declared(&bytes).complete(session, &bytes);
    Treasure { place: scene.place_of_file(&ticket.file_id), file_id: ticket.file_id, bytes, mark }
}
