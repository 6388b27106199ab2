//! What the store says about a bucket, read back.

use serde::Serialize;
use serde::ser::{SerializeMap as _, Serializer};
use serde_json::Value;

use crate::error::{ErrorKind, StoreError};
use crate::store::{PublicAccessBlock, Store};

/// What was read of one part of a bucket's configuration. As JSON: the value itself, `{"unsupported": why}` or
/// `{"error": what}`.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading<T> {
    /// What the store has; `null` where nothing is set.
    Value(T),
    /// The store does not have this function.
    Unsupported(String),
    /// It could not be read.
    Error(StoreError),
}

impl<T> From<Result<T, StoreError>> for Reading<T> {
    fn from(outcome: Result<T, StoreError>) -> Self {
        match outcome {
            Ok(value) => Self::Value(value),
            Err(error) if error.kind == ErrorKind::NotImplemented => {
                Self::Unsupported(error.status_and_code())
            }
            Err(error) => Self::Error(error),
        }
    }
}

impl<T: Serialize> Serialize for Reading<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (name, text) = match self {
            Self::Value(value) => return value.serialize(serializer),
            Self::Unsupported(answer) => ("unsupported", answer.clone()),
            Self::Error(error) => ("error", error.to_string()),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(name, &text)?;
        map.end()
    }
}

/// A bucket as its store describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Whether it exists and we may use it.
    pub exists: Reading<bool>,
    /// The public-access block.
    pub public_access_block: Reading<Option<PublicAccessBlock>>,
    /// The bucket policy.
    pub policy: Reading<Option<Value>>,
    /// The CORS rules.
    pub cors: Reading<Option<Value>>,
    /// `Enabled`, `Suspended` or never on.
    pub versioning: Reading<Option<String>>,
    /// The lifecycle rules.
    pub lifecycle: Reading<Option<Value>>,
}

/// Reads everything that [`provision`](crate::provision::provision) sets, all at once.
pub async fn inspect(store: &impl Store, bucket: &str) -> Inspection {
    let (exists, public_access_block, policy, cors, versioning, lifecycle) = tokio::join!(
        store.head_bucket(bucket),
        store.public_access_block(bucket),
        store.policy(bucket),
        store.cors(bucket),
        store.versioning(bucket),
        store.lifecycle(bucket),
    );
    Inspection {
        exists: exists.into(),
        public_access_block: public_access_block.into(),
        policy: policy.into(),
        cors: cors.into(),
        versioning: versioning.into(),
        lifecycle: lifecycle.into(),
    }
}
