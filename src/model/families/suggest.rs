//! The known family that an unknown model resembles most, from its config's fields and its tensors' names. It is a hint in
//! an error text only.

use super::{Config, Family};
use crate::model::transformer::architecture::{Fused, HeadNorm, Mlp, NormKind};

/// A feature that tells families apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feature {
    SeparateProjections,
    FusedProjections,
    ProjectionBias,
    HeadNorms,
    Experts,
    GatedMlp,
    FusedGate,
    PlainMlp,
    NormBefore,
    NormsAfter,
    RmsNorm,
    LayerNorm,
    LearnedPositions,
    SlidingWindow,
    Caps,
    Encoder,
    DeltaNets,
    LatentAttention,
}
use Feature::*;

impl Feature {
    fn name(self) -> &'static str {
        match self {
            SeparateProjections => "separate query, key and value projections",
            FusedProjections => "one projection for query, key and value",
            ProjectionBias => "biases of query and key",
            HeadNorms => "norms on query and key",
            Experts => "experts",
            GatedMlp => "a gated MLP",
            FusedGate => "gate and up in one matrix",
            PlainMlp => "an MLP without gate",
            NormsAfter => "norms after attention and MLP",
            NormBefore => "norms before attention",
            RmsNorm => "RMS norms",
            LayerNorm => "layer norms with biases",
            LearnedPositions => "learned positions",
            SlidingWindow => "a sliding window",
            Caps => "capped scores",
            Encoder => "an encoder",
            DeltaNets => "gated delta nets",
            LatentAttention => "latent attention",
        }
    }

    /// Parts of tensor names, each of which is evidence of the feature.
    fn in_tensors(self) -> &'static [&'static str] {
        match self {
            SeparateProjections => &["q_proj.weight", ".query.weight", "q_lin.weight"],
            FusedProjections => &["qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv.weight"],
            ProjectionBias => &["q_proj.bias", "query_key_value.bias", "c_attn.bias", ".query.bias"],
            HeadNorms => &["q_norm", "q_layernorm", "query_norm"],
            Experts => &["experts"],
            GatedMlp => &["gate_proj", "gate_up_proj", ".w3.", "experts"],
            FusedGate => &["gate_up_proj"],
            PlainMlp => &["c_fc", "fc1", "dense_h_to_4h", "intermediate.dense"],
            NormsAfter => &["pre_feedforward_layernorm", "post_feedforward_layernorm"],
            NormBefore => &["input_layernorm", "ln_1", "attention_norm"],
            RmsNorm => &[],
            LayerNorm => &["layernorm.bias", "ln_1.bias", "LayerNorm.bias", "norm.bias"],
            LearnedPositions => &["wpe", "position_embeddings", "embed_positions"],
            SlidingWindow | Caps => &[],
            Encoder => &["encoder.layer.", "token_type_embeddings"],
            DeltaNets => &["linear_attn."],
            LatentAttention => &["kv_a_proj"],
        }
    }

    /// Config fields that are evidence of the feature if they are neither null nor false.
    fn in_config(self) -> &'static [&'static str] {
        match self {
            ProjectionBias => &["attention_bias", "qkv_bias"],
            Experts => &["num_experts", "num_local_experts", "n_routed_experts"],
            RmsNorm => &["rms_norm_eps"],
            LayerNorm => &["layer_norm_eps", "layer_norm_epsilon"],
            LearnedPositions => &["n_positions", "type_vocab_size"],
            SlidingWindow => &["sliding_window"],
            Caps => &["attn_logit_softcapping", "final_logit_softcapping"],
            Encoder => &["type_vocab_size"],
            LatentAttention => &["kv_lora_rank"],
            _ => &[],
        }
    }
}

const ALL: [Feature; 18] = [
    SeparateProjections,
    FusedProjections,
    ProjectionBias,
    HeadNorms,
    Experts,
    GatedMlp,
    FusedGate,
    PlainMlp,
    NormBefore,
    NormsAfter,
    RmsNorm,
    LayerNorm,
    LearnedPositions,
    SlidingWindow,
    Caps,
    Encoder,
    DeltaNets,
    LatentAttention,
];

/// A config with every field that some family requires, and a sliding window: each family's defaults give the rest.
const EXAMPLE: &str = r#"{
    "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16, "vocab_size": 16,
    "hidden_act": "silu", "n_embd": 16, "n_head": 2, "n_layer": 2, "activation_function": "gelu", "sliding_window": 4,
    "num_experts_per_tok": 2, "num_kv_shared_layers": 0
}"#;

/// The features of a family, read from the architecture that it makes of [`EXAMPLE`]; none if it can't read it.
fn features(family: &dyn Family) -> Vec<Feature> {
    let example = Config::parse("the example", EXAMPLE.as_bytes());
    let example = example.map(|config| config.with_text("model_type", family.model_type()));
    let Ok(a) = example.and_then(|config| family.architecture(&config)) else { return Vec::new() };
    let norms = [a.names.attention_norms, a.names.mlp_norms];
    ALL.into_iter()
        .filter(|feature| match feature {
            SeparateProjections => a.query_key_value == Fused::Separate,
            FusedProjections => a.query_key_value != Fused::Separate,
            ProjectionBias => a.query_key_value_bias,
            HeadNorms => a.head_norm != HeadNorm::None,
            Experts => a.experts.is_some(),
            GatedMlp => a.mlp != Mlp::Plain,
            FusedGate => a.mlp == Mlp::Gated(Fused::Stacked),
            PlainMlp => a.mlp == Mlp::Plain,
            NormBefore => a.names.attention_norms.before.is_some(),
            NormsAfter => norms.iter().all(|norms| norms.output.is_some()),
            RmsNorm => a.norm != NormKind::Layer,
            LayerNorm => a.norm == NormKind::Layer,
            LearnedPositions => a.positions.is_some(),
            SlidingWindow => a.blocks.iter().any(|block| block.window.is_some()),
            Caps => a.attention_cap.is_some(),
            Encoder => !a.causal,
            DeltaNets => a.delta.is_some(),
            LatentAttention => a.latent.is_some(),
        })
        .collect()
}

/// The known family that a model resembles most, with the common features: `qwen3 (norms on query and key, …)`. Families
/// are compared by the Jaccard index of their features, then by the similarity of their names.
pub(super) fn most_similar(
    families: &[&dyn Family],
    config: &Config,
    tensors: &[String],
    model_type: &str,
) -> Option<String> {
    let seen: Vec<Feature> = ALL.into_iter().filter(|feature| shows(*feature, config, tensors)).collect();
    // Parts of other models are no one's nearest relative.
    let whole = families.iter().filter(|family| !family.model_type().ends_with("_vl_text"));
    let scored = whole.map(|family| {
        let features = features(*family);
        let common: Vec<Feature> =
            features.iter().copied().filter(|feature| seen.contains(feature)).collect();
        let either = features.len() + seen.len() - common.len();
        let likeness = common.len() as f64 / either.max(1) as f64;
        let names: Vec<&str> = common.into_iter().map(Feature::name).collect();
        (likeness, name_similarity(model_type, family.model_type()), family.model_type(), names)
    });
    // The first of the best: the table has the plainest family first.
    let best = scored.reduce(|best, next| if (next.0, next.1) > (best.0, best.1) { next } else { best })?;
    Some(match best.3.is_empty() {
        false => format!("{} ({})", best.2, best.3.join(", ")),
        true => format!("{}, by its name", best.2),
    })
}

fn shows(feature: Feature, config: &Config, tensors: &[String]) -> bool {
    feature.in_tensors().iter().any(|part| tensors.iter().any(|name| name.contains(part)))
        || feature.in_config().iter().any(|field| config.has(field))
}

/// Names that are less similar are so by chance.
const CHANCE: f64 = 0.4;

/// Similarity of two names, from 0 to 1: twice the length of their longest common substring over the sum of their lengths.
fn name_similarity(a: &str, b: &str) -> f64 {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let a = &a[..a.len().min(64)];
    let longest = (0..a.len())
        .flat_map(|begin| (begin + 1..=a.len()).map(move |end| &a[begin..end]))
        .filter(|part| b.windows(part.len()).any(|window| window == *part))
        .map(<[u8]>::len)
        .max();
    let similarity = 2.0 * longest.unwrap_or(0) as f64 / (a.len() + b.len()).max(1) as f64;
    // Single letters in common say nothing: the plainest family is nearer.
    if similarity < CHANCE { 0.0 } else { similarity }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(config: &str, tensors: &[&str], model_type: &str) -> String {
        let tensors: Vec<String> = tensors.iter().map(|name| name.to_string()).collect();
        let config = Config::parse("config.json", config.as_bytes()).unwrap();
        most_similar(&super::super::FAMILIES, &config, &tensors, model_type).unwrap()
    }

    #[test]
    fn tensors_and_fields_decide_and_names_settle_what_is_even() {
        let block = ["input_layernorm.weight", "self_attn.q_proj.weight", "mlp.gate_proj.weight"];
        let with = |more: &[&'static str]| [&block[..], more].concat();
        let rms = r#"{"rms_norm_eps": 1e-6, "sliding_window": null}"#;
        assert!(like(rms, &block, "yi").starts_with("llama ("));
        assert!(like(rms, &with(&["self_attn.q_proj.bias"]), "newmodel").starts_with("qwen2 ("));
        assert!(like(rms, &with(&["self_attn.q_norm.weight"]), "x").starts_with("qwen3 ("));
        let experts = with(&["self_attn.q_norm.weight", "mlp.experts.0.gate_proj.weight"]);
        assert!(like(rms, &experts, "x").starts_with("qwen3_moe ("));
        let delta = with(&["self_attn.q_norm.weight", "linear_attn.out_proj.weight"]);
        assert!(like(rms, &delta, "x").starts_with("qwen3_5_text ("));
        let latent = [
            "input_layernorm.weight",
            "self_attn.kv_a_proj_with_mqa.weight",
            "mlp.experts.0.gate_proj.weight",
        ];
        assert!(like(rms, &latent, "x").starts_with("deepseek_v2 ("));
        let phi = ["self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight", "input_layernorm.weight"];
        assert!(like(rms, &phi, "x").starts_with("phi3 ("));
        let gpt = ["h.0.attn.c_attn.weight", "h.0.mlp.c_fc.weight", "h.0.ln_1.bias", "wpe.weight"];
        assert!(like("{}", &gpt, "x").starts_with("gpt2 ("));
        let bert = ["encoder.layer.0.attention.self.query.weight", "embeddings.token_type_embeddings.weight"];
        assert!(like("{}", &bert, "x").starts_with("bert ("));
        assert_eq!(like("{}", &[], "gemma2_next"), "gemma2, by its name");
        assert_eq!(like("{}", &[], "gpt_neo"), "gpt_neox, by its name");
    }

    #[test]
    fn features_follow_from_the_familys_architecture() {
        let of = |model_type: &str| {
            let family = super::super::FAMILIES.iter().find(|family| family.model_type() == model_type);
            features(*family.unwrap())
        };
        assert_eq!(
            of("gemma2"),
            [SeparateProjections, GatedMlp, NormBefore, NormsAfter, RmsNorm, SlidingWindow, Caps]
        );
        assert_eq!(
            of("gpt2"),
            [FusedProjections, ProjectionBias, PlainMlp, NormBefore, LayerNorm, LearnedPositions]
        );
        assert_eq!(of("olmo2"), [SeparateProjections, HeadNorms, GatedMlp, NormsAfter, RmsNorm]);
        // Granite 4 needs to say that it has neither Mamba layers nor experts.
        let whole = super::super::FAMILIES.into_iter().filter(|one| one.model_type() != "granitemoehybrid");
        for family in whole {
            assert!(features(family).len() > 3, "{} can't read the example config", family.model_type());
        }
    }
}
