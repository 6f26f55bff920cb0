"""The page /compare: what it sets, shows and ends; and that nobody's real session has anything to do with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import Request

from coatcheck.comparison import Measurements, taught
from coatcheck.core.set_cookie import parse_set_cookie
from coatcheck.errors import StoreUnavailable
from coatcheck.server import compare_demo, compare_page
from coatcheck.server.compare_cookies import COOKIES, PROOFS, received
from coatcheck.server.compare_demo import LIFETIME, MOST_LIVE, PER_ADDRESS, Demo
from coatcheck.server.server import Server

if TYPE_CHECKING:
    from tests.server.pages.conftest import Browser, Clock, Page

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).resolve().parents[3]
MINE = "__Host-session"
DEMO = "__Host-compare-session"
POSTS = ("/measure", "/cookies", "/session", "/session/end", "/remove")


def token_on(page: Page) -> str:
    found = re.search(r'<code id="token">([^<]+)</code>', page.body)
    return found[1] if found else ""


async def check(browser: Browser, token: str = "") -> Page:
    headers = [("authorization", f"Bearer {token}")] if token else []
    return await browser.send("GET", "/compare/check", headers=headers)


# -- the page


async def test_anybody_may_look_and_is_given_nothing(browser: Browser) -> None:
    """No cookie and no session for who only reads (S21); the sign-in page leads here."""
    page = await browser.get("/compare")
    assert page.status == 200
    assert browser.lines == []
    assert page.header("cache-control") == "no-store"
    assert 'href="/compare"' in (await browser.get("/sign-in")).body


async def test_f10_its_policy_lets_its_own_script_run_and_nothing_else(browser: Browser) -> None:
    """The other pages have no script at all; here nothing stands in the page itself."""
    page = await browser.get("/compare")
    directives = set((page.header("content-security-policy") or "").split("; "))
    assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'", "form-action 'self'"} <= directives
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=|https?://", page.body)
    for path in re.findall(r'(?:href|src)="(/static/compare[^"]+)"', page.body):
        assert (await browser.get(path)).status == 200
    assert "script-src" not in ((await browser.get("/sign-in")).header("content-security-policy") or "")


@pytest.mark.parametrize("path", POSTS)
async def test_f6_no_other_site_can_press_a_button(browser: Browser, path: str) -> None:
    page = await browser.send("POST", f"/compare{path}", headers=[("sec-fetch-site", "cross-site")])
    assert page.status == 403
    assert browser.lines == []


# -- cookies


async def test_every_kind_of_cookie_is_one_that_browsers_take(browser: Browser) -> None:
    """The attributes are those that the page shows, and what they promise is so (C8, C10, C11)."""
    await browser.post("/compare/cookies")
    assert len(browser.lines) == len(COOKIES)
    for line, cookie in zip(browser.lines, COOKIES, strict=True):
        stored = parse_set_cookie(line.encode(), now=0)
        assert stored is not None, line
        assert stored.name.decode() == cookie.name
        assert stored.http_only is not cookie.script
        assert (stored.expires_at is not None) is cookie.survives


async def test_the_page_shows_what_came_and_of_our_other_cookies_nothing(browser: Browser) -> None:
    await browser.sign_in()
    await browser.post("/compare/cookies")
    del browser.jar["compare-strict"]
    page = await browser.get("/compare")
    rows = dict(re.findall(r'data-cookie="([^"]+)".*?class="came"><span>(<b|no)', page.body, re.DOTALL))
    assert rows == {cookie.name: "no" if cookie.name == "compare-strict" else "<b" for cookie in COOKIES}
    assert browser.jar[MINE] not in page.body


def test_only_the_demonstrations_cookies_are_read() -> None:
    """Whatever else the browser has is nobody's business here."""
    assert received([b"__Host-session=1secret; compare-plain=x", b"compare-lax=y"]) == {
        "compare-plain": "x",
        "compare-lax": "y",
    }


TOLD = [
    ((), "None of them is here"),
    (("compare-plain", "compare-lasting"), "This is the browser session in which they were set"),
    (("compare-lasting",), "another browser session"),
    (("compare-plain",), "has expired or was removed"),
]


@pytest.mark.parametrize(("kept", "words"), TOLD)
async def test_a_marker_that_lasts_tells_whether_the_browser_was_closed(
    browser: Browser, kept: tuple[str, ...], words: str
) -> None:
    await browser.post("/compare/cookies")
    browser.jar = {name: value for name, value in browser.jar.items() if name in kept}
    assert words in (await browser.get("/compare")).text


async def test_cookies_of_two_browser_sessions_are_told_apart(browser: Browser) -> None:
    await browser.post("/compare/cookies")
    lasting = browser.jar["compare-lasting"]
    await browser.post("/compare/cookies")
    browser.jar["compare-lasting"] = lasting
    assert "another time" in (await browser.get("/compare")).text


async def test_one_button_removes_all_of_them_and_ends_the_session(browser: Browser) -> None:
    """All but the visitor's real one (C6)."""
    await browser.sign_in()
    await browser.post("/compare/cookies")
    await browser.post("/compare/session")
    token = token_on(await browser.get("/compare"))
    assert len(browser.jar) == len(COOKIES) + 2
    await browser.post("/compare/remove")
    assert set(browser.jar) == {MINE}
    assert (await check(browser, token)).status == 401
    assert (await browser.get("/account")).status == 200


# -- the session and its token


async def test_a_session_and_its_token_are_good_until_one_button_ends_both(browser: Browser) -> None:
    await browser.post("/compare/session")
    page = await browser.get("/compare")
    token = token_on(page)
    assert (await check(browser)).status == (await check(browser, token)).status == 200
    subject = json.loads((await check(browser, token)).body)["subject"]
    assert re.fullmatch(r"demo-[0-9a-f]{8}", subject)
    assert subject in page.text
    await browser.post("/compare/session/end")
    for answer in (await check(browser), await check(browser, token)):
        assert (answer.status, json.loads(answer.body)["code"]) == (401, "revoked")
    assert DEMO in browser.jar
    assert "has ended, and its cookie is refused" in (await browser.get("/compare")).text


async def test_s17_the_record_is_shown_without_its_secret(browser: Browser) -> None:
    await browser.post("/compare/session")
    page = await browser.get("/compare")
    id_, _, secret = browser.jar[DEMO].partition(".")
    assert id_[1:] in page.body
    assert secret not in page.body
    assert "digest not shown" in page.text


async def test_every_part_of_the_token_is_explained(browser: Browser) -> None:
    await browser.post("/compare/session")
    claims = compare_demo.token_facts(token_on(await browser.get("/compare")))
    assert {"alg", "iss", "sub", "aud", "exp", "iat", "sid"} <= {fact.name for fact in claims}
    assert [fact.name for fact in claims if not fact.means] == []


async def test_what_is_handed_out_here_is_good_nowhere_else(browser: Browser, server: Server) -> None:
    """Anybody can have it: so it must be refused by the server's API, and by whoever verifies the server's tokens."""
    await browser.post("/compare/session")
    token = token_on(await browser.get("/compare"))
    assert (await browser.send("GET", "/api/session", headers=[("authorization", f"Bearer {token}")])).status == 401
    browser.jar = {MINE: browser.jar[DEMO], "__Host-access": token}
    assert (await browser.get("/account")).status == 303
    assert await server.coat.store.load(json.loads((await check(browser, token)).body)["session_id"]) is None


async def test_the_real_session_is_neither_used_nor_ended(browser: Browser) -> None:
    await browser.sign_in()
    real = browser.jar[MINE]
    assert (await check(browser)).status == 401
    for path in POSTS[1:]:
        await browser.post(f"/compare{path}")
    assert browser.jar == {MINE: real}
    assert (await browser.get("/account")).status == 200


async def test_s7_a_session_ends_by_itself_after_minutes(browser: Browser, clock: Clock) -> None:
    await browser.post("/compare/session")
    token = token_on(await browser.get("/compare"))
    clock.now += LIFETIME.seconds * 1000 + 60_000
    assert (await check(browser)).status == (await check(browser, token)).status == 401


async def test_p9_an_address_begins_only_so_many(browser: Browser, phone: Browser, clock: Clock) -> None:
    """429 with a Retry-After that is true; others are not concerned."""
    for _ in range(PER_ADDRESS):
        assert (await browser.post("/compare/session")).status == 303
    refused = await browser.post("/compare/session")
    assert refused.status == 429
    assert (await phone.post("/compare/session")).status == 303
    clock.now += int(refused.header("retry-after") or "0") * 1000 + 1000
    assert (await browser.post("/compare/session")).status == 303


async def test_p9_there_are_only_so_many_sessions(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """The oldest makes room."""
    monkeypatch.setattr(compare_demo, "MOST_LIVE", 3)
    assert MOST_LIVE <= 1000
    demo = Demo("http://localhost:8000", clock)

    def head() -> Any:
        return Request(
            {"type": "http", "method": "POST", "headers": [], "scheme": "http", "client": ("192.0.2.1", 1)}
        ).scope

    begun = []
    for _ in range(5):
        found = await demo.visit(head())
        await demo.start(found)
        begun.append(found.session.id or "")
    live = [id_ for id_ in begun if await demo.coatcheck.store.load(id_) is not None]
    assert live == begun[2:]


# -- the table


async def test_every_word_is_a_link_to_the_test_that_proves_it(browser: Browser) -> None:
    """Before anything was measured, too; and so is what is said of cookies and cannot be seen on the page."""
    page = await browser.get("/compare")
    links = re.findall(r'href="#proof-(\d+)"', page.body)
    listed = dict(re.findall(r'<li id="proof-(\d+)"><code>([^<]+)</code>', page.body))
    assert set(links) == set(listed)
    said = [proof for row in taught() for cell in row.cells.values() for proof in cell.proofs]
    assert [listed[number] for number in links] == [*said, *PROOFS]
    for proof in PROOFS:
        file, _, name = proof.partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")


async def test_it_is_said_that_the_session_needs_https(browser: Browser) -> None:
    """Elsewhere browsers drop its cookie, and the button does nothing that could be seen."""
    assert "Its cookie is Secure" in (await browser.get("/compare")).text


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts the measurements, none of which takes its two seconds, and breaks while it says so."""
    done: list[str] = []

    def compare() -> Measurements:
        done.append("measured")
        if "broken" in done:
            raise StoreUnavailable("no room for temporary files")
        return Measurements({}, 0.0)

    monkeypatch.setattr(compare_page, "compare", compare)
    monkeypatch.setattr(compare_page, "report", lambda _: "report")
    return done


async def test_p9_looking_measures_nothing_and_a_button_does_once(browser: Browser, measuring: list[str]) -> None:
    """Nobody can load the server with it."""
    assert "Measure now" in (await browser.get("/compare")).text
    assert measuring == []
    for _ in range(3):
        assert (await browser.post("/compare/measure")).location == "/compare#table"
    assert measuring == ["measured"]


async def test_p9_after_a_failure_it_is_not_tried_again_at_once(browser: Browser, measuring: list[str]) -> None:
    measuring.append("broken")
    for _ in range(3):
        assert (await browser.post("/compare/measure")).status == 503
    assert measuring == ["broken", "measured"]
