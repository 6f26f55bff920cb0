"""What is measured is so: counted and read off real requests of the real middleware, and nothing is left behind."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coatcheck import Coatcheck, StoreUnavailable
from coatcheck.comparison import KINDS, Measurements, compare, measuring, revoking
from coatcheck.comparison.measuring import Spread
from coatcheck.comparison.revoking import Pair, time_to_refusal
from coatcheck.comparison.visits import Answer, Presented, application, bare
from coatcheck.web.asgi import App


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compare")


@pytest.fixture(scope="module")
def threads_before() -> frozenset[threading.Thread]:
    """Those of other tests, if these do not run alone."""
    return frozenset(threading.enumerate())


@pytest.fixture(scope="module")
def measured(folder: Path, threads_before: frozenset[threading.Thread]) -> Iterator[Measurements]:
    """Measured once, briefly: what does not depend on how long it takes is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "_CPU_SECONDS", 0.0)
        patch.setattr(measuring, "_FIRST_TOKENS", 8)
        patch.setattr(revoking, "ROUNDS", 2)
        patch.setattr(tempfile, "tempdir", str(folder))
        yield compare()


def test_a_session_is_looked_up_once_and_the_others_never(measured: Measurements) -> None:
    """s21: and nothing else is asked of the store by a request that only reads."""
    assert {kind: found.look_ups for kind, found in measured.kinds.items()} == {
        "session": 1.0,
        "sealed": 0.0,
        "token_cookie": 0.0,
        "bearer": 0.0,
    }


def test_only_a_sealed_cookie_carries_its_data(measured: Measurements) -> None:
    for kind, found in measured.kinds.items():
        grown = found.bytes_with_data - found.bytes
        assert grown > 1024 if kind == "sealed" else grown == 0


def test_the_ticket_is_the_shortest_and_a_token_the_longest(measured: Measurements) -> None:
    """ "cookie: __Host-session=" and a ticket of 67 letters make 92 octets with the end of the line."""
    sizes = {kind: found.bytes for kind, found in measured.kinds.items()}
    assert sizes["session"] == len("cookie: __Host-session=") + 67 + len("\r\n") == 92
    assert sizes["session"] < sizes["sealed"] < sizes["bearer"] < sizes["token_cookie"]


def test_scripts_read_a_bearer_token_and_no_cookie(measured: Measurements) -> None:
    assert {kind: list(found.scripts_read) for kind, found in measured.kinds.items()} == {
        "session": [],
        "sealed": [],
        "token_cookie": [],
        "bearer": ["Bearer"],
    }


def test_a_tokens_claims_are_for_everybody_to_read_and_a_sealed_session_is_not(measured: Measurements) -> None:
    readable = {kind: set(found.readable) for kind, found in measured.kinds.items()}
    assert readable["session"] == readable["sealed"] == set()
    assert {"sub", "sid", "exp"} <= readable["bearer"]
    assert readable["token_cookie"] == readable["bearer"]


def test_only_a_token_is_another_matter_the_first_time(measured: Measurements) -> None:
    first = {kind for kind, found in measured.kinds.items() if found.first_cpu_us is not None}
    assert first == {"token_cookie", "bearer"}


@pytest.mark.anyio
async def test_what_the_bare_page_takes_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each round that round's own: what slows the machine down slows both."""
    turns: list[bool] = []

    async def turn(app: App, _presented: Presented, times: int = 40) -> float:
        turns.append(app is bare)
        slower = 100.0 * sum(turns)
        return slower + (5.0 if app is bare else 12.0)

    monkeypatch.setattr(measuring, "_turn", turn)
    monkeypatch.setattr(measuring, "_CPU_SECONDS", 0.0)
    places: Any = {kind: SimpleNamespace(pair=SimpleNamespace(app=None), store=SimpleNamespace()) for kind in KINDS}
    presented = Presented((b"cookie", b"a=1"), ())
    found, _ = await measuring._cpu(places, dict.fromkeys(KINDS, presented))
    assert set(found.values()) == {Spread(7.0, 7.0, 7.0)}
    assert sum(turns) == 5


def test_every_kind_is_refused_in_another_process(measured: Measurements) -> None:
    """Bounded by patience only: no test depends on how fast this machine is."""
    for found in measured.kinds.values():
        assert 0 <= found.refused_ms.median < 10_000


def test_s17_the_example_is_cut_short(measured: Measurements) -> None:
    for found in measured.kinds.values():
        assert len(found.header) < 70
        assert "…" in found.header


def test_nothing_is_left(measured: Measurements, folder: Path, threads_before: frozenset[threading.Thread]) -> None:
    """No file, and no thread that still writes."""
    assert list(measured.kinds) == list(KINDS)
    assert list(folder.iterdir()) == []
    left = [thread.name for thread in threading.enumerate() if thread not in threads_before]
    assert [name for name in left if "coatcheck" in name] == []


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(StoreUnavailable, match="no room for temporary files"):
        compare()


@pytest.mark.anyio
async def test_what_is_never_refused_is_said_and_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoking, "_PATIENCE", 0.05)
    async with Coatcheck(on_event=lambda _: None) as coat:
        with pytest.raises(StoreUnavailable, match="not refused in another process"):
            await time_to_refusal({"session": Pair(coat, application(coat), bare)})


def test_a_cookie_without_httponly_would_be_told() -> None:
    lines = [(b"set-cookie", b"a=1; Secure; HttpOnly; Path=/"), (b"set-cookie", b"b=2; Secure; Path=/")]
    presented = Presented.after("session", Answer(200, lines, b""))
    assert presented.scripts_read == ["b"]
    assert presented.header == (b"cookie", b"a=1; b=2")
