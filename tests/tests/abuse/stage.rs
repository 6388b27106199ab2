//! Where a case is played: a store with files that must come to no harm, and an upload or a file that the case is about.

use crate::cases::{Case, Kind, Start};
use pg_storage_core::presign::Method;
use pg_storage_tests::flow::{self, Upload, some_bytes};
use pg_storage_tests::http::{self, Headers};
use pg_storage_tests::parts::{Form, request_form, try_request_parts, try_sign_parts};
use pg_storage_tests::raw_http::RawRequest;
use pg_storage_tests::{Listed, Scene, eventually};
use postgres::Client;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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

/// An upload that was asked for.
#[derive(Clone)]
pub struct Asked {
    pub upload_id: String,
    pub file_id: String,
    /// The headers that go with its URL.
    pub headers: Headers,
}

/// What a case is about.
pub struct Subject {
    /// The upload; `None`: a download of Ada's file.
    pub upload: Option<Asked>,
    /// What the honest client would send, or gets.
    pub bytes: Vec<u8>,
    /// Where its URL points.
    pub place: Place,
    /// The honest request.
    pub honest: RawRequest,
    /// What the honest request posts, if it is a form.
    pub form: Option<Form>,
}

impl Subject {
    /// The upload, where there is one.
    #[track_caller]
    pub fn asked(&self) -> &Asked {
        self.upload.as_ref().expect("it is an upload")
    }

    /// What names the part in the query, if it is one.
    pub fn part_query(&self) -> Vec<(&'static str, String)> {
        let value = |name: &str| {
            self.honest.query.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
        };
        ["partNumber", "uploadId"].into_iter().filter_map(|name| Some((name, value(name)?))).collect()
    }

    /// Does what the honest client does, and nothing more is to be done by it.
    #[track_caller]
    pub fn send_honestly(&self, endpoint: &str) {
        // Garage is, while its database is locked.
        let answer = eventually("the store not to be busy", Duration::from_secs(10), || {
            let answer = self.honest.send(endpoint).expect("the honest request gets an answer");
            (answer.status != 503).then_some(answer)
        });
        assert!(answer.is_success(), "the honest request: {} {}", answer.status, answer.text());
    }
}

/// What the store's owner finds at a place.
pub enum Content {
    Absent,
    /// The store does not even give it to the owner of the bucket.
    Unreadable,
    /// Bytes, type, and whether they are said to be encoded or to be for all caches, which nobody signed.
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
        let expires_in = (case.start == Start::Expired).then_some("1 second");
        let subject = ask(&self.scene, &mut self.ada, case.kind, &bytes, expires_in);
        match case.start {
            Start::Fresh | Start::Download => {}
            Start::Expired => {
                let over = "SELECT clock_timestamp() > expires_at FROM storage.upload_requests WHERE id = ";
                let over = format!("{over}'{}'", subject.asked().upload_id);
                eventually("the end of the URL", Duration::from_secs(30), || {
                    self.scene.value::<bool>(&over).then_some(())
                });
                // Stores count in whole seconds.
                std::thread::sleep(Duration::from_secs(1));
            }
            Start::Confirmed | Start::Deleted => {
                self.send_and_confirm(&subject);
                if case.start == Start::Deleted {
                    let delete = "SELECT storage.delete_file($1::text::uuid)";
                    self.ada.execute(delete, &[&subject.asked().file_id]).expect("delete the file");
                    self.scene.maintain();
                    assert!(!self.scene.exists(&subject.place), "the bytes went with the file");
                }
            }
            Start::Aborted => {
                flow::abort(&mut self.ada, &subject.asked().upload_id).expect("abort the upload");
            }
        }
        subject
    }

    fn download(&mut self) -> Subject {
        let url = flow::download_url(&mut self.ada, &self.own.file_id);
        Subject {
            upload: None,
            bytes: self.own.bytes.clone(),
            place: self.own.place.clone(),
            honest: RawRequest::to("GET", &url, &Headers::new(), &[]),
            form: None,
        }
    }

    /// The query of a download of Ada's file.
    pub fn download_query(&mut self) -> Vec<(String, String)> {
        self.download().honest.query
    }

    /// The honest upload.
    #[track_caller]
    pub fn send_and_confirm(&mut self, subject: &Subject) {
        subject.send_honestly(&self.scene.store.endpoint);
        let verdict = flow::confirm(&mut self.ada, &subject.asked().upload_id);
        assert_eq!(verdict.outcome(), ("uploaded", None), "{verdict:?}");
    }

    /// Every upload in parts that the store has begun.
    pub fn unfinished(&self) -> BTreeSet<Place> {
        let mut found = BTreeSet::new();
        for bucket in self.physical_buckets() {
            let answer = self.scene.ask_store(Method::Get, (&bucket, ""), &[("uploads", "")]);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let text = answer.text();
            assert!(!text.contains("<IsTruncated>true"), "one page is enough");
            let ids = text.split("<UploadId>").skip(1).filter_map(|rest| rest.split('<').next());
            found.extend(ids.map(|id| (bucket.clone(), id.to_owned())));
        }
        found
    }

    /// Whether an upload in parts, by the store's name for it, is still to be completed.
    pub fn is_pending(&self, multipart_id: &str) -> bool {
        self.scene.value(&format!(
            "SELECT EXISTS (SELECT FROM storage.upload_requests WHERE multipart_id = '{multipart_id}'
                            AND status = 'requested' AND expires_at > clock_timestamp())"
        ))
    }

    fn physical_buckets(&self) -> Vec<String> {
        self.scene.value("SELECT array_agg(name ORDER BY name) FROM storage.physical_buckets")
    }

    /// Whether the store was seen to be fit for this.
    pub fn offers(&self, kind: Kind) -> bool {
        let capability = match kind {
            Kind::Declared | Kind::Undeclared => return true,
            Kind::SummedPart | Kind::Part => "parts",
            Kind::Form => "forms",
        };
        self.scene.value(&format!(
            "SELECT capabilities ->> '{capability}' = 'enforced' FROM storage.store_capabilities"
        ))
    }

    pub fn snapshot(&self) -> Snapshot {
        let listed = |bucket: String| {
            let objects = self.scene.store.listing(&bucket);
            objects.into_iter().map(move |(key, object)| ((bucket.clone(), key), object))
        };
        self.physical_buckets().into_iter().flat_map(listed).collect()
    }

    /// What is at a place.
    pub fn content(&self, place: &Place) -> Content {
        let url = self.scene.store.url(Method::Get, (&place.0, &place.1), &Headers::new(), &[]);
        let answer = http::get(&url);
        match answer.status {
            200 => {
                let content_type = answer.headers.get("content-type").cloned().unwrap_or_default();
                let cached = answer.headers.get("cache-control").is_some_and(|said| said.contains("public"));
                let unsigned = cached || answer.headers.contains_key("content-encoding");
                Content::Stored(answer.body, content_type, unsigned)
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

/// Asks for an upload of `bytes`.
pub fn ask(
    scene: &Scene,
    session: &mut Client,
    kind: Kind,
    bytes: &[u8],
    expires_in: Option<&str>,
) -> Subject {
    let upload = if kind == Kind::Declared { Upload::declared(bytes) } else { Upload::of(bytes) };
    let upload = Upload { expires_in: expires_in.map(str::to_owned), ..upload };
    let (asked, honest, form) = match kind {
        Kind::Declared | Kind::Undeclared => {
            let ticket = upload.request(session);
            let honest = RawRequest::to("PUT", ticket.url(), &ticket.headers, bytes);
            (
                Asked { upload_id: ticket.upload_id, file_id: ticket.file_id, headers: ticket.headers },
                honest,
                None,
            )
        }
        Kind::SummedPart | Kind::Part => {
            let summed = kind == Kind::SummedPart;
            let ticket = try_request_parts(session, &upload, summed).expect("parts are offered");
            let sums = summed.then(|| vec![flow::sha256(bytes)]);
            let part =
                try_sign_parts(session, &ticket.upload_id, &[1], sums.as_deref()).expect("a URL").remove(0);
            let honest = RawRequest::to("PUT", &part.url, &part.headers, bytes);
            (
                Asked { upload_id: ticket.upload_id, file_id: ticket.file_id, headers: part.headers },
                honest,
                None,
            )
        }
        Kind::Form => {
            let form = request_form(session, &upload);
            let honest = crate::forms::post(&form, bytes);
            let asked = Asked {
                upload_id: form.upload_id.clone(),
                file_id: form.file_id.clone(),
                headers: Headers::new(),
            };
            (asked, honest, Some(form))
        }
    };
    let place = scene.place_of_upload(&asked.upload_id);
    Subject { upload: Some(asked), bytes: bytes.to_vec(), place, honest, form }
}

fn treasure(scene: &Scene, session: &mut Client, user: &str) -> Treasure {
    let mark = format!("treasure of {user} ");
    let bytes = some_bytes(mark.trim_end(), LENGTH);
    let ticket = Upload::declared(&bytes).complete(session, &bytes);
    Treasure { place: scene.place_of_file(&ticket.file_id), file_id: ticket.file_id, bytes, mark }
}
