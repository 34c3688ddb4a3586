//! Reads a file of dialogues, whatever its format: picks the reader by the file's name, counts, filters, skips.
//! It knows nothing of any one format or layout.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::byte_source;
use super::byte_source::{Packing, Progress};
use super::column_map::ColumnMap;
use super::dialogue::Dialogue;
use super::{csv, datasets, jsonl};
use crate::artifact;
use crate::error::{Error, Result};

/// One record of a file, before it is known what its columns mean.
pub(super) struct Record {
    /// The line that it begins on, from 1.
    pub line: u64,
    pub columns: Map<String, Value>,
}

/// What a reader gives. An [`Error::Input`] is about one record, and the reader goes on after it;
/// any other error is the last item.
pub(super) type Records = Box<dyn Iterator<Item = Result<Record>>>;

/// Which dialogues of a file are wanted, and how its columns are understood.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// What the columns mean, where the layout is not one of the known ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<ColumnMap>,
    /// Stop after this many dialogues.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Only dialogues with all of these labels. A label that is a list need only hold the value.
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    pub where_label: Vec<(String, String)>,
    /// Leave out bad records and count them, instead of stopping at the first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub skip_bad: bool,
}

/// A file of dialogues, read.
#[derive(Clone, Debug)]
pub struct Dialogues {
    pub path: PathBuf,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub hash: String,
    /// At least one.
    pub dialogues: Vec<Dialogue>,
    /// For each dialogue, its number in the file, from 0, whatever was left out: the number of its record (a table's
    /// header is no record), but that a contrast pair counts as two.
    pub lines: Vec<usize>,
    /// How many bad records were left out.
    pub skipped: usize,
}

/// Reads all the dialogues of a file. No dialogue at all is an error.
pub fn read(path: &Path, options: &Options) -> Result<Dialogues> {
    let mut stream = stream(path, options)?;
    let (mut dialogues, mut lines) = (Vec::new(), Vec::new());
    for item in &mut stream {
        let (line, dialogue) = item?;
        lines.push(line);
        dialogues.push(dialogue);
    }
    if dialogues.is_empty() {
        return Err(stream.nothing());
    }
    Ok(Dialogues {
        path: path.to_owned(),
        hash: artifact::sha256_file(path)?,
        dialogues,
        lines,
        skipped: stream.skipped,
    })
}

/// What a file holds, looked at from end to end before anything is made of it, in memory that does not grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub hash: String,
    /// How many dialogues are wanted: at least one.
    pub dialogues: usize,
    /// How many bad records are left out.
    pub skipped: usize,
}

/// Looks through a file, so that a bad record is known before long work begins, and how much work there is. `tell`
/// hears how much of the file was read, from 0 to 1, and stops it by giving false.
pub fn survey(path: &Path, options: &Options, on_progress: &mut dyn FnMut(f64) -> bool) -> Result<Survey> {
    let mut stream = stream(path, options)?;
    let progress = stream.progress();
    let mut dialogues = 0;
    for item in &mut stream {
        item?;
        dialogues += 1;
        if dialogues % 256 == 0 && !on_progress(progress.fraction()) {
            return Err(Error::Stopped);
        }
    }
    match dialogues {
        0 => Err(stream.nothing()),
        _ => Ok(Survey { hash: artifact::sha256_file(path)?, dialogues, skipped: stream.skipped }),
    }
}

/// The dialogues of a file one by one, each with its number in the file (see [`Dialogues`]), in memory that does not
/// grow.
pub fn stream(path: &Path, options: &Options) -> Result<Stream> {
    let (records, progress) = open(path)?;
    Ok(Stream {
        records,
        progress,
        path: path.to_owned(),
        options: options.clone(),
        waiting: Vec::new().into_iter(),
        number: 0,
        line: 0,
        given: 0,
        skipped: 0,
        seen: BTreeSet::new(),
    })
}

const ENDINGS: &str =
    "a file whose name ends in .jsonl, .ndjson, .csv, .tsv or .parquet, the first four with .gz or .zst too";

fn open(path: &Path) -> Result<(Records, Progress)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (name, packing) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
        (Some(name), _) => (name, Packing::Gzip),
        (_, Some(name)) => (name, Packing::Zstandard),
        _ => (name.as_str(), Packing::None),
    };
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let unread = |what: &str| Err(Error::input(path.display(), what, ENDINGS));
    let text = |records: &dyn Fn(Box<dyn Read>) -> Result<Records>| {
        let (reader, progress) = byte_source::open(path, packing)?;
        Ok((records(reader)?, progress))
    };
    match ending {
        "jsonl" | "ndjson" => text(&|reader| Ok(jsonl::records(path, reader))),
        "csv" => text(&|reader| csv::records(path, reader, b',')),
        "tsv" => text(&|reader| csv::records(path, reader, b'\t')),
        "parquet" if packing != Packing::None => unread("a Parquet file packed once more"),
        #[cfg(feature = "parquet")]
        "parquet" => crate::dialogue::parquet::records(path),
        #[cfg(not(feature = "parquet"))]
        "parquet" => {
            let found = "Parquet, which this build of the program leaves out";
            let expected = "a build with it: cargo build --release --features parquet";
            Err(Error::input(path.display(), found, expected))
        }
        "json" => unread("one JSON value rather than JSON Lines (`jq -c '.[]'` turns a list into lines)"),
        _ => unread("a file whose format its name does not tell"),
    }
}

/// An iterator over a file's dialogues; see [`stream`].
pub struct Stream {
    records: Records,
    progress: Progress,
    path: PathBuf,
    options: Options,
    /// Dialogues of the last record that were not given yet: a contrast pair holds two.
    waiting: std::vec::IntoIter<Dialogue>,
    /// How many records were read.
    number: usize,
    /// How many dialogues they held; a bad record counts as one.
    line: usize,
    given: usize,
    skipped: usize,
    /// Some values of the first label asked for, for the error when none fits.
    seen: BTreeSet<String>,
}

impl Stream {
    /// How much of the file was read so far.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// How many bad records were left out so far.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    fn wanted(&mut self, dialogue: &Dialogue) -> bool {
        if let Some(label) = self.options.where_label.first().and_then(|(name, _)| dialogue.label(name))
            && self.seen.len() < 12
        {
            self.seen.insert(label);
        }
        let has = |(name, value): &(String, String)| {
            let label = dialogue.labels.get(name);
            label.is_some_and(|label| label.holds(value) || label.to_string() == *value)
        };
        self.options.where_label.iter().all(has)
    }

    /// Why no dialogue came out of the file, where none did.
    pub fn nothing(&self) -> Error {
        let path = self.path.display();
        if self.number == 0 {
            return Error::input(path, "no dialogue in the file", "a record a line");
        }
        if self.skipped == self.number {
            let found = format!("none of the {} records could be read", self.number);
            return Error::input(
                path,
                found,
                "records with `messages`, `prompt` or a known layout's columns",
            );
        }
        if self.options.limit == Some(0) {
            return Error::input(path, "a limit of 0 dialogues", "a limit of at least 1");
        }
        let asked = self.options.where_label.iter().map(|(name, value)| format!("{name}={value}"));
        let seen: Vec<&str> = self.seen.iter().map(String::as_str).collect();
        let expected = match self.options.where_label.first() {
            Some((name, _)) if seen.is_empty() => {
                format!("a label that the dialogues have; none has `{name}`")
            }
            Some((name, _)) => format!("labels that occur together, {name} being one of {}", seen.join(", ")),
            None => "a record a line".into(),
        };
        let asked = asked.collect::<Vec<_>>().join(" and ");
        Error::input(path, format!("no dialogue with {asked} among {}", self.number), expected)
    }
}

impl Iterator for Stream {
    type Item = Result<(usize, Dialogue)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.options.limit.is_some_and(|limit| self.given >= limit) {
                // A limit of 0 still looks at nothing; `nothing` then says why.
                self.number = self.number.max(1);
                return None;
            }
            if let Some(dialogue) = self.waiting.next() {
                self.line += 1;
                if self.wanted(&dialogue) {
                    self.given += 1;
                    return Some(Ok((self.line - 1, dialogue)));
                }
                continue;
            }
            let record = self.records.next()?;
            self.number += 1;
            let dialogues = record.and_then(|record| {
                let place = || format!("{}:{}", self.path.display(), record.line);
                datasets::dialogues(&record.columns, self.number - 1, &place, self.options.map.as_ref())
            });
            match dialogues {
                Ok(dialogues) => self.waiting = dialogues.into_iter(),
                Err(Error::Input { .. }) if self.options.skip_bad => {
                    self.skipped += 1;
                    self.line += 1;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::byte_source::LONGEST_RECORD;
    use super::super::dialogue::Role;
    use super::*;

    fn file(ending: &str, bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn read_bytes(ending: &str, bytes: &[u8], options: &Options) -> Result<Dialogues> {
        read(file(ending, bytes).path(), options)
    }

    fn ids(dialogues: &Dialogues) -> String {
        let ids = dialogues.dialogues.iter().map(|dialogue| dialogue.id.as_str());
        ids.collect::<Vec<_>>().join(" ")
    }

    const THREE: &str = "{\"id\":\"a\",\"prompt\":\"one\",\"labels\":{\"risk\":\"R0\"}}\n\n\
                         {\"id\":\"b\",\"prompt\":\"two\",\"labels\":{\"risk\":[\"R1\",\"R2\"]}}\r\n\
                         {\"id\":\"c\",\"prompt\":\"three\",\"response\":\"yes\",\"labels\":{\"risk\":2}}";

    #[test]
    fn reads_lines_with_their_numbers_and_the_hash_of_the_file() {
        let read = read_bytes(".jsonl", b"{\"prompt\":\"hi\"}\n", &Options::default()).unwrap();
        // printf '{"prompt":"hi"}\n' | sha256sum
        let hash = "855a2484322c2b66d92157e7f1594aec200407b1ad216a7caa38a37effc60641";
        assert_eq!((read.hash.as_str(), read.dialogues[0].id.as_str()), (hash, "0"));
        let read = read_bytes(".jsonl", THREE.as_bytes(), &Options::default()).unwrap();
        assert_eq!((ids(&read), read.lines), ("a b c".into(), vec![0, 1, 2]));
        assert_eq!(read.dialogues[2].messages[1].role, Role::Assistant);
    }

    #[test]
    fn filters_by_label_and_stops_at_the_limit() {
        let only = |value: &str, limit| {
            let where_label = vec![("risk".to_owned(), value.to_owned())];
            let options = Options { where_label, limit, ..Options::default() };
            read_bytes(".jsonl", THREE.as_bytes(), &options)
        };
        assert_eq!(only("R2", None).unwrap().lines, [1]);
        assert_eq!(ids(&only("2", None).unwrap()), "c");
        let error = only("R9", None).unwrap_err().to_string();
        assert!(
            error.contains("no dialogue with risk=R9 among 3") && error.contains("2, R0, R1+R2"),
            "{error}"
        );
        let two = Options { limit: Some(2), ..Options::default() };
        // What stands after the limit is not looked at.
        let bytes = format!("{THREE}\nbroken");
        assert_eq!(ids(&read_bytes(".jsonl", bytes.as_bytes(), &two).unwrap()), "a b");
        let none = Options { limit: Some(0), ..Options::default() };
        assert!(read_bytes(".jsonl", THREE.as_bytes(), &none).unwrap_err().to_string().contains("limit"));
    }

    #[test]
    fn names_the_bad_line_or_skips_it() {
        let bytes =
            b"{\"prompt\":\"one\"}\n{\"prompt\": oops}\n\xff\n[1]\n{\"prompt\":3}\n{\"prompt\":\"two\"}\n";
        let file = file(".jsonl", bytes);
        let error = read(file.path(), &Options::default()).unwrap_err().to_string();
        let place = format!("{}:2: no JSON at column 12", file.path().display());
        assert!(error.starts_with(&place) && error.contains("expected an object"), "{error}");
        let options = Options { skip_bad: true, ..Options::default() };
        let read = read(file.path(), &options).unwrap();
        assert_eq!((read.skipped, read.lines), (4, vec![0, 5]));
    }

    #[test]
    fn an_empty_file_and_an_unknown_format_are_errors() {
        let message = |ending: &str, bytes: &[u8]| {
            read_bytes(ending, bytes, &Options::default()).unwrap_err().to_string()
        };
        for (ending, bytes) in [(".jsonl", &b" \n\n"[..]), (".csv", b""), (".tsv", b"prompt\tlabel\n")] {
            assert!(message(ending, bytes).contains("no dialogue in the file"), "{ending}");
        }
        assert!(message(".parquet", b"PAR1").contains("Parquet"));
        #[cfg(not(feature = "parquet"))]
        assert!(
            message(".parquet", b"PAR1")
                .contains("expected a build with it: cargo build --release --features")
        );
        assert!(message(".parquet.gz", b"").contains("packed once more"));
        assert!(message(".jsonl.gz", b"").contains("no dialogue in the file"));
        assert!(message(".txt", b"hi").contains(".jsonl"));
        let missing = read(Path::new("/no/such.jsonl"), &Options::default()).unwrap_err().to_string();
        assert!(missing.starts_with("/no/such.jsonl: No such file"), "{missing}");
    }

    #[test]
    fn a_line_too_long_is_not_kept() {
        let mut bytes = vec![b'x'; LONGEST_RECORD + 5];
        bytes.extend_from_slice(b"\n{\"prompt\":\"hi\"}\n");
        let error = read_bytes(".jsonl", &bytes, &Options::default()).unwrap_err().to_string();
        assert!(error.contains(":1: a line of 16777222 bytes"), "{error}");
        let options = Options { skip_bad: true, ..Options::default() };
        assert_eq!(read_bytes(".jsonl", &bytes, &options).unwrap().lines, [1]);
        // In a table a quote that is never closed takes the rest of the file: there is no next record to go on with.
        let head = [b"prompt\n\"".as_slice(), &[b'x'; 1 << 20]].concat();
        bytes.splice(..0, head);
        let error = read_bytes(".csv", &bytes, &options).map(|read| read.lines).unwrap_err().to_string();
        assert!(error.contains("more than 16 MiB"), "{error}");
    }

    #[test]
    fn a_million_columns_are_one_short_line() {
        let names = (0..1_000_000).map(|n| format!("c{n}")).collect::<Vec<_>>();
        let object = format!("{{\"{}\":0}}\n", names.join("\":0,\""));
        let table = format!("{}\n", names.join(","));
        let wide_row = format!("prompt\n{}\n", ",".repeat(1_000_000));
        for (ending, bytes, expected) in [
            (".jsonl", object.as_str(), "columns of no known layout (c0, c1, "),
            (".csv", &table, "1000000 columns; expected at most 10000"),
            (".csv", &wide_row, "1000001 columns; expected 1 (prompt)"),
            (".tsv", &table.replace(',', "\t"), "1000000 columns"),
        ] {
            let error = read_bytes(ending, bytes.as_bytes(), &Options::default()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.len() < 1000, "{}", &error[..error.len().min(1000)]);
        }
        // A name or a value as long as a file is no message either.
        let long = format!("{{\"{}\":1}}\n", "x".repeat(1 << 20));
        let error = read_bytes(".jsonl", long.as_bytes(), &Options::default()).unwrap_err().to_string();
        assert!(error.len() < 2000);
    }

    #[test]
    fn other_encodings_are_named() {
        let utf16: Vec<u8> = "id,prompt\n1,hi\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (ending, bytes) in [
            (".csv", [b"\xff\xfe".as_slice(), &utf16].concat()),
            (".jsonl", [b"\xff\xfe".as_slice(), &utf16].concat()),
            (".csv", b"id,prompt\n1,caf\xe9\n".to_vec()),
            (".jsonl", b"{\"prompt\":\"caf\xe9\"}\n".to_vec()),
            (".tsv", b"id\tpr\xf6mpt\n1\tx\n".to_vec()),
        ] {
            let error = read_bytes(ending, &bytes, &Options::default()).unwrap_err().to_string();
            assert!(error.contains("UTF-8") && error.lines().count() == 1, "{ending}: {error}");
        }
        let deep = format!("{}{}\n", "[".repeat(100_000), "]".repeat(100_000));
        let error = read_bytes(".jsonl", deep.as_bytes(), &Options::default()).unwrap_err().to_string();
        assert!(error.contains("recursion limit"), "{error}");
    }

    #[test]
    fn what_is_surveyed_is_what_is_streamed() {
        let pair = "{\"question\":\"q\",\"answer_matching_behavior\":\"a\",\"answer_not_matching_behavior\":\"b\"}\n";
        let file = file(".jsonl", format!("{pair}oops\n{THREE}").as_bytes());
        let options = Options { skip_bad: true, ..Options::default() };
        let survey = survey(file.path(), &options, &mut |_| true).unwrap();
        let read = read(file.path(), &options).unwrap();
        // The pair counts as two, the bad record as one.
        assert_eq!(read.lines, [0, 1, 3, 4, 5]);
        assert_eq!((survey.dialogues, survey.skipped, survey.hash), (5, 1, read.hash));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = file(".jsonl", b"");
        let written = read_bytes(".jsonl", THREE.as_bytes(), &Options::default()).unwrap().dialogues;
        crate::dialogue::write_jsonl(file.path(), &written).unwrap();
        assert_eq!(read(file.path(), &Options::default()).unwrap().dialogues, written);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn never_panics(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(&b"\",\n\t{}[]:prompt"[..])], 0..200,
        ), skip_bad: bool) {
            let options = Options { skip_bad, ..Options::default() };
            for (ending, head) in [(".jsonl", ""), (".csv", "prompt,label\n"), (".tsv", "prompt\n")] {
                let bytes = [head.as_bytes(), &bytes].concat();
                let _ = read_bytes(ending, &bytes, &options);
            }
        }

        /// Whole files that were cut short, or had a byte changed.
        #[test]
        fn broken_files_never_panic(at: proptest::sample::Index, to: u8, cut: bool, skip_bad: bool) {
            let options = Options { skip_bad, ..Options::default() };
            let table = "id,prompt,label\n1,\"a, \"\"b\"\"\nc\",safe\n2,d,\n";
            for (ending, text) in [(".jsonl", THREE), (".csv", table), (".tsv", "id\tprompt\n1\tx\n")] {
                let mut bytes = text.as_bytes().to_vec();
                let at = at.index(bytes.len());
                if cut { bytes.truncate(at) } else { bytes[at] = to }
                if let Err(error) = read_bytes(ending, &bytes, &options) {
                    prop_assert_eq!(error.to_string().lines().count(), 1);
                }
            }
        }
    }
}
