//! Parquet, as raw records: read row by row, with the pages of one row group in memory.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use serde_json::Value;

use super::byte_source::ReadProgress;
use super::raw_record::{MAX_COLUMNS, Place, RawRecord, Records};
use crate::error::{Error, Result};

/// The records of a file; `line` is the row's number, from 1.
pub(super) fn records(path: &Path) -> Result<(Records, ReadProgress)> {
    let file = File::open(path).map_err(Error::file(path))?;
    let opened = guarded(|| {
        let reader = SerializedFileReader::new(file)?;
        let metadata = reader.metadata().file_metadata();
        let (rows, columns) = (metadata.num_rows(), metadata.schema_descr().num_columns());
        Ok((rows, columns, RowIter::from_file_into(Box::new(reader))))
    });
    let broken = |problem: String| Error::file(path)(std::io::Error::other(problem));
    let (count, columns, mut rows) = opened.map_err(broken)?;
    if columns > MAX_COLUMNS {
        let expected = format!("at most {MAX_COLUMNS}");
        return Err(Error::input(path.display(), format!("{columns} columns"), expected));
    }
    let progress = ReadProgress::new(u64::try_from(count).unwrap_or(0));
    let path = path.to_owned();
    let counter = progress.clone();
    let (mut line, mut ended) = (0, false);
    let records = std::iter::from_fn(move || {
        if ended {
            return None;
        }
        line += 1;
        counter.advance(1);
        match guarded(|| rows.next().transpose()) {
            Ok(None) => None,
            Ok(Some(row)) => match row.to_json_value() {
                Value::Object(columns) => {
                    let place = Place { path: path.clone(), line, element: None };
                    Some(Ok(RawRecord { place, columns }))
                }
                _ => None,
            },
            Err(problem) => {
                // Where the next row begins isn't known.
                ended = true;
                Some(Err(Error::file(&path)(std::io::Error::other(format!("row {line}: {problem}")))))
            }
        }
    });
    Ok((Box::new(records), progress))
}

/// Runs the parquet crate with panics as errors: it trusts some numbers of a file and panics where they're wrong.
fn guarded<T>(read: impl FnOnce() -> parquet::errors::Result<T>) -> std::result::Result<T, String> {
    let outcome = catch_unwind(AssertUnwindSafe(read)).map_err(|_| "a broken Parquet file".to_owned())?;
    outcome.map_err(|problem| {
        let problem = problem.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        format!("{problem}; expected a whole Parquet file")
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use proptest::prelude::*;

    use super::super::read_options::ReadOptions;
    use super::super::reader::{Dialogues, read};
    use crate::error::Result;

    /// Dialogues with messages as lists of groups, and a label.
    fn written(rows: usize) -> Vec<u8> {
        let schema = "message schema {
            required binary id (UTF8);
            required group messages (LIST) { repeated group list { required group element {
                required binary role (UTF8); required binary content (UTF8); } } }
            optional group labels { optional double level; } }";
        let mut bytes = Vec::new();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer = SerializedFileWriter::new(&mut bytes, schema, Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let text =
            |values: Vec<String>| values.iter().map(|v| ByteArray::from(v.as_str())).collect::<Vec<_>>();
        let repeat: Vec<i16> = (0..2 * rows).map(|at| (at % 2) as i16).collect();
        let both = |make: &dyn Fn(usize) -> [String; 2]| text((0..rows).flat_map(make).collect());
        for (column, values) in [
            text((0..rows).map(|row| format!("d{row}")).collect()),
            both(&|_| ["user".into(), "assistant".into()]),
            both(&|row| [format!("ask {row}"), "yes".into()]),
        ]
        .into_iter()
        .enumerate()
        {
            let mut writer = group.next_column().unwrap().unwrap();
            let levels = (column > 0).then(|| vec![1i16; 2 * rows]);
            let repeats = (column > 0).then_some(repeat.as_slice());
            writer.typed::<ByteArrayType>().write_batch(&values, levels.as_deref(), repeats).unwrap();
            writer.close().unwrap();
        }
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<f64> = (0..rows).map(|row| row as f64).collect();
        column.typed::<DoubleType>().write_batch(&values, Some(&vec![2; rows]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        bytes
    }

    fn read_bytes(bytes: &[u8]) -> Result<Dialogues> {
        let file = tempfile::Builder::new().suffix(".parquet").tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        read(file.path(), &ReadOptions::default())
    }

    #[test]
    fn reads_rows_with_lists_and_groups() {
        let read = read_bytes(&written(3)).unwrap();
        assert_eq!(read.lines, [0, 1, 2]);
        let last = &read.dialogues[2];
        assert_eq!((last.id.as_str(), last.messages.len(), last.label("level")), ("d2", 2, Some("2".into())));
        assert_eq!((last.messages[0].content.as_str(), last.messages[1].content.as_str()), ("ask 2", "yes"));
    }

    #[test]
    fn what_is_not_parquet_is_a_one_line_error() {
        for bytes in [&b""[..], b"PAR1", b"id,prompt\n1,2\n", &written(3)[..200]] {
            let error = read_bytes(bytes).unwrap_err().to_string();
            assert!(error.contains("expected a whole Parquet file") && error.lines().count() == 1, "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn broken_files_never_panic(at: proptest::sample::Index, to: u8, cut: bool) {
            let mut bytes = written(5);
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
                prop_assert!(read_bytes(&bytes).is_err());
            } else {
                bytes[at] = to;
                let _ = read_bytes(&bytes);
            }
        }
    }
}
