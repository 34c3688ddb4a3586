//! Bytes of a file: memory-mapped, or embedded in the program.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Linux maps neighbours of an accessed page too (fault-around), so that releasing a range must include them: whole folios,
/// aligned in the file, and the fault-around window on either side. Bytes.
#[cfg(unix)]
const FOLIO: usize = 2 << 20;
#[cfg(unix)]
const FAULT_AROUND: usize = 64 << 10;

/// Bytes of a file.
#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl Bytes {
    pub fn open(path: &Path) -> Result<Bytes> {
        let file = File::open(path).map_err(Error::file(path))?;
        // SAFETY: our own files are never changed in place (see `write_atomic`). A file that another process truncates
        // while it is mapped is undefined behaviour here as in every reader of mapped weights.
        Ok(Bytes::Mapped(unsafe { Mmap::map(&file) }.map_err(Error::file(path))?))
    }

    pub fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }

    /// Drops the pages of a range of the file from memory. They are read again on the next access.
    pub fn release(&self, bytes: &[u8]) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = self {
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
