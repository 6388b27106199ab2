//! Background workers.

pub mod local_store;
