#!/usr/bin/env python3
"""Extraction beside the usual way (transformers: batches of eight sorted by length and padded, a forward hook a block, the
last token), in one run on the same cores; and what each of extraction's savings brings, by itself.

    cargo build --release
    python scripts/compare_extract.py MODEL [--dtypes f32,bf16] [--dialogues 256] [--runs 3] > docs/benchmarks/DATE-MACHINE-extract.json

MODEL is a checkpoint in the hub's layout. Seconds are those of the run, loading apart, on both sides (ours has making tokens and
writing the store in it, the other side making tokens); the dialogues have 16 to 512 tokens. `--only compare`, `savings` or `memory`
does a part. Each saving is the same dialogues read with it and without it, in turns, or, for padding, dialogues as long as padding would
have made them. Memory is the organism's, which needs no MODEL to be large: the peak at so many dialogues.
"""
import argparse, json, os, pathlib, platform, random, statistics, subprocess, sys, tempfile, time, torch
from transformers import AutoModel, AutoTokenizer

a = argparse.ArgumentParser()
a.add_argument("model"); a.add_argument("--dtypes", default="f32,bf16"); a.add_argument("--dialogues", type=int, default=256)
a.add_argument("--runs", type=int, default=3); a.add_argument("--threads", type=int, default=2); a.add_argument("--only", default="")
a.add_argument("--case", default="", help="only the savings whose name has this in it")
a.add_argument("--pearl", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release/pearl"))
a = a.parse_args()
torch.set_num_threads(a.threads); torch.set_grad_enabled(False)
folder = pathlib.Path(tempfile.mkdtemp(prefix="extract-")); tokenizer = AutoTokenizer.from_pretrained(a.model)
WORDS = "the user asks how to help a friend who feels low and wants safe advice about risk today system assistant model".split()

def words(rng, tokens):
    text = rng.choice(WORDS)
    while len(tokenizer(text)["input_ids"]) < tokens: text += " " + " ".join(rng.choices(WORDS, k=max(1, (tokens - len(tokenizer(text)["input_ids"])) // 2)))
    return text

def dialogues(name, lengths, system=0, alike=True):
    rng, path = random.Random(name), folder / f"{name}{alike:d}.jsonl"
    # Beginnings of the same words in another order share nothing, and have as many tokens.
    content = words(random.Random(0), system).split()
    turned = lambda k: " ".join(content if alike else content[k % len(content):] + content[: k % len(content)])
    with open(path, "w") as file:
        for k, n in enumerate(lengths):
            head = [{"role": "system", "content": turned(k)}] if system else []
            print(json.dumps({"messages": head + [{"role": "user", "content": words(rng, max(1, n - 8))}]}), file=file)
    return path

def ours(data, dtype, sites="*.resid_post", tokens="last"):
    out = tempfile.mkdtemp(dir=folder)
    command = [a.pearl, "extract", "--model", a.model, "--data", data, "--sites", sites, "--tokens", tokens, "--dtype", dtype, "--out", out, "--json", "--quiet"]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "RAYON_NUM_THREADS": str(a.threads)})
    if run.returncode: sys.exit(run.stderr)
    return json.loads(run.stdout)

def peak(count):
    """The most memory, in MB, of reading so many of the organism's dialogues, in three runs: threads take turns by chance. Each is
    started by a small program, since a child's count begins with its parent's."""
    data, peaks = folder / f"organism-{count}.jsonl", []
    data.write_bytes(subprocess.run([a.pearl, "organism", "sample", "--count", str(count)], capture_output=True, check=True).stdout)
    for _ in range(3):
        out, said = tempfile.mkdtemp(dir=folder), folder / "peak"
        subprocess.run(["/usr/bin/time", "-o", said, "-f", "%M", a.pearl, "extract", "--data", data, "--tokens", "assistant.start", "--out", out, "--quiet"], check=True)
        peaks.append(int(said.read_text()) / 1024)
    return [round(run, 1) for run in sorted(peaks)]

class Usual:
    def __init__(self, dtype):
        self.model, self.kept = AutoModel.from_pretrained(a.model, dtype=dtype).eval(), []
        tokenizer.padding_side = "left"
        for block in self.model.layers:
            block.register_forward_hook(lambda _m, _i, out: self.kept.append((out[0] if isinstance(out, tuple) else out)[:, -1].float()))
    def __call__(self, data):
        messages = [json.loads(line)["messages"] for line in open(data)]
        texts = sorted((tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in messages), key=len)
        start, tokens = time.time(), 0
        for k in range(0, len(texts), 8):
            batch = tokenizer(texts[k : k + 8], return_tensors="pt", padding=True, add_special_tokens=False)
            tokens += int(batch.attention_mask.sum()); self.model(**batch); self.kept.clear()
        return {"tokens": tokens, "seconds": time.time() - start}

rng = random.Random(1)
lengths = [rng.randint(16, 512) for _ in range(a.dialogues)]
mixed = dialogues("mixed", lengths)
report = {"date": time.strftime("%Y-%m-%d"), "machine": platform.processor(), "threads": a.threads, "torch": torch.__version__, "dialogues": a.dialogues, "figures": {}}
say = lambda *what: print(*what, file=sys.stderr, flush=True)

def rate(runs): return round(statistics.median(run["tokens"] / run["seconds"] for run in runs), 1)
for dtype in a.dtypes.split(","):
    if a.only in ("", "compare"):
        usual = Usual({"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
        runs = {"ours": [], "transformers": []}
        for _ in range(a.runs):
            runs["ours"].append(ours(mixed, dtype)); runs["transformers"].append(usual(mixed))
        assert len({run["tokens"] for side in runs.values() for run in side}) == 1, runs
        rates = {side: rate(taken) for side, taken in runs.items()}
        report["figures"][dtype] = {**rates, "ratio": round(rates["ours"] / rates["transformers"], 3), "seconds": {side: [round(r["seconds"], 2) for r in taken] for side, taken in runs.items()}}
        say(dtype, report["figures"][dtype]); del usual
    if a.only in ("", "savings"):
        last = json.load(open(pathlib.Path(a.model) / "config.json"))["num_hidden_layers"] - 1
        few = lengths[: max(16, a.dialogues // 4)]
        groups = lambda order: [max(order[k : k + 8]) for k in range(0, len(order), 8) for _ in order[k : k + 8]]
        short, rests = dialogues("few", few), [n // 4 for n in few]
        shared, apart = dialogues("shared", rests, system=200), dialogues("shared", rests, system=200, alike=False)
        bottom = f"{last // 7}.resid_post"
        cases = {
            "no padding, against batches of eight as they come": (lambda: ours(short, dtype), lambda: ours(dialogues("padded", groups(few)), dtype)),
            "no padding, against batches of eight sorted by length": (lambda: ours(short, dtype), lambda: ours(dialogues("sorted", groups(sorted(few))), dtype)),
            "nothing past the last wanted block (the middle one, against all)": (lambda: ours(short, dtype, f"{last // 2}.resid_post"), lambda: ours(short, dtype, f"{last}.resid_post")),
            "past the last block's attention, the picked token only (against all, for their mean)": (lambda: ours(short, dtype, f"{last}.resid_post"), lambda: ours(short, dtype, f"{last}.resid_post", "mean(all)")),
            "no vocabulary product (against logits of the last token)": (lambda: ours(short, dtype, f"{last}.resid_post"), lambda: ours(short, dtype, f"{last}.resid_post,logits")),
            "no vocabulary product (against logits of every token, for their mean)": (lambda: ours(short, dtype, f"{last}.resid_post", "mean(all)"), lambda: ours(short, dtype, f"{last}.resid_post,logits", "mean(all)")),
            "a system prompt of 200 tokens read once (against one of its own for each)": (lambda: ours(shared, dtype), lambda: ours(apart, dtype)),
            f"the same, of {bottom} alone": (lambda: ours(shared, dtype, bottom), lambda: ours(apart, dtype, bottom)),
            "every resid_post (against the last alone)": (lambda: ours(short, dtype), lambda: ours(short, dtype, f"{last}.resid_post")),
        }
        for name, (with_it, without) in cases.items():
            if a.case not in name: continue
            pairs = [(with_it()["seconds"], without()["seconds"]) for _ in range(a.runs)]
            quick, slow = (statistics.median(side) for side in zip(*pairs))
            report["figures"][f"{dtype}: {name}"] = {"seconds": round(quick, 2), "without": round(slow, 2), "times": round(slow / quick, 3), "runs": pairs}
            say(dtype, name, report["figures"][f"{dtype}: {name}"])
if a.only in ("", "memory"):
    report["figures"]["peak MB by dialogues"] = {count: peak(count) for count in (500, 5000, 50000)}
    say(report["figures"]["peak MB by dialogues"])
print(json.dumps(report, indent=1))
