//! `storage.check()`: what is configured, what can be reached, and what the store was seen to enforce.

mod service;

use pg_storage_store::probe::{Capabilities, Support};
use pg_storage_store::{CredentialSource, Store};

use crate::config::{self, Config, Layout};
use crate::error::{Failure, Result};
use crate::{catalog, guc, preload, provision, session, worker};

/// Whether a finding needs anybody.
#[derive(Clone, Copy)]
enum Level {
    Ok,
    Warn,
    Fail,
}

/// Name, status, detail and hint of one finding.
pub type Finding = (String, String, Option<String>, Option<String>);

fn finding(name: &str, level: Level, detail: impl Into<String>, hint: Option<&str>) -> Finding {
    let status = match level {
        Level::Ok => "ok",
        Level::Warn => "warn",
        Level::Fail => "fail",
    };
    (name.to_owned(), status.to_owned(), Some(detail.into()), hint.map(str::to_owned))
}

fn failed(name: &str, failure: &Failure) -> Finding {
    let detail = failure
        .details()
        .map_or_else(|| failure.summary(), |detail| format!("{} ({detail})", failure.summary()));
    finding(name, Level::Fail, detail, failure.advice())
}

/// Everything there is to say. Never fails; what cannot be examined is a finding too.
pub fn run() -> Vec<Finding> {
    let mut findings = vec![preloaded()];
    // A standby has none until it is promoted.
    if !preload::read_only() {
        findings.push(maintained());
    }
    findings.extend(rate());
    findings.extend(policies().unwrap_or_else(|failure| vec![failed("policies", &failure)]));
    findings.extend(not_applied().unwrap_or_else(|failure| vec![failed("configuration_file", &failure)]));
    let config = match config::current() {
        Ok(config) => config,
        Err(failure) => {
            findings.push(failed("settings", &failure));
            return findings;
        }
    };
    findings.push(settings(&config));
    findings.push(naming(&config));
    match credentials(&config) {
        Ok(found) => findings.push(found),
        Err(failure) => {
            findings.push(failed("credentials", &failure));
            return findings;
        }
    }
    match reach(&config) {
        Ok(found) => findings.extend(found),
        Err(failure) => {
            findings.push(failed("store", &failure));
            return findings;
        }
    }
    findings.extend(reconciled().unwrap_or_else(|failure| vec![failed("objects", &failure)]));
    findings.extend(functions(&config).unwrap_or_else(|failure| vec![failed("functions", &failure)]));
    if preload::read_only() {
        findings.push(finding(
            "capabilities",
            Level::Warn,
            "Not tried: nothing is written to the store where nothing can be recorded.",
            Some("Ask the primary, or leave the read-only transaction."),
        ));
        return findings;
    }
    match physical_bucket(&config) {
        Ok(Some(physical)) => findings.extend(capabilities(&config, &physical)),
        Ok(None) => findings.push(finding(
            "capabilities",
            Level::Warn,
            "Not tried: no physical bucket exists yet.",
            Some("The first upload, or storage.provision_bucket(), makes one and tries the store out in it."),
        )),
        Err(failure) => findings.push(failed("capabilities", &failure)),
    }
    findings
}

fn preloaded() -> Finding {
    if preload::preloaded() {
        finding("preload", Level::Ok, "The library is preloaded: the cache is shared by all sessions.", None)
    } else {
        finding(
            "preload",
            Level::Warn,
            "The library is not preloaded: every session has a cache of its own, and there is no local store.",
            Some("Add pg_storage to shared_preload_libraries and restart."),
        )
    }
}

fn maintained() -> Finding {
    if worker::runs() {
        finding("worker", Level::Ok, "A worker runs for this database.", None)
    } else {
        finding(
            "worker",
            Level::Warn,
            "No worker runs for this database: nothing is deleted from the store, and nothing expires.",
            Some(
                "Name the database in pg_storage.databases with the library preloaded, call storage.start_worker(), or \
                 call storage.run_maintenance() regularly.",
            ),
        )
    }
}

/// What is wrong by the last comparison of the store with the tables.
fn reconciled() -> Result<Vec<Finding>> {
    catalog::as_owner(|| {
        catalog::read(
            "SELECT physical_name, lost, last_error FROM storage_private.troubled_reconciliations()",
            &[],
            |rows| {
                let mut findings = Vec::new();
                for row in rows {
                    let (bucket, lost, error): (Option<String>, Option<i64>, Option<String>) =
                        (row.get(1)?, row.get(2)?, row.get(3)?);
                    let bucket = bucket.unwrap_or_default();
                    if let Some(lost) = lost.filter(|lost| *lost > 0) {
                        let detail = format!("{lost} row(s) of storage.objects have no bytes in {bucket}.");
                        let hint = "storage.scan_orphans() names them; restore them from a backup of the store, or delete their files.";
                        findings.push(finding("objects", Level::Fail, detail, Some(hint)));
                    }
                    if let Some(error) = error {
                        let detail = format!("{bucket} could not be compared with the tables: {error}.");
                        findings.push(finding(
                            "objects",
                            Level::Warn,
                            detail,
                            Some("Maintenance tries again in each pass."),
                        ));
                    }
                }
                Ok(findings)
            },
        )
    })
}

/// Who shares the limit on a user's uploads, where there is one.
fn rate() -> Option<Finding> {
    let rate = guc::UPLOAD_RATE.get();
    if rate == 0 {
        None
    } else if preload::preloaded() {
        let detail = format!("All sessions of a user together may ask for {rate} uploads a minute.");
        Some(finding("upload_rate", Level::Ok, detail, None))
    } else {
        Some(finding(
            "upload_rate",
            Level::Warn,
            format!(
                "Each session may ask for {rate} uploads a minute: without preload they cannot share a limit."
            ),
            Some("Add pg_storage to shared_preload_libraries and restart."),
        ))
    }
}

/// What the configuration file says and the server could not take: it goes on with what it had before.
fn not_applied() -> Result<Vec<Finding>> {
    catalog::as_owner(|| {
        catalog::read("SELECT * FROM storage_private.settings_not_applied()", &[], |rows| {
            rows.map(|row| {
                Ok(finding(
                    "configuration_file",
                    Level::Warn,
                    row.get::<String>(1)?.unwrap_or_default(),
                    Some("The value before it stays in force. The server's log says what is wrong; a setting that only takes effect at start needs a restart."),
                ))
            })
            .collect()
        })
    })
}

/// Policies that were made to last and that went with something else: a function they named, or a role.
fn policies() -> Result<Vec<Finding>> {
    catalog::as_owner(|| {
        catalog::read("SELECT * FROM storage_private.policies_not_in_force()", &[], |rows| {
            rows.map(|row| {
                Ok(finding(
                    "policies",
                    Level::Warn,
                    format!(
                        "Policy {} is recorded and not in force.",
                        row.get::<String>(1)?.unwrap_or_default()
                    ),
                    Some("storage.drop_policy() forgets it; storage.add_policy() then makes it again."),
                ))
            })
            .collect()
        })
    })
}

/// What the store can do for a bucket, as far as provisioning found out. A fixed bucket is its operator's to configure.
fn functions(config: &Config) -> Result<Vec<Finding>> {
    if matches!(config.layout, Layout::Fixed(_)) {
        return Ok(Vec::new());
    }
    catalog::as_owner(|| {
        catalog::read(
            "SELECT * FROM storage_private.recorded_functions($1)",
            &[config.endpoint.as_str().into()],
            |rows| {
                rows.map(|row| {
                    let name = row.get::<String>(1)?.unwrap_or_default();
                    Ok(match row.get::<String>(2)? {
                        None => finding(&name, Level::Ok, "Buckets were given theirs.", None),
                        Some(reason) => finding(
                            &name,
                            Level::Warn,
                            format!("Left out: {reason}."),
                            Some("storage.provisioning_state shows it for each bucket."),
                        ),
                    })
                })
                .collect()
            },
        )
    })
}

fn settings(config: &Config) -> Finding {
    let kind = if config.local { "the local store" } else { "a remote store" };
    let style = if config.store.path_style { "path" } else { "virtual-host" };
    finding(
        "settings",
        Level::Ok,
        format!("{} ({kind}), region {}, {style} style.", config.store.endpoint, config.store.region),
        None,
    )
}

fn naming(config: &Config) -> Finding {
    match (&config.layout, &config.prefix) {
        (Layout::Fixed(bucket), _) => finding(
            "layout",
            Level::Ok,
            format!(
                "Everything goes to the existing bucket {bucket}, below '{}'.",
                config.key_prefix.as_str()
            ),
            Some(
                "Set there yourself: CORS for your origins, public read for '{key_prefix}public/', expiry of a day for '{key_prefix}temp/', and the end of incomplete multipart uploads.",
            ),
        ),
        (Layout::Minted(layout), Some(prefix)) => finding(
            "layout",
            Level::Ok,
            format!("Bucket names begin with '{}'; layout '{}'.", prefix.as_str(), layout.name()),
            None,
        ),
        (Layout::Minted(_), None) => failed("layout", &Failure::setting("bucket_prefix", "is not set")),
    }
}

fn credentials(config: &Config) -> Result<Finding> {
    let (_, ends) = session::credentials(config)?;
    let source = match config.store.credentials {
        CredentialSource::Static(_) if config.local => "Generated for the local store.",
        CredentialSource::Static(_) => "Given by settings or environment.",
        CredentialSource::DefaultChain { .. } if ends.is_some() => "Temporary, from the AWS default chain.",
        CredentialSource::DefaultChain { .. } => "From the AWS default chain.",
    };
    Ok(finding("credentials", Level::Ok, source, None))
}

/// Seconds by which clocks may differ before signatures are at risk; S3 refuses at 900.
const TOLERABLE_SKEW: i64 = 60;

fn reach(config: &Config) -> Result<Vec<Finding>> {
    let asked = crate::clock::Moment::now().unix();
    let time = session::call(config, |store| async move { store.server_time().await })?;
    let mut findings = vec![finding("store", Level::Ok, format!("{} answers.", config.store.endpoint), None)];
    findings.push(match time {
        Some(time) => {
            let skew = time - asked;
            let detail = format!("The store's clock differs by {skew} s.");
            if skew.abs() <= TOLERABLE_SKEW {
                finding("clock", Level::Ok, detail, None)
            } else {
                finding(
                    "clock",
                    Level::Fail,
                    detail,
                    Some("Keep both clocks by NTP: stores refuse signatures that are 15 minutes off."),
                )
            }
        }
        None => finding("clock", Level::Warn, "The store does not tell its time.", None),
    });
    Ok(findings)
}

/// A bucket to try things out in.
fn physical_bucket(config: &Config) -> Result<Option<String>> {
    if let Layout::Fixed(bucket) = &config.layout {
        let (store, name) = (session::store(config)?, bucket.clone());
        let exists = crate::wait::until(async move { store.head_bucket(&name).await })??;
        return if exists {
            Ok(Some(bucket.clone()))
        } else {
            Err(Failure::setting("fixed_bucket", "names a bucket that the store does not have"))
        };
    }
    catalog::as_owner(|| {
        catalog::read(
            "SELECT storage_private.some_physical_bucket($1)",
            &[config.endpoint.as_str().into()],
            |rows| Ok(rows.first().get_one()?),
        )
    })
}

fn capabilities(config: &Config, physical: &str) -> Vec<Finding> {
    let found = match provision::try_out(config, physical) {
        Ok(found) => found,
        Err(failure) => return vec![failed("capabilities", &failure)],
    };
    let mut findings = describe(&found);
    findings.extend(service::findings(config, physical, &found));
    if let Err(failure) = provision::record_capabilities(config, &found) {
        findings.push(failed("capabilities", &failure));
    }
    findings
}

fn describe(found: &Capabilities) -> Vec<Finding> {
    let path = if found.direct() {
        "Uploads with a declared hash go straight to their final key."
    } else {
        "Uploads are staged; confirming reads and copies them."
    };
    let mut findings = vec![finding("upload_path", Level::Ok, path, None)];
    let mut optional = vec![
        ("wrong_checksum", found.checksum, "A body with another SHA-256 than signed"),
        ("create_only", found.create_only, "A second PUT to a key with If-None-Match: *"),
        ("copy_source_if_match", found.copy_source_if_match, "A copy whose source has changed"),
    ];
    // Tried only where parts are taken.
    if found.parts == Some(Support::Enforced) {
        let what = "A part with another SHA-256 than signed";
        optional.push(("wrong_part_checksum", found.part_checksum, what));
    }
    for (name, support, what) in optional {
        let (level, hint) = match support {
            Support::Enforced => (Level::Ok, None),
            _ => (
                Level::Warn,
                Some(
                    "Nothing rests on it: pg_storage stages uploads, reads what came in parts, and looks before and after instead.",
                ),
            ),
        };
        findings.push(finding(name, level, format!("{what}: {}.", words(support)), hint));
    }
    let required = [
        ("wrong_length", found.length, "A body with another length than signed"),
        ("expired_url", found.expiry, "An expired URL"),
        ("tampered_url", found.tampering, "A URL that was changed"),
    ];
    for (name, support, what) in required {
        let (level, hint) = match support {
            Support::Enforced => (Level::Ok, None),
            _ => (Level::Fail, Some("Do not use this store: it does not check what presigned URLs permit.")),
        };
        findings.push(finding(name, level, format!("{what}: {}.", words(support)), hint));
    }
    let (level, detail, hint) = if found.marked() {
        (
            Level::Warn,
            "An x-amz-copy-source that nobody signed: obeyed. Uploads carry a mark, and one without it is rejected.",
            Some(
                "Prefer a newer release of the store: the mark is all that tells an upload from a copy of another object.",
            ),
        )
    } else {
        (Level::Ok, "An x-amz-copy-source that nobody signed: refused.", None)
    };
    findings.push(finding("unsigned_headers", level, detail, hint));
    let uploads = [
        (
            "forms",
            found.forms,
            "request_upload_form",
            "A form that was changed, is too late or brings too much",
        ),
        ("multipart", found.parts, "request_multipart_upload", "A part that is a copy of another object"),
    ];
    for (name, support, function, what) in uploads {
        let support = support.unwrap_or_default();
        let (level, hint) = match support {
            Support::Enforced => (Level::Ok, None),
            _ => (Level::Warn, Some(format!("storage.{function}() is refused on this store."))),
        };
        findings.push(finding(name, level, format!("{what}: {}.", words(support)), hint.as_deref()));
    }
    let (level, detail) = if found.head_checksum {
        (Level::Ok, "HEAD gives the SHA-256.")
    } else {
        (Level::Warn, "HEAD gives no SHA-256.")
    };
    findings.push(finding("head_checksum", level, detail, None));
    findings
}

fn words(support: Support) -> &'static str {
    match support {
        Support::Enforced => "refused",
        Support::Ignored => "accepted",
        Support::Racy => "refused in a row, but not among concurrent writers",
        Support::Refused => "the store does not know the request",
    }
}
