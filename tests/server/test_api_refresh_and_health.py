"""The JSON API: refreshing, published keys, health, what does not answer, and what is never said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from coatcheck.clock import monotonic_clock
from coatcheck.errors import StoreUnavailable
from coatcheck.server.server import Server
from coatcheck.server.watch import Watch
from coatcheck.testing import SettableClock

if TYPE_CHECKING:
    from tests.server.conftest import Answer, Client

pytestmark = pytest.mark.anyio

NAME, PASSWORD = "ann", "a lantern under the stairs"
SESSION, ACCESS, REFRESH = "__Host-session", "__Host-access", "__Host-refresh"

NewClient = Callable[..., "Client"]


async def _sign_in(client: Client, **more: Any) -> Answer:
    answer = await client("POST", "/api/sign-in", json={"account": NAME, "password": PASSWORD, **more})
    assert answer.status == 200, answer.body
    return answer


def _is_problem(answer: Answer, status: int, code: str, error: str) -> None:
    assert answer.status == status, answer.body
    assert set(answer.json) == {"error", "code", "error_description"}
    assert (answer.json["code"], answer.json["error"]) == (code, error)
    assert answer.header("content-type") == "application/json"
    assert "no-store" in (answer.header("cache-control") or "")


# -- refreshing ------------------------------------------------------------------------------------------------------


async def test_a_refresh_token_in_the_body_gives_new_tokens_in_the_body(client: Client) -> None:
    first = (await _sign_in(client, deliver="token")).json
    second = await client("POST", "/api/refresh", json={"refresh_token": first["refresh_token"]})
    assert second.status == 200
    assert second.json["refresh_token"] != first["refresh_token"]
    assert second.all("set-cookie") == []
    assert (await client("GET", "/api/session", bearer=second.json["access_token"])).status == 200


async def test_a_refresh_token_in_a_cookie_gives_new_tokens_in_cookies(client: Client) -> None:
    await _sign_in(client, tokens=True)
    before = dict(client.jar)
    answer = await client("POST", "/api/refresh", json={})
    assert (answer.status, answer.json) == (200, {"expires_in": 900})
    assert client.jar[REFRESH] != before[REFRESH]
    assert client.jar[ACCESS] != before[ACCESS]
    assert client.jar[SESSION] == before[SESSION]
    alone = {ACCESS: client.jar[ACCESS]}
    assert (await client("GET", "/api/session", cookies=alone)).status == 200


async def test_an_expired_access_cookie_does_not_stand_in_the_way_of_a_refresh(
    make_server: Any, client_of: NewClient
) -> None:
    clock = SettableClock()
    server = await make_server(clock=clock, store="memory:")
    await server.accounts.add(NAME, await server.passwords.hash(PASSWORD))
    client = client_of(server)
    await _sign_in(client, tokens=True)
    del client.jar[SESSION]
    clock.advance(timedelta(minutes=20))
    assert (await client("GET", "/api/session")).json["code"] == "expired"
    assert (await client("POST", "/api/refresh", json={})).status == 200
    assert (await client("GET", "/api/session")).status == 200


async def test_racing_refreshes_get_the_same_successor_and_a_later_reuse_ends_the_session(
    make_server: Any, client_of: NewClient
) -> None:
    clock = SettableClock()
    server = await make_server(clock=clock, store="memory:")
    await server.accounts.add(NAME, await server.passwords.hash(PASSWORD))
    client = client_of(server)
    first = (await _sign_in(client, deliver="token")).json["refresh_token"]
    answers = [await client("POST", "/api/refresh", json={"refresh_token": first}) for _ in range(5)]
    assert {answer.status for answer in answers} == {200}
    [successor] = {answer.json["refresh_token"] for answer in answers}
    clock.advance(timedelta(minutes=1))
    reused = await client("POST", "/api/refresh", json={"refresh_token": first})
    _is_problem(reused, 401, "reused", "invalid_grant")
    dead = await client("POST", "/api/refresh", json={"refresh_token": successor})
    _is_problem(dead, 401, "revoked", "invalid_grant")


@pytest.mark.parametrize(
    ("token", "code"), [("x", "malformed"), ("A" * 76, "malformed"), ("A" * 300, "bad_request"), (None, "missing")]
)
async def test_what_is_no_refresh_token_is_refused(client: Client, token: str | None, code: str) -> None:
    answer = await client("POST", "/api/refresh", json={} if token is None else {"refresh_token": token})
    assert answer.status == (400 if code == "bad_request" else 401)
    assert answer.json["code"] in {code, "bad_signature"} if code == "malformed" else answer.json["code"] == code


@pytest.mark.parametrize("deliver", ["cookie", "token"])
async def test_s11_a_disabled_account_refreshes_nothing(client: Client, server: Server, deliver: str) -> None:
    tokens = (await _sign_in(client, deliver=deliver, tokens=True)).json
    await server.accounts.disable(NAME)
    body = {"refresh_token": tokens["refresh_token"]} if deliver == "token" else {}
    for _ in range(2):
        answer = await client("POST", "/api/refresh", json=body)
        _is_problem(answer, 401, "revoked", "invalid_grant")
        assert answer.all("set-cookie") == []


# -- keys, health, and what does not answer --------------------------------------------------------------------------


async def test_j19_the_published_keys_are_public_and_verify_tokens_by_themselves(client: Client) -> None:
    token = (await _sign_in(client, deliver="token")).json["access_token"]
    answer = await client("GET", "/.well-known/jwks.json")
    assert answer.header("content-type") == "application/jwk-set+json"
    assert answer.header("cache-control") == "public, max-age=300"
    assert answer.header("set-cookie") is None
    keys = answer.json["keys"]
    assert len(keys) == 2, "the upcoming key is published before it signs"
    assert all(not set(key) & {"d", "p", "q", "dp", "dq", "qi", "oth", "k"} for key in keys)
    key = jwt.PyJWKSet.from_dict(answer.json)[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(
        token, key, algorithms=["ES256"], audience="http://localhost:8000", issuer="http://localhost:8000"
    )
    assert claims["client_id"] == "first-party"


async def test_j19_a_symmetric_key_is_never_published(make_server: Any, client_of: NewClient) -> None:
    client = client_of(await make_server(algorithm="HS256"))
    assert (await client("GET", "/.well-known/jwks.json")).json == {"keys": []}


async def test_p8_a_rotated_key_file_is_adopted_and_signs_nobody_out(client: Client, server: Server) -> None:
    old = (await _sign_in(client, deliver="token")).json
    await _sign_in(client)
    published = {key["kid"] for key in (await client("GET", "/.well-known/jwks.json")).json["keys"]}
    from coatcheck.keyfile import KeyFile

    for _ in range(2):
        KeyFile(server.settings.key_file, algorithm="ES256").rotate(published_for=timedelta(0))
        assert await server.adopt_keys()
        assert not await server.adopt_keys()
    new = (await client("POST", "/api/refresh", json={"refresh_token": old["refresh_token"]})).json
    assert (
        jwt.get_unverified_header(new["access_token"])["kid"] != jwt.get_unverified_header(old["access_token"])["kid"]
    )
    for token in (old["access_token"], new["access_token"]):
        assert (await client("GET", "/api/session", bearer=token, cookies={})).status == 200
    assert (await client("GET", "/api/session")).status == 200
    assert published < {key["kid"] for key in (await client("GET", "/.well-known/jwks.json")).json["keys"]}


async def test_a_key_file_that_is_damaged_is_told_once_and_the_keys_stay_until_it_is_mended(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "coatcheck")
    monkeypatch.setattr("coatcheck.server.watch._ROUND_SECONDS", 0.001)
    file, published = server.settings.key_file, server.coat.keyring.jwks()
    kept = file.read_bytes()
    file.write_bytes(b"{")
    others = 0

    async def other() -> None:
        nonlocal others
        others += 1

    watch = Watch((1, server.adopt_keys), (3, other))
    watch.start()
    async with asyncio.timeout(30):
        while "is damaged" not in caplog.text or others < 2:  # noqa: ASYNC110 (there is no event to wait for)
            await asyncio.sleep(0.001)
        assert server.coat.keyring.jwks() == published
        file.write_bytes(kept)
        while "have changed" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    await watch.stop()
    assert caplog.text.count("is damaged") == 1
    assert server.coat.keyring.jwks() == published


async def test_p1_a_process_that_keeps_sessions_in_memory_ends_those_of_accounts_disabled_elsewhere(
    make_server: Any, client_of: NewClient
) -> None:
    """Another process can only announce their end; an announcement is forgotten when no token can be alive."""
    server = await make_server(store="memory:")
    account = await server.accounts.add(NAME, await server.passwords.hash(PASSWORD))
    client = client_of(server)
    await _sign_in(client)
    await server.end_sessions_of_disabled()
    assert (await client("GET", "/api/session")).status == 200
    await server.accounts.disable(NAME)
    await server.end_sessions_of_disabled()
    assert await server.coat.store.list(account.id) == []
    assert (await client("GET", "/api/session")).status == 401


class Down:
    """A store that does not answer."""

    def __getattr__(self, name: str) -> Any:
        async def unavailable(*_: object, **__: object) -> None:
            raise StoreUnavailable("the store is down")

        return unavailable


def _admission(server: Server) -> object:
    return getattr(server.coat.sessions, "_admission")  # noqa: B009 - only sessions in a store have it


async def test_p6_a_store_that_is_down_is_503_and_the_cookie_is_left_alone(
    client: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _sign_in(client, tokens=True)
    jar = dict(client.jar)
    with monkeypatch.context() as patch:
        for holder, name in ((server.coat.sessions, "store"), (server.coat, "store"), (_admission(server), "_store")):
            patch.setattr(holder, name, Down())
        for method, path in (("GET", "/api/session"), ("GET", "/api/sessions"), ("POST", "/api/sign-out")):
            answer = await client(method, path, json={})
            _is_problem(answer, 503, "unavailable", "temporarily_unavailable")
            assert answer.header("retry-after") == "1"
            assert answer.all("set-cookie") == []
        page = await client("GET", "/account")
        assert (page.status, page.header("content-type")) == (503, "text/html; charset=utf-8")
        assert page.header("retry-after") == "1"
        by_name = await client("POST", "/api/sign-in", json={"account": NAME, "password": PASSWORD}, cookies={})
        assert (by_name.status, by_name.json["code"]) == (503, "unavailable")
        assert (await client("GET", "/livez")).json == {"status": "ok", "problems": []}
        ready = await client("GET", "/readyz")
        assert (ready.status, ready.json["problems"]) == (503, ["sessions: the store is unavailable"])
        assert (await client("GET", "/.well-known/jwks.json")).status == 200
        assert (await client("GET", "/api/session", cookies={ACCESS: jar[ACCESS]})).status == 200, "no store is asked"
    assert client.jar == jar
    assert (await client("GET", "/api/session")).status == 200


async def test_p6_silence_of_the_feed_makes_the_server_not_ready_and_refuses_tokens(
    make_server: Any, client_of: NewClient
) -> None:
    server = await make_server(store="memory:")
    await server.accounts.add(NAME, await server.passwords.hash(PASSWORD))
    client = client_of(server)
    token = (await _sign_in(client, deliver="token")).json["access_token"]
    assert (await client("GET", "/readyz")).status == 200
    server.coat.revocations.heard_at = monotonic_clock() - 6000
    ready = await client("GET", "/readyz")
    assert (ready.status, ready.json["problems"]) == (503, ["revocations: the feed is silent"])
    assert (await client("GET", "/api/session", bearer=token)).status == 503
    assert (await client("GET", "/livez")).status == 200


async def test_errors_below_api_are_json_and_elsewhere_pages(client: Client) -> None:
    for method, path, status, code in (
        ("GET", "/api/nothing", 404, "not_found"),
        ("GET", "/api/sign-in", 405, "method_not_allowed"),
        ("POST", "/livez", 405, "method_not_allowed"),
    ):
        answer = await client(method, path)
        assert (answer.status, answer.json["code"]) == (status, code)
    assert (await client("GET", "/api/sign-in")).header("allow") == "POST"
    for method, path, status in (("GET", "/nothing", 404), ("PUT", "/sign-in", 405)):
        answer = await client(method, path)
        assert (answer.status, answer.header("content-type")) == (status, "text/html; charset=utf-8")
    crossing = await client("POST", "/sign-out", form={}, headers={"sec-fetch-site": "cross-site"})
    assert (crossing.status, crossing.header("content-type")) == (403, "text/html; charset=utf-8")


# -- secrets ---------------------------------------------------------------------------------------------------------


async def test_s17_no_secret_is_in_any_log_line_or_error(
    new_client: NewClient, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """A whole visit at the most talkative level, its failures included."""
    caplog.set_level(logging.DEBUG)
    client, answers = new_client(), []
    secrets = {PASSWORD, "a wrong password of mine", PASSWORD.split()[1]}
    for password in (PASSWORD, "a wrong password of mine"):
        answers.append(await client("POST", "/api/sign-in", json={"account": password, "password": NAME}))
        answers.append(await client("POST", "/api/sign-in", json={"account": NAME, "password": password}))
    await _sign_in(client, tokens=True, remember=True)
    secrets |= {value.rpartition(".")[2] for value in client.jar.values()} | set(client.jar.values())
    tokens = (await _sign_in(new_client(), deliver="token")).json
    secrets |= {tokens["access_token"], tokens["refresh_token"]}
    for name, value in list(client.jar.items()):
        damaged = {name: value[:-5] + "AAAAA"}
        answers.append(await client("GET", "/api/session", cookies=damaged))
        answers.append(await client("POST", "/api/refresh", json={}, cookies=damaged))
        secrets |= set(damaged.values())
    answers.append(await client("GET", "/api/session", bearer=tokens["access_token"] + "x"))
    answers.append(await client("POST", "/api/refresh", json={"refresh_token": tokens["refresh_token"][1:]}))
    await client("POST", "/api/refresh", json={})
    secrets |= set(client.jar.values())
    answers.append(await client("POST", "/api/sign-out-everywhere", json={}))
    answers.append(await client("GET", "/api/session", bearer=tokens["access_token"]))
    logged = "\n".join(f"{record.getMessage()} {record.args} {record.exc_text}" for record in caplog.records)
    assert "session signed_in" in logged, "nothing was captured"
    said = b"\n".join(answer.body for answer in answers if answer.status >= 400).decode()
    for secret in secrets:
        assert secret not in logged
        assert secret not in said
