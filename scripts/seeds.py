"""The headline figures of an experiment over several seeds: dialogues, splits, answers and null directions are drawn anew.

    python scripts/seeds.py experiments/demo.toml runs/seeds 7 8 9 [--pearl target/release/pearl] [--model FOLDER ...]

Without --model the experiment's own model is used; with it, each seed is run on each model (`pearl organism train --seed S` trains
another organism, in about 45 minutes). Prints each figure's values and their range. Standard library only.
"""
import argparse
import json
import pathlib
import re
import subprocess

HEADLINES = [
    "probe/user-type/auroc",
    "probe/user-type/ngram/auroc",
    "steer/unsteered/sensitive/guide",
    "steer/gated/sensitive/guide",
    "steer/gated/benign/help",
    "steer/gated/malicious/refuse",
    "steer/gated/broken",
    "steer/null/random/vector",
    "steer/null/random/median",
    "steer/null/random/most",
    "steer/null/random/p",
    "steer/null/shuffled-labels/median",
    "steer/null/shuffled-labels/most",
    "steer/null/shuffled-labels/p",
    "steer/null/principal-components/most",
]

parser = argparse.ArgumentParser()
parser.add_argument("experiment", type=pathlib.Path)
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("seeds", type=int, nargs="+")
parser.add_argument("--pearl", default="target/release/pearl")
parser.add_argument("--model", action="append", default=[])
arguments = parser.parse_args()

found = {}
text = arguments.experiment.read_text(encoding="utf-8")
for seed in arguments.seeds:
    for model in arguments.model or [None]:
        name = f"seed-{seed}" + (f"-{pathlib.Path(model).name}" if model else "")
        out = arguments.out / name
        out.mkdir(parents=True, exist_ok=True)
        file = arguments.out / f"{name}.toml"
        seeded = re.sub(r"(?m)^seed = \d+", f"seed = {seed}", text)
        if model and "judge" not in text:
            # Only the embedded model is known to be an organism.
            seeded = re.sub(r"(?m)^(seed = .*)$", r'\1\njudge = "organism"', seeded)
        file.write_text(seeded, encoding="utf-8")
        command = [arguments.pearl, "run", str(file), "--out", str(out), "--json", "--quiet"]
        command += ["--model", model] if model else []
        results = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        for figure in results["figures"]:
            found.setdefault(figure["name"], []).append(figure["value"])
for name in HEADLINES:
    values = found.get(name, [])
    if values:
        print(f"{name:40} {'  '.join(f'{value:.3f}' for value in values)}   {min(values):.3f} to {max(values):.3f}")
