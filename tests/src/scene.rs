//! A database of its own on one of the stores, with roles and users' buckets in it, and a way to the store behind the
//! extension's back.

use crate::choice::{self, Kind};
use crate::flow::{Upload, Verdict, confirm};
use crate::http::{self, Headers, Response};
use crate::parts::try_request_parts;
use crate::{Ceph, Cluster, Database, Garage, LocalStore, Options, StoreAccess, eventually, refused};
use pg_storage_core::digest::Digest;
use pg_storage_core::key::upload_of;
use pg_storage_core::presign::Method;
use postgres::Client;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A page's origin that the scenes on remote stores allow.
pub const ORIGIN: &str = "https://app.example.com";

/// A database on a store.
pub struct Scene {
    /// Its database; the clusters are shared by the tests of a binary.
    pub database: Database<'static>,
    /// How to reach the store.
    pub store: StoreAccess,
    /// Whether uploads with a declared hash go straight to their final key.
    pub direct: bool,
    /// What the names of its physical buckets begin with.
    pub prefix: String,
    /// Role that may upload.
    pub writer: String,
    manager: String,
}

/// Runs one test on the local store that a preloaded cluster serves, and on Garage; or on the one that was chosen.
pub fn each_store(test: impl Fn(&Scene)) {
    let scenes = match Kind::chosen() {
        None => vec![("local store", Scene::local()), ("Garage", Scene::garage())],
        Some(_) => vec![("the chosen store", Scene::local())],
    };
    for (name, scene) in scenes {
        println!("on {name}");
        test(&scene);
    }
}

/// [`each_store`], but for a chosen one that takes no uploads in parts.
pub fn each_store_with_parts(test: impl Fn(&Scene)) {
    match Kind::chosen() {
        None => each_store(test),
        Some(_) => test(&Scene::with_parts()),
    }
}

/// Whether the store of the tests takes uploads in parts. Where `check()` reports that it does not, they are refused.
pub fn takes_parts() -> bool {
    static TAKES: OnceLock<bool> = OnceLock::new();
    let takes = *TAKES.get_or_init(|| {
        if matches!(Kind::chosen(), None | Some(Kind::Local)) {
            return true;
        }
        let scene = Scene::local();
        let mut user = scene.user("ada");
        // What is refused leaves no bucket that check() could try.
        Upload::of(b"first use").complete(&mut user, b"first use");
        let asked = try_request_parts(&mut user, &Upload::of(b"in parts"), false);
        let takes = scene.value("SELECT status = 'ok' FROM storage.check() WHERE name = 'multipart'");
        if takes {
            asked.expect("what check() reports is there");
        } else {
            assert_eq!(refused(asked).code(), ("55000", "NOT_CONFIGURED"));
        }
        takes
    });
    if !takes {
        choice::lacks("multipart");
    }
    takes
}

impl Scene {
    /// On the local store of a preloaded cluster, or on the store that was chosen for the tests instead.
    pub fn local() -> Self {
        match Kind::chosen() {
            None | Some(Kind::Local) => Self::own(Cluster::shared()),
            Some(Kind::Garage) => Self::garage(),
            Some(Kind::GarageThree) => Self::garage_three(),
            Some(Kind::Ceph) => Self::ceph(),
        }
    }

    /// On the local store whatever was chosen; `why` says what the test wants of it.
    pub fn embedded(why: &str) -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        match Kind::chosen() {
            None | Some(Kind::Local) => Self::own(Cluster::shared()),
            Some(_) => {
                choice::stays(why);
                Self::own(CLUSTER.get_or_init(|| Cluster::start(Options::new().embedded(why))))
            }
        }
    }

    /// On the chosen store, or on the local one where the chosen one takes no uploads in parts.
    pub fn with_parts() -> Self {
        if takes_parts() {
            Self::local()
        } else {
            Self::embedded("the chosen store takes no uploads in parts")
        }
    }

    fn own(cluster: &'static Cluster) -> Self {
        Self::new(cluster, local_access(cluster), true)
    }

    /// On Garage.
    pub fn garage() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        let access = Garage::shared().access();
        let cluster = CLUSTER.get_or_init(|| Cluster::start(remote(access)));
        Self::new(cluster, access.clone(), false)
    }

    /// On a Garage of three nodes, of which one is killed and comes back all the time.
    pub fn garage_three() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        let access = Garage::shared_three().access();
        let cluster = CLUSTER.get_or_init(|| Cluster::start(remote(access)));
        Self::new(cluster, access.clone(), false)
    }

    /// On Ceph.
    pub fn ceph() -> Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        let access = Ceph::shared().access();
        let cluster = CLUSTER.get_or_init(|| Cluster::start(remote(access)));
        Self::new(cluster, access.clone(), is_direct(access))
    }

    /// On the local store's own binary, which counts what it is asked.
    pub fn counting() -> (Self, &'static LocalStore) {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        let store = LocalStore::shared();
        let cluster = CLUSTER.get_or_init(|| Cluster::start(remote(store.access())));
        (Self::new(cluster, store.access().clone(), true), store)
    }

    /// On a cluster of the test's own.
    pub fn on(cluster: &'static Cluster, store: &StoreAccess) -> Self {
        Self::new(cluster, store.clone(), is_direct(store))
    }

    fn new(cluster: &'static Cluster, store: StoreAccess, direct: bool) -> Self {
        let database = cluster.database();
        // Physical buckets of different tests are told apart by their prefix; other clusters have databases of this name.
        static SCENES: AtomicUsize = AtomicUsize::new(1);
        let prefix =
            format!("{}-{}", database.name().replace('_', "-"), SCENES.fetch_add(1, Ordering::Relaxed));
        let scene = Self {
            writer: database.role("writer"),
            manager: database.role("manager"),
            database,
            store,
            direct,
            prefix,
        };
        scene.set("pg_storage.bucket_prefix", &scene.prefix);
        scene
    }

    /// How many objects the first pass of maintenance after so many confirmed uploads with declared hashes removes
    /// because they were staged.
    pub fn staged(&self, uploads: i64) -> i64 {
        if self.direct { 0 } else { uploads }
    }

    /// A setting of this database, for sessions to come.
    pub fn set(&self, setting: &str, value: &str) {
        let statement = format!("ALTER DATABASE {} SET {setting} = '{value}'", self.database.name());
        self.superuser().batch_execute(&statement).expect("ALTER DATABASE SET");
    }

    /// A session of the superuser.
    pub fn superuser(&self) -> Client {
        self.database.superuser()
    }

    /// Makes a bucket `shared` that belongs to the tenant and not to one of its users.
    pub fn shared_bucket(&self) {
        let statement =
            "INSERT INTO storage.buckets (tenant_id, owner_id, key) VALUES ('default', NULL, 'shared')";
        self.superuser().batch_execute(statement).expect("make the tenant's bucket");
    }

    /// A session of a writer whose claims name `user`; the three buckets of that user exist.
    pub fn user(&self, user: &str) -> Client {
        let mut manager = self.manager(user);
        manager.execute("SELECT storage.create_user_buckets($1)", &[&user]).expect("create_user_buckets");
        self.database.connect_as(&self.writer, &[("jwt.claims.user_id", user)])
    }

    /// A session of a writer, or why there is none just now; with `found`, after the user's buckets were made.
    pub fn try_session(&self, user: &str, tenant: &str, found: bool) -> Result<Client, postgres::Error> {
        let claims = [("jwt.claims.user_id", user), ("jwt.claims.tenant_id", tenant)];
        if found {
            let mut manager = self.database.try_connect_as(&self.manager, &claims)?;
            manager.execute("SELECT storage.create_user_buckets($1)", &[&user])?;
        }
        self.database.try_connect_as(&self.writer, &claims)
    }

    /// A session of a writer of another tenant.
    pub fn stranger(&self, user: &str, tenant: &str) -> Client {
        let claims = [("jwt.claims.user_id", user), ("jwt.claims.tenant_id", tenant)];
        let mut manager = self.database.connect_as(&self.manager, &claims);
        manager.execute("SELECT storage.create_user_buckets($1)", &[&user]).expect("create_user_buckets");
        self.database.connect_as(&self.writer, &claims)
    }

    /// A session of a manager whose claims name `user`.
    pub fn manager(&self, user: &str) -> Client {
        self.database.connect_as(&self.manager, &[("jwt.claims.user_id", user)])
    }

    /// Every row that an upload can touch, counted, and the states of those that can change: equal before and after
    /// means that nothing happened. Attempts to provision are recorded apart from who asked, and not counted.
    pub fn rows(&self) -> Vec<i64> {
        let row = self
            .superuser()
            .query_one(
                "SELECT ARRAY[
                    (SELECT count(*) FROM storage.upload_requests), (SELECT count(*) FROM storage.files),
                    (SELECT count(*) FROM storage.objects), (SELECT count(*) FROM storage.object_deletions),
                    (SELECT count(*) FROM storage.buckets), (SELECT count(physical_name) FROM storage.buckets),
                    (SELECT count(*) FROM storage.physical_buckets WHERE state = 'ready'),
                    (SELECT coalesce(sum(hashtext(u::text)), 0) FROM storage.upload_requests u),
                    (SELECT coalesce(sum(hashtext(f::text)), 0) FROM storage.files f)]",
                &[],
            )
            .expect("count the rows");
        row.get(0)
    }

    /// How often this scene's buckets were named in a request to `store`, which other scenes may use as well.
    pub fn asked(&self, store: &LocalStore) -> usize {
        let mine = format!("/{}-", self.prefix);
        store.requests().iter().filter(|request| request.path.starts_with(&mine)).count()
    }

    /// One value that the superuser asks for.
    #[track_caller]
    pub fn value<T: for<'a> postgres::types::FromSql<'a>>(&self, query: &str) -> T {
        self.superuser().query_one(query, &[]).expect("ask the superuser").get(0)
    }

    /// Physical bucket and key that an upload request's URL names.
    pub fn place_of_upload(&self, upload_id: &str) -> (String, String) {
        let query = "SELECT physical_name, object_key FROM storage.upload_requests WHERE id = $1::text::uuid";
        self.pair(query, upload_id)
    }

    /// Physical bucket and key that the object of an upload request has, or would have.
    pub fn place_of_final_key(&self, upload_id: &str) -> (String, String) {
        let query = "SELECT physical_name, final_key FROM storage.upload_requests WHERE id = $1::text::uuid";
        self.pair(query, upload_id)
    }

    /// Physical bucket and key of a file's bytes.
    pub fn place_of_file(&self, file_id: &str) -> (String, String) {
        let query = "SELECT o.physical_name, o.key FROM storage.objects o
                     JOIN storage.files f ON f.object_id = o.id WHERE f.id = $1::text::uuid";
        self.pair(query, file_id)
    }

    fn pair(&self, query: &str, id: &str) -> (String, String) {
        let row = self.superuser().query_one(query, &[&id]).expect("look the place up");
        (row.get(0), row.get(1))
    }

    /// One pass of maintenance: uploads expired, files expired, objects deleted, deletions failed.
    pub fn maintain(&self) -> [i64; 4] {
        let mut session = self.superuser();
        // A pass never waits for another session; one that does should fail its test and not hang it.
        session.batch_execute("SET lock_timeout = '10s'").expect("SET lock_timeout");
        let row = session
            .query_one(
                "SELECT uploads_expired, files_expired, objects_deleted, deletions_failed FROM storage.run_maintenance()",
                &[],
            )
            .expect("run_maintenance");
        [row.get(0), row.get(1), row.get(2), row.get(3)]
    }

    /// Has maintenance delete everything that is queued, as if all of it were due.
    pub fn collect(&self) {
        eventually("the end of the queue", Duration::from_secs(60), || {
            let due = "UPDATE storage.object_deletions SET not_before = now()";
            self.superuser().batch_execute(due).expect("make the queue due");
            self.maintain();
            (self.value::<i64>("SELECT count(*) FROM storage.object_deletions") == 0).then_some(())
        });
    }

    /// Confirms in `waiting` while `open` has a transaction open that it must wait for, and commits that.
    pub fn confirm_behind(
        &self,
        open: &mut Client,
        mut waiting: Client,
        upload_id: &str,
    ) -> (Client, Verdict) {
        let pid: i32 = waiting.query_one("SELECT pg_backend_pid()", &[]).expect("ask for the pid").get(0);
        let upload_id = upload_id.to_owned();
        let confirming = std::thread::spawn(move || {
            let verdict = confirm(&mut waiting, &upload_id);
            (waiting, verdict)
        });
        eventually("the confirmation to wait for the other transaction", Duration::from_secs(30), || {
            let blocked = format!("SELECT cardinality(pg_blocking_pids({pid})) > 0");
            self.value::<bool>(&blocked).then_some(())
        });
        open.batch_execute("COMMIT").expect("COMMIT");
        confirming.join().expect("the confirmation succeeds")
    }

    /// Any request to the store behind the extension's back, signed with the store's own credentials.
    pub fn at_store(&self, method: Method, place: (&str, &str), headers: &Headers, body: &[u8]) -> Response {
        let url = self.store.url(method, place, headers, &[]);
        match method {
            Method::Put => http::put(&url, headers, body),
            _ => http::request(method.as_str(), &url, headers),
        }
    }

    /// The same without headers or a body, about a sub-resource: `[("uploads", "")]`.
    pub fn ask_store(&self, method: Method, place: (&str, &str), query: &[(&str, &str)]) -> Response {
        let url = self.store.url(method, place, &Headers::new(), query);
        http::request(method.as_str(), &url, &Headers::new())
    }

    /// Whether the store has an object at this place.
    pub fn exists(&self, place: &(String, String)) -> bool {
        match self.at_store(Method::Head, (&place.0, &place.1), &Headers::new(), &[]).status {
            200 => true,
            404 => false,
            status => panic!("HEAD {place:?}: {status}"),
        }
    }

    /// Puts other bytes at this place, whatever is there, with their own checksum.
    pub fn overwrite(&self, place: &(String, String), content_type: &str, body: &[u8]) {
        let checksum = [
            ("x-amz-checksum-sha256", Digest::of(body).to_base64()),
            ("x-amz-sdk-checksum-algorithm", "SHA256".to_owned()),
        ];
        self.replace(place, content_type, body, &checksum);
    }

    /// Puts other bytes at this place, whatever is there, without any checksum.
    pub fn overwrite_silently(&self, place: &(String, String), content_type: &str, body: &[u8]) {
        self.replace(place, content_type, body, &[]);
    }

    fn replace(&self, place: &(String, String), content_type: &str, body: &[u8], more: &[(&str, String)]) {
        // Whoever had the upload's URL would send its mark along, where there is one.
        let mark = upload_of(&place.1).map(|upload| ("x-amz-meta-upload", upload.to_string()));
        let headers = std::iter::once(&("content-type", content_type.to_owned()))
            .chain(more)
            .chain(&mark)
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let answer = self.at_store(Method::Put, (&place.0, &place.1), &headers, body);
        assert!(answer.is_success(), "PUT {place:?}: {} {}", answer.status, answer.text());
    }

    /// The bytes at this place.
    pub fn bytes_at(&self, place: &(String, String)) -> Vec<u8> {
        let answer = self.at_store(Method::Get, (&place.0, &place.1), &Headers::new(), &[]);
        assert_eq!(answer.status, 200, "GET {place:?}: {}", answer.text());
        answer.body
    }
}

/// A cluster that uses a store other than its own.
pub fn remote(access: &StoreAccess) -> Options {
    Options::new().environment(access.environment()).setting("pg_storage.allowed_origins", ORIGIN)
}

/// Whether uploads to it go straight to their final key.
fn is_direct(access: &StoreAccess) -> bool {
    match access.region.as_str() {
        "garage" => false,
        // Before release 20 Ceph stores a body whose checksum is wrong.
        "default" => {
            Ceph::version().split('.').next().and_then(|release| release.parse().ok()) >= Some(20_u32)
        }
        _ => true,
    }
}

/// How to reach the store that a cluster's background worker serves, or the one that it uses instead because it was chosen.
pub fn local_access(cluster: &Cluster) -> StoreAccess {
    if let Some(access) = cluster.chosen_store() {
        return access.clone();
    }
    let directory = cluster.data().join("pg_storage");
    eventually("the local store's worker to listen", Duration::from_secs(30), || {
        let port: u16 = std::fs::read_to_string(directory.join("port")).ok()?.trim().parse().ok()?;
        let credentials =
            pg_storage_gateway::load_or_create_credentials(&directory.join("credentials")).ok()?;
        Some(StoreAccess {
            endpoint: format!("http://127.0.0.1:{port}"),
            region: "local".to_owned(),
            access_key_id: credentials.access_key_id.clone(),
            secret_access_key: credentials.secret_access_key.expose().to_owned(),
        })
    })
}
