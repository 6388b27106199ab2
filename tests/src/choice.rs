//! The store of those tests that are about no store in particular: the local one, or what `PG_STORAGE_TEST_STORE` names.

use crate::{Ceph, Garage, StoreAccess, say};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The one that the extension serves.
    Local,
    /// Garage, one node.
    Garage,
    /// Garage, three nodes of which one is killed and comes back all the time.
    GarageThree,
    /// Ceph's gateway.
    Ceph,
}

impl Kind {
    /// What was chosen; `None`: nothing, so that tests of what differs between stores take several.
    pub fn chosen() -> Option<Self> {
        let named = std::env::var("PG_STORAGE_TEST_STORE").ok().filter(|named| !named.is_empty())?;
        Some(match named.as_str() {
            "local" => Self::Local,
            "garage" => Self::Garage,
            "garage3" => Self::GarageThree,
            "ceph" => Self::Ceph,
            _ => panic!("PG_STORAGE_TEST_STORE is {named}, not local, garage, garage3 or ceph"),
        })
    }

    /// How to reach the chosen one, if it is not the one that the extension serves.
    pub fn chosen_access() -> Option<&'static StoreAccess> {
        match Self::chosen()? {
            Self::Local => None,
            Self::Garage => Some(Garage::shared().access()),
            Self::GarageThree => Some(Garage::shared_three().access()),
            Self::Ceph => Some(Ceph::shared().access()),
        }
    }
}

/// Says that this test does not use the chosen store, and why.
pub(crate) fn stays(why: &str) {
    if matches!(Kind::chosen(), Some(kind) if kind != Kind::Local) {
        let thread = std::thread::current();
        say(&format!("stays on the local store: {}: {why}", thread.name().unwrap_or("a thread")));
    }
}

/// Says that what this test asserts is not asked of the chosen store, because `check()` reports that it cannot.
pub fn lacks(what: &str) {
    let thread = std::thread::current();
    say(&format!("reported lack: {}: {what}", thread.name().unwrap_or("a thread")));
}
