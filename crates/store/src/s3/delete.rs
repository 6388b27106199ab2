//! Deleting many objects: in one call, or one by one where the store has no such call.

use std::collections::{HashMap, HashSet};

use aws_sdk_s3::operation::delete_objects::DeleteObjectsOutput;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use aws_smithy_runtime_api::http::Headers;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::S3Store;
use super::call::{add_content_md5, call};
use super::convert::incomplete;
use crate::error::{ErrorKind, StoreError};
use crate::store::MAX_DELETE_BATCH;

const OPERATION: &str = "DeleteObjects";

/// How many single deletes run at once on stores without the batch call.
const AT_ONCE: usize = 16;

/// One outcome per key, in the order given.
type Outcomes = Vec<Result<(), StoreError>>;

impl S3Store {
    pub(super) async fn delete_many(&self, bucket: &str, keys: &[String]) -> Result<Outcomes, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        if keys.len() > MAX_DELETE_BATCH {
            return Err(StoreError::local(ErrorKind::Invalid, OPERATION, "at most 1000 keys per call"));
        }
        let deadline = Instant::now() + self.request_timeout;
        let objects = keys
            .iter()
            .map(|key| ObjectIdentifier::builder().key(key).build())
            .collect::<Result<Vec<_>, _>>()
            .map_err(incomplete(OPERATION))?;
        let delete = Delete::builder().set_objects(Some(objects)).build().map_err(incomplete(OPERATION))?;
        let request = self.client().await?.delete_objects().bucket(bucket).delete(delete);
        match call!("DeleteObjects", request.customize().mutate_request(add_content_md5), customized) {
            Ok(output) => Ok(outcomes(keys, &output)),
            Err(error) if error.kind == ErrorKind::NotImplemented => {
                self.delete_each(bucket, keys, deadline).await
            }
            Err(error) => Err(error),
        }
    }

    async fn delete_each(
        &self,
        bucket: &str,
        keys: &[String],
        deadline: Instant,
    ) -> Result<Outcomes, StoreError> {
        let left_over = "no time was left within the request's time limit";
        let left_over = StoreError::local(ErrorKind::Timeout, "DeleteObject", left_over);
        let mut outcomes: Outcomes = vec![Err(left_over); keys.len()];
        let mut waiting = keys.iter().enumerate();
        let mut running = JoinSet::new();
        loop {
            for (index, key) in waiting.by_ref().take(AT_ONCE - running.len()) {
                let (store, bucket, key) = (self.clone(), bucket.to_owned(), key.clone());
                running.spawn(async move { (index, store.delete_one(&bucket, &key).await) });
            }
            let Ok(Some(finished)) = timeout_at(deadline, running.join_next()).await else {
                return Ok(outcomes);
            };
            let (index, outcome) = finished.map_err(|_| {
                StoreError::local(ErrorKind::Unexpected, "DeleteObject", "a deletion was interrupted")
            })?;
            if let Err(error) = &outcome
                && error.kind == ErrorKind::NoSuchBucket
            {
                return Err(error.clone());
            }
            if let Some(place) = outcomes.get_mut(index) {
                *place = outcome;
            }
        }
    }

    async fn delete_one(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let request = self.client().await?.delete_object().bucket(bucket).key(key);
        match call!("DeleteObject", request) {
            Err(error) if error.kind != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A key counts as deleted only if the store says so about that key.
fn outcomes(keys: &[String], output: &DeleteObjectsOutput) -> Outcomes {
    let deleted: HashSet<&str> = output.deleted().iter().filter_map(|entry| entry.key()).collect();
    let failed: HashMap<&str, StoreError> = output
        .errors()
        .iter()
        .filter_map(|entry| {
            let key = entry.key()?;
            let error =
                StoreError::from_answer(OPERATION, 200, entry.code(), entry.message(), &Headers::new());
            // The 200 is the batch's.
            Some((key, StoreError { status: None, ..error }))
        })
        .collect();
    keys.iter()
        .map(|key| match failed.get(key.as_str()) {
            Some(error) if error.kind == ErrorKind::NotFound => Ok(()),
            Some(error) => Err(error.clone()),
            None if deleted.contains(key.as_str()) => Ok(()),
            None => Err(StoreError::local(ErrorKind::Unexpected, OPERATION, "no outcome for this key")),
        })
        .collect()
}
