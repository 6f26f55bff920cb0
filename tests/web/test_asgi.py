"""The ASGI middleware and the Exchange, seen from the wire, through Starlette."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from counting_store import CountingStore
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from coatcheck import Coatcheck, Keyring, Policy
from coatcheck.clock import monotonic_clock
from coatcheck.request_head import RequestHead
from coatcheck.testing import SettableClock
from coatcheck.web.asgi import App, CoatcheckMiddleware, exchange

pytestmark = pytest.mark.anyio

ANON = re.compile(r"^__Host-session=1[\w-]{22}\.[\w-]{43}; Path=/; Secure; HttpOnly; SameSite=Lax$")


async def plain(_: Request) -> Response:
    return PlainTextResponse("hello", headers={"cache-control": "public, max-age=60"})


async def sign_in(request: Request) -> Response:
    query = request.query_params
    await exchange(request).sign_in(query.get("as", "ann"), persistent="remember" in query, scopes=("read",))
    if "tokens" in query:
        exchange(request).hand_out_tokens(await exchange(request).issue())
        return PlainTextResponse("ok")
    return JSONResponse({"token": (await exchange(request).issue()).access_token}, headers={"cache-control": "public"})


async def sign_out(request: Request) -> Response:
    return JSONResponse(await exchange(request).sign_out())


async def everywhere(request: Request) -> Response:
    return JSONResponse(await exchange(request).sign_out_everywhere())


async def me(request: Request) -> Response:
    principal = exchange(request).require()
    return JSONResponse({"subject": principal.subject, "session": principal.session_id})


async def whoever(request: Request) -> Response:
    principal = exchange(request).principal
    return PlainTextResponse(principal.subject if principal else "nobody")


async def recent(request: Request) -> Response:
    return PlainTextResponse(exchange(request).require(max_age=timedelta(minutes=5)).subject)


async def scoped(request: Request) -> Response:
    return PlainTextResponse(exchange(request).require(scopes=["write"]).subject)


async def read(request: Request) -> Response:
    return JSONResponse(dict(request.session))


async def write(request: Request) -> Response:
    for key, value in request.query_params.items():
        request.session[key] = value
    return PlainTextResponse("written")


async def data(request: Request) -> Response:
    session = await exchange(request).load_session()
    session["by"] = "token"
    return JSONResponse(dict(session))


async def stream(request: Request) -> Response:
    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        request.session["late"] = True
        yield b"two"

    return StreamingResponse(body())


async def fail(request: Request) -> Response:
    request.session["half"] = True
    raise ValueError("the handler failed")


async def twice(request: Request) -> Response:
    request.session["n"] = 1
    response = PlainTextResponse("x")
    response.set_cookie("__Host-session", "theirs")
    response.set_cookie("other", "kept")
    return response


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    websocket.session["seen"] = True
    await websocket.send_text(exchange(websocket).require().subject)
    await websocket.close()


HANDLERS: list[Callable[..., Any]] = [
    plain, sign_in, sign_out, everywhere, me, whoever, recent, scoped, read, write, data, stream, fail, twice,
]  # fmt: skip


class World:
    def __init__(self, keyring: Keyring | None = None, **policy: Any) -> None:
        self.clock = SettableClock()
        self.store = CountingStore()
        self.coat = Coatcheck(self.store, keyring, Policy(**policy), clock=self.clock)
        routes = [Route(f"/{handler.__name__}", handler, methods=["GET", "POST"]) for handler in HANDLERS]
        self.app: App = starlette(self.coat, [*routes, WebSocketRoute("/echo", echo)])


def starlette(coat: Coatcheck, routes: Sequence[BaseRoute]) -> App:
    """An application as users make it, with the middleware where `add_middleware` puts it."""
    return Starlette(
        routes=routes, middleware=[Middleware(CoatcheckMiddleware, coatcheck=coat, csrf_exempt=["/write"])]
    )


@pytest.fixture
def world() -> World:
    return World()


async def test_s21_without_a_credential_nothing_is_done(world: World, browser: Any) -> None:
    """No store call, no Set-Cookie, no Vary, and the handler's Cache-Control is left alone."""
    answer = await browser(world.app)("GET", "/plain")
    assert world.store.calls == Counter()
    assert answer.all("set-cookie") == answer.all("vary") == []
    assert answer.header("cache-control") == "public, max-age=60"


async def test_s21_an_anonymous_reader_creates_nothing_but_depends_on_the_cookie(world: World, browser: Any) -> None:
    """C18: the answer to somebody without a session must not be cached for somebody with one."""
    for path in ("/read", "/whoever"):
        answer = await browser(world.app)("GET", path)
        assert world.store.calls == Counter()
        assert answer.all("set-cookie") == []
        assert "Cookie" in (answer.header("vary") or "")


async def test_c7_the_default_cookie_to_the_letter(world: World, browser: Any) -> None:
    """`__Host-`, Secure, HttpOnly, SameSite=Lax, Path=/, no Domain, no lifetime; and the answer is not stored."""
    answer = await browser(world.app)("POST", "/sign_in")
    [line] = answer.all("set-cookie")
    assert ANON.match(line)
    assert answer.header("cache-control") == "no-store"


async def test_c5_remember_me_is_a_persistent_cookie(world: World, browser: Any) -> None:
    """Max-Age and Expires both, up to the session's absolute timeout."""
    [line] = (await browser(world.app)("POST", "/sign_in?remember=1")).all("set-cookie")
    assert "; Max-Age=2592000; Expires=" in line


async def test_s4_sign_in_gives_a_new_id_and_carries_the_visit_over(world: World, browser: Any) -> None:
    """What was in the cart is still there; the old cookie opens nothing."""
    visitor = browser(world.app)
    await visitor("POST", "/write?cart=1")
    before = dict(visitor.jar)
    await visitor("POST", "/sign_in")
    assert visitor.jar != before
    assert (await visitor("GET", "/read")).json() == {"cart": "1"}
    old = f"__Host-session={before['__Host-session']}"
    assert (await visitor("GET", "/read", cookies=old)).json() == {}
    assert (await visitor("GET", "/me", cookies=old)).status == 401


async def test_s24_a_remembered_session_does_not_replace_a_recent_sign_in(world: World, browser: Any) -> None:
    """The persistent cookie still opens the door a week later, but not what needs a fresh proof."""
    one = browser(world.app)
    await one("POST", "/sign_in?remember=1")
    assert (await one("GET", "/recent")).status == 200
    world.clock.advance(timedelta(days=6))
    assert (await one("GET", "/me")).status == 200
    assert (await one("GET", "/recent")).status == 401


async def test_another_subjects_data_is_not_carried_over(world: World, browser: Any) -> None:
    """P4: signing in as bob in ann's browser shows bob nothing of ann's, and ends ann's session there."""
    one = browser(world.app)
    await one("POST", "/sign_in?as=ann")
    await one("POST", "/write?private=ann")
    anns = one.jar["__Host-session"]
    await one("POST", "/sign_in?as=bob")
    assert (await one("GET", "/read")).json() == {}
    assert (await one("GET", "/me", cookies=f"__Host-session={anns}")).status == 401


async def test_signing_in_again_is_a_new_id_with_the_same_data(world: World, browser: Any) -> None:
    """S4: re-authentication too; and it counts as recent (S15)."""
    one = browser(world.app)
    await one("POST", "/sign_in")
    await one("POST", "/write?cart=1")
    first = one.jar["__Host-session"]
    world.clock.advance(timedelta(minutes=10))
    refused = await one("GET", "/recent")
    assert refused.status == 401
    assert 'error="insufficient_user_authentication", max_age=300' in (refused.header("www-authenticate") or "")
    await one("POST", "/sign_in")
    assert one.jar["__Host-session"] != first
    assert (await one("GET", "/read")).json() == {"cart": "1"}
    assert (await one("GET", "/recent")).status == 200
    assert len(await world.coat.sessions.list("ann")) == 1


async def test_c6_c19_sign_out_ends_the_session_and_takes_the_cookie_back(world: World, browser: Any) -> None:
    """The deletion repeats name, Path, Secure; the captured cookie and token are dead."""
    one = browser(world.app)
    token = (await one("POST", "/sign_in")).json()["token"]
    captured = one.jar["__Host-session"]
    answer = await one("POST", "/sign_out")
    [line] = answer.all("set-cookie")
    assert line.startswith("__Host-session=; ") and "Max-Age=0" in line and "Secure" in line and "Path=/" in line
    assert one.jar == {}
    assert (await one("GET", "/me", cookies=f"__Host-session={captured}")).status == 401
    assert (await one("GET", "/me", headers=[("authorization", f"Bearer {token}")])).status == 401


async def test_sign_out_with_a_token_ends_the_session_of_the_token(world: World, browser: Any) -> None:
    """All credentials are of one session, so any of them can end it."""
    one = browser(world.app)
    token = (await one("POST", "/sign_in")).json()["token"]
    captured = one.jar["__Host-session"]
    script = browser(world.app)
    assert (await script("POST", "/sign_out", headers=[("authorization", f"bearer {token}")])).json() is True
    assert (await one("GET", "/me", cookies=f"__Host-session={captured}")).status == 401


async def test_sign_out_everywhere(world: World, browser: Any) -> None:
    """S11: the other device is refused at its next request."""
    phone, laptop = browser(world.app), browser(world.app)
    await phone("POST", "/sign_in")
    await laptop("POST", "/sign_in")
    assert (await laptop("POST", "/everywhere")).json() == 2
    assert (await phone("GET", "/me")).status == (await laptop("GET", "/me")).status == 401


async def test_a_bad_credential_is_a_refusal_and_nothing_else_is_tried(world: World, browser: Any) -> None:
    """House decision 8: a good cookie does not rescue a bad token; the cookie is left alone."""
    one = browser(world.app)
    await one("POST", "/sign_in")
    answer = await one("GET", "/me", headers=[("authorization", "Bearer x.y.z")])
    assert answer.status == 401
    assert answer.header("www-authenticate") == 'Bearer error="invalid_token"'
    assert answer.all("set-cookie") == []
    assert (await one("GET", "/me")).status == 200


async def test_no_credential_is_a_challenge_without_an_error_word(world: World, browser: Any) -> None:
    """RFC 6750, section 3.1."""
    answer = await browser(world.app)("GET", "/me")
    assert (answer.status, answer.header("www-authenticate")) == (401, "Bearer")
    assert answer.header("cache-control") == "no-store"


async def test_s3_a_cookie_of_the_attackers_making_is_never_adopted(world: World, browser: Any) -> None:
    """The session that the request makes has another id."""
    fixed = f"1{'A' * 22}.{'A' * 43}"
    answer = await browser(world.app)("POST", "/write?a=1", cookies=f"__Host-session={fixed}")
    [line] = answer.all("set-cookie")
    assert ANON.match(line) and "A" * 22 not in line


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_c13_two_cookies_of_our_name_are_a_refusal(world: World, browser: Any, order: tuple[int, int]) -> None:
    """In neither order does a tossed cookie give the attacker's session to the victim."""
    victim, attacker = browser(world.app), browser(world.app)
    await victim("POST", "/sign_in?as=ann")
    await attacker("POST", "/sign_in?as=eve")
    pair = [f"__Host-session={one.jar['__Host-session']}" for one in (victim, attacker)]
    cookies = f"{pair[order[0]]}; {pair[order[1]]}"
    assert (await victim("GET", "/me", cookies=cookies)).status == 401
    assert (await victim("GET", "/whoever", cookies=cookies)).body == b"nobody"


async def test_p6_a_store_that_is_down_is_503_and_leaves_the_cookie_alone(world: World, browser: Any) -> None:
    """Never "not signed in", never signed out; and afterwards it goes on as before."""
    one = browser(world.app)
    await one("POST", "/sign_in")
    world.store.broken = True
    for path in ("/me", "/read", "/whoever", "/plain"):
        answer = await one("GET", path)
        assert (answer.status, answer.header("retry-after")) == (503, "1")
        assert answer.all("set-cookie") == []
    assert (await one("GET", "/plain", cookies="")).status == 200
    world.store.broken = False
    assert (await one("GET", "/me")).status == 200


async def test_s21_reading_writes_nothing(world: World, browser: Any) -> None:
    """A hundred reads of a session are a hundred loads and no write."""
    one = browser(world.app)
    await one("POST", "/sign_in")
    world.store.calls.clear()
    for _ in range(100):
        assert (await one("GET", "/read")).all("set-cookie") == []
    assert world.store.calls == Counter(load=100)


async def test_use_is_written_down_when_it_is_due(world: World, browser: Any) -> None:
    """S6: after a minute, once."""
    one = browser(world.app)
    await one("POST", "/sign_in")
    for _ in range(3):
        world.clock.advance(timedelta(seconds=61))
        await one("GET", "/plain")
    assert world.store.calls["touch"] == 3


async def test_c2_one_line_a_name(world: World, browser: Any) -> None:
    """Where another layer sets our cookie too, exactly one line leaves, and it is ours."""
    answer = await browser(world.app)("POST", "/twice")
    lines = answer.all("set-cookie")
    assert [line.partition("=")[0] for line in lines] == ["other", "__Host-session"]
    assert "theirs" not in str(lines)


async def test_c2_signing_in_and_out_in_one_request_is_one_line(browser: Any) -> None:
    """The last word counts, and a browser that had a cookie is left without one."""
    world = World()

    async def both(request: Request) -> Response:
        await exchange(request).sign_in("ann")
        await exchange(request).sign_out()
        return PlainTextResponse("x")

    one = browser(starlette(world.coat, [Route("/", both, methods=["POST"]), Route("/write", write, methods=["POST"])]))
    assert (await one("POST", "/")).all("set-cookie") == []
    await one("POST", "/write?a=1")
    [line] = (await one("POST", "/")).all("set-cookie")
    assert "Max-Age=0" in line
    assert one.jar == {}


async def test_what_a_streamed_body_writes_is_saved(world: World, browser: Any) -> None:
    """The header has left by then, but the session exists: the late edit counts."""
    one = browser(world.app)
    await one("POST", "/sign_in")
    assert (await one("GET", "/stream")).body == b"onetwo"
    assert (await one("GET", "/read")).json() == {"late": True}


async def test_a_handler_that_raises_saves_nothing(world: World, browser: Any) -> None:
    """Half of what a request meant to write is not written."""
    one = browser(world.app)
    await one("POST", "/sign_in")
    with pytest.raises(ValueError, match="the handler failed"):
        await one("POST", "/fail")
    assert (await one("GET", "/read")).json() == {}


async def test_a_sign_out_meanwhile_does_not_fail_the_request_in_flight(browser: Any) -> None:
    """P1: its edits are dropped, its answer goes out, and it sets no cookie."""
    world = World()

    async def slow(request: Request) -> Response:
        request.session["late"] = 1
        await world.coat.sessions.revoke_all("ann")
        return PlainTextResponse("done")

    routes = [Route("/slow", slow, methods=["POST"]), Route("/sign_in", sign_in, methods=["POST"])]
    one = browser(starlette(world.coat, routes))
    await one("POST", "/sign_in")
    answer = await one("POST", "/slow")
    assert (answer.status, answer.body, answer.all("set-cookie")) == (200, b"done", [])
    assert await world.store.list("ann") == []


async def test_a_late_anonymous_request_does_not_undo_the_sign_in(browser: Any) -> None:
    """What was in flight when the visitor signed in sets no cookie, so the browser stays signed in."""
    world = World()

    async def slow(request: Request) -> Response:
        request.session["late"] = 1
        await tab("POST", "/sign_in")
        return PlainTextResponse("done")

    routes = [Route("/slow", slow, methods=["POST"]), Route("/sign_in", sign_in, methods=["POST"])]
    app = starlette(world.coat, [*routes, Route("/write", write, methods=["POST"]), Route("/me", me)])
    tab = browser(app)
    await tab("POST", "/write?a=1")
    late = await tab("POST", "/slow")
    assert (late.body, late.all("set-cookie")) == (b"done", [])
    assert (await tab("GET", "/me")).json()["subject"] == "ann"


async def test_a_late_request_with_the_cookie_from_before_the_sign_in_sets_none(world: World, browser: Any) -> None:
    """It left the browser before the sign-in was answered and arrives after it: its write is dropped, not adopted."""
    tab = browser(world.app)
    await tab("POST", "/write?a=1")
    before = f"__Host-session={tab.jar['__Host-session']}"
    await tab("POST", "/sign_in")
    late = await tab("POST", "/write?b=2", cookies=before)
    assert (late.status, late.all("set-cookie")) == (200, [])
    assert (await tab("GET", "/read")).json() == {"a": "1"}


async def test_the_id_can_be_rotated_on_demand(world: World, browser: Any) -> None:
    """The browser gets the new cookie, by the exchange or by the desk; the old one is dead."""

    async def rotate(request: Request) -> Response:
        if "desk" in request.query_params:
            await world.coat.sessions.rotate(exchange(request).session)
        else:
            await exchange(request).rotate()
        others = await exchange(request).sign_out_others()
        return JSONResponse([exchange(request).require().session_id, others])

    routes = [Route(f"/{handler.__name__}", handler, methods=["GET", "POST"]) for handler in (sign_in, me, rotate)]
    one = browser(starlette(world.coat, routes))
    assert (await one("POST", "/rotate")).status == 401
    await one("POST", "/sign_in")
    for path in ("/rotate", "/rotate?desk=1"):
        old = one.jar["__Host-session"]
        [session_id, others] = (await one("POST", path)).json()
        assert (await one("GET", "/me", cookies=f"__Host-session={old}")).status == 401
        assert (await one("GET", "/me")).json()["session"] == session_id
        assert others == 0


class TestTokens:
    async def test_tokens_in_cookies_of_their_own(self, world: World, browser: Any) -> None:
        """HttpOnly and Secure like the session's; the refresh token's is Strict; the access token's opens the door."""
        one = browser(world.app)
        answer = await one("POST", "/sign_in?tokens=1")
        lines = {line.partition("=")[0]: line for line in answer.all("set-cookie")}
        assert set(lines) == {"__Host-session", "__Host-access", "__Host-refresh"}
        assert all("; Secure; HttpOnly" in line for line in lines.values())
        assert "SameSite=Strict" in lines["__Host-refresh"]
        access = f"__Host-access={one.jar['__Host-access']}"
        assert (await one("GET", "/me", cookies=access)).json()["subject"] == "ann"

    async def test_c14_any_one_cookie_may_vanish(self, world: World, browser: Any) -> None:
        """A browser that evicts one of the three still has a way in."""
        one = browser(world.app)
        await one("POST", "/sign_in?tokens=1")
        for lost in one.jar:
            left = "; ".join(f"{name}={value}" for name, value in one.jar.items() if name != lost)
            assert (await one("GET", "/me", cookies=left)).json()["subject"] == "ann"

    async def test_c15_all_our_cookies_together_are_far_below_8192_octets(self, browser: Any) -> None:
        """Also with the largest signatures and the longest subject."""
        world = World(Keyring.generate("RS256"))
        one = browser(world.app)
        await one("POST", f"/sign_in?tokens=1&as={'a' * 255}")
        assert sum(len(name) + len(value) + 3 for name, value in one.jar.items()) < 8192 / 4

    async def test_a_cookie_token_is_judged_for_csrf_and_a_bearer_is_not(self, world: World, browser: Any) -> None:
        """What the browser adds by itself can be abused by other sites; a header cannot."""
        one = browser(world.app)
        await one("POST", "/sign_in?tokens=1")
        cross = [("sec-fetch-site", "cross-site")]
        access = one.jar["__Host-access"]
        assert (await one("POST", "/me", headers=cross, cookies=f"__Host-access={access}")).status == 403
        bearer = [*cross, ("authorization", f"Bearer {access}")]
        assert (await one("POST", "/me", headers=bearer, cookies="")).status == 200

    async def test_a_bearer_that_is_refused_is_told_why_wherever_it_comes_from(
        self, world: World, browser: Any
    ) -> None:
        """401 leads a client to a new token; 403 for another site would lead it nowhere."""
        one = browser(world.app)
        await one("POST", "/sign_in?tokens=1")
        token = one.jar["__Host-access"]
        await one("POST", "/sign_out")
        for refused in (token, token[:-4], "abc"):
            headers = [("sec-fetch-site", "cross-site"), ("authorization", f"Bearer {refused}")]
            answer = await browser(world.app)("POST", "/me", headers=headers)
            assert answer.status == 401
            assert "invalid_token" in (answer.header("www-authenticate") or "")

    async def test_sign_out_takes_all_our_cookies_back(self, world: World, browser: Any) -> None:
        """None of the three is left behind."""
        one = browser(world.app)
        await one("POST", "/sign_in?tokens=1")
        await one("POST", "/sign_out")
        assert one.jar == {}

    async def test_verifying_a_token_asks_no_store(self, world: World, browser: Any) -> None:
        """Zero look-ups a request."""
        token = (await browser(world.app)("POST", "/sign_in")).json()["token"]
        world.store.calls.clear()
        answer = await browser(world.app)("GET", "/me", headers=[("authorization", f"Bearer {token}")])
        assert answer.json()["subject"] == "ann"
        assert world.store.calls == Counter()

    async def test_scopes_are_required(self, world: World, browser: Any) -> None:
        """RFC 6750: 403 and which scope is missing."""
        token = (await browser(world.app)("POST", "/sign_in")).json()["token"]
        answer = await browser(world.app)("GET", "/scoped", headers=[("authorization", f"Bearer {token}")])
        assert answer.status == 403
        assert answer.header("www-authenticate") == 'Bearer error="insufficient_scope", scope="write"'

    async def test_the_session_behind_a_token_can_be_loaded(self, world: World, browser: Any) -> None:
        """Its data is read and written like a cookie's."""
        one = browser(world.app)
        token = (await one("POST", "/sign_in")).json()["token"]
        await one("POST", "/write?cart=1")
        bearer = [("authorization", f"Bearer {token}")]
        assert (await browser(world.app)("POST", "/data", headers=bearer)).json() == {"cart": "1", "by": "token"}
        assert (await one("GET", "/read")).json() == {"cart": "1", "by": "token"}

    async def test_decision_14_a_stale_verifier_does_what_its_policy_says(self, browser: Any) -> None:
        """refuse: 503; ask: one look-up; accept: as before."""
        expected = {"refuse": (503, 0), "ask": (200, 1), "accept": (200, 0)}
        for when_stale, (status, loads) in expected.items():
            world = World(when_stale=when_stale)
            token = (await browser(world.app)("POST", "/sign_in")).json()["token"]
            world.coat.revocations.heard_at = monotonic_clock() - 6000
            world.store.calls.clear()
            answer = await browser(world.app)("GET", "/me", headers=[("authorization", f"Bearer {token}")])
            assert (answer.status, world.store.calls["load"]) == (status, loads)


class TestCsrf:
    async def test_f6_sign_in_itself_is_protected(self, world: World, browser: Any) -> None:
        """Login CSRF: another site cannot sign the victim in as somebody else (S16)."""
        answer = await browser(world.app)("POST", "/sign_in", headers=[("sec-fetch-site", "cross-site")])
        assert (answer.status, answer.all("set-cookie")) == (403, [])
        assert {"Sec-Fetch-Site", "Origin"} <= {name.strip() for name in (answer.header("vary") or "").split(",")}

    async def test_f2_an_old_browser_is_judged_by_its_origin(self, world: World, browser: Any) -> None:
        """The exact origin, or a refusal."""
        for origin, status in {
            "https://app.example": 200,
            "https://app.example.evil.example": 403,
            "http://app.example": 403,
            "https://app.example:8443": 403,
            "null": 403,
        }.items():
            assert (await browser(world.app)("POST", "/sign_in", headers=[("origin", origin)])).status == status

    async def test_trusted_origins_are_let_in(self, browser: Any) -> None:
        """Only those that the policy lists."""
        world = World(trusted_origins=frozenset({"https://www.app.example"}))
        for origin, status in {"https://www.app.example": 200, "https://evil.example": 403}.items():
            headers = [("sec-fetch-site", "same-site"), ("origin", origin)]
            assert (await browser(world.app)("POST", "/sign_in", headers=headers)).status == status

    async def test_exemptions_are_by_path_and_explicit(self, world: World, browser: Any) -> None:
        """A webhook's path is open, its neighbours are not."""
        cross = [("sec-fetch-site", "cross-site")]
        assert (await browser(world.app)("POST", "/write", headers=cross)).status == 200
        assert (await browser(world.app)("POST", "/write/", headers=cross)).status == 403


class TestWebSockets:
    async def connect(self, world: World, headers: list[tuple[str, str]]) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []
        scope = {
            "type": "websocket",
            "scheme": "wss",
            "path": "/echo",
            "raw_path": b"/echo",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"app.example"), *((n.encode(), v.encode()) for n, v in headers)],
            "client": ("192.0.2.7", 1),
            "subprotocols": [],
        }

        async def receive() -> dict[str, Any]:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await world.app(scope, receive, send)
        return sent

    async def test_f11_an_upgrade_is_judged_like_an_unsafe_request(self, world: World, browser: Any) -> None:
        """Another site's page cannot open a socket with the victim's cookie; our own can."""
        one = browser(world.app)
        await one("POST", "/sign_in")
        cookie = ("cookie", f"__Host-session={one.jar['__Host-session']}")
        ours = await self.connect(world, [cookie, ("origin", "https://app.example")])
        assert [message["type"] for message in ours] == ["websocket.accept", "websocket.send", "websocket.close"]
        theirs = await self.connect(world, [cookie, ("origin", "https://evil.example")])
        assert [(message["type"], message["code"]) for message in theirs] == [("websocket.close", 1008)]

    async def test_what_a_socket_writes_is_saved(self, world: World, browser: Any) -> None:
        """At the latest when it closes."""
        one = browser(world.app)
        await one("POST", "/sign_in")
        await self.connect(world, [("cookie", f"__Host-session={one.jar['__Host-session']}")])
        assert (await one("GET", "/read")).json() == {"seen": True}


async def test_the_lifespan_opens_and_closes(world: World) -> None:
    """The middleware needs no lifespan handler of the application's."""
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    opened: list[bool] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        opened.append(world.coat.is_open)

    await world.app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert opened == [True, True]
    assert not world.coat.is_open


async def test_s22_an_address_is_short_and_printable_whatever_a_proxy_makes_of_it() -> None:
    """U+009B begins a command to a terminal, and the command line prints addresses."""
    head = RequestHead("GET", "http", [], "\x9b31m" + "a" * 5000)
    assert head.device.address == "31m" + "a" * 60
