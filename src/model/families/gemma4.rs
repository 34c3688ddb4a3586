//! Gemma 4 (text): Gemma 3's norms, windows and two rotations, with heads of another width in blocks that see the whole row, keys and
//! values that later blocks share, embeddings that each block reads for itself, and, as an option, experts beside the MLP.

use serde_json::Value;

use super::{Config, Family, gemma2, llama};
use crate::error::Result;
use crate::model::transformer::architecture::{
    Activation, Architecture, BlockKind, Experts, Head, HeadNorm, Names, NormKind, PerLayer,
};
use crate::model::transformer::rope::{Rope, Scaling};

/// The `gemma4_text` family.
pub(super) struct Gemma4Text;

impl Family for Gemma4Text {
    fn model_type(&self) -> &'static str {
        "gemma4_text"
    }

    /// Sizes of experts, of which a dense model has none.
    fn ignored(&self) -> &'static [&'static str] {
        &["num_experts", "top_k_experts", "moe_intermediate_size"]
    }

    fn architecture(&self, config: &Config) -> Result<Architecture> {
        architecture(config)
    }
}

/// Which rotation a block has.
const GLOBAL: usize = 0;
const LOCAL: usize = 1;

fn architecture(config: &Config) -> Result<Architecture> {
    llama::expect_no_bias(config, &["mlp_bias"])?;
    let two_way = config.field("use_bidirectional_attention");
    // Of images alone.
    let holds = two_way.is_none_or(|kind| kind == "vision" || *kind == Value::Bool(false));
    config.expect(holds, "use_bidirectional_attention", "null or vision")?;
    let activation = config.activation_or("hidden_activation", Activation::GeluTanh)?;
    let mut architecture = Architecture {
        kv_heads: config.count_or("num_key_value_heads", 4)?,
        head_width: config.count_or("head_dim", 256)?,
        ..llama::shape(config, activation)?
    };
    kinds(config, &mut architecture)?;
    share(config, &mut architecture, 0)?;
    let wide = config.flag_or("use_double_wide_mlp", false)?;
    let double = 2 * architecture.hidden;
    for block in architecture.blocks.iter_mut().filter(|block| wide && block.shares.is_some()) {
        block.hidden = Some(double);
    }
    let experts = match config.flag_or("enable_moe_block", false)? {
        true => {
            architecture.blocks.iter_mut().for_each(|block| block.experts = true);
            let (count, chosen) = (config.count("num_experts")?, config.count("top_k_experts")?);
            let hidden = config.count("moe_intermediate_size")?;
            Some(Experts { beside: true, ..Experts::plain(count, chosen, hidden, true) })
        }
        false => None,
    };
    let context = config.count_or("max_position_embeddings", 131_072)?;
    let width_of = |rope: usize| -> Result<usize> {
        let same = |block: &&BlockKind| block.rope == rope;
        let mut widths =
            architecture.blocks.iter().filter(same).map(|block| block.heads.map(|[_, width]| width));
        let first = widths.next().flatten();
        let expected = "one width of heads for all blocks of a kind";
        config.expect(widths.all(|width| width == first), "per_layer_config", expected)?;
        Ok(first.unwrap_or(architecture.head_width))
    };
    let ropes = ropes(config, [width_of(GLOBAL)?, width_of(LOCAL)?], context)?;
    let per_layer = match config.count_from_0_or("hidden_size_per_layer_input", 256)? {
        0 => None,
        width => {
            let vocabulary = config.count_or("vocab_size_per_layer_input", 262_144)?;
            Some(PerLayer { width, vocabulary, first_beyond: false })
        }
    };
    if per_layer.is_none() {
        let _ = config.value("vocab_size_per_layer_input");
    }
    Ok(Architecture {
        context,
        norm: NormKind::Rms,
        head_norm: HeadNorm::Each,
        value_norm: true,
        block_scale: true,
        per_layer,
        attention_scale: 1.0,
        logit_cap: config.number_or_null("final_logit_softcapping", None)?,
        embed_scale: Some((architecture.width as f64).sqrt()),
        head: if config.flag_or("tie_word_embeddings", true)? { Head::Tied } else { Head::Own },
        ropes,
        experts,
        names: NAMES,
        ..architecture
    })
}

/// The names of experts beside those of Gemma 2.
const NAMES: Names = Names { router: "router.proj", expert: "experts.", ..gemma2::NAMES };

/// The windows, rotations and heads of the blocks. The last sees the whole row, whatever its kind is.
fn kinds(config: &Config, architecture: &mut Architecture) -> Result<()> {
    let count = architecture.blocks.len();
    let window = config.count_or("sliding_window", 512)?;
    let mut sliding = config.kinds(count, "sliding_attention", |block| (block + 1) % 6 != 0)?;
    sliding.iter_mut().skip(count - 1).for_each(|last| *last = false);
    let keys_as_values = config.flag_or("attention_k_eq_v", false)?;
    let own = [architecture.kv_heads, architecture.head_width];
    let global = [
        config.optional_count("num_global_key_value_heads")?.filter(|_| keys_as_values).unwrap_or(own[0]),
        config.count_or("global_head_dim", 512)?,
    ];
    let listed = config.field("per_layer_config").is_some();
    let overrides = config.object("per_layer_config")?;
    for (number, (block, sliding)) in architecture.blocks.iter_mut().zip(sliding).enumerate() {
        block.window = sliding.then_some(window);
        block.rope = if sliding { LOCAL } else { GLOBAL };
        block.keys_as_values = keys_as_values && !sliding;
        block.heads = match listed {
            true => {
                let of = overrides.object(&number.to_string())?;
                let heads = [of.count_or("num_key_value_heads", own[0])?, of.count_or("head_dim", own[1])?];
                for (key, _) in of.unread() {
                    of.expect(false, key, "head_dim and num_key_value_heads alone")?;
                }
                Some(heads)
            }
            false if !sliding => Some(global),
            false => None,
        };
    }
    for (key, _) in overrides.unread() {
        overrides.expect(false, key, &format!("blocks from 0 to {}", count - 1))?;
    }
    Ok(())
}

/// The last blocks use the keys and values of the last of their kind before them.
pub(super) fn share(config: &Config, architecture: &mut Architecture, default: usize) -> Result<()> {
    let count = architecture.blocks.len();
    let shared = config.count_from_0_or("num_kv_shared_layers", default)?;
    config.expect(shared < count, "num_kv_shared_layers", &format!("fewer than the {count} blocks"))?;
    let (own, later) = architecture.blocks.split_at_mut(count - shared);
    for block in later {
        let source = own.iter().rposition(|earlier| earlier.rope == block.rope);
        let same = source.is_some_and(|source| own[source].heads == block.heads);
        config.expect(same, "num_kv_shared_layers", "an earlier block of each kind, with the same heads")?;
        block.shares = source;
    }
    Ok(())
}

/// The rotations of blocks that see the whole row, and of those with a window.
fn ropes(config: &Config, [global, local]: [usize; 2], context: usize) -> Result<Vec<Rope>> {
    config.expect(config.field("rope_scaling").is_none(), "rope_scaling", "none beside rope_parameters")?;
    let parameters = config.object("rope_parameters")?;
    if parameters.is_empty() {
        let scaling = Scaling::Proportional { turning: (global as f64 * 0.25) as usize / 2, factor: 1.0 };
        return Ok(vec![
            Rope { base: 1e6, width: global, scaling },
            Rope { base: 1e4, width: local, scaling: Scaling::None },
        ]);
    }
    let named = ["full_attention", "sliding_attention"].map(|kind| parameters.field(kind).is_some());
    if named == [false; 2] {
        config.rope(global, 1e4, context)?;
    }
    config.expect(named == [true; 2], "rope_parameters", "those of full_attention and sliding_attention")?;
    let whole = parameters.object("full_attention")?;
    let kind = whole.text_or("rope_type", "default")?;
    let global = match kind {
        "proportional" => {
            let base = whole.positive("rope_theta")?;
            let share = whole.number_or("partial_rotary_factor", 1.0)?;
            let holds = (0.0..=1.0).contains(&share);
            whole.expect(holds, "partial_rotary_factor", "a share from 0 to 1")?;
            let factor = match whole.field("factor") {
                Some(_) => whole.positive("factor")?,
                None => 1.0,
            };
            for (key, _) in whole.unread() {
                whole.expect(false, key, "only parameters of its rope_type")?;
            }
            let turning = (global as f64 * share / 2.0) as usize;
            Rope { base, width: global, scaling: Scaling::Proportional { turning, factor } }
        }
        _ => config.rope_of("full_attention", global, 1e6, context)?,
    };
    Ok(vec![global, config.local_rope("sliding_attention", "rope_theta", local, 1e4, context)?])
}
