//! JSON files with a header.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::atomic_write::write_atomic;
use super::header::Header;
use super::read_file::read_file;
use crate::error::{Error, Result};

/// Refuses text with more values than `most`, by its commas, before it is parsed: a parsed value takes about a hundred bytes, however
/// short its text is.
///
/// # Errors
/// What was found, as text.
pub fn check_values(text: &[u8], most: usize) -> std::result::Result<(), String> {
    match text.iter().filter(|byte| **byte == b',').count() {
        commas if commas >= most => Err(format!("{commas} commas, more than {most} values")),
        _ => Ok(()),
    }
}

/// Writes the fields of `header`, then those of `body`, as one indented JSON object, atomically.
///
/// # Errors
/// A `body` that isn't a struct or a map with string keys; a file that can't be written.
pub fn write_json<T: Serialize>(path: &Path, header: &Header, body: &T) -> Result<()> {
    #[derive(Serialize)]
    struct Whole<'a, T> {
        #[serde(flatten)]
        header: &'a Header,
        #[serde(flatten)]
        body: &'a T,
    }
    let mut text = serde_json::to_vec_pretty(&Whole { header, body })
        .map_err(|problem| Error::input(path.display(), problem, "a body that JSON can hold"))?;
    text.push(b'\n');
    write_atomic(path, |file| file.write_all(&text))
}

/// Reads a file of [`write_json`]. `T` must ignore unknown fields, because the header's are among them.
///
/// # Errors
/// [`Error::File`] if it can't be read; [`Error::Input`] if it isn't JSON, is of another kind or version, or lacks a field.
pub fn read_json<T: DeserializeOwned>(path: &Path, kind: &str, version: u32) -> Result<(Header, T)> {
    let expected = || format!("a file of kind {kind}, as pearl writes it");
    let bytes = read_file(path).map_err(|error| error.where_missing(expected()))?;
    let wrong = |problem: serde_json::Error| {
        Error::input(path.display(), problem, format!("a {kind} file of version {version}"))
    };
    let header: Header = serde_json::from_slice(&bytes).map_err(wrong)?;
    header.check(path, kind, version)?;
    Ok((header, serde_json::from_slice(&bytes).map_err(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_too_many_values_is_refused_before_it_is_parsed() {
        assert_eq!(check_values(b"[1,2,3]", 3), Ok(()));
        assert_eq!(check_values(b"[1,2,3,4]", 3), Err("3 commas, more than 3 values".into()));
    }
}
