//! Hidden states: recorded by a hook, extracted from dialogues in batches, kept in memory or in a store on disk.
//!
//! - [`Request`]: sites and tokens; [`extract()`]: dialogues to [`Activations`]; [`extract_to_store()`]: dialogues to a folder.
//! - [`Store`], [`merge()`], [`check`], [`export()`]: reading, merging, verifying and exporting such folders.
//! - [`Recorder`]: the hook, for forward passes of one's own.

#[expect(clippy::module_inception, reason = "the file of the type that the folder is named after")]
mod activations;
mod batching;
mod export;
mod extract;
mod extract_to_store;
mod gradients;
mod journal;
mod labelled;
mod manifest;
mod merge;
mod recorder;
mod request;
mod shard;
mod shared_prefix;
mod steering;
mod store;
mod verify;

pub use crate::artifact::Part;
pub use activations::Activations;
pub use batching::TokenisedDialogue;
pub use export::{ExportFormat, export};
pub use extract::{extract, extract_after, extract_each, extract_steered, extract_tokenised};
pub use extract_to_store::{
    ExtractProgress, StoreOptions, Summary, extract_steered_to_store, extract_to_store,
};
pub use gradients::{Readout, SiteGradient};
pub use labelled::Labelled;
pub use manifest::Manifest;
pub use merge::merge;
pub use recorder::{Recorder, RowOrigin};
pub use request::{BATCH_TOKENS, Request};
pub use steering::Steering;
pub use store::{Store, check_dialogues, load, save};
pub use verify::check;
