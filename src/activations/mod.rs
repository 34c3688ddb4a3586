//! Hidden states: read by a hook, kept in memory or in a folder.

mod extract;
mod recorder;
mod store;

pub use extract::{Activations, Reading, extract, extract_each};
pub use recorder::{Place, Recorder};
pub use store::{Manifest, Store, check_dialogues, load, save};
