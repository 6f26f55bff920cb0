"""Flask-Login on our sessions in a real Chromium: the application that docs/how-to/use-flask.md shows, as it stands."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import BrowserContext, Page
from werkzeug.serving import make_server

from coatcheck import Coatcheck
from coatcheck.run import run

T = TypeVar("T")

PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/use-flask.md"


@dataclass
class Site:
    url: str
    coat: Coatcheck


@pytest.fixture
def site() -> Iterator[Site]:
    found = re.search(r"<!-- flask-login -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    names: dict[str, Any] = {"__name__": "shown"}
    exec(compile(found[1], str(PAGE), "exec"), names)  # noqa: S102
    server = make_server("127.0.0.1", 0, names["app"], threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Site(f"http://localhost:{server.server_port}", names["coat"])
    server.shutdown()
    thread.join()
    server.server_close()
    names["app"].wsgi_app.background.close()


def log_in(page: Page, site: Site, name: str = "ann") -> None:
    page.goto(site.url)  # which leads to the form
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", "four words of mine")
    page.click("button")
    page.wait_for_selector(f"h1:text('hello {name}')")


def done(coroutine: Coroutine[Any, Any, T]) -> T:
    """Finish a coroutine in another thread: in this one runs the event loop of the browser's driver."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run, coroutine).result()


def cookies(context: BrowserContext) -> dict[str, Any]:
    return {cookie.get("name", ""): cookie for cookie in context.cookies()}


def test_signing_in_and_out(site: Site, new_context: Callable[..., BrowserContext]) -> None:
    """C7, C19: one cookie, hidden from scripts, of a session that has its subject; both end when it does."""
    context = new_context()
    page = context.new_page()
    log_in(page, site)
    [(name, cookie)] = cookies(context).items()
    assert (name, cookie["httpOnly"], cookie["secure"], cookie["expires"]) == ("__Host-session", True, True, -1)
    assert page.evaluate("document.cookie") == ""
    [session] = done(site.coat.sessions.list("ann"))
    assert "Chrome" in session.device.user_agent
    page.click("button")
    page.wait_for_selector("input[name=password]")
    assert done(site.coat.sessions.list("ann")) == []
    # The flash of "please log in" is in a new visit.
    assert cookies(context)["__Host-session"]["value"] != cookie["value"]
    context.add_cookies([cookie])
    page.goto(site.url)
    page.wait_for_selector("input[name=password]")


def test_s4_who_knew_the_id_before_the_login_is_not_logged_in(
    site: Site, new_context: Callable[..., BrowserContext]
) -> None:
    """The flash of "please log in" has made a visit; the login has another id, and the old one is dead."""
    victim, attacker = new_context(), new_context()
    page = victim.new_page()
    page.goto(site.url)
    known = victim.cookies()
    assert [cookie.get("name") for cookie in known] == ["__Host-session"]
    attacker.add_cookies(known)  # type: ignore[arg-type]  # what it returns is what it takes
    log_in(page, site)
    assert cookies(victim)["__Host-session"]["value"] != known[0].get("value")
    other = attacker.new_page()
    other.goto(site.url)
    assert other.url.startswith(f"{site.url}/login")


def test_another_login_in_the_same_browser_takes_its_place(
    site: Site, new_context: Callable[..., BrowserContext]
) -> None:
    """P4: nothing of ann's comes along to bob; signed out everywhere, he sees the form."""
    page = new_context().new_page()
    log_in(page, site)
    page.goto(f"{site.url}/login")
    page.fill("input[name=name]", "bob")
    page.fill("input[name=password]", "four words of mine")
    page.check("input[name=remember]")
    page.click("button")
    page.wait_for_selector("h1:text('hello bob')")
    assert cookies(page.context)["__Host-session"]["expires"] > 0
    assert done(site.coat.sessions.list("ann")) == []
    assert done(site.coat.sessions.revoke_all("bob")) == 1
    page.goto(site.url)
    page.wait_for_selector("input[name=password]")
