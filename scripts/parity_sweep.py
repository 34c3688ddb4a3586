#!/usr/bin/env python3
"""Parity in shapes that no fixture has: random configurations of each family, made by transformers with random weights, against `pearl`.

    cargo build --release
    python scripts/parity_sweep.py [--shapes 3] [--seed 0] [--pearl target/release/pearl] [--keep FOLDER] [FAMILY ...]

A shape draws what a family's config can say: heads that are odd in number or narrower than the width over their number, one key head, tied
or not, biases, activations, scalings of the rotation, windows shorter than the prompt, patterns of blocks, routers. Every hook site at every
token of two prompts is compared, and a greedy continuation with the cache. A line a shape: the worst site and its error, or why pearl refuses
the config (one line, exit code 2). What transformers itself cannot make is drawn anew. Exit code 1 if a shape is off by more than 1e-4.
"""
import argparse, importlib.util, json, pathlib, random, string, subprocess, sys, tempfile, warnings, torch, transformers
from safetensors.torch import load_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
a = argparse.ArgumentParser()
a.add_argument("families", nargs="*"); a.add_argument("--shapes", type=int, default=3); a.add_argument("--seed", type=int, default=0)
a.add_argument("--pearl", default=ROOT / "target/release/pearl"); a.add_argument("--keep", type=pathlib.Path)
a = a.parse_args()
spec = importlib.util.spec_from_file_location("make", ROOT / "tests/fixtures/families/make.py")
make = importlib.util.module_from_spec(spec); spec.loader.exec_module(make)
torch.set_grad_enabled(False); torch.set_num_threads(1)
warnings.filterwarnings("ignore"); transformers.logging.set_verbosity_error(); transformers.logging.disable_progress_bar()
make.HERE, make.BF16, make.GREEDY = a.keep or pathlib.Path(tempfile.mkdtemp(prefix="sweep-")), [], 24
make.HERE.mkdir(parents=True, exist_ok=True)

# A token is a letter, so that ids can be written as text.
LETTERS = string.ascii_letters + string.digits + "-_"
TOKENIZER = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
             "post_processor": None, "decoder": {"type": "Fuse"}, "model": {"type": "BPE", "dropout": None, "unk_token": None,
             "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "vocab": {letter: i for i, letter in enumerate(LETTERS)}, "merges": []}}

def kinds(r, blocks, names): return [r.choice(names) for _ in range(blocks)]
def flag(r): return r.random() < 0.5

def scaling(r, pairs, types=("default", "default", "linear", "dynamic", "yarn", "yarn", "llama3", "longrope")):
    """Rotary parameters of some kind."""
    kind, base = r.choice(types), dict(rope_theta=r.choice([1e4, 5e5, 1e6, 123.0]))
    original = r.choice([8, 16])
    more = {"default": {}, "linear": dict(factor=r.choice([2.0, 3.5])), "dynamic": dict(factor=r.choice([2.0, 4.0])),
            "llama3": dict(factor=8.0, low_freq_factor=r.choice([1.0, 0.5]), high_freq_factor=4.0, original_max_position_embeddings=original),
            "yarn": dict(factor=r.choice([2.0, 4.0]), original_max_position_embeddings=original)}
    if kind == "yarn":
        for name, values in {"beta_fast": [16.0, 4.0], "beta_slow": [0.5, 2.0], "attention_factor": [1.3], "truncate": [False]}.items():
            if r.random() < 0.3: more["yarn"][name] = r.choice(values)
        if flag(r): more["yarn"] |= dict(mscale=r.choice([1.0, 0.7]), mscale_all_dim=r.choice([0.8, 1.0]))
    if kind == "longrope":
        factors = lambda: [round(1 + r.random() * 4, 2) for _ in range(pairs)]
        more["longrope"] = dict(short_factor=factors(), long_factor=factors(), original_max_position_embeddings=original,
                                **({"factor": 4.0} if flag(r) else {}), **({"attention_factor": 1.2} if r.random() < 0.3 else {}))
    return dict(rope_type=kind, **base, **more[kind])

def shape(r, own_heads=True, rotated=1.0, types=None, blocks=(2, 3, 4)):
    """What all decoders have. `own_heads`: whether a head's width is free; `rotated`: share of it that is rotated."""
    heads = r.choice([1, 2, 3, 4, 5, 6])
    width = r.choice([4, 6, 8, 10, 12] if rotated == 1.0 else [8, 16, 24])
    c = dict(vocab_size=64, num_hidden_layers=r.choice(blocks), num_attention_heads=heads, intermediate_size=r.choice([10, 20, 28]),
             num_key_value_heads=r.choice([k for k in range(1, heads + 1) if heads % k == 0]), bos_token_id=0, eos_token_id=None, pad_token_id=0,
             max_position_embeddings=256, rms_norm_eps=r.choice([1e-6, 1e-5, 1e-3]), tie_word_embeddings=flag(r),
             hidden_act=r.choice(["silu", "silu", "gelu", "gelu_pytorch_tanh", "relu"]), hidden_size=heads * width)
    if own_heads: c |= dict(head_dim=width, hidden_size=r.choice([12, 16, 18, 20, 30]))
    pairs = int(width * rotated) // 2
    c["rope_parameters"] = scaling(r, pairs, types) if types else scaling(r, pairs)
    # Room for the prompt and the answer.
    if c["rope_parameters"]["rope_type"] == "dynamic": c["max_position_embeddings"] = 16 if c["rope_parameters"]["factor"] > 2 else 24
    if rotated != 1.0: c["rope_parameters"]["partial_rotary_factor"] = rotated
    return c

PLAIN = ("default",)
def windows(r, c, name="sliding_attention"):
    return dict(sliding_window=r.choice([2, 3, 5, 8]), layer_types=kinds(r, c["num_hidden_layers"], [name, "full_attention"]))
def nested(r, c, **more):
    pairs = c["head_dim"] // 2
    types = ("default", "linear", "yarn", "llama3")
    return dict(rope_parameters={"full_attention": scaling(r, pairs, types), "sliding_attention": scaling(r, pairs, PLAIN)})
def moe(r, count="num_experts"):
    n = r.choice([3, 4, 5, 7])
    return {count: n, "num_experts_per_tok": r.choice([1, 2, 3]), "moe_intermediate_size": r.choice([6, 10])}
def grouped(r):
    groups = r.choice([1, 2, 4]); chosen = r.randint(1, groups); size = r.choice([2, 3])
    return dict(n_routed_experts=groups * size, n_group=groups, topk_group=chosen, num_experts_per_tok=r.randint(1, min(3, chosen * size)),
                moe_intermediate_size=r.choice([6, 10]), n_shared_experts=r.choice([1, 2]), routed_scaling_factor=r.choice([1.0, 2.5, 0.7]),
                norm_topk_prob=flag(r), first_k_dense_replace=r.choice([0, 1, 2]))
def delta(r):
    keys = r.choice([1, 2, 3])
    return dict(linear_num_key_heads=keys, linear_num_value_heads=keys * r.choice([1, 2, 3]), linear_key_head_dim=r.choice([4, 6, 10]),
                linear_value_head_dim=r.choice([4, 6, 8]), linear_conv_kernel_dim=r.choice([2, 3, 4]))
def factors(r):
    return dict(embedding_multiplier=r.choice([1.0, 6.0]), attention_multiplier=r.choice([0.1, 0.3]), residual_multiplier=r.choice([0.4, 1.5]),
                logits_scaling=r.choice([1.0, 3.0, 0.5]))
def gemma(r, **more):
    c = shape(r, types=PLAIN); c.pop("hidden_act"); c.pop("rope_parameters")
    return {**c, **windows(r, c), "hidden_activation": r.choice(["gelu_pytorch_tanh", "silu", "gelu"]), **more}

def llama(r): return {**shape(r), "attention_bias": flag(r), "mlp_bias": flag(r)}
def qwen2(r):
    c = shape(r, own_heads=False)
    return {**c, **({"use_sliding_window": True, "sliding_window": 4, "max_window_layers": r.choice([0, 1, 2])} if flag(r) else {})}
def qwen3(r):
    c = shape(r)
    return {**c, "attention_bias": flag(r), **({"use_sliding_window": True, **windows(r, c)} if flag(r) else {})}
def qwen3_moe(r):
    c = {**shape(r), **moe(r), "attention_bias": flag(r), "norm_topk_prob": flag(r)}
    return {**c, **r.choice([{}, {"mlp_only_layers": [1]}, {"decoder_sparse_step": 2}, {"use_sliding_window": True, "sliding_window": 3}])}
def qwen2_moe(r):
    c = {**shape(r, own_heads=False), **moe(r), "norm_topk_prob": flag(r), "qkv_bias": flag(r), "shared_expert_intermediate_size": r.choice([6, 14])}
    return {**c, **r.choice([{}, {"mlp_only_layers": [0]}, {"decoder_sparse_step": 2}, {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2}])}
def mixtral(r):
    c = moe(r, "num_local_experts"); c.pop("moe_intermediate_size")
    return {**shape(r), **c, "sliding_window": r.choice([None, 3, 6])}
def phimoe(r):
    c = shape(r, own_heads=False, types=("default", "longrope"))
    rope = c["rope_parameters"]
    if rope["rope_type"] == "longrope":
        rope.pop("factor", 0); rope.pop("attention_factor", 0); rope |= dict(short_mscale=1.1, long_mscale=1.25)
        c["original_max_position_embeddings"] = rope["original_max_position_embeddings"]
    return {**c, "num_local_experts": r.choice([3, 5]), "attention_bias": flag(r), "lm_head_bias": flag(r), "sliding_window": r.choice([None, 4]), "router_jitter_noise": r.choice([0.01, 0.3])}
def phi3(r):
    partial = r.choice([1.0, 0.75, 0.5])
    c = shape(r, own_heads=False, rotated=partial, types=("default", "longrope"))
    if c["rope_parameters"]["rope_type"] == "longrope":
        c["original_max_position_embeddings"] = c["rope_parameters"].pop("original_max_position_embeddings")
        c["rope_parameters"].pop("factor", 0)
    return {**c, "sliding_window": r.choice([None, 4])}
def gemma3(r):
    c = gemma(r, query_pre_attn_scalar=r.choice([6, 11]), final_logit_softcapping=r.choice([None, 4.0]), attention_bias=flag(r))
    return {**c, **nested(r, c)}
def gemma2(r): return gemma(r, query_pre_attn_scalar=r.choice([6, 11]), attn_logit_softcapping=r.choice([None, 3.0]), final_logit_softcapping=r.choice([None, 4.0]), attention_bias=flag(r))
def gemma3n(r):
    c = gemma(r, attention_bias=flag(r), hidden_size_per_layer_input=r.choice([3, 6]), vocab_size_per_layer_input=r.choice([64, 50]), laurel_rank=r.choice([1, 4]),
              altup_num_inputs=r.choice([2, 3, 5]), altup_correct_scale=flag(r), final_logit_softcapping=r.choice([None, 4.0]))
    n = c["num_hidden_layers"] = r.choice([4, 5, 6])
    c["layer_types"] = ["sliding_attention", "full_attention"] + kinds(r, n - 2, ["sliding_attention", "full_attention"])
    c |= nested(r, c)
    return {**c, "num_kv_shared_layers": r.randint(0, n - 2), "intermediate_size": [r.choice([10, 16])] * n if flag(r) else kinds(r, n, [12, 20]), "activation_sparsity_pattern": kinds(r, n, [0.0, 0.5, 0.9])}
def gemma4(r):
    c = gemma(r, attention_bias=flag(r), hidden_size_per_layer_input=r.choice([0, 3, 6]), vocab_size_per_layer_input=64, global_head_dim=r.choice([8, 16, 20]),
              attention_k_eq_v=flag(r), use_double_wide_mlp=flag(r), final_logit_softcapping=r.choice([None, 4.0]))
    n = c["num_hidden_layers"] = r.choice([4, 5, 6])
    c["layer_types"] = ["sliding_attention", "full_attention"] + kinds(r, n - 3, ["sliding_attention", "full_attention"]) + ["full_attention"]
    c["num_kv_shared_layers"] = r.randint(0, n - 2)
    if flag(r): c["num_global_key_value_heads"] = r.choice([k for k in range(1, c["num_attention_heads"] + 1) if c["num_attention_heads"] % k == 0])
    if flag(r): c |= dict(rope_parameters={"full_attention": dict(rope_type="proportional", rope_theta=1e5, partial_rotary_factor=r.choice([0.25, 0.5, 1.0])), "sliding_attention": dict(rope_type="default", rope_theta=1e4)})
    if flag(r): c |= dict(enable_moe_block=True, num_experts=r.choice([3, 5]), top_k_experts=r.choice([1, 2]), moe_intermediate_size=r.choice([6, 10]))
    return c
def olmo3(r):
    c = shape(r, own_heads=False, types=PLAIN); c |= {"head_dim": c["hidden_size"] // c["num_attention_heads"], **windows(r, c), "attention_bias": flag(r)}
    c |= nested(r, c); c.pop("head_dim")
    return c
def granite(r): return {**shape(r, own_heads=False), **factors(r), "attention_bias": flag(r), "mlp_bias": flag(r)}
def granitemoe(r): return {**shape(r, own_heads=False), **factors(r), "attention_bias": flag(r), "num_local_experts": r.choice([3, 5]), "num_experts_per_tok": r.choice([1, 2])}
def granitemoehybrid(r):
    c = shape(r, own_heads=False, types=PLAIN)
    return {**c, **factors(r), "attention_bias": flag(r), "num_local_experts": 0, "shared_intermediate_size": 14, "layer_types": ["attention"] * c["num_hidden_layers"],
            "position_embedding_type": r.choice(["rope", None]), "mamba_n_heads": 2, "mamba_d_head": c["hidden_size"], "mamba_expand": 2}
def smollm3(r):
    c = {**shape(r, own_heads=False), "attention_bias": flag(r), "mlp_bias": flag(r)}
    c |= r.choice([dict(no_rope_layers=kinds(r, c["num_hidden_layers"], [0, 1])), dict(no_rope_layer_interval=r.choice([2, 3]))])
    return {**c, **({"use_sliding_window": True, **windows(r, c)} if flag(r) else {})}
def ministral3(r):
    c = shape(r, types=("default", "yarn"))
    c["rope_parameters"].setdefault("original_max_position_embeddings", r.choice([4, 8])); c["rope_parameters"]["llama_4_scaling_beta"] = r.choice([0.1, 0.4])
    return {**c, "sliding_window": r.choice([None, 4])}
def glm(r): return {**shape(r, rotated=r.choice([0.25, 0.5, 0.75]), types=PLAIN), "attention_bias": flag(r)}
def glm4_moe(r): return {**shape(r, rotated=r.choice([0.25, 0.5]), types=("default", "linear", "yarn", "llama3")), **grouped(r), "attention_bias": flag(r), "use_qk_norm": flag(r)}
def cohere(r): return {**shape(r, own_heads=False), "layer_norm_eps": 1e-4, "logit_scale": r.choice([0.25, 2.0]), "use_qk_norm": flag(r), "attention_bias": flag(r)}
def cohere2(r):
    c = shape(r)
    return {**c, **windows(r, c), "layer_norm_eps": 1e-4, "logit_scale": r.choice([0.25, 2.0]), "attention_bias": flag(r)}
def stablelm(r):
    return {**shape(r, own_heads=False, rotated=r.choice([0.25, 0.5]), types=("default", "linear", "llama3")), "layer_norm_eps": 1e-4, "use_qkv_bias": flag(r), "qk_layernorm": flag(r), "use_parallel_residual": flag(r)}
def latent(r, types):
    plain, rotated = r.choice([2, 4, 6]), r.choice([2, 4, 8])
    c = shape(r, own_heads=False, types=PLAIN)
    c |= dict(num_key_value_heads=c["num_attention_heads"], hidden_size=r.choice([12, 20, 30]), q_lora_rank=r.choice([None, 6, 10]), kv_lora_rank=r.choice([5, 8]), qk_nope_head_dim=plain,
              qk_rope_head_dim=rotated, v_head_dim=r.choice([w for w in (2, 4, 6) if w <= plain + rotated]), attention_bias=flag(r), **grouped(r), rope_parameters=scaling(r, rotated // 2, types))
    return c
def deepseek_v2(r):
    c = latent(r, ("default", "yarn", "yarn", "linear"))
    return {**c, "norm_topk_prob": False, "topk_method": r.choice(["greedy", "group_limited_greedy"])}
def deepseek_v3(r): return {**latent(r, ("default", "yarn", "yarn", "linear", "llama3")), "rope_interleave": flag(r)}
def gpt_oss(r):
    c = shape(r, types=("default", "yarn", "yarn", "linear")); m = moe(r, "num_local_experts"); m.pop("moe_intermediate_size")
    c["hidden_act"] = "silu"
    return {**c, **m, **windows(r, c), "attention_bias": flag(r), **({"swiglu_limit": 0.6, "swiglu_alpha": 1.1} if flag(r) else {})}
def llama4(r):
    c = shape(r, types=("default", "llama3", "linear")); n = c["num_hidden_layers"]
    c |= dict(intermediate_size_mlp=r.choice([14, 22]), num_local_experts=r.choice([3, 5]), num_experts_per_tok=r.choice([1, 2]), no_rope_layers=kinds(r, n, [0, 1]), attention_chunk_size=r.choice([3, 6]),
              use_qk_norm=flag(r), attn_temperature_tuning=flag(r), floor_scale=r.choice([2, 5]), attn_scale=r.choice([0.1, 0.5]), attention_bias=flag(r))
    return {**c, **r.choice([dict(interleave_moe_layer_step=2), dict(interleave_moe_layer_step=1), dict(moe_layers=[0])])}
def qwen3_next(r, experts=True):
    c = shape(r, rotated=r.choice([0.25, 0.5]), types=("default", "default", "linear", "yarn"))
    c |= dict(**delta(r), attention_bias=flag(r), layer_types=kinds(r, c["num_hidden_layers"] - 1, ["linear_attention", "full_attention"]) + ["full_attention"])
    if experts: c |= {**moe(r), "norm_topk_prob": flag(r), "shared_expert_intermediate_size": r.choice([6, 14]), **r.choice([{}, {"mlp_only_layers": [1]}, {"decoder_sparse_step": 2}])}
    return c
def mrope(r, c, interleaved):
    half = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"]) // 2
    return {**c, "rope_parameters": dict(rope_type="default", rope_theta=r.choice([1e4, 1e6]), mrope_section=[half - 1, 1, 0], **({"mrope_interleaved": True} if interleaved else {}))}
def qwen3_5(r):
    c = qwen3_next(r, experts=False)
    partial = c["rope_parameters"]["partial_rotary_factor"]
    return {**c, "rope_parameters": dict(rope_type="default", rope_theta=1e5, partial_rotary_factor=partial, mrope_section=[1, 0, 0], mrope_interleaved=True)}
def qwen3_5_moe(r):
    c = {**qwen3_5(r), **moe(r), "shared_expert_intermediate_size": r.choice([6, 14])}
    return c
def gpt2(r):
    heads = r.choice([1, 3, 5])
    return dict(vocab_size=64, n_embd=heads * r.choice([3, 4, 7]), n_head=heads, n_layer=r.choice([2, 3]), n_positions=128, n_inner=r.choice([None, 14]), layer_norm_epsilon=r.choice([1e-5, 1e-3]),
                activation_function=r.choice(["gelu_new", "gelu", "relu", "silu"]), tie_word_embeddings=flag(r), bos_token_id=0, eos_token_id=None)
def gpt_neox(r):
    c = shape(r, own_heads=False, rotated=r.choice([0.25, 0.5, 0.75]), types=("default", "linear")); c.pop("num_key_value_heads"); c.pop("rms_norm_eps")
    return {**c, "layer_norm_eps": 1e-4, "use_parallel_residual": flag(r), "attention_bias": flag(r), "hidden_act": r.choice(["gelu", "gelu_new", "relu"])}
def bert(r):
    heads = r.choice([1, 3, 5])
    return dict(vocab_size=64, hidden_size=heads * r.choice([3, 4, 6]), num_attention_heads=heads, num_hidden_layers=r.choice([2, 3]), intermediate_size=r.choice([10, 22]), max_position_embeddings=64,
                hidden_act=r.choice(["gelu", "relu", "gelu_new"]), layer_norm_eps=r.choice([1e-12, 1e-4]), type_vocab_size=r.choice([1, 2, 3]), pad_token_id=0)
def inside(family, model_type):
    def wrapped(r):
        c = {**FAMILIES[family](r), "model_type": model_type}
        return c
    return wrapped

FAMILIES = {
    "qwen3_next": qwen3_next, "qwen3_5_text": qwen3_5, "qwen3_5_moe_text": qwen3_5_moe, "gemma3n_text": gemma3n, "gemma4_text": gemma4, "llama4_text": llama4,
    "deepseek_v2": deepseek_v2, "deepseek_v3": deepseek_v3, "gpt_oss": gpt_oss, "glm4_moe": glm4_moe, "olmo3": olmo3, "smollm3": smollm3, "cohere2": cohere2,
    "granite": granite, "granitemoe": granitemoe, "granitemoehybrid": granitemoehybrid, "ministral3": ministral3, "phimoe": phimoe,
    "seed_oss": lambda r: {**shape(r), "attention_bias": flag(r), "attention_out_bias": flag(r), "mlp_bias": flag(r)},
    "llama": llama, "mistral": lambda r: {**shape(r), "sliding_window": r.choice([None, 3, 6])},
    "ministral": lambda r: (lambda c: {**c, **windows(r, c)})(shape(r)), "qwen2": qwen2, "qwen3": qwen3, "qwen3_moe": qwen3_moe, "qwen2_moe": qwen2_moe, "mixtral": mixtral,
    "phi3": phi3, "gemma2": gemma2, "gemma3_text": gemma3, "olmo2": lambda r: {**shape(r, own_heads=False), "attention_bias": flag(r)},
    "olmoe": lambda r: {**shape(r, own_heads=False), "num_experts": r.choice([3, 5]), "num_experts_per_tok": r.choice([1, 2]), "norm_topk_prob": flag(r), "clip_qkv": r.choice([None, 0.4]), "attention_bias": flag(r)},
    "glm": glm, "glm4": glm, "cohere": cohere, "stablelm": stablelm, "gpt2": gpt2, "gpt_neox": gpt_neox, "bert": bert,
    "qwen2_vl": lambda r: mrope(r, shape(r, own_heads=False, types=PLAIN), False), "qwen2_5_vl": lambda r: mrope(r, shape(r, own_heads=False, types=PLAIN), False),
    "qwen3_vl": lambda r: {**mrope(r, shape(r, types=PLAIN), True), "attention_bias": flag(r)}, "qwen3_5": qwen3_5, "qwen3_5_moe": qwen3_5_moe,
}
make.TOWERS |= {
    "gemma4": dict(vision_config=None, audio_config=None),
    "cohere2_vision": dict(vision_config=dict(model_type="siglip_vision_model", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=28, patch_size=14)),
}
FAMILIES |= {"gemma3": inside("gemma3_text", "gemma3_text"), "llama4": inside("llama4_text", "llama4_text"), "gemma4": inside("gemma4_text", "gemma4_text"),
             "mistral3": inside("mistral", "mistral"), "llava": inside("llama", "llama"), "cohere2_vision": inside("cohere2", "cohere2")}

def drawn(family, number):
    """A shape that transformers can make, in a folder."""
    name, error = f"{family}-{number}", None
    for attempt in range(8):
        c = FAMILIES[family](random.Random(f"{a.seed} {name} {attempt}"))
        make.CHECKPOINTS[name] = (family, c)
        try: make.make(name)
        except Exception as failed: error = f"{type(failed).__name__}: {failed}".split("\n")[0]; continue
        (make.HERE / name / "tokenizer.json").write_text(json.dumps(TOKENIZER))
        (make.HERE / name / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": None}))
        return name, c
    return None, error

def pearl(*words): return subprocess.run([a.pearl, *map(str, words)], capture_output=True, text=True)

def loaded(folder, dtype):
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    factory = make.AutoModelForImageTextToText if kind in make.TOWERS else make.AutoModelForCausalLM
    return factory.from_pretrained(folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager").eval()

def judged(folder, found, expected, error):
    """The error against float64, where float32 is so far from it that transformers' own error is the larger one."""
    model = loaded(folder, torch.float64)
    got, exact = make.watch(model, model.config.model_type), {}
    stored = load_file(folder / "expected.safetensors")
    for n in range(int(stored["example"].max()) + 1):
        got.clear(); result = model(input_ids=stored["ids"][stored["example"] == n][None]); got["logits"] = result.logits[0]; got["embed"] = got["0.resid_pre"]
        for site, x in got.items(): exact.setdefault(site, []).append(x.double())
    off = lambda x, site: float((x[site].double() - torch.cat(exact[site])).abs().max() / torch.cat(exact[site]).abs().max())
    ours, theirs = (max(off(x, site) for site in expected) for x in (found, expected))
    print(f"    {folder.name}: against float64 {ours:.1e}, transformers {theirs:.1e}", file=sys.stderr)
    return ours if ours <= theirs else error

def measured(name):
    """(worst site, error, greedy) of a shape, or the error text."""
    folder = make.HERE / name
    expected = load_file(folder / "expected.safetensors")
    ids, rows = expected.pop("ids").tolist(), expected.pop("example").tolist()
    greedy = expected.pop("greedy", None)
    texts = ["".join(LETTERS[id] for id, row in zip(ids, rows) if row == n) for n in range(max(rows) + 1)]
    (folder / "data.jsonl").write_text("".join(json.dumps({"id": str(n), "prompt": text}) + "\n" for n, text in enumerate(texts)))
    store = folder / "store"
    ran = pearl("extract", "--model", folder, "--data", folder / "data.jsonl", "--sites", "all", "--tokens", "all", "--out", store, "--quiet")
    if ran.returncode: return ran
    found, sites = {}, json.loads((store / "manifest.json").read_text())["sites"]
    for shard in sorted(store.glob("shard-*")):
        for site, x in load_file(shard).items():
            if site in sites: found.setdefault(site, []).append(x)
    found = {site: torch.cat(x).reshape(len(ids), -1) for site, x in found.items()}
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
    off = lambda ours, theirs: float((ours - theirs).abs().max() / theirs.abs().max()) if torch.isfinite(ours).all() else float("inf")
    error, site = max((off(found[site], theirs.float()), site) for site, theirs in expected.items())
    if error > 1e-4: error = judged(folder, found, expected, error)
    if greedy is None: return site, error, "no head"
    # transformers keeps what it cached under the short factors, but for Phi's; without its cache it computes what the config says.
    if '"longrope"' in (folder / "config.json").read_text() and "phi" not in name:
        model = loaded(folder, torch.float32)
        rows_of = [torch.tensor([id for id, row in zip(ids, rows) if row == n])[None] for n in range(max(rows) + 1)]
        def uncached(row):
            for _ in range(greedy.shape[1]): row = torch.cat([row, model(input_ids=row, use_cache=False).logits[:, -1:].argmax(-1)], 1)
            return row[0, -greedy.shape[1]:]
        greedy = torch.stack([uncached(row) for row in rows_of])
    ran = pearl("generate", "--model", folder, "--data", folder / "data.jsonl", "--max-tokens", greedy.shape[1], "--greedy", "--json", "--quiet")
    if ran.returncode: return ran
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    said = ["".join(LETTERS[id] for id in row) for row in greedy.tolist()]
    given = [answer.get("text", answer.get("answer")) for answer in answers]
    return site, error, "equal" if given == said else f"differ {given} {said}"

bad = 0
if unknown := [family for family in a.families if family not in FAMILIES]:
    sys.exit(f"unknown families {', '.join(unknown)}; expected some of {', '.join(FAMILIES)}")
for family in a.families or FAMILIES:
    for number in range(a.shapes):
        name, config = drawn(family, number)
        if name is None: print(f"| `{family}` | {number} | transformers: {config} |", flush=True); continue
        try: result = measured(name)
        except Exception as failed: result = f"{type(failed).__name__}: {failed}"
        if isinstance(result, tuple):
            site, error, greedy = result
            off = error > 1e-4 or greedy.startswith("differ")
            print(f"| `{family}` | {number} | {site} | {error:.1e} | {greedy} |{' <-- OFF' if off else ''}", flush=True)
        else:
            refused = isinstance(result, subprocess.CompletedProcess) and result.returncode == 2 and result.stderr.count("\n") == 1 and "tensor operation" not in result.stderr
            text = result.stderr.strip() if isinstance(result, subprocess.CompletedProcess) else result
            off = not refused
            print(f"| `{family}` | {number} | {'refused' if refused else 'FAILED'}: {text} |{' <-- OFF' if off else ''}", flush=True)
        bad += off
sys.exit(bad > 0)
