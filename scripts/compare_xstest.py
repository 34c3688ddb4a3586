#!/usr/bin/env python3
"""XSTest by `pearl run experiments/xstest-minilm.toml`, and by scikit-learn on the same features and folds.

    pip install numpy scikit-learn safetensors
    pearl run experiments/xstest-minilm.toml --model MINILM --data xstest_prompts.csv --out RUN
    python scripts/compare_xstest.py RUN xstest_prompts.csv
"""
import csv, glob, json, pathlib, sys, warnings
import numpy as np
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

warnings.filterwarnings("ignore")
run, data = pathlib.Path(sys.argv[1]), sys.argv[2]
with open(data, newline="") as file:
    records = list(csv.DictReader(file))
number = {record["id"]: row for row, record in enumerate(records)}
truth = np.array([record["label"] == "unsafe" for record in records])
shards = [load_file(shard) for shard in sorted(glob.glob(f"{run}/activations/shard-*.safetensors"))]
figures = {figure["name"]: figure["value"] for figure in json.loads((run / "results.json").read_text())["figures"]}
sites = sorted(name for name in shards[0] if name not in ("example", "position"))
worst = 0.0
for way in ("rows", "kinds"):
    folds = [np.array([number[one] for one in fold]) for fold in json.loads((run / f"folds/label-{way}.json").read_text())["folds"]]
    best = {}
    for site in sites:
        x = np.concatenate([shard[site] for shard in shards])
        areas = []
        for fold in folds:
            fit = np.setdiff1d(np.arange(len(truth)), fold)
            inner = StratifiedKFold(5, shuffle=True, random_state=0)
            search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000, tol=1e-8)),
                                  {"logisticregression__C": [1e-3, 1e-2, 1e-1, 1.0]}, scoring="neg_log_loss", cv=inner)
            areas.append(roc_auc_score(truth[fold], search.fit(x[fit], truth[fit]).decision_function(x[fold])))
        ours, theirs = figures[f"cross/label/{way}/{site}/auroc"], float(np.mean(areas))
        best[site] = (ours, theirs)
    top = [max(pair[side] for pair in best.values()) for side in (0, 1)]
    if way == "rows":
        worst = abs(top[0] - top[1])
    print(json.dumps({"held out": way, "best layer": dict(zip(("pearl", "scikit-learn"), np.round(top, 4).tolist())),
                      "sites": {site: np.round(pair, 4).tolist() for site, pair in best.items()}}))
sys.exit(worst > 0.005)
