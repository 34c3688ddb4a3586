//! A checkpoint on disk: config, tokenizer, and the shapes of its tensors, checked against the config. The weights are read by
//! [`Checkpoint::load`], so that a checkpoint of any size can be inspected.

use std::path::Path;

use super::families::{self, Config};
use super::{Architecture, Chat, Dtype, Model, Weights, gguf, hub};
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
            let expected =
                "a checkpoint folder with config.json, a GGUF file, or `organism` for the embedded model";
            return Err(Error::input(folder.display(), "no model there", expected));
        }
        let config =
            Config::parse(place.display().to_string(), &std::fs::read(&place).map_err(Error::file(&place))?)?;
        let tensors = || Weights::open(&folder).map(|weights| weights.names()).unwrap_or_default();
        let architecture = families::architecture_with(&config, tensors)?;
        let weights = Weights::open(&folder)?;
        check(&architecture, &weights, config.place())?;
        let chat = Chat::from_folder(&folder, template)?.with_vocabulary(architecture.vocabulary);
        Ok(Checkpoint { name: name.display().to_string(), architecture, chat, weights })
    }

    /// Reads the weights. Matrices are in `dtype`; without one, f32, or the stored types of a quantised checkpoint.
    ///
    /// # Errors
    /// A tensor with a value that isn't finite in its type.
    pub fn load(self, dtype: Option<Dtype>) -> Result<Model> {
        Model::build(self.name, self.architecture, &self.weights, dtype, self.chat)
    }
}

/// Refuses tensors that are missing, have another shape than the config says, or aren't part of the architecture.
fn check(architecture: &Architecture, weights: &Weights, place: &str) -> Result<()> {
    // A config can claim any number of blocks; each needs tensors.
    let (blocks, tensors) = (architecture.blocks.len(), weights.count());
    if blocks > tensors {
        let found = format!("{blocks} blocks, and the checkpoint has {tensors} tensors");
        return Err(Error::input(place, found, "no more blocks than tensors"));
    }
    architecture.tensors()?.iter().try_for_each(|place| weights.check(place))?;
    weights.refuse_extra(|name| architecture.ignores(name))
}
