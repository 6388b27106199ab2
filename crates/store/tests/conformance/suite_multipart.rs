//! Multipart uploads that nobody finished.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use pg_storage_store::{ErrorKind, ListedUpload, Store as _};

use crate::Fixture;
use crate::suite::{BUCKET, with_bucket};

/// A client of its own: nothing of ours begins multipart uploads.
fn somebody(fixture: &Fixture) -> Client {
    let given = &fixture.credentials;
    let credentials =
        Credentials::new(&given.access_key_id, given.secret_access_key.expose(), None, None, "test");
    let config = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(&fixture.url)
        .region(Region::new(fixture.region))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .force_path_style(true)
        .credentials_provider(credentials);
    Client::from_conf(config.build())
}

pub async fn unfinished_uploads_are_listed_and_aborted(fixture: &Fixture) {
    let store = with_bucket(fixture).await;
    let client = somebody(fixture);
    let mut begun = Vec::new();
    for key in ["p/b", "p/a b+c%/ü", "p/b", "q/elsewhere"] {
        let upload = client.create_multipart_upload().bucket(BUCKET).key(key).send().await.unwrap();
        let id = upload.upload_id().unwrap().to_owned();
        let part = client.upload_part().bucket(BUCKET).key(key).upload_id(&id).part_number(1);
        part.body(ByteStream::from_static(b"part")).send().await.unwrap();
        begun.push((key.to_owned(), id));
    }
    let elsewhere = begun.pop().unwrap();
    begun.sort();

    let page = store.list_multipart_uploads(BUCKET, "p/", None).await.unwrap();
    assert!(page.next.is_none() && page.uploads.iter().all(|upload| upload.initiated.is_some()));
    let name = |upload: &ListedUpload| (upload.key.clone(), upload.upload_id.clone());
    let mut found: Vec<_> = page.uploads.iter().map(name).collect();
    found.sort();
    assert_eq!(found, begun);
    assert_eq!(
        store.list_page(BUCKET, "", None).await.unwrap(),
        Default::default(),
        "nothing of it is an object"
    );

    for (key, id) in &begun {
        for _ in 0..2 {
            store.abort_multipart_upload(BUCKET, key, id).await.unwrap();
        }
    }
    let left = store.list_multipart_uploads(BUCKET, "", None).await.unwrap();
    assert_eq!(left.uploads.iter().map(name).collect::<Vec<_>>(), [elsewhere]);
    let missing = store.list_multipart_uploads("no-such-bucket-here", "", None).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NoSuchBucket);
}
