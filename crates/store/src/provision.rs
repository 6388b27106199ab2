//! Makes a physical bucket what its access class needs: idempotent, resumable, each step on record.

use std::future::Future;
use std::time::Duration;

use pg_storage_core::backoff;
use pg_storage_core::origin::Origin;
use pg_storage_core::policy::{self, Access};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use uuid::Uuid;

pub use crate::inspect::{Inspection, Reading, inspect};

use crate::error::{ErrorKind, StoreError};
use crate::store::{Description, PublicAccessBlock, PutOptions, Store};

/// How often a step is tried while the store says that another change to the bucket is under way, or does not yet
/// see the bucket that it has just created.
const TRIES: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What the bucket shall be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its physical name.
    pub bucket: String,
    /// Who may read it.
    pub access: Access,
    /// Whether to create it; otherwise it must exist.
    pub create: bool,
    /// Whether to configure it; otherwise an operator has.
    pub configure: bool,
    /// The web origins that browsers may use it from; none at all is a mistake.
    pub origins: Vec<Origin>,
    /// What all our keys in it begin with; empty if the whole bucket is ours.
    pub key_prefix: String,
    /// Whether overwritten and deleted objects are kept as versions.
    pub versioning: bool,
}

/// One step and how it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `create`, `public_access_block`, `policy`, `cors`, `versioning` or `lifecycle`.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
}

/// How a step went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The store has it.
    Applied,
    /// It was left out.
    Skipped {
        /// Why, and what follows from that.
        reason: String,
    },
    /// It could not be done; nothing after it was tried.
    Failed {
        /// Why.
        error: StoreError,
    },
}

/// The steps taken, in order. As JSON it is the list of the steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Ends with the failed step, if one failed.
    pub steps: Vec<Step>,
}

impl Report {
    /// What stopped the provisioning; `None` if the bucket is ready.
    #[must_use]
    pub fn failure(&self) -> Option<&StoreError> {
        self.steps.iter().find_map(|step| match &step.outcome {
            Outcome::Failed { error } => Some(error),
            _ => None,
        })
    }
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("step", self.name)?;
        match &self.outcome {
            Outcome::Applied => map.serialize_entry("outcome", "applied")?,
            Outcome::Skipped { reason } => {
                map.serialize_entry("outcome", "skipped")?;
                map.serialize_entry("reason", reason)?;
            }
            Outcome::Failed { error } => {
                map.serialize_entry("outcome", "failed")?;
                map.serialize_entry("reason", &error.to_string())?;
            }
        }
        map.end()
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.steps.serialize(serializer)
    }
}

/// Takes the bucket from whatever state it is in to the one planned. Doing it again changes nothing.
///
/// Functions the store does not have are skipped with the reason; a refusal is a failure. A name that belongs to
/// somebody else fails with `NameTaken` before anything is applied.
pub async fn provision(store: &impl Store, plan: &Plan) -> Report {
    let mut steps = Vec::with_capacity(6);
    let mut record = |name, outcome| {
        let failed = matches!(outcome, Outcome::Failed { .. });
        steps.push(Step { name, outcome });
        !failed
    };
    let bucket = plan.bucket.as_str();
    let done = record("create", create(store, plan).await)
        && record("public_access_block", public_access_block(store, plan).await)
        && record("policy", bucket_policy(store, plan).await)
        && record("cors", cors(store, plan).await)
        && record(
            "versioning",
            match plan {
                Plan { configure: false, .. } => operators_task(),
                Plan { versioning: false, .. } => skipped("not asked for"),
                _ => applied(settle(|| store.enable_versioning(bucket)).await, "versioning", ""),
            },
        );
    if done {
        record("lifecycle", lifecycle(store, plan).await);
    }
    Report { steps }
}

async fn create(store: &impl Store, plan: &Plan) -> Outcome {
    let outcome = if plan.create { ensure(store, &plan.bucket).await } else { require(store, plan).await };
    match outcome {
        Ok(()) if plan.create => Outcome::Applied,
        Ok(()) => skipped("the bucket was given; it exists"),
        Err(error) => Outcome::Failed { error },
    }
}

async fn require(store: &impl Store, plan: &Plan) -> Result<(), StoreError> {
    if store.head_bucket(&plan.bucket).await? {
        return Ok(());
    }
    let message = format!("the bucket {} must exist already and does not", plan.bucket);
    Err(StoreError::local(ErrorKind::NoSuchBucket, "HeadBucket", message))
}

/// Creates the bucket, or finds that it is ours.
///
/// What a 409 claims is not believed: stores say "already exists" for one's own bucket, and "aborted" while
/// another session creates the same one. HEAD shows whether we may use it.
async fn ensure(store: &impl Store, bucket: &str) -> Result<(), StoreError> {
    let mut tries = Tries::default();
    loop {
        let refusal = match store.create_bucket(bucket).await {
            Err(error) if error.status == Some(409) => error,
            outcome => return outcome,
        };
        match store.head_bucket(bucket).await {
            Ok(true) => return ours(store, bucket, refusal).await,
            Err(error) if keeps_out(&error, &refusal) => return Err(taken(bucket, refusal)),
            Err(error) => return Err(error),
            Ok(false) => {}
        }
        let Some(wait) = tries.another(random()) else { return Err(refusal) };
        tokio::time::sleep(wait).await;
    }
}

/// Whether HEAD shows that the bucket is not ours to use. Where it is said to be another's, it may be in another region
/// too (301), which we could not tell from one of ours.
fn keeps_out(head: &StoreError, refusal: &StoreError) -> bool {
    match head.kind {
        ErrorKind::Denied => true,
        ErrorKind::Invalid => refusal.kind == ErrorKind::NameTaken,
        _ => false,
    }
}

/// Somebody else's bucket may let everybody list it, and then HEAD answers 200 too. Where the store claims that
/// the name is another's, only our own list of buckets overrules it.
async fn ours(store: &impl Store, bucket: &str, refusal: StoreError) -> Result<(), StoreError> {
    if refusal.kind != ErrorKind::NameTaken || store.owns_bucket(bucket).await.unwrap_or(false) {
        return Ok(());
    }
    Err(taken(bucket, refusal))
}

fn taken(bucket: &str, refusal: StoreError) -> StoreError {
    let message = format!("the bucket name {bucket} belongs to another account");
    StoreError { kind: ErrorKind::NameTaken, message, ..refusal }
}

async fn public_access_block(store: &impl Store, plan: &Plan) -> Outcome {
    if !plan.configure {
        return operators_task();
    }
    let block = match plan.access {
        Access::Public => PublicAccessBlock::POLICY_ONLY,
        Access::Private | Access::Temp => PublicAccessBlock::ALL,
    };
    let milder = PublicAccessBlock { block_public_acls: false, ..block };
    // A bucket in use that does without: to close it for a moment would refuse the uploads of that moment.
    if matches!(store.public_access_block(&plan.bucket).await, Ok(Some(found)) if found == milder) {
        return Outcome::Applied;
    }
    let outcome = match settle(|| store.put_public_access_block(&plan.bucket, block)).await {
        Ok(()) => keep_writable(store, plan, block, milder).await,
        refusal => refusal,
    };
    applied(outcome, "public-access blocks", "")
}

/// Ceph 16 takes `BlockPublicAcls` for a ban on every PUT. There the bucket does without it: public ACLs are disregarded
/// all the same. Where that does not help, the credentials may not write, and the bucket stays as closed as it can be.
async fn keep_writable(
    store: &impl Store,
    plan: &Plan,
    block: PublicAccessBlock,
    milder: PublicAccessBlock,
) -> Result<(), StoreError> {
    if may_write(store, plan).await {
        return Ok(());
    }
    settle(|| store.put_public_access_block(&plan.bucket, milder)).await?;
    if may_write(store, plan).await {
        return Ok(());
    }
    settle(|| store.put_public_access_block(&plan.bucket, block)).await
}

/// Whether a small object can be stored; any other trouble than a refusal shows where objects are needed.
async fn may_write(store: &impl Store, plan: &Plan) -> bool {
    let key = format!("{}scratch/writable", plan.key_prefix);
    let options = PutOptions {
        description: Description::typed("application/octet-stream"),
        sha256: None,
        create_only: false,
    };
    let refused = |error: StoreError| error.kind == ErrorKind::Denied;
    if store.put(&plan.bucket, &key, Vec::new(), options).await.is_err_and(refused) {
        return false;
    }
    // What stays behind, the collector of orphans finds.
    let _ = store.delete_batch(&plan.bucket, &[key]).await;
    true
}

async fn bucket_policy(store: &impl Store, plan: &Plan) -> Outcome {
    if !plan.configure {
        return operators_task();
    }
    let bucket = plan.bucket.as_str();
    let (outcome, consequence) = match plan.access {
        Access::Public => {
            let document = policy::public_read(bucket, &plan.key_prefix);
            let outcome = settle(|| store.put_policy(bucket, &document)).await;
            (outcome, ": reading without a signature will not work")
        }
        Access::Private | Access::Temp => (settle(|| store.delete_policy(bucket)).await, ""),
    };
    match outcome {
        Err(error) if error.status == Some(405) && !lacks_policies(store, bucket).await => {
            let message = "only the account that owns the bucket may change its policy";
            let error = StoreError { kind: ErrorKind::Denied, message: message.to_owned(), ..error };
            Outcome::Failed { error }
        }
        outcome => applied(outcome, "bucket policies", consequence),
    }
}

/// Whether a 405 to a change of the policy means that the store has no policies. On AWS it means that the bucket belongs
/// to another account (`PutBucketPolicy`, `DeleteBucketPolicy` and `GetBucketPolicy` in the S3 API reference), so the
/// same answer to reading it decides nothing.
async fn lacks_policies(store: &impl Store, bucket: &str) -> bool {
    store.owns_bucket(bucket).await.unwrap_or(false)
        || store.policy(bucket).await.is_err_and(|error| error.status == Some(501))
}

async fn cors(store: &impl Store, plan: &Plan) -> Outcome {
    if !plan.configure {
        return operators_task();
    }
    if plan.origins.is_empty() {
        let message =
            "no web origin is allowed anywhere; name the origins instead of opening the bucket to all";
        return Outcome::Failed { error: StoreError::local(ErrorKind::Invalid, "PutBucketCors", message) };
    }
    let rule = policy::cors(plan.access, &plan.origins);
    let outcome = settle(|| store.put_cors(&plan.bucket, &rule)).await;
    applied(outcome, "CORS rules", ": uploads from browsers depend on the store's own answer to them")
}

async fn lifecycle(store: &impl Store, plan: &Plan) -> Outcome {
    if !plan.configure {
        return operators_task();
    }
    let rules = policy::lifecycle(plan.access);
    let outcome = settle(|| store.put_lifecycle(&plan.bucket, &plan.key_prefix, &rules)).await;
    applied(outcome, "lifecycle rules", ": unfinished multipart uploads and temporary objects stay")
}

/// The outcome of a step that needs `function`, whose absence has `consequence`.
fn applied(outcome: Result<(), StoreError>, function: &str, consequence: &str) -> Outcome {
    match outcome {
        Ok(()) => Outcome::Applied,
        Err(error) if error.kind == ErrorKind::NotImplemented => {
            let answer = error.status_and_code();
            Outcome::Skipped { reason: format!("the store has no {function} ({answer}){consequence}") }
        }
        Err(error) => Outcome::Failed { error },
    }
}

fn skipped(reason: &str) -> Outcome {
    Outcome::Skipped { reason: reason.to_owned() }
}

fn operators_task() -> Outcome {
    skipped("this bucket is configured by its operator")
}

/// Repeats a change while it collides with another one or the new bucket has not appeared everywhere.
async fn settle<F, Fut>(mut change: F) -> Result<(), StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<(), StoreError>>,
{
    let mut tries = Tries::default();
    loop {
        let error = match change().await {
            Err(error) if error.is_conflict() || error.kind == ErrorKind::NoSuchBucket => error,
            outcome => return outcome,
        };
        let Some(wait) = tries.another(random()) else { return Err(error) };
        tokio::time::sleep(wait).await;
    }
}

/// The tries of one step.
#[derive(Default)]
struct Tries {
    failed: u32,
}

impl Tries {
    /// After a failure: how long to wait before the next try, chosen by `random`; `None` after the last one.
    fn another(&mut self, random: u64) -> Option<Duration> {
        let wait = backoff::delay(self.failed, FIRST_WAIT, LONGEST_WAIT, random);
        self.failed += 1;
        (self.failed < TRIES).then_some(wait)
    }
}

fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_between_tries_double_from_the_first() {
        let mut tries = Tries::default();
        let longest = std::iter::from_fn(|| tries.another(u64::MAX)).map(|wait| wait.as_secs_f64());
        let longest: Vec<f64> = longest.map(|seconds| (seconds * 1000.0).round()).collect();
        assert_eq!(longest, [100.0, 200.0, 400.0, 800.0, 1600.0]);
    }
}
