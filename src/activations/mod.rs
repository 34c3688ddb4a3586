//! Hidden states: read by a hook, kept in memory or in a folder.

mod shared_prefix;
mod verify;
mod extract;
mod journal;
mod labelled;
mod manifest;
mod merge;
mod batching;
mod recorder;
mod extract_to_store;
mod shard;
mod store;

pub use extract::{Activations, Reading, extract, extract_each};
pub use extract_to_store::{ExtractProgress, Summary, extract_to};
pub use labelled::Labelled;
pub use manifest::{Manifest, Part};
pub use merge::merge;
pub use recorder::{Place, Recorder};
pub use store::{Store, check_dialogues, load, of_dialogues, save};
pub use verify::check;
