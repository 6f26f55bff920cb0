"""Accounts: one name is one account, and every change happens once."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from coatcheck.documents import Documents
from coatcheck.errors import Conflict, InvalidValue, StoreUnavailable
from coatcheck.server.accounts import Accounts, checked_name, fold
from coatcheck.server.passwords import MAX_LENGTH, _octets, judge_new
from coatcheck.stores.sqlite_documents import SQLiteDocuments

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
def accounts(documents: Documents) -> Accounts:
    return Accounts(documents)


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
    first = SQLiteDocuments(path)
    await first.open()
    made = await Accounts(first).add("ann", "hash", admin=True)
    await first.close()
    second = SQLiteDocuments(path)
    await second.open()
    assert await Accounts(second).list() == [made]
    assert {file.stat().st_mode & 0o077 for file in _files(tmp_path)} == {0}
    await second.close()


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_all_accounts_are_listed_by_name_however_many_pages_there_are(
    accounts: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coatcheck.server.document._PAGE", 3)
    names = [f"ann{number:02}" for number in range(20)]
    for name in reversed(names):
        await accounts.add(name.upper(), "hash")
        await accounts.disable(name)
    assert [account.name for account in await accounts.list()] == [name.upper() for name in names]
    assert len(await accounts.disabled()) == len(names)
    assert len(await accounts.unfinished(2**50)) == len(names)


@pytest.mark.parametrize("name", ["ann\0", "ann\ud800", "", "\U0001f511" * 64])
async def test_whatever_is_typed_as_a_name_is_looked_for(accounts: Accounts, name: str) -> None:
    """Names of 64 characters and of 256 octets are names; what is none is nobody's, and no error."""
    if name.isprintable() and name:
        made = await accounts.add(name, "hash")
        assert await accounts.find(name) == made
    else:
        assert await accounts.find(name) is None


@pytest.mark.parametrize("id", ["", "acct_x", "x" * 300, "acct_\0", "acct_\ud800"])
async def test_an_id_that_we_never_gave_is_nobody_s(accounts: Accounts, id: str) -> None:
    assert await accounts.get(id) is None


async def test_an_unknown_name_costs_as_many_round_trips_as_a_known_one(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the time of an answer would tell who has an account."""
    accounts = Accounts(documents)
    await accounts.add("ann", "hash")
    asked: list[int] = []
    get = documents.get

    async def spy(*keys: str) -> list[bytes | None]:
        asked[-1] += len(keys)
        return await get(*keys)

    monkeypatch.setattr(documents, "get", spy)
    for name in ("ann", "bob", "ann\0"):
        asked.append(0)
        await accounts.find(name)
    assert asked == [2, 2, 2]


async def test_p5_a_name_that_two_processes_give_at_once_is_one_account(tmp_path: Path, documents: Documents) -> None:
    other = SQLiteDocuments(tmp_path / "coatcheck.sqlite")
    await other.open()
    racers = [Accounts(place).add("ann", "hash") for place in (documents, other) * 10]
    results = await asyncio.gather(*racers, return_exceptions=True)
    [made] = [result for result in results if not isinstance(result, Conflict)]
    assert await Accounts(other).list() == [made]
    await other.close()


async def test_p1_a_disabled_account_is_unfinished_until_its_sessions_are_ended(accounts: Accounts) -> None:
    await accounts.add("ann", "hash")
    first = await accounts.disable("ann")
    second = await accounts.disable("ann")
    assert first is not None
    assert second is not None
    assert await accounts.unfinished(2**50) == [second]
    await accounts.finished(first)
    assert await accounts.unfinished(2**50) == [second], "the second time is somebody else's to finish"
    await accounts.finished(second)
    assert await accounts.unfinished(2**50) == []


async def test_p9_who_is_always_beaten_is_told_so(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    accounts = Accounts(documents)
    account = await accounts.add("ann", "hash")

    async def beaten(*_: object, **__: object) -> bool:
        return False

    monkeypatch.setattr(documents, "commit", beaten)
    with pytest.raises(StoreUnavailable, match="too many writers"):
        await accounts.disable("ann")
    with pytest.raises(StoreUnavailable, match="too many writers"):
        await accounts.set_password(account, "another")


@pytest.mark.parametrize(
    ("stored", "said"),
    [(b"\x02", "newer version"), (b"\x01", "damaged"), (b"\x01\xff", "damaged"), (b"\x01\x81\xa1\xff\x01", "damaged")],
)
async def test_p8_an_account_of_a_newer_format_or_a_damaged_one_is_nobody_s(
    documents: Documents, stored: bytes, said: str
) -> None:
    accounts = Accounts(documents)
    made = await accounts.add("ann", "hash")
    await documents.commit({}, {f"account/{made.id}": stored})
    for ask in (accounts.find("ann"), accounts.get(made.id), accounts.list(), accounts.disable("ann")):
        with pytest.raises(StoreUnavailable, match=said):
            await ask


async def test_p4_an_account_that_lies_in_another_s_place_is_nobody_s(documents: Documents) -> None:
    accounts = Accounts(documents)
    ann, bob = await accounts.add("ann", "hash"), await accounts.add("bob", "hash")
    [stored] = await documents.get(f"account/{ann.id}")
    await documents.commit({}, {f"account/{bob.id}": stored})
    with pytest.raises(StoreUnavailable, match="damaged"):
        await accounts.find("bob")
