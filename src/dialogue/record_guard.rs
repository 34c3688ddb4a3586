//! Guard of a table's bytes, for a parser that accepts records of any length and a last quote that is never closed, and that
//! counts blank lines and the ends of lines with those after them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::rc::Rc;

use super::byte_source::MAX_RECORD;

/// A reader that fails after [`MAX_RECORD`] bytes without a record, and where the bytes end inside quotes.
pub(super) struct RecordGuard<R> {
    inner: R,
    rows: Rc<RefCell<Rows>>,
}

/// The rows that have passed a guard.
pub(super) struct RowCounter(Rc<RefCell<Rows>>);

impl RowCounter {
    /// Notes that the parser has given a record; gives the line on which that begins.
    pub fn next(&self) -> Option<u64> {
        let mut rows = self.0.borrow_mut();
        rows.left = MAX_RECORD;
        rows.begins.pop_front()
    }
}

impl<R: Read> RecordGuard<R> {
    /// The reader, and the lines of its records. `quoting` is whether quotes stand around cells.
    pub fn new(inner: R, delimiter: u8, quoting: bool) -> (RecordGuard<R>, RowCounter) {
        let rows = Rc::new(RefCell::new(Rows::new(delimiter, quoting)));
        (RecordGuard { inner, rows: rows.clone() }, RowCounter(rows))
    }
}

impl<R: Read> Read for RecordGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut rows = self.rows.borrow_mut();
        if rows.left == 0 {
            return Err(io::Error::other(match rows.open_quote() {
                Some(line) => {
                    format!(
                        "a record of more than 16 MiB (the quote that opens on line {line} is not closed)"
                    )
                }
                None => "more than 16 MiB without a record; expected rows, one a line".into(),
            }));
        }
        let length = buffer.len().min(rows.left);
        let read = self.inner.read(&mut buffer[..length])?;
        rows.left -= read;
        buffer[..read].iter().for_each(|&byte| rows.pass(byte));
        match rows.open_quote() {
            Some(line) if read == 0 && length > 0 => Err(io::Error::other(format!(
                "the quote that opens on line {line} is never closed; expected a closing quote"
            ))),
            _ => Ok(read),
        }
    }
}

/// Where a table's reader stands, as csv and Python's csv module see it: a quote opens a cell only at its beginning.
struct Rows {
    delimiter: u8,
    quoting: bool,
    state: State,
    line: u64,
    /// Line of the last quote that opened.
    opened: u64,
    /// Lines on which the records begin that the parser has not given yet: those in its buffer.
    begins: VecDeque<u64>,
    /// Bytes that may still pass before the next record.
    left: usize,
    /// Bytes of a byte-order mark that may still come.
    mark: &'static [u8],
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before a record, where blank lines are passed over.
    Blank,
    /// At the beginning of a cell.
    Cell,
    Bare,
    Quoted,
    /// After a quote that closes the cell, unless another follows.
    Closing,
}

impl Rows {
    fn new(delimiter: u8, quoting: bool) -> Rows {
        Rows {
            delimiter,
            quoting,
            state: State::Blank,
            line: 1,
            opened: 0,
            begins: VecDeque::new(),
            left: MAX_RECORD,
            mark: b"\xef\xbb\xbf",
        }
    }

    /// The line on which the quote opens that holds the next byte.
    fn open_quote(&self) -> Option<u64> {
        (self.state == State::Quoted).then_some(self.opened)
    }

    fn pass(&mut self, byte: u8) {
        if let Some((first, rest)) = self.mark.split_first() {
            self.mark = if byte == *first { rest } else { &[] };
            if byte == *first {
                return;
            }
        }
        if self.state == State::Blank && !b"\r\n".contains(&byte) {
            self.begins.push_back(self.line);
            self.state = State::Cell;
        }
        self.state = match (self.state, byte) {
            (State::Cell, b'"') if self.quoting => {
                self.opened = self.line;
                State::Quoted
            }
            (State::Quoted, b'"') => State::Closing,
            (State::Quoted, _) | (State::Closing, b'"') => State::Quoted,
            (_, b'\n' | b'\r') => State::Blank,
            (_, byte) if byte == self.delimiter => State::Cell,
            _ => State::Bare,
        };
        self.line += u64::from(byte == b'\n');
    }
}
