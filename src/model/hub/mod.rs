//! Models of the Hugging Face hub, in the cache of its own client: found there, and fetched into it.
//!
//! A name in (a path, or `ORG/NAME@REVISION`), a folder out. Cache layout: `models--ORG--NAME/refs/REVISION` holds a commit,
//! `snapshots/COMMIT/` the files.

mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod fetch;
mod repo;
mod settings;

pub(in crate::model) use cache::find;
#[cfg(feature = "hub")]
pub use fetch::{Fetched, fetch};
