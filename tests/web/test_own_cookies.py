"""Through the middleware: the application's own cookies, CSRF tokens of forms, and tokens refreshed by cookie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest

from coatcheck import Coatcheck, Cookie, Exchange, Policy, SealedCookie, SignedCookie
from coatcheck.testing import SettableClock
from coatcheck.web.asgi import CoatcheckMiddleware

pytestmark = pytest.mark.anyio

THEME = Cookie("theme", http_only=False, max_age=timedelta(days=365))
CART = SignedCookie("cart", http_only=False, max_age=timedelta(days=30))
STATE = SealedCookie("__Host-state", max_age=timedelta(minutes=10))

Handler = Callable[[Exchange, dict[str, str]], Awaitable[str]]


async def write(exchange: Exchange, form: dict[str, str]) -> str:
    for kind in (THEME, CART, STATE):
        if kind.name in form:
            exchange.cookies.set(kind, form[kind.name])
    return "written"


async def read(exchange: Exchange, _: dict[str, str]) -> str:
    return ",".join(str(exchange.cookies.get(kind)) for kind in (THEME, CART, STATE))


async def forget(exchange: Exchange, _: dict[str, str]) -> str:
    exchange.cookies.delete(CART)
    return "forgotten"


async def form_page(exchange: Exchange, _: dict[str, str]) -> str:
    return exchange.csrf_token()


async def pay(exchange: Exchange, form: dict[str, str]) -> str:
    exchange.require_csrf_token(form.get("csrf"))
    return f"paid by {exchange.principal.subject if exchange.principal else 'nobody'}"


async def sign_in(exchange: Exchange, form: dict[str, str]) -> str:
    exchange.require_csrf_token(form.get("csrf"))
    await exchange.sign_in(form["name"], persistent="remember" in form)
    return exchange.csrf_token()


async def tokens(exchange: Exchange, form: dict[str, str]) -> str:
    await exchange.sign_in("ann", persistent="remember" in form)
    grant = await exchange.issue()
    exchange.hand_out_tokens(grant)
    return grant.refresh_token


async def refresh(exchange: Exchange, form: dict[str, str]) -> str:
    return (await exchange.refresh(form.get("token"))).refresh_token


async def rotate(exchange: Exchange, _: dict[str, str]) -> str:
    await exchange.rotate()
    return "rotated"


async def sign_out(exchange: Exchange, _: dict[str, str]) -> str:
    await exchange.sign_out()
    return "signed out"


async def visit(exchange: Exchange, _: dict[str, str]) -> str:
    exchange.session["seen"] = 1
    return exchange.csrf_token()


HANDLERS: dict[str, Handler] = {
    f"/{handler.__name__}": handler
    for handler in (write, read, forget, form_page, pay, sign_in, tokens, refresh, rotate, sign_out, visit)
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"].decode()
    form = {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}
    text = await HANDLERS[scope["path"]](scope["coatcheck"], form)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
async def coat(clock: SettableClock) -> AsyncIterator[Coatcheck]:
    made = Coatcheck(clock=clock)
    yield made
    await made.close()


@pytest.fixture
def client(coat: Coatcheck, browser: type[Any]) -> Any:
    return browser(CoatcheckMiddleware(application, coatcheck=coat))


@pytest.fixture
def another(coat: Coatcheck, browser: type[Any]) -> Any:
    """Somebody else's browser."""
    return browser(CoatcheckMiddleware(application, coatcheck=coat))


# -- cookies ---------------------------------------------------------------------------------------------------------


async def test_what_is_set_in_one_request_is_read_in_the_next(client: Any) -> None:
    await client("POST", "/write", body=b"theme=dark&cart=7%2C8&__Host-state=%C3%BC")
    assert (await client("GET", "/read")).body.decode() == "dark,7,8,ü"
    await client("POST", "/forget")
    assert (await client("GET", "/read")).body.decode() == "dark,None,ü"


async def test_c1_c5_a_preference_goes_out_as_it_was_declared(client: Any) -> None:
    [line] = (await client("POST", "/write", body=b"theme=dark")).all("set-cookie")
    assert line.startswith("theme=dark; Max-Age=31536000; Expires=")
    assert line.endswith("; Path=/; Secure; SameSite=Lax")


async def test_c18_an_answer_that_depends_on_a_cookie_of_the_application_says_so(client: Any) -> None:
    """A preference may be kept by a cache; a value for one visitor by nobody."""
    answer = await client("GET", "/read")
    assert (answer.header("vary"), answer.header("cache-control")) == ("Cookie, Authorization", None)
    written = await client("POST", "/write", body=b"theme=dark")
    assert (written.header("vary"), written.header("cache-control")) == ("Cookie, Authorization", None)
    for one in (b"cart=7", b"__Host-state=x"):
        assert (await client("POST", "/write", body=one)).header("cache-control") == "no-store"
    assert (await client("POST", "/write")).header("vary") is None


async def test_a_cookie_of_the_application_is_no_credential(client: Any) -> None:
    """What is wrong with it refuses no request."""
    answer = await client("GET", "/read", cookies='theme="; cart=1.x.y.z; cart=2; __Host-state=AAAA')
    assert (answer.status, answer.body) == (200, b"None,None,None")
    assert answer.all("set-cookie") == []


# -- CSRF tokens -----------------------------------------------------------------------------------------------------


async def signed_in(client: Any, name: str = "ann") -> str:
    token = (await client("GET", "/form_page")).body.decode()
    answer = await client("POST", "/sign_in", body=f"name={name}&csrf={token}".encode())
    assert answer.status == 200
    body: bytes = answer.body
    return body.decode()


async def pays(client: Any, token: str | None, **options: Any) -> tuple[int, str]:
    body = b"" if token is None else f"csrf={token}".encode()
    answer = await client("POST", "/pay", body=body, **options)
    return answer.status, answer.body.decode() if answer.status == 200 else answer.json()["code"]


REFUSED = (403, "cross_site")


async def test_f5_a_form_with_its_token_is_taken_and_one_without_is_not(client: Any) -> None:
    """From a browser that says nothing of where the form was: no Sec-Fetch-Site, no Origin, no Referer."""
    await signed_in(client)
    page = await client("GET", "/form_page")
    token = page.body.decode()
    assert page.header("cache-control") == "no-store"
    assert await pays(client, token) == (200, "paid by ann")
    for wrong in (None, "", "x", token[:-2] + "AA", token + "A"):
        assert await pays(client, wrong) == REFUSED


async def test_f5_a_token_of_another_session_is_refused(client: Any, another: Any) -> None:
    """That is what an attacker has: an account of their own, and its tokens."""
    await signed_in(client, "ann")
    theirs = await signed_in(another, "mallory")
    assert await pays(another, theirs) == (200, "paid by mallory")
    assert await pays(client, theirs) == REFUSED


async def test_f5_a_token_from_before_the_sign_in_is_refused_after_it(client: Any) -> None:
    before = (await client("GET", "/form_page")).body.decode()
    after = await signed_in(client)
    assert await pays(client, before) == REFUSED
    assert await pays(client, after) == (200, "paid by ann")
    await client("POST", "/rotate")
    assert await pays(client, after) == REFUSED
    fresh = (await client("GET", "/form_page")).body.decode()
    await client("POST", "/sign_out")
    assert await pays(client, fresh) == REFUSED


async def test_f6_the_sign_in_form_is_protected_for_a_visitor_without_a_session(client: Any, another: Any) -> None:
    """Nobody can be signed in to an account of the attacker's: a token belongs to one browser."""
    theirs = (await another("GET", "/form_page")).body.decode()
    for stolen in (None, theirs):
        body = b"name=mallory" + (b"" if stolen is None else b"&csrf=" + stolen.encode())
        assert (await client("POST", "/sign_in", body=body)).status == 403
    await client("GET", "/form_page")  # with a cookie of its own, too
    assert (await client("POST", "/sign_in", body=f"name=mallory&csrf={theirs}".encode())).status == 403
    assert "__Host-session" not in client.jar
    await signed_in(client)
    assert list(client.jar) == ["__Host-session"]


async def test_f6_a_visitor_has_no_session_for_a_token_and_two_pages_share_a_cookie(client: Any) -> None:
    answer = await client("GET", "/form_page")
    [line] = answer.all("set-cookie")
    assert line.startswith("__Host-csrf=") and "HttpOnly" in line and "Max-Age=86400;" in line
    assert answer.header("cache-control") == "no-store"
    second = (await client("GET", "/form_page")).body.decode()
    for token in (answer.body.decode(), second):
        assert await pays(client, token) == (200, "paid by nobody")


async def test_f5_a_session_that_begins_after_the_form_does_not_spoil_it(client: Any) -> None:
    """A visitor's session is no sign-in: what is stored for them changes nothing about their forms."""
    token = (await client("GET", "/visit")).body.decode()
    assert "__Host-session" in client.jar
    assert await pays(client, token) == (200, "paid by nobody")


async def test_f5_a_planted_cookie_that_we_did_not_make_is_worth_nothing(client: Any) -> None:
    token = (await client("GET", "/form_page")).body.decode()
    for planted in ("", "1.dmlzaXQ.9999999999999." + "A" * 43, "known"):
        assert await pays(client, token, cookies=f"__Host-csrf={planted}") == REFUSED
    ours = client.jar["__Host-csrf"]
    assert await pays(client, token, cookies=f"__Host-csrf={ours}; __Host-csrf={ours}") == REFUSED


async def test_f6_a_form_for_nobody_ends_after_a_day(client: Any, clock: SettableClock) -> None:
    token = (await client("GET", "/form_page")).body.decode()
    clock.advance(timedelta(days=1))
    assert await pays(client, token) == REFUSED


async def test_f5_a_credential_in_the_authorization_header_needs_no_token(client: Any, coat: Coatcheck) -> None:
    session = await coat.sessions.create("ann")
    grant = await coat.sessions.issue(session)
    bearer = [("authorization", f"Bearer {grant.access_token}")]
    assert await pays(client, None, headers=bearer) == (200, "paid by ann")
    assert await pays(client, None, cookies=f"__Host-access={grant.access_token}") == REFUSED


async def test_f5_an_access_token_in_a_cookie_has_the_forms_of_its_session(client: Any, coat: Coatcheck) -> None:
    session = await coat.sessions.create("ann")
    client.jar["__Host-access"] = (await coat.sessions.issue(session)).access_token
    token = (await client("GET", "/form_page")).body.decode()
    assert await pays(client, token) == (200, "paid by ann")


async def test_f1_the_token_does_not_stand_in_for_where_a_request_comes_from(client: Any) -> None:
    token = await signed_in(client)
    assert await pays(client, token, headers=[("sec-fetch-site", "cross-site")]) == REFUSED


async def test_f5_no_error_shows_a_token(client: Any) -> None:
    token = await signed_in(client)
    answer = await client("POST", "/pay", body=f"csrf={token[:-2]}AA".encode())
    assert answer.status == 403
    assert token[:20] not in answer.body.decode()


# -- refreshing ------------------------------------------------------------------------------------------------------


async def test_what_came_in_the_refresh_cookie_goes_back_in_cookies(client: Any) -> None:
    await client("POST", "/tokens", body=b"remember=")
    before = dict(client.jar)
    answer = await client("POST", "/refresh")
    assert answer.status == 200 and answer.header("cache-control") == "no-store"
    assert {line.partition("=")[0] for line in answer.all("set-cookie")} == {"__Host-access", "__Host-refresh"}
    assert all("HttpOnly" in line and "Max-Age=" in line for line in answer.all("set-cookie"))
    assert all(client.jar[name] != before[name] for name in ("__Host-access", "__Host-refresh"))
    del client.jar["__Host-session"]
    assert (await client("GET", "/form_page")).all("set-cookie") == []  # so somebody is signed in


async def test_a_refresh_token_that_was_sent_goes_back_in_the_body(client: Any) -> None:
    """And a refresh cookie that is there as well stays what it is."""
    token = (await client("POST", "/tokens")).body.decode()
    answer = await client("POST", "/refresh", body=f"token={token}".encode(), cookies="__Host-refresh=whatever")
    assert (answer.status, answer.all("set-cookie")) == (200, [])
    assert answer.header("cache-control") == "no-store"
    assert answer.body.decode() not in ("", token)


async def test_p5_racing_tabs_are_sent_the_same_refresh_cookie(client: Any) -> None:
    await client("POST", "/tokens")
    cookies = "; ".join(f"{name}={value}" for name, value in client.jar.items())
    bodies = {(await client("POST", "/refresh", cookies=cookies)).body for _ in range(3)}
    assert len(bodies) == 1


async def test_an_access_token_that_has_expired_does_not_stand_in_the_way(client: Any, clock: SettableClock) -> None:
    await client("POST", "/tokens")
    del client.jar["__Host-session"]
    clock.advance(timedelta(hours=2))
    assert (await client("POST", "/refresh")).status == 200


@pytest.mark.parametrize("cookie", ["x", "\xe9" * 76, "A" * 76])
async def test_a_refresh_cookie_that_is_not_ours_is_refused_and_left_alone(client: Any, cookie: str) -> None:
    answer = await client("POST", "/refresh", cookies=f"__Host-refresh={cookie}")
    assert (answer.status, answer.json()["error"]) == (401, "invalid_grant")
    assert answer.all("set-cookie") == []


async def test_a_refresh_without_a_token_is_refused(client: Any) -> None:
    assert (await client("POST", "/refresh")).json()["code"] == "missing"
    await client("POST", "/tokens")
    assert (await client("POST", "/refresh", body=b"token=")).json()["code"] == "malformed"  # sent, and empty
    two = "__Host-refresh=a; __Host-refresh=b"
    assert (await client("POST", "/refresh", cookies=two)).json()["code"] == "malformed"


async def test_a_spent_refresh_cookie_ends_its_session_and_takes_no_newer_cookie_back(
    client: Any, clock: SettableClock
) -> None:
    """Another tab may have signed in again meanwhile: the late answer must not sign it out (P5)."""
    await client("POST", "/tokens")
    old = "; ".join(f"{name}={value}" for name, value in client.jar.items())
    await client("POST", "/refresh")
    clock.advance(Policy().refresh_grace + timedelta(seconds=1))
    client.jar.clear()
    await client("POST", "/tokens")
    answer = await client("POST", "/refresh", cookies=old)
    assert (answer.status, answer.json()["code"], answer.all("set-cookie")) == (401, "reused", [])
    assert (await client("POST", "/refresh")).status == 200


async def test_f1_another_site_cannot_have_a_browser_refresh(client: Any) -> None:
    await client("POST", "/tokens")
    answer = await client("POST", "/refresh", headers=[("sec-fetch-site", "cross-site")])
    assert (answer.status, answer.all("set-cookie")) == (403, [])
