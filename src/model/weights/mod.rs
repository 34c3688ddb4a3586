//! A checkpoint's tensors by name: safetensors (one file, or several with an index) or GGUF, memory-mapped, or bytes embedded in
//! the program.

mod adapter;
mod contents;
mod quantized;
pub(crate) mod block_layout;
mod lanes;
mod convert;
mod file;
mod folder;
pub(crate) mod huge_pages;
mod mxfp4;
mod element;
mod stored_quantised;
mod take;
mod tensor_ref;
mod weight;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

pub use adapter::Adapter;
pub(crate) use block_layout::BlockLayout;
pub use element::Element;
pub(crate) use lanes::{Lanes16, ValueSink};
pub(crate) use quantized::for_block_layout;
pub use quantized::{QuantFormat, QuantizedMatrix};
pub use stored_quantised::Quantisation;
pub(in crate::model) use tensor_ref::text_name;
pub use tensor_ref::{Part, TensorRef};
pub use weight::{Dtype, Weight};

#[cfg(feature = "hub")]
pub(super) use folder::{ADAPTER, read_index};
pub(super) use folder::{INDEX, SINGLE, names_in, other_weights};

use crate::artifact::{GgufFile, TensorFile};
use crate::error::{Error, Result};
use convert::StoredDtype;
use file::File;
use folder::WeightFiles;

/// Open tensors. Their data is read by [`Weights::take`].
pub struct Weights {
    files: Vec<File>,
    tensors: BTreeMap<String, TensorEntry>,
    /// Number of values taken in each type.
    kept: Mutex<BTreeMap<String, usize>>,
    translate: Option<Box<Translate>>,
    /// The name in the checkpoint of each tensor of a text model that is inside another model.
    wrapped: BTreeMap<String, String>,
    /// Whether some tensor is in GGML's blocks.
    quantised: bool,
    /// How matrices in safetensors are quantised.
    quantisation: Option<Quantisation>,
    adapter: Option<Adapter>,
}

/// The translation of a tensor to the names and layout of a checkpoint.
pub type Translate = dyn Fn(&TensorRef) -> Translated + Send + Sync;

/// A tensor of the checkpoint, and what happens to its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// The tensor in the checkpoint.
    pub place: TensorRef,
    /// From the checkpoint's values to the model's.
    pub change: Change,
}

/// From the values of a checkpoint to those that a model takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Change {
    /// The same.
    #[default]
    None,
    /// A constant is added.
    Add(f64),
    /// The logarithm of the value with its sign turned, which is below 0 in the checkpoint.
    LogOfNegative,
}

/// A tensor of the checkpoint.
struct TensorEntry {
    /// Index of its file.
    file: usize,
    /// Whether it has been taken or checked.
    taken: AtomicBool,
}

/// What a quantised model can be replaced by.
pub(super) const UNQUANTISED: &str = "the model in f32, f16 or bf16 (the original that was quantised, or \
    `AutoModelForCausalLM.from_pretrained(FOLDER).dequantize().save_pretrained(NEW)` of transformers), or a GGUF file of it";

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

    /// The tensors of GGUF files, with the translation to their names and layout.
    ///
    /// # Errors
    /// A tensor that is in two files.
    pub fn translated(files: Vec<GgufFile>, translate: Box<Translate>) -> Result<Weights> {
        Ok(Weights {
            translate: Some(translate),
            ..Weights::of(files.into_iter().map(File::Gguf).collect())?
        })
    }

    /// The weights without some of the tensors.
    pub(in crate::model) fn without(mut self, left_out: impl Fn(&str) -> bool) -> Weights {
        self.tensors.retain(|name, _| !left_out(name));
        self
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
            quantisation: None,
            adapter: None,
        })
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
                let turned = TensorRef { part: Part::Transposed, ..TensorRef::whole("experts", &[2, 3, 4]) };
                let expected = experts.view().permuted_axes([0, 2, 1]).iter().copied().collect();
                assert_eq!(numbers(&weights, &turned, dtype), (vec![8, 3], expected));
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
