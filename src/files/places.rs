//! Files copied and moved. Both are uploads to where the file goes, as far as policies and limits are concerned; the bytes
//! stay where they are as long as they may.

use pg_storage_core::policy::Access;
use pg_storage_store::Source;

use super::contents::own_time;
use super::{Kept, Readable, held, not_found, readable, visible};
use crate::error::{Failure, Result};
use crate::json::Jsonb;
use crate::upload::{self, Declared, Own, Verified, Wanted};
use crate::{catalog, config, rate};

/// A second file with the same bytes; its id.
///
/// `bucket`: `None`, the file's own. `filename`: `None`, the file's own.
///
/// # Errors
/// `FILE_NOT_FOUND`, those of a request for an upload, and those of the store.
pub fn copy(
    file: pgrx::Uuid,
    bucket: Option<pgrx::Uuid>,
    path: Option<&str>,
    filename: Option<&str>,
) -> Result<pgrx::Uuid> {
    let source = readable(file)?;
    let kept = held(file)?;
    let to = bucket.unwrap_or(source.bucket);
    let own = open(&source, to, filename.unwrap_or(&source.filename), path)?;
    if !(kept.serves(&own) && own.share(vec![kept.object])?) {
        let verified = kept.copied_for(&own)?;
        own.accept(verified)?;
    }
    Ok(own.file)
}

/// Gives a file another place, and leaves it the file it is.
///
/// `bucket`: `None`, the one it is in. `path`: `None`, the one it has. `with_earlier`: what its path was before and its owner
/// has goes the same way first, and stays earlier than it.
///
/// # Errors
/// `FILE_NOT_FOUND`, also where the caller may not change it, `PATH_TAKEN`, those of a request for an upload to another
/// bucket, and those of the store.
pub fn relocate(
    file: pgrx::Uuid,
    bucket: Option<pgrx::Uuid>,
    path: Option<&str>,
    with_earlier: bool,
) -> Result<()> {
    if !with_earlier {
        return relocate_one(file, bucket, path, true);
    }
    // Held, it is not replaced; and whoever may not change it is told nothing of the others.
    hold_for_change(file, None)?;
    // One move for the rate: who has more versions than it allows would never be done.
    rate::spending_once(|| {
        for version in earlier_versions(file)? {
            relocate_one(version, bucket, path, false)?;
        }
        relocate_one(file, bucket, path, true)
    })
}

/// As the caller, who must be allowed to change it; and nobody else does until the transaction ends.
fn hold_for_change(file: pgrx::Uuid, path: Option<&str>) -> Result<()> {
    let changed = catalog::write(
        "UPDATE storage.files SET path = COALESCE($2, path) WHERE id OPERATOR(pg_catalog.=) $1",
        &[file.into(), path.into()],
        |rows| Ok(rows.len()),
    )?;
    if changed == 0 { Err(not_movable(file)) } else { Ok(()) }
}

/// What is hidden, and what is seen and somebody else's, are refused in the same words.
fn not_movable(file: pgrx::Uuid) -> Failure {
    not_found(file).hint("storage.files lists those you can see; only your own can be moved.")
}

fn movable(file: pgrx::Uuid) -> Result<Readable> {
    visible(file)?.ok_or_else(|| not_movable(file))
}

/// The earlier versions of its path that have the same owner, seen or not, oldest first; of a current file alone.
fn earlier_versions(file: pgrx::Uuid) -> Result<Vec<pgrx::Uuid>> {
    catalog::as_owner(|| {
        catalog::write("SELECT storage_private.earlier_versions($1)", &[file.into()], |rows| {
            rows.map(|row| row.get(1)).filter_map(|id| id.transpose().map(|id| Ok(id?))).collect()
        })
    })
}

fn relocate_one(
    file: pgrx::Uuid,
    bucket: Option<pgrx::Uuid>,
    path: Option<&str>,
    becomes_current: bool,
) -> Result<()> {
    // An earlier version that goes to another path is a file of its own there, as in another bucket.
    let leaves = |here: &Readable| {
        let parts = !here.is_current && path.is_some_and(|path| here.path.as_deref() != Some(path));
        let to = bucket.unwrap_or(here.bucket);
        (to != here.bucket || parts).then_some(to)
    };
    // Where it leaves, its path is held against those there.
    let path_here = if leaves(&movable(file)?).is_some() { None } else { path };
    hold_for_change(file, path_here)?;
    // It may have been moved while this waited for it.
    let here = movable(file)?;
    let Some(to) = leaves(&here) else { return Ok(()) };
    let kept = held(file)?;
    let own = open(&here, to, &here.filename, path.or(here.path.as_deref()))?;
    let (key, etag) = if kept.serves(&own) {
        (None, None)
    } else {
        let Verified { key, etag, .. } = kept.copied_for(&own)?;
        (key, etag)
    };
    catalog::run_as_owner(
        "SELECT storage_private.relocate_file($1, $2, $3, $4, $5)",
        &[file.into(), own.upload().into(), key.into(), etag.into(), becomes_current.into()],
    )
}

/// The upload that a copy or a move is.
fn open(source: &Readable, to: pgrx::Uuid, filename: &str, path: Option<&str>) -> Result<Own> {
    let declared = Declared {
        filename,
        content_type: &source.content_type,
        size: source.size,
        sha256: Some(&source.sha256),
        path,
        expires_in: Some(own_time()),
    };
    upload::open_own(to, Wanted { declared, metadata: Jsonb::spelled(source.metadata.clone()) })
}

impl Kept {
    /// Whether the object can be that of the file to be: in the same physical bucket, where others may read it, or it
    /// vanishes, neither sooner nor later; and not unseen by a bucket that looks at bytes.
    fn serves(&self, own: &Own) -> bool {
        own.physical_name() == self.physical_name
            && own.bucket.access == self.access
            && self.access != Access::Temp
            && (self.checked || !own.checks_bytes())
    }

    fn copied_for(&self, own: &Own) -> Result<Verified> {
        config::current()?.check_keeper(&self.physical_name, self.kept_by.as_deref())?;
        own.bring(Source::Object { bucket: self.physical_name.clone(), key: self.key.clone() })
    }
}
