//! Lock on an output folder: one run at a time writes to it.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// An advisory lock on a folder, where the system has one; released when it is dropped, and when the process dies. Nothing
/// is left of it: the folder itself is locked.
#[derive(Debug)]
pub struct FolderLock {
    folder: PathBuf,
    /// Whether the folder was made for this lock: it goes again if nothing was written.
    is_new: bool,
    /// None where a folder can't be locked.
    _held: Option<File>,
}

impl FolderLock {
    /// Locks a folder, which is made if it is missing.
    ///
    /// # Errors
    /// A folder that another run has locked; one that can't be made.
    pub fn take(folder: &Path) -> Result<FolderLock> {
        let is_new = !folder.exists();
        std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let held = File::open(folder).ok();
        if let Some(Err(std::fs::TryLockError::WouldBlock)) = held.as_ref().map(File::try_lock) {
            let found = "another run is writing to it";
            return Err(Error::input(folder.display(), found, "a folder of its own for each run"));
        }
        Ok(FolderLock { folder: folder.into(), is_new, _held: held })
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        if self.is_new {
            // Fails, as it should, where anything was written.
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_written_by_one_run_at_a_time_and_an_empty_one_goes() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("deep/run");
        let held = FolderLock::take(&folder).unwrap();
        let error = FolderLock::take(&folder).unwrap_err().to_string();
        assert!(
            error.ends_with("run: another run is writing to it; expected a folder of its own for each run")
        );
        drop(held);
        assert!(!folder.exists());
        let file = root.path().join("d.jsonl");
        std::fs::write(&file, "{}\n").unwrap();
        for path in [file.clone(), file.join("store")] {
            let error = FolderLock::take(&path).unwrap_err().to_string();
            assert!(error.contains(": a file where a folder is named; expected a folder"), "{error}");
        }
        let held = FolderLock::take(&folder).unwrap();
        std::fs::write(folder.join("file"), "x").unwrap();
        drop(held);
        drop(FolderLock::take(&folder).unwrap());
        assert!(folder.join("file").exists());
    }
}
