#!/usr/bin/env python3
"""Cost of readings and of steering in `pearl serve`, in one run: the same request plain, with three probes read at every token, and steered at every
token, in turn. Python's own library only.

    python3 scripts/serve_cost.py target/release/pearl --vectors DIR --probes a,b,c --vector v --sites 3.resid_post --rounds 30

Prints the median time between tokens of each (with --whole, of an answer that comes at once, by its tokens: without what a client spends on its parts), and the median of the ratios to the plain request of the same round with its quartiles. Temperature 0;
a vector of strength 0.000001 changes no token, so that all three answers are equally long. The folder holds three probes and a vector.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
import urllib.request

from serve_load import ask, prompts


def request(prompt: str, tokens: int, **fields: object) -> dict:
    messages = [{"role": "user", "content": prompt}]
    return {"messages": messages, "temperature": 0, "max_tokens": tokens, "stream": True, **fields}


def whole(host: str, port: int, body: dict) -> tuple[str, float]:
    """The text, and the time that the answer took by its tokens."""
    data = json.dumps(body | {"stream": False}).encode()
    request = urllib.request.Request(f"http://{host}:{port}/v1/chat/completions", data, {"Content-Type": "application/json"})
    begin = time.perf_counter()
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
    return answer["choices"][0]["message"]["content"], (time.perf_counter() - begin) / answer["usage"]["completion_tokens"]


def seconds(host: str, port: int, body: dict) -> tuple[str, float]:
    """The text, and the mean time between its tokens."""
    text, times = asyncio.run(ask(host, port, body))
    if len(times) < 4:
        sys.exit(f"{len(times)} parts in an answer, expected four or more: choose another prompt or model")
    return text, (times[-1] - times[0]) / (len(times) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pearl")
    parser.add_argument("--model", default="organism")
    parser.add_argument("--vectors", required=True)
    parser.add_argument("--probes", required=True, help="names, by commas")
    parser.add_argument("--vector", required=True)
    parser.add_argument("--sites", required=True)
    parser.add_argument("--prompt", help="default: words of the organism's")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--whole", action="store_true")
    given = parser.parse_args()
    command = [given.pearl, "serve", "--port", "0", "--model", given.model, "--vectors", given.vectors, "--quiet"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        host, port = server.stdout.readline().strip().removeprefix("http://").rsplit(":", 1)
        measure(given, host, int(port))
    finally:
        server.terminate()
        server.wait(timeout=60)


def measure(given: argparse.Namespace, host: str, port: int) -> None:
    steering = {"interventions": [{"vector": given.vector, "sites": given.sites, "strength": 1e-6}]}
    kinds = {"plain": {}, "three probes": {"probes": given.probes.split(",")}, "steered": {"steering": steering}}
    texts = [given.prompt] if given.prompt else prompts(4)
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(given.rounds + 1):
        prompt = texts[turn % len(texts)]
        order = list(kinds)[turn % 3 :] + list(kinds)[: turn % 3]
        run = whole if given.whole else seconds
        own = {name: run(host, port, request(prompt, given.tokens, **kinds[name])) for name in order}
        if len({text for text, _ in own.values()}) != 1:
            sys.exit("the answers differ")
        if turn:  # The first warms up.
            for name, (_, took) in own.items():
                found[name].append(took)
    for name, times in found.items():
        ratios = [time / plain for time, plain in zip(times, found["plain"])]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:14} {1000 * statistics.median(times):8.3f} ms a token   ratio {middle:.4f} [{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    main()
