"""Files of other tools become stores and vectors that the program reads."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import pearlpoint as pp


@pytest.fixture()
def dialogues(tmp_path):
    """Forty dialogues of two classes, and hidden states in which dimension 0 tells the class."""
    random = np.random.default_rng(0)
    states, lines = [], []
    for number in range(40):
        label = "high" if number % 2 else "low"
        lines.append(json.dumps({"id": str(number), "messages": [{"role": "user", "content": f"text {'a b c d e'.split()[number % 5]} end"}], "labels": {"risk": label}}))
        h = random.normal(size=(3 + number % 5, 2, 8)).astype(np.float32)
        h[-1, :, 0] += 6 if number % 2 else -6
        states.append(h)
    (tmp_path / "d.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path, states


def test_hidden_states_of_vllm_become_a_store_that_a_probe_is_fitted_on(dialogues):
    folder, states = dialogues
    (folder / "hidden").mkdir()
    for number, h in enumerate(states):
        save_file({"token_ids": np.arange(len(h)), "hidden_states": h}, folder / "hidden" / f"{number}.safetensors")
    store = pp.store_from_vllm(folder / "hidden", folder / "d.jsonl", folder / "store", sites=["7.resid_post", "15.resid_post"])
    # 10 comes after 9, not after 1.
    assert np.array_equal(store["15.resid_post"], np.stack([h[-1, 1] for h in states]))
    pp.run("store", "check", folder / "store", progress=False)
    pp.run("probe", "fit", store="store", data="d.jsonl", label="risk", out="p.safetensors", cwd=str(folder), progress=False)
    probe = pp.Probe(folder / "p.safetensors")
    assert probe.score(store[probe.site], store.labels(folder / "d.jsonl", "risk")) == 1
    with pytest.raises(FileExistsError):
        pp.store_from_vllm(folder / "hidden", folder / "d.jsonl", folder / "store", sites=["7.resid_post", "15.resid_post"])


def test_a_missing_file_or_layer_is_named(dialogues):
    folder, states = dialogues
    (folder / "hidden").mkdir()
    save_file({"token_ids": np.arange(len(states[0])), "hidden_states": states[0]}, folder / "hidden" / "0.safetensors")
    with pytest.raises(ValueError, match="1 files, but .* has 40 dialogues"):
        pp.store_from_vllm(folder / "hidden", folder / "d.jsonl", folder / "s", sites=["7.resid_post", "15.resid_post"])


def test_rows_of_a_dictionary_are_vectors(tmp_path):
    decoder = np.arange(12, dtype=np.float32).reshape(3, 4) + 1
    save_file({"W_dec": decoder, "b_dec": np.zeros(4, np.float32)}, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps({"hook_name": "blocks.12.hook_resid_post", "model_name": "tiny"}))
    vectors = pp.sae_vectors(tmp_path, [0, 2], scale=0.5)
    assert vectors[2].sites == ["12.resid_post"] and np.array_equal(vectors[2]["12.resid_post"], decoder[2] / 2)
    with pytest.raises(IndexError, match="there are 3"):
        pp.sae_vectors(tmp_path, [3])


def test_cached_activations_of_saelens_become_a_store(dialogues):
    pyarrow = pytest.importorskip("pyarrow")
    folder, states = dialogues
    column = "blocks.3.hook_resid_post"
    table = pyarrow.table({column: [h[:3, 0].tolist() for h in states], "token_ids": [[0, 1, 2]] * len(states)})
    (folder / "cache").mkdir()
    with pyarrow.OSFile(str(folder / "cache" / "data-0.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    store = pp.store_from_sae_activations(folder / "cache", folder / "d.jsonl", folder / "store", tokens="mean(all)")
    assert store.sites == ["3.resid_post"]
    assert np.allclose(store["3.resid_post"], np.stack([h[:3, 0].mean(axis=0) for h in states]), atol=1e-6)
