//! Lifecycle rules: objects expire by age or date, unfinished multipart uploads are aborted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use s3s::dto::{BucketLifecycleConfiguration, ExpirationStatus, LifecycleRule};
use s3s::{S3Result, s3_error};
use uuid::Uuid;

use crate::document;
use crate::failure::{Failure, Outcome};
use crate::index::list::{self, Position, Query};
use crate::index::records::Moment;
use crate::index::{Released, buckets, objects, uploads};
use crate::store::Store;

/// How often rules are carried out. S3 does it about once a day; rules count whole days.
pub const INTERVAL: Duration = Duration::from_secs(600);

/// Objects looked at in one transaction.
const BATCH: usize = 1000;

/// Refuses a configuration that S3 refuses or that this store would not carry out; gives unnamed rules an id.
pub fn validate(configuration: &mut BucketLifecycleConfiguration) -> S3Result<()> {
    if configuration.rules.is_empty() || configuration.rules.len() > 1000 {
        return Err(s3_error!(MalformedXML, "A lifecycle configuration has 1 to 1000 rules."));
    }
    for rule in &mut configuration.rules {
        rule.id.get_or_insert_with(|| Uuid::new_v4().simple().to_string());
        let filter = rule.filter.as_ref();
        let by_tag = filter.is_some_and(|filter| {
            filter.tag.is_some()
                || filter
                    .and
                    .as_ref()
                    .is_some_and(|and| and.tags.as_ref().is_some_and(|tags| !tags.is_empty()))
        });
        let by_version = rule.noncurrent_version_expiration.is_some()
            || rule.noncurrent_version_transitions.is_some()
            || rule
                .expiration
                .as_ref()
                .is_some_and(|expiration| expiration.expired_object_delete_marker.is_some());
        if by_tag
            || by_version
            || rule.transitions.as_ref().is_some_and(|transitions| !transitions.is_empty())
        {
            return Err(s3_error!(
                NotImplemented,
                "The local store carries out Expiration and AbortIncompleteMultipartUpload, by prefix and size."
            ));
        }
        let days = rule.expiration.as_ref().and_then(|expiration| expiration.days);
        let abort =
            rule.abort_incomplete_multipart_upload.as_ref().and_then(|abort| abort.days_after_initiation);
        if days.into_iter().chain(abort).any(|days| days < 1) {
            return Err(s3_error!(
                InvalidArgument,
                "A number of days in a lifecycle action must be a positive integer"
            ));
        }
        let date = rule.expiration.as_ref().and_then(|expiration| expiration.date.as_ref());
        if days.is_none() && date.is_none() && abort.is_none() {
            return Err(s3_error!(InvalidRequest, "At least one action needs to be specified in a rule"));
        }
    }
    Ok(())
}

/// Carries rules out until it is dropped. A pass that fails is repeated after the interval.
pub async fn keep_running(store: Arc<Store>) {
    loop {
        let _ = store.run(|store| pass(store, SystemTime::now())).await;
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Carries out every bucket's rules as of `now`; a bucket that fails does not keep the others from their turn.
pub fn pass(store: &Store, now: SystemTime) -> Outcome<()> {
    let now = Moment::from(now);
    let mut outcome = Ok(());
    for (name, bucket) in store.index.read(buckets::all)? {
        if let Some(text) = bucket.lifecycle {
            outcome = outcome.and(apply(store, &name, &text, now));
        }
    }
    outcome
}

fn apply(store: &Store, bucket: &str, text: &str, now: Moment) -> Outcome<()> {
    let configuration: BucketLifecycleConfiguration = document::read(text)?;
    for rule in configuration.rules.iter().filter(|rule| rule.status.as_str() == ExpirationStatus::ENABLED) {
        expire(store, bucket, rule, now)?;
        abort(store, bucket, rule, now)?;
    }
    Ok(())
}

/// What a rule applies to.
struct Scope<'a> {
    prefix: &'a str,
    larger_than: Option<i64>,
    smaller_than: Option<i64>,
}

impl<'a> Scope<'a> {
    fn of(rule: &'a LifecycleRule) -> Self {
        let mut scope = Self {
            prefix: rule.prefix.as_deref().unwrap_or_default(),
            larger_than: None,
            smaller_than: None,
        };
        if let Some(filter) = &rule.filter {
            if let Some(prefix) = filter.prefix.as_deref() {
                scope.prefix = prefix;
            }
            scope.larger_than = filter.object_size_greater_than;
            scope.smaller_than = filter.object_size_less_than;
            if let Some(and) = &filter.and {
                if let Some(prefix) = and.prefix.as_deref() {
                    scope.prefix = prefix;
                }
                scope.larger_than = and.object_size_greater_than;
                scope.smaller_than = and.object_size_less_than;
            }
        }
        scope
    }

    fn has(&self, size: u64) -> bool {
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        self.larger_than.is_none_or(|limit| size > limit)
            && self.smaller_than.is_none_or(|limit| size < limit)
    }
}

fn days(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn expire(store: &Store, bucket: &str, rule: &LifecycleRule, now: Moment) -> Outcome<()> {
    let Some(expiration) = &rule.expiration else { return Ok(()) };
    let date = expiration.date.clone().is_some_and(|date| date <= now.timestamp());
    let scope = Scope::of(rule);
    let due = |modified: Moment, size: u64| {
        let old = expiration.days.is_some_and(|number| modified.plus_days(days(number)) <= now);
        (old || date) && scope.has(size)
    };
    let mut after = Position::Start;
    loop {
        let query = Query { prefix: scope.prefix, delimiter: "", after, limit: BATCH };
        let page = store.index.read(|transaction| list::page(transaction, bucket, &query))?;
        let candidates: Vec<&str> = page
            .objects
            .iter()
            .filter(|(_, summary)| due(summary.modified, summary.size))
            .map(|(key, _)| key.as_str())
            .collect();
        if !candidates.is_empty() {
            store.write(|transaction| {
                let mut released = Released::default();
                for key in candidates {
                    // Asked again: the object may have been replaced since the page was read.
                    let object = objects::find(transaction, bucket, key)?;
                    if object.is_some_and(|object| due(object.modified, object.size)) {
                        objects::delete(transaction, bucket, key, &mut released)?;
                    }
                }
                Ok(((), released))
            })?;
        }
        match page.next {
            Some(position) => after = position,
            None => return Ok(()),
        }
    }
}

fn abort(store: &Store, bucket: &str, rule: &LifecycleRule, now: Moment) -> Outcome<()> {
    let limit = rule.abort_incomplete_multipart_upload.as_ref().and_then(|abort| abort.days_after_initiation);
    let Some(limit) = limit else { return Ok(()) };
    let scope = Scope::of(rule);
    let started =
        store.index.read(|transaction| uploads::page(transaction, bucket, scope.prefix, None, usize::MAX))?;
    let due = started
        .into_iter()
        .filter(|(_, _, upload)| upload.started.plus_days(days(limit)) <= now)
        .map(|(key, id, _)| (key, id));
    abort_each(store, bucket, &due.collect::<Vec<_>>())
}

fn abort_each(store: &Store, bucket: &str, uploads: &[(String, String)]) -> Outcome<()> {
    for (key, id) in uploads {
        match store.write(|transaction| Ok(((), uploads::abort(transaction, bucket, key, id)?))) {
            // Refused: completed or aborted since the page was read.
            Ok(()) | Err(Failure::Refused(_)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
