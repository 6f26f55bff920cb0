"""The page /compare in a real browser: what it sends, what a script sees, and what is refused when."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import BrowserContext, Locator, Page, Request, ViewportSize, expect

if TYPE_CHECKING:
    from tests.browser.conftest import Served

NewContext = Callable[..., BrowserContext]
SIZES: dict[str, ViewportSize] = {
    "desktop": {"width": 1280, "height": 800},
    "tablet": {"width": 850, "height": 800},
    "phone": {"width": 390, "height": 844},
    "narrow": {"width": 320, "height": 256},
}
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
SMALL_TARGETS = """least => [...document.querySelectorAll('button, .button')]
    .filter(element => element.checkVisibility())
    .filter(element => element.getBoundingClientRect().height < least)
    .map(element => element.outerHTML)"""

# By itself, this Chromium blocks them.
THIRD_PARTY_COOKIES = '{"profile": {"cookie_controls_mode": 0, "block_third_party_cookies": false}}'

HIDDEN = {"compare-httponly", "__Host-compare-ours"}
LASTING = {"compare-lasting"}
ALL = {
    "compare-plain",
    "compare-httponly",
    "compare-secure",
    "compare-lax",
    "compare-strict",
    "compare-none",
    "compare-partitioned",
    "compare-lasting",
    "__Host-compare",
    "__Host-compare-ours",
}


@pytest.fixture
def watched(new_context: NewContext) -> Iterator[Page]:
    """A page whose console must stay empty, but for the refusals that were asked for."""
    page = new_context().new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    yield page
    assert [text for text in said if "the server responded with a status of 401" not in text] == []


def marked(page: Page, column: str) -> set[str]:
    """The names of the cookies whose row says yes in a column."""
    rows = page.locator("[data-cookie]")
    return {
        row.get_attribute("data-cookie") or ""
        for row in rows.all()
        if row.locator(column).inner_text().startswith("yes")
    }


def sent(request: Request) -> set[str]:
    """The names of the demonstration's cookies in a request."""
    header = request.all_headers().get("cookie", "")
    return {pair.partition("=")[0] for pair in header.split("; ")} & ALL


def set_cookies(page: Page, url: str) -> None:
    page.goto(f"{url}/compare")
    page.get_by_role("button", name="Set the cookies").click()
    expect(page.locator(".came .yes")).to_have_count(len(ALL))


def test_a_script_sees_what_the_table_says(served: Served, watched: Page) -> None:
    """All come to the server; what is HttpOnly no script sees, and the table says the same as document.cookie."""
    set_cookies(watched, served.url)
    assert marked(watched, ".came") == ALL
    seen = {pair.partition("=")[0] for pair in watched.evaluate("document.cookie").split("; ")}
    assert seen == marked(watched, ".seen") == ALL - HIDDEN


def test_what_travels_from_another_site_is_what_the_table_says(
    served: Served, restarted: Callable[[], BrowserContext], elsewhere: Callable[[str], int], tmp_path: Path
) -> None:
    """By a link all but the Strict one; with a picture in the other site's page, only SameSite=None, unpartitioned."""
    settings = tmp_path / "profile" / "Default" / "Preferences"
    settings.parent.mkdir(parents=True)
    settings.write_text(THIRD_PARTY_COOKIES, encoding="utf-8")
    page = restarted().new_page()
    set_cookies(page, served.url)
    url = f"{served.url}/compare"
    # Of the same host on another port, which to cookies is the same: of our own server's answers, none of which other
    # sites may show, the browser tells too little.
    picture_url = f"http://localhost:{elsewhere('')}/compare"
    port = elsewhere(f'<a id="link" href="{url}">there</a><img src="{picture_url}" alt="">')
    with page.expect_response(picture_url) as picture:
        page.goto(f"http://evil.test:{port}/")
    assert sent(picture.value.request) == {"compare-none"}
    page.click("#link")
    page.wait_for_url(url)
    assert marked(page, ".came") == ALL - {"compare-strict"}


def test_c5_after_a_restart_the_page_knows_that_it_is_another_browser_session(
    served: Served, restarted: Callable[[], BrowserContext]
) -> None:
    """The lasting one is still there, and nothing else."""
    page = restarted().new_page()
    set_cookies(page, served.url)
    expect(page.locator("#cookies .told")).to_contain_text("This is the browser session in which they were set")
    page = restarted().new_page()
    page.goto(f"{served.url}/compare")
    assert marked(page, ".came") == LASTING
    expect(page.locator("#cookies .told")).to_contain_text("another browser session")


def test_ending_a_session_the_browser_measures_when_cookie_and_token_are_refused(served: Served, watched: Page) -> None:
    """Begun, decoded, ended by one button, refused; begun again, and everything taken back by another."""
    watched.goto(f"{served.url}/compare")
    watched.get_by_role("button", name="Begin a session").click()
    expect(watched.get_by_role("row", name=re.compile("^sid"))).to_contain_text("when that ends, it is refused")
    check = "way => fetch('/compare/check', way).then(answer => answer.status)"
    token = watched.locator("#token").inner_text()
    ways: tuple[Any, Any] = ({}, {"credentials": "omit", "headers": {"Authorization": f"Bearer {token}"}})
    assert [watched.evaluate(check, way) for way in ways] == [200, 200]

    watched.get_by_role("button", name="End the session").click()
    told = watched.locator("#refused")
    expect(told).to_contain_text(re.compile(r"The session’s cookie was refused \d+ ms after you pressed the button"))
    expect(told).to_contain_text(re.compile(r"The token was refused \d+ ms after you pressed the button"))
    expect(watched.get_by_role("button", name="End the session")).to_be_hidden()
    assert [watched.evaluate(check, way) for way in ways] == [401, 401]

    watched.get_by_role("button", name="Begin another").click()
    expect(watched.get_by_role("button", name="End the session")).to_be_visible()
    watched.get_by_role("button", name="Remove the cookies").click()
    watched.wait_for_url("**/compare#cookies")
    assert watched.context.cookies() == []


def test_the_page_works_without_its_script(served: Served, new_context: NewContext) -> None:
    """All but what only a script can tell: the cookies, a session, its end, and what is taken back."""
    page = new_context(java_script_enabled=False).new_page()
    set_cookies(page, served.url)
    expect(page.locator(".seen").first).to_have_text("only a script can tell")
    page.get_by_role("button", name="Begin a session").click()
    page.get_by_role("button", name="End the session").click()
    expect(page.locator("#session .told")).to_contain_text("its cookie is refused. So is its token.")
    page.get_by_role("button", name="Remove the cookies").click()
    page.wait_for_url("**/compare#cookies")
    assert page.context.cookies() == []


def test_a_number_behind_a_word_leads_to_its_test(served: Served, watched: Page) -> None:
    """Though the list is closed, and by no script."""
    watched.goto(f"{served.url}/compare")
    expect(watched.locator("#proof-1")).to_be_hidden()
    watched.get_by_role("link", name="Test 1", exact=True).click()
    expect(watched.locator("#proof-1")).to_be_in_viewport()
    expect(watched.locator("#proof-1")).to_contain_text("tests/desks/test_sessions.py::")


def test_keyboard_gets_past_the_notes_of_the_table(fresh: Served, watched: Page) -> None:
    """WCAG 2.4.1: one link skips the dozens in the table, from the page's beginning and from what was measured."""

    def step(*keys: str) -> Locator:
        for key in keys:
            watched.keyboard.press(key)
        return watched.locator(":focus")

    watched.goto(f"{fresh.url}/compare")
    step("Tab", "Enter")  # skips to the content
    skip = "Skip the table and its notes"
    assert watched.locator(".marks a").count() > 40
    expect(step("Tab", "Tab")).to_have_text(skip)
    expect(watched.get_by_role("link", name=skip)).to_be_in_viewport()
    expect(step("Enter", "Tab")).to_have_text("Measure now")
    watched.keyboard.press("Enter")
    watched.wait_for_url("**/compare#table")
    expect(step("Tab")).to_have_text(skip)
    expect(step("Enter", "Tab")).to_have_text("Set the cookies")


def look(page: Page, scheme: Literal["light", "dark"], size: str) -> None:
    """Judge the page that is open in a scheme and a size."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(SIZES[size])
    assert page.evaluate(OVERFLOW) <= 0, f"{page.url} is wider than {size}"
    assert page.evaluate(SMALL_TARGETS, 44 if size == "phone" else 24) == []
    found = Axe().run(page, options=AXE)
    assert found.violations_count == 0, f"{page.url} {scheme} {size}: {found.generate_report()}"


def test_it_is_accessible_and_whole(served: Served, watched: Page) -> None:
    """Before anything; and with everything on it: measured, cookies set, a session begun, and ended."""
    watched.goto(f"{served.url}/compare")
    look(watched, "light", "phone")
    set_cookies(watched, served.url)
    watched.get_by_role("button", name="Begin a session").click()
    watched.get_by_role("button", name="Measure now").click()
    watched.wait_for_url("**/compare#table")
    watched.locator("summary").click()
    look(watched, "light", "desktop")
    expect(watched.get_by_role("row", name=re.compile("^look-ups a request 1 0 0 0"))).to_be_visible()
    watched.get_by_role("button", name="End the session").click()
    expect(watched.locator("#refused")).to_contain_text("The token was refused")
    look(watched, "dark", "phone")
    for size in ("tablet", "narrow"):
        watched.set_viewport_size(SIZES[size])
        assert watched.evaluate(OVERFLOW) <= 0, f"wider than {size}"
