"""Cookies as Chromium has them: what it stores, what it refuses, what it forgets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from coatcheck import Coatcheck, CookieJar, SealedCookie, SignedCookie
from coatcheck.core.cookies import Cookie
from coatcheck.core.set_cookie import parse_set_cookie
from coatcheck.errors import ConfigurationError
from coatcheck.request_head import RequestHead

Sending = Callable[[list[bytes]], int]
Kept = Callable[[BrowserContext], list[str]]

# A name below localhost is as trusted over http as localhost itself, and may have a Domain.
HOST = "app.localhost"

# The 18 lines of row C8 (tests/core/test_cookies.py), with a domain that covers the host: what each prefix
# promises, kept and broken.
PREFIX_LINES: list[tuple[str, dict[str, Any], bool]] = [
    ("__Secure-a", {}, True),
    ("__Secure-a", {"domain": HOST, "path": "/p", "http_only": False}, True),
    ("__Secure-a", {"secure": False}, False),
    ("__SECURE-a", {"secure": False}, False),
    ("__Host-a", {}, True),
    ("__Host-a", {"http_only": False}, True),
    ("__Host-a", {"secure": False}, False),
    ("__Host-a", {"path": "/p"}, False),
    ("__Host-a", {"domain": HOST}, False),
    ("__hOST-a", {"domain": HOST}, False),
    ("__Http-a", {"domain": HOST, "path": "/p"}, True),
    ("__Http-a", {"http_only": False}, False),
    ("__http-a", {"secure": False}, False),
    ("__Host-Http-a", {}, True),
    ("__Host-Http-a", {"http_only": False}, False),
    ("__Host-Http-a", {"path": "/p"}, False),
    ("__hoST-htTP-a", {"domain": HOST}, False),
    ("__Hostile", {"domain": HOST, "path": "/p", "secure": False, "http_only": False}, True),
]


@pytest.fixture(scope="module")
def one_page(chromium: Browser) -> Iterator[Page]:
    with chromium.new_context() as context:
        yield context.new_page()


@pytest.fixture
def page(one_page: Page) -> Page:
    """A page without a cookie; the browser behind it stays, for it takes longer to start than to forget."""
    one_page.context.clear_cookies()
    return one_page


def now() -> int:
    return time.time_ns() // 1_000_000


def line(name: str, attributes: dict[str, Any]) -> bytes:
    """Return the line of a cookie with these attributes, whatever its name promises."""
    return Cookie("plain", **attributes).header("v", now=now()).replace(b"plain", name.encode(), 1)


@pytest.mark.parametrize(("name", "attributes", "good"), PREFIX_LINES)
def test_c8_chromium_keeps_what_we_construct_and_drops_what_we_refuse(
    page: Page, sending: Sending, kept: Kept, name: str, attributes: dict[str, Any], good: bool
) -> None:
    """Our construction, our reading of Set-Cookie, and the browser judge each of the 18 lines alike (C8, C22)."""
    sent = line(name, attributes)
    page.goto(f"http://{HOST}:{sending([sent])}/p/set")
    assert kept(page.context) == ([name] if good else [])
    assert (parse_set_cookie(sent, now=now()) is not None) is good
    if good:
        assert Cookie(name, **attributes).header("v", now=now()) == sent
    else:
        with pytest.raises(ConfigurationError, match="demands"):
            Cookie(name, **attributes)


DELETED: list[Cookie] = [
    Cookie("__Host-session"),
    Cookie("__Host-refresh", same_site="Strict"),
    Cookie("__Host-Http-session"),
    Cookie("__Secure-sid", path="/p", domain=HOST),
    Cookie("__Host-embedded", same_site="None", partitioned=True),
    Cookie("plain", secure=False, http_only=False),
]


@pytest.mark.parametrize("kind", DELETED, ids=lambda kind: kind.name)
def test_c6_the_deletion_is_taken_by_the_browser(page: Page, sending: Sending, kept: Kept, kind: Cookie) -> None:
    """Stored, then deleted by its twin: gone (C6)."""
    page.goto(f"http://{HOST}:{sending([kind.header('v', now=now())])}/p/set")
    assert kept(page.context) == [kind.name]
    page.goto(f"http://{HOST}:{sending([kind.deletion(now=now())])}/p/set")
    assert page.context.cookies() == []


@pytest.mark.parametrize("missing", [b"; Secure", b"; Path=/"])
def test_c6_a_deletion_without_what_the_prefix_demands_is_refused(
    page: Page, sending: Sending, kept: Kept, missing: bytes
) -> None:
    """This is why the deletion repeats every attribute: without one, the cookie stays (C6)."""
    kind = Cookie("__Host-session")
    page.goto(f"http://{HOST}:{sending([kind.header('v', now=now())])}/p/set")
    page.goto(f"http://{HOST}:{sending([kind.deletion(now=now()).replace(missing, b'')])}/p/set")
    assert kept(page.context) == ["__Host-session"]


HOUR = timedelta(hours=1)
# How a script reads a signed value: docs/concepts/cookie.md shows the same.
READING = """() => {
  const value = document.cookie.split("; ").find(each => each.startsWith("cart=")).slice(5);
  const octets = atob(value.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder().decode(Uint8Array.from(octets, letter => letter.codePointAt(0)));
}"""


def test_a_script_sees_what_was_declared_for_scripts_and_nothing_else(page: Page, sending: Sending, kept: Kept) -> None:
    """A preference and a signed value with `http_only=False`; by default neither those nor a sealed value (C7)."""
    coat = Coatcheck()
    jar = CookieJar(RequestHead("GET", "http", []), coat.clock, coat.keyring, coat.policy)
    jar.set(Cookie("theme", http_only=False), "dark")
    jar.set(SignedCookie("cart", http_only=False, max_age=HOUR), "7 × Füße")
    jar.set(SignedCookie("hidden", max_age=HOUR), "7")
    jar.set(SealedCookie("__Host-draft", max_age=HOUR), "7")
    jar.send(coat.policy.cookie, "ticket")
    page.goto(f"http://{HOST}:{sending([value for _, value in jar.dress([])])}/set")
    assert sorted(kept(page.context)) == ["__Host-draft", "__Host-session", "cart", "hidden", "theme"]
    seen = str(page.evaluate("document.cookie"))
    assert sorted(pair.partition("=")[0] for pair in seen.split("; ")) == ["cart", "theme"]
    assert "theme=dark" in seen
    assert page.evaluate(READING) == "7 × Füße"
