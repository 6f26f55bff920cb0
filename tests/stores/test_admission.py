"""S9 on every store: at most so many sessions of a subject, whoever signs in at once, in two processes' stores."""

from __future__ import annotations

import asyncio

import pytest
from rivals import STORES, NewStore

from coatcheck import Coatcheck, Keyring, Policy, Session, StoreUnavailable, TooManySessions
from coatcheck.core.policy import WhenFull
from coatcheck.core.record import Record
from coatcheck.feeds.local import LocalFeed

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("store", STORES)]


async def sign_in_at_once(new_store: NewStore, when_full: WhenFull) -> tuple[list[object], list[Session]]:
    """Have twelve sign in at once for three places; return what they got, and who is in."""
    ring, feed, policy = Keyring.generate("HS256"), LocalFeed(), Policy(max_sessions=3, when_full=when_full)
    shared = new_store()
    stores = [shared, shared] if type(shared).__name__ == "MemoryStore" else [shared, new_store()]
    coats = [Coatcheck(store, ring, policy, feed, on_event=lambda _: None) for store in stores]
    try:
        for store in {id(store): store for store in stores}.values():
            await store.open()
        outcomes = await asyncio.gather(
            *(coats[number % 2].sessions.create("ann") for number in range(12)), return_exceptions=True
        )
        return list(outcomes), await coats[0].sessions.list("ann")
    finally:
        for coat in coats:
            await coat.close()


async def test_s9_of_twelve_at_once_three_stay(new_store: NewStore) -> None:
    outcomes, alive = await sign_in_at_once(new_store, "end_oldest")
    assert all(isinstance(outcome, Session) for outcome in outcomes), outcomes
    assert len(alive) == 3


async def test_s9_of_twelve_at_once_three_are_let_in(new_store: NewStore) -> None:
    outcomes, alive = await sign_in_at_once(new_store, "refuse")
    assert sum(isinstance(outcome, TooManySessions) for outcome in outcomes) == 9, outcomes
    assert len(alive) == 3


async def test_s9_a_sign_in_whose_answer_was_lost_takes_no_place(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has done what it was asked for, and nobody has heard of it."""
    store = new_store()
    coat, create = Coatcheck(store, policy=Policy(max_sessions=1, when_full="refuse")), store.create

    async def unheard(record: Record) -> bool:
        await create(record)
        raise StoreUnavailable("away")

    async with coat:
        monkeypatch.setattr(store, "create", unheard)
        with pytest.raises(StoreUnavailable):
            await coat.sessions.create("ann")
        assert await store.list("ann") == []
