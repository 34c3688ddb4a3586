//! The options that say which dialogues a command takes.

use std::path::PathBuf;

use clap::Args;

use crate::dialogue::{self, ColumnMap, Dialogue, Dialogues, Options};
use crate::error::Error;

/// A file of dialogues, and how it is read.
#[derive(Args)]
pub struct Source {
    /// Dialogues: JSON Lines, CSV or TSV
    #[arg(long)]
    pub data: PathBuf,
    #[command(flatten)]
    pub filter: Filter,
}

#[derive(Args)]
pub struct Filter {
    /// What columns mean, where the layout is not a known one: prompt=COLUMN,label.risk=COLUMN
    #[arg(long)]
    map: Option<ColumnMap>,
    /// Take this many dialogues at most
    #[arg(long)]
    limit: Option<usize>,
    /// Only dialogues with this label: NAME=VALUE
    #[arg(long = "where", value_name = "NAME=VALUE")]
    with: Vec<String>,
    /// Leave out bad records and count them, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
}

impl Source {
    pub fn read(self) -> anyhow::Result<Dialogues> {
        self.filter.read(&self.data)
    }
}

impl Filter {
    pub fn read(self, data: &std::path::Path) -> anyhow::Result<Dialogues> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=')?;
            Some((name.to_string(), value.to_string()))
        };
        let wrong = |text: &String| Error::input(format!("--where {text}"), "no condition", "NAME=VALUE");
        let pairs = self.with.iter().map(|text| pair(text).ok_or_else(|| wrong(text)));
        let where_label = pairs.collect::<Result<_, _>>()?;
        let options = Options { map: self.map, limit: self.limit, where_label, skip_bad: self.skip_bad };
        Ok(dialogue::read(data, &options)?)
    }
}

/// One prompt from the command line, or a file.
#[derive(Args)]
pub struct Prompts {
    /// One user message
    #[arg(long, conflicts_with = "data", required_unless_present = "data")]
    prompt: Option<String>,
    /// Dialogues: JSON Lines, CSV or TSV
    #[arg(long)]
    data: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
}

impl Prompts {
    pub fn read(self) -> anyhow::Result<Vec<Dialogue>> {
        match (self.prompt, self.data) {
            (Some(prompt), _) => Ok(vec![Dialogue::prompt("prompt", prompt)]),
            (None, data) => Ok(self.filter.read(&data.unwrap_or_default())?.dialogues),
        }
    }
}
