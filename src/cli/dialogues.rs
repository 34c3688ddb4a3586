//! The options that say which dialogues a command takes.

use std::path::PathBuf;

use clap::Args;

use super::progress::Console;
use pearlpoint::dialogue::{self, ColumnMap, DatasetSummary, Dialogue, Dialogues, ReadOptions};
use pearlpoint::error::Error;

/// A file of dialogues, and how it is read.
#[derive(Args)]
pub struct Source {
    /// Dialogues: JSON Lines, CSV or TSV (with .gz or .zst too), or Parquet
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

    /// Looks through the file before long work on it begins.
    pub fn survey(&self, talk: &Console) -> anyhow::Result<(ReadOptions, DatasetSummary)> {
        let options = self.filter.options()?;
        let bar = talk.bar(100, "looking");
        let survey = dialogue::summarize(&self.data, &options, &mut |done| {
            bar.set_position((100.0 * done) as u64);
            talk.should_continue()
        });
        bar.finish_and_clear();
        Ok((options, survey?))
    }
}

/// Bad records are left out, but not in silence.
pub fn say_skipped(talk: &Console, skipped: usize) {
    if skipped > 0 {
        talk.say(format!("{skipped} bad records were left out"));
    }
}

impl Filter {
    fn options(&self) -> anyhow::Result<ReadOptions> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=')?;
            Some((name.to_string(), value.to_string()))
        };
        let wrong = |text: &String| Error::input(format!("--where {text}"), "no condition", "NAME=VALUE");
        let options =
            ReadOptions::default().map(self.map.clone()).limit(self.limit).skip_bad(self.skip_bad);
        self.with.iter().try_fold(options, |options, text| {
            let (name, value) = pair(text).ok_or_else(|| wrong(text))?;
            Ok(options.where_label(name, value))
        })
    }

    pub fn read(self, data: &std::path::Path) -> anyhow::Result<Dialogues> {
        let read = dialogue::read(data, &self.options()?)?;
        if read.skipped > 0 {
            eprintln!("{} bad records were left out", read.skipped);
        }
        Ok(read)
    }
}

/// One prompt from the command line, or a file.
#[derive(Args)]
pub struct Prompts {
    /// One user message
    #[arg(long, conflicts_with = "data", required_unless_present = "data")]
    prompt: Option<String>,
    /// Dialogues: JSON Lines, CSV or TSV (with .gz or .zst too), or Parquet
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

    /// One by one. That there is none, or a bad record, is said when it is come to.
    pub fn stream(
        self,
        talk: &Console,
    ) -> anyhow::Result<Box<dyn Iterator<Item = pearlpoint::Result<Dialogue>> + '_>> {
        if let Some(prompt) = self.prompt {
            return Ok(Box::new(std::iter::once(Ok(Dialogue::prompt("prompt", prompt)))));
        }
        let mut stream = dialogue::stream(self.data.unwrap_or_default(), &self.filter.options()?)?;
        let mut given = 0;
        Ok(Box::new(std::iter::from_fn(move || match stream.next() {
            Some(item) => {
                given += 1;
                Some(item.map(|(_, dialogue)| dialogue))
            }
            None if given == 0 => {
                given += 1;
                Some(Err(stream.no_dialogue()))
            }
            None => {
                say_skipped(talk, stream.skipped());
                None
            }
        })))
    }
}
