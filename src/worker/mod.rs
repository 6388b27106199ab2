//! Background workers.

pub mod failed_attempt;
pub mod local_store;
