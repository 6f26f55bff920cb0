"""A server in this process, and a client that speaks ASGI itself: what is sent and received is what a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from coatcheck.core.set_cookie import parse_set_cookie
from coatcheck.documents import Documents
from coatcheck.server.passwords import Passwords
from coatcheck.server.server import Server
from coatcheck.server.settings import Settings
from coatcheck.stores.sqlite_documents import SQLiteDocuments
from coatcheck.testing import SettableClock
from coatcheck.web.asgi import App

NAME, PASSWORD = "ann", "a lantern under the stairs"


class Answer(msgspec.Struct):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value.decode("latin-1") for found, value in self.headers if found.lower() == name.encode()]

    def header(self, name: str) -> str | None:
        found = self.all(name)
        return ", ".join(found) if found else None

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Client:
    """A browser, as far as this matters: it has a cookie jar, and says where its requests come from."""

    def __init__(self, app: App, *, address: str = "192.0.2.1", agent: str = "Client/1") -> None:
        self.app = app
        self.address = address
        self.agent = agent
        self.jar: dict[str, str] = {}
        self.lines: list[str] = []

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        body: bytes | None = None,
        bearer: str | None = None,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        chunks: list[bytes] | None = None,
    ) -> Answer:
        jar = self.jar if cookies is None else cookies
        sent = {"host": "localhost:8000", "user-agent": self.agent, "sec-fetch-site": "same-origin"}
        content = body if body is not None else b""
        if json is not None:
            content, sent["content-type"] = msgspec.json.encode(json), "application/json"
        if form is not None:
            content, sent["content-type"] = urlencode(form).encode(), "application/x-www-form-urlencoded"
        if jar:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        if bearer is not None:
            sent["authorization"] = f"Bearer {bearer}"
        if chunks is not None:
            sent["transfer-encoding"] = "chunked"
        elif method != "GET":
            sent["content-length"] = str(len(content))
        sent |= headers or {}
        answer = await self._send(method, path, sent, chunks if chunks is not None else [content])
        for line in answer.all("set-cookie"):
            self._keep(line)
        return answer

    def _keep(self, line: str) -> None:
        self.lines.append(line)
        stored = parse_set_cookie(line.encode("latin-1"), now=0)
        assert stored is not None, "a browser ignores this cookie"
        if stored.expires_at is not None and stored.expires_at <= 0:
            self.jar.pop(stored.name.decode(), None)
        else:
            self.jar[stored.name.decode()] = stored.value.decode()

    async def _send(self, method: str, target: str, headers: Mapping[str, str], chunks: list[bytes]) -> Answer:
        path, _, query = target.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items() if value],
            "client": (self.address, 50_000),
            "server": ("localhost", 8000),
        }
        waiting = list(chunks)
        answer = Answer(0, [], b"")

        async def receive() -> dict[str, Any]:
            if not waiting:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert answer.status == 0, "a second response"
                answer.status, answer.headers = message["status"], list(message["headers"])
            else:
                answer.body += message.get("body", b"")

        await self.app(scope, receive, send)
        return answer


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[Documents]:
    opened = SQLiteDocuments(tmp_path / "coatcheck.sqlite")
    await opened.open()
    yield opened
    await opened.close()


MakeServer = Callable[..., Awaitable[Server]]


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def cheap() -> Iterator[Passwords]:
    """Argon2id at its cheapest: these tests are about what surrounds it."""
    passwords = Passwords(memory=8, passes=1)
    yield passwords
    passwords.close()


@pytest.fixture
async def make_server(tmp_path: Path, cheap: Passwords) -> AsyncIterator[MakeServer]:
    """Make opened servers; all of one test share a data directory."""
    made: list[Server] = []

    async def make(**changes: Any) -> Server:
        keep_open = {name: changes.pop(name) for name in ("clock", "on_event") if name in changes}
        settings = Settings(**{"data_dir": tmp_path / "data", "algorithm": "ES256", **changes})
        server = Server(settings, passwords=cheap, **keep_open)
        await server.open()
        made.append(server)
        return server

    yield make
    for server in made:
        await server.close()


@pytest.fixture
async def server(make_server: MakeServer) -> Server:
    """A server on SQLite with one account."""
    made = await make_server()
    await made.accounts.add(NAME, await made.passwords.hash(PASSWORD))
    return made


@pytest.fixture
def app(server: Server) -> App:
    from coatcheck.server.app import create_app

    return create_app(server)


@pytest.fixture
def new_client(app: App) -> Callable[..., Client]:
    """Make clients of the one application, each with a jar and an address of its own."""
    return lambda **options: Client(app, **options)


@pytest.fixture
def client_of() -> Callable[..., Client]:
    """Make clients of whatever server a test has made."""
    from coatcheck.server.app import create_app

    return lambda server, **options: Client(create_app(server), **options)


@pytest.fixture
def client(app: App) -> Client:
    return Client(app)
