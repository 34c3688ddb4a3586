//! LoRA adapters (Hu et al., arXiv 2106.09685) in the layout of peft, merged into the weights that they change: `W + scale · B · A`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{Device, Tensor};
use serde_json::Value;

use super::folder::ADAPTER;
use super::tensor_ref::text_name;
use super::{Part, TensorRef};
use crate::artifact::{TensorFile, refuse_lfs_pointer};
use crate::error::{Error, Result};

const WEIGHTS: &str = "adapter_model.safetensors";
/// The beginning of every name in an adapter's file.
const PREFIX: &str = "base_model.model.";
/// The end of the name of a matrix that is saved beside its change.
const BASE: &str = ".base_layer.weight";

/// A low-rank change of several matrices.
pub struct Adapter {
    config: String,
    file: TensorFile,
    /// By the changed tensor's name in the text model, without `.weight`.
    changes: BTreeMap<String, Change>,
}

/// The change of one matrix.
struct Change {
    /// Name of `A` in the file.
    a: String,
    /// Name of `B` in the file.
    b: String,
    /// Name of a matrix in the file that replaces the base model's, if there is one: embeddings are saved so.
    base: Option<String>,
    /// Whether the matrix is an embedding: `A` is `[rank, vocabulary]`, `B` is `[width, rank]`.
    embedding: bool,
    alpha: f64,
    rank_stabilised: bool,
    taken: AtomicBool,
}

impl Adapter {
    /// Opens a folder with `adapter_config.json` and `adapter_model.safetensors`.
    ///
    /// # Errors
    /// Files that are missing or malformed; an adapter of another kind, or one that changes more than matrices.
    pub fn open(folder: &Path) -> Result<Adapter> {
        let place = folder.join(ADAPTER);
        let text = std::fs::read(&place).map_err(Error::file(&place))?;
        refuse_lfs_pointer(&place, &text)?;
        let config: Value = serde_json::from_slice(&text)
            .map_err(|error| Error::input(place.display(), error, "the config of a LoRA adapter"))?;
        let place = place.display().to_string();
        check(&config, &place)?;
        let number = |key: &str, default: f64| match config.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|number| number.is_finite())
                .ok_or_else(|| Error::input(&place, format!("{key} is {value}"), "a number")),
        };
        let alpha = number("lora_alpha", 8.0)?;
        let rank_stabilised = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
        let patterns = patterns(&config, &place)?;
        let file = TensorFile::open(folder.join(WEIGHTS))?;
        let mut changes = BTreeMap::new();
        let names = file.names();
        for name in &names {
            let module = name.strip_prefix(PREFIX).unwrap_or(name);
            let ends = [
                (".lora_A.weight", ".lora_B.weight", false),
                (".lora_embedding_A", ".lora_embedding_B", true),
            ];
            let found = ends.iter().find_map(|(a, b, embedding)| {
                module.strip_suffix(a).map(|module| (module, a, b, *embedding))
            });
            let Some((module, a, b, embedding)) = found else {
                if ends.iter().any(|(_, b, _)| module.ends_with(b)) || module.ends_with(BASE) {
                    continue;
                }
                let expected = "pairs lora_A and lora_B alone, each of one matrix";
                return Err(Error::input(file.name(), format!("tensor {name}"), expected));
            };
            let base = format!("{}{BASE}", name.strip_suffix(a).unwrap_or(name));
            let alpha = patterns.iter().find(|(key, _)| ends_with_module(module, key));
            let change = Change {
                b: format!("{}{b}", name.strip_suffix(a).unwrap_or(name)),
                a: name.clone(),
                base: names.contains(&base).then_some(base),
                embedding,
                alpha: alpha.map_or_else(|| number("lora_alpha", 8.0), |(_, alpha)| Ok(*alpha))?,
                rank_stabilised,
                taken: AtomicBool::new(false),
            };
            changes.insert(text_name(module).into_owned(), change);
        }
        if changes.is_empty() {
            return Err(Error::input(file.name(), "no lora_A", "the matrices of a LoRA adapter"));
        }
        // What scales the matrices belongs to the identity of the model.
        let config = format!("alpha {alpha} {rank_stabilised} {patterns:?}");
        Ok(Adapter { config, file, changes })
    }

    /// Whether a matrix is changed.
    pub(super) fn has(&self, name: &str) -> bool {
        name.strip_suffix(".weight").is_some_and(|name| self.find(name).is_some())
    }

    fn find(&self, module: &str) -> Option<&Change> {
        let module = text_name(module);
        // An adapter of the bare model has no task's prefix.
        let bare = module.split_once('.').and_then(|(_, rest)| self.changes.get(rest));
        self.changes.get(module.as_ref()).or(bare)
    }

    /// `matrix`, f32 in the layout `[out, in]`, with its change added. `place`: the part of the checkpoint's tensor that it is.
    ///
    /// # Errors
    /// Matrices of the adapter with other shapes.
    pub(super) fn add(&self, place: &TensorRef, matrix: Tensor) -> Result<Tensor> {
        let name = place.name.strip_suffix(".weight").unwrap_or(&place.name);
        let Some(change) = self.find(name) else { return Ok(matrix) };
        change.taken.store(true, Ordering::Relaxed);
        let (inputs, outputs) = match (&place.part, place.shape.as_slice()) {
            (Part::Columns(_), &[inputs, outputs]) | (_, &[outputs, inputs]) => (inputs, outputs),
            _ => return Err(self.wrong(&change.a, "a change of a matrix")),
        };
        let read = |name: &str, shape: [Option<usize>; 2]| -> Result<Tensor> {
            let array = self.file.matrix(name)?;
            let found = array.shape().to_vec();
            if found.iter().zip(shape).any(|(found, expected)| expected.is_some_and(|one| one != *found)) {
                let found = format!("tensor {name} of shape {found:?}");
                let expected = format!("one that fits the matrix of {outputs} rows and {inputs} columns");
                return Err(Error::input(self.file.name(), found, expected));
            }
            Ok(Tensor::from_vec(array.into_iter().collect::<Vec<f32>>(), found, &Device::Cpu)?)
        };
        // Of an embedding, the rows are the vocabulary.
        let (left, right) = match change.embedding {
            true => {
                let b = read(&change.b, [Some(inputs), None])?;
                let a = read(&change.a, [Some(b.dim(1)?), Some(outputs)])?;
                (a.t()?.contiguous()?, b.t()?.contiguous()?)
            }
            false => {
                let b = read(&change.b, [Some(outputs), None])?;
                (b.clone(), read(&change.a, [Some(b.dim(1)?), Some(inputs)])?)
            }
        };
        let rank = right.dim(0)? as f64;
        let scale = change.alpha / if change.rank_stabilised { rank.sqrt() } else { rank };
        let part = |whole: Tensor| -> Result<Tensor> {
            match &place.part {
                Part::Whole => Ok(whole),
                Part::Columns(rows) => Ok(whole.narrow(0, rows.start, rows.len())?),
                Part::Rows(ranges) => {
                    let rows: Vec<u32> = ranges.iter().cloned().flatten().map(|row| row as u32).collect();
                    Ok(whole.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?)
                }
                Part::Strided { .. } | Part::Transposed => Err(self.wrong(&change.a, "a change of a matrix")),
            }
        };
        let matrix = match (&change.base, &place.part) {
            (None, _) => matrix,
            (Some(_), Part::Columns(_)) => return Err(self.wrong(&change.a, "a change of a matrix")),
            (Some(base), _) => part(read(base, [Some(outputs), Some(inputs)])?)?,
        };
        Ok((matrix + (part(left)?.matmul(&right)? * scale)?)?)
    }

    /// Refuses changes of matrices that the model doesn't have.
    ///
    /// # Errors
    /// The first of them.
    pub(super) fn refuse_unused(&self) -> Result<()> {
        match self.changes.values().find(|change| !change.taken.load(Ordering::Relaxed)) {
            Some(change) => Err(self.wrong(&change.a, "changes of the model's own matrices")),
            None => Ok(()),
        }
    }

    /// The bytes by which two adapters differ.
    pub(super) fn bytes(&self) -> [&[u8]; 2] {
        [self.config.as_bytes(), self.file.bytes()]
    }

    /// Whether its file has been changed in place.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        self.file.check_unchanged()
    }

    fn wrong(&self, tensor: &str, expected: &str) -> Error {
        Error::input(
            self.file.name(),
            format!("tensor {tensor}, which no matrix of the model has a place for"),
            expected,
        )
    }
}

/// Whether a module's name is `end`, or ends with it after a dot.
fn ends_with_module(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Refuses what changes more than matrices, or changes them otherwise.
fn check(config: &Value, place: &str) -> Result<()> {
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or("missing");
    if kind != "LORA" {
        return Err(Error::input(place, format!("peft_type is {kind}"), "LORA"));
    }
    // Others take a part of the base model's weights away when they begin.
    let starts = config.get("init_lora_weights").filter(|value| {
        !(value.is_null()
            || value.is_boolean()
            || ["gaussian", "orthogonal", "eva"].iter().any(|one| *value == one))
    });
    if let Some(value) = starts {
        let expected = "true, or another that leaves the base model as it is";
        return Err(Error::input(place, format!("init_lora_weights is {value}"), expected));
    }
    const PLAIN: &str =
        "none: merge the adapter with peft (`merge_and_unload()`, then `save_pretrained`) instead";
    let bias = config.get("bias").filter(|bias| !bias.is_null() && *bias != "none");
    if let Some(bias) = bias {
        return Err(Error::input(place, format!("bias is {bias}"), PLAIN));
    }
    for key in [
        "use_dora",
        "use_qalora",
        "lora_bias",
        "modules_to_save",
        "target_parameters",
        "trainable_token_indices",
        "layer_replication",
        "alora_invocation_tokens",
        "arrow_config",
        "use_bdlora",
        "velora_config",
        "kasa_config",
        "monteclora_config",
    ] {
        let off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if let Some(value) = config.get(key).filter(|value| !off(value)) {
            return Err(Error::input(place, format!("{key} is {value}"), PLAIN));
        }
    }
    Ok(())
}

/// The alphas of single modules, by the ends of their names.
fn patterns(config: &Value, place: &str) -> Result<Vec<(String, f64)>> {
    let Some(Value::Object(patterns)) = config.get("alpha_pattern") else { return Ok(Vec::new()) };
    let read = |(key, value): (&String, &Value)| {
        let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._".contains(&byte));
        match value.as_f64().filter(|_| plain) {
            Some(alpha) => Ok((key.clone(), alpha)),
            None => {
                let found = format!("alpha_pattern has {key:?}: {value}");
                Err(Error::input(place, found, "names of modules, each with a number"))
            }
        }
    };
    patterns.iter().map(read).collect()
}
