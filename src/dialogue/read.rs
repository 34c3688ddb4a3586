//! Reads a file of dialogues, whatever its format: picks the reader by the file's name, counts, filters, skips.
//! It knows nothing of any one format or layout.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::column_map::ColumnMap;
use super::record::{Dialogue, Label};
use super::{jsonl, layout, table};
use crate::artifact;
use crate::error::{Error, Result};

/// No record may be longer than this, so that a broken file can't fill the memory.
pub(super) const LONGEST_RECORD: usize = 16 << 20;

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
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What the columns mean, where the layout is not one of the known ones.
    pub map: Option<ColumnMap>,
    /// Stop after this many dialogues.
    pub limit: Option<usize>,
    /// Only dialogues with all of these labels. A label that is a list need only hold the value.
    pub where_label: Vec<(String, String)>,
    /// Leave out bad records and count them, instead of stopping at the first.
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
    /// For each dialogue, the number of its record in the file, from 0 (a table's header is no record).
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

/// The dialogues of a file one by one, each with the number of its record from 0, in memory that does not grow.
pub fn stream(path: &Path, options: &Options) -> Result<Stream> {
    Ok(Stream {
        records: open(path)?,
        path: path.to_owned(),
        options: options.clone(),
        waiting: Vec::new().into_iter(),
        number: 0,
        given: 0,
        skipped: 0,
        seen: BTreeSet::new(),
    })
}

fn open(path: &Path) -> Result<Records> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let unread = |what: &str| {
        Err(Error::input(path.display(), what, "a file whose name ends in .jsonl, .ndjson, .csv or .tsv"))
    };
    match ending {
        "jsonl" | "ndjson" => jsonl::records(path),
        "csv" => table::records(path, b','),
        "tsv" => table::records(path, b'\t'),
        "parquet" => unread("Parquet, which is not read yet"),
        "gz" | "zst" => unread("a compressed file, which is not read yet"),
        "json" => unread("one JSON value rather than JSON Lines (`jq -c '.[]'` turns a list into lines)"),
        _ => unread("a file whose format its name does not tell"),
    }
}

/// An iterator over a file's dialogues; see [`stream`].
pub struct Stream {
    records: Records,
    path: PathBuf,
    options: Options,
    /// Dialogues of the last record that were not given yet: a contrast pair holds two.
    waiting: std::vec::IntoIter<Dialogue>,
    /// How many records were read.
    number: usize,
    given: usize,
    skipped: usize,
    /// Some values of the first label asked for, for the error when none fits.
    seen: BTreeSet<String>,
}

impl Stream {
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
        let has = |(name, value): &(String, String)| match dialogue.labels.get(name) {
            Some(Label::List(list)) if list.contains(value) => true,
            Some(label) => label.to_string() == *value,
            None => false,
        };
        self.options.where_label.iter().all(has)
    }

    /// Why no dialogue came out of the file.
    fn nothing(&self) -> Error {
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
                if self.wanted(&dialogue) {
                    self.given += 1;
                    return Some(Ok((self.number - 1, dialogue)));
                }
                continue;
            }
            let record = self.records.next()?;
            self.number += 1;
            let dialogues = record.and_then(|record| {
                let place = || format!("{}:{}", self.path.display(), record.line);
                layout::dialogues(&record.columns, self.number - 1, &place, self.options.map.as_ref())
            });
            match dialogues {
                Ok(dialogues) => self.waiting = dialogues.into_iter(),
                Err(Error::Input { .. }) if self.options.skip_bad => self.skipped += 1,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Fails once more than [`LONGEST_RECORD`] bytes were read since the last [`Budget::renew`]: for readers of others
/// that would take a record of any length.
pub(super) struct Budget<R> {
    inner: R,
    left: std::rc::Rc<std::cell::Cell<usize>>,
}

impl<R: Read> Budget<R> {
    /// The reader, and the handle that sets its budget to the full again.
    pub fn new(inner: R) -> (Budget<R>, impl Fn()) {
        let left = std::rc::Rc::new(std::cell::Cell::new(LONGEST_RECORD));
        let handle = left.clone();
        (Budget { inner, left }, move || handle.set(LONGEST_RECORD))
    }
}

impl<R: Read> Read for Budget<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other("a record of more than 16 MiB (is a quote not closed?)"));
        }
        let length = buffer.len().min(left);
        let read = self.inner.read(&mut buffer[..length])?;
        self.left.set(left - read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::record::Role;
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
        assert!(message(".jsonl.gz", b"").contains("compressed"));
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
    fn what_is_written_is_read_back() {
        let file = file(".jsonl", b"");
        let written = read_bytes(".jsonl", THREE.as_bytes(), &Options::default()).unwrap().dialogues;
        super::super::write_jsonl(file.path(), &written).unwrap();
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
    }
}
