//! Credentials that are found rather than given, and kept out of sight.

use std::path::PathBuf;

use pg_storage_store::{CredentialSource, ErrorKind, S3Store, Store as _};

use crate::canned::{Reply, Server, config};

/// A credentials file that goes away with the test.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pg-storage-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn source(&self, profile: Option<&str>) -> CredentialSource {
        CredentialSource::DefaultChain {
            profile: profile.map(ToOwned::to_owned),
            credentials_file: Some(self.0.clone()),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn store(url: &str, source: CredentialSource) -> S3Store {
    let mut config = config(url);
    config.credentials = source;
    S3Store::connect(config).unwrap()
}

const TWO_PROFILES: &str = "\
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = default-secret
[backup]
aws_access_key_id = AKIABACKUP
aws_secret_access_key = backup-secret
aws_session_token = backup-token
";

#[tokio::test]
async fn a_profile_of_a_file_signs_the_calls_and_is_given_to_the_signer() {
    let file = File::new(TWO_PROFILES);
    let server = Server::start(|_| Reply::new(200)).await;

    let (found, expiry) = store(&server.url, file.source(Some("backup"))).credentials().await.unwrap();
    assert_eq!(found.access_key_id, "AKIABACKUP");
    assert_eq!(found.secret_access_key.expose(), "backup-secret");
    assert_eq!(found.session_token.as_ref().map(|token| token.expose()), Some("backup-token"));
    assert_eq!(expiry, None);
    assert!(server.requests().is_empty(), "looking credentials up calls no store");

    let default = store(&server.url, file.source(None));
    default.head_bucket("b").await.unwrap();
    assert!(server.requests()[0].header("authorization").unwrap().contains("AKIADEFAULT/"));
    assert_eq!(server.requests()[0].header("x-amz-security-token"), None);

    store(&server.url, file.source(Some("backup"))).head_bucket("b").await.unwrap();
    assert_eq!(server.requests()[1].header("x-amz-security-token"), Some("backup-token"));
}

#[tokio::test]
async fn a_missing_profile_or_file_is_refused_without_falling_through() {
    let file = File::new(TWO_PROFILES);
    let server = Server::start(|_| Reply::new(200)).await;
    let missing = CredentialSource::DefaultChain {
        profile: None,
        credentials_file: Some(PathBuf::from("/nonexistent/credentials")),
    };
    for source in [file.source(Some("nobody")), missing] {
        let store = store(&server.url, source);
        let error = store.credentials().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied);
        assert!(error.message.starts_with("no usable AWS credentials: "), "{error}");
        let error = store.head("b", "k").await.unwrap_err();
        assert_eq!((error.kind, error.operation), (ErrorKind::Denied, "credentials"));
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_broken_file_is_reported_without_its_contents() {
    let file = File::new(
        "[default]\naws_access_key_id = AKIAX\nthis line = ok\naws_secret_access_key\nvery-secret\n",
    );
    let store = store("http://127.0.0.1:1", file.source(None));
    let error = store.credentials().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Denied);
    assert!(!format!("{error} {error:?}").contains("very-secret"), "{error}");
}

#[tokio::test]
async fn found_secrets_are_not_shown() {
    let file = File::new(TWO_PROFILES);
    let server = Server::start(|_| Reply::error(403, "SignatureDoesNotMatch")).await;
    let store = store(&server.url, file.source(Some("backup")));
    let found = store.credentials().await.unwrap();
    let error = store.get_range("b", "k", 0, 1).await.unwrap_err();
    let shown = format!("{store:?} {found:?} {error:?} {error}");
    assert!(!shown.contains("backup-secret") && !shown.contains("backup-token"), "{shown}");
}
