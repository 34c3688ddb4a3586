//! A checkpoint's tensors by name: safetensors (one file, or several with an index) or GGUF, memory-mapped, or bytes embedded in
//! the program.

mod adapter;
mod quantized;
pub(crate) mod block_layout;
mod convert;
mod file;
mod folder;
pub(crate) mod huge_pages;
mod mxfp4;
mod element;
mod tensor_ref;
mod weight;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};
use sha2::{Digest, Sha256};

pub use adapter::Adapter;
pub(crate) use block_layout::{BlockLayout, Lanes16, ValueSink};
pub use element::Element;
pub(crate) use quantized::for_block_layout;
pub use quantized::{QuantFormat, QuantizedMatrix};
pub(in crate::model) use tensor_ref::text_name;
pub use tensor_ref::{Part, TensorRef};
pub use weight::{Dtype, Weight};

#[cfg(feature = "hub")]
pub(super) use folder::{ADAPTER, read_index};
pub(super) use folder::{INDEX, SINGLE, names_in, other_weights};

use crate::artifact::{GgufFile, TensorFile};
use crate::error::{Error, Result};
use convert::{NonFinite, StoredDtype};
use file::File;
use folder::WeightFiles;
use huge_pages::PageBuffer;

/// Open tensors. Their data is read by [`Weights::take`].
pub struct Weights {
    files: Vec<File>,
    tensors: BTreeMap<String, TensorEntry>,
    /// Number of values taken in each type.
    kept: Mutex<BTreeMap<String, usize>>,
    translate: Option<Box<Translate>>,
    /// The name in the checkpoint of each tensor of a text model that is inside another model.
    wrapped: BTreeMap<String, String>,
    /// Whether some tensor is quantised.
    quantised: bool,
    adapter: Option<Adapter>,
}

/// The translation of a tensor to the names and layout of a checkpoint.
pub type Translate = dyn Fn(&TensorRef) -> Translated + Send + Sync;

/// A tensor of the checkpoint, and a constant that is added to its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// The tensor in the checkpoint.
    pub place: TensorRef,
    /// A constant that is added to its values.
    pub add: f64,
}

/// A tensor of the checkpoint.
struct TensorEntry {
    /// Index of its file.
    file: usize,
    /// Whether it has been taken or checked.
    taken: AtomicBool,
}

/// Bytes of a file that are in memory at once while it is hashed.
const HASH_CHUNK: usize = 1 << 22;

/// What a quantised model can be replaced by.
pub(super) const UNQUANTISED: &str = "the model in f32, f16 or bf16 (the original that was quantised, or \
    `AutoModelForCausalLM.from_pretrained(FOLDER).dequantize().save_pretrained(NEW)` of transformers), or a GGUF file of it";

/// Ends of the names of tensors that quantisers add: GPTQ and AWQ, bitsandbytes, FP8 and compressed-tensors, MLX, AQLM, HQQ.
const QUANTISED: [&str; 12] = [
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".SCB",
    ".absmax",
    ".quant_map",
    ".weight_scale",
    ".weight_scale_inv",
    ".weight_packed",
    ".scales",
    ".codebooks",
    ".W_q",
];

/// Suffixes of buffers in some checkpoints, which follow from the config.
const BUFFERS: [&str; 9] = [
    "rotary_emb.inv_freq",
    ".attn.bias",
    ".attn.masked_bias",
    "attention.bias",
    "attention.masked_bias",
    "embeddings.position_ids",
    "rope_freqs.weight",
    "rope_factors_long.weight",
    "rope_factors_short.weight",
];

impl Weights {
    /// Opens `model.safetensors`, or else the files that `model.safetensors.index.json` lists, in a folder.
    ///
    /// # Errors
    /// A missing or malformed file, a tensor that is in two files, an index that disagrees with the files, or a folder with
    /// weights of another kind, which the error names.
    pub fn open(folder: &Path) -> Result<Weights> {
        let WeightFiles { paths, listed } = WeightFiles::find(folder)?;
        let open = |path: &PathBuf| Ok(File::Safetensors(TensorFile::open(path)?));
        let weights = Weights::of(paths.iter().map(open).collect::<Result<_>>()?)?;
        for (tensor, name) in &listed {
            let found = weights.tensors.get(tensor).map(|found| weights.files[found.file].name());
            let place = folder.join(name).display().to_string();
            if found != Some(&place) {
                let found = format!("no tensor {tensor}, which the index says is in it");
                return Err(Error::input(place, found, format!("the files that {INDEX} was written for")));
            }
        }
        Ok(weights)
    }

    /// Opens safetensors bytes that are embedded in the program.
    ///
    /// # Errors
    /// Malformed bytes.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Weights> {
        Weights::of(vec![File::Safetensors(TensorFile::embedded(name, bytes)?)])
    }

    /// Opens a GGUF file, with the translation to its names and layout.
    ///
    /// # Errors
    /// A malformed file.
    pub fn translated(file: GgufFile, translate: Box<Translate>) -> Result<Weights> {
        Ok(Weights { translate: Some(translate), ..Weights::of(vec![File::Gguf(file)])? })
    }

    /// The weights with an adapter, which changes matrices as they are taken.
    ///
    /// # Errors
    /// Quantised weights, to which nothing can be added exactly.
    pub fn with_adapter(self, adapter: Adapter) -> Result<Weights> {
        if self.quantised || self.translate.is_some() {
            let name = self.files.first().map_or("the checkpoint", |file| file.name());
            let expected = "the model in safetensors, or the adapter merged before the conversion";
            return Err(Error::input(name, "a GGUF file, to which no adapter is added", expected));
        }
        Ok(Weights { adapter: Some(adapter), ..self })
    }

    fn of(files: Vec<File>) -> Result<Weights> {
        let mut tensors: BTreeMap<String, TensorEntry> = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            for name in file.names() {
                let found = TensorEntry { file: number, taken: false.into() };
                if let Some(other) = tensors.insert(name.clone(), found) {
                    let found = format!("tensor {name}, which is also in {}", files[other.file].name());
                    return Err(file.wrong(found, "each tensor once"));
                }
            }
        }
        let blocks = |(name, found): (&String, &TensorEntry)| {
            matches!(files[found.file].stored(name), Ok((StoredDtype::Quantized(_), _)))
        };
        let quantised = tensors.iter().any(blocks);
        let inner = tensors.keys().filter_map(|name| match text_name(name) {
            Cow::Owned(inner) => Some((inner, name.clone())),
            Cow::Borrowed(inner) => (inner != name).then(|| (inner.to_owned(), name.clone())),
        });
        let wrapped = inner.collect();
        Ok(Weights {
            files,
            tensors,
            kept: Mutex::default(),
            translate: None,
            wrapped,
            quantised,
            adapter: None,
        })
    }

    /// Reads a tensor, or a part of it: a matrix in `dtype`, a vector in f32. Without a `dtype`, matrices are f32, or keep their types
    /// in a quantised checkpoint. Only the part is read.
    ///
    /// # Errors
    /// [`Error::Input`] if the tensor is missing, has another shape, or holds a value that is not finite in the new type.
    pub fn take(&self, place: &TensorRef, dtype: impl Into<Option<Dtype>>) -> Result<Weight> {
        let (place, add) = self.translated_place(place);
        if let Some(blocks) = self.mxfp4(&place)? {
            let weight = blocks.read(dtype.into().unwrap_or_default())?;
            self.count_kept(&weight);
            return Ok(weight);
        }
        let (name, file) = self.found(&place)?;
        let (stored, bytes) = file.stored(name)?;
        let dtype = match (dtype.into(), stored) {
            _ if place.is_vector() => Some(Dtype::F32),
            (None, StoredDtype::Bf16) if self.quantised => Some(Dtype::Bf16),
            (None, StoredDtype::F16) if self.quantised => Some(Dtype::F16),
            (dtype, _) => dtype,
        };
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
        let weight = match (weight, adapter) {
            (Weight::Tensor(matrix), Some(adapter)) => {
                let changed = adapter.add(&place, matrix)?;
                Weight::Tensor(changed.to_dtype(dtype.unwrap_or_default().into())?)
            }
            (weight, _) => weight,
        };
        self.count_kept(&weight);
        match weight {
            Weight::Tensor(tensor) if add != 0.0 => Ok(Weight::Tensor((tensor + add)?)),
            weight => Ok(weight),
        }
    }

    fn count_kept(&self, weight: &Weight) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        *kept.entry(weight.type_name()).or_default() += weight.dims().iter().product::<usize>();
    }

    fn translated_place<'a>(&self, place: &'a TensorRef) -> (Cow<'a, TensorRef>, f64) {
        match &self.translate {
            Some(translate) => {
                let Translated { place, add } = translate(place);
                (Cow::Owned(place), add)
            }
            None => (Cow::Borrowed(place), 0.0),
        }
    }

    /// A tensor's name in the checkpoint and its file, if it has the expected shape.
    fn found(&self, place: &TensorRef) -> Result<(&str, &File)> {
        let Some((name, found)) = self.find(&place.name) else {
            return Err(self.missing(place));
        };
        found.taken.store(true, Ordering::Relaxed);
        let file = &self.files[found.file];
        let shape = file.shape(name)?;
        if shape != place.shape {
            let found = format!("tensor {name} of shape {shape:?}");
            return Err(file.wrong(found, format!("shape {:?}", place.shape)));
        }
        place.check()?;
        Ok((name, file))
    }

    /// A tensor by its name, or by its name inside a model for images or sound as well, or by its name in a checkpoint of the bare model, without the task's prefix (`transformer.h.0…` is
    /// `h.0…` there), or in the first BERT checkpoints (`gamma` for a norm's weight).
    fn find<'a>(&'a self, name: &str) -> Option<(&'a str, &'a TensorEntry)> {
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
        self.find(name).is_some()
    }

    /// Whether two tensors have the same shape, type and bytes.
    ///
    /// # Errors
    /// A tensor that is missing, or of a type that no weight has.
    pub fn are_equal(&self, names: [&str; 2]) -> Result<bool> {
        let get = |name: &str| {
            let missing = || Error::input("the checkpoint", format!("no tensor {name}"), "one");
            self.find(name).map(|(name, found)| (name, &self.files[found.file])).ok_or_else(missing)
        };
        let [(name, file), (other, other_file)] = [get(names[0])?, get(names[1])?];
        if file.shape(name)? != other_file.shape(other)? {
            return Ok(false);
        }
        let ((kind, bytes), (other_kind, other_bytes)) = (file.stored(name)?, other_file.stored(other)?);
        let mut chunks = bytes.chunks(HASH_CHUNK).zip(other_bytes.chunks(HASH_CHUNK));
        let equal = kind == other_kind
            && chunks.all(|(chunk, other)| {
                let equal = chunk == other;
                file.release(chunk);
                other_file.release(other);
                equal
            });
        Ok(equal)
    }

    /// The longest side of a tensor that holds values. No size of the model is above it.
    pub fn longest_side(&self) -> usize {
        let shapes = self.tensors.iter().filter_map(|(name, found)| self.files[found.file].shape(name).ok());
        let filled = shapes.filter(|shape| !shape.contains(&0));
        filled.flatten().copied().max().unwrap_or(0)
    }

    /// Checks that no file has been changed in place since it was opened.
    ///
    /// # Errors
    /// [`Error::Input`] if one has.
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(File::check_unchanged)?;
        self.adapter.iter().try_for_each(Adapter::check_unchanged)
    }

    /// Refuses tensors of quantisations that are not read, by the names that the quantisers give them.
    ///
    /// # Errors
    /// [`Error::Input`] with the first such tensor.
    pub fn refuse_quantised(&self) -> Result<()> {
        let of_quantiser = |name: &&String| QUANTISED.iter().any(|end| name.ends_with(end));
        let Some(name) = self.tensors.keys().find(of_quantiser) else { return Ok(()) };
        let file = &self.files[self.tensors[name].file];
        Err(file.wrong(format!("tensor {name} of quantised weights, which are not read"), UNQUANTISED))
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Number of tensors.
    pub fn count(&self) -> usize {
        self.tensors.len()
    }

    /// Name of the element type in which a tensor is stored.
    pub fn stored_type(&self, name: &str) -> Option<String> {
        let file = &self.files[self.tensors.get(name)?.file];
        let known = file.stored(name).map(|(stored, _)| stored.name());
        known.or_else(|_| file.raw(name).map(|(kind, ..)| kind.to_lowercase())).ok()
    }

    /// The type that most values would have if all tensors were taken: f32, bf16, f16 or a quantised format.
    pub fn would_keep(&self, dtype: Option<Dtype>) -> String {
        if dtype.is_some() || !self.quantised {
            return dtype.unwrap_or_default().to_string();
        }
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for (name, found) in &self.tensors {
            let file = &self.files[found.file];
            if let (Ok((stored, _)), Ok(shape)) = (file.stored(name), file.shape(name)) {
                *counts.entry(stored.name()).or_default() += shape.iter().product::<usize>();
            }
        }
        counts.into_iter().max_by_key(|(_, numbers)| *numbers).unwrap_or_default().0
    }

    /// Checks that a tensor exists and has the expected shape, without reading it.
    ///
    /// # Errors
    /// [`Error::Input`] if it is missing, or has another shape.
    pub fn check(&self, place: &TensorRef) -> Result<()> {
        let place = self.translated_place(place).0;
        match self.mxfp4(&place)? {
            Some(_) => Ok(()),
            None => self.found(&place).map(|_| ()),
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

    /// Refuses tensors that were not taken: the checkpoint then holds another model than its config says. Exempt are tensors for which
    /// `ignored` holds, and buffers that follow from the config.
    ///
    /// # Errors
    /// [`Error::Input`] with the first such tensor and how many there are.
    pub fn refuse_extra(&self, ignored: impl Fn(&str) -> bool) -> Result<()> {
        if let Some(adapter) = &self.adapter {
            adapter.refuse_unused()?;
        }
        let untaken = self.tensors.iter().filter(|(name, found)| {
            let buffer = BUFFERS.iter().any(|end| name.ends_with(end));
            !found.taken.load(Ordering::Relaxed) && !buffer && !ignored(name)
        });
        let extra: Vec<_> = untaken.collect();
        let Some((name, found)) = extra.first() else { return Ok(()) };
        let more = match extra.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let file = &self.files[found.file];
        Err(file.wrong(format!("tensor {name}{more}, which the model has no place for"), "no other tensors"))
    }

    /// The type of most of the values that were taken: f32, bf16, f16 or a quantised format.
    pub fn kept(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let most = kept.iter().max_by_key(|(_, numbers)| **numbers);
        most.map_or_else(|| Dtype::F32.to_string(), |(name, _)| name.clone())
    }

    /// SHA-256 of the files' bytes, in hex. It can run while tensors are taken. Once `stop` is set, the result is meaningless.
    pub fn hash(&self, stop: &AtomicBool) -> String {
        let mut hash = Sha256::new();
        for file in &self.files {
            for stretch in file.bytes().chunks(HASH_CHUNK) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                hash.update(stretch);
                file.release(stretch);
            }
        }
        for bytes in self.adapter.iter().flat_map(Adapter::bytes) {
            hash.update(bytes);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::{Header, Numbers, write_tensors};
    use candle_core::DType;
    use ndarray::{Array, array};
    use std::iter::once;
    use std::ops::Range;

    /// A checkpoint with these tensors.
    fn checkpoint(tensors: impl IntoIterator<Item = (&'static str, Numbers)>) -> Result<Weights> {
        let folder = tempfile::tempdir().unwrap();
        let tensors = tensors.into_iter().map(|(name, numbers)| (name.to_owned(), numbers)).collect();
        let header = Header::new("weights", 1);
        write_tensors(&folder.path().join(SINGLE), &header, &BTreeMap::new(), tensors)?;
        Weights::open(folder.path())
    }

    fn numbers(weights: &Weights, place: &TensorRef, dtype: Dtype) -> (Vec<usize>, Vec<f32>) {
        let floats = weights.take(place, dtype).unwrap().floats().unwrap();
        (floats.dims().to_vec(), floats.flatten_all().unwrap().to_vec1().unwrap())
    }

    #[test]
    fn a_part_is_the_part_of_the_whole() {
        let experts = Array::from_shape_fn((2, 3, 4), |(e, o, i)| (100 * e + 10 * o + i) as f32);
        let bias = array![0.0f32, 1.0, 2.0, 3.0];
        let mixed = Array::from_shape_fn((3, 200), |(i, o)| (1000 * i + o) as f32);
        for rounded in [false, true] {
            let keep = |array: ndarray::ArrayD<f32>| match rounded {
                true => Numbers::rounded(&array),
                false => Numbers::floats(&array),
            };
            let tensors = [("experts", experts.clone().into_dyn()), ("bias", bias.clone().into_dyn())];
            let weights = checkpoint(tensors.map(|(name, array)| (name, keep(array)))).unwrap();
            for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
                let whole = numbers(&weights, &TensorRef::whole("experts", &[2, 3, 4]), dtype);
                assert_eq!(whole, (vec![2, 3, 4], experts.iter().copied().collect()));
                let rows = TensorRef::rows("experts", &[2, 3, 4], [4..6, 1..2]);
                let expected = [110., 111., 112., 113., 120., 121., 122., 123., 10., 11., 12., 13.];
                assert_eq!(numbers(&weights, &rows, dtype), (vec![3, 4], expected.to_vec()));
                let some = TensorRef::rows("bias", &[4], [3..4, 0..2]);
                assert_eq!(numbers(&weights, &some, dtype), (vec![3], vec![3.0, 0.0, 1.0]));
            }
        }
        let weights = checkpoint([("mixed", Numbers::floats(&mixed))]).unwrap();
        let columns = TensorRef::columns("mixed", [3, 200], 70..200);
        let expected = mixed.slice(ndarray::s![.., 70..]).t().iter().copied().collect();
        assert_eq!(numbers(&weights, &columns, Dtype::F32), (vec![130, 3], expected));
        for outside in [
            TensorRef::columns("mixed", [3, 200], 70..201),
            TensorRef::rows("mixed", &[3, 200], once(2..4)),
            TensorRef::rows("mixed", &[3, 200], [Range { start: 2, end: 1 }]),
        ] {
            assert!(weights.take(&outside, Dtype::F32).is_err());
        }
    }

    #[test]
    fn matrices_are_kept_in_the_type_asked_for_and_vectors_in_f32() {
        let tensors =
            [("matrix", Numbers::rounded(&array![[1.5f32]])), ("norm", Numbers::rounded(&array![2.5f32]))];
        let weights = checkpoint(tensors).unwrap();
        let kept = |place: &TensorRef, dtype| match weights.take(place, dtype).unwrap() {
            Weight::Tensor(tensor) => tensor.dtype(),
            Weight::Quantized(_) => panic!("no blocks there"),
        };
        for (dtype, expected) in
            [(Dtype::F32, DType::F32), (Dtype::Bf16, DType::BF16), (Dtype::F16, DType::F16)]
        {
            assert_eq!(kept(&TensorRef::whole("matrix", &[1, 1]), dtype), expected);
            assert_eq!(kept(&TensorRef::whole("norm", &[1]), dtype), DType::F32);
        }
    }

    #[test]
    fn a_missing_misshapen_or_unfit_tensor_is_named() {
        let tensors = [
            ("small", Numbers::floats(&array![[1.0f32, 2.0]])),
            ("large", Numbers::floats(&array![[1.0f32, 1e6]])),
            ("broken", Numbers::floats(&array![[1.0f32, f32::NAN]])),
            ("whole", Numbers::integers(&[1, 2])),
        ];
        let weights = checkpoint(tensors).unwrap();
        let error = |place: TensorRef, dtype| weights.take(&place, dtype).unwrap_err().to_string();
        let cases = [
            (TensorRef::whole("tiny", &[1, 2]), Dtype::F32, "no tensor tiny; expected one of shape [1, 2]"),
            (
                TensorRef::whole("small", &[2, 1]),
                Dtype::F32,
                "tensor small of shape [1, 2]; expected shape [2, 1]",
            ),
            (
                TensorRef::whole("large", &[1, 2]),
                Dtype::F16,
                "1000000 at index 1 of tensor large; expected finite",
            ),
            (TensorRef::whole("broken", &[1, 2]), Dtype::Bf16, "NaN at index 1 of tensor broken"),
            (TensorRef::whole("whole", &[2]), Dtype::F32, "tensor whole of type I64"),
        ];
        for (place, dtype, expected) in cases {
            let error = error(place, dtype);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn extra_tensors_are_refused_by_name_and_harmless_ones_are_not() {
        let number = || Numbers::floats(&array![[1.0f32]]);
        let weights = |names: &[&'static str]| {
            let weights = checkpoint(names.iter().map(|name| (*name, number()))).unwrap();
            weights.take(&TensorRef::rows("embed", &[1, 1], once(0..1)), Dtype::F32).unwrap();
            weights
        };
        let none = |_: &str| false;
        let head = |name: &str| name == "lm_head.weight";
        weights(&["embed", "0.rotary_emb.inv_freq", "h.0.attn.bias"]).refuse_extra(none).unwrap();
        weights(&["embed", "lm_head.weight"]).refuse_extra(head).unwrap();
        let error = weights(&["embed", "lm_head.weight"]).refuse_extra(none).unwrap_err().to_string();
        assert!(error.contains("tensor lm_head.weight, which"), "{error}");
        let error = weights(&["embed", "a", "b", "c"]).refuse_extra(head).unwrap_err().to_string();
        assert!(error.contains("tensor a and 2 more"), "{error}");
    }
}
