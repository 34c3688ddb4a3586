//! An open GGUF file.

use std::collections::BTreeMap;
use std::path::Path;

use super::header::{GgufTensor, HeaderReader};
use super::value::GgufValue;
use crate::artifact::mmap::Bytes;
use crate::error::{Error, Result};

/// A memory-mapped GGUF file with a checked header.
#[derive(Debug)]
pub struct GgufFile {
    /// Its path, for errors.
    name: String,
    bytes: Bytes,
    metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<String, GgufTensor>,
}

impl GgufFile {
    /// Opens a file, and checks that every tensor lies inside it and that none overlap.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read; [`Error::Input`] if it isn't a complete GGUF file.
    pub fn open(path: impl AsRef<Path>) -> Result<GgufFile> {
        let path = path.as_ref();
        let (name, bytes) = (path.display().to_string(), Bytes::open(path)?);
        let (metadata, tensors) = HeaderReader::new(&name, bytes.get()).read()?;
        bytes.release(bytes.get());
        Ok(GgufFile { name, bytes, metadata, tensors })
    }

    /// Name in errors: its path.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// Drops these bytes of the file from memory; they are read again on the next access.
    pub fn release(&self, bytes: &[u8]) {
        self.bytes.release(bytes);
    }

    /// Checks that the file has not been changed in place since it was opened.
    ///
    /// # Errors
    /// [`Error::Input`] if it has.
    pub fn check_unchanged(&self) -> Result<()> {
        self.bytes.check_unchanged()
    }

    /// The tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, GgufTensor> {
        &self.tensors
    }

    /// The bytes of a tensor, as many as its type and shape say.
    pub fn tensor_bytes(&self, tensor: &GgufTensor) -> &[u8] {
        // The range was checked on opening.
        self.bytes.get().get(tensor.range.clone()).unwrap_or_default()
    }

    /// Drops the metadata: a large vocabulary takes tens of megabytes.
    pub fn without_metadata(self) -> GgufFile {
        GgufFile { metadata: BTreeMap::new(), ..self }
    }

    /// All metadata, by key.
    pub fn metadata(&self) -> &BTreeMap<String, GgufValue> {
        &self.metadata
    }

    /// A metadata value.
    pub fn value(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// A metadata text; `None` if missing.
    ///
    /// # Errors
    /// [`Error::Input`] if it is of another type.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.read(key, "a text", |value| match value {
            GgufValue::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A metadata integer of at least 0; `None` if missing.
    ///
    /// # Errors
    /// [`Error::Input`] if it is of another type.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number from 0 up", GgufValue::count)
    }

    /// A finite metadata number; `None` if missing.
    ///
    /// # Errors
    /// [`Error::Input`] if it is of another type, infinite, or NaN.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a finite number", |value| value.number().filter(|number| number.is_finite()))
    }

    /// A metadata boolean; `None` if missing.
    ///
    /// # Errors
    /// [`Error::Input`] if it is of another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", |value| match value {
            GgufValue::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A metadata list; `None` if missing.
    ///
    /// # Errors
    /// [`Error::Input`] if it is of another type.
    pub fn list(&self, key: &str) -> Result<Option<&[GgufValue]>> {
        self.read(key, "a list", |value| match value {
            GgufValue::List(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// An error about this file.
    pub fn wrong(&self, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Error {
        Error::input(&self.name, found, expected)
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(&'a GgufValue) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let wrong = || self.wrong(format!("{key} is {}", value.summary()), expected);
        read(value).map(Some).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A file of one pair and two tensors, as its bytes.
    fn file() -> Vec<u8> {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        let mut push = |number: u64, width: usize| bytes.extend(&number.to_le_bytes()[..width]);
        push(2, 8);
        push(1, 8);
        let text = |bytes: &mut Vec<u8>, text: &str| {
            bytes.extend((text.len() as u64).to_le_bytes());
            bytes.extend(text.as_bytes());
        };
        text(&mut bytes, "list");
        bytes.extend([9u32, 8].map(u32::to_le_bytes).concat());
        bytes.extend(2u64.to_le_bytes());
        text(&mut bytes, "one");
        text(&mut bytes, "two");
        for (name, kind, offset) in [("a", 0u32, 0u64), ("b", 8, 128)] {
            text(&mut bytes, name);
            bytes.extend(1u32.to_le_bytes());
            bytes.extend(32u64.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(32) + 128 + 34, 7);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<GgufFile> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.gguf");
        std::fs::write(&path, bytes).unwrap();
        GgufFile::open(&path)
    }

    #[test]
    fn values_and_tensors_come_back() {
        let file = open(&file()).unwrap();
        let list = ["one", "two"].map(|text| GgufValue::Text(text.into()));
        assert_eq!(file.list("list").unwrap(), Some(&list[..]));
        assert_eq!(file.text("none").unwrap(), None);
        let error = file.number("list").unwrap_err().to_string();
        assert!(error.ends_with("list is a list of 2; expected a finite number"), "{error}");
        let tensor = &file.tensors()["b"];
        assert_eq!((tensor.kind.name, tensor.shape.as_slice()), ("Q8_0", &[32][..]));
        assert_eq!(file.tensor_bytes(tensor), [7; 34]);
    }

    #[test]
    fn hostile_headers_end_in_an_error() {
        let good = file();
        let at = |needle: &[u8]| good.windows(needle.len()).position(|window| window == needle).unwrap();
        let (list, a, b) = (at(b"list") + 4, at(b"a\x01") + 1, at(b"b\x01") + 1);
        let huge = u64::MAX.to_le_bytes();
        let cases: [(usize, &[u8], &str); 12] = [
            (0, b"GGML", "no GGUF magic at the beginning"),
            (4, &1u32.to_le_bytes(), "version 1"),
            (4, &3u32.to_be_bytes(), "big-endian"),
            (8, &huge, "a whole GGUF file"),
            (16, &huge, "a whole GGUF file"),
            (list, &13u32.to_le_bytes(), "metadata of type 13"),
            (list + 8, &huge, "a whole GGUF file"),
            (list + 16, &huge, "a whole GGUF file"),
            (a, &5u32.to_le_bytes(), "tensor a of 5 dimensions"),
            (a + 4, &huge, "tensor a of shape"),
            (b + 12, &99u32.to_le_bytes(), "tensor b of type 99"),
            (b + 16, &96u64.to_le_bytes(), "tensors a and b that overlap"),
        ];
        for (at, change, expected) in cases {
            let mut bytes = good.clone();
            bytes[at..at + change.len()].copy_from_slice(change);
            let error = open(&bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        for offset in [160u64, 1 << 62, 100] {
            let mut bytes = good.clone();
            bytes[b + 16..b + 24].copy_from_slice(&offset.to_le_bytes());
            let error = open(&bytes).unwrap_err().to_string();
            assert!(error.contains("tensor b at"), "{error}");
        }
        for length in 0..good.len() {
            assert!(open(&good[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn lists_that_claim_to_be_long_or_deep_are_refused() {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend([0u64, 1, 1].map(u64::to_le_bytes).concat());
        bytes.push(b'k');
        let mut deep = bytes.clone();
        deep.extend(9u32.to_le_bytes());
        for _ in 0..1000 {
            deep.extend(9u32.to_le_bytes());
            deep.extend(1u64.to_le_bytes());
        }
        assert!(open(&deep).unwrap_err().to_string().contains("too deep"));
        bytes.extend([9u32, 0].map(u32::to_le_bytes).concat());
        bytes.extend(5_000_000u64.to_le_bytes());
        bytes.resize(bytes.len() + 5_000_000, 0);
        assert!(open(&bytes).unwrap_err().to_string().contains("more than"));
    }

    proptest! {
        #[test]
        fn a_changed_file_is_an_error_or_reads_without_panic(at in 0usize..300, byte: u8) {
            let mut bytes = file();
            let at = at % bytes.len();
            bytes[at] = byte;
            if let Ok(file) = open(&bytes) {
                file.tensors().values().for_each(|tensor| drop(file.tensor_bytes(tensor).to_vec()));
            }
        }
    }
}
