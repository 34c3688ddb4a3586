//! Language models with hook sites: checkpoints, the forward pass, and chat templates.

pub mod transformer;

pub mod chat;
pub mod checkpoint;
mod context;
pub mod families;
pub mod gguf;
pub mod hook;
mod origin;
mod prompt_cache;
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
pub use context::TooLong;
pub use hook::{Chain, Hook, PromptSteering};
#[cfg(feature = "hub")]
pub use hub::{Fetched, fetch};
pub use origin::OtherWeights;
pub use prompt_cache::{PromptCache, same_tokens};
pub use selector::{Pooling, Selector};
pub use site::{Point, Site};
pub use token::{Phase, Token};
pub use transformer::architecture::Architecture;
pub use transformer::decoder::{Decoder, SHORTEST_PART};
pub use transformer::kv_cache::{Cache, Prefix};
pub use weights::{Dtype, TensorRef, Weight, Weights};

use crate::artifact::Origin;
use crate::error::{Error, Result};
use crate::model::compute::backend::Backend;

/// A decoder with its tokenizer and chat template.
pub struct Model {
    /// As the user named it: a path, a hub id, or `organism`.
    pub name: String,
    /// SHA-256 of the weights, in hex.
    pub hash: String,
    /// The type of most of the weights: f32, bf16, f16 or a quantised format.
    pub dtype: String,
    /// The forward pass with its weights.
    pub decoder: Decoder,
    /// The tokenizer and the chat template.
    pub chat: Chat,
    /// Whether probes and vectors of other weights are taken.
    pub other_weights: OtherWeights,
}

impl Model {
    /// Checks a probe or a vector that was made from the model of `made`. `place` begins the error, and `what` names the artefact.
    ///
    /// # Errors
    /// As [`OtherWeights::check`].
    pub fn check_origin(&self, place: impl std::fmt::Display, what: &str, made: Origin) -> Result<()> {
        if made.hash.is_none_or(|hash| hash == self.hash) {
            return Ok(());
        }
        let form = self.form()?;
        let used = Origin { name: Some(&self.name), hash: Some(&self.hash), form: Some(&form) };
        self.other_weights.check(place, what, made, used)
    }

    /// Opens a checkpoint and reads its weights, with matrices in `dtype`; see [`Checkpoint::open`] and [`Checkpoint::load`].
    ///
    /// # Errors
    /// A missing folder or file, or a family, tensor or template that can't be used, with its name.
    pub fn open(name: &Path, dtype: Option<Dtype>) -> Result<Model> {
        Checkpoint::open(name, None)?.load(dtype)
    }

    /// Builds the decoder from open weights, and hashes them at the same time.
    ///
    /// # Errors
    /// A tensor that is missing, can't be used, or isn't part of the architecture.
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
            weights.check_unchanged()?;
            Ok(decoder)
        };
        let (decoder, hash) = rayon::join(
            || build().inspect_err(|_: &Error| failed.store(true, Ordering::Relaxed)),
            || weights.hash(&failed),
        );
        let other_weights = OtherWeights::default();
        Ok(Model { name, hash, dtype: weights.kept(), decoder: decoder?, chat, other_weights })
    }
}
