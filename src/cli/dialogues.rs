//! Options that say which dialogues a command takes.

use std::path::{Path, PathBuf};

use clap::Args;

use super::console::Console;
use pearlpoint::dialogue::{self, ColumnMap, DatasetSummary, Dialogue, Dialogues, ReadOptions, Skipped};
use pearlpoint::error::Error;

/// A label and its value, as `NAME=VALUE`; `option` is what an error begins with.
pub fn label_value(option: &str, text: &str) -> pearlpoint::Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(Error::input(option, format!("{text:?}"), "NAME=VALUE")),
    }
}

/// Labels and their values.
pub fn label_values(option: &str, texts: &[String]) -> pearlpoint::Result<Vec<(String, String)>> {
    texts.iter().map(|text| label_value(option, text)).collect()
}

/// A file of dialogues.
#[derive(Args)]
pub struct Source {
    /// Dialogues: JSON Lines, JSON, CSV or TSV (also .gz and .zst), or Parquet
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    #[command(flatten)]
    pub filter: Filter,
}

/// Which dialogues of a file are taken, and how its columns are read.
#[derive(Args)]
pub struct Filter {
    /// What the columns mean, if the layout is not a known one: prompt=COLUMN,label.risk=COLUMN
    #[arg(long)]
    map: Option<ColumnMap>,
    /// Take at most this many dialogues
    #[arg(long)]
    limit: Option<usize>,
    /// Take only dialogues with this label; may be repeated
    #[arg(long = "where", value_name = "NAME=VALUE")]
    labels: Vec<String>,
    /// Leave bad records out and count them, instead of stopping at the first
    #[arg(long)]
    skip_bad: bool,
}

impl Source {
    pub fn read(&self, console: &Console) -> anyhow::Result<Dialogues> {
        self.filter.read(&self.data, console)
    }

    /// Reads the file through once, so that a bad record is found before long work begins.
    pub fn survey(&self, console: &Console) -> anyhow::Result<(ReadOptions, DatasetSummary)> {
        let options = self.filter.options()?;
        let bar = console.bar(100, "surveying");
        let survey =
            dialogue::summarize(&self.data, &options, &mut |done| bar.done((100.0 * done) as usize))?;
        Ok((options, survey))
    }
}

/// Says which records were left out, if any: the first ones with their reasons, and how many. `what` names them.
pub fn say_skipped(console: &Console, skipped: &Skipped, what: &str) {
    for reason in &skipped.reasons {
        console.say(format!("left out: {reason}"));
    }
    match skipped.count - skipped.reasons.len() {
        0 => {}
        more => console.say(format!("left out: {more} more")),
    }
    if skipped.count > 0 {
        console.say(format!("{} {what} were left out", skipped.count));
    }
}

impl Filter {
    fn options(&self) -> anyhow::Result<ReadOptions> {
        let options = ReadOptions::default().map(self.map.clone()).limit(self.limit).skip_bad(self.skip_bad);
        self.labels.iter().try_fold(options, |options, text| match text.split_once('=') {
            Some((name, value)) => Ok(options.where_label(name, value)),
            None => Err(Error::input(format!("--where {text}"), "no condition", "NAME=VALUE").into()),
        })
    }

    pub fn read(&self, data: &Path, console: &Console) -> anyhow::Result<Dialogues> {
        let read = dialogue::read(data, &self.options()?)?;
        say_skipped(console, &read.skipped, "bad records");
        Ok(read)
    }
}

/// The longest file that is read to its end before its first dialogue is shown, in bytes.
const READ_FIRST: u64 = 64 << 20;

/// One prompt from the command line, or a file of dialogues.
#[derive(Args)]
pub struct Prompts {
    /// One user message
    #[arg(long, conflicts_with = "data", required_unless_present = "data")]
    prompt: Option<String>,
    /// Dialogues: JSON Lines, JSON, CSV or TSV (also .gz and .zst), or Parquet
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    #[command(flatten)]
    filter: Filter,
}

impl Prompts {
    pub fn read(self, console: &Console) -> anyhow::Result<Vec<Dialogue>> {
        match (self.prompt, self.data) {
            (Some(prompt), _) => Ok(vec![Dialogue::prompt("prompt", prompt)]),
            (None, data) => Ok(self.filter.read(&data.unwrap_or_default(), console)?.dialogues),
        }
    }

    /// The dialogues one by one, in memory that does not grow. A bad record, or a file without any, is an error item; in a file
    /// of usual size it is found here, before anything is printed.
    pub fn stream(
        self,
        console: &Console,
    ) -> anyhow::Result<Box<dyn Iterator<Item = pearlpoint::Result<Dialogue>> + '_>> {
        if let Some(prompt) = self.prompt {
            return Ok(Box::new(std::iter::once(Ok(Dialogue::prompt("prompt", prompt)))));
        }
        let (data, options) = (self.data.unwrap_or_default(), self.filter.options()?);
        if std::fs::metadata(&data).is_ok_and(|file| file.is_file() && file.len() <= READ_FIRST) {
            dialogue::summarize(&data, &options, &mut |_| console.should_continue())?;
        }
        let mut stream = dialogue::stream(data, &options)?;
        let mut count = 0;
        Ok(Box::new(std::iter::from_fn(move || match stream.next() {
            Some(item) => {
                count += 1;
                Some(item.map(|(_, dialogue)| dialogue))
            }
            None if count == 0 => {
                count += 1;
                Some(Err(stream.no_dialogue()))
            }
            None => {
                say_skipped(console, stream.skipped(), "bad records");
                None
            }
        })))
    }
}

/// Ids that an error lists.
const LISTED: usize = 8;

/// The dialogue with an id; the error names ids that there are.
pub fn by_id<'a>(dialogues: &'a [Dialogue], option: &str, id: &str) -> pearlpoint::Result<&'a Dialogue> {
    dialogues.iter().find(|dialogue| dialogue.id == id).ok_or_else(|| {
        let ids: Vec<&str> = dialogues.iter().take(LISTED).map(|dialogue| dialogue.id.as_str()).collect();
        let more = if dialogues.len() > LISTED { ", …" } else { "" };
        Error::input(option, format!("no dialogue {id}"), format!("one of {}{more}", ids.join(", ")))
    })
}
