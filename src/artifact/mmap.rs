//! Bytes of a file: memory-mapped, or embedded in the program.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::embedded::embedded;
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

/// Refuses the content of a file if it is what a download leaves in place of it: a pointer of Git LFS, or a page.
///
/// # Errors
/// Such content, with what fetches the file itself.
pub fn refuse_lfs_pointer(path: &Path, bytes: &[u8]) -> Result<()> {
    let wrong = |found: &str, expected: &str| Err(Error::input(path.display(), found, expected));
    if bytes.len() <= LONGEST_POINTER && bytes.starts_with(LFS_POINTER) {
        let found = "a pointer of Git LFS in place of the file";
        return wrong(found, "the file itself (`git lfs pull` fetches it)");
    }
    match is_page(bytes) {
        true => {
            wrong("a page of a website in place of the file", "the file itself (its download, not its page)")
        }
        false => Ok(()),
    }
}

/// Whether a file begins as HTML, or as the XML of a server's error.
fn is_page(bytes: &[u8]) -> bool {
    let begin = &bytes[..bytes.len().min(LONGEST_POINTER)];
    let text = begin.strip_prefix(b"\xef\xbb\xbf").unwrap_or(begin).trim_ascii_start();
    let begins = |tag: &[u8]| text.get(..tag.len()).is_some_and(|own| own.eq_ignore_ascii_case(tag));
    [&b"<!doctype"[..], b"<html", b"<?xml", b"<!--", b"<head", b"<body"].into_iter().any(begins)
}

/// What a file is by its first bytes, where it is neither of safetensors nor GGUF.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    const FORMATS: [(&[u8], &str); 8] = [
        (b"PK\x03\x04", "a zip archive (torch.save writes such)"),
        (b"\x1f\x8b", "packed with gzip"),
        (b"\x28\xb5\x2f\xfd", "packed with Zstandard"),
        (b"\xfd7zXZ", "packed with xz"),
        (b"BZh", "packed with bzip2"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x93NUMPY", "an array of NumPy"),
    ];
    // A table of safetensors begins after its length, which may be any bytes.
    if bytes.get(8) == Some(&b'{') && !bytes.starts_with(b"{") {
        return None;
    }
    let known = FORMATS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, what)| *what);
    let pickle = matches!(bytes, [0x80, 2..=5, ..]).then_some("a pickle (torch.save writes such)");
    known.or(pickle).or(bytes.starts_with(b"{").then_some("text in JSON"))
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
        if let Some(bytes) = embedded(path) {
            return Ok(Bytes::Static(bytes));
        }
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
        if let Some(what) = other_format(&map) {
            return Err(Error::input(
                path.display(),
                what,
                "the file of safetensors or GGUF itself, unpacked",
            ));
        }
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
