"""Transmitter: turns revocations into Security Event Tokens, and pushes them to receivers that do not poll (RFC 8935).

    the feed  ->  a token for each receiver, durably (SetQueue)  ->  pushed, or fetched by poll  ->  acknowledged, gone

Of the servers of one store one does this at a time. Whatever one of them had not done when it was killed, the next one
finds in the feed or in the queue. So a token may come twice, with the same `jti`; it is not left out.

the answer to a push                                                     what becomes of the token
2xx (RFC 8935 says 202)                                                  delivered
400 with a JSON `err` other than those that can be mended (`_MENDABLE`)  dropped, and logged
anything else, or none                                                   sent again, after 1 s, 2 s, ... 60 s
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import msgspec

from coatcheck import Keyring
from coatcheck.clock import Clock
from coatcheck.core import security_event
from coatcheck.documents import Documents
from coatcheck.errors import StoreUnavailable
from coatcheck.remote.origin import Origin
from coatcheck.server.feed_hub import FeedHub
from coatcheck.server.receivers import Receiver
from coatcheck.server.set_queue import SetQueue, Waiting
from coatcheck.server.turn import RENEW_SECONDS, Turn

_AT_ONCE: Final = 8  # pushes to one receiver
_ANSWER_SECONDS: Final = 10.0
_MOST_ANSWER: Final = 16 * 1024  # octets
_PAUSE_SECONDS: Final = 1.0
_MOST_PAUSE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 1.0  # for what another server has put into the queue
_TRIM_SECONDS: Final = 60.0

# What is wrong is not the token: a key that the receiver has not fetched yet, or the password that we present.
_MENDABLE: Final = frozenset({"invalid_key", "authentication_failed", "access_denied"})
_HEADERS: Final = (("Content-Type", "application/secevent+jwt"),)

_log = logging.getLogger("coatcheck.server")

Outcome = Literal["delivered", "dropped", "later"]


class Verdict(NamedTuple):
    """What becomes of a token that was pushed, and the receiver's reason in a few words."""

    outcome: Outcome
    words: str


class Transmitter:
    """Does it, from `start` to `stop`.

    Args:
        receivers: whom to tell.
        queue: where tokens wait.
        hub: tells what was revoked.
        keyring: signs.
        documents: where servers take turns.
        clock: milliseconds since the epoch.
    """

    def __init__(
        self,
        receivers: Sequence[Receiver],
        queue: SetQueue,
        hub: FeedHub,
        keyring: Keyring,
        documents: Documents,
        *,
        clock: Clock,
    ) -> None:
        self._receivers = receivers
        self._queue = queue
        self._hub = hub
        self._keyring = keyring
        self._clock = clock
        self._turn = Turn(documents, "ssf/turn", clock=clock)
        self._origins = {each.name: each.push_origin() for each in receivers if each.push_url}
        self._news = {each.name: asyncio.Event() for each in receivers}
        self._troubles: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, as soon as it is our turn; without receivers, do nothing. What is ended from now on is told.

        Raises:
            StoreUnavailable
        """
        if self._receivers and self._task is None:
            await self._hub.open()
            await self._queue.begin(self._hub.position)
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End; calling it again does nothing."""
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        with suppress(StoreUnavailable):
            await self._turn.give_up()

    def wake(self, receiver: str) -> None:
        """Push soon what waits for a receiver."""
        self._news[receiver].set()

    async def _run(self) -> None:
        working: list[asyncio.Task[None]] = []
        try:
            while True:
                ours = await self._is_our_turn()
                if ours and not working:
                    working = [asyncio.create_task(each) for each in self._work()]
                if not ours and working:
                    await _end(working)
                    working = []
                await asyncio.sleep(RENEW_SECONDS)
        finally:
            await _end(working)

    def _work(self) -> list[Coroutine[Any, Any, None]]:
        pushing = [each for each in self._receivers if each.push_url]
        return [
            self._again_and_again("the feed", self._relay),
            self._again_and_again("the queue", self._trim),
            *(self._again_and_again(each.name, partial(self._push, each)) for each in pushing),
        ]

    async def _is_our_turn(self) -> bool:
        try:
            return await self._turn.take()
        except StoreUnavailable:
            return False

    async def _again_and_again(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
                self._at_ease(f"{what}, security events")
            except StoreUnavailable as error:
                self._trouble(f"{what}, security events", str(error))
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception:  # noqa: BLE001 - a transmitter that died would tell nobody of a revocation
                _log.exception("security events: going on")
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _relay(self) -> None:
        """Turn what the feed tells into tokens, until somebody else does, or it is not heard."""
        reached = await self._queue.reached()
        async with aclosing(self._hub.hear(reached.position)) as batches:
            async for batch in batches:
                if batch.revoked or batch.position != reached.position:
                    moved = await self._queue.take(batch, self._receivers, reached, self._clock())
                    if moved is None:
                        break
                    reached = moved
                    for receiver in self._receivers:
                        self.wake(receiver.name)
        await asyncio.sleep(_PAUSE_SECONDS)

    async def _trim(self) -> None:
        for name, count in (await self._queue.trim(self._receivers, self._clock())).items():
            _log.warning("receiver %s: %d security events were dropped, for nobody has taken them", name, count)
        await asyncio.sleep(_TRIM_SECONDS)

    async def _push(self, receiver: Receiver) -> None:
        """Push what waits for a receiver."""
        news = self._news[receiver.name]
        news.clear()
        failures = 0
        while waiting := await self._queue.waiting(receiver.name, _AT_ONCE):
            verdicts = await asyncio.gather(*(self._deliver(receiver, each) for each in waiting))
            over = [each for each, (outcome, _) in zip(waiting, verdicts, strict=True) if outcome != "later"]
            await self._queue.done(receiver.name, [each.token_id for each in over])
            self._report(receiver, waiting, verdicts)
            if len(over) < len(waiting):
                pause = min(_PAUSE_SECONDS * 2**failures, _MOST_PAUSE_SECONDS)
                failures += 1
                await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - it spreads load
            else:
                failures = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await news.wait()

    async def _deliver(self, receiver: Receiver, waiting: Waiting) -> Verdict:
        origin = self._origins[receiver.name]
        token = security_event.sign(waiting.claims, self._keyring.signing_key())
        proof = [("Authorization", receiver.push_authorization)] if receiver.push_authorization else []
        try:
            return await _pushed(origin, receiver.push_path, token, [*_HEADERS, *proof])
        except StoreUnavailable as error:  # its words begin with the address, which may be a secret
            return Verdict("later", str(error).removeprefix(f"{origin.url}{receiver.push_path}: "))

    def _report(self, receiver: Receiver, waiting: Sequence[Waiting], verdicts: Sequence[Verdict]) -> None:
        what = f"receiver {receiver.name}"
        for each, verdict in zip(waiting, verdicts, strict=True):
            if verdict.outcome == "dropped":
                _log.warning("%s: it refused the security event %s: %s", what, each.token_id, verdict.words)
        late = [verdict.words for verdict in verdicts if verdict.outcome == "later"]
        if late:
            self._trouble(what, late[0])
        else:
            self._at_ease(what)

    def _trouble(self, what: str, words: str) -> None:
        if self._troubles.get(what) != words:
            _log.warning("%s: trying again: %s", what, words)
            self._troubles[what] = words

    def _at_ease(self, what: str) -> None:
        if self._troubles.pop(what, None) is not None:
            _log.info("%s: all is well again", what)


def judge(status: int, content: bytes) -> Verdict:
    """Return what becomes of a token after its receiver's answer; the module has the table."""
    if 200 <= status < 300:
        return Verdict("delivered", "")
    try:
        err = msgspec.json.decode(content, type=dict[str, object]).get("err") if status == 400 else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        err = None
    if isinstance(err, str) and err not in _MENDABLE:
        return Verdict("dropped", "".join(c for c in err[:64] if c.isprintable()))
    return Verdict("later", f"the answer was {status}" + (f" {err}" if isinstance(err, str) else ""))


async def _pushed(origin: Origin, path: str, token: str, headers: Sequence[tuple[str, str]]) -> Verdict:
    body = token.encode("ascii")
    async with origin.post(path, body, accept="application/json", headers=headers, seconds=_ANSWER_SECONDS) as answer:
        content = await answer.body(limit=_MOST_ANSWER, seconds=_ANSWER_SECONDS) if answer.status == 400 else b""
        return judge(answer.status, content)


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
