"""What one server does, the others of its store know: each test on one Redis, one Cluster and one PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coatcheck.cli.main import main
from coatcheck.documents import Documents
from coatcheck.errors import ConfigurationError
from coatcheck.server.attempts import PER_ACCOUNT, TooMany
from coatcheck.server.sealed_keys import SealedKeys
from coatcheck.server.server import Server
from coatcheck.stores import documents_from_url

pytestmark = pytest.mark.anyio

NAME, PASSWORD, ANOTHER = "ann", "a lantern under the stairs", "another lantern on the roof"
CREDENTIALS = {"account": NAME, "password": PASSWORD}
SESSION, ACCESS, REFRESH = "__Host-session", "__Host-access", "__Host-refresh"
SECRET = "f4e1c07b-a9d2-4f0e-8b11-6c3d5a7e9020"
DEADLINE = 30

ClientOf = Callable[[Server], Any]


async def _signed_in(client: Any, **more: Any) -> Any:
    answer = await client("POST", "/api/sign-in", json={**CREDENTIALS, **more})
    assert answer.status == 200, answer.body
    return answer.json


async def _refused(client: Any, **presented: Any) -> None:
    """Wait until a token is: what one process knows at once, the feed tells the others."""
    deadline = time.monotonic() + DEADLINE
    while (await client("GET", "/api/session", **presented)).status == 200:
        assert time.monotonic() < deadline, "a token outlives its session"
        await asyncio.sleep(0.01)


async def _add_account(server: Server) -> str:
    return (await server.accounts.add(NAME, await server.passwords.hash(PASSWORD))).id


async def test_the_set_up_link_of_one_is_good_at_the_other_and_then_at_none(
    two: list[Server], client_of: ClientOf
) -> None:
    links = [f"/set-up/{server.set_up_token}" for server in two]
    assert links[0] != links[1]
    browser = client_of(two[1])
    assert (await browser("GET", links[0])).status == 200
    assert (await browser("POST", links[0], form=CREDENTIALS)).status == 303
    assert (await browser("GET", "/api/session")).json["admin"] is True
    for server in two:
        for link in links:
            assert (await client_of(server)("GET", link)).status == 410


async def test_p1_signing_out_everywhere_at_one_is_signed_out_at_the_other_at_once(
    two: list[Server], client_of: ClientOf
) -> None:
    await _add_account(two[0])
    at_a, at_b = client_of(two[0]), client_of(two[1])
    tokens = await _signed_in(at_a, deliver="token")
    await _signed_in(at_a, tokens=True)
    copied = dict(at_a.jar)
    assert set(copied) == {SESSION, ACCESS, REFRESH}
    for client in (at_a, at_b):
        assert (await client("GET", "/api/session", cookies=copied)).status == 200
        assert (await client("GET", "/api/session", bearer=tokens["access_token"], cookies={})).status == 200
    refreshed = await at_b("POST", "/api/refresh", json={"refresh_token": tokens["refresh_token"]}, cookies={})
    assert refreshed.status == 200, refreshed.body
    assert (await at_a("GET", "/api/session", bearer=refreshed.json["access_token"], cookies={})).status == 200
    assert (await at_a("POST", "/api/sign-out-everywhere", json={})).json == {"ended": 2}
    refused = await at_b("GET", "/api/session", cookies={SESSION: copied[SESSION]})
    assert (refused.status, refused.json["code"]) == (401, "revoked")
    for token in (copied[REFRESH], refreshed.json["refresh_token"]):
        dead = await at_b("POST", "/api/refresh", json={"refresh_token": token}, cookies={})
        assert (dead.status, dead.json["code"]) == (401, "revoked")
    for token in (copied[ACCESS], tokens["access_token"], refreshed.json["access_token"]):
        await _refused(at_b, bearer=token, cookies={})


async def test_s12_a_password_that_is_changed_at_one_is_the_password_at_the_other(
    two: list[Server], client_of: ClientOf
) -> None:
    await _add_account(two[0])
    mine, thief = client_of(two[0]), client_of(two[1])
    await _signed_in(mine)
    await _signed_in(thief)
    changed = await mine("POST", "/account/password", form={"current_password": PASSWORD, "new_password": ANOTHER})
    assert changed.status == 303, changed.body
    assert (await thief("GET", "/api/session")).status == 401
    assert (await thief("POST", "/api/sign-in", json=CREDENTIALS, cookies={})).status == 401
    assert (await thief("POST", "/api/sign-in", json={**CREDENTIALS, "password": ANOTHER}, cookies={})).status == 200


async def test_attempts_to_sign_in_are_counted_together(two: list[Server], client_of: ClientOf) -> None:
    racers = [two[number % 2].attempts.begin(NAME, f"192.0.2.{number % 7}") for number in range(50)]
    results = await asyncio.gather(*racers, return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(error, TooMany) for error in refused), refused
    assert len(results) - len(refused) == PER_ACCOUNT
    for server in two:
        assert (await client_of(server)("POST", "/api/sign-in", json=CREDENTIALS)).status == 429


async def test_p8_the_keys_are_the_same_at_both_and_a_rotation_reaches_both(
    two: list[Server], client_of: ClientOf, tmp_path: Path
) -> None:
    """Both are ready, and keep nothing on a disk; a third one, with another secret, has no keys."""
    await _add_account(two[0])
    assert _contents(tmp_path) == []
    for server in two:
        assert (await client_of(server)("GET", "/readyz")).json == {"status": "ok", "problems": []}

    async def published() -> list[Any]:
        return [(await client_of(server)("GET", "/.well-known/jwks.json")).json["keys"] for server in two]

    first = await published()
    assert first[0] == first[1]
    token = (await _signed_in(client_of(two[0]), deliver="token"))["access_token"]
    await two[0].keys.rotate(published_for=timedelta(0))
    assert [await server.adopt_keys() for server in two] == [False, True], "the one that rotates knows already"
    two[0].coat.keyring.adopt(await two[0].keys.open())
    then = await published()
    assert then[0] == then[1]
    assert len(then[0]) == 3
    new = (await _signed_in(client_of(two[1]), deliver="token"))["access_token"]
    for server in two:
        for each in (token, new):
            assert (await client_of(server)("GET", "/api/session", bearer=each)).status == 200
    with pytest.raises(ConfigurationError, match="COATCHECK_SECRET is not the one") as caught:
        await Server(replace(two[0].settings, secret=SECRET[::-1])).open()
    assert SECRET[::-1] not in str(caught.value)


def _contents(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_p1_what_the_command_line_ends_is_refused_at_both(
    two: list[Server], client_of: ClientOf, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It needs the store's URL and the secret, and nothing on a disk."""
    await _add_account(two[0])
    clients = [client_of(server) for server in two]
    for client in clients:
        await _signed_in(client, tokens=True)
    monkeypatch.setenv("COATCHECK_STORE", two[0].settings.store)
    monkeypatch.setenv("COATCHECK_SECRET", SECRET)
    monkeypatch.setenv("COATCHECK_DATA_DIR", "/dev/null/none")
    for words in (
        ("accounts", "list"),
        ("sessions", "list", NAME),
        ("keys", "list"),
        ("keys", "rotate", "--now"),
        ("accounts", "disable", NAME),
    ):
        assert await asyncio.to_thread(main, words) == 0, (words, capsys.readouterr())
    printed = capsys.readouterr().out
    assert "upcoming" in printed
    assert "sessions ended: 2" in printed
    for client in clients:
        assert (await client("GET", "/api/session", cookies={SESSION: client.jar[SESSION]})).status == 401
        assert (await client("POST", "/api/sign-in", json=CREDENTIALS, cookies={})).status == 401
        await _refused(client, cookies={ACCESS: client.jar[ACCESS]})


async def test_of_ten_servers_that_start_at_once_one_makes_the_keys(url: str) -> None:
    places: list[Documents] = [documents_from_url(url) for _ in range(10)]
    await asyncio.gather(*(place.open() for place in places))
    rings = await asyncio.gather(*(SealedKeys(place, [SECRET], algorithm="ES256").open() for place in places))
    assert len({ring.signing_key().kid for ring in rings}) == 1
    assert len({ring.derive("refresh") for ring in rings}) == 1
    await asyncio.gather(*(place.close() for place in places))
