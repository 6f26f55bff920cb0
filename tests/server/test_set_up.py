"""The set-up link makes the first account, once, and nothing of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coatcheck.errors import InvalidValue
from coatcheck.server.accounts import Accounts
from coatcheck.server.database import Database
from coatcheck.server.passwords import Passwords
from coatcheck.server.set_up import Gone, SetUp

pytestmark = pytest.mark.anyio

PASSWORD = "a lantern under the stairs"


@pytest.fixture
async def accounts(tmp_path: Path) -> AsyncIterator[Accounts]:
    database = Database(tmp_path / "coatcheck.sqlite")
    await database.open()
    yield Accounts(database)
    await database.close()


@pytest.fixture
def set_up(accounts: Accounts, cheap: Passwords) -> SetUp:
    return SetUp(accounts, cheap)


async def _issued(set_up: SetUp) -> str:
    token = await set_up.issue()
    assert token is not None
    assert len(token) >= 43, "256 random bits"
    return token


async def test_the_link_makes_an_administrator_and_a_proof_to_sign_in_with(set_up: SetUp, accounts: Accounts) -> None:
    token = await _issued(set_up)
    await set_up.check(token)
    proof = await set_up.use(token, "ann", PASSWORD)
    assert await accounts.list() == [proof.account]
    assert proof.account.admin


async def test_a_second_use_and_a_later_visit_find_nothing(set_up: SetUp) -> None:
    token = await _issued(set_up)
    await set_up.use(token, "ann", PASSWORD)
    with pytest.raises(Gone) as caught:
        await set_up.check(token)
    assert caught.value.status == 410
    with pytest.raises(Gone):
        await set_up.use(token, "bob", PASSWORD)


async def test_p5_of_many_uses_at_once_one_makes_an_account(set_up: SetUp, accounts: Accounts) -> None:
    token = await _issued(set_up)
    racers = [set_up.use(token, f"ann{number}", PASSWORD) for number in range(10)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    assert sum(isinstance(result, Gone) for result in results) == 9
    assert len(await accounts.list()) == 1


@pytest.mark.parametrize("token", ["", "x", "\u00e9", "A" * 43, "\ud800"])
async def test_another_token_is_no_link(set_up: SetUp, accounts: Accounts, token: str) -> None:
    await _issued(set_up)
    with pytest.raises(Gone):
        await set_up.use(token, "ann", PASSWORD)
    assert await accounts.list() == []


async def test_without_a_link_there_is_none(set_up: SetUp) -> None:
    with pytest.raises(Gone):
        await set_up.check("")


async def test_an_account_made_on_the_command_line_closes_the_link(
    set_up: SetUp, accounts: Accounts, cheap: Passwords
) -> None:
    token = await _issued(set_up)
    await accounts.add("ann", await cheap.hash(PASSWORD))
    with pytest.raises(Gone):
        await set_up.check(token)
    assert await set_up.issue() is None


async def test_what_will_not_do_leaves_the_link_good(set_up: SetUp) -> None:
    token = await _issued(set_up)
    for name, password in (("", PASSWORD), ("ann", "short"), ("ann\n", PASSWORD)):
        with pytest.raises(InvalidValue):
            await set_up.use(token, name, password)
    await set_up.use(token, "ann", PASSWORD)


async def test_a_new_link_takes_the_place_of_the_old_one(set_up: SetUp) -> None:
    old, new = await _issued(set_up), await _issued(set_up)
    with pytest.raises(Gone):
        await set_up.check(old)
    await set_up.check(new)


async def test_s17_the_token_is_not_kept(set_up: SetUp) -> None:
    token = await _issued(set_up)
    assert token not in repr(vars(set_up))
