//! An upload's URL at another time: after its end, again, after what it was for, and by another clock.

use crate::cases::{Case, Kind, Start, signed_by_clock, upload, with_subject};
use crate::stage::LENGTH;

pub fn all(kinds: [Kind; 2]) -> Vec<Case> {
    let mut cases: Vec<Case> = kinds.into_iter().flat_map(replays).collect();
    let [bound, _] = kinds;
    let group = format!("The protocol of {}", bound.noun());
    for version in ["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9.9"] {
        cases.push(upload(&group, version, bound, move |r| r.version = version.to_owned()));
    }
    cases.push(upload(&group, "HTTP/1.0 without a host", bound, |r| {
        r.version = "HTTP/1.0".to_owned();
        r.hush("host");
    }));
    cases
}

fn replays(of: Kind) -> Vec<Case> {
    let group = format!("Time and replay of {}", of.noun());
    let kind = of.known();
    let mut cases = Vec::new();
    let stages = [
        ("after its end", Start::Expired),
        ("after confirm", Start::Confirmed),
        ("after the file was deleted", Start::Deleted),
        ("after abort", Start::Aborted),
    ];
    for (when, start) in stages {
        cases.push(with_subject(
            &group,
            format!("the same bytes {when} ({kind})"),
            (start, of),
            |_, _, _| (),
        ));
        let other = format!("other bytes of the same length {when} ({kind})");
        cases.push(with_subject(&group, other, (start, of), |_, _, r| r.body = vec![b'!'; LENGTH]));
    }
    let start = (Start::Fresh, of);
    cases.push(with_subject(&group, format!("twice before confirm ({kind})"), start, |stage, subject, _| {
        assert!(subject.honest.send(stage.endpoint()).is_some_and(|answer| answer.is_success()));
    }));
    let name = format!("other bytes after the right ones, before confirm ({kind})");
    cases.push(with_subject(&group, name, start, |stage, subject, r| {
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
        cases.push(with_subject(&group, name, start, move |stage, subject, r| {
            *r = signed_by_clock(stage, subject, ahead, &subject.place);
        }));
    }
    cases
}
