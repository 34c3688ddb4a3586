//! CSV and TSV tables with a header line, as raw records: every cell is text.

use std::io::Read;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};
use serde_json::{Map, Value};

use super::raw_record::{MAX_COLUMNS, Place, RawRecord, Records};
use super::record_guard::RecordGuard;
use crate::error::{Error, Result};

/// The records of a table. In CSV a quoted cell may hold newlines; tab-separated files do not quote, so that `"` is text there.
pub(super) fn records(path: &Path, reader: Box<dyn Read>, delimiter: u8) -> Result<Records> {
    let quoting = delimiter != b'\t';
    let (reader, rows) = RecordGuard::new(reader, delimiter, quoting);
    let mut reader =
        ReaderBuilder::new().delimiter(delimiter).quoting(quoting).flexible(true).from_reader(reader);
    let header = reader.byte_headers().map_err(|error| fatal(path, error))?.clone();
    let line = rows.next().unwrap_or(1);
    let header = header_names(path, line, &header)?;
    if !quoting && header.iter().any(|name| is_quoted(name)) {
        let expected = "a tab-separated file without quoting, or the table as CSV";
        return Err(Error::input(format!("{}:{line}", path.display()), "column names in quotes", expected));
    }
    let path = path.to_owned();
    let mut row = ByteRecord::new();
    let mut ended = false;
    Ok(Box::new(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        match reader.read_byte_record(&mut row) {
            Ok(true) => {
                let line = rows.next().unwrap_or_default();
                let place = Place { path: path.clone(), line, element: None };
                let columns = columns(&header, &row, &place, quoting);
                Some(columns.map(|columns| RawRecord { place, columns }))
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

/// Whether a text stands in quotes.
fn is_quoted(text: &str) -> bool {
    text.len() > 1 && text.starts_with('"') && text.ends_with('"')
}

/// Whether a cell is quoted as CSV: in quotes, with every quote inside doubled, and one there.
fn is_escaped(cell: &str) -> bool {
    let inner = if is_quoted(cell) { &cell[1..cell.len() - 1] } else { "" };
    inner.contains('"') && !inner.replace("\"\"", "").contains('"')
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

fn header_names(path: &Path, line: u64, header: &ByteRecord) -> Result<Vec<String>> {
    let place = || format!("{}:{line}", path.display());
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

fn columns(header: &[String], row: &ByteRecord, place: &Place, quoting: bool) -> Result<Map<String, Value>> {
    if row.len() != header.len() {
        let names = header.iter().take(12).map(String::as_str).collect::<Vec<_>>().join(", ");
        let expected = format!("{} ({names})", header.len());
        return Err(Error::input(place, format!("{} columns", row.len()), expected));
    }
    let cell = |(name, cell): (&String, &[u8])| {
        let text = std::str::from_utf8(cell).map_err(|_| {
            let found = format!("bytes that are not UTF-8 in column `{name}`");
            Error::input(place, found, "UTF-8 text")
        })?;
        if !quoting && is_escaped(text) {
            let found = format!("a cell in quotes, with doubled ones inside, in column `{name}`");
            return Err(Error::input(
                place,
                found,
                "a tab-separated file without quoting, or the table as CSV",
            ));
        }
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

    fn prompts(ending: &str, text: &str) -> Vec<String> {
        let read = read_text(ending, text.as_bytes()).unwrap();
        read.dialogues.iter().map(|dialogue| dialogue.user_text()).collect()
    }

    /// pandas.read_csv(…, sep="\t", quoting=csv.QUOTE_NONE)
    #[test]
    fn a_quote_is_text_in_a_tab_separated_file() {
        let text = "id\tprompt\n1\t\"He said so\n2\tplain\n3\tquoted\" end\n4\t\"in quotes\"\n5\t\"\n";
        assert_eq!(prompts(".tsv", text), ["\"He said so", "plain", "quoted\" end", "\"in quotes\"", "\""]);
        assert_eq!(prompts(".tsv", &text.replace('\n', "\r\n")), prompts(".tsv", text));
        for (text, expected) in [
            (
                "id\tprompt\n1\ta\n2\t\"a \"\"b\"\" c\"\n",
                ".tsv:3: a cell in quotes, with doubled ones inside, in column `prompt`",
            ),
            ("\"id\"\t\"prompt\"\n\"1\"\t\"a\"\n", ".tsv:1: column names in quotes"),
            ("id\tprompt\n1\t\"a\nb\"\n", ".tsv:3: 1 columns; expected 2"),
        ] {
            let error = read_text(".tsv", text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_quote_that_is_never_closed_is_named_with_its_line() {
        for (text, line) in [
            ("id,prompt\na,\"one\nb,two\nc,three\n", 2),
            ("id,prompt\na,\"o\"\"n\ne\"\nb,\"two\n\n\"\"\n", 4),
            ("\u{feff}\"id,prompt\na,one\n", 1),
            ("id,prompt\r\na,one\r\nb,\"", 3),
        ] {
            let error = read_text(".csv", text.as_bytes()).unwrap_err();
            assert!(
                error.contains(&format!("the quote that opens on line {line} is never closed")),
                "{error}"
            );
        }
        // Quotes inside a cell, and at the very end, are none that open.
        assert_eq!(prompts(".csv", "id,prompt\n1,a \"b\n2,\"c\"\n3,\"\"\"d\"\"\""), ["a \"b", "c", "\"d\""]);
    }

    #[test]
    fn names_the_line_of_a_bad_row() {
        let error = read_text(".csv", b"id,prompt\n1,\"a\nb\"\n2,c,d\n").unwrap_err();
        assert!(error.contains(".csv:4: 3 columns; expected 2 (id, prompt)"), "{error}");
        // Blank lines and either end of a line count; a quoted cell may hold some.
        for text in [
            "\n\nid,prompt\n\n1,a\n\n\n2,\"b\n\nc\"\n\n3\n",
            "\u{feff}\n\nid,prompt\n\n1,a\n\n\n2,\"b\n\nc\"\n\n3\n",
        ] {
            for text in [text.to_owned(), text.replace('\n', "\r\n")] {
                let error = read_text(".csv", text.as_bytes()).unwrap_err();
                assert!(error.contains(".csv:12: 1 columns; expected 2 (id, prompt)"), "{text:?}: {error}");
            }
        }
        let long: String = (0..3000).map(|row| format!("{row}\tsome text\r\n")).collect();
        let error = read_text(".tsv", format!("id\tprompt\r\n{long}x\r\n").as_bytes()).unwrap_err();
        assert!(error.contains(".tsv:3002: 1 columns"), "{error}");
        let error = read_text(".csv", b"id,prompt\n1,\xff\n").unwrap_err();
        assert!(error.contains(":2: bytes that are not UTF-8 in column `prompt`"), "{error}");
        let error = read_text(".csv", b"prompt,prompt\n1,2\n").unwrap_err();
        assert!(error.contains("two columns named `prompt`"), "{error}");
        let error = read_text(".csv", ",".repeat(100_000).as_bytes()).unwrap_err();
        assert!(error.contains("100001 columns; expected at most 10000"), "{error}");
    }
}
