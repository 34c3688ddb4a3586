"""Extraction over the workers of a Ray cluster: a shard a task, then one store.

    python -m pearlpoint.ray --address auto --model M --data d.jsonl --out store --shards 64 -- --tokens assistant.start

Every worker needs this package, and the same paths (a shared file system). A shard that was finished is not made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

from .command import PearlError, binary, run
from .store import Store


def extract(
    model: str,
    data: str,
    out: str,
    shards: int,
    *,
    num_cpus: float = 1,
    max_retries: int = 3,
    address: Optional[str] = None,
    arguments: Sequence[str] = (),
    progress: bool = True,
) -> Store:
    """Runs `pearl extract --shard I/N` as tasks of Ray, then `pearl store merge`.

    Parts are kept in `OUT.parts` until the store is whole: a call after a failure makes what is missing. `arguments` are further words
    of `pearl extract`. A task whose worker dies is tried again, `max_retries` times; one whose input is refused is not.

    Raises `PearlError` that names the parts that are missing, with the first message.
    """
    import ray

    if shards < 1:
        raise ValueError(f"{shards} shards; at least 1 is needed")
    whole, parts = Path(out).absolute(), Path(f"{out}.parts").absolute()
    if (whole / "manifest.json").exists():
        return Store(whole)
    parts.mkdir(parents=True, exist_ok=True)
    own = not ray.is_initialized()
    if own:
        ray.init(address=address, log_to_driver=False, include_dashboard=False)
    words = [*arguments, "--model", str(model), "--data", str(Path(data).absolute())]

    @ray.remote(num_cpus=num_cpus, max_retries=max_retries)
    def part(number: int, program: str) -> Optional[tuple[int, str]]:
        import os

        os.environ.setdefault("PEARL", program)
        folder = parts / f"{number:05}"
        if (folder / "manifest.json").exists():
            return None
        try:
            run("extract", *words, shard=f"{number}/{shards}", out=folder, progress=False)
        except PearlError as error:
            return error.code, str(error)
        return None

    try:
        waiting = {part.remote(number, binary()): number for number in range(1, shards + 1)}
        failed: dict[int, str] = {}
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            number = waiting.pop(done[0])
            try:
                refused = ray.get(done[0])
            except ray.exceptions.RayError as error:
                refused = (1, f"its worker was lost: {type(error).__name__}")
            if refused:
                failed[number] = refused[1]
            if progress:
                print(f"{shards - len(waiting)} of {shards} parts{', failed: ' + str(len(failed)) if failed else ''}", file=sys.stderr)
    finally:
        if own:
            ray.shutdown()
    if failed:
        first = failed[min(failed)]
        raise PearlError(f"{parts}: missing parts {', '.join(map(str, sorted(failed)))} of {shards}: {first}", 2)
    run("store", "merge", *[parts / f"{number:05}" for number in range(1, shards + 1)], out=whole, progress=False)
    return Store(whole)


def main(line: Optional[Sequence[str]] = None) -> int:
    """The command `python -m pearlpoint.ray`."""
    parser = argparse.ArgumentParser(prog="python -m pearlpoint.ray", description="pearl extract over a Ray cluster")
    parser.add_argument("--address", help="Ray's address: auto, or HOST:PORT; a local cluster otherwise")
    parser.add_argument("--model", default="organism")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True, help="folder for the store")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--num-cpus", type=float, default=1, help="processors a task")
    parser.add_argument("--max-retries", type=int, default=3, help="times that a task of a lost worker is tried again")
    parser.add_argument("arguments", nargs="*", help="after --: further words of pearl extract")
    given: Any = parser.parse_args(line)
    try:
        store = extract(
            given.model,
            given.data,
            given.out,
            given.shards,
            num_cpus=given.num_cpus,
            max_retries=given.max_retries,
            address=given.address,
            arguments=given.arguments,
        )
    except (PearlError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(store)
    return 0


if __name__ == "__main__":
    sys.exit(main())
