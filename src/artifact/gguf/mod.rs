//! A GGUF file, opened with doubt: its metadata, and where its tensors are. Nothing is allocated on a header's word:
//! what it claims must stand in the file.
//! It knows nothing of what the metadata means or a tensor is for.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.

mod header;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use self::header::Reader;
use super::mmap::Bytes;
use crate::error::{Error, Result};

/// An open file.
#[derive(Debug)]
pub struct GgufFile {
    /// Its path, for errors.
    name: String,
    bytes: Bytes,
    metadata: BTreeMap<String, GgufValue>,
    tensors: BTreeMap<String, GgufTensor>,
}

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// A whole number of any width.
    Whole(i64),
    Number(f64),
    Flag(bool),
    /// Bytes that are no UTF-8 are replaced: some vocabularies hold cut characters.
    Text(String),
    List(Vec<GgufValue>),
}

/// Where a tensor is.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTensor {
    pub kind: GgmlType,
    /// Outermost dimension first, as everywhere here; the file has them the other way round.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    range: Range<usize>,
}

/// A type of a tensor's numbers: quantised ones stand in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GgmlType {
    id: u32,
    pub name: &'static str,
    /// Numbers of a block; a row is a whole number of blocks.
    pub numbers: usize,
    /// Bytes of a block.
    pub bytes: usize,
}

/// Every type that a file may have, as `ggml_type` numbers them.
const TYPES: [(u32, &str, usize, usize); 33] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

impl GgmlType {
    fn find(id: u32) -> Option<GgmlType> {
        let (id, name, numbers, bytes) = TYPES.into_iter().find(|(known, ..)| *known == id)?;
        Some(GgmlType { id, name, numbers, bytes })
    }

    /// Its number in a file.
    pub fn id(self) -> u32 {
        self.id
    }
}

impl GgufFile {
    /// Opens a file, and checks that every tensor lies in it, apart from all others.
    ///
    /// # Errors
    /// [`Error::File`] if it can't be read; [`Error::Input`] if it is no GGUF file, or not a whole one.
    pub fn open(path: &Path) -> Result<GgufFile> {
        let (name, bytes) = (path.display().to_string(), Bytes::open(path)?);
        let (metadata, tensors) = Reader::new(&name, bytes.get()).file()?;
        bytes.release(bytes.get());
        Ok(GgufFile { name, bytes, metadata, tensors })
    }

    /// What it is called in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All of its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get()
    }

    /// Says that these bytes of the file need not stay in memory; they are read again where they are looked at again.
    pub fn release(&self, bytes: &[u8]) {
        self.bytes.release(bytes);
    }

    /// The tensors, by name.
    pub fn tensors(&self) -> &BTreeMap<String, GgufTensor> {
        &self.tensors
    }

    /// A tensor's bytes, as many as its type and shape say.
    pub fn tensor_bytes(&self, tensor: &GgufTensor) -> &[u8] {
        // Checked on opening.
        self.bytes.get().get(tensor.range.clone()).unwrap_or_default()
    }

    /// The same without its metadata: a large vocabulary's takes tens of megabytes.
    pub fn without_metadata(self) -> GgufFile {
        GgufFile { metadata: BTreeMap::new(), ..self }
    }

    /// A value of the metadata.
    pub fn value(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// A text of the metadata, if it is there.
    ///
    /// # Errors
    /// [`Error::Input`] if it is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.read(key, "a text", |value| match value {
            GgufValue::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A whole number of the metadata that is not below 0, if it is there.
    ///
    /// # Errors
    /// [`Error::Input`] if it is something else.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number from 0 up", GgufValue::count)
    }

    /// A number of the metadata, if it is there.
    ///
    /// # Errors
    /// [`Error::Input`] if it is something else.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.read(key, "a number", GgufValue::number)
    }

    /// A flag of the metadata, if it is there.
    ///
    /// # Errors
    /// [`Error::Input`] if it is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", |value| match value {
            GgufValue::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A list of the metadata, if it is there.
    ///
    /// # Errors
    /// [`Error::Input`] if it is something else.
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
        let wrong = || self.wrong(format!("{key} is {}", value.kind()), expected);
        read(value).map(Some).ok_or_else(wrong)
    }
}

impl GgufValue {
    /// A whole number that is not below 0.
    pub fn count(&self) -> Option<usize> {
        match self {
            GgufValue::Whole(number) => (*number).try_into().ok(),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<f64> {
        match self {
            GgufValue::Whole(number) => Some(*number as f64),
            GgufValue::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn kind(&self) -> String {
        match self {
            GgufValue::Whole(number) => number.to_string(),
            GgufValue::Number(number) => number.to_string(),
            GgufValue::Flag(flag) => flag.to_string(),
            GgufValue::Text(_) => "a text".into(),
            GgufValue::List(list) => format!("a list of {}", list.len()),
        }
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
        assert!(error.ends_with("list is a list of 2; expected a number"), "{error}");
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
            (0, b"GGML", "no GGUF at its beginning"),
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
