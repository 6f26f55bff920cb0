"""A client that speaks ASGI itself: what is sent and what comes back is exactly what a test says and sees."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from coatcheck.web.asgi import App


class Answer(msgspec.Struct):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value.decode("latin-1") for header, value in self.headers if header.lower() == name.encode()]

    def header(self, name: str) -> str | None:
        found = self.all(name)
        return ", ".join(found) if found else None

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Browser:
    """One client with a jar: it keeps and deletes the cookies that it is told to."""

    def __init__(self, app: App, *, scheme: str = "https", host: str = "app.example") -> None:
        self.app = app
        self.scheme = scheme
        self.host = host
        self.jar: dict[str, str] = {}

    async def __call__(
        self,
        method: str,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        cookies: str | None = None,
    ) -> Answer:
        cookie = "; ".join(f"{name}={value}" for name, value in self.jar.items()) if cookies is None else cookies
        sent = [("host", self.host), *headers, *([("cookie", cookie)] if cookie else [])]
        answer = await request(self.app, method, path, sent, body, self.scheme)
        for line in answer.all("set-cookie"):
            name, _, rest = line.partition("=")
            if "Max-Age=0" in rest:
                self.jar.pop(name, None)
            else:
                self.jar[name] = rest.partition(";")[0]
        return answer


async def request(
    app: App, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes = b"", scheme: str = "https"
) -> Answer:
    answer = Answer(0, [], b"")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path.partition("?")[0],
        "raw_path": path.encode(),
        "query_string": path.partition("?")[2].encode(),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        "client": ("192.0.2.7", 4711),
        "server": ("app.example", 443),
    }

    said = False
    answered = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal said
        if said:
            await answered.wait()  # the client stays, and says nothing more
            return {"type": "http.disconnect"}
        said = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], list(message["headers"])
        else:
            answer.body += message.get("body", b"")
            if not message.get("more_body"):
                answered.set()

    await app(scope, receive, send)
    return answer
