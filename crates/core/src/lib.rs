//! The pure half of `pg_storage`: everything that is decided without a socket, a clock or a database.
//!
//! Input is parsed once, into a type that cannot hold anything else ([`name`], [`content_type`], [`origin`], [`endpoint`],
//! [`digest`]); the rest computes on those types. What is refused is an [`error::Invalid`] carrying a stable
//! [`error::Token`]; which SQLSTATE a token has is the extension's business.

#![forbid(unsafe_code)]

pub mod agreement;
pub mod backoff;
pub mod cache;
pub mod content_type;
pub mod digest;
pub mod disposition;
pub mod endpoint;
pub mod error;
mod family;
pub mod key;
pub mod lifetime;
pub mod name;
pub mod origin;
pub mod page_token;
pub mod parts;
pub mod path;
pub mod physical;
pub mod policy;
pub mod prefix;
pub mod presign;
pub mod rate;
mod slug;
pub mod upload;
