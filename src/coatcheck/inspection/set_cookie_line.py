"""A Set-Cookie line, taken apart as browsers do it, but with all that is in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from coatcheck.core.cookies import MAX_ATTRIBUTE
from coatcheck.core.set_cookie import StoredCookie, parse_cookie_date, parse_set_cookie

_SECONDS: Final = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class Line:
    """A Set-Cookie line, taken apart as a browser does it; but nothing is left out.

    Args:
        text: without the name of the header.
        name, value: of the cookie.
        attributes: all of them, the names in small letters, in their order.
        now: milliseconds since the epoch.
    """

    text: str
    name: str
    value: str
    attributes: tuple[tuple[str, str], ...]
    now: int

    @classmethod
    def read(cls, text: str, now: int) -> Line:
        """Take a line apart."""
        pair, *rest = text.split(";")
        name, equals, value = pair.partition("=")
        if not equals:
            name, value = "", pair
        parts = (each.partition("=") for each in rest)
        attributes = tuple((key.strip(" \t").lower(), word.strip(" \t")) for key, _, word in parts)
        return cls(text, name.strip(" \t"), value.strip(" \t"), attributes, now)

    @cached_property
    def stored(self) -> StoredCookie | None:
        """What a browser keeps; None: it ignores the line."""
        return parse_set_cookie(_octets(self.text), now=self.now)

    @cached_property
    def counts(self) -> Mapping[str, str]:
        """The attributes that count: the last of a name, but for those that browsers ignore."""
        return {name: value for name, value in self.attributes if not is_ignored(name, value)}

    @property
    def seconds(self) -> int | None:
        """How long it is asked to live; None: until the browser ends."""
        if "max-age" in self.counts:
            return max(int(self.counts["max-age"][:20]), 0)
        ends = parse_cookie_date(_octets(self.counts.get("expires", "")))
        return None if ends is None else max((ends - self.now) // 1000, 0)

    @property
    def size(self) -> int:
        """How many octets its name and value have."""
        return len(_octets(self.name)) + len(_octets(self.value))

    @property
    def deletes(self) -> bool:
        """Whether it is to make the browser forget the cookie."""
        return self.seconds == 0


def is_ignored(name: str, value: str) -> bool:
    """Say whether browsers ignore an attribute, as `parse_set_cookie` does."""
    return (
        len(_octets(value)) > MAX_ATTRIBUTE
        or (name == "max-age" and not _SECONDS.fullmatch(value))
        or (name == "expires" and parse_cookie_date(_octets(value)) is None)
    )


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
