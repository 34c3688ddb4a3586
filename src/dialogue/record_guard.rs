//! Guard of a table's bytes, for a parser that accepts records of any length and a last quote that is never closed.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use super::byte_source::MAX_RECORD;

/// A reader that fails after [`MAX_RECORD`] bytes since it was last reset, and where the bytes end inside quotes.
pub(super) struct RecordGuard<R> {
    inner: R,
    left: Rc<Cell<usize>>,
    quotes: Option<Quotes>,
}

impl<R: Read> RecordGuard<R> {
    /// The reader, and the function that resets its limit. `delimiter` is that of a table with quotes.
    pub fn new(inner: R, delimiter: Option<u8>) -> (RecordGuard<R>, impl Fn()) {
        let left = Rc::new(Cell::new(MAX_RECORD));
        let handle = left.clone();
        let quotes = delimiter.map(Quotes::new);
        (RecordGuard { inner, left, quotes }, move || handle.set(MAX_RECORD))
    }

    /// The line on which the quote opens that holds the next byte.
    fn open_quote(&self) -> Option<u64> {
        self.quotes.as_ref().filter(|quotes| quotes.state == State::Quoted).map(|quotes| quotes.opened)
    }
}

impl<R: Read> Read for RecordGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other(match self.open_quote() {
                Some(line) => format!(
                    "a record of more than 16 MiB (the quote that opens on line {line} is not closed)"
                ),
                None => "more than 16 MiB without a record; expected rows, one a line".into(),
            }));
        }
        let length = buffer.len().min(left);
        let read = self.inner.read(&mut buffer[..length])?;
        self.left.set(left - read);
        match &mut self.quotes {
            Some(quotes) if read > 0 => buffer[..read].iter().for_each(|&byte| quotes.pass(byte)),
            _ => {}
        }
        match self.open_quote() {
            Some(line) if read == 0 && !buffer.is_empty() => Err(io::Error::other(format!(
                "the quote that opens on line {line} is never closed; expected a closing quote"
            ))),
            _ => Ok(read),
        }
    }
}

/// Where a table's reader stands, as csv and Python's csv module see it: a quote opens a cell only at its beginning.
struct Quotes {
    delimiter: u8,
    state: State,
    line: u64,
    /// Line of the last quote that opened.
    opened: u64,
    /// Bytes of a byte-order mark that may still come.
    mark: &'static [u8],
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// At the beginning of a cell.
    Begin,
    Bare,
    Quoted,
    /// After a quote that closes the cell, unless another follows.
    Closing,
}

impl Quotes {
    fn new(delimiter: u8) -> Quotes {
        Quotes { delimiter, state: State::Begin, line: 1, opened: 0, mark: b"\xef\xbb\xbf" }
    }

    fn pass(&mut self, byte: u8) {
        if let Some((first, rest)) = self.mark.split_first() {
            self.mark = if byte == *first { rest } else { &[] };
            if byte == *first {
                return;
            }
        }
        self.state = match (self.state, byte) {
            (State::Begin, b'"') => {
                self.opened = self.line;
                State::Quoted
            }
            (State::Quoted, b'"') => State::Closing,
            (State::Quoted, _) | (State::Closing, b'"') => State::Quoted,
            (_, b'\n' | b'\r') => State::Begin,
            (_, byte) if byte == self.delimiter => State::Begin,
            _ => State::Bare,
        };
        self.line += u64::from(byte == b'\n');
    }
}
