//! The one error of the library: where something stands, what was found there, and what would be right.
//! It knows nothing of exit codes; the program decides those.

use std::path::{Path, PathBuf};

/// What can go wrong. Each variant prints as one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Input that can't be used.
    #[error("{place}: {found}; expected {expected}")]
    Input {
        /// The file, line, tensor or option.
        place: String,
        found: String,
        expected: String,
    },
    /// The operating system refused to read or write.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// A tensor operation failed; the message names the operation and the shapes.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
    /// The user asked to stop. What was finished is kept.
    #[error("stopped; what was finished is kept, the same command goes on from there")]
    Stopped,
}

/// Characters of what was found, and of what was expected, that a message shows.
const LONGEST: usize = 600;

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `place`: `found`; expected `expected`.
    pub fn input(
        place: impl std::fmt::Display,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Error {
        // An error is one line, whatever a library's message looks like.
        // It stays a line that can be read, whatever a file holds.
        let line = |text: String| {
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            match line.char_indices().nth(LONGEST) {
                Some((end, _)) => format!("{}…", &line[..end]),
                None => line,
            }
        };
        Error::Input {
            place: place.to_string(),
            found: line(found.to_string()),
            expected: line(expected.to_string()),
        }
    }

    /// For `map_err` on an input/output result about `path`.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::File { path: path.to_owned(), source }
    }
}
