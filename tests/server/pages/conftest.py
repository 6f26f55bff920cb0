"""A server in process, and browsers that visit its pages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from coatcheck.server.app import create_app
from coatcheck.server.passwords import Passwords
from coatcheck.server.server import Server
from coatcheck.server.settings import Settings
from coatcheck.web.asgi import App

NAME, PASSWORD = "ada", "nine purple umbrellas"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.2 Mobile/15E148 Safari/604.1"
)


class Page:
    """An answer, as a person would look at it."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.headers = [(name.decode(), value.decode("latin-1")) for name, value in headers]
        self.body = body.decode("utf-8")

    def header(self, name: str) -> str | None:
        found = [value for header, value in self.headers if header == name]
        return ", ".join(found) if found else None

    @property
    def location(self) -> str:
        assert self.status in (302, 303)
        return self.header("location") or ""

    @property
    def text(self) -> str:
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self.body)).split())

    def ids(self) -> list[str]:
        return re.findall(r'name="id" value="([^"]+)"', self.body)


class Browser:
    """One browser: it keeps the cookies that it is told to, and says who it is."""

    def __init__(self, app: App, agent: str = FIREFOX, address: str = "203.0.113.7") -> None:
        self.app, self.agent, self.address = app, agent, address
        self.jar: dict[str, str] = {}
        self.lines: list[str] = []

    async def get(self, path: str) -> Page:
        return await self.send("GET", path)

    async def post(self, path: str, **fields: str) -> Page:
        form = urlencode(fields).encode()
        return await self.send("POST", path, form, [("content-type", "application/x-www-form-urlencoded")])

    async def send(self, method: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()) -> Page:
        target = urlsplit(path)
        cookies = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        sent = [("host", "localhost:8000"), ("user-agent", self.agent), *headers]
        if body:
            sent.append(("content-length", str(len(body))))
        if cookies:
            sent.append(("cookie", cookies))
        if not any(name == "sec-fetch-site" for name, _ in headers):
            sent.append(("sec-fetch-site", "same-origin"))
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": target.path,
            "raw_path": target.path.encode(),
            "root_path": "",
            "query_string": target.query.encode(),
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent],
            "client": (self.address, 40_000),
            "server": ("localhost", 8000),
        }
        messages: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def collect(message: Any) -> None:
            messages.append(message)

        await self.app(scope, receive, collect)
        page = Page(messages[0]["status"], messages[0]["headers"], b"".join(m["body"] for m in messages[1:]))
        self._keep(page)
        return page

    def _keep(self, page: Page) -> None:
        self.lines = [value for name, value in page.headers if name == "set-cookie"]
        for line in self.lines:
            name, _, rest = line.partition("=")
            if "Max-Age=0" in rest:
                self.jar.pop(name, None)
            else:
                self.jar[name] = rest.partition(";")[0]

    async def sign_in(self, name: str = NAME, password: str = PASSWORD, **more: str) -> Page:
        return await self.post("/sign-in", account=name, password=password, **more)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_795_004_800_000  # 2026-11-18T12:26:40Z

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def empty(tmp_path: Path, clock: Clock) -> AsyncIterator[Server]:
    """A server without an account, whose passwords cost next to nothing."""
    settings = Settings(data_dir=tmp_path / "data", store="memory:", algorithm="HS256")
    async with Server(settings, passwords=Passwords(memory=64, passes=1), clock=clock) as server:
        yield server


@pytest.fixture
async def server(empty: Server) -> Server:
    await empty.accounts.add(NAME, await empty.passwords.hash(PASSWORD), admin=True)
    return empty


@pytest.fixture
def app(server: Server) -> App:
    return create_app(server)


@pytest.fixture
def browsers() -> type[Browser]:
    """To make more of them."""
    return Browser


@pytest.fixture
def browser(app: App) -> Browser:
    return Browser(app)


@pytest.fixture
def phone(app: App) -> Browser:
    return Browser(app, IPHONE, "2001:db8::7")
