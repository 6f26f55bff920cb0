"""Requests made in this process, without sockets or a server: what an application costs by itself."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

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


@dataclass
class Answer:
    """A response's status, and the cookies that it set."""

    status: int = 0
    cookies: tuple[str, ...] = ()

    def hear(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Take the head of a response."""
        self.status = status
        self.cookies = tuple(value.partition(";")[0] for name, value in headers if name.lower() == "set-cookie")


class AsgiBrowsers:
    """Users of an ASGI application, each with the cookies of their first answer."""

    def __init__(self, app: Asgi) -> None:
        self._app = app
        self._headers: dict[int, list[tuple[bytes, bytes]]] = {}
        self._bare = [(name.encode(), value.encode()) for name, value in HEADERS]

    async def visit(self, user: int, path: str) -> None:
        """Send one request."""
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
        if user not in self._headers:
            answer = Answer()
            answer.hear(200, [(name.decode(), value.decode()) for name, value in start["headers"]])
            self._headers[user] = [*self._bare, (b"cookie", "; ".join(answer.cookies).encode())]


async def _nothing_more() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


class WsgiBrowsers:
    """Users of a WSGI application, each with the cookies of their first answer."""

    def __init__(self, app: Wsgi) -> None:
        self._app = app
        self._cookies: dict[int, str] = {}
        self._bare = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in HEADERS}

    def visit(self, user: int, path: str) -> None:
        """Send one request."""
        answer = Answer()
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
        }
        if user in self._cookies:
            environ["HTTP_COOKIE"] = self._cookies[user]

        def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> None:
            answer.hear(int(status[:3]), headers)

        body: Any = self._app(environ, start_response)
        for _ in body:
            pass
        if hasattr(body, "close"):
            body.close()
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered {answer.status}")
        self._cookies.setdefault(user, "; ".join(answer.cookies))


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
            browsers.visit(0, path)

    async def work(times: int) -> None:
        await in_thread(some, times)

    return work


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call what blocks, always in the same thread, as a WSGI server's worker would."""
    return await asyncio.get_running_loop().run_in_executor(_WORKER, function, *arguments)
