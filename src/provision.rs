//! First use: from a logical bucket to a physical one that is ready, with one provisioning however many ask.
//!
//! Warm, this is one look into the cache. Cold, sessions line up behind an advisory lock that is given back when the
//! store has answered; everything here is deterministic and idempotent, because the store has no ROLLBACK.

use std::hash::{DefaultHasher, Hash, Hasher};

use pg_storage_core::error::Token;
use pg_storage_core::key::SCRATCH_PREFIX;
use pg_storage_core::origin::Origin;
use pg_storage_core::physical::bucket_name;
use pg_storage_core::policy::Access;
use pg_storage_core::presign::{Signer, Target};
use pg_storage_store::probe::{Capabilities, Support, probe};
use pg_storage_store::provision::{Outcome, Plan, Report, provision};
use pgrx::JsonB;
use pgrx::datum::DatumWithOid;

use crate::bucket::Bucket;
use crate::cache::{self, At, Ready};
use crate::catalog::{self, SessionLock};
use crate::config::{self, Config, Layout};
use crate::error::{Failure, Result};
use crate::guc::BucketLayout;
use crate::{session, wait};

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
    fixed: bool,
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

/// Makes sure that the bucket's physical bucket is ready.
pub fn ensure(bucket: &Bucket, ask: Ask) -> Result<Place> {
    let config = config::current()?;
    let wanted = wanted(&config, bucket)?;
    // A bucket's first upload may bring origins that its physical bucket does not have yet.
    let first = bucket.physical_name.is_none();
    let cache_may_answer = ask == Ask::Use && !(first && !wanted.fixed && has_own_origins(bucket)?);
    let cached = || -> Result<Option<Ready>> {
        let Some(ready) = cache::get(&config.endpoint, &wanted.name) else { return Ok(None) };
        refuse_mixed_access(&wanted, ready.access)?;
        // The server's origins may be others than those that were applied.
        Ok(Some(ready).filter(|ready| cache_may_answer && ready.server_origins == config.origins_hash))
    };
    if let Some(ready) = cached()? {
        return finish(&config, bucket, wanted, ready);
    }
    let _lock = SessionLock::acquire(lock_key(&config.endpoint, &wanted.name));
    if let Some(ready) = cached()? {
        return finish(&config, bucket, wanted, ready);
    }
    let seen = cache::forgettings();
    let known = Known::look_up(&config, &wanted)?;
    refuse_mixed_access(&wanted, known.access)?;
    let origins = if wanted.fixed { Vec::new() } else { wanted_origins(&config, bucket, &wanted)? };
    let ready = match known.capabilities {
        Some(capabilities) if ask == Ask::Use && known.is_ready_for(&origins) => {
            ready(&config, &wanted, known.generation, &capabilities)
        }
        _ => apply(&config, &wanted, known, &origins, ask)?,
    };
    cache::put(&config.endpoint, &wanted.name, ready, seen);
    finish(&config, bucket, wanted, ready)
}

/// The physical bucket that the bucket has or would get.
pub fn physical_name(config: &Config, bucket: &Bucket) -> Result<String> {
    Ok(wanted(config, bucket)?.name)
}

fn wanted(config: &Config, bucket: &Bucket) -> Result<Wanted> {
    let tenant = Some(bucket.tenant.clone());
    let access = Some(bucket.access);
    match (&config.layout, &bucket.physical_name) {
        (Layout::Fixed(fixed), None) => {
            Ok(Wanted { name: fixed.clone(), fixed: true, tenant: None, access: None })
        }
        (Layout::Fixed(fixed), Some(name)) if fixed == name => {
            Ok(Wanted { name: fixed.clone(), fixed: true, tenant: None, access: None })
        }
        (Layout::Minted(BucketLayout::Access), Some(name)) => {
            Ok(Wanted { name: name.clone(), fixed: false, tenant: None, access })
        }
        (_, Some(name)) => Ok(Wanted { name: name.clone(), fixed: false, tenant, access }),
        (Layout::Minted(layout), None) => {
            let prefix =
                config.prefix.as_ref().ok_or_else(|| Failure::setting("bucket_prefix", "is not set"))?;
            let label = bucket.access.as_str();
            let id = bucket.id.to_string();
            let (name, tenant) = match layout {
                BucketLayout::Tenant => (bucket_name(prefix, &[&bucket.tenant, label]), tenant),
                BucketLayout::Bucket => (bucket_name(prefix, &[&bucket.tenant, &bucket.key, &id]), tenant),
                BucketLayout::Access => (bucket_name(prefix, &[label]), None),
            };
            Ok(Wanted { name, fixed: false, tenant, access })
        }
    }
}

/// Private bytes must never land in a bucket that the world can read.
fn refuse_mixed_access(wanted: &Wanted, known: Option<Access>) -> Result<()> {
    match (wanted.access, known) {
        (Some(wanted_access), Some(known_access)) if wanted_access != known_access => Err(Failure::new(
            Token::NotConfigured,
            "the physical bucket serves another access",
        )
        .detail(format!(
            "{} is {}, the bucket is {}.",
            wanted.name,
            known_access.as_str(),
            wanted_access.as_str()
        ))
        .hint("Preset another physical_name; private, public and temp files never share a physical bucket.")),
        _ => Ok(()),
    }
}

/// What the tables say of a physical bucket.
struct Known {
    access: Option<Access>,
    ready: bool,
    /// The web origins that the store was last given.
    origins: Option<Vec<String>>,
    generation: i64,
    capabilities: Option<Capabilities>,
}

impl Known {
    fn look_up(config: &Config, wanted: &Wanted) -> Result<Self> {
        catalog::as_owner(|| {
            // Not a read: after waiting for the lock a fresh snapshot shows what its last holder committed.
            catalog::write(
                "SELECT access::pg_catalog.text, endpoint, ready, desired_generation, capabilities,
                        allowed_origins
                 FROM storage_private.provisioning_of($1, $2)",
                &[wanted.name.as_str().into(), config.endpoint.as_str().into()],
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
                        capabilities: capabilities.and_then(|json| serde_json::from_value(json.0).ok()),
                    })
                },
            )
        })
    }

    /// Whether nothing needs to be applied. Origins that are no longer named anywhere stay: uploads go on.
    fn is_ready_for(&self, origins: &[String]) -> bool {
        self.ready && (origins.is_empty() || self.origins.as_deref() == Some(origins))
    }
}

/// Brings the store to what is wanted, tries what it enforces where that is not known, and records both.
fn apply(config: &Config, wanted: &Wanted, known: Known, origins: &[String], ask: Ask) -> Result<Ready> {
    if origins.is_empty() && !wanted.fixed {
        return Err(Failure::setting(
            "allowed_origins",
            "is not set, and neither the bucket nor its tenant names an origin",
        ));
    }
    let plan = Plan {
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
    let report = wait::until(async move { provision(&store, &plan).await })?;
    if let Some(error) = report.failure() {
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
    let capabilities = match known.capabilities {
        Some(capabilities) => capabilities,
        None => try_out(config, &wanted.name)?,
    };
    let recorded = record(config, wanted, known.generation, origins, &report, &capabilities, ask)?;
    cache::evict_at(if recorded { At::Abort } else { At::End }, &wanted.name);
    Ok(ready(config, wanted, known.generation, &capabilities))
}

/// Finds out by trying what the store enforces, in a scratch prefix of one of its buckets.
pub fn try_out(config: &Config, physical: &str) -> Result<Capabilities> {
    let (credentials, _) = session::credentials(config)?;
    // Over the endpoint that the server reaches; the public one may be out of its sight.
    let target = Target::new(&config.store.endpoint, &config.store.region, config.store.path_style);
    let signer = Signer::new(target, credentials);
    let bucket = physical.to_owned();
    let prefix = format!("{}{}", config.key_prefix.as_str(), SCRATCH_PREFIX);
    session::call(config, move |store| async move { probe(&store, signer, &bucket, &prefix).await })
}

/// Keeps what was found by trying; `false` when another session is just doing it.
pub fn record_capabilities(config: &Config, capabilities: &Capabilities) -> Result<bool> {
    let json = serde_json::to_value(capabilities).map_err(|error| Failure::internal(error.to_string()))?;
    record_as_owner(
        "SELECT storage_private.record_capabilities($1, $2)",
        &[config.endpoint.as_str().into(), JsonB(json).into()],
    )
}

/// Records what is now true of the store; `false` when it is not on record as the current truth after that.
fn record(
    config: &Config,
    wanted: &Wanted,
    generation: i64,
    origins: &[String],
    report: &Report,
    capabilities: &Capabilities,
    ask: Ask,
) -> Result<bool> {
    let steps = serde_json::to_value(report).map_err(|error| Failure::internal(error.to_string()))?;
    let provisioned = record_as_owner(
        "SELECT storage_private.record_provisioning($1, $2, $3::storage.bucket_access, $4, $5, $6, $7, $8)",
        &[
            wanted.name.as_str().into(),
            wanted.tenant.clone().into(),
            wanted.access.map(Access::as_str).into(),
            config.endpoint.as_str().into(),
            generation.into(),
            JsonB(steps).into(),
            origins.to_vec().into(),
            (ask == Ask::Explicit).into(),
        ],
    )?;
    Ok(record_capabilities(config, capabilities)? && provisioned)
}

fn record_as_owner(query: &'static str, arguments: &[DatumWithOid<'_>]) -> Result<bool> {
    catalog::as_owner(|| {
        catalog::write(query, arguments, |rows| Ok(rows.first().get_one()?.unwrap_or(false)))
    })
}

fn finish(config: &Config, bucket: &Bucket, wanted: Wanted, ready: Ready) -> Result<Place> {
    if bucket.physical_name.is_none() {
        catalog::run_as_owner(
            "SELECT storage_private.record_physical_name($1, $2)",
            &[bucket.id_datum().into(), wanted.name.as_str().into()],
        )?;
    }
    // In a bucket that all accesses share, an operator can open one of them by its prefix.
    let key_prefix = if wanted.fixed {
        format!("{}{}/", config.key_prefix.as_str(), bucket.access.as_str())
    } else {
        String::new()
    };
    Ok(Place { name: wanted.name, ready, key_prefix })
}

fn has_own_origins(bucket: &Bucket) -> Result<bool> {
    catalog::as_owner(|| {
        catalog::read("SELECT storage_private.has_own_origins($1)", &[bucket.id_datum().into()], |rows| {
            Ok(rows.first().get_one()?.unwrap_or(false))
        })
    })
}

/// The origins of every bucket on the physical one, and of this bucket; empty when none is named anywhere.
fn wanted_origins(config: &Config, bucket: &Bucket, wanted: &Wanted) -> Result<Vec<String>> {
    let server: Vec<String> = config.origins.iter().map(ToString::to_string).collect();
    catalog::as_owner(|| {
        catalog::read(
            "SELECT storage_private.wanted_origins($1, $2, $3)",
            &[wanted.name.as_str().into(), bucket.id_datum().into(), server.into()],
            |rows| Ok(rows.first().get_one()?.unwrap_or_default()),
        )
    })
}

fn ready(config: &Config, wanted: &Wanted, generation: i64, capabilities: &Capabilities) -> Ready {
    Ready {
        generation,
        server_origins: config.origins_hash,
        access: wanted.access,
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

fn lock_key(endpoint: &str, name: &str) -> i64 {
    let mut hasher = DefaultHasher::new();
    ("pg_storage provisioning", endpoint, name).hash(&mut hasher);
    hasher.finish().cast_signed()
}
