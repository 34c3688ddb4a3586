import os
import pathlib

import pytest

import pearlpoint as pp


@pytest.fixture(scope="session")
def work(tmp_path_factory):
    """Dialogues of the organism's world, a store, a probe and a vector, made by the program."""
    folder = tmp_path_factory.mktemp("work")
    quiet = {"progress": False, "cwd": str(folder)}
    pp.run("organism", "sample", count=200, seed=3, out="d.jsonl", **quiet)
    pp.run("extract", data="d.jsonl", sites="2,3.resid_post", tokens="assistant.start", out="store", **quiet)
    fit = {"store": "store", "data": "d.jsonl", "group": "topic", "c_grid": "0.1,1", **quiet}
    pp.run("probe", "fit", label="user-type", out="user-type.safetensors", **fit)
    pp.run("probe", "fit", label="risk-level", kind="ordinal", order="R0,R1,R2", sites="3.resid_post", out="risk.safetensors", **fit)
    pp.run("probe", "fit", label="user-type", calibration="isotonic", sites="2.resid_post", out="isotonic.safetensors", **fit)
    pp.run("vector", "build", store="store", data="d.jsonl", label="user-type", from_="benign", to="malicious", out="v.safetensors", **quiet)
    return pathlib.Path(folder)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    os.environ.pop("PEARL_BACKEND", None)
