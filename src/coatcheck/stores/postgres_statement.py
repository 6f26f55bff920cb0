"""Statement: what is asked so often that it is prepared on each connection, and its values as PostgreSQL takes them.

psycopg writes values as well, and single ones as quickly. Arrays, in which the writes of one tick go, it makes
element by element, in Python and in text: that takes five times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, LiteralString, NamedTuple

_HEAD: Final = struct.Struct(">5i")  # an array's dimensions, whether one may be NULL, their type, how many, the first
_SIZE: Final = 4
_NULL: Final = b"\xff\xff\xff\xff"


class Kind(NamedTuple):
    """A type of values.

    Args:
        name: what SQL calls it.
        pack: returns a value in its binary form.
    """

    name: LiteralString
    pack: Callable[[Any], bytes | None]


class Statement(NamedTuple):
    """What is prepared on each connection.

    Args:
        name: how it is called there.
        kinds: those of its values.
        query: with $1, $2 and so on where the values go.
    """

    name: LiteralString
    kinds: tuple[Kind, ...]
    query: LiteralString

    @property
    def preparation(self) -> LiteralString:
        """The SQL that prepares it."""
        return f"PREPARE {self.name} ({', '.join([kind.name for kind in self.kinds])}) AS {self.query}"

    def pack(self, values: Sequence[Any]) -> list[bytes | None]:
        """Return values in their binary form.

        Raises:
            ValueError: PostgreSQL cannot take one of them.
        """
        try:
            return [kind.pack(value) for kind, value in zip(self.kinds, values, strict=True)]
        except struct.error as error:
            raise ValueError from error


class _Single(NamedTuple):
    """A type of single values.

    Args:
        name: what SQL calls it.
        number: its own, by which an array says what it is of.
        sized: returns a value's size, and then its octets.
    """

    name: LiteralString
    number: int
    sized: Callable[[Any], bytes]

    def one(self) -> Kind:
        """Return the kind of one such value."""

        def pack(value: Any) -> bytes | None:
            return None if value is None else self.sized(value)[_SIZE:]

        return Kind(self.name, pack)

    def array(self) -> Kind:
        """Return the kind of arrays, of at least one element."""

        def pack(values: Sequence[Any]) -> bytes:
            return _HEAD.pack(1, 1, self.number, len(values), 1) + b"".join(map(self.sized, values))

        return Kind(f"{self.name}[]", pack)


def _octets(value: bytes) -> bytes:
    return len(value).to_bytes(_SIZE, "big") + value


def _text(value: str | None) -> bytes:
    return _NULL if value is None else _octets(value.encode())


def _number(form: str) -> Callable[[int], bytes]:
    sized = struct.Struct(f">i{form}")
    size = sized.size - _SIZE
    return lambda value: sized.pack(size, value)


_SINGLE: Final = (
    _Single("bytea", 17, _octets),
    _Single("text", 25, _text),
    _Single("int4", 23, _number("i")),
    _Single("int8", 20, _number("q")),
    _Single("bool", 16, _number("?")),
)
BYTEA, TEXT, INT4, INT8, BOOL = (kind.one() for kind in _SINGLE)
BYTEAS, TEXTS, INT4S, INT8S, BOOLS = (kind.array() for kind in _SINGLE)
