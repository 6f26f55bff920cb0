"""What the walks of all stores have in common: a page is made of what was found, whether it can be read or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from coatcheck.core.record import Record
from coatcheck.errors import StoreUnavailable
from coatcheck.store import Page

T = TypeVar("T")

PAGE: Final = 500
"""How many records a page has at most."""


def read_page(found: Iterable[tuple[str, T]], read: Callable[[str, T], Record | None]) -> Page:
    """Return a page.

    Args:
        found: ids, and what is stored under them.
        read: makes a record of both, or None where there is none any more; StoreUnavailable means that it is damaged.
    """
    records: list[Record] = []
    damaged: list[str] = []
    for id, stored in found:
        try:
            record = read(id, stored)
        except StoreUnavailable:
            damaged.append(id)
        else:
            if record is not None:
                records.append(record)
    return Page(tuple(records), tuple(damaged))
