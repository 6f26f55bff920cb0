"""Django's admin on top of coatcheck, used in a real browser, on Django's own server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import django_admin
import pytest
import watchdog
from django_admin import NAME, PASSWORD
from playwright.sync_api import BrowserContext, Page, expect

COOKIE = "__Host-session"
NewContext = Callable[..., BrowserContext]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = [sys.executable, str(django_admin.__file__), str(tmp_path_factory.mktemp("admin"))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    watchdog.watch(process.pid)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        assert port, "the project was not served"
        yield f"http://localhost:{port}/admin/"
    finally:
        process.kill()
        process.wait(30)
        watchdog.forget(process.pid)
        if process.stdout is not None:
            process.stdout.close()


def test_the_admin_works_and_a_cookie_dies_with_the_sign_out(url: str, page: Page, new_context: NewContext) -> None:
    """S4, S10: and messages, the CSRF tokens of forms and "next" do what they did."""
    sign_in(page, f"{url}auth/group/add/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Add group")
    page.get_by_label("Name:").fill("keepers")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text("was added successfully")
    page.get_by_role("link", name="keepers", exact=True).first.click()
    page.get_by_label("Name:").fill("umbrella keepers")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator(".messagelist")).to_contain_text("was changed successfully")
    expect(page.locator("#result_list")).to_contain_text("umbrella keepers")

    thief = new_context()
    kept = {cookie.get("name", ""): cookie.get("value", "") for cookie in page.context.cookies()}
    cookie = {"name": COOKIE, "value": kept[COOKIE], "domain": "localhost", "path": "/", "secure": True}
    thief.add_cookies([cookie])  # type: ignore[list-item] # a plain dictionary
    stolen = thief.new_page()
    stolen.goto(url)
    assert urlsplit(stolen.url).path == "/admin/"

    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Logged out")
    assert [cookie.get("name") for cookie in page.context.cookies()] == ["csrftoken"]
    for seen in (page, stolen):
        seen.goto(url)
        assert urlsplit(seen.url).path == "/admin/login/"


def test_a_new_password_signs_the_other_browsers_out(url: str, page: Page, new_context: NewContext) -> None:
    """S13."""
    other = new_context().new_page()
    sign_in(page, url)
    sign_in(other, url)
    page.goto(f"{url}password_change/")
    page.get_by_label("Old password:").fill(PASSWORD)
    page.get_by_label("New password:").fill("a lantern under the stairs")
    page.get_by_label("New password confirmation:").fill("a lantern under the stairs")
    page.get_by_role("button", name="Change my password").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Password change successful")
    page.goto(url)
    assert urlsplit(page.url).path == "/admin/"
    other.goto(url)
    assert urlsplit(other.url).path == "/admin/login/"


def sign_in(page: Page, url: str) -> None:
    page.goto(url)
    assert urlsplit(page.url).path == "/admin/login/"
    page.get_by_label("Username:").fill(NAME)
    page.get_by_label("Password:").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(url)
