"""The account: your devices, ending them, and the password."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from coatcheck.errors import StoreUnavailable
from coatcheck.server.server import Server
from coatcheck.web.asgi import App

if TYPE_CHECKING:
    from tests.server.pages.conftest import Browser, Clock


pytestmark = pytest.mark.anyio

NAME, PASSWORD, NEW_PASSWORD = "ada", "nine purple umbrellas", "seven quiet elephants"
MINUTE, DAY = 60_000, 86_400_000
COOKIE = "__Host-session"


# --- the account and its devices


async def test_the_account_lists_every_sign_in_and_marks_this_one(
    browser: Browser, phone: Browser, clock: Clock
) -> None:
    """Browser and system in words, when and from where; this device has no button of its own."""
    await phone.sign_in()
    clock.now += 3 * 3_600_000
    await browser.sign_in()
    page = await browser.get("/account")
    this, others = page.text.split("One other device")
    assert "Firefox on Linux This device" in this
    assert "203.0.113.7" in this
    assert "just now" in this
    assert "Safari on iPhone" in others
    assert "2001:db8::7" in others
    assert "3 hours ago" in others
    assert re.search(r'<time datetime="2026-11-18T\d\d:\d\d:\d\dZ">18 Nov 2026, \d\d:\d\d UTC</time>', page.body)
    assert len(page.ids()) == 1


async def test_one_device_alone_has_no_list_of_others(browser: Browser) -> None:
    """With nothing to end there is no button to end it."""
    await browser.sign_in()
    page = await browser.get("/account")
    assert page.ids() == []
    assert "other device" not in page.text
    assert "Sign out everywhere" in page.text


async def test_thirty_devices_are_all_there(browsers: type[Browser], browser: Browser, app: App) -> None:
    """Thirty sign-ins are thirty tickets, each with a button that names it."""
    for _ in range(29):
        await browsers(app).sign_in()
    await browser.sign_in()
    page = await browser.get("/account")
    assert len(set(page.ids())) == 29
    assert "29 other devices" in page.text
    assert "Sign out all 29 others" in page.text


async def test_ending_a_device_ends_that_one(
    browsers: type[Browser], browser: Browser, phone: Browser, app: App
) -> None:
    """The others stay; the ended one is sent to the sign-in at its next click, and told why."""
    third = browsers(app)
    await phone.sign_in()
    phones = phone.jar[COOKIE][1:23]
    await third.sign_in()
    await browser.sign_in()
    answer = await browser.post("/account/devices/end", id=phones)
    assert answer.location == "/account?notice=device-ended"
    assert "That device is signed out." in (await browser.get(answer.location)).text
    out = await phone.get("/account")
    assert parse_qs(urlsplit(out.location).query) == {"next": ["/account"], "notice": ["ended"]}
    assert "Your session has ended" in (await phone.get(out.location)).text
    assert (await third.get("/account")).status == 200


async def test_s14_another_accounts_session_is_not_there(
    browsers: type[Browser], browser: Browser, server: Server, app: App
) -> None:
    """An id that is somebody else's, or nobody's, ends nothing; the answer is the same."""
    await server.accounts.add("bob", await server.passwords.hash(PASSWORD))
    bob = browsers(app)
    await bob.sign_in("bob")
    await browser.sign_in()
    for id in (bob.jar[COOKIE][1:23], "A" * 22, "", "../../etc"):
        answer = await browser.post("/account/devices/end", id=id)
        assert answer.location == "/account?notice=device-unknown"
    assert (await bob.get("/account")).status == 200


async def test_a_device_whose_id_changed_since_the_list_was_made_ends_too(browser: Browser, phone: Browser) -> None:
    """What is on the page may be old by one rotation: the ticket still leads to the session (S4)."""
    await phone.sign_in()
    await browser.sign_in()
    [listed] = (await browser.get("/account")).ids()
    await phone.sign_in()
    assert phone.jar[COOKIE][1:23] != listed
    assert (await browser.post("/account/devices/end", id=listed)).location == "/account?notice=device-ended"
    assert (await phone.get("/account")).status == 303


async def test_ending_this_device_by_its_id_is_a_sign_out(browser: Browser) -> None:
    """The page does not offer it; whoever asks is signed out properly, cookie included."""
    await browser.sign_in()
    answer = await browser.post("/account/devices/end", id=browser.jar[COOKIE][1:23])
    assert answer.location == "/sign-in?notice=signed-out"
    assert not browser.jar


@pytest.mark.parametrize("path", ["/account/devices/end", "/account/devices/end-others"])
async def test_s14_an_old_sign_in_must_be_confirmed_before_devices_are_ended(
    browser: Browser, phone: Browser, clock: Clock, path: str
) -> None:
    """After 30 minutes: to the sign-in, which says why and keeps the name; then it works, under a new id (S4)."""
    await phone.sign_in()
    await browser.sign_in(remember="1")
    clock.now += 31 * MINUTE
    [listed], before = (await browser.get("/account")).ids(), browser.jar[COOKIE]
    turned = await browser.post(path, id=listed)
    form = await browser.get(turned.location)
    assert "Confirm that it is you" in form.text
    assert 'value="ada" readonly' in form.body
    assert "remember" not in form.body
    assert (await phone.get("/account")).status == 200
    fields = {"account": NAME, "confirm": "1", "next": "/account?notice=confirmed"}
    wrong = await browser.post("/sign-in", password="not her password", **fields)
    assert (wrong.status, "Confirm that it is you" in wrong.text) == (422, True)
    assert (await browser.post("/sign-in", password=PASSWORD, **fields)).location == "/account?notice=confirmed"
    assert browser.jar[COOKIE][1:23] != before[1:23]
    assert "Max-Age=" in browser.lines[0]
    assert (await browser.post(path, id=listed)).status == 303
    assert (await phone.get("/account")).status == 303


async def test_s14_29_minutes_are_recent(browser: Browser, phone: Browser, clock: Clock) -> None:
    """Up to 30 minutes nothing is to be confirmed."""
    await phone.sign_in()
    await browser.sign_in()
    clock.now += 29 * MINUTE
    assert (await browser.post("/account/devices/end-others")).location == "/account?notice=others-ended"
    assert (await phone.get("/account")).status == 303
    assert (await browser.get("/account")).status == 200


async def test_signing_out_everywhere_needs_no_recent_sign_in(browser: Browser, phone: Browser, clock: Clock) -> None:
    """It is the alarm button: both are out, and this browser's cookie is taken back."""
    await phone.sign_in()
    await browser.sign_in()
    clock.now += DAY
    answer = await browser.post("/account/sign-out-everywhere")
    assert answer.location == "/sign-in?notice=signed-out-everywhere"
    assert not browser.jar
    assert (await phone.get("/account")).status == 303


@pytest.mark.parametrize("path", ["/sign-out", "/account/sign-out-everywhere"])
async def test_c19_signing_out_clears_cache_and_storage_but_names_no_cookies(browser: Browser, path: str) -> None:
    """Our own cookie is deleted by its name (C6); "cookies" would reach other sites of the domain."""
    await browser.sign_in()
    answer = await browser.post(path)
    assert answer.header("clear-site-data") == '"cache", "storage"'
    assert re.match(rf"{COOKIE}=; Max-Age=0; Expires=.*; Path=/; Secure; HttpOnly; SameSite=Lax$", browser.lines[0])
    assert "You are signed out" in (await browser.get(answer.location)).text


async def test_signing_out_twice_is_no_error(browser: Browser) -> None:
    """Who has no session any more is signed out already."""
    await browser.sign_in()
    stale = dict(browser.jar)
    await browser.post("/sign-out")
    browser.jar = stale
    assert (await browser.post("/sign-out")).location == "/sign-in?notice=signed-out"
    assert not browser.jar


@pytest.mark.parametrize("path", ["/account", "/account/password"])
async def test_who_is_not_signed_in_comes_back_afterwards(browser: Browser, path: str) -> None:
    """Without a cookie there is no talk of a session that ended."""
    answer = await browser.get(path)
    assert parse_qs(urlsplit(answer.location).query) == {"next": [path]}


async def test_a_session_without_its_account_ends(
    browser: Browser, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account that is not there any more, after a restore of the database: no page, no endless redirect."""

    async def get(id: str) -> None:
        return None

    await browser.sign_in()
    monkeypatch.setattr(server.accounts, "get", get)
    answer = await browser.get("/account")
    assert answer.location.startswith("/sign-in")
    assert (await browser.get(answer.location)).status == 200


async def test_a_notice_is_one_of_ours(browser: Browser) -> None:
    """A link cannot put words into a page's mouth."""
    page = await browser.get("/sign-in?notice=Call+0123+and+say+your+password")
    assert "0123" not in page.body
    assert 'role="status"' not in page.body


HOSTILE = "\"><img src=x onerror=alert(1)>'"


async def test_names_and_user_agents_are_text(browsers: type[Browser], server: Server, app: App) -> None:
    """Markup in a name, a user agent or a failed sign-in stays text; directions are isolated."""
    name = "<b>" + HOSTILE
    await server.accounts.add(name, await server.passwords.hash(PASSWORD))
    browser, other = browsers(app, HOSTILE), browsers(app, "<script>" * 30)
    await other.sign_in(name)
    await browser.sign_in(name)
    page = await browser.get("/account")
    assert "<img" not in page.body
    assert "<script" not in page.body
    assert "<bdi>&lt;b&gt;" in page.body
    assert "An unknown browser" in page.text
    assert "<img" not in (await browsers(app).sign_in(name, "wrong")).body


# --- the password


async def test_s12_a_new_password_ends_the_other_sessions(browser: Browser, phone: Browser) -> None:
    """This one goes on under a new id (S4); the old password and the old cookie are of no use."""
    await phone.sign_in()
    await browser.sign_in(remember="1")
    before = dict(browser.jar)
    page = await browser.get("/account/password")
    assert "Every other device is signed out" in page.text
    answer = await browser.post("/account/password", current_password=PASSWORD, new_password=NEW_PASSWORD)
    assert answer.location == "/account?notice=password-changed"
    assert "Max-Age=" in browser.lines[0]
    assert "Your password is changed" in (await browser.get(answer.location)).text
    assert (await phone.get("/account")).status == 303
    assert (await phone.sign_in()).status == 422
    assert (await phone.sign_in(password=NEW_PASSWORD)).status == 303
    browser.jar = before
    assert (await browser.get("/account")).status == 303


@pytest.mark.parametrize(
    ("current", "new", "words", "field"),
    [
        ("not her password", NEW_PASSWORD, "The current password is wrong.", "current_password"),
        (PASSWORD, "short", "At least 15 characters", "new_password"),
        (PASSWORD, "adaadaadaadaadaada", "easy to guess", "new_password"),
    ],
)
async def test_a_refused_password_changes_nothing(
    browsers: type[Browser], browser: Browser, phone: Browser, current: str, new: str, words: str, field: str
) -> None:
    """The form says which field is meant, and nobody is signed out."""
    await phone.sign_in()
    await browser.sign_in()
    page = await browser.post("/account/password", current_password=current, new_password=new)
    assert page.status == 422
    assert words in page.text
    assert re.search(rf'id="{field}"[^>]*aria-invalid="true"', page.body)
    assert len(re.findall("aria-invalid", page.body)) == 1
    assert (await phone.get("/account")).status == 200
    assert (await browsers(browser.app).sign_in()).status == 303


async def test_guessing_the_current_password_is_limited_too(browser: Browser) -> None:
    """A stolen session is no place to try passwords at leisure."""
    await browser.sign_in()
    for _ in range(10):
        await browser.post("/account/password", current_password="wrong", new_password=NEW_PASSWORD)
    page = await browser.post("/account/password", current_password=PASSWORD, new_password=NEW_PASSWORD)
    assert page.status == 429
    assert page.header("retry-after") == "900"


async def test_password_managers_find_the_page(browser: Browser) -> None:
    """/.well-known/change-password leads there; an unknown well-known path is 404, or they would not trust it."""
    answer = await browser.get("/.well-known/change-password")
    assert (answer.status, answer.location) == (302, "/account/password")
    assert (await browser.get("/.well-known/nothing-of-ours")).status == 404


# --- a store that fails


@pytest.mark.parametrize("path", ["/sign-out", "/account/sign-out-everywhere", "/account/devices/end-others"])
async def test_p1_an_ending_that_may_not_be_durable_is_never_called_done(
    browser: Browser, server: Server, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """503, Retry-After, and words that say neither "done" nor "nothing happened"; the cookie stays."""

    async def fail(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the disk is full")

    await browser.sign_in()
    monkeypatch.setattr(server.coat.store, "delete", fail)
    monkeypatch.setattr(server.coat.store, "revoke_subject", fail)
    page = await browser.post(path)
    assert page.status == 503
    assert page.header("retry-after") == "1"
    assert "could not make sure" in page.text
    assert "disk" not in page.text
    assert page.header("set-cookie") is None
