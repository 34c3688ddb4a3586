#!/usr/bin/env python3
"""Attacks on `pearl serve`: a server of the organism is started, attacked and asked after each attack whether it still answers as before.

    python3 scripts/serve_attack.py target/release/pearl
    python3 scripts/serve_attack.py target/release/pearl --schemathesis VENV/bin/schemathesis

Python's own library; schemathesis (`pip install schemathesis`) where it is given. A line an attack; exits with 1 at the first that does harm: a wrong status, a
crash, a lost or changed answer, a limit that doesn't hold, memory, files or threads that stay.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

KEY = "a-key-of-the-attack-script"
CHAT, TEXT, STATES = "/v1/chat/completions", "/v1/completions", "/v1/hidden_states"
LIMITS = "--rows 8 --queue 64 --read-timeout 2 --connections 256 --max-body 1024 --max-requests 16".split()


class Server:
    """A server in a process of its own."""

    def __init__(self, pearl: str, folder: pathlib.Path, port: int = 0) -> None:
        command = [pearl, "serve", "--port", str(port), "--quiet", "--vectors", str(folder), *LIMITS]
        environment = os.environ | {"PEARL_API_KEY": KEY}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        line = self.process.stdout.readline().strip()
        if not line:
            sys.exit("the server didn't start")
        self.port = int(line.rsplit(":", 1)[1])

    def connect(self, timeout: float = 30) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def raw(self, data: bytes, timeout: float = 30) -> bytes:
        """What is answered to these bytes, until the connection ends."""
        with self.connect(timeout) as stream:
            try:
                stream.sendall(data)
            except OSError:
                pass  # It was closed at once; what was said before can be read.
            return read_all(stream)

    def ask(self, path: str, body: object, method: str = "POST", key: str | None = KEY) -> tuple[int, bytes]:
        return parse(self.raw(request(path, body, method, key)))

    def status(self, name: str) -> int:
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+)", text, re.M)[1])

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def metric(self, name: str) -> float:
        text = self.ask("/metrics", b"", "GET")[1].decode()
        return float(re.search(rf"^{name} (\S+)", text, re.M)[1])

    def settles(self, name: str, value: float, seconds: float = 20) -> bool:
        end = time.time() + seconds
        while time.time() < end:
            if self.metric(name) <= value:
                return True
            time.sleep(0.05)
        return False


def request(path: str, body: object, method: str = "POST", key: str | None = KEY, headers: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    secret = f"Authorization: Bearer {key}\r\n" if key is not None else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{secret}{headers}Content-Length: {len(data)}\r\n\r\n"
    return head.encode("utf-8", "surrogateescape") + data


def read_all(stream: socket.socket) -> bytes:
    parts = []
    try:
        while part := stream.recv(65536):
            parts.append(part)
    except TimeoutError:
        parts.append(b"<hangs>")
    except OSError:
        pass
    return b"".join(parts)


def parse(answer: bytes) -> tuple[int, bytes]:
    """Status and body; status 0 of a connection that was closed without one."""
    head, _, body = answer.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.[01] (\d+)", head)
    return int(found[1]) if found else 0, body


def chat(**fields: object) -> dict:
    return {"messages": [{"role": "user", "content": "i see ."}], "temperature": 0, "max_tokens": 24, **fields}


LONG = chat(max_tokens=480, temperature=2, seed=1, n=8, stream=True)


def is_error(status: int, body: bytes) -> bool:
    """Whether a refusal is one line in OpenAI's form."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return 400 <= status < 500 and isinstance(error["message"], str) and "\n" not in error["message"]


def at_once(work, items, threads: int = 64) -> list:
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))


def wrong_keys(server: Server):
    keys = [None, "", "x", KEY[:-1], KEY + "a", KEY.upper(), " ", "a" * 8000, "Bearer", KEY.replace("a", "\u0430")]
    paths = [("/v1/models", "GET"), ("/metrics", "GET"), ("/v1/pearl", "GET"), ("/openapi.json", "GET"), (CHAT, "POST")]
    found = {server.ask(path, chat(), method, key)[0] for key in keys for path, method in paths}
    return found <= {400, 401}, f"{len(keys) * len(paths)} requests, statuses {sorted(found)}"


def large_bodies(server: Server):
    before = server.status("VmRSS")

    def one(number: int) -> int:
        part = b" " * (1 << 20)
        head = request(CHAT, b"").replace(b"Content-Length: 0\r\n\r\n", b"")
        with server.connect() as stream:
            try:
                stream.sendall(head + (b"Transfer-Encoding: chunked\r\n\r\n" if number % 2 else b"Content-Length: 104857600\r\n\r\n"))
                for _ in range(100):
                    stream.sendall(b"100000\r\n" + part + b"\r\n" if number % 2 else part)
                stream.sendall(b"0\r\n\r\n" if number % 2 else b"")
            except OSError:
                pass
            return parse(read_all(stream))[0]

    found = at_once(one, range(6))
    grown = (server.status("VmRSS") - before) >> 10
    return set(found) == {413} and grown < 64, f"6 of 100 MB at once, statuses {sorted(set(found))}, {grown} MiB more"


def many_bodies(server: Server):
    before = server.status("VmRSS")
    data = request(CHAT, chat(user="u" * 900_000))

    def one(number: int) -> tuple[int, bool]:
        if number % 3 == 0:
            with server.connect() as stream:
                stream.sendall(data[: 700_000])
                time.sleep(0.3)
            return 200, True
        answer = server.raw(data)
        return parse(answer)[0], b"retry-after" in answer.lower()

    found = at_once(one, range(150), 100)
    grown = (server.status("VmRSS") - before) >> 10
    holds = all(status == 200 or status == 429 and again for status, again in found) and grown < 200
    counts = {status: [own for own, _ in found].count(status) for status in (200, 429)}
    return holds and server.settles("pearl_request_bytes", 0), f"150 of 0.9 MB, 100 at once, {counts}, {grown} MiB more"


def deep_json(server: Server):
    bodies = [open * depth + close * depth for depth in (200, 5_000, 100_000) for open, close in ((b"[", b"]"), (b'{"a":', b"}"))]
    bodies += [b'{"messages":' + body + b"}" for body in bodies] + [b'{"steering":' + body + b',"messages":[]}' for body in bodies]
    found = [server.ask(path, body) for body in bodies for path in (CHAT, TEXT, STATES)]
    return all(is_error(*one) for one in found), f"{len(found)} requests, to 100,000 levels"


def hostile_text(server: Server):
    bodies = [
        b'{"messages":[{"role":"user","content":"\xff\xfe"}]}', b'{"messages":[{"role":"user","content":"\\ud800"}]}', b"\xff\xfe\x00", b"",
        b'\xef\xbb\xbf{"messages":[]}', b'{"messages":[{"role":"user","content":"\xc0\xaf"}]}', b"{", b"null", b"[]", b'"', b"{}{}", b'{"a":1e999}',
        b'{"messages":[],"temperature":NaN}', b'{"messages":[],"max_tokens":' + b"9" * 400 + b"}", b'{"prompt":"\xed\xa0\x80"}', b"\x1f\x8b\x08" * 50,
    ]
    found = [server.ask(path, body) for body in bodies for path in (CHAT, TEXT, STATES)]
    text = "\u0000\u200b\u202e\uffff\U0010ffff\r\n\x1b[2J<|im_end|></think>"
    status, _ = server.ask(CHAT, chat(messages=[{"role": "user", "content": text}]))
    return all(is_error(*one) for one in found) and status in (200, 400), f"{len(found)} bodies that are no UTF-8 or no JSON, and control characters"


def names(server: Server, outside: pathlib.Path):
    wrong = ["../secret", "..", "/etc/passwd", str(outside), f"../{outside.name}", "..\\secret", "%2e%2e%2fsecret", "a\u0000b", "~/.ssh/id_rsa", "." * 5000,
             "file:///etc/passwd", "http://127.0.0.1:1/x", "\\\\host\\share", "CON", ""]
    fields = [lambda name: {"steering": name}, lambda name: {"steering": {"plan": name}}, lambda name: {"steering": {"constructive": name}},
              lambda name: {"steering": {"vectors": [{"source": name, "layers": [1]}]}}, lambda name: {"steering": {"interventions": [{"vector": name}]}},
              lambda name: {"steering": {"interventions": [{"operation": "project", "probe": f"{name}:a < 0.5"}]}},
              lambda name: {"probes": [name]}, lambda name: {"model": name + "x"}]
    found = [server.ask(CHAT, chat(**field(name))) for name in wrong for field in fields]
    paths = ["/../../etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd", "/v1/models/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/v1/models/%00", "/%ff"]
    said = [server.raw(request(path, b"", "GET")) for path in paths]
    statuses = {parse(one)[0] for one in said} | {status for status, _ in found}
    is_secret = any(b"root:" in one or b"of the outside" in one for one in [*said, *(body for _, body in found)])
    return all(is_error(*one) for one in found) and statuses <= {400, 404} and not is_secret, f"{len(found) + len(paths)} requests, statuses {sorted(statuses)}"


def slow_clients(server: Server):
    begin, dripped = time.time(), []

    def drip(number: int) -> float:
        head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " if number % 2 else request(CHAT, b"{" + b" " * 500)[:-500]
        with server.connect() as stream:
            try:
                stream.sendall(head if number % 2 == 0 else head[:5])
                while time.time() - begin < 30:
                    stream.sendall(b" " if number % 2 == 0 else b"a")
                    time.sleep(0.1)
                    stream.settimeout(0.001)
                    try:
                        if not stream.recv(4096):
                            break
                    except TimeoutError:
                        pass
            except OSError:
                pass
        return time.time() - begin

    with concurrent.futures.ThreadPoolExecutor(80) as pool:
        all_of_them = [pool.submit(drip, number) for number in range(80)]
        answered = server.ask(CHAT, chat())[0]
        dripped = [one.result() for one in all_of_them]
    return max(dripped) < 15 and answered == 200, f"80 that drip heads and bodies, closed within {max(dripped):.1f} s (limit 2 s), others answered meanwhile"


def half_open(server: Server):
    silent = [server.connect() for _ in range(40)]
    for number, stream in enumerate(silent):
        if number % 4 == 1:
            stream.sendall(b"POST /v1/chat")
        elif number % 4 == 2:
            stream.sendall(request(CHAT, chat())[:-5])
            stream.shutdown(socket.SHUT_WR)
        elif number % 4 == 3:
            stream.sendall(request(CHAT, LONG))
            reset(stream)
    answered = server.ask(CHAT, chat())[0]
    ended = [read_all(stream) for number, stream in enumerate(silent) if number % 4 != 3]
    hanging = sum(b"<hangs>" in one for one in ended)
    closed = server.settles("pearl_connections", 1)
    return answered == 200 and hanging == 0 and closed and server.settles("pearl_rows", 0), "40 that say nothing, break off, half close or reset"


def reset(stream: socket.socket) -> None:
    """Ends a connection by a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def dropped_streams(server: Server):
    def one(number: int) -> None:
        stream = server.connect()
        stream.sendall(request(CHAT, LONG | {"stream": number % 2 == 0}))
        if number % 2 == 0:
            stream.recv(100)
        else:
            time.sleep(0.02)
        reset(stream) if number % 3 else stream.close()

    at_once(one, range(60), 20)
    return server.settles("pearl_rows", 0) and server.settles("pearl_waiting", 0) and server.settles("pearl_request_bytes", 0), "60 in the middle of their answers"


def flood(server: Server):
    def one(number: int) -> tuple[int, bool]:
        answer = server.raw(request(CHAT, chat(max_tokens=4, n=1 + number % 3)), 60)
        return parse(answer)[0], b"retry-after" in answer.lower()

    found = at_once(one, range(2000), 150)
    counts = {status: [own for own, _ in found].count(status) for status in sorted({own for own, _ in found})}
    return set(counts) <= {200, 429} and all(again for status, again in found if status == 429), f"2000 requests, 150 at once, {counts}"


def connections(server: Server):
    many = [server.connect() for _ in range(600)]
    time.sleep(0.5)
    held = server.files()
    for stream in many:
        stream.close()
    return held < 256 + 60 and server.settles("pearl_connections", 1), f"600 connections, {held} files open with a limit of 256"


def wrong_http(server: Server):
    body = json.dumps(chat()).encode()
    post = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n"
    cases = [
        post + b"Content-Length: -5\r\n\r\n", post + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello", post + b"Content-Length: 99999999999999999999\r\n\r\n",
        post + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", post + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", post + b"Content-Length: 0x10\r\n\r\n",
        post + b"Transfer-Encoding: gzip\r\n\r\n" + body, b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * (1 << 20) + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"X: a\r\n" * 5000 + b"\r\n", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", b"GET /health HTTP/1.1\r\nNo colon\r\n\r\n", b"POST /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ]
    found = {parse(server.raw(case, 10))[0] for case in cases}
    both = server.raw(post + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    pipelined = server.raw(get * 999 + get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).count(b"HTTP/1.1 200")
    holds = all(status == 0 or 400 <= status < 500 for status in found) and both.count(b"HTTP/1.1") == 1 and pipelined == 1000
    return holds, f"{len(cases)} wrong heads, statuses {sorted(found)} (0: closed); two lengths; 1000 pipelined"


def noise(server: Server):
    draw = random.Random(5)
    for _ in range(300):
        server.raw(draw.randbytes(draw.randint(1, 400)) + b"\r\n\r\n", 10)
    base = json.dumps(chat(n=2, stop=["x"], logprobs=True, steering=None, probes=[], stream=False)).encode()
    found = []
    for _ in range(600):
        data = bytearray(base)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(data))
            match draw.randrange(4):
                case 0:
                    data[at] = draw.randrange(256)
                case 1:
                    del data[at : at + draw.randint(1, 9)]
                case 2:
                    data[at:at] = draw.choice([b"null", b"-1", b"1e9", b"[]", b"{}", b'""', b"true", b"\x00"])
                case _:
                    data[at:at] = data[draw.randrange(len(data)) :][: draw.randint(1, 30)]
        found.append(server.ask(draw.choice([CHAT, TEXT, STATES]), bytes(data)))
    counts = {status: [own for own, _ in found].count(status) for status in sorted({own for own, _ in found})}
    return all(status == 200 or is_error(status, body) for status, body in found), f"300 of random bytes, 600 mutated requests, {counts}"


def schemathesis(server: Server, program: str):
    command = [program, "run", f"http://127.0.0.1:{server.port}/openapi.json", "--header", f"Authorization: Bearer {KEY}", "--checks", CHECKS,
               "--max-examples", "40", "--seed", "3", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if done.returncode:
        return False, done.stdout[-6000:] + done.stderr[-500:]
    said = re.search(r"\d+ generated, \d+ passed", done.stdout)
    return said is not None, said[0] if said else "no summary"


CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection,unsupported_method"


def killed(server: Server, pearl: str, folder: pathlib.Path, expected: str) -> tuple[Server, bool, str]:
    """Ends the server by SIGKILL in the middle of answers, and starts it again at the same port."""
    before = content(folder)
    streams = [server.connect() for _ in range(30)]
    for stream in streams:
        stream.sendall(request(CHAT, LONG))
    streams[0].recv(100)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait()
    said = [read_all(stream) for stream in streams]
    hanging = sum(b"<hangs>" in one for one in said)
    broken = sum(b"[DONE]" not in one for one in said) - hanging
    again = Server(pearl, folder, server.port)
    same = answer(again) == expected and content(folder) == before
    return again, hanging == 0 and broken > 0 and same, f"{broken} of 30 clients got an error, the others were answered before; the same answer after the restart, the folder unchanged"


def content(folder: pathlib.Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def answer(server: Server) -> str:
    status, body = server.ask(CHAT, chat())
    return json.loads(body)["choices"][0]["message"]["content"] if status == 200 else f"status {status}: {body!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pearl")
    parser.add_argument("--schemathesis", metavar="PROGRAM")
    parser.add_argument("--only", metavar="NAME", help="one attack, by a part of its name")
    arguments = parser.parse_args()
    failed = False

    def report(name: str, holds: bool, saw: str, begin: float) -> None:
        nonlocal failed
        failed |= not holds
        print(f"{'ok    ' if holds else 'FAILED'} {name}: {saw} ({time.time() - begin:.1f} s)", flush=True)
        if failed:
            sys.exit(1)

    with tempfile.TemporaryDirectory() as base:
        folder, outside = pathlib.Path(base) / "vectors", pathlib.Path(base) / "secret.safetensors"
        folder.mkdir()
        outside.write_text("a file of the outside")
        server = Server(arguments.pearl, folder)
        expected = answer(server)
        at_once(lambda _: server.ask(CHAT, chat(n=4)), range(16), 8)
        begin_memory, begin_files, begin_threads = server.status("VmRSS"), server.files(), server.status("Threads")
        attacks = [
            ("wrong keys", wrong_keys), ("100 MB bodies", large_bodies), ("many bodies", many_bodies), ("deep JSON", deep_json),
            ("text", hostile_text), ("names and paths", lambda server: names(server, outside)), ("slow clients", slow_clients), ("half-open", half_open),
            ("dropped streams", dropped_streams), ("flood", flood), ("connections", connections), ("wrong HTTP", wrong_http), ("noise", noise),
        ]
        if arguments.schemathesis:
            attacks.append(("schemathesis", lambda server: schemathesis(server, arguments.schemathesis)))
        try:
            for name, attack in attacks:
                if arguments.only and arguments.only not in name:
                    continue
                begin = time.time()
                holds, saw = attack(server)
                found = answer(server) if server.process.poll() is None else "none: the server ended"
                report(name, holds and found == expected, saw if found == expected else f"{saw}; then the answer was {found!r}", begin)
            begin = time.time()
            server.settles("pearl_connections", 1)
            time.sleep(1)
            grown = (server.status("VmRSS") - begin_memory) >> 10
            files, threads = server.files() - begin_files, server.status("Threads") - begin_threads
            # Blocking threads of the runtime end ten seconds after their last work.
            report("what stays", grown < 250 and files < 8 and threads < 40, f"{grown} MiB, {files} files, {threads} threads more", begin)
            begin = time.time()
            server, holds, saw = killed(server, arguments.pearl, folder, expected)
            report("kill -9 and restart", holds, saw, begin)
        finally:
            server.process.kill()
            server.process.wait()


if __name__ == "__main__":
    main()
