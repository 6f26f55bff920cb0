"""The journey of one account through a real browser, and who is kept out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Page, expect

if TYPE_CHECKING:
    from tests.browser.conftest import Served

NAME, PASSWORD, NEW_PASSWORD = "ada", "nine purple umbrellas", "seven quiet elephants"
COOKIE = "__Host-session"
NewContext = Callable[..., BrowserContext]
SignIn = Callable[..., None]
Kept = Callable[[BrowserContext], list[str]]


def test_from_the_set_up_link_to_signing_out_everywhere(
    fresh: Served, new_context: NewContext, sign_in: SignIn
) -> None:
    """Set-up, a second device, ending it, a new password, out everywhere: each seen by the browsers concerned."""
    first, second = new_context().new_page(), new_context(user_agent="curl/8.5.0").new_page()

    first.goto(fresh.url)
    expect(first.get_by_role("heading", level=1)).to_have_text("Almost there")
    first.goto(fresh.set_up_link)
    first.get_by_label("Account name").fill(NAME)
    first.get_by_label("Password").fill(PASSWORD)
    first.get_by_role("button", name="Make the account").click()
    expect(first.get_by_role("heading", level=1)).to_have_text(NAME)
    expect(first.get_by_role("article")).to_have_count(1)

    sign_in(second, fresh.url)
    first.reload()
    expect(first.get_by_role("article")).to_have_count(2)
    expect(first.locator("article.own h3")).to_contain_text("Chrome on Linux")
    expect(first.locator(".rack article h3")).to_have_text("curl")
    expect(second.locator("article.own h3")).to_contain_text("curl")

    first.get_by_role("button", name="Sign out curl").click()
    expect(first.get_by_role("status")).to_have_text("That device is signed out.")
    expect(first.get_by_role("article")).to_have_count(1)
    second.reload()
    assert urlsplit(second.url).path == "/sign-in"
    expect(second.get_by_role("status")).to_contain_text("Your session has ended")

    sign_in(second, fresh.url)
    first.goto(f"{fresh.url}/.well-known/change-password")
    first.get_by_label("Current password").fill(PASSWORD)
    first.get_by_label("New password").fill(NEW_PASSWORD)
    first.get_by_role("button", name="Change password").click()
    expect(first.get_by_role("status")).to_contain_text("your other devices are signed out")
    second.reload()
    assert urlsplit(second.url).path == "/sign-in"

    sign_in(second, fresh.url, NEW_PASSWORD)
    first.goto(f"{fresh.url}/account")
    first.get_by_role("button", name="Sign out everywhere").click()
    expect(first.get_by_role("status")).to_have_text("You are signed out everywhere.")
    for page in (first, second):
        page.goto(f"{fresh.url}/account")
        assert urlsplit(page.url).path == "/sign-in"
        assert page.context.cookies() == [] or page is second


def test_a_wrong_password_has_the_focus_on_the_problem(served: Served, page: Page) -> None:
    """Without a script the page that comes back begins at the problem, and keeps the name."""
    page.goto(f"{served.url}/sign-in")
    expect(page.get_by_label("Account name")).to_be_focused()
    page.get_by_label("Account name").fill(NAME)
    page.get_by_label("Password").fill("not her password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_focused()
    expect(page.get_by_label("Account name")).to_have_value(NAME)
    expect(page.get_by_label("Password")).to_have_value("")


def test_the_pages_work_without_scripts(served: Served, new_context: NewContext, sign_in: SignIn) -> None:
    """With JavaScript switched off: sign in, look, sign out."""
    page = new_context(java_script_enabled=False).new_page()
    sign_in(page, served.url)
    page.click(".bar button")
    page.wait_for_load_state()  # the address is there before the document is
    assert urlsplit(page.url).path == "/sign-in"
    assert "You are signed out." in page.content()


def test_c21_the_production_cookie_works_on_http_localhost(served: Served, page: Page, sign_in: SignIn) -> None:
    """`__Host-session; Secure` is stored from http://localhost, hidden from scripts, and sent back (C7, C21)."""
    sign_in(page, served.url)
    assert served.url.startswith("http://localhost:")
    [cookie] = page.context.cookies()
    assert cookie == {
        "name": COOKIE,
        "value": cookie.get("value"),
        "domain": "localhost",
        "path": "/",
        "expires": -1,
        "httpOnly": True,
        "secure": True,
        "sameSite": "Lax",
    }
    assert page.evaluate("document.cookie") == ""
    page.reload()
    assert urlsplit(page.url).path == "/account"


def test_c5_only_keep_me_signed_in_survives_the_end_of_the_browser(
    served: Served, restarted: Callable[[], BrowserContext], kept: Kept, sign_in: SignIn
) -> None:
    """One profile, three starts: the session cookie is gone after the first, the lasting one is there in the third."""
    context = restarted()
    sign_in(context.new_page(), served.url)
    assert kept(context) == [COOKIE]

    context = restarted()
    assert context.cookies() == []
    sign_in(context.new_page(), served.url, remember=True)

    context = restarted()
    page = context.new_page()
    page.goto(served.url)
    assert urlsplit(page.url).path == "/account"


def test_signing_out_takes_the_cookie_back(served: Served, page: Page, sign_in: SignIn) -> None:
    """After the sign-out the browser has nothing to present (C6), and going back shows no account (C18)."""
    sign_in(page, served.url, remember=True)
    page.get_by_role("button", name="Sign out", exact=True).first.click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    assert page.context.cookies() == []
    page.go_back()
    page.wait_for_load_state()
    assert urlsplit(page.url).path == "/sign-in"


def test_f6_a_form_on_another_site_signs_nobody_in_or_out(
    served: Served, page: Page, sign_in: SignIn, elsewhere: Callable[[str], int]
) -> None:
    """The right password in another origin's form is refused, and so is its sign-out; the session lives."""
    port = elsewhere(
        f'<form method="post" action="{served.url}/sign-in"><input name="account" value="{NAME}">'
        f'<input name="password" value="{PASSWORD}"><button id="in">in</button></form>'
        f'<form method="post" action="{served.url}/sign-out"><button id="out">out</button></form>'
    )
    for host in ("127.0.0.1", "evil.test", "localhost"):
        page.goto(f"http://{host}:{port}/")
        with page.expect_navigation() as navigation:
            page.click("#in")
        assert navigation.value is not None
        assert navigation.value.status == 403
        expect(page.get_by_role("heading", level=1)).to_have_text("This came from another site")
        assert page.context.cookies() == []
    sign_in(page, served.url)
    for host in ("127.0.0.1", "evil.test", "localhost"):
        page.goto(f"http://{host}:{port}/")
        with page.expect_navigation() as navigation:
            page.click("#out")
        assert navigation.value is not None
        assert navigation.value.status == 403
    page.goto(f"{served.url}/account")
    assert urlsplit(page.url).path == "/account"
