"""`django.contrib.auth` over coatcheck: who signs in has a session of theirs, under WSGI and ASGI."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from counting_store import CountingStore
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, override_settings
from django_site import MIDDLEWARE, Browser, Site, set_up, site
from postgres_server import OwnServer
from valkey_server import HOST, Valkey

set_up()  # models can be imported only then

from django.contrib import auth  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.db import connection  # noqa: E402
from django.middleware.csrf import get_token  # noqa: E402

from coatcheck import Coatcheck, Policy, Sealed  # noqa: E402
from coatcheck.run import run  # noqa: E402
from coatcheck.stores import store_from_url  # noqa: E402
from coatcheck.testing import SettableClock  # noqa: E402
from coatcheck.web.django import SessionStore, exchange  # noqa: E402

COOKIE = "__Host-session"
PASSWORD = "four words of my own"
_numbers = itertools.count()


@pytest.fixture
def ann() -> Iterator[User]:
    yield User.objects.create_user(f"ann{next(_numbers)}", password=PASSWORD)
    connection.close()


@pytest.fixture
def bob() -> User:
    return User.objects.create_user(f"bob{next(_numbers)}", password=PASSWORD)


def login(request: HttpRequest) -> object:
    user = auth.authenticate(request, username=request.GET["name"], password=PASSWORD)
    assert user is not None
    auth.login(request, user)
    return exchange(request).require().subject


async def a_login(request: HttpRequest) -> object:
    user = await auth.aauthenticate(request, username=request.GET["name"], password=PASSWORD)
    assert user is not None
    await auth.alogin(request, user)
    return exchange(request).require().subject


def logout(request: HttpRequest) -> object:
    auth.logout(request)
    return request.user.is_authenticated


async def a_logout(request: HttpRequest) -> object:
    await auth.alogout(request)
    return request.user.is_authenticated


def me(request: HttpRequest) -> object:
    return request.user.get_username()


async def a_me(request: HttpRequest) -> object:
    return (await request.auser()).get_username()


def write(request: HttpRequest) -> object:
    request.session["cart"] = request.GET["cart"]
    return "written"


def read(request: HttpRequest) -> object:
    return {key: value for key, value in request.session.items() if not key.startswith("_")}


VIEWS: dict[str, Any] = {
    "login": login,
    "a_login": a_login,
    "logout": logout,
    "a_logout": a_logout,
    "me": me,
    "a_me": a_me,
    "write": write,
    "read": read,
}


# -- login and logout ------------------------------------------------------------------------------------------------


def test_login_makes_a_session_of_the_user_under_a_new_id_with_what_the_visit_had(here: Site, ann: User) -> None:
    """S4: whoever planted the cookie, or saw it, knows nothing after the sign-in."""
    browser = here.show(**VIEWS)
    browser("GET", "/write?cart=umbrella")
    thief = browser.copy()
    assert browser("POST", f"/login?name={ann.username}").json == str(ann.pk)
    assert browser.jar != thief.jar
    assert (browser("GET", "/me").json, browser("GET", "/read").json) == (ann.username, {"cart": "umbrella"})
    assert (thief("GET", "/me").json, thief("GET", "/read").json) == ("", {})
    [session] = run(here.coat.sessions.list(str(ann.pk)))
    assert browser.jar[COOKIE].startswith(f"1{session.id}.")


def test_a_login_without_a_visit_before_makes_one_record(here: Site, ann: User, store: CountingStore) -> None:
    browser = here.show(**VIEWS)
    browser("POST", f"/login?name={ann.username}")
    assert dict(store.calls) == {"create": 1}
    store.calls.clear()
    assert browser("GET", "/me").json == ann.username
    assert dict(store.calls) == {"load": 1}


def test_a_second_login_of_the_same_user_cycles_the_id_too(here: Site, ann: User) -> None:
    browser = here.show(**VIEWS)
    browser("POST", f"/login?name={ann.username}")
    browser("GET", "/write?cart=umbrella")
    old = browser.copy()
    browser("POST", f"/login?name={ann.username}")
    assert (browser("GET", "/me").json, browser("GET", "/read").json) == (ann.username, {"cart": "umbrella"})
    assert old("GET", "/me").json == ""
    assert len(run(here.coat.sessions.list(str(ann.pk)))) == 1


def test_another_user_on_the_same_browser_gets_nothing_of_the_first(here: Site, ann: User, bob: User) -> None:
    browser = here.show(**VIEWS)
    browser("POST", f"/login?name={ann.username}")
    browser("GET", "/write?cart=umbrella")
    browser("POST", f"/login?name={bob.username}")
    assert (browser("GET", "/me").json, browser("GET", "/read").json) == (bob.username, {})
    assert run(here.coat.sessions.list(str(ann.pk))) == []


def test_logout_ends_the_session_and_takes_its_cookie_back(here: Site, ann: User) -> None:
    """S10: the cookie of somebody who kept it is refused."""
    browser = here.show(**VIEWS)
    browser("POST", f"/login?name={ann.username}")
    kept = browser.copy()
    assert browser("POST", "/logout").json is False
    assert browser.jar == {}
    assert kept("GET", "/me").json == ""
    assert run(here.coat.sessions.list(str(ann.pk))) == []
    assert browser("POST", "/logout").status == 200  # twice does no harm


def test_sign_out_everywhere_ends_the_sessions_of_the_user(here: Site, ann: User) -> None:
    """S12: by the user's primary key, from wherever."""
    phone, laptop = here.show(**VIEWS), here.browser()
    for browser in (phone, laptop):
        browser("POST", f"/login?name={ann.username}")
    assert run(here.coat.sessions.revoke_all(str(ann.pk))) == 2
    assert [browser("GET", "/me").json for browser in (phone, laptop)] == ["", ""]


def test_a_request_that_was_late_does_not_undo_a_login(here: Site, ann: User) -> None:
    """P3: it gets no session of its own, whose cookie would replace the user's."""

    def save(request: HttpRequest) -> object:
        request.session["late"] = 1
        request.session.save()
        return request.session.session_key

    async def a_save(request: HttpRequest) -> object:
        await request.session.aset("late", 1)
        await request.session.asave()
        return request.session.session_key

    browser = here.show(**VIEWS, save=save, a_save=a_save)
    browser("GET", "/write?cart=umbrella")
    late = browser.copy()
    browser("POST", f"/login?name={ann.username}")
    answer = late("POST", "/save")
    assert (answer.json, answer.all("set-cookie")) == (None, [])


def test_a_visit_that_has_just_ended_does_not_keep_anybody_out(alone: Site, ann: User) -> None:
    def ended_and_login(request: HttpRequest) -> object:
        assert run(alone.coat.sessions.revoke(request.session.session_key or ""))
        return login(request)

    browser = alone.show(**VIEWS | {"login": ended_and_login})
    browser("GET", "/write?cart=umbrella")
    assert browser("POST", f"/login?name={ann.username}").json == str(ann.pk)
    assert browser("GET", "/me").json == ann.username


def test_a_login_that_is_refused_leaves_the_visit_as_it_was(here: Site, ann: User) -> None:
    """Too many sessions: the browser keeps its cart, under the cookie that it has."""
    coat = Coatcheck(policy=Policy(max_sessions=1, when_full="refuse"))
    with site(here.protocol, coat) as served:
        phone, laptop = served.show(**VIEWS), served.browser()
        phone("POST", f"/login?name={ann.username}")
        laptop("GET", "/write?cart=umbrella")
        refused = laptop("POST", f"/login?name={ann.username}")
        assert (refused.status, refused.all("set-cookie")) == (403, [])
        assert (laptop("GET", "/me").json, laptop("GET", "/read").json) == ("", {"cart": "umbrella"})


def test_whoever_puts_django_s_keys_into_a_session_signs_in(here: Site, ann: User, bob: User) -> None:
    """As recipes for tests with a real browser do it, and as sessions are carried over."""

    def by_hand(request: HttpRequest) -> object:
        user = User.objects.get(username=request.GET["name"])
        request.session.update({**keys(user), "by": "hand"})
        return "ok"

    browser = here.show(**VIEWS, by_hand=by_hand)
    browser("GET", "/write?cart=umbrella")
    old = browser.copy()
    for user, data in ((ann, {"cart": "umbrella", "by": "hand"}), (bob, {"by": "hand"})):
        browser("POST", f"/by_hand?name={user.username}")
        assert (browser("GET", "/me").json, browser("GET", "/read").json) == (user.username, data)
        [session] = run(here.coat.sessions.list(str(user.pk)))
        assert session.subject == str(user.pk)
    assert old("GET", "/me").json == ""
    assert run(here.coat.sessions.list(str(ann.pk))) == []


@pytest.mark.parametrize("how", ["clear", "del"])
def test_whoever_takes_django_s_keys_out_of_a_session_signs_out(here: Site, ann: User, how: str) -> None:
    def by_hand(request: HttpRequest) -> object:
        if how == "clear":
            request.session.clear()
        else:
            del request.session[auth.SESSION_KEY]
        request.session["message"] = "bye"
        return "ok"

    browser = here.show(**VIEWS, by_hand=by_hand)
    browser("POST", f"/login?name={ann.username}")
    browser("GET", "/write?cart=umbrella")
    old = browser.copy()
    browser("POST", "/by_hand")
    assert (browser("GET", "/me").json, browser("GET", "/read").json) == ("", {"message": "bye"})
    assert old("GET", "/me").json == ""
    assert run(here.coat.sessions.list(str(ann.pk))) == []


def keys(user: User) -> dict[str, Any]:
    return {
        auth.SESSION_KEY: user.pk,  # not a str, as it is written by hand
        auth.BACKEND_SESSION_KEY: "django.contrib.auth.backends.ModelBackend",
        auth.HASH_SESSION_KEY: user.get_session_auth_hash(),
    }


# -- passwords -------------------------------------------------------------------------------------------------------


def test_a_new_password_ends_the_other_sessions_and_keeps_this_one(here: Site, ann: User) -> None:
    """S13: by Django's own hash at their next request; this one goes on under a new id."""

    def change(request: HttpRequest) -> object:
        request.user.set_password("another one")
        request.user.save()
        auth.update_session_auth_hash(request, User.objects.get(pk=request.user.pk))
        return "ok"

    phone, laptop = here.show(**VIEWS, change=change), here.browser()
    for browser in (phone, laptop):
        browser("POST", f"/login?name={ann.username}")
    old = phone.copy()
    phone("POST", "/change")
    assert (phone("GET", "/me").json, old("GET", "/me").json) == (ann.username, "")
    assert laptop("GET", "/me").json == ""
    assert laptop.jar == {}
    assert len(run(here.coat.sessions.list(str(ann.pk)))) == 1


# -- "remember me" ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after", "later"])
@pytest.mark.parametrize(
    ("setting", "expiry", "lasts"),
    [(False, "", True), (True, "", False), (False, "0", False), (True, "2592000", True)],
)
def test_whether_the_cookie_lasts_is_said_as_in_django(
    alone: Site, ann: User, *, when: str, setting: bool, expiry: str, lasts: bool
) -> None:
    def remember(request: HttpRequest) -> object:
        if expiry:
            request.session.set_expiry(int(expiry))
        return request.session.get_expire_at_browser_close()

    def login_and(request: HttpRequest) -> object:
        if when == "before":
            remember(request)
        login(request)
        return remember(request) if when == "after" else request.session.get_expire_at_browser_close()

    with override_settings(SESSION_EXPIRE_AT_BROWSER_CLOSE=setting):
        browser = alone.show(login=login_and, remember=remember, me=me)
        sent = browser("POST", f"/login?name={ann.username}")
        if when == "later":
            sent = browser("POST", "/remember") if expiry else sent
        else:
            assert sent.json is not lasts
    [line] = sent.all("set-cookie")
    assert ("Max-Age=2592000" in line) is lasts
    [session] = run(alone.coat.sessions.list(str(ann.pk)))
    assert session.record is not None
    assert session.record.persistent is lasts
    assert browser("GET", "/me").json == ann.username


def test_to_be_remembered_proves_nothing(alone: Site, ann: User, clock: SettableClock) -> None:
    """S7: the absolute timeout stays where it was."""
    browser = alone.show(**VIEWS, remember=lambda request: request.session.set_expiry(0))
    browser("POST", f"/login?name={ann.username}")
    [before] = run(alone.coat.sessions.list(str(ann.pk)))
    clock.advance(timedelta(days=1))
    assert browser("POST", "/remember").all("set-cookie")
    [after] = run(alone.coat.sessions.list(str(ann.pk)))
    assert before.record is not None
    assert after.record is not None
    assert (after.record.ends_at, after.signed_in_at) == (before.record.ends_at, before.signed_in_at)


# -- access tokens ---------------------------------------------------------------------------------------------------


def token(coat: Coatcheck, subject: str) -> str:
    async def issue() -> str:
        return (await coat.sessions.issue(await coat.sessions.create(subject))).access_token

    return run(issue())


def test_request_user_is_the_subject_of_a_token_without_a_look_at_the_store(
    here: Site, ann: User, store: CountingStore
) -> None:
    browser = here.show(**VIEWS)
    bearer = token(here.coat, str(ann.pk))
    store.calls.clear()
    answer = browser("GET", "/me", bearer=bearer)
    assert (answer.json, dict(store.calls)) == (ann.username, {})
    assert "Authorization" in answer.header("vary")


def test_a_token_of_nobody_here_is_nobody(here: Site, ann: User) -> None:
    browser = here.show(**VIEWS)
    User.objects.filter(pk=ann.pk).update(is_active=False)
    for subject in (str(ann.pk), "0", "somebody"):
        assert browser("GET", "/me", bearer=token(here.coat, subject)).json == ""
    assert browser("GET", "/me", bearer="nonsense").json == ""


def test_a_session_that_another_application_has_made_is_its_user_s(here: Site, ann: User) -> None:
    """By the same store and policy; `signed_in` makes one for a test."""
    client = here.show(**VIEWS)
    session = run(here.coat.sessions.create(str(ann.pk)))
    assert session.cookie is not None
    client.jar[COOKIE] = session.cookie.value
    assert client("GET", "/me").json == ann.username
    assert client("POST", "/logout").json is False
    assert run(here.coat.sessions.list(str(ann.pk))) == []


def test_a_user_that_nobody_asks_for_costs_nothing(here: Site) -> None:
    """C18: and the answer depends on nobody."""
    browser = here.show(plain=lambda request: "ok")
    assert browser("GET", "/plain").header("vary") == ""


def test_login_works_whatever_credential_was_presented(here: Site, ann: User, bob: User) -> None:
    """The token in the header is another program's, and lives on."""
    browser = here.show(**VIEWS)
    bearer = token(here.coat, str(bob.pk))
    assert browser("POST", f"/login?name={ann.username}", bearer=bearer).json == str(ann.pk)
    assert browser("GET", "/me").json == ann.username
    assert here.browser()("GET", "/me", bearer=bearer).json == bob.username


def test_logout_by_a_token_ends_its_session(here: Site, ann: User) -> None:
    """S10."""
    browser = here.show(**VIEWS)
    bearer = token(here.coat, str(ann.pk))
    assert browser("POST", "/logout", bearer=bearer).status == 200
    assert browser("GET", "/me", bearer=bearer).json == ""
    assert run(here.coat.sessions.list(str(ann.pk))) == []


# -- what stands beside it -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_sessions", [True, False])
def test_django_s_csrf_protection_works_beside_ours(here: Site, ann: User, *, in_sessions: bool) -> None:
    def form(request: HttpRequest) -> object:
        return get_token(request)

    order = [*MIDDLEWARE[:1], "django.middleware.csrf.CsrfViewMiddleware", *MIDDLEWARE[1:]]
    with override_settings(MIDDLEWARE=order, CSRF_USE_SESSIONS=in_sessions):
        browser = here.show(**VIEWS, form=form)
        at = {"origin": "https://app.example"}
        assert browser("POST", f"/login?name={ann.username}", **at).status == 403
        signed_in = browser("POST", f"/login?name={ann.username}", **at, x_csrftoken=browser("GET", "/form").json)
        assert signed_in.status == 200
        assert browser("POST", "/logout", **at).status == 403
        assert browser("POST", "/logout", **at, x_csrftoken=browser("GET", "/form").json).status == 200


def test_login_forms_with_a_secret_in_the_session_rotate_it(alone: Site, ann: User) -> None:
    """CSRF_USE_SESSIONS: what the visit knew is of no use after the sign-in."""
    order = [*MIDDLEWARE[:1], "django.middleware.csrf.CsrfViewMiddleware", *MIDDLEWARE[1:]]
    with override_settings(MIDDLEWARE=order, CSRF_USE_SESSIONS=True):
        browser = alone.show(**VIEWS, form=get_token)
        before = browser("GET", "/form").json
        browser("POST", f"/login?name={ann.username}", x_csrftoken=before)
        assert browser("POST", "/logout", x_csrftoken=before).status == 403


# -- Django's test client --------------------------------------------------------------------------------------------


def test_the_test_client_signs_in_and_out(alone: Site, ann: User) -> None:
    alone.show(**VIEWS)
    client = Client()
    client.force_login(ann)
    assert client.get("/me").json() == ann.username
    session = client.session
    session["cart"] = "umbrella"
    session.save()
    assert client.get("/read").json() == {"cart": "umbrella"}
    assert client.login(username=ann.username, password=PASSWORD)
    assert client.get("/read").json() == {"cart": "umbrella"}
    client.logout()
    assert client.get("/me").json() == ""
    assert run(alone.coat.sessions.list(str(ann.pk))) == []
    assert client.post(f"/login?name={ann.username}").json() == str(ann.pk)
    assert client.get("/me").json() == ann.username


def test_the_test_client_s_session_can_be_written_before_anything_else(alone: Site) -> None:
    alone.show(**VIEWS)
    client = Client()
    session = client.session
    session["cart"] = "umbrella"
    session.save()
    assert client.get("/read").json() == {"cart": "umbrella"}


@pytest.mark.anyio
async def test_the_asynchronous_test_client_signs_in_and_out(alone: Site, ann: User) -> None:
    Site("asgi", alone.coat).show(**VIEWS)
    client = AsyncClient()
    await client.aforce_login(ann)
    assert (await client.get("/me")).json() == ann.username
    session = await client.asession()
    await session.aset("cart", "umbrella")
    await session.asave()
    assert (await client.get("/read")).json() == {"cart": "umbrella"}
    await client.alogout()
    assert (await client.get("/me")).json() == ""


def test_a_browser_driven_by_a_test_is_signed_in_by_hand(alone: Site, ann: User) -> None:
    """The usual recipe for Selenium and the like: a store by itself, and its key as the cookie."""
    browser = alone.show(**VIEWS)
    session = SessionStore()
    session.update(keys(ann))
    session.save()
    assert session.session_key is not None
    browser.jar[COOKIE] = session.session_key
    assert browser("GET", "/me").json == ann.username
    [found] = run(alone.coat.sessions.list(str(ann.pk)))
    assert found.id == session.session_key[1:23]


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_sealed_sessions_work_in_django_as_well(protocol: str, ann: User) -> None:
    """Without a store: in the browser's cookie, which every write changes."""
    with site(protocol, Coatcheck(Sealed())) as served:
        browser = served.show(**VIEWS)
        browser("GET", "/write?cart=umbrella")
        browser("POST", f"/login?name={ann.username}")
        browser("GET", "/write?cart=coat")
        assert (browser("GET", "/me").json, browser("GET", "/read").json) == (ann.username, {"cart": "coat"})
        kept = browser.copy()
        browser("POST", "/logout")
        assert kept("GET", "/me").json == ""
        client = Client()
        client.force_login(ann)
        session = client.session
        session["cart"] = "umbrella"
        session.save()
        assert session.session_key is not None
        again = SessionStore(session.session_key)
        assert (again.exists(session.session_key), again.load()["cart"]) == (True, "umbrella")
        again.delete()
        assert not again.exists(session.session_key)


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_stores_elsewhere_are_used_from_the_loop_and_from_its_threads(
    kind: str, ann: User, valkey: Valkey, own_postgres: OwnServer
) -> None:
    """Under ASGI, Django sends the signal of `alogin` from a thread."""
    name = f"d{os.getpid()}x{secrets.token_hex(4)}"
    url = f"redis://{HOST}:{valkey.port}/0?prefix={name}" if kind == "redis" else f"{own_postgres.url}?schema={name}"

    async def journey(coat: Coatcheck) -> list[Any]:
        client = AsyncClient()
        paths = ("/write?cart=umbrella", f"/login?name={ann.username}", "/me", "/read", "/logout", "/me")
        seen = [(await client.post(path)).json() for path in paths]
        await coat.store.close()
        await coat.feed.close()
        return seen

    with site("asgi", Coatcheck(store_from_url(url))) as served:
        served.show(**VIEWS)
        seen = asyncio.run(journey(served.coat))
    assert seen == ["written", str(ann.pk), ann.username, {"cart": "umbrella"}, False, ""]
    if kind == "postgres":
        own_postgres.ask(f"DROP SCHEMA {name} CASCADE")


# -- the checks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "ids"),
    [
        ({}, []),
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.db"}, ["coatcheck.E001"]),
        ({"COATCHECK": None}, ["coatcheck.E002"]),
        ({"COATCHECK": "no.such.module"}, ["coatcheck.E002"]),
        ({"MIDDLEWARE": []}, ["coatcheck.E003"]),
        (
            {"MIDDLEWARE": ["django.contrib.sessions.middleware.SessionMiddleware"]},
            ["coatcheck.E003", "coatcheck.E004"],
        ),
        ({"MIDDLEWARE": ["no.such.module", *MIDDLEWARE]}, []),
        ({"MIDDLEWARE": MIDDLEWARE[::-1]}, ["coatcheck.E008"]),
        ({"SESSION_COOKIE_NAME": "sessionid"}, ["coatcheck.W005"]),
        ({"CSRF_TRUSTED_ORIGINS": ["https://shop.example", "https://*.example"]}, ["coatcheck.W006"]),
        ({"COATCHECK": Coatcheck(policy=Policy(trusted_origins=frozenset({"https://shop.example"})))}, []),
        ({"SESSION_COOKIE_AGE": 60, "SESSION_SAVE_EVERY_REQUEST": True}, ["coatcheck.W007", "coatcheck.W007"]),
    ],
)
def test_the_system_checks_say_what_is_wrong_and_what_to_write(
    alone: Site, changes: dict[str, Any], ids: list[str]
) -> None:
    from django.core.checks import run_checks

    with override_settings(**changes):
        found = [message for message in run_checks() if str(message.id).startswith("coatcheck.")]
    assert [message.id for message in found] == ids
    if ids == ["coatcheck.W005"]:
        assert found[0].hint == 'Set SESSION_COOKIE_NAME = "__Host-session".'


def test_the_old_cookie_of_a_browser_that_was_signed_out_elsewhere_is_left_alone(here: Site, ann: User) -> None:
    """A newer one could have come meanwhile, by another tab."""
    browser: Browser = here.show(**VIEWS)
    browser("POST", f"/login?name={ann.username}")
    run(here.coat.sessions.revoke_all(str(ann.pk)))
    answer = browser("GET", "/me")
    assert (answer.json, answer.all("set-cookie")) == ("", [])


def test_a_response_of_django_keeps_its_own_cookies_when_ours_are_taken_back(here: Site, ann: User) -> None:
    def leave(request: HttpRequest) -> object:
        auth.logout(request)
        response = HttpResponse("bye")
        response.set_cookie("theme", "dark")
        return response

    browser = here.show(**VIEWS, leave=leave)
    browser("POST", f"/login?name={ann.username}")
    lines = sorted(line.lstrip() for line in browser("POST", "/leave").all("set-cookie"))
    assert [line.partition("=")[0] for line in lines] == [COOKIE, "theme"]
    assert browser.jar == {"theme": "dark"}
