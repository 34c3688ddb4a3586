#!/usr/bin/env python3
"""The forward pass beside transformers', in one run on the same cores: medians of five (of three
for the 64 mixed rows, which take a minute each), in turn.

    cargo build --release --benches
    python scripts/compare_forward.py MODEL [--gguf FILE] [--threads 2] > docs/benchmarks/DATE-MACHINE.json

MODEL is a checkpoint in the hub's layout. Every figure is tokens a second; `ratio` is ours over transformers'.
`roofline` has, for each type: the products' peak and the memory's bandwidth as measured here, the share of them that each phase
reaches, and the seconds of each operation of a 512-token pass by itself.
"""
import argparse, glob, json, os, platform, statistics, subprocess, sys, time, torch
from transformers import AutoModelForCausalLM

a = argparse.ArgumentParser()
a.add_argument("model"); a.add_argument("--gguf"); a.add_argument("--threads", type=int, default=2)
a.add_argument("--runs", type=int, default=5); a.add_argument("--only", default=""); a.add_argument("--long-runs", type=int, default=3)
a = a.parse_args()
torch.set_num_threads(a.threads); torch.set_grad_enabled(False)
os.environ["RAYON_NUM_THREADS"] = str(a.threads)
MIXED = [16 + (i * 7919) % 497 for i in range(64)]
CASES = {"prefill 1 x 512": ("prefill", [512]), "prefill 8 x 128": ("prefill", [128] * 8), "prefill 64 mixed 16-512": ("prefill", MIXED),
         "decode 1 row": ("decode", [1, 32, 32]), "decode 8 rows": ("decode", [8, 32, 32])}

class Ours:
    def __init__(self, model, dtype):
        binary = max((path for path in glob.glob("target/release/deps/forward-*") if not path.endswith(".d")), key=os.path.getmtime)
        self.process = subprocess.Popen([binary, model, dtype], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "ready"
    def __call__(self, command, numbers):
        print(command, *numbers, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())
    def close(self): self.process.stdin.close(); self.process.wait()

class Theirs:
    def __init__(self, model, dtype):
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()
    def ids(self, rows, length): return (torch.arange(rows * length).reshape(rows, length) * 7919 + 17) % self.model.config.vocab_size
    def __call__(self, command, numbers):
        if command == "prefill":
            # As a user would: batches of eight, sorted by length, padded on the left.
            lengths = sorted(numbers); start = time.time()
            for k in range(0, len(lengths), 8):
                batch = lengths[k : k + 8]; longest = max(batch)
                mask = torch.tensor([[0] * (longest - n) + [1] * n for n in batch])
                self.model.model(input_ids=self.ids(len(batch), longest), attention_mask=mask if min(batch) < longest else None)
            return time.time() - start
        rows, context, steps = numbers
        cache = self.model.model(input_ids=self.ids(rows, context), use_cache=True)
        cache = getattr(cache, "past_key_values", None) or cache.cache
        ids = torch.ones(rows, 1, dtype=torch.long); start = time.time()
        for _ in range(steps):
            out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
            ids = out.logits[:, -1:].argmax(-1)
        return time.time() - start

def tokens(command, numbers): return sum(numbers) if command == "prefill" else numbers[0] * numbers[2]

def compare(ours, theirs, name):
    command, numbers = CASES[name]
    sides = {"ours": ours, "transformers": theirs}
    taken = {side: [] for side in sides}
    long = len(numbers) > 8 and command == "prefill"
    for side, run in sides.items():
        if not long: run(command, numbers)
    for _ in range(a.long_runs if long else a.runs):
        for side, run in sides.items(): taken[side].append(run(command, numbers))
    count = tokens(command, numbers)
    result = {side: {"tokens_per_second": round(count / statistics.median(seconds), 1), "seconds": [round(s, 4) for s in seconds]} for side, seconds in taken.items()}
    result["ratio"] = round(statistics.median(taken["transformers"]) / statistics.median(taken["ours"]), 3)
    print(name, result["ours"]["tokens_per_second"], result["transformers"]["tokens_per_second"], result["ratio"], file=sys.stderr, flush=True)
    return result

def roofline(ours, config, dtype, figures):
    median = lambda command, *numbers: statistics.median(ours(command, numbers) for _ in range(a.runs))
    peak = 2 * 4096 * 1024 * 3072 / median("peak")
    bandwidth = 2 * 8 * 2**26 / median("copy")
    heads, keys = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    weights = config.num_hidden_layers * config.hidden_size * (2 * heads + 2 * keys + 3 * config.intermediate_size)
    size = {"f32": 4, "bf16": 2}[dtype]
    seconds = lambda case: statistics.median(figures[f"{dtype} {case}"]["ours"]["seconds"])
    whole = seconds("prefill 1 x 512")
    parts = {name: median("part", name, 512) for name in ["products", "attention", "norms", "rotation", "activation", "sums"]}
    read = size * (weights + config.vocab_size * config.hidden_size)
    return {"peak_gflops": round(peak / 1e9, 1), "bandwidth_gb_s": round(bandwidth / 1e9, 1),
            "prefill 1 x 512, share of peak": round(2 * weights * 512 / whole / peak, 3),
            "prefill 1 x 512, share of bandwidth": round(size * weights / whole / bandwidth, 3),
            "decode 1 row, share of peak": round(2 * read / size * 32 / seconds("decode 1 row") / peak, 3),
            "decode 1 row, share of bandwidth": round(read * 32 / seconds("decode 1 row") / bandwidth, 3),
            "seconds of 512 tokens, by operation": {**{k: round(v, 4) for k, v in parts.items()}, "the rest": round(whole - sum(parts.values()), 4)}}

def processor():
    lines = [l for l in open("/proc/cpuinfo") if l.startswith("model name")] if os.path.exists("/proc/cpuinfo") else []
    return lines[0].split(":")[1].strip() if lines else platform.processor()

report = {"date": time.strftime("%Y-%m-%d"), "processor": processor(), "threads": a.threads, "torch": torch.__version__, "figures": {}}
for dtype, torch_dtype in [("f32", torch.float32), ("bf16", torch.bfloat16)]:
    if a.only and a.only != dtype: continue
    ours, theirs = Ours(a.model, dtype), Theirs(a.model, torch_dtype)
    for name in CASES: report["figures"][f"{dtype} {name}"] = compare(ours, theirs, name)
    plain, recorded = [[ours(command, [128] * 8) for _ in range(a.runs)] for command in ("prefill", "recorded")]
    report["figures"][f"{dtype} recording every resid_post, 8 x 128"] = {"ratio": round(statistics.median(recorded) / statistics.median(plain), 3)}
    report.setdefault("roofline", {})[dtype] = roofline(ours, theirs.model.config, dtype, report["figures"])
    ours.close()
    if a.gguf and dtype == "bf16":
        ours = Ours(a.gguf, "stored")
        for name in ["decode 1 row", "decode 8 rows", "prefill 8 x 128"]: report["figures"][f"gguf blocks against bf16, {name}"] = compare(ours, theirs, name)
        ours.close()
print(json.dumps(report, indent=1))
