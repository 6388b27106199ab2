//! First use: from a logical bucket to a physical one that is ready, with one provisioning however many ask.
//!
//! Warm, this is one look into the cache. Cold, sessions line up behind a lock that is given back when the
//! store has answered; everything here is deterministic and idempotent, because the store has no ROLLBACK.

use std::hash::{DefaultHasher, Hash, Hasher};

use pg_storage_store::probe::{Capabilities, Support};
use pg_storage_store::provision::Report;

use crate::bucket::Bucket;
use crate::cache::{self, At, Ready};
use crate::catalog;
use crate::config::{self, Config};
use crate::error::Result;
use crate::lock::{On, SessionLock};
use crate::preload;
use crate::worker;

mod ahead;
mod apply;
mod record;
mod wanted;

pub use ahead::run as ahead;
pub use apply::try_out;
pub use record::record_capabilities;
pub use wanted::physical_name;

use apply::{Unready, apply, attempt};
use record::{Known, Recorded, access_being_recorded, answer_of, is_being_recorded, record};
use wanted::{Wanted, refuse_mixed_access};

/// Where a logical bucket's uploads go.
pub struct Place {
    /// The physical bucket.
    pub name: String,
    /// What is known of it.
    pub ready: Ready,
    /// First part of every key; empty except in a fixed bucket.
    pub key_prefix: String,
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
    let mut wanted = Wanted::of(&config, bucket)?;
    Ok(cached(&config, bucket, &mut wanted, Ask::Use)?.map(|ready| place(bucket, wanted, ready)))
}

/// Makes sure that the bucket's physical bucket is ready.
pub fn ensure(bucket: &Bucket, ask: Ask) -> Result<Place> {
    let config = config::current()?;
    let mut wanted = Wanted::of(&config, bucket)?;
    if let Some(ready) = cached(&config, bucket, &mut wanted, ask)? {
        return finish(bucket, wanted, ready);
    }
    // What a copy made there, the original would take for orphans.
    catalog::run_as_owner("SELECT storage_private.require_ownership()", &[])?;
    let lock = SessionLock::acquire(lock_on(&config.endpoint, &wanted.name)?);
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
    let origins =
        if wanted.fixed { Vec::new() } else { wanted_origins(&config, Some(bucket), &wanted.name)? };
    if ask == Ask::Use
        && let Some(capabilities) = known.capabilities
        && known.is_ready_for(&wanted, &origins)
    {
        let ready = ready(&config, &wanted, &known, &origins, &capabilities);
        cache::put(&config.endpoint, &wanted.name, ready, seen);
        return finish(bucket, wanted, ready);
    }
    // What the store makes now stays when this transaction is rolled back, and so may bytes in it.
    let first = !known.on_record
        && worker::attempt::record_first(&attempt(&config, &wanted, &Report { steps: Vec::new() }, None)?);
    let (report, capabilities) = match apply(&config, &wanted, &known, &origins) {
        Ok(done) => done,
        Err(Unready::Refused(failure)) => return Err(failure),
        Err(Unready::Failed { failure, record }) => {
            worker::attempt::record(&record);
            return Err(failure);
        }
    };
    let mut ready = Ready { recorded: false, ..ready(&config, &wanted, &known, &origins, &capabilities) };
    if ask == Ask::Explicit {
        // Whoever waits for another transaction to record this must not hold up those who only want to use it.
        cache::put(&config.endpoint, &wanted.name, ready, seen);
        drop(lock);
    }
    if first && catalog::keeps_one_snapshot() {
        // Its snapshot does not show that record, so it could not be brought up to date here. Whoever is next does.
        record_capabilities(&config, &capabilities)?;
        return finish(bucket, wanted, ready);
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
    if known.moved {
        // Should the settings name the other store again, it has to be recorded again.
        cache::evict_at(At::Commit, &wanted.name);
    }
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
    Ok(!first || hash(&wanted_origins(config, Some(bucket), &wanted.name)?) == ready.origins)
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
pub fn wanted_origins(config: &Config, bucket: Option<&Bucket>, name: &str) -> Result<Vec<String>> {
    let origins: Option<Vec<String>> = answer_of(
        "SELECT storage_private.wanted_origins($1, $2, $3)",
        &[name.into(), bucket.map(Bucket::id_datum).into(), servers(config).into()],
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
        marked: capabilities.marked(),
    }
}

fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    // Keyed with constants: what one backend stored, another one compares.
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// What those line up behind who find a physical bucket not ready.
fn lock_on(endpoint: &str, name: &str) -> Result<On> {
    On::named("provisioning", &format!("{endpoint} {name}"))
}
