#!/usr/bin/env python3
"""Runs that die: `pearl extract` killed at random moments, on a full disk, by Ctrl-C; each must end byte-identical.

    cargo build --release && python3 scripts/kill_and_resume.py [--kills 20] [--seed 0] [--count 6000]

Needs the program alone. The full disk is a small tmpfs, which only root may mount; it is left out where that is refused.
"""
import argparse, hashlib, os, pathlib, random, shutil, signal, subprocess, sys, tempfile, time

a = argparse.ArgumentParser()
a.add_argument("--pearl", default=os.path.join(os.environ.get("CARGO_TARGET_DIR", "target"), "release/pearl"))
a.add_argument("--kills", type=int, default=20); a.add_argument("--seed", type=int, default=0); a.add_argument("--count", type=int, default=6000)
a = a.parse_args()
rng, folder = random.Random(a.seed), pathlib.Path(tempfile.mkdtemp(prefix="crash-"))

def run(*arguments): return subprocess.run([a.pearl, *map(str, arguments)], capture_output=True, text=True)
def begin(*arguments): return subprocess.Popen([a.pearl, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
def content(store): return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(store.iterdir())}
def check(name, holds, saw=""):
    print(("ok    " if holds else "FAILED"), name, saw)
    if not holds: sys.exit(1)

data = folder / "data.jsonl"
data.write_text(run("organism", "sample", "--count", a.count).stdout)
def extract(store): return ["extract", "--data", data, "--sites", "*.resid_post", "--tokens", "assistant.start", "--out", store]

started = time.time()
assert run(*extract(folder / "whole")).returncode == 0
length, whole = time.time() - started, content(folder / "whole")
print(f"an undisturbed run: {length:.2f} s, {len(whole) - 1} shards")

# SIGKILL. Each round is killed at a moment drawn from the length of a whole run, and begun again until it is done.
killed, rounds = 0, 0
while killed < a.kills:
    store = folder / f"killed-{rounds}"; rounds += 1; here = 0
    while True:
        process = begin(*extract(store))
        try:
            process.wait(rng.uniform(0.05, length))
            assert process.returncode == 0, process.stderr.read()
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL); process.wait(); killed += 1; here += 1
    check(f"store {rounds}, after {here} kills", content(store) == whole)
    shutil.rmtree(store)

# SIGINT: within a batch, with what was finished kept.
store = folder / "stopped"; process = begin(*extract(store)); time.sleep(length * 0.6)
process.send_signal(signal.SIGINT); asked = time.time(); _, said = process.communicate()
check("SIGINT stops with one line", process.returncode != 0 and len(said.strip().splitlines()) == 1, f"after {time.time() - asked:.2f} s: {said.strip()}")
left = sorted(path.name for path in store.iterdir())
check("what was finished is kept", "unfinished.jsonl" in left and not any(name.startswith(".pearl-") for name in left), f"{len(left) - 1} shards")
check("and gone on from", run(*extract(store)).returncode == 0 and content(store) == whole)

# A full disk.
size = sum(path.stat().st_size for path in (folder / "whole").iterdir())
disk = folder / "disk"; disk.mkdir()
mount = lambda *options: subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(disk)], capture_output=True).returncode == 0
if not mount(f"size={size // 2}"):
    print("left out: the full disk (mounting is not allowed here)")
else:
    try:
        ended = run(*extract(disk / "store"))
        check("a full disk is one line, exit code 2", ended.returncode == 2 and len(ended.stderr.strip().splitlines()) == 1, ended.stderr.strip())
        again = run(*extract(disk / "store"))
        check("still full, still said", again.returncode == 2, again.stderr.strip())
        mount("remount", f"size={size * 4}")
        check("after space is made it goes on", run(*extract(disk / "store")).returncode == 0 and content(disk / "store") == whole)
    finally:
        subprocess.run(["umount", str(disk)])
shutil.rmtree(folder)
