//! How a form is posted: its body, its request, its path, and when.

use crate::cases::{Case, Kind, Start, with_subject};
use crate::forms::post;
use crate::stage::{LENGTH, Stage, Subject};
use pg_storage_tests::parts::BOUNDARY;
use pg_storage_tests::raw_http::{RawRequest, chunked};

pub fn all() -> Vec<Case> {
    let mut cases = bodies();
    cases.extend(requests());
    cases.extend(places());
    cases.extend(times());
    cases
}

/// The honest form, sent otherwise.
fn request(group: &str, name: impl Into<String>, change: impl Fn(&mut RawRequest) + 'static) -> Case {
    with_subject(group, name, (Start::Fresh, Kind::Form), move |_, _, r| change(r))
}

/// Another part of the form's body, with the length it then has.
fn rewritten(request: &mut RawRequest, from: &str, to: &str) {
    let place = request.body.windows(from.len()).position(|part| part == from.as_bytes());
    let place = place.unwrap_or_else(|| panic!("the form has no {from}"));
    request.body.splice(place..place + from.len(), to.bytes());
    request.header("content-length").1 = request.body.len().to_string();
}

fn bodies() -> Vec<Case> {
    const GROUP: &str = "The body of a form";
    const FILE: &str = "name=\"file\"; filename=\"f\"\r\n\r\n";
    type Body = fn(&Subject) -> Vec<u8>;
    let files: [(&str, Body); 6] = [
        ("other bytes of the same length", |_| vec![b'!'; LENGTH]),
        ("a file of one byte", |_| vec![b'!']),
        ("an empty file", |_| Vec::new()),
        ("a file that is one byte too long", |_| vec![b'!'; LENGTH + 1]),
        ("a file that is a megabyte too long", |_| vec![b'!'; LENGTH + (1 << 20)]),
        ("a file that has the boundary in it", |subject| {
            let mut file = subject.bytes.clone();
            file.splice(100..110, format!("\r\n--{BOUNDARY}\r\n").bytes());
            file
        }),
    ];
    let mut cases = Vec::new();
    for (what, file) in files {
        cases.push(with_subject(GROUP, what, (Start::Fresh, Kind::Form), move |_, subject, r| {
            *r = post(subject.form.as_ref().expect("a form was asked for"), &file(subject));
        }));
    }
    type Change = fn(&mut RawRequest);
    let changes: [(&str, Change); 15] = [
        ("shorter than announced", |r| {
            let length = r.body.len() - BOUNDARY.len() - 40;
            r.body.truncate(length);
            r.cut = true;
        }),
        ("without its end", |r| rewritten(r, &format!("\r\n--{BOUNDARY}--\r\n"), "")),
        ("nothing at all, then the end", |r| {
            r.body.clear();
            r.cut = true;
        }),
        ("longer than announced", |r| r.body.push(b'!')),
        ("in chunks, without a length", |r| {
            r.hush("content-length");
            r.say("transfer-encoding", "chunked");
            r.body = chunked(&r.body);
        }),
        ("another boundary in its header", |r| {
            r.header("content-type").1 = "multipart/form-data; boundary=another".to_owned();
        }),
        ("no boundary in its header", |r| r.header("content-type").1 = "multipart/form-data".to_owned()),
        ("said to be URL-encoded", |r| {
            r.header("content-type").1 = "application/x-www-form-urlencoded".to_owned();
        }),
        ("a type of the file's own", |r| {
            let typed = FILE.replace("\r\n\r\n", "\r\nContent-Type: text/html\r\n\r\n");
            rewritten(r, FILE, &typed);
        }),
        ("an encoding of the file's own", |r| {
            let encoded = FILE.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n");
            rewritten(r, FILE, &encoded);
        }),
        ("a name of the file that leads out", |r| {
            rewritten(r, FILE, &FILE.replace("\"f\"", "\"../../../etc/passwd\""));
        }),
        ("no name of the file", |r| rewritten(r, FILE, "name=\"file\"\r\n\r\n")),
        ("no field of the name file", |r| {
            rewritten(r, FILE, &FILE.replace("name=\"file\"", "name=\"other\""))
        }),
        ("the file first", |r| {
            let first =
                format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {FILE}first\r\n--{BOUNDARY}");
            rewritten(r, &format!("--{BOUNDARY}"), &first);
        }),
        ("fields after the file", |r| {
            let more = format!(
                "\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"acl\"\r\n\r\npublic-read\r\n--{BOUNDARY}--\r\n"
            );
            rewritten(r, &format!("\r\n--{BOUNDARY}--\r\n"), &more);
        }),
    ];
    for (what, change) in changes {
        cases.push(request(GROUP, what, change));
    }
    cases.push(request(GROUP, "a second file after the first", |r| {
        let more = format!(
            "\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; {FILE}{}\r\n--{BOUNDARY}--\r\n",
            "?".repeat(LENGTH)
        );
        rewritten(r, &format!("\r\n--{BOUNDARY}--\r\n"), &more);
    }));
    cases
}

/// Headers, parameters and methods: a form is signed by its fields alone.
fn requests() -> Vec<Case> {
    const GROUP: &str = "The request of a form";
    let everybody = "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\"";
    let mut cases = Vec::new();
    for (name, value) in [
        ("x-amz-acl", "public-read"),
        ("x-amz-grant-read", everybody),
        ("x-amz-meta-note", "added"),
        ("x-amz-tagging", "public=yes"),
        ("x-amz-website-redirect-location", "https://evil.example.com/"),
        ("x-amz-decoded-content-length", "300"),
        ("x-amz-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=nobody"),
        ("authorization", "Bearer nothing"),
        ("cache-control", "public, max-age=31536000"),
        ("content-disposition", "inline"),
        ("content-encoding", "gzip"),
        ("origin", "https://evil.example.com"),
        ("x-http-method-override", "DELETE"),
        ("host", "evil.example.com"),
    ] {
        cases.push(request(GROUP, format!("header added, {name}: {value}"), move |r| r.say(name, value)));
    }
    cases.push(request(GROUP, "host changed", |r| r.header("host").1 = "evil.example.com".to_owned()));
    cases.push(request(GROUP, "host removed", |r| r.hush("host")));
    for (name, value) in [
        ("delete", ""),
        ("uploads", ""),
        ("uploadId", "1"),
        ("acl", ""),
        ("policy", ""),
        ("x-amz-acl", "public-read"),
        ("X-Amz-Signature", "0"),
        ("unknown", "1"),
    ] {
        cases.push(request(GROUP, format!("parameter added, {name}"), move |r| r.ask(name, value)));
    }
    cases.push(with_subject(
        GROUP,
        "the signature of a download",
        (Start::Fresh, Kind::Form),
        |stage, _, r| {
            r.query = stage.download_query();
        },
    ));
    for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "post"] {
        cases.push(request(GROUP, method, move |r| r.method = method.to_owned()));
    }
    cases
}

fn places() -> Vec<Case> {
    const GROUP: &str = "The path of a form";
    type Path = fn(&Stage, &Subject) -> String;
    let paths: [(&str, Path); 9] = [
        ("another tenant's bucket", |stage, _| format!("/{}/", stage.eves.place.0)),
        ("a bucket that does not exist", |_, _| "/no-such-bucket/".to_owned()),
        ("the root", |_, _| "/".to_owned()),
        ("the key", |_, subject| format!("/{}/{}", subject.place.0, subject.place.1)),
        ("another user's file", |stage, _| format!("/{}/{}", stage.bobs.place.0, stage.bobs.place.1)),
        ("the bucket in upper case", |_, subject| format!("/{}/", subject.place.0.to_uppercase())),
        ("the bucket without its slash", |_, subject| format!("/{}", subject.place.0)),
        ("out by /../ to another tenant's bucket", |stage, subject| {
            format!("/{}/../{}/", subject.place.0, stage.eves.place.0)
        }),
        ("// before the bucket", |_, subject| format!("//{}/", subject.place.0)),
    ];
    let mut cases = Vec::new();
    for (what, path) in paths {
        cases.push(with_subject(GROUP, what, (Start::Fresh, Kind::Form), move |stage, subject, r| {
            r.path = path(stage, subject);
        }));
    }
    cases
}

fn times() -> Vec<Case> {
    const GROUP: &str = "Time and replay of a form";
    let other = |subject: &Subject, r: &mut RawRequest| {
        *r = post(subject.form.as_ref().expect("a form was asked for"), &[b'!'; LENGTH]);
    };
    let mut cases = Vec::new();
    for (when, start) in [
        ("after its end", Start::Expired),
        ("after confirm", Start::Confirmed),
        ("after the file was deleted", Start::Deleted),
        ("after abort", Start::Aborted),
    ] {
        let start = (start, Kind::Form);
        cases.push(with_subject(GROUP, format!("the same bytes {when}"), start, |_, _, _| ()));
        let name = format!("other bytes of the same length {when}");
        cases.push(with_subject(GROUP, name, start, move |_, subject, r| other(subject, r)));
    }
    let start = (Start::Fresh, Kind::Form);
    cases.push(with_subject(GROUP, "twice before confirm", start, |stage, subject, _| {
        subject.send_honestly(stage.endpoint());
    }));
    let name = "other bytes after the right ones, before confirm";
    cases.push(with_subject(GROUP, name, start, move |stage, subject, r| {
        subject.send_honestly(stage.endpoint());
        other(subject, r);
    }));
    cases
}
