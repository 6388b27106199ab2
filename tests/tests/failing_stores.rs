//! The ways in which tests make a store fail do what they say: what the caller gets, and what the store did.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use pg_storage_core::presign::Method;
use pg_storage_tests::http::{self, Headers};
use pg_storage_tests::{Fault, FaultyStore, LocalStore, StoreAccess};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_millis(1500);

fn send(access: &StoreAccess, method: Method, key: &str, body: &[u8]) -> Option<u16> {
    let url = access.url(method, ("failing", key), &Headers::new(), &[]);
    let answer = match method {
        Method::Put => {
            http::try_upload(&url, &Headers::new(), std::io::Cursor::new(body.to_vec()), body.len(), LIMIT)
        }
        _ => http::try_request(method.as_str(), &url, &Headers::new(), LIMIT),
    };
    answer.map(|answer| answer.status)
}

fn with_bucket() -> LocalStore {
    let store = LocalStore::start();
    assert_eq!(send(store.access(), Method::Put, "", b""), Some(200));
    store
}

#[test]
fn every_fault_is_told_as_it_is_and_counted() {
    let store = with_bucket();
    let proxy = FaultyStore::before(&store.access().endpoint);
    let faulty = StoreAccess { endpoint: proxy.endpoint(), ..store.access().clone() };
    let pause = Duration::from_millis(10);
    // What the caller of a PUT is told, and how often the store carries it out in the end.
    let faults: [(Fault, Option<u16>, usize); 11] = [
        (Fault::Denied, Some(403), 0),
        (Fault::InternalError, Some(500), 0),
        (Fault::SlowDown, Some(503), 0),
        (Fault::Slow(pause), Some(200), 1),
        (Fault::Slow(LIMIT * 2), None, 1),
        (Fault::Silent, None, 0),
        (Fault::Reset, None, 0),
        (Fault::Truncated, None, 1),
        (Fault::ReplyLost, None, 1),
        (Fault::Duplicate(pause), Some(200), 2),
        (Fault::Drip(pause), Some(200), 1),
    ];
    let mut expected: BTreeMap<&str, usize> = BTreeMap::new();
    for (number, (fault, told, carried_out)) in faults.into_iter().enumerate() {
        let key = format!("key{number}");
        proxy.set("PUT /", fault);
        assert_eq!(send(&faulty, Method::Put, &key, b"bytes"), told, "{fault:?}");
        proxy.wait_until_idle();
        assert_eq!(store.succeeded("PutObject", &format!("/failing/{key}")), carried_out, "{fault:?}");
        assert_eq!(store.access().listing("failing").contains_key(&key), carried_out > 0, "{fault:?}");
        *expected.entry(fault.name()).or_default() += 1;
        proxy.heal();
        assert_eq!(send(&faulty, Method::Put, &key, b"bytes"), Some(200), "{fault:?} is over");
    }
    assert_eq!(proxy.injected(), expected);
}

#[test]
fn an_error_after_200_befalls_copies_and_deletions_only() {
    let store = with_bucket();
    let proxy = FaultyStore::before(&store.access().endpoint);
    let faulty = StoreAccess { endpoint: proxy.endpoint(), ..store.access().clone() };
    proxy.set("", Fault::ErrorInSuccess);
    assert_eq!(send(&faulty, Method::Put, "source", b"bytes"), Some(200));
    assert_eq!(send(&faulty, Method::Get, "source", b""), Some(200));
    assert!(proxy.injected().is_empty());

    let copy: Headers = [("x-amz-copy-source".to_owned(), "/failing/source".to_owned())].into();
    let url = faulty.url(Method::Put, ("failing", "target"), &copy, &[]);
    let answer = http::put(&url, &copy, b"");
    assert_eq!((answer.status, answer.text().contains("<Error><Code>InternalError</Code>")), (200, true));
    let url = faulty.url(Method::Post, ("failing", ""), &Headers::new(), &[("delete", "")]);
    let document = "<Delete><Object><Key>source</Key></Object></Delete>";
    let answer = http::request_with_body("POST", &url, &Headers::new(), document.as_bytes());
    assert!(answer.text().contains("<Error><Key>source</Key>"), "{}", answer.text());
    assert_eq!(proxy.injected(), [("200 with an error", 2)].into());
    assert_eq!(store.access().listing("failing").len(), 1, "the source stays, and there is no copy");
}

#[test]
fn a_plan_befalls_as_many_requests_as_it_says_and_repeats_with_its_seed() {
    let store = with_bucket();
    let outcomes = |seed| {
        let proxy = FaultyStore::before(&store.access().endpoint);
        let faulty = StoreAccess { endpoint: proxy.endpoint(), ..store.access().clone() };
        proxy.disturb(seed, 4, &[Fault::Denied, Fault::SlowDown]);
        let outcomes: Vec<_> = (0..80).map(|_| send(&faulty, Method::Head, "nothing", b"")).collect();
        proxy.heal();
        assert_eq!(send(&faulty, Method::Head, "nothing", b""), Some(404));
        outcomes
    };
    let (first, again, other) = (outcomes(1), outcomes(1), outcomes(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
    let hit = first.iter().filter(|status| **status != Some(404)).count();
    assert!((8..40).contains(&hit), "{hit} of 80");
}

#[test]
fn a_store_can_be_frozen_filled_and_given_another_clock() {
    let mut store = with_bucket();
    let access = store.access().clone();
    assert_eq!(send(&access, Method::Put, "kept", b"kept"), Some(200));

    store.freeze();
    let begun = Instant::now();
    assert_eq!(send(&access, Method::Get, "kept", b""), None);
    assert!(begun.elapsed() >= LIMIT);
    store.thaw();
    assert_eq!(send(&access, Method::Get, "kept", b""), Some(200));

    store.set_disk_full(true);
    assert_eq!(send(&access, Method::Put, "more", b"more"), Some(507));
    assert_eq!(send(&access, Method::Get, "kept", b""), Some(200));
    store.set_disk_full(false);
    assert_eq!(send(&access, Method::Put, "more", b"more"), Some(200));

    for offset in ["+20m", "-20m"] {
        store.stop("TERM");
        store.start_skewed(offset);
        assert_eq!(send(&access, Method::Get, "kept", b""), Some(403), "{offset}: a URL of five minutes");
        store.restart("TERM");
        assert_eq!(send(&access, Method::Get, "kept", b""), Some(200));
    }
}
