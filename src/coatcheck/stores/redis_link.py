"""RedisLink: sends commands to the servers that hold their keys: one server, a Cluster, or a Sentinel's choice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from redis.crc import key_slot
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
from coatcheck.stores.redis_log import Log
from coatcheck.stores.redis_scripts import SOURCES, Call, Command
from coatcheck.stores.redis_url import Address, Target
from coatcheck.stores.redis_waiting import Said, Wait
from coatcheck.stores.redis_wire import FAILURES, Drive, Pool, Reply, Wire

_MOST_ROUNDS = 6
_ELSEWHERE = (MovedError, ReadOnlyError, ClusterDownError)
_NOT_DONE = (*_ELSEWHERE, AskError, TryAgainError, NoScriptError)
"""Answers of a server that has done nothing of what it was asked: only these are asked again."""

Gate = AbstractAsyncContextManager[object]
Exchange = Callable[[Address, Sequence[Command]], Awaitable[list[Reply]]]


class Places(Protocol):
    """Which server holds what."""

    async def primaries(self, exchange: Exchange) -> Sequence[Address]:
        """Return every server that takes writes."""
        ...

    async def home(self, key: bytes, exchange: Exchange) -> Address:
        """Return the server that holds a key."""
        ...

    def forget(self) -> None:
        """Look it up again before the next command."""
        ...


class OneServer:
    """There is one server."""

    def __init__(self, address: Address) -> None:
        self._address = address

    async def primaries(self, exchange: Exchange) -> Sequence[Address]:  # noqa: ARG002
        """See `Places`."""
        return [self._address]

    async def home(self, key: bytes, exchange: Exchange) -> Address:  # noqa: ARG002
        """See `Places`."""
        return self._address

    def forget(self) -> None:
        """See `Places`."""


class Sentinels:
    """The Sentinels say which server is the primary of a service."""

    def __init__(self, sentinels: Sequence[Address], service: str, one: Gate) -> None:
        self._sentinels, self._service, self._one = list(sentinels), service, one
        self._primary: Address | None = None

    async def primaries(self, exchange: Exchange) -> Sequence[Address]:
        """See `Places`."""
        return [await self.home(b"", exchange)]

    async def home(self, key: bytes, exchange: Exchange) -> Address:  # noqa: ARG002
        """See `Places`."""
        async with self._one:  # who comes while it is looked up waits for what is found
            return self._primary or await self._look_up(exchange)

    def forget(self) -> None:
        """See `Places`."""
        self._primary = None

    async def _look_up(self, exchange: Exchange) -> Address:
        for sentinel in _in_turn(self._sentinels):
            try:
                [found] = await exchange(sentinel, [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)])
            except (*FAILURES, StoreUnavailable):
                continue
            if found and not isinstance(found, ResponseError):
                self._primary = primary = (_text(found[0]), int(found[1]))
                return primary
        raise StoreUnavailable("no Sentinel names a primary")


class Cluster:
    """The servers of a Cluster say which slots each of them holds."""

    def __init__(self, seeds: Sequence[Address], one: Gate) -> None:
        self._seeds, self._one = seeds, one
        self._servers = list(seeds)
        self._slots: list[Address | None] | None = None

    async def primaries(self, exchange: Exchange) -> Sequence[Address]:
        """See `Places`."""
        slots = self._slots or await self._found(exchange)
        return sorted({address for address in slots if address is not None})

    async def home(self, key: bytes, exchange: Exchange) -> Address:
        """See `Places`."""
        slots = self._slots or await self._found(exchange)
        address = slots[key_slot(key)]
        if address is None:
            self.forget()
            raise StoreUnavailable("no server of the Cluster holds this slot")
        return address

    def forget(self) -> None:
        """See `Places`."""
        self._slots = None

    async def _found(self, exchange: Exchange) -> list[Address | None]:
        async with self._one:  # who comes while they are looked up waits for what is found
            return self._slots or await self._look_up(exchange)

    async def _look_up(self, exchange: Exchange) -> list[Address | None]:
        for server in _in_turn(self._servers):
            try:
                [ranges] = await exchange(server, [("CLUSTER", "SLOTS")])
            except (*FAILURES, StoreUnavailable):
                continue
            if ranges and not isinstance(ranges, ResponseError):
                slots = _slot_table(ranges, server[0])
                self._servers = _merged(self._servers, {*self._seeds, *filter(None, slots)})
                self._slots = slots
                return slots
        raise StoreUnavailable("no server of the Cluster can be asked for its slots")


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
        self._places = _places(target, drive.gate(1))
        self._only = target.addresses[0] if target.kind == "single" else None
        self.clustered = target.kind == "cluster"

    async def send(self, calls: Sequence[Call], *, wait: Wait | None = None) -> list[Reply | StoreUnavailable]:
        """Return what each call was answered, or why it was not; whatever reached a server is not sent twice.

        Args:
            calls: each goes to its key's server; those of one server go together, in their order.
            wait: which replicas must have what was written, or it counts as not answered.
        """
        if not calls:
            return []
        commands = [call.command for call in calls]
        replies: list[Reply] = [None] * len(calls)
        pending = list(range(len(calls)))
        for _ in range(_MOST_ROUNDS):
            await self._round(calls, commands, replies, pending, wait)
            pending = [number for number in pending if isinstance(replies[number], _NOT_DONE)]
            if not pending:
                return [_no_error(reply) for reply in replies]
            for number in pending:
                if isinstance(replies[number], NoScriptError):
                    commands[number] = ("EVAL", SOURCES[bytes(commands[number][1])], *commands[number][2:])  # type: ignore[arg-type]
                elif isinstance(replies[number], _ELSEWHERE):
                    self._places.forget()
        return [_no_error(reply) for reply in replies]

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

    async def _round(
        self,
        calls: Sequence[Call],
        commands: Sequence[Command],
        replies: list[Reply],
        pending: Sequence[int],
        wait: Wait | None,
    ) -> None:
        """Send what is pending, and put the answers where they belong."""
        if self._only is not None and wait is None and not any(replies):  # all of it goes there, for the first time
            replies[:] = await self._all_to(self._only, commands)
            return
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

    async def _all_to(self, address: Address, commands: Sequence[Command]) -> Sequence[Reply]:
        try:
            return await self._exchange(address, commands)
        except StoreUnavailable as error:
            return [error] * len(commands)

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
        if wait is None:
            answers = await self._exchange(address, batch)
            return [answers[place] for place in places]
        answers = await self._exchange(address, *wait.round_trips(batch, keys[0], self._patience))
        said = wait.said(answers[len(batch) :])
        done = [n for n, place in enumerate(places) if not isinstance(answers[place], ResponseError)]
        if (
            isinstance(said.marked, ResponseError) and done
        ):  # the first one's slot is elsewhere: no matter of the others'
            said = wait.said(await self._exchange(address, *wait.round_trips([], keys[done[0]], self._patience)))
        pending = await self._pending(address, wait, said) if done else ""
        for n in done if pending else ():
            answers[places[n]] = StoreUnavailable(pending)
        return [answers[place] for place in places]

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
            self._places.forget()
            raise StoreUnavailable(f"the Redis server cannot answer: {type(error).__name__}") from error
        except BaseException:  # it did not answer in time; another one may have taken its place
            self._places.forget()
            raise

    def _new_pool(self, address: Address) -> Pool:
        return Pool(lambda: self._wire(address), self._drive.gate())

    def _wire(self, address: Address) -> Wire:
        arguments, tls = self._arguments, self._target.tls
        if self._target.kind == "sentinel" and address in self._target.addresses:
            target = self._target
            user = {"username": target.sentinel_username, "password": target.sentinel_password, "db": 0}
            arguments = {**arguments, **user}
        return self._drive.wire(address, arguments, tls=tls)


def _places(target: Target, one: Gate) -> Places:
    if target.kind == "cluster":
        return Cluster(target.addresses, one)
    if target.kind == "sentinel":
        return Sentinels(target.addresses, target.service, one)
    return OneServer(target.addresses[0])


def _in_turn(servers: list[Address]) -> Iterator[Address]:
    """Yield each of them; who was asked goes to the end, so that one that hangs is not asked first again."""
    for _ in range(len(servers)):
        server = servers.pop(0)
        servers.append(server)
        yield server


def _merged(servers: Sequence[Address], found: set[Address]) -> list[Address]:
    """Return what was found, in the order in which it was known."""
    known = [server for server in servers if server in found]
    return [*known, *sorted(found.difference(known))]


def _slot_table(ranges: list[Any], asked: str) -> list[Address | None]:
    """Return the primary of each slot, from what CLUSTER SLOTS says; a server without a host is the one asked."""
    slots: list[Address | None] = [None] * 16384
    for first, last, primary, *_ in ranges:
        address = (_text(primary[0]) if primary[0] else asked, int(primary[1]))
        slots[first : last + 1] = [address] * (last + 1 - first)
    return slots


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


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
