//! How to reach a store: the same few facts for Garage, the local store and a store that is not there.

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

impl StoreAccess {
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
}
