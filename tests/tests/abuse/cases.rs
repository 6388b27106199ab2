//! What is done with a presigned URL: each case is the honest request with one thing changed.

use crate::stage::{LENGTH, Place, Stage, Subject};
use pg_storage_core::presign::Method;
use pg_storage_tests::raw_http::{RawRequest, chunked};

/// How far the upload or file is when the case begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Requested; nothing was sent.
    Fresh,
    /// Requested, and the URL's time is over.
    Expired,
    /// Sent and confirmed.
    Confirmed,
    /// Confirmed, deleted, and the bytes collected.
    Deleted,
    /// Requested and aborted.
    Aborted,
    /// The URL is one for a download.
    Download,
}

/// Makes the request.
pub type Act = Box<dyn Fn(&mut Stage, &Subject) -> RawRequest>;

/// How the bytes are sent, and what is known of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One PUT of bytes whose hash was declared.
    Declared,
    /// One PUT of any bytes.
    Undeclared,
    /// The only part of an upload, and its hash is signed.
    SummedPart,
    /// The only part of an upload.
    Part,
    /// A form.
    Form,
}

impl Kind {
    /// What the URL is for, in a heading.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Declared | Self::Undeclared => "an upload",
            Self::SummedPart | Self::Part => "a part",
            Self::Form => "a form",
        }
    }

    /// What is known of the bytes, in a case's name.
    pub fn known(self) -> &'static str {
        match self {
            Self::Declared => "hash declared",
            Self::Undeclared => "hash not declared",
            Self::SummedPart => "hash signed",
            Self::Part | Self::Form => "hash not signed",
        }
    }

    pub fn is_part(self) -> bool {
        matches!(self, Self::SummedPart | Self::Part)
    }

    /// Whether the store itself is to refuse other bytes.
    pub fn binds_bytes(self) -> bool {
        matches!(self, Self::Declared | Self::SummedPart)
    }
}

pub struct Case {
    /// The heading it stands under.
    pub group: String,
    pub name: String,
    pub start: Start,
    pub kind: Kind,
    pub act: Act,
}

/// The headers of an upload whose hash was declared, each with another value; a part has the last four.
const HEADERS: [(&str, &str); 6] = [
    ("content-type", "text/html"),
    ("if-none-match", "\"0\""),
    ("content-length", "299"),
    ("host", "evil.example.com"),
    ("x-amz-checksum-sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    ("x-amz-sdk-checksum-algorithm", "CRC32"),
];

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for [bound, unbound] in [[Kind::Declared, Kind::Undeclared], [Kind::SummedPart, Kind::Part]] {
        cases.extend(crate::parameters::all(bound));
        cases.extend(headers(bound));
        cases.extend(crate::additions::all(bound, unbound));
        for kind in [bound, unbound] {
            cases.extend(bodies(kind));
        }
        cases.extend(methods(bound));
        cases.extend(crate::places::all(bound));
        cases.extend(crate::times::all([bound, unbound]));
    }
    cases.extend(crate::forms::all());
    cases.extend(crate::downloads::all());
    cases
}

/// The honest upload with one change.
pub fn upload(
    group: impl Into<String>,
    name: impl Into<String>,
    kind: Kind,
    change: impl Fn(&mut RawRequest) + 'static,
) -> Case {
    with_subject(group, name, (Start::Fresh, kind), move |_, _, request| change(request))
}

/// The honest request with one change that depends on what there is.
pub fn with_subject(
    group: impl Into<String>,
    name: impl Into<String>,
    (start, kind): (Start, Kind),
    change: impl Fn(&mut Stage, &Subject, &mut RawRequest) + 'static,
) -> Case {
    let act: Act = Box::new(move |stage, subject| {
        let mut request = subject.honest.clone();
        change(stage, subject, &mut request);
        request
    });
    Case { group: group.into(), name: name.into(), start, kind, act }
}

/// What is done to a request, by the name of a header and another value of it.
type HeaderChange = fn(&mut RawRequest, &str, &str);

fn headers(kind: Kind) -> Vec<Case> {
    let group = format!("Signed headers of {}", kind.noun());
    let mut cases = Vec::new();
    for (name, other) in &HEADERS[if kind.is_part() { 2 } else { 0 }..] {
        let changes: [(&str, HeaderChange); 6] = [
            ("changed", |r, name, other| r.header(name).1 = other.to_owned()),
            ("removed", |r, name, _| r.hush(name)),
            ("empty", |r, name, _| r.header(name).1.clear()),
            ("doubled", |r, name, _| {
                let copy = r.header(name).clone();
                r.headers.push(copy);
            }),
            ("doubled, another value last", |r, name, other| r.say(name, other)),
            ("doubled, another value first", |r, name, other| {
                r.headers.insert(0, (name.to_owned(), other.to_owned()));
            }),
        ];
        for (what, change) in changes {
            cases.push(upload(&group, format!("{name} {what}"), kind, move |r| change(r, name, other)));
        }
    }
    cases.push(upload(&group, "all of them removed", kind, |r| {
        r.headers.retain(|(name, _)| name == "host" || name == "content-length")
    }));
    cases
}

fn bodies(kind: Kind) -> Vec<Case> {
    let group = format!("The body of {}", kind.noun());
    let mut cases = Vec::new();
    let mut add = |name: &str, change: fn(&mut RawRequest)| {
        cases.push(upload(&group, format!("{name} ({})", kind.known()), kind, change));
    };
    add("other bytes of the same length", |r| r.body = vec![b'!'; LENGTH]);
    add("one bit changed", |r| r.body[LENGTH / 2] ^= 1);
    add("shorter, and says so", |r| with_length(r, LENGTH - 1));
    add("longer, and says so", |r| with_length(r, LENGTH + 1));
    add("empty, and says so", |r| with_length(r, 0));
    add("shorter than announced", |r| {
        r.body.truncate(LENGTH - 1);
        r.cut = true;
    });
    add("nothing at all, then the end", |r| {
        r.body.clear();
        r.cut = true;
    });
    add("longer than announced", |r| r.body.push(b'!'));
    add("in chunks, without a length", |r| {
        r.hush("content-length");
        r.say("transfer-encoding", "chunked");
        r.body = chunked(&r.body);
    });
    add("in chunks, with the length", |r| {
        r.say("transfer-encoding", "chunked");
        r.body = chunked(&r.body);
    });
    add("other bytes in chunks, with the length", |r| {
        r.say("transfer-encoding", "chunked");
        r.body = chunked(&[b'!'; LENGTH]);
    });
    add("in chunks of the signing protocol", |r| {
        r.say("content-encoding", "aws-chunked");
        r.say("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        r.say("x-amz-decoded-content-length", "300");
    });
    if kind.is_part() {
        add("a type, which parts have none of", |r| r.say("content-type", "text/html"));
    } else {
        add("another type", |r| r.header("content-type").1 = "text/html".to_owned());
        add("the type with a parameter", |r| r.header("content-type").1.push_str("; charset=utf-7"));
    }
    cases
}

fn with_length(request: &mut RawRequest, length: usize) {
    request.body.resize(length, b'!');
    request.header("content-length").1 = length.to_string();
}

fn methods(kind: Kind) -> Vec<Case> {
    let group = format!("The method of {}", kind.noun());
    let others = ["GET", "HEAD", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE", "COPY", "put"];
    let mut cases: Vec<Case> = others
        .into_iter()
        .map(|method| upload(&group, method, kind, move |r| r.method = method.to_owned()))
        .collect();
    for method in ["GET", "DELETE"] {
        // The key exists now.
        cases.push(with_subject(
            &group,
            format!("{method} after confirm"),
            (Start::Confirmed, kind),
            move |_, _, r| {
                r.method = method.to_owned();
                r.body.clear();
                r.hush("content-length");
            },
        ));
    }
    cases
}

/// A URL that the test itself signs, by a clock that is `ahead` seconds before ours.
pub fn signed_by_clock(stage: &Stage, subject: &Subject, ahead: i64, place: &Place) -> RawRequest {
    let store = &stage.scene.store;
    let place = (place.0.as_str(), place.1.as_str());
    match &subject.upload {
        Some(asked) => {
            let query = subject.part_query();
            let query: Vec<(&str, &str)> =
                query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let url = store.url_by_clock(ahead, Method::Put, place, &asked.headers, &query);
            RawRequest::to("PUT", &url, &asked.headers, &subject.bytes)
        }
        None => {
            let query =
                [("response-content-disposition", "attachment"), ("response-content-type", "text/plain")];
            let nothing = pg_storage_tests::http::Headers::new();
            let url = store.url_by_clock(ahead, Method::Get, place, &nothing, &query);
            RawRequest::to("GET", &url, &nothing, &[])
        }
    }
}
