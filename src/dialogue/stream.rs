//! Streaming of the dialogues of a file, with filtering and error recovery.
//!
//! One record is in memory at a time, and for each dialogue the hash of its id.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use super::byte_source::ReadProgress;
use super::datasets;
use super::dialogue::Dialogue;
use super::file_format::open;
use super::raw_record::{Place, Records};
use super::read_options::ReadOptions;
use crate::error::{Error, Result};

/// Records that were left out, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// Number of records.
    pub count: usize,
    /// The errors of the first ones, each with its line.
    pub reasons: Vec<String>,
}

/// Reasons that are kept.
const REASONS: usize = 8;

/// Bad records in a row after which a file is not read on: it is no file of dialogues, and may unpack without end.
const BAD_IN_A_ROW: usize = 500_000;

impl Skipped {
    /// Counts a record that was left out for an error.
    pub fn add(&mut self, error: &Error) {
        if self.reasons.len() < REASONS {
            self.reasons.push(error.to_string());
        }
        self.count += 1;
    }
}

/// Streams the dialogues of a file in constant memory, each with its index in the file (see [`Dialogues::indices`](super::Dialogues::indices)).
///
/// # Errors
/// A file that can't be opened or is of no supported format.
pub fn stream(path: impl AsRef<Path>, options: &ReadOptions) -> Result<DialogueStream> {
    let path = path.as_ref();
    let (records, progress) = open(path)?;
    Ok(DialogueStream {
        records,
        progress,
        path: path.to_owned(),
        options: options.clone(),
        pending: Vec::new().into_iter(),
        place: Place { path: path.to_owned(), line: 0, element: None },
        ids: HashMap::new(),
        records_read: 0,
        next_index: 0,
        yielded: 0,
        skipped: Skipped::default(),
        bad_in_a_row: 0,
        seen_values: BTreeSet::new(),
    })
}

/// Values of a label that an error lists.
const SHOWN_VALUES: usize = 12;

/// Iterator over the dialogues of a file; see [`stream`].
pub struct DialogueStream {
    records: Records,
    progress: ReadProgress,
    path: PathBuf,
    options: ReadOptions,
    /// Dialogues of the last record that are still to be yielded: a contrast pair holds two.
    pending: std::vec::IntoIter<Dialogue>,
    /// Where that record is.
    place: Place,
    /// By the hash of an id that was yielded, the line or element that has it.
    ids: HashMap<u64, u64>,
    records_read: usize,
    /// Index in the file of the next dialogue; a bad record counts as one.
    next_index: usize,
    yielded: usize,
    pub(super) skipped: Skipped,
    /// Bad records since the last good one.
    bad_in_a_row: usize,
    /// Some values of the first label in the options, for the error when no dialogue matches.
    seen_values: BTreeSet<String>,
}

impl DialogueStream {
    /// Progress of reading.
    pub fn progress(&self) -> ReadProgress {
        self.progress.clone()
    }

    /// Bad records skipped so far.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    fn is_selected(&mut self, dialogue: &Dialogue) -> bool {
        if let Some(label) = self.options.where_label.first().and_then(|(name, _)| dialogue.label(name))
            && self.seen_values.len() < SHOWN_VALUES
        {
            self.seen_values.insert(label);
        }
        let matches = |(name, value): &(String, String)| {
            let label = dialogue.labels.get(name);
            label.is_some_and(|label| label.holds(value) || label.to_string() == *value)
        };
        self.options.where_label.iter().all(matches)
    }

    /// Refuses an id that a dialogue before it has: rows, answers and plans find dialogues by their ids.
    fn check_id(&mut self, id: &str) -> Result<()> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let here = self.place.element.unwrap_or(self.place.line);
        match self.ids.entry(hasher.finish()) {
            Entry::Vacant(entry) => {
                entry.insert(here);
                Ok(())
            }
            Entry::Occupied(first) => {
                let what = if self.place.element.is_some() { "element" } else { "line" };
                let found = format!("the id `{id}`, which {what} {} has too", first.get());
                let expected = "ids that differ, also as text; without ids, a record's index counts";
                Err(Error::input(&self.place, found, expected))
            }
        }
    }

    /// The error for a stream that yielded no dialogue: it says why.
    pub fn no_dialogue(&self) -> Error {
        let path = self.path.display();
        if self.records_read == 0 {
            return Error::input(path, "no dialogue in the file", "at least one record");
        }
        if self.skipped.count == self.records_read {
            let first = self.skipped.reasons.first().map_or("", String::as_str);
            let found = format!("none of the {} records could be read", self.records_read);
            return Error::input(path, found, format!("records; the first: {first}"));
        }
        if self.options.limit == Some(0) {
            return Error::input(path, "a limit of 0 dialogues", "a limit of at least 1");
        }
        let conditions = self.options.where_label.iter().map(|(name, value)| format!("{name}={value}"));
        let conditions = conditions.collect::<Vec<_>>().join(" and ");
        let seen: Vec<&str> = self.seen_values.iter().map(String::as_str).collect();
        let expected = match self.options.where_label.first() {
            Some((name, _)) if seen.is_empty() => {
                format!("a label that the dialogues have; none has `{name}`")
            }
            Some((name, _)) => format!("labels that occur together; {name} is one of {}", seen.join(", ")),
            None => "at least one dialogue".into(),
        };
        Error::input(path, format!("no dialogue with {conditions} among {}", self.records_read), expected)
    }
}

impl Iterator for DialogueStream {
    type Item = Result<(usize, Dialogue)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.options.limit.is_some_and(|limit| self.yielded >= limit) {
                // A limit of 0 reads no record; `no_dialogue` must blame the limit, not the file.
                self.records_read = self.records_read.max(1);
                return None;
            }
            if let Some(dialogue) = self.pending.next() {
                self.next_index += 1;
                if self.is_selected(&dialogue) {
                    match self.check_id(&dialogue.id) {
                        Ok(()) => {
                            self.yielded += 1;
                            return Some(Ok((self.next_index - 1, dialogue)));
                        }
                        Err(error) if self.options.skip_bad => self.skipped.add(&error),
                        Err(error) => return Some(Err(error)),
                    }
                }
                continue;
            }
            let record = self.records.next()?;
            self.records_read += 1;
            let dialogues = record.and_then(|record| {
                self.place = record.place.clone();
                datasets::dialogues(&record, self.records_read - 1, self.options.map.as_ref())
            });
            match dialogues {
                Ok(dialogues) => {
                    self.pending = dialogues.into_iter();
                    self.bad_in_a_row = 0;
                }
                Err(error @ Error::Input { .. })
                    if self.options.skip_bad && self.bad_in_a_row < BAD_IN_A_ROW =>
                {
                    self.skipped.add(&error);
                    self.bad_in_a_row += 1;
                    self.next_index += 1;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
