//! TOML text to a typed file, and the checks that every file shares.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::judge;

/// Parses TOML; an error names the line.
pub(super) fn parse<T: DeserializeOwned>(place: &str, text: &str, expected: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        Error::input(format!("{place}:{line}"), error.message(), expected)
    })
}

/// Checks the keys of a file that name its judge: the judge is made once, as a run will make it.
pub(super) fn check_judge(
    place: &str,
    name: Option<&str>,
    options: &judge::Options,
    model: &Path,
) -> Result<()> {
    match judge::of_file(name, options, &model.to_string_lossy()) {
        Ok(_) => Ok(()),
        Err(Error::Input { place: key, found, expected }) => {
            Err(Error::Input { place: format!("{place}, {key}"), found, expected })
        }
        Err(other) => Err(other),
    }
}
