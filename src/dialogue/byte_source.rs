//! Bytes of a file on their way to a format reader: decompressed, counted, and limited per record.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::zstandard::Frames;
use crate::error::{Error, Result};

/// The longest record accepted, in bytes, so that a broken file can't fill memory.
pub(super) const MAX_RECORD: usize = 16 << 20;

/// Compression of a file, as the last ending of its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstandard,
}

/// Progress of reading a file: bytes on disk, or rows of a Parquet file. Clones share one counter.
#[derive(Clone, Debug, Default)]
pub struct ReadProgress {
    read: Arc<AtomicU64>,
    total: u64,
}

impl ReadProgress {
    /// Nothing read yet of `total` bytes or rows.
    pub(super) fn new(total: u64) -> ReadProgress {
        ReadProgress { read: Arc::default(), total }
    }

    pub(super) fn advance(&self, by: usize) {
        self.read.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Fraction read, from 0 to 1.
    pub fn fraction(&self) -> f64 {
        match self.total {
            0 => 1.0,
            total => (self.read.load(Ordering::Relaxed) as f64 / total as f64).min(1.0),
        }
    }
}

/// Opens a text file, decompressing it as its name says.
///
/// # Errors
/// A file that can't be read; content of another kind than the name says.
pub(super) fn open(path: &Path, compression: Option<Compression>) -> Result<(Box<dyn Read>, ReadProgress)> {
    let file = File::open(path).map_err(Error::file(path))?;
    let length = file.metadata().map_err(Error::file(path))?.len();
    let progress = ReadProgress::new(length);
    let mut raw = BufReader::with_capacity(1 << 16, Counted { inner: file, progress: progress.clone() });
    if length == 0 {
        // The format readers report that there is no record.
        return Ok((Box::new(raw), progress));
    }
    let head = peek(&mut raw).map_err(Error::file(path))?;
    let signature = SIGNATURES.iter().find(|signature| head.starts_with(signature.magic));
    let Some(compression) = compression else {
        return match signature {
            None => Ok((Box::new(raw), progress)),
            Some(signature) => {
                let found = format!("the first bytes of {}", signature.content);
                Err(Error::input(path.display(), found, signature.expected))
            }
        };
    };
    let matches = signature.is_some_and(|signature| signature.compression == Some(compression));
    match (compression, matches) {
        (Compression::Gzip, true) => {
            Ok((Box::new(Decompressed(flate2::bufread::MultiGzDecoder::new(raw))), progress))
        }
        (Compression::Zstandard, true) => Ok((Box::new(Decompressed(Frames::new(raw))), progress)),
        (Compression::Gzip, false) => {
            Err(Error::input(path.display(), "not a gzip file", "gzip, as its name says"))
        }
        (Compression::Zstandard, false) => {
            Err(Error::input(path.display(), "not a Zstandard file", "Zstandard, as its name says"))
        }
    }
}

/// The first bytes of a kind of file that isn't plain text.
struct Signature {
    magic: &'static [u8],
    content: &'static str,
    compression: Option<Compression>,
    /// What would be right for a file with this content.
    expected: &'static str,
}

const SIGNATURES: [Signature; 5] = [
    Signature {
        magic: b"\x1f\x8b",
        content: "a gzip file",
        compression: Some(Compression::Gzip),
        expected: "a name that ends in .gz, if that is what it is",
    },
    Signature {
        magic: b"\x28\xb5\x2f\xfd",
        content: "a Zstandard file",
        compression: Some(Compression::Zstandard),
        expected: "a name that ends in .zst, if that is what it is",
    },
    Signature {
        magic: b"PAR1",
        content: "a Parquet file",
        compression: None,
        expected: "a name that ends in .parquet, if that is what it is",
    },
    Signature { magic: b"\xff\xfe", content: "UTF-16 text", compression: None, expected: "UTF-8 text" },
    Signature { magic: b"\xfe\xff", content: "UTF-16 text", compression: None, expected: "UTF-8 text" },
];

fn peek(reader: &mut BufReader<impl Read>) -> io::Result<[u8; 4]> {
    use std::io::BufRead;
    let mut head = [0; 4];
    let available = reader.fill_buf()?;
    let length = available.len().min(head.len());
    head[..length].copy_from_slice(&available[..length]);
    Ok(head)
}

/// A reader that counts its bytes.
struct Counted<R> {
    inner: R,
    progress: ReadProgress,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.progress.advance(read);
        Ok(read)
    }
}

/// A decoder whose errors say that decompression failed.
struct Decompressed<R>(R);

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(format!("can't be decompressed ({error}); expected a whole file")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::read_options::ReadOptions;
    use super::super::reader::read;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstandard(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn ids(ending: &str, bytes: &[u8]) -> Result<String, String> {
        let file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let read = read(file.path(), &ReadOptions::default()).map_err(|error| error.to_string())?;
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
        // Files of several members, as `cat a.gz b.gz` makes them.
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
            (".csv", b"\xff\xfei\0d\0".to_vec(), "the first bytes of UTF-16 text; expected UTF-8"),
            (".jsonl.gz", LINES.to_vec(), "not a gzip file"),
            (".jsonl.zst", gzip(LINES), "not a Zstandard file"),
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
            /// A truncated or changed file is an error or still reads; it never panics.
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
