"""Moving: every session and document arrives as it was, whatever is there already, and what has ended stays ended."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from places import Places, place

from coatcheck.core import base64url
from coatcheck.core.record import Device, Record, pack
from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError, Conflict, StoreUnavailable
from coatcheck.store import Store
from coatcheck.stores import moving, moving_documents, moving_state, store_from_url
from coatcheck.stores.file import FileStore
from coatcheck.stores.memory import MemoryStore
from coatcheck.stores.moving import Moving, Step, Tally, walkable
from coatcheck.stores.sqlite import SQLiteStore
from coatcheck.stores.sqlite_documents import SQLiteDocuments
from coatcheck.testing import SettableClock, make_record
from coatcheck.testing.clock import START
from coatcheck.testing.records import HOUR, following

__all__ = ["place"]

pytestmark = pytest.mark.anyio

PAIRS = [
    ("sqlite", "redis"),
    ("sqlite", "postgres"),
    ("file", "cluster"),
    ("redis", "postgres"),
    ("postgres", "sqlite"),
]


async def nothing() -> None: ...


def a_move(source: Store, target: Store, clock: SettableClock | None = None, **more: Any) -> Moving:
    options: dict[str, Any] = {"confirm": nothing, "tell": lambda _: None, "clock": clock or SettableClock(), **more}
    return Moving(walkable(source), walkable(target), **options)


async def moved(source: Store, target: Store, clock: SettableClock | None = None) -> Tally:
    """Move as a run does that finds something from an earlier one."""
    run = a_move(source, target, clock)
    await run.mend()
    await run.fill()
    await run.tidy()
    return run.tally


async def content(store: Store) -> dict[str, Record]:
    return {record.id: record async for page in walkable(store).walk() for record in page.records}


async def stored(store: Store, *records: Record) -> list[Record]:
    assert all(await asyncio.gather(*(store.create(record) for record in records)))
    return list(records)


def records() -> list[Record]:
    """One of each kind."""
    return [
        make_record(None),
        make_record(None, data={"cart": pack(["tea"])}),
        make_record("ann", version=7, generation=4, refreshed_at=START - 5, amr=("pwd",), scopes=("a", "b")),
        make_record("ann", persistent=True, device=Device("Firefox", "203.0.113.9"), data={"k": pack({"a": 1})}),
        make_record("bob", idle=0, expires_at=START + 20 * HOUR, created_at=START - HOUR, seen_at=START - 1),
        make_record("bob", successor="A" * 22, version=2, expires_at=START + 1000),
        make_record("über\N{SNOWMAN}", successor="", version=3),
    ]


@pytest.fixture
async def pair(request: pytest.FixtureRequest, place: Places) -> AsyncIterator[tuple[Store, Store]]:
    source, target = (store_from_url(place(kind)) for kind in request.param)
    await source.open()
    await target.open()
    yield source, target
    await source.close()
    await target.close()


@pytest.mark.parametrize("pair", PAIRS, indirect=True, ids="-".join)
async def test_p2_p3_every_kind_of_record_arrives_as_it_was_and_a_second_run_brings_what_has_changed(
    pair: tuple[Store, Store],
) -> None:
    """P1 too: what was signed out between the runs is gone from the target."""
    source, target = pair
    made = await stored(source, *records(), *(make_record(f"subject {number % 4}") for number in range(70)))
    first = await moved(source, target)
    assert (first.copied, first.damaged, first.refused) == (len(made), set(), set())
    assert await content(target) == {record.id: record for record in made}
    assert {record.id for record in await target.list("ann")} == {record.id for record in made[2:4]}

    anonymous, cart, ann, other = made[:4]
    await source.touch(ann.id, START + 5, START + HOUR + 5)
    for version in (2, 3, 4):
        other = msgspec.structs.replace(other, version=version, data={"n": pack(version)})
        assert await source.replace(other)
    assert await source.replace(following(cart, successor=ann.id, data={}, expires_at=START + 500))
    assert await source.delete(anonymous.id) == anonymous
    ended = await source.revoke_subject("subject 0", START + 1)
    [new] = await stored(source, make_record("ann"))
    second = await moved(source, target)

    assert (second.copied, second.changed, second.removed) == (1, 3, 1 + len(ended))
    assert second.same == len(made) - 4 - len(ended)
    assert await content(target) == await content(source)
    assert await target.load(anonymous.id) is None
    assert await target.list("subject 0") == []
    assert {record.id for record in await target.list("ann")} == {ann.id, other.id, new.id}
    # It is as good as one that was made here: the next request can write to it, and it can be ended.
    assert await target.replace(following(other, data={}))
    assert set(await target.revoke_subject("ann", START + 1)) == {ann.id, other.id, new.id}


async def test_what_has_expired_is_left_behind() -> None:
    clock, source, target = SettableClock(), MemoryStore(), MemoryStore()
    idle, absolute = make_record(expires_at=START), make_record(ends_at=START, expires_at=START + HOUR)
    [alive, _, _] = await stored(source, make_record(), idle, absolute)
    tally = await moved(source, target, clock)
    assert (tally.copied, tally.expired) == (1, 2)
    assert await content(target) == {alive.id: alive}


async def test_what_expires_between_two_runs_is_no_change() -> None:
    clock, source, target = SettableClock(), MemoryStore(), MemoryStore()
    await stored(source, *(make_record() for _ in range(3)))
    await moved(source, target, clock)
    clock.advance(timedelta(hours=2))
    await source.sweep(clock())
    again = await moved(source, target, clock)
    assert (again.copied, again.changed, again.removed) == (0, 0, 0)


async def test_a_damaged_record_is_named_and_not_copied_and_what_an_earlier_run_copied_of_it_goes(
    tmp_path: Path,
) -> None:
    """P4: it is nobody's; whether it was signed out since cannot be told."""
    source, target = SQLiteStore(tmp_path / "source.db"), MemoryStore()
    bad, good = await stored(source, make_record("ann"), make_record("ann"))
    await moved(source, target)
    with sqlite3.connect(tmp_path / "source.db") as connection:
        connection.execute("UPDATE coatcheck_record SET version = 9 WHERE id = ?", (base64url.decode(bad.id),))
        change = "UPDATE coatcheck_record SET body = substr(body, 2) WHERE id = ?"
        connection.execute(change, (base64url.decode(bad.id),))
    connection.close()
    tally = await moved(source, target)
    assert (tally.damaged, tally.same, tally.removed) == ({bad.id}, 1, 1)
    assert await content(target) == {good.id: good}
    await source.close()


async def test_what_an_earlier_run_left_damaged_in_the_target_is_copied_anew(tmp_path: Path) -> None:
    source, target = MemoryStore(), FileStore(tmp_path / "target")
    made = await stored(source, *(make_record() for _ in range(3)))
    await moved(source, target)
    name = base64url.decode(made[1].id).hex()
    (tmp_path / "target" / "records" / name[:2] / name).write_bytes(b"\x01 half of it")
    tally = await moved(source, target)
    assert (tally.copied, tally.same) == (1, 2)
    assert await content(target) == {record.id: record for record in made}


async def test_p1_what_the_target_must_not_take_is_named() -> None:
    """Its subject was signed out everywhere in the target, which was used before."""
    source, target = MemoryStore(), MemoryStore()
    [old, _] = await stored(source, make_record("ann"), make_record("bob"))
    await target.revoke_subject("ann", START + 1)
    tally = await moved(source, target)
    assert (tally.refused, tally.copied) == ({old.id}, 1)
    assert await target.load(old.id) is None


class Slow(MemoryStore):
    """Knows how many of its calls were under way at once."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = self.most = 0

    async def create(self, record: Record) -> bool:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        return await super().create(record)


async def test_p9_so_many_are_under_way_at_once_and_no_more() -> None:
    source, target = MemoryStore(), Slow()
    await stored(source, *(make_record() for _ in range(1100)))
    tally = await moved(source, target)
    assert (tally.copied, target.most) == (1100, moving._AT_ONCE)


async def test_it_tells_how_far_it_has_come() -> None:
    source, told = MemoryStore(), list[Step]()
    await stored(source, *(make_record() for _ in range(1100)))
    await a_move(source, MemoryStore(), tell=told.append).fill()
    assert [step.done for step in told] == [0, 500, 1000, 1100, 1100]
    assert {(step.what, step.of) for step in told} == {("copying sessions", 1100)}


async def test_a_run_that_may_not_go_on_writes_nothing_more() -> None:
    source, target, asked = MemoryStore(), MemoryStore(), list[int]()
    await stored(source, *(make_record() for _ in range(200)))

    async def confirm() -> None:
        asked.append(1)
        if len(asked) >= 2:  # the first write asks again
            raise Conflict("another run has taken over")

    with pytest.raises(Conflict):
        await a_move(source, target, confirm=confirm).fill()
    assert await target.size() == 0


async def test_a_store_that_fails_ends_the_run_with_its_own_error() -> None:
    class Full(MemoryStore):
        async def create(self, record: Record) -> bool:
            raise StoreUnavailable("the disk is full")

    source = MemoryStore()
    await stored(source, *(make_record() for _ in range(5)))
    with pytest.raises(StoreUnavailable, match="full"):
        await a_move(source, Full()).fill()


async def test_what_changes_in_the_source_meanwhile_is_found_at_the_end() -> None:
    source, target = MemoryStore(), MemoryStore()
    [saved, ended, _] = await stored(source, *(make_record() for _ in range(3)))
    run = a_move(source, target)
    await run.fill()
    assert await source.replace(following(saved, data={"n": pack(1)}))
    await source.delete(ended.id)
    late = await run.tidy()
    assert (late.changed, late.removed) == (1, 1)
    assert await content(target) == await content(source)
    late = await run.tidy()
    assert (late.changed, late.removed) == (0, 0)


def test_a_store_that_cannot_be_walked_cannot_be_moved() -> None:
    class Opaque:
        pass

    with pytest.raises(ConfigurationError, match="Walkable"):
        walkable(Opaque())  # type: ignore[arg-type]


# -- documents ---------------------------------------------------------------------------------------------------------

OURS = moving_state.OURS


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[Documents, Documents]]:
    documents = SQLiteDocuments(tmp_path / "source.db"), SQLiteDocuments(tmp_path / "target.db")
    for each in documents:
        await each.open()
    yield documents
    for each in documents:
        await each.close()


async def put(documents: Documents, **values: bytes | None) -> None:
    for key, value in values.items():
        [there] = await documents.get(key)
        assert await documents.commit({key: there}, {key: value})


async def test_documents_arrive_as_they_are_and_a_second_run_brings_what_has_changed(
    two: tuple[Documents, Documents],
) -> None:
    source, target = two
    made = {f"account/{number:03}": str(number).encode() for number in range(300)}
    await asyncio.gather(*(source.commit({}, {key: value}) for key, value in made.items()))
    await put(source, place=b"source", attempt=b"")
    await source.commit({}, {"attempt/1": b"x"}, expires_at=START)
    await put(target, place=b"target", migration=b"mine")
    assert await moving_documents.copy(source, target, besides=OURS, confirm=nothing) == 301
    assert dict(await target.page("account/", limit=1000)) == made
    assert await target.get("place", "migration", "attempt/1") == [b"target", b"mine", None]

    await put(source, **{"account/000": b"new", "account/299": None})
    assert await moving_documents.copy(source, target, besides=OURS, confirm=nothing) == 300
    assert await target.get("account/000", "account/299", "place") == [b"new", None, b"target"]


async def test_documents_that_somebody_else_writes_meanwhile_are_not_written_over(
    two: tuple[Documents, Documents], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = two
    await put(source, a=b"1")
    get = target.get

    async def get_and_write(*keys: str) -> list[bytes | None]:
        found = await get(*keys)
        await target.commit({}, {"a": b"another's"})
        return found

    monkeypatch.setattr(target, "get", get_and_write)
    with pytest.raises(Conflict, match="somebody else"):
        await moving_documents.copy(source, target, besides=OURS, confirm=nothing)


# -- whose turn it is --------------------------------------------------------------------------------------------------


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[Documents]:
    documents = SQLiteDocuments(tmp_path / "documents.db")
    await documents.open()
    yield documents
    await documents.close()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> SettableClock:
    """The clock by which a run knows when to count on."""
    clock = SettableClock()
    monkeypatch.setattr(moving_state, "monotonic_clock", clock)
    return clock


async def take(documents: Documents, source: str = "source", **more: Any) -> moving_state.Hold:
    options: dict[str, Any] = {"silence": 0, "require_unused": nothing, **more}
    return await moving_state.take(documents, source, **options)


async def test_a_place_has_a_name_that_stays(documents: Documents) -> None:
    names = await asyncio.gather(*(moving_state.name_of(documents) for _ in range(5)))
    assert len(set(names)) == 1
    assert len(names[0]) > 20


async def test_of_two_that_begin_at_once_one_goes_on_and_the_other_is_told(documents: Documents) -> None:
    outcomes = await asyncio.gather(take(documents), take(documents), return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Hold"]


async def test_a_run_that_is_alive_is_not_taken_over(
    documents: Documents, later: SettableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await take(documents)

    async def meanwhile(_: float) -> None:
        later.advance(timedelta(seconds=1))
        await first.confirm()

    monkeypatch.setattr(asyncio, "sleep", meanwhile)
    with pytest.raises(Conflict, match="another run"):
        await take(documents, silence=5)
    await first.finish(START)


async def test_a_run_that_was_killed_is_taken_over_and_one_that_was_paused_stops(
    documents: Documents, later: SettableClock
) -> None:
    paused = await take(documents)
    second = await take(documents)
    assert (paused.resumed, second.resumed) == (False, True)
    later.advance(timedelta(seconds=1))
    with pytest.raises(Conflict, match="taken over"):
        await paused.confirm()
    with pytest.raises(Conflict, match="taken over"):
        await paused.finish(START)
    await second.confirm()


async def test_a_run_counts_on_no_more_than_once_a_second(documents: Documents, later: SettableClock) -> None:
    hold = await take(documents)
    before = await documents.get("migration")
    await hold.confirm()
    assert await documents.get("migration") == before
    later.advance(timedelta(seconds=1))
    await hold.confirm()
    assert await documents.get("migration") != before


async def test_what_is_finished_takes_no_second_move(documents: Documents) -> None:
    await (await take(documents)).finish(START)
    stored = await documents.get("migration")
    with pytest.raises(Conflict, match="already moved"):
        await take(documents)
    assert await documents.get("migration") == stored


async def test_what_one_source_has_begun_no_other_goes_on_with(documents: Documents) -> None:
    await take(documents, "one")
    with pytest.raises(Conflict, match="from another one"):
        await take(documents, "another")


async def test_a_place_in_use_is_asked_about_before_the_first_run_and_only_then(documents: Documents) -> None:
    async def used() -> None:
        raise Conflict("in use")

    with pytest.raises(Conflict, match="in use"):
        await take(documents, require_unused=used)
    assert await documents.get("migration") == [None]
    await take(documents)
    await take(documents, require_unused=used)


async def test_p1_a_place_serves_only_before_and_after_a_move(documents: Documents) -> None:
    await moving_state.require_finished(documents)
    hold = await take(documents)
    with pytest.raises(ConfigurationError, match="not finished"):
        await moving_state.require_finished(documents)
    await hold.finish(START)
    await moving_state.require_finished(documents)


async def test_a_note_that_cannot_be_read_serves_nobody(documents: Documents) -> None:
    await put(documents, migration=b"{}")
    for ask in (moving_state.require_finished, take):
        with pytest.raises(StoreUnavailable, match="damaged"):
            await ask(documents)
