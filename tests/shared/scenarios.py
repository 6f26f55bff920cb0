"""The scenarios that hold whatever the framework and the store: one suite, which each adapter's file runs.

The apps are in tests/scenarios/apps, with the same routes; the servers are real ones, in processes of their own.
"""

from __future__ import annotations

import asyncio
import time
from typing import ClassVar, Final, Protocol

import pytest
from wire import Header, Wire

from coatcheck.testing import FaultProxy

STORES: Final = ("memory", "sqlite", "redis", "postgres")
KINDS: Final = (*STORES, "sealed")
needs_a_store = pytest.mark.parametrize("kind", STORES)
NAME: Final = b"__Host-session"
UNKNOWN: Final = "1" + "A" * 22 + "." + "A" * 43


class Served(Protocol):
    ports: dict[str, int]
    proxies: dict[str, FaultProxy]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of place where sessions live."""
    return str(request.param)


@pytest.fixture
def browser(served: Served, kind: str) -> Wire:
    """A new browser at the app over this kind of store."""
    return Wire(served.ports[kind])


@pytest.mark.anyio
class Scenarios:
    """What every adapter's app does; a subclass names the adapter."""

    adapter: ClassVar[str]

    async def test_signing_in_makes_a_cookie_with_which_requests_act_for_the_subject(self, browser: Wire) -> None:
        """C1, C7, C18, S4: and nothing that holds it is kept by a cache."""
        signed_in = await browser("POST", "/sign-in", subject="ann")
        assert (signed_in.status, signed_in.json) == (200, {"subject": "ann"})
        [line] = signed_in.all("set-cookie")
        assert line.startswith("__Host-session=")
        assert line.partition(";")[2] == " Path=/; Secure; HttpOnly; SameSite=Lax"
        assert signed_in.value("cache-control") == "no-store"
        me = await browser("GET", "/me")
        assert (me.json["subject"], me.json["scopes"]) == ("ann", ["notes"])
        assert "Cookie" in me.value("vary")
        assert me.all("set-cookie") == []

    async def test_a_visit_that_needs_no_session_gets_none(self, browser: Wire) -> None:
        """C18, S5: no cookie, and an answer that may be cached for everybody."""
        plain = await browser("GET", "/plain")
        assert (plain.status, plain.json) == (200, {"ok": True})
        assert plain.all("set-cookie") == []
        assert "cookie" not in plain.value("vary").lower()
        assert (await browser("GET", "/read")).all("set-cookie") == []
        nobody = await browser("GET", "/me")
        assert nobody.status == 401
        assert nobody.json["code"]

    async def test_a_visitor_s_data_comes_along_at_the_sign_in_and_the_old_id_dies(self, browser: Wire) -> None:
        """S4: session fixation: whoever knew the id before knows nothing after."""
        assert (await browser("POST", "/write", key="cart", value="umbrella")).status == 200
        thief = browser.copy()
        assert (await thief("GET", "/read")).json == {"cart": "umbrella"}
        await browser("POST", "/sign-in", subject="ann")
        assert (await browser("GET", "/read")).json == {"cart": "umbrella"}
        assert browser.jar != thief.jar
        assert (await thief("GET", "/me")).status == 401
        assert (await thief("GET", "/read")).json == {}

    @needs_a_store
    async def test_p3_two_hundred_requests_lose_nothing(self, browser: Wire) -> None:
        """P3: they all hold the same cookie, fifty at a time, and each writes a key of its own.

        All two hundred at once, on every store: tests/stores/test_promises.py.
        """
        await browser("POST", "/sign-in", subject="ann")
        for first in range(0, 200, 50):
            writers = (browser("POST", "/write", key=f"k{n}", value=n) for n in range(first, first + 50))
            assert {reply.status for reply in await asyncio.gather(*writers)} == {200}
        assert (await browser("GET", "/read")).json == {f"k{n}": str(n) for n in range(200)}

    @needs_a_store
    async def test_p3_a_counter_is_exact(self, browser: Wire) -> None:
        await browser("POST", "/sign-in", subject="ann")
        replies = await asyncio.gather(*(browser("POST", "/count") for _ in range(20)))
        assert {reply.status for reply in replies} == {200}
        assert (await browser("GET", "/read")).json == {"count": 20}

    async def test_a_list_that_is_changed_in_place_is_saved(self, browser: Wire) -> None:
        for expected in (1, 2):
            assert (await browser("POST", "/append", value="x")).json == {"items": expected}
        assert (await browser("GET", "/read")).json == {"items": ["x", "x"]}

    async def test_a_rotated_session_has_another_cookie_and_the_same_data(self, browser: Wire) -> None:
        """S19: the old cookie is dead at once."""
        await browser("POST", "/sign-in", subject="ann")
        await browser("POST", "/write", key="a", value="1")
        old = browser.copy()
        assert (await browser("POST", "/rotate")).status == 200
        assert (await browser("GET", "/me")).status == 200
        assert (await browser("GET", "/read")).json == {"a": "1"}
        assert (await old("GET", "/me")).status == 401

    @needs_a_store
    async def test_tokens_act_for_the_session_and_racing_refreshes_get_the_same_successor(self, browser: Wire) -> None:
        """P5, S20: by the Authorization header, and no race of tabs signs anybody out."""
        await browser("POST", "/sign-in", subject="ann")
        grant = (await browser("POST", "/tokens")).json
        program = Wire(browser.port)
        assert (await program("GET", "/me", bearer=grant["access_token"])).json["subject"] == "ann"
        assert (await program("GET", "/notes", bearer=grant["access_token"])).status == 200
        refused = await program("GET", "/admin", bearer=grant["access_token"])
        assert (refused.status, refused.json["error"]) == (403, "insufficient_scope")
        assert refused.value("www-authenticate").startswith("Bearer ")
        racers = await asyncio.gather(*(program("POST", "/refresh", token=grant["refresh_token"]) for _ in range(20)))
        assert {reply.status for reply in racers} == {200}
        assert len({reply.json["refresh_token"] for reply in racers}) == 1
        assert (await program("GET", "/me", bearer=racers[0].json["access_token"])).status == 200
        assert (await browser("GET", "/me")).status == 200

    @needs_a_store
    async def test_tokens_in_cookies_are_hidden_from_scripts_and_act_as_well(self, browser: Wire) -> None:
        await browser("POST", "/sign-in", subject="ann")
        handed_out = await browser("POST", "/token-cookies")
        lines = {line.partition("=")[0]: line for line in handed_out.all("set-cookie")}
        assert set(lines) == {"__Host-access", "__Host-refresh"}
        assert all("; HttpOnly; " in line and "; Secure; " in line for line in lines.values())
        only_the_token = Wire(browser.port, {"__Host-access": browser.jar["__Host-access"]})
        assert (await only_the_token("GET", "/me")).json["subject"] == "ann"
        assert (await only_the_token("POST", "/write", site="cross-site", key="a", value="1")).status == 403

    @needs_a_store
    async def test_p1_signing_out_everywhere_kills_cookies_and_tokens_of_all_devices(self, browser: Wire) -> None:
        phone = Wire(browser.port)
        for device in (browser, phone):
            await device("POST", "/sign-in", subject=f"kim-{browser.port}")
        token = (await phone("POST", "/tokens")).json["access_token"]
        assert (await browser("POST", "/sign-out-everywhere")).json == {"ended": 2}
        assert (await phone("GET", "/me")).status == 401
        assert (await Wire(browser.port)("GET", "/me", bearer=token)).status == 401
        assert browser.jar == {}

    async def test_p1_signing_out_everywhere_reaches_sealed_sessions(self, served: Served) -> None:
        """Though nobody knows where they are."""
        laptop, phone = (Wire(served.ports["sealed"]) for _ in range(2))
        for device in (laptop, phone):
            await device("POST", "/sign-in", subject="kim")
        stolen = laptop.copy()
        assert (await laptop("POST", "/sign-out-everywhere")).status == 200
        for device in (phone, stolen):
            assert (await device("GET", "/me")).status == 401

    async def test_signing_out_the_others_leaves_this_one(self, browser: Wire, kind: str) -> None:
        phone = Wire(browser.port)
        for device in (browser, phone):
            await device("POST", "/sign-in", subject=f"lee-{browser.port}")
        assert (await browser("POST", "/sign-out-others")).json == {"ended": 0 if kind == "sealed" else 1}
        assert (await browser("GET", "/me")).status == 200
        assert (await phone("GET", "/me")).status == 401

    async def test_p1_a_signed_out_session_never_comes_back(self, browser: Wire) -> None:
        """Not by a request in flight either: writers race the sign-out, and are answered."""
        await browser("POST", "/sign-in", subject="ann")
        tabs = [browser.copy() for _ in range(10)]
        replies = await asyncio.gather(
            *(tab("POST", "/write", key="k", value="1") for tab in tabs[:5]),
            browser("POST", "/sign-out"),
            *(tab("POST", "/write", key="k", value="2") for tab in tabs[5:]),
        )
        assert replies[5].json == {"ended": True}
        assert all(reply.status < 500 for reply in replies)
        assert browser.jar == {}
        for tab in tabs:
            assert (await tab("GET", "/me")).status == 401

    async def test_f1_other_sites_cannot_use_the_cookie(self, browser: Wire) -> None:
        """F1, F6: but a route can be exempt."""
        await browser("POST", "/sign-in", subject="ann")
        refused = await browser("POST", "/write", site="cross-site", key="a", value="1")
        assert (refused.status, refused.all("set-cookie")) == (403, [])
        assert (await browser("POST", "/sign-in", site="same-site", subject="eve")).status == 403
        assert (await browser("GET", "/me", site="cross-site")).json["subject"] == "ann"
        assert (await browser("POST", "/hook", site="cross-site")).status == 200
        assert (await browser("GET", "/read")).json == {}

    @needs_a_store
    async def test_f1_a_token_in_a_header_is_nobody_s_to_send_but_its_holder_s(self, browser: Wire) -> None:
        await browser("POST", "/sign-in", subject="ann")
        token = (await browser("POST", "/tokens")).json["access_token"]
        assert (await Wire(browser.port)("POST", "/tokens", site="cross-site", bearer=token)).status != 403

    @needs_a_store
    async def test_hostile_headers_get_the_same_decision_everywhere(self, browser: Wire) -> None:
        """C9, C12, C13, J13: none of them is anybody, none takes the cookie away, none is a 500."""
        await browser("POST", "/sign-in", subject="ann")
        cookie = NAME + b"=" + browser.jar[NAME.decode()].encode()
        token = (await browser("POST", "/tokens")).json["access_token"].encode()
        assert (await browser.send("GET", "/me", [(b"cookie", cookie)])).status == 200
        for headers in hostile(cookie, token):
            reply = await browser.send("GET", "/me", headers)
            assert (reply.status, reply.all("set-cookie")) == (401, []), headers
        for headers in harmless(cookie):
            assert (await browser.send("GET", "/me", headers)).status == 200, headers

    async def test_a_handler_that_fails_changes_nothing(self, browser: Wire) -> None:
        await browser("POST", "/sign-in", subject="ann")
        assert (await browser("POST", "/fail")).status == 500
        assert (await browser("GET", "/read")).json == {}


@pytest.mark.anyio
class StoreDown:
    """What every adapter's app does while its store is away."""

    adapter: ClassVar[str]

    @pytest.mark.parametrize("kind", ["redis", "postgres"])
    async def test_p6_a_store_that_is_away_is_never_signed_out(self, served: Served, browser: Wire, kind: str) -> None:
        """P6: 503 with the cookie left alone, who has none notices nothing, and it heals without a restart."""
        await browser("POST", "/sign-in", subject="ann")
        served.proxies[kind].cut()
        try:
            away = await browser("GET", "/me")
            assert (away.status, away.all("set-cookie")) == (503, [])
            assert (await Wire(browser.port)("GET", "/plain")).status == 200
        finally:
            served.proxies[kind].heal()
        assert await _healed(browser) == "ann"


async def _healed(browser: Wire) -> str:
    deadline = time.monotonic() + 30
    reply = await browser("GET", "/me")
    while reply.status == 503 and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        reply = await browser("GET", "/me")
    subject: str = reply.json["subject"]
    return subject


def hostile(cookie: bytes, token: bytes) -> list[list[Header]]:
    """Return headers with which nobody is anybody."""
    value = cookie.partition(b"=")[2]
    secret = value.partition(b".")[2]
    return [
        [(b"cookie", NAME + b"=" + UNKNOWN.encode())],
        [(b"cookie", cookie[:-1] + (b"A" if cookie[-1:] != b"A" else b"E"))],
        [(b"cookie", cookie + b"x")],
        [(b"cookie", NAME + b'="' + value + b'"')],
        [(b"cookie", NAME + b"=")],
        [(b"cookie", NAME + b"=" + secret)],
        [(b"cookie", cookie + b"; " + cookie)],
        [(b"cookie", cookie + b"; " + NAME + b"=" + UNKNOWN.encode())],
        [(b"cookie", NAME + b"=x; " + cookie)],
        [(b"cookie", b"__host-session=" + value)],
        [(b"cookie", b"=" + cookie)],
        [(b"cookie", b"\xa0" + cookie)],
        [(b"cookie", b"\x85" + cookie)],
        [(b"cookie", b"__%48ost-session=" + value)],
        [(b"cookie", b"a=b," + cookie)],
        [(b"authorization", b"Bearer " + token + b"x")],
        [(b"authorization", b"Bearer")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer " + token + b" " + token)],
        [(b"authorization", b"Bearer " + token + b", Bearer " + token)],
        [(b"authorization", b"Basic YW5uOmFubg==")],
        [(b"authorization", b"\xff\xfe")],
        # What was presented and is no good is a refusal; nothing else is tried.
        [(b"authorization", b"Bearer nonsense"), (b"cookie", cookie)],
        [(b"cookie", b"__Host-access=" + token + b"; __Host-access=" + token)],
        [(b"cookie", b"__Host-access=nonsense")],
        [(b"cookie", b"__Host-refresh=" + token)],
    ]


def harmless(cookie: bytes) -> list[list[Header]]:
    """Return headers that look odd, and change nothing."""
    return [
        [(b"cookie", cookie + b";")],
        [(b"cookie", b"a=1; " + cookie + b"; b=2")],
        [(b"cookie", b"a=\xff\xfe; " + cookie)],
        [(b"cookie", b'a="x; ' + cookie + b'; b=y"')],
        [(b"cookie", b"a;b;=c; " + cookie)],
        [(b"authorization", b"Basic YW5uOmFubg=="), (b"cookie", cookie)],
        [(b"cookie", cookie), (b"x-forwarded-for", b"\xff")],
    ]
