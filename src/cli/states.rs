//! Options that name a store of activations and the dialogues that it was read from.

use std::path::PathBuf;

use clap::Args;

use super::console::Console;
use super::dialogues::Source;
use pearlpoint::activations::Labelled;

/// A store and its dialogues.
#[derive(Args)]
pub struct StoreSource {
    /// A store of activations, made by `pearl extract`
    #[arg(long, value_name = "FOLDER")]
    pub store: PathBuf,
    #[command(flatten)]
    pub source: Source,
    /// Take a probe of other weights of the same model: another precision, or a fine-tune
    #[arg(long)]
    other_weights: bool,
}

impl StoreSource {
    pub fn new(store: PathBuf, source: Source) -> StoreSource {
        StoreSource { store, source, other_weights: false }
    }

    pub fn open(&self, console: &Console) -> anyhow::Result<Labelled> {
        // A missing store is said before a large file of dialogues is read.
        pearlpoint::activations::Store::open(&self.store)?;
        let states = Labelled::open(&self.store, self.source.read(console)?)?;
        Ok(states.with_other_weights(console.other_weights(self.other_weights)))
    }
}
