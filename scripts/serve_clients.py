#!/usr/bin/env python3
"""OpenAI's Python package, and inspect_ai where it is installed, unchanged, against `pearl serve` with the embedded organism.

    python3 -m venv venv && venv/bin/pip install openai inspect_ai
    venv/bin/python scripts/serve_clients.py target/release/pearl

Exits with 1 where an answer, a stream or an error isn't what a client expects. Prints a line a check.
"""

import importlib.util
import os

import pathlib
import subprocess
import sys
import tempfile

import openai

MESSAGES = [{"role": "user", "content": "i see . are rashes good ?"}]


def main(pearl: str) -> None:
    key = "a-key-for-tests"
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "key"
        file.write_text(key)
        command = [pearl, "serve", "--port", "0", "--quiet", "--key-file", str(file)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().strip()
            check(openai.OpenAI(base_url=f"{address}/v1", api_key=key), address)
            if importlib.util.find_spec("inspect_ai"):
                inspect(address, key, folder)
        finally:
            server.terminate()
            assert server.wait(timeout=60) == 0, "the server ends with 0"


def check(client: openai.OpenAI, address: str) -> None:
    [model] = client.models.list().data
    say("models", model.id)
    ask = dict(model=model.id, messages=MESSAGES, temperature=0, max_tokens=60)
    answer = client.chat.completions.create(**ask)
    text = answer.choices[0].message.content
    assert text and answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens > 0
    say("chat", text)

    parts, usage = [], None
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        parts += [choice.delta.content or "" for choice in chunk.choices]
        usage = chunk.usage or usage
    assert "".join(parts) == text and usage == answer.usage, (parts, usage)
    say("stream", f"{len(parts)} chunks")

    scored = client.chat.completions.create(**ask, logprobs=True, top_logprobs=3)
    content = scored.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens and len(content[0].top_logprobs) == 3
    assert content[0].top_logprobs[0].token == content[0].token, "greedy takes the likeliest"
    say("logprobs", f"{content[0].token} {content[0].logprob:.3f}")

    drawn = [
        [choice.message.content for choice in client.chat.completions.create(**{**ask, "temperature": 1}, seed=3, n=4).choices]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 4
    say("seed and n", drawn[0][0])

    stop = " " + text.split()[3]
    stopped = client.chat.completions.create(**ask, stop=[stop])
    assert stopped.choices[0].message.content == text[: text.find(stop)]
    say("stop", stopped.choices[0].message.content)

    done = client.completions.create(model=model.id, prompt=["i see", "they call"], max_tokens=3, temperature=0, logprobs=1, echo=True)
    assert done.choices[0].text.startswith("i see") and len(done.choices[0].logprobs.token_logprobs) == 5
    say("completions", done.choices[0].text)

    steered = client.chat.completions.create(**ask, extra_body={"steering": {"interventions": []}, "probes": [], "compare": True})
    assert [choice.message.content for choice in steered.choices] == [text, text]
    say("extra_body", steered.choices[0].model_extra["pearl"])

    for kind, status, change in [
        (openai.BadRequestError, 400, dict(temperature=5)),
        (openai.BadRequestError, 400, dict(response_format={"type": "json_object"})),
        (openai.BadRequestError, 400, dict(messages=[{"role": "user", "content": "i see . " * 1000}])),
        (openai.NotFoundError, 404, dict(model="other")),
    ]:
        try:
            client.chat.completions.create(**{**ask, **change})
        except kind as error:
            assert error.status_code == status and error.body["message"], error
            say(kind.__name__, error.body["message"])
        else:
            raise AssertionError(f"no {kind.__name__} for {change}")
    try:
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong-key", max_retries=0).models.list()
    except openai.AuthenticationError as error:
        say("AuthenticationError", error.body["message"])
    else:
        raise AssertionError("a wrong key was taken")


def inspect(address: str, key: str, folder: str) -> None:
    import inspect_ai
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    os.environ |= {"PEARL_BASE_URL": f"{address}/v1", "PEARL_API_KEY": key}
    # The organism names the topic that it is asked about.
    samples = [Sample(input="are rashes good ?", target="rashes"), Sample(input="describe corals please .", target="corals")]
    task = inspect_ai.Task(dataset=samples, solver=generate(), scorer=includes())
    options = dict(model="openai-api/pearl/organism", log_dir=folder, display="none", temperature=0, max_tokens=60)
    [log] = inspect_ai.eval(task, **options)
    accuracy = log.results.scores[0].metrics["accuracy"].value
    assert log.status == "success" and accuracy == 1.0, (log.status, accuracy)
    say("inspect_ai", f"{len(samples)} samples, accuracy {accuracy}")


def say(what: str, found: object) -> None:
    print(f"{what:20} {found}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "target/release/pearl")
