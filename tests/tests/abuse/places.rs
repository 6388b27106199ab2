//! An upload's URL that is to write elsewhere: other keys, other buckets, and other ways to spell a path.

use crate::cases::{Case, Kind, Start, with_subject};
use crate::stage::{Place, Stage};

type Path = fn(&Stage, &Place) -> String;

fn path(place: &Place) -> String {
    format!("/{}/{}", place.0, place.1)
}

/// With `…` written where the last segment of the key begins.
fn before_name(place: &Place, inserted: &str) -> String {
    let (parents, name) = place.1.rsplit_once('/').unwrap_or(("", &place.1));
    format!("/{}/{parents}/{inserted}{name}", place.0)
}

/// What is done to the path, for an upload and for a download.
pub fn paths() -> Vec<(&'static str, Path)> {
    vec![
        ("another user's file", |stage, _| path(&stage.bobs.place)),
        ("another tenant's file", |stage, _| path(&stage.eves.place)),
        ("the same key in another tenant's bucket", |stage, own| {
            format!("/{}/{}", stage.eves.place.0, own.1)
        }),
        ("a bucket that does not exist", |_, own| format!("/no-such-bucket/{}", own.1)),
        ("the bucket", |_, own| format!("/{}", own.0)),
        ("the bucket with a slash", |_, own| format!("/{}/", own.0)),
        ("the root", |_, _| "/".to_owned()),
        ("the key with one more letter", |_, own| format!("{}x", path(own))),
        ("the key with one letter less", |_, own| path(own)[..path(own).len() - 1].to_owned()),
        ("the key with its last digit changed", |_, own| {
            let path = path(own);
            let (last, rest) = (path.chars().last().unwrap_or('0'), &path[..path.len() - 1]);
            format!("{rest}{}", if last == '0' { '1' } else { '0' })
        }),
        ("the key with a slash at its end", |_, own| format!("{}/", path(own))),
        ("the key's parent", |_, own| path(own).rsplit_once('/').unwrap_or_default().0.to_owned()),
        ("the key in upper case", |_, own| format!("/{}/{}", own.0, own.1.to_uppercase())),
        ("the bucket in upper case", |_, own| format!("/{}/{}", own.0.to_uppercase(), own.1)),
        ("// before the bucket", |_, own| format!("/{}", path(own))),
        ("// before the key", |_, own| format!("/{}//{}", own.0, own.1)),
        ("// in the key", |_, own| before_name(own, "/")),
        ("/./ before the bucket", |_, own| format!("/.{}", path(own))),
        ("/./ in the key", |_, own| before_name(own, "./")),
        ("/x/../ in the key", |_, own| before_name(own, "x/../")),
        ("/x/%2e%2e/ in the key", |_, own| before_name(own, "x/%2e%2e/")),
        ("/x/..%2f in the key", |_, own| before_name(own, "x/..%2f")),
        ("out by /../ to another user's file", |stage, own| {
            format!("/{}/x/../{}", own.0, stage.bobs.place.1)
        }),
        ("out by /%2e%2e/ to another tenant's file", |stage, own| {
            format!("/{}/%2e%2e{}", own.0, path(&stage.eves.place))
        }),
        ("out by many /../", |_, own| format!("/{}/{}etc/passwd", own.0, "../".repeat(12))),
        ("/../ before the bucket", |_, own| format!("/..{}", path(own))),
        ("a letter of the key percent-encoded", |_, own| {
            let first = own.1.as_bytes().first().copied().unwrap_or(b'a');
            format!("/{}/%{first:02x}{}", own.0, &own.1[1..])
        }),
        ("the slashes of the key percent-encoded", |_, own| {
            format!("/{}/{}", own.0, own.1.replace('/', "%2F"))
        }),
        ("the key percent-encoded twice", |_, own| {
            let first = own.1.as_bytes().first().copied().unwrap_or(b'a');
            format!("/{}/%25{first:02x}{}", own.0, &own.1[1..])
        }),
        ("%00 at the end", |_, own| format!("{}%00", path(own))),
        ("%20 at the end", |_, own| format!("{}%20", path(own))),
        ("%0d%0a and a header at the end", |_, own| format!("{}%0d%0ax-amz-acl:%20public-read", path(own))),
        ("%3f at the end", |_, own| format!("{}%3facl", path(own))),
        (";x at the end", |_, own| format!("{};x", path(own))),
        ("#x at the end", |_, own| format!("{}#x", path(own))),
        ("backslashes for slashes", |_, own| format!("/{}/{}", own.0, own.1.replace('/', "\\"))),
        ("bytes that are not UTF-8", |_, own| format!("{}%ff", path(own))),
        ("an overlong ../", |_, own| before_name(own, "x/%c0%ae%c0%ae/")),
        ("no slash in front", |_, own| path(own)[1..].to_owned()),
        ("the whole URL in the request line", |stage, own| format!("{}{}", stage.endpoint(), path(own))),
        ("the URL of another host in the request line", |_, own| {
            format!("http://evil.example.com{}", path(own))
        }),
    ]
}

pub fn all(kind: Kind) -> Vec<Case> {
    let group = format!("The path of {}", kind.noun());
    let start = (Start::Fresh, kind);
    let change = |path: Path| {
        move |stage: &mut Stage,
              subject: &crate::stage::Subject,
              r: &mut pg_storage_tests::raw_http::RawRequest| {
            r.path = path(stage, &subject.place);
        }
    };
    let mut cases: Vec<Case> =
        paths().into_iter().map(|(name, path)| with_subject(&group, name, start, change(path))).collect();
    cases.push(with_subject(&group, "the bucket in the host's name", start, |_, subject, r| {
        let host = format!("{}.{}", subject.place.0, r.header("host").1);
        r.header("host").1 = host;
        r.path = format!("/{}", subject.place.1);
    }));
    cases.push(with_subject(&group, "another key, in a header (x-rewrite-url)", start, |stage, _, r| {
        r.say("x-rewrite-url", &path(&stage.bobs.place));
    }));
    cases
}
