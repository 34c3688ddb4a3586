#!/usr/bin/env python3
"""Writes src/model/chat/tokenizer_classes.json: which tokenizer class transformers takes for a model type, and what each class with
a tokenizer.json makes of it: the special tokens that it names by itself, and the parts that it builds instead of the file's.

    pip install transformers && python scripts/tokenizer_classes.py

Each class reads a tokenizer.json whose parts no class would build; what is left of them afterwards is the file's, the rest is the class's.
Of the classes of Unigram models, only those whose one normalizer is the file's character map are taken apart.
"""
import inspect, json, pathlib, tempfile
import transformers
from transformers import TokenizersBackend
from transformers.models.auto import tokenization_auto as auto

OUT = pathlib.Path(__file__).parent.parent / "src/model/chat/tokenizer_classes.json"
BACKENDS = {"TokenizersBackend", "PythonBackend", "PreTrainedTokenizerFast", "MistralCommonBackend"}
NAMES = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"]
PARTS = ["normalizer", "pre_tokenizer", "decoder"]
# Lists of languages and of placeholders are longer; they are pieces of the vocabulary anyway.
MOST_EXTRA = 10
LETTERS = [chr(code) for code in range(33, 127)]

def model(kind):
    if kind == "Unigram":
        return {"type": kind, "unk_id": 0, "vocab": [[piece, -1.0] for piece in ["<unk>", "▁", *LETTERS]], "byte_fallback": False}
    vocab = {piece: id for id, piece in enumerate(["<unk>", "[UNK]", *LETTERS])}
    if kind == "WordPiece":
        return {"type": kind, "unk_token": "[UNK]", "continuing_subword_prefix": "@@", "max_input_chars_per_word": 50, "vocab": vocab}
    return {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
            "byte_fallback": False, "ignore_merges": True, "vocab": vocab, "merges": []}

STRANGE = {"type": "Replace", "pattern": {"String": "strange"}, "content": "odd"}
AROUND = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "!", "type_id": 0}}], "pair": [],
          "special_tokens": {"!": {"id": "!", "ids": [2], "tokens": ["!"]}}}

def read(cls, kind, config={}):
    file = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": STRANGE,
            "pre_tokenizer": {"type": "Split", "pattern": {"String": "~"}, "behavior": "Removed", "invert": False}, "post_processor": AROUND,
            "decoder": STRANGE, "model": model(kind)}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "tokenizer.json").write_text(json.dumps(file))
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer = cls.from_pretrained(folder)
    return file, tokenizer, json.loads(tokenizer._tokenizer.to_str())

def around(made, named):
    """The special tokens before and after a text, by name where they have one."""
    if made["type"] == "TemplateProcessing":
        ids = [step.get("SpecialToken", {}).get("id") for step in made["single"]]
    else:
        ids = [made["cls"][0], None, made["sep"][0]]
    name = {text: name for name, text in reversed(named.items())}
    prefer = {"cls_token", "sep_token"} if len(ids) > 2 else set()
    name.update({named[one]: one for one in prefer if one in named})
    place = ids.index(None)
    return [[name.get(text, text) for text in part] for part in (ids[:place], ids[place + 1 :])]

def facts(cls):
    kind = getattr(cls.model, "__name__", None) or "BPE"
    file, tokenizer, made = read(cls, kind)
    named = {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    known = set(named.values())
    extra = [str(token) for token in tokenizer.extra_special_tokens if str(token) not in known]
    result = {"named": {name: named[name] for name in NAMES if name in named} | {key: value for key, value in named.items() if key not in NAMES}}
    if 0 < len(extra) <= MOST_EXTRA:
        result["extra"] = extra
    if all(made[part] == file[part] for part in PARTS) and made["post_processor"] == file["post_processor"]:
        return result
    if kind == "Unigram" and (made["normalizer"] or "_spm_precompiled_charsmap" not in inspect.signature(cls.__init__).parameters):
        return result
    result["model"] = kind
    token = {"content": "!", "lstrip": True, "rstrip": True, "normalized": False, "single_word": False, "special": True}
    try:
        stripping = read(cls, kind, {"eos_token": "!", "added_tokens_decoder": {"2": token}})[2]["added_tokens"]
    except Exception:
        stripping = []
    if not all(one["lstrip"] for one in stripping if one["content"] == "!"):
        result["plain"] = True
    for part in PARTS:
        if made[part] != file[part]:
            result[part] = made[part]
    if made["post_processor"] != file["post_processor"]:
        result["around"] = around(made["post_processor"], named)
    flags = {key: value for key, value in made["model"].items() if key not in ("type", "vocab", "merges", "unk_id", "dropout")}
    if flags.get("unk_token") and flags["unk_token"] == named.get("unk_token"):
        flags["unk_token"] = "unk_token"
    result["flags"] = flags
    return result

classes = {}
failed = {}
names = {name.removesuffix("Fast") for name in auto.TOKENIZER_MAPPING_NAMES.values() if name}
names |= {name.removesuffix("Fast") for name in dir(transformers) if name.endswith(("Tokenizer", "TokenizerFast"))}
for name in sorted(names - BACKENDS):
    cls = auto.tokenizer_class_from_name(name)
    if not isinstance(cls, type) or not issubclass(cls, TokenizersBackend) or cls is TokenizersBackend:
        continue
    try:
        classes[name] = facts(cls)
    except Exception as error:
        failed[name] = f"{type(error).__name__}: {error}"
types = {kind: name.removesuffix("Fast") for kind, name in auto.TOKENIZER_MAPPING_NAMES.items() if name}
types = {kind: "" if name in BACKENDS else name for kind, name in sorted(types.items())}
lines = lambda table: ",\n".join(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}" for key, value in table.items())
mistral = sorted(kind for kind, name in auto.TOKENIZER_MAPPING_NAMES.items() if name == "MistralCommonBackend")
wrong = sorted(auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS)
OUT.write_text(
    f'{{"transformers": "{transformers.__version__}",\n"registered_class_counts": {json.dumps(wrong)},\n'
    f'"model_types": {{\n{lines(types)}\n}},\n"classes": {{\n{lines(classes)}\n}}}}\n'
)
print(f"{len(classes)} classes; without their facts: {failed}; by mistral-common: {mistral}")
