//! The suite against our own local store, served inside the test.

use pg_storage_core::presign::{Credentials, Secret};
use pg_storage_gateway::{LocalStore, serve};
use pg_storage_store::probe::{Capabilities, Support};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::Fixture;
use crate::scratch::Scratch;

struct Server {
    fixture: Fixture,
    serving: AbortHandle,
    _root: Scratch,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn start() -> Server {
    let root = Scratch::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let credentials = Credentials {
        access_key_id: "LOCALSTORE".to_owned(),
        secret_access_key: Secret::new("f".repeat(64)),
        session_token: None,
    };
    let config = LocalStore {
        root: root.path().join("store"),
        region: "local".to_owned(),
        credentials: credentials.clone(),
        access_log: None,
    };
    let serving = tokio::spawn(async move { serve(listener, config, std::future::pending()).await.unwrap() });
    let capabilities = Capabilities {
        checksum: Support::Enforced,
        length: Support::Enforced,
        create_only: Support::Enforced,
        head_checksum: true,
        copy_source_if_match: Support::Enforced,
        expiry: Support::Enforced,
        tampering: Support::Enforced,
        unsigned: Some(Support::Enforced),
        forms: Some(Support::Enforced),
        parts: Some(Support::Enforced),
        part_checksum: Support::Enforced,
    };
    let fixture = Fixture { url, region: "local", credentials, capabilities, has_policies: true };
    Server { fixture, serving: serving.abort_handle(), _root: root }
}

crate::every_behaviour!(super::local_store::start);
