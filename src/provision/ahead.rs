//! Ahead of time: physical buckets that are on record and not as they are wanted are made so before anybody asks.

use pg_storage_core::policy::Access;
use pgrx::JsonB;

use super::apply::{Unready, apply};
use super::record::{Known, Recorded, record};
use super::wanted::Wanted;
use super::{Ask, lock_on, ready, servers, wanted_origins};
use crate::cache::{self, At};
use crate::catalog;
use crate::config::{self, Config};
use crate::error::Result;
use crate::lock::SessionLock;
use crate::maintenance::{Report, Scope};

/// Tries each physical bucket that is due once. One that fails is due later and stops no other.
pub fn run(scope: Scope, report: &mut Report) -> Result<()> {
    if !scope.step(any_due)? {
        return Ok(());
    }
    let config = config::current()?;
    for wanted in scope.step(|| due(&config))? {
        report.buckets_provisioned += i64::from(bring(scope, &config, wanted)?);
    }
    Ok(())
}

fn any_due() -> Result<bool> {
    catalog::as_owner(|| {
        catalog::read("SELECT storage_private.is_provisioning_due()", &[], |rows| {
            Ok(rows.first().get_one()?.unwrap_or(false))
        })
    })
}

fn due(config: &Config) -> Result<Vec<Wanted>> {
    catalog::as_owner(|| {
        catalog::read(
            "SELECT name, tenant_id, access::pg_catalog.text, fixed, key_prefix FROM storage_private.provisioning_due($1)",
            &[config.endpoint.as_str().into()],
            |rows| {
                rows.map(|row| {
                    Ok(Wanted {
                        name: row.get(1)?.unwrap_or_default(),
                        tenant: row.get(2)?,
                        access: row.get::<String>(3)?.and_then(|text| Access::parse(&text)),
                        fixed: row.get(4)?.unwrap_or(false),
                        key_prefix: row.get(5)?.unwrap_or_default(),
                    })
                })
                .collect()
            },
        )
    })
}

/// Brings one physical bucket to what is wanted; `false` when it is still not so.
fn bring(scope: Scope, config: &Config, wanted: Wanted) -> Result<bool> {
    let Some(lock) = SessionLock::try_acquire(scope.step(|| lock_on(&config.endpoint, &wanted.name))?) else {
        // A session that needs it is at it.
        return Ok(false);
    };
    let seen = cache::forgettings(&wanted.name);
    let (known, origins) = scope.step(|| {
        let mut origins = if wanted.fixed { Vec::new() } else { wanted_origins(config, None, &wanted.name)? };
        if origins.is_empty() && !wanted.fixed {
            // Its first use was rolled back with the error, so no bucket names it yet.
            origins = servers(config);
        }
        Ok((Known::look_up(config, &wanted.name)?, origins))
    })?;
    let (applied, capabilities) = match apply(config, &wanted, &known, &origins) {
        Ok(done) => done,
        Err(Unready::Refused(_)) => return Ok(false),
        Err(Unready::Failed { record, .. }) => {
            drop(lock);
            scope.step(|| {
                catalog::run_as_owner("SELECT storage_private.record_attempt($1)", &[JsonB(record).into()])
            })?;
            return Ok(false);
        }
    };
    let recorded = scope.step(|| {
        let recorded = record(config, &wanted, &known, &origins, &applied, &capabilities, Ask::Use)?;
        match recorded {
            Recorded::Current => cache::evict_at(At::Abort, &wanted.name),
            Recorded::Left | Recorded::Stale => cache::evict_at(At::End, &wanted.name),
        }
        Ok(recorded)
    })?;
    let done = matches!(recorded, Recorded::Current);
    if done {
        cache::put(
            &config.endpoint,
            &wanted.name,
            ready(config, &wanted, &known, &origins, &capabilities),
            seen,
        );
    }
    Ok(done)
}
