//! The store: the index and the bytes kept together, so that neither ever promises what the other lacks.

use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

use redb::WriteTransaction;
use tokio::sync::watch;

use crate::blobs::{Blobs, Staged, make_dir, parent, sync_dir};
use crate::failure::{Failure, Outcome};
use crate::index::records::Segment;
use crate::index::{Index, Released};

/// What went wrong inside a store: failures that clients saw as an internal error or as a full disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// How many operations failed since the server was opened.
    pub count: u64,
    /// What the last one failed of. It names neither keys nor secrets.
    pub last: Option<String>,
}

/// Everything below one root directory.
#[derive(Debug)]
pub struct Store {
    /// Which buckets and objects there are.
    pub index: Index,
    /// Their bytes.
    pub blobs: Arc<Blobs>,
    /// The region the store answers for.
    pub region: String,
    /// What went wrong so far.
    pub trouble: watch::Sender<Trouble>,
}

impl Store {
    /// Opens the store below `root`, creating it if need be, and removes what an earlier crash left behind.
    ///
    /// Without its index nothing tells a store's files from those of something else, so a directory that has files but
    /// no index is refused and left as it is.
    pub fn open(root: &Path, region: String) -> Outcome<Self> {
        if make_dir(root)? {
            sync_dir(parent(root))?;
        }
        let index = root.join("index.redb");
        if Blobs::are_at(root)? && is_missing(&index)? {
            return Err(io::Error::other(format!(
                "{} is missing, but there are files in staging/ or data/ beside it: this is another program's \
                 directory, or a store whose index was lost; bring the index back or take an empty directory",
                index.display()
            ))
            .into());
        }
        // First the index: its lock keeps a second server from sweeping files that the first one is writing.
        let index = Index::open(&index)?;
        let blobs = Arc::new(Blobs::open(root)?);
        blobs.sweep(|blob| index.knows_blob(blob))?;
        Ok(Self { index, blobs, region, trouble: watch::Sender::default() })
    }

    /// Runs `work` on a thread that may block, to its end even when the client is gone by then.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Outcome<T> + Send + 'static,
    ) -> Outcome<T> {
        let store = Arc::clone(self);
        let outcome = match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(error.into()),
        };
        if let Err(failure) = &outcome
            && !matches!(failure, Failure::Refused(_))
        {
            self.trouble.send_modify(|trouble| {
                trouble.count += 1;
                trouble.last = Some(failure.to_string());
            });
        }
        outcome
    }

    /// Makes bytes permanent and records them in one go.
    ///
    /// `record` is given the segments (none for an empty body) and says what its change released.
    pub fn publish<T>(
        &self,
        staged: Option<(Staged, u64)>,
        record: impl FnOnce(&WriteTransaction, Vec<Segment>) -> Outcome<(T, Released)>,
    ) -> Outcome<T> {
        let segments = match staged {
            Some((staged, size)) => vec![Segment { blob: self.blobs.publish(staged)?, size }],
            None => Vec::new(),
        };
        let written = self.write(|transaction| record(transaction, segments.clone()));
        if written.is_err() {
            for segment in &segments {
                // Asked rather than assumed: a commit that reported an I/O error may have taken effect.
                // When the index cannot answer, the sweep at the next start decides.
                if matches!(self.index.knows_blob(segment.blob), Ok(false)) {
                    self.blobs.remove([segment.blob]);
                }
            }
        }
        written
    }

    /// Changes the index and removes the bytes that became unreachable.
    pub fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Outcome<(T, Released)>) -> Outcome<T> {
        let (value, released) = self.index.write(change)?;
        self.blobs.remove(released.0);
        Ok(value)
    }
}

/// Whether there is no file, or one without content, in which a new index would be made.
fn is_missing(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(file) => Ok(file.len() == 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::index::buckets;
    use crate::index::objects::{self, Condition};
    use crate::index::records::{Headers, Moment, Object};

    #[tokio::test]
    async fn failures_are_counted_and_refusals_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(&directory.path().join("store"), "local".into()).unwrap());
        let trouble = store.trouble.subscribe();
        let refused = store.run(|_| Err::<(), _>(s3s::s3_error!(NoSuchKey).into())).await;
        assert!(refused.is_err());
        assert_eq!(*trouble.borrow(), Trouble::default());
        let failed = store.run(|_| Err::<(), Failure>(std::io::Error::other("broken").into())).await;
        assert!(failed.is_err());
        assert_eq!(*trouble.borrow(), Trouble { count: 1, last: Some("disk: broken".into()) });
    }

    const ID: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn blobs_that_the_index_does_not_name_go_at_start() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let store = Store::open(&root, "local".into()).unwrap();
        let mut abandoned = store.blobs.stage().unwrap();
        abandoned.write(b"published, then the power went").unwrap();
        let abandoned = store.blobs.publish(abandoned).unwrap();
        fs::write(root.join("staging").join(ID), b"half").unwrap();
        assert!(store.blobs.read(abandoned).is_ok());
        drop(store);
        let store = Store::open(&root, "local".into()).unwrap();
        assert!(store.blobs.read(abandoned).is_err());
        assert!(!root.join("staging").join(ID).exists());
    }

    /// Writes a file, with the directories above it.
    fn plant(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"precious").unwrap();
    }

    #[test]
    fn a_directory_of_something_else_is_refused_and_left_as_it_was() {
        for path in ["staging/precious", "data/users/db.sqlite", "data/stray", &format!("data/00/{ID}")] {
            let root = tempfile::tempdir().unwrap();
            plant(root.path(), path);
            // Twice: a refusal must not leave behind what makes the next attempt succeed.
            for _ in 0..2 {
                let refused = Store::open(root.path(), "local".into()).unwrap_err().to_string();
                assert!(refused.contains("index.redb"), "{refused}");
                assert_eq!(fs::read(root.path().join(path)).unwrap(), b"precious", "{path}");
                assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "{path}: something was added");
            }
        }
    }

    #[test]
    fn objects_outlive_the_loss_of_the_index() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        let store = Store::open(&root, "local".into()).unwrap();
        let mut staged = store.blobs.stage().unwrap();
        staged.write(b"an object").unwrap();
        let blob = store.publish(Some((staged, 9)), |transaction, segments| {
            buckets::create(transaction, "bucket", Moment::now())?;
            let blob = segments.first().map(|segment| segment.blob);
            let object = Object {
                size: 9,
                etag: String::new(),
                modified: Moment::now(),
                checksum: None,
                headers: Headers::default(),
                segments,
            };
            Ok((blob, objects::put(transaction, "bucket", "k", &object, &Condition::default())?))
        });
        let blob = blob.unwrap().unwrap();
        drop(store);
        let (index, aside) = (root.join("index.redb"), root.join("aside"));
        fs::rename(&index, &aside).unwrap();
        assert!(Store::open(&root, "local".into()).is_err());
        fs::write(&index, b"").unwrap();
        assert!(Store::open(&root, "local".into()).is_err(), "an index that was cut to nothing");
        fs::rename(&aside, &index).unwrap();
        let store = Store::open(&root, "local".into()).unwrap();
        assert!(store.blobs.read(blob).is_ok());
    }

    #[test]
    fn a_first_start_that_was_cut_off_is_repeated() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["staging", "data/00", "data/ff"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        Store::open(root.path(), "local".into()).unwrap();
    }

    #[test]
    fn files_the_store_did_not_write_stay() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("store");
        drop(Store::open(&root, "local".into()).unwrap());
        let foreign = [
            "staging/precious".to_owned(),
            "staging/directory/precious".to_owned(),
            "data/stray".to_owned(),
            format!("data/users/{ID}"),
            "data/00/db.sqlite".to_owned(),
            // Another shard, and other spellings of an id.
            format!("data/ff/{ID}"),
            format!("data/00/{}", ID.to_uppercase()),
            "data/00/00112233-4455-6677-8899-aabbccddeeff".to_owned(),
            format!("data/00/{ID}/precious"),
        ];
        for path in &foreign {
            plant(&root, path);
        }
        let link = root.join("data/11").join(ID.replacen("00", "11", 1));
        std::os::unix::fs::symlink(root.join("data/stray"), &link).unwrap();
        drop(Store::open(&root, "local".into()).unwrap());
        for path in &foreign {
            assert!(root.join(path).exists(), "{path}");
        }
        assert!(link.is_symlink());
    }
}
