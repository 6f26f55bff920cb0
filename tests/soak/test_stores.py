"""Figures of stores of all kinds: processes that are killed, primaries that are lost, rivals."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crashes import crash
from failovers import fail_over, of_cluster, sentinels
from processes import Spawn
from rivals import SHARED, STORES, NewCoat, NewStore, Together, end_the_others, opened, race_two_processes
from soaking import Soak
from valkey_server import Valkey

pytestmark = pytest.mark.anyio

MANY = 100_000


@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_p1_p2_kill_9_of_the_process(new_store: NewStore, spawn: Spawn, soak: Soak) -> None:
    def going(rounds: int, ended: int) -> bool:
        return rounds == 0 or soak.going(0.08, done=min(rounds * MANY // 100, ended), aim=MANY)

    rounds, ended = crash(new_store, spawn, 2600, going)
    soak.report(f"kill -9 of the process, {rounds} times", f"{ended} sign-outs", "0 came back")


@pytest.mark.parametrize("how", [Valkey.kill, Valkey.pause])
@pytest.mark.parametrize("where", ["sentinels", "cluster"])
async def test_p1_p2_failover(
    where: str, how: Callable[[Valkey], None], tmp_path: Path, request: pytest.FixtureRequest, soak: Soak
) -> None:
    times = kept = ended = 0
    slowest = 0.0
    while times == 0 or soak.going(0.02):
        folder = tmp_path / str(times)
        folder.mkdir()
        place: Any = (
            sentinels(folder, sentinels=3)
            if where == "sentinels"
            else of_cluster(request.getfixturevalue("cluster"), f"f{times}{how.__name__}")
        )
        with place as failover:
            seen = await fail_over(failover, how)
        times, kept, ended = times + 1, kept + seen.kept, ended + seen.ended
        slowest = max(slowest, seen.recovery)
    words = f"0 came back, 0 of {kept} sign-ins lost; found again within {slowest:.2f} s of the promotion"
    soak.report(f"primary lost ({how.__name__}), {times} times", f"{ended} sign-outs", words)


# -- rivals: P1 and P5


@pytest.mark.parametrize("store", SHARED)
def test_p5_racing_refreshes_of_two_processes(coat_of: NewCoat, together: Together, tmp_path: Path, soak: Soak) -> None:
    done = sessions = 0
    while done == 0 or soak.going(0.02, done=done, aim=10_000):
        done += race_two_processes(coat_of, together, tmp_path, 60)
        opened(coat := coat_of(), lambda: coat.sessions.revoke_all("ann"))
        sessions += 1
    words = f"0 forced sign-outs; {sessions} of {sessions} reuses caught"
    soak.report("racing refreshes of two processes", f"{done} refreshes", words)


@pytest.mark.parametrize("store", STORES)
def test_p1_end_the_others(store: str, coat_of: NewCoat, soak: Soak) -> None:
    coat = coat_of()
    other = coat if store == "memory" else coat_of()

    async def rounds() -> int:
        done = 0
        async with other:
            while done == 0 or soak.going(0.005, done=done, aim=1000):
                await end_the_others(coat, other, random.Random(done))  # noqa: S311 (a seed is to be repeatable)
                done += 1
        return done

    soak.report("end the others", f"{opened(coat, rounds)} times", "exactly one left, and listed")
