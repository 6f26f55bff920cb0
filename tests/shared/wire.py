"""A browser over a real connection: what is sent is exactly what a test says, duplicates and odd octets included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from coatcheck.core.set_cookie import parse_set_cookie

HOST = "127.0.0.1"
_PATIENCE = 30

Header = tuple[bytes, bytes]


class Reply:
    """A response; names of headers are in lower case."""

    def __init__(self, head: bytes, body: bytes) -> None:
        status, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(status.split(" ")[1])
        self.headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        self.body = _unchunked(body) if self.value("transfer-encoding") == "chunked" else body

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header == name]

    def value(self, name: str) -> str:
        return ", ".join(self.all(name))

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<Reply {self.status} {self.body[:200]!r}>"


class Wire:
    """One browser with a jar, at one port.

    Args:
        port: where the application listens.
        jar: the cookies it begins with.
    """

    def __init__(self, port: int, jar: dict[str, str] | None = None) -> None:
        self.port = port
        self.jar = dict(jar or {})

    def copy(self) -> Wire:
        """Return another tab, or a thief: with the same cookies, as they are now."""
        return Wire(self.port, self.jar)

    async def __call__(
        self, method: str, path: str, *, site: str = "same-origin", bearer: str = "", **query: object
    ) -> Reply:
        """Send what a browser would, and keep the cookies that come."""
        headers = [(b"sec-fetch-site", site.encode())]
        if bearer:
            headers.append((b"authorization", b"Bearer " + bearer.encode()))
        if self.jar:
            headers.append((b"cookie", "; ".join(f"{name}={value}" for name, value in self.jar.items()).encode()))
        reply = await self.send(method, f"{path}?{urlencode(query)}" if query else path, headers)
        for line in reply.all("set-cookie"):
            stored = parse_set_cookie(line.encode("latin-1"), now=0)
            assert stored is not None, line
            if stored.expires_at is not None and stored.expires_at <= 0:
                self.jar.pop(stored.name.decode(), None)
            else:
                self.jar[stored.name.decode()] = stored.value.decode()
        return reply

    async def send(self, method: str, path: str, headers: Sequence[Header]) -> Reply:
        """Send these headers and no others, but for Host and what ends the connection."""
        lines = [b"%b %b HTTP/1.1" % (method.encode(), path.encode()), b"host: localhost:%d" % self.port]
        lines += [name + b": " + value for name, value in headers]
        if method == "POST":
            lines.append(b"content-length: 0")
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(HOST, self.port)
            try:
                writer.write(b"\r\n".join([*lines, b"connection: close", b"", b""]))
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        assert head, "the server closed the connection without an answer"
        return Reply(head, body)


def _unchunked(body: bytes) -> bytes:
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        whole, body = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return whole
