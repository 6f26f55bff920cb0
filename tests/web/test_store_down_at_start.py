"""A store that is not there when the application starts (P6)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coatcheck import Coatcheck, SQLiteStore
from coatcheck.web.asgi import CoatcheckMiddleware, exchange

pytestmark = pytest.mark.anyio


async def plain(_: Request) -> Response:
    return PlainTextResponse("hello")


async def me(request: Request) -> Response:
    return PlainTextResponse(exchange(request).require().subject)


async def sign_in(request: Request) -> Response:
    await exchange(request).sign_in("ann")
    return PlainTextResponse("ok")


async def test_p6_a_store_that_is_not_there_at_the_start_keeps_nobody_from_public_pages(
    browser: type[Any], tmp_path: Path
) -> None:
    app = Starlette(
        routes=[Route("/plain", plain), Route("/me", me), Route("/sign-in", sign_in, methods=["POST"])],
        middleware=[Middleware(CoatcheckMiddleware, coatcheck=(coat := Coatcheck(SQLiteStore(tmp_path / "a" / "b"))))],
    )
    ann = browser(app)
    assert (await ann("GET", "/plain")).status == 200
    assert (await ann("POST", "/sign-in")).status == 503
    for credential in (("cookie", f"__Host-session=1{'A' * 22}.{'A' * 43}"), ("authorization", "Bearer x.y.z")):
        assert (await ann("GET", "/me", headers=[credential])).status == 503
    (tmp_path / "a").mkdir()
    assert (await ann("POST", "/sign-in")).status == 200
    assert (await ann("GET", "/me")).status == 200
    await coat.close()
