"""A real Chromium against a real `coatcheck serve`.

Chromium is found in COATCHECK_CHROMIUM or on the PATH; without one these tests fail, they are not skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, BrowserType, Page, sync_playwright

NAME, PASSWORD = "ada", "nine purple umbrellas"
# What keeps a distribution's Chromium quiet: no sandbox as root in a container, nothing fetched from elsewhere.
# Names in .test are this machine.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.test 127.0.0.1",
]


@dataclass
class Served:
    """A running `coatcheck serve`."""

    url: str
    set_up_link: str
    data_dir: Path
    process: subprocess.Popen[str] = field(repr=False)


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[], Served]]:
    """Start servers, each with a data directory of its own."""
    with ExitStack() as stack:

        def start() -> Served:
            data = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data"
            command = [sys.executable, "-m", "coatcheck.cli", "serve", "--port", "0", "--data-dir", str(data)]
            environment = {name: value for name, value in os.environ.items() if not name.startswith("COATCHECK_")}
            process = subprocess.Popen(
                [*command, "--algorithm", "ES256"], stdout=subprocess.PIPE, text=True, env=environment
            )
            stack.callback(_stop, process)
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"(http://localhost:\d+)/set-up/\S+", line):
                    return Served(found[1], found[0], data, process)
            raise AssertionError(f"coatcheck serve ended with {process.wait()}")

        yield start


@pytest.fixture
def fresh(serve: Callable[[], Served]) -> Served:
    """A server that nobody has used."""
    return serve()


@pytest.fixture(scope="module")
def served(serve: Callable[[], Served], chromium: Browser) -> Served:
    """A server with one account, shared by a module's tests that only sign in."""
    server = serve()
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(server.set_up_link)
        page.fill("#account", NAME)
        page.fill("#password", PASSWORD)
        page.click("button.main")
        page.wait_for_url("**/account*")
    return server


@pytest.fixture(scope="session")
def executable() -> str:
    """The Chromium to drive."""
    found = os.environ.get("COATCHECK_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "the browser tests need Chromium: set COATCHECK_CHROMIUM, or put `chromium` on the PATH"
    return found


# Of a module and not of the session: while it lives, an event loop runs in this thread, and async tests cannot.
@pytest.fixture(scope="module")
def browser_type() -> Iterator[BrowserType]:
    """Chromium's launcher."""
    with sync_playwright() as playwright:
        yield playwright.chromium


@pytest.fixture(scope="module")
def chromium(browser_type: BrowserType, executable: str) -> Iterator[Browser]:
    """One Chromium for a module's tests; each has contexts of its own."""
    browser = browser_type.launch(executable_path=executable, args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def new_context(chromium: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Open browser contexts, which share nothing, and close them after the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(chromium.new_context(**options))


@pytest.fixture
def page(new_context: Callable[..., BrowserContext]) -> Page:
    """A page in a browser that has been nowhere."""
    return new_context().new_page()


@pytest.fixture
def restarted(browser_type: BrowserType, executable: str, tmp_path: Path) -> Iterator[Callable[[], BrowserContext]]:
    """Start a browser on one profile again and again: what it remembers is what is on its disk."""
    with ExitStack() as stack:

        def start() -> BrowserContext:
            # The one before is closed first, as people close a browser.
            stack.close()
            context = browser_type.launch_persistent_context(
                tmp_path / "profile", executable_path=executable, args=FLAGS
            )
            stack.callback(context.close)
            return context

        yield start


@pytest.fixture
def sign_in() -> Callable[..., None]:
    """Fill in the sign-in form."""

    def fill(page: Page, url: str, password: str = PASSWORD, *, remember: bool = False, **_: Any) -> None:
        page.goto(f"{url}/sign-in")
        page.fill("#account", NAME)
        page.fill("#password", password)
        if remember:
            page.check("#remember")
        page.click("button.main")
        page.wait_for_url("**/account*")

    return fill


@pytest.fixture
def kept() -> Callable[[BrowserContext], list[str]]:
    """The names of the cookies that a browser has."""
    return lambda context: [cookie.get("name", "") for cookie in context.cookies()]


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture
def elsewhere() -> Iterator[Callable[[str], int]]:
    """Serve a page on another port, under whatever name leads to this machine."""
    with ExitStack() as stack:
        yield lambda body: _listen(stack, [], body)


@pytest.fixture
def sending() -> Iterator[Callable[[list[bytes]], int]]:
    """Serve Set-Cookie lines on a port."""
    with ExitStack() as stack:
        yield lambda lines: _listen(stack, lines, "")


def _listen(stack: ExitStack, lines: list[bytes], body: str) -> int:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Browsers ask for an icon too, when they like: a line sent with that would come at any time.
            wanted = self.path != "/favicon.ico"
            self.send_response(200 if wanted else 404)
            self.send_header("Content-Type", "text/html")
            for line in lines if wanted else []:
                self.send_header("Set-Cookie", line.decode("latin-1"))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown)
    return server.server_port
