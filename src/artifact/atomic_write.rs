//! Atomic writes: a file is whole or absent.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::NamedTempFile;

use super::read_file::refuse_irregular;
use crate::error::{Error, Result};

/// Name prefix of files that are being written. A killed run leaves them behind; the next write to the folder removes them.
pub const TEMPORARY: &str = ".pearl-";

/// Random letters and digits after the prefix.
const RANDOM: usize = 6;

/// Attempts at a temporary file, of which another process takes one for abandoned only in the moment before it is locked.
const ATTEMPTS: usize = 10;

/// Symbolic links followed to a file, as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Writes a file atomically: `fill` writes a temporary file in the same folder (created if missing), which is synced and
/// then renamed to `path`. The file that a symbolic link names is written, and the link stays.
///
/// # Errors
/// A folder, a pipe or a device at `path`; [`Error::File`] if the folder or the file can't be written; an earlier file at
/// `path` is then untouched.
pub fn write_atomic(path: &Path, fill: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    if let Ok(metadata) = std::fs::metadata(path) {
        refuse_irregular(path, &metadata, "a file, or a path where nothing is")?;
    }
    let target = followed(path).map_err(Error::file(path))?;
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(folder)?;
        remove_abandoned_once(folder);
        let temporary = temporary_in(folder)?;
        let mut buffered = BufWriter::with_capacity(1 << 20, temporary.as_file());
        fill(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        temporary.as_file().sync_all()?;
        temporary.persist(&target).map_err(|refused| refused.error)?;
        Ok(())
    };
    write().map_err(Error::file(path))
}

/// The path that symbolic links lead to, whether or not a file is there.
fn followed(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match std::fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(path),
        }
    }
    Err(std::io::Error::other("a circle of symbolic links"))
}

/// A temporary file, locked while it is open, so that a file without a lock is known to be abandoned.
fn temporary_in(folder: &Path) -> std::io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY).rand_bytes(RANDOM);
    #[cfg(unix)]
    {
        // Temporary files are private by default; a result has the permissions of an ordinary file.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    for _ in 0..ATTEMPTS {
        let file = builder.tempfile_in(folder)?;
        let taken = matches!(file.as_file().try_lock(), Err(std::fs::TryLockError::WouldBlock));
        if !taken && file.path().exists() {
            return Ok(file);
        }
    }
    Err(std::io::Error::other("another process removes every file before it is written"))
}

/// Removes the abandoned files of a folder, at the first write to it in this process.
fn remove_abandoned_once(folder: &Path) {
    static CLEANED: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let Ok(mut cleaned) = CLEANED.lock() else { return };
    if cleaned.get_or_insert_default().insert(folder.to_owned()) {
        drop(cleaned);
        remove_abandoned(folder);
    }
}

/// Removes what killed runs left in a folder: temporary files that no process holds locked.
pub fn remove_abandoned(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY));
        let ours = random.is_some_and(|random| {
            random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if ours
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            // One that can't be removed is only untidy.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Writes a text file atomically; see [`write_atomic`].
///
/// # Errors
/// Those of [`write_atomic`].
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomic(path, |file| file.write_all(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_write_removes_what_a_killed_run_left_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [".pearl-aB3xYz", ".pearl-notes.txt", ".other-aB3xYz"] {
            std::fs::write(at(name), "half").unwrap();
        }
        std::fs::create_dir(at(".pearl-folder")).unwrap();
        let writing = temporary_in(folder.path()).unwrap();
        write_text(&at("whole"), "x").unwrap();
        assert!(!at(".pearl-aB3xYz").exists());
        assert!(writing.path().exists(), "another run still writes it");
        for name in [".pearl-notes.txt", ".other-aB3xYz", ".pearl-folder"] {
            assert!(at(name).exists(), "{name}");
        }
        writing.persist(at("other")).unwrap();
        assert!(at("other").exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_and_its_file_is_written() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("deep")).unwrap();
        std::fs::write(at("deep/file"), "old").unwrap();
        symlink("deep/second", at("first")).unwrap();
        symlink("file", at("deep/second")).unwrap();
        symlink(at("deep/new"), at("dangling")).unwrap();
        symlink("circle", at("circle")).unwrap();
        for (link, file) in [("first", "deep/file"), ("dangling", "deep/new")] {
            write_text(&at(link), "new").unwrap();
            assert!(at(link).is_symlink(), "{link}");
            assert!(!at(file).is_symlink(), "{file}");
            assert_eq!(std::fs::read_to_string(at(file)).unwrap(), "new");
        }
        assert!(at("deep/second").is_symlink());
        let error = write_text(&at("circle"), "new").unwrap_err().to_string();
        assert!(error.ends_with("circle: a circle of symbolic links"), "{error}");
    }
}
