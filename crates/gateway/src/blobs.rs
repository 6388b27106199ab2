//! The bytes: one file per blob, named by a random id and never by the client's key, so no key can lead outside.
//!
//! A blob is written under `staging/`, flushed, and renamed into `data/`; it is then complete and never written
//! again. Whether it counts is the index's business: a blob the index does not name is removed at start.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, DirEntry, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

/// The directory of blobs below the store's root.
#[derive(Debug)]
pub struct Blobs {
    staging: PathBuf,
    data: PathBuf,
    pins: Mutex<HashMap<Uuid, Pin>>,
}

/// How many readers hold a blob, and whether it is to go when the last one leaves.
#[derive(Debug, Default)]
struct Pin {
    readers: usize,
    doomed: bool,
}

impl Blobs {
    /// Whether `staging/` or `data/` below `root` holds anything; the empty shards of a first start that was cut off
    /// do not count.
    pub fn are_at(root: &Path) -> io::Result<bool> {
        if !entries(&root.join("staging"))?.is_empty() {
            return Ok(true);
        }
        let data = root.join("data");
        for entry in entries(&data)? {
            let shard = (0..=u8::MAX).map(shard).any(|shard| entry.file_name() == *shard);
            if !(shard && entry.file_type()?.is_dir() && entries(&entry.path())?.is_empty()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Opens the directories below `root`, creating what is missing, and removes unfinished blobs.
    ///
    /// The caller holds the index, hence is the only server on this root.
    pub fn open(root: &Path) -> io::Result<Self> {
        let (staging, data) = (root.join("staging"), root.join("data"));
        make_dir(&staging)?;
        make_dir(&data)?;
        for byte in 0..=u8::MAX {
            make_dir(&data.join(shard(byte)))?;
        }
        sync_dir(&data)?;
        sync_dir(root)?;
        for entry in entries(&staging)? {
            if blob_id(&entry)?.is_some() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { staging, data, pins: Mutex::default() })
    }

    /// Starts a new blob.
    pub fn stage(&self) -> io::Result<Staged> {
        let id = Uuid::new_v4();
        let path = self.staging.join(id.simple().to_string());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Staged { id, path, file: Some(file) })
    }

    /// Makes a staged blob permanent: its bytes and its name are on disk when this returns.
    pub fn publish(&self, mut staged: Staged) -> io::Result<Uuid> {
        if let Some(file) = &staged.file {
            file.sync_all()?;
        }
        let target = self.path(staged.id);
        fs::rename(&staged.path, &target)?;
        staged.file = None;
        match target.parent().map_or(Ok(()), sync_dir) {
            Ok(()) => Ok(staged.id),
            Err(error) => {
                self.remove([staged.id]);
                Err(error)
            }
        }
    }

    /// Opens a blob for reading.
    pub fn read(&self, id: Uuid) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// Removes blobs that nothing refers to any more, each once its last reader is gone.
    ///
    /// Best effort: what stays behind is swept at the next start.
    pub fn remove(&self, ids: impl IntoIterator<Item = Uuid>) {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            match pins.get_mut(&id) {
                Some(pin) => pin.doomed = true,
                None => drop(fs::remove_file(self.path(id))),
            }
        }
    }

    /// Keeps blobs readable until the guard is dropped, even when they are removed meanwhile.
    pub fn pin(self: &Arc<Self>, ids: Vec<Uuid>) -> Pinned {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &ids {
            pins.entry(*id).or_default().readers += 1;
        }
        Pinned { blobs: Arc::clone(self), ids }
    }

    /// Removes every blob that `known` does not name: what a crash left between publishing and recording.
    ///
    /// What this store cannot have written stays.
    pub fn sweep<E: From<io::Error>>(&self, mut known: impl FnMut(Uuid) -> Result<bool, E>) -> Result<(), E> {
        for byte in 0..=u8::MAX {
            for entry in entries(&self.data.join(shard(byte)))? {
                if let Some(id) = blob_id(&entry)?.filter(|id| self.path(*id) == entry.path())
                    && !known(id)?
                {
                    fs::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.data.join(shard(id.as_bytes()[0])).join(id.simple().to_string())
    }
}

/// A blob being written; dropped unpublished, it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    id: Uuid,
    path: PathBuf,
    file: Option<File>,
}

impl Staged {
    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // A file that stays is swept at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Readers' hold on blobs.
#[derive(Debug)]
pub struct Pinned {
    blobs: Arc<Blobs>,
    ids: Vec<Uuid>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = self.blobs.pins.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &self.ids {
            let Some(pin) = pins.get_mut(id) else { continue };
            pin.readers -= 1;
            if pin.readers == 0 {
                let doomed = pin.doomed;
                pins.remove(id);
                if doomed {
                    let _ = fs::remove_file(self.blobs.path(*id));
                }
            }
        }
    }
}

/// The directory in `data/` of the blobs whose ids begin with a byte.
fn shard(byte: u8) -> String {
    format!("{byte:02x}")
}

/// What lies in a directory; nothing when there is none.
fn entries(directory: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The id of the blob in a file; `None` for anything that does not look like one.
fn blob_id(entry: &DirEntry) -> io::Result<Option<Uuid>> {
    if !entry.file_type()?.is_file() {
        return Ok(None);
    }
    let name = entry.file_name();
    let id = name.to_str().and_then(|name| Uuid::try_parse(name).ok());
    Ok(id.filter(|id| *name == *id.simple().to_string()))
}

/// Creates a private directory unless it is there; whether it was created.
pub fn make_dir(path: &Path) -> io::Result<bool> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The directory that holds a path's last name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Flushes a directory, so that names created or renamed in it survive a power failure.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
