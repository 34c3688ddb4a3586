//! A file of tensors: safetensors or GGUF.

use super::convert::StoredDtype;
use super::quantized::QuantFormat;
use crate::artifact::{GgufFile, StoredType, TensorFile};
use crate::error::{Error, Result};

pub(super) enum File {
    Safetensors(TensorFile),
    Gguf(GgufFile),
}

impl File {
    /// Path or name of the file, for errors.
    pub fn name(&self) -> &str {
        match self {
            File::Safetensors(file) => file.name(),
            File::Gguf(file) => file.name(),
        }
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> Vec<String> {
        match self {
            File::Safetensors(file) => file.names(),
            File::Gguf(file) => file.tensors().keys().cloned().collect(),
        }
    }

    /// All of its bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            File::Safetensors(file) => file.bytes(),
            File::Gguf(file) => file.bytes(),
        }
    }

    /// Lets the system drop the pages of these bytes.
    pub fn release(&self, bytes: &[u8]) {
        match self {
            File::Safetensors(file) => file.release(bytes),
            File::Gguf(file) => file.release(bytes),
        }
    }

    /// Checks that it has not been changed in place since it was opened.
    ///
    /// # Errors
    /// If it has.
    pub fn check_unchanged(&self) -> Result<()> {
        match self {
            File::Safetensors(file) => file.check_unchanged(),
            File::Gguf(file) => file.check_unchanged(),
        }
    }

    /// An error about this file.
    pub fn wrong(&self, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Error {
        Error::input(self.name(), found, expected)
    }

    /// A tensor's shape.
    ///
    /// # Errors
    /// If it is missing.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        match self {
            File::Safetensors(file) => Ok(file.stored(name)?.1),
            File::Gguf(file) => match file.tensors().get(name) {
                Some(tensor) => Ok(&tensor.shape),
                None => Err(file.wrong(format!("no tensor {name}"), "one")),
            },
        }
    }

    /// The name of a tensor's type, its shape and its bytes, whatever the type.
    ///
    /// # Errors
    /// If it is missing.
    pub fn raw(&self, name: &str) -> Result<(String, &[usize], &[u8])> {
        match self {
            File::Safetensors(file) => {
                let (kind, shape, bytes) = file.stored(name)?;
                Ok((kind.to_string(), shape, bytes))
            }
            File::Gguf(file) => match file.tensors().get(name) {
                Some(tensor) => Ok((tensor.kind.name.to_string(), &tensor.shape, file.tensor_bytes(tensor))),
                None => Err(file.wrong(format!("no tensor {name}"), "one")),
            },
        }
    }

    /// A tensor's element type and bytes.
    ///
    /// # Errors
    /// If it is missing, or of a type that no weight has.
    pub fn stored(&self, name: &str) -> Result<(StoredDtype, &[u8])> {
        match self {
            File::Safetensors(file) => {
                let (kind, _, bytes) = file.stored(name)?;
                let stored = match kind {
                    StoredType::F64 => StoredDtype::F64,
                    StoredType::F32 => StoredDtype::F32,
                    StoredType::BF16 => StoredDtype::Bf16,
                    StoredType::F16 => StoredDtype::F16,
                    other => {
                        let found = format!("tensor {name} of type {other}");
                        return Err(file.wrong(found, "f32, f16, bf16 or f64"));
                    }
                };
                Ok((stored, bytes))
            }
            File::Gguf(file) => {
                let Some(tensor) = file.tensors().get(name) else {
                    return Err(file.wrong(format!("no tensor {name}"), "one"));
                };
                let kind = tensor.kind.name;
                let blocks = QuantFormat::ALL.into_iter().find(|known| known.name() == kind);
                let stored = match (kind, blocks) {
                    (_, Some(blocks)) => StoredDtype::Quantized(blocks),
                    ("F64", _) => StoredDtype::F64,
                    ("F32", _) => StoredDtype::F32,
                    ("F16", _) => StoredDtype::F16,
                    ("BF16", _) => StoredDtype::Bf16,
                    _ => {
                        let known = QuantFormat::ALL.map(QuantFormat::name).join(", ");
                        let found = format!("tensor {name} of type {kind}");
                        return Err(file.wrong(found, format!("F32, F16, BF16, F64, {known}")));
                    }
                };
                Ok((stored, file.tensor_bytes(tensor)))
            }
        }
    }
}
