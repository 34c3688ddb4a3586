//! What a checkpoint's files hold as a whole: names, types, identity, and tensors that no model takes.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::adapter::Adapter;
use super::file::File;
use super::weight::Dtype;
use super::{UNQUANTISED, Weights};
use crate::error::{Error, Result};

/// Bytes of a file that are in memory at once while it is hashed.
const HASH_CHUNK: usize = 1 << 22;

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
    /// Whether a quantiser left a tensor that changes no weight: scales of a quantised cache, or a bias of zeros where the model has
    /// none.
    fn is_of_quantiser(&self, name: &str) -> bool {
        if self.quantisation.is_none() {
            return false;
        }
        let zeros = || {
            let file = &self.files[self.tensors[name].file];
            file.stored(name).is_ok_and(|(_, bytes)| bytes.iter().all(|byte| *byte == 0))
        };
        [".k_scale", ".v_scale", ".q_scale"].iter().any(|end| name.ends_with(end))
            || (name.ends_with(".bias") && zeros())
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

    /// The type of most of the values that were taken: f32, bf16, f16 or a quantised format.
    pub fn kept(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let most = kept.iter().max_by_key(|(_, numbers)| **numbers);
        most.map_or_else(|| Dtype::F32.to_string(), |(name, _)| name.clone())
    }

    /// The longest side of a tensor that holds values. No size of the model is above it.
    pub fn longest_side(&self) -> usize {
        let shapes = self.tensors.iter().filter_map(|(name, found)| self.files[found.file].shape(name).ok());
        let filled = shapes.filter(|shape| !shape.contains(&0));
        filled.flatten().copied().max().unwrap_or(0)
    }

    /// Whether two tensors have the same shape, type and bytes. One that is quantised under other names equals none.
    ///
    /// # Errors
    /// A tensor that is missing.
    pub fn are_equal(&self, names: [&str; 2]) -> Result<bool> {
        if names.iter().any(|name| self.find(name).is_none() && self.has(name)) {
            return Ok(false);
        }
        let get = |name: &str| {
            let missing = || Error::input("the checkpoint", format!("no tensor {name}"), "one");
            self.find(name).map(|(name, found)| (name, &self.files[found.file])).ok_or_else(missing)
        };
        let [(name, file), (other, other_file)] = [get(names[0])?, get(names[1])?];
        if file.shape(name)? != other_file.shape(other)? {
            return Ok(false);
        }
        let ((kind, _, bytes), (other_kind, _, other_bytes)) = (file.raw(name)?, other_file.raw(other)?);
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

    /// Checks that no file has been changed in place since it was opened.
    ///
    /// # Errors
    /// [`Error::Input`] if one has.
    pub fn check_unchanged(&self) -> Result<()> {
        self.files.iter().try_for_each(File::check_unchanged)?;
        self.adapter.iter().try_for_each(Adapter::check_unchanged)
    }

    /// Refuses tensors of quantisations that the config doesn't name, by the names that the quantisers give them.
    ///
    /// # Errors
    /// [`Error::Input`] with the first such tensor.
    pub fn refuse_quantised(&self) -> Result<()> {
        if self.quantisation.is_some() {
            return Ok(());
        }
        let of_quantiser = |name: &&String| QUANTISED.iter().any(|end| name.ends_with(end));
        let Some(name) = self.tensors.keys().find(of_quantiser) else { return Ok(()) };
        let file = &self.files[self.tensors[name].file];
        let expected = format!("a quantization_config in config.json that says how; else {UNQUANTISED}");
        Err(file.wrong(format!("tensor {name} of quantised weights, which are not read"), expected))
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
            !found.taken.load(Ordering::Relaxed) && !buffer && !ignored(name) && !self.is_of_quantiser(name)
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
