//! JSON Lines, read as raw records (one JSON object a line) and written from dialogues.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

use super::byte_source::MAX_RECORD;
use super::dialogue::Dialogue;
use super::raw_record::{RawRecord, Records, type_name};
use crate::artifact;
use crate::error::{Error, Result};

/// The records of a file. Blank lines and a byte-order mark are skipped.
pub(super) fn records(path: &Path, reader: Box<dyn Read>) -> Records {
    let mut reader = BufReader::with_capacity(1 << 16, reader);
    let path = path.to_owned();
    let mut buffer = Vec::new();
    let mut line = 0u64;
    let mut ended = false;
    Box::new(std::iter::from_fn(move || {
        while !ended {
            let length = match read_line(&mut reader, &mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) => {
                    ended = true;
                    return Some(Err(Error::file(&path)(error)));
                }
            };
            line += 1;
            let place = || format!("{}:{line}", path.display());
            if length > MAX_RECORD {
                let found = format!("a line of {length} bytes");
                return Some(Err(Error::input(place(), found, "at most 16 MiB a line")));
            }
            if line == 1 && buffer.starts_with(b"\xef\xbb\xbf") {
                buffer.drain(..3);
            }
            if !buffer.trim_ascii().is_empty() {
                return Some(parse(&buffer, &place).map(|columns| RawRecord { line, columns }));
            }
        }
        ended = true;
        None
    }))
}

/// Reads a line with its newline into `line`; gives its length, 0 at the end of the file. Bytes beyond [`MAX_RECORD`] are
/// counted and dropped.
fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    line.clear();
    let mut length = 0;
    loop {
        let available = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        let newline = available.iter().position(|&byte| byte == b'\n');
        let taken = newline.map_or(available.len(), |newline| newline + 1);
        let kept = taken.min(MAX_RECORD - line.len());
        line.extend_from_slice(&available[..kept]);
        length += taken;
        reader.consume(taken);
        if newline.is_some() || taken == 0 {
            return Ok(length);
        }
    }
}

fn parse(line: &[u8], place: &dyn Fn() -> String) -> Result<serde_json::Map<String, Value>> {
    let object = "an object, such as {\"id\": …, \"messages\": […], \"labels\": {…}}";
    let text = std::str::from_utf8(line).map_err(|error| {
        let found = format!("bytes that are not UTF-8 after column {}", error.valid_up_to());
        Error::input(place(), found, "UTF-8 text")
    })?;
    match serde_json::from_str(text) {
        Ok(Value::Object(columns)) => Ok(columns),
        Ok(other) => Err(Error::input(place(), type_name(&other), object)),
        Err(error) => {
            let message = error.to_string();
            // The parser counts lines within this line.
            let message = message.split(" at line ").next().unwrap_or_default();
            let found = format!("invalid JSON at column {} ({message})", error.column());
            Err(Error::input(place(), found, object))
        }
    }
}

/// Writes dialogues as JSON Lines, in the layout that [`crate::dialogue::read`] reads back. The file is written atomically.
///
/// # Errors
/// [`Error::File`] if it can't be written.
pub fn write_jsonl<'a>(
    path: impl AsRef<Path>,
    dialogues: impl IntoIterator<Item = &'a Dialogue>,
) -> Result<()> {
    artifact::write_atomic(path.as_ref(), |file| {
        for dialogue in dialogues {
            serde_json::to_writer(&mut *file, dialogue)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    })
}
