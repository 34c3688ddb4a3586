#!/usr/bin/env bash
# Fuzzes the readers of foreign files with libFuzzer: `scripts/fuzz.sh SECONDS [TARGET…]`, every target by default.
#
# The build needs neither nightly Rust nor cargo-fuzz (which works too: `cargo fuzz run TARGET -s none`). Inputs of earlier
# findings lie in fuzz/corpus, the first seeds are the fixtures of the tests. A finding stops the run with its file's name.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:?how many seconds for each target}
shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(safetensors gguf vector plan experiment readers template tokenizer hub)

host=$(rustc -vV | sed -n 's/^host: //p')
coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares)
RUSTFLAGS="${coverage[*]} --cfg fuzzing" cargo build --release --quiet --manifest-path fuzz/Cargo.toml --target "$host"

seed() { # TARGET PREFIX FILE…: copies small files, with a byte before them where the target wants one
    local folder="fuzz/target/seeds/$1" prefix=$2
    mkdir -p "$folder"
    shift 2
    for file in "$@"; do
        [ "$(stat -c %s "$file")" -gt 200000 ] || { printf '%b' "$prefix"; cat "$file"; } > "$folder/$(sha1sum < "$file" | cut -c1-12)"
    done
}
seed safetensors '' tests/fixtures/*/model.safetensors tests/fixtures/gguf/*.safetensors
seed gguf '' tests/fixtures/gguf/*.gguf tests/fixtures/vectors/*.gguf
seed vector '' tests/fixtures/vectors/*.{pt,npy,npz,pkl,svec}
seed plan '' experiments/*.toml
seed experiment '' experiments/*.toml probes/*/*.toml
seed readers '\0' tests/fixtures/dialogues.jsonl
seed readers '\6' tests/fixtures/checksum.zst
seed template '' tests/fixtures/chat/*.jinja tests/fixtures/chat/families/*.jinja
seed tokenizer '' tests/fixtures/chat/tokenizer.json tests/fixtures/chat/families/{bytes,pieces,plain,words}.json

log=fuzz/target/fuzz.log
: > "$log"
for target in "${targets[@]}"; do
    work="fuzz/target/corpus/$target"
    mkdir -p "$work" "fuzz/target/seeds/$target" "fuzz/corpus/$target"
    # A case may take 10 seconds and 1 GiB: more is a finding.
    if ! "fuzz/target/$host/release/$target" "$work" "fuzz/corpus/$target" "fuzz/target/seeds/$target" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=200000 -print_final_stats=1 \
        -artifact_prefix="fuzz/target/$target-" >> "$log" 2>&1; then
        grep -E "panicked|ERROR|SUMMARY|Test unit written" "$log" | tail -5
        echo "$target: a finding; whole output in $log" >&2
        exit 1
    fi
    awk -v target="$target" '/number_of_executed_units/ {cases = $2} /average_exec_per_sec/ {rate = $2}
        END {printf "%s: %d cases, %d a second, no finding\n", target, cases, rate}' "$log"
done
