//! A checkpoint on disk: config, tokenizer, and the shapes of its tensors, checked against the config. The weights are read by
//! [`Checkpoint::load`], so that a checkpoint of any size can be inspected.

use std::path::Path;

use super::compute::backend::candle_device;
use super::families::{self, Config};
use super::transformer::architecture::Head;
use super::weights::{Adapter, QuantFormat, SINGLE, names_in, other_weights};
use super::{Architecture, Chat, Dtype, Model, Weights, gguf, hub};
use crate::artifact::refuse_lfs_pointer;
use crate::error::{Error, Result};

/// An open checkpoint whose weights haven't been read.
pub struct Checkpoint {
    /// As the user named it: a path, a hub id, or `organism`.
    pub name: String,
    /// The architecture that the config describes.
    pub architecture: Architecture,
    /// The tokenizer and the chat template.
    pub chat: Chat,
    /// The tensors, not read yet.
    pub weights: Weights,
}

impl Checkpoint {
    /// Opens a folder in the hub's layout, a GGUF file, or a cached repository of the hub. `template`: a file whose chat template
    /// replaces the model's own.
    ///
    /// # Errors
    /// A missing folder or file, or a family, tensor or template that can't be used, with its name.
    pub fn open(name: &Path, template: Option<&Path>) -> Result<Checkpoint> {
        let folder = if name.is_file() { name.to_owned() } else { hub::find(name)? };
        if let Some(file) = gguf::find(&folder)? {
            let gguf::Parts { config, mut chat, weights } = gguf::open(&file)?;
            let architecture = families::architecture(&config)?;
            check(&architecture, &weights, config.place())?;
            if let Some(template) = template {
                chat = chat.with_template_file(template)?;
            }
            let chat = chat.with_vocabulary(architecture.vocabulary);
            return Ok(Checkpoint { name: name.display().to_string(), architecture, chat, weights });
        }
        let place = folder.join("config.json");
        if !place.is_file() {
            let names: Vec<String> = names_in(&folder);
            if let Some((found, expected)) =
                other_weights(&names).filter(|_| !names.iter().any(|n| n == SINGLE))
            {
                return Err(Error::input(folder.display(), found, expected));
            }
            let expected =
                "a checkpoint folder with config.json, a GGUF file, or `organism` for the embedded model";
            return Err(Error::input(folder.display(), "no model there", expected));
        }
        let text = std::fs::read(&place).map_err(Error::file(&place))?;
        refuse_lfs_pointer(&place, &text)?;
        let config = Config::parse(place.display().to_string(), &text)?;
        let tensors = || Weights::open(&folder).map(|weights| weights.names()).unwrap_or_default();
        let architecture = families::architecture_with(&config, tensors)?;
        let weights = Weights::open(&folder)?;
        let weights = match families::quantisation(&config)? {
            Some(quantisation) => weights.with_quantisation(quantisation),
            None => weights,
        };
        weights.refuse_quantised()?;
        let architecture = with_head(architecture, &weights, config.class())?;
        check(&architecture, &weights, config.place())?;
        let chat = Chat::from_folder(&folder, template)?.with_vocabulary(architecture.vocabulary);
        check_ends(chat.eos(), chat.eos_place(), architecture.vocabulary)?;
        Ok(Checkpoint { name: name.display().to_string(), architecture, chat, weights })
    }

    /// The checkpoint with a LoRA adapter, merged when the weights are read. `folder`: `adapter_config.json` with
    /// `adapter_model.safetensors`, as peft saves them.
    ///
    /// # Errors
    /// An adapter that can't be read or merged; quantised weights.
    pub fn with_adapter(self, folder: &Path) -> Result<Checkpoint> {
        Ok(Checkpoint { weights: self.weights.with_adapter(Adapter::open(folder)?)?, ..self })
    }

    /// The type that most values would have once they are loaded on the backend in use: a device has the blocks that candle has,
    /// and f32 for the others.
    pub fn would_keep(&self, dtype: Option<Dtype>) -> String {
        let kept = self.weights.would_keep(dtype);
        let foreign =
            |format: &QuantFormat| format.candle().is_none() && format.name().to_lowercase() == kept;
        match candle_device().is_some() && QuantFormat::ALL.iter().any(foreign) {
            true => Dtype::F32.to_string(),
            false => kept,
        }
    }

    /// Reads the weights. Matrices are in `dtype`; without one, f32, or the stored types of a quantised checkpoint.
    ///
    /// # Errors
    /// A tensor with a value that isn't finite in its type.
    pub fn load(self, dtype: Option<Dtype>) -> Result<Model> {
        Model::build(self.name, self.architecture, &self.weights, dtype, self.chat)
    }
}

/// Refuses end-of-sequence ids that the model can't write. `place` names the file that has them.
fn check_ends(ids: &[u32], place: &str, vocabulary: usize) -> Result<()> {
    match ids.iter().find(|&&id| id as usize >= vocabulary) {
        Some(id) => {
            let found = format!("end-of-sequence token {id}");
            Err(Error::input(place, found, format!("an id of the model's {vocabulary} tokens")))
        }
        None => Ok(()),
    }
}

/// The architecture with the vocabulary head that the checkpoint has, as transformers takes it: where the config says tied
/// and the file has another matrix for the head, the file counts. A checkpoint without a head is for reading only.
fn with_head(mut architecture: Architecture, weights: &Weights, class: Option<&str>) -> Result<Architecture> {
    let [head, embed] =
        [architecture.names.head, architecture.names.embed].map(|name| format!("{name}.weight"));
    architecture.head = match architecture.head {
        Head::None => Head::None,
        Head::Own if weights.has(&head) => Head::Own,
        Head::Own => Head::None,
        Head::Tied if !weights.has(&head) => match class.is_none_or(has_head) {
            true => Head::Tied,
            false => Head::None,
        },
        // Of the two that are tied, the file has the head's only.
        Head::Tied if !weights.has(&embed) => {
            architecture.names.embed = architecture.names.head;
            Head::Tied
        }
        Head::Tied if weights.are_equal([&embed, &head])? => Head::Tied,
        Head::Tied => Head::Own,
    };
    Ok(architecture)
}

/// Whether a class of transformers has a vocabulary head: bare models, classifiers and reward models have none.
fn has_head(class: &str) -> bool {
    let class = class.to_lowercase();
    ["causallm", "lmhead", "doubleheads", "conditionalgeneration", "maskedlm"]
        .iter()
        .any(|part| class.contains(part))
}

/// Refuses tensors that are missing, have another shape than the config says, or aren't part of the architecture.
fn check(architecture: &Architecture, weights: &Weights, place: &str) -> Result<()> {
    // A config can claim any number of blocks; each needs tensors.
    let (blocks, tensors) = (architecture.blocks.len(), weights.count());
    if blocks > tensors {
        let found = format!("{blocks} blocks, and the checkpoint has {tensors} tensors");
        return Err(Error::input(place, found, "no more blocks than tensors"));
    }
    // It can claim any number of heads and experts, too: each has an element of some tensor at least.
    let longest = weights.longest_side();
    let experts = architecture.experts.map_or(0, |experts| experts.count);
    let linear = architecture.delta.map_or(0, |delta| delta.shape.keys.max(delta.shape.values));
    for (what, count) in [
        ("linear heads", linear),
        ("query heads", architecture.heads),
        ("key and value heads", architecture.kv_heads),
        ("elements of a head", architecture.head_width),
        ("experts", experts),
    ] {
        if count > longest {
            let expected = format!("no more than the longest side of a tensor, {longest}");
            return Err(Error::input(place, format!("{count} {what}"), expected));
        }
    }
    architecture.for_each_tensor(&mut |place| weights.check(place))?;
    weights.refuse_extra(|name| architecture.ignores(name))
}
