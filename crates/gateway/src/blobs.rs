//! The bytes: one file per blob, named by a random id and never by the client's key, so no key can lead outside.
//!
//! A blob is written under `staging/`, flushed, and renamed into `data/`; it is then complete and never written
//! again. Whether it counts is the index's business: a blob the index does not name is removed at start.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
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
    /// Opens the directories below `root`, creating what is missing, and empties `staging/`.
    ///
    /// The caller holds the index, hence is the only server on this root.
    pub fn open(root: &Path) -> io::Result<Self> {
        let (staging, data) = (root.join("staging"), root.join("data"));
        make_dir(&staging)?;
        make_dir(&data)?;
        for shard in 0..=u8::MAX {
            make_dir(&data.join(format!("{shard:02x}")))?;
        }
        sync_dir(&data)?;
        sync_dir(root)?;
        for entry in fs::read_dir(&staging)? {
            fs::remove_file(entry?.path())?;
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
    pub fn sweep<E: From<io::Error>>(&self, mut known: impl FnMut(Uuid) -> Result<bool, E>) -> Result<(), E> {
        for shard in fs::read_dir(&self.data)? {
            for entry in fs::read_dir(shard?.path())? {
                let path = entry?.path();
                let id = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .and_then(|name| Uuid::try_parse(name).ok());
                let keep = match id {
                    Some(id) => known(id)?,
                    None => false,
                };
                if !keep {
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    fn path(&self, id: Uuid) -> PathBuf {
        let name = id.simple().to_string();
        let shard = format!("{:02x}", id.as_bytes()[0]);
        self.data.join(shard).join(name)
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

/// Creates a private directory unless it is there.
pub fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        other => other,
    }
}

/// Flushes a directory, so that names created or renamed in it survive a power failure.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
