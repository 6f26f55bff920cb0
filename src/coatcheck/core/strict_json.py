"""JSON objects from strangers, read strictly (J15): RFC 8259 without the freedoms that parsers take differently.

Refused: anything but an object at the top, duplicate member names at any depth, a byte order mark, bytes that
are not UTF-8, lone surrogates, NaN and Infinity, numbers that no double can hold, nesting and sizes over the
limits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

import msgspec

from coatcheck.errors import Malformed

MAX_DEPTH = 16
MAX_BYTES = 65_536

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode


def loads(data: bytes, *, limit: int = MAX_BYTES) -> dict[str, Any]:
    """Return the object that `data` holds, of at most `limit` bytes.

    Raises:
        Malformed: it is not such an object; see the module for what is refused.
    """
    if len(data) > limit:
        raise Malformed(f"JSON over its limit of {limit} bytes")
    try:
        value = _decode(data)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        raise Malformed("not a JSON object") from None
    if _deeper_than(value, MAX_DEPTH):
        raise Malformed(f"JSON nested deeper than {MAX_DEPTH}")
    # What the encoder writes names every member once. If that is the very text we were given, then so did the
    # text. The reverse is not true (white space, escapes, 1.0e5), so any other text is read again, member by
    # member.
    if _encode(value) != data:
        _refuse_duplicates(data)
    return value


def _deeper_than(value: object, limit: int) -> bool:
    children: Iterable[object] = ()
    if isinstance(value, dict):
        children = cast("dict[str, object]", value).values()
    elif isinstance(value, list):
        children = cast("list[object]", value)
    return limit < 0 or any(_deeper_than(child, limit - 1) for child in children)


def _refuse_duplicates(data: bytes) -> None:
    """Names are compared unescaped; `data` has been decoded once already, so it is UTF-8 and not too deep."""
    try:
        json.loads(data.decode("utf-8"), object_pairs_hook=_distinct)
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None


def _distinct(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise Malformed("a JSON member is named twice")
