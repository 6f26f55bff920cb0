"""Requests made in this process, without sockets: one page, bare and behind the middleware, and who visits it.

What a visitor presents is what the application has sent: its Set-Cookie lines, or the token in its body.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

from coatcheck import Coatcheck, Exchange, Session
from coatcheck.comparison.kinds import Kind
from coatcheck.web.asgi import App, CoatcheckMiddleware, Message, Receive, Scope, Send

SUBJECT: Final = "ann"
DATA: Final = "data"
_AMR: Final = ("pwd",)
_SCOPES: Final = ("notes",)

# What a browser sends besides, whoever is signed in.
_HEADERS: Final[Sequence[tuple[bytes, bytes]]] = (
    (b"host", b"app.example"),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.7"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"sec-fetch-site", b"same-origin"),
)
_SCOPE: Final[Scope] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "https",
    "query_string": b"",
    "root_path": "",
    "client": ("203.0.113.7", 50_000),
    "server": ("app.example", 443),
}
_NOBODY: Final = "A" * 22


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes

    @property
    def set_cookies(self) -> list[str]:
        """Its Set-Cookie lines."""
        return [value.decode("latin-1") for name, value in self.headers if name == b"set-cookie"]


class Presented(NamedTuple):
    """What each further request says who it comes from with, and the lines by which a browser was given it."""

    header: tuple[bytes, bytes]
    lines: Sequence[str]

    @classmethod
    def after(cls, kind: Kind, answer: Answer) -> Presented:
        """Return what a client sends once it has had the answer to its sign-in."""
        lines = answer.set_cookies
        if kind == "bearer":
            return cls((b"authorization", b"Bearer " + answer.body), lines)
        pairs = "; ".join(line.partition(";")[0] for line in lines)
        return cls((b"cookie", pairs.encode("latin-1")), lines)

    @property
    def size(self) -> int:
        """The octets that it adds to a request in HTTP/1.1."""
        name, value = self.header
        return len(name) + len(b": ") + len(value) + len(b"\r\n")

    @property
    def values(self) -> dict[str, str]:
        """The cookies, or the token, by name."""
        name, value = self.header
        text = value.decode("latin-1")
        if name == b"authorization":
            return {"Bearer": text.removeprefix("Bearer ")}
        return dict(cast("tuple[str, str]", pair.split("=", 1)) for pair in text.split("; "))

    @property
    def scripts_read(self) -> list[str]:
        """The names of those that a script in the page can read: what was in a body, and cookies without HttpOnly."""
        if not self.lines:
            return list(self.values)
        return [line.partition("=")[0] for line in self.lines if "httponly" not in line.lower().split("; ")]

    @property
    def readable(self) -> list[str]:
        """What whoever has it can read in it, without any key: the names of claims."""
        found: list[str] = []
        for value in self.values.values():
            for part in value.split("."):
                found += _names_in(part)
        return found


def application(coatcheck: Coatcheck) -> App:
    """Return the page behind the middleware; its other paths sign the subject in."""

    async def page(scope: Scope, _receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        found: Exchange = scope["coatcheck"]
        if path == "/":
            body = found.require().session_id
        else:
            _, kind, data = path.split("/")
            body = await _signed_in(coatcheck, found, kind, data)
        await _answer(send, body)

    return CoatcheckMiddleware(page, coatcheck=coatcheck)


async def bare(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Serve the same page to whoever comes."""
    await _answer(send, _NOBODY)


async def visit(app: App, path: str = "/", *presented: tuple[bytes, bytes]) -> Answer:
    """Send one request."""
    start: Message = {}
    body = b""

    async def send(message: Message) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start":
            start = message
        else:
            body += message.get("body", b"")

    await app({**_SCOPE, "path": path, "headers": [*_HEADERS, *presented]}, _nothing_more, send)
    return Answer(start["status"], start["headers"], body)


async def sign_in(app: App, kind: Kind, data: str = "") -> Presented:
    """Sign the subject in, with such data in their session, and return what they present from then on."""
    return Presented.after(kind, await visit(app, f"/{kind}/{data}"))


# -- inside


async def _signed_in(coatcheck: Coatcheck, found: Exchange, kind: str, data: str) -> str:
    """Sign the subject in, and return what the body has to say."""
    if kind in ("session", "sealed"):
        session = await found.sign_in(SUBJECT, amr=_AMR, scopes=_SCOPES)
        if data:
            session[DATA] = data
        return ""
    grant = await found.issue(await _new_session(coatcheck, data))
    if kind == "bearer":
        return grant.access_token
    found.hand_out_tokens(grant)
    return ""


async def _new_session(coatcheck: Coatcheck, data: str) -> Session:
    session = await coatcheck.sessions.create(SUBJECT, amr=_AMR, scopes=_SCOPES)
    if data:
        session[DATA] = data
        await coatcheck.sessions.save(session)
    return session


async def _answer(send: Send, body: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body.encode("ascii")})


async def _nothing_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _names_in(part: str) -> list[str]:
    """Return the names of a JSON object that is only encoded, not encrypted."""
    try:
        found: Any = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error):
        return []
    return list(cast("dict[str, Any]", found)) if isinstance(found, dict) else []
