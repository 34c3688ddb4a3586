//! A checkpoint on disk: found by its name, its config read, its tensors' shapes held against it. Its weights are read
//! only when a model is made of it, so that what it is can be told of a checkpoint of any size.

use std::path::Path;

use super::families::{self, Config};
use super::{Architecture, Chat, Dtype, Model, Weights, gguf, hub};
use crate::error::{Error, Result};

/// What a checkpoint is. See [`Model`] for one that computes.
pub struct Checkpoint {
    /// As the user named it.
    pub name: String,
    pub architecture: Architecture,
    pub chat: Chat,
    pub weights: Weights,
}

impl Checkpoint {
    /// Opens a folder in the hub's layout, a GGUF file, or a repository of the hub that is in its client's cache. `template` is a file
    /// with a chat template that counts instead of the model's own.
    ///
    /// # Errors
    /// A folder or file that is missing; a family, a tensor or a template that can't be used, with its name.
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

    /// Reads the weights, and keeps matrices in `dtype`, or as [`Weights::take`] does where it is left out.
    ///
    /// # Errors
    /// A tensor that holds numbers that are not finite.
    pub fn load(self, dtype: Option<Dtype>) -> Result<Model> {
        Model::build(self.name, self.architecture, &self.weights, dtype, self.chat)
    }
}

/// Refuses tensors that are missing, have another shape than the config says, or have no place in the model.
fn check(architecture: &Architecture, weights: &Weights, place: &str) -> Result<()> {
    // A config can claim any number of blocks; each takes tensors of its own.
    let (blocks, tensors) = (architecture.blocks.len(), weights.count());
    if blocks > tensors {
        let found = format!("{blocks} blocks, and the checkpoint has {tensors} tensors");
        return Err(Error::input(place, found, "no more blocks than tensors"));
    }
    architecture.tensors()?.iter().try_for_each(|place| weights.check(place))?;
    weights.refuse_extra(|name| architecture.ignores(name))
}
