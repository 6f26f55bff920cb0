"""Moving documents from one place to another, as `coatcheck.stores.moving` moves records."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from coatcheck.documents import MAX_KEYS, Documents, Values, pages
from coatcheck.errors import Conflict
from coatcheck.stores.moving import portions, together

_PAGE: Final = 16 * MAX_KEYS


async def copy(
    source: Documents, target: Documents, *, besides: frozenset[str], confirm: Callable[[], Awaitable[None]]
) -> int:
    """Make the target's documents those of the source, and return how many these are.

    Documents that expire are not among them: sign-in attempts, for a quarter of an hour.

    Args:
        source: from where.
        target: to where; both are open.
        besides: keys that are left as they are.
        confirm: called before each small portion; raises if this run must not go on.

    Raises:
        Conflict: somebody else writes to the target.
        StoreUnavailable
    """
    copied = 0
    async for page in _pages(source, besides):
        await confirm()
        await together(_bring(target, some) for some in portions(page, MAX_KEYS))
        copied += len(page)
    async for page in _pages(target, besides):
        await confirm()
        await together(_remove_missing(source, target, some) for some in portions(page, MAX_KEYS))
    return copied


async def are_same(source: Documents, target: Documents, *, besides: frozenset[str]) -> bool:
    """Say whether the target's documents still are those of the source.

    Raises:
        StoreUnavailable
    """
    for one, other in ((source, target), (target, source)):
        async for page in _pages(one, besides):
            for some in portions(page, MAX_KEYS):
                if await other.get(*(key for key, _ in some)) != [value for _, value in some]:
                    return False
    return True


async def any_in(documents: Documents, *, besides: frozenset[str]) -> bool:
    """Say whether there is any document that stays.

    Raises:
        StoreUnavailable
    """
    async for page in _pages(documents, besides):
        if page:
            return True
    return False


async def _bring(target: Documents, found: Sequence[tuple[str, bytes]]) -> None:
    there = dict(zip([key for key, _ in found], await target.get(*(key for key, _ in found)), strict=True))
    wanted = {key: value for key, value in found if there[key] != value}
    await _change(target, {key: there[key] for key in wanted}, wanted)


async def _remove_missing(source: Documents, target: Documents, found: Sequence[tuple[str, bytes]]) -> None:
    there = dict(found)
    left = [key for key, value in zip(there, await source.get(*there), strict=True) if value is None]
    await _change(target, {key: there[key] for key in left}, dict.fromkeys(left))


async def _change(target: Documents, expected: Values, writes: Values) -> None:
    if writes and not await target.commit(expected, writes):
        raise Conflict("somebody else is writing to the target: stop its servers, and run this again")


async def _pages(documents: Documents, besides: frozenset[str]) -> AsyncIterator[list[tuple[str, bytes]]]:
    async for page in pages(documents, "", _PAGE):
        yield [(key, value) for key, value in page if key not in besides]
