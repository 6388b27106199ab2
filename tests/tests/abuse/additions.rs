//! What is added to an upload: parameters and headers that nobody signed.

use crate::cases::{Case, Kind, Start, upload, with_subject};
use crate::stage::{Place, Stage};

pub fn all(bound: Kind, unbound: Kind) -> Vec<Case> {
    let mut cases = parameters(bound);
    cases.extend(headers(bound, unbound));
    cases.extend(copies(unbound));
    cases
}

fn heading(kind: Kind) -> String {
    format!("Headers added to {}", kind.noun())
}

fn parameters(kind: Kind) -> Vec<Case> {
    let group = format!("Parameters added to {}'s URL", kind.noun());
    let added = [
        ("acl", ""),
        ("tagging", ""),
        ("uploads", ""),
        ("uploadId", "1"),
        ("partNumber", "1"),
        ("append", ""),
        ("versionId", "null"),
        ("response-content-type", "text%2Fhtml"),
        ("x-amz-acl", "public-read"),
        ("x-amz-checksum-sha256", "47DEQpj8HBSa%2B%2FTImW%2B5JCeuQeRkm5NMpJWZG3hSuFU%3D"),
        ("x-amz-copy-source", "%2F"),
        ("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),
        ("X-Amz-Security-Token", "token"),
        ("x-id", "DeleteObject"),
        ("unknown", "1"),
    ];
    added
        .into_iter()
        .filter(|(name, _)| !kind.is_part() || !matches!(*name, "uploadId" | "partNumber"))
        .map(|(name, value)| upload(&group, name, kind, move |r| r.ask(name, value)))
        .collect()
}

fn headers(bound: Kind, unbound: Kind) -> Vec<Case> {
    let everybody = "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\"";
    let added = [
        ("x-amz-acl", "public-read"),
        ("x-amz-acl", "public-read-write"),
        ("x-amz-grant-read", everybody),
        ("x-amz-grant-full-control", everybody),
        ("x-amz-meta-note", "added"),
        ("x-amz-tagging", "public=yes"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-website-redirect-location", "https://evil.example.com/"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-object-lock-mode", "COMPLIANCE"),
        ("x-amz-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("x-amz-checksum-crc32", "AAAAAA=="),
        ("x-amz-checksum-sha1", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("x-amz-security-token", "token"),
        ("x-amz-date", "20200101T000000Z"),
        ("x-amz-expected-bucket-owner", "somebody"),
        ("x-amz-write-offset-bytes", "0"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=nobody"),
        ("authorization", "Bearer nothing"),
        ("cache-control", "public, max-age=31536000"),
        ("content-disposition", "inline"),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
        ("content-range", "bytes 0-9/300"),
        ("range", "bytes=0-9"),
        ("expires", "Thu, 01 Jan 2099 00:00:00 GMT"),
        ("if-match", "*"),
        ("origin", "https://evil.example.com"),
        ("x-http-method-override", "DELETE"),
        ("x-forwarded-host", "evil.example.com"),
        ("x-original-url", "/"),
        ("expect", "something-else"),
    ];
    let mut cases = Vec::new();
    for (name, value) in added {
        cases.push(upload(heading(bound), format!("{name}: {value}"), bound, move |r| r.say(name, value)));
    }
    // Stores that do not sign them stage the upload; sent all the same, they bind or they are nothing.
    for (name, value) in
        [("if-none-match", "*"), ("x-amz-checksum-sha256", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]
    {
        let case = format!("{name}: {value} ({})", unbound.known());
        cases.push(upload(heading(unbound), case, unbound, move |r| r.say(name, value)));
    }
    cases
}

/// A header that makes the store copy what is elsewhere in place of the body. The length and the type are those of the
/// other file, and the hash is not declared, so confirm has no reason to reject the bytes.
fn copies(kind: Kind) -> Vec<Case> {
    type Source = fn(&Stage) -> Place;
    let sources: [(&str, Source); 3] = [
        ("another user's file", |stage| stage.bobs.place.clone()),
        ("another tenant's file", |stage| stage.eves.place.clone()),
        ("an own file", |stage| stage.own.place.clone()),
    ];
    let mut cases = Vec::new();
    for (whose, source) in sources {
        let third = if kind.is_part() {
            ("with the body, a range", true, Some(("x-amz-copy-source-range", "bytes=0-299")))
        } else {
            ("with the body, type replaced", true, Some(("x-amz-metadata-directive", "REPLACE")))
        };
        for (how, body, more) in [("with the body", true, None), ("without a body", false, None), third] {
            cases.push(with_subject(
                heading(kind),
                format!("x-amz-copy-source: {whose}, {how}"),
                (Start::Fresh, kind),
                move |stage, _, r| {
                    let (bucket, key) = source(stage);
                    r.say("x-amz-copy-source", &format!("/{bucket}/{key}"));
                    if let Some((name, value)) = more {
                        r.say(name, value);
                    }
                    if !body {
                        r.body.clear();
                        r.cut = true;
                    }
                },
            ));
        }
    }
    cases
}
