#!/usr/bin/env python3
"""Share of the processor's measured rates that a model's pass reaches. Needs `pip install numpy`, `cargo build --release`, and a built benchmark.

    cargo bench --bench forward --no-run
    python3 scripts/roofline.py MODEL.gguf [--backend avx2]

Measures, all in one run: the f32 product of OpenBLAS (1,024³, all cores), the rate at which all cores read memory, a prefill of 460 tokens, and the
decoding of 1 and 8 rows. Prints GFLOP/s and GB/s and their shares. A token's work is two operations a parameter, in a prefill without the
vocabulary's (attention is left out, so that shares are a little low); the bytes of a step are those of the file, an embedding table that is not tied among them.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import time

import numpy

from compare_llama import PREFILL, STEPS, Pearl

SIDE, READ = 1024, 1 << 29


def best(run, times: int = 7) -> float:
    def once() -> float:
        begin = time.perf_counter()
        run()
        return time.perf_counter() - begin

    return min(once() for _ in range(times))


def read(barrier, queue) -> None:
    data = numpy.ones(READ // 8)
    data.max()
    barrier.wait()
    queue.put(READ / best(data.max, 5))


def bandwidth(cores: int) -> float:
    """Bytes a second that `cores` processes read at once, each from memory of its own."""
    barrier, queue = multiprocessing.Barrier(cores), multiprocessing.Queue()
    workers = [multiprocessing.Process(target=read, args=(barrier, queue)) for _ in range(cores)]
    [worker.start() for worker in workers]
    rates = [queue.get() for _ in workers]
    [worker.join() for worker in workers]
    return sum(rates)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=pathlib.Path)
    arguments.add_argument("--backend")
    arguments.add_argument("--pearl", default="target/release/pearl")
    given = arguments.parse_args()
    model = str(given.model.resolve())
    shape = json.loads(subprocess.run([given.pearl, "inspect", model, "--json"], check=True, capture_output=True).stdout)
    blocks = 2 * (shape["parameters"] - shape["vocabulary"] * shape["width"])
    bytes_ = given.model.stat().st_size
    cores = len(os.sched_getaffinity(0))
    a, b = (numpy.random.default_rng(seed).standard_normal((SIDE, SIDE), dtype=numpy.float32) for seed in (0, 1))
    peak = 2 * SIDE**3 / best(lambda: a @ b)
    memory = bandwidth(cores)
    print(f"OpenBLAS f32 {peak / 1e9:.0f} GFLOP/s; {cores} cores read {memory / 1e9:.1f} GB/s")
    pearl = Pearl(model, given.backend)
    pearl.seconds(f"decode 1 16 {STEPS}")
    decoding = 2 * shape["parameters"]
    lines = [(f"prefill {PREFILL}", PREFILL, PREFILL, blocks)]
    lines += [(f"decode {rows} 16 {STEPS}", rows * STEPS, rows, decoding) for rows in (1, 8)]
    for line, tokens, rows, work in lines:
        rate = tokens / statistics.median(pearl.seconds(line) for _ in range(5))
        flops, moved = rate * work, rate / rows * bytes_
        shares = f"{flops / 1e9:.0f} GFLOP/s ({flops / peak:.0%}), {moved / 1e9:.1f} GB/s ({moved / memory:.0%})"
        print(f"{line:16} {rate:8.1f} tokens/s: {shares}")


if __name__ == "__main__":
    main()
