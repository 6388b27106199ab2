//! How to reach a store: the same few facts for Garage, the local store and a store that is not there.

use crate::LocalStore;
use crate::choice::Kind;
use crate::http::{self, Headers};
use pg_storage_core::endpoint::Endpoint;
use pg_storage_core::presign::{Credentials, Method, Presign, Secret, Signer, Target, Timestamp};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// Where a store is and who may use it.
#[derive(Clone)]
pub struct StoreAccess {
    /// `http://127.0.0.1:port`
    pub endpoint: String,
    /// The region its signatures name.
    pub region: String,
    /// The public half of the credentials.
    pub access_key_id: String,
    /// The secret half of the credentials.
    pub secret_access_key: String,
}

/// What a listing says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Bytes.
    pub size: u64,
    /// When it was written, by the store's clock, in ISO 8601.
    pub modified: String,
}

impl StoreAccess {
    /// How to reach the store that was chosen for the tests, or else the local store's own program.
    pub fn chosen() -> &'static Self {
        Kind::chosen_access().unwrap_or_else(|| LocalStore::shared().access())
    }

    /// The environment of a PostgreSQL server that is to use this store.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("S3_ENDPOINT", self.endpoint.as_str()),
            ("S3_REGION", &self.region),
            ("S3_ACCESS_KEY_ID", &self.access_key_id),
            ("S3_SECRET_ACCESS_KEY", &self.secret_access_key),
            ("S3_FORCE_PATH_STYLE", "true"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// A URL for any request, signed with the store's own credentials.
    pub fn url(
        &self,
        method: Method,
        place: (&str, &str),
        headers: &Headers,
        query: &[(&str, &str)],
    ) -> String {
        self.url_by_clock(0, method, place, headers, query)
    }

    /// The same from a signer whose clock is `ahead` seconds before ours. It lives for five minutes.
    pub fn url_by_clock(
        &self,
        ahead: i64,
        method: Method,
        (bucket, key): (&str, &str),
        headers: &Headers,
        query: &[(&str, &str)],
    ) -> String {
        let endpoint = Endpoint::parse(&self.endpoint).expect("the store has an endpoint");
        let credentials = Credentials {
            access_key_id: self.access_key_id.clone(),
            secret_access_key: Secret::new(self.secret_access_key.clone()),
            session_token: None,
        };
        let mut signer = Signer::new(Target::new(&endpoint, &self.region, true), credentials);
        let signed: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request = Presign { method, bucket, key, expires: 300, headers: &signed, query };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
        signer.url(&request, Timestamp::from_unix(now.as_secs() as i64 + ahead))
    }

    /// Everything in a bucket, by key.
    pub fn listing(&self, bucket: &str) -> BTreeMap<String, Listed> {
        let mut objects = BTreeMap::new();
        let mut after = String::new();
        loop {
            let query = [("list-type", "2"), ("start-after", after.as_str())];
            let answer = http::get(&self.url(Method::Get, (bucket, ""), &Headers::new(), &query));
            assert_eq!(answer.status, 200, "list {bucket}: {}", answer.text());
            let page = answer.text();
            let element = |text: &str, name: &str| {
                let (_, rest) = text.split_once(&format!("<{name}>"))?;
                Some(rest.split_once('<')?.0.to_owned())
            };
            for entry in page.split("<Contents>").skip(1) {
                // Keys of ours have no character that XML would escape.
                let key = element(entry, "Key").expect("an entry has a key");
                let size = element(entry, "Size").and_then(|size| size.parse().ok());
                let size = size.expect("an entry has a size");
                let modified = element(entry, "LastModified").expect("an entry has a time");
                objects.insert(key, Listed { size, modified });
            }
            match objects.last_key_value() {
                Some((last, _)) if page.contains("<IsTruncated>true<") => after.clone_from(last),
                _ => return objects,
            }
        }
    }
}
