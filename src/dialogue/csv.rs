//! CSV and TSV tables with a header line, as raw records: every cell is text.

use std::io::Read;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};
use serde_json::{Map, Value};

use super::byte_source::RecordLimit;
use super::raw_record::{MAX_COLUMNS, RawRecord, Records};
use crate::error::{Error, Result};

/// The records of a table. A quoted cell may hold newlines.
pub(super) fn records(path: &Path, reader: Box<dyn Read>, delimiter: u8) -> Result<Records> {
    let (reader, reset_limit) = RecordLimit::new(reader);
    let mut reader = ReaderBuilder::new().delimiter(delimiter).flexible(true).from_reader(reader);
    let header = reader.byte_headers().map_err(|error| fatal(path, error))?.clone();
    let header = header_names(path, &header)?;
    let path = path.to_owned();
    let mut row = ByteRecord::new();
    let mut ended = false;
    Ok(Box::new(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        reset_limit();
        match reader.read_byte_record(&mut row) {
            Ok(true) => {
                let line = row.position().map_or(0, |position| position.line());
                let place = || format!("{}:{line}", path.display());
                Some(columns(&header, &row, &place).map(|columns| RawRecord { line, columns }))
            }
            Ok(false) => {
                ended = true;
                None
            }
            Err(error) => {
                ended = true;
                Some(Err(fatal(&path, error)))
            }
        }
    })))
}

/// A failed read. It ends the file: where the next record begins isn't known.
fn fatal(path: &Path, error: csv::Error) -> Error {
    let line = error.position().map(|position| position.line());
    match error.into_kind() {
        csv::ErrorKind::Io(source) => Error::file(path)(source),
        other => {
            let line = line.map_or(String::new(), |line| format!("line {line}: "));
            Error::file(path)(std::io::Error::other(format!("{line}{other:?}")))
        }
    }
}

fn header_names(path: &Path, header: &ByteRecord) -> Result<Vec<String>> {
    let place = || format!("{}:1", path.display());
    if header.len() > MAX_COLUMNS {
        let expected = format!("at most {MAX_COLUMNS}");
        return Err(Error::input(place(), format!("{} columns", header.len()), expected));
    }
    let mut names: Vec<String> = Vec::with_capacity(header.len());
    for name in header {
        let name = std::str::from_utf8(name)
            .map_err(|_| Error::input(place(), "a column name that is not UTF-8", "UTF-8 text"))?;
        let name = name.trim_start_matches('\u{feff}').trim();
        if names.iter().any(|other| other == name) && !name.is_empty() {
            let found = format!("two columns named `{name}`");
            return Err(Error::input(place(), found, "unique column names"));
        }
        names.push(name.into());
    }
    Ok(names)
}

fn columns(header: &[String], row: &ByteRecord, place: &dyn Fn() -> String) -> Result<Map<String, Value>> {
    if row.len() != header.len() {
        let names = header.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
        let expected = format!("{} ({names})", header.len());
        return Err(Error::input(place(), format!("{} columns", row.len()), expected));
    }
    let cell = |(name, cell): (&String, &[u8])| {
        let text = std::str::from_utf8(cell).map_err(|_| {
            let found = format!("bytes that are not UTF-8 in column `{name}`");
            Error::input(place(), found, "UTF-8 text")
        })?;
        Ok((name.clone(), Value::String(text.into())))
    };
    header.iter().zip(row).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::super::read_options::ReadOptions;
    use super::super::reader::read;

    fn read_text(ending: &str, text: &[u8]) -> Result<crate::dialogue::Dialogues, String> {
        let file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path(), &ReadOptions::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_quotes_newlines_and_a_byte_order_mark() {
        let text = "\u{feff}id,prompt,label\r\n7,\"a, \"\"b\"\"\nc\",safe\r\n8,d,\r\n";
        let read = read_text(".csv", text.as_bytes()).unwrap();
        assert_eq!(read.dialogues[0].messages[0].content, "a, \"b\"\nc");
        assert_eq!(
            (read.dialogues[0].id.as_str(), read.dialogues[0].label("label")),
            ("7", Some("safe".into()))
        );
        assert_eq!(read.dialogues[1].label("label"), None);
        let read = read_text(".tsv", b"prompt\tkind\nx, y\tz\n").unwrap();
        assert_eq!(read.dialogues[0].user_text(), "x, y");
    }

    #[test]
    fn names_the_line_of_a_bad_row() {
        let error = read_text(".csv", b"id,prompt\n1,\"a\nb\"\n2,c,d\n").unwrap_err();
        assert!(error.contains(".csv:4: 3 columns; expected 2 (id, prompt)"), "{error}");
        let error = read_text(".csv", b"id,prompt\n1,\xff\n").unwrap_err();
        assert!(error.contains(":2: bytes that are not UTF-8 in column `prompt`"), "{error}");
        let error = read_text(".csv", b"prompt,prompt\n1,2\n").unwrap_err();
        assert!(error.contains("two columns named `prompt`"), "{error}");
        let error = read_text(".csv", ",".repeat(100_000).as_bytes()).unwrap_err();
        assert!(error.contains("100001 columns; expected at most 10000"), "{error}");
    }
}
