"""Requests made in this process, without sockets or a server: what an application costs by itself."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from suite.apps import WSGI
from suite.harness import Case
from suite.servers import Places
from suite.small_app import App

T = TypeVar("T")
Asgi = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# What a browser sends, beside its cookie.
HEADERS = (
    ("host", "shop.example"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.7,fr;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("connection", "keep-alive"),
)
USERS = 16
_WORKER = ThreadPoolExecutor(1)

Headers = Sequence[tuple[str, str]]


def credential_of(headers: Headers) -> tuple[str, str]:
    """Return the header that a user sends after an answer: the cookies that it set, or the token that it handed out."""
    for name, value in headers:
        if name.lower() == "authorization":
            return "authorization", value
    return "cookie", "; ".join(value.partition(";")[0] for name, value in headers if name.lower() == "set-cookie")


def cookie_octets(headers: Headers) -> int:
    """Return how many octets of an answer set cookies."""
    return sum(octets(name, value) for name, value in headers if name.lower() == "set-cookie")


def octets(name: str, value: str) -> int:
    """Return the size of a header in HTTP/1.1."""
    return len(f"{name}: {value}\r\n")


class AsgiBrowsers:
    """Users of an ASGI application, each with the cookies, or the token, of their first answer."""

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self._headers: dict[int, list[tuple[bytes, bytes]]] = {}
        self._bare = [(name.encode(), value.encode()) for name, value in HEADERS]

    async def start(self, user: int) -> tuple[str, str]:
        """Send a user's first request, and return the header that they send from now on."""
        self._headers.pop(user, None)
        name, value = credential_of(await self.visit(user, "/start"))
        self.hand(user, name, value)
        return name, value

    def hand(self, user: int, name: str, value: str) -> None:
        """Give a user the header that they send from now on."""
        self._headers[user] = [*self._bare, (name.encode(), value.encode())]

    async def visit(self, user: int, path: str) -> Headers:
        """Send one request, and return the headers of its answer."""
        start: dict[str, Any] = {}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": list(self._headers.get(user, self._bare)),
            "client": ("203.0.113.7", 50_000 + user),
            "server": ("shop.example", 443),
            "state": {},
        }

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                start.update(message)

        await self._app(scope, _nothing_more, send)
        if start["status"] != 200:
            raise RuntimeError(f"{path} was answered {start['status']}")
        return _AsText(start["headers"])


class _AsText(Sequence[tuple[str, str]]):
    """Headers, decoded only when somebody looks: that is not what is measured."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = raw

    def __len__(self) -> int:
        return len(list(self._raw))

    def __getitem__(self, index: Any) -> Any:
        return [(name.decode(), value.decode()) for name, value in self._raw][index]


async def _nothing_more() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


class WsgiBrowsers:
    """Users of a WSGI application, each with the cookies of their first answer; all requests come from one thread."""

    def __init__(self, app: Wsgi) -> None:
        self._app = app
        self._credentials: dict[int, dict[str, str]] = {}
        self._bare = {_key(name): value for name, value in HEADERS}

    async def start(self, user: int) -> tuple[str, str]:
        """Send a user's first request, and return the header that they send from now on."""
        self._credentials.pop(user, None)
        name, value = credential_of(await self.visit(user, "/start"))
        self._credentials[user] = {_key(name): value}
        return name, value

    async def visit(self, user: int, path: str) -> Headers:
        """Send one request, and return the headers of its answer."""
        return await in_thread(self.visit_at_once, user, path)

    def visit_at_once(self, user: int, path: str) -> Headers:
        """Send one request from this thread, and return the headers of its answer."""
        answers: list[tuple[str, list[tuple[str, str]]]] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": "",
            "SERVER_NAME": "shop.example",
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "203.0.113.7",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **self._bare,
            **self._credentials.get(user, {}),
        }

        def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> None:
            answers.append((status, headers))

        body: Any = self._app(environ, start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
        [(status, headers)] = answers
        if not status.startswith("200"):
            raise RuntimeError(f"{path} was answered {status}")
        return headers


def _key(name: str) -> str:
    return f"HTTP_{name.upper().replace('-', '_')}"


Browsers = AsgiBrowsers | WsgiBrowsers


async def opened(app: App, where: Places, *, users: int = USERS) -> Browsers:
    """Return an application's users; each has a session, if it has any."""
    blocks = app.stack in WSGI
    browsers = WsgiBrowsers(await in_thread(app.make, where)) if blocks else AsgiBrowsers(app.make(where))
    for user in range(1 if blocks else users):
        await browsers.start(user)
    return browsers


def cases_of(app: App, page: str, browsers: Browsers, times: int, users: Sequence[int] = (1, USERS)) -> list[Case]:
    """Return the cases of one page: with so many requests in flight each; where they block, with one."""
    if isinstance(browsers, WsgiBrowsers):
        return [Case(f"{app.name} {page} 1", in_turn(browsers, f"/{page}"), times, beginning(browsers, 1))]
    return [
        Case(
            f"{app.name} {page} {n}", in_flight(n, browsers, f"/{page}"), max(1, times // n) * n, beginning(browsers, n)
        )
        for n in users
    ]


def beginning(browsers: Browsers, users: int) -> Callable[[], Awaitable[None]]:
    """Return what gives so many users new sessions: old ones are noted as used now and then, or come to their end."""

    async def begin() -> None:
        for user in range(users):
            await browsers.start(user)

    return begin


def in_flight(users: int, browsers: AsgiBrowsers, path: str) -> Callable[[int], Coroutine[Any, Any, None]]:
    """Return what sends so many requests, `users` of them at any time, each of a user of their own."""

    async def one(user: int, times: int) -> None:
        for _ in range(times):
            await browsers.visit(user, path)

    async def work(times: int) -> None:
        if users == 1:
            await one(0, times)
        else:
            await asyncio.gather(*(one(user, times // users) for user in range(users)))

    return work


def in_turn(browsers: WsgiBrowsers, path: str) -> Callable[[int], Coroutine[Any, Any, None]]:
    """Return what sends so many requests of one user, one after another."""

    def some(times: int) -> None:
        for _ in range(times):
            browsers.visit_at_once(0, path)

    async def work(times: int) -> None:
        await in_thread(some, times)

    return work


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call what blocks, always in the same thread, as a WSGI server's worker would."""
    return await asyncio.get_running_loop().run_in_executor(_WORKER, function, *arguments)
