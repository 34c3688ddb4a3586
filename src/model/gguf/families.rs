//! The families that are read from GGUF files: llama.cpp's name of the architecture, the hub's name of the family, and what a
//! family's config has beside the fields of all.

/// A family.
pub(super) struct Family {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// `model_type` on the hub.
    pub model_type: &'static str,
    /// A count that tells the family from another of the same architecture, and the least that it then is.
    pub when: Option<(&'static str, usize)>,
    /// The fields of its config that not all have.
    pub fields: &'static [Field],
}

/// A field of a config: key in the file (without the architecture) or tensor, and name on the hub.
pub(super) enum Field {
    /// A whole number that must be there.
    Count(&'static str, &'static str),
    /// A whole number.
    Optional(&'static str, &'static str),
    /// A number.
    Number(&'static str, &'static str),
    /// A boolean, and what it is where the file doesn't say.
    Flag(&'static str, &'static str, bool),
    /// Name, and the tensor that is there if it is true.
    Has(&'static str, &'static str),
    /// Name, and the tensor that is there if it is false.
    Lacks(&'static str, &'static str),
    /// A key that the family reads in its own way; with a point at its end, all that begin so.
    Own(&'static str),
}
use Field::*;

const BIASED: Field = Has("attention_bias", "blk.0.attn_q.bias");
const MLP_BIASED: Field = Has("mlp_bias", "blk.0.ffn_up.bias");
const CHOSEN: Field = Count("expert_used_count", "num_experts_per_tok");
const LAYER_EPSILON: Field = Number("attention.layer_norm_epsilon", "layer_norm_eps");
const LOGIT_SCALE: Field = Number("logit_scale", "logit_scale");
const WINDOW: Field = Optional("attention.sliding_window", "sliding_window");

/// What Llama's config has.
const LLAMA: &[Field] = &[BIASED, MLP_BIASED];
const QWEN3_MOE: &[Field] = &[
    BIASED,
    MLP_BIASED,
    Count("expert_count", "num_experts"),
    CHOSEN,
    Count("expert_feed_forward_length", "moe_intermediate_size"),
    // llama.cpp's default.
    Flag("expert_weights_norm", "norm_topk_prob", true),
];

/// Latent attention and experts (DeepSeek).
const LATENT: &[Field] = &[
    Own("attention.key_length_mla"),
    Own("attention.value_length_mla"),
    Own("attention.q_lora_rank"),
    Own("attention.kv_lora_rank"),
    Own("rope.scaling.yarn_log_multiplier"),
    Own("expert_shared_count"),
    Own("leading_dense_block_count"),
    Own("expert_weights_scale"),
    Own("expert_group_count"),
    Own("expert_group_used_count"),
    Own("nextn_predict_layers"),
];

/// Gated delta nets (Qwen3.5).
const DELTA: &[Field] = &[Own("full_attention_interval"), Own("ssm."), Own("nextn_predict_layers")];

const fn plain(architecture: &'static str, model_type: &'static str, fields: &'static [Field]) -> Family {
    Family { architecture, model_type, when: None, fields }
}

/// Every family. Of those with one architecture, the first whose condition holds counts.
pub(super) const FAMILIES: [Family; 38] = [
    Family {
        architecture: "llama",
        model_type: "mixtral",
        when: Some(("expert_count", 1)),
        fields: &[Count("expert_count", "num_local_experts"), CHOSEN],
    },
    plain("llama", "llama", LLAMA),
    plain(
        "mistral3",
        "ministral3",
        &[Own("attention.temperature_scale"), Own("rope.scaling.yarn_log_multiplier")],
    ),
    plain("smollm3", "smollm3", LLAMA),
    plain(
        "granite",
        "granite",
        &[
            BIASED,
            MLP_BIASED,
            Number("attention.scale", "attention_multiplier"),
            Number("embedding_scale", "embedding_multiplier"),
            Number("residual_scale", "residual_multiplier"),
            Number("logit_scale", "logits_scaling"),
        ],
    ),
    plain(
        "granitemoe",
        "granitemoe",
        &[
            BIASED,
            Number("attention.scale", "attention_multiplier"),
            Number("embedding_scale", "embedding_multiplier"),
            Number("residual_scale", "residual_multiplier"),
            Number("logit_scale", "logits_scaling"),
            Count("expert_count", "num_local_experts"),
            CHOSEN,
        ],
    ),
    plain("qwen2", "qwen2", LLAMA),
    plain("qwen2vl", "qwen2", LLAMA),
    plain(
        "qwen2moe",
        "qwen2_moe",
        &[
            Has("qkv_bias", "blk.0.attn_q.bias"),
            Count("expert_count", "num_experts"),
            CHOSEN,
            Count("expert_feed_forward_length", "moe_intermediate_size"),
            Count("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
            Flag("expert_weights_norm", "norm_topk_prob", false),
        ],
    ),
    plain("qwen3", "qwen3", LLAMA),
    plain("qwen3vl", "qwen3", LLAMA),
    plain("qwen3moe", "qwen3_moe", QWEN3_MOE),
    plain("qwen3vlmoe", "qwen3_moe", QWEN3_MOE),
    plain("seed_oss", "seed_oss", &[BIASED, MLP_BIASED, Has("attention_out_bias", "blk.0.attn_output.bias")]),
    plain("gemma2", "gemma2", &[]),
    plain("gemma3", "gemma3_text", &[]),
    plain(
        "gemma3n",
        "gemma3n_text",
        &[
            Own("altup.active_idx"),
            Own("altup.num_inputs"),
            Own("embedding_length_per_layer_input"),
            Own("attention.shared_kv_layers"),
            Own("activation_sparsity_scale"),
        ],
    ),
    plain(
        "gemma4",
        "gemma4_text",
        &[
            Own("embedding_length_per_layer_input"),
            Own("attention.shared_kv_layers"),
            Own("attention.key_length_swa"),
            Own("attention.value_length_swa"),
            Own("rope.dimension_count_swa"),
        ],
    ),
    Family {
        architecture: "deepseek2",
        model_type: "deepseek_v3",
        when: Some(("expert_gating_func", 2)),
        fields: LATENT,
    },
    plain("deepseek2", "deepseek_v2", LATENT),
    plain(
        "llama4",
        "llama4_text",
        &[
            BIASED,
            Count("expert_count", "num_local_experts"),
            CHOSEN,
            Count("expert_feed_forward_length", "intermediate_size"),
            Count("feed_forward_length", "intermediate_size_mlp"),
            Optional("interleave_moe_layer_step", "interleave_moe_layer_step"),
        ],
    ),
    plain("qwen35", "qwen3_5_text", DELTA),
    plain(
        "qwen35moe",
        "qwen3_5_moe_text",
        &[
            Count("expert_count", "num_experts"),
            CHOSEN,
            Count("expert_feed_forward_length", "moe_intermediate_size"),
            Count("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
            Own("full_attention_interval"),
            Own("ssm."),
            Own("nextn_predict_layers"),
        ],
    ),
    plain(
        "qwen3next",
        "qwen3_next",
        &[
            Count("expert_count", "num_experts"),
            CHOSEN,
            Count("expert_feed_forward_length", "moe_intermediate_size"),
            Count("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
            // llama.cpp's default.
            Flag("expert_weights_norm", "norm_topk_prob", true),
            Own("full_attention_interval"),
            Own("ssm."),
            Own("nextn_predict_layers"),
        ],
    ),
    plain("phi3", "phi3", LLAMA),
    plain(
        "phimoe",
        "phimoe",
        &[BIASED, Count("expert_count", "num_local_experts"), CHOSEN, Has("lm_head_bias", "output.bias")],
    ),
    Family {
        architecture: "olmo2",
        model_type: "olmo3",
        when: Some(("attention.sliding_window", 1)),
        fields: &[BIASED, WINDOW],
    },
    plain("olmo2", "olmo2", LLAMA),
    plain(
        "olmoe",
        "olmoe",
        &[
            BIASED,
            Count("expert_count", "num_experts"),
            CHOSEN,
            Flag("expert_weights_norm", "norm_topk_prob", false),
            Number("attention.clamp_kqv", "clip_qkv"),
        ],
    ),
    plain("chatglm", "glm", &[BIASED]),
    plain("glm4", "glm4", &[BIASED]),
    plain(
        "glm4moe",
        "glm4_moe",
        &[
            BIASED,
            Has("use_qk_norm", "blk.0.attn_q_norm.weight"),
            Count("expert_count", "n_routed_experts"),
            CHOSEN,
            Count("expert_feed_forward_length", "moe_intermediate_size"),
            Optional("expert_shared_count", "n_shared_experts"),
            Optional("leading_dense_block_count", "first_k_dense_replace"),
            Number("expert_weights_scale", "routed_scaling_factor"),
            Flag("expert_weights_norm", "norm_topk_prob", true),
            Optional("expert_group_count", "n_group"),
            Optional("expert_group_used_count", "topk_group"),
            Own("nextn_predict_layers"),
        ],
    ),
    plain(
        "gpt-oss",
        "gpt_oss",
        &[
            BIASED,
            Count("expert_count", "num_local_experts"),
            CHOSEN,
            Count("expert_feed_forward_length", "intermediate_size"),
            WINDOW,
        ],
    ),
    plain(
        "command-r",
        "cohere",
        &[BIASED, LAYER_EPSILON, LOGIT_SCALE, Has("use_qk_norm", "blk.0.attn_q_norm.weight")],
    ),
    plain("cohere2", "cohere2", &[BIASED, LAYER_EPSILON, LOGIT_SCALE, WINDOW]),
    plain(
        "stablelm",
        "stablelm",
        &[
            LAYER_EPSILON,
            Has("use_qkv_bias", "blk.0.attn_q.bias"),
            Has("qk_layernorm", "blk.0.attn_q_norm.weight"),
            Lacks("use_parallel_residual", "blk.0.ffn_norm.weight"),
        ],
    ),
    plain("gpt2", "gpt2", &[]),
    plain("gptneox", "gpt_neox", &[]),
];

impl Family {
    /// Whether a key is one of the family's own fields.
    pub fn reads(&self, key: &str) -> bool {
        self.fields.iter().any(|field| match field {
            Count(own, _) | Optional(own, _) | Number(own, _) | Flag(own, ..) => *own == key,
            Own(own) => *own == key || own.ends_with('.') && key.starts_with(own),
            Has(..) | Lacks(..) => false,
        })
    }

    /// Whether the family reads the window of its blocks.
    pub fn has_windows(&self) -> bool {
        self.reads("attention.sliding_window")
            || ["gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "phi3", "phimoe", "olmo2"]
                .contains(&self.model_type)
    }

    /// `expert_gating_func` of llama.cpp: 1 for a softmax over the scores, 2 for a sigmoid of each.
    pub fn gating(&self) -> usize {
        if ["glm4_moe", "deepseek_v3", "llama4_text"].contains(&self.model_type) { 2 } else { 1 }
    }
}
