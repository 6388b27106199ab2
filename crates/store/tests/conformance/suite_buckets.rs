//! Buckets: created, provisioned, inspected, removed.

use pg_storage_core::origin::Origin;
use pg_storage_core::policy::Access;
use pg_storage_store::provision::{Outcome, Plan, Report, provision};
use pg_storage_store::{ErrorKind, PublicAccessBlock, Reading, Store as _, inspect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Fixture;
use crate::suite::{BUCKET, PLAIN, with_bucket};

fn plan(access: Access) -> Plan {
    Plan {
        bucket: BUCKET.to_owned(),
        access,
        create: true,
        configure: true,
        origins: vec![Origin::parse("https://app.example.com").unwrap()],
        key_prefix: String::new(),
        versioning: false,
    }
}

/// Every step is applied, or skipped because this store is known to lack it.
fn check(fixture: &Fixture, report: &Report) {
    let names: Vec<_> = report.steps.iter().map(|step| step.name).collect();
    let all = ["create", "public_access_block", "policy", "cors", "versioning", "lifecycle"];
    assert_eq!(names, all, "{report:?}");
    for step in &report.steps {
        let lacks = match step.name {
            "public_access_block" | "policy" => !fixture.has_policies,
            "versioning" => true,
            _ => false,
        };
        match &step.outcome {
            Outcome::Applied => assert!(!lacks, "{step:?}"),
            Outcome::Skipped { reason } => assert!(lacks && !reason.is_empty(), "{step:?}"),
            Outcome::Failed { error } => panic!("{}: {error}", step.name),
        }
    }
}

pub async fn buckets_come_and_go(fixture: &Fixture) {
    let store = fixture.store();
    assert!(!store.head_bucket(BUCKET).await.unwrap());
    assert!(!store.owns_bucket(BUCKET).await.unwrap());
    store.create_bucket(BUCKET).await.unwrap();
    assert!(store.head_bucket(BUCKET).await.unwrap());
    assert!(store.owns_bucket(BUCKET).await.unwrap());
    assert!(!store.owns_bucket("conform").await.unwrap());
    if let Err(again) = store.create_bucket(BUCKET).await {
        assert_eq!(again.status, Some(409), "{again}");
    }
    store.put(BUCKET, "k", vec![1], PLAIN).await.unwrap();
    assert_eq!(store.delete_bucket(BUCKET).await.unwrap_err().kind, ErrorKind::Invalid);
    store.delete_batch(BUCKET, &["k".to_owned()]).await.unwrap();
    store.delete_bucket(BUCKET).await.unwrap();
    assert!(!store.head_bucket(BUCKET).await.unwrap());
}

pub async fn provisioning_twice_is_provisioning_once(fixture: &Fixture) {
    let store = fixture.store();
    let mut inspections = Vec::new();
    for _ in 0..2 {
        check(fixture, &provision(&store, &plan(Access::Temp)).await);
        inspections.push(inspect(&store, BUCKET).await);
    }
    assert_eq!(inspections[0], inspections[1]);
    let seen = &inspections[0];
    assert_eq!(seen.exists, Reading::Value(true));
    if fixture.has_policies {
        assert_eq!(seen.public_access_block, Reading::Value(Some(PublicAccessBlock::ALL)));
        assert_eq!(seen.policy, Reading::Value(None));
    } else {
        assert!(matches!(seen.policy, Reading::Unsupported(_)), "{seen:?}");
    }
    let Reading::Value(Some(cors)) = &seen.cors else { panic!("{seen:?}") };
    assert_eq!(cors[0]["allowed_origins"][0], "https://app.example.com");
    let headers = cors[0]["allowed_headers"].as_array().unwrap();
    assert!(headers.iter().any(|name| name == "x-amz-checksum-sha256"), "{headers:?}");
    let Reading::Value(Some(lifecycle)) = &seen.lifecycle else { panic!("{seen:?}") };
    let rules = lifecycle.as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["expire_days"] == 1), "{rules:?}");
    assert!(rules.iter().any(|rule| rule["abort_multipart_days"] == 8), "{rules:?}");
}

pub async fn provisioning_at_the_same_time_succeeds_for_all(fixture: &Fixture) {
    let mut sessions = JoinSet::new();
    for _ in 0..8 {
        let store = fixture.store();
        sessions.spawn(async move { provision(&store, &plan(Access::Private)).await });
    }
    for report in sessions.join_all().await {
        check(fixture, &report);
    }
    assert!(fixture.store().owns_bucket(BUCKET).await.unwrap());
}

pub async fn access_can_change_both_ways(fixture: &Fixture) {
    let store = fixture.store();
    for access in [Access::Private, Access::Public, Access::Private] {
        check(fixture, &provision(&store, &plan(access)).await);
        store.put(BUCKET, "k", b"hello".to_vec(), PLAIN).await.unwrap();
        let public = access == Access::Public && fixture.has_policies;
        let status = anonymous_get(&fixture.url, &format!("/{BUCKET}/k")).await;
        assert_eq!(status == 200, public, "{access:?}: {status}");
    }
}

async fn anonymous_get(url: &str, path: &str) -> u16 {
    let address = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

pub async fn a_given_bucket_is_not_created(fixture: &Fixture) {
    let given = Plan { create: false, configure: false, ..plan(Access::Private) };
    let report = provision(&fixture.store(), &given).await;
    assert_eq!(report.failure().unwrap().kind, ErrorKind::NoSuchBucket);
    assert!(!fixture.store().head_bucket(BUCKET).await.unwrap());
    let store = with_bucket(fixture).await;
    assert!(provision(&store, &given).await.failure().is_none());
    assert!(matches!(store.cors(BUCKET).await, Ok(None)), "an operator's bucket is left as it was");
}
