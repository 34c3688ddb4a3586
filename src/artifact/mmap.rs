//! A file's bytes: mapped into memory, so that they are read when they are looked at, or in the program itself.
//! It knows nothing of formats.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Whoever looks at a page is given those around it too, which are let go with it: on Linux as many as the system keeps
/// together, up to the first number of bytes (aligned in the file), and those up to the second number away.
#[cfg(unix)]
const AROUND: [usize; 2] = [2 << 20, 64 << 10];

#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl Bytes {
    pub fn open(path: &Path) -> Result<Bytes> {
        let file = File::open(path).map_err(Error::file(path))?;
        // SAFETY: files of ours are never changed in place (see `write_atomic`); that nobody else truncates a file
        // while it is read is the same trust that every reader of mapped weights asks for.
        Ok(Bytes::Mapped(unsafe { Mmap::map(&file) }.map_err(Error::file(path))?))
    }

    pub fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }

    /// Says that these bytes of the file are not wanted soon: they need not stay in memory. They are read again where
    /// they are looked at again.
    pub fn release(&self, bytes: &[u8]) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = self {
            let offset = (bytes.as_ptr() as usize).wrapping_sub(map.as_ptr() as usize);
            if offset <= map.len() && bytes.len() <= map.len() - offset {
                let [together, near] = AROUND;
                let begin = (offset / together * together).saturating_sub(near);
                let end = ((offset + bytes.len()).next_multiple_of(together) + near).min(map.len());
                // SAFETY: the map is only ever read, so that a page that was dropped comes back from the file as it was.
                let advised = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, begin, end - begin)
                };
                // Advice that is not taken costs memory, and nothing else.
                let _ = advised;
            }
        }
    }
}
