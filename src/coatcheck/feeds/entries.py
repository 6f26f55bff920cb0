"""Entries: what the feeds of shared servers are made of, and how to tell whether one entry follows another.

Each call of `publish` adds entries at the end. An entry has a number, which is one more than that of the entry before
it, and a tag of random bits; its position is both, as one number. The server gives the numbers, in the order in which
it stores the entries, so no clock has a say in it (P7), and who has seen one can see all before it.

A server may lose its newest entries: in a failover that no replica was waited for, by a restored backup. It gives their
numbers again, to other entries. So whoever goes on from a position reads the entry at that position once more: if it is
still there with the same tag, all that comes after it is all that they have not heard. If not, that is a gap. The
newest entry is therefore kept, however old it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from coatcheck.core.revocation import Revoked
from coatcheck.errors import StoreUnavailable
from coatcheck.feed import Batch
from coatcheck.stores.encoding import protect, unprotect

PAGE: Final = 200
"""How many entries are read at once."""

_TAG_BITS: Final = 23  # with 40 bits of number, a position is of 63 bits: every format has such numbers
_MOST: Final = 500  # revocations in one entry
_MOST_LIFE: Final = 2**40  # ms
_FORMAT: Final = b"\1"
_ATTEMPTS: Final = 5


class Entry(NamedTuple):
    """An entry that was read."""

    number: int
    tag: int
    body: bytes

    @property
    def position(self) -> int:
        """Where it stands."""
        return self.number << _TAG_BITS | self.tag


class NewEntry(NamedTuple):
    """An entry to be stored; `life` says for how many milliseconds it is of use."""

    tag: int
    life: int
    body: bytes


ReadPage = Callable[[int], Awaitable[Sequence[Entry]]]
"""Reads up to `PAGE` entries, beginning with the one at a position; with the first of all, if it is 0."""


def split(position: int) -> tuple[int, int]:
    """Return the number and the tag of a position."""
    return position >> _TAG_BITS, position & (1 << _TAG_BITS) - 1


def write(revoked: Sequence[Revoked], now: int) -> list[NewEntry]:
    """Return revocations as entries."""
    return [_write(revoked[start : start + _MOST], now) for start in range(0, len(revoked), _MOST)]


async def batch_after(position: int, read_page: ReadPage, heard_at: int) -> Batch:
    """Return everything after a position; or what continues nothing, if the entry there is not there any more."""
    read = await _read_after(position, read_page, 0)
    if read is None:
        return Batch(after=-1, position=0, heard_at=heard_at)
    return Batch(after=position, position=read.reached, revoked=tuple(read.revoked), heard_at=heard_at)


async def snapshot(now: int, read_page: ReadPage, heard_at: int) -> Batch:
    """Return everything that is still of use.

    Raises:
        StoreUnavailable: it changes faster than it can be read.
    """
    for _ in range(_ATTEMPTS):
        read = await _read_after(0, read_page, now)
        if read is not None:
            return Batch(after=0, position=read.reached, revoked=tuple(read.revoked), heard_at=heard_at)
    raise StoreUnavailable("the feed cannot be read as a whole")


class _Read(NamedTuple):
    """The position of the last entry that was read, and what was in all of them."""

    reached: int
    revoked: list[Revoked]


async def _read_after(position: int, read_page: ReadPage, now: int) -> _Read | None:
    """Read everything after a position that is of use after `now`, page by page; None, if nothing continues it."""
    revoked: list[Revoked] = []
    while True:
        page = await read_page(position)
        if position and (not page or page[0].position != position):
            return None
        for entry in page[1:] if position else page:
            position = entry.position
            revoked += [each for each in _read(entry) if each.until > now]
        if len(page) < PAGE:
            return _Read(position, revoked)


def _write(revoked: Sequence[Revoked], now: int) -> NewEntry:
    tag = secrets.randbits(_TAG_BITS)
    life = min(max(each.until - now for each in revoked), _MOST_LIFE)
    return NewEntry(tag, max(life, 0), _FORMAT + protect(_encode(revoked), _context(tag)))


def _read(entry: Entry) -> tuple[Revoked, ...]:
    if entry.body[:1] != _FORMAT:
        raise StoreUnavailable("store damaged: a revocation of unknown format")
    content = unprotect(entry.body[1:], _context(entry.tag))
    try:
        return _decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise StoreUnavailable("store damaged: a revocation cannot be read") from None


def _context(tag: int) -> bytes:
    return tag.to_bytes(4, "big")


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Revoked, ...]).decode
