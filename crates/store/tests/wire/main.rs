//! What goes over the wire and what is made of the answers, against a scripted server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod canned;
mod credentials;
mod deadlines;
mod errors;
mod injection;
mod probing;
mod probing_ways;
mod provisioning;
mod redirects;
mod requests;
mod serving;
mod signature;
mod threads;
mod uploads;
mod verifying_direct;
mod verifying_found;
mod verifying_staged;
