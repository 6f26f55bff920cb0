"""Every example is what its page says: started with one command, used over http, and short."""

from __future__ import annotations

import http.client
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import pytest
import watchdog
from serving import until

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/app.py"))
# The lines of an example that its author writes because of us.
OURS = re.compile(r"coat\b|coatcheck|exchange|Exchange|session|sign_in\(|sign_out\(|principal|require\(")
NOT_CODE = re.compile(r'^\s*(#|"""|\'\'\')')


class Visitor:
    """A browser at one example."""

    def __init__(self, port: int) -> None:
        self.port, self.cookies = port, dict[str, str]()

    def __call__(self, method: str, path: str, **form: str) -> tuple[int, str]:
        headers = {"Host": f"localhost:{self.port}", "Sec-Fetch-Site": "same-origin"}
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, urlencode(form) if method == "POST" else None, headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        for line in response.headers.get_all("Set-Cookie") or ():
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        self.cookies = {name: value for name, value in self.cookies.items() if value}
        return response.status, text


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_there_is_one_for_each_framework() -> None:
    assert set(NAMES) == {"aiohttp", "django", "fastapi", "flask", "litestar", "quart", "starlette"}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_lets_people_in_and_out(name: str, tmp_path: Path) -> None:
    port = unused_port()
    environment = {**os.environ, "PORT": str(port), "TMPDIR": str(tmp_path)}
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name / "app.py")], env=environment, stdout=log, stderr=log, cwd=tmp_path
    )
    watchdog.watch(process.pid)
    try:
        until(lambda: answers(port) or process.poll() is not None)
        assert process.poll() is None, Path(log.name).read_text()
        visitor = Visitor(port)
        assert visitor("GET", "/") == (200, "hello stranger")
        assert visitor("POST", "/sign-in", name="ann", password="wrong")[0] == 403
        assert visitor("GET", "/") == (200, "hello stranger")
        assert visitor("POST", "/sign-in", name="ann", password="four words of mine")[0] < 400
        assert visitor("GET", "/") == (200, "hello ann")
        stolen = dict(visitor.cookies)
        assert visitor("POST", "/sign-out")[0] < 400
        assert visitor("GET", "/") == (200, "hello stranger")
        visitor.cookies = stolen
        assert visitor("GET", "/")[1] != "hello ann"
    finally:
        process.terminate()
        process.wait(30)
        watchdog.forget(process.pid)
        log.close()


@pytest.mark.parametrize("name", NAMES)
def test_an_example_has_at_most_twelve_lines_of_ours(name: str) -> None:
    code = (EXAMPLES / name / "app.py").read_text().split('"""', 2)[2]
    ours = [line for line in code.splitlines() if OURS.search(line) and not NOT_CODE.match(line)]
    assert len(ours) <= 12, "\n".join(ours)
