"""Django's sessions over coatcheck, seen from the wire, under WSGI and ASGI."""

from __future__ import annotations

import pickle
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from unittest import mock

import pytest
from counting_store import CountingStore
from django.core.cache import cache
from django.core.exceptions import SynchronousOnlyOperation
from django.core.management import call_command
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.utils import timezone
from django.utils.module_loading import import_string
from django.views.debug import ExceptionReporter
from django.views.decorators.csrf import csrf_exempt
from django_site import MIDDLEWARE, Browser, Site

from coatcheck import ConfigurationError, Cookie, InvalidValue, Policy
from coatcheck.run import run
from coatcheck.testing import SettableClock
from coatcheck.web.django import SessionStore, exchange

COOKIE = "__Host-session"
ANONYMOUS = re.compile(r"__Host-session=1[\w-]{22}\.[\w-]{43}; Path=/; Secure; HttpOnly; SameSite=Lax")


def read(request: HttpRequest) -> object:
    return {**request.session}


def write(request: HttpRequest) -> object:
    for key, value in request.GET.items():
        request.session[key] = value
    return "written"


async def a_write(request: HttpRequest) -> object:
    for key, value in request.GET.items():
        await request.session.aset(key, value)
    return "written"


# -- the session as a mapping ----------------------------------------------------------------------------------------


def test_what_a_view_writes_is_there_at_the_next_request(here: Site) -> None:
    browser = here.show(read=read, write=write, a_write=a_write)
    written = browser("GET", "/write?cart=umbrella&n=1")
    [line] = written.all("set-cookie")
    assert ANONYMOUS.fullmatch(line)
    assert written.header("cache-control") == "no-store"
    assert browser("GET", "/read").json == {"cart": "umbrella", "n": "1"}


def test_what_was_changed_in_place_is_saved_without_modified(here: Site) -> None:
    def append(request: HttpRequest) -> object:
        request.session.setdefault("items", []).append({"n": len(request.session["items"])})
        return request.session.modified and len(request.session["items"])

    browser = here.show(append=append, read=read)
    for _ in range(3):
        browser("POST", "/append")
    assert browser("GET", "/read").json == {"items": [{"n": 0}, {"n": 1}, {"n": 2}]}


def test_django_s_methods_and_their_twins_do_the_same(here: Site) -> None:
    def one(request: HttpRequest) -> object:
        session = request.session
        session.update({"a": 1, "b": 2, "c": 3})
        popped = [session.pop("a"), session.pop("a", None)]
        session.set_test_cookie()
        worked = session.test_cookie_worked()
        session.delete_test_cookie()
        rest = [session.get("b"), session.get("x", 9), session.setdefault("d", 4), session.has_key("b"), "x" in session]
        return [popped, worked, rest, sorted(session.keys()), sorted(session.values()), sorted(session.items())]

    async def a_one(request: HttpRequest) -> object:
        session = request.session
        await session.aupdate({"a": 1, "b": 2, "c": 3})
        popped = [await session.apop("a"), await session.apop("a", None)]
        await session.aset_test_cookie()
        worked = await session.atest_cookie_worked()
        await session.adelete_test_cookie()
        rest = [
            await session.aget("b"),
            await session.aget("x", 9),
            await session.asetdefault("d", 4),
            await session.ahas_key("b"),
            await session.ahas_key("x"),
        ]
        keys, values, items = await session.akeys(), await session.avalues(), await session.aitems()
        return [popped, worked, rest, sorted(keys), sorted(values), sorted(items)]

    browser = here.show(one=one, a_one=a_one, read=read)
    assert browser("POST", "/one").json == [
        [1, None],
        True,
        [2, 9, 4, True, False],
        ["b", "c", "d"],
        [2, 3, 4],
        [["b", 2], ["c", 3], ["d", 4]],
    ]
    assert browser("GET", "/read").json == {"b": 2, "c": 3, "d": 4}


def test_a_synchronous_view_under_asgi_has_the_same_session(here: Site) -> None:
    """No twin is given, so Django calls it in a thread."""

    def cycle(request: HttpRequest) -> object:
        request.session["n"] = 1
        request.session.save()
        request.session.cycle_key()
        return request.session.load()

    browser = here.show(cycle=cycle, read=read)
    assert browser("POST", "/cycle").json == {"n": 1}
    assert browser("GET", "/read").json == {"n": 1}


def test_only_plain_data_is_stored_and_the_error_says_so(alone: Site) -> None:
    session = SessionStore()
    for value in ({1: "a"}, object(), timezone.now()):
        with pytest.raises(InvalidValue, match="session data"):
            session["cart"] = value


def test_a_session_has_the_words_of_a_mapping(alone: Site) -> None:
    session = SessionStore()
    session.update({"a": 1, "b": 2})
    assert (sorted(session), dict(session), session.is_empty()) == (["a", "b"], {"a": 1, "b": 2}, False)
    session.clear()
    assert (list(session), session.is_empty(), SessionStore().is_empty()) == ([], True, True)


# -- its key ---------------------------------------------------------------------------------------------------------


def test_the_key_of_a_request_is_the_public_id_and_the_same_at_every_request(here: Site) -> None:
    """S2: applications log it, and put it into their tables: it must sign nobody in."""

    def key(request: HttpRequest) -> object:
        if not request.session.session_key:
            request.session.save()
        return request.session.session_key

    async def a_key(request: HttpRequest) -> object:
        if not request.session.session_key:
            await request.session.asave()
        return request.session.session_key

    browser = here.show(key=key, a_key=a_key, read=read)
    found = browser("GET", "/key").json
    assert browser.jar[COOKIE].startswith(f"1{found}.")
    assert browser("GET", "/key").json == found
    with_id = Browser(browser._send, {COOKIE: found})
    with_id("GET", "/read")
    assert SessionStore(found).is_empty() is False  # it has a key
    assert run(SessionStore(found).aload()) == {}  # that opens nothing
    assert SessionStore().exists(found)


def test_a_store_by_itself_has_the_cookie_s_value_as_its_key(alone: Site) -> None:
    """What Django's test client, and many a test, puts into a browser."""
    browser = alone.show(read=read)
    session = SessionStore()
    session["cart"] = "umbrella"
    session.save()
    assert session.session_key is not None
    browser.jar[COOKIE] = session.session_key
    assert browser("GET", "/read").json == {"cart": "umbrella"}
    again = SessionStore(session.session_key)
    again["n"] = 1
    again.save()
    assert again.session_key == session.session_key
    assert browser("GET", "/read").json == {"cart": "umbrella", "n": 1}


def test_an_unknown_key_is_never_adopted(alone: Site) -> None:
    """S3: and no error tells it apart from a session that has ended."""
    session = SessionStore("1" + "A" * 22 + "." + "A" * 43)
    session["n"] = 1
    session.save()
    assert session.session_key is not None
    assert "A" * 20 not in session.session_key
    for key in ("", "nonsense", "x; y=z", "\N{SNOWMAN}"):
        assert SessionStore(key).load() == {}
        assert not SessionStore().exists(key)


def test_cycle_key_and_flush_end_the_old_cookie(here: Site) -> None:
    def cycle(request: HttpRequest) -> object:
        request.session.cycle_key()
        return request.session.session_key

    async def a_cycle(request: HttpRequest) -> object:
        await request.session.acycle_key()
        return request.session.session_key

    def flush(request: HttpRequest) -> object:
        request.session.flush()
        return [request.session.session_key, {**request.session}]

    async def a_flush(request: HttpRequest) -> object:
        await request.session.aflush()
        return [request.session.session_key, {**request.session}]

    views = {"cycle": cycle, "a_cycle": a_cycle, "flush": flush, "a_flush": a_flush}
    browser = here.show(**views, read=read, write=write)
    browser("GET", "/write?a=1")
    old = browser.copy()
    browser("POST", "/cycle")
    assert browser.jar != old.jar
    assert browser("GET", "/read").json == {"a": "1"}
    assert old("GET", "/read").json == {}
    before = browser.copy()
    assert browser("POST", "/flush").json == [None, {}]
    assert browser.jar == {}
    assert before("GET", "/read").json == {}


def test_another_session_is_ended_by_its_id_or_its_cookie(alone: Site) -> None:
    browser = alone.show(read=read, write=write)
    for by_id in (True, False):
        browser("GET", "/write?a=1")
        cookie = browser.jar[COOKIE]
        key = cookie[1:23] if by_id else cookie
        assert SessionStore().exists(key)
        SessionStore(key).delete()
        assert not SessionStore().exists(key)
        assert browser("GET", "/read").json == {}


def test_clearsessions_removes_what_has_expired(alone: Site, clock: SettableClock, store: CountingStore) -> None:
    alone.show(write=write)("GET", "/write?a=1")
    clock.advance(timedelta(days=8))
    with override_settings(INSTALLED_APPS=["django.contrib.sessions"]):
        call_command("clearsessions")
    assert run(store.sweep(clock())) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["load", "save", "create", "cycle_key", "flush", "delete", "clear_expired"])
async def test_in_a_coroutine_the_error_names_the_twins(alone: Site, name: str) -> None:
    session = SessionStore()
    with pytest.raises(SynchronousOnlyOperation, match="aflush"):
        getattr(session, name)()
    await getattr(session, f"a{name}")()


# -- saving ----------------------------------------------------------------------------------------------------------


def test_a_view_that_fails_changes_nothing_and_one_that_finds_nothing_does(here: Site) -> None:
    def fail(request: HttpRequest) -> object:
        request.session["lost"] = "1"
        raise RuntimeError("this view fails")

    def unavailable(request: HttpRequest) -> object:
        request.session["lost"] = "1"
        return HttpResponse(status=503)

    def missing(request: HttpRequest) -> object:
        request.session["kept"] = "1"
        raise Http404

    browser = here.show(fail=fail, unavailable=unavailable, missing=missing, read=read, write=write)
    browser("GET", "/write?a=1")
    assert [browser("GET", path).status for path in ("/fail", "/unavailable", "/missing")] == [500, 503, 404]
    assert browser("GET", "/read").json == {"a": "1", "kept": "1"}


def test_what_a_streamed_body_changes_is_saved_at_its_end(here: Site) -> None:
    def stream(request: HttpRequest) -> object:
        def body() -> Iterator[bytes]:
            yield b"one "
            request.session["streamed"] = 1
            yield b"two"

        request.session["before"] = 1
        return StreamingHttpResponse(body())

    async def a_stream(request: HttpRequest) -> object:
        async def body() -> AsyncIterator[bytes]:
            yield b"one "
            request.session["streamed"] = 1
            yield b"two"

        request.session["before"] = 1
        return StreamingHttpResponse(body())

    browser = here.show(stream=stream, a_stream=a_stream, read=read)
    assert browser("GET", "/stream").body == b"one two"
    assert browser("GET", "/read").json == {"before": 1, "streamed": 1}


def test_f11_a_stream_is_cut_on_revocation(here: Site) -> None:
    """Before its next part leaves, and without an end: nobody takes a part for the whole."""
    went_on = list[str]()

    def stream(request: HttpRequest) -> object:
        def body() -> Iterator[bytes]:
            yield b"one "
            run(here.coat.sessions.revoke_all("ann"))
            yield b"two"
            went_on.append("two")

        return StreamingHttpResponse(body())

    async def a_stream(request: HttpRequest) -> object:
        async def body() -> AsyncIterator[bytes]:
            yield b"one "
            await here.coat.sessions.revoke_all("ann")
            yield b"two"
            went_on.append("two")

        return StreamingHttpResponse(body())

    browser = here.show(stream=stream, a_stream=a_stream)
    nobodys = browser("GET", "/stream")
    assert (nobodys.body, nobodys.whole) == (b"one two", True)
    cookie = run(here.coat.sessions.create("ann")).cookie
    assert cookie is not None
    browser.jar[COOKIE] = cookie.values[0]
    cut = browser("GET", "/stream")
    assert (cut.body, cut.whole, went_on) == (b"one ", False, ["two"])


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume")
def test_f11_a_stream_of_the_other_protocol_s_kind_is_cut_and_closed(here: Site) -> None:
    """Django reads such a one to its end first. Whoever serves it is to take the cut for a client that has left."""
    went_on = list[str]()

    class Closed(StreamingHttpResponse):
        def close(self) -> None:
            went_on.append("closed")
            super().close()

    def a_stream(request: HttpRequest) -> object:
        def body() -> Iterator[bytes]:
            yield b"one "
            run(here.coat.sessions.revoke_all("ann"))
            yield b"two"
            went_on.append("two")

        return Closed(body())

    def stream(request: HttpRequest) -> object:
        async def body() -> AsyncIterator[bytes]:
            yield b"one "
            await here.coat.sessions.revoke_all("ann")
            yield b"two"
            went_on.append("two")

        return Closed(body())

    browser = here.show(stream=stream, a_stream=a_stream)
    cookie = run(here.coat.sessions.create("ann")).cookie
    assert cookie is not None
    browser.jar[COOKIE] = cookie.values[0]
    cut = browser("GET", "/stream")
    assert (cut.body, cut.whole, went_on) == (b"", False, ["closed"])


def test_an_untouched_session_is_neither_written_nor_varied_on(here: Site, store: CountingStore) -> None:
    """C18: the answer may be cached for everybody."""
    browser = here.show(plain=lambda request: "ok", write=write, read=read)
    browser("GET", "/write?a=1")
    store.calls.clear()
    plain = browser("GET", "/plain")
    assert (plain.header("vary"), plain.all("set-cookie"), dict(store.calls)) == ("", [], {"load": 1})
    assert browser("GET", "/read").header("vary") == "Cookie, Authorization"
    store.calls.clear()
    nobody = here.browser()
    assert (nobody("GET", "/read").all("set-cookie"), dict(store.calls)) == ([], {})


def test_django_s_cache_hands_no_cookie_to_the_next_one(here: Site) -> None:
    """Both come with the same cookies, such as one about consent."""
    order = [
        "django.middleware.cache.UpdateCacheMiddleware",
        "coatcheck.web.django.CoatcheckMiddleware",
        "django.middleware.cache.FetchFromCacheMiddleware",
    ]
    with override_settings(MIDDLEWARE=order):
        cache.clear()
        first = here.show(write=write, read=read)
        second = here.browser()
        first.jar["consent"] = second.jar["consent"] = "yes"
        assert first("GET", "/write?a=1").all("set-cookie")
        second("GET", "/write?a=1")
        assert first.jar[COOKIE] != second.jar[COOKIE]


# -- the response ----------------------------------------------------------------------------------------------------


def test_several_cookies_leave_as_they_are_beside_those_of_django(here: Site) -> None:
    """C2, C11: an attribute that the standard library does not know, and one name once."""

    def cookies(request: HttpRequest) -> object:
        found = exchange(request)
        found.cookies.set(Cookie("__Host-theme", partitioned=True, http_only=False), "dark")
        found.cookies.set(Cookie("plain", max_age=timedelta(hours=1)), "a/b(c)")
        request.session["n"] = 1
        response = HttpResponse("ok")
        response.set_cookie("plain", "django's")
        response.set_cookie("other", "a b")
        response.headers["Vary"] = "Accept"
        return response

    answer = here.show(cookies=cookies)("GET", "/cookies")
    session, *rest = sorted(line.lstrip() for line in answer.all("set-cookie"))
    assert ANONYMOUS.fullmatch(session)
    assert rest == [
        "__Host-theme=dark; Path=/; Secure; SameSite=Lax; Partitioned",
        'other="a b"; Path=/',
        "plain=a/b(c); Max-Age=3600; Expires=Fri, 01 Jan 2100 01:00:00 GMT; Path=/; Secure; HttpOnly; SameSite=Lax",
    ]
    assert answer.header("vary") == "Accept, Cookie, Authorization"


def test_errors_of_ours_are_answered_with_their_status_and_words(here: Site, store: CountingStore) -> None:
    """P6, F6."""
    browser = here.show(
        me=lambda request: exchange(request).require().subject,
        scoped=lambda request: exchange(request).require(scopes=("admin",)).subject,
        write=write,
        bad=lambda request: request.session.update({"x": object()}),
    )
    nobody = browser("GET", "/me")
    assert (nobody.status, nobody.json["code"], nobody.header("www-authenticate")) == (401, "missing", "Bearer")
    session = run(here.coat.sessions.create("ann"))
    assert session.cookie is not None
    browser.jar[COOKIE] = session.cookie.value
    assert browser("GET", "/me").json == "ann"
    assert browser("GET", "/scoped").status == 403
    assert browser("GET", "/bad").status == 500
    store.broken = True
    for path in ("/me", "/write?a=1"):
        away = browser("GET", path)
        assert (away.status, away.json["code"], away.all("set-cookie")) == (503, "unavailable", [])


def test_a_write_that_the_store_cannot_take_is_no_success(here: Site, store: CountingStore) -> None:
    def write_and_break(request: HttpRequest) -> object:
        request.session["a"] = 1
        store.broken = True
        return "written"

    answer = here.show(write=write_and_break)("POST", "/write")
    assert (answer.status, answer.all("set-cookie")) == (503, [])


def test_other_sites_are_refused_unless_the_view_is_exempt(
    here: Site, store: CountingStore, clock: SettableClock
) -> None:
    """F1, F6: by Django's own marking; and what was refused has not used the session."""

    @csrf_exempt
    def hook(request: HttpRequest) -> object:
        return "ok"

    browser = here.show(write=write, hook=hook)
    browser("GET", "/write?a=1")
    clock.advance(timedelta(minutes=5))
    store.calls.clear()
    refused = browser("POST", "/write?a=2", sec_fetch_site="cross-site")
    assert (refused.status, refused.json["code"], refused.all("set-cookie")) == (403, "cross_site", [])
    assert dict(store.calls) == {"load": 1}
    assert browser("POST", "/hook", sec_fetch_site="cross-site").status == 200
    assert browser("POST", "/write?a=2", sec_fetch_site="same-origin").status == 200


def test_behind_a_proxy_the_scheme_is_what_django_says(here: Site) -> None:
    """F2: an Origin is compared with ours."""
    browser = here.show(write=write)
    with override_settings(SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
        for proto, status in (("https", 200), ("http", 403)):
            sent = browser("POST", "/write", origin="https://app.example", x_forwarded_proto=proto)
            assert sent.status == status
    sent_to = {"origin": "https://shop.example", "x_forwarded_host": "shop.example"}
    assert browser("POST", "/write", **sent_to).status == 403
    with override_settings(USE_X_FORWARDED_HOST=True):
        assert browser("POST", "/write", **sent_to).status == 200
        assert browser("POST", "/write", origin="https://app.example").status == 200


# -- how long it lives -----------------------------------------------------------------------------------------------


def test_how_long_a_session_lives_is_the_policy_s_to_say(alone: Site, clock: SettableClock) -> None:
    week = 7 * 24 * 60 * 60
    session = SessionStore()
    assert (session.get_session_cookie_age(), session.get_expiry_age()) == (week, week)
    session.save()
    clock.advance(timedelta(days=1))
    assert session.get_expiry_age() == week - 24 * 60 * 60
    left = session.get_expiry_date() - timezone.now()
    assert abs(left - timedelta(days=6)) < timedelta(seconds=30)


@pytest.mark.parametrize("value", [1, 300, timedelta(hours=1), -1])
def test_a_session_that_should_end_sooner_is_not_made_to_look_so(alone: Site, value: int | timedelta) -> None:
    session = SessionStore()
    with pytest.raises(InvalidValue, match="idle and absolute"):
        session.set_expiry(value)
    with pytest.raises(InvalidValue):
        session.set_expiry(timezone.now() + timedelta(minutes=5))


@pytest.mark.parametrize(
    ("value", "with_the_browser"),
    [(0, True), (timedelta(0), True), (None, False), (30 * 86400, False), (timedelta(days=7), False)],
)
def test_set_expiry_says_whether_the_cookie_ends_with_the_browser(
    alone: Site, value: int | timedelta | None, with_the_browser: bool
) -> None:
    session = SessionStore()
    session.set_expiry(value)
    assert session.get_expire_at_browser_close() is with_the_browser


# -- set up ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [None, "no.such.module", "coatcheck.Policy", Policy()])
def test_a_project_without_a_coatcheck_does_not_start(alone: Site, named: object) -> None:
    with override_settings(COATCHECK=named), pytest.raises(ConfigurationError, match=r"settings\.COATCHECK"):
        alone.browser()


def test_a_project_with_another_engine_does_not_start(alone: Site) -> None:
    engine = "django.contrib.sessions.backends.signed_cookies"
    with override_settings(SESSION_ENGINE=engine), pytest.raises(ConfigurationError, match="SESSION_ENGINE"):
        alone.browser()


def test_without_the_middleware_there_is_no_exchange(alone: Site) -> None:
    with pytest.raises(ConfigurationError, match="MIDDLEWARE"):
        exchange(HttpRequest())


def test_a_response_that_a_cache_has_pickled_still_sends_the_cookie_as_it_was(alone: Site) -> None:
    """C2: as Django's caches keep responses."""

    def keep(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
        return lambda request: pickle.loads(pickle.dumps(get_response(request)))  # noqa: S301 - our own

    with (
        override_settings(MIDDLEWARE=[keep, *MIDDLEWARE]),
        mock.patch(
            "django.core.handlers.base.import_string", lambda path: path if callable(path) else import_string(path)
        ),
    ):
        [line] = alone.show(write=write)("GET", "/write?a=1").all("set-cookie")
    assert ANONYMOUS.fullmatch(line)


def test_django_s_error_page_and_mail_show_none_of_our_cookies(here: Site) -> None:
    """Django hides the cookie of its session, and knows of no others that sign somebody in."""
    mails: list[str] = []

    def fail(request: HttpRequest) -> object:
        mails.append(ExceptionReporter(request, None, None, None, is_email=True).get_traceback_text())
        raise ValueError("the view failed")

    with override_settings(DEBUG=True):
        browser = here.show(fail=fail)
        names = (COOKIE, "__Host-access", "__Host-refresh", "__Host-session-2", "__Host-seen", "theme")
        browser.jar |= {name: f"value-of-{name}" for name in names}
        page = browser("POST", "/fail").body.decode()
    for shown in (page, *mails):
        assert [name for name in names if f"value-of-{name}" in shown] == ["theme"]
