"""Setting up, signing in: who is let in, what is said to who is not, and where they go."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import pytest

from coatcheck.server.app import create_app
from coatcheck.server.passwords import Busy
from coatcheck.server.server import Server

if TYPE_CHECKING:
    from tests.server.pages.conftest import Browser


pytestmark = pytest.mark.anyio

NAME, PASSWORD, NEW_PASSWORD = "ada", "nine purple umbrellas", "seven quiet elephants"
MINUTE, DAY = 60_000, 86_400_000
COOKIE = "__Host-session"


# --- setting up


async def test_without_an_account_the_start_says_where_the_link_is(browsers: type[Browser], empty: Server) -> None:
    """Who opens the server first is told to look at the terminal; the link itself stands nowhere else."""
    page = await browsers(create_app(empty)).get("/")
    assert page.status == 200
    assert "terminal" in page.text
    assert str(empty.set_up_token) not in page.body


async def test_the_set_up_link_makes_an_administrator_and_signs_in(browsers: type[Browser], empty: Server) -> None:
    """The link's form makes the first account, and leads to it; used once, it is gone."""
    browser, path = browsers(create_app(empty)), urlsplit(str(empty.set_up_link)).path
    assert "15 characters" in (await browser.get(path)).text
    made = await browser.post(path, account=NAME, password=PASSWORD)
    assert made.location.startswith("/account")
    assert "Signed in as an administrator" in (await browser.get("/account")).text
    for again in (await browser.get(path), await browser.post(path, account="eve", password=PASSWORD)):
        assert again.status == 410
        assert again.header("set-cookie") is None
    assert [account.name for account in await empty.accounts.list()] == [NAME]


@pytest.mark.parametrize(
    ("name", "password", "words"),
    [
        ("ada", "short", "at least 15 characters"),
        ("ada", "p" * 300, "at most 256 characters"),
        ("ada", "password password password", "easy to guess"),
        ("", PASSWORD, "A name has 1 to 64 characters."),
        (" ada", PASSWORD, "no space at its ends"),
    ],
)
async def test_the_set_up_form_says_what_is_wrong_and_stays_good(
    browsers: type[Browser], empty: Server, name: str, password: str, words: str
) -> None:
    """A refused name or password is explained, the name stays in its field, and the link can be used again."""
    browser, path = browsers(create_app(empty)), urlsplit(str(empty.set_up_link)).path
    page = await browser.post(path, account=name, password=password)
    assert page.status == 422
    assert words in page.text
    assert 'role="alert"' in page.body
    assert f'value="{name}"' in page.body
    assert password not in page.body
    assert (await browser.post(path, account=NAME, password=PASSWORD)).status == 303


async def test_a_link_that_was_never_issued_is_refused(browsers: type[Browser], empty: Server) -> None:
    """A guessed token gets the same page as a used one."""
    assert (await browsers(create_app(empty)).get("/set-up/guess")).status == 410


# --- signing in


async def test_signing_in_gives_a_session_cookie_and_leads_to_the_account(browser: Browser) -> None:
    """The default cookie, nothing kept by caches (C5, C7, C18), and on by 303."""
    page = await browser.sign_in()
    assert page.location == "/account"
    assert len(browser.lines) == 1
    assert re.fullmatch(rf"{COOKIE}=[\w.-]+; Path=/; Secure; HttpOnly; SameSite=Lax", browser.lines[0])
    assert page.header("cache-control") == "no-store"
    assert "Firefox on Linux" in (await browser.get("/account")).text


async def test_c5_keep_me_signed_in_gives_a_lasting_cookie(browser: Browser) -> None:
    """With the box ticked the cookie has Max-Age and Expires."""
    await browser.sign_in(remember="1")
    assert re.search(r"; Max-Age=\d+; Expires=\w{3}, ", browser.lines[0])


async def test_a_wrong_name_looks_like_a_wrong_password(browser: Browser, server: Server) -> None:
    """The pages are the same but for the name itself; so is that of a disabled account."""
    await server.accounts.add("bob", await server.passwords.hash(PASSWORD))
    await server.accounts.disable("bob")
    wrong = [
        await browser.sign_in("ada", "not her password"),
        await browser.sign_in("eve", PASSWORD),
        await browser.sign_in("bob", PASSWORD),
    ]
    assert [page.status for page in wrong] == [422] * 3
    assert len({re.sub("ada|eve|bob", "", page.body) for page in wrong}) == 1
    assert "name or the password is wrong" in wrong[0].text
    assert not browser.jar


async def test_a_refused_sign_in_keeps_what_was_typed_except_the_password(browser: Browser) -> None:
    """Name, box and destination are there again; the problem has the focus and is announced."""
    page = await browser.post("/sign-in", account="ada", password="wrong wrong", remember="1", next="/account/password")
    assert 'value="ada"' in page.body
    assert " checked" in page.body
    assert 'name="next" value="/account/password"' in page.body
    assert "wrong wrong" not in page.body
    assert re.search(r'<div class="problem"[^>]*role="alert" tabindex="-1" autofocus', page.body)
    assert "<title>Problem: " in page.body


async def test_too_many_attempts_are_told_how_long_to_wait(browser: Browser) -> None:
    """After ten wrong passwords even the right one has to wait: 429, Retry-After, and minutes in words."""
    for _ in range(10):
        assert (await browser.sign_in(password="wrong")).status == 422
    page = await browser.sign_in()
    assert page.status == 429
    assert page.header("retry-after") == "900"
    assert "Try again in 15 minutes." in page.text


async def test_a_busy_server_says_that_the_password_was_not_looked_at(
    browser: Browser, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After, and no blame."""

    async def verify(password: str, stored: str | None) -> bool:
        raise Busy("full")

    monkeypatch.setattr(server.passwords, "verify", verify)
    page = await browser.sign_in()
    assert page.status == 503
    assert page.header("retry-after") == "2"
    assert "not looked at" in page.text


NEXT = [
    ("/account/password", "/account/password"),
    ("/account?notice=welcome#devices", "/account?notice=welcome#devices"),
    ("", "/account"),
    ("//evil.example/", "/account"),
    ("/\\evil.example", "/account"),
    ("https://evil.example/", "/account"),
    ("https:evil.example", "/account"),
    ("/%2f%2fevil.example", "/account"),
    ("/%5cevil.example", "/account"),
    ("/\t/evil.example", "/account"),
    ("javascript:alert(1)", "/account"),
    ("/sign-in", "/account"),
    ("/sign-in?next=/sign-in", "/account"),
    ("/sign-in#there", "/account"),
]


@pytest.mark.parametrize(("wanted", "target"), NEXT)
async def test_f12_after_the_sign_in_only_our_own_pages_follow(browser: Browser, wanted: str, target: str) -> None:
    """`next` is judged in the form, after the sign-in, and for who is signed in already; it never loops."""
    form = await browser.get("/sign-in?" + urlencode({"next": wanted}))
    assert f'name="next" value="{target}"' in form.body
    assert (await browser.sign_in(next=wanted)).location == target
    assert (await browser.get("/sign-in?" + urlencode({"next": wanted}))).location == target


async def test_who_is_signed_in_is_led_on(browser: Browser) -> None:
    """The start leads to the sign-in before, and to the account after."""
    assert (await browser.get("/")).location == "/sign-in"
    await browser.sign_in()
    assert (await browser.get("/")).location == "/account"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"account=ada&account=eve&password=x", "application/x-www-form-urlencoded", 400),
        (b"account=%FF&password=x", "application/x-www-form-urlencoded", 400),
        (b"account=\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"f%d=1" % n for n in range(17)), "application/x-www-form-urlencoded", 400),
        (b'{"account":"ada"}', "application/json", 415),
        (b"account=ada", "text/plain", 415),
        (b"--b\r\n\r\n--b--", "multipart/form-data; boundary=b", 415),
    ],
)
async def test_what_is_not_our_form_is_refused(browser: Browser, body: bytes, kind: str, status: int) -> None:
    """A field twice, octets that are no text, too many fields, another media type: a page that says so."""
    page = await browser.send("POST", "/sign-in", body, [("content-type", kind)])
    assert page.status == status
    assert "could not be read" in page.text


POSTS = [
    "/sign-in",
    "/sign-out",
    "/account/devices/end",
    "/account/devices/end-others",
    "/account/sign-out-everywhere",
    "/account/password",
]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "headers",
    [
        [("sec-fetch-site", "cross-site")],
        [("sec-fetch-site", "same-site")],
        [("origin", "http://evil.test"), ("sec-fetch-site", "cross-site")],
    ],
)
async def test_f6_another_site_can_neither_sign_in_nor_out(
    browser: Browser, path: str, headers: list[tuple[str, str]]
) -> None:
    """Every POST is judged, with the right password too; nothing changes, and the session lives."""
    await browser.sign_in()
    form = urlencode({"account": NAME, "password": PASSWORD}).encode()
    kind = [("content-type", "application/x-www-form-urlencoded")]
    page = await browser.send("POST", path, form, [*kind, *headers])
    assert page.status == 403
    assert page.header("set-cookie") is None
    assert (await browser.get("/account")).status == 200
