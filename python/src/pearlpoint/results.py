"""Results of an experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .tensors import PathLike


def results(path: PathLike) -> Any:
    """The figures of a run's `results.json` (or of the folder that holds it): a pandas frame with the columns `name`, `value`,
    `low`, `high`, `n`, `split`, or a list of dicts where pandas isn't installed. `doubts` are in the frame's `attrs`.
    """
    path = Path(path)
    path = path / "results.json" if path.is_dir() else path
    file = json.loads(path.read_text("utf-8"))
    if file.get("kind") not in ("results", "scores"):
        raise ValueError(f"{path}: kind {file.get('kind')!r}, not results")
    try:
        import pandas
    except ImportError:
        return file["figures"]
    frame = pandas.DataFrame(file["figures"], columns=["name", "value", "low", "high", "n", "split"])
    frame.attrs["doubts"] = file.get("doubts", [])
    return frame
