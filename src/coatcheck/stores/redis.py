"""RedisStore: records in Redis or Valkey, on one server, behind Sentinels, or on a Cluster.

    <prefix>:<id>           a record, or a grave; expires by itself
    <prefix>:{<tag>}i       the index of a subject: ids, by the time behind which their records cannot exist
    <prefix>:{<tag>}c       the subject's cut-off

On a Cluster a subject's index and cut-off share a slot (the tag is a hash of the subject), and each of its records
lies in a slot of its own: only the id is known when it is loaded. No script can touch both, so `create` and
`revoke_subject` take several steps, each of them atomic:

    create          E  in the index's slot: refuse if made before the cut-off; write the id into the index
                    C  in the record's slot: store the record, unless something lies there, if only a grave
    revoke_subject  R  in the index's slot: advance the cut-off; strike out the ids buried so far; read the others
                    B  in each record's slot: put a grave in place of whatever lies there, or of nothing
                    and again from R, until R reads no id but `keep`

What this gives, for any order in which these steps of any processes meet:

1. Whoever is stored is in the index: E comes before C, and ids leave the index only in R, after their B (and after a
   `delete`, and a day after no clock lets their records exist). So `list`, which reads the index and then the
   records, is the truth: the index is only a hint of where to look.
2. Let T be the moment of the R that reads nothing. Each id that was ever in the index before T was buried before T, so
   no record of the subject but `keep` is stored at T, and no C whose E came before T will ever succeed: it finds
   the grave. (Graves stay for a day; no sign-in takes that long. Ids are 128 random bits, and are used once.)
3. A `create` whose E comes after T began after the cut-off, or is refused by it.

So `revoke_subject` takes effect at T, as one step, for all records at once, and no `create` that began before it
survives it (P1). That also holds for a rotation under way: if the new id's E comes before T, the new record is buried;
if it comes after T, the old record was buried by then, `replace` fails, and the desk takes the new one back.
A sign-in that begins anew between two R is ended too, as if it had come a moment earlier. Steps that fail leave the
cut-off standing and the answer is StoreUnavailable: pending, never done. A second call finishes it.

The servers' clocks decide when a record expires, and nothing else. Each step is answered when its server's log has
it, so whatever process dies, no later step is kept where an earlier one was lost. Where a primary is lost for good,
E may be lost and C kept unless `wait_replicas` holds the answer to each of them back: only then is a write
"failover-safe".
"""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from coatcheck.core import base64url
from coatcheck.core.record import Record
from coatcheck.errors import StoreUnavailable
from coatcheck.store import Page
from coatcheck.stores import redis_scripts as scripts
from coatcheck.stores import redis_walk
from coatcheck.stores.encoding import id_octets
from coatcheck.stores.merging import CUTOFF_MEMORY
from coatcheck.stores.redis_place import RedisPlace
from coatcheck.stores.redis_scripts import Call
from coatcheck.stores.redis_url import Address

if TYPE_CHECKING:
    from coatcheck.stores.redis_wire import Reply

_INDEX_FIRST = 2  # what REPLACE answers when a record may live longer than its index knows
_ALWAYS = 2**53  # later than any cut-off
_CHUNK = 500
_MOST_ROUNDS = 1000
_SLACK = 60_000  # ms by which a server's clock may be behind before `sweep` does the server's work


class RedisStore(RedisPlace):
    """A store on Redis (6.2 or later) or Valkey (8 or later).

    Its arguments, and `from_url`, `durability`, `open` and `close`, are those of `RedisPlace`.
    """

    async def create(self, record: Record) -> bool:
        """Store a new record; see `Store.create`."""
        octets = id_octets(record.id)
        value = scripts.write(record, octets) if octets is not None else None
        if octets is None or value is None:
            return False
        await self.open()
        if record.subject is None:
            return await self._created(record, value)
        index, cutoff = self._index(record.subject), self._cutoff(record.subject)
        entry = (octets, scripts.bound(record), record.created_at)
        entered = self._ask(index, scripts.call(scripts.ENTER, (index, cutoff), *entry), self._wait)
        return await self._do(self._create(record, value, entered))

    async def load(self, id: str) -> Record | None:
        """Return a record, or None; see `Store.load`. The loads of one tick of an event loop are one command."""
        octets = id_octets(id)
        if octets is None:
            return None
        if self._durability is None:
            await self.open()
        return scripts.read(id, octets, await self._here().load(self._key(id)))

    async def replace(self, record: Record) -> bool:
        """Compare and swap; see `Store.replace`."""
        octets = id_octets(record.id)
        value = scripts.write(record, octets) if octets is not None else None
        if octets is None or value is None:
            return False
        if self._durability is None:
            await self.open()
        replaced = self._here().ask(self._replacing(record, value, "0"), self._wait)
        if record.successor is not None:
            return await self._do(self._supersede(record, octets, value, replaced))
        done: int = await replaced
        return done == 1 or (done == _INDEX_FIRST and await self._do(self._lengthen(record, octets, value)))

    async def touch(self, id: str, seen_at: int, expires_at: int) -> None:
        """Move times forward; see `Store.touch`."""
        if id_octets(id) is not None:
            await self.open()
            key = self._key(id)
            await self._ask(key, scripts.call(scripts.TOUCH, (key,), seen_at, expires_at))

    async def delete(self, id: str) -> Record | None:
        """Remove and return a record; a damaged one is removed too, but not returned; see `Store.delete`.

        Raises:
            StoreUnavailable: what was removed was damaged, so it cannot be told where its session went; or it is
                removed, but not yet in the server's log, or on as many replicas as were asked for.
        """
        octets = id_octets(id)
        if octets is None:
            return None
        await self.open()
        key = self._key(id)
        return await self._do(
            self._delete(id, octets, self._ask(key, scripts.call(scripts.DELETE, (key,)), self._wait))
        )

    async def list(self, subject: str) -> builtins.list[Record]:
        """Return a subject's records; see `Store.list`.

        Raises:
            StoreUnavailable: one of them is damaged: a shorter list would not be the truth.
        """
        # Each step in time, and not the whole: "sign out everywhere" begins with it, however many they are (P1).
        return await self._do(self._list(subject), limited=False)

    async def revoke_subject(self, subject: str, before: int, keep: str | None = None) -> builtins.list[str]:
        """Remove a subject's records, damaged ones too; see `Store.revoke_subject`, and this module's proof."""
        kept = id_octets(keep) if keep is not None else None
        return await self._do(self._revoke_subject(subject, before, kept or b""), limited=False)

    async def sweep(self, now: int) -> int:
        """Remove expired records if a server's clock is far behind; else it does so by itself; see `Store.sweep`."""
        return await self._do(self._sweep(now), limited=False)

    async def walk(self) -> AsyncIterator[Page]:
        """Yield every record; see `Walkable.walk`, and `coatcheck.stores.redis_walk` on a Cluster whose slots move."""
        await self.open()
        async for page in redis_walk.walk(self._here(), self._prefix):
            yield page

    async def size(self) -> int:
        """Return about how many records there are; see `Walkable.size`."""
        await self.open()
        return await redis_walk.size(self._here(), self._prefix)

    # -- steps -------------------------------------------------------------------------------------------------

    # The caller asks for the first step of a write, in its own tick; a task does the others, whoever stops waiting.

    async def _create(self, record: Record, value: bytes, entered: Awaitable[Reply]) -> bool:
        return bool(await entered) and await self._created(record, value)

    async def _created(self, record: Record, value: bytes) -> bool:
        key = self._key(record.id)
        command = scripts.call(scripts.CREATE, (key,), value, scripts.expiry(record))
        return bool(await self._ask(key, command, self._wait))

    async def _supersede(self, record: Record, octets: bytes, value: bytes, replaced: Awaitable[Reply]) -> bool:
        done = await replaced
        if not (done == 1 or (done == _INDEX_FIRST and await self._lengthen(record, octets, value))):
            return False
        if record.subject is not None:
            # The index may forget a stump sooner; that it does not hear of this is no failure.
            index = self._index(record.subject)
            with suppress(StoreUnavailable):
                await self._ask(index, ("ZADD", index, "XX", "LT", scripts.bound(record), octets))
        return True

    async def _lengthen(self, record: Record, octets: bytes, value: bytes) -> bool:
        """Replace a record by one that may live longer than its index knows; it is stored, so no cut-off forbids it."""
        if record.subject is not None:
            index, cutoff = self._index(record.subject), self._cutoff(record.subject)
            entry = (octets, scripts.bound(record), _ALWAYS)
            await self._ask(index, scripts.call(scripts.ENTER, (index, cutoff), *entry), self._wait)
        done = await self._here().ask(self._replacing(record, value, "1"), self._wait)
        return bool(done == 1)

    async def _delete(self, id: str, octets: bytes, deleted: Awaitable[Reply]) -> Record | None:
        removed = scripts.read(id, octets, await deleted)
        if removed is not None and removed.subject is not None:
            index = self._index(removed.subject)
            with suppress(StoreUnavailable):  # a hint that stays is no failure
                await self._ask(index, ("ZREM", index, octets))
        return removed

    async def _list(self, subject: str) -> builtins.list[Record]:
        index = self._index(subject)
        members: Sequence[bytes] = await self._ask(index, ("ZRANGE", index, 0, -1))
        ids = {base64url.encode(octets): octets for octets in members}
        values: dict[bytes, bytes | Exception | None] = {}
        for start in range(0, len(ids), _CHUNK):
            some = [self._key(id) for id in builtins.list(ids)[start : start + _CHUNK]]
            values |= await self._in_time(self._here().fetch(some))
        found: builtins.list[Record] = []
        for id, octets in ids.items():
            value = values.get(self._key(id))
            if isinstance(value, Exception):
                raise value
            record = scripts.read(id, octets, value)
            if record is not None and record.subject == subject:
                found.append(record)
        return found

    async def _revoke_subject(self, subject: str, before: int, kept: bytes) -> builtins.list[str]:
        index, cutoff = self._index(subject), self._cutoff(subject)
        ended: builtins.list[str] = []
        buried: Sequence[bytes] = ()
        for _ in range(_MOST_ROUNDS):
            command = scripts.call(scripts.REVOKE, (index, cutoff), before, kept, _CHUNK, *buried)
            buried = await self._in_time(self._ask(index, command, self._wait))
            if not buried:
                return ended
            ended += await self._in_time(self._bury(subject, buried))
        raise StoreUnavailable("pending: new sessions of the subject keep coming; try again")

    async def _bury(self, subject: str, members: Sequence[bytes]) -> builtins.list[str]:
        """Put graves in place of records, and return the ids of those that were sessions, not stumps."""
        owner, ids = scripts.tag(subject), {base64url.encode(octets): octets for octets in members}
        answers = await self._bury_each(builtins.list(ids), owner, whatever="0")
        damaged = [id for id, (done, value) in answers.items() if done == 0 and _is_damaged(id, ids[id], value)]
        answers |= await self._bury_each(damaged, owner, whatever="1") if damaged else {}
        return [id for id, (done, value) in answers.items() if done == 1 and _was_session(id, ids[id], value)]

    async def _bury_each(
        self, ids: Sequence[str], owner: bytes, *, whatever: str
    ) -> dict[str, tuple[int, bytes | None]]:
        calls = [Call(key, scripts.call(scripts.BURY, (key,), owner, whatever)) for key in map(self._key, ids)]
        answers: dict[str, tuple[int, bytes | None]] = {}
        for id, reply in zip(ids, await self._here().link.send(calls, wait=self._wait), strict=True):
            if isinstance(reply, StoreUnavailable):
                raise reply
            answers[id] = (reply[0], reply[1])
        return answers

    async def _sweep(self, now: int) -> int:
        link, removed = self._here().link, 0
        for address in await self._in_time(link.primaries()):
            seconds, _ = await self._in_time(self._ask_server(address, ("TIME",)))
            if int(seconds) * 1000 >= now - _SLACK:
                continue
            async for keys in redis_walk.scan(self._here(), address, self._prefix):
                removed += await self._in_time(self._sweep_some(keys, now))
        return removed

    async def _sweep_some(self, keys: Sequence[bytes], now: int) -> int:
        cutoffs = [key for key in keys if key.endswith(b"}c")]
        records = [key for key in keys if b"{" not in key]
        link = self._here().link
        await link.send([Call(key, scripts.call(scripts.FORGET, (key,), now - CUTOFF_MEMORY)) for key in cutoffs])
        replies = await link.send([Call(key, scripts.call(scripts.EXPIRE, (key,), now)) for key in records])
        return sum(reply for reply in replies if isinstance(reply, int))

    # -- inside ------------------------------------------------------------------------------------------------

    async def _ask_server(self, address: Address, command: scripts.Command) -> Reply:
        reply = await self._here().link.ask_server(address, command)
        if isinstance(reply, Exception):
            raise StoreUnavailable("the Redis server refuses to be swept") from reply
        return reply

    def _replacing(self, record: Record, value: bytes, indexed: str) -> Call:
        key = self._key(record.id)
        return Call(key, scripts.call(scripts.REPLACE, (key,), value, indexed))

    def _key(self, id: str) -> bytes:
        return b"%b:%b" % (self._prefix, id.encode())

    def _index(self, subject: str) -> bytes:
        return b"%b:{%b}i" % (self._prefix, base64url.encode(scripts.tag(subject)).encode())

    def _cutoff(self, subject: str) -> bytes:
        return b"%b:{%b}c" % (self._prefix, base64url.encode(scripts.tag(subject)).encode())


def _is_damaged(id: str, octets: bytes, value: bytes | None) -> bool:
    try:
        scripts.read(id, octets, value)
    except StoreUnavailable:
        return True
    return False


def _was_session(id: str, octets: bytes, value: bytes | None) -> bool:
    try:
        record = scripts.read(id, octets, value)
    except StoreUnavailable:
        return True  # the index says whose it was
    return record is not None and record.successor is None
