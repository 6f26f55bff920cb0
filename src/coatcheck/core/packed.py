"""PackedTable: texts, each with a number and with the time when it may be forgotten, in a third of a dict's memory.

A text's hash says in which of many shelves it stands. A shelf is one string of octets, entry after entry:

    22  the text itself, filled up; of a longer one, its digest
    6   when it may be forgotten, and
    6   its number, both big-endian

For each shelf there are 256 flags, each a bit, and an entry raises one of them, which its hash names as well. So most
texts that are not there are known not to be without a look at the shelf: a look-up costs about as much as in a dict.
"""

from __future__ import annotations

import threading
from hashlib import blake2b
from typing import Final, NamedTuple

_UNTIL: Final = 22  # where it begins: a text has the length of a session's id, which is neither filled up nor digested
_NUMBER: Final = 28
_ENTRY: Final = 34
_MOST: Final = 2**48 - 1
_FLAGS: Final = 256  # for each shelf
_FEW: Final = 64
_MANY: Final = 2**16  # shelves: with a million entries there are 15 on each
_GROWS_BEYOND: Final = 1024


class _Room(NamedTuple):
    """The shelves, their flags, and what of a hash names one of these."""

    shelves: list[bytes]
    flags: bytearray
    mask: int


class PackedTable:
    """Texts and their numbers. Any thread may change it, and looking up waits for none of them."""

    __slots__ = ("_count", "_lock", "_room")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._room = _room(_FEW)

    def __len__(self) -> int:
        return self._count

    def get(self, text: str) -> int | None:
        """Return a text's number, or None if the text is not there."""
        if not self._count:
            return None
        shelves, flags, mask = self._room
        # A session's id is not even encoded, unless its flag is raised: this is asked for every token.
        if len(text) != _UNTIL or not text.isascii():
            text = _fitted(text.encode("utf-8", "surrogatepass")).decode("latin-1")
        place = hash(text) & mask
        if not flags[place >> 3] >> (place & 7) & 1:
            return None
        shelf = shelves[place // _FLAGS]
        start = _find(shelf, text.encode("latin-1"))
        return None if start < 0 else int.from_bytes(shelf[start + _NUMBER : start + _ENTRY], "big")

    def until(self, text: str) -> int | None:
        """Return when a text may be forgotten, in milliseconds since the epoch, or None if it is not there."""
        octets = _fitted(text.encode("utf-8", "surrogatepass"))
        shelves, _, mask = self._room
        shelf = shelves[(_hash(octets) & mask) // _FLAGS]
        start = _find(shelf, octets)
        return None if start < 0 else int.from_bytes(shelf[start + _UNTIL : start + _NUMBER], "big")

    def put(self, text: str, until: int, number: int = 0) -> None:
        """Add a text, or raise what is there: neither its time nor its number ever goes back.

        Args:
            text: any.
            until: when it may be forgotten, in milliseconds since the epoch.
            number: of 48 bits at most.
        """
        octets, times = _fitted(text.encode("utf-8", "surrogatepass")), (_written(until), _written(number))
        with self._lock:
            shelves, flags, mask = self._room
            place = _hash(octets) & mask
            shelf = shelves[place // _FLAGS]
            start = _find(shelf, octets)
            if start >= 0:
                old = shelf[start : start + _ENTRY]
                times = (max(times[0], old[_UNTIL:_NUMBER]), max(times[1], old[_NUMBER:]))
                shelf = shelf[:start] + shelf[start + _ENTRY :]
            # In one step, and before the flag: whoever looks it up meanwhile finds it.
            shelves[place // _FLAGS] = shelf + octets + times[0] + times[1]
            flags[place >> 3] |= 1 << (place & 7)
            self._count += start < 0
            if self._count > _GROWS_BEYOND and len(shelves) < _MANY:
                self._room = _larger(shelves)

    def forget(self, now: int) -> None:
        """Drop what may be forgotten by `now`, in milliseconds since the epoch.

        A shelf's entries stand in the order in which they came, and it is cleared when the one in its middle may go. So
        a pass over all shelves takes milliseconds, and most shelves hold twice what they need to at most.
        """
        limit = _written(now)
        with self._lock:
            shelves, flags, _ = self._room
            for number, shelf in enumerate(shelves):
                middle = (len(shelf) // _ENTRY - 1) // 2 * _ENTRY
                if not shelf or shelf[middle + _UNTIL : middle + _NUMBER] > limit:
                    continue
                left = b"".join(entry for entry in _entries(shelf) if entry[_UNTIL:_NUMBER] > limit)
                self._count -= (len(shelf) - len(left)) // _ENTRY
                shelves[number] = left
                flags[number * _FLAGS // 8 : (number + 1) * _FLAGS // 8] = _raised(left)


def _room(shelves: int) -> _Room:
    return _Room([b""] * shelves, bytearray(shelves * _FLAGS // 8), shelves * _FLAGS - 1)


def _larger(shelves: list[bytes]) -> _Room:
    room = _room(_MANY)
    for entry in (entry for shelf in shelves for entry in _entries(shelf)):
        place = _hash(entry[:_UNTIL]) & room.mask
        room.shelves[place // _FLAGS] += entry
        room.flags[place >> 3] |= 1 << (place & 7)
    return room


def _raised(shelf: bytes) -> bytes:
    """Return a shelf's flags."""
    flags = bytearray(_FLAGS // 8)
    for entry in _entries(shelf):
        place = _hash(entry[:_UNTIL]) & _FLAGS - 1
        flags[place >> 3] |= 1 << (place & 7)
    return bytes(flags)


def _fitted(octets: bytes) -> bytes:
    if len(octets) > _UNTIL:
        return blake2b(octets, digest_size=_UNTIL).digest()
    return octets.ljust(_UNTIL, b"\xff")  # which is in no text


def _hash(octets: bytes) -> int:
    """Return the hash of the text that has these octets, which says where it stands."""
    return hash(octets.decode("latin-1"))


def _written(number: int) -> bytes:
    return min(max(number, 0), _MOST).to_bytes(6, "big")


def _entries(shelf: bytes) -> list[bytes]:
    return [shelf[start : start + _ENTRY] for start in range(0, len(shelf), _ENTRY)]


def _find(shelf: bytes, octets: bytes) -> int:
    start = shelf.find(octets)
    while start % _ENTRY and start >= 0:  # it begins within an entry: that is two entries' octets
        start = shelf.find(octets, start + 1)
    return start
