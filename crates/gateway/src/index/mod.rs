//! The index: which buckets and objects there are and where their bytes lie, in one redb database.
//!
//! An object appears, changes and goes in one transaction, so a reader sees all of an object or none of it,
//! and of any number of create-only writers exactly one finds the key free.

pub mod buckets;
pub mod list;
pub mod objects;
pub mod records;
pub mod uploads;

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::failure::{Failure, Outcome};
use records::Segment;

/// Bucket name to [`records::Bucket`].
const BUCKETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("buckets");
/// Bucket and key to [`records::Object`]. Keys are bytes, so a listing can start anywhere, not only at a valid text.
const OBJECTS: TableDefinition<'_, (&str, &[u8]), &[u8]> = TableDefinition::new("objects");
/// Bucket, key and upload id to [`records::Upload`].
const UPLOADS: TableDefinition<'_, (&str, &[u8], &str), &[u8]> = TableDefinition::new("uploads");
/// Upload id and part number to [`records::Part`].
const PARTS: TableDefinition<'_, (&str, u32), &[u8]> = TableDefinition::new("parts");
/// Blob id to how many objects and parts refer to it; copies share their bytes.
const BLOBS: TableDefinition<'_, u128, u64> = TableDefinition::new("blobs");

/// Pages of the database kept in memory, in bytes. redb's own default is 1 GiB, too much for a guest in a database server.
const CACHE: usize = 8 * 1024 * 1024;

/// The open index.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    /// `None` after an I/O error, until it could be opened again.
    database: RwLock<Option<Database>>,
}

impl Index {
    /// Opens or creates the index file. Fails when another process has it open.
    pub fn open(path: &Path) -> Outcome<Self> {
        let database = open_database(path)?;
        Ok(Self { path: path.to_owned(), database: RwLock::new(Some(database)) })
    }

    /// Runs `read` on one consistent state of the index.
    pub fn read<T>(&self, read: impl FnOnce(&ReadTransaction) -> Outcome<T>) -> Outcome<T> {
        let outcome = self.database(|database| read(&database.begin_read()?));
        self.heal(outcome)
    }

    /// Runs `change` alone and makes it durable; on an error nothing of it remains.
    ///
    /// When the commit itself fails, whether it took effect is settled by reopening the index before this returns.
    pub fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Outcome<T>) -> Outcome<T> {
        let outcome = self.database(|database| {
            let transaction = database.begin_write()?;
            let value = change(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        self.heal(outcome)
    }

    /// Whether anything refers to the blob.
    pub fn knows_blob(&self, blob: Uuid) -> Outcome<bool> {
        self.read(|transaction| Ok(transaction.open_table(BLOBS)?.get(blob.as_u128())?.is_some()))
    }

    fn database<T>(&self, use_it: impl FnOnce(&Database) -> Outcome<T>) -> Outcome<T> {
        let guard = self.opened()?;
        match guard.as_ref() {
            Some(database) => use_it(database),
            None => Err(Failure::Index(redb::Error::DatabaseClosed)),
        }
    }

    fn opened(&self) -> Outcome<RwLockReadGuard<'_, Option<Database>>> {
        {
            let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
            if guard.is_some() {
                return Ok(guard);
            }
        }
        self.reopen(|database| database.is_none())?;
        Ok(self.database.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// redb refuses all work after an I/O error (a full disk, most likely), so the index is opened anew,
    /// which also drops whatever the failed transaction left in the file.
    fn heal<T>(&self, outcome: Outcome<T>) -> Outcome<T> {
        if let Err(failure) = &outcome
            && failure.breaks_index()
        {
            // When this fails too, the next operation tries again.
            let _ = self.reopen(|database| database.as_ref().is_none_or(|open| open.begin_write().is_err()));
        }
        outcome
    }

    fn reopen(&self, broken: impl FnOnce(&Option<Database>) -> bool) -> Outcome<()> {
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if broken(&guard) {
            *guard = None;
            *guard = Some(open_database(&self.path)?);
        }
        Ok(())
    }
}

fn open_database(path: &Path) -> Outcome<Database> {
    let database = Database::builder().set_cache_size(CACHE).create(path)?;
    if has_tables(&database)? {
        // Nothing to write: on a full disk the index still opens, and reads go on.
        return Ok(database);
    }
    let transaction = database.begin_write()?;
    transaction.open_table(BUCKETS)?;
    transaction.open_table(OBJECTS)?;
    transaction.open_table(UPLOADS)?;
    transaction.open_table(PARTS)?;
    transaction.open_table(BLOBS)?;
    transaction.commit()?;
    Ok(database)
}

fn has_tables(database: &Database) -> Outcome<bool> {
    // The last one made, in the one transaction that makes them all.
    match database.begin_read()?.open_table(BLOBS) {
        Ok(_) => Ok(true),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What a transaction made unreachable: blobs to remove once it is committed.
#[must_use]
#[derive(Debug, Default)]
pub struct Released(pub Vec<Uuid>);

fn hold(blobs: &mut Table<'_, u128, u64>, segments: &[Segment]) -> Outcome<()> {
    for segment in segments {
        let id = segment.blob.as_u128();
        let count = blobs.get(id)?.map_or(0, |count| count.value());
        blobs.insert(id, count + 1)?;
    }
    Ok(())
}

fn release(blobs: &mut Table<'_, u128, u64>, segments: &[Segment], released: &mut Released) -> Outcome<()> {
    for segment in segments {
        let id = segment.blob.as_u128();
        let count = blobs.get(id)?.map_or(0, |count| count.value());
        if count > 1 {
            blobs.insert(id, count - 1)?;
        } else {
            blobs.remove(id)?;
            released.0.push(segment.blob);
        }
    }
    Ok(())
}

fn encode<T: Serialize>(record: &T) -> Outcome<Vec<u8>> {
    Ok(serde_json::to_vec(record)?)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Outcome<T> {
    Ok(serde_json::from_slice(bytes)?)
}

/// The tables a transaction of either kind can open for reading.
pub trait Tables {
    /// Opens a table for reading.
    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        definition: TableDefinition<'_, K, V>,
    ) -> Outcome<impl ReadableTable<K, V>>;
}

impl Tables for ReadTransaction {
    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        definition: TableDefinition<'_, K, V>,
    ) -> Outcome<impl ReadableTable<K, V>> {
        Ok(self.open_table(definition)?)
    }
}

impl Tables for WriteTransaction {
    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        &self,
        definition: TableDefinition<'_, K, V>,
    ) -> Outcome<impl ReadableTable<K, V>> {
        Ok(self.open_table(definition)?)
    }
}
