//! Joining JSON Lines that parts of a run wrote (`--shard I/N`) into the lines that one run writes.
//!
//! Each line of a part ends with a field `shard`: the part, the row's number in the whole run, and the number of rows. Lines without it
//! are those of one run, byte for byte.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::part::Part;
use crate::error::{Error, Result};

/// The last field of a line.
const FIELD: &str = ",\"shard\":";

/// Place of a line in the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRow {
    /// The part that made it.
    pub part: Part,
    /// Its number in the whole run, from 0.
    pub row: usize,
    /// Number of rows of the whole run.
    pub rows: usize,
}

impl ShardRow {
    /// A line with this as its last field.
    ///
    /// # Errors
    /// A line that is no object with a field.
    pub fn mark(&self, line: &str) -> Result<String> {
        let body = line.strip_suffix('}').filter(|body| body.len() > 1);
        let own = serde_json::to_string(self);
        match (body, own) {
            (Some(body), Ok(own)) => Ok(format!("{body}{FIELD}{own}}}")),
            _ => Err(Error::input("--shard", "a line without a field", "a JSON object")),
        }
    }

    /// The line without the field, and its place.
    fn read(line: &str) -> Option<(String, ShardRow)> {
        let (body, own) = line.strip_suffix('}')?.rsplit_once(FIELD)?;
        Some((format!("{body}}}"), serde_json::from_str(own).ok()?))
    }
}

/// A file of consecutive rows.
struct Found {
    path: PathBuf,
    part: Part,
    rows: std::ops::Range<usize>,
}

/// The lines of all parts in the order of the whole run, and their number. Files may be named in any order; those of
/// parts without a row may be left out.
///
/// # Errors
/// A line that no part wrote, or that was cut short; parts of different runs; a row twice; missing rows, with the parts that are not
/// there.
pub fn join_lines(parts: &[PathBuf]) -> Result<(String, usize)> {
    let mut found = Vec::new();
    let mut run: Option<(usize, usize)> = None;
    for path in parts {
        if let Some(one) = survey(path, &mut run)? {
            found.push(one);
        }
    }
    let Some((of, rows)) = run else {
        return Err(Error::input("parts", "no line in any file", "files written with --shard I/N"));
    };
    found.sort_by_key(|one| one.rows.start);
    let mut next = 0;
    let mut missing: Vec<String> = Vec::new();
    let mut gap = |from: usize, to: usize| match to.saturating_sub(from) {
        0 => {}
        1 => missing.push(format!("row {from}")),
        _ => missing.push(format!("rows {from} to {}", to - 1)),
    };
    for one in &found {
        if one.rows.start < next {
            let found = format!("row {} again, of part {}", one.rows.start, one.part);
            return Err(Error::input(one.path.display(), found, "each part once"));
        }
        gap(next, one.rows.start);
        next = one.rows.end;
    }
    gap(next, rows);
    if !missing.is_empty() {
        let there: BTreeMap<usize, ()> = found.iter().map(|one| (one.part.number, ())).collect();
        let absent: Vec<String> = (1..=of)
            .filter(|number| !there.contains_key(number))
            .map(|number| format!("{number}/{of}"))
            .collect();
        let absent = match absent.as_slice() {
            [] => String::new(),
            parts => format!("; no line of part {}", parts.join(", ")),
        };
        let found = format!("{} missing of {rows}{absent}", missing.join(", "));
        return Err(Error::input("parts", found, format!("all rows of all {of} parts")));
    }
    let mut text = String::new();
    for one in &found {
        each_line(&one.path, &mut |_, line| {
            // Every line was read above.
            let whole = ShardRow::read(line).map(|(whole, _)| whole).unwrap_or_default();
            text.push_str(&whole);
            text.push('\n');
            Ok(())
        })?;
    }
    Ok((text, rows))
}

/// The rows of a file; none where it is empty. `run` is the number of parts and of rows of the files before it.
fn survey(path: &Path, run: &mut Option<(usize, usize)>) -> Result<Option<Found>> {
    let mut found: Option<Found> = None;
    each_line(path, &mut |number, line| {
        let wrong = |what: String, expected: &str| {
            Error::input(format!("{}:{number}", path.display()), what, expected)
        };
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok();
        let (_, own) = ShardRow::read(line).filter(|_| is_json).ok_or_else(|| {
            let what =
                if is_json { "no field `shard` at its end" } else { "no JSON, or a line that was cut short" };
            wrong(what.into(), "a line that --shard I/N wrote, unchanged")
        })?;
        if line.contains("\"finish\":\"stopped\"") {
            return Err(wrong(
                "an answer of a run that was stopped".into(),
                "whole answers: make the part again",
            ));
        }
        let (of, rows) = *run.get_or_insert((own.part.of, own.rows));
        if (own.part.of, own.rows) != (of, rows) || own.row >= rows {
            let what = format!("row {} of {}, part {}", own.row, own.rows, own.part);
            return Err(wrong(what, &format!("rows of one run: {rows} rows in {of} parts")));
        }
        let one = found.get_or_insert(Found { path: path.into(), part: own.part, rows: own.row..own.row });
        if own.part != one.part || own.row != one.rows.end {
            let what = format!("row {} of part {}", own.row, own.part);
            return Err(wrong(what, &format!("row {} of part {}, a file a part", one.rows.end, one.part)));
        }
        one.rows.end += 1;
        Ok(())
    })?;
    Ok(found)
}

/// Calls `call` with each line that is not empty, and its number from 1.
fn each_line(path: &Path, call: &mut dyn FnMut(usize, &str) -> Result<()>) -> Result<()> {
    let file = std::fs::File::open(path).map_err(Error::file(path))?;
    super::refuse_irregular(
        path,
        &file.metadata().map_err(Error::file(path))?,
        "a file that --shard I/N wrote",
    )?;
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(Error::file(path))?;
        if !line.trim().is_empty() {
            call(number, &line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path, parts: &[(&str, &[usize])], rows: usize) -> Vec<PathBuf> {
        let write = |(number, (part, own)): (usize, &(&str, &[usize]))| {
            let path = folder.join(format!("{number}.jsonl"));
            let line = |&row: &usize| {
                let shard = ShardRow { part: part.parse().unwrap(), row, rows };
                shard.mark(&format!("{{\"id\":\"d{row}\",\"text\":\",\\\"shard\\\":\"}}")).unwrap() + "\n"
            };
            std::fs::write(&path, own.iter().map(line).collect::<String>()).unwrap();
            path
        };
        parts.iter().enumerate().map(write).collect()
    }

    fn joined(paths: &[PathBuf]) -> Result<String> {
        Ok(join_lines(paths)?.0)
    }

    #[test]
    fn parts_in_any_order_give_the_lines_of_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let paths = files(folder.path(), &[("3/3", &[3]), ("1/3", &[0, 1, 2]), ("2/3", &[])], 4);
        let expected: String =
            (0..4).map(|row| format!("{{\"id\":\"d{row}\",\"text\":\",\\\"shard\\\":\"}}\n")).collect();
        assert_eq!(joined(&paths).unwrap(), expected);
    }

    #[test]
    fn what_is_missing_or_foreign_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let message =
            |parts: &[(&str, &[usize])]| joined(&files(folder.path(), parts, 6)).unwrap_err().to_string();
        let found = message(&[("1/3", &[0, 1]), ("3/3", &[4])]);
        assert_eq!(
            found,
            "parts: rows 2 to 3, row 5 missing of 6; no line of part 2/3; expected all rows of all 3 parts"
        );
        assert!(message(&[("1/2", &[0, 1, 2]), ("1/2", &[0, 1, 2])]).contains("row 0 again, of part 1/2"));
        assert!(
            message(&[("1/2", &[0, 1, 2]), ("1/3", &[3])]).contains("rows of one run: 6 rows in 2 parts")
        );
        assert!(
            message(&[("1/2", &[0, 2])]).contains("0.jsonl:2: row 2 of part 1/2; expected row 1 of part 1/2")
        );
        let path = folder.path().join("plain.jsonl");
        for (text, expected) in [
            ("{\"id\":\"a\"}\n", "plain.jsonl:1: no field `shard`"),
            (
                "{\"id\":\"a\",\"shard\":{\"part\":\"1/",
                "plain.jsonl:1: no JSON, or a line that was cut short",
            ),
            ("", "no line in any file"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = joined(std::slice::from_ref(&path)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
