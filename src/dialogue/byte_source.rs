//! A file's bytes on their way to a reader: as they stand, or out of gzip or Zstandard, and never more of them in one
//! record than memory should hold. It knows nothing of formats.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// No record may be longer than this, so that a broken file can't fill the memory.
pub(super) const LONGEST_RECORD: usize = 16 << 20;

/// How a file is packed, as its name's last ending says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstandard,
}

/// How much of a file was read, as it lies on the disk.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    read: Arc<AtomicU64>,
    total: u64,
}

impl Progress {
    /// Nothing read yet of so many bytes, or records.
    pub(super) fn of(total: u64) -> Progress {
        Progress { read: Arc::default(), total }
    }

    pub(super) fn advance(&self, by: usize) {
        self.read.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// From 0 to 1.
    pub fn fraction(&self) -> f64 {
        match self.total {
            0 => 1.0,
            total => (self.read.load(Ordering::Relaxed) as f64 / total as f64).min(1.0),
        }
    }
}

/// Opens a file whose bytes are text, once what is packed is unpacked.
pub(super) fn open(path: &Path, packing: Packing) -> Result<(Box<dyn Read>, Progress)> {
    let file = File::open(path).map_err(Error::file(path))?;
    let length = file.metadata().map_err(Error::file(path))?.len();
    let progress = Progress::of(length);
    let mut raw = BufReader::with_capacity(1 << 16, Counted { inner: file, progress: progress.clone() });
    let head = peek(&mut raw).map_err(Error::file(path))?;
    let found = MAGIC.iter().find(|(magic, ..)| head.starts_with(magic));
    match (packing, found) {
        // Of nothing, nothing comes: the readers say that there is no record.
        (_, _) if length == 0 => Ok((Box::new(raw), progress)),
        (Packing::Gzip, Some((_, "gzip", _))) => {
            Ok((Box::new(Unpacked(flate2::bufread::MultiGzDecoder::new(raw))), progress))
        }
        (Packing::Zstandard, Some((_, "Zstandard", _))) => {
            let decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(Error::file(path))?;
            Ok((Box::new(Unpacked(decoder)), progress))
        }
        (Packing::None, None) => Ok((Box::new(raw), progress)),
        (Packing::None, Some((_, what, expected))) => {
            Err(Error::input(path.display(), format!("what {what} begins with"), expected))
        }
        (Packing::Gzip, _) => Err(Error::input(path.display(), "no gzip file", "gzip, as its name says")),
        (Packing::Zstandard, _) => {
            Err(Error::input(path.display(), "no Zstandard file", "Zstandard, as its name says"))
        }
    }
}

/// What files begin with that are no plain text of ours: what it is, and what would be right.
const MAGIC: [(&[u8], &str, &str); 5] = [
    (b"\x1f\x8b", "gzip", "a name that ends in .gz, if that is what it is"),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "a name that ends in .zst, if that is what it is"),
    (b"PAR1", "Parquet", "a name that ends in .parquet, if that is what it is"),
    (b"\xff\xfe", "UTF-16 text", "UTF-8 text"),
    (b"\xfe\xff", "UTF-16 text", "UTF-8 text"),
];

fn peek(reader: &mut BufReader<impl Read>) -> io::Result<[u8; 4]> {
    use std::io::BufRead;
    let mut head = [0; 4];
    let available = reader.fill_buf()?;
    let length = available.len().min(head.len());
    head[..length].copy_from_slice(&available[..length]);
    Ok(head)
}

struct Counted<R> {
    inner: R,
    progress: Progress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.progress.advance(read);
        Ok(read)
    }
}

/// A decoder's bytes; its complaints say what they are about.
struct Unpacked<R>(R);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => {
                io::Error::other(format!("can't be unpacked ({error}); expected a whole file, not cut short"))
            }
        })
    }
}

/// Fails once more than [`LONGEST_RECORD`] bytes were read since it was renewed: for readers of others that would take
/// a record of any length.
pub(super) struct Budget<R> {
    inner: R,
    left: std::rc::Rc<std::cell::Cell<usize>>,
}

impl<R: Read> Budget<R> {
    /// The reader, and the handle that sets its budget to the full again.
    pub fn new(inner: R) -> (Budget<R>, impl Fn()) {
        let left = std::rc::Rc::new(std::cell::Cell::new(LONGEST_RECORD));
        let handle = left.clone();
        (Budget { inner, left }, move || handle.set(LONGEST_RECORD))
    }
}

impl<R: Read> Read for Budget<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other("a record of more than 16 MiB (is a quote not closed?)"));
        }
        let length = buffer.len().min(left);
        let read = self.inner.read(&mut buffer[..length])?;
        self.left.set(left - read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::reader::{Options, read};

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 1).unwrap()
    }

    fn ids(ending: &str, bytes: &[u8]) -> Result<String, String> {
        let file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let read = read(file.path(), &Options::default()).map_err(|error| error.to_string())?;
        Ok(read.dialogues.iter().map(|dialogue| dialogue.id.clone()).collect::<Vec<_>>().join(" "))
    }

    const LINES: &[u8] = b"{\"id\":\"a\",\"prompt\":\"one\"}\n{\"id\":\"b\",\"prompt\":\"two\"}\n";
    const TABLE: &[u8] = b"id,prompt\na,one\nb,two\n";

    #[test]
    fn packed_files_read_as_they_are() {
        for (name, bytes) in [("jsonl", LINES), ("csv", TABLE)] {
            assert_eq!(ids(&format!(".{name}.gz"), &gzip(bytes)).unwrap(), "a b");
            assert_eq!(ids(&format!(".{name}.ZST"), &zstandard(bytes)).unwrap(), "a b");
        }
        // Files of several parts, as `cat a.gz b.gz` makes them.
        let (first, second) = LINES.split_at(26);
        assert_eq!(ids(".jsonl.gz", &[gzip(first), gzip(second)].concat()).unwrap(), "a b");
        assert_eq!(ids(".jsonl.zst", &[zstandard(first), zstandard(second)].concat()).unwrap(), "a b");
    }

    #[test]
    fn names_what_is_packed_otherwise_than_its_name_says() {
        for (ending, bytes, expected) in [
            (".jsonl", gzip(LINES), "expected a name that ends in .gz"),
            (".jsonl", zstandard(LINES), "expected a name that ends in .zst"),
            (".csv", b"PAR1....".to_vec(), "expected a name that ends in .parquet"),
            (".csv", b"\xff\xfei\0d\0".to_vec(), "UTF-16 text begins with; expected UTF-8"),
            (".jsonl.gz", LINES.to_vec(), "no gzip file"),
            (".jsonl.zst", gzip(LINES), "no Zstandard file"),
            (".gz", gzip(LINES), "expected a file whose name ends in .jsonl"),
        ] {
            let error = ids(ending, &bytes).unwrap_err();
            assert!(error.contains(expected) && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn a_little_that_unpacks_to_much_is_refused_within_memory() {
        let much = vec![b'x'; 100 << 20];
        for (ending, bytes) in [(".jsonl.gz", gzip(&much)), (".jsonl.zst", zstandard(&much))] {
            assert!(bytes.len() < 1 << 20);
            let error = ids(ending, &bytes).unwrap_err();
            assert!(error.contains(":1: a line of 104857600 bytes"), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        /// Cut short or with a byte changed: an error, or what can still be known; never a panic.
        #[test]
        fn broken_packing_never_panics(at: proptest::sample::Index, to: u8, cut: bool) {
            for (ending, mut bytes) in [(".jsonl.gz", gzip(LINES)), (".csv.zst", zstandard(TABLE))] {
                let at = at.index(bytes.len());
                if cut {
                    bytes.truncate(at);
                    prop_assert!(ids(ending, &bytes).is_err());
                } else {
                    bytes[at] = to;
                    let _ = ids(ending, &bytes);
                }
            }
        }
    }
}
