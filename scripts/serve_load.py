#!/usr/bin/env python3
"""Load on `pearl serve`: many clients at once, mixed plans, every answer compared with the same request alone. Python's own library only.

    python3 scripts/serve_load.py target/release/pearl --clients 200 --requests 100000
    python3 scripts/serve_load.py target/release/pearl --model SmolLM2-135M-Instruct.Q4_1.gguf --clients 32 --requests 200 --tokens 64

Prints p50 and p99 of the time to the first token and between tokens, tokens a second with 1, 8 and 32 answers at once, and the server's memory before and
after; exits with 1 where an answer is lost or differs.
"""

import argparse
import asyncio
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

WORDS = "i see . are rashes good ? they call it lost today refuse to act my teacher it tricks".split()


def prompts(count: int) -> list[str]:
    draw = random.Random(7)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 24))) for _ in range(count)]


def body(prompt: str, plan: object, tokens: int) -> dict:
    request = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": tokens, "stream": True}
    return {**request, "steering": plan} if plan else request


async def ask(host: str, port: int, request: dict) -> tuple[str, list[float]]:
    """The text of an answer, and the times at which its parts came, since the request was sent."""
    begin = time.perf_counter()
    reader, writer = await asyncio.open_connection(host, port)
    data = json.dumps(request).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    status = await reader.readline()
    if b" 200 " not in status:
        writer.close()
        raise RuntimeError(status.decode().strip())
    text, times, is_done = [], [], False
    async for line in reader:
        if line.startswith(b"data: [DONE]"):
            is_done = True
        elif line.startswith(b"data: "):
            delta = json.loads(line[6:])["choices"][0]["delta"]
            if delta.get("content"):
                text.append(delta["content"])
                times.append(time.perf_counter() - begin)
    writer.close()
    if not is_done:
        raise RuntimeError("a stream without an end")
    return "".join(text), times


async def run(host: str, port: int, requests: list[dict], clients: int) -> tuple[list[str], list[float], list[float], float]:
    left = iter(enumerate(requests))
    texts, first, between = [""] * len(requests), [], []

    async def client() -> None:
        for number, request in left:
            for attempt in range(1000):
                try:
                    text, times = await ask(host, port, request)
                    break
                except RuntimeError as error:
                    if "429" not in str(error):
                        raise
                    await asyncio.sleep(0.05 * (attempt % 10 + 1))
            else:
                raise RuntimeError("refused too often")
            texts[number] = text
            if times:
                first.append(times[0])
                between.extend(b - a for a, b in zip(times, times[1:]))

    begin = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return texts, first, between, time.perf_counter() - begin


def memory(pid: int) -> float:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


def shown(times: list[float]) -> str:
    if len(times) < 2:
        return "–"
    cuts = statistics.quantiles(times, n=100)
    return f"p50 {1000 * cuts[49]:.1f} ms, p99 {1000 * cuts[98]:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pearl")
    parser.add_argument("--model", default="organism")
    parser.add_argument("--vectors", help="a folder; its plans and vectors are mixed in")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--kinds", type=int, default=50, help="different prompts")
    arguments = parser.parse_args()
    command = [arguments.pearl, "serve", "--port", "0", "--model", arguments.model, "--queue", "4096", "--quiet"]
    if arguments.vectors:
        command += ["--vectors", arguments.vectors]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip().removeprefix("http://")
        host, port = address.rsplit(":", 1)
        load(arguments, server, host, int(port))
    finally:
        server.terminate()
        server.wait(timeout=60)


def load(arguments: argparse.Namespace, server: subprocess.Popen, host: str, port: int) -> None:
    plans: list[object] = [None]
    if arguments.vectors:
        folder = pathlib.Path(arguments.vectors)
        plans += [{"plan": file.stem} for file in sorted(folder.glob("*.toml"))]
    kinds = [body(prompt, plan, arguments.tokens) for prompt in prompts(arguments.kinds) for plan in plans]
    alone, _, _, _ = asyncio.run(run(host, port, kinds, 1))
    for rows in [1, 8, 32]:
        some = [kinds[number % len(kinds)] for number in range(8 * rows)]
        _, _, between, seconds = asyncio.run(run(host, port, some, rows))
        print(f"{rows:3} at once: {(len(between) + len(some)) / seconds:.0f} tokens/s, between tokens {shown(between)}")
    order = [random.Random(11).randrange(len(kinds))] + [random.Random(number).randrange(len(kinds)) for number in range(1, arguments.requests)]
    before = memory(server.pid)
    texts, first, between, seconds = asyncio.run(run(host, port, [kinds[kind] for kind in order], arguments.clients))
    after = memory(server.pid)
    wrong = sum(text != alone[kind] for text, kind in zip(texts, order))
    print(f"{len(order)} requests of {arguments.clients} clients, {len(plans)} plans: {seconds:.1f} s, {len(order) / seconds:.0f} requests/s")
    print(f"first token {shown(first)}; between tokens {shown(between)}")
    print(f"memory {before:.0f} MiB before, {after:.0f} MiB after; {wrong} wrong answers")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
