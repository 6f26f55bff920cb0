"""FeedEndpoint: the feed over HTTP, for verifiers that have no store (`Verifier.from_issuer`, `HTTPFeed`).

    GET /feed             server-sent events; Last-Event-ID, or ?after=, says where to go on; else now
    GET /feed/snapshot    everything that is still of use, in JSON

`coatcheck.remote.events` says what is in them. Both take a feed token (Authorization: Bearer); where the server has
none, neither is there. A stream ends after about ten minutes, and its reader comes again: so a token that was taken
away counts no longer than that, and the clocks that measure how old the news are do not drift apart.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterable
from contextlib import aclosing
from typing import Final
from urllib.parse import parse_qs

import msgspec

from coatcheck.clock import monotonic_clock
from coatcheck.errors import CoatcheckError, StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.feeds.http import Said
from coatcheck.server.api import BadRequest, refusal
from coatcheck.server.feed_hub import FeedHub, Snapshot
from coatcheck.server.service_tokens import ServiceTokens
from coatcheck.web.asgi import Receive, Scope, Send

FEED: Final = "/feed"
SNAPSHOT: Final = "/feed/snapshot"
PATHS: Final = frozenset({FEED, SNAPSHOT})
MOST_LISTENERS: Final = 1_000
LIFE_MS: Final = (540_000, 660_000)
_SIGN_OF_LIFE_SECONDS: Final = 0.5
_PIECE: Final = 64 * 1024  # octets
_POSITION: Final = re.compile(r"[0-9]{1,19}")

Headers = list[tuple[bytes, bytes]]
_NO_STORE: Final = (b"cache-control", b"no-store")
_WHOLE: Final[Headers] = [(b"content-type", b"application/json"), _NO_STORE]
_STREAM: Final[Headers] = [
    (b"content-type", b"text/event-stream"),
    _NO_STORE,
    (b"x-accel-buffering", b"no"),  # nginx would keep events back until it has 4 KiB of them
    (b"connection", b"close"),
]


class _WrongMethod(BadRequest):
    status = 405
    code = "method_not_allowed"


class FeedEndpoint:
    """An ASGI application for `PATHS`.

    Args:
        hub: hears the feed.
        tokens: the feed tokens, any of which will do.
    """

    def __init__(self, hub: FeedHub, tokens: Iterable[str]) -> None:
        self._hub = hub
        self._tokens = ServiceTokens(((token, "") for token in tokens), "feed")
        self._listeners = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            if scope["method"] != "GET":
                raise _WrongMethod("only GET is answered here")
            self._tokens.owner(scope["headers"])
            if self._listeners >= MOST_LISTENERS:
                raise StoreUnavailable(f"{MOST_LISTENERS} are listening already")
            self._listeners += 1
            try:
                await (self._stream(scope, receive, send) if scope["path"] == FEED else self._snapshot(send))
            finally:
                self._listeners -= 1
        except CoatcheckError as error:
            answer = refusal(error)
            if isinstance(error, _WrongMethod):
                answer.headers["allow"] = "GET"
            await answer(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events, until that has lasted long enough, or the client has gone away."""
        began = monotonic_clock()
        position = _position(scope)
        await self._hub.open()
        await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
        tasks = [asyncio.ensure_future(self._tell(position, began, send)), asyncio.ensure_future(_gone(receive))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            told, _ = await asyncio.gather(*tasks, return_exceptions=True)
        if isinstance(told, Exception):
            raise told

    async def _tell(self, position: int | None, began: int, send: Send) -> None:
        ends = began + random.randint(*LIFE_MS)  # noqa: S311 - so that not all readers come again at once
        async with aclosing(self._hub.listen(position)) as batches:
            async for batch in batches:
                await send({"type": "http.response.body", "body": _event(batch, began), "more_body": True})
                if monotonic_clock() > ends:
                    break
        await send({"type": "http.response.body", "body": b""})

    async def _snapshot(self, send: Send) -> None:
        began = monotonic_clock()
        making = asyncio.ensure_future(self._hub.snapshot())
        try:
            if await _is_done(making):
                making.result()  # an error now is answered as one
            await send({"type": "http.response.start", "status": 200, "headers": _WHOLE})
            while not await _is_done(making):
                await send({"type": "http.response.body", "body": b"\n", "more_body": True})  # somebody is here
        finally:
            making.cancel()
        if making.exception() is None:
            await self._send_snapshot(making.result(), began, send)
        await send({"type": "http.response.body", "body": b""})  # without a word of JSON, if there was an error

    async def _send_snapshot(self, found: Snapshot, began: int, send: Send) -> None:
        head = b'{"after":0,"position":%d,"elapsed":%d,"revoked":' % (found.position, found.heard_at - began)
        await send({"type": "http.response.body", "body": head, "more_body": True})
        # In pieces, each waited for: all who take it share the one copy.
        for start in range(0, len(found.revoked), _PIECE):
            piece = found.revoked[start : start + _PIECE]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)  # the loop may learn that the client has gone away: nothing is sent then
        await send({"type": "http.response.body", "body": b"}", "more_body": True})


async def _is_done(task: asyncio.Future[Snapshot]) -> bool:
    done, _ = await asyncio.wait([task], timeout=_SIGN_OF_LIFE_SECONDS)
    return bool(done)


def _event(batch: Batch, began: int) -> bytes:
    heard_at = monotonic_clock() if batch.heard_at is None else batch.heard_at
    said = Said(after=batch.after, position=batch.position, elapsed=heard_at - began, revoked=batch.revoked)
    kind = b"revoked" if batch.revoked else b"heartbeat"
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (batch.position, kind, msgspec.json.encode(said))


def _position(scope: Scope) -> int | None:
    """Return the position that a request goes on from, if it names one.

    Raises:
        BadRequest: it is no number.
    """
    given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"last-event-id"]
    given = given or parse_qs(scope["query_string"].decode("latin-1")).get("after", [])
    if not given:
        return None
    if len(given) > 1 or not _POSITION.fullmatch(given[0]) or int(given[0]) >= 2**63:
        raise BadRequest("a position is a number, and there is one at most")
    return int(given[0])


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
