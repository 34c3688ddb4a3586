"""`pearl serve` as a context."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from typing import Any, Optional

from .command import PearlError, arguments, binary


class Server:
    """Starts `pearl serve` on a free port of this machine and stops it at the end.

    >>> with Server(model="organism") as server:
    ...     server.chat("hello", probes=["risk"])

    `url` is what OpenAI clients take as `base_url`. Further arguments are the command's options.
    """

    def __init__(self, model: str = "organism", *, wait: float = 120.0, port: Optional[int] = None, **options: Any):
        self.port = port or _free_port()
        self.model, self.wait, self.options = model, wait, options
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._messages: Any = None

    def __enter__(self) -> "Server":
        line = [binary(), *arguments(["serve"], {"model": self.model, "port": self.port, **self.options})]
        self._messages = tempfile.TemporaryFile()
        self._process = subprocess.Popen(line, stdout=self._messages, stderr=self._messages)
        end = time.monotonic() + self.wait
        while time.monotonic() < end:
            if self._process.poll() is not None:
                self._messages.seek(0)
                raise PearlError(self._messages.read().decode("utf-8", "replace").strip(), self._process.returncode)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1):
                    return self
            except OSError:
                time.sleep(0.05)
        self.__exit__()
        raise TimeoutError(f"pearl serve: no answer on port {self.port} after {self.wait:g} s")

    def __exit__(self, *_: Any) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM if os.name != "nt" else signal.CTRL_BREAK_EVENT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def chat(self, messages: Any, **fields: Any) -> Any:
        """One answer of `/v1/chat/completions`, parsed. `messages` may be the text of one user message."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        body = json.dumps({"model": self.model, "messages": messages, **fields}).encode()
        request = urllib.request.Request(f"{self.url}/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
