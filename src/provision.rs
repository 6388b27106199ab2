//! First use: from a logical bucket to a physical one that is ready, with one provisioning however many ask.
//!
//! Warm, this is one look into the cache. Cold, sessions line up behind an advisory lock that is given back when the
//! store has answered; everything here is deterministic and idempotent, because the store has no ROLLBACK.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{SystemTime, UNIX_EPOCH};

use pg_storage_core::digest;
use pg_storage_core::error::Token;
use pg_storage_core::key::SCRATCH_PREFIX;
use pg_storage_core::origin::Origin;
use pg_storage_core::physical::bucket_name;
use pg_storage_core::policy::Access;
use pg_storage_core::presign::{Signer, Target};
use pg_storage_store::Store;
use pg_storage_store::probe::{Capabilities, Support, probe};
use pg_storage_store::provision::{Outcome, Plan, Report, provision};
use pgrx::datum::DatumWithOid;
use pgrx::{FromDatum, IntoDatum, JsonB};
use serde_json::json;

use crate::bucket::Bucket;
use crate::cache::{self, At, Ready};
use crate::catalog::{self, SessionLock};
use crate::config::{self, Config, Layout};
use crate::error::{Failure, Result};
use crate::guc::BucketLayout;
use crate::worker::failed_attempt;
use crate::{preload, session, wait};

/// Where a logical bucket's uploads go.
pub struct Place {
    /// The physical bucket.
    pub name: String,
    /// What is known of it.
    pub ready: Ready,
    /// First part of every key; empty except in a fixed bucket.
    pub key_prefix: String,
}

/// What a physical bucket is to be.
struct Wanted {
    name: String,
    /// An operator's bucket: by the setting, or on record as one.
    fixed: bool,
    /// First part of every key in a fixed bucket.
    key_prefix: String,
    /// The one tenant and the one access it serves; `None`: several.
    tenant: Option<String>,
    access: Option<Access>,
}

/// How a caller asks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// By using the bucket: what is known is enough, and records wait for nobody.
    Use,
    /// By `provision_bucket()`: apply everything again, and wait to record it.
    Explicit,
}

/// Where the bucket's uploads go, if that is known without asking the store; nothing is changed.
pub fn known(bucket: &Bucket) -> Result<Option<Place>> {
    if bucket.physical_name.is_none() {
        return Ok(None);
    }
    let config = config::current()?;
    let mut wanted = wanted(&config, bucket)?;
    Ok(cached(&config, bucket, &mut wanted, Ask::Use)?.map(|ready| place(bucket, wanted, ready)))
}

/// Makes sure that the bucket's physical bucket is ready.
pub fn ensure(bucket: &Bucket, ask: Ask) -> Result<Place> {
    let config = config::current()?;
    let mut wanted = wanted(&config, bucket)?;
    if let Some(ready) = cached(&config, bucket, &mut wanted, ask)? {
        return finish(bucket, wanted, ready);
    }
    let lock = SessionLock::acquire(lock_key(&config.endpoint, &wanted.name));
    if let Some(ready) = cached(&config, bucket, &mut wanted, ask)? {
        return finish(bucket, wanted, ready);
    }
    let seen = cache::forgettings(&wanted.name);
    let known = Known::look_up(&config, &wanted.name)?;
    refuse_mixed_access(bucket, &wanted.name, known.access)?;
    wanted.heed(&known);
    if known.access.is_none() && !wanted.fixed {
        refuse_mixed_access(bucket, &wanted.name, access_being_recorded(&wanted.name)?)?;
    }
    let origins = if wanted.fixed { Vec::new() } else { wanted_origins(&config, bucket, &wanted.name)? };
    if ask == Ask::Use
        && let Some(capabilities) = known.capabilities
        && known.is_ready_for(&wanted, &origins)
    {
        let ready = ready(&config, &wanted, &known, &origins, &capabilities);
        cache::put(&config.endpoint, &wanted.name, ready, seen);
        return finish(bucket, wanted, ready);
    }
    let (report, capabilities) = apply(&config, &wanted, &known, &origins)?;
    let mut ready = Ready { recorded: false, ..ready(&config, &wanted, &known, &origins, &capabilities) };
    if ask == Ask::Explicit {
        // Whoever waits for another transaction to record this must not hold up those who only want to use it.
        cache::put(&config.endpoint, &wanted.name, ready, seen);
        drop(lock);
    }
    match record(&config, &wanted, &known, &origins, &report, &capabilities, ask)? {
        Recorded::Left => {}
        Recorded::Current => {
            ready.recorded = true;
            cache::evict_at(At::Abort, &wanted.name);
        }
        Recorded::Stale => cache::evict_at(At::End, &wanted.name),
    }
    cache::put(&config.endpoint, &wanted.name, ready, seen);
    finish(bucket, wanted, ready)
}

/// What the cache knows, if that is enough for this bucket.
fn cached(config: &Config, bucket: &Bucket, wanted: &mut Wanted, ask: Ask) -> Result<Option<Ready>> {
    let Some(ready) = cache::get(&config.endpoint, &wanted.name) else { return Ok(None) };
    refuse_mixed_access(bucket, &wanted.name, ready.access)?;
    if ask == Ask::Explicit || !answers(config, bucket, wanted, &ready)? {
        return Ok(None);
    }
    let left = ready.fixed && !wanted.fixed;
    // A cache that is not shared hears nothing of what other sessions change.
    if ready.recorded && preload::preloaded() && !left {
        return Ok(Some(ready));
    }
    let seen = cache::forgettings(&wanted.name);
    let known = Known::look_up(config, &wanted.name)?;
    refuse_mixed_access(bucket, &wanted.name, known.access)?;
    if left && !known.fixed {
        return Ok(None);
    }
    wanted.heed(&known);
    let origins_known = ready.fixed || hash(known.origins.as_deref().unwrap_or_default()) == ready.origins;
    if known.ready && known.generation == ready.generation && known.capabilities.is_some() && origins_known {
        let ready = Ready { recorded: true, ..ready };
        cache::put(&config.endpoint, &wanted.name, ready, seen);
        return Ok(Some(ready));
    }
    let ready = Ready { recorded: false, ..ready };
    Ok(if is_being_recorded(config, &wanted.name)? { Some(ready) } else { None })
}

/// Whether what was made ready under other circumstances is ready for this bucket under these.
fn answers(config: &Config, bucket: &Bucket, wanted: &Wanted, ready: &Ready) -> Result<bool> {
    if ready.fixed {
        return Ok(!wanted.fixed || ready.settings == settings(config, wanted));
    }
    if wanted.fixed || ready.settings != settings(config, wanted) {
        return Ok(false);
    }
    let first = bucket.physical_name.is_none();
    if ready.server_origins && !first {
        return Ok(true);
    }
    // A bucket's first upload may bring origins that its physical bucket does not have yet.
    if !has_own_origins(bucket)? {
        return Ok(ready.server_origins);
    }
    Ok(!first || hash(&wanted_origins(config, bucket, &wanted.name)?) == ready.origins)
}

/// The physical bucket that the bucket has or would get.
pub fn physical_name(config: &Config, bucket: &Bucket) -> Result<String> {
    Ok(wanted(config, bucket)?.name)
}

fn wanted(config: &Config, bucket: &Bucket) -> Result<Wanted> {
    let tenant = Some(bucket.tenant.clone());
    let access = Some(bucket.access);
    let ours = |name, tenant| Wanted { name, fixed: false, key_prefix: String::new(), tenant, access };
    let operators = |name: &String| Wanted {
        name: name.clone(),
        fixed: true,
        key_prefix: config.key_prefix.to_string(),
        tenant: None,
        access: None,
    };
    match (&config.layout, &bucket.physical_name) {
        (Layout::Fixed(fixed), None) => Ok(operators(fixed)),
        (Layout::Fixed(fixed), Some(name)) if fixed == name => Ok(operators(fixed)),
        (Layout::Minted(BucketLayout::Access), Some(name)) => Ok(ours(name.clone(), None)),
        (_, Some(name)) => Ok(ours(name.clone(), tenant)),
        (Layout::Minted(layout), None) => {
            let prefix =
                config.prefix.as_ref().ok_or_else(|| Failure::setting("bucket_prefix", "is not set"))?;
            let label = bucket.access.as_str();
            let id = bucket.id.to_string();
            Ok(match layout {
                BucketLayout::Tenant => ours(bucket_name(prefix, &[&bucket.tenant, label]), tenant),
                BucketLayout::Bucket => {
                    ours(bucket_name(prefix, &[&bucket.tenant, &bucket.key, &id]), tenant)
                }
                BucketLayout::Access => ours(bucket_name(prefix, &[label]), None),
            })
        }
    }
}

impl Wanted {
    /// An operator's bucket stays one when the setting that named it is gone: it is not ours to open or to empty.
    fn heed(&mut self, known: &Known) {
        if known.fixed && !self.fixed {
            self.fixed = true;
            self.key_prefix = known.key_prefix.clone();
            self.tenant = None;
            self.access = None;
        }
    }
}

/// Private bytes must never land in a bucket that the world can read.
fn refuse_mixed_access(bucket: &Bucket, name: &str, known: Option<Access>) -> Result<()> {
    match known {
        Some(known) if known != bucket.access => Err(Failure::new(
            Token::NotConfigured,
            "the physical bucket serves another access",
        )
        .detail(format!("{name} is {}, the bucket is {}.", known.as_str(), bucket.access.as_str()))
        .hint("Preset another physical_name; private, public and temp files never share a physical bucket.")),
        _ => Ok(()),
    }
}

/// What the tables say of a physical bucket.
struct Known {
    access: Option<Access>,
    fixed: bool,
    key_prefix: String,
    ready: bool,
    /// The web origins that the store was last given.
    origins: Option<Vec<String>>,
    generation: i64,
    capabilities: Option<Capabilities>,
}

impl Known {
    fn look_up(config: &Config, name: &str) -> Result<Self> {
        catalog::as_owner(|| {
            // Not a read: after waiting for the lock a fresh snapshot shows what its last holder committed.
            catalog::write(
                "SELECT access::pg_catalog.text, endpoint, ready, desired_generation, capabilities,
                        allowed_origins, fixed, key_prefix
                 FROM storage_private.provisioning_of($1, $2)",
                &[name.into(), config.endpoint.as_str().into()],
                |rows| {
                    let row = rows.first();
                    let endpoint: Option<String> = row.get(2)?;
                    let capabilities: Option<JsonB> = row.get(5)?;
                    Ok(Self {
                        access: row.get::<String>(1)?.and_then(|text| Access::parse(&text)),
                        ready: row.get(3)?.unwrap_or(false)
                            && endpoint.as_deref() == Some(config.endpoint.as_str()),
                        generation: row.get(4)?.unwrap_or(1),
                        origins: row.get(6)?,
                        fixed: row.get(7)?.unwrap_or(false),
                        key_prefix: row.get(8)?.unwrap_or_default(),
                        capabilities: capabilities.and_then(|json| serde_json::from_value(json.0).ok()),
                    })
                },
            )
        })
    }

    /// Whether nothing needs to be applied. Origins that are no longer named anywhere stay: uploads go on.
    fn is_ready_for(&self, wanted: &Wanted, origins: &[String]) -> bool {
        let same_keys = !wanted.fixed || self.key_prefix == wanted.key_prefix;
        self.ready && same_keys && (origins.is_empty() || self.origins.as_deref() == Some(origins))
    }
}

/// Brings the store to what is wanted, and tries what it enforces where that is not known.
fn apply(
    config: &Config,
    wanted: &Wanted,
    known: &Known,
    origins: &[String],
) -> Result<(Report, Capabilities)> {
    if origins.is_empty() && !wanted.fixed {
        return Err(Failure::setting(
            "allowed_origins",
            "is not set, and neither the bucket nor its tenant names an origin",
        ));
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
        note_failure(config, wanted, &report, &error.to_string())?;
        let failure = Failure::from(error.clone());
        let detail = format!(
            "{} Steps of {}: {}.",
            failure.details().unwrap_or_default(),
            wanted.name,
            steps(&report)
        );
        return Err(failure.detail(detail));
    }
    cache::count_provisioning();
    let capabilities = match known.capabilities.or_else(|| seen_before(&config.endpoint)) {
        Some(capabilities) => capabilities,
        None => match try_out_below(config, &wanted.name, &wanted.key_prefix) {
            Ok(capabilities) => capabilities,
            Err(failure) => {
                let details = failure.details().unwrap_or_default();
                note_failure(config, wanted, &report, &format!("{} {details}", failure.summary()))?;
                return Err(failure);
            }
        },
    };
    Ok((report, capabilities))
}

/// Has a failed attempt recorded apart from this transaction, which its error will roll back.
fn note_failure(config: &Config, wanted: &Wanted, report: &Report, error: &str) -> Result<()> {
    let steps = serde_json::to_value(report).map_err(|error| Failure::internal(error.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    failed_attempt::record(&json!({
        "name": wanted.name,
        "tenant_id": wanted.tenant,
        "access": wanted.access.map(Access::as_str),
        "fixed": wanted.fixed,
        "key_prefix": wanted.key_prefix,
        "endpoint": config.endpoint,
        "steps": steps,
        "error": error,
        "failed_at": now.as_secs_f64(),
    }));
    Ok(())
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

/// Keeps what was found by trying; `false` when another session is just doing it.
pub fn record_capabilities(config: &Config, capabilities: &Capabilities) -> Result<bool> {
    let json = serde_json::to_value(capabilities).map_err(|error| Failure::internal(error.to_string()))?;
    let recorded: Option<bool> = answer_of(
        "SELECT storage_private.record_capabilities($1, $2)",
        &[config.endpoint.as_str().into(), JsonB(json).into()],
    )?;
    Ok(recorded.unwrap_or(false))
}

/// What became of a record.
enum Recorded {
    /// It is the current truth, if this transaction commits.
    Current,
    /// Another session's open transaction is recording the same.
    Left,
    /// More is wanted than what was applied.
    Stale,
}

/// Records what is now true of the store.
fn record(
    config: &Config,
    wanted: &Wanted,
    known: &Known,
    origins: &[String],
    report: &Report,
    capabilities: &Capabilities,
    ask: Ask,
) -> Result<Recorded> {
    let steps = serde_json::to_value(report).map_err(|error| Failure::internal(error.to_string()))?;
    let outcome: Option<String> = answer_of(
        "SELECT storage_private.record_provisioning($1, $2, $3::storage.bucket_access, $4, $5, $6, $7, $8, $9, $10)",
        &[
            wanted.name.as_str().into(),
            wanted.tenant.clone().into(),
            wanted.access.map(Access::as_str).into(),
            wanted.fixed.into(),
            wanted.key_prefix.as_str().into(),
            config.endpoint.as_str().into(),
            known.generation.into(),
            JsonB(steps).into(),
            origins.to_vec().into(),
            (ask == Ask::Explicit).into(),
        ],
    )?;
    let kept = record_capabilities(config, capabilities)?;
    Ok(match outcome.as_deref() {
        Some("stale") => Recorded::Stale,
        Some("recorded") if kept => Recorded::Current,
        _ => Recorded::Left,
    })
}

fn access_being_recorded(name: &str) -> Result<Option<Access>> {
    let access: Option<String> =
        answer_of("SELECT storage_private.access_being_recorded($1)::pg_catalog.text", &[name.into()])?;
    Ok(access.and_then(|text| Access::parse(&text)))
}

fn is_being_recorded(config: &Config, name: &str) -> Result<bool> {
    let being: Option<bool> = answer_of(
        "SELECT storage_private.is_being_recorded($1, $2)",
        &[name.into(), config.endpoint.as_str().into()],
    )?;
    Ok(being.unwrap_or(false))
}

fn answer_of<T: FromDatum + IntoDatum>(
    query: &'static str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Option<T>> {
    catalog::as_owner(|| catalog::write(query, arguments, |rows| Ok(rows.first().get_one()?)))
}

fn finish(bucket: &Bucket, wanted: Wanted, ready: Ready) -> Result<Place> {
    // What another session is still recording is named by a later use: naming it might wait for that session.
    if bucket.physical_name.is_none() && ready.recorded {
        catalog::run_as_owner(
            "SELECT storage_private.record_physical_name($1, $2, $3)",
            &[bucket.id_datum().into(), wanted.name.as_str().into(), wanted.fixed.into()],
        )?;
    }
    Ok(place(bucket, wanted, ready))
}

fn place(bucket: &Bucket, wanted: Wanted, ready: Ready) -> Place {
    // In a bucket that all accesses share, an operator can open one of them by its prefix.
    let key_prefix = if wanted.fixed {
        format!("{}{}/", wanted.key_prefix, bucket.access.as_str())
    } else {
        String::new()
    };
    Place { name: wanted.name, ready, key_prefix }
}

fn has_own_origins(bucket: &Bucket) -> Result<bool> {
    catalog::as_owner(|| {
        catalog::read("SELECT storage_private.has_own_origins($1)", &[bucket.id_datum().into()], |rows| {
            Ok(rows.first().get_one()?.unwrap_or(false))
        })
    })
}

/// The origins of every bucket on the physical one, and of this bucket; empty when none is named anywhere.
fn wanted_origins(config: &Config, bucket: &Bucket, name: &str) -> Result<Vec<String>> {
    let origins: Option<Vec<String>> = answer_of(
        "SELECT storage_private.wanted_origins($1, $2, $3)",
        &[name.into(), bucket.id_datum().into(), servers(config).into()],
    )?;
    Ok(origins.unwrap_or_default())
}

fn servers(config: &Config) -> Vec<String> {
    config.origins.iter().map(ToString::to_string).collect()
}

/// Tells apart the settings that a physical bucket depends on, in every backend alike.
fn settings(config: &Config, wanted: &Wanted) -> u64 {
    if wanted.fixed { hash(&wanted.key_prefix) } else { config.origins_hash }
}

fn ready(
    config: &Config,
    wanted: &Wanted,
    known: &Known,
    origins: &[String],
    capabilities: &Capabilities,
) -> Ready {
    Ready {
        generation: known.generation,
        access: known.access.or(wanted.access),
        fixed: wanted.fixed,
        recorded: true,
        settings: settings(config, wanted),
        origins: hash(origins),
        server_origins: servers(config).iter().all(|origin| origins.contains(origin)),
        direct: capabilities.direct(),
        create_only: capabilities.create_only != Support::Refused,
    }
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

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    // Keyed with constants: what one backend stored, another one compares.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The same for every build of this library: sessions of an old and a new one line up behind the same lock.
fn lock_key(endpoint: &str, name: &str) -> i64 {
    let mut hasher = digest::Hasher::new();
    for part in ["pg_storage provisioning", endpoint, name] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finish().as_bytes();
    i64::from_be_bytes([a, b, c, d, e, f, g, h])
}
