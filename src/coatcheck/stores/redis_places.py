"""Places: which servers hold what: one server, a Cluster's, or the one that Sentinels have chosen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

from redis.crc import key_slot
from redis.exceptions import ResponseError

from coatcheck.errors import StoreUnavailable
from coatcheck.stores.redis_pool import Gate
from coatcheck.stores.redis_scripts import Command
from coatcheck.stores.redis_url import Address, Target
from coatcheck.stores.redis_wire import FAILURES, Reply

Exchange = Callable[[Address, Sequence[Command]], Awaitable[list[Reply]]]


class Places(Protocol):
    """Which server holds what."""

    async def primaries(self, exchange: Exchange) -> Sequence[Address]:
        """Return every server that takes writes."""
        ...

    async def home(self, key: bytes, exchange: Exchange) -> Address:
        """Return the server that holds a key."""
        ...

    def only(self) -> Address | None:
        """Return the server that holds everything, if there is one and it is known."""
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

    def only(self) -> Address | None:
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

    def only(self) -> Address | None:
        """See `Places`."""
        return self._primary

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

    def only(self) -> Address | None:
        """See `Places`."""
        return None

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


def places(target: Target, one: Gate) -> Places:
    """Return what finds the servers of a target; `one` lets one caller through at a time."""
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


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")
