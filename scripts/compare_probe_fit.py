#!/usr/bin/env python3
"""`pearl probe fit` over a whole store, and scikit-learn's StandardScaler and LogisticRegression over some of its sites, on the same
grid, in one run: times, their ratio, and what each has in memory at its peak.

    pip install numpy scikit-learn safetensors
    cargo build --release
    python scripts/compare_probe_fit.py [--sites 28] [--rows 4000] [--width 1024] [--peer-sites 1]

The store is made: correlated columns, a signal that grows with depth. The peer's time is scaled from --peer-sites to --sites, and the
output says so; --peer-sites 28 runs it whole. pearl's time has the intervals and all controls in it, 24 shuffles among them.
"""
import argparse, json, os, pathlib, subprocess, sys, tempfile, time
import numpy as np
from safetensors.numpy import load_file, save_file

a = argparse.ArgumentParser()
a.add_argument("--sites", type=int, default=28); a.add_argument("--rows", type=int, default=4000); a.add_argument("--width", type=int, default=1024)
a.add_argument("--peer-sites", type=int, default=1); a.add_argument("--strengths", default="0.001,0.01,0.1,1,10"); a.add_argument("--store", type=pathlib.Path)
a.add_argument("--pearl", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release/pearl")); a.add_argument("--peer", help=argparse.SUPPRESS)
a = a.parse_args()

def peer(store, names):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    y, start, best = np.load(store / "labels.npy"), time.time(), {}
    shard = load_file(store / "shard-00000.safetensors")
    for name in names:
        x = shard[name].astype(np.float32)
        folds = list(StratifiedKFold(5, shuffle=True, random_state=0).split(x, y))
        for strength in map(float, a.strengths.split(",")):
            fit = lambda train: make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(x[train], y[train])
            area = np.mean([roc_auc_score(y[test], fit(train).decision_function(x[test])) for train, test in folds])
            best[name] = max(best.get(name, 0), float(area))
    print(json.dumps({"seconds": time.time() - start, "best": best}))

def make(store):
    rng, n, d = np.random.default_rng(0), a.rows, a.width
    y, spectrum, tensors = rng.integers(0, 2, n), (1 + np.arange(d)) ** -0.6, {}
    for site in range(a.sites):
        turn, _ = np.linalg.qr(rng.standard_normal((d, d)))
        apart = np.where((np.arange(d) >= d // 50) & (np.arange(d) < d // 5), rng.standard_normal(d) * spectrum, 0)
        apart *= (0.2 + 0.9 * site / a.sites) / np.linalg.norm(apart / (spectrum * 3 + 0.05))
        x = (rng.standard_normal((n, d)) * spectrum * 3 + np.outer(2 * y - 1, apart)) @ turn
        tensors[f"{site}.resid_post"] = (x + 0.05 * rng.standard_normal((n, d)) + 2 * rng.standard_normal(d)).astype(np.float32)
    names = list(tensors)
    tensors |= {"example": np.arange(n), "position": -np.ones(n, dtype=np.int64)}
    save_file(tensors, str(store / "shard-00000.safetensors"), metadata={"kind": "activations", "version": "1"})
    np.save(store / "labels.npy", y)
    manifest = {"kind": "activations", "version": 1, "model": "made", "family": "made", "dataset": "dialogues.jsonl", "sites": names,
                "tokens": "last", "dtype": "f32", "rows": n, "shards": ["shard-00000.safetensors"]}
    (store / "manifest.json").write_text(json.dumps(manifest))
    lines = (json.dumps({"id": f"d{row}", "prompt": f"row {row}", "labels": {"class": "ab"[y[row]]}}) for row in range(n))
    (store / "dialogues.jsonl").write_text("\n".join(lines) + "\n")

def measured(command):
    """What it prints, its seconds, and the greatest resident memory of the process in KiB, as the system counts it: started by
    a small program, since a child's count begins with its parent's."""
    with tempfile.NamedTemporaryFile("r") as said:
        start = time.time()
        run = subprocess.run(["/usr/bin/time", "-o", said.name, "-f", "%M", *command], stdout=subprocess.PIPE, text=True)
        seconds = time.time() - start
        if run.returncode: sys.exit(f"{command[:3]} ended with {run.returncode}")
        return run.stdout, seconds, int(said.read().split()[-1])

if a.peer:
    peer(a.store, a.peer.split(",")); sys.exit()
store = a.store or pathlib.Path(tempfile.mkdtemp(prefix="probe-"))
if not (store / "manifest.json").exists():
    print(f"making {store}", file=sys.stderr); store.mkdir(parents=True, exist_ok=True); make(store)
names = json.loads((store / "manifest.json").read_text())["sites"]
_, _, alone = measured([a.pearl, "--version"])
text, seconds, peak = measured([a.pearl, "probe", "fit", "--store", str(store), "--data", str(store / "dialogues.jsonl"), "--label", "class",
                                "--strengths", a.strengths, "--out", str(store / "probe.safetensors"), "--json", "--quiet"])
ours = {figure["name"]: figure["value"] for figure in json.loads(text)}
step = max(1, len(names) // max(1, a.peer_sites))
asked = names[::-1][::step][: a.peer_sites]
text, _, peer_peak = measured([sys.executable, __file__, "--store", str(store), "--strengths", a.strengths, "--peer", ",".join(asked)])
theirs = json.loads(text)
whole = theirs["seconds"] * len(names) / len(asked)
site = a.rows * a.width * 4 / 1024
print(json.dumps({
    "sites": len(names), "seconds": round(seconds, 1), "scikit-learn": round(whole, 1), "times": round(whole / seconds, 1),
    "scikit-learn was timed on": f"{len(asked)} of {len(names)} sites" + ("" if len(asked) == len(names) else ", and scaled"),
    "auroc": {name: [round(ours[f"{name}/auroc"], 4), round(area, 4)] for name, area in theirs["best"].items()},
    "peak, MiB": {"pearl": round(peak / 1024, 1), "of which the program alone": round(alone / 1024, 1), "scikit-learn": round(peer_peak / 1024, 1)},
    "peak in matrices of one site": {"whole process": round(peak / site, 2), "above the program": round((peak - alone) / site, 2)},
}, indent=1))
