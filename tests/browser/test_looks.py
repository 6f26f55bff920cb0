"""Every page, in light and dark, on a phone and a desk: accessible, whole, and within its own policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import BrowserContext, Page

if TYPE_CHECKING:
    from tests.browser.conftest import Served

NewContext = Callable[..., BrowserContext]
NAME, PASSWORD = "ada", "nine purple umbrellas"

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
# The last is 1280 px at a zoom of 400 %, where WCAG wants one column (1.4.10); 200 % lies between.
SIZES = {"desktop": (1280, 800), "phone": (390, 844), "narrow": (320, 256)}
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}

SMALL_TARGETS = """least => [...document.querySelectorAll('button, .button, input:not([type=hidden]), .aside a')]
    .filter(element => element.checkVisibility())
    .map(element => (element.type === 'checkbox' ? element.parentElement : element))
    .filter(element => element.getBoundingClientRect().height < least)
    .map(element => element.outerHTML)"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def watched(new_context: NewContext) -> Iterator[Page]:
    """A page whose console must stay empty: the browser reports there what the policy forbids."""
    page = new_context().new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    yield page
    # An error's status is reported there as well, and is what was asked for.
    assert [text for text in said if "the server responded with a status of" not in text] == []


def look(page: Page) -> None:
    """Judge the page that is open in each scheme and size."""
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for size, (width, height) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate(OVERFLOW) <= 0, f"{page.url} is wider than {size}"
            assert page.evaluate(SMALL_TARGETS, 44 if size == "phone" else 24) == []
            if size != "narrow":
                found = Axe().run(page, options=AXE)
                assert found.violations_count == 0, f"{page.url} {scheme} {size}: {found.generate_report()}"


def test_setting_up(fresh: Served, watched: Page) -> None:
    """Before there is an account: the word about the link, the form, its refusal, and the used link."""
    watched.goto(fresh.url)
    look(watched)
    watched.goto(fresh.set_up_link)
    look(watched)
    watched.fill("#account", NAME)
    watched.fill("#password", "password password password")
    watched.click("button.main")
    look(watched)
    watched.fill("#password", PASSWORD)
    watched.click("button.main")
    watched.wait_for_url("**/account*")
    look(watched)
    watched.goto(fresh.set_up_link)
    look(watched)


def test_signing_in(served: Served, watched: Page) -> None:
    """The form, its refusal, and its notice."""
    watched.goto(f"{served.url}/sign-in")
    look(watched)
    watched.fill("#account", "nobody")
    watched.fill("#password", "wrong")
    watched.click("button.main")
    look(watched)
    watched.goto(f"{served.url}/sign-in?notice=signed-out")
    look(watched)


def test_the_account(served: Served, watched: Page, new_context: NewContext, sign_in: Callable[..., None]) -> None:
    """With other devices, whose user agents are long and strange; confirming; the password and its refusal."""
    for agent in (
        "x" * 250,
        "<b>" + "bold " * 40,
        "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    ):
        sign_in(new_context(user_agent=agent).new_page(), served.url)
    sign_in(watched, served.url)
    look(watched)
    for path in ("/sign-in?confirm=1", "/account/password"):
        watched.goto(served.url + path)
        look(watched)
    watched.fill("#current_password", "wrong")
    watched.fill("#new_password", PASSWORD)
    watched.click("button.main")
    look(watched)


@pytest.mark.parametrize("path", ["/nothing-here", "/sign-out"])
def test_errors(served: Served, watched: Page, path: str) -> None:
    """404 and 405; the others are the same page with other words."""
    watched.goto(served.url + path)
    look(watched)


def test_a_name_as_long_as_names_may_be(served: Served, page: Page, sign_in: Callable[..., None]) -> None:
    """64 wide letters, written from right to left, stay within the page on a phone."""
    sign_in(page, served.url)
    page.set_viewport_size({"width": 320, "height": 600})
    page.evaluate("name => { document.querySelector('h1 bdi').textContent = name }", "م" * 8 + "W" * 56)
    assert page.evaluate(OVERFLOW) <= 0
    assert page.evaluate("getComputedStyle(document.querySelector('h1 bdi')).direction") in ("ltr", "rtl")


def test_keyboard_reaches_the_content_first(served: Served, page: Page, sign_in: Callable[..., None]) -> None:
    """The first Tab is the skip link, which then shows itself; every stop has a visible focus."""
    sign_in(page, served.url)
    page.keyboard.press("Tab")
    link = page.get_by_role("link", name="Skip to the content")
    assert link.evaluate("element => element === document.activeElement")
    assert link.evaluate("element => element.getBoundingClientRect().top >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    stops = page.locator("main :is(a, button)").count()
    for _ in range(stops):
        page.keyboard.press("Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
