//! Model families. Each reads its `config.json` into an [`Architecture`]; a new family is one file and one line of the
//! table in this module.

mod bert;
mod cohere;
mod config;
mod deepseek;
mod gemma2;
mod gemma3;
mod gemma3n;
mod gemma4;
mod glm4;
mod glm4_moe;
mod gpt2;
mod gpt_neox;
mod gpt_oss;
mod granite;
mod granitemoe;
mod granitemoehybrid;
mod keys;
mod llama;
mod llama4;
mod ministral3;
mod mistral;
mod mixtral;
mod olmo2;
mod olmo3;
mod olmoe;
mod phi3;
mod phimoe;
mod qwen2;
mod qwen2_moe;
mod qwen2_vl;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod qwen3_next;
mod rope_config;
mod seed_oss;
mod smollm3;
mod stablelm;
mod suggest;
mod wrapped;

pub use config::Config;

use crate::error::{Error, Result};
use crate::model::transformer::architecture::Architecture;
use crate::model::weights::Quantisation;

/// A model family.
trait Family: Sync {
    /// `model_type` in its configs.
    fn model_type(&self) -> &'static str;

    /// Keys of its configs that nothing reads and that change no hidden state, though their names describe the computation.
    fn ignored(&self) -> &'static [&'static str] {
        &[]
    }

    /// The architecture that a config describes.
    ///
    /// # Errors
    /// A field that is missing, or whose value this family's code doesn't implement.
    fn architecture(&self, config: &Config) -> Result<Architecture>;
}

/// Every known family, the plainest first: a tie in [`suggest`] goes to the earlier one.
static FAMILIES: [&dyn Family; 42] = [
    &llama::Llama,
    &mistral::Mistral,
    &mistral::Ministral,
    &ministral3::Ministral3,
    &smollm3::SmolLm3,
    &granite::Granite,
    &qwen2::Qwen2,
    &seed_oss::SeedOss,
    &qwen2_vl::Qwen2VlText,
    &qwen2_vl::Qwen25VlText,
    &qwen2_vl::Qwen3VlText,
    &qwen3::Qwen3,
    &qwen3_moe::Qwen3Moe,
    &qwen2_moe::Qwen2Moe,
    &qwen3_next::Qwen3Next,
    &qwen3_5::Qwen35Text,
    &qwen3_5::Qwen35MoeText,
    &mixtral::Mixtral,
    &granitemoe::GraniteMoe,
    &granitemoehybrid::GraniteMoeHybrid,
    &olmoe::Olmoe,
    &glm4_moe::Glm4Moe,
    &phimoe::PhiMoe,
    &deepseek::DeepseekV2,
    &deepseek::DeepseekV3,
    &gpt_oss::GptOss,
    &llama4::Llama4Text,
    &gemma2::Gemma2,
    &gemma3::Gemma3,
    &gemma3n::Gemma3nText,
    &gemma4::Gemma4Text,
    &phi3::Phi3,
    &glm4::Glm,
    &glm4::Glm4,
    &olmo2::Olmo2,
    &olmo3::Olmo3,
    &cohere::Cohere,
    &cohere::Cohere2,
    &stablelm::StableLm,
    &gpt2::Gpt2,
    &gpt_neox::GptNeox,
    &bert::Bert,
];

/// The architecture of a config of any known family.
///
/// # Errors
/// An unknown `model_type`, a field that is missing or can't be used, a field that describes the computation and that the
/// family doesn't have, quantised weights, or a shape that no transformer has.
pub fn architecture(config: &Config) -> Result<Architecture> {
    architecture_with(config, Vec::new)
}

/// [`architecture`], with the names of the checkpoint's tensors: for an unknown family, the error says which known family
/// the model resembles most.
///
/// # Errors
/// As [`architecture`].
pub fn architecture_with(config: &Config, tensors: impl FnOnce() -> Vec<String>) -> Result<Architecture> {
    quantisation(config)?;
    if let Some(text) = wrapped::text_model(config)? {
        let inner = architecture_with(&text, tensors)?;
        // The logits of most such models are those of the head alone in transformers, whatever the text model's config says.
        let whole = ["gemma3n", "gemma4"].contains(&config.text("model_type")?);
        return Ok(Architecture {
            wrapped: true,
            logit_cap: inner.logit_cap.filter(|_| whole),
            logit_scale: inner.logit_scale.filter(|_| whole),
            ..inner
        });
    }
    let model_type = config.text("model_type")?;
    let Some(family) = FAMILIES.iter().find(|family| family.model_type() == model_type) else {
        let known = FAMILIES.map(Family::model_type);
        let like = suggest::most_similar(&FAMILIES, config, &tensors(), model_type);
        let like = like.map_or_else(String::new, |like| format!("; it most resembles {like}"));
        return Err(Error::input(
            config.place(),
            format!("model_type {model_type} is not known"),
            format!("one of {}{like}", known.join(", ")),
        ));
    };
    let architecture = family.architecture(config)?;
    // Fields that are read later or elsewhere.
    let _ = config.class();
    keys::refuse_unread(config, family.ignored())?;
    check(config, &architecture)?;
    Ok(architecture)
}

/// How a checkpoint's matrices are quantised, as its config says; none where they are not.
///
/// # Errors
/// A method that is not read.
pub(super) fn quantisation(config: &Config) -> Result<Option<Quantisation>> {
    keys::quantisation(config)
}

/// Refuses shapes that no transformer has, whatever its family.
fn check(config: &Config, architecture: &Architecture) -> Result<()> {
    let a = architecture;
    let wrong = |found: String, expected: &str| Err(Error::input(config.place(), found, expected));
    if !a.heads.is_multiple_of(a.kv_heads) {
        let found = format!("{} heads for queries, {} for keys and values", a.heads, a.kv_heads);
        return wrong(found, "key and value heads that divide the query heads");
    }
    for heads in a.blocks.iter().filter_map(|block| block.heads) {
        let [keys, width] = heads;
        if !a.heads.is_multiple_of(keys) {
            return wrong(
                format!("{} heads for queries, {keys} for keys and values", a.heads),
                "key and value heads that divide the query heads",
            );
        }
        if a.heads.checked_mul(width).is_none_or(|all| all >= 1 << 31) {
            return wrong(format!("{} heads of width {width}", a.heads), "heads that fit in memory");
        }
    }
    if let Some(shape) = a.delta.map(|delta| delta.shape) {
        let fits = |counts: &[usize]| {
            let all = counts.iter().try_fold(1usize, |all, &count| all.checked_mul(count));
            all.is_some_and(|all| all < 1 << 31)
        };
        let (keys, values) = ([shape.keys, shape.key_width, shape.span], [shape.values, shape.value_width]);
        if !(fits(&keys)
            && fits(&[shape.span, shape.values, shape.value_width])
            && fits(&[shape.values, shape.key_width, shape.value_width]))
        {
            let found =
                format!("{} and {} linear heads of width {} and {}", keys[0], values[0], keys[1], values[1]);
            return wrong(found, "heads that fit in memory");
        }
    }
    if let Some(experts) = a.experts.filter(|experts| experts.chosen > experts.count) {
        let found =
            format!("num_experts_per_tok is {}, and there are {} experts", experts.chosen, experts.count);
        return wrong(found, "no more than there are experts");
    }
    if a.head_width == 0 {
        return wrong(format!("{} heads in a width of {}", a.heads, a.width), "no more heads than the width");
    }
    let width = a.heads.checked_mul(a.head_width).filter(|&width| width < 1 << 31);
    if width.is_none() {
        return wrong(format!("{} heads of width {}", a.heads, a.head_width), "heads that fit in memory");
    }
    if let Some(rope) = a.ropes.iter().find(|rope| rope.width == 0 || !rope.width.is_multiple_of(2)) {
        return wrong(format!("{} rotated elements per head", rope.width), "an even number above 0");
    }
    if !(a.norm_epsilon.is_finite() && a.norm_epsilon > 0.0 && a.attention_scale.is_finite()) {
        return wrong(
            "a norm epsilon or attention scale that isn't a positive number".into(),
            "positive numbers",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tied_model_ignores_a_copy_of_the_embedding_and_another_tasks_tensors_only() {
        let read =
            |config: &str| architecture(&Config::parse("config.json", config.as_bytes()).unwrap()).unwrap();
        let qwen3 = |tied: bool| {
            read(&format!(
                r#"{{"model_type": "qwen3", "hidden_act": "silu", "hidden_size": 4, "num_attention_heads": 1,
                    "num_hidden_layers": 1, "intermediate_size": 4, "vocab_size": 4, "tie_word_embeddings": {tied}}}"#
            ))
        };
        assert!(qwen3(true).ignores("lm_head.weight"));
        assert!(!qwen3(false).ignores("lm_head.weight"));
        assert!(!qwen3(true).ignores("a"));
        let bert = read(
            r#"{"model_type": "bert", "hidden_act": "gelu", "hidden_size": 4, "num_attention_heads": 1,
                "num_hidden_layers": 1, "intermediate_size": 4, "vocab_size": 4}"#,
        );
        assert!(bert.ignores("pooler.dense.weight") && bert.ignores("bert.pooler.dense.weight"));
        assert!(!bert.ignores("embeddings.pooler"));
    }
}
