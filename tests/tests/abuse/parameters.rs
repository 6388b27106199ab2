//! The parameters of a presigned URL, each changed, removed, doubled.

use crate::cases::{Case, Kind, Start, upload, with_subject};
use crate::stage::{Stage, Subject, ask};
use pg_storage_tests::raw_http::RawRequest;

/// The parameters of a presigned URL.
pub const PARAMETERS: [&str; 6] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
];

/// What is done to a request.
pub type Change = Box<dyn Fn(&mut RawRequest)>;

/// What names a part besides.
const OF_A_PART: [&str; 2] = ["partNumber", "uploadId"];

/// Those of an upload, or of a part of one.
pub fn all(kind: Kind) -> Vec<Case> {
    let group = format!("Parameters of {}'s URL", kind.noun());
    let own = if kind.is_part() { &OF_A_PART[..] } else { &[] };
    let tampered = PARAMETERS.iter().chain(own).copied().flat_map(tampered);
    let mut cases: Vec<Case> = tampered.map(|(name, change)| upload(&group, name, kind, change)).collect();
    let whole = |who: &'static str| {
        move |stage: &mut Stage, _: &Subject, r: &mut RawRequest| {
            let bytes = stage.new_bytes();
            let mut session = stage.scene.user(who);
            r.query = ask(&stage.scene, &mut session, kind, &bytes, None).honest.query;
        }
    };
    let start = (Start::Fresh, kind);
    cases.push(with_subject(&group, "everything signed for another's upload", start, whole("bob")));
    cases.push(with_subject(
        &group,
        "everything signed for another upload of one's own",
        start,
        whole("ada"),
    ));
    if kind.is_part() {
        for (whose, who) in [("another upload of one's own", "ada"), ("another's upload", "bob")] {
            let other = move |stage: &mut Stage, _: &Subject, r: &mut RawRequest| {
                let bytes = stage.new_bytes();
                let mut session = stage.scene.user(who);
                let mut other = ask(&stage.scene, &mut session, kind, &bytes, None);
                r.parameter("uploadId").1 = other.honest.parameter("uploadId").1.clone();
            };
            cases.push(with_subject(&group, format!("uploadId: that of {whose}"), start, other));
        }
    }
    cases.push(with_subject(&group, "the signature of a download", start, |stage, _, r| {
        r.query = stage.download_query();
    }));
    cases
}

/// What can be done to a parameter of the query, by its name: the same for uploads and downloads.
pub fn tampered(name: &'static str) -> Vec<(String, Change)> {
    let mut cases: Vec<(String, Change)> = Vec::new();
    for (what, value) in other_values(name) {
        cases.push((
            format!("{name}: {what}"),
            Box::new(move |r| r.parameter(name).1 = value(&r.parameter(name).1)),
        ));
    }
    cases.push((format!("{name} removed"), Box::new(move |r| r.query.retain(|(other, _)| other != name))));
    cases.push((
        format!("{name} doubled"),
        Box::new(move |r| {
            let copy = r.parameter(name).clone();
            r.query.push(copy);
        }),
    ));
    let other = other_values(name)[0].1;
    cases.push((
        format!("{name} doubled, another value last"),
        Box::new(move |r| {
            let value = other(&r.parameter(name).1);
            r.ask(name, &value);
        }),
    ));
    cases.push((
        format!("{name} doubled, another value first"),
        Box::new(move |r| {
            let value = other(&r.parameter(name).1);
            r.query.insert(0, (name.to_owned(), value));
        }),
    ));
    cases.push((
        format!("{name} in lower case"),
        Box::new(move |r| r.parameter(name).0 = name.to_lowercase()),
    ));
    cases
}

type NewValue = fn(&str) -> String;

/// Other values of a parameter; the first is the plainest.
fn other_values(name: &str) -> Vec<(&'static str, NewValue)> {
    let mut values: Vec<(&'static str, NewValue)> =
        match name {
            "X-Amz-Algorithm" => vec![
                ("SHA-1", |_| "AWS4-HMAC-SHA1".to_owned()),
                ("none", |_| "none".to_owned()),
                ("version 4A", |_| "AWS4-ECDSA-P256-SHA256".to_owned()),
            ],
            "X-Amz-Credential" => vec![
                ("another key", |value| format!("X{value}")),
                ("another region", |value| scope(value, 2, "elsewhere")),
                ("another service", |value| scope(value, 3, "iam")),
                ("another day", |value| scope(value, 1, "20200101")),
                ("no scope", |value| value.split("%2F").next().unwrap_or_default().to_owned()),
            ],
            "X-Amz-Date" => vec![
                ("another second", |value| {
                    value
                        .replace('Z', "")
                        .chars()
                        .rev()
                        .enumerate()
                        .map(|(place, digit)| {
                            if place == 0 { char::from(b'0' + (digit as u8 - b'0' + 1) % 10) } else { digit }
                        })
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev()
                        .chain(['Z'])
                        .collect()
                }),
                ("a year to come", |value| format!("2099{}", &value[4..])),
                ("not a date", |_| "yesterday".to_owned()),
            ],
            "X-Amz-Expires" => vec![
                ("ten times as long", |value| format!("{value}0")),
                ("eight days", |_| "691200".to_owned()),
                ("negative", |_| "-1".to_owned()),
                ("zero", |_| "0".to_owned()),
                ("beyond 64 bits", |_| "99999999999999999999".to_owned()),
            ],
            "X-Amz-SignedHeaders" => vec![
                ("the host only", |_| "host".to_owned()),
                ("one more", |value| format!("{value}%3Bx-amz-acl")),
                ("another order", |value| {
                    value.split("%3B").collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("%3B")
                }),
                ("in upper case", |value| value.to_uppercase()),
            ],
            "partNumber" => vec![
                ("the next", |_| "2".to_owned()),
                ("zero", |_| "0".to_owned()),
                ("negative", |_| "-1".to_owned()),
                ("beyond the last there can be", |_| "10001".to_owned()),
                ("with a zero in front", |value| format!("0{value}")),
                ("with a plus in front", |value| format!("%2B{value}")),
            ],
            "uploadId" => vec![
                ("made up", |value| "0".repeat(value.len())),
                ("one letter short", |value| value[1..].to_owned()),
            ],
            _ => vec![
                ("one digit changed", |value| {
                    let other = if value.starts_with('0') { '1' } else { '0' };
                    format!("{other}{}", &value[1..])
                }),
                ("one digit short", |value| value[1..].to_owned()),
                ("all zero", |value| "0".repeat(value.len())),
                ("in upper case", |value| value.to_uppercase()),
            ],
        };
    values.push(("empty", |_| String::new()));
    values
}

/// A credential with one part of its scope replaced.
fn scope(value: &str, part: usize, other: &str) -> String {
    let mut parts: Vec<&str> = value.split("%2F").collect();
    parts[part] = other;
    parts.join("%2F")
}
