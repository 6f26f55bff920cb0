r"""What RedisStore keeps under its keys, and the scripts that change it; each of them touches one hash slot.

A record, under `<prefix>:<id>`:

    1   format, 0x01
    8   version        \
    8   seen_at         | big-endian, signed: the scripts compare and change these without knowing the rest
    8   expires_at      |
    8   bound          /  no expiry ever lies behind it: `ends_at`; of a stump, its `expires_at`
    1   1 if it has a successor
    16  whose it is: the subject's tag
        the encoded record without what stands above, and its checksum

A grave, one zero octet, has taken the place of what `revoke_subject` removed: no `create` under way can fill it.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from coatcheck.core.record import Record
from coatcheck.errors import StoreUnavailable
from coatcheck.stores.encoding import protect, unprotect
from coatcheck.stores.merging import CUTOFF_MEMORY

GRAVE: Final = b"\0"
_HEAD = struct.Struct(">BqqqqB16s")
_FORMAT = 1
_NOBODY = bytes(16)

# Server versions from 6.2 on: `PXAT`, `ZADD GT`; scripts replicate their effects, so they may ask for the time.
_HEADER: Final = f"""
local head = redis.call('GETRANGE', KEYS[1], 0, {_HEAD.size - 1})
local there = #head == {_HEAD.size}
local format, version, seen, expires, bound, stump, owner
if there then format, version, seen, expires, bound, stump, owner = struct.unpack('>Bi8i8i8i8Bc16', head) end
"""

CREATE: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
return 1
"""
"""key; value, expiry -> 1, or 0 if the id is taken, if only by a grave."""

REPLACE: Final = (
    _HEADER
    + """
local new = ARGV[1]
local _, next, seen_now, expires_now, bound_now, stump_now, owner_now = struct.unpack('>Bi8i8i8i8Bc16', new)
if not there or version ~= next - 1 or owner ~= owner_now then return 0 end
if bound_now > bound and ARGV[2] == '0' then return 2 end
if seen > seen_now then seen_now = seen end
if stump_now == 0 and expires > expires_now then expires_now = expires end
new = string.sub(new, 1, 9) .. struct.pack('>i8i8', seen_now, expires_now) .. string.sub(new, 26)
redis.call('SET', KEYS[1], new, 'PXAT', string.format('%.0f', math.max(1, math.min(expires_now, bound_now))))
return 1
"""
)
"""key; value, '1' if its bound is in the index -> 1, 0 if it does not follow, 2 if the index must know first."""

TOUCH: Final = (
    _HEADER
    + """
if not there or stump == 1 then return 0 end
local seen_now, expires_now = math.max(seen, tonumber(ARGV[1])), math.max(expires, tonumber(ARGV[2]))
if seen_now == seen and expires_now == expires then return 0 end
redis.call('SETRANGE', KEYS[1], 9, struct.pack('>i8i8', seen_now, expires_now))
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.max(1, math.min(expires_now, bound))))
return 1
"""
)
"""key; seen_at, expires_at."""

DELETE: Final = """
local value = redis.call('GET', KEYS[1])
if not value or value == '\\0' then return false end
redis.call('DEL', KEYS[1])
return value
"""
"""key -> what was removed, or nil."""

# BURY, REVOKE, PUBLISH and MARK first remove something: a script that has written may go on where memory is full (P1).
BURY: Final = f"""
local value = redis.call('GET', KEYS[1])
if value == '\\0' then return {{2, false}} end
if value and ARGV[2] == '0' and string.sub(value, 35, 50) ~= ARGV[1] then return {{0, value}} end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '\\0', 'PX', {CUTOFF_MEMORY})
return {{1, value}}
"""
"""key; tag, '1' to bury whatever it is -> 1 and what is buried now, or 0 and what is another's."""

ENTER: Final = f"""
local cutoff = redis.call('GET', KEYS[2])
if cutoff and tonumber(ARGV[3]) < tonumber(cutoff) then return 0 end
local time = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.0f', time[1] * 1000 - {CUTOFF_MEMORY}))
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.max(1, last + {CUTOFF_MEMORY})))
return 1
"""
"""index, cut-off; id, bound, created_at -> 1, or 0 if the cut-off forbids it.

Hints of what the servers' clocks have ended a day ago are dropped on the way.
"""

REVOKE: Final = f"""
redis.call('ZREM', KEYS[1], '')
local time, cutoff = redis.call('TIME'), redis.call('GET', KEYS[2])
cutoff = math.max(tonumber(ARGV[1]), tonumber(cutoff or ARGV[1]))
local until_ = math.max(time[1] * 1000, cutoff) + {CUTOFF_MEMORY}
redis.call('SET', KEYS[2], string.format('%.0f', cutoff), 'PXAT', string.format('%.0f', math.max(1, until_)))
for number = 4, #ARGV do redis.call('ZREM', KEYS[1], ARGV[number]) end
local left = {{}}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[3]))) do
    if id ~= ARGV[2] then left[#left + 1] = id end
end
return left
"""
"""index, cut-off; before, id to keep or '', how many at most, ids that are buried -> ids that are not."""

EXPIRE: Final = (
    _HEADER
    + """
if not there or expires > tonumber(ARGV[1]) then return 0 end
return redis.call('DEL', KEYS[1])
"""
)
"""key; now -> how many records were removed."""

FORGET: Final = """
local cutoff = redis.call('GET', KEYS[1])
if cutoff and tonumber(cutoff) < tonumber(ARGV[1]) then return redis.call('DEL', KEYS[1]) end
return 0
"""
"""cut-off; before -> how many cut-offs were removed."""

# What could fail comes before what writes: ZCARD, if what lies there is no index; SET, if memory is full, unless
# something was removed first: a script that has written may go on (P1).
COMMIT: Final = """
local count, expires = tonumber(ARGV[1]), ARGV[#KEYS + 1]
redis.call('ZCARD', KEYS[1])
for place = 2, count + 1 do
    if (redis.call('GET', KEYS[place]) or '') ~= ARGV[place] then return 0 end
end
local function name(place) return string.sub(KEYS[place], #KEYS[1] + 2) end
for place = count + 2, #KEYS do
    if ARGV[place] == '' then
        redis.call('DEL', KEYS[place])
        redis.call('ZREM', KEYS[1], name(place))
    end
end
for place = count + 2, #KEYS do
    if ARGV[place] ~= '' and expires == '' then
        redis.call('SET', KEYS[place], ARGV[place])
        redis.call('ZADD', KEYS[1], 0, name(place))
    elseif ARGV[place] ~= '' then
        redis.call('SET', KEYS[place], ARGV[place], 'PXAT', expires)
        redis.call('ZREM', KEYS[1], name(place))
    end
end
return 1
"""
"""index, documents read, documents written; how many are read, what was read, what is written, expiry or '' -> 1 or 0.

'' stands for what is not there. The index has the names of the documents that do not expire; a document's key is the
index's, with 'd:' and its name in place of 'i'.
"""

PUBLISH: Final = """
redis.call('XDEL', KEYS[1], '0-0')
local last, time = '0-0', redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('EXISTS', KEYS[1]) == 1 then
    local about = redis.call('XINFO', 'STREAM', KEYS[1])
    for place = 1, #about, 2 do if about[place] == 'last-generated-id' then last = about[place + 1] end end
    for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '(' .. last, 'COUNT', 4)) do
        if tonumber(entry[2][2]) > now then break end
        redis.call('XDEL', KEYS[1], entry[1])
    end
end
local id = string.format('%.0f-%s', string.match(last, '%d+') + 1, ARGV[1])
redis.call('XADD', KEYS[1], id, 'due', string.format('%.0f', now + ARGV[2]), 'body', ARGV[3])
return id
"""
"""stream; tag, for how many ms it is of use, body -> the id of the new entry: the next number, and the tag.

A few entries at the front that are of no use any more are dropped; the newest one stays.
"""

MARK: Final = """
redis.call('DEL', KEYS[1])
return redis.call('SET', KEYS[1], '', 'PX', 1000)
"""
"""key: writes something, so that replicas can be waited for. It is sent by its text: nobody would tell it again."""

# What is written is in the log before anybody hears the answer, unless a sync is under way. The last write could fail.
BEHIND: Final = """
local log = redis.call('INFO', 'persistence')
local function says(word) return string.find(log, word, 1, true) end
if says('aof_pending_bio_fsync:0') and says('aof_last_write_status:ok') then return '' end
return string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
"""
"""-> '' if the server's log has all that was written, else which process it is. It is sent by its text, too."""


def _sha(source: str) -> bytes:
    return hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest().encode()  # the name that servers give it


SOURCES: Final = {
    _sha(source): source.encode()
    for source in (CREATE, REPLACE, TOUCH, DELETE, BURY, ENTER, REVOKE, EXPIRE, FORGET, COMMIT, PUBLISH)
}
_SHAS: Final = {source.decode(): sha for sha, source in SOURCES.items()}

Argument = bytes | str | int
Command = tuple[Argument, ...]


class Call(NamedTuple):
    """A command, and the key that says which server it goes to."""

    key: bytes
    command: Command


def call(source: str, keys: tuple[bytes, ...], *args: Argument) -> Command:
    """Return the command that runs a script by its name."""
    return (b"EVALSHA", _SHAS[source], len(keys), *keys, *args)


@lru_cache(maxsize=1024)  # a sign-in asks three times
def tag(subject: str | None) -> bytes:
    """Return 16 octets that stand for a subject, whatever is in its name."""
    if subject is None:
        return _NOBODY
    return hashlib.sha256(subject.encode("utf-8", "surrogatepass")).digest()[:16]


def bound(record: Record) -> int:
    """Return the time behind which the record's expiry never moves: until then the index must have it."""
    return record.ends_at if record.successor is None else min(record.expires_at, record.ends_at)


def expiry(record: Record) -> int:
    """Return when the server forgets the record: no later than its absolute timeout, for it is dead then."""
    return max(1, min(record.expires_at, record.ends_at))


def write(record: Record, octets: bytes) -> bytes | None:
    """Return a record as it is stored, or None if its subject is no text: nobody is called so."""
    try:
        (record.subject or "").encode()
        owner = tag(record.subject)
        head = _HEAD.pack(
            _FORMAT,
            record.version,
            record.seen_at,
            record.expires_at,
            bound(record),
            record.successor is not None,
            owner,
        )
    except (UnicodeEncodeError, struct.error):
        return None
    bare = msgspec.structs.replace(record, id="", version=0, seen_at=0, expires_at=0)
    return head + protect(bare.encode(), octets + owner)


def read(id: str, octets: bytes, value: bytes | None) -> Record | None:
    """Return the record that is stored as `value`.

    Raises:
        StoreUnavailable: it was damaged.
    """
    if value is None or value == GRAVE:
        return None
    if len(value) < _HEAD.size:
        raise StoreUnavailable("store damaged: a record is cut short")
    form, version, seen_at, expires_at, _, stump, owner = _HEAD.unpack_from(value)
    if form != _FORMAT:
        raise StoreUnavailable("store damaged: a record of unknown format")
    bare = Record.decode(unprotect(value[_HEAD.size :], octets + owner))
    if (bare.successor is not None) != bool(stump):
        raise StoreUnavailable("store damaged: a record's head")
    return msgspec.structs.replace(bare, id=id, version=version, seen_at=seen_at, expires_at=expires_at)
