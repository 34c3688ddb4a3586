//! The model families: each reads its `config.json` into an [`Architecture`]. A new family is one new file here.

mod bert;
mod config;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod llama;
mod mistral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod suggest;

pub use config::Config;

use crate::error::{Error, Result};
use crate::model::transformer::architecture::Architecture;

/// One family: the `model_type` of its configs, and how they are read.
struct Family {
    model_type: &'static str,
    architecture: fn(&Config) -> Result<Architecture>,
}

const FAMILIES: [Family; 12] = [
    llama::FAMILY,
    mistral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    qwen3_moe::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    phi3::FAMILY,
    olmo2::FAMILY,
    gpt2::FAMILY,
    gpt_neox::FAMILY,
    bert::FAMILY,
];

/// Reads a config of any known family.
pub fn architecture(config: &Config) -> Result<Architecture> {
    architecture_with(config, Vec::new)
}

/// The same, where the names of the checkpoint's tensors help to say what a model of an unknown family looks like.
pub fn architecture_with(config: &Config, tensors: impl FnOnce() -> Vec<String>) -> Result<Architecture> {
    let model_type = config.text("model_type")?;
    let Some(family) = FAMILIES.iter().find(|family| family.model_type == model_type) else {
        let known = FAMILIES.map(|family| family.model_type);
        let like = suggest::most_like(config, &tensors(), model_type, &known);
        let like = like.map_or_else(String::new, |like| format!("; it most resembles {like}"));
        return Err(Error::input(
            config.place(),
            format!("model_type {model_type} is not known"),
            format!("one of {}{like}", known.join(", ")),
        ));
    };
    let architecture = (family.architecture)(config)?;
    check(config, &architecture)?;
    Ok(architecture)
}

/// What no transformer can be, whatever its family.
fn check(config: &Config, architecture: &Architecture) -> Result<()> {
    let a = architecture;
    let wrong = |found: String, expected: &str| Err(Error::input(config.place(), found, expected));
    if !a.heads.is_multiple_of(a.kv_heads) {
        let found = format!("{} heads for queries, {} for keys and values", a.heads, a.kv_heads);
        return wrong(found, "a number of heads that the keys' heads divide");
    }
    if a.head_width == 0 {
        return wrong(format!("{} heads in a width of {}", a.heads, a.width), "no more heads than the width");
    }
    let width = a.heads.checked_mul(a.head_width).filter(|&width| width < 1 << 31);
    if width.is_none() {
        return wrong(format!("{} heads of width {}", a.heads, a.head_width), "heads that fit in memory");
    }
    if let Some(rope) = a.ropes.iter().find(|rope| rope.width == 0 || !rope.width.is_multiple_of(2)) {
        return wrong(format!("{} rotated numbers a head", rope.width), "an even number of them");
    }
    if !(a.norm_epsilon.is_finite() && a.norm_epsilon > 0.0 && a.attention_scale.is_finite()) {
        return wrong("a norm or scale that is no number above 0".into(), "numbers above 0");
    }
    Ok(())
}
