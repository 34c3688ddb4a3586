//! Tensor names and layouts of GGUF files: a tensor's place in the hub's checkpoint in, its place in the file out.
//!
//! Inverse of llama.cpp's conversion: <https://github.com/ggml-org/llama.cpp/tree/master/conversion>, `modify_tensors`.

use std::ops::Range;

use super::delta_names::{DeltaNames, delta_tensor};
use super::latent_names::latent_tensor;
use super::row_order::{interleaved, permuted, split_by_kind};
use crate::model::weights::{Change, Part, TensorRef, Translated};

/// The facts that names and row order depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Names {
    /// `general.architecture`.
    pub architecture: String,
    pub heads: usize,
    pub kv_heads: usize,
    pub experts: usize,
    /// The longest side of a tensor. A tensor that claims more has no layout to compute: it is refused for its shape.
    pub longest: usize,
    /// The blocks that predict further tokens, which no model here has.
    pub predicting: Range<usize>,
    /// Whether one tensor holds gate and up of all experts of a block.
    pub fused_experts: bool,
    /// Whether keys and values of latent attention are in one tensor, as in the hub's checkpoint.
    pub fused_latent: bool,
    /// Residual streams beside the first (Gemma 3n).
    pub streams: usize,
    /// The heads of delta nets, if there are any.
    pub delta: Option<DeltaNames>,
}

/// Tensors outside the blocks: name on the hub, name in GGUF.
const OUTSIDE: [(&str, &str); 13] = [
    ("model.embed_tokens", "token_embd"),
    ("transformer.wte", "token_embd"),
    ("gpt_neox.embed_in", "token_embd"),
    ("transformer.wpe", "position_embd"),
    ("model.norm", "output_norm"),
    ("transformer.ln_f", "output_norm"),
    ("gpt_neox.final_layer_norm", "output_norm"),
    ("lm_head", "output"),
    ("embed_out", "output"),
    ("model.lm_head", "output"),
    ("model.embed_tokens_per_layer", "per_layer_token_embd"),
    ("model.per_layer_model_projection", "per_layer_model_proj"),
    ("model.per_layer_projection_norm", "per_layer_proj_norm"),
];

/// Prefixes of a block's number on the hub.
const BLOCKS: [&str; 3] = ["model.layers.", "transformer.h.", "gpt_neox.layers."];

/// Tensors of a block: name on the hub, name in GGUF.
const INSIDE: [(&str, &str); 74] = [
    ("input_layernorm", "attn_norm"),
    ("ln_1", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("attn.c_attn", "attn_qkv"),
    ("attention.query_key_value", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("attn.c_proj", "attn_output"),
    ("attention.dense", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_layernorm", "attn_q_norm"),
    ("self_attn.k_layernorm", "attn_k_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
    ("post_self_attn_layernorm", "post_attention_norm"),
    ("post_mlp_layernorm", "post_ffw_norm"),
    ("ln_2", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.dense_h_to_4h", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.c_proj", "ffn_down"),
    ("mlp.dense_4h_to_h", "ffn_down"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.router", "ffn_gate_inp"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("block_sparse_moe.router.layer", "ffn_gate_inp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
    ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
    ("gate_proj", "ffn_gate_exps"),
    ("w1", "ffn_gate_exps"),
    ("up_proj", "ffn_up_exps"),
    ("w3", "ffn_up_exps"),
    ("down_proj", "ffn_down_exps"),
    ("w2", "ffn_down_exps"),
    ("self_attn.q_a_proj", "attn_q_a"),
    ("self_attn.q_a_layernorm", "attn_q_a_norm"),
    ("self_attn.q_b_proj", "attn_q_b"),
    ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
    ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
    ("self_attn.kv_b_proj", "attn_kv_b"),
    ("feed_forward.gate_proj", "ffn_gate"),
    ("feed_forward.up_proj", "ffn_up"),
    ("feed_forward.down_proj", "ffn_down"),
    ("feed_forward.router", "ffn_gate_inp"),
    ("feed_forward.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("feed_forward.shared_expert.up_proj", "ffn_up_shexp"),
    ("feed_forward.shared_expert.down_proj", "ffn_down_shexp"),
    ("router.proj", "ffn_gate_inp"),
    ("pre_feedforward_layernorm_2", "pre_ffw_norm_2"),
    ("post_feedforward_layernorm_1", "post_ffw_norm_1"),
    ("post_feedforward_layernorm_2", "post_ffw_norm_2"),
    ("per_layer_input_gate", "inp_gate"),
    ("per_layer_projection", "proj"),
    ("post_per_layer_input_norm", "post_norm"),
    ("altup.router_norm", "altup_router_norm"),
    ("altup.modality_router", "altup_router"),
    ("altup.prediction_coefs", "altup_predict_coef"),
    ("altup.correction_coefs", "altup_correct_coef"),
    ("laurel.linear_left", "laurel_l"),
    ("laurel.linear_right", "laurel_r"),
    ("laurel.post_laurel_norm", "laurel_post_norm"),
    ("linear_attn.norm", "ssm_norm"),
    ("linear_attn.out_proj", "ssm_out"),
];

/// Tensors of a block whose names on the hub have no ending: name there, name in GGUF.
const BARE: [(&str, &str); 6] = [
    ("self_attn.sinks", "attn_sinks.weight"),
    ("mlp.gate.e_score_correction_bias", "exp_probs_b.bias"),
    ("layer_scalar", "layer_output_scale.weight"),
    ("router.scale", "ffn_gate_inp.scale"),
    ("router.per_expert_scale", "ffn_down_exps.scale"),
    ("altup.correct_output_scale", "altup_correct_scale.weight"),
];

/// Architectures whose norm after attention is that of its output; elsewhere the name is that of the norm before the MLP.
const NORMS_AFTER: [&str; 11] = [
    "gemma2",
    "gemma3",
    "gemma3n",
    "gemma4",
    "olmo2",
    "seed_oss",
    "glm4moe",
    "gpt-oss",
    "qwen3next",
    "qwen35",
    "qwen35moe",
];

/// Architectures in Meta's layout of RoPE: the two elements of a rotated pair are adjacent.
const ADJACENT_PAIRS: [&str; 5] = ["llama", "mistral3", "smollm3", "granite", "granitemoe"];

/// Beginnings of the name of one expert.
const EXPERTS: [&str; 4] = ["mlp.experts.", "block_sparse_moe.experts.", "feed_forward.experts.", "experts."];

/// The number of the block that a tensor of a file belongs to.
pub(super) fn block(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

impl Names {
    /// The place of a tensor in the file. An unknown name stays, so that the error for the missing tensor has it.
    pub fn translate(&self, place: &TensorRef) -> Translated {
        if let Some(place) = self.with_own_layout(place) {
            let change = match place.name.ends_with(".ssm_a") {
                true => Change::LogOfNegative,
                false => Change::None,
            };
            return Translated { place, change };
        }
        let (tensor, kind) = place.name.rsplit_once('.').unwrap_or((&place.name, ""));
        if let Some((_, name)) = OUTSIDE.iter().find(|(hub, _)| *hub == tensor) {
            let place = TensorRef { name: format!("{name}.{kind}"), ..place.clone() };
            return Translated { change: self.change(tensor, &place), place };
        }
        let inside = BLOCKS.iter().find_map(|block| tensor.strip_prefix(block)).and_then(|rest| {
            let (number, leaf) = rest.split_once('.')?;
            let of_expert = EXPERTS.iter().find_map(|prefix| leaf.strip_prefix(prefix));
            let (expert, leaf) = match of_expert.and_then(|rest| rest.split_once('.')) {
                Some((expert, leaf)) => (Some(expert.parse().ok()?), leaf),
                None => (None, leaf),
            };
            Some((number, expert, leaf, self.leaf(leaf)?))
        });
        let Some((number, expert, leaf, name)) = inside else {
            return Translated { place: place.clone(), change: Change::None };
        };
        let change = self.change(leaf, place);
        let place = TensorRef { name: format!("blk.{number}.{name}.{kind}"), ..place.clone() };
        Translated { place: self.with_layout(place, leaf, expert), change }
    }

    fn leaf(&self, leaf: &str) -> Option<&'static str> {
        if leaf == "post_attention_layernorm" {
            // One name for two norms: that of the attention output, or the one before the MLP.
            let output = NORMS_AFTER.contains(&self.architecture.as_str());
            return Some(if output { "post_attention_norm" } else { "ffn_norm" });
        }
        INSIDE.iter().find(|(hub, _)| *hub == leaf).map(|(_, name)| *name)
    }

    /// Norm weights of Gemma 2 and 3 and of Qwen with delta nets: the hub's checkpoints store w − 1, GGUF files w.
    fn change(&self, leaf: &str, place: &TensorRef) -> Change {
        let less_one =
            matches!(self.architecture.as_str(), "gemma2" | "gemma3" | "qwen3next" | "qwen35" | "qwen35moe");
        match less_one && leaf.ends_with("norm") && leaf != "linear_attn.norm" && place.is_vector() {
            true => Change::Add(-1.0),
            false => Change::None,
        }
    }

    /// Applies the file's layout of rows and columns.
    fn with_layout(&self, place: TensorRef, leaf: &str, expert: Option<usize>) -> TensorRef {
        if let Some(expert) = expert {
            return self.of_expert(place, leaf, expert);
        }
        let rows = place.shape.first().copied().unwrap_or(0);
        if rows > self.longest {
            return place;
        }
        match (self.architecture.as_str(), leaf) {
            (architecture, "self_attn.q_proj") if ADJACENT_PAIRS.contains(&architecture) => {
                permuted(place, |row| interleaved(row, rows, self.heads))
            }
            (architecture, "self_attn.k_proj") if ADJACENT_PAIRS.contains(&architecture) => {
                permuted(place, |row| interleaved(row, rows, self.kv_heads))
            }
            // All queries, then all keys, then all values, instead of head by head.
            ("gptneox", "attention.query_key_value") => {
                permuted(place, |row| split_by_kind(row, rows, self.heads))
            }
            ("gpt2", _) => transposed(place),
            _ => place,
        }
    }

    /// The place of a tensor whose name or shape is not the one of the file with another beginning; none for the others.
    fn with_own_layout(&self, place: &TensorRef) -> Option<TensorRef> {
        if let Some(place) = self.of_stream(place) {
            return Some(place);
        }
        let (number, leaf) =
            BLOCKS.iter().find_map(|block| place.name.strip_prefix(block))?.split_once('.')?;
        let named = |name: &str, shape: Vec<usize>, part: Part| {
            Some(TensorRef { name: format!("blk.{number}.{name}"), shape, part })
        };
        let (shape, rows) = (place.shape.as_slice(), |rows| Part::Rows(vec![rows]));
        if let Some((_, name)) = BARE.iter().find(|(hub, _)| *hub == leaf) {
            return named(name, shape.to_vec(), place.part.clone());
        }
        let own = match (leaf.strip_prefix("linear_attn."), &self.delta) {
            (Some(leaf), Some(delta)) => delta_tensor(*delta, leaf, place, self.longest),
            _ if leaf == "self_attn.kv_b_proj.weight" && !self.fused_latent => latent_tensor(place),
            _ => None,
        };
        if let Some(TensorRef { name, shape, part }) = own {
            return named(&name, shape, part);
        }
        match (leaf, shape, &place.part) {
            // gpt-oss: gate and up in turn and transposed on the hub, two tensors of rows in the file.
            (leaf, &[.., all], &Part::Strided { matrix, first, step })
                if leaf.starts_with("mlp.experts.") =>
            {
                let name = match (leaf.contains("gate_up_proj"), first) {
                    (true, 0) => "ffn_gate_exps",
                    (true, _) => "ffn_up_exps",
                    (false, _) => "ffn_down_exps",
                };
                let outputs = all.saturating_sub(first).div_ceil(step.max(1));
                match *shape {
                    [count, inputs, _] => named(
                        &format!("{name}.weight"),
                        vec![count, outputs, inputs],
                        rows(matrix * outputs..(matrix + 1) * outputs),
                    ),
                    [count, _] => named(
                        &format!("{name}.bias"),
                        vec![count, outputs],
                        Part::Strided { matrix, first: 0, step: 1 },
                    ),
                    _ => None,
                }
            }
            // Granite: the gate's rows of each expert, then those of up, on the hub.
            ("block_sparse_moe.input_linear.weight", &[count, both, inputs], Part::Rows(ranges)) => {
                let (half, range) = (both / 2, ranges.first()?);
                let (expert, within) = (range.start / both.max(1), range.start % both.max(1));
                let name = if within < half { "ffn_gate_exps.weight" } else { "ffn_up_exps.weight" };
                let begin = expert * half + within % half.max(1);
                named(name, vec![count, half, inputs], rows(begin..begin + range.len()))
            }
            ("block_sparse_moe.output_linear.weight", ..) => {
                named("ffn_down_exps.weight", shape.to_vec(), place.part.clone())
            }
            // StableLM: a tensor for the norm of each head on the hub.
            (leaf, &[width], Part::Whole) if leaf.contains("_layernorm.norms.") => {
                let (which, rest) = leaf.split_once("_layernorm.norms.")?;
                let head = rest.split('.').next()?.parse().ok()?;
                let (name, heads) = match which {
                    "self_attn.q" => ("attn_q_norm.weight", self.heads),
                    _ => ("attn_k_norm.weight", self.kv_heads),
                };
                named(name, vec![heads, width], Part::Strided { matrix: head, first: 0, step: 1 })
            }
            _ => None,
        }
    }

    /// The matrices between residual streams are stacked in one tensor.
    fn of_stream(&self, place: &TensorRef) -> Option<TensorRef> {
        let (name, number) =
            place.name.strip_prefix("model.altup_")?.strip_suffix(".weight")?.rsplit_once('.')?;
        let name = match name {
            "projections" => "altup_proj.weight",
            "unembed_projections" => "altup_unembd_proj.weight",
            _ => return None,
        };
        let (number, &[outputs, inputs]) = (number.parse::<usize>().ok()?, place.shape.as_slice()) else {
            return None;
        };
        let rows = number * outputs..(number + 1) * outputs;
        Some(TensorRef::rows(name, &[self.streams, outputs, inputs], std::iter::once(rows)))
    }

    /// The matrices of all experts are stacked in one tensor.
    fn of_expert(&self, place: TensorRef, leaf: &str, expert: usize) -> TensorRef {
        let [outputs, inputs] = place.shape[..] else { return place };
        if self.fused_experts && place.part == Part::Whole && leaf != "down_proj" {
            let begin = expert.saturating_mul(2 * outputs) + if leaf == "up_proj" { outputs } else { 0 };
            let name = place
                .name
                .replace("ffn_gate_exps", "ffn_gate_up_exps")
                .replace("ffn_up_exps", "ffn_gate_up_exps");
            let rows = std::iter::once(begin..begin.saturating_add(outputs));
            return TensorRef::rows(name, &[self.experts, 2 * outputs, inputs], rows);
        }
        let begin = expert.saturating_mul(outputs);
        let ranges = match &place.part {
            Part::Rows(rows) => rows.iter().map(|rows| begin + rows.start..begin + rows.end).collect(),
            _ => std::iter::once(begin..begin + outputs).collect(),
        };
        TensorRef { shape: vec![self.experts, outputs, inputs], part: Part::Rows(ranges), ..place }
    }
}

/// A matrix stored `[in, out]` on the hub is `[out, in]` in the file.
fn transposed(place: TensorRef) -> TensorRef {
    match (&place.shape[..], &place.part) {
        (&[inputs, outputs], Part::Columns(columns)) => {
            let rows = Part::Rows(vec![columns.clone()]);
            TensorRef { shape: vec![outputs, inputs], part: rows, ..place }
        }
        _ => place,
    }
}

#[cfg(test)]
mod tests {
    use std::iter::once;

    use super::*;

    fn names(architecture: &str) -> Names {
        Names {
            architecture: architecture.into(),
            heads: 2,
            kv_heads: 1,
            experts: 3,
            longest: 99,
            predicting: 7..7,
            fused_experts: false,
            fused_latent: false,
            streams: 0,
            delta: None,
        }
    }

    fn translated(architecture: &str, place: TensorRef) -> (String, Vec<usize>, Part, Change) {
        let Translated { place, change } = names(architecture).translate(&place);
        (place.name, place.shape, place.part, change)
    }

    #[test]
    fn names_are_llama_cpps() {
        let whole = |architecture: &str, name: &str| translated(architecture, TensorRef::whole(name, &[4])).0;
        for (architecture, hub, name) in [
            ("llama", "model.embed_tokens.weight", "token_embd.weight"),
            ("llama", "lm_head.weight", "output.weight"),
            ("qwen3", "model.layers.7.self_attn.q_norm.weight", "blk.7.attn_q_norm.weight"),
            ("qwen2", "model.layers.0.self_attn.v_proj.bias", "blk.0.attn_v.bias"),
            ("llama", "model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("gemma2", "model.layers.0.post_attention_layernorm.weight", "blk.0.post_attention_norm.weight"),
            ("gemma3", "model.layers.0.pre_feedforward_layernorm.weight", "blk.0.ffn_norm.weight"),
            ("olmo2", "model.layers.0.post_feedforward_layernorm.weight", "blk.0.post_ffw_norm.weight"),
            ("phi3", "model.layers.0.mlp.gate_up_proj.weight", "blk.0.ffn_up.weight"),
            ("gpt2", "transformer.h.11.mlp.c_proj.bias", "blk.11.ffn_down.bias"),
            ("gptneox", "gpt_neox.layers.3.mlp.dense_h_to_4h.weight", "blk.3.ffn_up.weight"),
            ("qwen3moe", "model.layers.3.mlp.gate.weight", "blk.3.ffn_gate_inp.weight"),
            ("llama", "model.layers.3.nose.weight", "model.layers.3.nose.weight"),
        ] {
            assert_eq!(whole(architecture, hub), name);
        }
    }

    #[test]
    fn what_the_conversion_moved_is_found_where_it_is() {
        // Heads of four rows: 0 1 | 2 3 is 0 2 1 3 in the file, that is, file row 2 holds row 1.
        let query = TensorRef::whole("model.layers.0.self_attn.q_proj.weight", &[8, 4]);
        let ranges = vec![0..1, 2..3, 1..2, 3..5, 6..7, 5..6, 7..8];
        assert_eq!(translated("llama", query.clone()).2, Part::Rows(ranges));
        assert_eq!(translated("qwen3", query).2, Part::Whole);
        // Two heads of width 1: q0 k0 v0 q1 k1 v1 is q0 q1 k0 k1 v0 v1 in the file.
        let name = "gpt_neox.layers.0.attention.query_key_value.bias";
        let keys = TensorRef::rows(name, &[6], [1..2, 4..5]);
        assert_eq!(translated("gptneox", keys).2, Part::Rows(once(2..4).collect()));
        let columns = TensorRef::columns("transformer.h.0.attn.c_attn.weight", [4, 12], 4..8);
        let expected = (vec![12, 4], Part::Rows(once(4..8).collect()));
        let found = translated("gpt2", columns);
        assert_eq!((found.1, found.2), expected);
        let expert = TensorRef::whole("model.layers.0.mlp.experts.2.up_proj.weight", &[5, 4]);
        let found = translated("qwen3moe", expert);
        assert_eq!(
            found,
            (
                "blk.0.ffn_up_exps.weight".into(),
                vec![3, 5, 4],
                Part::Rows(once(10..15).collect()),
                Change::None
            )
        );
        let norm = |name: &str| translated("gemma2", TensorRef::whole(name, &[4])).3;
        let norms = [norm("model.norm.weight"), norm("model.layers.0.input_layernorm.weight")];
        assert_eq!(norms, [Change::Add(-1.0); 2]);
    }
}
