"""RedisDocuments: documents in Redis or Valkey, on one server, behind Sentinels, or on a Cluster.

    <prefix>:{server}d:<key>    a document: format, 0x01; value; checksum. It expires by itself, if at all
    <prefix>:{server}i          the keys of those that do not expire, for `page`

All of them share a hash slot, so one script reads, judges and writes several at once, on a Cluster too: on one of its
servers. They are the few that a server needs for itself; sessions lie apart, spread over all servers.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Final

from coatcheck.documents import Values, check_keys, check_writes, page_bounds
from coatcheck.errors import StoreUnavailable
from coatcheck.stores import redis_scripts as scripts
from coatcheck.stores.encoding import document_key, protect, unprotect
from coatcheck.stores.redis_place import RedisPlace
from coatcheck.stores.redis_waiting import Wait

_FORMAT: Final = b"\1"


class RedisDocuments(RedisPlace):
    """Documents on Redis (6.2 or later) or Valkey (8 or later).

    Its arguments, and `from_url`, `durability`, `open` and `close`, are those of `RedisPlace`. A store may have
    the same prefix. A note waits for no replica.
    """

    async def get(self, *keys: str) -> builtins.list[bytes | None]:
        """Return what is stored; see `Documents.get`."""
        check_keys(*keys)
        return await self._do(self._get([key.encode() for key in keys])) if keys else []

    async def commit(self, expected: Values, writes: Values, *, expires_at: int | None = None) -> bool:
        """Compare and swap, durably; see `Documents.commit`.

        Raises:
            StoreUnavailable: it cannot be told whether it was done; or it was, but is not in the server's log yet, or
                not on as many replicas as were asked for.
        """
        check_writes(expected, writes, expires_at)
        await self.open()
        return await self._do(self._commit(expected, writes, expires_at, self._wait))

    async def note(self, expected: Values, writes: Values, *, expires_at: int | None = None) -> bool:
        """Compare and swap, without waiting for the log or replicas; see `Documents.note`."""
        check_writes(expected, writes, expires_at)
        return await self._do(self._commit(expected, writes, expires_at, None))

    async def page(self, prefix: str, after: str = "", limit: int = 500) -> builtins.list[tuple[str, bytes]]:
        """Return documents in order; see `Documents.page`."""
        return await self._do(self._page(*page_bounds(prefix, after, limit), limit))

    async def sweep(self, now: int) -> int:  # noqa: ARG002 (see `Documents`)
        """Do nothing: the servers remove what has expired; see `Documents.sweep`."""
        return 0

    async def _get(self, names: Sequence[bytes]) -> builtins.list[bytes | None]:
        stored = await self._stored(names)
        return [_content(name, value) if value is not None else None for name, value in zip(names, stored, strict=True)]

    async def _commit(self, expected: Values, writes: Values, expires_at: int | None, wait: Wait | None) -> bool:
        keys = [self._index(), *(self._key(key.encode()) for key in (*expected, *writes))]
        values = [_value(key, value) for key, value in (*expected.items(), *writes.items())]
        arguments = (len(expected), *values, "" if expires_at is None else expires_at)
        command = scripts.call(scripts.COMMIT, tuple(keys), *arguments)
        return bool(await self._ask(self._index(), command, wait))

    async def _page(self, start: bytes, end: bytes, limit: int) -> builtins.list[tuple[str, bytes]]:
        found: builtins.list[tuple[str, bytes]] = []
        while len(found) < limit:
            wanted = limit - len(found)
            command = ("ZRANGEBYLEX", self._index(), b"[" + start, b"(" + end, "LIMIT", 0, wanted)
            names: Sequence[bytes] = await self._ask(self._index(), command)
            if not names:
                break
            stored = zip(names, await self._stored(names), strict=True)
            found += [(document_key(name), _content(name, value)) for name, value in stored if value is not None]
            start = names[-1] + b"\0"  # what was removed meanwhile makes no page short
        return found

    async def _stored(self, names: Sequence[bytes]) -> Sequence[bytes | None]:
        found: Sequence[bytes | None] = await self._ask(self._index(), ("MGET", *map(self._key, names)))
        return found

    def _index(self) -> bytes:
        return b"%b:{server}i" % self._prefix

    def _key(self, name: bytes) -> bytes:
        return b"%b:{server}d:%b" % (self._prefix, name)


def _value(key: str, value: bytes | None) -> bytes:
    return b"" if value is None else _FORMAT + protect(value, key.encode())


def _content(name: bytes, stored: bytes) -> bytes:
    if stored[:1] != _FORMAT:
        raise StoreUnavailable("store damaged: a document of unknown format")
    return unprotect(stored[1:], name)
