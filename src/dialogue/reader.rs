//! Reading a file of dialogues of any supported format: all of them at once, or their number and hash.

use std::path::{Path, PathBuf};

use super::dialogue::Dialogue;
use super::read_options::ReadOptions;
use super::stream::{Skipped, stream};
use crate::artifact;
use crate::error::{Error, Result};

/// The dialogues of a file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Dialogues {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub hash: String,
    /// The dialogues, in file order; at least one.
    pub dialogues: Vec<Dialogue>,
    /// For each dialogue, its index in the file, from 0, counting those left out. It is the index of its record (a table's
    /// header isn't one), except that a contrast pair counts as two.
    pub indices: Vec<usize>,
    /// Bad records that were skipped.
    pub skipped: Skipped,
}

impl Dialogues {
    /// Reads a file of dialogues: JSON Lines, CSV or TSV (`.gz` and `.zst` too), or Parquet (feature `parquet`), with default
    /// options; see [`read`].
    ///
    /// # Errors
    /// Those of [`read`].
    pub fn read(path: impl AsRef<Path>) -> Result<Dialogues> {
        read(path, &ReadOptions::default())
    }
}

/// Reads all dialogues of a file: a regular one, because the bytes are read again for their hash.
///
/// # Errors
/// A file that can't be read or is of no supported format; a bad record, unless those are skipped; no dialogue.
pub fn read(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Dialogues> {
    let path = path.as_ref();
    let mut stream = stream(path, options)?;
    let (mut dialogues, mut indices) = (Vec::new(), Vec::new());
    for item in &mut stream {
        let (index, dialogue) = item?;
        indices.push(index);
        dialogues.push(dialogue);
    }
    if dialogues.is_empty() {
        return Err(stream.no_dialogue());
    }
    Ok(Dialogues {
        path: path.to_owned(),
        hash: artifact::sha256_file(path)?,
        dialogues,
        indices,
        skipped: stream.skipped,
    })
}

/// Hash and counts of a file of dialogues.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetSummary {
    /// SHA-256 of the file's bytes, in hexadecimal.
    pub hash: String,
    /// Number of dialogues that the options select; at least one.
    pub dialogues: usize,
    /// Bad records that are skipped.
    pub skipped: Skipped,
}

/// Counts the dialogues of a file in constant memory, so that bad records and the amount of work are known before long work
/// begins. `on_progress` gets the fraction read, from 0 to 1; `false` stops.
///
/// # Errors
/// Those of [`read`]; [`Error::Stopped`].
pub fn summarize(
    path: impl AsRef<Path>,
    options: &ReadOptions,
    on_progress: &mut dyn FnMut(f64) -> bool,
) -> Result<DatasetSummary> {
    let path = path.as_ref();
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
        0 => Err(stream.no_dialogue()),
        _ => Ok(DatasetSummary { hash: artifact::sha256_file(path)?, dialogues, skipped: stream.skipped }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::byte_source::MAX_RECORD;
    use super::super::dialogue::Role;
    use super::*;

    fn file(ending: &str, bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    fn read_bytes(ending: &str, bytes: &[u8], options: &ReadOptions) -> Result<Dialogues> {
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
        let read = read_bytes(".jsonl", b"{\"prompt\":\"hi\"}\n", &ReadOptions::default()).unwrap();
        // printf '{"prompt":"hi"}\n' | sha256sum
        let hash = "855a2484322c2b66d92157e7f1594aec200407b1ad216a7caa38a37effc60641";
        assert_eq!((read.hash.as_str(), read.dialogues[0].id.as_str()), (hash, "0"));
        let read = read_bytes(".jsonl", THREE.as_bytes(), &ReadOptions::default()).unwrap();
        assert_eq!((ids(&read), read.indices), ("a b c".into(), vec![0, 1, 2]));
        assert_eq!(read.dialogues[2].messages[1].role, Role::Assistant);
    }

    #[test]
    fn filters_by_label_and_stops_at_the_limit() {
        let only = |value: &str, limit| {
            let options = ReadOptions::default().where_label("risk", value).limit(limit);
            read_bytes(".jsonl", THREE.as_bytes(), &options)
        };
        assert_eq!(only("R2", None).unwrap().indices, [1]);
        assert_eq!(ids(&only("2", None).unwrap()), "c");
        let error = only("R9", None).unwrap_err().to_string();
        assert!(
            error.contains("no dialogue with risk=R9 among 3") && error.contains("2, R0, R1+R2"),
            "{error}"
        );
        let two = ReadOptions::default().limit(2);
        // Records after the limit are not read.
        let bytes = format!("{THREE}\nbroken");
        assert_eq!(ids(&read_bytes(".jsonl", bytes.as_bytes(), &two).unwrap()), "a b");
        let none = ReadOptions::default().limit(0);
        assert!(read_bytes(".jsonl", THREE.as_bytes(), &none).unwrap_err().to_string().contains("limit"));
    }

    #[test]
    fn names_the_bad_line_or_skips_it() {
        let bytes =
            b"{\"prompt\":\"one\"}\n{\"prompt\": oops}\n\xff\n[1]\n{\"prompt\":3}\n{\"prompt\":\"two\"}\n";
        let file = file(".jsonl", bytes);
        let error = read(file.path(), &ReadOptions::default()).unwrap_err().to_string();
        let place = format!("{}:2: invalid JSON at column 12", file.path().display());
        assert!(error.starts_with(&place) && error.contains("expected an object"), "{error}");
        let options = ReadOptions::default().skip_bad(true);
        let read = read(file.path(), &options).unwrap();
        assert_eq!((read.skipped.count, read.indices), (4, vec![0, 5]));
        let reasons = [
            ":2: invalid JSON at column 12",
            ":3: bytes that are not UTF-8",
            ":4: a list;",
            ":5: a number in `prompt`",
        ];
        assert!(
            read.skipped.reasons.iter().zip(reasons).all(|(text, reason)| text.contains(reason)),
            "{:?}",
            read.skipped
        );
    }

    #[test]
    fn an_empty_file_and_an_unknown_format_are_errors() {
        let message = |ending: &str, bytes: &[u8]| {
            read_bytes(ending, bytes, &ReadOptions::default()).unwrap_err().to_string()
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
        assert!(message(".parquet.gz", b"").contains("compressed as a whole"));
        assert!(message(".jsonl.gz", b"").contains("no dialogue in the file"));
        assert!(message(".txt", b"hi").contains(".jsonl"));
        let missing = read(Path::new("/no/such.jsonl"), &ReadOptions::default()).unwrap_err().to_string();
        assert!(missing.starts_with("/no/such.jsonl: No such file"), "{missing}");
    }

    #[test]
    fn a_line_too_long_is_not_kept() {
        let mut bytes = vec![b'x'; MAX_RECORD + 5];
        bytes.extend_from_slice(b"\n{\"prompt\":\"hi\"}\n");
        let error = read_bytes(".jsonl", &bytes, &ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains(":1: a line of 16777222 bytes"), "{error}");
        let options = ReadOptions::default().skip_bad(true);
        assert_eq!(read_bytes(".jsonl", &bytes, &options).unwrap().indices, [1]);
        // In a table, an unclosed quote takes the rest of the file: there is no next record.
        let head = [b"prompt\n\"".as_slice(), &[b'x'; 1 << 20]].concat();
        bytes.splice(..0, head);
        let error = read_bytes(".csv", &bytes, &options).map(|read| read.indices).unwrap_err().to_string();
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
            let error =
                read_bytes(ending, bytes.as_bytes(), &ReadOptions::default()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.len() < 1000, "{}", &error[..error.len().min(1000)]);
        }
        // A column name as long as a file is not quoted whole.
        let long = format!("{{\"{}\":1}}\n", "x".repeat(1 << 20));
        let error = read_bytes(".jsonl", long.as_bytes(), &ReadOptions::default()).unwrap_err().to_string();
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
            let error = read_bytes(ending, &bytes, &ReadOptions::default()).unwrap_err().to_string();
            assert!(error.contains("UTF-8") && error.lines().count() == 1, "{ending}: {error}");
        }
        let deep = format!("{}{}\n", "[".repeat(100_000), "]".repeat(100_000));
        let error = read_bytes(".jsonl", deep.as_bytes(), &ReadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("recursion limit"), "{error}");
    }

    #[test]
    fn a_summary_counts_what_is_streamed() {
        let pair = "{\"question\":\"q\",\"answer_matching_behavior\":\"a\",\"answer_not_matching_behavior\":\"b\"}\n";
        let file = file(".jsonl", format!("{pair}oops\n{THREE}").as_bytes());
        let options = ReadOptions::default().skip_bad(true);
        let summary = summarize(file.path(), &options, &mut |_| true).unwrap();
        let read = read(file.path(), &options).unwrap();
        // The pair counts as two, the bad record as one.
        assert_eq!(read.indices, [0, 1, 3, 4, 5]);
        assert_eq!((summary.dialogues, summary.skipped.count, summary.hash), (5, 1, read.hash));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = file(".jsonl", b"");
        let written = read_bytes(".jsonl", THREE.as_bytes(), &ReadOptions::default()).unwrap().dialogues;
        crate::dialogue::write_jsonl(file.path(), &written).unwrap();
        assert_eq!(read(file.path(), &ReadOptions::default()).unwrap().dialogues, written);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn never_panics(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(&b"\",\n\t{}[]:prompt"[..])], 0..200,
        ), skip_bad: bool) {
            let options = ReadOptions::default().skip_bad(skip_bad);
            for (ending, head) in [(".jsonl", ""), (".csv", "prompt,label\n"), (".tsv", "prompt\n")] {
                let bytes = [head.as_bytes(), &bytes].concat();
                let _ = read_bytes(ending, &bytes, &options);
            }
        }

        /// Valid files, truncated or with a byte changed.
        #[test]
        fn broken_files_never_panic(at: proptest::sample::Index, to: u8, cut: bool, skip_bad: bool) {
            let options = ReadOptions::default().skip_bad(skip_bad);
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
