"""What all pages have in common: headers, landmarks, errors, files, times in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from coatcheck.server.rendering import Moment, absolute, relative

if TYPE_CHECKING:
    from tests.server.pages.conftest import Browser


pytestmark = pytest.mark.anyio

NAME, PASSWORD, NEW_PASSWORD = "ada", "nine purple umbrellas", "seven quiet elephants"
MINUTE, DAY = 60_000, 86_400_000
COOKIE = "__Host-session"


# --- what all pages have in common

PAGES = [
    (False, "/sign-in"),
    (False, "/sign-in?notice=signed-out"),
    (False, "/nothing-here"),
    (True, "/sign-in?confirm=1"),
    (True, "/account"),
    (True, "/account/password"),
    (True, "/set-up/guess"),
]


@pytest.mark.parametrize(("signed_in", "path"), PAGES)
async def test_f10_a_page_has_the_strict_headers_and_nothing_that_they_forbid(
    browser: Browser, path: str, signed_in: bool
) -> None:
    """No script, no style in the page, nothing from elsewhere; no cache keeps it (C18)."""
    if signed_in:
        await browser.sign_in()
    page = await browser.get(path)
    policy = page.header("content-security-policy") or ""
    for directive in ("default-src 'none'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'"):
        assert directive in policy
    assert page.header("x-content-type-options") == "nosniff"
    assert page.header("referrer-policy") == "same-origin"
    assert page.header("cache-control") == "no-store"
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|https?://", page.body)


@pytest.mark.parametrize(("signed_in", "path"), PAGES)
async def test_a_page_has_a_title_a_language_and_landmarks(browser: Browser, path: str, signed_in: bool) -> None:
    """The title names the page first; one heading, one main part; every field has a label."""
    if signed_in:
        await browser.sign_in()
    page = await browser.get(path)
    assert page.body.startswith('<!doctype html>\n<html lang="en">')
    assert re.search(r"<title>[A-Z][^<]+ – coatcheck</title>", page.body)
    assert page.body.count("<h1>") == 1
    assert page.body.count("<main") == 1
    fields = re.findall(r'<input id="(\w+)"', page.body)
    assert all(f'<label for="{field}">' in page.body for field in fields)


FIELDS = [
    ("/sign-in", {"account": "username", "password": "current-password"}),
    (
        "/account/password",
        {"account": "username", "current_password": "current-password", "new_password": "new-password"},
    ),
]


@pytest.mark.parametrize(("path", "fields"), FIELDS)
async def test_password_managers_know_the_fields(browser: Browser, path: str, fields: dict[str, str]) -> None:
    """Stable names and the autocomplete words; no maxlength, which would cut a pasted password."""
    if path != "/sign-in":
        await browser.sign_in()
    page = await browser.get(path)
    for name, word in fields.items():
        assert re.search(rf'<input[^>]*name="{name}"[^>]*autocomplete="{word}"', page.body)
    assert "maxlength" not in page.body


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nothing-here", 404, "nothing here"),
        ("GET", "/static/pages.py", 404, "nothing here"),
        ("GET", "/sign-out", 405, "not how this page works"),
        ("DELETE", "/account", 405, "not how this page works"),
    ],
)
async def test_errors_are_pages_that_say_what_to_do(
    browser: Browser, method: str, path: str, status: int, words: str
) -> None:
    """Human words, the status, and a way on."""
    page = await browser.send(method, path)
    assert page.status == status
    assert words in page.text
    assert f"No. {status}" in page.text
    assert 'href="/"' in page.body


async def test_static_files_are_kept_for_as_long_as_they_are_the_same(browser: Browser) -> None:
    """Named with its hash a file may be kept for a year; without, it is asked for again."""
    page = await browser.get("/sign-in")
    for path in re.findall(r'href="(/static/[^"]+)"', page.body):
        file = await browser.get(path)
        assert file.status == 200
        assert file.header("cache-control") == "public, max-age=31536000, immutable"
        assert (await browser.get(path.partition("?")[0])).header("cache-control") == "no-cache"


NOW = 1_795_004_800_000
TIMES = [
    (NOW, "just now"),
    (NOW + DAY, "just now"),
    (NOW - 2 * MINUTE + 1, "just now"),
    (NOW - 2 * MINUTE, "2 minutes ago"),
    (NOW - 119 * MINUTE, "119 minutes ago"),
    (NOW - 120 * MINUTE, "2 hours ago"),
    (NOW - 2 * DAY, "2 days ago"),
    (NOW - 30 * DAY, "30 days ago"),
    (NOW - 31 * DAY, "18 Oct 2026, 12:26 UTC"),
]


@pytest.mark.parametrize(("at", "words"), TIMES)
def test_times_in_words(at: int, words: str) -> None:
    """Near times by their distance, far ones by their date; another process's clock may be ahead of ours."""
    assert relative(at, NOW).words == words


def test_times_for_machines() -> None:
    """A <time> carries the full time in UTC."""
    assert absolute(NOW) == Moment("2026-11-18T12:26:40Z", "18 Nov 2026, 12:26 UTC")
    assert relative(NOW - 5 * MINUTE, NOW).machine == "2026-11-18T12:21:40Z"
