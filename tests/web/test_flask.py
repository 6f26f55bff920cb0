"""Flask: its own session object, flashes, errors and tests, and Flask-Login, on our sessions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

import flask
import pytest
from counting_store import CountingStore
from flask import Flask, session
from flask.testing import FlaskClient
from flask_login import (  # type: ignore[import-untyped]
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
    logout_user,
)
from werkzeug.middleware.proxy_fix import ProxyFix

from coatcheck import Coatcheck, ConfigurationError, CredentialError, InvalidValue, SQLiteStore
from coatcheck.testing import SettableClock, signed_in
from coatcheck.web.flask import FlaskSession, csrf_exempt, current_exchange, init_app, run

View = TypeVar("View", bound=Callable[..., Any])

NAME = "__Host-session"
CROSS = {"Sec-Fetch-Site": "cross-site"}


class World:
    def __init__(self) -> None:
        self.clock = SettableClock()
        self.store = CountingStore()
        self.coat = Coatcheck(self.store, clock=self.clock)
        self.app = Flask("app")
        self.background = init_app(self.app, self.coat, csrf_exempt=["/by-path"])
        self.seen: list[Any] = []

    def view(self, name: str, *, methods: tuple[str, ...] = ("GET", "POST")) -> Callable[[View], View]:
        return self.app.route(f"/{name}", endpoint=name, methods=[*methods])

    def client(self) -> FlaskClient:
        return self.app.test_client()


@pytest.fixture
def world() -> Iterator[World]:
    world = World()

    @world.view("sign-in")
    def sign_in() -> str:
        run(current_exchange().sign_in(flask.request.args.get("as", "ann"), scopes=("read",)))
        return "ok"

    @world.view("sign-out")
    def sign_out() -> str:
        return str(run(current_exchange().sign_out()))

    @world.view("plain")
    def plain() -> str:
        return "plain"

    @world.view("write")
    def write() -> str:
        session.update(flask.request.args)
        return "ok"

    @world.view("read")
    def read() -> dict[str, Any]:
        return {**session}

    @world.view("me")
    def me() -> str:
        return current_exchange().require().subject

    yield world
    world.background.close()


def test_flask_session_is_the_session(world: World) -> None:
    """A mapping, saved where it was changed, in place too, and nowhere else (S21)."""

    @world.view("use")
    def use() -> str:
        items = session.setdefault("items", [])
        items.append(len(items))
        session["n"] = session.get("n", 0) + 1
        assert "n" in session
        assert isinstance(session._get_current_object(), FlaskSession)  # type: ignore[attr-defined]
        return " ".join(sorted(session))

    client = world.client()
    assert client.post("/use").text == "items n"
    assert client.post("/use").text == "items n"
    assert client.get("/read").json == {"items": [0, 1], "n": 2}
    world.store.calls.clear()
    for _ in range(10):
        client.get("/read")
    assert world.store.calls == Counter(load=10)


def test_deleting_and_clearing(world: World) -> None:
    @world.view("delete")
    def delete() -> str:
        del session["a"]
        with pytest.raises(KeyError):
            del session["a"]
        return str(len(session))

    @world.view("clear")
    def clear() -> str:
        session.clear()
        return ""

    client = world.client()
    client.post("/write?a=1&b=2&c=3")
    assert client.post("/delete").text == "2"
    client.post("/clear")
    assert client.get("/read").json == {}


def test_the_attributes_that_flask_and_extensions_look_at(world: World) -> None:
    """`modified = True` is what Flask's own needs to be told; ours finds it. `permanent` is the sign-in's to say."""

    @world.view("look")
    def look() -> str:
        world.seen.append((session.new, session.modified, session.accessed, session.permanent))
        session.modified = True
        session["a"] = 1
        world.seen.append((session.new, session.modified, session.accessed, session.permanent))
        session.permanent = False
        with pytest.raises(ConfigurationError, match="persistent=True"):
            session.permanent = True
        run(current_exchange().sign_in("ann", persistent=True))
        session.permanent = True
        world.seen.append((session.new, session.modified, session.accessed, session.permanent))
        return repr(session._get_current_object())  # type: ignore[attr-defined]

    answer = world.client().post("/look")
    assert world.seen == [(True, False, True, False), (True, True, True, False), (False, False, True, True)]
    assert "Max-Age=2592000" in answer.headers["Set-Cookie"]
    assert answer.text.startswith("<Session id=")


def test_c18_who_does_not_look_gets_no_session_and_no_vary(world: World) -> None:
    answer = world.client().get("/plain")
    assert ("Set-Cookie" in answer.headers, "Vary" in answer.headers) == (False, False)
    assert "Cookie" in world.client().get("/read").headers["Vary"]
    assert world.store.calls == Counter()


def test_flashed_messages_are_shown_once(world: World) -> None:
    """`flask.flash` keeps them in the session; templates get categories as pairs."""

    @world.view("flash")
    def flash() -> str:
        flask.flash("saved")
        flask.flash("<b>", "error")
        return ""

    @world.view("show")
    def show() -> str:
        template = (
            "{% for kind, words in get_flashed_messages(with_categories=true) %}{{ kind }}:{{ words }} {% endfor %}"
        )
        return flask.render_template_string(template)

    client = world.client()
    client.post("/flash")
    assert client.get("/show").text == "message:saved error:&lt;b&gt; "
    assert client.get("/show").text == ""


def test_s4_signing_in_changes_the_id_and_keeps_the_visit_and_signing_out_ends_it(world: World) -> None:
    client = world.client()
    client.post("/write?cart=1")
    before = cookie(client)
    client.post("/sign-in")
    assert cookie(client) != before
    assert (client.get("/me").text, client.get("/read").json) == ("ann", {"cart": "1"})
    assert client.post("/sign-out").text == "True"
    assert client.get_cookie(NAME) is None
    assert client.get("/me").status_code == 401


@pytest.mark.parametrize("settings", [{}, {"TESTING": True}, {"DEBUG": True}, {"PROPAGATE_EXCEPTIONS": True}])
def test_an_error_of_ours_that_a_view_lets_pass_is_our_answer(world: World, settings: dict[str, Any]) -> None:
    """Flask would have made a 500 of it; what hooks of the application add to a response is in it (CORS headers)."""
    world.app.config.update(settings)
    world.app.after_request(lambda response: response.headers.set("X-Hook", "1") or response)

    @world.view("scoped")
    def scoped() -> str:
        session["lost"] = 1
        return current_exchange().require(scopes=["write"]).subject

    client = world.client()
    answer = client.get("/me")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert (answer.headers["Cache-Control"], answer.headers["X-Hook"]) == ("no-store", "1")
    client.post("/sign-in")
    answer = client.get("/scoped")
    assert (answer.status_code, cast("Any", answer.json)["error"]) == (403, "insufficient_scope")
    assert client.get("/read").json == {}


@pytest.mark.parametrize("settings", [{}, {"TESTING": True}, {"DEBUG": True}])
def test_an_error_of_ours_from_after_request_or_from_an_error_handler_is_our_answer(
    world: World, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Flask asks no error handler about these. Nothing is saved, and no failure of the program is logged."""
    world.app.config.update(settings)

    def hook(response: flask.Response) -> flask.Response:
        if flask.request.path == "/write":
            current_exchange().require(scopes=["write"])
        return response

    def handler(_: LookupError) -> str:
        return current_exchange().require(scopes=["write"]).subject

    world.app.after_request(hook)
    world.app.register_error_handler(LookupError, handler)

    @world.view("lookup")
    def lookup() -> str:
        session["lost"] = 1
        raise LookupError

    client = world.client()
    assert client.post("/write?lost=1").status_code == 401
    client.post("/sign-in")
    for path in ("/write?lost=1", "/lookup"):
        answer = client.post(path)
        assert (answer.status_code, cast("Any", answer.json)["error"]) == (403, "insufficient_scope")
        assert "Set-Cookie" not in answer.headers
    assert client.get("/read").json == {}
    assert caplog.records == []


def test_an_error_in_the_program_from_after_request_is_flask_s(world: World) -> None:
    """A 500, which its own handler answers."""

    @world.app.after_request
    def hook(response: flask.Response) -> flask.Response:
        if response.status_code == 200:
            raise InvalidValue("not plain data")
        return response

    world.app.register_error_handler(500, lambda error: (type(error.original_exception).__name__, 500))
    answer = world.client().get("/plain")
    assert (answer.status_code, answer.text) == (500, "InvalidValue")


def test_p6_a_store_that_is_away_is_503_and_leaves_the_cookie_alone(world: World) -> None:
    """While the view runs, too."""

    @world.view("rotate")
    def rotate() -> str:
        world.store.broken = True
        run(current_exchange().rotate())
        return ""

    client = world.client()
    client.post("/sign-in")
    answer = client.post("/rotate")
    assert (answer.status_code, answer.headers["Retry-After"], "Set-Cookie" in answer.headers) == (503, "1", False)
    assert client.get("/plain").status_code == 503
    world.store.broken = False
    assert client.get("/me").text == "ann"


def test_an_application_can_answer_our_errors_in_its_own_way(world: World) -> None:
    """Its handler of the narrower class comes first."""
    world.app.register_error_handler(CredentialError, lambda _: flask.redirect("/sign-in"))
    answer = world.client().get("/me")
    assert (answer.status_code, answer.location) == (302, "/sign-in")


def test_an_error_in_the_program_is_flask_s(world: World) -> None:
    """InvalidValue says that the code is wrong: a 500, logged by Flask, and nothing is saved."""

    @world.view("wrong")
    def wrong() -> str:
        session["half"] = 1
        session["whole"] = object()
        return ""

    client = world.client()
    client.post("/sign-in")
    assert client.post("/wrong").status_code == 500
    assert client.get("/read").json == {}
    world.app.testing = True
    with pytest.raises(InvalidValue):
        client.post("/wrong")


def test_f1_views_are_exempt_by_mark_or_by_path(world: World) -> None:
    """By the mark of the view that the request leads to, and no other's: not by its name, its place or its method."""
    world.view("by-path")(lambda: "ok")
    world.view("marked")(csrf_exempt(lambda: "ok"))
    world.view("other", methods=("POST",))(lambda: "ok")

    @world.app.post("/hooks/<int:n>", endpoint="h")
    @csrf_exempt
    def hook(n: int) -> str:
        return str(n)

    client = world.client()
    allowed = ["/by-path", "/marked", "/hooks/3", "/marked?x=/other"]
    refused = ["/other", "/write", "/plain", "/marked/", "/hooks/x", "/hooks/3/other", "/nowhere", "//marked", "/h"]
    assert [client.post(path, headers=CROSS).status_code for path in allowed] == [200] * len(allowed)
    assert [client.post(path, headers=CROSS).status_code for path in refused] == [403] * len(refused)
    assert client.post("/other", headers={"Sec-Fetch-Site": "same-origin"}).text == "ok"
    assert client.get("/plain", headers=CROSS).text == "plain"


def test_a_streamed_body_saves_what_it_changes(world: World) -> None:
    """With `stream_with_context`, as Flask asks for."""

    @world.view("stream")
    def stream() -> flask.Response:
        def body() -> Iterator[str]:
            yield "one"
            session["late"] = 1
            yield "two"

        return flask.Response(flask.stream_with_context(body()))

    client = world.client()
    client.post("/sign-in")
    assert client.get("/stream").text == "onetwo"
    assert client.get("/read").json == {"late": 1}


def test_f11_a_stream_is_cut_on_revocation(world: World) -> None:
    """Before its next part leaves."""

    @world.view("stream")
    def stream() -> flask.Response:
        def body() -> Iterator[str]:
            yield "one"
            yield "two"
            run(world.coat.sessions.revoke_all("ann"))
            yield "a secret"

        return flask.Response(flask.stream_with_context(body()))

    client, left = world.client(), list[bytes]()
    client.post("/sign-in")
    with pytest.raises(BrokenPipeError, match="revoked"):
        left.extend(client.get("/stream", buffered=False).iter_encoded())
    assert left == [b"one", b"two"]


def test_p4_threads_share_nothing_but_the_coatcheck(world: World) -> None:
    """A bearer token's session is not looked up: reading finds nothing, and writing is refused."""
    session = run(world.coat.sessions.create("ann"))
    token = run(world.coat.sessions.issue(session)).access_token
    client = world.client()
    bearer = {"Authorization": f"Bearer {token}"}
    assert (client.get("/me", headers=bearer).text, client.get("/read", headers=bearer).json) == ("ann", {})
    assert client.post("/write?a=1", headers=bearer).status_code == 401


def test_behind_a_proxy_the_scheme_and_host_are_those_that_proxyfix_found(world: World) -> None:
    """F2: wrapped after `init_app`, it comes before us; without it an Origin of https is another site's."""
    origin = {"Origin": "https://app.example", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.example"}
    assert world.client().post("/write?a=1", headers=origin).status_code == 403
    world.app.wsgi_app = ProxyFix(world.app.wsgi_app, x_host=1)  # type: ignore[method-assign]
    assert world.client().post("/write?a=1", headers=origin).status_code == 200


def test_flask_s_own_tests_of_sessions_work(world: World) -> None:
    """`session_transaction` and `test_request_context` call no middleware."""
    client = world.client()
    with client.session_transaction() as inside:
        inside["a"] = 1
    assert client.get("/read").json == {"a": 1}
    with client.session_transaction() as inside:
        assert inside["a"] == 1
        inside["a"] = 2
    assert client.get("/read").json == {"a": 2}
    signed_in(client, world.coat, "ann")
    assert client.get("/me").text == "ann"
    with world.app.test_request_context("/"):
        assert current_exchange().principal is None
        session["x"] = 1
        assert session["x"] == 1


def test_without_init_app_it_says_what_is_missing() -> None:
    app = Flask("bare")
    with app.test_request_context("/"), pytest.raises(ConfigurationError, match="init_app"):
        current_exchange()
    with pytest.raises(ConfigurationError):
        init_app(app, Coatcheck(), csrf_exempt="/hook")


def test_run_where_an_event_loop_runs_says_to_await() -> None:
    async def view() -> None:
        run(asyncio.sleep(60))  # as every store does that is not in memory

    with pytest.raises(RuntimeError, match="await it"):
        asyncio.run(view())


def test_a_coatcheck_is_opened_with_the_first_request(tmp_path: Path) -> None:
    """And closed by whoever wants to."""
    app, coat = Flask("app"), Coatcheck(SQLiteStore(tmp_path / "s.sqlite"))
    background = init_app(app, coat)
    opened = [coat.is_open]
    app.test_client().get("/")
    opened.append(coat.is_open)
    background.close()
    assert [*opened, coat.is_open] == [False, True, False]


# -- Flask-Login


class User(UserMixin):  # type: ignore[misc]  # it has no types
    def __init__(self, id: str) -> None:
        self.id = id


@pytest.fixture
def login(world: World) -> World:
    """An application that knows nothing of us but `init_app`."""
    manager = LoginManager(world.app)
    manager.user_loader(User)
    setattr(manager, "login_view", "plain")  # noqa: B010 - its types say None

    @world.view("login")
    def login() -> str:
        return str(login_user(User("ann")))

    @world.view("logout")
    def logout() -> str:
        return str(logout_user())

    @world.view("home")
    @login_required  # type: ignore[untyped-decorator]
    def home() -> str:
        return str(current_user.id)

    return world


def test_flask_login_works_on_our_session(login: World) -> None:
    """Its keys are in it, and its flash of "please log in"; reading it writes nothing."""
    client = login.client()
    assert client.get("/home").status_code == 302
    assert client.post("/login").text == "True"
    assert client.get("/home").text == "ann"
    login.store.calls.clear()
    client.get("/home")
    assert login.store.calls == Counter(load=1)
    client.post("/logout")
    assert client.get("/home").status_code == 302


def test_flask_login_s_strong_protection_works_too(login: World) -> None:
    """Another browser with the same cookie is nobody."""
    login.app.config["SESSION_PROTECTION"] = "strong"
    client, thief = login.client(), login.client()
    client.post("/login")
    thief.set_cookie(NAME, cookie(client), secure=True, httponly=True)
    assert thief.get("/home", headers={"User-Agent": "another"}).status_code == 302


def test_a_session_that_is_idle_for_too_long_is_logged_out(login: World) -> None:
    """S6: by our clock, whatever Flask's PERMANENT_SESSION_LIFETIME says."""
    client = login.client()
    client.post("/login")
    login.clock.advance(timedelta(days=400))
    assert client.get("/home").status_code == 302


def cookie(client: FlaskClient) -> str:
    found = client.get_cookie(NAME)
    assert found is not None
    return found.value
