"""The JSON API: sign in, refresh, your devices, sign out; by cookie, by token, and by token in a cookie."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coatcheck.server.server import Server
from coatcheck.testing import SettableClock

if TYPE_CHECKING:
    from tests.server.conftest import Answer, Client, MakeServer

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


# -- signing in ------------------------------------------------------------------------------------------------------


async def test_a_sign_in_gives_a_session_cookie_that_works(client: Client, server: Server) -> None:
    answer = await _sign_in(client)
    account = await server.accounts.find(NAME)
    assert account is not None
    assert answer.json["subject"] == account.id
    assert (answer.json["account"], answer.json["amr"], answer.json["admin"]) == (NAME, ["pwd"], False)
    [line] = answer.all("set-cookie")
    assert line.startswith("__Host-session=1")
    assert set(line.split("; ")[1:]) == {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"}
    assert answer.header("cache-control") == "no-store"
    now = await client("GET", "/api/session")
    assert (now.status, now.json) == (200, answer.json)


async def test_remember_me_gives_a_cookie_that_outlives_the_browser(client: Client) -> None:
    [line] = (await _sign_in(client, remember=True)).all("set-cookie")
    assert "Max-Age=" in line


async def test_tokens_are_delivered_in_the_body_without_any_cookie(client: Client, server: Server) -> None:
    answer = await _sign_in(client, deliver="token")
    assert set(answer.json) == {"access_token", "refresh_token", "expires_in", "scope", "token_type"}
    assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 900)
    assert answer.all("set-cookie") == []
    assert answer.header("cache-control") == "no-store"
    now = await client("GET", "/api/session", bearer=answer.json["access_token"])
    assert now.json["account"] == NAME
    assert [session.id for session in await server.coat.sessions.list(now.json["subject"])] == [now.json["session_id"]]


async def test_tokens_may_travel_in_http_only_cookies_of_their_own(client: Client) -> None:
    answer = await _sign_in(client, tokens=True)
    assert set(client.jar) == {SESSION, ACCESS, REFRESH}
    for line in answer.all("set-cookie"):
        assert {"Secure", "HttpOnly", "Path=/"} <= set(line.split("; "))
    assert client.jar[ACCESS].encode() not in answer.body
    assert client.jar[REFRESH].encode() not in answer.body
    for name in (SESSION, ACCESS):
        alone = await client("GET", "/api/session", cookies={name: client.jar[name]})
        assert alone.json == answer.json, "three credentials of one session"


@pytest.mark.parametrize(("name", "password"), [(NAME, "a guess"), ("nobody", PASSWORD), ("", "")])
async def test_wrong_name_and_wrong_password_are_one_answer(client: Client, name: str, password: str) -> None:
    answer = await client("POST", "/api/sign-in", json={"account": name, "password": password})
    _is_problem(answer, 401, "wrong_password", "invalid_grant")
    assert answer.json["error_description"] == "name or password is wrong"
    assert answer.header("www-authenticate")
    assert answer.all("set-cookie") == []


async def test_too_many_attempts_are_429_and_say_when_to_come_back(client: Client) -> None:
    for _ in range(10):
        await client("POST", "/api/sign-in", json={"account": NAME, "password": "a guess"})
    answer = await client("POST", "/api/sign-in", json={"account": NAME, "password": PASSWORD})
    _is_problem(answer, 429, "too_many_attempts", "temporarily_unavailable")
    assert 890 < int(answer.header("retry-after") or 0) <= 900
    assert "more than 10" in answer.json["error_description"]


async def test_too_many_passwords_at_once_are_503_and_say_when_to_come_back(client: Client, server: Server) -> None:
    server.passwords._waiting = 500
    answer = await client("POST", "/api/sign-in", json={"account": NAME, "password": PASSWORD})
    _is_problem(answer, 503, "busy", "temporarily_unavailable")
    assert answer.header("retry-after") == "2"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{}", 400, "bad_request"),
        (b'{"account":"ann"}', 400, "bad_request"),
        (b'{"account":1,"password":"a secret thing"}', 400, "bad_request"),
        (b'{"account":"ann","password":"a","a secret thing":1}', 400, "bad_request"),
        (b'{"account":"ann","password":"a","deliver":"a secret thing"}', 400, "bad_request"),
        (b'{"account":"ann","password":"a","remember":"yes"}', 400, "bad_request"),
        (b"[]", 400, "bad_request"),
        (b"null", 400, "bad_request"),
        (b'{"account":"' + b"a" * 257 + b'","password":"a"}', 400, "bad_request"),
        (b"account=ann", 415, "not_json"),
        (b'{"account":"\xff","password":"a"}', 415, "not_json"),
        (b"[" * 5000, 400, "bad_request"),
        (b'{"account":"ann","password":' + b"[" * 5000, 400, "bad_request"),
    ],
)
async def test_a_body_that_is_something_else_is_refused_without_repeating_it(
    client: Client, body: bytes, status: int, code: str
) -> None:
    answer = await client("POST", "/api/sign-in", body=body, headers={"content-type": "application/json"})
    _is_problem(answer, status, code, "invalid_request")
    assert b"secret thing" not in answer.body


async def test_s3_an_unknown_id_is_never_adopted(client: Client) -> None:
    planted = "1" + "B" * 21 + "A." + "C" * 42 + "A"
    client.jar[SESSION] = planted
    assert (await client("GET", "/api/session")).status == 401
    await _sign_in(client)
    assert client.jar[SESSION][:23] != planted[:23]


async def test_s4_a_second_sign_in_ends_the_first_session_of_this_browser(client: Client) -> None:
    await _sign_in(client)
    old = client.jar[SESSION]
    await _sign_in(client)
    assert (await client("GET", "/api/session", cookies={SESSION: old})).json["code"] == "revoked"
    assert len((await client("GET", "/api/sessions")).json["sessions"]) == 1


# -- cross-site ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/sign-in", "/api/refresh", "/api/sign-out", "/api/sign-out-everywhere"])
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "", "origin": "https://evil.example"},
        {"sec-fetch-site": "", "origin": "null"},
    ],
)
async def test_f6_what_another_site_makes_the_browser_send_is_refused(
    client: Client, path: str, headers: dict[str, str]
) -> None:
    await _sign_in(client, tokens=True)
    jar = dict(client.jar)
    answer = await client("POST", path, json={}, headers=headers)
    assert (answer.status, answer.json["code"]) == (403, "cross_site")
    assert {"Sec-Fetch-Site", "Origin"} <= set((answer.header("vary") or "").split(", "))
    assert client.jar == jar
    assert (await client("GET", "/api/session")).status == 200


async def test_f1_another_site_cannot_end_a_session(client: Client) -> None:
    id = (await _sign_in(client)).json["session_id"]
    answer = await client("DELETE", f"/api/sessions/{id}", headers={"sec-fetch-site": "cross-site"})
    assert answer.status == 403
    assert (await client("GET", "/api/session")).status == 200


async def test_f2_behind_such_a_proxy_our_host_over_http_is_another_site(
    make_server: MakeServer, client_of: Callable[..., Client]
) -> None:
    client = client_of(await make_server(issuer="https://auth.example"))
    headers = {"host": "auth.example", "sec-fetch-site": "", "origin": "http://auth.example"}
    answer = await client("POST", "/api/sign-in", json={"account": NAME, "password": PASSWORD}, headers=headers)
    assert (answer.status, answer.json["code"]) == (403, "cross_site")


@pytest.mark.parametrize("path", ["/sign-in/", "/account/", "/api/session/", "/livez/", "/static/coatcheck.css/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_f12_s18_no_slash_sends_anybody_to_the_host_header_s_origin(
    make_server: MakeServer, client_of: Callable[..., Client], method: str, path: str
) -> None:
    client = client_of(await make_server(issuer="https://auth.example"))
    answer = await client(method, path, form={"password": PASSWORD}, headers={"host": "evil.example"})
    assert (answer.status, answer.header("location")) == (404, None)


async def test_f2_our_own_origin_is_the_issuer_s_behind_a_proxy_that_speaks_http_to_us(
    make_server: Any, client_of: NewClient
) -> None:
    client = client_of(await make_server(issuer="https://auth.example"))
    headers = {"sec-fetch-site": "", "origin": "https://auth.example", "host": "auth.example"}
    answer = await client("POST", "/api/sign-in", json={"account": "x", "password": "x"}, headers=headers)
    assert answer.json["code"] == "wrong_password"


@pytest.mark.parametrize("path", ["/api/session", "/api/sessions", "/livez", "/readyz", "/openapi.json"])
async def test_f4_reading_changes_nothing(client: Client, path: str) -> None:
    await _sign_in(client)
    jar = dict(client.jar)
    answer = await client("GET", path, headers={"sec-purpose": "prefetch", "sec-fetch-site": "cross-site"})
    assert (answer.status, client.jar) == (200, jar)


# -- your devices ----------------------------------------------------------------------------------------------------


async def test_s14_your_sessions_are_listed_with_where_they_are(new_client: NewClient) -> None:
    phone, desk = new_client(address="192.0.2.7", agent="Phone/1"), new_client(address="192.0.2.8", agent="Desk/2")
    await _sign_in(phone)
    here = (await _sign_in(desk)).json["session_id"]
    found = (await desk("GET", "/api/sessions")).json["sessions"]
    assert {(each["user_agent"], each["address"], each["current"]) for each in found} == {
        ("Phone/1", "192.0.2.7", False),
        ("Desk/2", "192.0.2.8", True),
    }
    assert [each["id"] for each in found if each["current"]] == [here]
    assert all(each["signed_in_at"] <= each["last_seen_at"] for each in found)


async def test_s14_one_of_your_sessions_is_ended_by_any_of_your_credentials(new_client: NewClient) -> None:
    phone, desk = new_client(), new_client()
    there = (await _sign_in(phone)).json["session_id"]
    await _sign_in(desk)
    ended = await desk("DELETE", f"/api/sessions/{there}")
    assert (ended.status, ended.json) == (200, {"ended": 1})
    assert (await phone("GET", "/api/session")).json["code"] == "revoked"
    assert (await desk("DELETE", f"/api/sessions/{there}")).status == 404
    assert (await desk("GET", "/api/session")).status == 200


async def test_ending_this_session_takes_its_cookies_back(client: Client) -> None:
    here = (await _sign_in(client, tokens=True)).json["session_id"]
    assert (await client("DELETE", f"/api/sessions/{here}")).status == 200
    assert client.jar == {}


async def test_p4_somebody_else_s_session_is_not_found_and_lives_on(new_client: NewClient, server: Server) -> None:
    await server.accounts.add("bob", await server.passwords.hash(PASSWORD))
    ann, bob = new_client(), new_client()
    theirs = (await _sign_in(ann)).json["session_id"]
    assert (await bob("POST", "/api/sign-in", json={"account": "bob", "password": PASSWORD})).status == 200
    for id in (theirs, "A" * 22, "x", "..", "%2e%2e"):
        _is_problem(await bob("DELETE", f"/api/sessions/{id}"), 404, "not_found", "invalid_request")
    assert [each["current"] for each in (await bob("GET", "/api/sessions")).json["sessions"]] == [True]
    assert (await ann("GET", "/api/session")).status == 200


async def test_s15_ending_a_session_needs_a_sign_in_of_the_last_half_hour_and_signing_out_never_does(
    make_server: Any, client_of: NewClient
) -> None:
    clock = SettableClock()
    server = await make_server(clock=clock, store="memory:")
    await server.accounts.add(NAME, await server.passwords.hash(PASSWORD))
    client = client_of(server)
    here = (await _sign_in(client)).json["session_id"]
    clock.advance(timedelta(minutes=31))
    refused = await client("DELETE", f"/api/sessions/{here}")
    _is_problem(refused, 401, "insufficient", "insufficient_user_authentication")
    assert "max_age=1800" in (refused.header("www-authenticate") or "").replace('"', "")
    others = await client("POST", "/api/sign-out-everywhere", json={"keep_current": True})
    _is_problem(others, 401, "insufficient", "insufficient_user_authentication")
    everywhere = await client("POST", "/api/sign-out-everywhere", json={})
    assert (everywhere.status, everywhere.json) == (200, {"ended": 1})


# -- signing out -----------------------------------------------------------------------------------------------------


async def test_a_request_without_body_and_type_is_an_empty_object(client: Client) -> None:
    """`curl -X POST` is enough to sign out; what has a body, or a type, has to be JSON (F7)."""
    await _sign_in(client)
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert (await client("POST", "/api/sign-out", headers={"content-type": kind})).status == 415
    assert (await client("POST", "/api/sign-out", body=b"{}")).status == 415
    assert (await client("POST", "/api/sign-out")).json == {"ended": 1}


async def test_s10_signing_out_ends_cookie_and_tokens_together(client: Client) -> None:
    await _sign_in(client, tokens=True)
    before = dict(client.jar)
    answer = await client("POST", "/api/sign-out", json={})
    assert (answer.status, answer.json, client.jar) == (200, {"ended": 1}, {})
    for name in (SESSION, ACCESS):
        assert (await client("GET", "/api/session", cookies={name: before[name]})).json["code"] == "revoked"
    replayed = await client("POST", "/api/refresh", json={}, cookies={REFRESH: before[REFRESH]})
    assert replayed.json["code"] == "revoked"
    bearer = await client("GET", "/api/session", bearer=before[ACCESS])
    assert bearer.json["code"] == "revoked"
    assert 'error="invalid_token"' in (bearer.header("www-authenticate") or "")


async def test_signing_out_by_bearer_token_ends_its_session(client: Client) -> None:
    tokens = (await _sign_in(client, deliver="token")).json
    answer = await client("POST", "/api/sign-out", json={}, bearer=tokens["access_token"])
    assert answer.json == {"ended": 1}
    again = await client("POST", "/api/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert again.json["code"] == "revoked"


async def test_signing_out_by_a_spent_refresh_token_ends_its_session_and_says_so(client: Client) -> None:
    first = (await _sign_in(client, deliver="token")).json["refresh_token"]
    token = first
    for _ in range(2):
        token = (await client("POST", "/api/refresh", json={"refresh_token": token})).json["refresh_token"]
    assert (await client("POST", "/api/sign-out", json={"refresh_token": first})).json == {"ended": 1}
    assert (await client("POST", "/api/refresh", json={"refresh_token": token})).status == 401


async def test_signing_out_by_refresh_token_alone_ends_its_session(client: Client) -> None:
    tokens = (await _sign_in(client, deliver="token")).json
    answer = await client("POST", "/api/sign-out", json={"refresh_token": tokens["refresh_token"]})
    assert answer.json == {"ended": 1}
    assert (await client("GET", "/api/session", bearer=tokens["access_token"])).json["code"] == "revoked"
    again = await client("POST", "/api/sign-out", json={"refresh_token": tokens["refresh_token"]})
    assert again.json == {"ended": 0}


async def test_a_dead_bearer_token_is_told_that_it_signed_nothing_out(client: Client) -> None:
    tokens = (await _sign_in(client, deliver="token")).json
    forged = tokens["access_token"][:-4] + "AAAA"
    answer = await client("POST", "/api/sign-out", json={}, bearer=forged)
    assert answer.status == 401
    assert (await client("GET", "/api/session", bearer=tokens["access_token"])).status == 200


async def test_signing_out_without_a_session_is_no_error(client: Client) -> None:
    answer = await client("POST", "/api/sign-out", json={})
    assert (answer.status, answer.json) == (200, {"ended": 0})


async def test_signing_out_everywhere_ends_all_or_all_but_this(new_client: NewClient) -> None:
    clients = [new_client() for _ in range(4)]
    for each in clients:
        await _sign_in(each)
    others = await clients[0]("POST", "/api/sign-out-everywhere", json={"keep_current": True})
    assert others.json == {"ended": 3}
    assert [(await each("GET", "/api/session")).status for each in clients] == [200, 401, 401, 401]
    everything = await clients[0]("POST", "/api/sign-out-everywhere", json={})
    assert (everything.json, clients[0].jar) == ({"ended": 1}, {})


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_nobody_is_told_to_sign_in(client: Client, method: str) -> None:
    path = {"GET": "/api/sessions", "POST": "/api/sign-out-everywhere", "DELETE": "/api/sessions/x"}[method]
    answer = await client(method, path, json={})
    _is_problem(answer, 401, "missing", "invalid_token")
    assert answer.header("www-authenticate") == "Bearer"


async def test_a_refused_credential_is_not_anonymous_and_its_cookie_is_left_alone(client: Client) -> None:
    for value in ("x", "1" + "B" * 21 + "A." + "C" * 42 + "A"):
        answer = await client("GET", "/api/session", cookies={SESSION: value})
        assert answer.status == 401
        assert answer.all("set-cookie") == []
