//! Objects: stored, read, copied, deleted, listed.

use pg_storage_core::digest::Digest;
use pg_storage_store::probe::Support;
use pg_storage_store::{
    Description, ErrorKind, HEAD_BYTES, HashOutcome, PutOptions, S3Store, Store as _, StoreError,
};
use tokio::task::JoinSet;

use crate::Fixture;

pub const BUCKET: &str = "conformance";

pub const PLAIN: PutOptions<'static> =
    PutOptions { description: Description::typed("text/plain"), sha256: None, create_only: false };

const ODD_KEYS: [&str; 6] = [
    "a b/c+d=e&f",
    "percent%20and%2Fslash",
    "ünï/cödé/日本語",
    "quote\"'<>&amp;",
    "trailing.dot./..hidden",
    "tilde~!*()@:,;$",
];

pub async fn with_bucket(fixture: &Fixture) -> S3Store {
    let store = fixture.store();
    store.create_bucket(BUCKET).await.unwrap();
    store
}

fn kind<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> ErrorKind {
    outcome.unwrap_err().kind
}

pub async fn objects_come_back_as_they_went(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let body: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for key in ODD_KEYS {
        let sum = Digest::of(&body);
        let options = PutOptions {
            description: Description::typed("image/x-test; a=b"),
            sha256: Some(&sum),
            create_only: false,
        };
        let etag = store.put(BUCKET, key, body.clone(), options).await.unwrap();
        let head = store.head(BUCKET, key).await.unwrap().expect(key);
        assert_eq!((head.size, &head.etag), (body.len() as u64, &etag), "{key}");
        assert_eq!(head.content_type.as_deref(), Some("image/x-test; a=b"));
        assert!(head.last_modified.is_some());
        if fixture.capabilities.head_checksum {
            assert_eq!(head.sha256, Some(sum));
        }
        assert_eq!(store.get_range(BUCKET, key, 3, 5).await.unwrap(), body[3..8]);
        let HashOutcome::Complete(hash) = store.hash_object(BUCKET, key, 1 << 20).await.unwrap() else {
            panic!("within the cap")
        };
        assert_eq!((hash.size, hash.sha256, &hash.etag), (body.len() as u64, sum, &etag));
        assert_eq!(hash.head, body[..HEAD_BYTES]);
        let over = store.hash_object(BUCKET, key, 100).await.unwrap();
        assert_eq!(over, HashOutcome::OverCap { size: body.len() as u64 });
    }
    store.put(BUCKET, "empty", Vec::new(), PLAIN).await.unwrap();
    assert_eq!(store.head(BUCKET, "empty").await.unwrap().unwrap().size, 0);
    assert!(store.get_range(BUCKET, "empty", 0, 4096).await.unwrap().is_empty());
    assert!(store.get_range(BUCKET, ODD_KEYS[0], 1 << 30, 10).await.unwrap().is_empty());
    let end = store.get_range(BUCKET, ODD_KEYS[0], body.len() as u64 - 2, 10).await.unwrap();
    assert_eq!(end, body[body.len() - 2..]);
}

pub async fn what_is_absent_is_told_apart(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    assert_eq!(store.head(BUCKET, "nothing").await.unwrap(), None);
    assert_eq!(kind(store.get_range(BUCKET, "nothing", 0, 1).await), ErrorKind::NotFound);
    assert_eq!(kind(store.hash_object(BUCKET, "nothing", 1).await), ErrorKind::NotFound);
    assert_eq!(
        kind(store.copy(BUCKET, "nothing", BUCKET, "to", None, Some(Description::typed("a/b"))).await),
        ErrorKind::NotFound
    );

    let missing = "no-such-bucket-here";
    assert_eq!(store.head(missing, "k").await.unwrap(), None);
    assert!(!store.head_bucket(missing).await.unwrap());
    assert_eq!(kind(store.get_range(missing, "k", 0, 1).await), ErrorKind::NoSuchBucket);
    assert_eq!(kind(store.hash_object(missing, "k", 1).await), ErrorKind::NoSuchBucket);
    assert_eq!(kind(store.put(missing, "k", vec![1], PLAIN).await), ErrorKind::NoSuchBucket);
    assert_eq!(kind(store.list_page(missing, "", None).await), ErrorKind::NoSuchBucket);
    assert_eq!(kind(store.delete_batch(missing, &["k".to_owned()]).await), ErrorKind::NoSuchBucket);
    assert_eq!(kind(store.delete_bucket(missing).await), ErrorKind::NoSuchBucket);
    assert_eq!(kind(store.cors(missing).await), ErrorKind::NoSuchBucket);
}

pub async fn a_wrong_sum_is_refused(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let sum = Digest::of(b"right");
    let options = PutOptions { sha256: Some(&sum), ..PLAIN };
    assert_eq!(kind(store.put(BUCKET, "k", b"wrong".to_vec(), options).await), ErrorKind::Invalid);
    assert_eq!(store.head(BUCKET, "k").await.unwrap(), None);
    store.put(BUCKET, "k", b"right".to_vec(), options).await.unwrap();
}

pub async fn create_only_is_as_the_probe_says(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let options = PutOptions { create_only: true, ..PLAIN };
    store.put(BUCKET, "k", b"first".to_vec(), options).await.unwrap();
    let again = store.put(BUCKET, "k", b"second".to_vec(), options).await;
    let holds = store.get_range(BUCKET, "k", 0, 10).await.unwrap();
    if fixture.capabilities.create_only == Support::Enforced {
        assert_eq!(kind(again), ErrorKind::Precondition);
        assert_eq!(holds, b"first");
    } else {
        assert!(again.is_ok(), "the probe would have to be told: {again:?}");
    }
}

pub async fn copies_are_whole_and_pinned(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    for (n, key) in ODD_KEYS.into_iter().enumerate() {
        let body = format!("contents of {key}").into_bytes();
        let etag = store.put(BUCKET, key, body.clone(), PLAIN).await.unwrap();
        let to = format!("copy/{n}");
        let copied = store
            .copy(BUCKET, key, BUCKET, &to, etag.as_deref(), Some(Description::typed("text/csv")))
            .await
            .unwrap();
        let head = store.head(BUCKET, &to).await.unwrap().unwrap();
        assert_eq!(store.get_range(BUCKET, &to, 0, 1000).await.unwrap(), body);
        assert_eq!(head.content_type.as_deref(), Some("text/csv"));
        assert_eq!(head.etag.map(bare), copied.map(bare), "{key}");
        if fixture.capabilities.head_checksum {
            assert_eq!(head.sha256, Some(Digest::of(&body)), "a copy has a sum of its own");
        }
        let other = Some("\"00000000000000000000000000000000\"");
        let refused =
            store.copy(BUCKET, key, BUCKET, "refused", other, Some(Description::typed("text/csv"))).await;
        if fixture.capabilities.copy_source_if_match == Support::Enforced {
            assert_eq!(kind(refused), ErrorKind::Precondition);
            assert_eq!(store.head(BUCKET, "refused").await.unwrap(), None);
        }
    }
}

/// An entity tag without its quotes, which not every store writes in the XML of a copy.
fn bare(etag: String) -> String {
    etag.trim_matches('"').to_owned()
}

pub async fn deletes_are_told_key_by_key(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let mut keys: Vec<String> = ODD_KEYS.map(ToOwned::to_owned).to_vec();
    for key in &keys {
        store.put(BUCKET, key, vec![1], PLAIN).await.unwrap();
    }
    store.put(BUCKET, "stays", vec![1], PLAIN).await.unwrap();
    keys.extend((keys.len()..1000).map(|n| format!("never/was/{n}")));
    for _ in 0..2 {
        let outcomes = store.delete_batch(BUCKET, &keys).await.unwrap();
        assert_eq!(outcomes.len(), 1000);
        assert_eq!(outcomes.iter().find(|outcome| outcome.is_err()), None);
    }
    let page = store.list_page(BUCKET, "", None).await.unwrap();
    assert_eq!(page.objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["stays"]);
}

pub async fn listings_are_complete_and_in_order(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let mut expected: Vec<String> = (0..1010).map(|n| format!("p/{n:05}")).collect();
    expected.extend(ODD_KEYS.map(|key| format!("p/{key}")));
    for batch in expected.chunks(16) {
        let mut writers = JoinSet::new();
        for key in batch {
            let (store, key) = (store.clone(), key.clone());
            writers.spawn(async move { store.put(BUCKET, &key, vec![7; 3], PLAIN).await.unwrap() });
        }
        writers.join_all().await;
    }
    store.put(BUCKET, "q/elsewhere", vec![1], PLAIN).await.unwrap();
    expected.sort();

    let mut found = Vec::new();
    let mut token = None;
    let mut pages = 0;
    loop {
        let page = store.list_page(BUCKET, "p/", token.as_deref()).await.unwrap();
        pages += 1;
        assert!(page.objects.len() <= 1000 && pages < 10);
        assert!(page.objects.iter().all(|o| o.size == 3 && o.etag.is_some() && o.last_modified.is_some()));
        found.extend(page.objects.into_iter().map(|object| object.key));
        token = page.next;
        assert_eq!(token.is_none(), found.len() == expected.len());
        if token.is_none() {
            break;
        }
    }
    assert!(pages >= 2);
    assert_eq!(found, expected);
    assert_eq!(store.list_page(BUCKET, "none/", None).await.unwrap(), Default::default());
}

pub async fn wrong_credentials_are_denied(fixture: &Fixture) {
    with_bucket(fixture).await;
    let impostor = fixture.store_as(fixture.impostor());
    assert_eq!(kind(impostor.list_page(BUCKET, "", None).await), ErrorKind::Denied);
    assert_eq!(kind(impostor.head(BUCKET, "k").await), ErrorKind::Denied);
    assert_eq!(kind(impostor.head_bucket(BUCKET).await), ErrorKind::Denied);
    assert_eq!(kind(impostor.put(BUCKET, "k", vec![1], PLAIN).await), ErrorKind::Denied);
    assert_eq!(kind(impostor.create_bucket("another-bucket").await), ErrorKind::Denied);
}
