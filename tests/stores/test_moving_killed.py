"""P1, P2: a move that is killed with -9 is completed by the next run: nothing is lost, and nothing comes back."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from places import Places, place

from coatcheck.cli import migrate
from coatcheck.cli.main import main
from coatcheck.core.record import Record
from coatcheck.server.ends import End
from coatcheck.server.settings import Settings, prepare
from coatcheck.stores import file, moving, moving_documents, moving_state, postgres_walk, redis_walk, sqlite
from coatcheck.testing import make_record

__all__ = ["place"]

Spawn = Callable[[Callable[[], object]], int]

ACCOUNTS, SESSIONS, PORTION = 16, 30, 5


@asynccontextmanager
async def opened(url: str, data: Path) -> AsyncGenerator[End]:
    end = End("--there", Settings(data_dir=data, store=url))
    prepare(data)
    parts = (end.store, end.documents)
    for part in parts:
        await part.open()
    yield end
    for part in parts:
        await part.close()


async def content(end: End) -> tuple[dict[str, Record], dict[str, bytes]]:
    records = {record.id: record async for page in end.store.walk() for record in page.records}
    documents = dict(await end.documents.page(""))
    return records, {key: value for key, value in documents.items() if key not in moving_state.OURS}


async def fill(url: str, data: Path) -> None:
    async with opened(url, data) as end:
        made = [make_record(None if number % 7 == 0 else f"subject {number % 9}") for number in range(SESSIONS)]
        assert all(await asyncio.gather(*(end.store.create(record) for record in made)))
        for number in range(ACCOUNTS):
            assert await end.documents.commit({}, {f"account/{number}": b"%d" % number})


async def sign_some_out(url: str, data: Path, chance: random.Random) -> None:
    async with opened(url, data) as end:
        records, _ = await content(end)
        for id in chance.sample(sorted(records), 5):
            await end.store.delete(id)
        await end.documents.commit({}, {f"account/{chance.randrange(ACCOUNTS)}": None})


def small_portions(patch: Any) -> None:
    """So many moments to be killed at that each part of a move has some."""
    for module in (file, postgres_walk, redis_walk, sqlite):
        patch.setattr(module, "PAGE", PORTION)
    patch.setattr(moving, "_AT_ONCE", 2)
    patch.setattr(moving_documents, "_PAGE", PORTION)
    patch.setattr(moving_documents, "MAX_KEYS", 2)
    patch.setattr(moving_state, "_BEAT", 0)
    patch.setattr(migrate, "SILENCE", 0.01)


@pytest.mark.parametrize("kinds", [("sqlite", "redis"), ("redis", "postgres"), ("postgres", "sqlite")], ids="-".join)
def test_p1_p2_a_move_that_is_killed_is_completed_by_the_next_run(
    kinds: tuple[str, str], place: Places, spawn: Spawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_portions(monkeypatch)
    monkeypatch.setenv("COATCHECK_SECRET", "f4e1c07b-a9d2-4f0e-8b11-6c3d5a7e9020")
    seed = secrets.randbits(32)
    chance, data = random.Random(seed), tmp_path / "data"  # noqa: S311 (moments to be killed at)
    source, target = (place(kind) for kind in kinds)
    words = ["migrate", "--from", source, "--to", target, "--data-dir", str(data)]
    asyncio.run(fill(source, data))
    reached = 0
    for _ in range(3):
        reached += killed(spawn, words, chance.randint(1, 2 * SESSIONS), monkeypatch)
        asyncio.run(sign_some_out(source, data, chance))
    assert main(words) == 0, seed
    assert asyncio.run(compared(source, target, data)), seed
    assert reached, "no run was killed in the middle"
    assert main(words) == 1


def killed(spawn: Spawn, words: list[str], moment: int, patch: pytest.MonkeyPatch) -> bool:
    """Kill a run when it has been allowed to go on so many times, and say whether it had come so far."""
    reading, writing = os.pipe()
    confirm = moving_state.Hold.confirm

    async def confirm_and_say_so(self: moving_state.Hold) -> None:
        await confirm(self)
        os.write(writing, b".")

    async def end(self: moving_state.Hold, now: int) -> None:
        os._exit(0)  # it is not to be finished, however far it comes

    def run() -> None:
        patch.setattr(moving_state.Hold, "confirm", confirm_and_say_so)
        patch.setattr(moving_state.Hold, "finish", end)
        main(words)

    child = spawn(run)
    os.close(writing)
    heard = 0
    while heard < moment and (said := os.read(reading, 1)):
        heard += len(said)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reading)
    return heard == moment


async def compared(source: str, target: str, data: Path) -> bool:
    async with opened(source, data) as there, opened(target, data) as here:
        before, after = await content(there), await content(here)
    assert len(before[0]) < SESSIONS
    return before[0] == after[0] and shared(before[1]) == shared(after[1])


def shared(documents: dict[str, bytes]) -> dict[str, bytes]:
    """All but the keys, which are sealed anew."""
    return {key: value for key, value in documents.items() if key != "keys"}
