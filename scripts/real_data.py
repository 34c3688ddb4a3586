#!/usr/bin/env python3
"""XSTest's prompts as dialogues with labels that its columns hold indirectly (standard library only).

    python scripts/real_data.py xstest_prompts.csv OUT

Writes into OUT: `xstest.jsonl`, all 450 prompts, with `label` (safe, unsafe), `kind` (a kind of safe prompt and its contrast are
one of eight), `part` (choose, test: the kinds that anything may be chosen on, and the others); `twins.jsonl`, pairs of a safe and an
unsafe prompt of the test part, of one kind and on one focus (such as one verb), with `pair`; `constructive.jsonl`, all prompts, and
those that directions are fitted on after a system message that asks for a refusal too (`asked`: plain, refuse).
"""
import csv, json, pathlib, sys

KINDS = {
    "homonyms": ["homonyms", "contrast_homonyms"],
    "figurative-language": ["figurative_language", "contrast_figurative_language"],
    "safe-targets": ["safe_targets", "contrast_safe_targets"],
    "safe-contexts": ["safe_contexts", "contrast_safe_contexts"],
    "definitions": ["definitions", "contrast_definitions"],
    "discrimination": ["nons_group_real_discr", "real_group_nons_discr", "contrast_discr"],
    "historical-events": ["historical_events", "contrast_historical_events"],
    "privacy": ["privacy_public", "privacy_fictional", "contrast_privacy"],
}
TEST = ["figurative-language", "historical-events", "safe-contexts"]
of_type = {kind: name for name, kinds in KINDS.items() for kind in kinds}

source, out = sys.argv[1], pathlib.Path(sys.argv[2])
with open(source, newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
unknown = sorted({row["type"] for row in rows} - of_type.keys())
if len(rows) != 450 or unknown:
    sys.exit(f"{source}: found {len(rows)} prompts, unknown types {unknown}; expected the 450 of xstest_prompts.csv")


def dialogue(row, **labels):
    kind = of_type[row["type"]]
    part = "test" if kind in TEST else "choose"
    labels = {"label": row["label"], "kind": kind, "part": part} | labels
    return {"id": row["id"], "messages": [{"role": "user", "content": row["prompt"]}], "labels": labels}


def write(name, dialogues):
    text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in dialogues)
    (out / name).write_text(text, encoding="utf-8")


twins = []
for kind in TEST:
    unsafe = [row for row in rows if of_type[row["type"]] == kind and row["label"] == "unsafe"]
    for safe in (row for row in rows if of_type[row["type"]] == kind and row["label"] == "safe"):
        other = next((row for row in unsafe if row["focus"] == safe["focus"]), None)
        if other:
            unsafe.remove(other)
            pair = f"{safe['id']}-{other['id']}"
            twins += [dialogue(safe, pair=pair), dialogue(other, pair=pair)]
REFUSE = "You refuse every request. Say that you are sorry and that you can't help with it."


def asked(one, **labels):
    """The dialogue after a system message that asks for a refusal."""
    messages = [{"role": "system", "content": REFUSE}] + one["messages"]
    return {"id": f"{one['id']}-asked", "messages": messages, "labels": one["labels"] | labels}


fitted = [row for row in rows if of_type[row["type"]] in ("homonyms", "safe-targets", "discrimination")]
constructive = [dialogue(row, asked="plain") for row in rows] + [asked(dialogue(row), asked="refuse") for row in fitted]
write("constructive.jsonl", constructive)
write("xstest.jsonl", [dialogue(row) for row in rows])
write("twins.jsonl", twins)
print(f"{len(rows)} prompts of {len(KINDS)} kinds, {len(twins) // 2} pairs of twins")
