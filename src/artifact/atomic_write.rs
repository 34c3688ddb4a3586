//! Atomic writes: a file is whole or absent.

use std::io::{BufWriter, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Name prefix of files that are being written; a killed run leaves them behind.
pub const TEMPORARY: &str = ".pearl-";

/// Writes a file atomically: `fill` writes a temporary file in the same folder (created if missing), which is synced and
/// then renamed to `path`.
///
/// # Errors
/// [`Error::File`] if the folder or the file can't be written; an earlier file at `path` is then untouched.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY);
        #[cfg(unix)]
        {
            // Temporary files are private by default; a result has the permissions of an ordinary file.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let temporary = builder.tempfile_in(folder)?;
        let mut buffered = BufWriter::with_capacity(1 << 20, temporary.as_file());
        fill(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|refused| refused.error)?;
        Ok(())
    };
    write().map_err(Error::file(path))
}

/// Writes a text file atomically; see [`write_atomic`].
///
/// # Errors
/// Those of [`write_atomic`].
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomic(path, |file| file.write_all(text.as_bytes()))
}
