//! What is on record of physical buckets and of stores.

use pg_storage_core::policy::Access;
use pg_storage_store::probe::Capabilities;
use pg_storage_store::provision::Report;
use pgrx::datum::DatumWithOid;
use pgrx::{FromDatum, IntoDatum, JsonB};

use super::Ask;
use super::wanted::Wanted;
use crate::catalog;
use crate::config::Config;
use crate::error::{Failure, Result};

/// What the tables say of a physical bucket.
pub struct Known {
    /// The one access it serves; `None`: several, or nothing is known.
    pub access: Option<Access>,
    /// Whether it is an operator's.
    pub fixed: bool,
    /// First part of every key.
    pub key_prefix: String,
    /// Whether it is ready, on the store of the settings.
    pub ready: bool,
    /// Whether another store had it until now.
    pub moved: bool,
    /// The web origins that the store was last given.
    pub origins: Option<Vec<String>>,
    /// The configuration that is wanted.
    pub generation: i64,
    /// Whether there is any record of it, also of attempts that came to nothing.
    pub on_record: bool,
    /// What its store was seen to enforce.
    pub capabilities: Option<Capabilities>,
}

impl Known {
    /// The truth of now.
    pub fn look_up(config: &Config, name: &str) -> Result<Self> {
        catalog::as_owner(|| {
            // Not a read: after waiting for the lock a fresh snapshot shows what its last holder committed.
            catalog::write(
                "SELECT access::pg_catalog.text, endpoint, ready, desired_generation, capabilities,
                        allowed_origins, fixed, key_prefix, on_record
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
                        moved: endpoint.is_some_and(|endpoint| endpoint != config.endpoint),
                        generation: row.get(4)?.unwrap_or(1),
                        origins: row.get(6)?,
                        fixed: row.get(7)?.unwrap_or(false),
                        key_prefix: row.get(8)?.unwrap_or_default(),
                        on_record: row.get(9)?.unwrap_or(false),
                        capabilities: capabilities
                            .and_then(|json| serde_json::from_value(json.0).ok())
                            // One that was tried before there was such a trial is tried again.
                            .filter(Capabilities::is_complete),
                    })
                },
            )
        })
    }

    /// Whether nothing needs to be applied. Origins that are no longer named anywhere stay: uploads go on.
    pub fn is_ready_for(&self, wanted: &Wanted, origins: &[String]) -> bool {
        let same_keys = !wanted.fixed || self.key_prefix == wanted.key_prefix;
        self.ready && same_keys && (origins.is_empty() || self.origins.as_deref() == Some(origins))
    }
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
pub enum Recorded {
    /// It is the current truth, if this transaction commits.
    Current,
    /// Another session's open transaction is recording the same.
    Left,
    /// More is wanted than what was applied.
    Stale,
}

/// Records what is now true of the store.
pub fn record(
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

/// The access that another open transaction is recording for this name.
pub fn access_being_recorded(name: &str) -> Result<Option<Access>> {
    let access: Option<String> =
        answer_of("SELECT storage_private.access_being_recorded($1)::pg_catalog.text", &[name.into()])?;
    Ok(access.and_then(|text| Access::parse(&text)))
}

/// Whether another open transaction is recording this bucket or its store.
pub fn is_being_recorded(config: &Config, name: &str) -> Result<bool> {
    let being: Option<bool> = answer_of(
        "SELECT storage_private.is_being_recorded($1, $2)",
        &[name.into(), config.endpoint.as_str().into()],
    )?;
    Ok(being.unwrap_or(false))
}

/// The one value that a function of `storage_private` gives, called as the owner.
pub fn answer_of<T: FromDatum + IntoDatum>(
    query: &'static str,
    arguments: &[DatumWithOid<'_>],
) -> Result<Option<T>> {
    catalog::as_owner(|| catalog::write(query, arguments, |rows| Ok(rows.first().get_one()?)))
}
