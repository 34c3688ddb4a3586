//! Whole files in memory: settings, plans, tables. A file without an end, such as a device, is refused; settings may come from a
//! pipe.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

use super::embedded::embedded;
use crate::error::{Error, Result};

/// The longest file that is read whole, in bytes.
const LONGEST: u64 = 256 << 20;

/// The longest file of settings, in bytes.
const LONGEST_SETTINGS: u64 = 16 << 20;

/// Refuses what is no regular file: a pipe would be empty when it is read again, and a device may have no end.
pub(crate) fn refuse_irregular(path: &Path, metadata: &Metadata, expected: &str) -> Result<()> {
    match metadata.is_file() {
        true => Ok(()),
        false => {
            let found = if metadata.is_dir() { "a folder" } else { "a pipe or a device" };
            Err(Error::input(path.display(), found, expected))
        }
    }
}

/// Bytes of a file.
///
/// # Errors
/// A file that can't be read, is no regular file, or has more than 256 MiB.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    read_within(path, LONGEST, "a file of settings or results")
}

fn read_within(path: &Path, longest: u64, expected: &str) -> Result<Vec<u8>> {
    if let Some(bytes) = embedded(path) {
        return Ok(bytes.to_vec());
    }
    // Before the file is opened: to open a pipe is to wait for a writer.
    let metadata = std::fs::metadata(path).map_err(Error::file(path));
    let metadata = metadata.map_err(|error| error.where_missing(expected))?;
    refuse_irregular(path, &metadata, expected)?;
    let mut bytes = Vec::new();
    if metadata.len() <= longest {
        let file = File::open(path).map_err(Error::file(path))?;
        file.take(longest + 1).read_to_end(&mut bytes).map_err(Error::file(path))?;
    }
    match metadata.len().max(bytes.len() as u64) > longest {
        true => Err(Error::input(path.display(), format!("more than {} MiB", longest >> 20), expected)),
        false => Ok(bytes),
    }
}

/// Text of a file, without a byte-order mark.
///
/// # Errors
/// Those of [`read_file`]; bytes that are not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    decoded(path, read_file(path)?)
}

/// Text of a file of settings, such as a plan or an experiment, or of a pipe (`<(…)` of a shell), without a byte-order mark.
///
/// # Errors
/// Those of [`read_text`]; more than 16 MiB; a pipe that nobody writes to.
pub fn read_settings(path: &Path) -> Result<String> {
    let expected = "a file of settings";
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo()) {
            let bytes = super::pipe::read(path, LONGEST_SETTINGS).map_err(Error::file(path))?;
            return match bytes {
                Ok(bytes) => decoded(path, bytes),
                Err(found) => Err(Error::input(path.display(), found, expected)),
            };
        }
    }
    decoded(path, read_within(path, LONGEST_SETTINGS, expected)?)
}

fn decoded(path: &Path, bytes: Vec<u8>) -> Result<String> {
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let found = format!("bytes that are not UTF-8 after byte {}", error.utf8_error().valid_up_to());
        Error::input(path.display(), found, "UTF-8 text")
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_or_of_other_bytes_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        std::fs::write(&path, "\u{feff}a = 1").unwrap();
        assert_eq!(read_text(&path).unwrap(), "a = 1");
        std::fs::write(&path, b"caf\xe9").unwrap();
        let error = read_text(&path).unwrap_err().to_string();
        assert!(
            error.ends_with("plan.toml: bytes that are not UTF-8 after byte 3; expected UTF-8 text"),
            "{error}"
        );
        #[cfg(unix)]
        {
            let error = read_file(Path::new("/dev/zero")).unwrap_err().to_string();
            assert_eq!(error, "/dev/zero: a pipe or a device; expected a file of settings or results");
        }
        let error = read_text(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with(": a folder; expected a file of settings or results"), "{error}");
        // A file with a hole: its length is refused before a byte is read.
        File::create(&path).unwrap().set_len(LONGEST_SETTINGS + 1).unwrap();
        let error = read_settings(&path).unwrap_err().to_string();
        assert!(error.ends_with("plan.toml: more than 16 MiB; expected a file of settings"), "{error}");
        assert_eq!(read_file(&path).unwrap().len() as u64, LONGEST_SETTINGS + 1);
    }
}
