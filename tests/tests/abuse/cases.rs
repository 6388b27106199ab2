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

pub struct Case {
    /// The heading it stands under.
    pub group: &'static str,
    pub name: String,
    pub start: Start,
    /// Whether the upload's hash was declared.
    pub declared: bool,
    pub act: Act,
}

/// The headers of an upload whose hash was declared, each with another value.
const HEADERS: [(&str, &str); 6] = [
    ("content-length", "299"),
    ("content-type", "text/html"),
    ("host", "evil.example.com"),
    ("if-none-match", "\"0\""),
    ("x-amz-checksum-sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    ("x-amz-sdk-checksum-algorithm", "CRC32"),
];

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases = crate::parameters::all();
    cases.extend(headers());
    cases.extend(crate::additions::all());
    cases.extend(bodies());
    cases.extend(methods());
    cases.extend(crate::places::all());
    cases.extend(crate::times::all());
    cases.extend(crate::downloads::all());
    cases
}

/// The honest upload of a declared hash with one change.
pub fn upload(
    group: &'static str,
    name: impl Into<String>,
    change: impl Fn(&mut RawRequest) + 'static,
) -> Case {
    with_subject(group, name, (Start::Fresh, true), move |_, _, request| change(request))
}

/// The honest request with one change that depends on what there is.
pub fn with_subject(
    group: &'static str,
    name: impl Into<String>,
    (start, declared): (Start, bool),
    change: impl Fn(&mut Stage, &Subject, &mut RawRequest) + 'static,
) -> Case {
    let act: Act = Box::new(move |stage, subject| {
        let mut request = subject.honest.clone();
        change(stage, subject, &mut request);
        request
    });
    Case { group, name: name.into(), start, declared, act }
}

/// What is done to a request, by the name of a header and another value of it.
type HeaderChange = fn(&mut RawRequest, &str, &str);

fn headers() -> Vec<Case> {
    const GROUP: &str = "Signed headers of an upload";
    let mut cases = Vec::new();
    for (name, other) in HEADERS {
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
            cases.push(upload(GROUP, format!("{name} {what}"), move |r| change(r, name, other)));
        }
    }
    cases.push(upload(GROUP, "all of them removed", |r| {
        r.headers.retain(|(name, _)| name == "host" || name == "content-length")
    }));
    cases
}

fn bodies() -> Vec<Case> {
    const GROUP: &str = "The body of an upload";
    let mut cases = Vec::new();
    for declared in [true, false] {
        let kind = if declared { "hash declared" } else { "hash not declared" };
        let mut add = |name: &str, change: fn(&mut RawRequest)| {
            let change = move |_: &mut Stage, _: &Subject, r: &mut RawRequest| change(r);
            cases.push(with_subject(GROUP, format!("{name} ({kind})"), (Start::Fresh, declared), change));
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
        add("another type", |r| r.header("content-type").1 = "text/html".to_owned());
        add("the type with a parameter", |r| r.header("content-type").1.push_str("; charset=utf-7"));
    }
    cases
}

fn with_length(request: &mut RawRequest, length: usize) {
    request.body.resize(length, b'!');
    request.header("content-length").1 = length.to_string();
}

fn methods() -> Vec<Case> {
    const GROUP: &str = "The method of an upload";
    let others = ["GET", "HEAD", "DELETE", "POST", "PATCH", "OPTIONS", "TRACE", "COPY", "put"];
    let mut cases: Vec<Case> = others
        .into_iter()
        .map(|method| upload(GROUP, method, move |r| r.method = method.to_owned()))
        .collect();
    for method in ["GET", "DELETE"] {
        // The key exists now.
        cases.push(with_subject(
            GROUP,
            format!("{method} after confirm"),
            (Start::Confirmed, true),
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
    match &subject.ticket {
        Some(ticket) => {
            let url = store.url_by_clock(ahead, Method::Put, place, &ticket.headers, &[]);
            RawRequest::to("PUT", &url, &ticket.headers, &subject.bytes)
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
