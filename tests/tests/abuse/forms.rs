//! Forms that are altered, replayed or posted late: the policy that is signed is all that they permit.

use crate::cases::{Case, Kind, Start, with_subject};
use crate::stage::{LENGTH, Place, Stage, Subject, ask};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pg_storage_core::key::SCRATCH_PREFIX;
use pg_storage_tests::parts::Form;
use pg_storage_tests::raw_http::RawRequest;

/// The fields of every form, each with another value.
const FIELDS: [(&str, &str); 7] = [
    ("key", "made/up"),
    ("Content-Type", "text/html"),
    ("policy", "e30="),
    ("x-amz-algorithm", "AWS4-HMAC-SHA1"),
    ("x-amz-credential", "nobody/20200101/nowhere/s3/aws4_request"),
    ("x-amz-date", "20200101T000000Z"),
    ("x-amz-signature", "0000000000000000000000000000000000000000000000000000000000000000"),
];

/// The request that posts a form.
pub fn post(form: &Form, file: &[u8]) -> RawRequest {
    let (headers, body) = form.encode(file);
    RawRequest::to("POST", &form.url, &headers, &body)
}

pub fn all() -> Vec<Case> {
    let mut cases = fields();
    cases.extend(policies());
    cases.extend(additions());
    cases.extend(crate::posts::all());
    cases
}

/// The honest form with other fields.
fn form(
    group: &str,
    name: impl Into<String>,
    change: impl Fn(&mut Stage, &Subject, &mut Form) + 'static,
) -> Case {
    with_subject(group, name, (Start::Fresh, Kind::Form), move |stage, subject, r| {
        let mut form = subject.form.clone().expect("a form was asked for");
        change(stage, subject, &mut form);
        *r = post(&form, &subject.bytes);
    })
}

fn field<'a>(form: &'a mut Form, name: &str) -> &'a mut (String, String) {
    let found = form.fields.iter_mut().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("the form has no {name}"))
}

fn fields() -> Vec<Case> {
    const GROUP: &str = "Fields of a form";
    type Change = fn(&mut Form, &str, &str);
    let mut cases = Vec::new();
    for (name, other) in FIELDS {
        let changes: [(&str, Change); 7] = [
            ("changed", |form, name, other| other.clone_into(&mut field(form, name).1)),
            ("removed", |form, name, _| form.fields.retain(|(found, _)| found != name)),
            ("empty", |form, name, _| field(form, name).1.clear()),
            ("doubled", |form, name, _| {
                let copy = field(form, name).clone();
                form.fields.push(copy);
            }),
            ("doubled, another value last", |form, name, other| {
                form.fields.push((name.to_owned(), other.to_owned()));
            }),
            ("doubled, another value first", |form, name, other| {
                form.fields.insert(0, (name.to_owned(), other.to_owned()));
            }),
            ("in upper case, another value", |form, name, other| {
                *field(form, name) = (name.to_uppercase(), other.to_owned());
            }),
        ];
        for (what, change) in changes {
            cases.push(form(GROUP, format!("{name} {what}"), move |_, _, form| change(form, name, other)));
        }
    }
    type Key = fn(&Stage, &Subject) -> String;
    let keys: [(&str, Key); 12] = [
        ("another user's file", |stage, _| stage.bobs.place.1.clone()),
        ("another tenant's file", |stage, _| stage.eves.place.1.clone()),
        ("an own file", |stage, _| stage.own.place.1.clone()),
        ("with one more letter", |_, own| format!("{}x", own.place.1)),
        ("with the name of the file", |_, own| format!("{}${{filename}}", own.place.1)),
        ("the name of the file", |_, _| "${filename}".to_owned()),
        ("with a slash in front", |_, own| format!("/{}", own.place.1)),
        ("with a slash at its end", |_, own| format!("{}/", own.place.1)),
        ("out by ../", |stage, own| format!("{}/../../{}", own.place.1, stage.bobs.place.1)),
        ("percent-encoded", |_, own| own.place.1.replace('/', "%2F")),
        ("in upper case", |_, own| own.place.1.to_uppercase()),
        ("in the scratch prefix", |_, _| format!("{SCRATCH_PREFIX}forged")),
    ];
    for (what, key) in keys {
        cases.push(form(GROUP, format!("key: {what}"), move |stage, subject, form| {
            field(form, "key").1 = key(stage, subject);
        }));
    }
    for (whose, who) in [("another form of one's own", "ada"), ("another's form", "bob")] {
        for (what, taken) in [
            ("the signature", &["x-amz-signature"][..]),
            ("policy and signature", &["policy", "x-amz-signature", "x-amz-date", "x-amz-credential"]),
            ("the key", &["key"]),
        ] {
            cases.push(form(GROUP, format!("{what} of {whose}"), move |stage, _, form| {
                let bytes = stage.new_bytes();
                let mut session = stage.scene.user(who);
                let other = ask(&stage.scene, &mut session, Kind::Form, &bytes, None).form;
                let mut other = other.expect("a form was asked for");
                for name in taken {
                    *field(form, name) = field(&mut other, name).clone();
                }
            }));
        }
    }
    cases.push(form(GROUP, "the signature of a download", |stage, _, form| {
        let query = stage.download_query();
        let signature = query.into_iter().find(|(name, _)| name == "X-Amz-Signature").expect("it is signed");
        field(form, "x-amz-signature").1 = signature.1;
    }));
    cases
}

/// The policy's text, altered.
fn policies() -> Vec<Case> {
    const GROUP: &str = "The policy of a form";
    type Change = fn(&str, &Stage) -> String;
    let changes: [(&str, Change); 9] = [
        ("a later end", |text, _| {
            let (before, rest) = text.split_once("\"expiration\":\"").expect("a policy ends");
            format!("{before}\"expiration\":\"2099{}", &rest[4..])
        }),
        ("a longer file", |text, _| {
            text.replace(
                &format!("\"content-length-range\",1,{LENGTH}"),
                "\"content-length-range\",1,9999999",
            )
        }),
        ("an empty file", |text, _| {
            text.replace("\"content-length-range\",1,", "\"content-length-range\",0,")
        }),
        ("any key", |text, _| text.replace("[\"eq\",\"$key\",", "[\"starts-with\",\"$key\",")),
        ("another bucket", |text, stage| text.replace(&stage.own.place.0, &stage.eves.place.0)),
        ("a field more", |text, _| text.replacen("[[", "[[\"starts-with\",\"$acl\",\"\"],[", 1)),
        ("no condition", |text, _| {
            let (before, _) = text.split_once("\"conditions\":").expect("a policy has conditions");
            format!("{before}\"conditions\":[]}}").replacen(
                "{\"conditions\":[]}",
                "{\"conditions\":[],\"expiration\":\"2099-01-01T00:00:00Z\"}",
                1,
            )
        }),
        ("a space more", |text, _| format!(" {text}")),
        ("not JSON", |_, _| "policy".to_owned()),
    ];
    let mut cases = Vec::new();
    for (what, change) in changes {
        cases.push(form(GROUP, what, move |stage, _, form| {
            let text = STANDARD.decode(&field(form, "policy").1).expect("a policy is base64");
            let text = String::from_utf8(text).expect("a policy is text");
            let changed = change(&text, stage);
            assert_ne!(changed, text, "{what}");
            field(form, "policy").1 = STANDARD.encode(changed);
        }));
    }
    cases.push(form(GROUP, "not in base64", |_, _, form| field(form, "policy").1 = "%".to_owned()));
    cases.push(form(GROUP, "with a line break", |_, _, form| field(form, "policy").1.insert_str(8, "\r\n")));
    cases.push(form(GROUP, "in lower case", |_, _, form| field(form, "policy").1.make_ascii_lowercase()));
    cases
}

fn additions() -> Vec<Case> {
    const GROUP: &str = "Fields added to a form";
    let everybody = "uri=\"http://acs.amazonaws.com/groups/global/AllUsers\"";
    let added = [
        ("acl", "public-read"),
        ("acl", "public-read-write"),
        ("x-amz-acl", "public-read"),
        ("x-amz-grant-read", everybody),
        ("bucket", "no-such-bucket"),
        ("success_action_redirect", "https://evil.example.com/"),
        ("redirect", "https://evil.example.com/"),
        ("success_action_status", "201"),
        ("tagging", "<Tagging><TagSet><Tag><Key>public</Key><Value>yes</Value></Tag></TagSet></Tagging>"),
        ("Cache-Control", "public, max-age=31536000"),
        ("Content-Disposition", "inline"),
        ("Content-Encoding", "gzip"),
        ("Expires", "Thu, 01 Jan 2099 00:00:00 GMT"),
        ("x-amz-meta-note", "added"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ("x-amz-website-redirect-location", "https://evil.example.com/"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-checksum-sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
        ("x-amz-security-token", "token"),
        ("x-ignore-this", "1"),
        ("AWSAccessKeyId", "nobody"),
        ("signature", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("submit", "Upload"),
    ];
    let mut cases = Vec::new();
    for (name, value) in added {
        cases.push(form(GROUP, format!("{name}: {value}"), move |_, _, form| {
            form.fields.insert(1, (name.to_owned(), value.to_owned()));
        }));
    }
    type Source = fn(&Stage) -> Place;
    let sources: [(&str, Source); 3] = [
        ("another user's file", |stage| stage.bobs.place.clone()),
        ("another tenant's file", |stage| stage.eves.place.clone()),
        ("an own file", |stage| stage.own.place.clone()),
    ];
    for (whose, source) in sources {
        cases.push(form(GROUP, format!("x-amz-copy-source: {whose}"), move |stage, _, form| {
            let (bucket, key) = source(stage);
            form.fields.insert(1, ("x-amz-copy-source".to_owned(), format!("/{bucket}/{key}")));
        }));
        let header = move |stage: &mut Stage, _: &Subject, r: &mut RawRequest| {
            let (bucket, key) = source(stage);
            r.say("x-amz-copy-source", &format!("/{bucket}/{key}"));
        };
        let name = format!("x-amz-copy-source: {whose}, as a header");
        cases.push(with_subject(GROUP, name, (Start::Fresh, Kind::Form), header));
    }
    cases
}
