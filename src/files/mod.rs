//! Files once they are there: found.

pub mod listing;
