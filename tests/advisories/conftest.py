"""A browser and an application for the attacks, both as small as they can be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coatcheck import Coatcheck, FileStore, MemoryStore, SQLiteStore
from coatcheck.events import Event
from coatcheck.exchange import Exchange
from coatcheck.store import Store
from coatcheck.testing import SettableClock
from coatcheck.web.asgi import CoatcheckMiddleware

NAME = "__Host-session"

Handler = Callable[[Exchange], Awaitable[str]]


class Answer(msgspec.Struct):
    status: int
    headers: list[tuple[str, str]]
    body: str

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header == name]

    def varies(self) -> bool:
        return "Cookie" in ", ".join(self.all("vary"))


class Browser:
    """Keeps and deletes the cookies that it is told to, in the order in which the answers come in."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.jar: dict[str, str] = {}

    def cookie(self) -> str:
        return f"{NAME}={self.jar[NAME]}"

    async def __call__(
        self, path: str, *, method: str = "POST", cookie: bytes | str | None = None, headers: Sequence[Any] = ()
    ) -> Answer:
        answer = await self.ask(path, method=method, cookie=cookie, headers=headers)
        self.keep(answer)
        return answer

    async def ask(
        self, path: str, *, method: str = "POST", cookie: bytes | str | None = None, headers: Sequence[Any] = ()
    ) -> Answer:
        """Send a request whose answer comes in later: `keep` is when it does."""
        sent = "; ".join(f"{name}={value}" for name, value in self.jar.items()) if cookie is None else cookie
        raw = sent.encode("latin-1") if isinstance(sent, str) else sent
        pairs = [("host", "app.example"), *headers]
        lines = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
        scope = {
            "type": "http",
            "method": method,
            "scheme": "https",
            "path": path,
            "headers": [*lines, *([(b"cookie", raw)] if raw else [])],
            "client": ("192.0.2.7", 4711),
        }
        answer = Answer(0, [], "")

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
            else:
                answer.body += message.get("body", b"").decode("latin-1")

        await self.app(scope, receive, send)
        return answer

    def keep(self, answer: Answer) -> None:
        for line in answer.all("set-cookie"):
            name, _, rest = line.partition("=")
            if "Max-Age=0" in rest:
                self.jar.pop(name, None)
            else:
                self.jar[name] = rest.partition(";")[0]


class World:
    """One application: the usual handlers, and those that a test adds to `handlers`."""

    def __init__(self, store: Store | None = None, **options: Any) -> None:
        self.clock = SettableClock()
        self.store = store if store is not None else MemoryStore()
        self.events: list[Event] = []
        options.setdefault("on_event", self.events.append)
        self.coat = Coatcheck(self.store, clock=self.clock, **options)
        self.sessions = self.coat.sessions
        self.handlers: dict[str, Handler] = {"/sign-in": sign_in, "/sign-out": sign_out, "/me": me, "/write": write}
        self.app = CoatcheckMiddleware(self._serve, coatcheck=self.coat)

    def browser(self) -> Browser:
        return Browser(self.app)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        body = await self.handlers[scope["path"]](scope["coatcheck"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body.encode()})


async def sign_in(exchange: Exchange) -> str:
    await exchange.sign_in("ann")
    return "signed in"


async def sign_out(exchange: Exchange) -> str:
    return str(await exchange.sign_out())


async def me(exchange: Exchange) -> str:
    return exchange.require().subject


async def write(exchange: Exchange) -> str:
    exchange.session["written"] = True
    return "written"


@pytest.fixture
def make_world() -> Callable[..., World]:
    return World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(params=["memory", "file", "sqlite"])
async def stored(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    """The same world on each built-in store."""
    stores: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore,
        "file": lambda: FileStore(tmp_path / "sessions"),
        "sqlite": lambda: SQLiteStore(tmp_path / "sessions.db"),
    }
    world = World(stores[request.param]())
    async with world.coat:
        yield world


@pytest.fixture(params=["file", "sqlite"])
def lasting(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the same directory or file again and again, as a restarted process does."""
    if request.param == "file":
        return lambda: FileStore(tmp_path / "sessions")
    return lambda: SQLiteStore(tmp_path / "sessions.db")
