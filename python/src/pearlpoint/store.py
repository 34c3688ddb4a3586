"""Stores of activations, made by `pearl extract`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Iterable, Mapping, Optional

import numpy as np

from .tensors import PathLike, Tensors, save, write_atomic


class Store:
    """A complete store: `store["3.resid_post"]` is `[rows, width]` float32, in the order of `store.example`.

    Arrays are read from disk when they are asked for. `manifest` holds the keys of `docs/formats-probes.md`.
    """

    def __init__(self, path: PathLike):
        self.path = Path(path)
        file = self.path / "manifest.json"
        if not file.exists():
            left = " (its extraction is unfinished)" if (self.path / "unfinished.jsonl").exists() else ""
            raise FileNotFoundError(f"{file}: no such file{left}; `pearl extract` makes a store")
        self.manifest: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if self.manifest.get("kind") != "activations" or str(self.manifest.get("version")) != "1":
            raise ValueError(f"{file}: kind {self.manifest.get('kind')!r}, version {self.manifest.get('version')!r}; not activations of version 1")
        self._shards = [Tensors(self.path / name) for name in self.manifest["shards"]]

    @property
    def sites(self) -> list[str]:
        """Where activations were recorded, in the order of recording."""
        return list(self.manifest["sites"])

    @property
    def tokens(self) -> str:
        """The selector of the tokens."""
        return self.manifest["tokens"]

    def __len__(self) -> int:
        return int(self.manifest["rows"])

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}: {len(self)} rows at {self.tokens}, {len(self.sites)} sites)"

    def _all(self, name: str) -> np.ndarray:
        if not self._shards:
            raise KeyError(name)
        return np.concatenate([shard[name] for shard in self._shards])

    def __getitem__(self, site: str) -> np.ndarray:
        if site not in self.manifest["sites"]:
            raise KeyError(f"{site}: not recorded; {', '.join(self.sites)}")
        return self._all(site).astype(np.float32, copy=False)

    @property
    def example(self) -> np.ndarray:
        """`[rows]`, each row's dialogue: its index in the file of dialogues, from 0."""
        return self._all("example")

    @property
    def position(self) -> np.ndarray:
        """`[rows]`, the token's position in its dialogue; −1 where several were pooled."""
        return self._all("position")

    def labels(self, data: PathLike, label: str) -> np.ndarray:
        """`[rows]`, each row's label, from the JSON Lines file that the store was made from. None where there is none."""
        records = [json.loads(line) for line in _lines(data)]
        return np.array([records[index].get("labels", {}).get(label) for index in self.example], dtype=object)

    def check(self) -> None:
        """Compares each shard with its hash in the manifest. Raises `ValueError` that names the first that differs."""
        for name, expected in zip(self.manifest["shards"], self.manifest["hashes"]):
            found = hashlib.sha256((self.path / name).read_bytes()).hexdigest()
            if found != expected:
                raise ValueError(f"{self.path / name}: changed since it was written")

    def to_numpy(self, folder: PathLike) -> None:
        """Writes one `.npy` file a site, with `example.npy` and `position.npy`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in [*self.sites, "example", "position"]:
            np.save(folder / f"{name}.npy", self[name] if name in self.sites else self._all(name))

    def to_pandas(self, site: str) -> "pandas.DataFrame":  # type: ignore[name-defined]  # noqa: F821
        """A frame of one site: `example`, `position`, then one column a dimension."""
        import pandas

        h = self[site]
        frame = pandas.DataFrame(h, columns=[str(index) for index in range(h.shape[1])])
        frame.insert(0, "position", self.position)
        frame.insert(0, "example", self.example)
        return frame

    def to_parquet(self, site: str, path: PathLike) -> None:
        """Writes the frame of one site. Needs pandas and pyarrow."""
        self.to_pandas(site).to_parquet(path, index=False)

    @staticmethod
    def write(
        path: PathLike,
        activations: Mapping[str, np.ndarray],
        *,
        data: PathLike,
        tokens: str,
        family: str,
        example: Optional[Iterable[int]] = None,
        position: Optional[Iterable[int]] = None,
        model: Optional[str] = None,
        model_hash: Optional[str] = None,
        tokens_read: int = 0,
    ) -> "Store":
        """Makes a store of arrays: `{site: [rows, width]}`, float16 or float32, a row a dialogue of `data` unless `example` says
        otherwise. `pearl probe fit --store PATH --data DATA` reads it.
        """
        path = Path(path)
        if (path / "manifest.json").exists():
            raise FileExistsError(f"{path}: holds a store already")
        if not activations:
            raise ValueError("no activations")
        arrays = {site: np.ascontiguousarray(array) for site, array in activations.items()}
        rows = {array.shape[0] for array in arrays.values() if array.ndim == 2}
        kinds = {array.dtype for array in arrays.values()}
        if len(rows) != 1 or any(array.ndim != 2 for array in arrays.values()):
            raise ValueError("activations: one [rows, width] array a site, of equally many rows")
        if kinds not in ({np.dtype("float32")}, {np.dtype("float16")}):
            raise ValueError("activations: all float32, or all float16")
        for site, array in arrays.items():
            if not np.isfinite(array).all():
                raise ValueError(f"{site}: not finite")
        count = rows.pop()
        number = np.arange(count) if example is None else np.fromiter(example, np.int64)
        place = np.full(count, -1) if position is None else np.fromiter(position, np.int64)
        if not (number.shape == place.shape == (count,)):
            raise ValueError(f"example and position: {count} of each are needed")
        order = np.lexsort((place, number))
        header = {"kind": "activations", "version": 1, "data_hash": _hash(data)}
        header.update({k: v for k, v in (("model", model), ("model_hash", model_hash)) if v is not None})
        path.mkdir(parents=True, exist_ok=True)
        shard = {site: array[order] for site, array in arrays.items()}
        shard.update(example=number[order].astype(np.int64), position=place[order].astype(np.int64))
        save(shard, path / "shard-00000.safetensors", {name: str(value) for name, value in header.items()})
        manifest = {
            **header,
            "family": family,
            "dataset": str(data),
            "chosen": {"where": [], "skip_bad": False},
            "sites": list(arrays),
            "tokens": tokens,
            "dtype": "f32" if kinds == {np.dtype("float32")} else "f16",
            "rows": int(count),
            "tokens_read": int(tokens_read),
            "refused": 0,
            "shards": ["shard-00000.safetensors"],
            "hashes": [_hash(path / "shard-00000.safetensors")],
        }
        write_atomic(path / "manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
        return Store(path)


def _hash(path: PathLike) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _lines(path: PathLike) -> Iterable[str]:
    with open(path, encoding="utf-8") as file:
        yield from (line for line in file if line.strip())
