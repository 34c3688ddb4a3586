"""Extraction over Ray: one worker is killed on the way, and the store is that of one run."""

import filecmp
import os
import signal
import threading
import time

import pytest

import pearlpoint as pp

ray = pytest.importorskip("ray")


@pytest.fixture()
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_worker_killed_on_the_way_leaves_the_store_of_one_run(work, tmp_path, cluster):
    from pearlpoint.ray import extract

    killed = []

    def kill_one():
        """Kills the first worker whose shard is being made."""
        end = time.monotonic() + 60
        while time.monotonic() < end and not killed:
            for entry in os.listdir("/proc"):
                try:
                    line = open(f"/proc/{entry}/cmdline", "rb").read().split(b"\0")
                    if b"extract" in line and any(word.startswith(b"--shard=") for word in line):
                        parent = int(open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()[1])
                        os.kill(int(entry), signal.SIGKILL)
                        os.kill(parent, signal.SIGKILL)
                        killed.append(parent)
                        return
                except (OSError, ValueError):
                    continue
            time.sleep(0.005)

    killer = threading.Thread(target=kill_one)
    killer.start()
    words = ["--sites", "2,3.resid_post", "--tokens", "assistant.start"]
    extract("organism", work / "d.jsonl", tmp_path / "whole", 8, arguments=words, progress=False)
    killer.join()
    assert killed
    names = sorted(os.listdir(work / "store"))
    assert names == sorted(os.listdir(tmp_path / "whole"))
    different = [name for name in names if not filecmp.cmp(work / "store" / name, tmp_path / "whole" / name, shallow=False)]
    # The manifest names the file of dialogues as it was given.
    assert different in ([], ["manifest.json"])
    one, whole = pp.Store(work / "store").manifest, pp.Store(tmp_path / "whole").manifest
    assert {**one, "dataset": ""} == {**whole, "dataset": ""}


def test_parts_that_are_missing_are_named(work, tmp_path, cluster):
    from pearlpoint.ray import extract

    with pytest.raises(pp.PearlError, match="missing parts 1, 2 of 2: .*no-such-site"):
        extract("organism", work / "d.jsonl", tmp_path / "whole", 2, arguments=["--sites", "no-such-site"], progress=False)
    assert not (tmp_path / "whole").exists()
