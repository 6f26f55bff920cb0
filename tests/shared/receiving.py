"""A receiver of Security Event Tokens that has nothing of ours: HTTP by hand, and PyJWT for the tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt

from coatcheck.server.server import Server

AUDIENCE = "https://receiver.example"
TOKEN = "token-of-the-polling-receiver-0123456789"
OTHER = "token-of-another-receiver-9876543210-abc"


def settings(*more: dict[str, Any]) -> str:
    """Return the setting: one that polls, and more."""
    return json.dumps([{"name": "poller", "audience": AUDIENCE, "token": TOKEN}, *more])


def read(server: Server, token: str, audience: str = AUDIENCE) -> dict[str, Any]:
    """Return the claims of a token, if it is genuine by the server's published keys."""
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "secevent+jwt"
    keys = jwt.PyJWKSet.from_dict(dict(server.coat.keyring.jwks()))
    options: Any = {"verify_iat": True, "require": ["iss", "aud", "iat", "jti"]}
    claims = jwt.decode(
        token,
        keys[header["kid"]],
        algorithms=[header["alg"]],
        audience=audience,
        issuer=server.settings.url,
        options=options,
    )
    assert not {"sub", "exp"} & claims.keys()
    return dict(claims)


class PushReceiver:
    """Takes what is pushed, and answers as it is told; 202 when nothing is said."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.came = asyncio.Event()

    @property
    def tokens(self) -> list[str]:
        return [body.decode() for _, _, body in self.requests]

    async def until(self, count: int) -> None:
        """Return when so many have come."""
        async with asyncio.timeout(30):
            while len(self.requests) < count:
                self.came.clear()
                await self.came.wait()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(fields["content-length"]))
        self.requests.append((first, fields, body))
        self.came.set()
        writer.write(self.answers.pop(0) if self.answers else answer(202))
        await writer.drain()
        writer.close()


def answer(status: int, err: str = "") -> bytes:
    """Return an answer of a receiver (RFC 8935, sections 2.3 and 2.4)."""
    body = json.dumps({"err": err, "description": "words"}).encode() if err else b""
    kind = "Content-Type: application/json\r\n" if err else ""
    return f"HTTP/1.1 {status} Words\r\n{kind}Content-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def receiving(receiver: PushReceiver, port: int = 0) -> AsyncIterator[int]:
    """Listen, and say on which port."""
    listening = await asyncio.start_server(receiver.take, "127.0.0.1", port)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()
