//! Hidden states: read by a hook, kept in memory or in a folder.

mod beginnings;
mod check;
mod extract;
mod journal;
mod manifest;
mod merge;
mod pass;
mod recorder;
mod run;
mod shard;
mod store;

pub use check::check;
pub use extract::{Activations, Reading, extract, extract_each};
pub use manifest::{Manifest, Part};
pub use merge::merge;
pub use recorder::{Place, Recorder};
pub use run::{Heard, Summary, extract_to};
pub use store::{Store, check_dialogues, load, of_dialogues, save};
