//! Asking the store: a physical bucket is brought to what is wanted, and a store tried for what it enforces.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use pg_storage_core::key::SCRATCH_PREFIX;
use pg_storage_core::origin::Origin;
use pg_storage_core::policy::Access;
use pg_storage_core::presign::{Signer, Target};
use pg_storage_store::Store;
use pg_storage_store::probe::{Capabilities, probe};
use pg_storage_store::provision::{Outcome, Plan, Report, provision};
use serde_json::{Value, json};

use super::record::Known;
use super::wanted::Wanted;
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::{cache, session, wait};

/// Why a bucket is not ready.
pub enum Unready {
    /// The store was not asked.
    Refused(Failure),
    /// An attempt failed; its record is for `storage_private.record_attempt()`.
    Failed {
        /// What the caller is told.
        failure: Failure,
        /// What is to be recorded apart from the transaction that the error ends.
        record: Value,
    },
}

impl From<Failure> for Unready {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

/// Brings the store to what is wanted, and tries what it enforces where that is not known. Touches no table.
pub fn apply(
    config: &Config,
    wanted: &Wanted,
    known: &Known,
    origins: &[String],
) -> std::result::Result<(Report, Capabilities), Unready> {
    if origins.is_empty() && !wanted.fixed {
        return Err(Unready::Refused(Failure::setting(
            "allowed_origins",
            "is not set, and neither the bucket nor its tenant names an origin",
        )));
    }
    let mut plan = Plan {
        bucket: wanted.name.clone(),
        access: wanted.access.unwrap_or(Access::Private),
        create: !wanted.fixed,
        configure: !wanted.fixed,
        origins: origins
            .iter()
            .map(|text| Origin::parse(text).map_err(Failure::from))
            .collect::<Result<_>>()?,
        key_prefix: String::new(),
        versioning: false,
    };
    let store = session::store(config)?;
    // What another session has just made may be neither cached nor committed: the store knows it all the same.
    let look_first = plan.create;
    let report = wait::until(async move {
        let there = look_first && store.owns_bucket(&plan.bucket).await.unwrap_or(false);
        plan.create &= !there;
        let mut report = provision(&store, &plan).await;
        if there
            && let Some(create) =
                report.steps.first_mut().filter(|step| matches!(step.outcome, Outcome::Skipped { .. }))
        {
            create.outcome = Outcome::Applied;
        }
        report
    })?;
    if let Some(error) = report.failure() {
        let record = attempt(config, wanted, &report, Some(&error.to_string()))?;
        let failure = Failure::from(error.clone());
        let detail = format!(
            "{} Steps of {}: {}.",
            failure.details().unwrap_or_default(),
            wanted.name,
            steps(&report)
        );
        return Err(Unready::Failed { failure: failure.detail(detail), record });
    }
    cache::count_provisioning();
    let capabilities = match known.capabilities.or_else(|| seen_before(&config.endpoint)) {
        Some(capabilities) => capabilities,
        None => match try_out_below(config, &wanted.name, &wanted.key_prefix) {
            Ok(capabilities) => capabilities,
            Err(failure) => {
                let details = failure.details().unwrap_or_default();
                let record =
                    attempt(config, wanted, &report, Some(&format!("{} {details}", failure.summary())))?;
                return Err(Unready::Failed { failure, record });
            }
        },
    };
    Ok((report, capabilities))
}

/// An attempt as `storage_private.record_attempt()` takes it; without an error it is under way.
pub fn attempt(config: &Config, wanted: &Wanted, report: &Report, error: Option<&str>) -> Result<Value> {
    let steps = serde_json::to_value(report).map_err(|error| Failure::internal(error.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(json!({
        "name": wanted.name,
        "tenant_id": wanted.tenant,
        "access": wanted.access.map(Access::as_str),
        "fixed": wanted.fixed,
        "key_prefix": wanted.key_prefix,
        "endpoint": config.endpoint,
        "steps": steps,
        "error": error,
        "failed_at": now.as_secs_f64(),
    }))
}

thread_local! {
    /// What this process saw stores enforce, for as long as another session's open transaction keeps it off the record.
    static SEEN: RefCell<HashMap<String, Capabilities>> = RefCell::new(HashMap::new());
}

fn seen_before(endpoint: &str) -> Option<Capabilities> {
    SEEN.with_borrow(|seen| seen.get(endpoint).copied())
}

/// Finds out by trying what the store enforces, in a scratch prefix of one of its buckets.
pub fn try_out(config: &Config, physical: &str) -> Result<Capabilities> {
    try_out_below(config, physical, config.key_prefix.as_str())
}

fn try_out_below(config: &Config, physical: &str, key_prefix: &str) -> Result<Capabilities> {
    let (credentials, _) = session::credentials(config)?;
    // Over the endpoint that the server reaches; the public one may be out of its sight.
    let target = Target::new(&config.store.endpoint, &config.store.region, config.store.path_style);
    let signer = Signer::new(target, credentials);
    let bucket = physical.to_owned();
    let prefix = format!("{key_prefix}{SCRATCH_PREFIX}");
    let found =
        session::call(config, move |store| async move { probe(&store, signer, &bucket, &prefix).await })?;
    SEEN.with_borrow_mut(|seen| seen.insert(config.endpoint.clone(), found));
    Ok(found)
}

fn steps(report: &Report) -> String {
    let outcomes: Vec<String> = report
        .steps
        .iter()
        .map(|step| {
            let outcome = match step.outcome {
                Outcome::Applied => "applied",
                Outcome::Skipped { .. } => "skipped",
                Outcome::Failed { .. } => "failed",
            };
            format!("{} {outcome}", step.name)
        })
        .collect();
    outcomes.join(", ")
}
