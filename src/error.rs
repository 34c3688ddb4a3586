//! The library's error type: the place of a problem, what was found there, and what would be right.

use std::path::{Path, PathBuf};

/// An error of the library. Each variant prints as one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Invalid input.
    #[error("{place}: {found}; expected {expected}")]
    Input {
        /// The file, line, tensor or option.
        place: String,
        /// What was found there.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// The operating system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A tensor operation failed; the message names the operation and the shapes.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
    /// The user stopped the work. What was finished is kept.
    #[error("stopped; finished work is kept, and the same command resumes from it")]
    Stopped,
}

/// Longest `found` and `expected` of a message, in characters.
const MAX_CHARS: usize = 600;

/// A result with the library's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Input`] that prints as `place: found; expected expected`. Line breaks become spaces, and long texts are
    /// cut, so that the message is one readable line whatever a file or another library puts in it.
    pub fn input(
        place: impl std::fmt::Display,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Error {
        let one_line = |text: String| {
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            match line.char_indices().nth(MAX_CHARS) {
                Some((end, _)) => format!("{}…", &line[..end]),
                None => line,
            }
        };
        Error::Input {
            place: place.to_string(),
            found: one_line(found.to_string()),
            expected: one_line(expected.to_string()),
        }
    }

    /// Conversion of an input/output error about `path`, for `map_err`.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::File { path: path.to_owned(), source }
    }
}
