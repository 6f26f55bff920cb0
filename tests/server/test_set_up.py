"""The set-up link makes the first account, once, and nothing of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from coatcheck.documents import Documents
from coatcheck.errors import InvalidValue
from coatcheck.server.accounts import Accounts
from coatcheck.server.passwords import Passwords
from coatcheck.server.set_up import Gone, SetUp
from coatcheck.testing import SettableClock

pytestmark = pytest.mark.anyio

PASSWORD = "a lantern under the stairs"


@pytest.fixture
def accounts(documents: Documents) -> Accounts:
    return Accounts(documents)


@pytest.fixture
def make(documents: Documents, accounts: Accounts, cheap: Passwords, clock: SettableClock) -> Callable[[], SetUp]:
    """Each is another server's."""
    return lambda: SetUp(documents, accounts, cheap, clock=clock)


@pytest.fixture
def set_up(make: Callable[[], SetUp]) -> SetUp:
    return make()


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


async def test_s17_the_token_is_not_kept(set_up: SetUp, tmp_path: Path) -> None:
    token = await _issued(set_up)
    assert token not in repr(vars(set_up))
    assert token.encode() not in _contents(tmp_path)


def _contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_a_link_of_one_server_is_good_at_another_and_each_has_its_own(make: Callable[[], SetUp]) -> None:
    one, other = make(), make()
    first, second = await _issued(one), await _issued(other)
    for server in (one, other):
        await server.check(first)
        await server.check(second)
    await other.use(first, "ann", PASSWORD)
    for server in (one, other):
        for token in (first, second):
            with pytest.raises(Gone):
                await server.check(token)


async def test_a_link_is_good_as_long_as_its_server_says_so(set_up: SetUp, clock: SettableClock) -> None:
    """A server that was killed says nothing, and nobody can take back its link."""
    token = await _issued(set_up)
    for _ in range(30):
        clock.advance(timedelta(minutes=1))
        await set_up.renew()
        await set_up.check(token)
    clock.advance(timedelta(minutes=10))
    with pytest.raises(Gone):
        await set_up.check(token)


async def test_a_link_is_not_renewed_once_there_is_an_account(
    set_up: SetUp, accounts: Accounts, documents: Documents, clock: SettableClock
) -> None:
    await _issued(set_up)
    await accounts.add("ann", "hash")
    clock.advance(timedelta(minutes=9))
    await set_up.renew()
    clock.advance(timedelta(minutes=1))
    assert await documents.sweep(clock()) == 1
