//! Rules carried out at times the tests choose.
#![allow(clippy::unwrap_used)]

use s3s::dto::{
    AbortIncompleteMultipartUpload, LifecycleExpiration, LifecycleRuleAndOperator, LifecycleRuleFilter,
};

use super::*;
use crate::index::objects::Condition;
use crate::index::records::{Headers, Object, Part, Upload};

const DAY: Duration = Duration::from_secs(86_400);

struct Fixture {
    _directory: tempfile::TempDir,
    store: Store,
    start: SystemTime,
}

impl Fixture {
    /// A store with these keys, each two bytes long, written "now".
    fn new(keys: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), "local".into()).unwrap();
        let start = SystemTime::now();
        store.index.write(|transaction| buckets::create(transaction, "bucket", start.into())).unwrap();
        let fixture = Self { _directory: directory, store, start };
        for key in keys {
            fixture.put(key, start);
        }
        fixture
    }

    fn put(&self, key: &str, at: SystemTime) {
        let mut staged = self.store.blobs.stage().unwrap();
        staged.write(b"xx").unwrap();
        self.store
            .publish(Some((staged, 2)), |transaction, segments| {
                let object = Object {
                    size: 2,
                    etag: String::new(),
                    modified: at.into(),
                    checksum: None,
                    headers: Headers::default(),
                    segments,
                };
                Ok(((), objects::put(transaction, "bucket", key, &object, &Condition::default())?))
            })
            .unwrap();
    }

    fn set(&self, rule: LifecycleRule) {
        let mut configuration = BucketLifecycleConfiguration { rules: vec![rule] };
        validate(&mut configuration).unwrap();
        let text = document::write(&configuration).unwrap();
        let set = |transaction: &redb::WriteTransaction| {
            buckets::update(transaction, "bucket", |bucket| bucket.lifecycle = Some(text))
        };
        self.store.index.write(set).unwrap();
    }

    fn keys(&self) -> Vec<String> {
        let query = Query { limit: 10_000, ..Query::default() };
        let page = self.store.index.read(|transaction| list::page(transaction, "bucket", &query)).unwrap();
        page.objects.into_iter().map(|(key, _)| key).collect()
    }

    fn blobs(&self) -> usize {
        let mut count = 0;
        self.store
            .blobs
            .sweep(|_| {
                count += 1;
                Ok::<_, std::io::Error>(true)
            })
            .unwrap();
        count
    }

    fn pass(&self, after: Duration) {
        pass(&self.store, self.start + after).unwrap();
    }
}

fn rule() -> LifecycleRule {
    LifecycleRule {
        abort_incomplete_multipart_upload: None,
        expiration: None,
        filter: None,
        id: None,
        noncurrent_version_expiration: None,
        noncurrent_version_transitions: None,
        prefix: None,
        status: ExpirationStatus::from_static(ExpirationStatus::ENABLED),
        transitions: None,
    }
}

fn expiring(days: i32, filter: Option<LifecycleRuleFilter>) -> LifecycleRule {
    let expiration = LifecycleExpiration { days: Some(days), ..Default::default() };
    LifecycleRule { expiration: Some(expiration), filter, ..rule() }
}

fn prefixed(prefix: &str) -> Option<LifecycleRuleFilter> {
    Some(LifecycleRuleFilter { prefix: Some(prefix.into()), ..Default::default() })
}

#[test]
fn objects_under_the_prefix_expire_when_their_days_are_over_and_not_before() {
    let fixture = Fixture::new(&["keep/a", "temp/a", "temp/b", "tempo"]);
    fixture.set(expiring(2, prefixed("temp/")));
    fixture.pass(2 * DAY - Duration::from_secs(1));
    assert_eq!(fixture.keys().len(), 4);
    fixture.put("temp/b", fixture.start + DAY);
    fixture.pass(2 * DAY);
    assert_eq!(fixture.keys(), ["keep/a", "temp/b", "tempo"]);
    assert_eq!(fixture.blobs(), 3);
    fixture.pass(3 * DAY);
    assert_eq!(fixture.keys(), ["keep/a", "tempo"]);
}

#[test]
fn a_rule_reaches_past_one_batch() {
    let keys: Vec<String> = (0..BATCH + 5).map(|number| format!("k{number:05}")).collect();
    let fixture = Fixture::new(&keys.iter().map(String::as_str).collect::<Vec<_>>());
    fixture.set(expiring(1, None));
    fixture.pass(DAY);
    assert_eq!((fixture.keys().len(), fixture.blobs()), (0, 0));
}

#[test]
fn a_disabled_rule_does_nothing() {
    let fixture = Fixture::new(&["a"]);
    let status = ExpirationStatus::from_static(ExpirationStatus::DISABLED);
    fixture.set(LifecycleRule { status, ..expiring(1, None) });
    fixture.pass(100 * DAY);
    assert_eq!(fixture.keys(), ["a"]);
}

#[test]
fn size_and_prefix_must_both_match() {
    let fixture = Fixture::new(&["a", "b"]);
    let and = |larger| LifecycleRuleAndOperator {
        prefix: Some("a".into()),
        object_size_greater_than: Some(larger),
        ..Default::default()
    };
    let filter = |larger| Some(LifecycleRuleFilter { and: Some(and(larger)), ..Default::default() });
    fixture.set(expiring(1, filter(2)));
    fixture.pass(DAY);
    assert_eq!(fixture.keys(), ["a", "b"]);
    fixture.set(expiring(1, filter(1)));
    fixture.pass(DAY);
    assert_eq!(fixture.keys(), ["b"]);
}

#[test]
fn a_date_expires_everything_from_then_on() {
    let fixture = Fixture::new(&["a"]);
    let expiration = LifecycleExpiration { date: Some((fixture.start + DAY).into()), ..Default::default() };
    fixture.set(LifecycleRule { expiration: Some(expiration), ..rule() });
    fixture.pass(DAY - Duration::from_secs(2));
    assert_eq!(fixture.keys(), ["a"]);
    fixture.pass(DAY + Duration::from_secs(2));
    assert_eq!(fixture.keys(), [""; 0]);
}

#[test]
fn unfinished_uploads_are_aborted_with_their_parts() {
    let fixture = Fixture::new(&["a"]);
    let upload = Upload { started: fixture.start.into(), headers: Headers::default(), checksum: None };
    let create =
        |transaction: &redb::WriteTransaction| uploads::create(transaction, "bucket", "k", "id", &upload);
    fixture.store.index.write(create).unwrap();
    let mut staged = fixture.store.blobs.stage().unwrap();
    staged.write(b"part").unwrap();
    fixture
        .store
        .publish(Some((staged, 4)), |transaction, segments| {
            let part = Part {
                size: 4,
                etag: String::new(),
                modified: fixture.start.into(),
                checksums: vec![],
                segments,
            };
            Ok(((), uploads::put_part(transaction, ("bucket", "k", "id"), 1, &part)?))
        })
        .unwrap();
    let abort = AbortIncompleteMultipartUpload { days_after_initiation: Some(1) };
    fixture.set(LifecycleRule { abort_incomplete_multipart_upload: Some(abort), ..rule() });
    fixture.pass(DAY - Duration::from_secs(1));
    assert_eq!(fixture.blobs(), 2);
    fixture.pass(DAY);
    assert_eq!(fixture.blobs(), 1);
    assert_eq!(fixture.keys(), ["a"]);
}

#[test]
fn an_upload_that_ends_meanwhile_does_not_keep_the_others() {
    let fixture = Fixture::new(&[]);
    let upload = Upload { started: fixture.start.into(), headers: Headers::default(), checksum: None };
    let create =
        |transaction: &redb::WriteTransaction| uploads::create(transaction, "bucket", "k", "id", &upload);
    fixture.store.index.write(create).unwrap();
    let due = [("k".to_owned(), "completed".to_owned()), ("k".to_owned(), "id".to_owned())];
    abort_each(&fixture.store, "bucket", &due).unwrap();
    let left = fixture.store.index.read(|transaction| uploads::all_in(transaction, "bucket")).unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_stored_document_that_does_not_decode_is_trouble() {
    let Fixture { _directory, store, start } = Fixture::new(&["a"]);
    let spoil = |transaction: &redb::WriteTransaction| {
        buckets::update(transaction, "bucket", |bucket| bucket.lifecycle = Some("<spoilt".into()))
    };
    store.index.write(spoil).unwrap();
    let store = Arc::new(store);
    let trouble = store.trouble.subscribe();
    store.run(move |store| pass(store, start)).await.unwrap_err();
    assert_eq!(trouble.borrow().count, 1);
    assert!(trouble.borrow().last.as_ref().unwrap().starts_with("record: "), "{:?}", trouble.borrow());
}

#[test]
fn what_would_not_be_carried_out_is_refused() {
    let refused = |rule| validate(&mut BucketLifecycleConfiguration { rules: vec![rule] }).is_err();
    assert!(refused(rule()));
    assert!(refused(expiring(0, None)));
    assert!(refused(expiring(-1, None)));
    let tag = s3s::dto::Tag { key: Some("a".into()), value: Some("b".into()) };
    assert!(refused(expiring(1, Some(LifecycleRuleFilter { tag: Some(tag), ..Default::default() }))));
    assert!(!refused(expiring(1, prefixed("a/"))));
}
