"""Figures of the feeds beside the stores: how soon a revocation counts elsewhere, and what a million of them take."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import pytest
from places import KINDS, Places, place
from sites import NETWORKED, Site
from soaking import MINUTES, Soak
from valkey_server import single_url

from coatcheck import Coatcheck, Keyring, Revoked, StoreUnavailable
from coatcheck.stores import store_from_url
from coatcheck.testing import FaultProxy

__all__ = ["place", "single_url"]

SUBJECTS, DEVICES, KEPT = 250, 4, 20
RECOVERY = 2.0  # seconds until tokens are trusted again, once the servers can be reached
RING = Keyring.generate("HS256")


def coat_at(url: str) -> Coatcheck:
    return Coatcheck(store_from_url(url), RING, on_event=lambda _: None)


# -- from the acknowledgement in one process to the refusal in another


@pytest.mark.parametrize("kind", KINDS)
def test_p1_s11_s13_a_revocation_counts_in_another_process(kind: str, place: Places, soak: Soak) -> None:
    """A thousand sessions, ended one by one, with the others of their subject, or everywhere, while others sign in."""
    url = place(kind)
    fork, (here, there) = multiprocessing.get_context("fork"), multiprocessing.Pipe()
    other = fork.Process(target=lambda: asyncio.run(verify(url, there)), daemon=True)
    other.start()
    there.close()
    late = sorted(asyncio.run(end_a_thousand(url, here)))
    other.join()
    assert other.exitcode == 0
    figures = ", ".join(f"{name} {late[int((len(late) - 1) * share)] * 1000:.0f} ms" for name, share in SHARES)
    soak.report("from the acknowledgement to the refusal elsewhere", f"{len(late)} sessions", figures)
    assert late[int((len(late) - 1) * 0.99)] < 0.25
    assert late[-1] < 1


SHARES = (("p50", 0.5), ("p99", 0.99), ("max", 1.0))


async def verify(url: str, there: Connection) -> None:
    """Verify all tokens again and again, until those that are to be refused are; say when each of them was."""
    loop = asyncio.get_running_loop()
    ending, kept = await loop.run_in_executor(None, there.recv)
    refused: dict[str, float] = {}
    async with coat_at(url) as coat:
        there.send("ready")
        while len(refused) < len(ending):
            for token in ending.keys() - refused.keys():
                if is_refused(coat, token):
                    refused[token] = time.monotonic()
            for token in kept:
                coat.verifier.verify(token)
            await asyncio.sleep(0.001)
    there.send({ending[token]: at for token, at in refused.items()})


def is_refused(coat: Coatcheck, token: str) -> bool:
    try:
        coat.verifier.verify(token)
    except Revoked:
        return True
    return False


async def end_a_thousand(url: str, here: Connection) -> list[float]:
    """Return how many seconds after its acknowledgement each end was noticed."""
    chance, acked = random.Random(1), dict[str, float]()  # noqa: S311 (a seed is to be repeatable)
    async with coat_at(url) as coat:

        async def signed_in(subject: str) -> tuple[str, str]:
            session = await coat.sessions.create(subject, amr=("pwd",))
            return (await coat.sessions.issue(session)).access_token, session.id or ""

        async def end(subject: str, ids: list[str]) -> None:
            way = chance.choice(("each", "others", "everywhere"))
            for keep in ids if way == "each" else ids[:1]:
                await (
                    coat.sessions.revoke(keep) if way == "each"
                    else coat.sessions.revoke_all(subject, keep=keep if way == "others" else None)
                )  # fmt: skip
                acked.update(dict.fromkeys([keep] if way == "each" else ids[way == "others" :], time.monotonic()))
            if way == "others":
                await coat.sessions.revoke(ids[0])
                acked[ids[0]] = time.monotonic()

        async def load() -> None:
            while True:
                await signed_in(f"load{chance.random()}")

        subjects = {f"s{number}": [await signed_in(f"s{number}") for _ in range(DEVICES)] for number in range(SUBJECTS)}
        kept = [(await signed_in("kept"))[0] for _ in range(KEPT)]
        here.send(({token: id for pairs in subjects.values() for token, id in pairs}, kept))
        await asyncio.to_thread(here.recv)
        loads = [asyncio.create_task(load()) for _ in range(2)]
        for start in range(0, SUBJECTS, 4):
            some = list(subjects.items())[start : start + 4]
            await asyncio.gather(*(end(subject, [id for _, id in pairs]) for subject, pairs in some))
        for task in loads:
            task.cancel()
        noticed = await asyncio.to_thread(here.recv)
    return [max(0.0, noticed[id] - acked[id]) for id in acked]


# -- cut off


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["cut", "hold", "hold_replies"])
@pytest.mark.parametrize("kind", NETWORKED)
async def test_p6_the_feed_is_away(site: Site, fault: str, soak: Soak) -> None:
    """The process knows within its bound of five seconds, and is back by itself with nothing missed."""
    seconds = min(MINUTES, 30)
    spoil: Callable[[FaultProxy], None] = getattr(FaultProxy, fault)
    async with (
        Coatcheck(site.store(), RING, on_event=lambda _: None) as one,
        Coatcheck(site.store(), RING, on_event=lambda _: None) as two,
    ):
        kept, ended = [await one.sessions.create(name, amr=("pwd",)) for name in ("ann", "bob")]
        good, bad = [(await one.sessions.issue(each)).access_token for each in (kept, ended)]
        two.verifier.verify(bad)
        site.spoil(spoil)
        began = time.monotonic()
        with suppress(StoreUnavailable):
            await one.sessions.revoke(ended.id or "")
        noticed = await passed(two.verifier.is_stale)
        with pytest.raises(StoreUnavailable):
            two.verifier.verify(good)
        await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))
        site.heal()
        recovery = await passed(lambda: not two.verifier.is_stale())
        assert two.verifier.verify(good).subject == "ann"
        while True:
            with suppress(StoreUnavailable):
                await one.sessions.revoke(ended.id or "")
                break
        await passed(lambda: two.revocations.covers(ended.id or "", None, 0))
        with pytest.raises(Revoked):
            two.verifier.verify(bad)
    soak.report(
        f"feed away ({fault}) for {seconds} s", f"noticed after {noticed:.2f} s", f"{recovery:.2f} s to recover"
    )
    assert noticed < 6
    assert recovery < RECOVERY


async def passed(true: Callable[[], bool]) -> float:
    """Return after how many seconds something is so."""
    began = time.monotonic()
    async with asyncio.timeout(60):
        while not true():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.005)
    return time.monotonic() - began


# -- a million

_MILLION = """
import base64, os, time
from coatcheck import Coatcheck, Keyring
from coatcheck.core.revocation import Revoked
from coatcheck.run import run

def resident():
    with open("/proc/self/statm") as said:
        return int(said.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def new():
    return base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")

ring = Keyring.generate("HS256")
none, million = Coatcheck(keyring=ring), Coatcheck(keyring=ring)
tokens = [run(none.sessions.issue(run(none.sessions.create("ann")))).access_token for _ in range(2000)]
before = resident()
for number in range(1_000_000):
    million.revocations.apply(Revoked(until=2**42, {}))
took, best = resident() - before, {none: 9.0, million: 9.0}
for _ in range(40):
    for coat in best:
        began = time.perf_counter()
        for token in tokens:
            coat.verifier.verify(token)
        best[coat] = min(best[coat], (time.perf_counter() - began) / len(tokens))
print(took, *best.values(), len(million.revocations))
"""


@pytest.mark.parametrize("of", ["session_id=new()", "subject=new(), before=2**41"])
def test_p9_a_million_revocations(of: str) -> None:
    """In memory, and for who verifies a token of a session that is none of them."""
    program = [sys.executable, "-c", _MILLION.replace("{}", of)]
    said = subprocess.run(program, check=True, capture_output=True, text=True).stdout.split()
    took, none, million, count = int(said[0]), float(said[1]), float(said[2]), int(said[3])
    what = f"a token verified in {none * 1e6:.2f} µs with none, in {million * 1e6:.2f} µs with all of them"
    Soak(of.partition("=")[0]).report("a million revocations", f"{took / 2**20:.0f} MiB", what)
    assert count == 1_000_000
    assert took < 64 * 2**20
