//! A GGUF file, opened with doubt: its metadata, and where its tensors are. Nothing is allocated on a header's word:
//! what it claims must stand in the file.
//! It knows nothing of what the metadata means or a tensor is for.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3, little-endian.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::mapped::Bytes;
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

/// Values of the metadata, those in lists counted: a list of small numbers takes more room here than in the file.
const MOST_VALUES: usize = 1 << 22;
/// A list in a list in a list… is followed so far.
const DEEPEST: usize = 4;
/// `GGML_MAX_DIMS`.
const MOST_DIMENSIONS: u32 = 4;
const WHOLE: &str = "a whole GGUF file (was it cut short?)";

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
        let (metadata, tensors) = Reader { name: &name, bytes: bytes.get(), at: 0, values: 0 }.file()?;
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

type Table = (BTreeMap<String, GgufValue>, BTreeMap<String, GgufTensor>);

/// Reads the header from its beginning on.
struct Reader<'a> {
    name: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Values that were read.
    values: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Error {
        Error::input(self.name, found, expected)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        if count > rest.len() {
            let found = format!("{count} bytes claimed at byte {} of {}", self.at, self.bytes.len());
            return Err(self.wrong(found, WHOLE));
        }
        self.at += count;
        Ok(&rest[..count])
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut fixed = [0; N];
        fixed.copy_from_slice(self.take(N)?);
        Ok(fixed)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.fixed()?))
    }

    fn text(&mut self) -> Result<&'a [u8]> {
        let length = self.u64()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn key(&mut self) -> Result<String> {
        let at = self.at;
        let key = self.text()?;
        let wrong = |_| self.wrong(format!("a name at byte {at} that is no UTF-8"), WHOLE);
        String::from_utf8(key.to_vec()).map_err(wrong)
    }

    fn file(mut self) -> Result<Table> {
        const MAGIC: &[u8] = b"GGUF";
        if !self.bytes.starts_with(MAGIC) {
            return Err(self.wrong("no GGUF at its beginning", "a GGUF file"));
        }
        self.take(MAGIC.len())?;
        match self.u32()? {
            2 | 3 => (),
            version if version.swap_bytes() <= 3 => {
                return Err(self.wrong("numbers in big-endian order", "a little-endian GGUF file"));
            }
            version => return Err(self.wrong(format!("version {version}"), "a GGUF file of version 2 or 3")),
        }
        let (tensors, pairs) = (self.u64()?, self.u64()?);
        let mut metadata = BTreeMap::new();
        for _ in 0..pairs {
            let key = self.key()?;
            let kind = self.u32()?;
            let value = self.value(kind, 0)?;
            if metadata.contains_key(&key) {
                return Err(self.wrong(format!("key {key} twice"), "each key once"));
            }
            metadata.insert(key, value);
        }
        let mut found = BTreeMap::new();
        for _ in 0..tensors {
            let name = self.key()?;
            let tensor = self.tensor(&name)?;
            if found.contains_key(&name) {
                return Err(self.wrong(format!("tensor {name} twice"), "each tensor once"));
            }
            found.insert(name, tensor);
        }
        self.place(&metadata, &mut found)?;
        Ok((metadata, found))
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<GgufValue> {
        self.values += 1;
        if self.values > MOST_VALUES {
            let found = format!("more than {MOST_VALUES} values of metadata");
            return Err(self.wrong(found, "metadata of a model"));
        }
        Ok(match kind {
            0 => GgufValue::Whole(u8::from_le_bytes(self.fixed()?).into()),
            1 => GgufValue::Whole(i8::from_le_bytes(self.fixed()?).into()),
            2 => GgufValue::Whole(u16::from_le_bytes(self.fixed()?).into()),
            3 => GgufValue::Whole(i16::from_le_bytes(self.fixed()?).into()),
            4 => GgufValue::Whole(self.u32()?.into()),
            5 => GgufValue::Whole(i32::from_le_bytes(self.fixed()?).into()),
            6 => GgufValue::Number(f32::from_le_bytes(self.fixed()?).into()),
            7 => GgufValue::Flag(self.fixed::<1>()? != [0]),
            8 => GgufValue::Text(String::from_utf8_lossy(self.text()?).into_owned()),
            9 if depth < DEEPEST => {
                let (kind, count) = (self.u32()?, self.u64()?);
                // Grows with what is there, whatever the count claims.
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(kind, depth + 1)?);
                }
                GgufValue::List(list)
            }
            9 => return Err(self.wrong("lists inside each other, too deep", "metadata of a model")),
            10 => {
                let number = self.u64()?;
                let wrong = |_| self.wrong(format!("the number {number}"), "numbers below 2⁶³");
                GgufValue::Whole(number.try_into().map_err(wrong)?)
            }
            11 => GgufValue::Whole(i64::from_le_bytes(self.fixed()?)),
            12 => GgufValue::Number(f64::from_le_bytes(self.fixed()?)),
            _ => {
                let found = format!("metadata of type {kind} at byte {}", self.at);
                return Err(self.wrong(found, "types 0 to 12"));
            }
        })
    }

    /// A tensor, whose range has its offset among the tensors and its length yet.
    fn tensor(&mut self, name: &str) -> Result<GgufTensor> {
        let dimensions = self.u32()?;
        if dimensions > MOST_DIMENSIONS {
            let found = format!("tensor {name} of {dimensions} dimensions");
            return Err(self.wrong(found, format!("{MOST_DIMENSIONS} at most")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.insert(0, usize::try_from(self.u64()?).unwrap_or(usize::MAX));
        }
        let id = self.u32()?;
        let offset = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        let Some(kind) = GgmlType::find(id) else {
            return Err(self.wrong(format!("tensor {name} of type {id}"), "a type of GGML's"));
        };
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(kind.numbers) {
            let found = format!("tensor {name} of type {} with rows of {row} numbers", kind.name);
            return Err(self.wrong(found, format!("rows of whole blocks, {} numbers each", kind.numbers)));
        }
        let numbers = shape.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
        let length = numbers.and_then(|numbers| (numbers / kind.numbers).checked_mul(kind.bytes));
        let end = length.and_then(|length| offset.checked_add(length));
        match end {
            Some(end) => Ok(GgufTensor { kind, shape, range: offset..end }),
            None => {
                let found = format!("tensor {name} of shape {shape:?} at {offset}");
                Err(self.wrong(found, "tensors that lie in the file"))
            }
        }
    }

    /// Brings the tensors' ranges to where they are in the file.
    fn place(
        &self,
        metadata: &BTreeMap<String, GgufValue>,
        tensors: &mut BTreeMap<String, GgufTensor>,
    ) -> Result<()> {
        const KEY: &str = "general.alignment";
        let alignment = metadata.get(KEY).map_or(Some(32), GgufValue::count);
        let Some(alignment) = alignment.filter(|by| by.is_power_of_two() && *by <= 1 << 20) else {
            return Err(self.wrong(format!("{KEY} that is none"), "a power of two"));
        };
        let begin = self.at.next_multiple_of(alignment);
        let mut order: Vec<(&String, &mut GgufTensor)> = tensors.iter_mut().collect();
        order.sort_by_key(|(_, tensor)| tensor.range.start);
        let mut last: Option<(&str, usize)> = None;
        for (name, tensor) in order {
            let Range { start, end } = tensor.range;
            let inside = begin.checked_add(end).is_some_and(|end| end <= self.bytes.len());
            if !inside || !start.is_multiple_of(alignment) {
                let found = format!("tensor {name} at {start} to {end} of {} bytes", self.bytes.len());
                return Err(self.wrong(found, WHOLE));
            }
            if let Some((other, _)) = last.filter(|(_, end)| start < *end && start < tensor.range.end) {
                return Err(self.wrong(format!("tensors {other} and {name} that overlap"), "tensors apart"));
            }
            if last.is_none_or(|(_, before)| end >= before) {
                last = Some((name, end));
            }
            tensor.range = begin + start..begin + end;
        }
        Ok(())
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
