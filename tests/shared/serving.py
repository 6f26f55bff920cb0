"""`coatcheck serve` and the other commands as processes of their own, and a browser over a real connection."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import watchdog

from coatcheck.core.set_cookie import parse_set_cookie

NAME, PASSWORD = "ann", "a lantern under the stairs"
DEADLINE = 30


def cli(*words: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "coatcheck.cli", *words]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=DEADLINE, env=_environ(environment), check=False
    )


class Served:
    """A server process. What it prints is read by a thread, so that it never waits for us."""

    def __init__(self, data: Path, *words: str, environment: Mapping[str, str] | None = None) -> None:
        self.data = data
        command = [sys.executable, "-m", "coatcheck.cli", "serve", "--data-dir", str(data), "--port", "0", *words]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environ(environment)
        )
        watchdog.watch(self.process.pid)
        self.printed: list[str] = []
        self.logged: list[str] = []
        self._readers = [
            threading.Thread(target=lambda: self.printed.extend(self.process.stdout or ()), daemon=True),
            threading.Thread(target=lambda: self.logged.extend(self.process.stderr or ()), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def ready(self) -> Served:
        """Return when it listens."""
        until(lambda: any("  keys " in line for line in self.printed) or self.process.poll() is not None)
        assert self._port, (self.text, self.logged)
        return self

    @property
    def port(self) -> int:
        found = self._port
        assert found, (self.text, self.logged)
        return int(found[1])

    @property
    def text(self) -> str:
        return "".join(self.printed)

    @property
    def set_up_path(self) -> str:
        """Of the link that makes the first account."""
        found: list[str] = []

        def printed() -> bool:
            found[:] = re.findall(r"https?://[^/]+(/set-up/\S+)\n", self.text)
            return bool(found)

        until(printed)
        return found[0]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(DEADLINE)
        watchdog.forget(self.process.pid)
        for reader in self._readers:
            reader.join(DEADLINE)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code

    @property
    def _port(self) -> re.Match[str] | None:
        return re.search(r"port (\d+)\)", self.text)


class Visitor:
    """A browser over a real connection; http.client, which knows nothing of cookies."""

    def __init__(self, served: Served) -> None:
        self.port = served.port
        self.jar: dict[str, str] = {}

    def __call__(
        self, method: str, path: str, body: Any = None, *, bearer: str = "", form: bool = False, forwarded: str = ""
    ) -> Any:
        headers = {"X-Forwarded-For": forwarded} if forwarded else {}
        headers |= {"Sec-Fetch-Site": "same-origin", "Host": f"localhost:{self.port}"}
        if self.jar:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        content = None
        if form:
            content, headers["Content-Type"] = urlencode(body), "application/x-www-form-urlencoded"
        elif body is not None:
            content, headers["Content-Type"] = json.dumps(body), "application/json"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        for line in response.headers.get_all("Set-Cookie") or ():
            stored = parse_set_cookie(line.encode(), now=0)
            assert stored is not None
            if stored.expires_at is not None and stored.expires_at <= 0:
                self.jar.pop(stored.name.decode(), None)
            else:
                self.jar[stored.name.decode()] = stored.value.decode()
        is_json = "json" in response.headers.get("Content-Type", "")
        return response.status, json.loads(text) if is_json else text.decode()

    def sign_in(self, **more: Any) -> Any:
        status, found = self("POST", "/api/sign-in", {"account": NAME, "password": PASSWORD, **more})
        assert status == 200, found
        return found

    def at(self, served: Served) -> Visitor:
        """The same browser at another server."""
        other = Visitor(served)
        other.jar = dict(self.jar)
        return other


def until(condition: Callable[[], bool]) -> float:
    """Wait until something is so, and return how long it took; it is the deadline that fails, never the machine."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < DEADLINE, "this did not come about"
        time.sleep(0.01)
    return time.monotonic() - began


def _environ(changes: Mapping[str, str] | None) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name != "FORWARDED_ALLOW_IPS"}, **(changes or {})}
