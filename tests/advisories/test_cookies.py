"""What was published about other frameworks' cookies, tried on ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coatcheck import ConfigurationError, Cookie, Exchange, InvalidValue

pytestmark = pytest.mark.anyio

NAME = b"__Host-session"


async def ticket(world: Any, subject: str) -> bytes:
    session = await world.sessions.create(subject)
    value: str = session.cookie.value
    return value.encode()


async def test_the_attack_would_work_under_the_exact_name(world: Any) -> None:
    """The control of the tests below: the attacker's ticket is good, only its name is not ours."""
    cookie = NAME + b"=" + await ticket(world, "eve")
    assert (await world.browser()("/me", cookie=cookie)).body == "eve"


@pytest.mark.parametrize(
    "name",
    [
        b"=__Host-session",
        b" =__Host-session",
        b"=\t__Host-session",
        b"\xe2\x80\x80__Host-session",  # U+2000, which str.strip() removes
        b"\xc2\xa0__Host-session",
        b"\xa0__Host-session",
        b"\x85__Host-session",
        b"__Host-session\xe2\x80\x83",
        b"\x0b__Host-session",
        b"\x0c__Host-session",
        b"\x1c__Host-session",
        b"\r__Host-session",
        b"\n__Host-session",
        b"\0__Host-session",
        b"__%48ost-session",
        b"%5F%5FHost-session",
        b'"__Host-session"',
        b"__host-session",
        b"__HOST-SESSION",
        b"$Version=1,__Host-session",
        b"a=b,__Host-session",
        b"a=b&__Host-session",
        b"__Host-session[]",
        b"x__Host-session",
    ],
)
async def test_a_look_alike_name_is_somebody_elses_cookie(world: Any, name: bytes) -> None:
    """CVE-2023-23934 (Werkzeug, nameless `=__Host-...`), CVE-2021-41819 (Ruby, decoded names), and "cookie chaos"
    (Django and ASP.NET strip Unicode white space): a subdomain plants a cookie whose name becomes ours on the
    server, and the victim acts in the attacker's session."""
    planted = name + b"=" + await ticket(world, "eve")
    own = NAME + b"=" + await ticket(world, "ann")
    assert (await world.browser()("/me", cookie=planted)).status == 401
    for both in (planted + b"; " + own, own + b"; " + planted):
        assert (await world.browser()("/me", cookie=both)).body in ("ann", "")  # the victim, or a refusal
        assert b"eve" not in (await world.browser()("/me", cookie=both)).body.encode()


async def test_a_cookie_without_a_name_is_not_ours_by_its_value(world: Any) -> None:
    """Nor does it count as a second cookie of our name, with which a sibling could shut the victim out."""
    own = NAME + b"=" + await ticket(world, "ann")
    for nameless in (NAME, b"=" + NAME, b"=" + NAME + b"=x"):
        assert (await world.browser()("/me", cookie=nameless + b"; " + own)).body == "ann"


async def test_quotes_do_not_swallow_what_stands_between_two_cookies(world: Any) -> None:
    """Servers that unquote (RFC 2109) read `a="x; session=...; b=y"` as one cookie `a`, and show the victim's ticket
    wherever `a` is shown."""
    own = NAME + b"=" + await ticket(world, "ann")
    assert (await world.browser()("/me", cookie=b'a="x; ' + own + b'; b=y"')).body == "ann"


async def test_an_unreadable_cookie_is_a_refusal_and_never_an_empty_session(world: Any) -> None:
    """CVE-2026-39324 (rack-session): what could not be decrypted was handed to a second, lenient decoder."""
    for value in (b'{"user":"root"}', b"eyJ1c2VyIjoicm9vdCJ9", b"BAh7AA==", b"1" + b"A" * 22, b"", b"admin"):
        answer = await world.browser()("/me", cookie=NAME + b"=" + value)
        assert (answer.status, answer.all("set-cookie")) == (401, [])
    assert world.events == []


@pytest.mark.parametrize("text", ["a\r\nSet-Cookie: x=y", "a\nb", "a\rb", "a\0b", "a\x7fb", "a; Domain=evil.example"])
async def test_nothing_breaks_out_of_a_cookie_line(world: Any, text: str) -> None:
    """CVE-2020-5247 (Puma: CR LF in a header splits the response) and CVE-2024-47764 (jshttp/cookie: `;` in name,
    path or domain adds attributes)."""
    kind = Cookie("theme")

    async def echo(exchange: Exchange) -> str:
        with pytest.raises(InvalidValue):
            exchange.cookies.set(kind, text)
        return "refused"

    world.handlers["/echo"] = echo
    answer = await world.browser()("/echo")
    assert (answer.body, answer.all("set-cookie")) == ("refused", [])
    for name, attribute in (("name", text), ("path", f"/{text}"), ("domain", text), ("same_site", text)):
        attributes: dict[str, Any] = {"name": "a", name: attribute}
        with pytest.raises(ConfigurationError):
            Cookie(**attributes)


async def test_an_answer_that_sets_a_ticket_is_never_shared(world: Any) -> None:
    """CVE-2023-30861 (Flask): a permanent session's cookie was sent again with an answer that did not look at the
    session, without `Vary: Cookie`; a cache handed it to everybody. We send none again, not even when due."""

    async def remember(exchange: Exchange) -> str:
        await exchange.sign_in("ann", persistent=True)
        return "a page for everybody"

    async def page(_: Exchange) -> str:
        return "a page for everybody"

    world.handlers |= {"/remember": remember, "/page": page}
    browser = world.browser()
    answer = await browser("/remember")
    assert answer.all("set-cookie") and answer.varies() and answer.all("cache-control") == ["no-store"]
    for _ in range(3):
        world.clock.set(world.clock() + 3_600_000)
        answer = await browser("/page", method="GET")
        assert answer.all("set-cookie") == [] and not answer.varies()
    assert (await browser.app.coatcheck.sessions.list("ann"))[0].seen_at == world.clock()


LOOKS: dict[str, Callable[[Exchange], object]] = {
    "in": lambda exchange: "cart" in exchange.session,
    "len": lambda exchange: len(exchange.session),
    "bool": lambda exchange: bool(exchange.session),
    "iter": lambda exchange: list(exchange.session),
    "keys": lambda exchange: list(exchange.session.keys()),
    "get": lambda exchange: exchange.session.get("cart"),
    "==": lambda exchange: exchange.session == {},
    "pop": lambda exchange: exchange.session.pop("cart", None),
    "setdefault": lambda exchange: exchange.session.setdefault("cart", 1),
    "clear": lambda exchange: exchange.session.clear(),
    "principal": lambda exchange: exchange.principal,
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("signed_in", [True, False])
async def test_every_way_to_look_at_the_session_is_told_to_caches(world: Any, look: str, signed_in: bool) -> None:
    """CVE-2026-27205, GHSA-68rp-wp8r-4726 (Flask): `in` and `len` looked only at the keys, and `Vary: Cookie` was
    missing."""

    async def handler(exchange: Exchange) -> str:
        return str(LOOKS[look](exchange))

    world.handlers["/look"] = handler
    browser = world.browser()
    if signed_in:
        await browser("/sign-in")
    assert (await browser("/look")).varies()
