//! JSON Lines, read as raw records (one JSON object a line) and written from dialogues. What a file holds instead (one list,
//! objects of several lines) is told from its beginning.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::byte_source::MAX_RECORD;
use super::dialogue::Dialogue;
use super::raw_record::{Place, RawRecord, Records};
use super::{json_list, json_record};
use crate::artifact;
use crate::error::{Error, Result};

/// A line of more bytes ends the file: it may have no end.
const MAX_LINE: usize = 256 << 20;

/// The records of a file of JSON Lines, or of one list of objects. Under the name `.json` (`is_json`) objects may be written
/// over several lines. Blank lines and a byte-order mark are skipped.
pub(super) fn records(path: &Path, mut reader: Box<dyn Read>, is_json: bool) -> Records {
    let mut head = Vec::new();
    if let Err(error) = reader.by_ref().take(HEAD).read_to_end(&mut head) {
        return Box::new(std::iter::once(Err(Error::file(path)(error))));
    }
    let has_lines = has_lines(&head, is_json);
    let reader = BufReader::with_capacity(1 << 16, io::Cursor::new(head).chain(reader));
    if has_lines { lines(path, reader) } else { json_list::records(path, reader) }
}

/// Bytes from which the arrangement of a file is told.
const HEAD: u64 = 1 << 16;

/// Whether each line of a file that begins with `head` is a record.
fn has_lines(head: &[u8], is_json: bool) -> bool {
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let end = text.iter().position(|&byte| byte == b'\n');
    let (first, rest) = text.split_at(end.unwrap_or(text.len()));
    let whole = serde_json::from_slice::<serde::de::IgnoredAny>(first);
    match text.first() {
        Some(b'[') => !is_json && whole.is_ok() && !rest.trim_ascii().is_empty(),
        // An object whose first line is only its beginning, or several on one line.
        Some(b'{') if is_json => match whole {
            Ok(_) => true,
            Err(error) if error.is_eof() => end.is_none(),
            Err(_) => !has_several(first),
        },
        _ => true,
    }
}

/// Whether a line has an object after its first, separated by space or nothing.
fn has_several(line: &[u8]) -> bool {
    let mut values = serde_json::Deserializer::from_slice(line).into_iter::<serde::de::IgnoredAny>();
    let first = values.next();
    let rest = &line[values.byte_offset()..];
    first.is_some_and(|value| value.is_ok()) && rest.trim_ascii_start().starts_with(b"{")
}

fn lines(path: &Path, mut reader: impl BufRead + 'static) -> Records {
    let path = path.to_owned();
    let mut buffer = Vec::new();
    let mut line = 0u64;
    let mut ended = false;
    Box::new(std::iter::from_fn(move || {
        let mut blank = 0;
        while !ended {
            let read = read_line(&mut reader, &mut buffer);
            let length = match read {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) => {
                    ended = true;
                    return Some(Err(Error::file(&path)(error)));
                }
            };
            line += 1;
            let place = Place { path: path.clone(), line, element: None };
            if length > MAX_RECORD {
                let found = format!("a line of {length} bytes");
                return Some(Err(Error::input(place, found, "at most 16 MiB a line")));
            }
            if line == 1 && buffer.starts_with(b"\xef\xbb\xbf") {
                buffer.drain(..3);
            }
            if !buffer.trim_ascii().is_empty() {
                return Some(json_record::parse(&buffer, &place).map(|columns| RawRecord { place, columns }));
            }
            blank += length;
            if blank > MAX_RECORD {
                ended = true;
                let found = format!("line {line}: more than 16 MiB of blank lines; expected a record");
                return Some(Err(Error::file(&path)(io::Error::other(found))));
            }
        }
        ended = true;
        None
    }))
}

/// Reads a line with its newline into `line`; gives its length, 0 at the end of the file. Bytes beyond [`MAX_RECORD`] are
/// counted and dropped.
///
/// # Errors
/// A failed read; a line of more than [`MAX_LINE`].
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
        if length > MAX_LINE {
            return Err(io::Error::other("a line of more than 256 MiB; expected text with newlines"));
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
