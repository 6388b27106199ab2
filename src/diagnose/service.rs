//! What the store does besides taking uploads, tried out in a bucket of its own and, where there is one, a public one.

use pg_storage_core::key::SCRATCH_PREFIX;
use pg_storage_core::policy::{self, Access};
use pg_storage_core::presign::{Signer, Target};
use pg_storage_store::probe::{Capabilities, Service, Support, preflight, reads_publicly, serve};

use super::{Finding, Level, failed, finding, words};
use crate::config::{Config, Layout};
use crate::error::Result;
use crate::{catalog, provision, session};

/// Tries it, given what uploads were found to be worth.
pub fn findings(config: &Config, physical: &str, uploads: &Capabilities) -> Vec<Finding> {
    let mut findings = Vec::new();
    match tried(config, physical, uploads.checksum == Support::Enforced) {
        Ok(service) => findings.extend(describe(&service)),
        Err(failure) => findings.push(failed("service", &failure)),
    }
    findings.extend(public_read(config).unwrap_or_else(|failure| Some(failed("public_read", &failure))));
    findings.extend(origins(config, physical).unwrap_or_else(|failure| Some(failed("preflight", &failure))));
    findings
}

/// Over the endpoint that the server reaches; the public one may be out of its sight.
fn signer(config: &Config) -> Result<Signer> {
    let (credentials, _) = session::credentials(config)?;
    let target = Target::new(&config.store.endpoint, &config.store.region, config.store.path_style);
    Ok(Signer::new(target, credentials))
}

fn scratch(config: &Config) -> String {
    format!("{}{SCRATCH_PREFIX}", config.key_prefix.as_str())
}

fn tried(config: &Config, physical: &str, enforces_sums: bool) -> Result<Service> {
    let (signer, bucket, prefix) = (signer(config)?, physical.to_owned(), scratch(config));
    // Only what is below the prefix for public files is public in a fixed bucket.
    let access = match config.layout {
        Layout::Fixed(_) => Access::Private,
        Layout::Minted(_) => recorded_access(config, physical)?.unwrap_or(Access::Private),
    };
    session::call(config, move |store| async move {
        serve(&store, signer, &bucket, &prefix, access, enforces_sums).await
    })
}

fn recorded_access(config: &Config, physical: &str) -> Result<Option<Access>> {
    let access: Option<String> = catalog::as_owner(|| {
        catalog::read(
            "SELECT p.access::pg_catalog.text FROM storage.physical_buckets p
             WHERE p.name OPERATOR(pg_catalog.=) $1 AND p.endpoint OPERATOR(pg_catalog.=) $2",
            &[physical.into(), config.endpoint.as_str().into()],
            |rows| if rows.is_empty() { Ok(None) } else { Ok(rows.first().get_one()?) },
        )
    })?;
    Ok(access.as_deref().and_then(Access::parse))
}

fn describe(service: &Service) -> Vec<Finding> {
    const UNFIT: &str = "Do not use this store: it does not check what presigned URLs permit.";
    const BROKEN: &str = "Do not use this store: files depend on it.";
    let refused = |name, support, what: &str, hint| {
        let level = if support == Support::Enforced { Level::Ok } else { Level::Fail };
        let hint = (support != Support::Enforced).then_some(hint);
        finding(name, level, format!("{what}: {}.", words(support)), hint)
    };
    let works = |name, works: bool, level, what: &str, hint| {
        let (level, how, hint) =
            if works { (Level::Ok, "works", None) } else { (level, "does not", Some(hint)) };
        finding(name, level, format!("{what}: {how}."), hint)
    };
    let mut findings = vec![
        refused("download_url", service.download, "A download URL that has expired or was changed", UNFIT),
        refused(
            "anonymous",
            service.anonymous,
            "Reading, listing, writing and deleting without a signature",
            "Close the bucket: it is open to everybody.",
        ),
    ];
    findings.extend(service.concurrent_checksum.map(|support| {
        refused("concurrent_checksum", support, "Wrong bodies among concurrent writers", UNFIT)
    }));
    findings.extend([
        works(
            "response_headers",
            service.response_headers,
            Level::Warn,
            "Names and lifetimes that a download URL asks for",
            "Downloads come under the name of their key, and caches are told nothing.",
        ),
        works("range", service.range, Level::Fail, "Reading a part of an object", BROKEN),
        works("copy", service.copy, Level::Fail, "Copying with another description", BROKEN),
        works("listing", service.listing, Level::Fail, "Listing below a prefix, in order", BROKEN),
        works("deletion", service.deletion, Level::Fail, "Deleting several objects, and no others", BROKEN),
    ]);
    findings
}

/// Whether the store lets everybody read where that is wanted. `None`: there is no public bucket yet.
fn public_read(config: &Config) -> Result<Option<Finding>> {
    if matches!(config.layout, Layout::Fixed(_)) {
        return Ok(None);
    }
    let public: Option<String> = catalog::as_owner(|| {
        catalog::read(
            "SELECT p.name FROM storage.physical_buckets p
             WHERE p.endpoint OPERATOR(pg_catalog.=) $1 AND p.state OPERATOR(pg_catalog.=) 'ready'
                 AND p.access OPERATOR(pg_catalog.=) 'public' ORDER BY p.name LIMIT 1",
            &[config.endpoint.as_str().into()],
            |rows| if rows.is_empty() { Ok(None) } else { Ok(rows.first().get_one()?) },
        )
    })?;
    let Some(public) = public else { return Ok(None) };
    let (signer, prefix) = (signer(config)?, scratch(config));
    let reads =
        session::call(
            config,
            move |store| async move { reads_publicly(&store, signer, &public, &prefix).await },
        )?;
    Ok(Some(if reads {
        finding("public_read", Level::Ok, "Files in public buckets are read without a signature.", None)
    } else {
        finding(
            "public_read",
            Level::Warn,
            "Files in public buckets cannot be read without a signature.",
            Some(
                "Put a proxy or a CDN in front that may read the bucket, and name it in pg_storage.public_url_base; or hand out storage.download_url().",
            ),
        )
    }))
}

/// Whether browsers may upload from one of the origins, and from no other. `None`: anybody may, or nobody is named.
fn origins(config: &Config, physical: &str) -> Result<Option<Finding>> {
    let named = provision::wanted_origins(config, None, physical)?;
    let Some(named) = named.first().filter(|_| !named.iter().any(|origin| origin == "*")) else {
        return Ok(None);
    };
    let origin = named.replace(":*", ":3000").replace('*', "www");
    let headers = policy::cors(Access::Private, &[]).allowed_headers;
    let (signer, bucket, prefix) = (signer(config)?, physical.to_owned(), scratch(config));
    let asked = origin.clone();
    let found = session::call(config, move |store| async move {
        preflight(&store, signer, &bucket, &prefix, &asked, &headers).await
    })?;
    Ok(Some(match found {
        Support::Enforced => finding(
            "preflight",
            Level::Ok,
            format!("Pages from {origin} may upload, pages from elsewhere may not."),
            None,
        ),
        Support::Ignored | Support::Racy => finding(
            "preflight",
            Level::Warn,
            "Pages from anywhere may upload.",
            Some("They still need a presigned URL."),
        ),
        Support::Refused => finding(
            "preflight",
            Level::Warn,
            format!("Pages from {origin} may not upload."),
            Some(
                "storage.inspect_bucket() shows the CORS rules that the store has; storage.provision_bucket() sets them anew.",
            ),
        ),
    }))
}
