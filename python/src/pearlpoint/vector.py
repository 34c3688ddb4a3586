"""Steering vectors, made by `pearl vector` or from arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Mapping, Optional

import numpy as np

from .tensors import PathLike, Tensors, save


class Vector:
    """Directions by site: `vector["12.resid_post"]` is `[width]` float32, the step of strength 1."""

    def __init__(self, path: PathLike):
        file = Tensors(path)
        if file.metadata.get("kind") != "vector":
            raise ValueError(f"{path}: not a vector file; `pearl vector import` reads those of other tools")
        self.metadata = dict(file.metadata)
        self.directions = {name: np.array(file[name], np.float32) for name in file if "/" not in name}
        self.means = {name: np.array(file[name], np.float32) for name in file if "/" in name}
        self.residual_norm: dict[str, float] = json.loads(self.metadata.get("residual_norm", "{}"))

    @classmethod
    def of(cls, directions: Mapping[str, np.ndarray], method: str, model: Optional[str] = None) -> "Vector":
        """A vector of arrays `{site: [width]}`."""
        self = cls.__new__(cls)
        self.directions = {site: np.asarray(one, np.float32) for site, one in directions.items()}
        for site, one in self.directions.items():
            if one.ndim != 1 or not np.isfinite(one).all() or not np.linalg.norm(one) > 0:
                raise ValueError(f"{site}: a finite direction [width] that isn't 0 is needed, not shape {one.shape}")
        self.means, self.residual_norm = {}, {}
        self.metadata = {"kind": "vector", "version": "2", "method": method, "residual_norm": "{}", "measured": "{}"}
        if model is not None:
            self.metadata["model"] = model
        return self

    @property
    def sites(self) -> list[str]:
        """Sites with a direction."""
        return list(self.directions)

    @property
    def best_site(self) -> Optional[str]:
        """The site that did best where it was tried; None if none was."""
        return self.metadata.get("best_site")

    def __getitem__(self, site: str) -> np.ndarray:
        return self.directions[site]

    def save(self, path: PathLike) -> None:
        """Writes a vector file that `pearl generate --vector` reads."""
        save({**self.directions, **self.means}, Path(path), self.metadata)
