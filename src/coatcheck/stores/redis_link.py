"""RedisLink: sends commands to the servers that hold their keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis_drive import Drive
from coatcheck.stores.redis_log import Log
from coatcheck.stores.redis_places import places
from coatcheck.stores.redis_pool import Pool
from coatcheck.stores.redis_resp import Answered
from coatcheck.stores.redis_scripts import SOURCES, Call, Command
from coatcheck.stores.redis_url import Address, Target
from coatcheck.stores.redis_waiting import Said, Wait
from coatcheck.stores.redis_wire import FAILURES, Reply, Wire

_MOST_ROUNDS: Final = 6
_ELSEWHERE: Final = (MovedError, ReadOnlyError, ClusterDownError)
_NOT_DONE: Final = (*_ELSEWHERE, AskError, TryAgainError, NoScriptError)
"""Answers of a server that has done nothing of what it was asked: only these are asked again."""


class RedisLink:
    """Sends commands, and their replies back, in one event loop or without one.

    Args:
        target: where the servers are.
        arguments: more of redis-py's arguments of a connection.
        drive: how coroutines are driven here.
        timeout: how long a call may take, in seconds; replicas, and a server's log, are waited for a part of it.
    """

    def __init__(self, target: Target, arguments: dict[str, Any], drive: Drive, *, timeout: float) -> None:
        self._target, self._drive = target, drive
        self._patience = int(timeout * 333)  # ms; a call waits for replicas twice at most, and must answer in time
        self._log = Log(self._exchange, drive, timeout)
        user = {"username": target.username, "password": target.password, "db": target.database}
        self._arguments = {**user, **arguments}
        self._pools: dict[Address, Pool] = {}
        self._places = places(target, drive.gate(1))
        self.clustered = target.kind == "cluster"

    def only(self) -> Address | None:
        """Return the server that holds everything, if there is one and it is known."""
        return self._places.only()

    def send_at_once(
        self, server: Address, calls: Sequence[Call], answered: Answered, *, wait: Wait | None = None
    ) -> bool:
        """Send calls without a task, over an idle connection, and say whether there is no more to it than that.

        Nearly all calls go this way: the task and the coroutines of `send` cost more than the commands.

        Args:
            server: holds everything.
            calls: see `send`.
            answered: is called in time with what `finish` makes answers of, or with a StoreUnavailable.
            wait: see `send`.
        """
        pool = self._pools.get(server)
        if pool is None or (wait is not None and wait.replicas):
            return False
        commands = [call.command for call in calls]
        [batch] = wait.round_trips(commands, calls[0].key, self._patience) if wait is not None else [commands]

        def told(found: list[Reply] | Exception) -> None:
            answered(self._cannot(found) if isinstance(found, Exception) else found)

        return pool.ask(batch, told)

    async def send(self, calls: Sequence[Call], *, wait: Wait | None = None) -> list[Reply | StoreUnavailable]:
        """Return what each call was answered, or why it was not; whatever reached a server is not sent twice.

        Args:
            calls: each goes to its key's server; those of one server go together, in their order.
            wait: which replicas must have what was written, or it counts as not answered.
        """
        if not calls:
            return []
        commands, replies = [call.command for call in calls], list[Reply]([None] * len(calls))
        await self._round(calls, commands, replies, range(len(calls)), wait)
        return await self._again(calls, commands, replies, wait)

    async def finish(
        self, server: Address, calls: Sequence[Call], found: Sequence[Reply], *, wait: Wait | None = None
    ) -> list[Reply | StoreUnavailable]:
        """Return what `send` would, where `send_at_once` has found something: of all kinds, errors among them."""
        commands, replies = [call.command for call in calls], list(found)
        if wait is not None:
            keys, count = [call.key for call in calls], len(calls)
            replies = await self._acknowledged(server, keys, replies[:count], replies[count:], wait)
        return await self._again(calls, commands, replies, wait)

    async def ask(self, call: Call, *, wait: Wait | None = None) -> Reply:
        """Return what one call was answered.

        Raises:
            StoreUnavailable: it was not.
        """
        [reply] = await self.send([call], wait=wait)
        if isinstance(reply, StoreUnavailable):
            raise reply
        return reply

    async def primaries(self) -> Sequence[Address]:
        """Return every server that takes writes.

        Raises:
            StoreUnavailable: nobody says which they are.
        """
        return await self._places.primaries(self._exchange)

    async def ask_server(self, address: Address, command: Command) -> Reply:
        """Return what one server answered; it may be a ResponseError.

        Raises:
            StoreUnavailable: it did not answer.
        """
        [reply] = await self._exchange(address, [command])
        return reply

    async def wire_to(self, key: bytes, said: Reply = None) -> Wire:
        """Return a connection of its own to the server that holds a key; whoever asks for it drops it.

        Args:
            key: says which server.
            said: what a server has said instead of an answer: if that was ASK, it says which.

        Raises:
            StoreUnavailable: nobody says which it is.
        """
        if isinstance(said, _ELSEWHERE):
            self._places.forget()
        return self._wire(_redirected(said) or await self._places.home(key, self._exchange))

    def forget(self) -> None:
        """Look up anew which servers hold what: one of them has not answered."""
        self._places.forget()

    async def teach(self) -> None:
        """Tell the servers the scripts, so that the first calls need not; whoever has forgotten one is told again.

        Raises:
            StoreUnavailable: they cannot be reached.
        """
        for address in await self.primaries():
            await self._exchange(address, [("SCRIPT", "LOAD", source) for source in SOURCES.values()])

    async def close(self) -> None:
        """Close all connections."""
        while self._pools:
            _, pool = self._pools.popitem()
            await pool.close()

    async def _again(
        self, calls: Sequence[Call], commands: list[Command], replies: list[Reply], wait: Wait | None
    ) -> list[Reply | StoreUnavailable]:
        """Send again what was not done, some times at most."""
        for _ in range(_MOST_ROUNDS - 1):
            pending = [number for number, reply in enumerate(replies) if isinstance(reply, _NOT_DONE)]
            if not pending:
                break
            for number in pending:
                if isinstance(replies[number], NoScriptError):
                    commands[number] = ("EVAL", SOURCES[bytes(commands[number][1])], *commands[number][2:])  # type: ignore[arg-type]
                elif isinstance(replies[number], _ELSEWHERE):
                    self._places.forget()
            await self._round(calls, commands, replies, pending, wait)
        return [_no_error(reply) for reply in replies]

    async def _round(
        self,
        calls: Sequence[Call],
        commands: Sequence[Command],
        replies: list[Reply],
        pending: Sequence[int],
        wait: Wait | None,
    ) -> None:
        """Send what is pending, and put the answers where they belong."""
        by_server: dict[Address, list[int]] = {}
        for number in pending:
            asked = replies[number]
            try:
                address = _redirected(asked) or await self._places.home(calls[number].key, self._exchange)
            except StoreUnavailable as error:
                replies[number] = error
                continue
            by_server.setdefault(address, []).append(number)

        async def to_server(address: Address, numbers: list[int]) -> None:
            asking = [isinstance(replies[number], AskError) for number in numbers]
            try:
                answers = await self._to_server(
                    address, [calls[n].key for n in numbers], [commands[n] for n in numbers], asking, wait
                )
            except StoreUnavailable as error:
                answers = [error] * len(numbers)
            for number, answer in zip(numbers, answers, strict=True):
                replies[number] = answer

        await self._drive.all(to_server(address, numbers) for address, numbers in by_server.items())

    async def _to_server(
        self, address: Address, keys: list[bytes], commands: list[Command], asking: list[bool], wait: Wait | None
    ) -> list[Reply]:
        batch: list[Command] = []
        places: list[int] = []
        for command, ask in zip(commands, asking, strict=True):
            if ask:
                batch.append(("ASKING",))
            places.append(len(batch))
            batch.append(command)
        round_trips = [batch] if wait is None else wait.round_trips(batch, keys[0], self._patience)
        replies = await self._exchange(address, *round_trips)
        answers = [replies[place] for place in places]
        if wait is None:
            return answers
        return await self._acknowledged(address, keys, answers, replies[len(batch) :], wait)

    async def _acknowledged(
        self, address: Address, keys: Sequence[bytes], answers: list[Reply], others: Sequence[Reply], wait: Wait
    ) -> list[Reply]:
        """Return answers, after waiting for what they have to wait for; those for which it is missing are pending."""
        said = wait.said(others)
        done = [number for number, answer in enumerate(answers) if not isinstance(answer, ResponseError)]
        if isinstance(said.marked, ResponseError) and done:
            # The first one's slot is elsewhere: that is no matter of the others'.
            said = wait.said(await self._exchange(address, *wait.round_trips([], keys[done[0]], self._patience)))
        pending = await self._pending(address, wait, said) if done else ""
        for number in done if pending else ():
            answers[number] = StoreUnavailable(pending)
        return answers

    async def _pending(self, address: Address, wait: Wait, said: Said) -> str:
        """Wait for the server's log, and return what is missing, if anything is."""
        if wait.replicas and (isinstance(said.marked, ResponseError) or wait.pending(said.waited)):
            return wait.pending(None)
        return "" if said.behind == b"" else await self._log.pending(address, said.behind)

    async def _exchange(self, address: Address, *round_trips: Sequence[Command]) -> list[Reply]:
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools.setdefault(address, self._new_pool(address))
        try:
            return await pool.exchange(*round_trips)
        except FAILURES as error:
            raise self._cannot(error) from error
        except BaseException:  # it did not answer in time; another one may have taken its place
            self._places.forget()
            raise

    def _cannot(self, error: Exception) -> StoreUnavailable:
        """Return what is raised when a server has failed; another one may have taken its place."""
        self._places.forget()
        if isinstance(error, StoreUnavailable):
            return error
        return StoreUnavailable(f"the Redis server cannot answer: {type(error).__name__}")

    def _new_pool(self, address: Address) -> Pool:
        return Pool(lambda: self._wire(address), self._drive.gate())

    def _wire(self, address: Address) -> Wire:
        arguments, tls = self._arguments, self._target.tls
        if self._target.kind == "sentinel" and address in self._target.addresses:
            target = self._target
            user = {"username": target.sentinel_username, "password": target.sentinel_password, "db": 0}
            arguments = {**arguments, **user}
        return self._drive.wire(address, arguments, tls=tls)


def _redirected(reply: Any) -> Address | None:
    """Return where the answer ASK sends us: the slot is just moving there."""
    if not isinstance(reply, AskError):
        return None
    host, _, port = str(reply).rpartition(" ")[2].rpartition(":")
    return host, int(port)


def _no_error(reply: Reply) -> Reply | StoreUnavailable:
    if isinstance(reply, ResponseError):
        return StoreUnavailable(f"the Redis server refuses: {type(reply).__name__}: {str(reply)[:100]}")
    return reply
