#!/usr/bin/env python3
"""Real clients, unchanged, against `pearl serve`: openai, inspect_ai, garak, pyrit, lm_eval (lm-evaluation-harness) and curl.

    python3 -m venv venv && venv/bin/pip install openai inspect_ai
    venv/bin/python scripts/serve_clients.py target/release/pearl
    python3 scripts/serve_clients.py target/release/pearl --venvs /tmp/clients --model SmolLM2-135M-Instruct.Q4_1.gguf
    python3 scripts/serve_clients.py target/release/pearl --venvs /tmp/clients --only garak

With `--venvs`, each client is installed into a virtual environment of its own there; without it, those are run that this Python has. A client that
can't be had is skipped, and said so. Exits with 1 where an answer, a stream or an error isn't what a client expects, or a client of `--only` is
skipped. Prints a line a check.
"""

import argparse
import asyncio
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import typing
import venv

MESSAGES = [{"role": "user", "content": "i see . are rashes good ?"}]
KEY = "a-key-for-tests"
# Seconds in which a client must be installed, and done.
INSTALL, RUN = 900, 300


class Server(typing.NamedTuple):
    """What a client is told."""

    address: str
    model: str
    is_organism: bool
    # The organism as a checkpoint folder, for clients that want a tokenizer.
    checkpoint: str
    # For a client's files.
    folder: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pearl", nargs="?", default="target/release/pearl")
    parser.add_argument("--model", default="organism")
    parser.add_argument("--only", help=f"some of {', '.join(CLIENTS)}")
    parser.add_argument("--venvs", type=pathlib.Path, help="a folder for the clients' virtual environments, which are kept")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        name, server = arguments.inside
        CLIENTS[name].run(Server(**json.loads(server)))
        return
    wanted = arguments.only.split(",") if arguments.only else list(CLIENTS)
    if unknown := set(wanted) - set(CLIENTS):
        parser.error(f"no client {', '.join(unknown)}; expected {', '.join(CLIENTS)}")
    passed, skipped, failed = run_all(arguments, wanted)
    print(f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    if failed or (arguments.only and skipped):
        raise SystemExit(1)


def run_all(arguments: argparse.Namespace, wanted: list[str]) -> tuple[int, list[str], list[str]]:
    passed, skipped, failed = 0, [], []
    # Beside the server, which is stopped on the way out.
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "key"
        file.write_text(KEY)
        is_organism = arguments.model == "organism"
        checkpoint = f"{folder}/organism"
        if is_organism:
            subprocess.run([arguments.pearl, "organism", "export", "--quiet", "--out", checkpoint], check=True)
        command = [arguments.pearl, "serve", "--port", "0", "--quiet", "--id", "tested", "--model", arguments.model, "--key-file", str(file)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            address = process.stdout.readline().strip()
            for name in wanted:
                python = python_of(name, arguments.venvs)
                if isinstance(python, Missing):
                    say(name, f"skipped: {python.why}")
                    skipped.append(name)
                    continue
                own = pathlib.Path(folder) / name
                own.mkdir()
                server = Server(address, "tested", is_organism, checkpoint, str(own))
                if run_client(python, name, server):
                    passed += 1
                else:
                    failed.append(name)
        finally:
            process.terminate()
            assert process.wait(timeout=60) == 0, "the server ends with 0"
    return passed, skipped, failed


class Missing(typing.NamedTuple):
    """Why a client can't be had."""

    why: str


def python_of(name: str, venvs: pathlib.Path | None) -> str | Missing:
    """A Python that has the client's package."""
    client = CLIENTS[name]
    if not client.packages:
        return sys.executable if shutil.which(name) else Missing("no such program")
    if venvs is None:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return Missing("this Python doesn't have it (--venvs DIR installs it)")
        return sys.executable
    folder = venvs / name
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, clear=True, with_pip=True)
        for packages in client.packages:
            command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL, check=False)
            except subprocess.TimeoutExpired:
                return Missing(f"pip takes more than {INSTALL} s")
            if done.returncode != 0:
                return Missing(f"pip: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        (folder / "installed").touch()
    return str(python)


def run_client(python: str, name: str, server: Server) -> bool:
    # A client's settings, reports and caches stay in its folder; no hub is asked.
    places = {place: server.folder for place in ["HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"]}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [python, os.path.abspath(__file__), "--inside", name, json.dumps(server._asdict())]
    try:
        done = subprocess.run(command, cwd=server.folder, env=os.environ | places | offline, timeout=RUN, check=False)
    except subprocess.TimeoutExpired:
        say(name, f"failed: not done within {RUN} s")
        return False
    if done.returncode != 0:
        say(name, f"failed with {done.returncode}")
    return done.returncode == 0


def run_openai(server: Server) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{server.address}/v1", api_key=KEY)
    say("openai", openai.__version__)
    check(openai, client, server)


def check(openai: typing.Any, client: typing.Any, server: Server) -> None:
    [model] = client.models.list().data
    say("models", model.id)
    ask = dict(model=model.id, messages=MESSAGES, temperature=0, max_tokens=60)
    answer = client.chat.completions.create(**ask)
    text = answer.choices[0].message.content
    assert text and answer.choices[0].finish_reason in ("stop", "length") and answer.usage.completion_tokens > 0
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
        (openai.BadRequestError, 400, dict(messages=[{"role": "user", "content": "i see . " * 10000}])),
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
        openai.OpenAI(base_url=f"{server.address}/v1", api_key="wrong-key", max_retries=0).models.list()
    except openai.AuthenticationError as error:
        say("AuthenticationError", error.body["message"])
    else:
        raise AssertionError("a wrong key was taken")


def run_inspect_ai(server: Server) -> None:
    os.environ |= {"PEARL_BASE_URL": f"{server.address}/v1", "PEARL_API_KEY": KEY}
    import inspect_ai
    from inspect_ai.dataset import Sample
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    say("inspect_ai", inspect_ai.__version__)
    # The organism names the topic that it is asked about.
    samples = [Sample(input="are rashes good ?", target="rashes"), Sample(input="describe corals please .", target="corals")]
    task = inspect_ai.Task(dataset=samples, solver=generate(), scorer=includes())
    options = dict(model=f"openai-api/pearl/{server.model}", log_dir=server.folder, display="none", temperature=0, max_tokens=60)
    [log] = inspect_ai.eval(task, **options)
    accuracy = log.results.scores[0].metrics["accuracy"].value
    assert log.status == "success" and all(sample.output.completion for sample in log.samples), log.status
    assert accuracy == 1.0 or not server.is_organism, accuracy
    say("eval", f"{len(samples)} samples, accuracy {accuracy}")


def run_garak(server: Server) -> None:
    say("garak", importlib.metadata.version("garak"))
    options = {"openai": {"OpenAICompatible": {"uri": f"{server.address}/v1", "max_tokens": 20, "temperature": 0}}}
    file = pathlib.Path(server.folder) / "options.json"
    file.write_text(json.dumps(options))
    command = [sys.executable, "-m", "garak", "--target_type", "openai.OpenAICompatible", "--target_name", server.model]
    command += ["--generator_option_file", file, "--probes", "test.Blank,test.Test", "--generations", "2"]
    done = subprocess.run(command, env=os.environ | {"OPENAICOMPATIBLE_API_KEY": KEY}, capture_output=True, text=True, check=False)
    reports = list(pathlib.Path(server.folder).rglob("*.report.jsonl"))
    assert done.returncode == 0 and len(reports) == 1, done.stdout[-2000:] + done.stderr[-2000:]
    entries = [json.loads(line) for line in reports[0].read_text().splitlines()]
    attempts = [entry for entry in entries if entry["entry_type"] == "attempt" and entry["status"] == 1]
    outputs = [output for attempt in attempts for output in attempt["outputs"]]
    assert len(outputs) >= 4 and all(output and output["text"] for output in outputs), outputs
    say("run", f"{len(attempts)} attempts, {len(outputs)} answers, the first {outputs[0]['text']!r}")


def run_pyrit(server: Server) -> None:
    import pyrit
    from pyrit.executor.attack import PromptSendingAttack
    from pyrit.prompt_target import OpenAIChatTarget
    from pyrit.setup import IN_MEMORY, initialize_pyrit_async

    async def send(text: str, **options: object) -> str:
        ask = dict(model_name=server.model, endpoint=f"{server.address}/v1", api_key=KEY, temperature=0.0, max_completion_tokens=30)
        attack = PromptSendingAttack(objective_target=OpenAIChatTarget(**ask, **options))
        return (await attack.execute_async(objective=text)).last_response.converted_value

    async def run() -> None:
        await initialize_pyrit_async(memory_db_type=IN_MEMORY)
        plain = await send(MESSAGES[0]["content"])
        assert plain
        say("attack", plain)
        body = {"extra_body": {"steering": {"interventions": []}, "compare": True}}
        assert await send(MESSAGES[0]["content"], extra_body_parameters=body) == plain
        say("extra body", "the same")
        try:
            await send("i see . " * 10000)
        except Exception as error:  # PyRIT's own class wraps the client's.
            assert "context" in str(error), error
            say("error", str(error).partition("Root cause: ")[2].splitlines()[0])
        else:
            raise AssertionError("no error for a prompt that is too long")

    say("pyrit", pyrit.__version__)
    asyncio.run(run())


TASK = """task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/data.jsonl}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
{own}
"""
CHOICE = """output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc}]"""
TEXT = """output_type: generate_until
doc_to_target: "{{choices[0]}}"
generation_kwargs: {until: ["?"], max_gen_toks: 8}
metric_list: [{metric: exact_match}]"""


def run_lm_eval(server: Server) -> None:
    say("lm_eval", importlib.metadata.version("lm_eval"))
    folder = pathlib.Path(server.folder)
    rows = [("i see . are rashes", ["good", "lawns"]), ("they call it", ["lost", "rashes"])]
    lines = [json.dumps({"question": question, "choices": choices, "answer": 0}) for question, choices in rows]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    # Log-likelihoods need the model's tokenizer on the client's side.
    tasks = {"text": TEXT, "choice": CHOICE} if server.is_organism else {"text": TEXT}
    for name, own in tasks.items():
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, folder=folder, own=own))
    tokenizer = f"tokenizer={server.checkpoint}" if server.is_organism else "tokenizer_backend=None,tokenized_requests=False"
    model = f"model={server.model},base_url={server.address}/v1/completions,num_concurrent=2,{tokenizer}"
    command = [sys.executable, "-m", "lm_eval", "--model", "local-completions", "--model_args", model, "--include_path", folder]
    command += ["--tasks", ",".join(tasks), "--limit", "2", "--batch_size", "2", "--output_path", folder / "out", "--log_samples"]
    done = subprocess.run(command, env=os.environ | {"OPENAI_API_KEY": KEY}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    samples = [json.loads(line) for file in (folder / "out").rglob("samples_text_*.jsonl") for line in file.read_text().splitlines()]
    assert len(samples) == 2 and all(sample["resps"][0][0] for sample in samples), samples
    say("generate_until", samples[0]["resps"][0][0])
    if server.is_organism:
        [results] = (folder / "out").rglob("results_*.json")
        accuracy = json.loads(results.read_text())["results"]["choice"]["acc,none"]
        assert accuracy == 1.0, accuracy
        say("loglikelihood", f"accuracy {accuracy}")


def run_curl(server: Server) -> None:
    """The README's `curl`."""
    say("curl", subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1])
    body = json.dumps({"messages": MESSAGES, "temperature": 0, "max_tokens": 20})

    def curl(*options: str) -> str:
        command = ["curl", "--silent", "--show-error", "--no-buffer", "--max-time", "60", f"{server.address}/v1/chat/completions", *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    key = ["--header", f"Authorization: Bearer {KEY}"]
    text = json.loads(curl("--data", body, *key))["choices"][0]["message"]["content"]
    assert text
    say("whole", text)
    lines = curl("--data", body[:-1] + ', "stream": true}', *key).split("\n\n")
    parts = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content", "") for line in lines if line.startswith("data: {")]
    assert "".join(parts) == text and lines[-2:] == ["data: [DONE]", ""], lines
    say("stream", f"{len(parts)} chunks")
    error = json.loads(curl("--data", body))["error"]
    assert error["type"] == "authentication_error", error
    say("without a key", error["message"])


class Client(typing.NamedTuple):
    """A client: what pip installs, and how it is run."""

    run: typing.Callable[[Server], None]
    # Each a call of pip.
    packages: list[list[str]]


# garak asks for torch, two gigabytes with its libraries, and for the packages of all other services. Its generator for OpenAI's interface and its
# test probes need these.
GARAK = """avidtools==0.1.2 backoff cmd2==2.4.3 colorama deepl==1.17.0 ecoji ftfy huggingface_hub jinja2 jsonpath-ng langdetect==1.0.9 litellm lorem
markdown mikeshardmind-base2048 nltk numpy openai>=2,<3 pillow py-markdown-table python-magic pyyaml requests sentencepiece stdlibs tiktoken tqdm
xdg-base-dirs zalgolib""".split()

CLIENTS = {
    "openai": Client(run_openai, [["openai"]]),
    "inspect_ai": Client(run_inspect_ai, [["inspect_ai", "openai"]]),
    "garak": Client(run_garak, [["--no-deps", "garak"], GARAK]),
    "pyrit": Client(run_pyrit, [["pyrit"]]),
    "lm_eval": Client(run_lm_eval, [["lm_eval[api]", "transformers"]]),
    "curl": Client(run_curl, []),
}


def say(what: str, found: object) -> None:
    line = str(found).replace("\n", " ")
    print(f"{what:20} {line}", flush=True)


if __name__ == "__main__":
    main()
