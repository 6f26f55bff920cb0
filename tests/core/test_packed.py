"""PackedTable holds what a dictionary would hold, in a third of the memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coatcheck.core.packed import PackedTable
from coatcheck.core.revocation import Revocations, Revoked
from coatcheck.errors import Revoked as RevokedError

IDS = st.text("ABab\0é", max_size=3) | st.text("xy", min_size=20, max_size=24) | st.just("\ud800")
PUTS = st.tuples(IDS, st.integers(0, 9), st.integers(0, 9))


@given(st.lists(PUTS | st.integers(0, 9), max_size=60))
@settings(max_examples=200)
def test_it_answers_as_a_dictionary_would(steps: list[tuple[str, int, int] | int]) -> None:
    """Neither time nor number goes back; what may be forgotten may still be there, and nothing else is gone."""
    table, model = PackedTable(), dict[str, tuple[int, int]]()
    for step in steps:
        if isinstance(step, int):
            table.forget(step)
            for text, (until, number) in list(model.items()):
                assert table.get(text) == number or (table.get(text) is None and until <= step)
                if table.get(text) is None:
                    del model[text]
        else:
            text, until, number = step
            before = model.get(text, (0, 0))
            model[text] = (max(until, before[0]), max(number, before[1]))
            table.put(*step)
        assert len(table) == len(model)
        for text, (_, number) in model.items():
            assert table.get(text) == number
    for text in ("A", "", "a" * 22, "xy" * 11):
        assert (table.get(text) is None) == (text not in model)


@pytest.mark.parametrize("count", [10, 3000])
def test_what_may_be_forgotten_is(count: int) -> None:
    table = PackedTable()
    for number in range(count):
        table.put(f"{number:022}", until=1000 + number % 2)
    table.forget(1000)
    assert all(table.get(f"{number:022}") == 0 for number in range(1, count, 2))
    assert len(table) >= count // 2
    table.forget(1001)
    assert len(table) == 0
    assert table.get(f"{1:022}") is None


def test_r12_p9_each_shelf_keeps_at_most_twice_what_is_of_use() -> None:
    """In the order in which revocations come: those that may be forgotten first came first."""
    table = PackedTable()
    for number in range(40_000):
        table.put(f"{number:022}", until=number)
        if number % 1000 == 0:
            table.forget(number - 4000)
    assert 4000 <= len(table) <= 2 * (4000 + 1000)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads take turns far more often than they do by themselves."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("_", range(3))
def test_p1_no_thread_misses_what_another_has_put(_: int) -> None:
    """Not even while the table grows, is cleared, or an entry changes: what is there is found at every moment."""
    table, missed, ended = PackedTable(), list[str](), threading.Event()
    table.put("there" * 5, until=10**12)

    def look() -> None:
        while not ended.is_set():
            if table.get("there" * 5) is None:
                missed.append("missed")

    def put(of: str) -> None:
        for number in range(700):
            table.put(f"{of}{number}", until=10**12)
            table.put("there" * 5, until=10**12 + number, number=number)
            if number % 100 == 0:
                table.forget(1)

    readers = [threading.Thread(target=look) for _ in range(2)]
    writers = [threading.Thread(target=put, args=(of,)) for of in "abcd"]
    for thread in [*readers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    ended.set()
    for thread in readers:
        thread.join()
    assert not missed
    assert all(table.get(f"{of}{number}") == 0 for of in "abcd" for number in range(700))
    assert len(table) == 2801


def test_p7_a_clock_that_was_ahead_for_one_pass_makes_no_revocation_forgotten() -> None:
    revocations = Revocations()

    def pass_at(now: int) -> None:
        for number in range(1024):
            revocations.apply(Revoked(session_id=f"other{number}", until=2**40))
        revocations.prune(now)

    revocations.apply(Revoked(session_id="dead", until=1000))
    for now in (10, 10_000, 20, 999):
        pass_at(now)
    with pytest.raises(RevokedError):
        revocations.judge("dead", "ann", 0)
