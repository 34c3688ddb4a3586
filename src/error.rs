//! The library's error type: the place of a problem, what was found there, and what would be right.

use std::path::{Path, PathBuf};

use crate::printable::one_line;

/// An error of the library. Each variant prints as one line, without control characters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Invalid input.
    #[error("{}: {}; expected {}", one_line(place, MAX_CHARS), line(found), line(expected))]
    Input {
        /// The file, line, tensor or option.
        place: String,
        /// What was found there.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// The operating system refused to read or write a file.
    #[error("{}: {}", one_line(&path.to_string_lossy(), MAX_CHARS), system(source))]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A tensor operation failed; the message names the operation and the shapes.
    #[error("tensor operation: {}", line(.0))]
    Tensor(#[from] candle_core::Error),
    /// The user stopped the work.
    #[error("stopped")]
    Stopped,
}

/// Longest part of a message, in characters.
const MAX_CHARS: usize = 600;

/// A part of a message as one line.
fn line(part: &impl std::fmt::Display) -> String {
    one_line(&part.to_string(), 2 * MAX_CHARS).into_owned()
}

/// What the system refused, and what would be right.
fn system(source: &std::io::Error) -> String {
    use std::io::ErrorKind;
    // An error without a number is one of ours, with words of its own.
    let said = match source.raw_os_error().map(|_| source.kind()) {
        Some(ErrorKind::NotFound) => "No such file or folder; expected one that is there",
        Some(ErrorKind::NotADirectory) => "a file where a folder is named; expected a folder",
        Some(ErrorKind::AlreadyExists) => {
            "a file where a folder is named; expected a folder, or a path where nothing is"
        }
        Some(ErrorKind::IsADirectory) => "a folder; expected a file",
        Some(ErrorKind::PermissionDenied) => {
            "permission denied; expected one that this user may read or write"
        }
        _ => return line(source),
    };
    said.into()
}

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
        let cut = |text: String| {
            let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
            match line.char_indices().nth(MAX_CHARS) {
                Some((end, _)) => format!("{}…", &line[..end]),
                None => line,
            }
        };
        Error::Input {
            place: place.to_string(),
            found: cut(found.to_string()),
            expected: cut(expected.to_string()),
        }
    }

    /// The error with what was expected, where it is a file that is missing; any other error as it is.
    pub(crate) fn where_missing(self, expected: impl std::fmt::Display) -> Error {
        match &self {
            Error::File { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                Error::input(path.display(), "No such file or folder", expected)
            }
            _ => self,
        }
    }

    /// Conversion of an input/output error about `path`, for `map_err`.
    pub fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::File { path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_refuses_says_what_would_be_right() {
        let missing = || Error::file(Path::new("a.toml"))(std::io::Error::from_raw_os_error(2));
        assert_eq!(missing().to_string(), "a.toml: No such file or folder; expected one that is there");
        let said = missing().where_missing("a plan").to_string();
        assert_eq!(said, "a.toml: No such file or folder; expected a plan");
        for number in [13, 20, 21] {
            let error = Error::file(Path::new("a"))(std::io::Error::from_raw_os_error(number)).to_string();
            assert!(error.contains("; expected ") && !error.contains("os error"), "{error}");
        }
    }

    #[test]
    fn every_error_is_one_short_line_without_controls() {
        let name = format!("{}\u{1b}[31m\n\u{9b}\u{202e}", "x".repeat(10_000));
        let file = Error::file(Path::new(&name))(std::io::Error::other(name.clone()));
        let input = Error::input(format!("{name}:7"), &name, &name);
        let own = Error::Input { place: name.clone(), found: name.clone(), expected: name.clone() };
        let tensor = Error::Tensor(candle_core::Error::Msg(name.clone()));
        for error in [file, input, own, tensor] {
            let text = error.to_string();
            assert!(
                text.chars().count() < 4000 && !text.contains(['\u{1b}', '\n', '\u{9b}', '\u{202e}']),
                "{text}"
            );
        }
        // A name keeps its spaces, and the end of a long one, where the line is.
        let error = Error::input("a  b.jsonl:3", "x\n y", "z").to_string();
        assert_eq!(error, "a  b.jsonl:3: x y; expected z");
        assert!(Error::input(format!("{name}:7"), "x", "y").to_string().contains(":7: x; expected y"));
    }
}
