"""`signed_in(client, coatcheck, subject)`: one line, with whatever test client a framework has."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from coatcheck import Coatcheck, InvalidValue
from coatcheck.run import run
from coatcheck.testing import signed_in
from coatcheck.web.asgi import App, CoatcheckMiddleware, Receive, Scope, Send

ADDRESS = "https://app.example"


def scenario(adapter: str, coat: Coatcheck) -> Any:
    """The scenario app of an adapter."""
    path = Path(__file__).parents[1] / "scenarios" / "apps" / f"{adapter}.py"
    spec = importlib.util.spec_from_file_location(f"scenario_{adapter}", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make(coat)


def app_of(coat: Coatcheck) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = scope["coatcheck"].require().subject.encode() + b" " + scope["session"].get("pet", "none").encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return CoatcheckMiddleware(app, coatcheck=coat)


def test_a_client_of_starlette_acts_for_the_subject() -> None:
    coat = Coatcheck()
    client = TestClient(app_of(coat), base_url=ADDRESS)
    session = signed_in(client, coat, "ann", scopes=("notes",), data={"pet": "owl"})
    assert (session.subject, session.principal and session.principal.scopes) == ("ann", ("notes",))
    assert client.get("/").text == "ann owl"
    assert run(coat.sessions.revoke(session.id or ""))
    assert client.get("/").status_code == 401


def test_a_client_of_flask_acts_for_the_subject() -> None:
    coat = Coatcheck()
    client = scenario("flask", coat).test_client()
    signed_in(client, coat, "ann", data={"pet": "owl"})
    assert client.get("/me").json["subject"] == "ann"
    assert client.get("/read").json == {"pet": "owl"}


def test_a_client_of_litestar_acts_for_the_subject() -> None:
    from litestar.testing import TestClient as LitestarClient

    coat = Coatcheck()
    with LitestarClient(scenario("litestar", coat), base_url=ADDRESS) as client:
        signed_in(client, coat, "ann")
        assert client.get("/me").json()["subject"] == "ann"


@pytest.mark.anyio
async def test_a_client_of_quart_acts_for_the_subject() -> None:
    coat = Coatcheck()
    client = scenario("quart", coat).test_client()
    signed_in(client, coat, "ann")
    answer = await client.get("/me", scheme="https")
    assert (await answer.get_json())["subject"] == "ann"


@pytest.mark.anyio
async def test_in_an_asynchronous_test_too() -> None:
    coat = Coatcheck()
    client = TestClient(app_of(coat), base_url=ADDRESS)
    assert signed_in(client, coat, "ann").subject == "ann"
    assert client.cookies.get("__Host-session")


def test_whom_a_client_was_before_is_forgotten() -> None:
    """C13: two cookies of one name would be refused."""
    coat = Coatcheck()
    client = TestClient(app_of(coat), base_url=ADDRESS)
    for subject in ("ann", "bob"):
        signed_in(client, coat, subject)
    assert client.get("/").text == "bob none"


def test_what_takes_no_cookie_is_told_so() -> None:
    with pytest.raises(InvalidValue, match="no way to give a str a cookie"):
        signed_in("client", Coatcheck(), "ann")
