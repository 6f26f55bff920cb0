"""Requests and redirects that another site would like to make: sign-in, sign-out, `next`."""

from __future__ import annotations

from typing import Any

import pytest

from coatcheck.core.redirects import local_path

pytestmark = pytest.mark.anyio

# What a browser sends with a form of another site: a new browser, one without Fetch Metadata, one before Origin.
FOREIGN: list[list[tuple[str, str]]] = [
    [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")],
    [("sec-fetch-site", "cross-site")],
    [("sec-fetch-site", "same-site"), ("origin", "https://other.app.example")],
    [("sec-fetch-site", "same-origin, cross-site")],
    [("sec-fetch-site", "")],
    [("origin", "https://evil.example")],
    [("origin", "null")],
    [("origin", "http://app.example")],
    [("origin", "https://app.example.evil.example")],
    [("origin", "https://app.example:444")],
    [("origin", "https://app.example"), ("origin", "https://evil.example")],
    [("referer", "https://evil.example/app.example/")],
    [("referer", "https://app.example@evil.example/")],
    [("referer", "https://evil.example\\@app.example/")],
]
OUR_OWN: list[list[tuple[str, str]]] = [
    [("sec-fetch-site", "same-origin"), ("origin", "https://app.example")],
    [("origin", "https://app.example")],
    [("referer", "https://app.example/form")],
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_another_site_signs_nobody_in(world: Any, headers: Any) -> None:
    """Login CSRF (Barth, Jackson, Mitchell, 2008): the victim works in the attacker's account without noticing."""
    victim = world.browser()
    answer = await victim("/sign-in", headers=headers)
    assert (answer.status, victim.jar) == (403, {})
    assert await world.store.list("ann") == []


@pytest.mark.parametrize("headers", FOREIGN)
async def test_another_site_signs_nobody_out(world: Any, headers: Any) -> None:
    """Logout CSRF: a page ends the victim's session, often to make the next sign-in the attacker's."""
    victim = world.browser()
    await victim("/sign-in")
    assert (await victim("/sign-out", headers=headers)).status == 403
    assert (await victim("/me")).body == "ann"


@pytest.mark.parametrize("headers", OUR_OWN)
async def test_our_own_pages_sign_in_and_out(world: Any, headers: Any) -> None:
    """The control: what is refused above is refused for where it comes from."""
    browser = world.browser()
    assert (await browser("/sign-in", headers=headers)).status == 200
    assert (await browser("/sign-out", headers=headers)).body == "True"


async def test_a_method_in_another_spelling_is_not_a_safe_one(world: Any) -> None:
    """A judge that folds case or knows only POST lets the others through."""
    for method in ("get", "Head", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "", "POST "):
        answer = await world.browser()("/sign-in", method=method, headers=FOREIGN[0])
        assert answer.status == 403, method


async def test_a_credential_that_browsers_add_does_not_switch_the_judgement_off(world: Any) -> None:
    """Only a bearer token in a header shows that no foreign page made the request: Basic, an empty or a doubled
    header do not."""
    for values in (["Basic YW5uOnB3"], ["Bearer"], ["Bearer "], ["Negotiate x"], ["Bearer a", "Bearer b"]):
        headers = [*FOREIGN[0], *(("authorization", value) for value in values)]
        assert (await world.browser()("/sign-in", headers=headers)).status == 403, values


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "\t//evil.example",
        " //evil.example",
        "/\n/evil.example",
        "https:evil.example",
        "https:/evil.example",
        "javascript:alert(1)",
        "/%2fevil.example",
        "/%5cevil.example",
        "/.//evil.example",
        "/..//evil.example",
        "/\u2215evil.example",
        "/\uff0fevil.example",
        "http:999999999",
        "@evil.example",
        "/x\r\nLocation: https://evil.example",
        "",
    ],
)
def test_next_leads_nowhere_else(target: str) -> None:
    """Open redirects: a link to our sign-in page ends on the attacker's copy of it (a class of its own; browsers
    drop tabs and newlines, and take backslashes for slashes)."""
    assert local_path(target, "/home") == "/home"
    assert local_path("/account?tab=devices", "/home") == "/account?tab=devices"
