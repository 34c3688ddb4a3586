//! DeepSeek V2 and V3 (and R1): latent attention, and experts beside one that every token uses.

use super::llama::Defaults;
use super::{Config, Family, glm4_moe, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{Architecture, Experts, Latent, Names, Router, SharedExpert};

/// Widths that follow from others, and settings of training.
const IGNORED: [&str; 2] = ["qk_head_dim", "num_experts"];

/// The `deepseek_v2` family.
pub(super) struct DeepseekV2;

impl Family for DeepseekV2 {
    fn model_type(&self) -> &'static str {
        "deepseek_v2"
    }

    fn ignored(&self) -> &'static [&'static str] {
        &IGNORED
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        let architecture = attention(config, Defaults::LLAMA, true)?;
        config.expect(config.text_or("scoring_func", "softmax")? == "softmax", "scoring_func", "softmax")?;
        llama::expect_no_bias(config, &["norm_topk_prob"])?;
        let (count, chosen) =
            (config.count_or("n_routed_experts", 64)?, config.count("num_experts_per_tok")?);
        let router = match config.text_or("topk_method", "greedy")? {
            "group_limited_greedy" => match glm4_moe::groups(config, count, chosen)? {
                Router::Sigmoid { groups, chosen_groups } => Router::GroupLimited { groups, chosen_groups },
                other => other,
            },
            "greedy" => {
                // Without effect on the greedy choice.
                let _ = (config.value("n_group"), config.value("topk_group"));
                Router::Softmax
            }
            _ => return Err(config.refused("topk_method", "greedy or group_limited_greedy")),
        };
        let scale = scale(config, 1.0)?;
        let hidden = config.count_or("moe_intermediate_size", 1407)?;
        let experts = Experts { router, scale, ..Experts::plain(count, chosen, hidden, false) };
        with_experts(config, architecture, experts, [0, 2])
    }
}

/// The `deepseek_v3` family.
pub(super) struct DeepseekV3;

impl Family for DeepseekV3 {
    fn model_type(&self) -> &'static str {
        "deepseek_v3"
    }

    fn ignored(&self) -> &'static [&'static str] {
        &IGNORED
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        let interleaved = config.flag_or("rope_interleave", true)?;
        let defaults = Defaults { context: 4096, ..Defaults::LLAMA };
        let architecture = attention(config, defaults, interleaved)?;
        config.expect(config.text_or("scoring_func", "sigmoid")? == "sigmoid", "scoring_func", "sigmoid")?;
        let method = config.text_or("topk_method", "noaux_tc")?;
        config.expect(method == "noaux_tc", "topk_method", "noaux_tc")?;
        let (count, chosen) =
            (config.count_or("n_routed_experts", 256)?, config.count_or("num_experts_per_tok", 8)?);
        let normalised = config.flag_or("norm_topk_prob", true)?;
        let hidden = config.count_or("moe_intermediate_size", 2048)?;
        let router = glm4_moe::groups_or(config, count, chosen, [8, 4])?;
        let scale = scale(config, 2.5)?;
        let experts = Experts { router, scale, ..Experts::plain(count, chosen, hidden, normalised) };
        let predicting = config.count_from_0_or("num_mtp_layers", 1)?;
        Ok(Architecture {
            prediction_blocks: config.count_from_0_or("num_nextn_predict_layers", predicting)?,
            ..with_experts(config, architecture, experts, [3, 1])?
        })
    }
}

const NAMES: Names = Names { shared: "mlp.shared_experts.", ..llama::NAMES };

fn scale(config: &Config, default: f64) -> Result<f64> {
    match config.field("routed_scaling_factor") {
        Some(_) => config.positive("routed_scaling_factor"),
        None => Ok(default),
    }
}

/// All but the experts.
fn attention(config: &Config, defaults: Defaults, interleaved: bool) -> Result<Architecture> {
    let architecture = llama::with_defaults(config, defaults)?;
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let heads = architecture.heads;
    let keys = config.count_or_null("num_key_value_heads", Some(heads))?.unwrap_or(heads);
    config.expect(keys == heads, "num_key_value_heads", "as many as num_attention_heads, or none")?;
    let bias = config.flag_or("attention_bias", false)?;
    let plain = config.count_or("qk_nope_head_dim", 128)?;
    let rotated = config.count_or("qk_rope_head_dim", 64)?;
    let (head_width, value_width) = (plain + rotated, config.count_or("v_head_dim", 128)?);
    config.expect(
        value_width <= head_width,
        "v_head_dim",
        "no more than qk_nope_head_dim and qk_rope_head_dim",
    )?;
    let latent = Latent {
        query_rank: config.count_or_null("q_lora_rank", Some(1536))?,
        rank: config.count_or("kv_lora_rank", 512)?,
        plain,
        rotated,
        value_width,
        interleaved,
        bias,
    };
    let rope = config.rope(rotated, 10_000.0, architecture.context)?;
    Ok(Architecture {
        kv_heads: heads,
        head_width,
        attention_scale: (head_width as f64).powf(-0.5) * growth(config)?,
        latent: Some(latent),
        query_key_value_bias: false,
        output_bias: bias,
        ropes: vec![rope],
        names: NAMES,
        ..architecture
    })
}

/// The factor of the scores that YaRN's `mscale_all_dim` asks for.
fn growth(config: &Config) -> Result<f64> {
    let filled = |name: &&str| config.value(name).is_some();
    let Some(name) = ["rope_scaling", "rope_parameters"].into_iter().find(filled) else { return Ok(1.0) };
    let parameters = config.object(name)?;
    let kind = ["rope_type", "type"].iter().find_map(|name| parameters.value(name));
    let all = parameters.number_or("mscale_all_dim", 0.0)?;
    if kind.is_none_or(|kind| kind == "default") || all == 0.0 {
        return Ok(1.0);
    }
    let factor = parameters.positive("factor")?;
    let grown = if factor <= 1.0 { 1.0 } else { 0.1 * all * factor.ln() + 1.0 };
    Ok(grown * grown)
}

fn with_experts(
    config: &Config,
    mut architecture: Architecture,
    experts: Experts,
    [first, shared]: [usize; 2],
) -> Result<Architecture> {
    config.expect(config.count_or("moe_layer_freq", 1)? == 1, "moe_layer_freq", "1")?;
    let first = config.count_from_0_or("first_k_dense_replace", first)?;
    for (number, block) in architecture.blocks.iter_mut().enumerate() {
        block.experts = number >= first;
    }
    let hidden = config.count_or("n_shared_experts", shared)?.saturating_mul(experts.hidden);
    let shared = Some(SharedExpert { hidden, gated: false });
    Ok(Architecture { experts: Some(Experts { shared, ..experts }), ..architecture })
}
