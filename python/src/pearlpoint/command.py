"""The program `pearl` as a function."""

from __future__ import annotations

import json as _json
import os
import shutil
import subprocess
import sys
import sysconfig
from typing import Any, Sequence, Union


# Options that are given once for each value.
REPEATED = {"where", "vector", "stop", "plan", "store", "probe", "class", "condition", "block", "ablate", "vectors"}


class PearlError(RuntimeError):
    """The program refused: `code` is its exit code (2 for wrong input), the text its message."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def binary() -> str:
    """Path of `pearl`: `$PEARL`, that of this environment, or the first on the PATH."""
    given = os.environ.get("PEARL")
    own = os.path.join(sysconfig.get_path("scripts"), "pearl" + (".exe" if os.name == "nt" else ""))
    found = given or (own if os.path.exists(own) else shutil.which("pearl"))
    if not found:
        raise FileNotFoundError("pearl: not installed here; `pip install` this package's wheel, or set PEARL")
    return found


def arguments(words: Sequence[Any], options: dict[str, Any]) -> list[str]:
    """`run("probe", "fit", held_out=["a", "b"], json=True)` as words of a command line.

    Underscores stand for dashes; `True` is a flag without a value, `False` and `None` leave it out; a list is
    repeated for the options of `REPEATED` (`where`, `vector`, `store`, …), and joined by commas otherwise; `from_` and `with_` lose the last underscore.
    """
    line = [os.fspath(word) if hasattr(word, "__fspath__") else str(word) for word in words]
    for name, value in options.items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            line.append(flag)
        elif isinstance(value, (list, tuple)) and name.rstrip("_") in REPEATED:
            line += [f"{flag}={one}" for one in value]
        elif isinstance(value, (list, tuple)):
            line.append(f"{flag}={','.join(map(str, value))}")
        else:
            line.append(f"{flag}={value}")
    return line


def run(*words: Any, progress: bool = True, cwd: Union[str, None] = None, **options: Any) -> Any:
    """Runs a subcommand: `run("extract", data="d.jsonl", out="store")` is `pearl extract --data=d.jsonl --out=store`.

    Returns the standard output: as text, or with `json=True` parsed (a list where the command prints JSON Lines). With
    `progress` the program's messages go to this process's standard error as they come.

    Raises `PearlError` with the program's own message.
    """
    line = [binary(), *arguments(words, options)]
    if not progress:
        line.append("--quiet")
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd) as process:
        import threading

        kept: list[str] = []

        def messages() -> None:
            assert process.stderr is not None
            for text in process.stderr:
                kept.append(text)
                if progress:
                    sys.stderr.write(text)

        reader = threading.Thread(target=messages)
        reader.start()
        assert process.stdout is not None
        try:
            out = process.stdout.read()
        except BaseException:
            process.terminate()
            raise
        finally:
            reader.join()
        code = process.wait()
    if code not in (0, 1) or (code == 1 and not out):
        last = [text for text in kept if text.strip()]
        raise PearlError("".join(last).strip() or f"pearl ended with {code}", code)
    return parse(out) if options.get("json") is True else out


def parse(out: str) -> Any:
    """One JSON value, or a list of those of JSON Lines."""
    try:
        return _json.loads(out)
    except _json.JSONDecodeError:
        return [_json.loads(text) for text in out.splitlines() if text.strip()]
