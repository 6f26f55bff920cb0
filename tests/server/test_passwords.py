"""Passwords: hashed off the event loop, a few at a time, at one price; and what a new one must be."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from coatcheck.errors import InvalidValue
from coatcheck.server import passwords as module
from coatcheck.server.passwords import MAX_LENGTH, MIN_LENGTH, Busy, Passwords, judge_new

pytestmark = pytest.mark.anyio


class Gate:
    """Stands where a hash is compared, and lets nobody through until it is opened."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self._lock = threading.Lock()
        self.opened = threading.Event()

    def __call__(self, octets: bytes, stored: str) -> bool:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self.opened.wait(30)
        with self._lock:
            self.inside -= 1
        return True


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    gate = Gate()
    monkeypatch.setattr(module, "_matches", gate)
    yield gate
    gate.opened.set()


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0)


async def test_hashes_are_argon2id_with_19_mib_two_passes_and_one_lane() -> None:
    passwords = Passwords()
    hashed = await passwords.hash("a lantern under the stairs")
    passwords.close()
    assert re.fullmatch(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$[^$]{22}\$[^$]{43}", hashed)
    Argon2id.verify_phc_encoded(b"a lantern under the stairs", hashed)


async def test_only_the_password_that_was_hashed_is_right(cheap: Passwords) -> None:
    hashed = await cheap.hash("a lantern under the stairs")
    assert hashed != await cheap.hash("a lantern under the stairs"), "no salt"
    assert await cheap.verify("a lantern under the stairs", hashed)
    assert not await cheap.verify("A lantern under the stairs", hashed)
    assert not await cheap.verify("", hashed)
    assert not await cheap.verify("a lantern under the stairs", "$argon2id$damaged")


async def test_a_password_typed_composed_or_decomposed_is_the_same(cheap: Passwords) -> None:
    hashed = await cheap.hash("zo\u00eb under the stairs")
    assert await cheap.verify("zoe\u0308 under the stairs", hashed)


async def test_an_account_that_is_not_there_costs_what_any_other_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One derivation each, with the same parameters and sizes: what is measured is the machine, not the name."""
    passwords, seen = Passwords(memory=16, passes=2), []
    matches = module._matches

    def spy(octets: bytes, stored: str) -> bool:
        parameters, salt, digest = stored.rsplit("$", 2)
        seen.append((parameters, len(salt), len(digest)))
        return matches(octets, stored)

    monkeypatch.setattr(module, "_matches", spy)
    hashed = await passwords.hash("a lantern under the stairs")
    assert not await passwords.verify("a guess", hashed)
    assert not await passwords.verify("a guess", None)
    passwords.close()
    assert len(seen) == 2
    assert seen[0] == seen[1] == ("$argon2id$v=19$m=16,t=2,p=1", 22, 43)


async def test_hashes_with_other_parameters_are_due_for_a_new_one(cheap: Passwords) -> None:
    dearer = Passwords(memory=16, passes=1)
    assert dearer.needs_rehash(await cheap.hash("a lantern under the stairs"))
    assert not dearer.needs_rehash(await dearer.hash("a lantern under the stairs"))
    dearer.close()


async def test_at_most_as_many_hashes_run_at_once_as_there_are_turns_and_the_loop_goes_on(gate: Gate) -> None:
    passwords = Passwords(memory=8, passes=1, at_once=2, patience=30)
    racers = [asyncio.create_task(passwords.verify("x", "y")) for _ in range(50)]
    await _until(lambda: gate.inside == 2)
    # The event loop is free, or this line would not run while all turns are taken.
    gate.opened.set()
    assert await asyncio.gather(*racers) == [True] * 50
    assert gate.most == 2
    passwords.close()


async def test_p9_who_waits_too_long_for_a_turn_is_told_so_and_when_to_come_back(gate: Gate) -> None:
    passwords = Passwords(memory=8, passes=1, at_once=1, patience=0.01)
    first = asyncio.create_task(passwords.verify("x", "y"))
    await _until(lambda: gate.inside == 1)
    with pytest.raises(Busy, match=re.escape("0.01 s")) as caught:
        await passwords.verify("x", "y")
    assert (caught.value.status, caught.value.retry_after) == (503, 2)
    gate.opened.set()
    assert await first
    assert await passwords.verify("x", "y"), "the turn was not given back"
    passwords.close()


async def test_p9_no_more_than_500_wait(gate: Gate) -> None:
    passwords = Passwords(memory=8, passes=1, at_once=1, patience=30)
    racers = [asyncio.create_task(passwords.verify("x", "y")) for _ in range(510)]
    await _until(lambda: sum(racer.done() for racer in racers) == 9)
    gate.opened.set()
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert sum(isinstance(result, Busy) for result in results) == 9
    assert results.count(True) == 501
    passwords.close()


async def test_a_turn_ends_with_its_work_and_not_with_a_caller_who_left(gate: Gate) -> None:
    passwords = Passwords(memory=8, passes=1, at_once=1, patience=0.01)
    first = asyncio.create_task(passwords.verify("x", "y"))
    await _until(lambda: gate.inside == 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(Busy):
        await passwords.verify("x", "y")
    gate.opened.set()
    await _until(lambda: not passwords._slots.locked())
    assert await passwords.verify("x", "y")
    passwords.close()


@pytest.mark.parametrize(
    "password",
    [
        "a lantern under the stairs",
        "x" * 7 + "yzw vut srq pon",
        "\u706f\u7c60\u304c\u968e\u6bb5\u306e\u4e0b\u306b\u3042\u308b\u3068\u3044\u3046\u3053\u3068",
        "correct horse battery staple " * 8,
        " spaces at the ends count ",
        "ann keeps a lantern there",
    ],
)
def test_a_new_password_may_be_anything_long_that_is_not_the_first_guess(password: str) -> None:
    judge_new(password, "ann")


@pytest.mark.parametrize(
    "password",
    [
        "",
        "a" * (MIN_LENGTH - 1),
        "lantern, stair",
        "a" * (MAX_LENGTH + 1),
        "a" * 20,
        "passwordpassword",
        "Password12Password12",
        "annannannannannann",
        "ann.bell ann.bell",
        "123456789012345",
        "qwertyuiopasdfg",
        "abcdefghijklmnop",
        "ponmlkjihgfedcba",
        "abcabcabcabcabcabc",
    ],
)
def test_a_new_password_that_is_short_or_among_the_first_guesses_is_refused(password: str) -> None:
    with pytest.raises(InvalidValue, match="password") as caught:
        judge_new(password, "Ann.Bell" if "bell" in password else "ann")
    assert not password or password not in str(caught.value)


def test_p9_the_limits_of_a_password_are_named() -> None:
    for password in ("short", "long" * 100):
        with pytest.raises(InvalidValue, match=r"15|256"):
            judge_new(password, "ann")
