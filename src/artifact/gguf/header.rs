//! Parser of the header of a GGUF file: bytes in, metadata and tensor ranges out.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ggml_type::GgmlType;
use super::value::GgufValue;
use crate::error::{Error, Result};

/// The most metadata values, counting those in lists: each takes some 60 bytes in memory, and the largest vocabularies have 1.3
/// million with their merges, scores and types.
const MAX_VALUES: usize = 1 << 21;
/// Bytes of the file for each value at least: a vocabulary has more, and a value takes 32 bytes in memory.
const BYTES_PER_VALUE: usize = 4;
/// Values that any file may have.
const MIN_VALUES: usize = 1 << 16;
/// The deepest nesting of lists.
const MAX_DEPTH: usize = 4;
/// `GGML_MAX_DIMS`.
const MAX_DIMENSIONS: u32 = 4;
const COMPLETE: &str = "a whole GGUF file (was it truncated?)";

/// A tensor's type, shape and place in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufTensor {
    /// Element type.
    pub kind: GgmlType,
    /// Outermost dimension first, the reverse of the order in the file.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub(super) range: Range<usize>,
}

type Table = (BTreeMap<String, GgufValue>, BTreeMap<String, GgufTensor>);

/// Reader of a header from its first byte.
pub(super) struct HeaderReader<'a> {
    name: &'a str,
    bytes: &'a [u8],
    offset: usize,
    /// Metadata values read so far.
    values: usize,
}

impl<'a> HeaderReader<'a> {
    /// A reader of the file `name`.
    pub fn new(name: &'a str, bytes: &'a [u8]) -> HeaderReader<'a> {
        HeaderReader { name, bytes, offset: 0, values: 0 }
    }

    fn wrong(&self, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Error {
        Error::input(self.name, found, expected)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.offset..];
        if count > rest.len() {
            let found = format!("{count} bytes claimed at byte {} of {}", self.offset, self.bytes.len());
            return Err(self.wrong(found, COMPLETE));
        }
        self.offset += count;
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
        let at = self.offset;
        let key = self.text()?;
        let wrong = |_| self.wrong(format!("a name at byte {at} that is not UTF-8"), COMPLETE);
        String::from_utf8(key.to_vec()).map_err(wrong)
    }

    /// The metadata and the tensors.
    pub fn read(mut self) -> Result<Table> {
        const MAGIC: &[u8] = b"GGUF";
        if !self.bytes.starts_with(MAGIC) {
            return Err(self.wrong("no GGUF magic at the beginning", "a GGUF file"));
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
        self.resolve_ranges(&metadata, &mut found)?;
        Ok((metadata, found))
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<GgufValue> {
        self.values += 1;
        let most = MAX_VALUES.min(MIN_VALUES.max(self.bytes.len() / BYTES_PER_VALUE));
        if self.values > most {
            let found = format!("more than {most} values of metadata");
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
            9 if depth < MAX_DEPTH => {
                let (kind, count) = (self.u32()?, self.u64()?);
                // Grows with the values present, whatever the count claims.
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(kind, depth + 1)?);
                }
                GgufValue::List(list)
            }
            9 => return Err(self.wrong("lists nested too deep", "metadata of a model")),
            10 => {
                let number = self.u64()?;
                let wrong = |_| self.wrong(format!("the number {number}"), "numbers below 2⁶³");
                GgufValue::Whole(number.try_into().map_err(wrong)?)
            }
            11 => GgufValue::Whole(i64::from_le_bytes(self.fixed()?)),
            12 => GgufValue::Number(f64::from_le_bytes(self.fixed()?)),
            _ => {
                let found = format!("metadata of type {kind} at byte {}", self.offset);
                return Err(self.wrong(found, "types 0 to 12"));
            }
        })
    }

    /// A tensor's entry. Its range is still relative to the tensor data.
    fn tensor(&mut self, name: &str) -> Result<GgufTensor> {
        let dimensions = self.u32()?;
        if dimensions > MAX_DIMENSIONS {
            let found = format!("tensor {name} of {dimensions} dimensions");
            return Err(self.wrong(found, format!("{MAX_DIMENSIONS} at most")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.insert(0, usize::try_from(self.u64()?).unwrap_or(usize::MAX));
        }
        let id = self.u32()?;
        let offset = usize::try_from(self.u64()?).unwrap_or(usize::MAX);
        let Some(kind) = GgmlType::find(id) else {
            return Err(self.wrong(format!("tensor {name} of type {id}"), "a type of GGML"));
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
                Err(self.wrong(found, "tensors inside the file"))
            }
        }
    }

    /// Turns ranges within the tensor data into ranges within the file, and checks them.
    fn resolve_ranges(
        &self,
        metadata: &BTreeMap<String, GgufValue>,
        tensors: &mut BTreeMap<String, GgufTensor>,
    ) -> Result<()> {
        const KEY: &str = "general.alignment";
        let alignment = metadata.get(KEY).map_or(Some(32), GgufValue::count);
        let Some(alignment) = alignment.filter(|by| by.is_power_of_two() && *by <= 1 << 20) else {
            return Err(self.wrong(format!("{KEY} that is not an alignment"), "a power of two up to 2²⁰"));
        };
        let begin = self.offset.next_multiple_of(alignment);
        let mut order: Vec<(&String, &mut GgufTensor)> = tensors.iter_mut().collect();
        order.sort_by_key(|(_, tensor)| tensor.range.start);
        let mut last: Option<(&str, usize)> = None;
        for (name, tensor) in order {
            let Range { start, end } = tensor.range;
            let inside = begin.checked_add(end).is_some_and(|end| end <= self.bytes.len());
            if !inside || !start.is_multiple_of(alignment) {
                let found = format!("tensor {name} at {start} to {end} of {} bytes", self.bytes.len());
                return Err(self.wrong(found, COMPLETE));
            }
            if let Some((other, _)) = last.filter(|(_, end)| start < *end && start < tensor.range.end) {
                return Err(
                    self.wrong(format!("tensors {other} and {name} that overlap"), "disjoint tensors")
                );
            }
            if last.is_none_or(|(_, before)| end >= before) {
                last = Some((name, end));
            }
            tensor.range = begin + start..begin + end;
        }
        Ok(())
    }
}
