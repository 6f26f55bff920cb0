"""Attempts: how often passwords may be tried, and what guessing cookies raises."""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import timedelta
from pathlib import Path

import pytest

from coatcheck import Keyring
from coatcheck.core.credentials import SessionCookie
from coatcheck.documents import Documents
from coatcheck.errors import BadSignature, CredentialError, Expired, Malformed, Missing, Revoked, Superseded
from coatcheck.server.attempts import ALARM_AT, PER_ACCOUNT, PER_ADDRESS, Alarm, Attempts, TooMany, network
from coatcheck.stores.sqlite_documents import SQLiteDocuments
from coatcheck.testing import SettableClock

pytestmark = pytest.mark.anyio

KEYRING = Keyring.generate("HS256")


@pytest.fixture
def attempts(documents: Documents, clock: SettableClock) -> Attempts:
    return Attempts(documents, KEYRING, clock=clock)


async def test_an_account_has_ten_attempts_in_fifteen_minutes_from_wherever(
    attempts: Attempts, clock: SettableClock
) -> None:
    for number in range(PER_ACCOUNT):
        await attempts.begin("ann", f"192.0.2.{number}")
        clock.advance(timedelta(seconds=1))
    with pytest.raises(TooMany, match="more than 10 attempts to sign in for this account in 15 minutes") as caught:
        await attempts.begin("ann", "198.51.100.1")
    assert (caught.value.status, caught.value.retry_after) == (429, 15 * 60 - PER_ACCOUNT)
    clock.advance(timedelta(seconds=caught.value.retry_after) - timedelta(milliseconds=1))
    with pytest.raises(TooMany):
        await attempts.begin("ann", "198.51.100.1")
    clock.advance(timedelta(milliseconds=1))
    await attempts.begin("ann", "198.51.100.1")


async def test_an_address_has_fifty_attempts_in_fifteen_minutes_for_whatever_names(
    attempts: Attempts, clock: SettableClock
) -> None:
    for number in range(PER_ADDRESS):
        await attempts.begin(f"name {number}", "192.0.2.1")
    with pytest.raises(TooMany, match="more than 50 attempts to sign in from this address") as caught:
        await attempts.begin("another", "192.0.2.1")
    assert caught.value.retry_after == 15 * 60
    await attempts.begin("another", "192.0.2.2")
    clock.advance(timedelta(minutes=15))
    await attempts.begin("another", "192.0.2.1")


async def test_a_name_counts_as_one_however_it_is_typed(attempts: Attempts) -> None:
    spellings = ("zo\u00eb", "ZOE\u0308", "Zo\u00cb")
    for number in range(PER_ACCOUNT):
        await attempts.begin(spellings[number % 3], f"192.0.2.{number}")
    with pytest.raises(TooMany):
        await attempts.begin("zoe\u0308", "198.51.100.1")


async def test_a_clock_that_was_ahead_for_a_while_locks_nobody_out(attempts: Attempts, clock: SettableClock) -> None:
    clock.advance(timedelta(days=365))
    for _ in range(PER_ACCOUNT):
        await attempts.begin("ann", "192.0.2.1")
    clock.advance(timedelta(days=-365))
    await attempts.begin("ann", "192.0.2.1")


async def test_many_attempts_at_once_do_not_slip_through_together(attempts: Attempts) -> None:
    racers = [attempts.begin("ann", f"192.0.2.{number}") for number in range(40)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert sum(isinstance(result, TooMany) for result in results) == 40 - PER_ACCOUNT


async def test_a_success_clears_the_account_and_not_the_address(attempts: Attempts) -> None:
    for _ in range(PER_ACCOUNT - 1):
        await attempts.begin("ann", "192.0.2.1")
    await attempts.succeeded(await attempts.begin("ann", "192.0.2.1"))
    for _ in range(PER_ACCOUNT):
        await attempts.begin("ann", "198.51.100.1")
    for number in range(PER_ADDRESS - (PER_ACCOUNT - 1)):
        await attempts.begin(f"name {number}", "192.0.2.1")
    with pytest.raises(TooMany, match="this address"):
        await attempts.begin("another", "192.0.2.1")


async def test_an_attempt_that_checked_nothing_is_taken_back(attempts: Attempts) -> None:
    for _ in range(3 * PER_ADDRESS):
        await attempts.undo(await attempts.begin("ann", "192.0.2.1"))


async def test_a_restart_forgets_nothing_and_processes_count_together(tmp_path: Path, clock: SettableClock) -> None:
    for _ in range(PER_ACCOUNT):
        documents = SQLiteDocuments(tmp_path / "coatcheck.sqlite")
        await documents.open()
        await Attempts(documents, KEYRING, clock=clock).begin("ann", "192.0.2.1")
        await documents.close()
    documents = SQLiteDocuments(tmp_path / "coatcheck.sqlite")
    await documents.open()
    with pytest.raises(TooMany):
        await Attempts(documents, KEYRING, clock=clock).begin("ann", "192.0.2.1")
    await documents.close()


async def test_fifty_at_once_at_two_processes_are_ten_attempts(
    tmp_path: Path, documents: Documents, clock: SettableClock
) -> None:
    other = SQLiteDocuments(tmp_path / "coatcheck.sqlite")
    await other.open()
    both = [Attempts(place, KEYRING, clock=clock) for place in (documents, other)]
    racers = [both[number % 2].begin("ann", f"192.0.2.{number % 5}") for number in range(50)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert sum(isinstance(result, TooMany) for result in results) == 50 - PER_ACCOUNT
    await other.close()


async def test_taking_attempts_back_at_once_takes_back_each(attempts: Attempts) -> None:
    begun = [await attempts.begin("ann", "192.0.2.1") for _ in range(PER_ACCOUNT)]
    await asyncio.gather(*(attempts.undo(attempt) for attempt in begun))
    for _ in range(PER_ACCOUNT):
        await attempts.begin("ann", "192.0.2.1")


async def test_what_is_typed_and_where_it_comes_from_may_be_no_text_at_all(attempts: Attempts) -> None:
    for name, address in (("ann\0", "\0"), ("\ud800", "\ud800"), ("", "")):
        for _ in range(PER_ACCOUNT):
            await attempts.begin(name, address)
        with pytest.raises(TooMany):
            await attempts.begin(name, address)


async def test_s17_what_was_typed_as_a_name_is_not_stored(attempts: Attempts, tmp_path: Path) -> None:
    """People type passwords into the wrong field."""
    await attempts.begin("a lantern under the stairs", "192.0.2.1")
    assert b"lantern" not in _contents(tmp_path)


def _contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_p9_old_attempts_are_forgotten(attempts: Attempts, documents: Documents, clock: SettableClock) -> None:
    for number in range(20):
        await attempts.begin(f"name {number}", f"192.0.2.{number}")
    clock.advance(timedelta(minutes=15))
    await attempts.begin("ann", "192.0.2.1")
    assert await documents.sweep(clock()) == 39, "two for each, and one address was used again"
    assert await documents.sweep(clock() + 2**40) == 2


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_an_ipv6_host_counts_as_its_network(address: str, counts_as: str) -> None:
    assert network(address) == counts_as


def _alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "alarm" in record.getMessage()]


@pytest.mark.parametrize(
    ("refusal", "counts"),
    [
        (Revoked("x"), True),
        (BadSignature("x"), True),
        (Malformed("x"), True),
        (Superseded("x"), False),
        (Expired("x"), False),
        (Missing("x"), False),
        (None, False),
    ],
)
def test_s23_only_credentials_that_could_be_guesses_count(
    refusal: CredentialError | None, counts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    alarm = Alarm()
    for _ in range(3 * ALARM_AT):
        alarm.note(refusal, "192.0.2.1")
    assert len(_alarms(caplog)) == int(counts)


def test_s23_the_alarm_is_raised_again_in_the_next_quarter_of_an_hour(
    caplog: pytest.LogCaptureFixture, clock: SettableClock
) -> None:
    alarm = Alarm(clock=clock)
    for expected in (1, 2):
        for _ in range(ALARM_AT - 1):
            alarm.note(Revoked("x"), "192.0.2.1")
        assert len(_alarms(caplog)) == expected - 1
        alarm.note(Revoked("x"), "192.0.2.1")
        assert len(_alarms(caplog)) == expected
        clock.advance(timedelta(minutes=15))


def test_p9_the_alarm_remembers_ten_thousand_addresses_and_the_busy_ones_last(caplog: pytest.LogCaptureFixture) -> None:
    alarm = Alarm()
    for number in range(30_000):
        alarm.note(Revoked("x"), f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        if number % 100 == 0:
            alarm.note(Revoked("x"), "192.0.2.1")
    assert len(alarm._seen) == 10_000
    assert _alarms(caplog) == [f"alarm: {ALARM_AT} refused credentials from 192.0.2.1 in 15 minutes"]


async def test_s23_a_thousand_random_ids_from_one_address_raise_one_alarm(
    new_client: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "coatcheck")
    client = new_client(address="203.0.113.9")  # type: ignore[operator]
    for _ in range(1000):
        guess = SessionCookie(secrets.token_urlsafe(16)[:21] + "A", secrets.token_bytes(32))
        answer = await client("GET", "/api/session", cookies={"__Host-session": guess.value})
        assert (answer.status, answer.json["code"]) == (401, "revoked")
        assert answer.header("set-cookie") is None
    assert _alarms(caplog) == [f"alarm: {ALARM_AT} refused credentials from 203.0.113.9 in 15 minutes"]
