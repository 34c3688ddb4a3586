//! Whole files in memory: settings, plans, tables. A file without an end, such as a device, is refused.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};

/// The longest file that is read whole, in bytes.
const LONGEST: u64 = 256 << 20;

/// Bytes of a file.
///
/// # Errors
/// A file that can't be read, or of more than 256 MiB.
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(Error::file(path))?;
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(Error::file(path))?;
    match bytes.len() as u64 > LONGEST {
        true => Err(Error::input(path.display(), "more than 256 MiB", "a file of settings or results")),
        false => Ok(bytes),
    }
}

/// Text of a file, without a byte-order mark.
///
/// # Errors
/// Those of [`read_file`]; bytes that are not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let mut text = String::from_utf8(read_file(path)?).map_err(|error| {
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
            assert_eq!(error, "/dev/zero: more than 256 MiB; expected a file of settings or results");
        }
    }
}
