//! Formats of a file of dialogues, told from its name: raw records out.

use std::io::Read;
use std::path::Path;

use super::byte_source::{self, Compression, ReadProgress};
use super::raw_record::Records;
use super::{csv, jsonl};
use crate::artifact;
use crate::error::{Error, Result};

const ENDINGS: &str = "a file whose name ends in .jsonl, .ndjson, .json, .csv, .tsv or .parquet, all but the last with .gz or \
                       .zst too";

/// Picks the format by the file's name.
pub(super) fn open(path: &Path) -> Result<(Records, ReadProgress)> {
    let metadata = std::fs::metadata(path).map_err(Error::file(path));
    let metadata = metadata.map_err(|error| error.where_missing("a file of dialogues"))?;
    artifact::refuse_irregular(path, &metadata, "a file of dialogues")?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (name, compression) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
        (Some(name), _) => (name, Some(Compression::Gzip)),
        (_, Some(name)) => (name, Some(Compression::Zstandard)),
        _ => (name.as_str(), None),
    };
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let unsupported = |found: &str| Err(Error::input(path.display(), found, ENDINGS));
    let text = |records: &dyn Fn(Box<dyn Read>) -> Result<Records>| {
        let (reader, progress) = byte_source::open(path, compression)?;
        Ok((records(reader)?, progress))
    };
    match ending {
        "jsonl" | "ndjson" | "json" => text(&|reader| Ok(jsonl::records(path, reader, ending == "json"))),
        "csv" => text(&|reader| csv::records(path, reader, b',')),
        "tsv" => text(&|reader| csv::records(path, reader, b'\t')),
        "parquet" if compression.is_some() => unsupported("a Parquet file compressed as a whole"),
        #[cfg(feature = "parquet")]
        "parquet" => super::parquet::records(path),
        #[cfg(not(feature = "parquet"))]
        "parquet" => {
            let found = "Parquet, which this build doesn't support";
            let expected = "a build with it: cargo build --release --features parquet";
            Err(Error::input(path.display(), found, expected))
        }
        _ => unsupported("a file name without the ending of a known format"),
    }
}

/// The records of a file as they stand in it, each with its file and line, for files that hold other things than dialogues.
///
/// # Errors
/// A file that can't be read or is of no supported format; an item is an error where its record is bad.
pub fn records(
    path: impl AsRef<Path>,
) -> Result<impl Iterator<Item = Result<(String, serde_json::Map<String, serde_json::Value>)>>> {
    let (records, _) = open(path.as_ref())?;
    Ok(records.map(|record| record.map(|record| (record.place.to_string(), record.columns))))
}
