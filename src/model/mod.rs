//! A language model that can be watched: its weights, its forward pass, its way of writing dialogues.

pub mod transformer;

pub mod chat;
pub mod checkpoint;
pub mod families;
pub mod gguf;
pub mod hook;
mod hub;
pub mod compute;
pub mod site;
pub mod selector;
pub mod token;
pub mod weights;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub use chat::Chat;
pub use chat::annotate::Continuation;
pub use checkpoint::Checkpoint;
pub use hook::{Chain, Hook};
#[cfg(feature = "hub")]
pub use hub::{Fetched, fetch};
pub use selector::{Pooling, Selector};
pub use site::{Point, Site};
pub use token::{Phase, Token};
pub use transformer::architecture::Architecture;
pub use transformer::decoder::Decoder;
pub use transformer::kv_cache::{Cache, Prefix};
pub use weights::{Dtype, TensorRef, Weight, Weights};

use crate::error::{Error, Result};
use crate::model::compute::backend::Backend;

/// A decoder with its tokenizer and chat template.
pub struct Model {
    /// As the user named it.
    pub name: String,
    /// SHA-256 of the weights, in hex.
    pub hash: String,
    /// The type that most of the weights are kept in: f32, bf16, f16, or that of quantised blocks.
    pub dtype: String,
    pub decoder: Decoder,
    pub chat: Chat,
}

impl Model {
    /// Opens a checkpoint, reads its weights, and keeps its matrices in `dtype`, or in f32 where it is left out; see
    /// [`Checkpoint::open`].
    ///
    /// # Errors
    /// A folder or file that is missing; a family, a tensor or a template that can't be used, with its name.
    pub fn open(name: &Path, dtype: Option<Dtype>) -> Result<Model> {
        Checkpoint::open(name, None)?.load(dtype)
    }

    /// Builds the decoder from open weights, and hashes them meanwhile.
    ///
    /// # Errors
    /// A tensor that is missing, can't be used, or has no place in the architecture.
    pub fn build(
        name: String,
        architecture: Architecture,
        weights: &Weights,
        dtype: Option<Dtype>,
        chat: Chat,
    ) -> Result<Model> {
        Backend::chosen()?;
        let failed = AtomicBool::new(false);
        let build = || {
            let decoder = Decoder::build(architecture, |place| weights.take(place, dtype))?;
            weights.refuse_extra(|name| decoder.architecture().ignores(name))?;
            Ok(decoder)
        };
        let (decoder, hash) = rayon::join(
            || build().inspect_err(|_: &Error| failed.store(true, Ordering::Relaxed)),
            || weights.hash(&failed),
        );
        Ok(Model { name, hash, dtype: weights.kept(), decoder: decoder?, chat })
    }
}
