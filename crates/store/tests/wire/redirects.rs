//! A store that sends its callers elsewhere: nobody goes, whatever is asked and however it is answered.

use pg_storage_core::digest::Digest;
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::origin::Origin;
use pg_storage_core::policy::{self, Access};
use pg_storage_core::presign::{Signer, Target};
use pg_storage_store::probe::probe;
use pg_storage_store::{Description, PublicAccessBlock, PutOptions, S3Store, Store, StoreError};
use serde_json::json;

use crate::canned::{Reply, Server, config};

fn outcome<T>(name: &'static str, result: Result<T, StoreError>) -> (&'static str, bool) {
    (name, result.is_ok())
}

/// Every call of the trait, and which of them succeeded.
async fn every_call(store: &impl Store) -> Vec<(&'static str, bool)> {
    let sum = Digest::of(b"x");
    let bound =
        PutOptions { description: Description::typed("text/plain"), sha256: Some(&sum), create_only: true };
    let cors = policy::cors(Access::Public, &[Origin::parse("https://app.example.com").unwrap()]);
    let lifecycle = policy::lifecycle(Access::Temp);
    vec![
        outcome("head", store.head("b", "k").await),
        outcome("get_range", store.get_range("b", "k", 0, 4).await),
        outcome("hash_object", store.hash_object("b", "k", 100).await),
        outcome("put", store.put("b", "k", b"x".to_vec(), bound).await),
        outcome(
            "copy",
            store.copy("b", "k", "b", "to", Some("\"e\""), Some(Description::typed("text/plain"))).await,
        ),
        // One outcome for each key.
        outcome(
            "delete_batch",
            store.delete_batch("b", &["k".to_owned()]).await.and_then(|keys| keys[0].clone()),
        ),
        outcome("list_page", store.list_page("b", "", None).await),
        outcome("list_multipart_uploads", store.list_multipart_uploads("b", "", None).await),
        outcome("abort_multipart_upload", store.abort_multipart_upload("b", "k", "u").await),
        outcome("create_bucket", store.create_bucket("b").await),
        outcome("head_bucket", store.head_bucket("b").await),
        outcome("owns_bucket", store.owns_bucket("b").await),
        outcome("delete_bucket", store.delete_bucket("b").await),
        outcome("put_public_access_block", store.put_public_access_block("b", PublicAccessBlock::ALL).await),
        outcome("public_access_block", store.public_access_block("b").await),
        outcome("put_policy", store.put_policy("b", &json!({})).await),
        outcome("delete_policy", store.delete_policy("b").await),
        outcome("policy", store.policy("b").await),
        outcome("put_cors", store.put_cors("b", &cors).await),
        outcome("cors", store.cors("b").await),
        outcome("enable_versioning", store.enable_versioning("b").await),
        outcome("versioning", store.versioning("b").await),
        outcome("put_lifecycle", store.put_lifecycle("b", "", &lifecycle).await),
        outcome("lifecycle", store.lifecycle("b").await),
    ]
}

#[tokio::test]
async fn no_call_follows_a_redirect() {
    // It would answer everything, and its host is not the one that was signed.
    let elsewhere = Server::start(|_| Reply::new(200).body("<ListBucketResult/>")).await;
    let mut asked = 0;
    for status in [300, 301, 302, 303, 305, 307, 308] {
        for location in
            [format!("{}/stolen", elsewhere.url), "/b/other".to_owned(), "//169.254.169.254/".to_owned()]
        {
            let shown = location.clone();
            let server = Server::start(move |request| {
                assert!(!request.path.contains("other"), "a redirect within the store was followed");
                Reply::error(status, "TemporaryRedirect").header("location", &location)
            })
            .await;
            let mut once = config(&server.url);
            once.max_attempts = 1;
            let store = S3Store::connect(once).unwrap();
            let outcomes = every_call(&store).await;
            asked += outcomes.len();
            let succeeded: Vec<_> = outcomes.iter().filter(|(_, ok)| *ok).collect();
            assert!(succeeded.is_empty(), "{status} to {shown}: {succeeded:?}");
            assert!(server.requests().len() >= outcomes.len());
            // Presigned URLs are sent by another client.
            let endpoint = Endpoint::parse(&server.url).unwrap();
            let (credentials, _) = store.credentials().await.unwrap();
            let signer = Signer::new(Target::new(&endpoint, "us-east-1", true), credentials);
            assert!(probe(&store, signer, "b", "scratch/").await.is_err(), "{status} to {shown}");
        }
    }
    assert!(elsewhere.requests().is_empty(), "{:?}", elsewhere.lines());
    println!("{asked} calls were sent elsewhere");
}
