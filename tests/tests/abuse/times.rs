//! An upload's URL at another time: after its end, again, after what it was for, and by another clock.

use crate::cases::{Case, Start, signed_by_clock, with_subject};
use crate::stage::LENGTH;

const GROUP: &str = "Time and replay of an upload";

pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for declared in [true, false] {
        let kind = if declared { "hash declared" } else { "hash not declared" };
        let stages = [
            ("after its end", Start::Expired),
            ("after confirm", Start::Confirmed),
            ("after the file was deleted", Start::Deleted),
            ("after abort", Start::Aborted),
        ];
        for (when, start) in stages {
            cases.push(with_subject(
                GROUP,
                format!("the same bytes {when} ({kind})"),
                (start, declared),
                |_, _, _| (),
            ));
            let other = format!("other bytes of the same length {when} ({kind})");
            cases.push(with_subject(GROUP, other, (start, declared), |_, _, r| r.body = vec![b'!'; LENGTH]));
        }
        let start = (Start::Fresh, declared);
        cases.push(with_subject(
            GROUP,
            format!("twice before confirm ({kind})"),
            start,
            |stage, subject, _| {
                assert!(subject.honest.send(stage.endpoint()).is_some_and(|answer| answer.is_success()));
            },
        ));
        let name = format!("other bytes after the right ones, before confirm ({kind})");
        cases.push(with_subject(GROUP, name, start, |stage, subject, r| {
            assert!(subject.honest.send(stage.endpoint()).is_some_and(|answer| answer.is_success()));
            r.body = vec![b'!'; LENGTH];
        }));
        let clocks = [
            ("20 minutes behind", -1200),
            ("20 minutes ahead", 1200),
            ("a day ahead", 86_400),
            ("2 minutes behind", -120),
        ];
        for (clock, ahead) in clocks {
            let name = format!("signed by a clock {clock} ({kind})");
            cases.push(with_subject(GROUP, name, start, move |stage, subject, r| {
                *r = signed_by_clock(stage, subject, ahead, &subject.place);
            }));
        }
    }
    for version in ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9.9"] {
        cases.push(with_subject(
            "The protocol of an upload",
            version,
            (Start::Fresh, true),
            move |_, _, r| {
                r.version = version.to_owned();
            },
        ));
    }
    cases.push(with_subject(
        "The protocol of an upload",
        "HTTP/1.0 without a host",
        (Start::Fresh, true),
        |_, _, r| {
            r.version = "HTTP/1.0".to_owned();
            r.hush("host");
        },
    ));
    cases
}
