//! A store and the dialogues that it was read from, opened together.

use std::path::PathBuf;

use clap::Args;

use crate::cli::dialogues::Source;
use pearlpoint::activations::{self, Store};
use pearlpoint::dialogue::Dialogues;
use pearlpoint::error::Error;

#[derive(Args)]
pub struct Held {
    /// A store that `pearl extract` made
    #[arg(long)]
    pub store: PathBuf,
    #[command(flatten)]
    pub source: Source,
}

impl Held {
    /// The store, the number of every row's dialogue, and the dialogues.
    pub fn open(self) -> anyhow::Result<(Store, Vec<usize>, Dialogues)> {
        let store = Store::open(&self.store)?;
        let data = self.source.read()?;
        activations::check_dialogues(&self.store, &store.header, &data.hash)?;
        // A row's dialogue is known by its number in the file, whatever was left out of it.
        let among = |line: usize| {
            data.indices.binary_search(&line).map_err(|_| {
                let found = format!("a row of dialogue {line} of the file, which is not among those read");
                Error::input(
                    self.store.display(),
                    found,
                    "the --where and --limit that the store was read with",
                )
            })
        };
        let example = store.example()?.into_iter().map(among).collect::<Result<_, Error>>()?;
        Ok((store, example, data))
    }
}
