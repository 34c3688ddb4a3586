"""Pictures that the program drew, in a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import Union


class Picture:
    """A chart's PNG file: `Picture("news.charts/auroc.png")` as the last line of a cell shows it."""

    def __init__(self, path: Union[str, Path]):
        self.path = Path(path)

    def _repr_png_(self) -> bytes:
        return self.path.read_bytes()

    def __repr__(self) -> str:
        return f"Picture({str(self.path)!r})"
