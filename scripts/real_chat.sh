#!/usr/bin/env bash
# Tries the chat templates and vocabularies of published models, as llama.cpp's sources carry them (77 MB from the Python package
# registry): templates beside transformers' rendering, vocabularies beside the ids that llama.cpp publishes.
#
#   scripts/real_chat.sh [FOLDER]     keeps the files in FOLDER (runs/real-chat)
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:-runs/real-chat}")
version=0.3.36
mkdir -p "$folder"
if [ ! -d "$folder/models" ]; then
    python3 - "$folder/source.tar.gz" "llama_cpp_python-$version.tar.gz" <<'PYTHON'
import json, shutil, sys, urllib.request
index = urllib.request.Request("https://pypi.org/simple/llama-cpp-python/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
file = next(one for one in json.load(urllib.request.urlopen(index))["files"] if one["filename"] == sys.argv[2])
with urllib.request.urlopen(file["url"]) as answer, open(sys.argv[1], "wb") as out:
    shutil.copyfileobj(answer, out)
PYTHON
    mkdir "$folder/models.part"
    tar xzf "$folder/source.tar.gz" -C "$folder/models.part" --strip-components=4 --wildcards '*/vendor/llama.cpp/models/*'
    mv "$folder/models.part" "$folder/models"
fi
[ -d "$folder/venv" ] || { python3 -m venv "$folder/venv" && "$folder/venv/bin/pip" install -q transformers jinja2; }
"$folder/venv/bin/python" scripts/real_chat.py "$folder/models/templates" "$folder/cases.json" 2> "$folder/refused.log"
PEARL_TEMPLATE_CASES="$folder/cases.json" cargo test --release --test it real_chat -- --ignored --nocapture | grep cases
PEARL_VOCABULARIES="$folder/models" cargo test --release --lib published_vocabularies -- --ignored --nocapture | grep 'gguf:'
