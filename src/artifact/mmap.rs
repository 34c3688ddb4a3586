//! Bytes of a file: memory-mapped, or embedded in the program.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Linux maps neighbours of an accessed page too (fault-around), so that releasing a range must include them: whole folios,
/// aligned in the file, and the fault-around window on either side. Bytes.
#[cfg(unix)]
const FOLIO: usize = 2 << 20;
#[cfg(unix)]
const FAULT_AROUND: usize = 64 << 10;

/// What is wrong with a file that changed under the reader, and what would be right.
#[cfg(unix)]
const SHRANK: &str = "the file was cut short while it was read";
const UNCHANGED: &str = "a file that nothing writes to meanwhile";

/// The beginning of a pointer that Git LFS leaves in place of a large file, and the longest such pointer.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const LONGEST_POINTER: usize = 1024;

/// Refuses the content of a file if it is a pointer of Git LFS.
///
/// # Errors
/// A pointer, with the command that fetches the file itself.
pub fn refuse_lfs_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    match bytes.len() <= LONGEST_POINTER && bytes.starts_with(LFS_POINTER) {
        true => {
            let found = "a pointer of Git LFS in place of the file";
            Err(Error::input(path.display(), found, "the file itself (`git lfs pull` fetches it)"))
        }
        false => Ok(()),
    }
}

/// Bytes of a file.
#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mapped),
    Static(&'static [u8]),
}

/// A mapped file.
#[derive(Debug)]
pub(super) struct Mapped {
    // Dropped first: the handler forgets the range before it is unmapped.
    #[cfg(unix)]
    _watched: super::bus_error::Watched,
    map: Mmap,
    path: PathBuf,
    state: State,
}

/// What tells one content of a file from another: device and number of the file, length, and time of the last change.
#[derive(Debug, PartialEq)]
struct State {
    #[cfg(unix)]
    file: (u64, u64),
    length: u64,
    modified: Option<std::time::SystemTime>,
}

impl State {
    fn of(metadata: &std::fs::Metadata) -> State {
        #[cfg(unix)]
        use std::os::unix::fs::MetadataExt;
        State {
            #[cfg(unix)]
            file: (metadata.dev(), metadata.ino()),
            length: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }

    /// Whether the content changed in place. A file that was replaced by another leaves the mapped one as it was.
    fn changed_to(&self, now: &State) -> bool {
        #[cfg(unix)]
        if self.file != now.file {
            return false;
        }
        self != now
    }
}

impl Bytes {
    pub fn open(path: &Path) -> Result<Bytes> {
        let file = File::open(path).map_err(Error::file(path))?;
        let metadata = file.metadata().map_err(Error::file(path))?;
        // A pipe or a device has no length, and may have no end.
        if !metadata.is_file() {
            return Err(Error::input(path.display(), "no regular file", "a file"));
        }
        // SAFETY: our own files are never changed in place (see `write_atomic`). What another process does meanwhile is
        // caught as far as it can be: `bus_error` for a file that is cut short, `check_unchanged` for the rest.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::file(path))?;
        refuse_lfs_pointer(path, &map)?;
        #[cfg(unix)]
        let line = format!("pearl: {}", Error::input(path.display(), SHRANK, UNCHANGED));
        Ok(Bytes::Mapped(Mapped {
            #[cfg(unix)]
            _watched: super::bus_error::watch(&map, &line),
            map,
            path: path.to_owned(),
            state: State::of(&metadata),
        }))
    }

    /// Checks that the file has not been changed in place since it was opened: what was read is then of one content.
    ///
    /// # Errors
    /// A file that was written to or cut short.
    pub fn check_unchanged(&self) -> Result<()> {
        let Bytes::Mapped(mapped) = self else { return Ok(()) };
        // A file that is gone or can't be seen any more is still mapped as it was.
        let Ok(metadata) = std::fs::metadata(&mapped.path) else { return Ok(()) };
        match mapped.state.changed_to(&State::of(&metadata)) {
            true => {
                let found = "the file was changed while it was read";
                Err(Error::input(mapped.path.display(), found, UNCHANGED))
            }
            false => Ok(()),
        }
    }

    pub fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(mapped) => &mapped.map,
            Bytes::Static(bytes) => bytes,
        }
    }

    /// Drops the pages of a range of the file from memory. They are read again on the next access.
    pub fn release(&self, bytes: &[u8]) {
        #[cfg(unix)]
        if let Bytes::Mapped(Mapped { map, .. }) = self {
            let offset = (bytes.as_ptr() as usize).wrapping_sub(map.as_ptr() as usize);
            if offset <= map.len() && bytes.len() <= map.len() - offset {
                let begin = (offset / FOLIO * FOLIO).saturating_sub(FAULT_AROUND);
                let end = ((offset + bytes.len()).next_multiple_of(FOLIO) + FAULT_AROUND).min(map.len());
                // SAFETY: the map is read-only, so that a dropped page comes back from the file unchanged.
                let advised = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, begin, end - begin)
                };
                // If the system ignores the advice, only memory use is higher.
                let _ = advised;
            }
        }
    }
}
