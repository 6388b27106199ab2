//! In-server tests: one transaction each, rolled back.
