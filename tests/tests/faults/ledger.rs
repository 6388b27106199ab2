//! What one client was told: the model that the database is held against.

use crate::world::Content;
use pg_storage_tests::flow::Ticket;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Digests, of which a file has one. There are several where the hash was not declared and several bodies were sent.
pub type Digests = BTreeSet<String>;

/// What is known of a file.
#[derive(Clone, Debug)]
pub enum Fate {
    /// The server said that it is committed.
    Exists(Digests),
    /// The server said that it is not there, and why.
    Absent(&'static str),
    /// The connection broke before the server said.
    Unknown(Digests),
}

/// What is known of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Asked for in a transaction that is still open.
    New,
    /// Committed as requested, or perhaps.
    Pending,
    /// Ended for good.
    Ended,
    /// Asked for in a transaction that was rolled back: no row, but a URL that still works.
    Ghost,
}

/// An upload request and what was sent for it.
pub struct Upload {
    pub ticket: Ticket,
    pub content: Arc<Content>,
    pub declared: bool,
    /// Whether it expires while the run lasts.
    pub short: bool,
    /// Whether its file has no path, so that nobody can be in its way.
    pub pathless: bool,
    pub standing: Standing,
    /// Whether the server may have ended it, or never committed it, without saying so.
    pub doubtful: bool,
    /// Digests of all bodies of the right length that were sent.
    pub sent: Digests,
    /// Whether the store acknowledged the right bytes, and no others can be there.
    pub arrived: bool,
}

impl Upload {
    /// Whether what was sent contradicts the declared type.
    pub fn is_contradictory(&self) -> bool {
        self.content.contradictory && self.sent.iter().all(|sent| *sent == self.content.sha256)
    }

    /// Digests that its file may have.
    pub fn promised(&self) -> Digests {
        if self.declared { Digests::from([self.content.sha256.clone()]) } else { self.sent.clone() }
    }
}

/// Something that a transaction does, if it commits.
#[derive(Clone, Debug)]
pub enum Effect {
    /// An upload request is there.
    Opened(String),
    /// It has ended.
    Ended(String),
    /// A file is there.
    Made(String, Digests),
    /// It is not there, and why.
    Gone(String, &'static str),
}

/// Everything one client knows.
#[derive(Default)]
pub struct Ledger {
    /// Uploads and their files, in the order of the requests: ids are random, and choices must repeat.
    pub requested: Vec<(String, String)>,
    pub files: BTreeMap<String, Fate>,
    pub uploads: BTreeMap<String, Upload>,
    /// File names of requests whose answer was lost: such a file may exist, for its bytes may have been there already.
    pub lost: BTreeSet<String>,
    /// Files and uploads in prepared transactions.
    pub held: BTreeSet<String>,
}

impl Ledger {
    /// The server said that it committed these.
    pub fn commit(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Opened(upload) => self.stand(&upload, Standing::Pending),
                Effect::Ended(upload) => self.stand(&upload, Standing::Ended),
                Effect::Made(file, digests) => drop(self.files.insert(file, Fate::Exists(digests))),
                Effect::Gone(file, why) => drop(self.files.insert(file, Fate::Absent(why))),
            }
        }
    }

    /// The server said that it rolled these back, or the connection broke before it was asked to commit.
    pub fn roll_back(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Opened(upload) => self.stand(&upload, Standing::Ghost),
                Effect::Made(file, _) => {
                    self.files.entry(file).or_insert(Fate::Absent("rolled back"));
                }
                Effect::Ended(_) | Effect::Gone(..) => {}
            }
        }
    }

    /// The connection broke, and the server may have committed these.
    pub fn lose(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Opened(upload) | Effect::Ended(upload) => {
                    if let Some(upload) = self.uploads.get_mut(&upload) {
                        upload.standing = Standing::Pending;
                        upload.doubtful = true;
                    }
                }
                Effect::Made(file, digests) => match self.files.get(&file) {
                    Some(Fate::Exists(_)) => {}
                    _ => drop(self.files.insert(file, Fate::Unknown(digests))),
                },
                Effect::Gone(file, _) => {
                    if let Some(Fate::Exists(digests)) = self.files.get(&file).cloned() {
                        self.files.insert(file, Fate::Unknown(digests));
                    }
                }
            }
        }
    }

    /// The server confirms by itself what is pending when its time is over.
    pub fn expect_confirmations(&mut self) {
        for upload in self.uploads.values().filter(|upload| upload.standing == Standing::Pending) {
            if upload.sent.is_empty() {
                continue;
            }
            let certain = upload.arrived && upload.pathless && !upload.is_contradictory();
            let fate = if certain && !upload.short && !upload.doubtful {
                Fate::Exists(upload.promised())
            } else {
                Fate::Unknown(upload.promised())
            };
            self.files.insert(upload.ticket.file_id.clone(), fate);
        }
    }

    /// The buckets of all files are deleted; what was pending may have become files before.
    pub fn bury(&mut self) {
        for fate in self.files.values_mut() {
            if let Fate::Exists(_) = fate {
                *fate = Fate::Absent("deleted");
            }
        }
        for upload in std::mem::take(&mut self.uploads).into_values() {
            if upload.standing == Standing::Pending && !upload.sent.is_empty() {
                self.files.insert(upload.ticket.file_id.clone(), Fate::Unknown(upload.promised()));
            }
        }
    }

    fn stand(&mut self, upload: &str, standing: Standing) {
        if let Some(upload) = self.uploads.get_mut(upload) {
            upload.standing = standing;
            if standing == Standing::Ended {
                upload.doubtful = false;
            }
        }
    }

    /// Files that exist for a session in whose transaction `effects` happened.
    pub fn visible_files(&self, effects: &[Effect]) -> Vec<(String, Digests)> {
        let digests_of = |file: &String| {
            let mut digests = match self.files.get(file) {
                Some(Fate::Exists(digests)) if !self.held.contains(file) => Some(digests),
                _ => None,
            };
            for effect in effects {
                match effect {
                    Effect::Made(made, new) if made == file => digests = Some(new),
                    Effect::Gone(gone, _) if gone == file => digests = None,
                    _ => {}
                }
            }
            digests.cloned()
        };
        self.requested.iter().filter_map(|(_, file)| Some((file.clone(), digests_of(file)?))).collect()
    }

    /// Uploads that are pending for a session in whose transaction `effects` happened.
    pub fn pending(&self, effects: &[Effect]) -> Vec<String> {
        let ended =
            |id: &str| effects.iter().any(|effect| matches!(effect, Effect::Ended(ended) if ended == id));
        let opened =
            |id: &str| effects.iter().any(|effect| matches!(effect, Effect::Opened(opened) if opened == id));
        self.in_standing(&[Standing::Pending, Standing::New])
            .filter(|(id, upload)| upload.standing == Standing::Pending || opened(id))
            .filter(|(id, _)| !ended(id))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Uploads of which this is known, in the order of the requests.
    pub fn in_standing(&self, standing: &[Standing]) -> impl Iterator<Item = (&String, &Upload)> {
        self.requested
            .iter()
            .filter_map(|(id, _)| self.uploads.get_key_value(id))
            .filter(|(id, upload)| standing.contains(&upload.standing) && !self.held.contains(*id))
    }

    /// Keeps the files and uploads of a prepared transaction out of the client's way, or gives them back.
    pub fn hold(&mut self, effects: &[Effect], held: bool) {
        for effect in effects {
            let (Effect::Opened(id) | Effect::Ended(id) | Effect::Made(id, _) | Effect::Gone(id, _)) = effect;
            if held {
                self.held.insert(id.clone());
            } else {
                self.held.remove(id);
            }
        }
    }

    /// Forgets all but the latest of the uploads that nobody will confirm any more.
    pub fn tidy(&mut self) {
        const KEPT: usize = 24;
        let over: Vec<String> =
            self.in_standing(&[Standing::Ended, Standing::Ghost]).map(|(id, _)| id.clone()).collect();
        for id in over.iter().rev().skip(KEPT) {
            self.uploads.remove(id);
        }
    }
}
