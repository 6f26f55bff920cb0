"""Walking through a RedisStore: SCAN on every primary, and the values of the keys that it names.

SCAN promises that a key which is there from the beginning to the end is named at least once. On a Cluster that holds
for each server: while slots move from one to another, a key can slip through between two of them. A walk that finds
the slots elsewhere at its end than they were at its beginning raises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from coatcheck.core.record import Record
from coatcheck.errors import StoreUnavailable
from coatcheck.store import Page
from coatcheck.stores.encoding import id_octets
from coatcheck.stores.redis_scripts import Call, Command, read
from coatcheck.stores.redis_url import Address
from coatcheck.stores.walking import PAGE, read_page

if TYPE_CHECKING:
    from coatcheck.stores.redis_connections import Here
    from coatcheck.stores.redis_wire import Reply

_SAMPLE = 1000


async def walk(here: Here, prefix: bytes) -> AsyncIterator[Page]:
    """Yield every record under a prefix; see `Walkable.walk`."""
    before = await _places(here)
    for address in await here.drive.in_time(here.link.primaries()):
        async for keys in scan(here, address, prefix):
            ids = _ids(keys, prefix)
            for start in range(0, len(ids), PAGE):
                yield await _page(here, prefix, ids[start : start + PAGE])
    if await _places(here) != before:
        raise StoreUnavailable("slots have moved in the Cluster meanwhile: what was in them may be missing")


async def size(here: Here, prefix: bytes) -> int:
    """Return about how many records there are: the share of them in a sample of all keys."""
    about = 0.0
    for address in await here.drive.in_time(here.link.primaries()):
        count = await _ask(here, address, ("DBSIZE",))
        _, keys = await _ask(here, address, ("SCAN", 0, "COUNT", _SAMPLE))
        about += count * len(_ids(keys, prefix)) / max(1, len(keys))
    return round(about)


async def scan(here: Here, address: Address, prefix: bytes) -> AsyncIterator[Sequence[bytes]]:
    """Yield the keys under a prefix that one server holds, some more than once."""
    cursor = b"0"
    while True:
        cursor, keys = await _ask(here, address, ("SCAN", cursor, "MATCH", prefix + b":*", "COUNT", PAGE))
        yield keys
        if cursor == b"0":
            return


async def _page(here: Here, prefix: bytes, ids: Sequence[str]) -> Page:
    calls = [Call(key, ("GET", key)) for key in (b"%b:%b" % (prefix, id.encode()) for id in ids)]
    values: list[bytes | None] = []
    for reply in await here.drive.in_time(here.link.send(calls)):
        if isinstance(reply, Exception):
            raise reply
        values.append(reply)
    return read_page(zip(ids, values, strict=True), _read)


def _read(id: str, value: bytes | None) -> Record | None:
    octets = id_octets(id)
    return read(id, octets, value) if octets is not None else None


def _ids(keys: Sequence[bytes], prefix: bytes) -> list[str]:
    """Return the ids of records among keys; all else that we keep has a brace in its key."""
    names = {key[len(prefix) + 1 :].decode("latin-1") for key in keys if key.startswith(prefix + b":")}
    return [name for name in names if id_octets(name) is not None]


async def _places(here: Here) -> Reply:
    if not here.link.clustered:
        return None
    addresses = await here.drive.in_time(here.link.primaries())
    return await _ask(here, addresses[0], ("CLUSTER", "SLOTS"))


async def _ask(here: Here, address: Address, command: Command) -> Reply:
    reply = await here.drive.in_time(here.link.ask_server(address, command))
    if isinstance(reply, Exception):
        raise StoreUnavailable(f"the Redis server refuses to be walked: {type(reply).__name__}") from reply
    return reply
