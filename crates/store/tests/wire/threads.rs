//! The futures go to an I/O thread: they must be `Send` and own what they need.

use pg_storage_core::content_type::ContentType;
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{Credentials, Secret, Signer, Target};
use pg_storage_store::probe::{Capabilities, probe};
use pg_storage_store::provision::{Plan, inspect, provision};
use pg_storage_store::verify::{Expected, direct, staged};
use pg_storage_store::{Description, PutOptions, S3Store, Store as _};

use crate::canned::config;

fn movable<F: Future + Send + 'static>(_: F) {}

#[test]
fn every_operation_can_be_sent_to_another_thread() {
    let store = S3Store::connect(config("http://127.0.0.1:1")).unwrap();
    let expected = Expected {
        size: 1,
        at_most: false,
        sha256: None,
        content_type: ContentType::parse("a/b").unwrap(),
        check_bytes: true,
        mark: None,
        cache_control: None,
    };
    let plan = Plan {
        bucket: "b".to_owned(),
        access: pg_storage_core::policy::Access::Temp,
        create: true,
        configure: true,
        origins: Vec::new(),
        key_prefix: String::new(),
        versioning: true,
    };
    let credentials = Credentials {
        access_key_id: "a".to_owned(),
        secret_access_key: Secret::new("s"),
        session_token: None,
    };
    let target = Target::new(&Endpoint::parse("http://127.0.0.1:1").unwrap(), "r", true);
    let signer = Signer::new(target, credentials);
    let options = PutOptions { description: Description::typed("a/b"), sha256: None, create_only: true };

    let (s, e) = (store.clone(), expected.clone());
    movable(async move { direct(&s, "b", "k", &e, &Capabilities::default()).await });
    let (s, e) = (store.clone(), expected);
    movable(async move { staged(&s, "b", "k", "f", &e, &Capabilities::default()).await });
    let s = store.clone();
    movable(async move { provision(&s, &plan).await });
    let s = store.clone();
    movable(async move { inspect(&s, "b").await });
    let s = store.clone();
    movable(async move { probe(&s, signer, "b", "p/").await });
    let s = store.clone();
    movable(async move {
        s.put("b", "k", Vec::new(), options).await?;
        s.delete_batch("b", &[]).await?;
        s.credentials().await
    });
}
