//! Uploads: what the probe finds out about a store, and verification on top of it.

use pg_storage_core::content_type::ContentType;
use pg_storage_core::digest::Digest;
use pg_storage_store::probe::probe;
use pg_storage_store::verify::{Expected, Finding, direct, staged};
use pg_storage_store::{Description, ErrorKind, PutOptions, Store as _};

use crate::Fixture;
use crate::suite::{BUCKET, with_bucket};

const PDF: &[u8] = b"%PDF-1.7\nnot much of a document";

fn expected(sha256: Option<Digest>) -> Expected {
    Expected {
        size: PDF.len() as u64,
        at_most: false,
        sha256,
        content_type: ContentType::parse("application/pdf").unwrap(),
        check_bytes: true,
        mark: None,
        cache_control: None,
    }
}

pub async fn the_probe_sees_what_the_store_does_and_leaves_nothing(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let (one, two) = tokio::join!(
        probe(&store, fixture.signer(), BUCKET, "probe/"),
        probe(&store, fixture.signer(), BUCKET, "probe/"),
    );
    assert_eq!(one.unwrap(), fixture.capabilities);
    assert_eq!(two.unwrap(), fixture.capabilities, "two probes do not disturb each other");
    assert_eq!(store.list_page(BUCKET, "", None).await.unwrap(), Default::default());
}

pub async fn a_probe_of_nothing_is_an_error(fixture: &Fixture) {
    let store = fixture.store();
    let error = probe(&store, fixture.signer(), "no-such-bucket-here", "probe/").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSuchBucket, "{error}");

    let store = with_bucket(fixture).await;
    let impostor =
        pg_storage_core::presign::Signer::new(fixture.signer().target().clone(), fixture.impostor());
    let error = probe(&store, impostor, BUCKET, "probe/").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied, "refusals of a wrong signature are no capability: {error}");
    assert!(!error.to_string().contains("X-Amz-"), "{error}");
}

pub async fn a_direct_upload_is_verified_in_place(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let sum = Digest::of(PDF);
    let promised = expected(Some(sum));
    let caps = &fixture.capabilities;
    assert_eq!(direct(&store, BUCKET, "final", &promised, caps).await.unwrap(), Finding::Absent);

    let options = PutOptions {
        description: Description::typed("application/pdf"),
        sha256: Some(&sum),
        create_only: true,
    };
    let etag = store.put(BUCKET, "final", PDF.to_vec(), options).await.unwrap();
    let finding = direct(&store, BUCKET, "final", &promised, caps).await.unwrap();
    let Finding::Verified { size, sha256, etag: found, content_type } = finding else {
        panic!("{finding:?}")
    };
    assert_eq!((size, sha256, found), (PDF.len() as u64, sum, etag));
    assert_eq!(content_type, "application/pdf");

    let other = expected(Some(Digest::of(b"other")));
    let finding = direct(&store, BUCKET, "final", &other, caps).await.unwrap();
    assert_eq!(finding, Finding::HashMismatch { declared: Digest::of(b"other"), found: sum });

    // As long as promised, but not through our URL: whoever wrote it declared no sum.
    let body = vec![b'?'; PDF.len()];
    let (found, plain) = (Digest::of(&body), PutOptions { sha256: None, ..options });
    store.put(BUCKET, "smuggled", body, plain).await.unwrap();
    if caps.head_checksum {
        let finding = direct(&store, BUCKET, "smuggled", &promised, caps).await.unwrap();
        assert_eq!(finding, Finding::HashMismatch { declared: sum, found });
    }
}

pub async fn a_staged_upload_is_copied_and_verified(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let caps = &fixture.capabilities;
    let copy = "tenant/bucket/ü +";
    let key = "staging/tenant/ä b+c";
    assert_eq!(staged(&store, BUCKET, key, copy, &expected(None), caps).await.unwrap(), Finding::Absent);

    let options =
        PutOptions { description: Description::typed("application/pdf"), sha256: None, create_only: false };
    store.put(BUCKET, key, PDF.to_vec(), options).await.unwrap();
    // A confirmation that was lost is repeated: the same copy, the same answer.
    for _ in 0..2 {
        let finding = staged(&store, BUCKET, key, copy, &expected(None), caps).await.unwrap();
        let Finding::Verified { size, sha256, etag, content_type } = finding else { panic!("{finding:?}") };
        let head = store.head(BUCKET, copy).await.unwrap().unwrap();
        assert_eq!((size, sha256, etag), (PDF.len() as u64, Digest::of(PDF), head.etag));
        assert_eq!(content_type, "application/pdf");
        assert_eq!(head.content_type.as_deref(), Some("application/pdf"));
        assert_eq!(store.get_range(BUCKET, copy, 0, 1000).await.unwrap(), PDF);
    }

    let shorter = Expected { size: 1, ..expected(None) };
    let finding = staged(&store, BUCKET, key, "other/copy", &shorter, caps).await.unwrap();
    assert_eq!(finding, Finding::SizeMismatch { declared: 1, found: PDF.len() as u64 });
    assert_eq!(store.head(BUCKET, "other/copy").await.unwrap(), None, "a wrong size is not copied");

    let declared = Digest::of(b"other");
    let finding = staged(&store, BUCKET, key, "other/copy", &expected(Some(declared)), caps).await.unwrap();
    assert_eq!(finding, Finding::HashMismatch { declared, found: Digest::of(PDF) });
    for kept in [key, copy, "other/copy"] {
        assert!(store.head(BUCKET, kept).await.unwrap().is_some(), "{kept} is the caller's to remove");
    }
}
