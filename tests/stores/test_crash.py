"""P1 and P2: kill -9 amid a write load. What was acknowledged is so: no sign-in lost, no sign-out undone."""

from __future__ import annotations

import pytest
from crashes import crash
from processes import Spawn
from rivals import NewStore


@pytest.mark.parametrize(("store", "rounds", "least"), [("sqlite", 50, 60), ("file", 20, 60)])
def test_p1_p2_nothing_acknowledged_is_undone_by_kill_9(
    rounds: int, least: int, new_store: NewStore, spawn: Spawn
) -> None:
    _, ended = crash(new_store, spawn, least, lambda done, _: done < rounds)
    assert ended > rounds
