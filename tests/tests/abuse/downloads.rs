//! The URL of a download.

use crate::cases::{Case, Kind, Start, signed_by_clock, with_subject};
use crate::parameters::{PARAMETERS, tampered};
use crate::places::paths;
use crate::stage::Stage;
use pg_storage_tests::flow;
use pg_storage_tests::http::Headers;
use pg_storage_tests::raw_http::RawRequest;

fn case(name: impl Into<String>, change: impl Fn(&mut RawRequest) + 'static) -> Case {
    download(name, move |_, r| change(r))
}

fn download(name: impl Into<String>, change: impl Fn(&Stage, &mut RawRequest) + 'static) -> Case {
    with_subject("A download", name, (Start::Download, Kind::Declared), move |stage, _, r| change(stage, r))
}

pub fn all() -> Vec<Case> {
    let mut cases = vec![case("nothing changed", |_| ())];
    for (name, change) in PARAMETERS.into_iter().flat_map(tampered) {
        // Only the host is signed, so these change nothing.
        if !["X-Amz-SignedHeaders: the host only", "X-Amz-SignedHeaders: another order"]
            .contains(&name.as_str())
        {
            cases.push(case(name, change));
        }
    }
    const SHOWN: &str = "response-content-disposition";
    cases.push(case(format!("{SHOWN} changed"), |r| r.parameter(SHOWN).1 = "inline".to_owned()));
    cases.push(case(format!("{SHOWN} removed"), |r| r.query.retain(|(other, _)| other != SHOWN)));
    cases.push(case(format!("{SHOWN} doubled, another value last"), |r| r.ask(SHOWN, "inline")));
    cases.push(case(format!("{SHOWN} doubled, another value first"), |r| {
        r.query.insert(0, (SHOWN.to_owned(), "inline".to_owned()));
    }));
    for (name, value) in [
        ("response-content-type", "text%2Fhtml"),
        ("response-content-encoding", "gzip"),
        ("response-cache-control", "public"),
        ("response-expires", "Thu%2C%2001%20Jan%202099%2000%3A00%3A00%20GMT"),
        ("versionId", "null"),
        ("partNumber", "1"),
        ("acl", ""),
        ("uploads", ""),
        ("attributes", ""),
        ("list-type", "2"),
        ("x-id", "ListObjects"),
    ] {
        cases.push(case(format!("{name} added"), move |r| r.ask(name, value)));
    }
    for method in ["HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "get"] {
        cases.push(case(method, move |r| {
            r.method = method.to_owned();
            if ["PUT", "POST", "PATCH"].contains(&method) {
                r.body = b"overwritten".to_vec();
                r.say("content-length", "11");
            }
        }));
    }
    for (name, path) in paths() {
        cases.push(with_subject(
            "A download, by its path",
            name,
            (Start::Download, Kind::Declared),
            move |stage, subject, r| {
                r.path = path(stage, &subject.place);
            },
        ));
    }
    for (name, value) in [
        ("range", "bytes=0-9"),
        ("range", "bytes=10-"),
        ("range", "bytes=-5"),
        ("range", "bytes=0-0,5-6"),
        ("range", "bytes=300-"),
        ("range", "bytes=9-1"),
        ("if-none-match", "*"),
        ("x-amz-acl", "public-read"),
        ("x-amz-copy-source", "/"),
        ("x-http-method-override", "DELETE"),
        ("authorization", "Bearer nothing"),
        ("host", "evil.example.com"),
        ("origin", "https://evil.example.com"),
    ] {
        cases.push(case(format!("{name}: {value} added"), move |r| r.say(name, value)));
    }
    cases.push(case("host changed", |r| r.header("host").1 = "evil.example.com".to_owned()));
    cases.push(case("host removed", |r| r.hush("host")));
    cases.push(case("HTTP/1.0", |r| r.version = "HTTP/1.0".to_owned()));
    for (clock, ahead) in [("20 minutes behind", -1200), ("20 minutes ahead", 1200)] {
        let start = (Start::Download, Kind::Declared);
        cases.push(with_subject(
            "A download",
            format!("signed by a clock {clock}"),
            start,
            move |stage, subject, r| {
                *r = signed_by_clock(stage, subject, ahead, &subject.place);
            },
        ));
    }
    cases.push(download("another user's signature", |stage, r| {
        let url = flow::download_url(&mut stage.scene.user("bob"), &stage.bobs.file_id);
        r.query = RawRequest::to("GET", &url, &Headers::new(), &[]).query;
    }));
    cases
}
