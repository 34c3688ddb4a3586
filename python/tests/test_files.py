"""What Python reads equals what the program wrote and says."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import pearlpoint as pp


def test_a_store_is_read_bit_for_bit(work):
    store = pp.Store(work / "store")
    assert store.sites == ["2.resid_post", "3.resid_post"] and len(store) == 200
    own = np.concatenate([load_file(work / "store" / name)["3.resid_post"] for name in store.manifest["shards"]])
    assert store["3.resid_post"].dtype == np.float32 and np.array_equal(store["3.resid_post"], own)
    assert store.example.tolist() == list(range(200)) and (store.position > 0).all()
    store.check()
    with pytest.raises(KeyError, match="not recorded; 2.resid_post"):
        store["9.resid_post"]


def test_half_precision_is_widened_as_numpy_and_the_standard_have_it(work):
    for kind, tolerance in (("bf16", 2**-8), ("f16", 2**-11)):
        out = f"store-{kind}"
        pp.run("extract", data="d.jsonl", sites="2.resid_post", tokens="assistant.start", store_dtype=kind, out=out, cwd=str(work), progress=False)
        h, exact = pp.Store(work / out)["2.resid_post"], pp.Store(work / "store")["2.resid_post"]
        assert h.dtype == np.float32
        assert np.all(np.abs(h - exact) <= tolerance * np.abs(exact) + 1e-7)


@pytest.mark.parametrize("name", ["user-type", "risk", "isotonic"])
def test_probabilities_are_those_of_probe_score(work, name):
    probe, store = pp.Probe(work / f"{name}.safetensors"), pp.Store(work / "store")
    rows = pp.run("probe", "score", f"{name}.safetensors", store="store", data="d.jsonl", json=True, cwd=str(work), progress=False)
    said = np.array([[row["probabilities"][label] for label in probe.classes_] for row in rows])
    assert np.abs(probe.predict_proba(store[probe.site]) - said).max() < 1e-6
    assert np.allclose(said.sum(axis=1), 1)


def test_a_probe_predicts_labels(work):
    probe, store = pp.Probe(work / "user-type.safetensors"), pp.Store(work / "store")
    labels = store.labels(work / "d.jsonl", "user-type")
    assert probe.score(store[probe.site], labels) > 0.95
    with pytest.raises(ValueError, match="this probe reads"):
        probe.predict(np.zeros((2, 3)))


def test_a_vector_is_read_bit_for_bit_and_written_so_that_the_program_steers_with_it(work, tmp_path):
    vector = pp.Vector(work / "v.safetensors")
    assert np.array_equal(vector["3.resid_post"], load_file(work / "v.safetensors")["3.resid_post"])
    vector.save(tmp_path / "copy.safetensors")
    answers = [
        pp.run("generate", prompt="my topic is music .", vector=f"{path}:2@3.resid_post", progress=False)
        for path in (work / "v.safetensors", tmp_path / "copy.safetensors")
    ]
    assert answers[0] == answers[1]
    mine = pp.Vector.of({"3.resid_post": np.ones(vector["3.resid_post"].shape)}, "by hand")
    mine.save(tmp_path / "mine.safetensors")
    assert "by hand" in pp.run("vector", "info", tmp_path / "mine.safetensors", progress=False)
    with pytest.raises(ValueError, match="isn't 0"):
        pp.Vector.of({"3.resid_post": np.zeros(4)}, "nothing")


def test_refusals_of_the_program_are_errors_with_its_message(work):
    with pytest.raises(pp.PearlError, match="missing.jsonl") as caught:
        pp.run("extract", data="missing.jsonl", out=work / "none", progress=False)
    assert caught.value.code == 2 and not (work / "none").exists()


def test_a_file_that_is_cut_short_is_refused(work, tmp_path):
    whole = (work / "v.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:5])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        pp.Vector(tmp_path / "cut.safetensors")
    with pytest.raises(FileNotFoundError, match="pearl extract"):
        pp.Store(tmp_path)


def test_results_are_a_frame(tmp_path):
    pandas = pytest.importorskip("pandas")
    figure = {"name": "auroc", "value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "split": "test"}
    (tmp_path / "results.json").write_text(json.dumps({"kind": "results", "version": 1, "figures": [figure], "doubts": ["so"]}))
    frame = pp.results(tmp_path)
    assert isinstance(frame, pandas.DataFrame) and frame.loc[0, "value"] == 0.5 and frame.attrs["doubts"] == ["so"]
