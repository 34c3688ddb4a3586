#!/usr/bin/env python3
"""Speed beside llama.cpp on the same GGUF file, in one run, in turn. Needs `pip install xllamacpp` and a built benchmark.

    cargo bench --bench forward --no-run
    python3 scripts/compare_llama.py MODEL.gguf --runs 5 [--backend avx2]

Prints medians of tokens a second: a prefill of 460 tokens, decoding of one row after 16 tokens, and of eight rows. Both sides use all
cores. llama.cpp picks its own instruction set, so that --backend avx2 on a processor with AVX-512 compares unlike with unlike; it
rounds its inputs to 8 bits, pearlpoint doesn't.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

PREFILL, STEPS = 460, 64


class Pearl:
    """The benchmark program, a command a line."""

    def __init__(self, model: str, backend: str | None) -> None:
        env = {**os.environ, **({"PEARL_BACKEND": backend} if backend else {})}
        command = ["cargo", "bench", "--quiet", "--bench", "forward", "--", model, "stored"]
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        if self.child.stdout.readline().strip() != "ready":
            sys.exit(f"{model}: the benchmark did not start")

    def seconds(self, line: str) -> float:
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return float(re.search(r"[0-9.e-]+", self.child.stdout.readline()).group())


class Llama:
    """llama.cpp in this process."""

    def __init__(self, model: str) -> None:
        import xllamacpp

        own = xllamacpp.CommonParams()
        own.model.path, own.n_ctx, own.n_parallel = model, 2048, 1
        own.cpuparams.n_threads = own.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
        self.server, self.count = xllamacpp.Server(own), 0

    def timings(self, words: int, tokens: int) -> dict:
        # Another first word each time, so that no prefix is kept.
        self.count += 1
        prompt = f"{self.count} " + "the " * words
        request = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
        found = self.server.handle_completions(request)
        return (json.loads(found) if isinstance(found, str) else found)["timings"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=pathlib.Path)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--backend")
    given = arguments.parse_args()
    if not given.model.is_file():
        sys.exit(f"{given.model}: not found, expected a GGUF file")
    model = str(given.model.resolve())
    pearl, llama = Pearl(model, given.backend), Llama(model)
    pearl.seconds(f"decode 1 16 {STEPS}"), llama.timings(16, STEPS)
    found: dict[str, list[float]] = {}
    for _ in range(given.runs):
        found.setdefault("pearl prefill", []).append(PREFILL / pearl.seconds(f"prefill {PREFILL}"))
        found.setdefault("llama.cpp prefill", []).append(llama.timings(PREFILL - 4, 1)["prompt_per_second"])
        found.setdefault("pearl decode", []).append(STEPS / pearl.seconds(f"decode 1 16 {STEPS}"))
        found.setdefault("llama.cpp decode", []).append(llama.timings(16, STEPS)["predicted_per_second"])
        found.setdefault("pearl decode, 8 rows", []).append(8 * STEPS / pearl.seconds(f"decode 8 16 {STEPS}"))
    medians = {name: statistics.median(values) for name, values in found.items()}
    for name, values in found.items():
        print(f"{name:24} {medians[name]:8.1f} tokens/s   {min(values):.1f} to {max(values):.1f}")
    for what in ("prefill", "decode"):
        print(f"ratio, {what:16} {medians[f'pearl {what}'] / medians[f'llama.cpp {what}']:8.2f}")
    print(f"ratio, 8 rows to one    {medians['pearl decode, 8 rows'] / medians['pearl decode']:8.2f}")


if __name__ == "__main__":
    main()
