"""The WSGI middleware, seen from the server's side: PEP 3333 is checked by `wsgiref.validate` on both sides of it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asgi_browser import request as asgi_request
from counting_store import CountingStore
from wsgi_browser import Answer, Browser, environ, request

from coatcheck import (
    Coatcheck,
    ConfigurationError,
    Cookie,
    Exchange,
    Malformed,
    Missing,
    Policy,
    Sealed,
    SQLiteStore,
    StoreUnavailable,
)
from coatcheck.core import credentials
from coatcheck.core.credentials import CookieNames
from coatcheck.core.record import Record, pack
from coatcheck.run import run
from coatcheck.testing import SettableClock
from coatcheck.web.asgi import CoatcheckMiddleware
from coatcheck.web.wsgi import CoatcheckWSGI, Environ, StartResponse, exchange, request_head

PLAIN = [("Content-Type", "text/plain")]
UNKNOWN = f"1{'A' * 22}.{'A' * 43}"


class World:
    """An application whose handlers are the methods below, by their names."""

    def __init__(self) -> None:
        self.clock = SettableClock()
        self.store = CountingStore()
        self.coat = Coatcheck(self.store, clock=self.clock)
        self.app = CoatcheckWSGI(self.handle, coatcheck=self.coat, csrf_exempt=["/hook", "/häk"])
        self.closed = 0

    def browser(self, **options: Any) -> Browser:
        return Browser(self.app, **options)

    def signed_in(self) -> Browser:
        browser = self.browser()
        browser("POST", "/sign_in")
        self.store.calls.clear()
        return browser

    def handle(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        handler = getattr(self, environ["PATH_INFO"][1:], self.hook)
        found: Iterable[bytes] = handler(exchange(environ), start_response)
        return found

    def hook(self, _: Exchange, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        return [b"ok"]

    def sign_in(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        run(found.sign_in("ann", scopes=("read",)))
        return self.hook(found, start)

    def me(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        return [found.require().subject.encode()]

    def whoever(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        return [found.principal.subject.encode() if found.principal else b"nobody"]

    def read(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        return [" ".join(sorted(found.session)).encode()]

    def write(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        found.session["a"] = 1
        return self.hook(found, start)

    def stream(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        """Start late, send nothing at first, change the session before and after the first octets."""
        world = self

        class Body:
            def __iter__(self) -> Iterator[bytes]:
                found.session["early"] = 1
                start("200 OK", PLAIN)
                yield b""
                yield b"one"
                found.session["late"] = 1
                yield b"two"

            def close(self) -> None:
                world.closed += 1

        return Body()

    def refuses_late(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        yield b""  # nothing has left yet
        found.require(scopes=["write"])

    def breaks_off(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        found.session["half"] = 1
        start("200 OK", PLAIN)
        yield b"one"
        raise Missing("too late")

    def writes(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        write = start("200 OK", PLAIN)
        found.session["a"] = 1
        write(b"one ")
        found.session["b"] = 1
        return [b"two"]

    def empty(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        found.session["a"] = 1
        start("204 No Content", [])
        return []

    def fails(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        found.session["half"] = 1
        start("200 OK", PLAIN)
        raise ValueError("the handler failed")

    def says_500(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        found.session["half"] = 1
        start("500 Internal Server Error", PLAIN)
        return [b"sorry"]

    def takes_back(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        """Begin well, fail, and answer the error instead, as PEP 3333 has it."""
        found.session["half"] = 1
        start("200 OK", PLAIN)
        try:
            self.fails(found, start)
        except ValueError:
            start("500 Internal Server Error", PLAIN, sys.exc_info())
        return [b"sorry"]

    def fails_midway(self, found: Exchange, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        yield b"one"
        try:
            self.fails(found, lambda *_: lambda _: None)
        except ValueError:
            start("500 Internal Server Error", PLAIN, sys.exc_info())
        yield b"never"

    def forgets_to_start(self, _: Exchange, __: StartResponse) -> Iterable[bytes]:
        return [b"x"]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.app.background.close()


def test_s21_without_a_credential_nothing_is_done(world: World) -> None:
    """No store call, no Set-Cookie, no Vary, and the headers are left alone."""
    answer = world.browser()("GET", "/hook")
    assert (answer.headers, answer.body) == (PLAIN, b"ok")
    assert world.store.calls == Counter()


def test_c18_a_cookie_is_handed_out_read_and_never_written_without_need(world: World) -> None:
    """C7, S21: a hundred reads are a hundred loads; the answers are not for everybody."""
    browser = world.browser()
    answer = browser("POST", "/sign_in")
    assert answer.header("cache-control") == "no-store"
    assert answer.header("set-cookie") == (
        f"__Host-session={browser.jar['__Host-session']}; Path=/; Secure; HttpOnly; SameSite=Lax"
    )
    world.store.calls.clear()
    for _ in range(100):
        answer = browser("GET", "/me")
        assert (answer.body, answer.header("vary"), answer.all("set-cookie")) == (b"ann", "Cookie, Authorization", [])
    assert world.store.calls == Counter(load=100)


def test_an_error_of_ours_is_the_answer_also_from_a_generator(world: World) -> None:
    """As long as nothing has left; the application's own start is taken back."""
    assert world.browser()("GET", "/me").status == 401
    answer = world.signed_in()("GET", "/refuses_late")
    assert (answer.status, answer.json()["error"]) == (403, "insufficient_scope")
    assert answer.header("content-type") == "application/json"


def test_an_error_after_the_first_octets_is_the_server_s(world: World) -> None:
    """A second answer cannot be sent; what was changed before the first octets is saved."""
    browser = world.signed_in()
    with pytest.raises(Missing):
        browser("GET", "/breaks_off")
    assert browser("GET", "/read").body == b"half"


def test_a_body_that_changes_the_session_while_it_is_sent(world: World) -> None:
    """Saved before the first octets leave, and again at the end; the application's `close` is called."""
    browser = world.signed_in()
    assert browser("GET", "/stream").body == b"onetwo"
    assert world.store.calls["replace"] == 2
    assert (browser("GET", "/read").body, world.closed) == (b"early late", 1)


def test_nothing_leaves_before_it_is_saved(world: World) -> None:
    """P6, P7: the store is away when the first octets are to leave, so the answer is 503, and not half a page."""
    browser = world.signed_in()
    saved = world.store.replace

    async def away(record: Record) -> bool:
        raise StoreUnavailable(f"no place for {record.id}")

    world.store.replace = away  # type: ignore[method-assign]
    for path in ("/stream", "/write", "/writes"):
        answer = browser("GET", path)
        assert (answer.status, answer.header("retry-after"), answer.all("set-cookie")) == (503, "1", [])
    world.store.replace = saved  # type: ignore[method-assign]
    assert (browser("GET", "/read").body, world.closed) == (b"", 1)


def test_what_is_written_by_write_is_saved_before_and_after(world: World) -> None:
    """PEP 3333, "the write() callable"."""
    browser = world.signed_in()
    assert browser("GET", "/writes").body == b"one two"
    assert browser("GET", "/read").body == b"a b"


def test_an_answer_without_a_body_is_saved_and_dressed(world: World) -> None:
    browser = world.browser()
    assert browser("POST", "/empty").status == 204
    assert browser("GET", "/read").body == b"a"


@pytest.mark.parametrize("path", ["/says_500", "/takes_back"])
def test_the_edits_of_a_handler_that_answers_5xx_are_dropped(world: World, path: str) -> None:
    browser = world.signed_in()
    assert browser("GET", path).status == 500
    assert browser("GET", "/read").body == b""


def test_the_edits_of_a_handler_that_raises_are_dropped(world: World) -> None:
    """Its error is the server's to answer."""
    browser = world.signed_in()
    with pytest.raises(ValueError, match="the handler failed"):
        browser("GET", "/fails")
    assert browser("GET", "/read").body == b""


def test_an_error_midway_reaches_the_server_by_exc_info(world: World) -> None:
    """PEP 3333: once the headers are sent, `start_response` raises what it was given."""
    with pytest.raises(ValueError, match="the handler failed"):
        world.signed_in()("GET", "/fails_midway")


def test_an_application_that_does_not_start_is_told(world: World) -> None:
    """Without the validator around, which would say it first."""
    body = world.app(environ("GET", "/forgets_to_start"), lambda *_: lambda _: None)
    with pytest.raises(ConfigurationError, match="start_response"):
        list(body)


def test_f1_other_sites_cannot_use_the_cookie_but_where_it_is_exempt(world: World) -> None:
    """F1; a path is compared as text in UTF-8, which WSGI has as latin-1."""
    cross = [("sec-fetch-site", "cross-site")]
    browser = world.signed_in()
    for path, status in (("/write", 403), ("/hook", 200), ("/h\xc3\xa4k", 200), ("/h\xe4k", 403), ("/hook/", 403)):
        assert browser("POST", path, headers=cross).status == status
    assert browser("GET", "/me", headers=cross).status == 200
    assert browser("GET", "/read").body == b""


@pytest.mark.parametrize("paths", ["/hook", ["/hooks/<sender>"], ["/plain", "/hooks/{sender}"]])
def test_what_can_be_no_collection_of_paths_is_refused_as_csrf_exempt(paths: Collection[str]) -> None:
    """Each letter of a single path would have been one, and the template of a route equals no path."""
    with pytest.raises(ConfigurationError):
        CoatcheckWSGI(lambda *_: [], coatcheck=Coatcheck(), csrf_exempt=paths)


def test_p6_a_store_that_is_not_there_at_the_start_keeps_nobody_from_public_pages(tmp_path: Path) -> None:
    """As in ASGI: 503 for who has a credential, and it is opened once it can be."""
    world = World()
    coat = Coatcheck(SQLiteStore(tmp_path / "a" / "b"))
    browser = Browser(app := CoatcheckWSGI(world.handle, coatcheck=coat))
    assert browser("GET", "/hook").status == 200
    assert browser("POST", "/sign_in").status == 503
    for headers in ([("cookie", f"__Host-session={UNKNOWN}")], [("authorization", "Bearer x.y.z")]):
        assert browser("GET", "/me", headers=headers).status == 503
    (tmp_path / "a").mkdir()
    assert browser("POST", "/sign_in").status == 200
    assert browser("GET", "/me").body == b"ann"
    app.background.close()


def test_the_exchange_of_a_request_without_middleware_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="CoatcheckWSGI"):
        exchange({})


# -- headers that came twice: the same decision as in ASGI, or a stricter one

CREDENTIALS = [
    [("cookie", "{cookie}"), ("cookie", "{cookie}")],
    [("cookie", "{cookie}"), ("cookie", "__Host-session=" + UNKNOWN)],
    [("cookie", "__Host-session=" + UNKNOWN), ("cookie", "a=1; {cookie}")],
    [("cookie", "__Host-access={token}; a=1"), ("cookie", "__Host-session=" + UNKNOWN)],
    [("cookie", "__Host-access={token}; a=1"), ("cookie", "__Host-access=x")],
    [("cookie", "{cookie}"), ("cookie", "\t__Host-session =x")],
    [("authorization", "Bearer {token}"), ("authorization", "Bearer {token}")],
    [("authorization", "Basic YTpi"), ("authorization", "Bearer {token}"), ("cookie", "{cookie}")],
    [("authorization", "Bearer {token}"), ("authorization", "Basic YTpi"), ("cookie", "{cookie}")],
    [("authorization", "Basic YTpi"), ("authorization", "Basic YTpi"), ("cookie", "{cookie}")],
    [("authorization", "Basic YTpi"), ("authorization", ""), ("cookie", "{cookie}")],
    [("authorization", ""), ("authorization", "Basic YTpi"), ("cookie", "{cookie}")],
    [("authorization", 'Digest a="b'), ("authorization", "Bearer {token}"), ("cookie", "{cookie}")],
    [("authorization", 'Digest a="b", c=d'), ("authorization", "Bearer {token}"), ("cookie", "{cookie}")],
    [("authorization", 'Digest a="b", c=d'), ("authorization", "Digest e=f"), ("cookie", "{cookie}")],
    [("authorization", "Negotiate YQ=="), ("authorization", "Negotiate YQ=="), ("cookie", "{cookie}")],
]
SINGLE = [
    [("authorization", 'Digest username="a, Bearer b", realm="c\\"d", qop=auth, nc=1'), ("cookie", "{cookie}")],
    [("authorization", "AWS4-HMAC-SHA256 Credential=k/s, SignedHeaders=a;b, Signature=c"), ("cookie", "{cookie}")],
    [("cookie", "a=1,2; {cookie}")],
    [("cookie", "{cookie}; a=x,y=z,")],
    [("cookie", "b=a,__Host-sessio=1; {cookie}")],
]


@pytest.mark.anyio
@pytest.mark.parametrize("headers", CREDENTIALS)
async def test_c13_two_headers_are_refused_though_the_server_has_joined_them(
    world: World, headers: list[tuple[str, str]]
) -> None:
    """House decision 8: in ASGI they are two, in WSGI one with a comma; nobody is anybody in either."""
    sent = _filled(world, headers)
    assert _whoever(world, sent) == (b"nobody", 401)
    answers = [await asgi_request(_asgi(world.coat), "GET", path, sent) for path in ("/whoever", "/me")]
    assert (answers[0].body, answers[1].status) == (b"nobody", 401)


@pytest.mark.anyio
@pytest.mark.parametrize("headers", SINGLE)
async def test_one_header_with_commas_is_read_as_in_asgi(world: World, headers: list[tuple[str, str]]) -> None:
    sent = _filled(world, headers)
    assert _whoever(world, sent) == (b"ann", 200)
    assert (await asgi_request(_asgi(world.coat), "GET", "/whoever", sent)).body == b"ann"


@pytest.mark.parametrize("name", ["__Host-session-2", "__Host-seen"])
def test_c13_two_of_what_a_sealed_session_takes_besides_are_two_in_wsgi_as_well(name: str) -> None:
    """ASGI and WSGI agree on them."""
    coat = Coatcheck(Sealed())
    cookie = run(coat.sessions.create("ann", data={"x": pack("." * 4000)})).cookie
    assert cookie is not None
    first, second = cookie.values
    sent = f"__Host-session={first}; __Host-session-2={second}; __Host-seen=1"
    names = coat.policy.cookie_names

    def read(cookies: str) -> Any:
        environ = {"REQUEST_METHOD": "GET", "wsgi.url_scheme": "https", "HTTP_COOKIE": cookies}
        return credentials.read(request_head(environ, names).headers, names)

    assert read(sent) is not None
    for joined in (f"{sent},{name}=x", f"{sent}, {name}=x"):
        with pytest.raises(Malformed):
            read(joined)


def test_a_cookie_that_may_have_been_smuggled_in_behind_a_comma_is_never_adopted(world: World) -> None:
    """C13: a sibling subdomain can set `a`, but not `__Host-session`."""
    attackers = _filled(world, [("cookie", "a=1,{cookie}")])
    assert _whoever(world, attackers) == (b"nobody", 401)
    victim = world.signed_in().jar["__Host-session"]
    assert _whoever(world, [("cookie", f"{attackers[0][1]}; __Host-session={victim}")]) == (b"nobody", 401)


def test_fetch_metadata_that_came_twice_is_refused(world: World) -> None:
    """F1: joined by a comma it equals nothing."""
    for name in ("sec-fetch-site", "origin"):
        value = "same-origin" if name == "sec-fetch-site" else "https://app.example"
        twice = [("host", "app.example"), (name, value), (name, value)]
        assert request(world.app, environ("POST", "/write", twice)).status == 403
        assert request(world.app, environ("POST", "/write", twice[:-1])).status == 200


def test_a_long_authorization_header_takes_no_longer_than_it_is_long() -> None:
    """P9: the pattern that looks for a second one never goes back."""
    for text in ('a b="' + '\\",' * 20_000, "a " + "b=c," * 20_000, "a b" + " " * 60_000 + ","):
        head = request_head(environ("GET", "/", [("authorization", text)]), CookieNames())
        assert len(head.values(b"authorization")) == 2


def test_the_head_has_every_header_and_shows_none() -> None:
    """What an Exchange asks for by name is there, in octets; a repr has no credential in it."""
    sent = [("x-odd-name", "\xe9"), ("cookie", "a=secret"), ("authorization", "Bearer secret")]
    head = request_head(environ("GET", "/", sent), CookieNames())
    assert [head.value(name) for name in (b"x-odd-name", b"cookie", b"x-other")] == [b"\xe9", b"a=secret", None]
    assert (head.device.address, head.scheme, head.method) == ("192.0.2.7", "https", "GET")
    assert "secret" not in f"{head!r} {[*head.__rich_repr__()]}"


def _filled(world: World, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    session = run(world.coat.sessions.create("ann"))
    assert session.cookie is not None
    values = {
        "{cookie}": f"__Host-session={session.cookie.value}",
        "{token}": run(world.coat.sessions.issue(session)).access_token,
    }
    filled = headers
    for name, value in values.items():
        filled = [(header, text.replace(name, value)) for header, text in filled]
    return filled


def _whoever(world: World, headers: list[tuple[str, str]]) -> tuple[bytes, int]:
    answers: list[Answer] = [request(world.app, environ("GET", path, headers)) for path in ("/whoever", "/me")]
    return answers[0].body, answers[1].status


def _asgi(coat: Coatcheck) -> CoatcheckMiddleware:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        found: Exchange = scope["coatcheck"]
        principal = found.require() if scope["path"] == "/me" else found.principal
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": principal.subject.encode() if principal else b"nobody"})

    return CoatcheckMiddleware(app, coatcheck=coat)


def test_an_application_within_the_application_leaves_the_exchange_outside_alone() -> None:
    """Both have a coatcheck: each saves what is its own, and sends its own cookie, once."""
    inner_coat = Coatcheck(policy=Policy(cookie=Cookie("__Host-inner")))

    def inside(environ: Environ, start: StartResponse) -> Iterable[bytes]:
        exchange(environ).session["inner"] = 1
        start("200 OK", PLAIN)
        return [str(sorted(exchange(environ).session)).encode()]

    inner = CoatcheckWSGI(inside, coatcheck=inner_coat)

    def outside(environ: Environ, start: StartResponse) -> Iterable[bytes]:
        exchange(environ).session["outer"] = 1
        return inner(environ, start)

    outer = CoatcheckWSGI(outside, coatcheck=Coatcheck())
    answer = Browser(outer)("POST", "/")
    names = [line.partition("=")[0] for line in answer.all("set-cookie")]
    assert (sorted(names), answer.body) == (["__Host-inner", "__Host-session"], b"['inner']")
    inner.background.close()
    outer.background.close()
