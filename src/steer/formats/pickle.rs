//! Pickle reader for one PyTorch tensor or one NumPy array: bytes in, the array or a description of the tensor (type,
//! storage, shape, strides) out.
//!
//! Unpickling runs arbitrary code, so nothing is executed here: the reader knows the few opcodes and the few names that torch
//! and numpy write for them, and refuses every other by name. candle has a pickle reader too; it allocates what a header claims,
//! so that a small file could exhaust the memory, while this one allocates in proportion to the pickle.

use std::collections::HashMap;
use std::rc::Rc;

use ndarray::ArrayD;

use super::layout::{Kind, Layout, Number};

/// A tensor as a pickle describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Description {
    /// The type of the values.
    pub number: Number,
    /// The entry of the archive that holds the storage.
    pub storage: String,
    /// Number of values in the storage.
    pub count: usize,
    /// Index of the first value in the storage.
    pub offset: usize,
    /// The shape.
    pub shape: Vec<usize>,
    /// Strides, in values.
    pub stride: Vec<usize>,
}

/// A value on the stack.
pub(super) enum Value {
    None,
    Flag(bool),
    /// Where a text of bytes lies in the pickle.
    Bytes(usize, usize),
    Whole(i64),
    Text(String),
    Tuple(Vec<Rc<Value>>),
    /// An empty OrderedDict: a tensor's backward hooks, of which there are none.
    Nothing,
    Rebuild,
    /// A tensor that is trained, described as the tensor.
    Parameter,
    Ordered,
    Kind(Kind),
    Storage {
        kind: Kind,
        key: String,
        count: usize,
    },
    Tensor(Description),
    /// Names of numpy: of functions that make an array from nothing and from bytes, and of its two classes.
    Reconstruct,
    FromBuffer,
    NdArray,
    DtypeClass,
    Dtype(Number),
    /// An array whose content follows.
    Empty,
    Array(Array),
    Dictionary,
    Mark,
}

/// An array of numpy: its numbers lie in the pickle.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub number: Number,
    pub shape: Vec<usize>,
    pub by_columns: bool,
    pub bytes: (usize, usize),
}

/// The pickle of a tensor or an array has a few dozen operations. The limit bounds the depth of nesting too.
const MAX_OPERATIONS: usize = 16 << 10;

/// The first bytes of torch's files from before its zip format: the pickle of a magic number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// The array of a pickle of numpy.
pub(super) fn array(bytes: &[u8]) -> Result<ArrayD<f32>, String> {
    if bytes.starts_with(LEGACY) {
        return Err("a .pt file from before torch's zip format (load it and torch.save it again)".into());
    }
    let value = value(bytes)?;
    let Value::Array(array) = &*value else { return Err(format!("{} instead of an array", value.kind())) };
    let stride = Layout::strides(&array.shape, array.by_columns);
    let (begin, length) = array.bytes;
    let numbers = bytes.get(begin..begin + length).ok_or("a pickle that was cut short")?;
    Layout { number: array.number, bytes: numbers, offset: 0, shape: &array.shape, stride: &stride }.array()
}

/// The description of the tensor; the error says what was found instead.
pub(super) fn tensor(bytes: &[u8]) -> Result<Description, String> {
    match &*value(bytes)? {
        Value::Tensor(description) => Ok(description.clone()),
        other => Err(format!("{} instead of a tensor", other.kind())),
    }
}

/// The only value that a pickle leaves.
fn value(bytes: &[u8]) -> Result<Rc<Value>, String> {
    let mut machine = Machine { bytes, at: 0, stack: Vec::new(), memo: HashMap::new() };
    machine.run()?;
    match machine.stack.as_slice() {
        [value] => Ok(value.clone()),
        _ => Err("a pickle that leaves several values".into()),
    }
}

impl Value {
    pub fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Flag(_) => "True or False",
            Value::Bytes(..) => "bytes",
            Value::Whole(_) => "a whole number",
            Value::Text(_) => "a text",
            Value::Tuple(_) => "a tuple",
            Value::Nothing | Value::Dictionary => "a dictionary",
            Value::Rebuild | Value::Parameter | Value::Ordered | Value::Kind(_) => "a name",
            Value::Reconstruct | Value::FromBuffer | Value::NdArray | Value::DtypeClass => "a name",
            Value::Dtype(_) => "a type of numbers",
            Value::Empty | Value::Array(_) => "an array",
            Value::Storage { .. } => "a storage",
            Value::Tensor(_) => "a tensor",
            Value::Mark => "a mark",
        }
    }

    pub fn count(&self) -> Option<usize> {
        match self {
            Value::Whole(number) => usize::try_from(*number).ok(),
            _ => None,
        }
    }

    pub fn counts(&self) -> Option<Vec<usize>> {
        match self {
            Value::Tuple(values) => values.iter().map(|value| value.count()).collect(),
            _ => None,
        }
    }
}

/// A stack with its memory.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    pub stack: Vec<Rc<Value>>,
    memo: HashMap<u32, Rc<Value>>,
}

impl<'a> Machine<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        self.at = self.at.saturating_add(count);
        taken.ok_or_else(|| "a pickle that was cut short".into())
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut fixed = [0; N];
        fixed.copy_from_slice(self.take(N)?);
        Ok(fixed)
    }

    fn text(&mut self, length: usize) -> Result<String, String> {
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a text that is no UTF-8".into())
    }

    /// A text of bytes, by its place.
    fn bytes(&mut self, length: usize) -> Result<(), String> {
        let begin = self.at;
        self.take(length)?;
        self.push(Value::Bytes(begin, length));
        Ok(())
    }

    fn line(&mut self) -> Result<String, String> {
        let rest = &self.bytes[self.at.min(self.bytes.len())..];
        let length = rest.iter().position(|&byte| byte == b'\n').ok_or("a name without an end")?;
        let line = self.text(length)?;
        self.at += 1;
        Ok(line)
    }

    pub fn push(&mut self, value: Value) {
        self.stack.push(Rc::new(value));
    }

    pub fn pop(&mut self) -> Result<Rc<Value>, String> {
        self.stack.pop().ok_or_else(|| "a pickle that takes more than there is".into())
    }

    fn remember(&mut self, at: u32) -> Result<(), String> {
        let value = self.stack.last().ok_or("a pickle that takes more than there is")?;
        self.memo.insert(at, value.clone());
        Ok(())
    }

    fn recall(&mut self, at: u32) -> Result<(), String> {
        let value = self.memo.get(&at).ok_or("a pickle that recalls what was not there")?;
        self.stack.push(value.clone());
        Ok(())
    }

    fn tuple(&mut self, count: usize) -> Result<(), String> {
        let begin = self.stack.len().checked_sub(count).ok_or("a pickle that takes more than there is")?;
        let values = self.stack.split_off(begin);
        self.push(Value::Tuple(values));
        Ok(())
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..MAX_OPERATIONS {
            let at = self.at;
            match self.fixed::<1>()?[0] {
                // PROTO, FRAME
                0x80 => drop(self.take(1)?),
                0x95 => drop(self.take(8)?),
                b'N' => self.push(Value::None),
                // NEWTRUE, NEWFALSE
                flag @ (0x88 | 0x89) => self.push(Value::Flag(flag == 0x88)),
                // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
                b'C' => {
                    let length = self.fixed::<1>()?[0].into();
                    self.bytes(length)?;
                }
                b'B' => {
                    let length = u32::from_le_bytes(self.fixed()?) as usize;
                    self.bytes(length)?;
                }
                0x8e | 0x96 => {
                    let length = u64::from_le_bytes(self.fixed()?);
                    self.bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
                }
                b'}' => self.push(Value::Dictionary),
                // SETITEM, SETITEMS: of which dictionary the values are is all that is told.
                b's' => {
                    let begin =
                        self.stack.len().checked_sub(2).ok_or("a pickle that takes more than there is")?;
                    self.stack.truncate(begin);
                }
                b'u' => {
                    let mark = self.stack.iter().rposition(|value| matches!(**value, Value::Mark));
                    self.stack.truncate(mark.ok_or("values without a beginning")?);
                }
                b'b' => self.build()?,
                b'K' => {
                    let number = self.fixed::<1>()?[0];
                    self.push(Value::Whole(number.into()));
                }
                b'M' => {
                    let number = u16::from_le_bytes(self.fixed()?);
                    self.push(Value::Whole(number.into()));
                }
                b'J' => {
                    let number = i32::from_le_bytes(self.fixed()?);
                    self.push(Value::Whole(number.into()));
                }
                // LONG1
                0x8a => {
                    let length = self.fixed::<1>()?[0] as usize;
                    let bytes = self.take(length)?;
                    if length > 8 {
                        return Err(format!("a number of {length} bytes"));
                    }
                    let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
                    let mut whole = [sign; 8];
                    whole[..length].copy_from_slice(bytes);
                    self.push(Value::Whole(i64::from_le_bytes(whole)));
                }
                b'X' => {
                    let length = u32::from_le_bytes(self.fixed()?) as usize;
                    let text = self.text(length)?;
                    self.push(Value::Text(text));
                }
                // SHORT_BINUNICODE
                0x8c => {
                    let length = self.fixed::<1>()?[0] as usize;
                    let text = self.text(length)?;
                    self.push(Value::Text(text));
                }
                b'(' => self.push(Value::Mark),
                b't' => {
                    let mark = self.stack.iter().rposition(|value| matches!(**value, Value::Mark));
                    let mark = mark.ok_or("a tuple without a beginning")?;
                    self.tuple(self.stack.len() - mark - 1)?;
                    // The mark, under the tuple.
                    let tuple = self.pop()?;
                    self.pop()?;
                    self.stack.push(tuple);
                }
                b')' => self.push(Value::Tuple(Vec::new())),
                // TUPLE1 to TUPLE3
                count @ 0x85..=0x87 => self.tuple((count - 0x84) as usize)?,
                b'q' => {
                    let at = self.fixed::<1>()?[0];
                    self.remember(at.into())?;
                }
                b'r' => {
                    let at = u32::from_le_bytes(self.fixed()?);
                    self.remember(at)?;
                }
                // MEMOIZE
                0x94 => self.remember(self.memo.len() as u32)?,
                b'h' => {
                    let at = self.fixed::<1>()?[0];
                    self.recall(at.into())?;
                }
                b'j' => {
                    let at = u32::from_le_bytes(self.fixed()?);
                    self.recall(at)?;
                }
                b'c' => {
                    let name = format!("{} {}", self.line()?, self.line()?);
                    self.global(&name)?;
                }
                // STACK_GLOBAL
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (&*module, &*name) else {
                        return Err("a name that is no text".into());
                    };
                    self.global(&format!("{module} {name}"))?;
                }
                b'Q' => self.storage()?,
                b'R' => self.reduce()?,
                b'.' => return Ok(()),
                other => return Err(format!("operation 0x{other:02x} at byte {at} of its pickle")),
            }
        }
        Err(format!("a pickle of more than {MAX_OPERATIONS} operations"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What torch 2 writes for `torch.arange(8.)[2:5]`, protocol 2.
    pub fn arange() -> Vec<u8> {
        let mut bytes = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00((X\x07\x00\x00\x00storageq\x01ctorch\nFloatStorage\nq\x02".to_vec();
        bytes.extend(b"X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x08tq\x05QK\x02K\x03\x85q\x06K\x01\x85q\x07\x89");
        bytes.extend(b"ccollections\nOrderedDict\nq\x08)Rq\x09tq\x0aRq\x0b.");
        bytes
    }

    #[test]
    fn reads_what_torch_writes() {
        let expected = Description {
            number: Number::little(Kind::F32),
            storage: "0".into(),
            count: 8,
            offset: 2,
            shape: vec![3],
            stride: vec![1],
        };
        assert_eq!(tensor(&arange()).unwrap(), expected);
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        let cases: [(&[u8], &str); 8] = [
            (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "the name \"os system\""),
            (b"\x80\x02cbuiltins\neval\n.", "the name \"builtins eval\""),
            (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.", "the name \"posix system\""),
            (b"\x80\x02}.", "a dictionary instead of a tensor"),
            (b"\x80\x02K\x01.", "a whole number instead of a tensor"),
            (b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.", "a call of a name with 1 arguments"),
            (b"\x80\x02h\x05.", "recalls what was not there"),
            (b"\x80\x02K", "cut short"),
        ];
        for (bytes, expected) in cases {
            let error = tensor(bytes).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        assert!(array(LEGACY).unwrap_err().contains("before torch's zip format"));
        // Tuples in tuples, doubled each time: as many values as there are bytes, and no more.
        let mut laughs = b"\x80\x02)".to_vec();
        (0..4000).for_each(|_| laughs.extend(b"q\x00h\x00\x86"));
        laughs.push(b'.');
        assert!(tensor(&laughs).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_pickle_is_refused_or_read_without_panic(at in 0usize..200, byte: u8) {
            let mut bytes = arange();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = tensor(&bytes);
        }
    }
}
