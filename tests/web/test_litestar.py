"""Litestar's plugin: what handlers ask for, guards, the session that Litestar's own calls change, answers, OpenAPI."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from counting_store import CountingStore
from litestar import Litestar, Request, Response, WebSocket, get, post, websocket
from litestar.datastructures import State
from litestar.exceptions import LitestarException, WebSocketDisconnect
from litestar.params import FromQuery
from litestar.testing import TestClient

from coatcheck import Coatcheck, CoatcheckError, Cookie, InvalidValue, Missing, Policy, StoreUnavailable
from coatcheck.testing import SettableClock
from coatcheck.web.litestar import (
    ANSWERED,
    CoatcheckPlugin,
    CurrentExchange,
    CurrentPrincipal,
    CurrentSession,
    exchange,
    require,
)

pytestmark = pytest.mark.anyio

AnyRequest = Request[Any, Any, Any]
THEIRS = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")]


@dataclass
class Cart:
    items: list[str]


@get("/plain")
async def plain() -> str:
    return "plain"


@post("/sign-in", status_code=200)
async def sign_in(exchange: CurrentExchange) -> str | None:
    return (await exchange.sign_in("ann", amr=("pwd",), scopes=("notes",))).subject


@get("/me", sync_to_thread=True)
def me(principal: CurrentPrincipal) -> str:
    return principal.subject


@get("/all")
async def everything(
    request: AnyRequest, exchange: CurrentExchange, session: CurrentSession, principal: CurrentPrincipal
) -> list[bool]:
    there: Any = request.scope
    return [there["coatcheck"] is exchange, there["session"] is session, session.subject == principal.subject]


@get("/read")
async def read(request: AnyRequest) -> dict[str, Any]:
    return {**request.session}


@post("/write", status_code=200)
async def write(session: CurrentSession) -> str:
    session["by"] = "the dependency"
    return "written"


@post("/set", status_code=200)
async def set_session(request: AnyRequest, cart: FromQuery[bool] = False) -> str:
    request.set_session(Cart(["umbrella"]) if cart else {"a": 1})
    return "set"


@post("/clear", status_code=200)
async def clear_session(request: AnyRequest) -> str:
    request.clear_session()
    return "cleared"


@post("/refused", status_code=200)
async def write_and_refuse(request: AnyRequest) -> None:
    request.session["half"] = True
    raise Missing("no")


@post("/break", status_code=200)
async def write_and_break(request: AnyRequest) -> str:
    request.session["late"] = True
    request.app.state.store.broken = True
    return "written"


@post("/unstorable", status_code=200)
async def change_in_place(request: AnyRequest) -> str:
    request.session.setdefault("cart", []).append(object())
    return "written"


@post("/wrong", status_code=200)
async def wrong() -> None:
    raise InvalidValue("what the program did")


@get("/notes", guards=[require(scopes=["notes"])])
async def notes() -> str:
    return "notes"


@get("/admin", guards=[require(scopes=["admin"])])
async def admin() -> str:
    return "admin"


@get("/recent", guards=[require(max_age=timedelta(minutes=5))])
async def recent() -> str:
    return "recent"


@post("/hook", status_code=200, csrf_exempt=True)
async def hook() -> str:
    return "hook"


@post("/hook-by-path", status_code=200)
async def hook_by_path() -> str:
    return "hook"


@post("/not-a-hook", status_code=200, csrf_exempt="yes")
async def not_a_hook() -> str:
    return "not a hook"


@websocket("/socket")
async def socket(socket: WebSocket[Any, Any, Any], principal: CurrentPrincipal) -> None:
    await socket.accept()
    await socket.send_text(principal.subject)
    await socket.close()


@websocket("/late")
async def late(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.accept()
    exchange(socket).require(scopes=["admin"])


HANDLERS = [
    plain, sign_in, me, everything, read, write, set_session, clear_session, write_and_refuse,
    write_and_break, change_in_place, wrong,
    notes, admin, recent, hook, hook_by_path, not_a_hook, socket, late,
]  # fmt: skip


class World:
    def __init__(self, policy: Policy | None = None, store: CountingStore | None = None, **options: Any) -> None:
        self.clock = SettableClock()
        self.store = store or CountingStore()
        self.coat = Coatcheck(self.store, policy=policy, clock=self.clock)
        self.plugin = CoatcheckPlugin(self.coat, csrf_exempt=["/hook-by-path"])
        self.app = Litestar(
            HANDLERS, plugins=[self.plugin], logging_config=None, state=State({"store": self.store}), **options
        )


@pytest.fixture
def world() -> World:
    return World()


async def test_handlers_ask_for_principal_session_and_exchange_by_name(world: World, browser: Any) -> None:
    """The session is the very one of `request.session`."""
    one = browser(world.app)
    assert (await one("POST", "/sign-in")).body == b"ann"
    assert (await one("GET", "/me")).body == b"ann"
    assert (await one("GET", "/all")).json() == [True, True, True]


async def test_s21_a_route_that_asks_for_nothing_costs_nothing(world: World, browser: Any) -> None:
    answer = await browser(world.app)("GET", "/plain")
    assert sum(world.store.calls.values()) == 0
    assert answer.all("set-cookie") == answer.all("vary") == []


async def test_the_session_of_an_access_token_is_fetched_for_a_handler_that_asks(world: World, browser: Any) -> None:
    session = await world.coat.sessions.create("ann")
    token = (await world.coat.sessions.issue(session)).access_token
    bearer = [("authorization", f"Bearer {token}")]
    one = browser(world.app)
    assert (await one("POST", "/write", headers=bearer)).status == 200
    assert dict(await world.coat.sessions.find(session.id or "")) == {"by": "the dependency"}
    # Without it the session is not there, and a write is told so: it would be lost.
    assert (await one("POST", "/set", headers=bearer)).json()["code"] == "missing"


async def test_litestars_own_calls_change_our_session(world: World, browser: Any) -> None:
    """`set_session` and `clear_session` put something else into the scope; that is what gets saved."""
    one = browser(world.app)
    await one("POST", "/sign-in")
    await one("POST", "/write")
    await one("POST", "/set")
    assert (await one("GET", "/read")).json() == {"a": 1}
    await one("POST", "/set?cart=true")
    assert (await one("GET", "/read")).json() == {"items": ["umbrella"]}
    await one("POST", "/clear")
    assert (await one("GET", "/read")).json() == {}
    assert (await one("GET", "/me")).body == b"ann"


async def test_a_refusal_is_our_answer_and_not_a_500_of_litestars(world: World, browser: Any) -> None:
    """RFC 6750, 3.1; and exactly once, with none of the headers of an answer that succeeded."""
    answer = await browser(world.app)("GET", "/me")
    assert (answer.status, answer.all("www-authenticate"), answer.json()["code"]) == (401, ["Bearer"], "missing")
    assert answer.all("vary") == ["Cookie, Authorization, Sec-Fetch-Site, Origin"]


async def test_what_a_refused_handler_wrote_is_dropped(world: World, browser: Any) -> None:
    one = browser(world.app)
    answer = await one("POST", "/refused")
    assert (answer.status, answer.all("set-cookie")) == (401, [])
    assert world.store.calls["create"] == 0


async def test_p6_a_store_that_is_down_is_503(world: World, browser: Any) -> None:
    one = browser(world.app)
    await one("POST", "/sign-in")
    world.store.broken = True
    assert ((await one("GET", "/me")).status, (await one("GET", "/plain", cookies="")).status) == (503, 200)


async def test_p6_a_store_that_goes_down_before_the_session_is_saved_is_503(world: World, browser: Any) -> None:
    """The response does not leave: nobody is told that something was written which was not."""
    one = browser(world.app)
    await one("POST", "/sign-in")
    answer = await one("POST", "/break")
    assert (answer.status, answer.all("set-cookie"), answer.json()["code"]) == (503, [], "unavailable")
    world.store.broken = False
    assert (await one("GET", "/read")).json() == {}


async def test_data_that_cannot_be_saved_is_a_mistake_of_the_program(world: World, browser: Any) -> None:
    with pytest.raises(LitestarException) as raised:
        await browser(world.app)("POST", "/unstorable")
    assert isinstance(raised.value.__cause__, InvalidValue)


def test_every_error_that_is_about_the_request_has_its_answer() -> None:
    def kinds(kind: type[CoatcheckError]) -> list[type[CoatcheckError]]:
        return [kind, *(below for each in kind.__subclasses__() for below in kinds(each))]

    for kind in kinds(CoatcheckError):
        assert issubclass(kind, ANSWERED) == (kind.status != 500), kind


@pytest.mark.parametrize("debug", [False, True])
async def test_a_mistake_of_the_program_is_litestars_500(browser: Any, debug: bool) -> None:
    answer = await browser(World(debug=debug).app)("POST", "/wrong")
    assert answer.status == 500
    assert (b"what the program did" in answer.body) == debug


async def test_a_handler_of_exceptions_of_the_apps_own_answers_in_our_place(browser: Any) -> None:
    def theirs(_: AnyRequest, error: CoatcheckError) -> Response[str]:
        return Response(error.code, status_code=418)

    answer = await browser(World(exception_handlers={Missing: theirs}).app)("GET", "/me")
    assert (answer.status, answer.body) == (418, b"missing")


async def test_guards(world: World, browser: Any) -> None:
    """S15: by scopes, and by how long ago the sign-in was."""
    one = browser(world.app)
    assert (await one("GET", "/notes")).status == 401
    await one("POST", "/sign-in")
    assert [(await one("GET", path)).status for path in ("/notes", "/admin", "/recent")] == [200, 403, 200]
    assert 'scope="admin"' in ((await one("GET", "/admin")).header("www-authenticate") or "")
    world.clock.advance(timedelta(minutes=6))
    assert "max_age=300" in ((await one("GET", "/recent")).header("www-authenticate") or "")


async def test_f1_other_sites_reach_the_routes_that_say_so(world: World, browser: Any) -> None:
    """By `csrf_exempt=True` on the route, or by path; by nothing that is only nearly so."""
    one = browser(world.app)
    statuses = {path: (await one("POST", path, headers=THEIRS)).status for path in (
        "/hook", "/hook-by-path", "/not-a-hook", "/sign-in", "/write",
    )}  # fmt: skip
    assert statuses == {"/hook": 200, "/hook-by-path": 200, "/not-a-hook": 403, "/sign-in": 403, "/write": 403}


def test_all_routes_have_one_watch_over_what_is_open(
    world: World, client: Callable[[World], TestClient[Litestar]]
) -> None:
    """Litestar makes a middleware for each, which would have a timer and a limit of its own."""
    with client(world) as one:
        cookie = {"cookie": one.post("/sign-in").headers["set-cookie"].partition(";")[0]}
        with one.websocket_connect("/socket", headers=cookie) as connection:
            connection.receive_text()
            assert len(world.plugin.open_connections._watches) == 1  # of one event loop


def test_a_websocket_has_the_principal(world: World, client: Callable[[World], TestClient[Litestar]]) -> None:
    """Refused before it is accepted, and closed after, with our code and reason."""
    with client(world) as one:
        cookie = {"cookie": one.post("/sign-in").headers["set-cookie"].partition(";")[0]}
        with one.websocket_connect("/socket", headers=cookie) as connection:
            assert connection.receive_text() == "ann"
        one.cookies.clear()
        with pytest.raises(WebSocketDisconnect) as refused, one.websocket_connect("/socket"):
            pass
        assert (refused.value.code, refused.value.detail) == (1008, "missing")
        with one.websocket_connect("/late", headers=cookie) as connection, pytest.raises(WebSocketDisconnect) as closed:
            connection.receive_text()
        assert (closed.value.code, closed.value.detail) == (1008, "insufficient")


def test_the_lifespan_opens_and_closes(client: Callable[[World], TestClient[Litestar]]) -> None:
    class Door(CountingStore):
        async def close(self) -> None:
            self.calls["close"] += 1

    world = World(store=Door())
    with client(world):
        assert world.coat.is_open
        assert world.store.calls["close"] == 0
    assert world.store.calls["close"] == 1


def test_p6_it_starts_without_its_store(client: Callable[[World], TestClient[Litestar]], caplog: Any) -> None:
    class Away(CountingStore):
        async def open(self) -> None:
            raise StoreUnavailable("away")

    world = World(store=Away())
    with caplog.at_level(logging.WARNING, "coatcheck"), client(world) as one:
        assert one.get("/plain").status_code == 200
    assert "not opened at start-up" in caplog.text


@pytest.fixture
def client() -> Callable[[World], TestClient[Litestar]]:
    return lambda world: TestClient(world.app, base_url="https://app.example")


def test_the_openapi_document_has_both_credentials() -> None:
    """The cookie by its real name."""
    components = World(Policy(cookie=Cookie("__Host-shop"))).app.openapi_schema.to_schema()["components"]
    assert components["securitySchemes"] == {
        "SessionCookie": {"type": "apiKey", "in": "cookie", "name": "__Host-shop"},
        "AccessToken": {"type": "http", "scheme": "Bearer", "bearerFormat": "JWT"},
    }


def test_an_app_without_openapi_starts() -> None:
    assert World(openapi_config=None).app.openapi_config is None
