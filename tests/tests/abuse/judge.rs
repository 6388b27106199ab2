//! What came of a case: refused, harmless, or harm. Harmless has to be proved.

use crate::cases::{Case, Kind, Start};
use crate::stage::{Asked, Content, LENGTH, Place, Snapshot, Stage, Subject};
use pg_storage_tests::flow::{self, confirm, sha256};
use pg_storage_tests::http::Response;
use pg_storage_tests::orphans::scan;
use pg_storage_tests::{Refusal, refused};
use std::collections::BTreeSet;

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store said no, or hung up, and nothing changed.
    Refused,
    /// The store took it, and why that does no harm.
    Harmless(String),
    /// What went wrong.
    Harm(String),
    /// There is no such URL on this store.
    NotOffered,
}

/// The words for a harm that was found.
type Found = Result<Outcome, String>;

/// Plays a case and judges it. Also says what the store answered.
pub fn play(stage: &mut Stage, case: &Case) -> (Outcome, String) {
    if !stage.offers(case.kind) {
        return (Outcome::NotOffered, "was not asked".to_owned());
    }
    let subject = stage.prepare(case);
    let request = (case.act)(stage, &subject);
    let before = (stage.snapshot(), stage.unfinished());
    let answer = request.send(stage.endpoint());
    let said = match &answer {
        Some(answer) => answer.status.to_string(),
        None => "hung up".to_owned(),
    };
    let outcome = judge(stage, case, &subject, &before, answer.as_ref());
    (outcome.unwrap_or_else(Outcome::Harm), said)
}

fn judge(
    stage: &mut Stage,
    case: &Case,
    subject: &Subject,
    before: &(Snapshot, BTreeSet<Place>),
    answer: Option<&Response>,
) -> Found {
    let changed = differences(&before.0, &stage.snapshot());
    let unfinished = stage.unfinished();
    expect(unfinished.is_subset(&before.1), || "began an upload in parts".to_owned())?;
    let gone = before.1.difference(&unfinished);
    expect(!gone.into_iter().any(|(_, id)| stage.is_pending(id)), || "ended an upload in parts".to_owned())?;
    if let Some(other) = changed.iter().find(|place| **place != subject.place) {
        return Err(format!("changed {other:?}"));
    }
    for treasure in stage.treasures() {
        if !matches!(stage.content(&treasure.place), Content::Stored(bytes, ..) if bytes == treasure.bytes) {
            return Err(format!("the bytes of {}are others", treasure.mark));
        }
        if stage.is_open(&treasure.place) {
            return Err(format!("everybody can read {}", treasure.mark));
        }
        let allowed = subject.upload.is_none() && treasure.place == subject.place;
        if !allowed && answer.is_some_and(|answer| answer.text().contains(&treasure.mark)) {
            return Err(format!("gave out {}", treasure.mark));
        }
    }
    if stage.is_open(&subject.place) {
        return Err("everybody can read what was uploaded".to_owned());
    }
    let accepted = answer.is_some_and(|answer| answer.status < 400);
    match &subject.upload {
        None => judge_download(stage, subject, answer.filter(|_| accepted)),
        Some(asked) => judge_upload(stage, case, subject, asked, accepted, !changed.is_empty()),
    }
}

fn differences(before: &Snapshot, after: &Snapshot) -> Vec<Place> {
    let gone = before.keys().filter(|place| !after.contains_key(*place));
    let new =
        after.iter().filter(|(place, object)| before.get(*place) != Some(*object)).map(|(place, _)| place);
    gone.chain(new).cloned().collect()
}

fn judge_download(stage: &Stage, subject: &Subject, answer: Option<&Response>) -> Found {
    let Some(answer) = answer else {
        // The refusal was about what the case changed.
        let honest = subject.honest.send(stage.endpoint()).ok_or("the honest GET got no answer")?;
        expect(honest.body == subject.bytes, || format!("the honest GET: {}", honest.status))?;
        return Ok(Outcome::Refused);
    };
    let shown = |why: &str| Ok(Outcome::Harmless(why.to_owned()));
    let headers = ["content-type", "content-disposition"].map(|name| answer.headers.get(name).cloned());
    let [content_type, disposition] = headers.map(Option::unwrap_or_default);
    // Nobody is led to a part of a file by a link.
    let whole = answer.status == 200 && !answer.body.is_empty();
    if whole && (content_type != "text/plain" || !disposition.starts_with("attachment")) {
        return Err(format!("shown as {content_type}, {disposition}"));
    }
    if answer.body == subject.bytes {
        return shown("the very file that the URL is for");
    }
    if answer.body.is_empty() {
        return shown("no byte of any file is sent");
    }
    if subject.bytes.windows(answer.body.len()).any(|part| part == answer.body) {
        return shown("a part of the very file that the URL is for");
    }
    Err(format!("sent {:?}", answer.text()))
}

fn judge_upload(
    stage: &mut Stage,
    case: &Case,
    subject: &Subject,
    asked: &Asked,
    accepted: bool,
    changed: bool,
) -> Found {
    match case.start {
        Start::Fresh | Start::Expired if case.kind.is_part() => {
            expect(!changed, || "a part became an object".to_owned())?;
            judge_part(stage, case, subject, asked, accepted)
        }
        Start::Fresh | Start::Expired => judge_fresh(stage, case, subject, asked, accepted),
        Start::Confirmed => {
            let verdict = confirm(&mut stage.ada, &asked.upload_id);
            expect(verdict.outcome() == ("uploaded", None), || format!("the verdict became {verdict:?}"))?;
            comes_back(stage, asked, &subject.bytes)?;
            Ok(match accepted || changed {
                false => Outcome::Refused,
                true => Outcome::Harmless("the bytes of the file are at another key".to_owned()),
            })
        }
        Start::Deleted | Start::Aborted | Start::Download => {
            let count = "SELECT count(*) FROM storage.files WHERE id = $1::text::uuid";
            let files: i64 =
                stage.scene.superuser().query_one(count, &[&asked.file_id]).expect("count the files").get(0);
            expect(files == 0, || "the file is back".to_owned())?;
            if case.start == Start::Aborted {
                let verdict = confirm(&mut stage.ada, &asked.upload_id);
                let right = verdict.outcome() == ("aborted", Some("ABORTED"));
                expect(right, || format!("the verdict became {verdict:?}"))?;
            }
            if matches!(stage.content(&subject.place), Content::Absent) {
                if !accepted {
                    return Ok(Outcome::Refused);
                }
                let queued = "SELECT count(*) FROM storage.object_deletions
                              WHERE (physical_name, key) = ($1, $2) AND multipart_id IS NOT NULL";
                let row = stage.scene.superuser().query_one(queued, &[&subject.place.0, &subject.place.1]);
                let jobs: i64 = row.expect("look into the outbox").get(0);
                expect(jobs > 0, || "nobody will remove the part".to_owned())?;
                return Ok(Outcome::Harmless(
                    "the part goes with its upload, which is never completed".to_owned(),
                ));
            }
            is_collected(stage, &subject.place)?;
            Ok(Outcome::Harmless("no file has it, and it is collected".to_owned()))
        }
    }
}

/// Whether uploads to the store carry a mark.
fn is_marked(stage: &Stage) -> bool {
    stage.scene.value("SELECT capabilities ->> 'unsigned' = 'ignored' FROM storage.store_capabilities")
}

/// Bytes that no row wants: either their deletion waits for its time, or a comparison finds them.
fn is_collected(stage: &Stage, place: &Place) -> Result<(), String> {
    let queued = "SELECT count(*) FROM storage.object_deletions WHERE (physical_name, key) = ($1, $2)";
    let jobs: i64 = stage
        .scene
        .superuser()
        .query_one(queued, &[&place.0, &place.1])
        .expect("look into the outbox")
        .get(0);
    let found = || scan(&stage.scene, &place.0, false).iter().any(|orphan| orphan.key == place.1);
    expect(jobs > 0 || found(), || "nobody will remove the bytes".to_owned())
}

/// The store made a copy of another object of the upload.
fn judge_stolen(stage: &mut Stage, subject: &Subject, asked: &Asked, mark: &str) -> Found {
    let verdict = confirm(&mut stage.ada, &asked.upload_id);
    let told = verdict.details.as_deref() == Some("declared text/plain, found a copy of another object");
    expect(verdict.outcome() == ("rejected", Some("CONTENT_TYPE_MISMATCH")) && told, || {
        format!("{mark}was copied into the upload, and the verdict is {verdict:?}")
    })?;
    is_collected(stage, &subject.place)?;
    Ok(Outcome::Harmless("the copy is rejected, no URL reads it, and it is collected".to_owned()))
}

fn judge_fresh(stage: &mut Stage, case: &Case, subject: &Subject, asked: &Asked, accepted: bool) -> Found {
    let content = match stage.content(&subject.place) {
        Content::Absent => None,
        Content::Unreadable => return judge_unreadable(stage, asked),
        Content::Stored(bytes, content_type, unsigned) => Some((bytes, content_type, unsigned)),
    };
    if let Some((bytes, ..)) = &content {
        let stolen = stage.treasures().into_iter().find(|treasure| treasure.bytes == *bytes);
        if let Some(mark) = stolen.map(|treasure| treasure.mark.clone()) {
            return judge_stolen(stage, subject, asked, &mark);
        }
    }
    let verdict = confirm(&mut stage.ada, &asked.upload_id);
    let right = |expected: (&str, Option<&str>)| {
        expect(verdict.outcome() == expected, || format!("{expected:?} expected, and it is {verdict:?}"))
    };
    let Some((bytes, content_type, unsigned)) = content else {
        if case.start == Start::Expired {
            let ended = verdict.outcome() == ("expired", Some("EXPIRED"));
            expect(ended || right(("requested", Some("NOT_UPLOADED"))).is_ok(), || format!("{verdict:?}"))?;
            return Ok(Outcome::Refused);
        }
        right(("requested", Some("NOT_UPLOADED")))?;
        // The refusal was about what the case changed, and costs the honest client nothing.
        stage.send_and_confirm(subject);
        comes_back(stage, asked, &subject.bytes)?;
        return Ok(match accepted {
            false => Outcome::Refused,
            true => Outcome::Harmless("nothing was stored".to_owned()),
        });
    };
    let reason = if bytes.is_empty() {
        Some("EMPTY_FILE")
    } else if bytes.len() > LENGTH || bytes.len() < LENGTH && case.kind != Kind::Form {
        Some("SIZE_MISMATCH")
    } else if case.kind == Kind::Declared && bytes != subject.bytes {
        Some("HASH_MISMATCH")
    // What goes straight to its final key keeps the encoding, and so does a copy that has to keep its mark; other copies of
    // what is staged do not.
    } else if content_type != "text/plain"
        || unsigned && (case.kind == Kind::Declared && stage.scene.direct || is_marked(stage))
    {
        Some("CONTENT_TYPE_MISMATCH")
    } else {
        None
    };
    if let Some(reason) = reason {
        right(("rejected", Some(reason)))?;
        return Ok(Outcome::Harmless(format!("confirm rejects it: {reason}")));
    }
    right(("uploaded", None))?;
    comes_back(stage, asked, &bytes)?;
    stored(case, subject, &bytes)
}

/// A part is seen by what becomes of it: the upload has this one only.
fn judge_part(stage: &mut Stage, case: &Case, subject: &Subject, asked: &Asked, accepted: bool) -> Found {
    let verdict = match flow::try_confirm(&mut stage.ada, &asked.upload_id) {
        Ok(verdict) => verdict,
        Err(error) => return judge_unjoined(stage, subject, asked, &refused::<()>(Err(error))),
    };
    match verdict.outcome() {
        ("uploaded", None) => {}
        ("expired", Some("EXPIRED")) if case.start == Start::Expired => return Ok(Outcome::Refused),
        ("requested", Some("NOT_UPLOADED")) => {
            if case.start == Start::Fresh {
                stage.send_and_confirm(subject);
                comes_back(stage, asked, &subject.bytes)?;
            }
            return Ok(match accepted {
                false => Outcome::Refused,
                true => Outcome::Harmless("nothing was stored".to_owned()),
            });
        }
        _ => return Err(format!("the verdict is {verdict:?}")),
    }
    expect(case.start == Start::Fresh, || "it was taken after its end".to_owned())?;
    let Content::Stored(bytes, ..) = stage.content(&subject.place) else {
        return Err("a file without bytes".to_owned());
    };
    if let Some(stolen) = stage.treasures().into_iter().find(|treasure| treasure.bytes == bytes) {
        return Err(format!("{}was copied into the upload", stolen.mark));
    }
    expect(bytes.len() == LENGTH, || format!("a file of {} bytes", bytes.len()))?;
    comes_back(stage, asked, &bytes)?;
    stored(case, subject, &bytes)
}

/// The store lists the part that was sent first and joins none, because another was begun after it.
fn judge_unjoined(stage: &mut Stage, subject: &Subject, asked: &Asked, refusal: &Refusal) -> Found {
    let told = refusal.hint.as_deref().is_some_and(|hint| hint.contains("storage.sign_upload_parts()"));
    expect(refusal.token == "STORE_ERROR" && told, || format!("confirm said {refusal:?}"))?;
    stage.send_and_confirm(subject);
    comes_back(stage, asked, &subject.bytes)?;
    Ok(Outcome::Harmless("confirm says that the part is to be sent again, and then it is a file".to_owned()))
}

/// What came is a file, and is what it says it is.
fn stored(case: &Case, subject: &Subject, bytes: &[u8]) -> Found {
    let why = match bytes == subject.bytes {
        true => "exactly what was announced is stored",
        false if case.kind.binds_bytes() => return Err("other bytes than were signed".to_owned()),
        false => "the hash was not announced; the file is what came, and records its hash",
    };
    Ok(Outcome::Harmless(why.to_owned()))
}

/// The uploader has shut the owner of the bucket out.
fn judge_unreadable(stage: &mut Stage, asked: &Asked) -> Found {
    let refusal = refused(flow::try_confirm(&mut stage.ada, &asked.upload_id));
    expect(refusal.token == "STORE_DENIED", || format!("confirm said {refusal:?}"))?;
    let recorded = flow::recorded(&mut stage.ada, &asked.upload_id);
    expect(recorded.outcome() == ("requested", None), || format!("it is {recorded:?}"))?;
    Ok(Outcome::Harmless("nobody can read it, so it is never confirmed".to_owned()))
}

/// The file's bytes, its recorded hash and how it is shown are right.
fn comes_back(stage: &mut Stage, asked: &Asked, bytes: &[u8]) -> Result<(), String> {
    let answer = flow::download(&mut stage.ada, &asked.file_id);
    expect(answer.status == 200 && answer.body == bytes, || "the file has other bytes".to_owned())?;
    let open = stage.is_open(&stage.scene.place_of_file(&asked.file_id));
    expect(!open, || "everybody can read the file".to_owned())?;
    let recorded = "SELECT sha256 FROM storage.files WHERE id = $1::text::uuid";
    let recorded: String =
        stage.ada.query_one(recorded, &[&asked.file_id]).expect("read the file's row").get(0);
    expect(recorded == sha256(bytes), || "the file has another hash".to_owned())?;
    let shown = ["content-type", "content-disposition"].map(|name| answer.headers.get(name).cloned());
    let right = shown[0].as_deref() == Some("text/plain")
        && shown[1].as_deref().is_some_and(|disposition| disposition.starts_with("attachment"))
        && !answer.headers.contains_key("content-encoding");
    expect(right, || format!("the file is shown as {shown:?}, {:?}", answer.headers.get("content-encoding")))
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
