"""Accounts: one name is one account, and every change happens once."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from coatcheck.errors import ConfigurationError, Conflict, InvalidValue, StoreUnavailable
from coatcheck.server.accounts import Accounts, checked_name, fold
from coatcheck.server.database import Database
from coatcheck.server.passwords import MAX_LENGTH, _octets, judge_new

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("take", [fold, _octets])
def test_p9_accents_without_end_are_not_sorted(take: Callable[[str], object]) -> None:
    """Canonical order is found in quadratic time: 10 000 accents, which fit in a form, took 140 ms of the loop."""
    started = time.perf_counter()
    for _ in range(20):
        take("\u0301" * 5400 + "\u0327" * 5400)
    assert (time.perf_counter() - started) / 20 < 0.02


def test_p9_cutting_off_what_is_too_long_makes_nothing_fit() -> None:
    # U+0390 is three characters when it is taken apart, and the musical symbols are four.
    for character in ("a", "\u0390", "\U0001d160"):
        for form in ("NFC", "NFD"):
            text = unicodedata.normalize(form, character * (MAX_LENGTH + 1))
            with pytest.raises(InvalidValue):
                checked_name(text)
            with pytest.raises(InvalidValue, match="at most 256"):
                judge_new(text, "ann")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(tmp_path / "coatcheck.sqlite")
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return Accounts(database)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("ann", "ann"),
        ("Ann Bell", "Ann Bell"),
        ("a" * 64, "a" * 64),
        ("zoe\u0308", "zo\u00eb"),
        ("ann@example.com", "ann@example.com"),
    ],
)
def test_a_name_is_stored_as_typed_in_normal_form_c(name: str, stored: str) -> None:
    assert checked_name(name) == stored


@pytest.mark.parametrize("name", ["", " ann", "ann ", "a" * 65, "an\nn", "a\u200bnn", "\u202eann", "ann\u00a0"])
def test_a_name_that_people_could_not_tell_apart_is_refused(name: str) -> None:
    with pytest.raises(InvalidValue):
        checked_name(name)


@pytest.mark.parametrize(("one", "other"), [("Ann", "aNN"), ("zo\u00eb", "ZOE\u0308"), ("stra\u00dfe", "STRASSE")])
async def test_names_are_compared_without_case_and_composition(accounts: Accounts, one: str, other: str) -> None:
    assert fold(one) == fold(other)
    made = await accounts.add(one, "hash")
    assert await accounts.find(other) == made
    with pytest.raises(Conflict):
        await accounts.add(other, "hash")


async def test_the_id_is_no_part_of_the_name_and_never_the_same(accounts: Accounts) -> None:
    ids = {(await accounts.add(f"ann{number}", "hash")).id for number in range(20)}
    assert len(ids) == 20
    assert all(id.startswith("acct_") and "ann" not in id for id in ids)


async def test_of_many_first_accounts_at_once_there_is_one_and_it_is_an_administrator(accounts: Accounts) -> None:
    racers = [accounts.add_first(f"ann{number}", "hash") for number in range(20)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 19
    [only] = await accounts.list()
    assert only.admin


async def test_p5_a_password_that_was_proved_is_changed_once(accounts: Accounts) -> None:
    account = await accounts.add("ann", "old")
    racers = [accounts.set_password(account, f"new{number}") for number in range(20)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    [winner] = [result for result in results if not isinstance(result, BaseException)]
    assert all(isinstance(result, Conflict) for result in results if result is not winner)
    assert await accounts.get(account.id) == winner


async def test_a_rehash_never_brings_an_old_password_back(accounts: Accounts) -> None:
    account = await accounts.add("ann", "old")
    changed = await accounts.set_password(account, "new")
    await accounts.rehash(account, "old with new parameters")
    assert await accounts.get(account.id) == changed


async def test_a_rehash_does_not_end_proofs_and_everything_else_does(accounts: Accounts) -> None:
    account = await accounts.add("ann", "old")
    await accounts.rehash(account, "rehashed")
    rehashed = await accounts.get(account.id)
    assert rehashed is not None
    assert (rehashed.version, rehashed.password_hash) == (account.version, "rehashed")
    disabled = await accounts.disable("ann")
    again = await accounts.disable("ANN")
    assert disabled is not None
    assert again is not None
    assert account.version < disabled.version < again.version


async def test_a_disabled_account_takes_no_new_password(accounts: Accounts) -> None:
    account = await accounts.add("ann", "old")
    disabled = await accounts.disable("ann")
    assert disabled is not None
    assert await accounts.disabled() == [disabled]
    with pytest.raises(Conflict):
        await accounts.set_password(account, "new")
    with pytest.raises(Conflict):
        await accounts.set_password(disabled, "new")
    enabled = await accounts.enable("ann")
    assert enabled is not None
    assert not enabled.disabled
    assert await accounts.disabled() == []


async def test_there_is_no_account_that_was_not_made(accounts: Accounts) -> None:
    assert not await accounts.exist()
    assert await accounts.find("ann") is None
    assert await accounts.get("acct_x") is None
    assert await accounts.disable("ann") is None
    assert await accounts.enable("ann") is None
    assert await accounts.list() == []


async def test_a_repr_shows_no_hash(accounts: Accounts) -> None:
    assert "s3cret-hash" not in repr(await accounts.add("ann", "s3cret-hash"))


async def test_accounts_survive_a_restart_in_a_file_that_only_we_can_read(tmp_path: Path) -> None:
    path = tmp_path / "coatcheck.sqlite"
    first = Database(path)
    await first.open()
    made = await Accounts(first).add("ann", "hash", admin=True)
    await first.close()
    second = Database(path)
    await second.open()
    assert await Accounts(second).list() == [made]
    assert {file.stat().st_mode & 0o077 for file in _files(tmp_path)} == {0}
    await second.close()


async def test_p6_a_database_that_is_closed_or_damaged_is_unavailable_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "coatcheck.sqlite"
    database = Database(path)
    with pytest.raises(StoreUnavailable):
        await Accounts(database).list()
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreUnavailable):
        await database.open()
    with pytest.raises(StoreUnavailable):
        await Database(tmp_path / "no such folder" / "db").open()


async def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    await database.write(lambda connection: connection.execute("UPDATE server_schema SET version = 2").rowcount)
    with pytest.raises(ConfigurationError, match="newer version"):
        await Database(database.path).open()


async def test_what_raises_half_way_leaves_nothing(database: Database, accounts: Accounts) -> None:
    await accounts.add("ann", "hash")

    def work(connection: object) -> None:
        connection.execute("DELETE FROM server_accounts")  # type: ignore[attr-defined]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await database.write(work)
    assert len(await accounts.list()) == 1


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())
