//! Buckets and their settings.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLifecycleConfiguration, BucketLocationConstraint, BucketVersioningStatus,
    CreateBucketConfiguration, ExpirationStatus, LifecycleExpiration, LifecycleRule, LifecycleRuleFilter,
    VersioningConfiguration,
};

use pg_storage_core::digest::Digest;

use crate::harness::{Server, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn buckets_are_created_found_and_deleted() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let again = client.create_bucket().bucket("bucket").send().await.unwrap_err();
    assert_eq!(refusal(again), (409, "BucketAlreadyOwnedByYou".into()));
    let located = |region: &str| {
        let constraint = BucketLocationConstraint::from(region);
        let configuration = CreateBucketConfiguration::builder().location_constraint(constraint).build();
        client.create_bucket().bucket("located").create_bucket_configuration(configuration).send()
    };
    let elsewhere = located("eu-west-1").await.unwrap_err();
    assert_eq!(refusal(elsewhere), (400, "IllegalLocationConstraintException".into()));
    located("local").await.unwrap();
    let location = client.get_bucket_location().bucket("located").send().await.unwrap();
    assert_eq!(location.location_constraint().map(|region| region.as_str()), Some("local"));
    assert_eq!(client.head_bucket().bucket("located").send().await.unwrap().bucket_region(), Some("local"));
    let all = client.list_buckets().send().await.unwrap();
    let names: Vec<&str> = all.buckets().iter().filter_map(|bucket| bucket.name()).collect();
    assert_eq!(names, ["bucket", "located"]);

    client.put_object().bucket("bucket").key("k").body(ByteStream::from_static(b"x")).send().await.unwrap();
    let full = client.delete_bucket().bucket("bucket").send().await.unwrap_err();
    assert_eq!(refusal(full), (409, "BucketNotEmpty".into()));
    client.delete_object().bucket("bucket").key("k").send().await.unwrap();
    client.delete_bucket().bucket("bucket").send().await.unwrap();
    assert_eq!(refusal(client.head_bucket().bucket("bucket").send().await.unwrap_err()).0, 404);
    let gone = client.delete_bucket().bucket("bucket").send().await.unwrap_err();
    assert_eq!(refusal(gone), (404, "NoSuchBucket".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_bucket_names_are_refused() {
    let server = Server::start();
    server.with_bucket().await;
    let payload = Digest::of(b"").to_hex();
    let headers = [("x-amz-content-sha256", payload.as_str())];
    for name in ["ab", "UPPER", "under_score", "a..b", "-dash", "127.0.0.1", "..", "%2e%2e", "a%2fb"] {
        let answer = server.send_signed("PUT", &format!("/{name}"), &headers, b"");
        assert_eq!(answer.verdict(), (400, "InvalidBucketName".into()), "{name}");
    }
    assert_eq!(server.client().list_buckets().send().await.unwrap().buckets().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_create_a_bucket_one_does() {
    let server = Server::start();
    let client = server.client();
    let tasks: Vec<_> =
        (0..16).map(|_| tokio::spawn(client.create_bucket().bucket("raced").send())).collect();
    let mut created = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => created += 1,
            Err(error) => assert_eq!(refusal(error), (409, "BucketAlreadyOwnedByYou".into())),
        }
    }
    assert_eq!(created, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn versioning_is_off_and_cannot_be_turned_on() {
    let server = Server::start();
    let client = server.with_bucket().await;
    assert_eq!(client.get_bucket_versioning().bucket("bucket").send().await.unwrap().status(), None);
    let on = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let refused = client.put_bucket_versioning().bucket("bucket").versioning_configuration(on).send().await;
    assert_eq!(refusal(refused.unwrap_err()), (501, "NotImplemented".into()));
}

fn rule(days: i32) -> LifecycleRule {
    LifecycleRule::builder()
        .status(ExpirationStatus::Enabled)
        .filter(LifecycleRuleFilter::builder().prefix("temp/").build())
        .expiration(LifecycleExpiration::builder().days(days).build())
        .build()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifecycle_comes_back_as_it_was_set_and_survives_a_crash() {
    let server = Server::start();
    let client = server.with_bucket().await;
    let put = |client: &aws_sdk_s3::Client, rule: LifecycleRule| {
        let configuration = BucketLifecycleConfiguration::builder().rules(rule).build().unwrap();
        client
            .put_bucket_lifecycle_configuration()
            .bucket("bucket")
            .lifecycle_configuration(configuration)
            .send()
    };
    let none = client.get_bucket_lifecycle_configuration().bucket("bucket").send().await.unwrap_err();
    assert_eq!(refusal(none), (404, "NoSuchLifecycleConfiguration".into()));
    put(&client, rule(3)).await.unwrap();
    assert_eq!(refusal(put(&client, rule(0)).await.unwrap_err()), (400, "InvalidArgument".into()));
    let server = server.kill_and_restart();
    let client = server.client();
    let stored = client.get_bucket_lifecycle_configuration().bucket("bucket").send().await.unwrap();
    let stored = &stored.rules()[0];
    assert_eq!(stored.expiration().unwrap().days(), Some(3));
    assert_eq!(stored.filter().unwrap().prefix(), Some("temp/"));
    client.delete_bucket_lifecycle().bucket("bucket").send().await.unwrap();
    let gone = client.get_bucket_lifecycle_configuration().bucket("bucket").send().await.unwrap_err();
    assert_eq!(refusal(gone), (404, "NoSuchLifecycleConfiguration".into()));
}
