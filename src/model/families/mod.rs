//! The model families: each reads its `config.json` into an [`Architecture`]. A new family is one new file here.

mod config;
mod llama;
mod qwen3;

pub use config::Config;

use crate::error::{Error, Result};
use crate::model::architecture::Architecture;

/// One family: the `model_type` of its configs, and how they are read.
struct Family {
    model_type: &'static str,
    architecture: fn(&Config) -> Result<Architecture>,
}

const FAMILIES: [Family; 2] = [llama::FAMILY, qwen3::FAMILY];

/// Reads a config of any known family.
pub fn architecture(config: &Config) -> Result<Architecture> {
    let model_type = config.text("model_type")?;
    let Some(family) = FAMILIES.iter().find(|family| family.model_type == model_type) else {
        let known = FAMILIES.map(|family| family.model_type).join(", ");
        return Err(Error::input(
            config.place(),
            format!("model_type {model_type} is not known"),
            format!("one of {known}"),
        ));
    };
    (family.architecture)(config)
}
