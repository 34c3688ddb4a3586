//! A JSON file that is one list, or objects of several lines, as raw records: one value at a time, in constant memory.
//!
//! Values are told apart by their brackets and quotes alone; each is then read by the parser.

use std::io::{self, BufRead};
use std::path::Path;

use super::byte_source::MAX_RECORD;
use super::json_record;
use super::raw_record::{Place, RawRecord, Records};
use crate::error::Error;

/// Where the reader stands.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Begin,
    /// In a list, before the first element.
    First,
    /// In a list, after a comma.
    Element,
    /// In a list, after an element.
    Comma,
    /// Among values that follow one another without a list.
    Loose,
    End,
}

/// The records of a file: the elements of its list, or its values.
pub(super) fn records(path: &Path, reader: impl BufRead + 'static) -> Records {
    let path = path.to_owned();
    let mut values = Values { reader, line: 1, state: State::Begin, element: 0 };
    Box::new(std::iter::from_fn(move || match values.next() {
        Ok(None) => None,
        Ok(Some((bytes, line))) => {
            let place = Place { path: path.clone(), line, element: Some(values.element) };
            Some(json_record::parse(&bytes, &place).map(|columns| RawRecord { place, columns }))
        }
        Err(error) => {
            // Where the next value begins isn't known.
            values.state = State::End;
            let error = match error.kind() {
                io::ErrorKind::InvalidData => io::Error::other(format!("line {}: {error}", values.line)),
                _ => error,
            };
            Some(Err(Error::file(&path)(error)))
        }
    }))
}

struct Values<R> {
    reader: R,
    /// Line of the next byte.
    line: u64,
    state: State,
    /// Number of the last value, from 1.
    element: u64,
}

fn broken(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

impl<R: BufRead> Values<R> {
    /// The next value's bytes, and the line that it begins on.
    fn next(&mut self) -> io::Result<Option<(Vec<u8>, u64)>> {
        loop {
            let Some(byte) = self.skip_space()? else {
                return match self.state {
                    State::First | State::Element | State::Comma => {
                        Err(broken("the file ends within a list; expected ]"))
                    }
                    _ => Ok(None),
                };
            };
            let shown = || format!("`{}`", byte.escape_ascii());
            match (self.state, byte) {
                (State::Begin, b'[') => {
                    self.take();
                    self.state = State::First;
                }
                (State::Begin, _) => self.state = State::Loose,
                (State::First | State::Comma, b']') => {
                    self.take();
                    self.state = State::End;
                }
                (State::Comma, b',') => {
                    self.take();
                    self.state = State::Element;
                }
                (State::Comma, _) => {
                    return Err(broken(format!("{} after an element; expected a comma or ]", shown())));
                }
                (State::End, _) => {
                    return Err(broken(format!("{} after the list; expected the end of the file", shown())));
                }
                (State::Element, b']') => {
                    return Err(broken("a comma before ]; expected an element after it, or no comma"));
                }
                (State::First | State::Element | State::Loose, b',') => {
                    return Err(broken("a comma without an element before it; expected a list [{…}, {…}]"));
                }
                (State::First | State::Element | State::Loose, _) => {
                    if self.state != State::Loose {
                        self.state = State::Comma;
                    }
                    self.element += 1;
                    let line = self.line;
                    return Ok(Some((self.value()?, line)));
                }
            }
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => return Ok(read?.first().copied()),
            }
        }
    }

    /// Passes over the byte that was peeked at.
    fn take(&mut self) {
        self.reader.consume(1);
    }

    /// Passes over space and a byte-order mark; gives the byte after it, none at the end.
    fn skip_space(&mut self) -> io::Result<Option<u8>> {
        let mut length = 0;
        loop {
            match self.peek()? {
                Some(byte)
                    if byte.is_ascii_whitespace()
                        || (self.state == State::Begin && b"\xef\xbb\xbf".contains(&byte)) =>
                {
                    self.line += u64::from(byte == b'\n');
                    self.take();
                }
                other => return Ok(other),
            }
            length += 1;
            if length > MAX_RECORD {
                return Err(broken("more than 16 MiB of blank lines; expected a record"));
            }
        }
    }

    /// The bytes of one value, to its last bracket or quote, or to what ends a number or a word.
    fn value(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
        while let Some(byte) = self.peek()? {
            if !quoted
                && depth == 0
                && !bytes.is_empty()
                && (byte.is_ascii_whitespace() || b",]}".contains(&byte))
            {
                break;
            }
            self.take();
            self.line += u64::from(byte == b'\n');
            bytes.push(byte);
            if bytes.len() > MAX_RECORD {
                return Err(broken("a value of more than 16 MiB (is a bracket or a quote not closed?)"));
            }
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'{' | b'[' if !quoted => depth += 1,
                b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
                _ => {}
            }
            if !quoted && depth == 0 && b"\"}]".contains(&byte) {
                break;
            }
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_options::ReadOptions;
    use super::super::reader::read;

    fn ids(ending: &str, text: &str, skip_bad: bool) -> Result<String, String> {
        let file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let read = read(file.path(), &ReadOptions::default().skip_bad(skip_bad));
        let read = read.map_err(|error| error.to_string().split_once(ending).unwrap().1.to_owned())?;
        Ok(read.dialogues.iter().map(|dialogue| dialogue.id.clone()).collect::<Vec<_>>().join(" "))
    }

    const TWO: [&str; 2] = [r#"{"id":"a","prompt":"o]},\"ne"}"#, r#"{"id":"b","prompt":"two\\"}"#];

    #[test]
    fn json_of_every_arrangement_is_read() {
        let [a, b] = TWO;
        let pretty = |text: &str| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            serde_json::to_string_pretty(&value).unwrap()
        };
        for text in [
            // JSON Lines under this name, as `Dataset.to_json` writes them.
            format!("{a}\n{b}\n"),
            format!("{a}\r\n\r\n{b}"),
            format!("[{a},{b}]"),
            format!("[ {a} , {b} ]"),
            format!("\u{feff} [\n{a},\n{b}\n]\n"),
            pretty(&format!("[{a},{b}]")),
            format!("{}\n{}\n", pretty(a), pretty(b)),
        ] {
            assert_eq!(ids(".json", &text, false).as_deref(), Ok("a b"), "{text}");
            if !text.starts_with("{\n") {
                assert_eq!(ids(".jsonl", &text, false).as_deref(), Ok("a b"), "{text}");
            }
        }
        assert_eq!(ids(".json", a, false).as_deref(), Ok("a"));
        // Objects that follow one another on a line, as some writers leave them out of a stream.
        for text in [format!("{a}{b}"), format!("{a} {b}\n"), format!("{a}\t{b}\n\n")] {
            assert_eq!(ids(".json", &text, false).as_deref(), Ok("a b"), "{text}");
            let error = ids(".jsonl", &text, false).unwrap_err();
            assert!(error.contains("after the record's end; expected one object a line"), "{error}");
        }
    }

    #[test]
    fn a_bad_element_is_named_and_may_be_skipped_and_a_broken_list_ends() {
        let [a, b] = TWO;
        let list = format!("[\n{a},\n{{\"prompt\":\n oops}},\n7, {b}]");
        let error = ids(".json", &list, false).unwrap_err();
        assert!(error.starts_with(":4 (element 2): invalid JSON at column 2"), "{error}");
        assert_eq!(ids(".json", &list, true).as_deref(), Ok("a b"));
        let named = ids(".json", &format!("[{a},{{\"prompt\":3}}]"), false).unwrap_err();
        assert!(named.starts_with(":1 (element 2): a number in `prompt`"), "{named}");
        for (text, expected) in [
            (format!("[{a},"), "line 1: the file ends within a list"),
            (format!("[{a}\n{b}]"), "line 2: `{` after an element; expected a comma or ]"),
            (format!("[{a}]\n{b}"), "line 2: `{` after the list"),
            (format!("[{a},\n{{\"prompt\":\"x"), ":2 (element 2): invalid JSON"),
            ("[]".into(), "no dialogue in the file"),
            (format!("[{a},]"), "line 1: a comma before ]; expected an element"),
            (format!("[{a},\n{b}\n,\n]"), "line 4: a comma before ]"),
            (format!("[,{a}]"), "line 1: a comma without an element before it"),
            (format!("[{a},,{b}]"), "line 1: a comma without an element before it"),
            (format!("{{\n{}}},\n{b}", &a[1..a.len() - 1]), "line 2: a comma without an element before it"),
            (format!("{a}\n{b}{b}"), ":2: a value at column 28, after the record's end; expected one object"),
        ] {
            let error = ids(".json", &text, false).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        // Lines of lists are JSON Lines whose records are bad.
        let error = ids(".jsonl", &format!("[1]\n{a}\n"), false).unwrap_err();
        assert!(error.starts_with(":1: a list; expected an object"), "{error}");
        assert_eq!(ids(".jsonl", &format!("[1]\n{a}\n"), true).as_deref(), Ok("a"));
    }
}
