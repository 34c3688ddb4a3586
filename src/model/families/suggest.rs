//! Which known family a model of an unknown one looks like, by its config's fields and its tensors' names.
//! It is a hint for people: nothing is computed with it.

use super::Config;

/// What tells families apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trait {
    SeparateProjections,
    FusedProjections,
    ProjectionBias,
    HeadNorm,
    Experts,
    GatedMlp,
    FusedGate,
    PlainMlp,
    NormsAfter,
    NormBefore,
    RmsNorm,
    LayerNorm,
    LearntPositions,
    SlidingWindow,
    Caps,
    Encoder,
}
use Trait::*;

impl Trait {
    fn name(self) -> &'static str {
        match self {
            SeparateProjections => "separate query, key and value projections",
            FusedProjections => "one projection for query, key and value",
            ProjectionBias => "biases of query and key",
            HeadNorm => "norms on query and key",
            Experts => "experts",
            GatedMlp => "a gated MLP",
            FusedGate => "gate and up in one matrix",
            PlainMlp => "an MLP without gate",
            NormsAfter => "norms after attention and MLP",
            NormBefore => "norms before attention",
            RmsNorm => "RMS norms",
            LayerNorm => "layer norms with biases",
            LearntPositions => "learnt positions",
            SlidingWindow => "a sliding window",
            Caps => "capped scores",
            Encoder => "an encoder",
        }
    }

    /// Parts of tensors' names, any of which shows it.
    fn in_tensors(self) -> &'static [&'static str] {
        match self {
            SeparateProjections => &["q_proj.weight", ".query.weight", "q_lin.weight"],
            FusedProjections => &["qkv_proj", "query_key_value", "c_attn", "Wqkv", "qkv.weight"],
            ProjectionBias => &["q_proj.bias", "query_key_value.bias", "c_attn.bias", ".query.bias"],
            HeadNorm => &["q_norm", "q_layernorm", "query_norm"],
            Experts => &["experts"],
            GatedMlp => &["gate_proj", "gate_up_proj", ".w3.", "experts"],
            FusedGate => &["gate_up_proj"],
            PlainMlp => &["c_fc", "fc1", "dense_h_to_4h", "intermediate.dense"],
            NormsAfter => &["pre_feedforward_layernorm", "post_feedforward_layernorm"],
            NormBefore => &["input_layernorm", "ln_1", "attention_norm"],
            RmsNorm => &[],
            LayerNorm => &["layernorm.bias", "ln_1.bias", "LayerNorm.bias", "norm.bias"],
            LearntPositions => &["wpe", "position_embeddings", "embed_positions"],
            SlidingWindow | Caps => &[],
            Encoder => &["encoder.layer.", "token_type_embeddings"],
        }
    }

    /// Fields of the config, any of which shows it where it is there and neither null nor false.
    fn in_config(self) -> &'static [&'static str] {
        match self {
            ProjectionBias => &["attention_bias", "qkv_bias"],
            Experts => &["num_experts", "num_local_experts", "n_routed_experts"],
            RmsNorm => &["rms_norm_eps"],
            LayerNorm => &["layer_norm_eps", "layer_norm_epsilon"],
            LearntPositions => &["n_positions", "type_vocab_size"],
            SlidingWindow => &["sliding_window"],
            Caps => &["attn_logit_softcapping", "final_logit_softcapping"],
            Encoder => &["type_vocab_size"],
            _ => &[],
        }
    }
}

const ALL: [Trait; 16] = [
    SeparateProjections,
    FusedProjections,
    ProjectionBias,
    HeadNorm,
    Experts,
    GatedMlp,
    FusedGate,
    PlainMlp,
    NormsAfter,
    NormBefore,
    RmsNorm,
    LayerNorm,
    LearntPositions,
    SlidingWindow,
    Caps,
    Encoder,
];

/// What the families look like that may be known.
const LOOKS: [(&str, &[Trait]); 12] = [
    ("llama", &[SeparateProjections, GatedMlp, NormBefore, RmsNorm]),
    ("mistral", &[SeparateProjections, GatedMlp, NormBefore, RmsNorm, SlidingWindow]),
    ("qwen2", &[SeparateProjections, ProjectionBias, GatedMlp, NormBefore, RmsNorm]),
    ("qwen3", &[SeparateProjections, HeadNorm, GatedMlp, NormBefore, RmsNorm]),
    ("qwen3_moe", &[SeparateProjections, HeadNorm, Experts, GatedMlp, NormBefore, RmsNorm]),
    ("gemma2", &[SeparateProjections, GatedMlp, NormBefore, NormsAfter, RmsNorm, SlidingWindow, Caps]),
    (
        "gemma3_text",
        &[SeparateProjections, HeadNorm, GatedMlp, NormBefore, NormsAfter, RmsNorm, SlidingWindow],
    ),
    ("phi3", &[FusedProjections, GatedMlp, FusedGate, NormBefore, RmsNorm, SlidingWindow]),
    ("olmo2", &[SeparateProjections, HeadNorm, GatedMlp, NormsAfter, RmsNorm]),
    ("gpt2", &[FusedProjections, ProjectionBias, PlainMlp, NormBefore, LayerNorm, LearntPositions]),
    ("gpt_neox", &[FusedProjections, ProjectionBias, PlainMlp, NormBefore, LayerNorm]),
    ("bert", &[SeparateProjections, ProjectionBias, PlainMlp, LayerNorm, LearntPositions, Encoder]),
];

/// The known family that a model looks like most, with why: `qwen3 (norms on query and key, …)`.
pub(super) fn most_like(
    config: &Config,
    tensors: &[String],
    model_type: &str,
    known: &[&str],
) -> Option<String> {
    let seen: Vec<Trait> = ALL.into_iter().filter(|kind| shows(*kind, config, tensors)).collect();
    let score = |name: &str| -> (f64, Vec<&'static str>) {
        let looks = LOOKS.iter().find(|(look, _)| *look == name).map_or(&[][..], |(_, looks)| *looks);
        let common: Vec<Trait> = looks.iter().copied().filter(|kind| seen.contains(kind)).collect();
        let either = looks.len() + seen.len() - common.len();
        let names = common.iter().map(|kind| kind.name()).collect();
        (common.len() as f64 / either.max(1) as f64, names)
    };
    let scored = known.iter().map(|name| {
        let (likeness, common) = score(name);
        (likeness, alike(model_type, name), *name, common)
    });
    // The first of the best: the table has the plainest family first.
    let best = scored.reduce(|best, next| if (next.0, next.1) > (best.0, best.1) { next } else { best })?;
    Some(match best.3.is_empty() {
        false => format!("{} ({})", best.2, best.3.join(", ")),
        true => format!("{}, by its name", best.2),
    })
}

fn shows(kind: Trait, config: &Config, tensors: &[String]) -> bool {
    kind.in_tensors().iter().any(|part| tensors.iter().any(|name| name.contains(part)))
        || kind.in_config().iter().any(|field| config.has(field))
}

/// How much of two names is common: twice the longest stretch of one in the other over both lengths, from 0 to 1.
fn alike(a: &str, b: &str) -> f64 {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let a = &a[..a.len().min(64)];
    let longest = (0..a.len())
        .flat_map(|begin| (begin + 1..=a.len()).map(move |end| &a[begin..end]))
        .filter(|part| b.windows(part.len()).any(|window| window == *part))
        .map(<[u8]>::len)
        .max();
    2.0 * longest.unwrap_or(0) as f64 / (a.len() + b.len()).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn like(config: &str, tensors: &[&str], model_type: &str) -> String {
        let known: Vec<&str> = LOOKS.iter().map(|(name, _)| *name).collect();
        let tensors: Vec<String> = tensors.iter().map(|name| name.to_string()).collect();
        let config = Config::parse("config.json", config.as_bytes()).unwrap();
        most_like(&config, &tensors, model_type, &known).unwrap()
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
        let phi = ["self_attn.qkv_proj.weight", "mlp.gate_up_proj.weight", "input_layernorm.weight"];
        assert!(like(rms, &phi, "x").starts_with("phi3 ("));
        let gpt = ["h.0.attn.c_attn.weight", "h.0.mlp.c_fc.weight", "h.0.ln_1.bias", "wpe.weight"];
        assert!(like("{}", &gpt, "x").starts_with("gpt2 ("));
        let bert = ["encoder.layer.0.attention.self.query.weight", "embeddings.token_type_embeddings.weight"];
        assert!(like("{}", &bert, "x").starts_with("bert ("));
        assert_eq!(like("{}", &[], "gemma2_next"), "gemma2, by its name");
        assert_eq!(like("{}", &[], "gpt_neo"), "gpt_neox, by its name");
    }
}
