//! `confirm_uploads` of many against as many HEADs by a bare client: the same HTTP client, as many at the same time.

use std::time::Duration;

use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{Credentials, Secret};
use pg_storage_store::{CredentialSource, S3Store, Store, StoreConfig, StoreError, each};
use pg_storage_tests::flow::Upload;
use pg_storage_tests::scene::remote;
use pg_storage_tests::{Cluster, Fault, FaultyStore, LocalStore, Scene, StoreAccess};

use crate::files::USER;
use crate::median::{in_turns, time};
use crate::sizes::Sizes;
use crate::table::Row;

/// As the extension does, see `src/upload/examine.rs`.
const AT_ONCE: usize = 32;

/// On one store; every confirmation is rolled back and so does all of its work again.
pub fn row(sizes: Sizes, scene: &Scene, store: &str) -> Row {
    scene.set("pg_storage.max_bulk_files", &sizes.uploads.to_string());
    let mut user = scene.user(USER);
    let uploads: Vec<String> = (0..sizes.uploads)
        .map(|at| {
            let content = format!("content {at} of {}", scene.prefix);
            let ticket = Upload::declared(content.as_bytes()).request(&mut user);
            let answer = ticket.put(content.as_bytes());
            assert!(answer.is_success(), "PUT: {} {}", answer.status, answer.text());
            ticket.upload_id
        })
        .collect();
    let places: Vec<(String, String)> = uploads.iter().map(|upload| scene.place_of_upload(upload)).collect();
    let bare = Bare::new(&scene.store);
    let confirm = user
        .prepare("SELECT count(*) FILTER (WHERE u.status = 'uploaded') FROM storage.confirm_uploads($1::text[]::uuid[]) u")
        .expect("prepare");
    let (ours, heads) = in_turns(
        sizes.rounds,
        || {
            user.batch_execute("BEGIN").expect("BEGIN");
            let took = time(|| {
                let confirmed = user.query_one(&confirm, &[&uploads]).expect("confirm").get::<_, i64>(0);
                assert_eq!(confirmed as usize, uploads.len(), "every upload is right");
            });
            user.batch_execute("ROLLBACK").expect("ROLLBACK");
            took.as_secs_f64() * 1e3
        },
        || bare.heads(&places).as_secs_f64() * 1e3,
    );
    let ratio = ours / heads;
    Row::new(format!("confirm_uploads of {}, {store}", sizes.uploads), format!("{ours:.0} ms"))
        .against(format!("{heads:.0} ms as many HEADs, {AT_ONCE} at once"), ratio)
        .goal("≤ 1.3", ratio <= 1.3)
}

/// The same with a local store that takes each request 20 ms later, as one in another city does.
pub fn far(sizes: Sizes) -> Row {
    let store = LocalStore::shared();
    let way = FaultyStore::before(&store.access().endpoint);
    let access = StoreAccess { endpoint: way.endpoint(), ..store.access().clone() };
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(remote(&access))));
    let scene = crate::warm(Scene::on(cluster, &access));
    for method in ["HEAD", "GET"] {
        way.set(method, Fault::Slow(Duration::from_millis(20)));
    }
    row(sizes, &scene, "store 20 ms away")
}

/// A client and its thread, as a backend has them.
struct Bare {
    store: S3Store,
    runtime: tokio::runtime::Runtime,
}

impl Bare {
    fn new(access: &StoreAccess) -> Self {
        let config = StoreConfig {
            endpoint: Endpoint::parse(&access.endpoint).expect("an endpoint"),
            region: access.region.clone(),
            path_style: true,
            credentials: CredentialSource::Static(Credentials {
                access_key_id: access.access_key_id.clone(),
                secret_access_key: Secret::new(access.secret_access_key.clone()),
                session_token: None,
            }),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            max_attempts: 3,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let store = runtime.block_on(async { S3Store::connect(config) }).expect("a client");
        Self { store, runtime }
    }

    fn heads(&self, places: &[(String, String)]) -> Duration {
        let places = places.to_vec();
        time(|| {
            let all = each(places, AT_ONCE, |(bucket, key)| {
                let store = self.store.clone();
                async move {
                    let head = store.head(&bucket, &key).await?;
                    Ok::<bool, StoreError>(head.is_some())
                }
            });
            let found = self.runtime.block_on(all).expect("the store answers");
            assert!(found.iter().all(|found| *found), "every object is there");
        })
    }
}
