//! A store and the dialogues that it was read from, opened together.

use std::path::PathBuf;

use clap::Args;

use crate::activations::{self, Activations, Store};
use crate::cli::dialogues::Source;
use crate::dialogue::Dialogues;

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
        let rows =
            Activations { sites: Vec::new(), example: store.example()?, position: Vec::new(), tokens: 0 };
        activations::check_dialogues(&self.store, &store.header, &rows, &data.hash, data.dialogues.len())?;
        Ok((store, rows.example, data))
    }
}
