"""Files of other tools: hidden states of vLLM, activations and dictionaries of SAELens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Iterable, Optional, Sequence

import numpy as np

from .store import Store
from .tensors import PathLike, Tensors
from .vector import Vector

# How many tokens of a file become its row.
_PICKS = {"last": lambda h: h[-1], "mean(all)": lambda h: h.mean(axis=0)}


def store_from_vllm(
    folder: PathLike,
    data: PathLike,
    out: PathLike,
    *,
    sites: Sequence[str],
    tokens: str = "last",
    family: str = "unknown",
    model: Optional[str] = None,
    model_hash: Optional[str] = None,
) -> Store:
    """A store of a folder that vLLM's hidden-state connector (or speculators) wrote: one safetensors file a dialogue of `data`, in
    the order of their names (numbers by value), with `token_ids` `[tokens]` and `hidden_states` `[tokens, layers, width]` or `[layers, tokens, width]`.

    `sites` names the layers in their order, such as `["7.resid_post", "15.resid_post"]`; `tokens` is `last` or `mean(all)`.
    """
    if tokens not in _PICKS:
        raise ValueError(f"tokens {tokens!r}; {' or '.join(_PICKS)}")
    files = sorted(Path(folder).glob("*.safetensors"), key=_by_number)
    if not files:
        raise FileNotFoundError(f"{folder}: no safetensors files")
    with open(data, encoding="utf-8") as lines:
        dialogues = sum(1 for line in lines if line.strip())
    if dialogues != len(files):
        raise ValueError(f"{folder}: {len(files)} files, but {data} has {dialogues} dialogues")
    rows: dict[str, list[np.ndarray]] = {site: [] for site in sites}
    places, read = [], 0
    for file in files:
        tensors = Tensors(file)
        for name in ("token_ids", "hidden_states"):
            if name not in tensors:
                raise ValueError(f"{file}: no `{name}`; it has {', '.join(tensors)}")
        count, h = len(tensors["token_ids"].ravel()), tensors["hidden_states"]
        if h.ndim == 2 and len(sites) == 1:
            h = h[:, None]
        if h.ndim != 3 or count == 0:
            raise ValueError(f"{file}: hidden_states of shape {h.shape}, and {count} tokens")
        if h.shape[:2] != (count, len(sites)):
            if h.shape[:2] != (len(sites), count):
                raise ValueError(f"{file}: hidden_states of shape {h.shape}; [{count} tokens, {len(sites)} layers, width] is needed")
            h = h.swapaxes(0, 1)
        for layer, site in enumerate(sites):
            rows[site].append(_PICKS[tokens](h[:, layer].astype(np.float32)))
        places.append(count - 1 if tokens == "last" else -1)
        read += count
    arrays = {site: np.stack(own) for site, own in rows.items()}
    return Store.write(
        out, arrays, data=data, tokens=tokens, family=family, position=places, model=model, model_hash=model_hash, tokens_read=read
    )


def sae_vectors(folder: PathLike, features: Iterable[int], *, scale: float = 1.0, model: Optional[str] = None) -> dict[int, Vector]:
    """Decoder rows of a SAELens dictionary (`cfg.json` and `sae_weights.safetensors`), as a vector a feature."""
    folder = Path(folder)
    config: dict[str, Any] = json.loads((folder / "cfg.json").read_text("utf-8"))
    metadata = config.get("metadata", {})
    hook = config.get("hook_name") or metadata.get("hook_name") or config.get("hook_point")
    if not hook:
        raise ValueError(f"{folder / 'cfg.json'}: no hook_name")
    site, weights = site_of_hook(hook), Tensors(folder / "sae_weights.safetensors")
    if "W_dec" not in weights:
        raise ValueError(f"{folder / 'sae_weights.safetensors'}: no `W_dec`; it has {', '.join(weights)}")
    decoder = weights["W_dec"]
    model = model or config.get("model_name") or metadata.get("model_name")
    vectors = {}
    for feature in features:
        if not 0 <= feature < decoder.shape[0]:
            raise IndexError(f"feature {feature}: there are {decoder.shape[0]}")
        vectors[feature] = Vector.of({site: scale * decoder[feature].astype(np.float32)}, f"SAE feature {feature}", model)
    return vectors


def store_from_sae_activations(
    folder: PathLike, data: PathLike, out: PathLike, *, tokens: str = "last", family: str = "unknown", model: Optional[str] = None
) -> Store:
    """A store of activations that SAELens cached (`CacheActivationsRunner`): Arrow files with a column a hook, `[context, width]` a row,
    a row a dialogue of `data`. Needs pyarrow.
    """
    import pyarrow

    if tokens not in _PICKS:
        raise ValueError(f"tokens {tokens!r}; {' or '.join(_PICKS)}")
    files = sorted(Path(folder).rglob("*.arrow"), key=_by_number)
    if not files:
        raise FileNotFoundError(f"{folder}: no Arrow files")
    rows: dict[str, list[np.ndarray]] = {}
    for file in files:
        with pyarrow.memory_map(str(file)) as source:
            table = pyarrow.ipc.open_stream(source).read_all()
        for name in table.column_names:
            if "hook_" in name:
                own = rows.setdefault(site_of_hook(name), [])
                own += [_PICKS[tokens](np.asarray(row, np.float32)) for row in table[name].to_pylist()]
    if not rows:
        raise ValueError(f"{folder}: no column of a hook, such as blocks.12.hook_resid_post")
    arrays = {site: np.stack(own) for site, own in rows.items()}
    return Store.write(out, arrays, data=data, tokens=tokens, family=family, model=model)


def site_of_hook(hook: str) -> str:
    """The site of one of TransformerLens' hook names: `blocks.12.hook_resid_post` is `12.resid_post`."""
    if hook in ("hook_embed", "embed"):
        return "embed"
    match = re.fullmatch(r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)", hook)
    if not match:
        raise ValueError(f"{hook}: a hook of the residual stream is needed, such as blocks.12.hook_resid_post")
    return f"{match[1]}.{match[2]}"


def _by_number(path: Path) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(path)) if part]
