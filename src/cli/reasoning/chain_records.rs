//! Records with a chain each, and how chains are written.

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Map, Value};

use pearlpoint::Error;
use pearlpoint::dialogue::{self, Dialogue, ReadOptions, Role, records};
use pearlpoint::reasoning::{Chain, ChainForm, organism, oyster, sentences};

/// How chains are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The embedded model's grammar.
    Organism,
    /// Oyster-I's JSON of four nodes.
    Oyster,
    /// Free text, each sentence by its cue words (English).
    Text,
}

/// Columns that may hold a chain, in order of preference.
const COLUMNS: [&str; 7] =
    ["Safety_chain", "Initial_think", "thinking", "think", "completion", "response", "text"];

impl Format {
    /// The chain of a text.
    pub fn parse(self, place: &str, text: &str) -> pearlpoint::Result<Chain> {
        match self {
            Format::Organism => organism::parse(place, text),
            Format::Oyster => oyster::parse(place, text),
            Format::Text => {
                let sentences = sentences::sentences(text);
                let labelled: Vec<_> =
                    sentences.into_iter().map(|sentence| (sentence, sentences::by_cues(sentence))).collect();
                sentences::chain(place, &labelled)
            }
        }
    }
}

/// [`chain_text`] of a record that has to have one.
pub fn expected_chain(
    place: &str,
    record: &Map<String, Value>,
    column: Option<&str>,
) -> pearlpoint::Result<String> {
    chain_text(record, column).ok_or_else(|| {
        let known: Vec<&str> = record.keys().map(String::as_str).take(12).collect();
        let expected = match column {
            Some(name) => format!("a column {name} with a chain"),
            None => format!("a column of {} with a chain", COLUMNS.join(", ")),
        };
        Error::input(place, format!("no chain among {}", known.join(", ")), expected)
    })
}

impl From<Format> for ChainForm {
    fn from(format: Format) -> ChainForm {
        match format {
            Format::Organism => ChainForm::Organism,
            Format::Oyster => ChainForm::Oyster,
            Format::Text => ChainForm::Text,
        }
    }
}

/// A dialogue up to its last answer, with the place and the columns of its record.
pub type Recorded = (Dialogue, String, Map<String, Value>);

/// The dialogues of a file up to their last answer, each with its record.
pub fn with_records(path: &Path, limit: Option<usize>) -> pearlpoint::Result<Vec<Recorded>> {
    let read = dialogue::read(path, &ReadOptions::default().limit(limit))?;
    let columns = records(path)?.take(read.dialogues.len()).collect::<pearlpoint::Result<Vec<_>>>()?;
    if columns.len() < read.dialogues.len() || (limit.is_none() && records(path)?.count() > columns.len()) {
        let found = format!("{} dialogues of another number of records", read.dialogues.len());
        return Err(Error::input(path.display(), found, "one dialogue a record"));
    }
    let mut joined = Vec::with_capacity(columns.len());
    for (mut dialogue, (place, columns)) in read.dialogues.into_iter().zip(columns) {
        while dialogue.messages.len() > 1
            && dialogue.messages.last().is_some_and(|last| last.role == Role::Assistant)
        {
            dialogue.messages.pop();
        }
        joined.push((dialogue, place, columns));
    }
    Ok(joined)
}

/// The text of a record's chain: in the column named, or in the first of the usual ones.
pub fn chain_text(record: &Map<String, Value>, column: Option<&str>) -> Option<String> {
    let names = column.map_or(COLUMNS.to_vec(), |name| vec![name]);
    names.iter().find_map(|name| match record.get(*name)? {
        Value::String(text) => Some(text.clone()),
        object @ Value::Object(_) => Some(object.to_string()),
        _ => None,
    })
}
