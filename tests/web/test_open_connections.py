"""F11: WebSockets and streams end when what they were let in by has ended, and with nothing else."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgi_line import CLOSED, EXPIRED, LATER, PATIENCE, Line
from counting_store import CountingStore

from coatcheck import Coatcheck, MemoryStore, Policy, Session
from coatcheck.clock import monotonic_clock
from coatcheck.core.revocation import Revoked
from coatcheck.sealed_sessions import Sealed
from coatcheck.stores import store_from_url
from coatcheck.testing import SettableClock
from coatcheck.web import open_connections
from coatcheck.web.asgi import CoatcheckMiddleware

pytestmark = pytest.mark.anyio

Handler = Callable[[Any, Any, Any], Awaitable[None]]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_connections, "_EVERY_SECONDS", 0.02)


class World:
    """A middleware around an application, and whoever connects to it."""

    def __init__(self, app: Handler, coat: Coatcheck, clock: SettableClock) -> None:
        self.coat = coat
        self.clock = clock
        self.middleware = CoatcheckMiddleware(app, coatcheck=coat)
        self.lines: list[Line] = []

    def open(self, kind: str = "websocket", **headers: str) -> Line:
        line = Line(self.middleware, kind, "/", headers)
        self.lines.append(line)
        return line

    @property
    def store(self) -> CountingStore:
        assert isinstance(self.coat.store, CountingStore)
        return self.coat.store

    async def sign_in(self) -> Session:
        return await self.coat.sessions.create("ann", amr=("pwd",))

    def watched(self) -> int:
        return sum(len(watch.connections) for watch in self.middleware.open_connections._watches.values())

    async def look(self) -> None:
        """Return when all that are open were looked at, after what has happened so far."""
        [watch] = self.middleware.open_connections._watches.values()
        watch._tick()
        while watch._looks:
            await asyncio.gather(*watch._looks)


def with_cookie(session: Session) -> dict[str, str]:
    assert session.cookie is not None
    return {"cookie": "; ".join(f"{name}={value}" for name, value in named(session))}


def named(session: Session) -> list[tuple[str, str]]:
    assert session.cookie is not None
    kinds = Policy().session_cookies
    return [(kind.name, value) for kind, value in zip(kinds, session.cookie.values, strict=False)]


@asynccontextmanager
async def world(app: Handler, store: Any = None, **policy: Any) -> AsyncIterator[World]:
    clock = SettableClock()
    async with Coatcheck(store, policy=Policy(**policy), clock=clock) as coat:
        here = World(app, coat, clock)
        yield here
        for line in here.lines:
            line.task.cancel()
        await asyncio.gather(*(line.task for line in here.lines), return_exceptions=True)


# -- applications ----------------------------------------------------------------------------------------------------


async def talks(scope: Any, receive: Any, send: Any) -> None:
    """Echoes until the client leaves: the application that everybody writes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message["text"]})
    scope["left"] = message


async def pushes(scope: Any, receive: Any, send: Any) -> None:
    """Waits for something that never comes, and does not listen."""
    await send({"type": "websocket.accept"})
    await asyncio.Event().wait()


async def streams(scope: Any, receive: Any, send: Any) -> None:
    """Server-sent events, of which there are none yet."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await asyncio.Event().wait()


async def downloads(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000000")]})
    await send({"type": "http.response.body", "body": b"one", "more_body": True})
    await asyncio.Event().wait()


OPENING: dict[Handler, tuple[str, str]] = {
    talks: ("websocket", "websocket.accept"),
    pushes: ("websocket", "websocket.accept"),
    streams: ("http", "http.response.start"),
    downloads: ("http", "http.response.body"),
}


# -- they end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("app", list(OPENING), ids=lambda app: app.__name__)
@pytest.mark.parametrize("credential", ["cookie", "token"])
async def test_f11_each_ends_when_its_session_is_revoked(app: Handler, credential: str) -> None:
    """F11; a stream gets no last message, so that a part is not taken for the whole."""
    kind, first = OPENING[app]
    async with world(app) as here:
        session = await here.sign_in()
        token = (await here.coat.sessions.issue(session)).access_token
        presented = with_cookie(session) if credential == "cookie" else {"authorization": f"Bearer {token}"}
        line, other = here.open(kind, **presented), here.open(kind, **with_cookie(await here.sign_in()))
        await line.heard(first)
        await other.heard(first)
        before = list(line.sent)
        await here.coat.sessions.revoke(session.id or "")
        await line.ended()
        assert line.sent == ([*before, CLOSED] if kind == "websocket" else before)
        await here.look()
        assert not other.task.done(), "another session of the same subject goes on"
        await here.coat.sessions.revoke_all("ann")
        await other.ended()
        assert here.watched() == 0


@pytest.mark.parametrize("place", ["sqlite", "redis"])
async def test_f11_wherever_it_was_revoked(place: str, tmp_path: Path, valkey: Any) -> None:
    """In another process, of which this one hears by the feed."""
    url = f"sqlite:///{tmp_path}/sessions.db" if place == "sqlite" else valkey.url
    async with (
        world(talks, store_from_url(url)) as here,
        Coatcheck(store_from_url(url), clock=here.clock) as elsewhere,
    ):
        line = here.open(**with_cookie(await here.sign_in()))
        await line.heard("websocket.accept")
        await elsewhere.sessions.revoke_all("ann")
        await line.ended()
        assert line.sent[-1] == CLOSED


@pytest.mark.parametrize("adapter", ["starlette", "fastapi", "litestar", "quart"])
async def test_f11_through_every_framework(adapter: str) -> None:
    """Whatever it makes of a WebSocket: the apps of the scenarios, which say whom they talk to and then echo."""
    path = Path(__file__).parents[1] / "scenarios" / "apps" / f"{adapter}.py"
    # Not under the framework's own name: `import quart` in it must find the framework.
    spec = importlib.util.spec_from_file_location(f"open_{adapter}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    async with Coatcheck() as coat:
        line = Line(module.make(coat), "websocket", "/socket", with_cookie(await coat.sessions.create("ann")))
        assert (await line.heard("websocket.send"))["text"] == "ann"
        await coat.sessions.revoke_all("ann")
        assert await line.ended() == ["websocket.accept", "websocket.send", "websocket.close"]
        assert line.sent[-1] == CLOSED


async def test_f11_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks are a quarter of a second apart, and an application that does not listen has as long again."""
    monkeypatch.undo()
    assert 2 * open_connections._EVERY_SECONDS + open_connections._ASK_SECONDS <= 1


@pytest.mark.parametrize("app", [talks, streams])
async def test_an_access_token_is_good_until_it_expires(app: Handler) -> None:
    """No request of its own tells that: the time passes, and the leeway."""
    kind, first = OPENING[app]
    async with world(app, access_lifetime=timedelta(minutes=5), leeway=timedelta(seconds=10)) as here:
        session = await here.sign_in()
        token = (await here.coat.sessions.issue(session)).access_token
        line = here.open(kind, authorization=f"Bearer {token}")
        await line.heard(first)
        here.clock.advance(timedelta(minutes=5, seconds=9))
        await here.look()
        assert line.sent[-1]["type"] == first
        here.clock.advance(timedelta(seconds=1))
        await line.ended()
        assert kind == "http" or line.sent[-1] == EXPIRED


async def test_p9_news_of_others_verifies_no_token_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier remembers some thousand tokens; with more connections, each revocation would verify all of them."""
    async with world(talks) as here:
        token = (await here.coat.sessions.issue(await here.sign_in())).access_token
        line = here.open("websocket", authorization=f"Bearer {token}")
        await line.heard("websocket.accept")
        here.coat.verifier._kept.clear()
        monkeypatch.setattr("coatcheck.core.jws.verify", lambda *_, **__: pytest.fail("verified again"))
        await here.coat.sessions.revoke_all("bob")
        await here.look()
        assert line.sent[-1]["type"] == "websocket.accept"
        monkeypatch.undo()
        await here.coat.sessions.revoke_all("ann")
        await line.ended()


@pytest.mark.parametrize("limit", ["idle", "absolute"])
async def test_s6_s7_a_session_ends_by_itself(limit: str) -> None:
    """S6, S7: use elsewhere is found in the store, once the time has passed; the absolute end stays where it is."""
    async with world(talks, CountingStore(), idle=timedelta(minutes=30), absolute=timedelta(hours=1)) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        loads = here.store.calls["load"]
        here.clock.advance(timedelta(minutes=29))
        await here.coat.sessions.touch(session)
        await here.look()
        assert here.store.calls["load"] == loads, "nobody is asked before the time"
        here.clock.advance(timedelta(minutes=29))
        await here.look()
        assert line.sent[-1]["type"] == "websocket.accept", "the session was used elsewhere"
        await here.look()
        assert here.store.calls["load"] == loads + 1, "nor after that"
        if limit == "absolute":
            await here.coat.sessions.touch(session)
        here.clock.advance(timedelta(minutes=1) if limit == "idle" else timedelta(minutes=2))
        await line.ended()
        assert line.sent[-1] == EXPIRED


async def test_one_that_is_swept_has_expired_as_well() -> None:
    async with world(talks, idle=timedelta(minutes=30)) as here:
        line = here.open(**with_cookie(await here.sign_in()))
        await line.heard("websocket.accept")
        here.clock.advance(timedelta(minutes=30))
        await here.coat.sessions.sweep()
        await line.ended()
        assert line.sent[-1] == EXPIRED


async def test_one_that_is_not_accepted_yet_is_refused() -> None:
    async def hesitates(scope: Any, receive: Any, send: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    reached = asyncio.Event()
    async with world(hesitates) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await reached.wait()
        await here.coat.sessions.revoke(session.id or "")
        await line.ended()
        assert line.sent == [CLOSED]


async def test_what_was_revoked_before_the_stream_began_ends_it_as_well() -> None:
    """The request was judged when it came; a handler takes its time."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        reached.set()
        await go.wait()
        await streams(scope, receive, send)

    reached, go = asyncio.Event(), asyncio.Event()
    async with world(slow) as here:
        session = await here.sign_in()
        line, other = here.open("http", **with_cookie(session)), here.open("websocket")
        await reached.wait()
        await here.coat.sessions.revoke(session.id or "")
        await here.look()  # for the other's sake: the news are old when the stream begins
        assert other in here.lines
        go.set()
        assert await line.ended() == ["http.response.start"]


@pytest.mark.parametrize("end", [
    lambda sessions, session: sessions.revoke(session),
    lambda sessions, session: sessions.revoke(session.id),
    lambda sessions, _: sessions.revoke_all("ann"),
    lambda sessions, _: sessions.create("ann"),  # which then signs the others out
])  # fmt: skip
async def test_sealed_sessions_end_too(end: Any) -> None:
    """There is no store to ask; the feed and the clock say it all."""
    async with world(talks, Sealed(), idle=timedelta(minutes=30)) as here:
        mine, bobs = await here.sign_in(), await here.coat.sessions.create("bob")
        line, other = (here.open(**with_cookie(session)) for session in (mine, bobs))
        await line.heard("websocket.accept")
        await other.heard("websocket.accept")
        keep = await end(here.coat.sessions, mine)
        if isinstance(keep, Session):
            await here.coat.sessions.revoke_all("ann", keep=keep)
        await line.ended()
        assert (line.sent[-1], other.sent[-1]["type"]) == (CLOSED, "websocket.accept")
        here.clock.advance(timedelta(minutes=30))
        await other.ended()
        assert other.sent[-1] == EXPIRED


# -- they go on ------------------------------------------------------------------------------------------------------


async def test_a_rotation_gives_up_an_id_and_not_the_connection() -> None:
    """S19: nobody is signed out by it. The connection acts for the session under its new id."""
    scopes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await talks(scope, receive, send)

    async with world(app) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        scopes[0]["session"]["draft"] = "kept"
        for _ in range(2):
            await here.coat.sessions.rotate(session)
        await here.look()
        assert line.sent[-1]["type"] == "websocket.accept"
        assert scopes[0]["coatcheck"].principal.session_id == session.id
        line.said.put_nowait({"type": "websocket.disconnect"})
        await line.ended()
        assert dict(await here.coat.sessions.find(session.id or "")) == {"draft": "kept"}
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        await here.coat.sessions.rotate(session)
        await here.coat.sessions.revoke(session.id or "")
        await line.ended()
        assert line.sent[-1] == CLOSED


async def test_s4_a_new_proof_leaves_behind_what_was_opened_before_it() -> None:
    """S4, S19: a thief's connection does not come to act by the password that its owner has just typed in."""
    async with world(talks) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        here.clock.advance(timedelta(minutes=1))
        await here.coat.sessions.rotate(session, began_at=here.clock(), amr=("pwd", "otp"))
        await line.ended()
        assert line.sent[-1] == CLOSED


async def test_c18_an_anonymous_visit_has_nothing_to_revoke() -> None:
    """Nor does being watched leave a trace in the answer: `Vary` says that a handler looked (C18)."""
    async with world(streams) as here:
        visit = await here.coat.sessions.create(data={})
        lines = [here.open("http"), here.open("http", **with_cookie(visit))]
        for line in lines:
            assert (await line.heard("http.response.start"))["headers"] == [(b"content-type", b"text/event-stream")]
        await here.coat.sessions.revoke(visit.id or "")
        here.clock.advance(timedelta(days=400))
        await here.look()
        await here.look()
        assert here.watched() == 2
        assert not any(line.task.done() for line in lines)


async def test_a_handler_that_signs_out_ends_its_connection_itself() -> None:
    """It may have something to say still; the other connections of the session are cut."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await scope["coatcheck"].sign_out()
        left.set()
        await go.wait()
        await send({"type": "websocket.send", "text": "bye"})
        await send({"type": "websocket.close", "code": 1000})

    left, go = asyncio.Event(), asyncio.Event()
    async with world(app) as here:
        session = await here.sign_in()
        line, other = here.open(**with_cookie(session)), here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        await other.heard("websocket.accept")
        line.said.put_nowait({"type": "websocket.receive", "text": "sign me out"})
        await left.wait()
        await other.ended()
        assert other.sent[-1] == CLOSED
        go.set()
        await line.ended()
        assert line.sent[-2:] == [
            {"type": "websocket.send", "text": "bye"},
            {"type": "websocket.close", "code": 1000},
        ]


async def test_who_signs_in_on_the_way_is_watched_from_then_on() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await scope["coatcheck"].sign_in("ann")
        await talks(scope, receive, send)

    async with world(app, idle=timedelta(minutes=30)) as here:
        line, other = here.open(), here.open()
        await line.heard("websocket.accept")
        here.clock.advance(timedelta(minutes=30))
        await line.ended()
        assert line.sent[-1] == EXPIRED
        await other.ended()


async def test_an_ordinary_response_is_not_watched_and_work_after_a_response_is_not_cut() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        length = [(b"content-length", b"2")] if b"x-streams" not in dict(scope["headers"]) else []
        await send({"type": "http.response.start", "status": 200, "headers": length})
        watched.append(here.watched())
        await send({"type": "http.response.body", "body": b"ok"})
        await go.wait()
        watched.append(here.watched())

    watched, go = list[int](), asyncio.Event()
    async with world(app) as here:
        session = await here.sign_in()
        lines = [
            here.open("http", **with_cookie(session)),
            here.open("http", **with_cookie(session), **{"x-streams": ""}),
        ]
        for line in lines:
            await line.heard("http.response.body")
        await here.coat.sessions.revoke(session.id or "")
        await here.look()
        go.set()
        for line in lines:
            await line.ended()
        assert watched == [0, 1, 0, 0]


# -- whatever the application does -----------------------------------------------------------------------------------


async def test_an_application_that_ignores_everything_sends_nothing_more() -> None:
    async def stubborn(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        while not done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError:
                cancelled.set()
        for _ in range(3):
            with suppress(OSError):
                await send({"type": "websocket.send", "text": "a secret"})
        assert (await receive())["type"] == "websocket.disconnect"

    done, cancelled = asyncio.Event(), asyncio.Event()
    async with world(stubborn) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        line.said.put_nowait({"type": "websocket.receive", "text": "nobody reads this"})
        await here.coat.sessions.revoke(session.id or "")
        assert await line.heard("websocket.close") == CLOSED
        await cancelled.wait()
        done.set()
        assert await line.ended() == ["websocket.accept", "websocket.close"]
        assert line.task.cancelling() == 0


async def test_its_errors_after_the_cut_are_nobodys_and_those_before_are_its_own() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        if (await receive())["type"] == "websocket.connect":
            await receive()
        raise ValueError("the application failed")

    async with world(fails) as here:
        session = await here.sign_in()
        line, other = here.open(**with_cookie(session)), here.open()
        await line.heard("websocket.accept")
        await other.heard("websocket.accept")
        other.said.put_nowait({"type": "websocket.disconnect"})
        with pytest.raises(ValueError, match="the application failed"):
            await other.ended()
        await here.coat.sessions.revoke(session.id or "")
        assert await line.ended() == ["websocket.accept", "websocket.close"]


@pytest.mark.parametrize("app", [talks, pushes])
async def test_a_servers_own_cancellation_is_not_swallowed(app: Handler) -> None:
    """Neither before a cut, nor when both come together."""
    async with world(app) as here:
        session = await here.sign_in()
        line, both = here.open(**with_cookie(session)), here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        await both.heard("websocket.accept")
        line.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await line.ended()
        await here.coat.sessions.revoke(session.id or "")
        await both.heard("websocket.close")
        if not both.task.done():
            both.task.cancel()
            with suppress(asyncio.CancelledError):
                await both.ended()
            assert both.task.cancelled()


async def test_what_was_not_saved_before_a_cut_is_not_saved() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await scope["coatcheck"].load_session()
        scope["session"]["half"] = True
        await talks(scope, receive, send)
        scope["session"]["late"] = True

    async with world(app) as here:
        session = await here.sign_in()
        token = (await here.coat.sessions.issue(session)).access_token
        line = here.open(authorization=f"Bearer {token}")
        await line.heard("websocket.accept")
        here.clock.advance(timedelta(minutes=16))
        await line.ended()
        assert dict(await here.coat.sessions.find(session.id or "")) == {"half": True}


async def test_a_client_that_is_gone_is_no_error() -> None:
    async with world(pushes) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")

        async def gone(message: Any) -> None:
            raise RuntimeError("unexpected ASGI message")

        for connection in next(iter(here.middleware.open_connections._watches.values())).connections:
            connection._send = gone  # type: ignore[attr-defined]  # of an ASGIConnection
        await here.coat.sessions.revoke(session.id or "")
        assert await line.ended() == ["websocket.accept"]


# -- where nothing is heard ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when_stale", "broken", "credential", "last"),
    [
        ("refuse", False, "token", LATER),
        ("refuse", False, "cookie", None),
        ("refuse", True, "cookie", LATER),
        ("ask", False, "token", None),
        ("ask", True, "token", LATER),
        ("ask", False, "cookie", None),
        ("accept", True, "token", None),
        ("accept", True, "cookie", None),
    ],
)
async def test_p6_a_silent_feed_is_borne_as_the_policy_says(
    when_stale: Any, broken: bool, credential: str, last: Any
) -> None:
    """P6, decision 14: a cookie is judged by the store, as it would be if it came now, a token as the policy says."""
    async with world(talks, CountingStore(), when_stale=when_stale) as here:
        session = await here.sign_in()
        token = (await here.coat.sessions.issue(session)).access_token
        presented = with_cookie(session) if credential == "cookie" else {"authorization": f"Bearer {token}"}
        line = here.open(**presented)
        await line.heard("websocket.accept")
        here.coat.revocations.heard_at = monotonic_clock() - 60_000
        here.store.broken = broken
        await here.look()
        if last is None:
            assert not line.task.done()
            assert line.sent[-1]["type"] == "websocket.accept"
        else:
            await line.ended()
            assert line.sent[-1] == last


async def test_p6_with_a_store_of_ones_own_and_no_feed_the_store_is_asked_every_second() -> None:
    """So it hears of other processes as well (F11): what another process has removed is not there any more."""
    kept = MemoryStore()

    class Theirs:
        def __getattr__(self, name: str) -> Any:
            return getattr(kept, name)

    async with world(talks, Theirs()) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        await here.look()
        assert not line.task.done()
        await kept.delete(session.id or "")
        await line.ended()
        assert line.sent[-1] == CLOSED


async def test_p6_a_store_that_hangs_is_not_waited_for() -> None:
    class Hanging(CountingStore):
        async def load(self, id: str) -> Any:
            if self.broken:
                await asyncio.Event().wait()
            return await super().load(id)

    async with world(talks, Hanging()) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        await here.coat.sessions.rotate(session)
        here.store.broken = True
        await line.ended()
        assert line.sent[-1] == LATER


class Slow(CountingStore):
    """Says what was there when it was asked, when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def load(self, id: str) -> Any:
        found = await super().load(id)
        self.asked.set()
        await self.go.wait()
        return found

    def slow_down(self) -> None:
        self.asked.clear()
        self.go.clear()


async def test_what_is_heard_while_the_store_is_being_asked_counts() -> None:
    store = Slow()
    async with world(talks, store) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        await here.coat.sessions.rotate(session)
        store.slow_down()
        await store.asked.wait()
        here.coat.revocations.apply(Revoked(session_id=session.id, until=here.clock() + 60_000))
        store.go.set()
        await line.ended()
        assert line.sent[-1] == CLOSED


async def test_a_handler_that_signs_out_while_the_store_is_being_asked_stays_signed_out() -> None:
    exchanges: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        exchanges.append(scope["coatcheck"])
        await talks(scope, receive, send)

    store = Slow()
    async with world(app, store, idle=timedelta(minutes=30)) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        here.clock.advance(timedelta(minutes=29))
        await here.coat.sessions.touch(session)
        store.slow_down()
        here.clock.advance(timedelta(minutes=1))
        await store.asked.wait()
        exchanges[0].session.become(None)  # as sign_out does, once everybody was told
        store.go.set()
        await here.look()
        assert exchanges[0].principal is None
        assert not line.task.done()


async def test_one_that_ends_while_the_store_is_being_asked_is_not_closed_again() -> None:
    store = Slow()
    async with world(talks, store) as here:
        session = await here.sign_in()
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        store.slow_down()
        revoking = asyncio.create_task(here.coat.sessions.revoke(session.id or ""))
        await store.asked.wait()
        line.said.put_nowait({"type": "websocket.disconnect"})
        await line.until(lambda: here.watched() == 0)
        store.go.set()
        await revoking
        assert await line.ended() == ["websocket.accept"]


async def test_each_event_loop_looks_after_its_own() -> None:
    """Servers have one; test clients may have one for each connection."""
    clock = SettableClock()
    coat = Coatcheck(clock=clock)
    here = World(talks, coat, clock)
    session = await here.sign_in()
    accepted, last = [threading.Event(), threading.Event()], list[Any]()

    async def connect(event: threading.Event) -> None:
        line = here.open(**with_cookie(session))
        await line.heard("websocket.accept")
        event.set()
        await line.ended()
        last.append(line.sent[-1])

    threads = [threading.Thread(target=lambda event=event: asyncio.run(connect(event))) for event in accepted]
    for thread in threads:
        thread.start()
    for event in accepted:
        assert await asyncio.to_thread(event.wait, PATIENCE)
    await coat.sessions.revoke(session.id or "")
    for thread in threads:
        await asyncio.to_thread(thread.join, PATIENCE)
    await coat.close()
    assert last == [CLOSED, CLOSED]
