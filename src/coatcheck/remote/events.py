"""Events: the feed of an auth server as it comes over HTTP, and how it is read.

    GET /feed             server-sent events (WHATWG HTML, 9.2), one Said each; `Last-Event-ID` says where to go on
    GET /feed/snapshot    one Said: everything that is still of use; white space before it while it is being made

    id: 57
    event: revoked                 or heartbeat, when there is nothing new
    data: {"after":56,"position":57,"elapsed":18341,"revoked":[{"until":1790000000000,"session_id":"..."}]}

A batch of many revocations comes in several events, and only the last of them leads to another position.
`elapsed` is for how many milliseconds the answer had been under way when the server last knew that this was all. So
the reader knows how old the news are without comparing clocks, and is not deceived by what lay on the way for long.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec

from coatcheck.clock import monotonic_clock
from coatcheck.core.revocation import Revoked
from coatcheck.errors import ConfigurationError, StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.remote.origin import Answer, NotAsked, Origin

MIN_TOKEN: Final = 32  # characters
MAX_TOKEN: Final = 1024
MAX_EVENT: Final = 1024 * 1024  # octets
MAX_SNAPSHOT: Final = 128 * 1024 * 1024  # octets: 10^6 sessions are 62 MB
SILENCE: Final = 2.0  # seconds: the server speaks twice a second
_SNAPSHOT_SECONDS: Final = 60.0
# Between two tries, seconds. Short, so that a reader is back within two seconds; of random length, so that the
# readers of a server that comes back do not all come at once.
_PAUSES: Final = (0.02, 0.5)
_EVENTS: Final = (b"revoked", b"heartbeat")

_log = logging.getLogger("coatcheck")


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A batch as it is written in JSON; see the module for `elapsed`."""

    after: int
    position: int
    elapsed: int = 0
    revoked: tuple[Revoked, ...] = ()


class Events:
    """The feed of an auth server, read: what a follower needs of a Feed.

    Args:
        origin: the auth server.
        token: one of its feed tokens.

    Raises:
        ConfigurationError: the token cannot be one.
    """

    def __init__(self, origin: Origin, token: str) -> None:
        if not MIN_TOKEN <= len(token) <= MAX_TOKEN or not all("!" <= c <= "~" for c in token):
            raise ConfigurationError(f"a feed token has {MIN_TOKEN} to {MAX_TOKEN} visible ASCII characters")
        self._origin = origin
        self._token = token
        self._trouble: str | None = None
        self._endings = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._origin.url}>"

    def end(self) -> None:
        """Let the present followers end when they next hear, or would try again."""
        self._endings += 1

    async def snapshot(self, now: int) -> Batch:  # noqa: ARG002 - the server's own time says what is of use
        """Return everything that is still of use; see `Feed.snapshot`.

        Raises:
            StoreUnavailable: the server cannot be reached, refuses the token, or says what cannot be read.
        """
        get = self._origin.get("/feed/snapshot", accept="application/json", token=self._token)
        async with get as answer:
            answer.require("application/json")
            said = _read(await answer.body(limit=MAX_SNAPSHOT, seconds=_SNAPSHOT_SECONDS))
            return _batch(said, answer)

    async def follow(self, position: int) -> AsyncGenerator[Batch, None]:
        """Yield what comes after `position`, and heartbeats; see `Feed.follow`.

        A connection that ends, is silent for 2 s, or tells what is older than that, is made anew where it was: the
        follower hears nothing meanwhile, and misses nothing. Trouble is logged once, and so is its end.
        """
        endings = self._endings
        while self._endings == endings:
            try:
                async with aclosing(self._listen(position)) as batches:
                    async for batch in batches:
                        self._heard()
                        yield batch
                        position = batch.position
                        if self._endings != endings:
                            return
            except StoreUnavailable as error:
                self._unheard(str(error))
            await asyncio.sleep(random.uniform(*_PAUSES))  # noqa: S311 - it spreads load, and guards nothing

    async def _listen(self, position: int) -> AsyncGenerator[Batch, None]:
        headers = [("Last-Event-ID", str(position))]
        get = self._origin.get("/feed", accept="text/event-stream", token=self._token, headers=headers)
        async with get as answer:
            answer.require("text/event-stream")
            reader, parts = EventReader(), _Parts()
            while events := await _next(answer, reader):
                for data in events:
                    said = parts.whole(data)
                    if said is None:
                        continue
                    if monotonic_clock() - _heard_at(said, answer) > SILENCE * 1000:
                        raise NotAsked("the news are old")
                    yield _batch(said, answer)

    def _heard(self) -> None:
        if self._trouble is not None:
            _log.warning("the feed is heard again: %s", self._origin.url)
            self._trouble = None

    def _unheard(self, words: str) -> None:
        if words != self._trouble:
            _log.warning("the feed is not heard: %s", words)
            self._trouble = words


class EventReader:
    """Takes a stream of events apart (WHATWG HTML, 9.2.6), those that we know; its lines end with LF or CR LF."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._kind = b""
        self._data: list[bytes] = []
        self._size = 0

    def take(self, piece: bytes) -> list[bytes]:
        """Return the data of the events that are complete with the next piece of the stream, cut anywhere.

        Raises:
            NotAsked: an event has more than 1 MiB.
        """
        found: list[bytes] = []
        self._rest += piece
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            self._size += len(line)
            if data := self._line(bytes(line).removesuffix(b"\r")):
                found.append(data)
        if self._size + len(self._rest) > MAX_EVENT:
            raise NotAsked(f"an event of more than {MAX_EVENT} octets")
        return found

    def _line(self, line: bytes) -> bytes:
        """Return the event that ends with a line, if one does that we know."""
        field, _, value = line.partition(b":")
        if field == b"event":
            self._kind = value.removeprefix(b" ")
        elif field == b"data":
            self._data.append(value.removeprefix(b" "))
        elif not line:
            data = b"\n".join(self._data) if self._kind in _EVENTS else b""
            self._kind, self._data, self._size = b"", [], 0
            return data
        return b""


class _Parts:
    """Puts a batch together that came in several events: all but the last of them lead nowhere."""

    def __init__(self) -> None:
        self._revoked: list[Revoked] = []
        self._size = 0

    def whole(self, data: bytes) -> Said | None:
        """Return what an event says, with what came before it of the same batch; None if more is to come."""
        said = _read(data)
        self._revoked += said.revoked
        self._size += len(data)
        if self._size > MAX_SNAPSHOT:
            raise NotAsked(f"a batch of more than {MAX_SNAPSHOT} octets")
        if self._revoked and said.position == said.after:
            return None
        said = msgspec.structs.replace(said, revoked=tuple(self._revoked))
        self._revoked, self._size = [], 0
        return said


async def _next(answer: Answer, reader: EventReader) -> list[bytes]:
    """Return the next events, or none at the end of the stream; silence is not waited for."""
    async with asyncio.timeout(SILENCE):
        while piece := await answer.read():
            if found := reader.take(piece):
                return found
    return []


def _heard_at(said: Said, answer: Answer) -> int:
    # The server had the request after we sent it: so this errs on the old side only.
    return answer.asked_at + said.elapsed


def _batch(said: Said, answer: Answer) -> Batch:
    heard_at = _heard_at(said, answer)
    return Batch(after=said.after, position=said.position, revoked=said.revoked, heard_at=heard_at)


def _read(data: bytes) -> Said:
    try:
        return msgspec.json.decode(data, type=Said)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise NotAsked("what it says cannot be read") from None
