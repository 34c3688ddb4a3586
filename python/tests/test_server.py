"""The server as a context: an answer with a reading, and an end without a process left."""

import urllib.error

import pytest

import pearlpoint as pp


def test_an_answer_has_the_reading_of_a_probe(work):
    with pp.Server(vectors=work) as server:
        answer = server.chat("my topic is music .", max_tokens=8, temperature=0, probes=["user-type"])
        assert answer["choices"][0]["message"]["content"] is not None
        assert "user-type" in str(answer["choices"][0]["pearl"]["readings"])
        with pytest.raises(urllib.error.HTTPError) as refused:
            server.chat("my topic is music .", probes=["../user-type"])
        assert refused.value.code == 400
        process = server._process
    assert process.returncode == 0


def test_a_server_that_cannot_start_says_why():
    with pytest.raises(pp.PearlError, match="nowhere"), pp.Server(model="nowhere"):
        pass
