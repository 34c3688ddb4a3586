//! Reading of tensors by the names and shapes that an architecture asks for.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use candle_core::Tensor;
use half::{bf16, f16};

use super::convert::{self, NonFinite, StoredDtype};
use super::file::File;
use super::huge_pages::PageBuffer;
use super::quantized::QuantizedMatrix;
use super::tensor_ref::{Part, TensorRef};
use super::weight::{Dtype, Weight};
use super::{Change, TensorEntry, Translated, Weights};
use crate::error::{Error, Result};

impl Weights {
    /// Reads a tensor, or a part of it: a matrix in `dtype`, a vector in f32. Without a `dtype`, matrices are f32, or keep their types
    /// in a quantised checkpoint. Only the part is read.
    ///
    /// # Errors
    /// [`Error::Input`] if the tensor is missing, has another shape, or holds a value that is not finite in the new type.
    pub fn take(&self, place: &TensorRef, dtype: impl Into<Option<Dtype>>) -> Result<Weight> {
        let (place, change) = self.translated_place(place);
        let dtype = dtype.into();
        if let Some(blocks) = self.mxfp4(&place)? {
            let weight = blocks.read(dtype.unwrap_or_default())?;
            self.count_kept(&weight);
            return Ok(weight);
        }
        if let Some(quantised) = self.quantised(&place)? {
            let weight = self.adapted(&place, quantised.read()?, dtype.unwrap_or_default())?;
            self.count_kept(&weight);
            return Ok(weight);
        }
        let (name, file) = self.found(&place)?;
        let (stored, bytes) = file.stored(name)?;
        let dtype = match (dtype, stored) {
            _ if place.is_vector() => Some(Dtype::F32),
            (None, StoredDtype::Bf16) if self.quantised => Some(Dtype::Bf16),
            (None, StoredDtype::F16) if self.quantised => Some(Dtype::F16),
            (dtype, _) => dtype,
        };
        // Blocks are of rows: columns are read from their numbers.
        let transposed = matches!(place.part, Part::Transposed);
        let dtype = if transposed { Some(dtype.unwrap_or_default()) } else { dtype };
        let done = |read: &[u8]| file.release(read);
        let kind = match (stored, &place.part) {
            (StoredDtype::Quantized(_), Part::Columns(_) | Part::Strided { .. }) => {
                let found = format!("columns of tensor {name}, which is quantised by rows");
                return Err(file.wrong(found, "rows"));
            }
            (StoredDtype::Quantized(_), Part::Rows(_)) if place.is_vector() => {
                return Err(file.wrong(format!("a part of the quantised vector {name}"), "f32, f16 or bf16"));
            }
            (StoredDtype::Quantized(kind), _) => Some(kind),
            _ => None,
        };
        let adapter = self.adapter.as_ref().filter(|adapter| adapter.has(&place.name));
        // With an adapter, the sum is rounded once.
        let stays = if adapter.is_some() { Some(Dtype::F32) } else { dtype };
        let read = match (stays, kind) {
            (None, Some(kind)) => {
                let mut blocks = PageBuffer::zeros(stored.size(place.part_shape().iter().product()))?;
                convert::gather(&place, kind, bytes, &mut blocks, &done).map(|()| {
                    Weight::Quantized(Arc::new(QuantizedMatrix::new(kind, place.part_shape(), blocks)))
                })
            }
            (dtype, _) => match dtype.unwrap_or_default() {
                Dtype::F32 => convert::read::<f32>(&place, stored, bytes, &done)?,
                Dtype::Bf16 => convert::read::<bf16>(&place, stored, bytes, &done)?,
                Dtype::F16 => convert::read::<f16>(&place, stored, bytes, &done)?,
            }
            .map(Weight::Tensor),
        };
        // Releases pages of read-ahead, too.
        file.release(bytes);
        let weight = read.map_err(|NonFinite { number, index }| {
            let found = format!("{number} at index {index} of tensor {name}");
            file.wrong(found, format!("finite values within the range of {}", dtype.unwrap_or_default()))
        })?;
        let weight = match weight {
            Weight::Tensor(matrix) if adapter.is_some() => {
                self.adapted(&place, matrix, dtype.unwrap_or_default())?
            }
            weight => weight,
        };
        self.count_kept(&weight);
        match (weight, change) {
            (Weight::Tensor(tensor), Change::Add(add)) => Ok(Weight::Tensor((tensor + add)?)),
            (Weight::Tensor(tensor), Change::LogOfNegative) => {
                let logarithm = tensor.neg()?.log()?;
                let finite =
                    logarithm.flatten_all()?.to_vec1::<f32>()?.iter().all(|number| number.is_finite());
                match finite {
                    true => Ok(Weight::Tensor(logarithm)),
                    false => {
                        Err(file.wrong(format!("a number from 0 up in tensor {name}"), "numbers below 0"))
                    }
                }
            }
            (weight, _) => Ok(weight),
        }
    }

    /// An f32 matrix with the adapter's change, if it has one, in this type.
    fn adapted(&self, place: &TensorRef, matrix: Tensor, dtype: Dtype) -> Result<Weight> {
        let changed = match &self.adapter {
            Some(adapter) => adapter.add(place, matrix)?,
            None => matrix,
        };
        Ok(Weight::Tensor(changed.to_dtype(dtype.into())?))
    }

    fn count_kept(&self, weight: &Weight) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept.entry(weight.type_name()).or_default() += weight.dims().iter().product::<usize>();
    }

    fn translated_place<'a>(&self, place: &'a TensorRef) -> (Cow<'a, TensorRef>, Change) {
        match &self.translate {
            Some(translate) => {
                let Translated { place, change } = translate(place);
                (Cow::Owned(place), change)
            }
            None => match self.of_all_experts(place) {
                Some(place) => (Cow::Owned(place), Change::None),
                None => (Cow::Borrowed(place), Change::None),
            },
        }
    }

    /// A matrix of one expert in a checkpoint that has those of all in one tensor: `experts.gate_up_proj` `[experts, 2 · hidden, width]`
    /// and `experts.down_proj` `[experts, width, hidden]`.
    fn of_all_experts(&self, place: &TensorRef) -> Option<TensorRef> {
        let (head, rest) = place.name.split_once(".experts.")?;
        let (number, name) = rest.split_once('.')?;
        let (number, which) = (number.parse::<usize>().ok()?, name.strip_suffix("_proj.weight")?);
        let (&[outputs, inputs], Part::Whole) = (place.shape.as_slice(), &place.part) else { return None };
        let (all, rows, begin) = match which {
            "gate" => ("gate_up_proj", 2 * outputs, 0),
            "up" => ("gate_up_proj", 2 * outputs, outputs),
            "down" => ("down_proj", outputs, 0),
            _ => return None,
        };
        let name = format!("{head}.experts.{all}");
        if self.has(&place.name) || !self.has(&name) {
            return None;
        }
        let (found, entry) = self.find(&name)?;
        // Another number or shape than the config's is an error that names the whole tensor.
        let count = self.files[entry.file].shape(found).ok()?.first().copied()?.max(number + 1);
        let begin = number * rows + begin;
        Some(TensorRef::rows(name, &[count, rows, inputs], std::iter::once(begin..begin + outputs)))
    }

    /// A tensor's name in the checkpoint and its file, if it has the expected shape.
    fn found(&self, place: &TensorRef) -> Result<(&str, &File)> {
        let Some((name, found)) = self.find(&place.name) else {
            return Err(self.missing(place));
        };
        found.taken.store(true, Ordering::Relaxed);
        let file = &self.files[found.file];
        let shape = file.shape(name)?;
        // Older conversions to GGUF drop sides of 1.
        let squeezed = |shape: &[usize]| shape.iter().copied().filter(|side| *side != 1).collect::<Vec<_>>();
        let same =
            shape == place.shape || self.translate.is_some() && squeezed(shape) == squeezed(&place.shape);
        if !same {
            let found = format!("tensor {name} of shape {shape:?}");
            return Err(file.wrong(found, format!("shape {:?}", place.shape)));
        }
        place.check()?;
        Ok((name, file))
    }

    /// A tensor by its name, or by its name inside a model for images or sound as well, or by its name in a checkpoint of the bare model, without the task's prefix (`transformer.h.0…` is
    /// `h.0…` there), or in the first BERT checkpoints (`gamma` for a norm's weight).
    pub(super) fn find<'a>(&'a self, name: &str) -> Option<(&'a str, &'a TensorEntry)> {
        let get = |name: &str| self.tensors.get_key_value(name).map(|(name, found)| (name.as_str(), found));
        let old = |name: &str| {
            let weight = name.strip_suffix("LayerNorm.weight").map(|rest| format!("{rest}LayerNorm.gamma"));
            let bias = name.strip_suffix("LayerNorm.bias").map(|rest| format!("{rest}LayerNorm.beta"));
            weight.or(bias).and_then(|name| get(&name))
        };
        let bare = name.split_once('.').map(|(_, rest)| rest).filter(|rest| rest.contains('.'));
        let wrapped = |name: &str| self.wrapped.get(name).and_then(|name| get(name));
        get(name)
            .or_else(|| old(name))
            .or_else(|| wrapped(name))
            .or_else(|| bare.and_then(|name| get(name).or_else(|| old(name)).or_else(|| wrapped(name))))
    }

    /// Whether the checkpoint has a tensor of this name, as [`Weights::take`] looks for it.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some() || self.has_quantised(name)
    }

    /// Checks that a tensor exists, has the expected shape and a type that is read, without reading it.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing, or has another shape or a type that no weight has.
    pub fn check(&self, place: &TensorRef) -> Result<()> {
        let place = self.translated_place(place).0;
        match self.mxfp4(&place)?.is_some() || self.quantised(&place)?.is_some() {
            true => Ok(()),
            false => self.found(&place).and_then(|(name, file)| file.stored(name)).map(|_| ()),
        }
    }

    fn missing(&self, place: &TensorRef) -> Error {
        let files = match self.files.as_slice() {
            [] => "the checkpoint".to_owned(),
            [one] => one.name().to_owned(),
            [first, rest @ ..] => format!("{} and {} more", first.name(), rest.len()),
        };
        let found = format!("no tensor {}", place.name);
        Error::input(files, found, format!("one of shape {:?}, as the config has it", place.shape))
    }
}
