"""safetensors files: tensors as numpy arrays, bfloat16 included, and the text beside them."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Mapping, Union

import numpy as np

PathLike = Union[str, "os.PathLike[str]"]

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a file by name, mapped from disk; bfloat16 is widened to float32."""

    def __init__(self, path: PathLike):
        self.path = Path(path)
        size = self.path.stat().st_size
        with open(self.path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise ValueError(f"{self.path}: {size} bytes, not a whole safetensors file")
            header: dict[str, Any] = json.loads(file.read(length))
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self._start = 8 + length
        self._header = header

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._header[name]
        begin, end = entry["data_offsets"]
        wide = entry["dtype"] == "BF16"
        kind = np.dtype("<u2" if wide else _TYPES[entry["dtype"]])
        count = (end - begin) // kind.itemsize
        if count == 0:
            flat = np.zeros(0, kind)
        else:
            flat = np.memmap(self.path, kind, "r", self._start + begin, (count,))
        if wide:
            flat = (flat.astype("<u4") << 16).view("<f4")
        return np.asarray(flat).reshape(entry["shape"])

    def __iter__(self):
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)


def save(tensors: Mapping[str, np.ndarray], path: PathLike, metadata: Mapping[str, str]) -> None:
    """Writes a file at once: a reader sees all of it or nothing."""
    from safetensors.numpy import save as to_bytes

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    write_atomic(path, to_bytes(arrays, dict(metadata)))


def write_atomic(path: PathLike, data: bytes) -> None:
    """Writes beside `path` first and renames."""
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=".pearl-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
