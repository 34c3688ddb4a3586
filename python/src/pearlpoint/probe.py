"""Probes, made by `pearl probe fit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .tensors import PathLike, Tensors


class Probe:
    """A linear probe with its calibration, in scikit-learn's manners.

    `site` says where it reads; `classes_` are the columns of `predict_proba`; `threshold` holds, for a class, the calibrated
    probability from which a row is assigned to it.
    """

    def __init__(self, path: PathLike):
        self.path = Path(path)
        file = Tensors(self.path)
        if file.metadata.get("kind") != "probe" or file.metadata.get("version") != "1":
            raise ValueError(f"{self.path}: not a probe of version 1")
        self.coef_ = file["weight"].astype(np.float64)
        self.intercept_ = file["bias"].astype(np.float64)
        self.metadata: dict[str, Any] = dict(file.metadata)
        for key in ("classes", "heads", "calibration", "threshold", "scores", "held_out"):
            if key in self.metadata:
                self.metadata[key] = json.loads(self.metadata[key])
        self.site: str = self.metadata["site"]
        self.tokens: str = self.metadata["tokens"]
        self.label: str = self.metadata["label"]
        self.link: str = self.metadata["link"]
        self.classes_ = np.array(self.metadata["classes"])
        self.threshold: dict[str, float] = self.metadata.get("threshold", {})

    def __repr__(self) -> str:
        return f"Probe({str(self.path)!r}: {self.label} of {', '.join(self.classes_)} at {self.site}, {self.tokens})"

    def decision_function(self, h: np.ndarray) -> np.ndarray:
        """Uncalibrated logits `[rows, heads]` of activations `[rows, width]`."""
        h = np.asarray(h, dtype=np.float64)
        if h.ndim != 2 or h.shape[1] != self.coef_.shape[1]:
            raise ValueError(f"activations of shape {h.shape}; this probe reads [rows, {self.coef_.shape[1]}]")
        return h @ self.coef_.T + self.intercept_

    def predict_proba(self, h: np.ndarray) -> np.ndarray:
        """Calibrated probabilities `[rows, classes]`. Those of a multilabel probe don't sum to 1."""
        logits, calibration = self.decision_function(h), self.metadata["calibration"]
        method = calibration["method"]
        if method == "temperature":
            logits = logits / calibration["temperature"]
        elif method == "platt":
            logits = calibration["slope"] * logits + calibration["offset"]
        elif method == "isotonic":
            return self._isotonic(logits, calibration["curves"])
        elif method != "none":
            raise ValueError(f"{self.path}: calibration {method!r} is not known")
        return self._link(logits)

    def _link(self, z: np.ndarray) -> np.ndarray:
        if self.link == "multinomial":
            z = np.exp(z - z.max(axis=1, keepdims=True))
            return z / z.sum(axis=1, keepdims=True)
        p = _sigmoid(z)
        if self.link == "multilabel":
            return p
        if self.link == "binary":
            return np.hstack([1 - p, p])
        # Ordinal: P(level ≥ k) descends by level.
        at_least = np.hstack([np.ones((len(p), 1)), p, np.zeros((len(p), 1))])
        return at_least[:, :-1] - at_least[:, 1:]

    def _isotonic(self, z: np.ndarray, curves: list[dict[str, list[float]]]) -> np.ndarray:
        if self.link == "multinomial":
            odds = np.empty_like(z)
            for head in range(z.shape[1]):
                others = np.delete(z, head, axis=1)
                top = others.max(axis=1)
                odds[:, head] = z[:, head] - top - np.log(np.exp(others - top[:, None]).sum(axis=1))
            z = odds
        p = np.stack([np.interp(z[:, head], curve["at"], curve["share"]) for head, curve in enumerate(curves)], axis=1)
        if self.link == "multinomial":
            total = p.sum(axis=1, keepdims=True)
            return np.where(total > 0, p / np.where(total > 0, total, 1), 1 / p.shape[1])
        if self.link == "binary":
            return np.hstack([1 - p, p])
        if self.link == "multilabel":
            return p
        raise ValueError(f"{self.path}: an isotonic calibration of an ordinal probe is not known")

    def predict(self, h: np.ndarray) -> np.ndarray:
        """The likeliest class of each row; of a multilabel probe, a boolean `[rows, classes]` by its thresholds."""
        p = self.predict_proba(h)
        if self.link == "multilabel":
            return p >= np.array([self.threshold.get(name, 0.5) for name in self.classes_])
        return self.classes_[p.argmax(axis=1)]

    def score(self, h: np.ndarray, y: Any) -> float:
        """Accuracy of `predict`."""
        return float((self.predict(h) == np.asarray(y)).mean())


def _sigmoid(z: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, small) / (1 + small)
